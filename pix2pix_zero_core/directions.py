"""Edit directions: the difference of two concepts in a text encoder's output, from many sentences about each.

    delta = mean over sentences of E(target sentence) - mean over sentences of E(source sentence)    at every token,
    edited conditioning = c + strength * delta.

Parmar et al. (2023), arXiv:2302.03027, section 3.2. Directions of one encoder add up; another encoder's are refused.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .files import write_whole

FORMAT = "pix2pix-zero edit direction"
VERSION = "1"

Encode = Callable[[Sequence[str]], tuple[Tensor, Tensor | None]]
"""Sentences -> token embeddings (n, L, D) and pooled embeddings (n, P), or None where the encoder has none."""

OnProgress = Callable[[int, int], None] | None
"""Called with the number of encoded sentences and their total."""


@dataclass(frozen=True)
class EditDirection:
    """A direction in the output space of one text encoder.

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

    @property
    def name(self) -> str:
        """What the edit turns into what, for messages and labels."""
        return f"{self.source} -> {self.target}"

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
            the sum; its names join those of the parts (a reversed edit's are exchanged), its counts add up.

        Raises:
            ValueError: no directions, a weight that is not finite, different encoders or different shapes.
        """
        if not weighted:
            raise ValueError("There are no directions to combine; give at least one.")
        first = weighted[0][0]
        for direction, weight in weighted:
            if not math.isfinite(weight):
                raise ValueError(f"The weight of {direction.name} is {weight}; it must be finite.")
            direction.require_encoder(first.encoder)
            if direction.vector.shape != first.vector.shape or (direction.pooled is None) != (first.pooled is None):
                raise ValueError(
                    f"Directions {first.name} {tuple(first.vector.shape)} and {direction.name} "
                    f"{tuple(direction.vector.shape)} differ in shape or in having a pooled part; build both with the "
                    "same encoder settings."
                )
        pooled = [weight * direction.pooled for direction, weight in weighted if direction.pooled is not None]
        names = [(d.source, d.target) if weight >= 0 else (d.target, d.source) for d, weight in weighted]
        return EditDirection(
            vector=torch.stack([weight * direction.vector for direction, weight in weighted]).sum(0),
            pooled=torch.stack(pooled).sum(0) if pooled else None,
            source=" + ".join(source for source, _ in names),
            target=" + ".join(target for _, target in names),
            encoder=first.encoder,
            sentences=(
                sum(direction.sentences[0] for direction, _ in weighted),
                sum(direction.sentences[1] for direction, _ in weighted),
            ),
        )

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

    def require_encoder(self, encoder: str) -> None:
        """Refuse an encoder other than the one that made the direction.

        Raises:
            ValueError: another fingerprint.
        """
        if encoder != self.encoder:
            raise ValueError(
                f"Direction {self.name} was made by text encoder {self.encoder!r}, the prompt by {encoder!r}. Build "
                "the direction again with the checkpoint in use, or load the checkpoint that made it."
            )

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write a safetensors file with metadata; an interrupted write leaves no file behind under this name.

        Args:
            path: where to; its folder must exist.
            overwrite: whether a file that is there already may be replaced.

        Raises:
            FileExistsError: the file exists, and may not be replaced; or a folder has its name.
            FileNotFoundError: the folder does not exist.
        """
        tensors = {"vector": self.vector.detach().float().cpu().contiguous()}
        if self.pooled is not None:
            tensors["pooled"] = self.pooled.detach().float().cpu().contiguous()
        metadata = {
            "format": FORMAT,
            "version": VERSION,
            "source": self.source,
            "target": self.target,
            "encoder": self.encoder,
            "source_sentences": str(self.sentences[0]),
            "target_sentences": str(self.sentences[1]),
        }
        write_whole(Path(path), save(tensors, metadata), overwrite=overwrite)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> EditDirection:
        """Read a direction.

        Args:
            path: a file written by :meth:`save`.

        Returns:
            the direction, on the CPU.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not a safetensors file, not a direction, another format version, or values that are not finite.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"There is no edit direction at {path}. Choose an existing file or build it first.")
        try:
            with cast(Any, safe_open)(path, framework="pt") as file:
                metadata: dict[str, str] = file.metadata() or {}
                tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(
                f"{path} is not a readable safetensors file ({error}). Download or build the direction again."
            ) from error
        if metadata.get("format") != FORMAT:
            raise ValueError(
                f"{path} is a safetensors file, but no edit direction: its metadata says format "
                f"{metadata.get('format')!r}, expected {FORMAT!r}. Choose a file saved by EditDirection.save."
            )
        if metadata.get("version") != VERSION:
            raise ValueError(
                f"{path} has format version {metadata.get('version')!r}; this release reads {VERSION!r}. Update the "
                "pack or build the direction again."
            )
        required = {"source", "target", "encoder", "source_sentences", "target_sentences"}
        missing = sorted((required - metadata.keys()) | ({"vector"} - tensors.keys()))
        if missing:
            raise ValueError(f"{path} lacks {', '.join(missing)}. Build the direction again.")
        for count in ("source_sentences", "target_sentences"):
            if not re.fullmatch(r"\d{1,9}", metadata[count]):
                raise ValueError(
                    f"{path}: {count} is {metadata[count][:20]!r}, not a number. Build the direction again."
                )
        for name in ("vector", "pooled"):
            if name in tensors and not tensors[name].is_floating_point():
                raise ValueError(f"{path}: {name} has dtype {tensors[name].dtype}. Build the direction again.")
        return EditDirection(
            vector=tensors["vector"].float(),
            pooled=tensors["pooled"].float() if "pooled" in tensors else None,
            source=metadata["source"],
            target=metadata["target"],
            encoder=metadata["encoder"],
            sentences=(int(metadata["source_sentences"]), int(metadata["target_sentences"])),
        )


def read_embedding(path: str | os.PathLike[str]) -> Tensor:
    """Read the mean embedding of a concept from a `.pt` file of the original project.

    Only tensors are unpickled; a file with anything else in it is refused before any of it runs, and so is one that
    asks for more memory than it has bytes.

    Args:
        path: holds one tensor, (L, D) or (n, L, D) for n embeddings still to be averaged.

    Returns:
        the embedding, (L, D), float32, on the CPU.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a torch file, or something else than such a tensor in it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no embedding at {path}. Choose an existing .pt file.")
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a corrupt file fails with whatever its parser raises: IndexError, KeyError ...
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise ValueError(f"{path} holds no tensor that can be read safely ({reason}). Download it again.") from error
    if not isinstance(content, Tensor):
        raise ValueError(f"{path} holds a {type(content).__name__}, not one tensor. Choose an embedding file.")
    if content.is_nested or content.layout != torch.strided or content.device.type != "cpu":
        raise ValueError(f"{path} holds a sparse or nested tensor or one without values. Choose an embedding file.")
    if content.numel() * content.element_size() > path.stat().st_size:
        raise ValueError(
            f"{path} holds a tensor of shape {tuple(content.shape)}, which is more than the file has room for. "
            "Download it again."
        )
    if content.ndim not in (2, 3) or content.numel() == 0 or not content.is_floating_point():
        raise ValueError(
            f"{path} holds a tensor of shape {tuple(content.shape)} and type {content.dtype}; an embedding is floating "
            "point, (tokens, width) or (n, tokens, width)."
        )
    embedding = content.detach().float()
    return embedding.mean(0) if embedding.ndim == 3 else embedding


def _mean_embedding(
    encode: Encode, sentences: Sequence[str], batch_size: int, report: Callable[[int], None]
) -> tuple[Tensor, Tensor | None]:
    """Average the token (L, D) and pooled (P,) embeddings of sentences, in float64."""
    total, pooled_total = torch.zeros(()), torch.zeros(())
    has_pooled = False
    for start in range(0, len(sentences), batch_size):
        batch = sentences[start : start + batch_size]
        tokens, pooled = encode(batch)
        sums = tokens.detach().double().cpu().sum(0)
        if start > 0:
            _require_same_tokens(total, sums, batch[0])
        total = total + sums
        if pooled is not None:
            has_pooled, pooled_total = True, pooled_total + pooled.detach().double().cpu().sum(0)
        report(start + len(batch))
    return total / len(sentences), pooled_total / len(sentences) if has_pooled else None


def _require_same_tokens(expected: Tensor, found: Tensor, sentence: str) -> None:
    if found.shape != expected.shape:
        raise ValueError(
            f"Sentences are encoded to {tuple(expected.shape)} and to {tuple(found.shape)} (tokens, width), near "
            f"{sentence!r}; a direction needs all of one length. Shorten the sentences that take more than one chunk."
        )


def _require_finite_strength(strength: float) -> None:
    if not math.isfinite(strength):
        raise ValueError(f"The strength of the edit is {strength}; it must be a finite number.")
