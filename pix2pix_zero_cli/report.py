"""What a command prints and records: a progress bar, a line a picture, errors.jsonl, and the exit status."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stdout
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from .cluster import Runner
from .jobs import Results, Row
from .pictures import Found, require_folder

DONE, SOME_FAILED = 0, 3
"""Exit statuses; see `main` for the others."""

ERRORS = "errors.jsonl"


def process(
    results: Results,
    found: Found,
    *,
    output: Path | None,
    as_json: bool,
    describe: Callable[[Row], str],
    run: Runner,
    flag: str = "--output",
) -> int:
    """Do all pictures that are not finished, and report each.

    Args:
        results: say which are finished.
        found: pictures to be done.
        output: folder in which pictures that failed are listed in `errors.jsonl`, those of the last run; or None.
        as_json: print JSON lines instead of words.
        describe: the words for a row that is done.
        run: does them, here or elsewhere.
        flag: the option that names the output.

    Returns:
        the exit status.

    Raises:
        UsageError: there are results of other settings or pictures, the output cannot be written, or the work cannot
            be started.
    """
    if output is not None:
        require_folder(output, flag)
    finished = {picture: results.finished(picture) for picture in found.pictures}
    left = [picture for picture in found.pictures if not finished[picture]]
    skipped = [Row(str(picture), "skipped") for picture in found.pictures if finished[picture]]
    to = sys.stdout  # has our lines alone: what libraries print, Ray above all, goes elsewhere
    with (
        redirect_stdout(sys.stderr),
        tqdm(total=len(left) * results.ticks, unit="step", file=sys.stderr, disable=None) as bar,
    ):
        done = run(left, bar.update) if left else iter(())
        rows = chain(skipped, _forget(output, _follow(done, bar, results.ticks)))
        return report(rows, found.left_out, output, as_json, describe, to)


def _follow(rows: Iterator[Row], bar: Any, ticks: int) -> Iterator[Row]:
    """Pass rows on, and bring a bar to where it stands after each."""
    for count, row in enumerate(rows, start=1):
        bar.update(count * ticks - bar.n)  # a picture that failed leaves steps out; another machine tells of none
        yield row


def _forget(output: Path | None, rows: Iterator[Row]) -> Iterator[Row]:
    """Pass rows on; what failed in the last run is forgotten only at the first: until then this one may be refused."""
    first = list(islice(rows, 1))
    if output is not None:
        (output / ERRORS).unlink(missing_ok=True)
    yield from chain(first, rows)


def report(
    rows: Iterable[Row], left_out: int, output: Path | None, as_json: bool, describe: Callable[[Row], str], to: TextIO
) -> int:
    """Print rows as they come, record those that failed, and sum up; returns the exit status."""
    counts, remarked = Counter[str](), set[str]()
    errors = None if output is None else output / ERRORS
    for row in rows:
        counts[row.status] += 1
        if row.error is not None and errors is not None:
            errors.parent.mkdir(parents=True, exist_ok=True)
            with errors.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row.as_json()) + "\n")
        say(json.dumps(row.as_json()) if as_json else _in_words(row, describe, remarked), to)
    summary = {status: counts[status] for status in ("done", "skipped", "failed", "unreadable")}
    bad = summary["failed"] + summary["unreadable"]
    if as_json:
        say(json.dumps({**summary, "left_out": left_out}), to)
    else:
        files = f", {left_out} left out as no picture" if left_out else ""
        listed = f"; see {errors}" if bad and errors is not None else ""
        say(", ".join(f"{count} {status}" for status, count in summary.items()) + files + listed, to)
    return SOME_FAILED if bad else DONE


def _in_words(row: Row, describe: Callable[[Row], str], remarked: set[str]) -> str:
    """A row's words; what it remarks on settings, which all pictures share, only where it is not in `remarked` yet."""
    if row.error is not None:
        return f"{row.picture}: {row.status}: {row.error}"
    new = [remark for remark in (row.result or {}).get("remarks", ()) if remark not in remarked]
    remarked.update(new)
    return "\n  ".join([f"{row.picture}: {'finished before' if row.status == 'skipped' else describe(row)}", *new])


def say(line: str, to: TextIO | None = None) -> None:
    """Print a line above the progress bar, at once, also through a pipe; to stdout where nothing else is said."""
    with tqdm.external_write_mode(file=to):
        print(line, file=to, flush=True)
