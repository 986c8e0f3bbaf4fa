"""`pix2pix-zero caption`: what pictures show, printed, and if wanted in a text file each."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from .arguments import UsageError, add_captioner, add_device, add_json, add_pictures
from .jobs import Row, Tick, Work, run_here
from .model import TINY_BLIP, load_captioner
from .pictures import find_pictures, note_on, place, read_picture, require_own_names, write
from .report import process


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's options."""
    add_pictures(
        parser,
        usual_size="that of each picture",
        overwrite="make captions anew that are in --output; else they are taken as they are, also those of another "
        "--blip, --size, or picture of the same name, but not with another --prefix",
    )
    add_captioner(parser)
    parser.add_argument("--prefix", default="", help="how every caption begins, for example: a photo of")
    add_device(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Caption pictures; returns the exit status."""
    if arguments.overwrite and arguments.output is None:
        raise UsageError("--overwrite: belongs to --output, without which nothing is written")
    found = find_pictures(arguments.pictures, recursive=arguments.recursive, output=arguments.output)
    blip = arguments.blip or TINY_BLIP
    if not blip.is_dir():
        raise UsageError(f"--blip {blip}: there is no such folder")
    output = arguments.output and arguments.output.resolve()
    task = CaptionTask(
        blip.resolve(),
        arguments.prefix,
        arguments.device,
        arguments.threads,
        arguments.size,
        output,
        found.searched,
        arguments.overwrite,
    )
    if output is not None:
        require_own_names([output / task.name(picture) for picture in found.pictures])
    run_it = partial(run_here, task)
    return process(task, found, output=output, as_json=arguments.json, describe=in_words, run=run_it)


def in_words(row: Row) -> str:
    """What a finished picture's line says."""
    assert row.result is not None
    return row.result["caption"] + (f"\n  {row.result['warning']}" if "warning" in row.result else "")


def words(text: str) -> list[str]:
    """What a captioner keeps of a beginning: its tokenizer has no capitals, and spaces of its own."""
    return re.findall(r"\w+", text.lower())


@dataclass(frozen=True)
class CaptionTask:
    """Caption a picture.

    Attributes:
        blip: folder of the captioner.
        prefix: how every caption begins.
        device: of torch.
        threads: CPU threads; None leaves torch's own number.
        size: width and height to which pictures are cropped; None leaves them as they are.
        output: folder of the text files; None writes none.
        searched: folders whose own folders the output repeats; see `place`.
        overwrite: whether captions that are there already are made anew.
    """

    blip: Path
    prefix: str
    device: str
    threads: int | None
    size: tuple[int, int] | None
    output: Path | None
    searched: tuple[Path, ...]
    overwrite: bool

    @property
    def ticks(self) -> int:
        """A picture is one step."""
        return 1

    def finished(self, picture: Path) -> bool:
        """See `Task.finished`: a text file is taken as it is, whoever wrote it, but not one with another beginning.

        Raises:
            UsageError: one with another beginning.
        """
        if self.output is None or self.overwrite or not (path := self.output / self.name(picture)).exists():
            return False
        there, asked = (words(text) for text in (path.read_text(encoding="utf-8", errors="replace"), self.prefix))
        if there[: len(asked)] != asked:
            raise UsageError(
                f"--output {self.output}: {path.name} does not begin with {self.prefix!r}; add --overwrite, or choose "
                "another folder"
            )
        return True

    def name(self, picture: Path) -> Path:
        """The text file of a picture, in the output."""
        return place(picture, self.searched) / f"{picture.stem}.txt"

    def start(self) -> Work:
        """See `Task.start`."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        captioner = load_captioner(self.blip, self.device)

        def work(picture: Path, tick: Tick) -> dict[str, Any]:
            (caption,) = captioner(read_picture(picture, self.size), prefix=self.prefix)
            tick()
            said = {"caption": caption, **({"warning": note} if (note := note_on(picture)) else {})}
            if self.output is None:
                return said
            path = self.output / self.name(picture)
            write(path, f"{caption}\n".encode())
            return {**said, "outputs": [str(path)]}

        return work
