"""Edit-friendly DDPM inversion (Huberman-Spiegelglas et al., CVPR 2024, arXiv:2304.06140)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from pix2pix_zero_core.schedule import ddim_sigmas
from pix2pix_zero_core.types import Denoiser

from ..harness.sampling import Counted, guided_by, white_noise
from ..harness.tasks import Problem


@dataclass(frozen=True)
class DdpmFriendly:
    """Noise the picture independently for every step, and find what a stochastic sampler must add to pass through.

    In VE coordinates a step of DDPM (eta = 1) is

        x_next = mu(x) + s z,    mu(x) = D(x) + (sigma_next / sigma)^2 (x - D(x)),
        s = sigma_next sqrt(1 - (sigma_next / sigma)^2)

    From x_t = x0 + sigma_t e_t, with an e_t for every step, follows s z_t = x_next - mu(x_t) under the source caption.
    Sampling with the swapped caption adds the same s z_t. Two liberties: s z is kept undivided, so that the last step,
    whose s is 0, has one too and the picture comes back exactly; and each is taken when it is needed, so that skipped
    steps cost nothing.

    Attributes:
        skip: share of the steps left out at the beginning, the paper's T_skip.
        cfg: scale of classifier-free guidance of the swapped caption against no text.
        source_cfg: the same of the source caption.
    """

    skip: float = 0.36
    cfg: float = 15.0
    source_cfg: float = 3.5

    @torch.no_grad()
    def __call__(self, denoise: Counted, problem: Problem) -> Tensor:
        """Edit as a `Method`."""
        sigmas = ddim_sigmas(denoise.model.sigmas, problem.steps)
        known = problem.x0 + sigmas[:, None, None, None, None] * white_noise(problem, len(sigmas))
        source = guided_by(denoise, problem, self.source_cfg, "empty")
        target = guided_by(denoise, problem, self.cfg, "empty")
        first = round(self.skip * problem.steps)
        x = known[first]
        for index, (sigma, sigma_next) in enumerate(pairwise(sigmas[first:]), first):
            added = known[index + 1] - mean_of_step(source, known[index], problem.source, sigma, sigma_next)
            x = mean_of_step(target, x, problem.swapped, sigma, sigma_next) + added
        return x


def mean_of_step(denoise: Denoiser, x: Tensor, cond: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """Where a step of DDPM leads before it adds noise, mu(x) above; (B, C, H, W)."""
    denoised = denoise(x, sigma.repeat(len(x)), cond).denoised
    return denoised + (sigma_next / sigma) ** 2 * (x - denoised)
