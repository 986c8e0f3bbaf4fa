"""FireFlow (Deng et al., arXiv:2412.07517)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from ..harness.sampling import Counted
from ..harness.tasks import Problem
from .rf_solver import Velocity, there_and_back


@dataclass(frozen=True)
class FireFlow:
    """The midpoint method for one evaluation a step: a step's first velocity is the last step's at its midpoint.

    A flow's velocity hardly changes from step to step, and the error of that is of second order. The edit is RF-Edit's
    (see `rf_solver`): values of attention are taken over in the first step, in Flux in all 38 blocks of one stream, the
    last two thirds. The evaluation at pure noise, which the inversion did not make, gets those of the step's midpoint.

    Attributes:
        share: of the steps, the first of the way back, in which values are taken over; one of 8 in the paper.
        cfg: scale of classifier-free guidance of the swapped caption against no text; 2 in the paper's code.
        steps: of its own; 8 in the paper, 0 takes as many as the other methods.
        blocks: how many of the last ones values are taken from.
    """

    share: float = 0.125
    cfg: float = 2.0
    steps: int = 8
    blocks: int = 2

    def __call__(self, denoise: Counted, problem: Problem) -> Tensor:
        """Edit as a `Method`."""
        problem = replace(problem, steps=self.steps or problem.steps)
        return there_and_back(denoise, problem, ReusedMidpoint, self.share, self.cfg, self.blocks)


class ReusedMidpoint:
    """Steps of one way, one evaluation each, but for the first one's two."""

    def __init__(self) -> None:
        """Begin."""
        self._velocity: Tensor | None = None

    def __call__(self, ask: Velocity, x: Tensor, t: Tensor, t_next: Tensor) -> Tensor:
        """Take x from t to t_next."""
        half = (t_next - t) / 2
        first = ask(x, t) if self._velocity is None else self._velocity
        self._velocity = ask(x + half * first, t + half)
        return x + 2 * half * self._velocity
