"""What a benchmark is: pictures, the edit of each, and columns that are read off the edited pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pix2pix_zero_core.integrations.sentences import EditSentences

from .judges import Judges


@dataclass(frozen=True)
class Sample:
    """A picture and its edit.

    Attributes:
        name: of its results: their place in the folder of a method, without suffix.
        path: of the picture.
        source: a text about what it shows.
        target: a text about what it is to show.
        prompt: a caption that came with it, or None.
        group: in which it is counted once more.
    """

    name: str
    path: Path
    source: str
    target: str
    prompt: str | None = None
    group: str = ""


@dataclass(frozen=True)
class Column:
    """How a figure is shown.

    Attributes:
        title: what stands over it, with its unit.
        factor: by which it is multiplied.
        digits: behind the point.
    """

    title: str
    factor: float = 1.0
    digits: int = 3

    def show(self, value: float) -> str:
        """Write a figure in the column's unit."""
        return f"{self.factor * value:.{self.digits}f}"


class Benchmark(Protocol):
    """Pictures with their edits, and how they are measured.

    Attributes:
        title: of the report.
        samples: the pictures.
        columns: name -> how it is shown.
        published: row -> its figures, column -> value in the unit of the column.
        published_cfg: scale of classifier-free guidance in the published runs.
        notes: what one has to know of the columns.
    """

    title: str
    samples: Sequence[Sample]
    columns: Mapping[str, Column]
    published: Mapping[str, Mapping[str, float]]
    published_cfg: float
    notes: Sequence[str]

    def sentences(self, sample: Sample) -> EditSentences:
        """What the direction of a sample's edit is built from."""
        ...

    def measured_with(self, sample: Sample) -> str:
        """All that the figures of a sample depend on beside the two pictures and the networks."""
        ...

    def measure(self, judges: Judges, sample: Sample, edited: Image.Image) -> dict[str, float]:
        """Read columns off an edited picture: those whose network is there, and which have a meaning for it."""
        ...


def as_tensor(image: Image.Image) -> Tensor:
    """A picture as values in 0..1, (1, 3, H, W)."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
