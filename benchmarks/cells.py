"""Cells of the tables: a method's edits of a task's scenes, measured. What is finished is kept and not done again.

A part of a cell, a few scenes, is known by everything that it depends on but the code: task, sentences, method with all
its settings, split, scenes, steps, columns and weights. After a change of the code delete `results/cells`. Several
processes can work on different tasks at once; the last one finds everything done and writes the tables.
"""

from __future__ import annotations

import argparse
import copy
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from pix2pix_zero_core.integrations.sentences import load_edit
from tiny_zoo.compose_directions import FOLDER
from tiny_zoo.denoiser import TinyZoo
from tiny_zoo.probe import WEIGHTS as PROBE
from tiny_zoo.training import WEIGHTS

from .metrics import COLUMNS, Columns, Judge, with_excess
from .sampling import Counted, Method
from .tasks import TASKS, Problem, Split, draw_scenes, pictures, pose_problem

RESULTS = Path(__file__).parent / "results"
CHECKPOINT = WEIGHTS / "checkpoints" / "tiny_zoo.safetensors"


@dataclass(frozen=True)
class Cell:
    """Edits of n scenes.

    Attributes:
        latents: the edited pictures, (n, 4, 16, 16).
        columns: what was measured of each.
        rows: evaluations of the UNet on each, a forward pass 1 and a backward pass 2, (n,).
        seconds: processor time that each took, without its judging, (n,).
    """

    latents: Tensor
    columns: Columns
    rows: Tensor
    seconds: Tensor

    @staticmethod
    def join(parts: Sequence[Cell]) -> Cell:
        """Put the parts of a cell together."""
        return Cell(
            torch.cat([part.latents for part in parts]),
            {column: torch.cat([part.columns[column] for part in parts]) for column in COLUMNS},
            torch.cat([part.rows for part in parts]),
            torch.cat([part.seconds for part in parts]),
        )

    def save(self, path: Path) -> None:
        """Write a file, under a temporary name first."""
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}.partial")
        own = {"latents": self.latents, "rows": self.rows, "seconds": self.seconds}
        unfinished.write_bytes(save({name: t.contiguous() for name, t in {**self.columns, **own}.items()}))
        unfinished.replace(path)

    @staticmethod
    def load(path: Path) -> Cell:
        """Read what :meth:`save` wrote."""
        with safe_open(path, framework="pt") as file:
            columns = {column: file.get_tensor(column) for column in COLUMNS}
            return Cell(file.get_tensor("latents"), columns, file.get_tensor("rows"), file.get_tensor("seconds"))


class Bench:
    """A model, a judge, and the first scenes of a split: what turns a task and a method into a cell.

    Attributes:
        model: Tiny Zoo.
        judge: measures pictures.
        count: scenes a task.
        steps: DDIM steps.
        weights: hash of all that was trained for this: the checkpoint and the probe.
    """

    def __init__(
        self,
        split: Split,
        count: int,
        steps: int,
        *,
        batch: int = 20,
        checkpoint: Path = CHECKPOINT,
        folder: Path = RESULTS / "cells",
    ) -> None:
        """Load everything.

        Args:
            split: of which scenes are drawn; "test" for what is published, "validation" for every choice.
            count: scenes a task.
            steps: DDIM steps.
            batch: scenes edited at once, and the unit in which work is kept.
            checkpoint: of Tiny Zoo.
            folder: for finished parts.
        """
        torch.set_flush_denormal(True)
        self.model, self.judge = TinyZoo.load(checkpoint), Judge.load()
        self.split: Split = split
        self.count, self.steps, self.batch, self.folder = count, steps, batch, folder
        self.weights = sha256(checkpoint.read_bytes() + PROBE.read_bytes()).hexdigest()
        self._problems: dict[str, Problem] = {}
        self._true_edits: dict[str, Cell] = {}

    @classmethod
    def from_options(cls, options: argparse.Namespace, split: Split) -> Bench:
        """Load what the options of :func:`add_options` say."""
        return cls(split, options.count, options.steps, batch=options.batch, checkpoint=options.checkpoint)

    def problem(self, task: str) -> Problem:
        """The scenes of a task as a method sees them."""
        if task not in self._problems:
            self._problems[task] = pose_problem(self.model, task, self.split, self.count, self.steps)
        return self._problems[task]

    def with_count(self, count: int) -> Bench:
        """The same with another number of scenes a task."""
        other = copy.copy(self)
        other.count, other._problems, other._true_edits = count, {}, {}
        return other

    def true_edits(self, task: str) -> Cell:
        """The true edits of a task after a passage through the autoencoder: the best that any method could do."""
        if task not in self._true_edits:
            source, truth = draw_scenes(TASKS[task], self.split, self.count)
            with torch.no_grad():
                latents = torch.cat([self.model.vae.encode(pictures([scene])) for scene in truth])
            columns = self.judge.measure(self.decode(latents), source, truth, TASKS[task])
            nothing = torch.zeros(self.count)
            self._true_edits[task] = Cell(latents, with_excess(columns, columns), nothing, nothing)
        return self._true_edits[task]

    def cell(self, task: str, method: Method, label: str) -> Cell:
        """Edit the scenes of a task, or take up what is there; `label` is for the eyes of who waits."""
        parts: list[Cell] = []
        for first in range(0, self.count, self.batch):
            path = self._path(task, method, first)
            if not path.is_file():
                started = time.perf_counter()
                self._edit(task, method, first).save(path)
                done, seconds = min(first + self.batch, self.count), time.perf_counter() - started
                print(f"{task} {label}: {done} of {self.count} scenes, {seconds:.0f} s", flush=True)
            parts.append(Cell.load(path))
        return Cell.join(parts)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Pictures of latents, (n, 3, 128, 128) in 0..1."""
        return torch.cat([self.model.vae.decode(latent).clamp(0, 1) for latent in latents.split(1)])

    def _path(self, task: str, method: Method, first: int) -> Path:
        count = min(self.batch, self.count - first)
        known = repr((load_edit(task, FOLDER), method, self.split, first, count, self.steps, COLUMNS, self.weights))
        return self.folder / f"{task}-{type(method).__name__}-{sha256(known.encode()).hexdigest()[:20]}.safetensors"

    def _edit(self, task: str, method: Method, first: int) -> Cell:
        part = self.problem(task).part(first, self.batch)
        started, denoise = time.process_time(), Counted(self.model)
        latents = method(denoise, part)
        seconds, count = time.process_time() - started, len(latents)
        source, truth = (scenes[first : first + count] for scenes in draw_scenes(TASKS[task], self.split, self.count))
        columns = with_excess(
            self.judge.measure(self.decode(latents), source, truth, TASKS[task]),
            {name: values[first : first + count] for name, values in self.true_edits(task).columns.items()},
        )
        rows, times = (torch.full((count,), total / count) for total in (denoise.rows, seconds))
        return Cell(latents, columns, rows, times)


def add_options(parser: argparse.ArgumentParser, count: int | None) -> None:
    """Add the options that all measurements share; without a default count the caller has one."""
    shown = f" (default: {count})" if count else ""
    parser.add_argument("--count", type=int, default=count, help=f"scenes a task{shown}")
    parser.add_argument("--steps", type=int, default=25, help="DDIM steps (default: 25)")
    parser.add_argument("--batch", type=int, default=20, help="scenes at once, the unit that is kept (default: 20)")
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT, help="of Tiny Zoo")


def write_text(path: Path, text: str) -> None:
    """Write a file, under a temporary name first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".partial")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)
