"""Tiny Zoo as pipelines of diffusers, made of the checkpoints that ComfyUI loads: the UNet's, and the flow model's.

`python -m tiny_zoo.pipeline FOLDER` writes it in diffusers' format, for `StableDiffusionPipeline.from_pretrained`.
"""

# diffusers exports its classes by name only, and annotates a pipeline's parts with the usual ones.
# pyright: reportPrivateImportUsage=false, reportArgumentType=false

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderTiny,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint,
    convert_sd3_transformer_checkpoint_to_diffusers,
)
from safetensors.torch import load_file
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Split
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from .captions import END, START, UNKNOWN, VOCABULARY
from .mmdit import FLOW_DEPTH, HEAD_WIDTH, NEIGHBOURS, PATCH, POSITIONS, pooled
from .networks import (
    LATENT_CHANNELS,
    TEXT_HEADS,
    TEXT_LAYERS,
    TEXT_WIDTH,
    TOKENS,
    UNET_BLOCKS,
    UNET_CHANNELS,
    UNET_HEADS,
    UNET_LEVELS,
)

CHECKPOINT = Path(__file__).parent / "weights" / "checkpoints" / "tiny_zoo.safetensors"
FLOW_CHECKPOINT = CHECKPOINT.with_name("tiny_zoo_flow.safetensors")
FLOW_TEXT = "text_encoders.clip_l.transformer."
LATENT_SIDE = 16
"""Height and width of the latents that it was trained on."""


def load_pipeline(checkpoint: Path = CHECKPOINT) -> StableDiffusionPipeline:
    """Make a pipeline of Tiny Zoo's checkpoint, in float32.

    Args:
        checkpoint: as `tiny_zoo.export` writes it, under Stable Diffusion 1's names.
    """
    state = {name: tensor.float() for name, tensor in load_file(checkpoint).items()}
    return StableDiffusionPipeline(
        vae=autoencoder(state),
        text_encoder=text_encoder(state),
        tokenizer=tokenizer(),
        unet=unet(state),
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


class TinyZooFlowPipeline(StableDiffusion3Pipeline):
    """Stable Diffusion 3's pipeline with the one text encoder of Tiny Zoo, whose last layer is what the model reads."""

    def encode_prompt(self, prompt: str | list[str], *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Encode texts: embeddings (B, L, D) and vectors at the first end tokens (B, D), None behind either."""
        inputs = self.tokenizer(
            prompt, padding="max_length", max_length=self.tokenizer.model_max_length, return_tensors="pt"
        )
        ids = inputs.input_ids.to(self.text_encoder.device)
        with torch.no_grad():
            embedding = self.text_encoder(ids).last_hidden_state
        return embedding, None, pooled(embedding, ids == self.tokenizer.eos_token_id), None


def load_flow_pipeline(checkpoint: Path = FLOW_CHECKPOINT) -> TinyZooFlowPipeline:
    """Make a pipeline of the checkpoint of Tiny Zoo's flow transformer, in float32.

    Args:
        checkpoint: as `tiny_zoo.export` writes it, under Stable Diffusion 3's names.

    Raises:
        FileNotFoundError: there is none.
    """
    if not checkpoint.is_file():
        raise FileNotFoundError(f"There is no {checkpoint}: write it with python -m tiny_zoo.export, after train_flow.")
    state = {name: tensor.float() for name, tensor in load_file(checkpoint).items()}
    return TinyZooFlowPipeline(
        vae=autoencoder(state),
        text_encoder=text_encoder(state, FLOW_TEXT),
        tokenizer=tokenizer(),
        text_encoder_2=None,
        tokenizer_2=None,
        text_encoder_3=None,
        tokenizer_3=None,
        transformer=transformer(state),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
    )


def transformer(state: dict[str, Tensor]) -> SD3Transformer2DModel:
    """The flow transformer, of a checkpoint's tensors."""
    prefix = "model.diffusion_model."
    own = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    model = SD3Transformer2DModel(
        sample_size=LATENT_SIDE,
        patch_size=PATCH,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_layers=FLOW_DEPTH,
        num_attention_heads=FLOW_DEPTH,
        attention_head_dim=HEAD_WIDTH,
        joint_attention_dim=TEXT_WIDTH,
        caption_projection_dim=FLOW_DEPTH * HEAD_WIDTH,
        pooled_projection_dim=TEXT_WIDTH,
        pos_embed_max_size=POSITIONS,
        dual_attention_layers=tuple(NEIGHBOURS),
        qk_norm="rms_norm",
    )
    model.load_state_dict(convert_sd3_transformer_checkpoint_to_diffusers(own))
    return model.eval()


def unet(state: dict[str, Tensor]) -> UNet2DConditionModel:
    """The denoising network, of a checkpoint's tensors."""
    model = UNet2DConditionModel(
        sample_size=LATENT_SIDE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=tuple(level * UNET_CHANNELS for level in UNET_LEVELS),
        down_block_types=("CrossAttnDownBlock2D",) * len(UNET_LEVELS),
        up_block_types=("CrossAttnUpBlock2D",) * len(UNET_LEVELS),
        layers_per_block=UNET_BLOCKS,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=UNET_HEADS,  # diffusers gave the number of heads this name
    )
    model.load_state_dict(convert_ldm_unet_checkpoint(dict(state), model.config))
    return model.eval()


def autoencoder(state: dict[str, Tensor]) -> AutoencoderTiny:
    """The autoencoder, whose latents are the UNet's: there is no factor between them."""
    names = {"first_stage_model.taesd_encoder.": ("encoder", 0), "first_stage_model.taesd_decoder.": ("decoder", 1)}
    layers: dict[str, Tensor] = {}
    for prefix, (part, clamp) in names.items():
        for name, tensor in state.items():
            if name.startswith(prefix):
                number, rest = name.removeprefix(prefix).split(".", 1)
                layers[f"{part}.layers.{int(number) - clamp}.{rest}"] = tensor  # diffusers' clamp is no layer
    model = AutoencoderTiny(latent_channels=LATENT_CHANNELS, scaling_factor=1.0)
    model.load_state_dict(layers)
    return model.eval()


def text_encoder(state: dict[str, Tensor], prefix: str = "cond_stage_model.transformer.") -> CLIPTextModel:
    """The text encoder, whose names in the checkpoint begin with a prefix."""
    config = CLIPTextConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        num_hidden_layers=TEXT_LAYERS,
        num_attention_heads=TEXT_HEADS,
        max_position_embeddings=TOKENS,
        hidden_act="quick_gelu",
        bos_token_id=VOCABULARY[START],
        eos_token_id=VOCABULARY[END],
        pad_token_id=VOCABULARY[END],
    )
    own = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    # Not load_state_dict: the names inside the model differ between transformers 4 and 5, and this knows both.
    return CLIPTextModel.from_pretrained(None, config=config, state_dict=own).eval()


def tokenizer() -> PreTrainedTokenizerFast:
    """The words of the captions: reads as `captions.token_ids` does."""
    words = Tokenizer(WordLevel(dict(VOCABULARY), unk_token=UNKNOWN))
    words.normalizer = Lowercase()  # pyright: ignore[reportAttributeAccessIssue]
    words.pre_tokenizer = Split(Regex("[^a-z0-9]+"), "removed")  # pyright: ignore[reportAttributeAccessIssue]
    words.post_processor = TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single=f"{START} $A {END}", special_tokens=[(token, VOCABULARY[token]) for token in (START, END)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        bos_token=START,
        eos_token=END,
        pad_token=END,
        unk_token=UNKNOWN,
        model_max_length=TOKENS,
    )


def scheduler() -> DDIMScheduler:
    """The noise schedule, Stable Diffusion's."""
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
    )


def main() -> None:
    """Write the pipeline's folder, which gets its name once it is complete."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where to; it must not exist yet")
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    if folder.exists():
        parser.error(f"{folder} exists: remove it, or choose another folder")
    unfinished = folder.with_name(folder.name + ".partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    load_pipeline(arguments.checkpoint).save_pretrained(unfinished)
    os.replace(unfinished, folder)
    print(folder)


if __name__ == "__main__":
    main()
