"""Networks with random weights at full size, through ComfyUI's own loader. A family is a row of `NETWORKS`."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

SD15_BLOCKS = {
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": (1, 2, 4, 4),
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "transformer_depth_middle": 1,
}
SDXL_BLOCKS = {
    "num_res_blocks": [2, 2, 2],
    "channel_mult": (1, 2, 4),
    "transformer_depth": [0, 0, 2, 2, 10, 10],
    "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
    "transformer_depth_middle": 10,
    "num_classes": "sequential",
}
UNET = {"image_size": 32, "in_channels": 4, "out_channels": 4, "use_spatial_transformer": True, "legacy": False}


@dataclass(frozen=True)
class Network:
    """A family of networks.

    Attributes:
        family: class of `comfy.supported_models` that ComfyUI recognises the weights as.
        build: the network's class, with its module.
        arguments: of the class, beside those that the family fixes.
        tokens: of a text's embedding, and
        width: of each of them.
        pooled: width of a text's pooled vector, 0 where there is none.
        latent: shape of a picture's latent.
        last: the weight that makes the prediction.
        sigma: level at which single steps are measured; a flow's is below 1.
        narrowed: what is smaller than in the family, for a run without a GPU; ComfyUI is told of the small one.
        parameters: a class, with its module, whose fields are the arguments that there are, and
        later: arguments of releases of ComfyUI that have them.
    """

    family: str
    build: str
    arguments: dict[str, Any]
    tokens: int
    width: int
    pooled: int
    latent: tuple[int, ...]
    last: str
    sigma: float = 5.0
    narrowed: dict[str, Any] = field(default_factory=dict)
    parameters: str = ""
    later: dict[str, Any] = field(default_factory=dict)


FLOW_TIME = 0.7
"""Level at which single steps of flow models are measured."""


def sd35(depth: int, text: int, pooled: int, latent: tuple[int, ...]) -> Network:
    """Stable Diffusion 3.5, whose loader reads all sizes off the weights."""
    embedder = {"in_features": text, "out_features": 64 * depth}
    sizes = {
        "depth": depth,
        "input_size": None,
        "adm_in_channels": pooled,
        "context_embedder_config": {"target": "torch.nn.Linear", "params": embedder},
        "num_patches": 384**2,
        "pos_embed_max_size": 384,
        "patch_size": 2,
        "out_channels": 16,
        "qk_norm": "rms",
        "x_block_self_attn_layers": list(range((depth + 2) // 2)),
    }
    build = "comfy.ldm.modules.diffusionmodules.mmdit.OpenAISignatureMMDITWrapper"
    return Network("SD3", build, sizes, 154, text, pooled, latent, "final_layer.linear.weight", FLOW_TIME)


FLUX = {
    "in_channels": 16,
    "out_channels": 16,
    "hidden_size": 3072,
    "num_heads": 24,
    "depth": 19,
    "depth_single_blocks": 38,
    "context_in_dim": 4096,
    "vec_in_dim": 768,
    "mlp_ratio": 4.0,
    "axes_dim": [16, 56, 56],
    "theta": 10000,
    "patch_size": 2,
    "qkv_bias": True,
}
Z_IMAGE = {
    "patch_size": 2,
    "in_channels": 16,
    "cap_feat_dim": 2560,
    "n_layers": 30,
    "qk_norm": True,
    "n_heads": 30,
    "n_kv_heads": 30,
    "axes_dims": [32, 48, 48],
    "axes_lens": [1536, 512, 512],
    "rope_theta": 256.0,
    "ffn_dim_multiplier": 8 / 3,
    "z_image_modulation": True,
    "time_scale": 1000.0,
    "pad_tokens_multiple": 32,
}

UNET_CLASS = "comfy.ldm.modules.diffusionmodules.openaimodel.UNetModel"
NETWORKS = {
    "SD 1.5": Network("SD15", UNET_CLASS, UNET | SD15_BLOCKS, 77, 768, 0, (4, 64, 64), "out.2.weight"),
    "SDXL": Network("SDXL", UNET_CLASS, UNET | SDXL_BLOCKS, 77, 2048, 1280, (4, 128, 128), "out.2.weight"),
    "SD 1.5, narrow": Network(
        "SD15",
        UNET_CLASS,
        UNET | SD15_BLOCKS,
        77,
        32,
        0,
        (4, 8, 8),
        "out.2.weight",
        narrowed={"model_channels": 32, "context_dim": 32, "num_heads": 4},
    ),
    "SDXL, narrow": Network(
        "SDXL",
        UNET_CLASS,
        UNET | SDXL_BLOCKS,
        77,
        96,
        64,
        (4, 16, 16),
        "out.2.weight",
        narrowed={"model_channels": 32, "context_dim": 96, "adm_in_channels": 64 + 6 * 256, "num_head_channels": 16},
    ),
    "SD 3.5 medium": sd35(24, 4096, 2048, (16, 64, 64)),
    "SD 3.5, narrow": sd35(2, 48, 64, (16, 12, 16)),
    "Flux.1 dev": Network(
        "Flux",
        "comfy.ldm.flux.model.Flux",
        FLUX,
        256,
        4096,
        768,
        (16, 64, 64),
        "final_layer.linear.weight",
        FLOW_TIME,
        parameters="comfy.ldm.flux.model.FluxParams",
        later={"txt_ids_dims": []},
    ),
    "Z-Image": Network(
        "ZImage",
        "comfy.ldm.lumina.model.NextDiT",
        Z_IMAGE,
        64,
        2560,
        0,
        (16, 64, 64),
        "final_layer.linear.weight",
        FLOW_TIME,
    ),
}
"""Name -> network. A new family is a row here and, to be measured, its name in `plan`."""


@dataclass(frozen=True)
class Subject:
    """A loaded network and what to edit with it.

    Attributes:
        model: a ModelPatcher.
        latent: a random picture, as the nodes take it.
        source: its text, a random embedding.
        target: the edited picture's.
        sigma: level at which single steps are measured.
        clip: its text encoder, where it has one.
    """

    model: Any
    latent: dict[str, Tensor]
    source: Any
    target: Any
    sigma: float = 5.0
    clip: Any = None


def load(name: str, weights: str) -> Subject:
    """Make random weights and load them as ComfyUI loads a file with them.

    Args:
        name: one of `NETWORKS`.
        weights: name of torch's type that they are kept in.
    """
    import comfy.sd

    network, dtype = NETWORKS[name], getattr(torch, weights)
    state = random_weights(network, dtype)
    model = comfy.sd.load_diffusion_model_state_dict(state, model_options={"dtype": dtype})
    if model is None:
        raise RuntimeError(f"ComfyUI does not recognise the weights of {name}: compare its row in NETWORKS.")
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(1, *shape, generator=generator)

    def text() -> Any:
        more = {"pooled_output": draw(network.pooled)} if network.pooled else {}
        return [[draw(network.tokens, network.width), more]]

    return Subject(model, {"samples": draw(*network.latent)}, text(), text(), network.sigma)


def random_weights(network: Network, dtype: torch.dtype) -> dict[str, Tensor]:
    """Weights that keep activations near 1, drawn on the GPU where there is one, from one seed: name -> tensor.

    A random network is no denoiser; its last layer is weakened, so that it does not throw the latent about.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator, state = torch.Generator(device).manual_seed(0), dict[str, Tensor]()
    for key, parameter in without_memory(network).items():
        if parameter.ndim > 1:
            fan_in = parameter[0].numel()
            values = torch.randn(parameter.shape, generator=generator, device=device) / fan_in**0.5
            values *= 0.3 if key == network.last else 1
        else:
            values = torch.full(parameter.shape, float(key.endswith(("weight", "scale"))), device=device)
        state[key] = values.to(dtype).cpu()
    return state


def without_memory(network: Network) -> dict[str, Tensor]:
    """Name -> weight of a network, on the meta device."""
    import comfy.ops

    build, arguments = named(network.build), family_arguments(network) | network.arguments
    if network.parameters:
        known = {of_network.name for of_network in fields(named(network.parameters))}
        arguments |= {key: value for key, value in network.later.items() if key in known}
    return build(**arguments, device="meta", dtype=torch.float32, operations=comfy.ops.disable_weight_init).state_dict()


def named(name: str) -> Any:
    """Something of a module, by both their names."""
    module, _, of_module = name.rpartition(".")
    return getattr(importlib.import_module(module), of_module)


def family_arguments(network: Network) -> dict[str, Any]:
    """What a family fixes of its network's arguments; a narrowed one is made known to ComfyUI's loader."""
    import comfy.supported_models as known

    family: Any = getattr(known, network.family)
    recognised = {k: v for k, v in network.narrowed.items() if k in family.unet_config}
    fixed = {k: v for k, v in network.narrowed.items() if k not in family.unet_config}
    if network.narrowed:
        changed = {
            "unet_config": family.unet_config | recognised,
            "unet_extra_config": family.unet_extra_config | fixed,
        }
        family = type(f"Narrow{network.family}", (family,), changed)
        if family.__name__ not in [model.__name__ for model in known.models]:
            known.models.append(family)
    arguments = family.unet_config | family.unet_extra_config
    return {key: value for key, value in arguments.items() if key not in ("use_temporal_attention", "attn_precision")}
