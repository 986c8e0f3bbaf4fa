"""Other texts: a direction scaled for each picture, or one that comes gradually."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pix2pix_zero_core import Denoiser, Inversion, Prediction
from pix2pix_zero_core.schedule import step_at

from ...harness.sampling import Counted
from ...harness.tasks import Problem
from .trial import Trial


@dataclass(frozen=True)
class ScaledDirection(Trial):
    """A direction scaled for each picture, so that its text ends as far along it as the caption with the word swapped.

    After Concept Lancet (Luo et al., CVPR 2025), which asks how much of the concept is in the picture's text.
    """

    def target(self, problem: Problem) -> Tensor:
        """Embeddings of the edited pictures, (B, 77, D)."""
        direction = problem.shifts[: self.ours.sentences].mean(0)
        along = ((problem.swapped - problem.source) * direction).sum((1, 2)) / direction.square().sum()
        return problem.source + self.ours.direction * along[:, None, None] * direction


@dataclass(frozen=True)
class PromptInterpolation(Trial):
    """The text turns gradually, as in PIC (Lee et al., ECCV 2024).

    Attributes:
        share: of the steps after which it has arrived at the target.
    """

    share: float = 0.5

    def model(self, denoise: Counted, problem: Problem, inversion: Inversion) -> Denoiser:
        """What predicts and has maps."""

        def interpolated(x: Tensor, sigma: Tensor, cond: Tensor, *, maps: bool = False) -> Prediction:
            if torch.equal(cond, problem.empty):
                return denoise(x, sigma, cond, maps=maps)
            way = step_at(inversion.sigmas, float(sigma[0])) / problem.steps / self.share
            return denoise(x, sigma, problem.source + min(1.0, way) * (cond - problem.source), maps=maps)

        return interpolated
