"""UNets and pictures to edit with them: Tiny Zoo's, and of full size with random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pix2pix_zero_core import Prediction
from pix2pix_zero_core.integrations.diffusers import DiffusersDenoiser, TextConditioning
from pix2pix_zero_core.integrations.diffusers_flow import FlowConditioning, SD3Denoiser
from pix2pix_zero_core.schedule import ddim_sigmas
from tiny_zoo.denoiser import TinyZoo
from tiny_zoo.networks import alphas_cumprod

from ..harness.tasks import Problem

FLOW_WIDTH = 4096
"""Of the text's tokens, as T5 has them."""


@dataclass(frozen=True)
class Subject:
    """A network and pictures to edit with it.

    Attributes:
        name: of the network.
        unet: a UNet2DConditionModel that predicts noise, or an SD3Transformer2DModel.
        problem: the pictures, and the number of steps.
    """

    name: str
    unet: Any
    problem: Problem

    @property
    def is_flow(self) -> bool:
        """Whether it is a transformer, which predicts a flow's velocity."""
        return hasattr(self.unet, "transformer_blocks")

    def denoiser(self) -> Callable[..., Prediction]:
        """The network as a `Denoiser` whose conditionings are embeddings, (B, L, D)."""
        if self.is_flow:
            of_flow, pooled = SD3Denoiser(self.unet), torch.zeros(1, self.unet.config.pooled_projection_dim)
            return lambda x, sigma, cond, **more: of_flow(x, sigma, FlowConditioning(cond, pooled.to(x)), **more)
        denoise = DiffusersDenoiser(self.unet, self.alphas)
        return lambda x, sigma, cond, **more: denoise(x, sigma, TextConditioning(cond), **more)

    def grid(self, steps: int) -> Tensor:
        """DDIM's levels, as `tiny_zoo.denoiser.Zoo.grid`; a flow's are even."""
        if self.is_flow:
            return torch.linspace(1, 0, steps + 1)
        return ddim_sigmas(DiffusersDenoiser(self.unet, self.alphas).sigmas, steps)

    @property
    def alphas(self) -> Tensor:
        """The schedule of Stable Diffusion, which Tiny Zoo shares, (1000,)."""
        return alphas_cumprod().to(self.problem.x0)

    def part(self, first: int, count: int) -> Subject:
        """The pictures first .. first + count - 1 of it."""
        return replace(self, problem=self.problem.part(first, count))

    def in_steps(self, steps: int) -> Subject:
        """The same in another number of steps."""
        return replace(self, problem=replace(self.problem, steps=steps))


def moved(problem: Problem, device: torch.device) -> Problem:
    """A problem on a device."""
    tensors = {name: value.to(device) for name, value in vars(problem).items() if isinstance(value, Tensor)}
    return replace(problem, **tensors)


def tiny_zoo_unet(zoo: TinyZoo) -> Any:
    """Tiny Zoo's UNet as one of diffusers."""
    from tiny_zoo.pipeline import unet

    state = {f"model.diffusion_model.{name}": weight for name, weight in zoo.unet.state_dict().items()}
    return unet(state).requires_grad_(False)


def random_subject(name: str, side: int, steps: int, channels: tuple[int, ...], device: torch.device) -> Subject:
    """Stable Diffusion 1.5's UNet, in any width, with random weights and a random picture."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    torch.manual_seed(0)
    unet: Any = UNet2DConditionModel(block_out_channels=channels, cross_attention_dim=768, attention_head_dim=8)
    with torch.no_grad():
        unet.conv_out.weight *= 0.3  # a random network is no denoiser; weakened, it does not throw x about
    return Subject(name, unet.eval().requires_grad_(False).to(device), random_problem(side, steps, 768, device))


def random_transformer(name: str, blocks: int, side: int, steps: int, device: torch.device) -> Subject:
    """Stable Diffusion 3.5's transformer, medium where it has 24 blocks, with random weights in bfloat16."""
    from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel

    torch.manual_seed(0)
    with torch.device(device):
        transformer: Any = SD3Transformer2DModel(
            sample_size=128,
            num_layers=blocks,
            num_attention_heads=blocks,
            caption_projection_dim=64 * blocks,
            joint_attention_dim=FLOW_WIDTH,
            pos_embed_max_size=384,
            qk_norm="rms_norm",
            dual_attention_layers=tuple(range((blocks + 2) // 2)),
        ).bfloat16()
    with torch.no_grad():
        transformer.proj_out.weight *= 0.3
    problem = random_problem(side, steps, FLOW_WIDTH, device, channels=16)
    return Subject(name, transformer.eval().requires_grad_(False), problem)


def random_problem(side: int, steps: int, width: int, device: torch.device, channels: int = 4) -> Problem:
    """One picture, a caption and an edit of it, all random."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    latent, text = (1, channels, side // 8, side // 8), (1, 77, width)
    source, swapped = draw(*text), draw(*text)
    alignment = torch.eye(77, device=device)[None]
    new_words = torch.zeros(alignment.shape[:2], dtype=torch.bool)
    return Problem(
        draw(*latent), draw(*latent), source, swapped, alignment, swapped - source, draw(*text), steps, new_words
    )


@torch.no_grad()
def map_bytes_of_a_row(subject: Subject) -> int:
    """Bytes of the cross-attention maps of all layers, one picture in one forward pass."""
    x, level = subject.problem.x0[:1], subject.grid(2)[1:2]
    prediction = subject.denoiser()(x, level.to(x), subject.problem.source[:1], maps=True)
    return sum(maps.nbytes for maps in prediction.maps.values())
