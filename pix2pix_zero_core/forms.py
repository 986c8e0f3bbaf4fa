"""Edit directions of any form: read, add and apply them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from .aligned import AlignedDirection
from .direction_files import read_direction
from .directions import Direction, EditDirection
from .tokens import Token


class ShiftedText(NamedTuple):
    """A prompt after an edit.

    Attributes:
        embedding: (B, k*L, D); longer than the prompt's where words were added behind it.
        pooled: (B, P), or None where the prompt has none.
        remarks: for people: why the edit may not be where it should be; each once.
        filled: of each row, positions of the prompt's padding where words stand now.
    """

    embedding: Tensor
    pooled: Tensor | None
    remarks: tuple[str, ...]
    filled: tuple[tuple[int, ...], ...] = ()


def load_direction(path: str | os.PathLike[str]) -> Direction:
    """Read a direction of any form.

    Args:
        path: a file written by :meth:`Direction.save`.

    Returns:
        the direction, on the CPU.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a safetensors file, not a direction, an unknown form, another format version, or values that are
            not finite.
    """
    file = read_direction(path)
    return (AlignedDirection if file.form == AlignedDirection.form else EditDirection).from_file(file)


def combine_directions(weighted: Sequence[tuple[Direction, float]]) -> Direction:
    """Add directions of one form.

    Args:
        weighted: directions of one encoder with their weights; a negative weight reverses an edit.

    Raises:
        TypeError: something else than a direction.
        ValueError: different forms, or what the `combine` of the form refuses.
    """
    for direction, _ in weighted:
        if not isinstance(cast(Any, direction), Direction):
            raise TypeError(f"There is {direction!r} among the directions to combine, which is none.")
    aligned = [(d, weight) for d, weight in weighted if isinstance(d, AlignedDirection)]
    by_position = [(d, weight) for d, weight in weighted if isinstance(d, EditDirection)]
    if aligned and by_position:
        raise ValueError(
            f"{aligned[0][0].name} is {AlignedDirection.form}, {by_position[0][0].name} is {EditDirection.form}; build "
            "both in one form, or apply one after the other."
        )
    return AlignedDirection.combine(aligned) if aligned else EditDirection.combine(by_position)


def apply_direction(
    direction: Direction,
    embedding: Tensor,
    pooled: Tensor | None,
    strength: float = 1.0,
    *,
    encoder: str,
    tokens: Sequence[Sequence[Token]] | None = None,
) -> ShiftedText:
    """Shift a prompt along a direction of any form.

    Args:
        direction: the edit.
        embedding: of the prompt, (B, k*L, D).
        pooled: of the prompt, (B, P); None where it has none.
        strength: 1 is the full edit, a negative one reverses it, 0 changes nothing.
        encoder: fingerprint of the text encoder that made the embedding.
        tokens: of the captions, one row each, or one for all; None where nobody knows them.

    Returns:
        the shifted prompt, in its dtype and on its device.

    Raises:
        ValueError: another encoder, shapes or tokens that do not fit, a strength that is not finite, or NaN or Inf in
            what comes out.
    """
    direction.require_encoder(encoder)
    if embedding.ndim != 3 or (tokens is not None and len(tokens) not in (1, len(embedding))):
        count = "no" if tokens is None else len(tokens)
        raise ValueError(
            f"The prompt's embedding has shape {tuple(embedding.shape)}, with {count} captions; it must be (batch, "
            "tokens, width), with one caption for each row or for all."
        )
    if pooled is not None and len(pooled) not in (1, len(embedding)):
        raise ValueError(
            f"There are {len(pooled)} pooled embeddings for {len(embedding)} rows of the prompt's; there must be one "
            "for each row or for all. Encode the prompt again."
        )
    rows, vectors, remarks, filled = list[Tensor](), list[Tensor](), list[str](), list[tuple[int, ...]]()
    for i, row in enumerate(embedding):
        caption = None if tokens is None else tokens[i % len(tokens)]
        placed = direction.place(row, caption, strength=strength)
        rows.append(placed.apply(row, strength, encoder=encoder))
        if pooled is not None:
            vectors.append(placed.direction.apply_pooled(pooled[i % len(pooled)][None], strength, encoder=encoder))
        remarks += placed.remarks
        filled.append(placed.filled)
    lengths = sorted({len(row) for row in rows})
    if len(lengths) > 1:
        raise ValueError(
            f"Along {direction.name} the texts of a batch come to {lengths} tokens; all must have as many. "
            "Apply the direction to one after the other."
        )
    return ShiftedText(
        torch.stack(rows) if rows else embedding,
        torch.cat(vectors) if vectors else pooled,
        tuple(dict.fromkeys(remarks)),
        tuple(filled),
    )
