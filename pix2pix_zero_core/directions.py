"""Edit directions: the difference of two concepts in a text encoder's output, from many sentences about each.

    delta = mean over sentences of E(target sentence) - mean over sentences of E(source sentence)    at every token,
    edited conditioning = c + strength * delta.

Parmar et al. (2023), arXiv:2302.03027, section 3.2. Directions of one encoder add up; another encoder's are refused.
"""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor

from .direction_files import MEAN, DirectionFile, read_direction, read_embedding, write_direction
from .encoders import differing_settings, kind_of
from .tokens import Token

Encode = Callable[[Sequence[str]], tuple[Tensor | Sequence[Tensor], Tensor | None]]
"""Sentences -> token embeddings (n, L, D), or a list of (L, D) where they are of different lengths; and pooled
embeddings (n, P), or None where the encoder has none."""

OnProgress = Callable[[int, int], None] | None
"""Called with the number of encoded sentences and their total."""


class Direction(ABC):
    """What directions of every form share.

    Attributes:
        form: name of the form, for people and files.
        source: what the direction leads away from, "cat".
        target: what it leads to, "dog".
        encoder: fingerprint of the text encoder that it belongs to.
        sentences: how many source and target sentences it was averaged over; (0, 0) where nobody noted it.
    """

    form: ClassVar[str]
    source: str
    target: str
    encoder: str
    sentences: tuple[int, int]

    @property
    def name(self) -> str:
        """What the edit turns into what, for messages and labels."""
        return f"{self.source} -> {self.target}"

    @abstractmethod
    def place(self, embedding: Tensor, tokens: Sequence[Token] | None = None, *, strength: float = 1.0) -> Placed:
        """Lay the direction onto one caption.

        Args:
            embedding: of the caption, (k*L, D).
            tokens: of the caption; None where nobody knows.
            strength: at which the direction will be applied; only the sign counts.

        Returns:
            the direction for this embedding, and remarks for people.

        Raises:
            ValueError: the embedding or the tokens do not fit.
        """

    @abstractmethod
    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write a safetensors file with metadata; an interrupted write leaves no file behind under this name.

        Args:
            path: where to; its folder must exist.
            overwrite: whether a file that is there already may be replaced.

        Raises:
            FileExistsError: the file exists, and may not be replaced; or a folder has its name.
            FileNotFoundError: the folder does not exist.
        """

    def require_encoder(self, encoder: str) -> None:
        """Refuse an encoder other than the one that made the direction.

        Raises:
            ValueError: another fingerprint: other weights, or the same ones set differently.
        """
        if encoder == self.encoder:
            return
        differing = differing_settings(self.encoder, encoder)
        if differing:
            raise ValueError(
                f"Direction {self.name} was made by the prompt's text encoder, but set differently: {differing}. Or "
                "build the direction again with the CLIP that encodes the prompt."
            )
        said = f"Direction {self.name} was made by text encoder {self.encoder!r}, the prompt by {encoder!r}. "
        if kind_of(self.encoder) != kind_of(encoder):
            raise ValueError(
                f"{said}That is another kind, or another program's (ComfyUI and the command line name the same encoder "
                "differently, and cannot exchange directions). Build the direction again, here."
            )
        raise ValueError(
            f"{said}The weights are another checkpoint's. Build the direction again with the checkpoint in use, or "
            "load the checkpoint that made it."
        )

    def file(self, tensors: Mapping[str, Tensor], more: Mapping[str, str]) -> DirectionFile:
        """What to write to disk."""
        return DirectionFile(self.form, self.source, self.target, self.encoder, self.sentences, tensors, more)


class Placed(NamedTuple):
    """A direction where one caption wants it.

    Attributes:
        direction: for this caption's embedding alone, with what is added to it, unless it fits any.
        remarks: for people: why it may not be where it should be.
        added: what is put behind the embedding before it is shifted, (a, D): room for words that it has not.
        filled: positions of padding where words stand after the shift.
    """

    direction: EditDirection
    remarks: tuple[str, ...] = ()
    added: Tensor | None = None
    filled: tuple[int, ...] = ()

    def apply(self, embedding: Tensor, strength: float = 1.0, *, encoder: str) -> Tensor:
        """Shift the caption's embedding, (L, D), as :meth:`EditDirection.apply`; a strength of 0 adds nothing to it."""
        direction, count = self.direction, len(embedding)
        if self.added is not None and strength:
            embedding = torch.cat([embedding, self.added.to(embedding)])
        elif self.added is not None:
            direction = replace(direction, vector=direction.vector[:count])
        return direction.apply(embedding[None], strength, encoder=encoder)[0]


D = TypeVar("D", bound=Direction)


def counting(weighted: Sequence[tuple[D, float]]) -> list[tuple[D, float]]:
    """Leave out directions of weight 0, of which nothing is wanted, their names neither; but for all of them."""
    return [(direction, weight) for direction, weight in weighted if weight] or list(weighted)


class CombinedNames(NamedTuple):
    """What a sum of directions is called, and over how many sentences its parts were averaged."""

    source: str
    target: str
    sentences: tuple[int, int]


def combined_names(weighted: Sequence[tuple[Direction, float]]) -> CombinedNames:
    """Join the names of directions, and add up their sentences; a reversed edit's names are exchanged.

    Raises:
        ValueError: no directions, a weight that is not finite, or different encoders.
    """
    if not weighted:
        raise ValueError("There are no directions to combine; give at least one.")
    first = weighted[0][0]
    for direction, weight in weighted:
        if not math.isfinite(weight):
            raise ValueError(f"The weight of {direction.name} is {weight}; it must be finite.")
        if direction.encoder != first.encoder:
            raise ValueError(
                f"Direction {first.name} was made by text encoder {first.encoder!r}, {direction.name} by "
                f"{direction.encoder!r}. Build both with the same CLIP, set alike."
            )
    weighted = counting(weighted)
    names = [(d.source, d.target) if weight >= 0 else (d.target, d.source) for d, weight in weighted]
    counts = [direction.sentences for direction, _ in weighted]
    return CombinedNames(
        " + ".join(source for source, _ in names),
        " + ".join(target for _, target in names),
        (sum(source for source, _ in counts), sum(target for _, target in counts)),
    )


@dataclass(frozen=True)
class EditDirection(Direction):
    """A direction in the output space of one text encoder, mean by position: the paper's form.

    Attributes:
        vector: shift of every token embedding, (L, D), float32.
        pooled: shift of the pooled embedding, (P,), float32 (SDXL); None where the encoder has none.
        source: what the direction leads away from, "cat".
        target: what it leads to, "dog".
        encoder: fingerprint of the text encoder that it belongs to.
        sentences: how many source and target sentences it was averaged over; (0, 0) where nobody noted it.

    Raises:
        ValueError: a wrong shape, NaN or Inf, or an empty encoder fingerprint.
    """

    form: ClassVar[str] = MEAN

    vector: Tensor
    pooled: Tensor | None
    source: str
    target: str
    encoder: str
    sentences: tuple[int, int]

    def __post_init__(self) -> None:
        """Validate shapes and values."""
        if self.vector.ndim != 2 or self.vector.numel() == 0:
            raise ValueError(f"EditDirection: vector has shape {tuple(self.vector.shape)}; it must be (tokens, width).")
        if self.pooled is not None and (self.pooled.ndim != 1 or self.pooled.numel() == 0):
            raise ValueError(f"EditDirection: pooled has shape {tuple(self.pooled.shape)}; it must be (width,).")
        for tensor in (self.vector, self.pooled):
            if tensor is not None and not bool(torch.isfinite(tensor).all()):
                raise ValueError(
                    f"Direction {self.name} holds NaN or Inf. Build it again, with the text encoder in float32."
                )
        if not self.encoder:
            raise ValueError("EditDirection: encoder is empty; it must name the text encoder that made the direction.")

    @classmethod
    def build(
        cls,
        encode: Encode,
        source_sentences: Sequence[str],
        target_sentences: Sequence[str],
        *,
        source: str,
        target: str,
        encoder: str,
        batch_size: int = 32,
        on_progress: OnProgress = None,
    ) -> EditDirection:
        """Average the embeddings of two sets of sentences and subtract.

        Args:
            encode: the text encoder; every sentence must come out with the same number of tokens.
            source_sentences: sentences about the source concept; about 1000 in the paper, one is a plain word swap.
            target_sentences: sentences about the target concept.
            source: name of the source concept.
            target: name of the target concept.
            encoder: fingerprint of the text encoder.
            batch_size: sentences encoded at once.
            on_progress: called after every batch.

        Returns:
            the direction, on the CPU.

        Raises:
            ValueError: no sentences, an empty sentence, a batch size below 1, or sentences of different lengths.
        """
        for name, sentences in (("source", source_sentences), ("target", target_sentences)):
            if not sentences:
                raise ValueError(f"There are no {name} sentences; give at least one.")
            if not all(sentence.strip() for sentence in sentences):
                raise ValueError(f"One of the {len(sentences)} {name} sentences is empty; remove blank lines.")
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be >= 1.")
        total = len(source_sentences) + len(target_sentences)

        def report(done: int) -> None:
            if on_progress is not None:
                on_progress(done, total)

        source_mean, source_pooled = _mean_embedding(encode, source_sentences, batch_size, report)
        target_mean, target_pooled = _mean_embedding(
            encode, target_sentences, batch_size, lambda done: report(len(source_sentences) + done)
        )
        _require_same_tokens(source_mean, target_mean, target_sentences[0])
        pooled = None
        if source_pooled is not None and target_pooled is not None:
            pooled = (target_pooled - source_pooled).float()
        counts = (len(source_sentences), len(target_sentences))
        return cls((target_mean - source_mean).float(), pooled, source, target, encoder, counts)

    @classmethod
    def from_embedding_files(
        cls, source: str | os.PathLike[str], target: str | os.PathLike[str], *, encoder: str
    ) -> EditDirection:
        """Read the mean embeddings that the original project distributes, one file a concept.

        Args:
            source: a `.pt` file, as :func:`read_embedding` reads it; its name is that of the concept.
            target: the same for the target concept.
            encoder: fingerprint of the text encoder that made both; the files do not say (CLIP ViT-L/14 of SD 1.4).

        Returns:
            the direction, without a pooled part.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: a file that is no embedding, or two of different shapes.
        """
        source, target = Path(source), Path(target)
        before, after = read_embedding(source), read_embedding(target)
        if before.shape != after.shape:
            raise ValueError(
                f"{source} holds {tuple(before.shape)} and {target} holds {tuple(after.shape)} (tokens, width); they "
                "come from different text encoders. Choose two files of one encoder."
            )
        return cls(after - before, None, source.stem, target.stem, encoder, (0, 0))

    @staticmethod
    def combine(weighted: Sequence[tuple[EditDirection, float]]) -> EditDirection:
        """Add directions: several edits at once are a weighted sum.

        Args:
            weighted: directions of one encoder with their weights; a negative weight reverses an edit.

        Returns:
            the sum; its names join those of the parts (a reversed edit's are exchanged, those of weight 0 left out),
            its counts add up.

        Raises:
            ValueError: no directions, a weight that is not finite, different encoders or different shapes.
        """
        names = combined_names(weighted)
        first = weighted[0][0]
        for direction, _ in weighted:
            if direction.vector.shape != first.vector.shape or (direction.pooled is None) != (first.pooled is None):
                raise ValueError(
                    f"Directions {first.name} {tuple(first.vector.shape)} and {direction.name} "
                    f"{tuple(direction.vector.shape)} differ in shape or in having a pooled part; build both with the "
                    "same encoder settings."
                )
        pooled = [weight * direction.pooled for direction, weight in weighted if direction.pooled is not None]
        return EditDirection(
            vector=torch.stack([weight * direction.vector for direction, weight in weighted]).sum(0),
            pooled=torch.stack(pooled).sum(0) if pooled else None,
            source=names.source,
            target=names.target,
            encoder=first.encoder,
            sentences=names.sentences,
        )

    def place(self, embedding: Tensor, tokens: Sequence[Token] | None = None, *, strength: float = 1.0) -> Placed:
        """Return the direction itself: it is the same for every caption."""
        return Placed(self)

    def apply(self, embedding: Tensor, strength: float = 1.0, *, encoder: str) -> Tensor:
        """Shift a prompt's token embeddings.

        Args:
            embedding: (B, k*L, D); each of its k chunks of L tokens is shifted.
            strength: 1 is the full edit, a negative one reverses it, 0 changes nothing.
            encoder: fingerprint of the text encoder that made the embedding.

        Returns:
            shifted embedding, (B, k*L, D), dtype and device of ``embedding``.

        Raises:
            ValueError: another encoder, a shape that does not fit, a strength that is not finite, or NaN or Inf in what
                comes out.
        """
        self.require_encoder(encoder)
        _require_finite_strength(strength)
        length, width = self.vector.shape
        if embedding.ndim != 3 or embedding.shape[1] % length or embedding.shape[2] != width:
            raise ValueError(
                f"The prompt's embedding has shape {tuple(embedding.shape)}; direction {self.name} fits (batch, a "
                f"multiple of {length} tokens, {width}). Build the direction with this prompt's text encoder."
            )
        shift = strength * self.vector.repeat(embedding.shape[1] // length, 1)
        return self._require_finite(embedding + shift.to(embedding), strength)

    def apply_pooled(self, pooled: Tensor, strength: float = 1.0, *, encoder: str) -> Tensor:
        """Shift a prompt's pooled embedding (SDXL).

        Args:
            pooled: (B, P).
            strength: as in :meth:`apply`.
            encoder: fingerprint of the text encoder that made the embedding.

        Returns:
            shifted pooled embedding, (B, P); unchanged where the direction has no pooled part.

        Raises:
            ValueError: another encoder, a shape that does not fit, a strength that is not finite, or NaN or Inf in what
                comes out.
        """
        self.require_encoder(encoder)
        _require_finite_strength(strength)
        if self.pooled is None:
            return pooled
        if pooled.ndim != 2 or pooled.shape[1] != len(self.pooled):
            raise ValueError(
                f"The prompt's pooled embedding has shape {tuple(pooled.shape)}; direction {self.name} fits (batch, "
                f"{len(self.pooled)}). Build the direction with this prompt's text encoder."
            )
        return self._require_finite(pooled + (strength * self.pooled).to(pooled), strength)

    def _require_finite(self, shifted: Tensor, strength: float) -> Tensor:
        if not bool(torch.isfinite(shifted).all()):
            raise ValueError(
                f"A prompt's embedding holds NaN or Inf after a shift of strength {strength} along {self.name}. Lower "
                "the strength, or run the text encoder in float32."
            )
        return shifted

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write a file; see :meth:`Direction.save`."""
        tensors = {"vector": self.vector} if self.pooled is None else {"vector": self.vector, "pooled": self.pooled}
        write_direction(path, self.file(tensors, {}), overwrite=overwrite)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> EditDirection:
        """Read a direction of this form; `load_direction` reads those of any.

        Args:
            path: a file written by :meth:`save`.

        Returns:
            the direction, on the CPU.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not a safetensors file, not a direction of this form, another format version, or values that
                are not finite.
        """
        return cls.from_file(read_direction(path, (cls.form,)))

    @classmethod
    def from_file(cls, file: DirectionFile) -> EditDirection:
        """Make the direction of what a file holds.

        Raises:
            ValueError: wrong shapes, or values that are not finite.
        """
        pooled = file.tensors.get("pooled")
        return cls(file.tensors["vector"], pooled, file.source, file.target, file.encoder, file.sentences)


def _mean_embedding(
    encode: Encode, sentences: Sequence[str], batch_size: int, report: Callable[[int], None]
) -> tuple[Tensor, Tensor | None]:
    """Average the token (L, D) and pooled (P,) embeddings of sentences, in float64."""
    total, pooled_total = torch.zeros(()), torch.zeros(())
    has_pooled = False
    for start in range(0, len(sentences), batch_size):
        batch = sentences[start : start + batch_size]
        tokens, pooled = encode(batch)
        for row, sentence in zip(tokens, batch, strict=True):
            _require_same_tokens(tokens[0], row, sentence)
        sums = torch.stack([row.detach().cpu().double() for row in tokens]).sum(0)
        if start > 0:
            _require_same_tokens(total, sums, batch[0])
        total = total + sums
        if pooled is not None:
            has_pooled, pooled_total = True, pooled_total + pooled.detach().cpu().double().sum(0)
        report(start + len(batch))
    return total / len(sentences), pooled_total / len(sentences) if has_pooled else None


def _require_same_tokens(expected: Tensor, found: Tensor, sentence: str) -> None:
    if found.shape != expected.shape:
        raise ValueError(
            f"Sentences are encoded to {tuple(expected.shape)} and to {tuple(found.shape)} (tokens, width), near "
            f"{sentence!r}; a mean by position needs all of one length. Shorten the sentences that take more than one "
            "chunk; with a text encoder that makes as many tokens as the text has choose the form 'aligned to words'."
        )


def _require_finite_strength(strength: float) -> None:
    if not math.isfinite(strength):
        raise ValueError(f"The strength of the edit is {strength}; it must be a finite number.")
