"""The published code's algorithm, with its departures from the paper, made from the same parts as the default.

Source: github.com/pix2pixzero/pix2pix-zero at commit 16e5c1d. This is the rival in the benchmark and the subject of the
parity tests. Its departures from the paper, with what becomes of each in this module and in the default
(:mod:`.inversion`, :mod:`.edit`); the tests of tests/parity/test_departures.py carry the same numbers:

 1. CFG runs a negative and a positive row, each moved by its own gradient, and the step continues from the *negative*
    row's latent: the edited row's gradient acts through the noise prediction only.
    Followed here; by default the edited latent itself moves.
 2. The pyramid pools without the factor 2 that keeps unit variance.
    Followed here (``pool_gain=1``); 2 by default.
 3. The pair loss draws one random shift for both axes; five draws are five steps of a fifth. It squares the mean per
    channel and level.
    Followed here; by default the exact mean over all shifts, squared likewise (see :mod:`.regularizer` for why).
 4. Older versions drew shift 0 too, which penalises the variance.
    Followed nowhere.
 5. Inversion leaves out the first and the last timestep, takes the image for the latent at abar[20] (of 50 steps), and
    what lands at 980 is sampled from 981.
    Followed here; by default both ways walk every step of one grid.
 6. Inversion indexes the alphas at t - 1 while the model sees t. It knows no v-prediction.
    Followed here, for models of either kind; by default one noise level serves both.
 7. The reference pass computes a negative and a positive row, identical where the negative is the source.
    Followed here; one row by default, and none where the trajectory is replayed unguided.
 8. The loss is a mean over heads and both rows, in the model's precision.
    Followed here, in float32; by default one loss a sample.
 9. The weights of attn2 collect gradients that nobody reads, and self-attention probabilities are kept.
    Followed nowhere; it changes no result.
10. The random shifts and the VAE's sample are unseeded.
    Followed nowhere: a generator is passed.
11. One image of 512 by 512 pixels at a time.
    Followed nowhere: any batch, any size.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from .coordinates import Coordinates, euler_step
from .edit import map_guidance_step
from .regularizer import regularize
from .schedule import ddim_sigmas, ddim_timesteps, ve_to_vp, vp_to_ve
from .types import (
    Denoiser,
    Edit,
    Inversion,
    MapGuidance,
    NoiseRegularizer,
    OnStep,
    StepInfo,
    at_least_float32,
    check_latent,
    predict,
)

REGULARIZER = NoiseRegularizer(strength=20, kl_strength=20, iterations=5, shifts="random", rolls=5, pool_gain=1)
"""The published settings (departures 2 and 3)."""


@torch.no_grad()
def invert(
    denoise: Denoiser,
    x0: Tensor,
    source: Any,
    training_sigmas: Tensor,
    steps: int = 50,
    regularizer: NoiseRegularizer = REGULARIZER,
    *,
    generator: torch.Generator | None = None,
    on_step: OnStep = None,
) -> Inversion:
    """Invert as the published code does: ``steps - 2`` explicit Euler steps, off by one in three ways.

    Args:
        denoise: the model, without classifier-free guidance.
        x0: latent of the image, (B, C, H, W).
        source: conditioning that describes the image.
        training_sigmas: sigma of every training timestep, (N,), ascending.
        steps: nominal number of steps, 3 to N - 1.
        regularizer: the published settings unless told otherwise.
        generator: source of the random shifts, on the CPU.
        on_step: called after every step.

    Returns:
        noise at the first sigma of the published sampling grid; no trajectory.

    Raises:
        TypeError: x0 is not floating point.
        ValueError: x0 holds NaN or Inf, steps is out of range, or the latent is too small for the regulariser.
    """
    check_latent(x0, "x0")
    if steps < 3:
        raise ValueError(f"steps is {steps}; the published inversion leaves out two of them, so it must be at least 3.")
    x0 = at_least_float32(x0)
    sigma_of, stride = training_sigmas.to(x0), len(training_sigmas) // steps
    timesteps = ddim_timesteps(len(training_sigmas), steps).flip(0)[1:-1]  # departure 5
    x = vp_to_ve(x0, sigma_of[timesteps[0] - 1])
    for index, t in enumerate(timesteps):
        sigma, sigma_next = sigma_of[t - 1], sigma_of[t - 1 + stride]  # departure 6
        seen = vp_to_ve(ve_to_vp(x, sigma), sigma_of[t])
        denoised = predict(denoise, seen, sigma_of[t], source).denoised
        eps = regularize((seen - denoised) / sigma_of[t], regularizer, generator)
        if on_step is not None:
            on_step(StepInfo(index, len(timesteps), float(sigma), x, x - sigma * eps))
        x = x + (sigma_next - sigma) * eps
    sigmas = ddim_sigmas(sigma_of, steps, final="sigma_min")
    reached = sigma_of[timesteps[-1] - 1 + stride]
    return Inversion(vp_to_ve(ve_to_vp(x, reached), sigmas[0]), sigmas)


@torch.no_grad()
def edit(
    denoise: Denoiser,
    inversion: Inversion,
    source: Any,
    target: Any,
    negative: Any,
    *,
    scale: float = 5.0,
    strength: float = 0.1,
    on_step: OnStep = None,
) -> Edit:
    """Edit as the published code does.

    Args:
        denoise: the model, one row a sample, with maps and gradients.
        inversion: noise and sigmas; the trajectory is not used.
        source: conditioning of the original image.
        target: conditioning of the edited image.
        negative: negative conditioning of both branches; the published script passes the source caption.
        scale: of classifier-free guidance.
        strength: of cross-attention guidance, paper units.
        on_step: called after every step.

    Returns:
        edited and reference latents, and the loss of every step.

    Raises:
        ValueError: a prediction or a gradient holds NaN or Inf, the maps of the two branches do not match, or the
            inversion is not in VE coordinates: the published code knows no flows.
    """
    if inversion.coordinates is not Coordinates.VE:
        raise ValueError(
            f"The inversion is in {inversion.coordinates.value} coordinates; the published algorithm takes VE's. "
            "Invert with the invert of this module."
        )
    half = MapGuidance(strength / 2)  # departure 8: the mean over two rows
    x = reference = inversion.noise
    sigmas, losses = inversion.sigmas.to(x), list[Tensor]()
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        ref_negative = predict(denoise, reference, sigma, negative, maps=True)  # departure 7
        ref_positive = predict(denoise, reference, sigma, source, maps=True)
        denoised = ref_negative.denoised + scale * (ref_positive.denoised - ref_negative.denoised)
        reference = euler_step(reference, denoised, sigma, sigma_next)

        move_negative, loss_negative, _ = map_guidance_step(denoise, x, sigma, negative, ref_negative.maps, half)
        move_positive, loss_positive, _ = map_guidance_step(denoise, x, sigma, target, ref_positive.maps, half)
        x_negative, x_positive = x + move_negative, x + move_positive
        eps_negative = (x_negative - predict(denoise, x_negative, sigma, negative).denoised) / sigma
        eps_positive = (x_positive - predict(denoise, x_positive, sigma, target).denoised) / sigma
        eps = eps_negative + scale * (eps_positive - eps_negative)
        loss = (loss_negative + loss_positive) / 2
        if on_step is not None:
            on_step(StepInfo(index, len(sigmas) - 1, float(sigma), x_negative, x_negative - sigma * eps, loss))
        x = x_negative + (sigma_next - sigma) * eps  # departure 1
        losses.append(loss)
    return Edit(x, reference, torch.stack(losses))
