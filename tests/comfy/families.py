"""Tiny checkpoints with random weights in the key layout of each Stable Diffusion family, for the stock loader.

ComfyUI recognises an architecture by its sizes; `register` adds the small sizes to the list that the loader tries, each
as a subclass of the family that it stands for. Every block of the family is there, 32 channels wide instead of 320.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import comfy.ops
import comfy.sd1_clip
import comfy.sdxl_clip
import comfy.supported_models as families
import comfy.text_encoders.sd2_clip
import safetensors.torch
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.supported_models_base import ClipTarget
from torch import Tensor, nn

WIDTH = 32  # of the UNet's first block and of CLIP L
WIDTH_G = 64  # of the OpenCLIP encoders


def text_config(width: int, activation: str) -> dict[str, Any]:
    """A CLIP text model of two layers."""
    return {
        "hidden_size": width,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 2 * width,
        "hidden_act": activation,
        "max_position_embeddings": 77,
        "eos_token_id": 49407,
    }


class ClipL(comfy.sd1_clip.SDClipModel):
    def __init__(self, device="cpu", dtype=None, model_options=None, **settings):
        config = text_config(WIDTH, "quick_gelu")
        super().__init__(
            device=device, dtype=dtype, model_options=model_options or {}, textmodel_json_config=config, **settings
        )


class ClipG(comfy.sd1_clip.SDClipModel):
    def __init__(self, device="cpu", dtype=None, model_options=None, **settings):
        super().__init__(
            device=device,
            dtype=dtype,
            model_options=model_options or {},
            textmodel_json_config=text_config(WIDTH_G, "gelu"),
            layer="hidden",
            layer_idx=-2,
            special_tokens={"start": 49406, "end": 49407, "pad": 0},
            **settings,
        )


class SD1Clip(comfy.sd1_clip.SD1ClipModel):
    def __init__(self, device="cpu", dtype=None, model_options=None):
        super().__init__(device=device, dtype=dtype, model_options=model_options or {}, clip_model=ClipL)


class SD2Clip(comfy.sd1_clip.SD1ClipModel):
    def __init__(self, device="cpu", dtype=None, model_options=None):
        super().__init__(device=device, dtype=dtype, model_options=model_options or {}, clip_name="h", clip_model=ClipG)


class XLClip(comfy.sdxl_clip.SDXLClipModel):
    def __init__(self, device="cpu", dtype=None, model_options=None):
        nn.Module.__init__(self)
        options = {"device": device, "dtype": dtype, "model_options": model_options or {}}
        self.clip_l = ClipL(layer="hidden", layer_idx=-2, layer_norm_hidden_state=False, **options)
        self.clip_g = ClipG(layer_norm_hidden_state=False, **options)
        self.dtypes = {dtype}


class RefinerClip(comfy.sd1_clip.SD1ClipModel):
    def __init__(self, device="cpu", dtype=None, model_options=None):
        super().__init__(device=device, dtype=dtype, model_options=model_options or {}, clip_name="g", clip_model=ClipG)


class TinySD1(families.SD15):
    unet_config: ClassVar = {**families.SD15.unet_config, "context_dim": WIDTH, "model_channels": WIDTH}
    unet_extra_config: ClassVar = {"num_heads": 4, "num_head_channels": -1}

    def clip_target(self, state_dict=None):
        return ClipTarget(comfy.sd1_clip.SD1Tokenizer, SD1Clip)


class TinySD2(families.SD20):
    unet_config: ClassVar = {**families.SD20.unet_config, "context_dim": WIDTH_G, "model_channels": WIDTH}
    unet_extra_config: ClassVar = {**families.SD20.unet_extra_config, "num_head_channels": 16}

    def clip_target(self, state_dict=None):
        return ClipTarget(comfy.text_encoders.sd2_clip.SD2Tokenizer, SD2Clip)


class TinyXL(families.SDXL):
    unet_config: ClassVar = {
        **families.SDXL.unet_config,
        "context_dim": WIDTH + WIDTH_G,
        "model_channels": WIDTH,
        "adm_in_channels": WIDTH_G + 6 * 256,
    }
    unet_extra_config: ClassVar = {"num_heads": -1, "num_head_channels": 16}

    def clip_target(self, state_dict=None):
        return ClipTarget(comfy.sdxl_clip.SDXLTokenizer, XLClip)


class TinyRefiner(families.SDXLRefiner):
    unet_config: ClassVar = {
        **families.SDXLRefiner.unet_config,
        "context_dim": WIDTH_G,
        "model_channels": WIDTH,
        "adm_in_channels": WIDTH_G + 5 * 256,
    }
    unet_extra_config: ClassVar = {"num_heads": -1, "num_head_channels": 16}

    def clip_target(self, state_dict=None):
        return ClipTarget(comfy.sdxl_clip.SDXLTokenizer, RefinerClip)


UNETS: dict[str, dict[str, Any]] = {
    "sd1": {
        "num_res_blocks": [2, 2, 2, 2],
        "channel_mult": (1, 2, 4, 4),
        "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
        "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
        "transformer_depth_middle": 1,
    },
    "xl": {
        "num_res_blocks": [2, 2, 2],
        "channel_mult": (1, 2, 4),
        "transformer_depth": [0, 0, 2, 2, 10, 10],
        "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
        "transformer_depth_middle": 10,
    },
    "refiner": {
        "num_res_blocks": [2, 2, 2, 2],
        "channel_mult": (1, 2, 4, 4),
        "transformer_depth": [0, 0, 4, 4, 4, 4, 0, 0],
        "transformer_depth_output": [0, 0, 0, 4, 4, 4, 4, 4, 4, 0, 0, 0],
        "transformer_depth_middle": 4,
    },
}
"""What ComfyUI reads off the keys of a UNet."""

FAMILIES: dict[str, tuple[Any, Callable[[], Any], str, int]] = {
    "SD 1": (TinySD1, SD1Clip, "sd1", 4),
    "SD 1 inpainting": (TinySD1, SD1Clip, "sd1", 9),
    "SD 2 (v-prediction)": (TinySD2, SD2Clip, "sd1", 4),
    "SDXL": (TinyXL, XLClip, "xl", 4),
    "SDXL refiner": (TinyRefiner, RefinerClip, "refiner", 4),
}
"""Family -> its class, its text encoder, its UNet and the channels of the UNet's input."""


def register() -> None:
    """Tell ComfyUI's loader of the small sizes."""
    for small in (TinySD1, TinySD2, TinyXL, TinyRefiner):
        if small not in families.models:
            families.models.append(small)


def unet_arguments(family: str) -> dict[str, Any]:
    """The arguments of ComfyUI's UNetModel."""
    small, _, unet, channels = FAMILIES[family]
    config = small.unet_config | small.unet_extra_config | UNETS[unet]
    config = {key: value for key, value in config.items() if key not in ("use_temporal_attention", "attn_precision")}
    return config | {
        "image_size": 32,
        "in_channels": channels,
        "out_channels": 4,
        "use_spatial_transformer": True,
        "legacy": False,
        "num_classes": "sequential" if config["adm_in_channels"] else None,
    }


def randomize(module: nn.Module, seed: int) -> None:
    """Give every parameter a random value, of the size that keeps activations near 1."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            fan_in = parameter[0].numel() if "embedding" not in name else 1
            values = torch.randn(parameter.shape, generator=generator) / fan_in**0.5
        else:
            values = 0.2 * torch.randn(parameter.shape, generator=generator)
            if name.endswith("weight"):  # of a normalisation
                values = 1 + values
        parameter.data = values


def write_checkpoint(folder: Path, family: str) -> Path:
    """Make the checkpoint of a family, unless it is there.

    The UNet predicts little noise, so that inversion round-trips, as with trained weights.
    """
    path = folder / f"{family}.safetensors"
    if path.exists():
        return path
    small, text_encoder, _, _ = FAMILIES[family]
    unet, clip = UNetModel(**unet_arguments(family), operations=comfy.ops.disable_weight_init), text_encoder()
    randomize(unet, 0)
    randomize(clip, 1)
    unet.out[2].weight.data *= 0.05
    unet.out[2].bias.data *= 0.05
    config = small(unet_arguments(family))
    weights: dict[str, Tensor] = {
        **config.process_unet_state_dict_for_saving(unet.state_dict()),
        **config.process_clip_state_dict_for_saving(clip.state_dict()),
    }
    safetensors.torch.save_file({key: value.contiguous() for key, value in weights.items()}, path)
    return path
