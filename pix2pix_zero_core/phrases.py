"""What exchanging a phrase does to every place of a sentence's embedding, averaged over pairs of sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .readings import Reading
from .tokens import Token, exchanged, written


@dataclass(frozen=True)
class Phrase:
    """A phrase, and the mean embeddings of sentences round it.

    Attributes:
        text: "pencil sketch".
        ids: of its m tokens.
        rows: means over the sentences, (m + 3 + e, D), float32: of the phrase's own tokens one by one, then of those
            before it, those after it, the e tokens that end a text one by one, and the padding. Zero where no sentence
            has any.
        pooled: mean of the pooled embeddings, (P,), float32; None where the encoder has none.
    """

    text: str
    ids: tuple[int, ...]
    rows: Tensor
    pooled: Tensor | None

    def __post_init__(self) -> None:
        """Validate shapes and values."""
        if self.rows.ndim != 2 or len(self.rows) < len(self.ids) + 3 or self.rows.numel() == 0:
            raise ValueError(
                f"The embeddings of {self.text!r} have shape {tuple(self.rows.shape)}; they must be "
                f"({len(self.ids)} tokens + 3 or more, width)."
            )
        if self.pooled is not None and (self.pooled.ndim != 1 or self.pooled.numel() == 0):
            raise ValueError(f"The pooled embedding of {self.text!r} has shape {tuple(self.pooled.shape)}.")
        if not all(bool(torch.isfinite(tensor).all()) for tensor in (self.rows, self.pooled) if tensor is not None):
            raise ValueError(
                f"The embeddings of {self.text!r} hold NaN or Inf. Build the direction again, with the text encoder in "
                "float32."
            )

    @property
    def words(self) -> Tensor:
        """The phrase's own tokens, (m, D)."""
        return self.rows[: len(self.ids)]

    @property
    def around(self) -> Tensor:
        """Before, after, the tokens that end a text, and padding, (3 + e, D)."""
        return self.rows[len(self.ids) :]

    @property
    def common(self) -> Tensor:
        """The mean of other tokens of a sentence, (D,): what all tokens share."""
        named = self.around[:2][self.around[:2].any(1)]
        return named.mean(0) if len(named) else torch.zeros_like(self.rows[0])

    def blank(self, padded: bool) -> Tensor:
        """What stands where a phrase has no token for one of the other's, (D,): padding, else its own last word."""
        if padded:
            return self.around[-1]
        return self.words[-1] if self.ids else self.common


@dataclass(frozen=True)
class Exchange:
    """A phrase and what takes its place, over the same sentences.

    Attributes:
        source: the phrase.
        target: the other one; it may be empty.
        sentences: how many pairs were averaged.
    """

    source: Phrase
    target: Phrase
    sentences: int

    def reversed(self) -> Exchange:
        """The way back."""
        return Exchange(self.target, self.source, self.sentences)


@dataclass(frozen=True)
class PairSums:
    """Sums over the pairs that exchange one phrase for another; of both sides, source first.

    Attributes:
        phrases: tokens of the phrases.
        rows: sums of what `Phrase.rows` has the means of, float64.
        counts: how many embeddings were added up in each row.
        pooled: sums of the pooled embeddings, or None.
        sentences: how many pairs.
    """

    phrases: tuple[Sequence[Token], Sequence[Token]]
    rows: tuple[Tensor, Tensor]
    counts: tuple[Tensor, Tensor]
    pooled: tuple[Tensor, Tensor] | None
    sentences: int

    @property
    def key(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The token ids of both phrases."""
        source, target = self.phrases
        return tuple(token.id for token in source), tuple(token.id for token in target)

    def __add__(self, other: PairSums) -> PairSums:
        """Add pairs of the same key."""

        def both(mine: tuple[Tensor, Tensor], its: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            return mine[0] + its[0], mine[1] + its[1]

        pooled = None if self.pooled is None or other.pooled is None else both(self.pooled, other.pooled)
        rows, counts = both(self.rows, other.rows), both(self.counts, other.counts)
        return PairSums(self.phrases, rows, counts, pooled, self.sentences + other.sentences)

    def mean(self) -> Exchange:
        """The means."""
        source, target = (
            Phrase(
                written(self.phrases[side]),
                self.key[side],
                (self.rows[side] / self.counts[side].clamp(min=1)[:, None]).float(),
                None if self.pooled is None else (self.pooled[side] / self.sentences).float(),
            )
            for side in (0, 1)
        )
        return Exchange(source, target, self.sentences)


def compare_pair(
    tokens: tuple[Sequence[Token], Sequence[Token]],
    embeddings: tuple[Tensor, Tensor],
    pooled: tuple[Tensor, Tensor] | None,
    reading: Reading,
) -> PairSums:
    """Lay the two sentences of a pair side by side.

    Args:
        tokens: of both.
        embeddings: of both, (L, D), float64; the two may be of different lengths.
        pooled: of both, (P,), or None.
        reading: how the text lies in them.
    """
    spans = exchanged(*tokens)
    stops = [text[-1].position + 1 if text else reading.start for text in tokens]
    ends = [stop + reading.end for stop in stops]
    filled = max(0, min(len(row) - end for row, end in zip(embeddings, ends, strict=True)))  # padding that both have
    phrases, rows, counts = list[Sequence[Token]](), list[Tensor](), list[Tensor]()
    for text, span, stop, end, embedding in zip(tokens, spans, stops, ends, embeddings, strict=True):
        at = embedding[[token.position for token in text]]
        around = [
            at[: span.start],
            at[span.stop :],
            *(embedding[i : i + 1] for i in range(stop, end)),
            embedding[end : end + filled],
        ]
        phrases.append(text[span])
        rows.append(torch.cat([at[span], torch.stack([part.sum(0) for part in around])]))
        counts.append(torch.tensor([1] * (span.stop - span.start) + [len(part) for part in around]))
    return PairSums((phrases[0], phrases[1]), (rows[0], rows[1]), (counts[0], counts[1]), pooled, 1)


def require_one_chunk(sentence: str, tokens: Sequence[Token], embedding: Tensor, reading: Reading) -> None:
    """Refuse a sentence that takes several chunks, or another length than its counterpart.

    Raises:
        ValueError: it does.
    """
    positions = [token.position for token in tokens]
    together = positions == list(range(positions[0], positions[0] + len(positions))) if positions else True
    stop = positions[-1] + 1 if positions else reading.start
    if not together or stop + reading.end > len(embedding) or len(embedding) != (reading.length or len(embedding)):
        raise ValueError(
            f"{sentence!r} is encoded to {len(embedding)} tokens; a direction needs all of one length and one chunk. "
            "Shorten the sentences that take more than one chunk."
        )
