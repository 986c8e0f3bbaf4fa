"""Other predictions that take the steps: from another negative, or kept as the source was outside a mask."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

from pix2pix_zero_core import Denoiser, Inversion, Prediction

from ...harness.tasks import Problem
from .trial import Trial


@dataclass(frozen=True)
class LocalBlend(Trial):
    """Outside a mask the latent stays on the source's way: where source and target predict alike.

    Attributes:
        threshold: of what the mask is made from, as a share of its largest value.
    """

    threshold: float = 0.3

    def guided(self, model: Denoiser, problem: Problem, inversion: Inversion) -> Denoiser:
        """What takes the steps."""
        guidance = super().guided(model, problem, inversion)

        def blended(x: Tensor, sigma: Tensor, cond: Tensor, *, maps: bool = False) -> Prediction:
            prediction = guidance(x, sigma, cond, maps=True)
            kept = x - sigma[0] * inversion.noise_at(float(sigma[0]))
            with torch.no_grad():
                strength = self.strength(prediction, kept, cond - problem.source)
            mask = (strength > self.threshold * strength.amax((2, 3), keepdim=True)).to(x)
            return Prediction(mask * prediction.denoised + (1 - mask) * kept, prediction.maps)

        return blended

    def strength(self, prediction: Prediction, kept: Tensor, shift: Tensor) -> Tensor:
        """How strong the edit is at every place, (B, 1, H, W)."""
        change = (prediction.denoised - kept).abs().mean(1, keepdim=True)
        return avg_pool2d(pad(change, (1, 1, 1, 1), mode="replicate"), 3, 1)


@dataclass(frozen=True)
class LocalBlendByMaps(LocalBlend):
    """As prompt-to-prompt's blend (Hertz et al., arXiv:2208.01626): where the tokens that the edit moves are attended.

    With an edit direction every token moves; each counts by the square of how far, above what it has everywhere.
    """

    def strength(self, prediction: Prediction, kept: Tensor, shift: Tensor) -> Tensor:
        """How strong the edit is at every place, (B, 1, H, W)."""
        weight = shift.square().sum(-1)
        layers: list[Tensor] = []
        for probabilities in prediction.maps.values():
            attended = (probabilities.mean(1) * weight[:, None]).sum(-1)
            side = math.isqrt(attended.shape[1])
            layers.append(interpolate(attended.unflatten(1, (1, side, side)), kept.shape[2:], mode="bilinear"))
        attended = torch.stack(layers).mean(0)
        return attended - attended.amin((2, 3), keepdim=True)
