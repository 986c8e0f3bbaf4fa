"""Noise regularisation: how far predicted noise is from white, and the closed-form gradients that push it there.

L_auto = L_pair + L_KL of Parmar et al. (2023), arXiv:2302.03027, section 3.1. For one channel of one pyramid level of
H x W pixels, its auto-correlation at a circular shift d along the width is

    r(d) = 1/(HW) sum_yx e[y, x] e[y, x - d],

likewise along the height, and

    L_pair = sum over levels, channels and both axes of the mean over d != 0 of r(d)^2.

By the Wiener-Khinchin theorem r is the inverse FFT of the power spectrum, and since r is even,

    d/de sum_d r(d)^2 = 4/(HW) (e * r),    * the circular convolution, r(0) set to 0:

every shift at once, without autograd and without random numbers. The paper draws one shift at random instead, below
half of the shorter side; the mean over those is that loss's expectation. (The paper's formula lacks the square, which
would reward anti-correlation; published code and StyleGAN2, the source of the loss, have it.)

So a gradient step is a linear filter: it multiplies the spectrum of e by 1 - step * 4/(HW) * (spectrum of r). Two
things follow. A step longer than one over that filter's largest gain turns frequencies round, and at the published
strength of 20 soon overflows on strongly correlated noise; and since L_pair is of fourth order in e, shrinking e lowers
it as well as whitening does. :func:`decorrelate` therefore shortens such steps and gives every sample its energy back.

All iterations of :func:`regularize` stay in the frequency domain, whose arithmetic is that of `hartley`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

from .hartley import Level, correlation_gradient, pyramid_levels, transform
from .types import NoiseRegularizer

SMALLEST_SIDE = 8
"""The pyramid ends before a side becomes shorter than this (latent pixels)."""

# torch does not annotate its FFTs.
_rfft = cast(Callable[[Tensor], Tensor], torch.fft.rfft)  # pyright: ignore[reportUnknownMemberType]
_irfft = cast(Callable[[Tensor, int], Tensor], torch.fft.irfft)  # pyright: ignore[reportUnknownMemberType]


def pyramid(eps: Tensor, gain: float = 2.0) -> list[Tensor]:
    """Halve noise again and again until its shorter side is about to fall below 8.

    Args:
        eps: (B, C, H, W).
        gain: factor after each 2x2 average pool; 2 keeps white noise at unit variance. Odd sides lose their last row.

    Returns:
        levels, (B, C, H_p, W_p), the first is ``eps`` itself.

    Raises:
        ValueError: H or W below 8.
    """
    levels = [eps]
    for _ in pyramid_sizes(*eps.shape[-2:])[1:]:
        levels.append(gain * avg_pool2d(levels[-1], 2))
    return levels


def pyramid_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Height and width of every level of a :func:`pyramid`.

    Raises:
        ValueError: a side below 8.
    """
    if min(height, width) < SMALLEST_SIDE:
        raise ValueError(
            f"The latent is {width}x{height} (width x height); noise regularisation needs at least "
            f"{SMALLEST_SIDE}x{SMALLEST_SIDE}. Use a larger image (Fit Picture), or leave it out: set regularization "
            "and kl to 0 (in Python, iterations)."
        )
    sizes = [(height, width)]
    while min(sizes[-1]) // 2 >= SMALLEST_SIDE:
        sizes.append((sizes[-1][0] // 2, sizes[-1][1] // 2))
    return sizes


def auto_correlation(eps: Tensor) -> Tensor:
    """Compute the circular auto-correlation along the last axis for every shift.

    Args:
        eps: (B, C, H, W).

    Returns:
        r(d) at d = 0 ... W - 1, mean over the pixels, (B, C, W).
    """
    power = _rfft(eps).abs().square().mean(-2)
    return _irfft(power, eps.shape[-1]) / eps.shape[-1]


def auto_correlation_loss(eps: Tensor, gain: float = 2.0) -> Tensor:
    """Penalise spatial correlation in predicted noise, over every circular shift: L_pair, exactly.

    Args:
        eps: predicted noise in units of its standard deviation, (B, C, H, W).
        gain: of the pyramid.

    Returns:
        one loss a sample, (B,).

    Raises:
        ValueError: H or W below 8.
    """
    return torch.stack(
        [
            auto_correlation(axis)[..., 1:].square().mean(-1).sum(-1)
            for level in pyramid(eps, gain)
            for axis in (level, level.mT)
        ]
    ).sum(0)


def auto_correlation_gradient(eps: Tensor, gain: float = 2.0) -> Tensor:
    """Differentiate :func:`auto_correlation_loss` with respect to eps in closed form; (B, C, H, W).

    Raises:
        ValueError: H or W below 8.
    """
    return transform(correlation_gradient(transform(eps), _levels(eps, gain))[0])


def longest_step(eps: Tensor, gain: float = 2.0) -> Tensor:
    """Bound the steps along :func:`auto_correlation_gradient` that turn no frequency round.

    Args:
        eps: (B, C, H, W).
        gain: of the pyramid.

    Returns:
        one over the summed largest gains of the gradient's filters, one a channel, (B, C).
    """
    return 1 / correlation_gradient(transform(eps), _levels(eps, gain))[1]


def decorrelate(eps: Tensor, strength: float, gain: float = 2.0) -> Tensor:
    """Take one step down L_pair that cannot overshoot and leaves every sample its energy.

    Args:
        eps: predicted noise, (B, C, H, W).
        strength: the step; a channel in which it exceeds :func:`longest_step` takes that instead.
        gain: of the pyramid.

    Returns:
        noise of the same norm a sample, (B, C, H, W).

    Raises:
        ValueError: H or W below 8.
    """
    return transform(_decorrelate(transform(eps), strength, _levels(eps, gain)))


def draw_shifts(eps: Tensor, gain: float = 2.0, generator: torch.Generator | None = None) -> list[list[int]]:
    """Draw one shift for every channel and level, from 1 up to half of the level's shorter side, exclusive.

    The samples of a batch share them, so that editing two images together equals editing each alone.

    Args:
        eps: (B, C, H, W).
        gain: of the pyramid.
        generator: source of randomness on the CPU; None is torch's global one.

    Returns:
        shifts[channel][level].
    """
    sides = [min(level.shape[-2:]) for level in pyramid(eps, gain)]
    return [[int(torch.randint(1, side // 2, (), generator=generator)) for side in sides] for _ in range(eps.shape[1])]


def shifted_correlation_loss(eps: Tensor, shifts: list[list[int]], gain: float = 2.0) -> Tensor:
    """Penalise spatial correlation at one given shift a channel and level: the paper's random-shift form of L_pair.

    Args:
        eps: (B, C, H, W).
        shifts: from :func:`draw_shifts`; the same shift serves both axes.
        gain: of the pyramid.

    Returns:
        one loss a sample, (B,).
    """
    loss = eps.new_zeros(len(eps))
    for p, level in enumerate(pyramid(eps, gain)):
        for c, e in enumerate(level.unbind(1)):
            for axis in (-2, -1):
                loss = loss + (e * e.roll(shifts[c][p], axis)).mean((-2, -1)).square()
    return loss


def shifted_correlation_gradient(eps: Tensor, shifts: list[list[int]], gain: float = 2.0) -> Tensor:
    """Differentiate :func:`shifted_correlation_loss` with respect to eps in closed form; (B, C, H, W)."""

    def along(e: Tensor, shift: int, axis: int) -> Tensor:
        forth, back = e.roll(shift, axis), e.roll(-shift, axis)
        return 2 * (e * forth).mean((-2, -1), keepdim=True) * (forth + back) / (e.shape[-2] * e.shape[-1])

    def of_level(level: Tensor, p: int) -> Tensor:
        return torch.stack(
            [along(e, shifts[c][p], -2) + along(e, shifts[c][p], -1) for c, e in enumerate(level.unbind(1))], dim=1
        )

    return _sum_over_levels([of_level(level, p) for p, level in enumerate(pyramid(eps, gain))], gain)


def kl_loss(eps: Tensor) -> Tensor:
    """Measure how far a sample's mean and variance are from those of white noise: L_KL = mu^2 + var - 1 - log var.

    Args:
        eps: (B, C, H, W).

    Returns:
        one loss a sample, (B,). The variance has Bessel's correction; 1e-7 keeps constant noise finite.
    """
    mean, var = eps.mean((1, 2, 3)), eps.var((1, 2, 3))
    return mean.square() + var - 1 - (var + 1e-7).log()


def kl_gradient(eps: Tensor) -> Tensor:
    """Differentiate :func:`kl_loss` with respect to eps in closed form; (B, C, H, W)."""
    count = eps[0].numel()
    mean = eps.mean((1, 2, 3), keepdim=True)
    centred = eps - mean
    return 2 * mean / count + _kl_factor(centred) * centred


def regularize(eps: Tensor, settings: NoiseRegularizer, generator: torch.Generator | None = None) -> Tensor:
    """Push predicted noise towards white noise by a few gradient iterations on L_auto.

    Args:
        eps: predicted noise in units of its standard deviation, (B, C, H, W), float32 or better.
        settings: strengths, iterations and the form of L_pair.
        generator: source of the random shifts, on the CPU; used by ``shifts="random"`` only.

    Returns:
        regularised noise, (B, C, H, W).

    Raises:
        ValueError: H or W below 8, or a strength so high that the noise overflows.
    """
    if settings.strength > 0 and settings.iterations > 0 and settings.shifts == "all":
        spectrum, levels = transform(eps), _levels(eps, settings.pool_gain)
        for _ in range(settings.iterations):
            spectrum = _descend_kl(_decorrelate(spectrum, settings.strength, levels), settings.kl_strength)
        eps = transform(spectrum)
    else:
        for _ in range(settings.iterations):
            for _ in range(settings.rolls if settings.strength > 0 else 0):
                shifts = draw_shifts(eps, settings.pool_gain, generator)
                gradient = shifted_correlation_gradient(eps, shifts, settings.pool_gain)
                eps = eps - settings.strength / settings.rolls * gradient
            if settings.kl_strength > 0:
                eps = eps - settings.kl_strength * kl_gradient(eps)
    if not bool(torch.isfinite(eps).all()):
        too_much, instead = f"kl_strength {settings.kl_strength:g}", ""
        if settings.shifts == "random":
            too_much = f"strength {settings.strength:g} or {too_much}"
            instead = ', or use shifts="all", in which those of strength are bounded'
        raise ValueError(f"Noise regularisation overflowed: {too_much} is too much for this noise. Lower it{instead}.")
    return eps


def _decorrelate(spectrum: Tensor, strength: float, levels: tuple[Level, ...]) -> Tensor:
    gradient, largest = correlation_gradient(spectrum, levels)
    moved = spectrum - (1 / largest).clamp(max=strength)[..., None, None] * gradient
    energy, left = (s.square().sum((1, 2, 3), keepdim=True) for s in (spectrum, moved))
    return moved * torch.where(left > 0, energy / left, 0).sqrt()


def _descend_kl(spectrum: Tensor, strength: float) -> Tensor:
    """Take one step down L_KL. A channel's mean is all in its first coefficient, times the root of the pixels."""
    mean = spectrum[..., :1, :1].mean(1, keepdim=True)
    centred = spectrum.clone()
    centred[..., :1, :1] -= mean
    moved = centred * (1 - strength * _kl_factor(centred))
    moved[..., :1, :1] += mean * (1 - strength * 2 / spectrum[0].numel())
    return moved


def _kl_factor(centred: Tensor) -> Tensor:
    """Gradient of L_KL, as a multiple of noise whose mean is 0; (B, 1, 1, 1)."""
    degrees = centred[0].numel() - 1
    var = centred.square().sum((1, 2, 3), keepdim=True) / degrees
    return (1 - 1 / (var + 1e-7)) * (2 / degrees)


def _levels(eps: Tensor, gain: float) -> tuple[Level, ...]:
    return pyramid_levels(tuple(pyramid_sizes(*eps.shape[-2:])), gain, eps.dtype, eps.device)


def _sum_over_levels(gradients: list[Tensor], gain: float) -> Tensor:
    """Carry every level's gradient down to level 0 by the adjoint of pooling, and add them up."""
    total = gradients[-1]
    for gradient in reversed(gradients[:-1]):
        spread = interpolate(total, scale_factor=2, mode="nearest") * (gain / 4)
        height, width = gradient.shape[-2:]
        total = gradient + pad(spread, (0, width - spread.shape[-1], 0, height - spread.shape[-2]))
    return total
