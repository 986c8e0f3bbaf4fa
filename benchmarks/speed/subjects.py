"""UNets and pictures to edit with them: Tiny Zoo's, and of full size with random weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pix2pix_zero_core.integrations.diffusers import DiffusersDenoiser, TextConditioning
from tiny_zoo.denoiser import TinyZoo
from tiny_zoo.networks import alphas_cumprod

from ..harness.tasks import Problem


@dataclass(frozen=True)
class Subject:
    """A UNet and pictures to edit with it.

    Attributes:
        name: of the UNet.
        unet: a UNet2DConditionModel that predicts noise.
        problem: the pictures, and the number of steps.
    """

    name: str
    unet: Any
    problem: Problem

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
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(64, 128),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=128,
        attention_head_dim=4,
    )
    state = {f"model.diffusion_model.{name}": weight for name, weight in zoo.unet.state_dict().items()}
    unet.load_state_dict(convert_ldm_unet_checkpoint(state, dict(unet.config)))
    return unet.eval().requires_grad_(False)


def random_subject(name: str, side: int, steps: int, channels: tuple[int, ...], device: torch.device) -> Subject:
    """Stable Diffusion 1.5's UNet, in any width, with random weights and a random picture."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    torch.manual_seed(0)
    unet: Any = UNet2DConditionModel(block_out_channels=channels, cross_attention_dim=768, attention_head_dim=8)
    with torch.no_grad():
        unet.conv_out.weight *= 0.3  # a random network is no denoiser; weakened, it does not throw x about
    return Subject(name, unet.eval().requires_grad_(False).to(device), random_problem(side, steps, 768, device))


def random_problem(side: int, steps: int, width: int, device: torch.device) -> Problem:
    """One picture, a caption and an edit of it, all random."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    latent, text = (1, 4, side // 8, side // 8), (1, 77, width)
    source, swapped = draw(*text), draw(*text)
    alignment = torch.eye(77, device=device)[None]
    return Problem(draw(*latent), draw(*latent), source, swapped, alignment, swapped - source, draw(*text), steps)


@torch.no_grad()
def map_bytes_of_a_row(subject: Subject) -> int:
    """Bytes of the cross-attention maps of all layers, one picture in one forward pass."""
    denoise, x = DiffusersDenoiser(subject.unet, subject.alphas), subject.problem.x0[:1]
    prediction = denoise(x, denoise.sigmas[500:501].to(x), TextConditioning(subject.problem.source[:1]), maps=True)
    return sum(maps.nbytes for maps in prediction.maps.values())
