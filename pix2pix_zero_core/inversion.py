"""Regularised DDIM inversion: from an image to the noise that samples back to it.

Euler's method along ascending sigmas with regularised noise predictions, Parmar et al. (2023), arXiv:2302.03027,
section 3.1. Fixed-point iteration then makes each step implicit (as Pan et al. 2023, arXiv:2309.04907), so that the
sampler's step from x_next, which asks the model at x_next, leads back to x:

    x_next = x + (sigma_next - sigma) eps(x_next, sigma_next),        eps(x, sigma) = R((x - D(x, sigma)) / sigma)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from .noise import regularize
from .schedule import check_sigmas
from .types import Denoiser, Inversion, NoiseRegularizer, OnStep, StepInfo, at_least_float32, check_latent, predict


@torch.no_grad()
def invert(
    denoise: Denoiser,
    x0: Tensor,
    source: Any,
    sigmas: Tensor,
    regularizer: NoiseRegularizer = NoiseRegularizer(),  # noqa: B008 (immutable)
    *,
    fixed_point: int = 1,
    generator: torch.Generator | None = None,
    on_step: OnStep = None,
) -> Inversion:
    """Find the noise from which an image is sampled.

    Args:
        denoise: the model, without classifier-free guidance.
        x0: latent of the image, (B, C, H, W), taken as x at the last sigma.
        source: conditioning that describes the image.
        sigmas: the grid that will be used for sampling, (T+1,), descending; it is walked backwards.
        regularizer: how predicted noise is pushed towards white noise; strengths of 0 leave it alone.
        fixed_point: most refinements of a step, each one model call; a sample stops early when its residual stalls.
            They begin with the noise of the step before. With 0 the step is explicit, which costs one call as well,
            and the round trip accurate to first order; without regularisation a few make it nearly exact.
        generator: source of randomness on the CPU for a regulariser with random shifts; None is one seeded with 0.
        on_step: called after every step.

    Returns:
        noise, trajectory and residuals, float32 or better.

    Raises:
        TypeError: x0 is not floating point.
        ValueError: x0 or a prediction holds NaN or Inf, the sigmas do not descend, fixed_point is negative, or the
            latent is too small for the regulariser.
    """
    check_latent(x0, "x0")
    check_sigmas(sigmas)
    if fixed_point < 0:
        raise ValueError(f"fixed_point is {fixed_point}; it must be >= 0 (0 turns the refinement off).")
    x = at_least_float32(x0)
    sigmas = sigmas.to(x)
    generator = torch.Generator().manual_seed(0) if generator is None else generator

    def predict_noise(x: Tensor, sigma: Tensor, seed: int) -> Tensor:
        eps = (x - predict(denoise, x, sigma, source).denoised) / sigma
        return regularize(eps, regularizer, torch.Generator().manual_seed(seed))

    trajectory, residuals, eps = [x], list[Tensor](), None
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas.flip(0))):
        # One draw of random shifts a step: its equation must not change while it is being solved.
        noise_at = partial(predict_noise, seed=int(torch.randint(2**31, (), generator=generator)))
        # What is refined may begin with the noise of the step before, which costs no call.
        if eps is None or fixed_point == 0:
            # At sigma 0 there is no noise to predict: the first guess is what the model sees at the lowest noisy level.
            eps = noise_at(x, sigma if sigma > 0 else sigma_next)
        eps, residual = _solve_implicit_step(noise_at, x, eps, sigma, sigma_next, fixed_point)
        if on_step is not None:
            on_step(StepInfo(index, len(sigmas) - 1, float(sigma), x, x - sigma * eps))
        x = x + (sigma_next - sigma) * eps
        trajectory.append(x)
        residuals.append(residual)
    return Inversion(
        noise=x,
        sigmas=sigmas,
        trajectory=torch.stack(trajectory).flip(0),
        residual=torch.stack(residuals).flip(0) if fixed_point > 0 else None,
    )


def _solve_implicit_step(
    noise_at: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    eps: Tensor,
    sigma: Tensor,
    sigma_next: Tensor,
    iterations: int,
) -> tuple[Tensor, Tensor]:
    """Iterate eps <- eps(x + (sigma_next - sigma) eps, sigma_next), every sample for as long as it converges.

    Args:
        noise_at: noise prediction from (x, sigma).
        x: latent at sigma, (B, C, H, W).
        eps: first guess.
        sigma: level of x, scalar.
        sigma_next: level after the step, scalar.
        iterations: most model calls.

    Returns:
        eps, and the RMS by which the last accepted iteration changed it, (B,).
    """
    tested, residual = eps, x.new_full((len(x),), torch.inf)
    converging = torch.ones_like(residual, dtype=torch.bool)
    for _ in range(iterations):
        update = noise_at(x + (sigma_next - sigma) * eps, sigma_next)
        change = (update - eps).square().mean((1, 2, 3)).sqrt()
        converging = converging & (change < residual)
        residual = torch.where(converging, change, residual)
        # A sample that stalls goes back to the best guess whose residual is known.
        keep = converging[:, None, None, None]
        tested, eps = torch.where(keep, eps, tested), torch.where(keep, update, tested)
        if not converging.any():
            break
    return eps, residual
