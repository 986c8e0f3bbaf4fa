"""Where an edit happens: the places at which the two texts disagree about the picture; the rest stays as it was.

    d(sigma) = |eps(x_ref, target) - eps(x_ref, source)|,  mean over channels, on the inversion's trajectory x_ref,
    W        = clamp((d / top - low) / (threshold - low), 0, 1),  d averaged over some levels, top its quantile,
    eps      = eps_ref + W (eps_edited - eps_ref).

With W = 0 a place follows the recorded trajectory back to the picture, exactly; with W = 1 it is edited freely. The
mask is that of DiffEdit (Couairon et al., ICLR 2023, arXiv:2210.11427), made soft and taken where the inversion was, so
that no noise is drawn; mixing predictions rather than latents is that of OAVC (arXiv:2609.06288). Texts that disagree
all over the picture (a sketch, a painting) leave nearly all of it free: W is measured against the picture's own largest
disagreement.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .edit import GuidanceStep
from .types import Denoiser, Inversion, Prediction, predict

TOP = 0.98
"""Quantile of the disagreement in a picture that counts as its largest."""

SOFT = 0.25
"""Where the edge of a region begins, as a fraction of where it ends."""

SIGMAS = (1.0, 6.0)
"""Ratios of noise to signal at which texts are compared: below, they disagree about details alone; above, about all."""


@torch.no_grad()
def edit_region(
    denoise: Denoiser, inversion: Inversion, source: Any, target: Any, threshold: float = 0.4, levels: int = 3
) -> Tensor:
    """Find where an edit happens. A level costs two rows a picture.

    Args:
        denoise: the model, one row a sample.
        inversion: of the picture, with its trajectory.
        source: conditioning of the picture.
        target: conditioning of the edited picture.
        threshold: disagreement from which a place is edited freely, as a fraction of the picture's largest, above 0 and
            at most 1. The edit fades out below it, down to a quarter of it.
        levels: how many noise levels the texts are compared at, at least 1.

    Returns:
        weights W of the edit, (B, 1, H, W), 0 where the picture stays and 1 where it is edited freely.

    Raises:
        ValueError: a setting is out of range, the inversion has no trajectory, or a prediction holds NaN or Inf.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"The region's threshold is {threshold}; it must be above 0 and at most 1.")
    if levels < 1:
        raise ValueError(f"The region's levels are {levels}; it must be >= 1.")
    if inversion.trajectory is None:
        raise ValueError("edit_region: the inversion has no trajectory. Invert a picture, which records one.")
    disagreement = torch.zeros_like(inversion.noise[:, :1])
    for sigma in _levels(inversion, levels).to(inversion.noise):
        x = inversion.latent_at(float(sigma))
        difference = predict(denoise, x, sigma, target).denoised - predict(denoise, x, sigma, source).denoised
        disagreement += (difference / inversion.coordinates.noise_to_signal(sigma)).abs().mean(1, keepdim=True)
    smooth = F.avg_pool2d(F.pad(disagreement, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    top = smooth.flatten(1).quantile(TOP, dim=1)[:, None, None, None]
    top = torch.where(top > 0, top, smooth.amax((1, 2, 3), keepdim=True))  # texts that differ in a small area alone
    share = torch.where(top > 0, smooth / top, 1.0)  # texts that agree everywhere draw no region
    return ((share / threshold - SOFT) / (1 - SOFT)).clamp(0, 1)


def _levels(inversion: Inversion, count: int) -> Tensor:
    """Some of a grid's levels within the range, evenly chosen; the one nearest to it where none is.

    A flow's first level, where all is noise, is none: in a single step of it the comparison is made on the way.
    """
    low, high = SIGMAS
    ratios = inversion.coordinates.noise_to_signal(inversion.sigmas)
    inside = inversion.sigmas[(ratios >= low) & (ratios <= high)]
    if len(inside) == 0:
        between = inversion.sigmas[:-1] if bool(ratios[:-1].isfinite().any()) else 0.7 * inversion.sigmas[:1]
        ratios = inversion.coordinates.noise_to_signal(between)
        return between[(ratios.log() - math.log(low * high) / 2).abs().argmin()][None]
    chosen = torch.linspace(0, len(inside) - 1, min(count, len(inside))).round().long()
    return inside[chosen.to(inside.device)]


@dataclass(frozen=True)
class RegionalDenoiser:
    """A denoiser that edits in a region alone: elsewhere it predicts what the inversion recorded.

    Attributes:
        denoise: predicts the edited picture, guided or not.
        inversion: of the picture, with its trajectory.
        region: weights of the edit, (B, 1, H, W).
    """

    denoise: Denoiser
    inversion: Inversion
    region: Tensor

    def __call__(self, x: Tensor, sigma: Tensor, cond: Any, *, maps: bool = False) -> Prediction:
        """Predict as a :class:`Denoiser`; every sample of the batch is at the same level."""
        prediction = self.denoise(x, sigma, cond, maps=maps)
        recorded = self.inversion.replayed(x, float(sigma[0]))
        return Prediction(torch.lerp(recorded, prediction.denoised, self.region.to(x)), prediction.maps)


def within(guide: GuidanceStep, region: Tensor) -> GuidanceStep:
    """Let guidance move the latent in a region alone.

    Args:
        guide: computes the move of each guided step.
        region: weights of the edit, (B, 1, H, W).
    """

    def step(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        move, loss, denoised = guide(*arguments)
        return move * region.to(move), loss, denoised

    return step
