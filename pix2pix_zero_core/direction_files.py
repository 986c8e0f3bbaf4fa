"""Edit directions on disk: safetensors with metadata, and the embeddings that the original project distributes.

The metadata name the form of the direction. Files of 0.1.0 name none, and are all of one form, mean by position. A form
that 0.1.0 does not know has another version number, so that it says that it is too old instead of misreading the file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .files import write_whole

FORMAT = "pix2pix-zero edit direction"
MEAN, ALIGNED = "mean by position", "aligned to words"
VERSIONS = {MEAN: "1", ALIGNED: "2"}
"""Form of a direction -> version of the format of its file."""


@dataclass(frozen=True)
class DirectionFile:
    """What a file holds.

    Attributes:
        form: of the direction, a key of `VERSIONS`.
        source: what the direction leads away from.
        target: what it leads to.
        encoder: fingerprint of its text encoder.
        sentences: how many source and target sentences it was averaged over.
        tensors: by name; float32 once they are read.
        more: further metadata.
    """

    form: str
    source: str
    target: str
    encoder: str
    sentences: tuple[int, int]
    tensors: Mapping[str, Tensor]
    more: Mapping[str, str] = field(default_factory=dict[str, str])


def write_direction(path: str | os.PathLike[str], content: DirectionFile, *, overwrite: bool = False) -> None:
    """Write a safetensors file with metadata; an interrupted write leaves no file behind under this name.

    Args:
        path: where to; its folder must exist.
        content: what to write.
        overwrite: whether a file that is there already may be replaced.

    Raises:
        FileExistsError: the file exists, and may not be replaced; or a folder has its name.
        FileNotFoundError: the folder does not exist.
    """
    tensors = {name: tensor.detach().float().cpu().contiguous() for name, tensor in content.tensors.items()}
    metadata = {
        "format": FORMAT,
        "version": VERSIONS[content.form],
        "form": content.form,
        "source": content.source,
        "target": content.target,
        "encoder": content.encoder,
        "source_sentences": str(content.sentences[0]),
        "target_sentences": str(content.sentences[1]),
        **content.more,
    }
    write_whole(Path(path), save(tensors, metadata), overwrite=overwrite)


def read_direction(path: str | os.PathLike[str], forms: Collection[str] = tuple(VERSIONS)) -> DirectionFile:
    """Read what a file holds.

    Args:
        path: a file written by :func:`write_direction`.
        forms: the forms that will do.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a safetensors file, not a direction, or one of another form or version.
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
            f"{metadata.get('format')!r}, expected {FORMAT!r}. Choose one that Save Edit "
            "Direction or pix2pix-zero direction wrote."
        )
    form = metadata.get("form", MEAN)
    if form not in VERSIONS:
        raise ValueError(
            f"{path} holds a direction of the form {form!r}; this release knows {' and '.join(map(repr, VERSIONS))}. "
            "Update the pack or build the direction again."
        )
    if metadata.get("version") != VERSIONS[form]:
        raise ValueError(
            f"{path} has format version {metadata.get('version')!r}; this release reads {VERSIONS[form]!r}. Update the "
            "pack or build the direction again."
        )
    if form not in forms:
        raise ValueError(
            f"{path} holds a direction of the form {form!r}, not {' or '.join(map(repr, forms))}. Read it with "
            "load_direction, which knows all forms."
        )
    missing = sorted({"source", "target", "encoder", "source_sentences", "target_sentences"} - metadata.keys())
    missing += ["vector"] if form == MEAN and "vector" not in tensors else []
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}. Build the direction again.")
    for count in ("source_sentences", "target_sentences"):
        if not re.fullmatch(r"\d{1,9}", metadata[count]):
            raise ValueError(f"{path}: {count} is {metadata[count][:20]!r}, not a number. Build the direction again.")
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise ValueError(f"{path}: {name} has dtype {tensor.dtype}. Build the direction again.")
    return DirectionFile(
        form,
        metadata["source"],
        metadata["target"],
        metadata["encoder"],
        (int(metadata["source_sentences"]), int(metadata["target_sentences"])),
        {name: tensor.float() for name, tensor in tensors.items()},
        metadata,
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
