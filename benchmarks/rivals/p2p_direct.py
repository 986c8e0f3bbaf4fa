"""Prompt-to-prompt with Direct Inversion (Ju et al., ICLR 2024, arXiv:2310.01506)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from pix2pix_zero_core.edit import euler_step

from ..harness.injection import prompt_to_prompt
from ..harness.sampling import Counted, away_from_empty, ddim_inversion, predict_both
from ..harness.tasks import Problem


@dataclass(frozen=True)
class DirectInversion:
    """Two branches leave the plainly inverted noise; the source's is put back where the inversion was at every step.

    The paper adds what the source branch strayed by to it after each step, which is to say, replaces it by the recorded
    latent. The target branch is left alone: it takes attention maps over from a source that is exact (Hertz et al.,
    arXiv:2208.01626). As in the published code its row without text takes nothing over. The defaults are that code's.

    Attributes:
        cross: share of the steps in which the swapped caption's tokens take over cross-attention maps.
        own: share of the steps in which self-attention maps are taken over.
        cfg: scale of classifier-free guidance of the target against no text.
    """

    cross: float = 0.4
    own: float = 0.6
    cfg: float = 7.5

    @torch.no_grad()
    def __call__(self, denoise: Counted, problem: Problem) -> Tensor:
        """Edit as a `Method`."""
        inversion = ddim_inversion(denoise, problem)
        x = inversion.noise
        for index, (sigma, sigma_next) in enumerate(pairwise(inversion.sigmas)):
            reference = inversion.latent_at(float(sigma))
            rewrites = prompt_to_prompt(index / problem.steps, self.cross, self.own, problem.alignment)
            if rewrites:
                _, denoised = predict_both(denoise, problem, reference, x, sigma, rewrites)
            else:  # nobody looks at the source any more
                denoised = denoise(x, sigma.repeat(len(x)), problem.swapped).denoised
            denoised = away_from_empty(denoise, problem, x, sigma, denoised, self.cfg)
            x = euler_step(x, denoised, sigma, sigma_next)
        return x
