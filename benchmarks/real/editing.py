"""The edits: every picture by every method. What is there already, made alike, is not made again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from pix2pix_zero_cli.jobs import made_alike
from pix2pix_zero_cli.model import Model
from pix2pix_zero_cli.pictures import read_picture, read_text, write, write_picture
from pix2pix_zero_core import Direction
from pix2pix_zero_core.integrations.diffusers import encoder_fingerprint
from pix2pix_zero_core.integrations.pairs import Form
from pix2pix_zero_core.integrations.sentences import EditSentences

from .benchmark import Benchmark, Sample
from .methods import Method

RECORD, SECONDS = "pix2pix_zero_real", "pix2pix_zero_seconds"
"""Texts in the edited pictures: how they were made, and how long that took."""

Report = Callable[[str], Any]
"""Is told of every edit, in words."""


def picture_path(output: Path, method: str, sample: Sample) -> Path:
    """Where an edited picture lies."""
    return output / method.replace(" ", "_") / f"{sample.name}.png"


@dataclass
class Editing:
    """Edits pictures with a model, and keeps them in a folder.

    Attributes:
        model: with a captioner.
        output: the folder.
        side: of the edited pictures, in pixels.
        overwrite: whether results that were made with other settings are replaced; else they are refused.
    """

    model: Model
    output: Path
    side: int
    overwrite: bool

    def __post_init__(self) -> None:
        """Find out which weights they are."""
        pipeline = self.model.editor.pipeline
        self.weights = encoder_fingerprint([pipeline.unet, pipeline.vae, pipeline.text_encoder])
        self._directions: dict[str, Direction] = {}

    def captions(self, benchmark: Benchmark) -> dict[str, str]:
        """Caption all pictures, name -> caption; those in `captions.json` are taken from there.

        Raises:
            Unreadable: one is no picture.
        """
        assert self.model.captioner is not None
        path, size = self.output / "captions.json", (self.side, self.side)
        kept: dict[str, dict[str, str]] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        known = kept.setdefault(str(self.model.options.blip), {})
        found: dict[str, str] = {}
        for sample in benchmark.samples:
            key = f"{sample.name} {sha256(sample.path.read_bytes()).hexdigest()[:12]}"
            if key not in known:
                (known[key],) = self.model.captioner(read_picture(sample.path, size))
                write(path, (json.dumps(kept, indent=1) + "\n").encode())
            found[sample.name] = known[key]
        return found

    def run(self, benchmark: Benchmark, methods: Mapping[str, Method], report: Report) -> dict[str, str]:
        """Edit all pictures by all methods, picture by picture.

        Returns:
            what failed: path in the output -> why. The rest goes on.

        Raises:
            UsageError: a result that is there was made with other settings, and may not be replaced.
        """
        captions, failed = self.captions(benchmark), dict[str, str]()
        for number, sample in enumerate(benchmark.samples, start=1):
            for name, method in methods.items():
                path = picture_path(self.output, name, sample)
                caption = (method.prompted and sample.prompt) or captions[sample.name]
                sentences = benchmark.sentences(sample)
                # Of two prompts the mean by position leads from the one exactly to the other.
                form = method.form if sample.prompt is None else "mean by position"
                record = self._record(method, sample, caption, sentences, form)
                found = read_text(path, RECORD) if path.exists() else ""
                if path.exists() and made_alike(path, found, record, overwrite=self.overwrite):
                    continue
                try:
                    seconds = self._edit(path, method, sample, caption, sentences, form, record)
                except Exception as error:  # one picture is not all: the report lists it
                    where = path.relative_to(self.output).as_posix()
                    failed[where] = f"{type(error).__name__}: {error}"
                    report(f"{number}/{len(benchmark.samples)} {sample.name}: {name} failed, {failed[where]}")
                else:
                    report(f"{number}/{len(benchmark.samples)} {sample.name}: {name} in {seconds:.1f} s")
        return failed

    def _edit(
        self,
        path: Path,
        method: Method,
        sample: Sample,
        caption: str,
        sentences: EditSentences,
        form: Form,
        record: str,
    ) -> float:
        editor = self.model.editor
        direction = self._direction(sentences, form)
        picture = read_picture(sample.path, (self.side, self.side))
        started = time.perf_counter()
        edited = method(editor, picture, caption, direction)
        seconds = time.perf_counter() - started
        write_picture(edited[0], path, {RECORD: record, SECONDS: f"{seconds:.3f}"})
        return seconds

    def _direction(self, sentences: EditSentences, form: Form) -> Direction:
        key = json.dumps([sentences, form])
        if key not in self._directions:
            self._directions = {} if len(self._directions) > 8 else self._directions  # of PIE-Bench every picture's
            self._directions[key] = self.model.editor.build_direction(sentences, form=form)
        return self._directions[key]

    def _record(self, method: Method, sample: Sample, caption: str, sentences: EditSentences, form: Form) -> str:
        """All that an edited picture depends on, but for the code."""
        about = {
            "picture": sha256(sample.path.read_bytes()).hexdigest(),
            "caption": caption,
            "direction": sha256(json.dumps([sentences, form]).encode()).hexdigest(),
            "weights": self.weights,
            "dtype": self.model.options.dtype,
            "side": self.side,
            "method": type(method).__name__,
            **method.settings,
        }
        return json.dumps(about, sort_keys=True)


def peak_memory() -> float | None:
    """Most memory that this process had on a CUDA card, GiB; None without one."""
    return torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None
