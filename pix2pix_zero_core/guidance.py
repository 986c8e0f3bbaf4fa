"""Cross-attention guidance between the steps of a sampler that this package does not run.

`edit` takes Euler's step and moves x, or the other way round. Another sampler can be led in the same way: it takes one
step at a time, and x moves before or after each. The reference is the point of the inversion's trajectory at the level
where the step begins, so the sampler's grid need not be that of the inversion.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .edit import GuidanceStep, map_guidance_step
from .schedule import step_at
from .share import Pursuit
from .types import Denoiser, Inversion, MapGuidance, predict


def guided_steps(sigmas: Tensor, inversion: Inversion, guidance: MapGuidance) -> list[bool]:
    """Find the steps of a sampler that are to be guided.

    Args:
        sigmas: the sampler's grid, in the inversion's coordinates, (T+1,), strictly descending.
        inversion: of the picture; `MapGuidance.start` and `end` are fractions of its steps.
        guidance: strength and time.

    Returns:
        T flags.
    """
    total = len(inversion.sigmas) - 1
    return [guidance.covers(step_at(inversion.sigmas, float(sigma)), total) for sigma in sigmas[:-1]]


def pace_of(sigmas: Tensor, inversion: Inversion) -> float:
    """How many of a sampler's steps lead as far as one of the inversion's: 1 on the inversion's own grid.

    Args:
        sigmas: the sampler's grid, or a part of it, in the inversion's coordinates, (T+1,), strictly descending.
        inversion: of the picture.
    """

    def done(sigma: Tensor) -> float:
        step = step_at(inversion.sigmas, float(sigma))
        begin, end = inversion.sigmas[step : step + 2]
        return step + min(max(float((begin - sigma) / (begin - end)), 0.0), 1.0)

    return (len(sigmas) - 1) / max(done(sigmas[-1]) - done(sigmas[0]), 1e-3)


def guidance_move(
    denoise: Denoiser,
    x: Tensor,
    sigma: Tensor,
    source: Any,
    target: Any,
    inversion: Inversion,
    guidance: MapGuidance,
    guide: GuidanceStep = map_guidance_step,
    pursuit: Pursuit | None = None,
    pace: float = 1.0,
) -> Tensor:
    """Compute the move that brings x's attention back to the inverted picture's, at the begin of a step from sigma.

    A move that is applied after the step is to be :func:`carried` to the level where that ends.

    Args:
        denoise: the model, one row a sample, with maps and gradients.
        x: edited latent, in the inversion's coordinates, (B, C, H, W).
        sigma: its level, scalar.
        source: conditioning of the picture.
        target: conditioning of the edited picture.
        inversion: of the picture, with its trajectory.
        guidance: strength and its unit.
        guide: computes the move, as in `edit`.
        pursuit: of this run's share, which takes note of every step; the unit "share" needs it.
        pace: of the sampler, see :func:`pace_of`; at 2 each of its steps moves half as far in the unit "normalized".
            "paper" is a step of its own whatever the pace, and "share" pursues its aim.

    Returns:
        what to add to x, (B, C, H, W).

    Raises:
        ValueError: a prediction or a gradient holds NaN or Inf, the maps of the branches do not match, or the
            inversion has no trajectory, or the unit lacks what it needs.
    """
    reference = inversion.latent_at(float(sigma)).to(x)
    reference_maps = predict(denoise, reference, sigma, source, maps=True).maps
    of_one_step = (
        pursuit.aim(sigma) if pursuit else guidance.of_one_step(max(1, round(pace * (len(inversion.sigmas) - 1))))
    )
    move, loss, _ = guide(denoise, x, sigma, target, reference_maps, of_one_step, inversion.coordinates)
    if pursuit:
        pursuit.reached(sigma, loss)
    return move
