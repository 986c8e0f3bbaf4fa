"""FlowEdit (Kulikov et al., arXiv:2412.08629), also in the coordinates of a diffusion model."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from pix2pix_zero_core.edit import euler_step

from ..harness.sampling import Counted, guided_by, white_noise
from ..harness.tasks import Problem


@dataclass(frozen=True)
class FlowEdit:
    """No inversion: the picture moves along the difference of two branches' velocities under the same noise.

    The paper has a flow, z_t = (1 - t) z_0 + t n, whose velocity is v = (z_t - D) / t with D the estimate of z_0:

        z_src = (1 - t) x0 + t n,    z_tar = z_fe + z_src - x0,    dz_fe / dt = v(z_tar, target) - v(z_src, source)

    With d = z_fe - x0 that is dd/dt = (d - (D_tar - D_src)) / t. A flow's latent becomes a VE latent by division by
    1 - t, at sigma = t / (1 - t): x_src = x0 + sigma n, and x_tar = x_src + u with u = d / (1 - t). By the product rule

        du/dsigma = (1 - t)^2 d/dt [d / (1 - t)] = (1 - t) dd/dt + d = (u - (D_tar - D_src)) / sigma,

    the same form again, and VP's latents are VE's by a factor that D does not see. So the change follows either model's
    own ODE, dx/dsigma = (x - D(x)) / sigma, with the difference of two predictions in place of one; a DDIM step (in a
    flow Euler's) takes it from sigma to sigma_next, and at sigma = 0, where t = 0, u = d is what the edit adds to x0.
    The paper's n_min, plain sampling in the last steps, is its default, 0.

    Attributes:
        share: of the steps that are taken, the last ones; the paper's n_max over all steps, 33 / 50 for SD 3.
        cfg: scale of classifier-free guidance of the swapped caption against no text; 13.5 in the paper.
        source_cfg: the same of the source caption; 3.5 in the paper.
        draws: of noise that a step's velocity is averaged over, the paper's n_avg.
    """

    share: float = 0.66
    cfg: float = 13.5
    source_cfg: float = 3.5
    draws: int = 1

    @torch.no_grad()
    def __call__(self, denoise: Counted, problem: Problem) -> Tensor:
        """Edit as a `Method`."""
        taken = round(self.share * problem.steps)
        sigmas, coordinates = denoise.model.grid(problem.steps)[problem.steps - taken :], denoise.model.coordinates
        source = guided_by(denoise, problem, self.source_cfg, "empty")
        target = guided_by(denoise, problem, self.cfg, "empty")
        noises = white_noise(problem, taken * self.draws).unflatten(0, (taken, self.draws))
        change = torch.zeros_like(problem.x0)
        for (sigma, sigma_next), of_step in zip(pairwise(sigmas), noises, strict=True):
            level, difference = sigma.repeat(len(change)), torch.zeros_like(change)
            for noise in of_step:
                x = coordinates.alpha(sigma) * problem.x0 + sigma * noise
                difference += target(x + change, level, problem.swapped).denoised
                difference -= source(x, level, problem.source).denoised
            change = euler_step(change, difference / self.draws, sigma, sigma_next, coordinates)
        return problem.x0 + change
