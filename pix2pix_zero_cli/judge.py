"""`pix2pix-zero judge`: whether pictures show what an edit leads to, by BLIP."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pix2pix_zero_core.integrations.judge import Question, ask, ask_of_texts, in_words, judge, warn_after, warn_before
from pix2pix_zero_core.integrations.sentences import SHIPPED, read_edits

from .arguments import TINY_EDITS, UsageError, add_captioner, add_device, add_json, add_named_edit, add_pictures
from .jobs import Row, Tick, Work, run_here
from .model import TINY_BLIP, load_captioner
from .pictures import Unreadable, find_pictures, read_picture, read_text
from .report import process


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's options."""
    add_pictures(parser, results=False, usual_size="that of each picture")
    group = parser.add_argument_group("edit")
    way = group.add_mutually_exclusive_group(required=True)
    add_named_edit(parser, way)
    way.add_argument("--from", dest="source", metavar="WORDS", help="what was to be replaced; with --to")
    way.add_argument("--target", nargs="+", metavar="TEXT", help="captions of the edited picture, that say the same")
    group.add_argument("--to", metavar="WORDS", help="what was to replace it; with --from")
    group.add_argument(
        "--caption",
        help="what the picture showed before the edit (default: what pix2pix-zero edit wrote into the file)",
    )
    group.add_argument(
        "--original", type=Path, help="the picture before the edit: also says whether the edit fits that one"
    )
    add_captioner(parser)
    add_device(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Judge pictures; returns the exit status."""
    found = find_pictures(arguments.pictures, recursive=arguments.recursive)
    blip = arguments.blip or TINY_BLIP
    if not blip.is_dir():
        raise UsageError(f"--blip {blip}: there is no such folder")
    if arguments.original is not None and not arguments.original.is_file():
        raise UsageError(f"--original {arguments.original}: there is no such file")
    task = JudgeTask(
        blip.resolve(),
        *_names(arguments),
        tuple(arguments.target or ()),
        arguments.caption,
        arguments.original,
        arguments.device,
        arguments.threads,
        arguments.size,
    )
    run_it = partial(run_here, task)
    return process(task, found, output=None, as_json=arguments.json, describe=in_line, run=run_it)


def in_line(row: Row) -> str:
    """What a finished picture's line says."""
    assert row.result is not None
    warning = f"\n  {row.result['warning']}" if "warning" in row.result else ""
    return f"{row.result['words']}{warning}"


@dataclass(frozen=True)
class JudgeTask:
    """Judge a picture.

    Attributes:
        blip: folder of the captioner.
        source: what was to be replaced; empty where there are texts.
        target: what was to replace it.
        texts: captions of the edited picture.
        caption: of the picture before the edit; None takes what is written in the file.
        original: the picture before the edit.
        device: of torch.
        threads: CPU threads; None leaves torch's own number.
        size: width and height to which pictures are cropped; None leaves them as they are.
    """

    blip: Path
    source: str
    target: str
    texts: tuple[str, ...]
    caption: str | None
    original: Path | None
    device: str
    threads: int | None
    size: tuple[int, int] | None

    @property
    def ticks(self) -> int:
        """A picture is one step."""
        return 1

    def finished(self, picture: Path) -> bool:
        """See `Task.finished`: a judgement is printed, and nowhere kept."""
        return False

    def start(self) -> Work:
        """See `Task.start`."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        captioner = load_captioner(self.blip, self.device)
        try:
            original = self.original and read_picture(self.original, self.size)
        except Unreadable as error:
            raise UsageError(f"--original {self.original}: {error}") from error

        def work(path: Path, tick: Tick) -> dict[str, Any]:
            picture, question = read_picture(path, self.size), self.question(path)
            score = judge(captioner, picture, [[question]]).item()
            warnings = [warn_after([question], score)]
            if original is not None:
                before = judge(captioner, original, [[question]]).item()
                warnings.insert(0, warn_before([question], before, captioner(original)[0]))
            tick()
            warning = " ".join(filter(None, warnings))
            said = {"score": round(score, 3), "shows": score > 0, "words": in_words([question], score)}
            return {**said, **({"warning": warning} if warning else {})}

        return work

    def question(self, path: Path) -> Question:
        """The question of one picture.

        Raises:
            ValueError: nobody says what it showed before.
        """
        caption = self.caption if self.caption is not None else read_text(path, "caption")
        if caption is None:
            raise ValueError("the file does not say what the picture showed before the edit; give a --caption")
        return ask_of_texts([caption], self.texts) if self.texts else ask(caption, self.source, self.target)


def _names(arguments: argparse.Namespace) -> tuple[str, str]:
    """What the edit leads away from, and to; both empty where there are texts."""
    if arguments.to is not None and arguments.source is None:
        raise UsageError(f"--to: belongs to --from, not to {'--edit' if arguments.edit else '--target'}")
    if any(not text.strip() for text in arguments.target or ()):
        raise UsageError("--target: the caption is empty")
    if arguments.source and arguments.to and arguments.source.strip().lower() == arguments.to.strip().lower():
        raise UsageError(f"--from {arguments.source} --to {arguments.to}: both are the same, there is nothing to judge")
    if (arguments.source is None) != (arguments.to is None):
        raise UsageError("--from and --to: one needs the other")
    if arguments.edit is None:
        return arguments.source or "", arguments.to or ""
    known = {**read_edits(TINY_EDITS), **read_edits(SHIPPED)}
    if arguments.edit not in known:
        raise UsageError(f"--edit {arguments.edit}: the edits are {', '.join(known)}")
    return known[arguments.edit].source, known[arguments.edit].target
