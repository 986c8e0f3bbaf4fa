"""Edits at rising strength, until they show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

EditAt = Callable[[float, Sequence[int]], Tensor]
"""A strength and the numbers of n pictures of a batch -> these pictures, edited at that strength, (n, ...)."""

Judge = Callable[[Tensor, Sequence[int]], Tensor]
"""Edited pictures (n, ...) and their numbers -> scores (n,), above 0 where the edit shows."""


@dataclass(frozen=True)
class Until:
    """What became of B pictures.

    Attributes:
        edited: (B, ...), each at its own strength.
        strengths: at which, (B,); where the edit never showed, the last that was tried.
        scores: what the judge says of these, (B,).
        edits: how many edits a picture took, (B,).
    """

    edited: Tensor
    strengths: Tensor
    scores: Tensor
    edits: Tensor

    @property
    def shown(self) -> Tensor:
        """Whether the edit shows, (B,)."""
        return self.scores > 0


def edit_until(edit_at: EditAt, judge: Judge, strengths: Sequence[float], count: int) -> Until:
    """Edit each picture at the first strength that shows; at the last, where none does.

    Pictures whose edit shows are left out of what follows, so that each is edited as if it were alone.

    Args:
        edit_at: edits some of the pictures.
        judge: says whether the edit shows.
        strengths: to be tried, each larger than the one before it; all negative ones lead the other way.
        count: how many pictures there are, B.

    Raises:
        ValueError: no pictures, no strengths, or such as do not rise.
    """
    require_rising(strengths)
    if count < 1:
        raise ValueError(f"There are {count} pictures to edit; there must be at least 1.")
    left, kept = list(range(count)), list[Tensor | None]([None] * count)
    found, scores, edits = torch.zeros(3, count)
    for strength in strengths:
        edited = edit_at(strength, left)
        said = judge(edited, left)
        for row, picture in enumerate(left):
            kept[picture] = edited[row]
            found[picture], scores[picture] = strength, said[row]
            edits[picture] += 1
        left = [picture for picture in left if not scores[picture] > 0]
        if not left:
            break
    return Until(torch.stack([picture for picture in kept if picture is not None]), found, scores, edits.long())


def require_rising(strengths: Sequence[float]) -> None:
    """Refuse strengths that are not finite, not of one sign, or do not rise.

    Raises:
        ValueError: names them.
    """
    steps = [0.0, *strengths]
    rising = all(abs(a) < abs(b) < float("inf") and b * steps[1] > 0 for a, b in pairwise(steps))
    if not strengths or not rising:
        raise ValueError(
            f"The strengths to try are {', '.join(f'{s:g}' for s in strengths) or 'none'}; give one or more that rise "
            "from above 0, such as 0.75, 1, 1.25, 1.5, or all negative to lead the other way."
        )


def read_strengths(text: str, name: str) -> list[float]:
    """Read strengths to try, with commas between them: "0.75, 1, 1.25, 1.5".

    Args:
        text: as somebody typed it.
        name: of the widget or flag, in the message.

    Raises:
        ValueError: something that is no number, or strengths that do not rise.
    """
    try:
        strengths = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise ValueError(f"{name} is {text!r}; it must be numbers with commas between them: 0.75, 1, 1.25.") from None
    require_rising(strengths)
    return strengths
