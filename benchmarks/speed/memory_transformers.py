"""What the guidance's gradient keeps of full-size transformers, by their shapes on the meta device: without weights.

    COMFYUI_PATH=.runtime/comfyui-0.3.75 .runtime/venv/bin/python -m benchmarks.speed.memory_transformers

Counted is what autograd and the maps hold at the peak of one guided step of one picture, in bfloat16, beside weights
and the step's own working memory. Attention keeps what a fused kernel keeps: queries, keys, values, its output and one
number a row. It prints Markdown.
"""

from __future__ import annotations

import argparse
import contextlib
import weakref
from collections import Counter
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ..gpu.networks import FLUX, NETWORKS, Z_IMAGE
from .pack import find_comfyui, load_pack

META = torch.device("meta")
SETTINGS = (
    ("all blocks", "all", False),
    ("default blocks", "", False),
    ("all blocks, checkpointing", "all", True),
    ("default blocks, checkpointing", "", True),
)
"""What is counted: its name, `blocks`, and whether blocks are computed again."""


class Fused(torch.autograd.Function):
    """An attention kernel, as far as memory goes."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, split: bool) -> Tensor:  # noqa: D102
        rows, places, width = len(q), q.shape[-2], q.shape[1] * q.shape[-1] if split else q.shape[-1]
        out = q.new_empty(rows, places, width)
        ctx.save_for_backward(q, k, v, out, q.new_empty(rows, places, dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Any, ...]:  # noqa: D102
        return *map(torch.empty_like, ctx.saved_tensors[:3]), None


def fused(q: Tensor, k: Tensor, v: Tensor, heads: int, *_: Any, skip_reshape: bool = False, **__: Any) -> Tensor:
    """What `attention_pytorch` is called for."""
    return Fused.apply(q, k, v, skip_reshape)


class Meter:
    """Counts the bytes that are kept for the backward pass, every storage once."""

    def __init__(self, weights: Iterator[Tensor]) -> None:
        """Begin at 0.

        Args:
            weights: what is not counted.
        """
        self.weights = {weight.untyped_storage()._cdata for weight in weights}
        self.held, self.bytes, self.peak = Counter[int](), 0, 0

    def add(self, keeper: Any, tensor: Tensor) -> None:
        """Count a tensor for as long as its keeper lives."""
        storage = tensor.untyped_storage()
        if storage._cdata in self.weights:
            return
        if not self.held[storage._cdata]:
            self.bytes += storage.nbytes()
            self.peak = max(self.peak, self.bytes)
        self.held[storage._cdata] += 1
        weakref.finalize(keeper, self.drop, storage._cdata, storage.nbytes())

    def drop(self, storage: int, count: int) -> None:
        """Stop counting one of a storage's tensors."""
        self.held[storage] -= 1
        if not self.held[storage]:
            self.bytes -= count


def models() -> dict[str, tuple[str, dict[str, Any], int, int, int, dict[str, Any]]]:
    """Full sizes: class of `comfy.supported_models`, its sizes, channels, width and number of tokens, other inputs."""
    sd35 = {"in_channels": 16, "pos_embed_scaling_factor": None} | NETWORKS["SD 3.5 medium"].arguments
    flux = {"image_model": "flux", "guidance_embed": True} | FLUX
    zimage = {"image_model": "lumina2", "dim": 3840} | Z_IMAGE
    cosmos = {
        "image_model": "cosmos_predict2",
        "max_img_h": 240,
        "max_img_w": 240,
        "max_frames": 128,
        "in_channels": 16,
        "out_channels": 16,
        "patch_spatial": 2,
        "patch_temporal": 1,
        "model_channels": 2048,
        "concat_padding_mask": True,
        "crossattn_emb_channels": 1024,
        "pos_emb_cls": "rope3d",
        "pos_emb_learnable": True,
        "pos_emb_interpolation": "crop",
        "min_fps": 1,
        "max_fps": 30,
        "use_adaln_lora": True,
        "adaln_lora_dim": 256,
        "num_blocks": 28,
        "num_heads": 16,
        "extra_per_block_abs_pos_emb": False,
        "rope_h_extrapolation_ratio": 4.0,
        "rope_w_extrapolation_ratio": 4.0,
        "rope_t_extrapolation_ratio": 1.0,
        "rope_enable_fps_modulation": False,
    }
    return {
        "Stable Diffusion 3.5 medium": ("SD3", sd35, 16, 4096, 154, {"y": (1, 2048)}),
        "Flux.1 dev": ("Flux", flux, 16, 4096, 256, {"y": (1, 768), "guidance": (1,)}),
        "Z-Image": ("ZImage", zimage, 16, 2560, 64, {}),
        "Qwen-Image": ("QwenImage", {"image_model": "qwen_image", "num_layers": 60}, 16, 3584, 64, {}),
        "Cosmos Predict 2, 2B (Anima's size)": ("CosmosT2IPredict2", cosmos, 16, 1024, 512, {}),
    }


def kept(pack: Any, name: str, side: int, blocks: str, checkpointing: bool) -> int:
    """Count the bytes at the peak of one guided step.

    Args:
        pack: the node pack.
        name: one of `models`.
        side: width and height of the picture, pixels.
        blocks: as the nodes take them.
        checkpointing: whether blocks are computed again.
    """
    import comfy.supported_models

    attention, gradient = pack.nodes.attention, pack.nodes.gradient
    kind, sizes, channels, width, count, others = models()[name]
    config = getattr(comfy.supported_models, kind)(sizes)
    config.set_inference_dtype(torch.bfloat16, None)
    with META:
        model = config.get_model({}, "", device=META)
    network, latent = model.diffusion_model, side // 8
    patcher = SimpleNamespace(object_patches={})
    layers = attention.TextAttention(SimpleNamespace(inner_model=model, model_patcher=patcher), blocks)
    place = attention.Place(0, 0, latent, latent)
    text = attention.Text("text", place, torch.empty(1, count, width, device=META), torch.arange(count), count)
    current = attention.Pass([attention.Row(text, 0, place)], 1, 1, layers.guided)
    meter = Meter(iter(network.parameters()))
    with META, torch.enable_grad(), contextlib.ExitStack() as run:
        of_frame = (1,) if model.latent_format.latent_dimensions == 3 else ()
        x = torch.empty(1, channels, *of_frame, latent, latent, dtype=torch.bfloat16).requires_grad_()
        run.enter_context(counting(gradient, meter))
        run.enter_context(layers.hooked())
        saved = run.enter_context(gradient.differentiable())
        if checkpointing:
            run.enter_context(gradient.checkpointed(network, layers, saved))
        run.enter_context(layers.watching(current))
        override = {attention.OVERRIDE: partial(attention._differentiable, None), attention.PACK: True}
        inputs: dict[str, Any] = {key: torch.empty(shape, dtype=torch.bfloat16) for key, shape in others.items()}
        if kind == "ZImage":
            inputs["num_tokens"] = count
        context = torch.empty(1, count, width, dtype=torch.bfloat16)
        network(x, torch.empty(1), context=context, transformer_options=override, **inputs)
        maps = {key: probabilities for key, (_, _, probabilities) in current.seen.items()}
        for probabilities in maps.values():
            meter.add(probabilities, probabilities)
        reference = {key: torch.empty_like(probabilities) for key, probabilities in maps.items()}
        for probabilities in reference.values():
            meter.add(probabilities, probabilities)
        loss = pack.pix2pix_zero_core.attention.map_distance(maps, reference)
        torch.autograd.grad(loss.sum(), x)
    return meter.peak


@contextlib.contextmanager
def counting(gradient: Any, meter: Meter) -> Iterator[None]:
    """Let a meter see what `nodes/gradient.py` keeps. On the meta device storages have no address of their own."""
    before, address = gradient._Saved.__setattr__, torch.UntypedStorage.data_ptr

    def note(self: Any, name: str, value: Any) -> None:
        before(self, name, value)
        if name == "tensor":
            meter.add(self, value)

    gradient._Saved.__setattr__ = note
    torch.UntypedStorage.data_ptr = lambda self: self._cdata
    try:
        yield
    finally:
        gradient._Saved.__setattr__ = before
        torch.UntypedStorage.data_ptr = address


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, nargs="+", default=[512, 1024], help="width and height, pixels")
    parser.add_argument("--model", nargs="+", choices=models(), default=list(models()))
    options = parser.parse_args()
    find_comfyui(["--cpu"])
    pack = load_pack()
    pack.nodes.attention.attention_pytorch = fused
    print("| GiB, bfloat16 | " + " | ".join(name for name, *_ in SETTINGS) + " |")
    print("|---" * (1 + len(SETTINGS)) + "|", flush=True)
    for side in options.side:
        for name in options.model:
            print(f"| {name}, {side} px", end="", flush=True)
            for _, blocks, checkpointing in SETTINGS:
                print(f" | {kept(pack, name, side, blocks, checkpointing) / 2**30:.1f}", end="", flush=True)
            print(" |", flush=True)


if __name__ == "__main__":
    main()
