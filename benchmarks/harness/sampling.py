"""What the methods share: the model that counts, plain inversion, guidance by texts, noise of each picture's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from pix2pix_zero_core import ClassifierFreeGuidance, Denoiser, Inversion, NoiseRegularizer, Prediction, invert
from tiny_zoo.denoiser import TinyZoo, TinyZooFlow, Zoo
from tiny_zoo.mmdit import MMDiT
from tiny_zoo.networks import UNet

from .injection import Rewrite, rewritten_attention
from .tasks import Problem

PLAIN = NoiseRegularizer(strength=0, kl_strength=0)
"""No regularisation: DDIM inversion as it was before the paper."""

Negative = Literal["source", "empty"]


@dataclass
class Counted:
    """Tiny Zoo, counting the rows that its network evaluates: a forward pass is 1 a row, a backward pass 2."""

    model: Zoo
    rows: int = 0

    @property
    def unet(self) -> UNet:
        """Of the model, for methods that take hold of its layers.

        Raises:
            TypeError: it has none.
        """
        if not isinstance(self.model, TinyZoo):
            raise TypeError("This method is one of a UNet; the flow model has none. Leave out --model flow.")
        return self.model.unet

    @property
    def transformer(self) -> MMDiT:
        """Of the model, for methods that take hold of its blocks.

        Raises:
            TypeError: it has none.
        """
        if not isinstance(self.model, TinyZooFlow):
            raise TypeError("This method is one of a transformer; the UNet is none. Give --model flow.")
        return self.model.transformer

    def __call__(self, x: Tensor, sigma: Tensor, cond: Tensor, *, maps: bool = False) -> Prediction:
        """Predict as a `Denoiser`."""
        self.rows += len(x) * (3 if torch.is_grad_enabled() else 1)
        return self.model(x, sigma, cond, maps=maps)


class Method(Protocol):
    """A way to edit."""

    def __call__(self, denoise: Counted, problem: Problem) -> Tensor:
        """Edit pictures: latents (B, 4, 16, 16), every sample independent of the rest of its batch."""
        ...


def ddim_inversion(denoise: Counted, problem: Problem) -> Inversion:
    """Invert explicitly and without regularisation (Song et al., arXiv:2010.02502); a flow by Euler's method."""
    sigmas, coordinates = denoise.model.grid(problem.steps), denoise.model.coordinates
    return invert(denoise, problem.x0, problem.source, sigmas, PLAIN, fixed_point=0, coordinates=coordinates)


def guided_by(
    denoise: Denoiser, problem: Problem, cfg: float, negative: Negative, source_share: float = 0.0
) -> ClassifierFreeGuidance:
    """Guide away from the source caption or from no text, or from some of the former mixed into the latter."""
    text = problem.source if negative == "source" else problem.empty
    if source_share:
        text = torch.lerp(text.expand_as(problem.source), problem.source, source_share)
    return ClassifierFreeGuidance(denoise, text, cfg)


def predict_both(
    denoise: Counted, problem: Problem, reference: Tensor, x: Tensor, sigma: Tensor, rewrites: Mapping[str, Rewrite]
) -> tuple[Tensor, Tensor]:
    """Predict two branches in one batch, so that the second can take attention maps over from the first.

    Args:
        denoise: the model.
        problem: its source captions belong to the reference, its swapped captions to x.
        reference: latent, (B, C, H, W).
        x: latent of the edited branch, same shape.
        sigma: level of both, scalar.
        rewrites: as `rewritten_attention` takes them; maps are those of the reference, then those of x.

    Returns:
        estimates of x0: of the reference and of the edited branch, without classifier-free guidance.
    """
    texts = torch.cat([problem.source, problem.swapped])
    with rewritten_attention(denoise.unet, rewrites):
        denoised = denoise(torch.cat([reference, x]), sigma.repeat(len(texts)), texts).denoised
    return denoised.chunk(2)  # pyright: ignore[reportReturnType]


def away_from_empty(
    denoise: Counted, problem: Problem, x: Tensor, sigma: Tensor, denoised: Tensor, cfg: float
) -> Tensor:
    """Guide a prediction that is there already away from no text; a scale of 1 leaves it, and costs nothing."""
    if cfg == 1:
        return denoised
    negative = denoise(x, sigma.repeat(len(x)), problem.empty).denoised
    return negative + cfg * (denoised - negative)


def velocity(denoise: Denoiser, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
    """Ask a flow for dx/dt, (x - D) / t.

    Args:
        denoise: the model, guided or not.
        x: latent at the time t, (B, C, H, W).
        t: scalar, 0 to 1. Of a picture without noise, at 0, the model is asked at the lowest time of its training.
        cond: conditioning.
    """
    level = t.clamp(min=1e-3)
    return (x - denoise(x, level.repeat(len(x)), cond).denoised) / level


def white_noise(problem: Problem, count: int) -> Tensor:
    """Draw noise for every picture from a generator of its own, seeded by `Problem.noise`: batches do not matter.

    Returns:
        (count, B, 4, H, W).
    """
    seeds = [int(noise.contiguous().view(torch.int32).sum()) for noise in problem.noise.cpu()]
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    shape = (count, *problem.x0.shape[1:])
    noise = torch.stack([torch.randn(shape, generator=generator) for generator in generators], dim=1)
    return noise.to(problem.x0)
