"""Flow models and diffusion transformers of ComfyUI's own classes, small and with random weights.

Where the stock loader reads all sizes off the keys (`STOCK`) it loads them from a checkpoint; the others have sizes
that it takes for granted, and are made as it would make them.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import comfy.ldm.chroma.model
import comfy.ldm.flux.model
import comfy.ldm.hunyuan_video.model
import comfy.ldm.lumina.model
import comfy.model_patcher
import comfy.sd
import comfy.supported_models
import safetensors.torch
import torch
from torch import Tensor, nn

from tests.comfy.neighbours import Case

TEXT, POOLED, TOKENS = 48, 64, 9


@dataclass(frozen=True)
class Tiny:
    """A small model of a family.

    Attributes:
        config: class in `comfy.supported_models`.
        sizes: of the network.
        last: name of its last layer, made weak so that inversions round-trip, as with trained weights.
        channels: of its latents.
        text: width of its text's tokens.
        extra: what its conditionings have beside tokens: name -> shape, or a value.
        cfg: how strongly its text is followed; 1 for models that have their guidance as an input.
        size: height and width of its latents.
    """

    config: str
    sizes: dict[str, Any]
    last: str
    channels: int = 16
    text: int = TEXT
    extra: dict[str, Any] = field(default_factory=dict)
    cfg: float = 2.0
    size: tuple[int, int] = (12, 16)


FLUX = {
    "in_channels": 16,
    "out_channels": 16,
    "hidden_size": 128,
    "num_heads": 1,
    "depth": 2,
    "depth_single_blocks": 2,
    "context_in_dim": TEXT,
    "mlp_ratio": 2.0,
    "axes_dim": [16, 56, 56],
    "theta": 10000,
    "patch_size": 2,
    "qkv_bias": True,
}
LUMINA = {
    "image_model": "lumina2",
    "patch_size": 2,
    "in_channels": 16,
    "cap_feat_dim": TEXT,
    "n_layers": 2,
    "qk_norm": True,
}
SD3 = {
    "in_channels": 16,
    "pos_embed_scaling_factor": None,
    "depth": 2,
    "input_size": None,
    "adm_in_channels": POOLED,
    "context_embedder_config": {"target": "torch.nn.Linear", "params": {"in_features": TEXT, "out_features": 128}},
    "num_patches": 256,
    "pos_embed_max_size": 16,
    "patch_size": 2,
    "out_channels": 16,
}
COSMOS = {
    "image_model": "cosmos_predict2",
    "max_img_h": 240,
    "max_img_w": 240,
    "max_frames": 128,
    "in_channels": 16,
    "out_channels": 16,
    "patch_spatial": 2,
    "patch_temporal": 1,
    "model_channels": 128,
    "concat_padding_mask": True,
    "crossattn_emb_channels": TEXT,
    "pos_emb_cls": "rope3d",
    "pos_emb_learnable": True,
    "pos_emb_interpolation": "crop",
    "min_fps": 1,
    "max_fps": 30,
    "use_adaln_lora": True,
    "adaln_lora_dim": 16,
    "num_blocks": 2,
    "num_heads": 2,
    "extra_per_block_abs_pos_emb": False,
    "rope_h_extrapolation_ratio": 4.0,
    "rope_w_extrapolation_ratio": 4.0,
    "rope_t_extrapolation_ratio": 1.0,
    "rope_enable_fps_modulation": False,
}
POOL = {"pooled_output": (POOLED,)}

PARAMETERS = {
    "flux": comfy.ldm.flux.model.FluxParams,
    "flux2": comfy.ldm.flux.model.FluxParams,
    "chroma": comfy.ldm.chroma.model.ChromaParams,
    "hunyuan_video": comfy.ldm.hunyuan_video.model.HunyuanVideoParams,
    "lumina2": comfy.ldm.lumina.model.NextDiT,
}
LATER = {
    "flux": {"txt_ids_dims": []},
    "flux2": {"txt_ids_dims": [3]},
    "chroma": {"txt_ids_dims": [], "vec_in_dim": None},
    "hunyuan_video": {"meanflow_sum": False},
}
"""What releases of ComfyUI after 0.3.75 want to be told as well."""

NOT_BEFORE = ("rope_theta", "use_cond_type_embedding", "vision_in_dim")
"""What the oldest ComfyUI does not want to be told."""

MODELS = {
    "SD 3": Tiny("SD3", SD3, "final_layer.linear", extra=POOL),
    "SD 3.5": Tiny("SD3", {**SD3, "qk_norm": "rms", "x_block_self_attn_layers": [0]}, "final_layer.linear", extra=POOL),
    "Flux dev": Tiny(
        "Flux",
        {"image_model": "flux", "vec_in_dim": POOLED, "guidance_embed": True, **FLUX},
        "final_layer.linear",
        extra={**POOL, "guidance": 1.0},
        cfg=1.0,
    ),
    "Flux 2": Tiny(
        "Flux2",
        {
            **FLUX,
            "image_model": "flux2",
            "in_channels": 128,
            "out_channels": 128,
            "axes_dim": [32, 32, 32, 32],
            "theta": 2000,
            "patch_size": 1,
            "qkv_bias": False,
            "vec_in_dim": None,
            "guidance_embed": True,
            "global_modulation": True,
            "mlp_silu_act": True,
            "ops_bias": False,
            "default_ref_method": "index",
            "ref_index_scale": 10.0,
        },
        "final_layer.linear",
        channels=128,
        extra={**POOL, "guidance": 1.0},
        cfg=1.0,
        size=(4, 6),
    ),
    "Chroma": Tiny(
        "Chroma",
        {
            **{key: value for key, value in FLUX.items() if key != "image_model"},
            "image_model": "chroma",
            "in_channels": 64,
            "out_channels": 64,
            "in_dim": 64,
            "out_dim": 128,
            "hidden_dim": 64,
            "n_layers": 2,
            "depth": 2,
        },
        "final_layer.linear",
        extra=POOL,
    ),
    "Lumina 2": Tiny(
        "Lumina2",
        {
            **LUMINA,
            "dim": 64,
            "n_heads": 2,
            "n_kv_heads": 1,
            "axes_dims": [8, 12, 12],
            "axes_lens": [300, 512, 512],
            "rope_theta": 10000.0,
            "ffn_dim_multiplier": 2.0,
        },
        "final_layer.linear",
        extra={"attention_mask": torch.ones(1, TOKENS, dtype=torch.int64)},  # from which the oldest ComfyUI counts
    ),
    "Z-Image": Tiny(
        "ZImage",
        {
            **LUMINA,
            "dim": 256,
            "n_heads": 4,
            "n_kv_heads": 4,
            "axes_dims": [16, 24, 24],
            "axes_lens": [1536, 512, 512],
            "rope_theta": 256.0,
            "ffn_dim_multiplier": 8 / 3,
            "z_image_modulation": True,
            "time_scale": 1000.0,
            "pad_tokens_multiple": 32,
        },
        "final_layer.linear",
    ),
    "Qwen-Image": Tiny(
        "QwenImage",
        {
            "image_model": "qwen_image",
            "in_channels": 64,
            "out_channels": 16,
            "num_layers": 2,
            "attention_head_dim": 32,
            "num_attention_heads": 2,
            "joint_attention_dim": TEXT,
            "axes_dims_rope": (8, 12, 12),
            "patch_size": 2,
        },
        "proj_out",
    ),
    "AuraFlow": Tiny(
        "AuraFlow",
        {
            "cond_seq_dim": TEXT,
            "n_double_layers": 1,
            "n_layers": 3,
            "dim": 64,
            "n_heads": 2,
            "max_seq": 256,
            "in_channels": 4,
            "global_conddim": 64,
        },
        "final_linear",
        channels=4,
    ),
    "HiDream": Tiny(
        "HiDream",
        {
            "image_model": "hidream",
            "in_channels": 16,
            "out_channels": 16,
            "patch_size": 2,
            "num_layers": 1,
            "num_single_layers": 1,
            "attention_head_dim": 32,
            "num_attention_heads": 2,
            "caption_channels": [TEXT, TEXT],
            "text_emb_dim": POOLED,
            "num_routed_experts": 2,
            "num_activated_experts": 1,
            "axes_dims_rope": (16, 8, 8),
            "max_resolution": [64, 64],
            "llama_layers": [0, 1],
        },
        "final_layer.linear",
        extra={**POOL, "conditioning_llama3": (2, 6, TEXT)},
    ),
    "HunyuanImage 2.1": Tiny(
        "HunyuanImage21",
        {
            "image_model": "hunyuan_video",
            **{**FLUX, "mlp_ratio": 4.0, "axes_dim": [64, 64], "theta": 256},
            "in_channels": 64,
            "out_channels": 64,
            "patch_size": [1, 1],
            "vec_in_dim": None,
            "guidance_embed": False,
            "byt5": False,
            "meanflow": False,
            "use_cond_type_embedding": False,
            "vision_in_dim": None,
        },
        "final_layer.linear",
        channels=64,
    ),
    "PixArt Sigma": Tiny(
        "PixArtSigma",
        {
            "image_model": "pixart_sigma",
            "num_heads": 2,
            "patch_size": 2,
            "hidden_size": 64,
            "in_channels": 4,
            "depth": 2,
            "caption_channels": TEXT,
            "model_max_length": 20,
            "input_size": 16,
            "pe_interpolation": 1,
            "micro_condition": False,
        },
        "final_layer.linear",
        channels=4,
        size=(32, 36),
    ),
    "HunyuanDiT": Tiny(
        "HunyuanDiT",
        {
            "image_model": "hydit",
            "depth": 4,
            "hidden_size": 64,
            "num_heads": 2,
            "text_states_dim": TEXT,
            "text_states_dim_t5": 32,
            "text_len": TOKENS,
            "text_len_t5": 6,
        },
        "final_layer.linear",
        channels=4,
        extra={
            "attention_mask": torch.tensor([[1] * (TOKENS - 2) + [0] * 2]),
            "conditioning_mt5xl": (6, 32),
            "attention_mask_mt5xl": torch.tensor([[1] * 5 + [0]]),
        },
    ),
    "Wan 2.1": Tiny(
        "WAN21_T2V",
        {
            "image_model": "wan2.1",
            "model_type": "t2v",
            "dim": 128,
            "out_dim": 16,
            "num_heads": 1,
            "ffn_dim": 128,
            "num_layers": 2,
            "patch_size": (1, 2, 2),
            "freq_dim": 256,
            "window_size": (-1, -1),
            "qk_norm": True,
            "cross_attn_norm": True,
            "eps": 1e-6,
            "in_dim": 16,
        },
        "head.head",
        text=4096,
    ),
    "Cosmos Predict 2": Tiny("CosmosT2IPredict2", COSMOS, "final_layer.linear"),
    "Anima": Tiny("Anima", {**COSMOS, "image_model": "anima"}, "final_layer.linear"),
    "Kandinsky 5 Image": Tiny(
        "Kandinsky5Image",
        {
            "image_model": "kandinsky5",
            "in_visual_dim": 16,
            "out_visual_dim": 16,
            "in_text_dim": TEXT,
            "in_text_dim2": POOLED,
            "time_dim": 32,
            "model_dim": 64,
            "ff_dim": 64,
            "visual_embed_dim": 64,
            "num_text_blocks": 1,
            "num_visual_blocks": 2,
            "axes_dims": (8, 12, 12),
        },
        "out_layer.out_layer",
        extra=POOL,
    ),
    "Krea 2": Tiny(
        "Krea2",
        {
            "image_model": "krea2",
            "features": 128,
            "tdim": 64,
            "txtdim": 16,
            "heads": 4,
            "kvheads": 2,
            "layers": 2,
            "txtlayers": 3,
            "txtheads": 2,
            "txtkvheads": 2,
        },
        "last.linear",
    ),
}

STOCK = ("SD 3", "SD 3.5", "HunyuanImage 2.1", "Wan 2.1")
"""Those that the stock loader takes from a checkpoint as small as this."""


def make(name: str, folder: Path, **changed: Any) -> Any:
    """Make the ModelPatcher of a small model.

    Args:
        name: of its family.
        folder: for the checkpoint of those that the stock loader takes.
        changed: sizes that are other than the family's here.
    """
    tiny, sizes = MODELS[name], MODELS[name].sizes | changed
    if parameters := PARAMETERS.get(kind := sizes.get("image_model", "")):
        known = inspect.signature(parameters).parameters
        sizes = {key: value for key, value in sizes.items() if key in known or key not in NOT_BEFORE}
        sizes |= {key: value for key, value in LATER.get(kind, {}).items() if key in known}
    config = getattr(comfy.supported_models, tiny.config)(sizes)
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, "")
    randomize(model.diffusion_model, tiny.last)
    if name not in STOCK:
        return comfy.model_patcher.ModelPatcher(model, torch.device("cpu"), torch.device("cpu"))
    path = folder / f"{name}.safetensors"
    weights = model.diffusion_model.state_dict()
    safetensors.torch.save_file({key: value.contiguous() for key, value in weights.items()}, path)
    return comfy.sd.load_diffusion_model(str(path), {"dtype": torch.float32})


def randomize(network: nn.Module, last: str) -> None:
    """Give every weight a random value, of the size that keeps activations near 1; the last layer's are small."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in network.named_parameters():
        values = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim > 1:
            values /= parameter[0].numel() ** 0.5
        elif any(part in name for part in ("norm", "scale", "ln_")):
            values = 1 + 0.1 * values
        else:
            values *= 0.02
        parameter.data = values * (0.05 if last in name else 1.0)
        parameter.requires_grad_(False)
    for name, buffer in network.named_buffers():
        if name.endswith("pos_embed"):
            buffer.data = 0.1 * torch.randn(buffer.shape, generator=generator)


def conditioning(name: str, seed: int, tokens: int = TOKENS) -> Any:
    """A random text, as a text encoder might give it."""
    tiny, generator = MODELS[name], torch.Generator().manual_seed(seed)
    extra = {
        key: torch.randn(1, *value, generator=generator) if isinstance(value, tuple) else value
        for key, value in tiny.extra.items()
    }
    return [[torch.randn(1, tokens, tiny.text, generator=generator), extra]]


def case(name: str, model: Any, pictures: int = 1) -> Case:
    """What an edit takes."""
    source, target = conditioning(name, 1), conditioning(name, 2)
    shape = (pictures, MODELS[name].channels, *MODELS[name].size)
    samples = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    if model.get_model_object("latent_format").latent_dimensions == 3:
        samples = samples.unsqueeze(2)
    return Case(name, model, None, source, target, source, {"samples": samples})


def two_pictures(name: str, model: Any) -> tuple[Case, list[Case]]:
    """Two pictures together, and each alone."""
    both = case(name, model, 2)
    alone = [Case(**{**vars(both), "latent": {"samples": samples}}) for samples in _each(both.latent["samples"])]
    return both, alone


def _each(samples: Tensor) -> list[Tensor]:
    return [samples[number : number + 1] for number in range(len(samples))]
