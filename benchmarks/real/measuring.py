"""The figures of edited pictures, a file beside each; what was measured alike is not measured again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from PIL import Image

from pix2pix_zero_cli.pictures import read_text, write

from .benchmark import Benchmark, Sample
from .editing import SECONDS, picture_path
from .judges import Judges


@dataclass(frozen=True)
class Measured:
    """An edited picture.

    Attributes:
        sample: what it was edited from.
        method: that edited it.
        path: of the picture.
        figures: column -> value; columns that mean nothing for it are missing.
        seconds: that the edit took.
    """

    sample: Sample
    method: str
    path: Path
    figures: Mapping[str, float]
    seconds: float


def measure_all(benchmark: Benchmark, judges: Judges, methods: Sequence[str], output: Path) -> list[Measured]:
    """Measure every edited picture that is there."""
    networks = judges.fingerprints
    return [
        _measure(benchmark, judges, networks, sample, method, path)
        for sample in benchmark.samples
        for method in methods
        if (path := picture_path(output, method, sample)).is_file()
    ]


def _measure(
    benchmark: Benchmark, judges: Judges, networks: Mapping[str, str], sample: Sample, method: str, path: Path
) -> Measured:
    figures = path.with_suffix(".json")
    about = {
        "edited": sha256(path.read_bytes()).hexdigest(),
        "picture": sha256(sample.path.read_bytes()).hexdigest(),
        "how": benchmark.measured_with(sample),
        "networks": dict(networks),
    }
    kept = json.loads(figures.read_text("utf-8")) if figures.is_file() else {}
    if kept.get("about") != about:
        with Image.open(path) as image:
            found = benchmark.measure(judges, sample, image.convert("RGB"))
        kept = {"figures": found, "about": about}
        write(figures, (json.dumps(kept, indent=1) + "\n").encode())
    return Measured(sample, method, path, kept["figures"], float(read_text(path, SECONDS) or "nan"))
