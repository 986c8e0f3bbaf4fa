"""A distilled edit: the small network that does to a picture in one pass what the edit did in many, and its file.

The file is safetensors with metadata: half precision, under four megabytes with the usual network.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..files import write_whole
from ..types import check_pictures
from .networks import Generator

FORMAT, VERSION = "pix2pix-zero distilled edit", "1"

TEXTS = ("name", "source", "target", "encoder", "teacher", "licence")
NUMBERS = ("width", "height", "channels", "blocks")
TYPES = (torch.float16, torch.bfloat16, torch.float32)
"""Of weights in a file; ours are of the first."""


@dataclass(frozen=True)
class DistilledEdit:
    """An edit as a network.

    Attributes:
        generator: edits; folded, in evaluation.
        name: of the edit, "cat2dog".
        source: what the pictures show before it.
        target: what they show after it.
        size: width and height of the pictures that it learned from, pixels. It edits others, too, but knows things at
            the sizes that they have in those.
        encoder: fingerprint of the text encoder of the model that taught it.
        teacher: that model, and all settings of its edits, JSON.
        licence: what is known of who may use the network.
        figures: of its training, as `Training.figures` and the command line have them.
    """

    generator: Generator
    name: str
    source: str
    target: str
    size: tuple[int, int]
    encoder: str
    teacher: str
    licence: str
    figures: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @torch.no_grad()
    def apply(self, picture: Tensor, strength: float = 1.0) -> Tensor:
        """Edit a picture.

        Args:
            picture: (B, H, W, 3) of any size, values in 0..1. A picture has the same in a batch and alone, but for
                rounding.
            strength: share of the edit in the result, 0 to 1; 0 gives the picture back.

        Returns:
            the same shape, type and device, values in 0..1.

        Raises:
            TypeError, ValueError: no pictures, or a strength out of range.
        """
        check_pictures(picture)
        if not 0 <= strength <= 1:
            raise ValueError(f"strength is {strength:g}; it must be 0, the picture, to 1, the edit.")
        weight = self.generator.out.weight
        edited = self.generator(picture.movedim(-1, 1).to(weight) * 2 - 1)
        return picture.lerp((edited.movedim(1, -1).to(picture) / 2 + 0.5).clamp(0, 1), strength)

    def describe(self) -> str:
        """Say in a line what it is: "cat2dog (cat to dog), learned from 900 pairs of 128 x 128"."""
        pairs = f" {self.figures['pairs']} pairs of" if "pairs" in self.figures else ""
        width, height = self.size
        return f"{self.name} ({self.source} to {self.target}), learned from{pairs} {width} x {height}"

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the file, in half precision; an interrupted write leaves none behind under this name.

        Raises:
            FileExistsError: the file exists, and may not be replaced.
            FileNotFoundError: its folder does not exist.
            ValueError: a weight that half precision cannot hold: the training has diverged.
        """
        weights = {name: tensor.half().cpu().contiguous() for name, tensor in self.generator.state_dict().items()}
        _require_finite(weights, "The network")
        first = self.generator.down[0].convolution
        numbers = (*self.size, cast(int, cast(Any, first).out_channels), len(self.generator.bottom))
        metadata = {
            "format": FORMAT,
            "version": VERSION,
            **{name: getattr(self, name) for name in TEXTS},
            **{name: str(number) for name, number in zip(NUMBERS, numbers, strict=True)},
            "figures": json.dumps(self.figures),
        }
        write_whole(Path(path), save(weights, metadata), overwrite=overwrite)

    @staticmethod
    def load(path: str | os.PathLike[str], dtype: torch.dtype = torch.float32) -> DistilledEdit:
        """Read a file that :meth:`save` wrote.

        Args:
            path: of the file.
            dtype: in which the network computes.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not a safetensors file, no distilled edit, one of another version, or a damaged one.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"There is no distilled edit at {path}. Make one with pix2pix-zero distill.")
        metadata, weights = _read(path)
        generator = _build(path, int(metadata["channels"]), int(metadata["blocks"]), weights).to(dtype)
        try:
            figures: Any = json.loads(metadata["figures"])
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: figures are no JSON ({error}). Download it again.") from error
        if not isinstance(figures, dict):
            raise ValueError(f"{path}: figures are {figures!r:.40}, no JSON object. Download it again.")
        size = int(metadata["width"]), int(metadata["height"])
        texts = {name: metadata[name] for name in TEXTS}
        return DistilledEdit(generator, size=size, figures=cast(dict[str, Any], figures), **texts)


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and weights of a file, checked."""
    try:
        with cast(Any, safe_open)(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(
                    f"{path} is a safetensors file, but no distilled edit: its metadata says format "
                    f"{metadata.get('format')!r}, expected {FORMAT!r}. Choose a file of pix2pix-zero distill."
                )
            weights: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is not a readable safetensors file ({error}). Download it again.") from error
    if metadata.get("version") != VERSION:
        raise ValueError(
            f"{path} has format version {metadata.get('version')!r}; this release reads {VERSION!r}. Update the pack, "
            "or distill the edit again."
        )
    if missing := sorted({*TEXTS, *NUMBERS, "figures"} - metadata.keys()):
        raise ValueError(f"{path} lacks {', '.join(missing)}. Download it again.")
    for name in NUMBERS:
        if not re.fullmatch(r"\d{1,5}", metadata[name]):
            raise ValueError(f"{path}: {name} is {metadata[name][:20]!r}, not a number. Download it again.")
    _require_finite(weights, str(path))
    return metadata, weights


def _build(path: Path, channels: int, blocks: int, weights: Mapping[str, Tensor]) -> Generator:
    """The network of a file. It takes the weights as they are: nothing is set aside that the file has no room for."""
    try:
        with torch.device("meta"):
            generator = Generator(channels, blocks).folded()
        generator.load_state_dict(weights, assign=True)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()
        raise ValueError(
            f"{path} does not hold the network that its metadata say ({reason[-1].strip()}). Download it again."
        ) from error
    return generator.requires_grad_(False)


def _require_finite(weights: Mapping[str, Tensor], what: str) -> None:
    for name, tensor in weights.items():
        if tensor.dtype not in TYPES or not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{what}: {name} has NaN or Inf, or is of the type {tensor.dtype}. Train it again.")
