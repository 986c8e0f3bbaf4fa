"""How text encoders lay a text into its embedding: in chunks of one length or whole, behind a template, with padding.

    CLIP                 start, text, end, padding           77 tokens, and as many again for a longer text
    T5                   text, end, padding or none          as many tokens as the text needs, or more
    language models      template, text, rest of template    as many tokens as the text needs

Stable Diffusion 3 has two readings of the text, one behind the other: CLIP's, then T5's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Reading(NamedTuple):
    """How one encoder lays a text into an embedding.

    Attributes:
        length: tokens of a chunk, L; 0 where one chunk holds a text of any length.
        start: tokens in front of the text: a start token, a template.
        end: tokens behind it, before any padding: an end token, the rest of a template.
        padded: whether it fills up, so that short texts have as many tokens as others.
    """

    length: int = 77
    start: int = 1
    end: int = 1
    padded: bool = True


def part_embedding(embedding: Tensor, readings: Sequence[Reading]) -> list[range]:
    """Find the readings of a text in its embedding.

    Those before the last must be of chunks. How many chunks one takes is seen from their first tokens: a causal encoder
    gives the start token the same embedding in every chunk.

    Args:
        embedding: (L, D).
        readings: what follows what.

    Returns:
        positions of each; none where the last is not a whole number of its chunks.
    """
    parts, first = list[range](), 0
    for reading in readings[:-1]:
        start, last = embedding[first], first + reading.length
        while last < len(embedding) and torch.allclose(embedding[last], start, rtol=1e-2, atol=1e-3):
            last += reading.length
        parts.append(range(first, last))
        first = last
    left, chunk = len(embedding) - first, readings[-1].length
    return [*parts, range(first, len(embedding))] if left > 0 and (not chunk or left % chunk == 0) else []


def fitting_length(readings: Sequence[Reading]) -> str:
    """Say how many tokens an embedding must have."""
    return ", then ".join(f"a multiple of {r.length} tokens" if r.length else "tokens" for r in readings)
