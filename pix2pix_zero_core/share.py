"""The unit "share" of guidance: how much is taken away of the distance that the attention maps of an unguided run have.

    U       = L_xa of a run that nothing guides, at every level,
    goal    = (1 - share - behind) U,
    move    = -c grad L_xa,      c = (L_xa - goal) / |grad L_xa|^2,
    behind += 6 / T (L_xa / U - (1 - due)),      over T guided steps, between 0 and a half,
    due     = share (1 - (1 - 6 / T)^k),         what k steps would have taken away if nothing came back.

The move is Polyak's step (Introduction to Optimization, 1987, section 5.3): it leads down to a goal that is known,
needs no step size, and is the same for every scale of the latent and of L_xa. What it takes away comes back in part
with the sampler's next step, by an amount that differs from model to model. So what is due and was not reached is added
up and pursued, as by the integral term of a controller.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from .attention import map_distance
from .coordinates import Coordinates, euler_step
from .schedule import step_at
from .types import Denoiser, Inversion, predict

FOLLOWING = 6.0
"""How fast what was not reached is added up. This and `Aim.gain` were found on the UNets of two worlds."""

FARTHEST_BEHIND = 0.5
"""No more than this is pursued: where a goal cannot be reached, more would lead astray."""


@dataclass(frozen=True)
class UnguidedDistance:
    """How far the attention of a run that nothing guides goes from the reference's.

    Attributes:
        sigmas: some noise levels, (n,), descending.
        distances: L_xa there, (n, B).
        coordinates: of the levels.
    """

    sigmas: Tensor
    distances: Tensor
    coordinates: Coordinates = Coordinates.VE

    PURE_NOISE = 1e3
    """Ratio of noise to signal that stands for an infinite one."""

    def at(self, sigma: Tensor) -> Tensor:
        """Look up L_xa at any level, linear in the log of noise to signal, at the ends beyond them: (B,)."""
        if len(self.sigmas) == 1:
            return self.distances[0]
        index = step_at(self.sigmas, float(sigma))
        levels = torch.stack([*self.sigmas[index : index + 2], sigma.to(self.sigmas)])
        begin, end, between = self.coordinates.noise_to_signal(levels).clamp(max=self.PURE_NOISE).log()
        way = ((begin - between) / (begin - end)).clamp(0, 1)
        return torch.lerp(self.distances[index], self.distances[index + 1], way.to(self.distances))


UNGUIDED_LEVELS = 8
"""At how many noise levels `unguided_distance` measures where all steps are guided; with 4 its steps lead astray."""


@torch.no_grad()
def unguided_distance(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    source: Any,
    target: Any,
    inversion: Inversion,
    guided: Denoiser,
    reference: Tensor | None = None,
    levels: int | None = None,
) -> UnguidedDistance:
    """Measure how far the attention maps go from the reference's where nothing guides them: what a share is a share of.

    No guided run can know that of itself: what a move takes away comes back in part, and how much differs from model
    to model. So the edit is sampled beforehand without guidance, in a few long steps. Each costs a row of the reference
    and those of a step of the guided denoiser, and takes no gradient.

    Args:
        denoise: the model, one row a sample, with maps.
        x: edited latent at the first level, (B, C, H, W).
        sigmas: the levels of all steps that will be guided, (n,), descending and positive.
        source: conditioning of the original image.
        target: conditioning of the edited image.
        inversion: whose trajectory is the reference.
        guided: the denoiser that takes the steps.
        reference: where the inversion has no trajectory: the reference latent at the first level, (B, C, H, W), from
            where it is sampled alongside.
        levels: how many of the levels are visited, at most; None is `UNGUIDED_LEVELS`, or less in proportion where not
            all of the inversion's steps are guided.

    Returns:
        the distance at the levels that were visited.

    Raises:
        ValueError: a prediction holds NaN or Inf, the maps of the two branches do not match, or there is neither a
            trajectory nor a reference.
    """
    if inversion.trajectory is None and reference is None:
        raise ValueError("unguided_distance: the inversion has no trajectory; give the reference latent, or invert.")
    if levels is None:
        levels = max(1, round(UNGUIDED_LEVELS * min(1.0, len(sigmas) / (len(inversion.sigmas) - 1))))
    chosen = torch.linspace(0, len(sigmas) - 1, min(levels, len(sigmas))).round().long()
    visited, distances = sigmas[chosen.to(sigmas.device)], list[Tensor]()
    for sigma, sigma_next in pairwise([*visited, visited[-1]]):
        if inversion.trajectory is not None:
            original = predict(denoise, inversion.latent_at(float(sigma)).to(x), sigma, source, maps=True)
        else:
            assert reference is not None
            original = predict(guided, reference, sigma, source, maps=True)
            reference = euler_step(reference, original.denoised, sigma, sigma_next, inversion.coordinates)
        edited = predict(guided, x, sigma, target, maps=True)
        distances.append(map_distance(edited.maps, original.maps))
        x = euler_step(x, edited.denoised, sigma, sigma_next, inversion.coordinates)
        del original, edited  # maps of one step are alive at a time
    return UnguidedDistance(visited, torch.stack(distances), inversion.coordinates)


@dataclass(frozen=True)
class Aim:
    """What one of T guided steps applies: it leads L = L_xa down to a goal, c = (L - goal) / |grad L|^2.

    Three limits hold it back. With the first two, T steps are a descent that does not depend on T.

    Attributes:
        goal: what L_xa is to be, (B,). Below it nothing moves.
        steps: number of guided steps T.
        gain: a step takes away at most ``gain / T`` of what is above the goal.
        haste: and at most ``1 - exp(-haste / T)`` of L. What is more than first order can tell leads astray.
        reach: and moves the VP latent, whose noise has an RMS of 1, by an RMS of at most ``reach / T``. Where maps
            hardly answer to the latent, Polyak's step would be beyond all measure.
    """

    goal: Tensor
    steps: int
    gain: float = 6.0
    haste: float = 3.0
    reach: float = 4.0

    def factor(self, loss: Tensor, gradient: Tensor, variance: Tensor) -> Tensor:
        """Compute c of the move -c g.

        Args:
            loss: L_xa before the move, (B,).
            gradient: of L_xa in x, (B, C, H, W).
            variance: `Coordinates.variance` of the level, scalar.

        Returns:
            c, (B,); 0 where the gradient is 0.
        """
        above = (loss - self.goal).clamp(min=0)
        descent = torch.minimum(min(1.0, self.gain / self.steps) * above, -math.expm1(-self.haste / self.steps) * loss)
        squared = gradient.square().sum((1, 2, 3))
        longest = self.reach / self.steps * variance.sqrt() * (gradient[0].numel() / squared).sqrt()
        return torch.where(squared > 0, torch.minimum(descent / squared, longest), 0)


@dataclass
class Pursuit:
    """One run's way to its share: the goal of every guided step, from what the steps before have left undone.

    Attributes:
        unguided: the distance of a run that nothing guides.
        share: to be taken away of it, 0 to 1.
        steps: number of guided steps T.
        behind: what was due and not reached so far, in shares of the unguided distance, (B,); None before the first
            step.
        done: number of steps that were noted.
    """

    unguided: UnguidedDistance
    share: float
    steps: int
    behind: Tensor | None = None
    done: int = 0

    def aim(self, sigma: Tensor) -> Aim:
        """Find what the step from a level applies."""
        unguided = self.unguided.at(sigma)
        behind = torch.zeros_like(unguided) if self.behind is None else self.behind
        return Aim((1 - self.share - behind).clamp(min=0) * unguided, self.steps)

    def reached(self, sigma: Tensor, loss: Tensor) -> None:
        """Take note of L_xa before a step, (B,): of what the steps before it have reached."""
        unguided = self.unguided.at(sigma)
        due = self.share * (1 - max(0.0, 1 - FOLLOWING / self.steps) ** self.done)
        left = torch.where(unguided > 0, loss / unguided - (1 - due), 0)
        behind = FOLLOWING / self.steps * left + (0 if self.behind is None else self.behind)
        self.behind, self.done = behind.clamp(0, FARTHEST_BEHIND), self.done + 1
