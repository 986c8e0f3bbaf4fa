"""InfEdit's virtual inversion (Xu et al., CVPR 2024, arXiv:2312.04965)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from pix2pix_zero_core.schedule import ddim_sigmas

from ..harness.injection import Rewrite, rewritten_attention, take_over, take_over_aligned
from ..harness.sampling import Counted, white_noise
from ..harness.tasks import Problem

TEMPERATURE = 0.15
"""The blend's lowest threshold is this over the signal: where all is noise maps tell nothing yet."""


@dataclass(frozen=True)
class InfEdit:
    """No inversion: the source branch is the picture under fresh noise, and its consistency noise is known.

    The Denoising Diffusion Consistent Model samples with the largest variance there is, sigma_next^2, so that every
    step starts from an estimate of the picture and noise drawn anew. With e for that noise, the same in both branches,
    x_src = x0 + sigma e and x_tgt = x_edit + sigma e. The target's noise prediction is corrected by what the source's
    misses, e_tgt - e_src + e, which comes to

        x_edit <- x0 + D(x_tgt, target) - D(x_src, source)

    Of the unified attention control all is here that is not for non-rigid edits (these are none): maps that the
    captions share and self-attention maps from the source branch, the latter for the rows without a text as well; and
    the blend, which gives the picture back where the target's cross-attention does not look for its new words. The
    third branch, which mediates layouts, is the source branch while self-attention is taken over, and is left out. The
    published runs are those of a latent consistency model; Tiny Zoo is none.

    Attributes:
        cross: share of the steps in which the swapped caption's tokens take over cross-attention maps.
        own: share of the steps in which self-attention maps are taken over.
        cfg: scale of classifier-free guidance of the target against no text; the source has none.
        blend: how strongly, as a share of the most, a place has to be looked at for new words to be edited; 0 edits
            everywhere, as is always done where the whole picture changes (`Problem.new_words`).
        steps: of its own; 12 in the paper's benchmark, 0 takes as many as the other methods.
    """

    cross: float = 0.7
    own: float = 0.7
    cfg: float = 2.0
    blend: float = 0.55
    steps: int = 0

    @torch.no_grad()
    def __call__(self, denoise: Counted, problem: Problem) -> Tensor:
        """Edit as a `Method`."""
        problem = replace(problem, steps=self.steps or problem.steps)
        sigmas = ddim_sigmas(denoise.model.sigmas, problem.steps)[:-1]
        empty = problem.empty.expand_as(problem.source)
        texts = torch.cat([problem.source, problem.swapped, empty, empty])
        edited, looked = problem.x0, Looked(problem.new_words)
        for index, (sigma, noise) in enumerate(zip(sigmas, white_noise(problem, len(sigmas)), strict=True)):
            rows = torch.cat([problem.x0, edited] * 2) + sigma * noise.repeat(4, 1, 1, 1)
            with rewritten_attention(denoise.unet, self._rewrites(index / problem.steps, problem, looked)):
                source, target, _, negative = denoise(rows, sigma.repeat(len(rows)), texts).denoised.chunk(4)
            edited = problem.x0 + negative + self.cfg * (target - negative) - source
            if self.blend and 0 < index < problem.steps - 1:
                threshold = max(self.blend, TEMPERATURE * float(1 + sigma**2) ** 0.5)
                edited = torch.where(looked.above(threshold, edited), edited, problem.x0)
        return edited

    def _rewrites(self, way: float, problem: Problem, looked: Looked) -> dict[str, Rewrite]:
        """What the rows (source, target, source and target without a text) take over from others at one step."""
        rewrites: dict[str, Rewrite] = {
            "attn2": partial(_across, looked, problem.alignment if way < self.cross else None)
        }
        if way < self.own:
            rewrites["attn1"] = lambda maps: torch.cat([take_over(half) for half in maps.chunk(2)])
        return rewrites


class Looked:
    """Where the target's cross-attention has looked for its new words, up to a step."""

    def __init__(self, words: Tensor) -> None:
        """Begin.

        Args:
            words: which tokens are new, (B, L); where none is, all of the picture counts as looked at.
        """
        self.words = words
        self._sums: dict[int, Tensor] = {}

    def at(self, maps: Tensor) -> None:
        """Take note of a layer's maps, (B, h, N, L)."""
        self._sums[maps.shape[2]] = self._sums.get(maps.shape[2], 0) + maps.mean(1)

    def above(self, threshold: float, like: Tensor) -> Tensor:
        """Where the coarser layers' maps of a new word come to a share of their most, (B, 1, H, W) of a latent."""
        side = round(min(self._sums) ** 0.5)
        shown = (self._sums[side**2] * self.words[:, None]).amax(2).unflatten(1, (1, side, side))
        shown = F.interpolate(shown, size=like.shape[-2:])
        most = shown.amax((2, 3), keepdim=True)
        return (shown > threshold * most) | (most == 0)


def _across(looked: Looked, alignment: Tensor | None, maps: Tensor) -> Tensor:
    source, target, *without = maps.chunk(4)
    if alignment is not None:
        source, target = take_over_aligned(torch.cat([source, target]), alignment).chunk(2)
    looked.at(target)
    return torch.cat([source, target, *without])
