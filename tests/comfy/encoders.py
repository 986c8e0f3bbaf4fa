"""Text encoders of ComfyUI's own classes, narrow and with random weights, with its own tokenizers."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import comfy.sd
import comfy.sd1_clip
import comfy.supported_models_base
import comfy.text_encoders.aura_t5
import comfy.text_encoders.cosmos
import comfy.text_encoders.flux
import comfy.text_encoders.hidream
import comfy.text_encoders.hunyuan_image
import comfy.text_encoders.lumina2
import comfy.text_encoders.omnigen2
import comfy.text_encoders.pixart_t5
import comfy.text_encoders.qwen_image
import comfy.text_encoders.qwen_vl
import comfy.text_encoders.sd3_clip
import comfy.text_encoders.wan
import pytest
import torch
from torch import Tensor, nn

SD3_WIDTH = 4096
"""To which SD3 widens CLIP's tokens, so that T5's fit behind."""


class HashedEmbedding(nn.Module):
    """The embedding of a large vocabulary in a small one: far apart tokens share a vector."""

    def __init__(self, width: int, rows: int = 997) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, width), requires_grad=False)

    def forward(self, ids: Tensor, out_dtype: torch.dtype = torch.float32) -> Tensor:
        return self.weight[ids * 7919 % len(self.weight)].to(out_dtype)


class NoEyes(nn.Module):
    """In the place of Qwen's network for pictures, whose size is fixed."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()


ROWS = 8  # of vocabularies that are replaced
CLIP = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 3}
T5 = {"d_model": 32, "d_ff": 32, "d_kv": 8, "num_heads": 2, "num_layers": 2, "vocab_size": ROWS}
LANGUAGE_MODEL = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "vocab_size": ROWS,
}
CONFIGS: dict[str, dict[str, int]] = {
    **dict.fromkeys(("clip_l", "clip_g"), CLIP),
    **dict.fromkeys(("t5xxl", "umt5xxl", "pile_t5xl"), T5),
    **dict.fromkeys(("qwen25_7b", "qwen25_3b", "qwen3_4b", "gemma2_2b", "llama"), LANGUAGE_MODEL),
}

ENCODERS: dict[str, tuple[Any, Callable[[], Any], dict[str, Any]]] = {
    "SD1": (comfy.sd1_clip.SD1Tokenizer, lambda: comfy.sd1_clip.SD1ClipModel, {}),
    "SD3, CLIP": (
        comfy.text_encoders.sd3_clip.SD3Tokenizer,
        lambda: comfy.text_encoders.sd3_clip.sd3_clip(t5=False),
        {},
    ),
    "SD3, CLIP and T5": (
        comfy.text_encoders.sd3_clip.SD3Tokenizer,
        comfy.text_encoders.sd3_clip.sd3_clip,
        {"t5xxl_model_config": {**T5, "d_model": SD3_WIDTH}},
    ),
    "Flux": (comfy.text_encoders.flux.FluxTokenizer, comfy.text_encoders.flux.flux_clip, {}),
    "Chroma": (comfy.text_encoders.pixart_t5.PixArtTokenizer, comfy.text_encoders.pixart_t5.pixart_te, {}),
    "AuraFlow": (
        comfy.text_encoders.aura_t5.AuraT5Tokenizer,
        lambda: comfy.text_encoders.aura_t5.AuraT5Model,
        {},
    ),
    "Cosmos": (comfy.text_encoders.cosmos.CosmosT5Tokenizer, comfy.text_encoders.cosmos.te, {}),
    "Wan": (comfy.text_encoders.wan.WanT5Tokenizer, comfy.text_encoders.wan.te, {}),
    "Qwen-Image": (comfy.text_encoders.qwen_image.QwenImageTokenizer, comfy.text_encoders.qwen_image.te, {}),
    "HunyuanImage": (
        comfy.text_encoders.hunyuan_image.HunyuanImageTokenizer,
        lambda: comfy.text_encoders.hunyuan_image.te(byt5=False),
        {},
    ),
    "OmniGen 2": (comfy.text_encoders.omnigen2.Omnigen2Tokenizer, comfy.text_encoders.omnigen2.te, {}),
    "Lumina 2": (comfy.text_encoders.lumina2.LuminaTokenizer, comfy.text_encoders.lumina2.te, {}),
    "HiDream": (comfy.text_encoders.hidream.HiDreamTokenizer, comfy.text_encoders.hidream.hidream_clip, {}),
}
"""Family -> tokenizer, what makes the class of its encoder as the stock loaders do, and sizes of its own."""

if find_spec("comfy.text_encoders.z_image"):  # not in the oldest ComfyUI
    import comfy.text_encoders.z_image

    ENCODERS["Z-Image"] = comfy.text_encoders.z_image.ZImageTokenizer, comfy.text_encoders.z_image.te, {}


def make_encoder(family: str, seed: int = 0) -> Any:
    """Make the CLIP of a family as ComfyUI's loaders do; skips the test where that is none of this ComfyUI's."""
    if family not in ENCODERS:
        pytest.skip("this ComfyUI does not have it")
    tokenizer, make, sizes = ENCODERS[family]
    pieces = Path(comfy.text_encoders.sd3_clip.__file__).parent / "t5_pile_tokenizer" / "tokenizer.model"
    with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(comfy.text_encoders.qwen_vl, "Qwen2VLVisionTransformer", NoEyes)
        clip = comfy.sd.CLIP(
            comfy.supported_models_base.ClipTarget(tokenizer, make()),
            model_options={f"{name}_model_config": dict(config) for name, config in CONFIGS.items()}
            | sizes
            | {"dtype": torch.float32},
            # Gemma and UMT5 come with their tokenizer in the checkpoint; any of SentencePiece will do.
            tokenizer_data={"spiece_model": torch.ByteTensor(list(pieces.read_bytes()))},
            parameters=1,
        )
        for part in clip.cond_stage_model.modules():
            if isinstance(part, comfy.sd1_clip.SDClipModel):
                rows, width = part.transformer.get_input_embeddings().weight.shape
                if rows == ROWS:
                    part.transformer.set_input_embeddings(HashedEmbedding(width))
        generator = torch.Generator().manual_seed(seed)
        for parameter in clip.cond_stage_model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return clip
