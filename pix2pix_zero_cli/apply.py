"""`pix2pix-zero apply`: pictures edited by a distilled edit, at once."""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from pix2pix_zero_core.distillation import DistilledEdit

from .arguments import UsageError, add_device, add_json, add_pictures, number
from .inverting import SETTINGS
from .jobs import Row, Tick, Work, made_alike, run_here
from .model import find_device
from .pictures import (
    find_pictures,
    name_content,
    note_on,
    place,
    read_picture,
    read_text,
    require_output_elsewhere,
    require_own_names,
    write_picture,
)
from .report import process


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's options."""
    add_pictures(parser, Path("applied"), usual_size="that of each picture")
    parser.add_argument(
        "--distilled", type=Path, required=True, metavar="FILE", help="an edit that pix2pix-zero distill made"
    )
    parser.add_argument(
        "--strength",
        type=number(float, 0, 1),
        default=1.0,
        help="share of the edit in the result: 0 is the picture, 1 the edit (default: 1)",
    )
    parser.add_argument(
        "--dtype", choices=["float32", "float16", "bfloat16"], default="float32", help="precision (default: float32)"
    )
    add_device(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Edit pictures; returns the exit status."""
    found = find_pictures(arguments.pictures, recursive=arguments.recursive, output=arguments.output)
    require_output_elsewhere(arguments.pictures, arguments.output)
    task = ApplyTask(
        arguments.distilled.resolve(),
        arguments.strength,
        arguments.device,
        arguments.dtype,
        arguments.threads,
        arguments.size,
        arguments.output.resolve(),
        found.searched,
        arguments.overwrite,
    )
    load_distilled(task.distilled)
    require_own_names([task.edited(picture) for picture in found.pictures])
    run_it = partial(run_here, task)
    return process(task, found, output=task.output, as_json=arguments.json, describe=in_words, run=run_it)


def in_words(row: Row) -> str:
    """What a finished picture's line says."""
    assert row.result is not None
    warning = f"\n  {row.result['warning']}" if "warning" in row.result else ""
    return f"{row.result['outputs'][0]} ({row.seconds:.3f} s){warning}"


def load_distilled(path: Path) -> DistilledEdit:
    """Load a distilled edit.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        return DistilledEdit.load(path)
    except (FileNotFoundError, ValueError) as error:
        raise UsageError(f"--distilled: {error}") from error


@dataclass(frozen=True)
class ApplyTask:
    """Edit a picture by a distilled edit.

    Attributes:
        distilled: its file.
        strength: share of the edit in the result.
        device: of torch.
        dtype: its name in torch.
        threads: CPU threads; None leaves torch's own number.
        size: width and height to which pictures are cropped; None leaves them as they are.
        output: folder of the results.
        searched: folders whose own folders the output repeats; see `place`.
        overwrite: whether results that were made with other settings or of other pictures are replaced.
    """

    distilled: Path
    strength: float
    device: str
    dtype: str
    threads: int | None
    size: tuple[int, int] | None
    output: Path
    searched: tuple[Path, ...]
    overwrite: bool

    @property
    def ticks(self) -> int:
        """A picture is one step."""
        return 1

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All settings that a result depends on."""
        digest = hashlib.sha256(self.distilled.read_bytes()).hexdigest()
        edit = {"distilled": self.distilled.stem, "sha256": digest}
        return {**edit, "strength": self.strength, "dtype": self.dtype, "size": self.size}

    def record(self, picture: Path) -> str:
        """All that a result depends on, in one line of JSON: the picture, and the settings."""
        return json.dumps({"picture": name_content(picture), **self.settings})

    def edited(self, picture: Path) -> Path:
        """Where the result of a picture goes; under the file's name, whatever its metadata say."""
        return self.output / place(picture, self.searched) / f"{picture.stem}_{self.distilled.stem}.png"

    def finished(self, picture: Path) -> bool:
        """See `Task.finished`."""
        path = self.edited(picture)
        if not path.exists():
            return False
        return made_alike(path, read_text(path, SETTINGS), self.record(picture), overwrite=self.overwrite)

    def start(self) -> Work:
        """See `Task.start`."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        distilled, device = load_distilled(self.distilled), find_device(self.device)
        distilled.generator.to(device, getattr(torch, self.dtype))

        def work(path: Path, tick: Tick) -> dict[str, Any]:
            edited = distilled.apply(read_picture(path, self.size), self.strength)
            write_picture(edited[0], self.edited(path), {SETTINGS: self.record(path)})
            tick()
            warned = {"warning": note} if (note := note_on(path)) else {}
            idle = {"remarks": ["At a strength of 0 the picture stays as it is."]} if self.strength == 0 else {}
            return {"outputs": [str(self.edited(path))], **warned, **idle}

        return work
