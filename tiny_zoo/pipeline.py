"""Tiny Zoo as a pipeline of diffusers, made of the checkpoint that ComfyUI loads.

`python -m tiny_zoo.pipeline FOLDER` writes it in diffusers' format, for `StableDiffusionPipeline.from_pretrained`.
"""

# diffusers exports its classes by name only, and annotates a pipeline's parts with the usual ones.
# pyright: reportPrivateImportUsage=false, reportArgumentType=false

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from safetensors.torch import load_file
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Split
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from .captions import END, START, UNKNOWN, VOCABULARY
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


def text_encoder(state: dict[str, Tensor]) -> CLIPTextModel:
    """The text encoder."""
    prefix = "cond_stage_model.transformer."
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
