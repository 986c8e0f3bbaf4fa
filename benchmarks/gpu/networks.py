"""Networks with random weights at full size, through ComfyUI's own loader. A family is a row of `NETWORKS`."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
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
    import comfy.ops

    module, _, name = network.build.rpartition(".")
    build, arguments = getattr(importlib.import_module(module), name), family_arguments(network) | network.arguments
    shapes = build(**arguments, device="meta", dtype=torch.float32, operations=comfy.ops.disable_weight_init)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator, state = torch.Generator(device).manual_seed(0), dict[str, Tensor]()
    for key, parameter in shapes.state_dict().items():
        if parameter.ndim > 1:
            fan_in = parameter[0].numel()
            values = torch.randn(parameter.shape, generator=generator, device=device) / fan_in**0.5
            values *= 0.3 if key == network.last else 1
        else:
            values = torch.full(parameter.shape, float(key.endswith(("weight", "scale"))), device=device)
        state[key] = values.to(dtype).cpu()
    return state


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
