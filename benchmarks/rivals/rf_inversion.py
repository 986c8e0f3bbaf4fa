"""RF-Inversion (Rout et al., ICLR 2025, arXiv:2410.10792)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from pix2pix_zero_core.edit import euler_step

from ..harness.sampling import Counted, guided_by, velocity
from ..harness.tasks import Problem


@dataclass(frozen=True)
class RfInversion:
    """Both ways are led: to noise by a draw of noise, back by the picture.

    With v the flow's velocity, here in the time t of noise, the paper's two controlled ODEs are

        there:  dx/dt = v(x, no text) + gamma ((n - x) / (1 - t) - v(x, no text)),       n white noise,
        back:   dx/dt = v(x, target) + eta ((x - x0) / t - v(x, target)),                t descending.

    With v = (x - D) / t the latter takes the plain step with D + eta (x0 - D) for D. eta is constant up to a stopping
    time, and 0 from then on. Flux has its guidance as an input, here it is classifier-free. The defaults are those that
    the authors' method has in diffusers.

    Attributes:
        gamma: how strongly noise leads the inversion, 0 to 1.
        eta: how strongly the picture leads the edit, 0 to 1.
        stop: share of the steps in which it does.
        cfg: scale of classifier-free guidance of the swapped caption against no text.
    """

    gamma: float = 0.5
    eta: float = 0.9
    stop: float = 0.38
    cfg: float = 3.5

    @torch.no_grad()
    def __call__(self, denoise: Counted, problem: Problem) -> Tensor:
        """Edit as a `Method`."""
        times, coordinates = denoise.model.grid(problem.steps), denoise.model.coordinates
        guided = guided_by(denoise, problem, self.cfg, "empty")
        x = self.noise_of(denoise, problem, times)
        for index, (t, t_next) in enumerate(pairwise(times)):
            denoised = guided(x, t.repeat(len(x)), problem.swapped).denoised
            if index < self.stop * problem.steps:
                denoised = torch.lerp(denoised, problem.x0, self.eta)
            x = euler_step(x, denoised, t, t_next, coordinates)
        return x

    def noise_of(self, denoise: Counted, problem: Problem, times: Tensor) -> Tensor:
        """Invert along a descending grid of times: (B, 4, H, W)."""
        x = problem.x0
        for t, t_next in pairwise(times.flip(0)):
            plain = velocity(denoise, x, t, problem.empty)
            x = x + (t_next - t) * torch.lerp(plain, (problem.noise - x) / (1 - t), self.gamma)
        return x
