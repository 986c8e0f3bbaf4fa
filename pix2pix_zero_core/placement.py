"""Where a caption has a phrase, and what exchanging it there does to each of its tokens."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .phrases import Exchange, Phrase
from .readings import Reading
from .tokens import Token, occurrences, written

NEAR = 0.4
"""Likeness from which tokens pass for the phrase, all together and the last alone, in English the noun ("a sketch"). It
is the cosine of embeddings less the mean token: in Tiny Zoo's captions .40 to 1 for the phrase itself, .8 in the mean,
and at most .4 for a word that has nothing to do with it."""

UNLIKE = 0.5
"""What each token of a phrase must exceed in likeness to speak for the phrase: without it "sketch" would be nearer than
"pencil sketch" wherever a pencil sketch is named."""

Ways = Sequence[tuple[Sequence[Exchange], int]]
"""Exchanges to look for, the first first, and the factor of their shifts: -1 where they lead back."""


@dataclass(frozen=True)
class Chunk:
    """A part of a caption's embedding that the text encoder made alone.

    Attributes:
        first: position of its first token in the whole embedding.
        embedding: of its tokens, (L, D), float32.
        text: positions in it of what was written: start, end and padding are left out.
        tokens: what was written, as many as `text`; None where nobody knows.
        reading: how the text lies in it.
    """

    first: int
    embedding: Tensor
    text: range
    tokens: Sequence[Token] | None
    reading: Reading

    def name(self, start: int, count: int) -> str:
        """Name some tokens of the text to people."""
        if self.tokens is None:
            return f"token {self.first + start}"
        return repr(written(self.tokens[start - self.text.start :][:count]))


@dataclass(frozen=True)
class Place:
    """Where an edit goes.

    Attributes:
        exchange: what is exchanged.
        sign: factor of the shift.
        starts: chunks, and the positions in each where the phrase begins; none where it is added to the end.
        remark: for people, empty where the caption has the phrase.
    """

    exchange: Exchange
    sign: int
    starts: list[tuple[Chunk, list[int]]]
    remark: str = ""


def split_chunks(
    embedding: Tensor, part: range, tokens: Sequence[Token] | None, reading: Reading, known: Phrase
) -> list[Chunk]:
    """Part a reading of a caption into chunks, and find what was written in each.

    Args:
        embedding: of the whole caption, (L, D), float32.
        part: positions of the reading in it.
        tokens: of the caption, or None: then text is what is more like words than like padding.
        reading: how the text lies in it.
        known: some phrase, for the embeddings of words round it.

    Raises:
        ValueError: tokens behind the end of the embedding.
    """
    if tokens and tokens[-1].position >= len(embedding):
        raise ValueError(
            f"The caption's last token is number {tokens[-1].position}, but the prompt's embedding has only "
            f"{len(embedding)} of them. The caption must be the text that the prompt was made of."
        )
    chunks, length = list[Chunk](), reading.length or len(part)
    for first in range(part.start, part.stop, length):
        rows = embedding[first : first + length]
        if tokens is None:
            chunks.append(Chunk(first, rows, _written_part(rows, known, reading), None, reading))
        else:
            inside = [token for token in tokens if first <= token.position < first + length]
            start = inside[0].position - first if inside else reading.start
            chunks.append(Chunk(first, rows, range(start, start + len(inside)), inside, reading))
    return chunks


def _written_part(embedding: Tensor, known: Phrase, reading: Reading) -> range:
    """The positions of a chunk up to the last that is more like a word than like its last token, which is padding."""
    start, stop = reading.start, len(embedding) - reading.end
    if reading.padded:
        words, padding = known.common, embedding[-1]
        is_text = (embedding - (padding + words) / 2) @ (words - padding) > 0
        stop = max((i + 1 for i in range(start, stop) if bool(is_text[i])), default=start)
    return range(start, stop)


def find_place(chunks: Sequence[Chunk], ways: Ways) -> Place:
    """Find where an edit goes: where the caption names its phrase, else where it is nearest, else at the end."""
    return _find_named(chunks, ways) or _find_nearest(chunks, ways) or _at_the_end(chunks, ways)


def _find_named(chunks: Sequence[Chunk], ways: Ways) -> Place | None:
    """Every mention of a phrase; of those that a caption has the one that most sentences had."""
    for exchanges, sign in ways:
        found = [
            (chunk, exchange, start)
            for chunk in chunks
            for exchange in exchanges
            for start in occurrences(chunk.tokens or (), exchange.source.ids, exchange.source.text)
        ]
        whole = [hit for hit in found if not any(_holds(other, hit) for other in found)]
        if whole:
            named = max((exchange for _, exchange, _ in whole), key=lambda exchange: exchange.sentences)
            starts = [
                (chunk, [chunk.text[i] for there, exchange, i in whole if there is chunk and exchange is named])
                for chunk in chunks
            ]
            return Place(named, sign, [(chunk, positions) for chunk, positions in starts if positions])
    return None


def _holds(one: tuple[Chunk, Exchange, int], other: tuple[Chunk, Exchange, int]) -> bool:
    """Whether a mention has another, shorter one inside: "pencil sketch" has "sketch"."""
    (chunk, exchange, start), (other_chunk, other_exchange, other_start) = one, other
    count, other_count = len(exchange.source.ids), len(other_exchange.source.ids)
    inside = start <= other_start and other_start + other_count <= start + count
    return chunk is other_chunk and inside and count > other_count


def _find_nearest(chunks: Sequence[Chunk], ways: Ways) -> Place | None:
    """The tokens whose embeddings are most like a phrase's, if they are like enough."""
    near = [
        (float((likeness - UNLIKE).sum()), exchange, sign, chunk, start)
        for exchanges, sign in ways
        for exchange in exchanges
        for chunk in chunks
        for start, likeness in _likeness(chunk, exchange.source)
        if min(float(likeness.mean()), float(likeness[-1])) >= NEAR
    ]
    if not near:
        return None
    _, exchange, sign, chunk, start = max(near, key=lambda found: found[0])
    there = chunk.name(start, len(exchange.source.ids))
    remark = f"The edit goes to {there}, the nearest to {exchange.source.text!r}"
    remark += "; with the caption it would be exact." if chunk.tokens is None else " in the caption."
    return Place(exchange, sign, [(chunk, [start])], remark)


def _likeness(chunk: Chunk, phrase: Phrase) -> Iterable[tuple[int, Tensor]]:
    """Every position where a phrase could begin, and how like each of its tokens (m,) the text there is."""
    count, words = len(phrase.ids), phrase.words - phrase.common
    end = chunk.text.stop + _unsure(chunk)
    if count:
        for start in range(chunk.text.start, min(end, len(chunk.embedding) - chunk.reading.end) - count + 1):
            there = chunk.embedding[start : start + count] - phrase.common
            yield start, F.cosine_similarity(there, words, dim=-1)


def _unsure(chunk: Chunk) -> int:
    """By how many tokens the end of a text may be too early where it is guessed."""
    return int(chunk.tokens is None and chunk.reading.padded)


def _at_the_end(chunks: Sequence[Chunk], ways: Ways) -> Place:
    """Behind the caption's last word, as if the target had been added there."""
    exchanges, sign = ways[0]
    exchange = exchanges[0]
    remark = f"The caption has nothing like {exchange.source.text!r}; {exchange.target.text!r} is added to its end."
    return Place(exchange, sign, [(chunks[-1], [])], remark)


class Shift(NamedTuple):
    """What an exchange does to a chunk.

    Attributes:
        first: position of the chunk's first token in the whole embedding.
        vector: shift of its tokens, (L, D).
        taken: positions in the whole embedding of the padding that surplus words stand in.
        added: surplus words that found no padding: what stands there before, and the shift of it, (a, D) each.
        lost: how many of them can't be added either.
    """

    first: int
    vector: Tensor
    taken: list[int]
    added: tuple[Tensor, Tensor]
    lost: int


def shift(place: Place, taken: Collection[int] = ()) -> list[Shift]:
    """What an exchange does to every token.

    Args:
        place: where.
        taken: positions in the whole embedding of padding that is needed for something else.

    Returns:
        the shift of every chunk that is changed.
    """
    return [_shift_chunk(place.exchange, chunk, starts, taken) for chunk, starts in place.starts]


def _shift_chunk(exchange: Exchange, chunk: Chunk, starts: Sequence[int], taken: Collection[int]) -> Shift:
    source, target, text, reading = exchange.source, exchange.target, chunk.text, chunk.reading
    before, after, *ends, padding = target.around - source.around
    kept = min(len(source.ids), len(target.ids)) if starts else 0
    vector = torch.zeros_like(chunk.embedding)
    for position, end in zip(range(text.stop, len(vector)), ends, strict=False):
        vector[position] = end
    if reading.padded:
        vector[text.stop + reading.end :] = padding
    if starts:
        vector[text.start : starts[0]] = before
        vector[starts[0] : text.stop] = after
    for start in starts:
        vector[start : start + kept] = target.words[:kept] - source.words[:kept]
        vector[start + kept : start + len(source.ids)] = target.blank(reading.padded) - source.words[kept:]
    blank = source.blank(reading.padded)
    surplus = target.words[kept:] - blank
    free = [position for position in _free_padding(chunk, source) if chunk.first + position not in taken]
    used = free[: len(surplus)]
    vector[used] = surplus[: len(used)]
    left = surplus[len(used) :]
    added = left if reading.length == 0 else left[:0]
    return Shift(
        chunk.first,
        vector,
        [chunk.first + position for position in used],
        (blank.expand_as(added), added),
        len(left) - len(added),
    )


def _free_padding(chunk: Chunk, known: Phrase) -> list[int]:
    """The padding of a chunk that still is like padding: an edit before this one may have put words there."""
    if not chunk.reading.padded:
        return []
    start = chunk.text.stop + chunk.reading.end + _unsure(chunk)
    padding = chunk.embedding[-1]
    near = (chunk.embedding - padding).square().sum(-1) < (known.common - padding).square().sum() / 4  # half as far
    return [position for position in range(start, len(near)) if bool(near[position])]
