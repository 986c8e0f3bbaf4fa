"""A task, and pictures to which it is done one by one: what is finished is left out, what fails becomes a row."""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from .arguments import UsageError
from .pictures import Unreadable

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Numbers of the errors of a disk, or of a user's share of it, that is full."""

Tick = Callable[[], Any]
"""Called after every step of a model."""

Work = Callable[[Path, Tick], dict[str, Any]]
"""Does the task to one picture, and returns what there is to say about it."""


class Results(Protocol):
    """Where the results of pictures are, and so which pictures are left to do."""

    @property
    def ticks(self) -> int:
        """How many steps one picture takes."""
        ...

    def finished(self, picture: Path) -> bool:
        """Whether nothing is left to do.

        Raises:
            UsageError: there are results that were made with other settings, or of other pictures.
        """
        ...


class Task(Results, Protocol):
    """Something to do to pictures. A task can be pickled: it holds settings, and `start` loads the model."""

    def start(self) -> Work:
        """Load the model.

        Raises:
            UsageError: it cannot be loaded.
        """
        ...


@dataclass(frozen=True)
class Row:
    """What became of a picture.

    Attributes:
        picture: its path.
        status: skipped means that its results were there already, unreadable that the file is no picture.
        seconds: that it took.
        result: what the task says: outputs, caption, a warning of this picture, remarks on the settings of all.
        error: why it failed.
    """

    picture: str
    status: Literal["done", "skipped", "failed", "unreadable"]
    seconds: float = 0.0
    result: dict[str, Any] | None = None
    error: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The row without what it has not."""
        fields = {name: value for name, value in asdict(self).items() if value is not None and name != "result"}
        return {**fields, **(self.result or {})}


def made_alike(path: Path, found: str | None, record: str, *, overwrite: bool, flag: str = "--output") -> bool:
    """Whether a result that is there was made of this picture, with these settings.

    Args:
        path: of the result.
        found: what its metadata say of how it was made.
        record: what they would say now.
        overwrite: whether one that was made otherwise may be replaced.
        flag: the option that names the folder.

    Raises:
        UsageError: it was made otherwise, and may not be replaced.
    """
    if found != record and not overwrite:
        alike = (settings := _settings(found)) is not None and settings == _settings(record)
        how = "of another picture" if alike else "with other settings"
        raise UsageError(f"{flag}: {path} was made {how}. Choose another folder, or --overwrite")
    return found == record


def _settings(record: str | None) -> dict[str, Any] | None:
    """What a record says but for its picture; None where it names none."""
    try:
        settings = json.loads(record or "")
        del settings["picture"]
    except (KeyError, TypeError, ValueError):
        return None
    return settings


def attempt(work: Work, picture: Path, tick: Tick) -> Row:
    """Do the work to a picture; whatever it raises becomes the row's error, so that the other pictures go on.

    Raises:
        UsageError: there is no room left on the disk, for this picture nor any other.
    """
    started = time.monotonic()
    try:
        result = work(picture, tick)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise UsageError(
                f"--output: {error.strerror}, at {picture}. The same command goes on from there"
            ) from error
        if isinstance(error, Unreadable):
            return Row(str(picture), "unreadable", seconds_since(started), error=str(error))
        return Row(str(picture), "failed", seconds_since(started), error=f"{type(error).__name__}: {error}")
    return Row(str(picture), "done", seconds_since(started), result)


def run_here(task: Task, pictures: Sequence[Path], tick: Tick) -> Iterator[Row]:
    """Do a task to pictures in this process, one after another; yields each as it is finished.

    Raises:
        UsageError: as `Task.start`.
    """
    work = task.start()
    for picture in pictures:
        yield attempt(work, picture, tick)


def seconds_since(started: float) -> float:
    """Seconds since a moment of `time.monotonic`, to the millisecond."""
    return round(time.monotonic() - started, 3)
