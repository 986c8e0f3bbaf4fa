"""RF-Solver and RF-Edit (Wang et al., ICML 2025, arXiv:2411.04746)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, repeat

import torch
from torch import Tensor

from tiny_zoo.mmdit import MMDiT

from ..harness.injection import given_values, kept_values
from ..harness.sampling import Counted, guided_by, velocity
from ..harness.tasks import Problem

Velocity = Callable[[Tensor, Tensor], Tensor]
"""dx/dt of x at a time, a scalar."""

Step = Callable[[Velocity, Tensor, Tensor, Tensor], Tensor]
"""Takes x from a time to another."""


@dataclass(frozen=True)
class RfSolver:
    """The flow's ODE solved to second order, there and back; first steps take over values of the picture's attention.

    RF-Solver expands x by Taylor, with h the step and the derivative of v by a difference over half of it:

        x' = x + h v + h^2 / 2 v',        v' = (v(x + h / 2 v, t + h / 2) - v) / (h / 2),

    which comes to the midpoint method, x' = x + h v(x + h / 2 v, t + h / 2). RF-Edit keeps the values that attention
    had in the last blocks in the last steps to the noise, and gives them to the same steps back. In Flux these are the
    last 18 of 57 blocks, in whose one stream are text and picture, here the last one of three, which has a stream for
    each: the picture's is taken, since the text would be the source's. Where classifier-free guidance takes the place
    of Flux's input, both of its rows get the values.

    Attributes:
        share: of the steps, the first of the way back, in which values are taken over; the authors recommend 2 to 8
            of 30.
        cfg: scale of classifier-free guidance of the swapped caption against no text; 2 in the authors' examples.
        blocks: how many of the last ones.
    """

    share: float = 0.2
    cfg: float = 2.0
    blocks: int = 1

    def __call__(self, denoise: Counted, problem: Problem) -> Tensor:
        """Edit as a `Method`."""
        return there_and_back(denoise, problem, lambda: midpoint_step, self.share, self.cfg, self.blocks)


def midpoint_step(ask: Velocity, x: Tensor, t: Tensor, t_next: Tensor) -> Tensor:
    """Take x from t to t_next by the midpoint method, in two evaluations."""
    half = (t_next - t) / 2
    return x + 2 * half * ask(x + half * ask(x, t), t + half)


@torch.no_grad()
def there_and_back(
    denoise: Counted, problem: Problem, solver: Callable[[], Step], share: float, cfg: float, blocks: int
) -> Tensor:
    """Invert with the source caption and sample with the swapped one, while first steps take values over.

    Args:
        denoise: the flow model.
        problem: what to edit.
        solver: begins a way.
        share: of the steps in which values are taken over.
        cfg: scale of classifier-free guidance of the way back.
        blocks: how many of the last ones values are taken from.
    """
    transformer, times = denoise.transformer, denoise.model.grid(problem.steps)
    steps, shared = range(problem.steps), round(share * problem.steps)
    kept: dict[int, list[list[Tensor]]] = defaultdict(list)
    ask = partial(_ask, denoise, problem.source)
    x, take_step = problem.x0, solver()
    for index in reversed(steps):
        keeping = partial(_keep, ask, transformer, blocks, kept[index])
        x = take_step(keeping if index < shared else ask, x, times[index + 1], times[index])
    ask = partial(_ask, guided_by(denoise, problem, cfg, "empty"), problem.swapped)
    take_step = solver()
    for index in steps:
        x = take_step(_taking_over(ask, transformer, kept[index]), x, times[index], times[index + 1])
    return x


def _ask(denoise: Callable[..., object], cond: Tensor, x: Tensor, t: Tensor) -> Tensor:
    return velocity(denoise, x, t, cond)  # pyright: ignore[reportArgumentType]


def _keep(ask: Velocity, transformer: MMDiT, blocks: int, kept: list[list[Tensor]], x: Tensor, t: Tensor) -> Tensor:
    with kept_values(transformer, blocks) as values:
        found = ask(x, t)
    kept.append(values)
    return found


def _taking_over(ask: Velocity, transformer: MMDiT, kept: Sequence[list[Tensor]]) -> Velocity:
    """Ask with the values of one evaluation after the other, and with the last ones where there were fewer."""
    if not kept:
        return ask
    remaining = chain(kept, repeat(kept[-1]))

    def asked(x: Tensor, t: Tensor) -> Tensor:
        with given_values(transformer, next(remaining)):
            return ask(x, t)

    return asked
