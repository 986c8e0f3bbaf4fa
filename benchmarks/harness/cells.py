"""Cells of the tables: a method's edits of a task's scenes, measured. What is finished is kept and not done again.

A part of a cell, a few scenes, is known by everything that it depends on but the code: task, sentences, method with all
its settings, split, scenes, steps, columns and weights. After a change of the code delete `results/cells`. Each part
notes on which device it was made, and the results name them all.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from pix2pix_zero_core.integrations.sentences import load_edit
from tiny_zoo.compose_directions import FOLDER
from tiny_zoo.probe import WEIGHTS as PROBE

from .metrics import COLUMNS, Columns, Drawn, Judge, with_excess
from .models import MODELS, ModelName
from .sampling import Counted, Method
from .tasks import TASKS, Problem, Split, draw_scenes, pose_problem

RESULTS = Path(__file__).parents[1] / "results"
CHECKPOINT = MODELS["unet"].checkpoint

BATCH = {"cpu": 20, "cuda": 100}
"""Device -> how many scenes are edited at once."""


@dataclass(frozen=True)
class Cell:
    """Edits of n scenes.

    Attributes:
        latents: the edited pictures, (n, 4, 16, 16).
        columns: what was measured of each.
        rows: evaluations of the network on each, a forward pass 1 and a backward pass 2, (n,).
        seconds: that each took, without its judging, (n,): processor time, or on a GPU that of the clock.
        devices: where they were made.
    """

    latents: Tensor
    columns: Columns
    rows: Tensor
    seconds: Tensor
    devices: tuple[str, ...] = ("cpu",)

    @staticmethod
    def join(parts: Sequence[Cell]) -> Cell:
        """Put the parts of a cell together."""
        return Cell(
            torch.cat([part.latents for part in parts]),
            {column: torch.cat([part.columns[column] for part in parts]) for column in COLUMNS},
            torch.cat([part.rows for part in parts]),
            torch.cat([part.seconds for part in parts]),
            tuple(sorted({device for part in parts for device in part.devices})),
        )

    def after(self, first: int) -> Cell:
        """The cell without its first scenes."""
        columns = {column: values[first:] for column, values in self.columns.items()}
        return Cell(self.latents[first:], columns, self.rows[first:], self.seconds[first:], self.devices)

    def save(self, path: Path) -> None:
        """Write a file, under a temporary name first."""
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}.partial")
        own = {"latents": self.latents, "rows": self.rows, "seconds": self.seconds}
        tensors = {name: tensor.contiguous() for name, tensor in {**self.columns, **own}.items()}
        unfinished.write_bytes(save(tensors, {"devices": json.dumps(self.devices)}))
        unfinished.replace(path)

    @staticmethod
    def load(path: Path) -> Cell:
        """Read what :meth:`save` wrote."""
        with safe_open(path, framework="pt") as file:
            columns = {column: file.get_tensor(column) for column in COLUMNS}
            latents, rows, seconds = (file.get_tensor(name) for name in ("latents", "rows", "seconds"))
            return Cell(latents, columns, rows, seconds, tuple(json.loads(file.metadata()["devices"])))


class Bench:
    """A model, a judge, and the first scenes of a split: what turns a task and a method into a cell.

    Attributes:
        model: Tiny Zoo, with its UNet or its flow transformer.
        judge: measures pictures.
        count: scenes a task.
        steps: of DDIM, in a flow of Euler's method.
        weights: hash of all that was trained for this: the checkpoint and the probe.
        device: what computes.
    """

    def __init__(
        self,
        split: Split,
        count: int,
        steps: int,
        *,
        model: ModelName = "unet",
        batch: int = 20,
        checkpoint: Path | None = None,
        folder: Path = RESULTS / "cells",
        device: str = "cpu",
    ) -> None:
        """Load everything.

        Args:
            split: of which scenes are drawn; "test" for what is published, "validation" for every choice.
            count: scenes a task.
            steps: of DDIM, in a flow of Euler's method.
            model: that edits.
            batch: scenes edited at once, and the unit in which work is kept.
            checkpoint: of the model; None is the one that it comes with.
            folder: for finished parts.
            device: what computes, "cpu" or "cuda"; random numbers are the CPU's, always.
        """
        torch.set_flush_denormal(True)
        torch.backends.cudnn.allow_tf32 = False  # as exact as on a CPU
        checkpoint = checkpoint or MODELS[model].checkpoint
        self.model, self.judge, self.device = MODELS[model].kind.load(checkpoint).to(device), Judge.load(device), device
        self._name, self._checkpoint = model, checkpoint
        self.split: Split = split
        self.count, self.steps, self.batch, self.folder = count, steps, batch, folder
        self.weights = sha256(checkpoint.read_bytes() + PROBE.read_bytes()).hexdigest()
        self._problems: dict[str, Problem] = {}
        self._true_edits: dict[str, Cell] = {}
        self._drawn: dict[str, Drawn] = {}

    @classmethod
    def from_options(cls, options: argparse.Namespace, split: Split, model: ModelName = "unet") -> Bench:
        """Load what the options of :func:`add_options` say."""
        return cls(
            split,
            options.count,
            options.steps,
            model=model,
            batch=options.batch or BATCH[options.device],
            checkpoint=options.checkpoint,
            device=options.device,
        )

    @property
    def loader(self) -> Callable[[], Bench]:
        """What loads the same in another process."""
        more = {"batch": self.batch, "checkpoint": self._checkpoint, "folder": self.folder, "device": self.device}
        return partial(Bench, self.split, self.count, self.steps, model=self._name, **more)

    def problem(self, task: str) -> Problem:
        """The scenes of a task as a method sees them."""
        if task not in self._problems:
            self._problems[task] = pose_problem(self.model, task, self.split, self.count, self.steps)
        return self._problems[task]

    def with_count(self, count: int) -> Bench:
        """The same with another number of scenes a task."""
        other = copy.copy(self)
        other.count, other._problems, other._true_edits, other._drawn = count, {}, {}, {}
        return other

    def drawn(self, task: str) -> Drawn:
        """The scenes of a task and their true edits, as pictures."""
        if task not in self._drawn:
            self._drawn[task] = Drawn.of(*draw_scenes(TASKS[task], self.split, self.count), self.device)
        return self._drawn[task]

    def true_edits(self, task: str) -> Cell:
        """The true edits of a task after a passage through the autoencoder: the best that any method could do."""
        if task not in self._true_edits:
            path = self._path(task, "true edits", 0, self.count)
            if not path.is_file():
                drawn = self.drawn(task)
                with torch.no_grad():
                    latents = torch.cat([self.model.vae.encode(picture) for picture in drawn.true_pictures.split(1)])
                columns = self.judge.measure(self.decode(latents), drawn, TASKS[task])
                rows, seconds = torch.zeros(self.count), torch.zeros(self.count)
                self._cell(latents, with_excess(columns, columns), rows, seconds).save(path)
            self._true_edits[task] = Cell.load(path)
        return self._true_edits[task]

    def is_done(self, task: str, method: Method) -> bool:
        """Whether a cell would be taken up whole."""
        return all(self._path(task, method, *part).is_file() for part in self._parts())

    def cell(self, task: str, method: Method, label: str) -> Cell:
        """Edit the scenes of a task, or take up what is there; `label` is for the eyes of who waits."""
        parts: list[Cell] = []
        for first, count in self._parts():
            path = self._path(task, method, first, count)
            if not path.is_file():
                started = time.perf_counter()
                self._edit(task, method, first, count).save(path)
                done, seconds = first + count, time.perf_counter() - started
                print(f"{task} {label}: {done} of {self.count} scenes, {seconds:.0f} s", flush=True)
            parts.append(Cell.load(path))
        return Cell.join(parts)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Pictures of latents, (n, 3, 128, 128) in 0..1."""
        at_once = 1 if self.device == "cpu" else self.batch  # a CPU's caches hold one
        parts = latents.to(self.device).split(at_once)
        return torch.cat([self.model.vae.decode(part).clamp(0, 1) for part in parts])

    def _parts(self) -> list[tuple[int, int]]:
        return [(first, min(self.batch, self.count - first)) for first in range(0, self.count, self.batch)]

    def _path(self, task: str, method: Method | str, first: int, count: int) -> Path:
        known = repr((load_edit(task, FOLDER), method, self.split, first, count, self.steps, COLUMNS, self.weights))
        return self.folder / f"{task}-{type(method).__name__}-{sha256(known.encode()).hexdigest()[:20]}.safetensors"

    def _edit(self, task: str, method: Method, first: int, count: int) -> Cell:
        part, denoise = self.problem(task).part(first, count), Counted(self.model)
        started = self._clock()
        latents = method(denoise, part)
        seconds = self._clock() - started
        columns = with_excess(
            self.judge.measure(self.decode(latents), self.drawn(task).part(first, count), TASKS[task]),
            {name: values[first : first + count] for name, values in self.true_edits(task).columns.items()},
        )
        rows, times = (torch.full((count,), total / count) for total in (denoise.rows, seconds))
        return self._cell(latents, columns, rows, times)

    def _clock(self) -> float:
        if self.device == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def _cell(self, latents: Tensor, columns: Columns, rows: Tensor, seconds: Tensor) -> Cell:
        name = "cpu" if self.device == "cpu" else torch.cuda.get_device_name()
        return Cell(latents.cpu(), columns, rows, seconds, (name,))


def add_options(parser: argparse.ArgumentParser, count: int | None) -> None:
    """Add the options that all measurements share; without a default count the caller has one."""
    shown = f" (default: {count})" if count else ""
    parser.add_argument("--count", type=int, default=count, help=f"scenes a task{shown}")
    parser.add_argument("--steps", type=int, default=25, help="DDIM steps (default: 25)")
    on = ", ".join(f"{size} on {device}" for device, size in BATCH.items())
    parser.add_argument("--batch", type=int, help=f"scenes at once, the unit that is kept (default: {on})")
    parser.add_argument("--checkpoint", type=Path, help="of Tiny Zoo (default: the one that it comes with)")
    found = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=BATCH, default=found, help=f"what computes (default here: {found})")


def write_text(path: Path, text: str) -> None:
    """Write a file, under a temporary name first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".partial")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)
