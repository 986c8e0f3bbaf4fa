"""Where an edit happens: the places at which the two texts disagree about the picture; the rest stays as it was.

    d(sigma) = |eps(x_ref, target) - eps(x_ref, source)|,  mean over channels, on the inversion's trajectory x_ref,
    W        = clamp((d / top - low) / (high - low), 0, 1),  d averaged over some levels, top its quantile,
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

from .types import Denoiser, Inversion, Prediction, predict


@dataclass(frozen=True)
class RegionSettings:
    """How a region is drawn.

    Attributes:
        low: disagreement at which the edit begins, as a fraction of the picture's largest.
        high: disagreement from which a place is edited freely, as such a fraction. 0 edits everywhere.
        levels: noise levels at which the texts are compared; two rows each.

    Raises:
        ValueError: a setting is out of range.
    """

    low: float = 0.1
    high: float = 0.4
    levels: int = 5

    TOP = 0.98
    """Quantile of the disagreement that counts as the largest."""
    SIGMAS = (1.0, 6.0)
    """Range of the levels' noise to signal: below it the texts disagree about details alone, above it about all."""

    def __post_init__(self) -> None:
        """Validate the settings."""
        if not 0 <= self.low < self.high <= 1:
            raise ValueError(
                f"RegionSettings: low is {self.low} and high is {self.high}; they are fractions with "
                "0 <= low < high <= 1."
            )
        if self.levels < 1:
            raise ValueError(f"RegionSettings: levels is {self.levels}; it must be >= 1.")


@torch.no_grad()
def edit_region(
    denoise: Denoiser,
    inversion: Inversion,
    source: Any,
    target: Any,
    settings: RegionSettings = RegionSettings(),
) -> Tensor:
    """Find where an edit happens.

    Args:
        denoise: the model, one row a sample.
        inversion: of the picture, with its trajectory.
        source: conditioning of the picture.
        target: conditioning of the edited picture.
        settings: how the region is drawn.

    Returns:
        weights W of the edit, (B, 1, H, W), 0 where the picture stays and 1 where it is edited freely.

    Raises:
        ValueError: the inversion has no trajectory, or a prediction holds NaN or Inf.
    """
    if inversion.trajectory is None:
        raise ValueError("edit_region: the inversion has no trajectory. Invert a picture, which records one.")
    disagreement = torch.zeros_like(inversion.noise[:, :1])
    for sigma in _levels(inversion, settings).to(inversion.noise):
        x = inversion.latent_at(float(sigma))
        difference = predict(denoise, x, sigma, target).denoised - predict(denoise, x, sigma, source).denoised
        disagreement += (difference / inversion.coordinates.noise_to_signal(sigma)).abs().mean(1, keepdim=True)
    smooth = F.avg_pool2d(F.pad(disagreement, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    top = smooth.flatten(1).quantile(settings.TOP, dim=1)[:, None, None, None]
    share = torch.where(top > 0, smooth / top, 1.0)  # texts that agree everywhere draw no region
    return ((share - settings.low) / (settings.high - settings.low)).clamp(0, 1)


def _levels(inversion: Inversion, settings: RegionSettings) -> Tensor:
    """Some of a grid's levels within the range, evenly chosen; the one nearest to it where none is."""
    low, high = settings.SIGMAS
    ratios = inversion.coordinates.noise_to_signal(inversion.sigmas)
    inside = inversion.sigmas[(ratios >= low) & (ratios <= high)]
    if len(inside) == 0:
        return inversion.sigmas[(ratios[:-1].log() - math.log(low * high) / 2).abs().argmin()][None]
    chosen = torch.linspace(0, len(inside) - 1, min(settings.levels, len(inside))).round().long()
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
