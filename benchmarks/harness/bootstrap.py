"""Bootstrap intervals over scenes: how far a figure would move if other scenes had been drawn.

Percentile intervals (Efron 1979, Bootstrap Methods: Another Look at the Jackknife). Every draw takes the same scenes
for every method, so comparisons are paired. Scene i has one seed in all tasks, so the same pose, layout and background:
the tasks of a draw take the same seeds, or their means would seem surer than they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

DRAWS = 5000
LEVEL = 0.95

Figure = tuple[float, float, float]
"""Estimate, and lower and upper end of its 95 % interval."""


def draw_means(samples: Sequence[Tensor], draws: int = DRAWS) -> Tensor:
    """Average resampled values: seeds are drawn, and of every task those of its scenes; all tasks count alike.

    Args:
        samples: for every task the values of its scenes, (n_task,), in the order of their seeds.
        draws: number of resamplings.

    Returns:
        means, (draws + 1,); the first is that of the scenes as they are.
    """
    seeds = max(map(len, samples))
    picked = torch.randint(seeds, (draws, seeds), generator=torch.Generator().manual_seed(0))
    means: list[Tensor] = []
    for values in samples:
        there = picked < len(values)  # of tasks with fewer scenes
        sums, counts = (values[picked.clamp(max=len(values) - 1)] * there).sum(1), there.sum(1)
        drawn = torch.where(counts > 0, sums / counts.clamp(min=1), values.mean())
        means.append(torch.cat([values.mean()[None], drawn]))
    return torch.stack(means).mean(0)


def interval(means: Tensor) -> Figure:
    """Summarise what :func:`draw_means` returns, or a function of it."""
    low, high = torch.quantile(means[1:], torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2])).tolist()
    return float(means[0]), low, high


def compare(a: Sequence[Tensor], b: Sequence[Tensor], how: Callable[[Tensor, Tensor], Tensor]) -> Figure:
    """Compare two methods on the same scenes by their means: ``torch.sub`` for a difference, ``torch.div`` for a ratio.

    Args:
        a: for every task the values of its scenes, (n_task,).
        b: the same for the other method, in the same order.
        how: function of the two means.
    """
    return interval(how(draw_means(a), draw_means(b)))
