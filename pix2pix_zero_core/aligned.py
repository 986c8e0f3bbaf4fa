"""Edit directions aligned to words: what exchanging a phrase does to a sentence's embedding, from many pairs.

The mean of Parmar et al. (2023), arXiv:2302.03027, section 3.2, is taken position by position, whatever word stands
there. Here the two sentences of a pair are the same but for one phrase, and their tokens are laid side by side:

    at its k-th token    mean of E(target)[k-th token of the target's phrase] - mean of E(source)[k-th token]
    before, after it     mean over the tokens that both sentences have there, and of each difference alone at the
    at the end token     end and in the padding, where CLIP sums up the sentence

:meth:`AlignedDirection.place` lays these where a caption has the phrase, and returns an ordinary
:class:`~.directions.EditDirection`. Every other token of the caption keeps its position, so that the attention maps of
both texts stay comparable token by token: what a longer target phrase has in surplus stands in the first padding, and
tokens that a shorter one lacks turn into padding.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from .direction_files import ALIGNED, DirectionFile, write_direction
from .directions import Direction, EditDirection, Encode, OnProgress, Placed, combined_names, counting
from .phrases import Exchange, PairSums, Phrase, compare_pair, require_one_chunk
from .placement import find_place, shift, split_chunks
from .readings import Reading, fitting_length, part_embedding
from .tokens import Token, Tokenize

RARE = 0.08
"""A phrase that a smaller share of the pairs exchanges is an accident, and left out."""


@dataclass(frozen=True)
class WordEdit:
    """An edit, by the phrases that sentences have for its source.

    Attributes:
        exchanges: one for every phrase ("cat", "cats"), the most frequent first.
        weight: factor of all of them; a negative one reverses the edit.
        reading: number of the reading whose tokens they are; the pooled vectors go with the first, 0.
    """

    exchanges: tuple[Exchange, ...]
    weight: float = 1.0
    reading: int = 0

    def __post_init__(self) -> None:
        """Validate that there is something to exchange."""
        if not self.exchanges or not math.isfinite(self.weight):
            raise ValueError(
                f"An edit exchanges {len(self.exchanges)} phrases with a weight of {self.weight}; there must be at "
                "least one, and a finite weight."
            )


@dataclass(frozen=True)
class AlignedDirection(Direction):
    """A direction in the output space of one text encoder, aligned to words.

    Attributes:
        edits: one for each reading of the text, and more that were combined.
        readings: how the encoder lays a text into its embedding.
        source: what the direction leads away from, "cat".
        target: what it leads to, "dog".
        encoder: fingerprint of the text encoder that it belongs to.
        sentences: how many source and target sentences it was averaged over.

    Raises:
        ValueError: no phrases, embeddings of different widths or numbers, or an empty encoder fingerprint.
    """

    form: ClassVar[str] = ALIGNED

    edits: tuple[WordEdit, ...]
    readings: tuple[Reading, ...]
    source: str
    target: str
    encoder: str
    sentences: tuple[int, int]

    def __post_init__(self) -> None:
        """Validate that the parts fit together."""
        if not self.edits or not all(0 <= edit.reading < len(self.readings) for edit in self.edits):
            raise ValueError(
                f"Direction {self.name} has {len(self.edits)} edits of {len(self.readings)} readings of the text; it "
                "needs at least one of each. Build it again."
            )
        if any(min(reading[:3]) < 0 for reading in self.readings) or not all(r.length for r in self.readings[:-1]):
            raise ValueError(f"Direction {self.name} reads texts as {self.readings}, which none can. Build it again.")
        phrases = [p for edit in self.edits for e in edit.exchanges for p in (e.source, e.target)]
        if len({(p.rows.shape[1], None if p.pooled is None else len(p.pooled)) for p in phrases}) != 1:
            raise ValueError(f"Direction {self.name} has embeddings of different widths. Build it again.")
        for edit in self.edits:
            end = self.readings[edit.reading].end
            for phrase in (phrase for exchange in edit.exchanges for phrase in (exchange.source, exchange.target)):
                if len(phrase.rows) != len(phrase.ids) + 3 + end:
                    raise ValueError(
                        f"Direction {self.name} has {len(phrase.rows)} embeddings of {phrase.text!r}; a phrase of "
                        f"{len(phrase.ids)} tokens in texts that end with {end} has {len(phrase.ids) + 3 + end}. Build "
                        "it again."
                    )
        if not self.encoder:
            raise ValueError(
                "AlignedDirection: encoder is empty; it must name the text encoder that made the direction."
            )

    @property
    def phrases(self) -> list[str]:
        """The phrases that the direction knows its source by."""
        return [exchange.source.text for edit in self.edits for exchange in edit.exchanges]

    @classmethod
    def build(
        cls,
        encode: Encode,
        tokenize: Tokenize,
        pairs: Sequence[tuple[str, str]],
        *,
        source: str,
        target: str,
        encoder: str,
        readings: Sequence[Reading] | None = None,
        batch_size: int = 32,
        on_progress: OnProgress = None,
    ) -> AlignedDirection:
        """Average what exchanging a phrase does to every place of a sentence.

        Pairs that exchange the same phrase are averaged together; of several phrases that take one's place the most
        frequent counts.

        Args:
            encode: the text encoder; every sentence must come out as one chunk.
            tokenize: its tokenizer.
            pairs: source and target sentences, the same but for one phrase.
            source: name of the source concept.
            target: name of the target concept.
            encoder: fingerprint of the text encoder.
            readings: how it lays a text into its embedding; None is as CLIP does, in chunks as long as a sentence.
            batch_size: pairs encoded at once.
            on_progress: called after every batch with the number of encoded sentences and their total.

        Returns:
            the direction, on the CPU.

        Raises:
            ValueError: no pairs, a batch size below 1, sentences of several chunks, or pairs that have no phrase in
                common.
        """
        if not pairs:
            raise ValueError("There are no pairs of sentences; give at least one.")
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be >= 1.")
        readings = readings or [Reading(len(encode([pairs[0][0]])[0][0]))]
        sums: list[dict[Any, PairSums]] = [{} for _ in readings]
        for start in range(0, len(pairs), batch_size):
            for known, compared in zip(
                sums, _compare(encode, tokenize, pairs[start : start + batch_size], readings), strict=True
            ):
                for pair in compared:
                    known[pair.key] = known[pair.key] + pair if pair.key in known else pair
            if on_progress is not None:
                on_progress(2 * min(start + batch_size, len(pairs)), 2 * len(pairs))
        if not any(sums):
            raise ValueError(
                f"All {len(pairs)} pairs of sentences about {source} and {target} read the same to the text encoder: "
                f"{pairs[0][0]!r}, {pairs[0][1]!r}. Use words that it knows."
            )
        edits = [
            WordEdit(_frequent(known, RARE * len(pairs), f"{source} and {target}", len(pairs)), reading=number)
            for number, known in enumerate(sums)
            if known
        ]
        count = sum(exchange.sentences for exchange in edits[0].exchanges)
        return cls(tuple(edits), tuple(readings), source, target, encoder, (count, count))

    @staticmethod
    def combine(weighted: Sequence[tuple[AlignedDirection, float]]) -> AlignedDirection:
        """Add directions: each is placed where a caption has its own phrase.

        Args:
            weighted: directions of one encoder with their weights; a negative weight reverses an edit.

        Returns:
            the sum; its names join those of the parts (a reversed edit's are exchanged, those of weight 0 left out),
            its counts add up.

        Raises:
            ValueError: no directions, a weight that is not finite, or different encoders.
        """
        names = combined_names(weighted)
        return AlignedDirection(
            edits=tuple(replace(e, weight=weight * e.weight) for d, weight in counting(weighted) for e in d.edits),
            readings=weighted[0][0].readings,
            source=names.source,
            target=names.target,
            encoder=weighted[0][0].encoder,
            sentences=names.sentences,
        )

    def place(self, embedding: Tensor, tokens: Sequence[Token] | None = None, *, strength: float = 1.0) -> Placed:
        """Lay the direction onto one caption.

        The phrase is looked for in the caption's tokens. Without them, or where it is not among them, the direction
        goes where the embedding is nearest to the phrase's; where none is near, the target phrase is put into the
        padding, as if it had been added to the caption's end. A negative strength looks for the target first, since it
        leads back from there. Where an encoder does not pad, words that a phrase has more than the other are added
        behind all tokens.

        Args:
            embedding: of the caption, (L, D).
            tokens: of the caption, as the tokenizer of its text encoder gives them; None where nobody knows.
            strength: at which it will be applied; only the sign counts.

        Returns:
            the direction for this embedding alone, and remarks for people: empty where the caption has the phrases.

        Raises:
            ValueError: an embedding of another shape, or tokens of another text.
        """
        parts = self._parts(embedding)
        embedding = embedding.detach().float().cpu()
        vector, remarks, pooled = torch.zeros(embedding.shape), list[str](), list[Tensor]()
        taken, bases, added = set[int](), [embedding[:0]], [embedding[:0]]
        for edit in [edit for edit in self.edits if edit.weight]:
            part, reading = parts[edit.reading], self.readings[edit.reading]
            chunks = split_chunks(embedding, part, tokens, reading, edit.exchanges[0].source)
            ways: list[tuple[Sequence[Exchange], int]] = [(edit.exchanges, 1)]
            if strength * edit.weight < 0:
                ways.insert(0, ([exchange.reversed() for exchange in edit.exchanges], -1))
            place = find_place(chunks, ways)
            for found in shift(place, taken):
                factor = edit.weight * place.sign
                vector[found.first : found.first + len(found.vector)] += factor * found.vector
                taken.update(found.taken)
                bases.append(found.added[0])
                added.append(factor * found.added[1])
                if found.lost:
                    remarks.append(
                        f"The caption leaves no room for {found.lost} of the tokens by which "
                        f"{place.exchange.target.text!r} is longer. Shorten the caption."
                    )
            before, after = place.exchange.source.pooled, place.exchange.target.pooled
            if edit.reading == 0 and before is not None and after is not None:
                pooled.append(edit.weight * place.sign * (after - before))
            if place.remark:
                remarks.append(place.remark)
        total = torch.stack(pooled).sum(0) if pooled else None
        vector = torch.cat([vector, *added])
        direction = EditDirection(vector, total, self.source, self.target, self.encoder, self.sentences)
        return Placed(direction, tuple(dict.fromkeys(remarks)), torch.cat(bases), tuple(sorted(taken)))

    def _parts(self, embedding: Tensor) -> list[range]:
        """Find the readings of a caption in its embedding.

        Raises:
            ValueError: an embedding of another shape.
        """
        width = self.edits[0].exchanges[0].source.rows.shape[1]
        fits = embedding.ndim == 2 and embedding.shape[1] == width
        parts = part_embedding(embedding.detach().float().cpu(), self.readings) if fits else []
        if not parts:
            raise ValueError(
                f"The prompt's embedding has shape {tuple(embedding.shape)}; direction {self.name} fits "
                f"({fitting_length(self.readings)}, {width}). Build the direction with this prompt's text encoder."
            )
        return parts

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write a file; see :meth:`Direction.save`."""
        tensors, described = dict[str, Tensor](), list[Any]()
        for i, edit in enumerate(self.edits):
            described.append({"weight": edit.weight, "reading": edit.reading, "exchanges": []})
            for j, exchange in enumerate(edit.exchanges):
                entry: dict[str, Any] = {"sentences": exchange.sentences}
                for side, phrase in (("source", exchange.source), ("target", exchange.target)):
                    entry[side] = {"text": phrase.text, "ids": phrase.ids}
                    tensors[f"{i}.{j}.{side}"] = phrase.rows
                    if phrase.pooled is not None:
                        tensors[f"{i}.{j}.{side}.pooled"] = phrase.pooled
                described[-1]["exchanges"].append(entry)
        more = {"edits": json.dumps(described), "readings": json.dumps(self.readings)}
        write_direction(path, self.file(tensors, more), overwrite=overwrite)

    @classmethod
    def from_file(cls, file: DirectionFile) -> AlignedDirection:
        """Make the direction of what a file holds.

        Raises:
            ValueError: something is missing, of a wrong shape or not finite.
        """

        def phrase(entry: Any, name: str) -> Phrase:
            ids = tuple(int(i) for i in entry["ids"])
            return Phrase(str(entry["text"]), ids, file.tensors[name], file.tensors.get(f"{name}.pooled"))

        def exchange(entry: Any, name: str) -> Exchange:
            source, target = (phrase(entry[side], f"{name}.{side}") for side in ("source", "target"))
            return Exchange(source, target, int(entry["sentences"]))

        try:
            described: list[Any] = json.loads(file.more["edits"])
            edits = tuple(
                WordEdit(
                    tuple(exchange(e, f"{i}.{j}") for j, e in enumerate(edit["exchanges"])),
                    float(edit["weight"]),
                    int(edit.get("reading", 0)),
                )
                for i, edit in enumerate(described)
            )
            readings = _readings(file.more)
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise ValueError(
                f"Direction {file.source} -> {file.target}: its phrases cannot be read ({type(error).__name__}: "
                f"{error}). Build the direction again."
            ) from error
        return cls(edits, readings, file.source, file.target, file.encoder, file.sentences)


def _readings(more: Mapping[str, str]) -> tuple[Reading, ...]:
    """How the encoder of a file lays texts; earlier files knew only chunks and named their length."""
    if "readings" not in more:
        return (Reading(int(more["length"])),)
    found: list[Any] = json.loads(more["readings"])
    return tuple(Reading(int(length), int(start), int(end), bool(padded)) for length, start, end, padded in found)


def _frequent(sums: Mapping[Any, PairSums], fewest: float, names: str, count: int) -> tuple[Exchange, ...]:
    """The means of all phrases that enough pairs exchange, each for what most often takes its place."""
    frequent = sorted(sums.values(), key=lambda found: -found.sentences)
    exchanges: dict[tuple[int, ...], Exchange] = {}
    for found in frequent:
        if found.sentences >= fewest:
            exchanges.setdefault(found.key[0], found.mean())
    if not exchanges:
        some = ", ".join(f"{found.mean().source.text!r}" for found in frequent[:3])
        raise ValueError(
            f"The {count} pairs of sentences about {names} exchange no phrase often enough, but {some}. Give pairs "
            f"that are the same but for the concept, or choose the form {EditDirection.form!r}."
        )
    return tuple(exchanges.values())


def _compare(
    encode: Encode, tokenize: Tokenize, pairs: Sequence[tuple[str, str]], readings: Sequence[Reading]
) -> list[list[PairSums]]:
    """Encode pairs of sentences, and lay the two of each side by side, for each reading of the text.

    Pairs that read the same are left out: of words that a small vocabulary lacks the encoder sees no difference.
    """
    sides = [encode([pair[side] for pair in pairs]) for side in (0, 1)]
    compared: list[list[PairSums]] = [[] for _ in readings]
    for row, pair in enumerate(pairs):
        pooled = None
        if sides[0][1] is not None and sides[1][1] is not None:
            pooled = sides[0][1][row].detach().cpu().double(), sides[1][1][row].detach().cpu().double()
        texts = [
            list(_split(sentence, tokenize(sentence), embeddings[row].detach().cpu().double(), readings))
            for sentence, (embeddings, _) in zip(pair, sides, strict=True)
        ]
        for found, reading, (before, one), (after, other) in zip(compared, readings, *texts, strict=True):
            if [token.id for token in before] != [token.id for token in after]:
                found.append(compare_pair((before, after), (one, other), pooled, reading))
    return compared


def _split(
    sentence: str, tokens: Sequence[Token], embedding: Tensor, readings: Sequence[Reading]
) -> Iterator[tuple[Sequence[Token], Tensor]]:
    """Yield the tokens of a sentence, with their positions in it, and the embedding of each reading."""
    parts = part_embedding(embedding, readings) if len(readings) > 1 else [range(len(embedding))]
    for part, reading in zip(parts, readings, strict=True):
        own = [token._replace(position=token.position - part.start) for token in tokens if token.position in part]
        require_one_chunk(sentence, own, embedding[part.start : part.stop], reading)
        yield own, embedding[part.start : part.stop]
