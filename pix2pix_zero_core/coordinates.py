"""Coordinates of a noisy latent: x = alpha x0 + sigma eps, of which diffusion and flow models write three forms.

    VE      alpha = 1,                   sigma from 0            k-diffusion, ComfyUI's diffusion models
    VP      alpha = sqrt(1 - sigma^2),   sigma from 0 to 1       papers, diffusers
    flow    alpha = 1 - sigma,           sigma = t from 0 to 1   rectified flow: Stable Diffusion 3, Flux

For given x0 and eps a step of DDIM (eta = 0) from one level to another is x' = alpha' x0 + sigma' eps. In VE that is
Euler's method (Song et al. 2021, arXiv:2010.02502, section 4.3), in a flow Euler's method along the velocity eps - x0
(Liu et al. 2023, arXiv:2209.03003). So the method is written once, in alpha and sigma, and runs in the coordinates of
its model: a flow begins where alpha is 0, which in VE would be at infinity.
"""

from __future__ import annotations

import math
from enum import Enum

import torch
from torch import Tensor


class Coordinates(Enum):
    """How a latent is written. A level is named by sigma, the standard deviation of the noise in x."""

    VE = "VE"
    VP = "VP"
    FLOW = "flow"

    @property
    def highest(self) -> float:
        """The sigma at which all is noise."""
        return math.inf if self is Coordinates.VE else 1.0

    def alpha(self, sigma: Tensor) -> Tensor:
        """What is left of x0 at a level; the shape of sigma."""
        if self is Coordinates.VE:
            return torch.ones_like(sigma)
        if self is Coordinates.VP:
            return (1 - sigma**2).clamp(min=0).sqrt()
        return (1 - sigma).clamp(min=0)

    def noise_to_signal(self, sigma: Tensor) -> Tensor:
        """Compute sigma / alpha, which is the same in all coordinates and VE's sigma; infinite where all is noise."""
        return sigma / self.alpha(sigma)

    def variance(self, sigma: Tensor) -> Tensor:
        """Compute alpha^2 + sigma^2, the variance of x where x0's is 1: the VP latent is ``x / sqrt(variance)``."""
        return self.alpha(sigma) ** 2 + sigma**2

    def noise(self, x: Tensor, denoised: Tensor, sigma: Tensor) -> Tensor:
        """Find the noise in x if x0 is ``denoised``; sigma is a scalar > 0."""
        return (x - self.alpha(sigma) * denoised) / sigma

    def image(self, x: Tensor, eps: Tensor, sigma: Tensor) -> Tensor:
        """Find x0 if the noise in x is ``eps``; sigma is a scalar where alpha > 0."""
        return (x - sigma * eps) / self.alpha(sigma)

    def with_noise(self, x: Tensor, eps: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
        """Take x to another level if the noise in it is ``eps``: the way from image to noise.

        Args:
            x: latent at sigma, (B, C, H, W).
            eps: the noise, in units of its standard deviation, (B, C, H, W).
            sigma: level of x, scalar, where alpha > 0; may be 0.
            sigma_next: any level, scalar.

        Returns:
            alpha' x0 + sigma' eps, (B, C, H, W), with the x0 for which x = alpha x0 + sigma eps.
        """
        fading = self.alpha(sigma_next) / self.alpha(sigma)
        return fading * x + (sigma_next - fading * sigma) * eps


def euler_step(
    x: Tensor, denoised: Tensor, sigma: Tensor, sigma_next: Tensor, coordinates: Coordinates = Coordinates.VE
) -> Tensor:
    """Follow the probability-flow ODE from sigma to sigma_next: DDIM with eta = 0, Euler's method in VE and in a flow.

    Args:
        x: latent at sigma, (B, C, H, W).
        denoised: the estimate of x0 there, (B, C, H, W).
        sigma: level of x, scalar, > 0.
        sigma_next: level after the step, scalar.
        coordinates: of x and of the levels.

    Returns:
        latent at sigma_next, (B, C, H, W).
    """
    fading = coordinates.alpha(sigma_next) - coordinates.alpha(sigma)
    return x + coordinates.noise(x, denoised, sigma) * (sigma_next - sigma) + fading * denoised


def carried(move: Tensor, sigma: Tensor, sigma_next: Tensor, coordinates: Coordinates = Coordinates.VE) -> Tensor:
    """Take a move of x from sigma to sigma_next: on the VP latent it is the same at either level."""
    return move * (coordinates.variance(sigma_next) / coordinates.variance(sigma)).sqrt()
