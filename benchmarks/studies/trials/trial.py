"""Ours in parts, each of which a trial may change."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pix2pix_zero_core import Denoiser, Inversion, edit, invert
from pix2pix_zero_core.edit import GuidanceStep, map_guidance_step
from pix2pix_zero_core.schedule import ddim_sigmas

from ...harness.methods import Pix2PixZero
from ...harness.sampling import Counted
from ...harness.tasks import Problem


@dataclass(frozen=True)
class Trial:
    """Ours in the inversion's noise and without a region; what is derived from it changes one of its parts.

    Attributes:
        ours: settings.
    """

    ours: Pix2PixZero

    def __call__(self, denoise: Counted, problem: Problem) -> Tensor:
        """Edit as a `Method`."""
        sigmas, source = ddim_sigmas(denoise.model.sigmas, problem.steps), problem.source
        inversion = invert(
            denoise, problem.x0, source, sigmas, self.ours.regularizer, fixed_point=self.ours.fixed_point
        )
        model = self.model(denoise, problem, inversion)
        return edit(
            model,
            inversion,
            source,
            self.target(problem),
            guided=self.guided(model, problem, inversion),
            guidance=self.ours.guidance,
            guide=self.guide(inversion),
        ).edited

    def target(self, problem: Problem) -> Tensor:
        """Embeddings of the edited pictures, (B, 77, D)."""
        return problem.target(self.ours.sentences, self.ours.direction, self.ours.form)

    def model(self, denoise: Counted, problem: Problem, inversion: Inversion) -> Denoiser:
        """What predicts and has maps."""
        return denoise

    def guided(self, model: Denoiser, problem: Problem, inversion: Inversion) -> Denoiser:
        """What takes the steps."""
        return self.ours.guided(model, problem, inversion)

    def guide(self, inversion: Inversion) -> GuidanceStep:
        """What computes a move."""
        return map_guidance_step
