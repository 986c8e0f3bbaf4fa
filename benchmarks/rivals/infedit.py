"""InfEdit's virtual inversion (Xu et al., CVPR 2024, arXiv:2312.04965)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pix2pix_zero_core.schedule import ddim_sigmas

from ..harness.injection import prompt_to_prompt
from ..harness.sampling import Counted, away_from_empty, predict_both, white_noise
from ..harness.tasks import Problem


@dataclass(frozen=True)
class InfEdit:
    """No inversion: the source branch is the picture under fresh noise, and its consistency noise is known.

    The Denoising Diffusion Consistent Model samples with the largest variance there is, sigma_next^2, so that every
    step starts from an estimate of the picture and noise drawn anew. With e for that noise, the same in both branches,
    x_src = x0 + sigma e and x_tgt = x_edit + sigma e. The target's noise prediction is corrected by what the source's
    misses, e_tgt - e_src + e, which comes to

        x_edit <- x0 + D(x_tgt, target) - D(x_src, source)

    Of the unified attention control, its part that is prompt-to-prompt's is taken: cross-attention maps of what the
    captions share, and self-attention maps, both from the source branch. Not taken are the third branch that mediates
    layouts for non-rigid edits (these are none) and the blend by a mask; and the row without a text takes nothing over,
    where the authors' takes self-attention maps over as well, so that here CFG also amplifies what is taken over, and
    this row may be worse than theirs. The published runs are those of a latent
    consistency model in few steps; Tiny Zoo is none, hence as many steps as all others take.

    Attributes:
        cross: share of the steps in which the swapped caption's tokens take over cross-attention maps.
        own: share of the steps in which self-attention maps are taken over.
        cfg: scale of classifier-free guidance of the target against no text; the source has none.
    """

    cross: float = 0.7
    own: float = 0.7
    cfg: float = 2.0

    @torch.no_grad()
    def __call__(self, denoise: Counted, problem: Problem) -> Tensor:
        """Edit as a `Method`."""
        sigmas = ddim_sigmas(denoise.model.sigmas, problem.steps)[:-1]
        edited = problem.x0
        for index, (sigma, noise) in enumerate(zip(sigmas, white_noise(problem, len(sigmas)), strict=True)):
            reference, x = problem.x0 + sigma * noise, edited + sigma * noise
            rewrites = prompt_to_prompt(index / problem.steps, self.cross, self.own, problem.alignment)
            source, target = predict_both(denoise, problem, reference, x, sigma, rewrites)
            target = away_from_empty(denoise, problem, x, sigma, target, self.cfg)
            edited = problem.x0 + target - source
        return edited
