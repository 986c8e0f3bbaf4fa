"""Noise schedules: sigma grids as DDIM walks them, and the two coordinate systems of a noisy latent.

    VP (papers, diffusers)      x_vp = sqrt(abar) x0 + sqrt(1 - abar) eps
    VE (k-diffusion, ComfyUI)   x    = x0 + sigma eps,    sigma = sqrt((1 - abar) / abar),    x = x_vp sqrt(1 + sigma^2)

`coordinates` has what a step is in either, and in those of flow models.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from .coordinates import Coordinates


def sigmas_from_alphas(alphas_cumprod: Tensor) -> Tensor:
    """Turn a training schedule's cumulative alphas into sigmas, sqrt((1 - abar) / abar); same shape."""
    return ((1 - alphas_cumprod) / alphas_cumprod).sqrt()


def vp_to_ve(x: Tensor, sigma: Tensor | float) -> Tensor:
    """Turn a VP latent into a VE latent of the same noise level; sigma broadcasts against x (B, C, H, W)."""
    return x * torch.as_tensor(1 + sigma**2).sqrt().to(x)


def ve_to_vp(x: Tensor, sigma: Tensor | float) -> Tensor:
    """Turn a VE latent into a VP latent of the same noise level; sigma broadcasts against x (B, C, H, W)."""
    return x / torch.as_tensor(1 + sigma**2).sqrt().to(x)


def ddim_timesteps(train_steps: int, steps: int) -> Tensor:
    """Choose the training timesteps that DDIM visits: "leading" spacing with offset 1, as Stable Diffusion uses it.

    The stride is the whole part of ``train_steps / steps``, so a number of steps that does not divide ``train_steps``
    starts below the highest noise level: a little with few steps, far with many (of 1000, 300 start at 898, 501 at
    501).

    Args:
        train_steps: number of training timesteps, 1000 for Stable Diffusion.
        steps: number of sampling steps, 1 to ``train_steps - 1``.

    Returns:
        timesteps, (steps,), int64, descending to 1.

    Raises:
        ValueError: steps out of range.
    """
    if not 1 <= steps < train_steps:
        raise ValueError(f"steps is {steps}; it must be between 1 and {train_steps - 1}. Change the number of steps.")
    return torch.arange(steps).flip(0) * (train_steps // steps) + 1


def ddim_sigmas(training_sigmas: Tensor, steps: int, *, final: Literal["zero", "sigma_min"] = "zero") -> Tensor:
    """Build the sigma grid of a DDIM run.

    Args:
        training_sigmas: sigma of every training timestep, (N,), ascending.
        steps: number of steps T, 1 to N - 1.
        final: where the last step ends: "zero" is diffusers' ``set_alpha_to_one=True``; "sigma_min" is ``False``, the
            configuration of Stable Diffusion 1.

    Returns:
        sigmas, (T+1,), strictly descending.

    Raises:
        ValueError: steps out of range, or an unknown ``final``.
    """
    if final not in ("zero", "sigma_min"):
        raise ValueError(f'final is {final!r}; it must be "zero" or "sigma_min".')
    visited = training_sigmas[ddim_timesteps(len(training_sigmas), steps).to(training_sigmas.device)]
    last = torch.zeros_like(training_sigmas[:1]) if final == "zero" else training_sigmas[:1]
    return torch.cat([visited, last])


def sigma_to_timestep(sigma: Tensor, training_sigmas: Tensor) -> Tensor:
    """Find the (fractional) training timestep of a noise level, linear in log sigma between neighbours.

    Args:
        sigma: any shape, positive; values beyond the training range are clamped to it.
        training_sigmas: (N,), ascending.

    Returns:
        timesteps in [0, N - 1], shape of sigma.
    """
    log_sigma, table = sigma.log(), training_sigmas.to(sigma).log()
    low = (torch.searchsorted(table, log_sigma, right=True) - 1).clamp(0, len(table) - 2)
    fraction = (log_sigma - table[low]) / (table[low + 1] - table[low])
    return low + fraction.clamp(0, 1)


def step_at(sigmas: Tensor, sigma: float) -> int:
    """Find the step of a sampling grid to which a noise level belongs: it begins there, or passes it on its way.

    Args:
        sigmas: the grid, (T+1,), strictly descending.
        sigma: any level; within a share of 1e-4 of the nearest of the grid it counts as that one.

    Returns:
        index of the step, 0 to T - 1; levels outside the grid belong to the first or the last step.
    """
    distance = (sigmas - sigma).abs()
    nearest = int(distance.argmin())
    reached = nearest + 1 if float(distance[nearest]) <= 1e-4 * sigma else int((sigmas >= sigma).sum())
    return min(max(reached - 1, 0), len(sigmas) - 2)


def level_after(sigmas: Tensor, fraction: float) -> Tensor:
    """Find the noise level at which a fraction of a sampling grid's steps is done.

    Args:
        sigmas: the grid, (T+1,).
        fraction: 0 to 1.

    Returns:
        the level at which the first step begins that has at least that fraction before it, scalar; at 1 the last one,
        below that of every step.
    """
    return sigmas[first_step(len(sigmas) - 1, fraction)]


def first_step(total: int, fraction: float) -> int:
    """Find the first of ``total`` steps that has a fraction of them before it, and is ``total`` where none has.

    Rounding does not count: of 25 steps 0.28 are 7, though floating point has a little more.
    """
    return math.ceil(fraction * total - 1e-9)


def check_sigmas(sigmas: Tensor, coordinates: Coordinates = Coordinates.VE) -> None:
    """Require a sampling grid: at least two finite sigmas, strictly descending, the last one >= 0.

    Args:
        sigmas: anything.
        coordinates: in which they are levels; in VP and flow the first is at most 1.

    Raises:
        ValueError: anything else; the message says what was found and what to change.
    """
    if sigmas.ndim != 1 or len(sigmas) < 2:
        raise ValueError(
            f"sigmas has shape {tuple(sigmas.shape)}, which leaves zero steps; it must be (steps + 1,) with at least "
            "one step. Raise the number of steps (or the denoise fraction)."
        )
    values = [round(float(value), 4) for value in sigmas]
    if not bool(torch.isfinite(sigmas).all()):
        raise ValueError(f"sigmas holds NaN or Inf: {values}. Use another scheduler.")
    if not bool((sigmas[:-1] > sigmas[1:]).all()) or float(sigmas[-1]) < 0:
        raise ValueError(
            f"sigmas is {values}; a sampling grid descends strictly from the highest noise level to a last value >= 0 "
            "(inversion walks the same grid backwards). Use a scheduler such as ddim_uniform, unreversed."
        )
    if float(sigmas[0]) > coordinates.highest * (1 + 1e-4):
        raise ValueError(
            f"sigmas begins at {values[0]}; in {coordinates.value} coordinates no level is above "
            f"{coordinates.highest:g}, where all is noise. Use the schedule of the model itself."
        )
