"""Regularised DDIM inversion: from an image to the noise that samples back to it.

DDIM's steps along ascending sigmas with regularised noise predictions, Parmar et al. (2023), arXiv:2302.03027, section
3.1. A step takes x to another level with the noise that is in it:

    x_next = alpha_next x0 + sigma_next eps,        where x = alpha x0 + sigma eps

The explicit step has eps = R(eps(x, sigma)), with R the regulariser. Fixed-point iteration makes it implicit (as Pan
et al. 2023, arXiv:2309.04907), so that the sampler's step from x_next, which asks the model at x_next, leads back to x.
Where D and e are what the model there takes for x0 and for the noise, an iteration is

    eps <- R(e) + k (alpha D + sigma e - x),        k = (alpha_next - alpha) / (alpha sigma_next - alpha_next sigma)

In brackets is by how much the sampler's step misses x. In VE k is 0. In a flow k is -1, which makes this the iteration
of Euler's implicit step along the velocity. That converges near pure noise, where the first term alone would not: there
e is whatever noise x_next was made with. The regulariser acts on the noise, never on the velocity.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from .coordinates import Coordinates, euler_step
from .regularizer import regularize
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
    coordinates: Coordinates = Coordinates.VE,
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
        coordinates: of the model, its latents and sigmas: VE for diffusion models, FLOW for flow models. The unrefined
            inversion and the fully refined one without regularisation are the same in all of them.
        generator: source of randomness on the CPU for a regulariser with random shifts; None is one seeded with 0.
        on_step: called after every step.

    Returns:
        noise, trajectory and residuals, float32 or better.

    Raises:
        TypeError: x0 is not floating point.
        ValueError: x0 or a prediction holds NaN or Inf, the sigmas do not descend or are no levels of the coordinates,
            fixed_point is negative, or 0 where one step of a flow is all, or the latent is too small for the
            regulariser.
    """
    check_latent(x0, "x0")
    check_sigmas(sigmas, coordinates)
    if fixed_point < 0:
        raise ValueError(f"fixed_point is {fixed_point}; it must be >= 0 (0 turns the refinement off).")
    if fixed_point == 0 and float(sigmas[-1]) == 0 and float(coordinates.alpha(sigmas[-2])) == 0:
        raise ValueError(
            "fixed_point is 0, and the sigmas lead from the picture to pure noise in one step, where an explicit step "
            "sees nothing of the picture. Raise the number of steps, or fixed_point to 1."
        )
    x = at_least_float32(x0)
    sigmas = sigmas.to(x)
    generator = torch.Generator().manual_seed(0) if generator is None else generator

    def predict_both(x: Tensor, sigma: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        denoised = predict(denoise, x, sigma, source).denoised
        eps = coordinates.noise(x, denoised, sigma)
        return regularize(eps, regularizer, torch.Generator().manual_seed(seed)), denoised

    trajectory, residuals, eps = [x], list[Tensor](), None
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas.flip(0))):
        # One draw of random shifts a step: its equation must not change while it is being solved.
        seen_at = partial(predict_both, seed=int(torch.randint(2**31, (), generator=generator)))
        # What is refined may begin with the noise of the step before, which costs no call.
        if eps is None or fixed_point == 0:
            # At sigma 0 there is no noise to predict: the first guess is what the model sees at the lowest noisy level.
            noisy = sigma if sigma > 0 else sigma_next
            eps, _ = seen_at(coordinates.with_noise(x, torch.zeros_like(x), sigma, noisy), noisy)
        eps, residual = _solve_implicit_step(seen_at, x, eps, sigma, sigma_next, coordinates, fixed_point)
        if on_step is not None:
            on_step(StepInfo(index, len(sigmas) - 1, float(sigma), x, coordinates.image(x, eps, sigma)))
        x = coordinates.with_noise(x, eps, sigma, sigma_next)
        trajectory.append(x)
        residuals.append(residual)
    return Inversion(
        noise=x,
        sigmas=sigmas,
        trajectory=torch.stack(trajectory).flip(0),
        residual=torch.stack(residuals).flip(0) if fixed_point > 0 else None,
        coordinates=coordinates,
    )


def _solve_implicit_step(
    seen_at: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    x: Tensor,
    eps: Tensor,
    sigma: Tensor,
    sigma_next: Tensor,
    coordinates: Coordinates,
    iterations: int,
) -> tuple[Tensor, Tensor]:
    """Iterate eps as this module's equation says, every sample for as long as it converges.

    Args:
        seen_at: R(e) and D from (x, sigma).
        x: latent at sigma, (B, C, H, W).
        eps: first guess.
        sigma: level of x, scalar.
        sigma_next: level after the step, scalar.
        coordinates: of all.
        iterations: most model calls.

    Returns:
        eps, and the RMS by which the last accepted iteration changed it, (B,).
    """
    tested, residual = eps, x.new_full((len(x),), torch.inf)
    converging = torch.ones_like(residual, dtype=torch.bool)
    alpha, alpha_next = coordinates.alpha(sigma), coordinates.alpha(sigma_next)
    pull = (alpha_next - alpha) / (alpha * sigma_next - alpha_next * sigma)
    for _ in range(iterations):
        x_next = coordinates.with_noise(x, eps, sigma, sigma_next)
        noise, denoised = seen_at(x_next, sigma_next)
        update = noise + pull * (euler_step(x_next, denoised, sigma_next, sigma, coordinates) - x)
        change = (update - eps).square().mean((1, 2, 3)).sqrt()
        converging = converging & (change < residual)
        residual = torch.where(converging, change, residual)
        # A sample that stalls goes back to the best guess whose residual is known.
        keep = converging[:, None, None, None]
        tested, eps = torch.where(keep, eps, tested), torch.where(keep, update, tested)
        if not converging.any():
            break
    return eps, residual
