"""The work on many cells, shared among processes; on a GPU, too, which one process alone leaves waiting for Python."""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from operator import attrgetter

import torch

from .cells import Bench
from .report import Row, summarise
from .sampling import Method


@dataclass(frozen=True)
class Unit:
    """A cell to be: what one process does at a time."""

    count: int
    task: str
    method: Method
    label: str


def edit_all(bench: Bench, units: Sequence[Unit], processes: int) -> None:
    """Do all cells that are not done yet, in several processes.

    Each process gets units that lie side by side once they are in the order of their tasks, so that it draws the scenes
    of few; within a task they are shuffled, so that none gets all the slow methods.

    Args:
        bench: whose `with_count` makes each cell; afterwards its `cell` finds them done.
        units: any.
        processes: how many; 1 leaves the work to `Bench.cell`.
    """
    different = {(unit.count, unit.task, repr(unit.method)): unit for unit in units}.values()
    missing = [unit for unit in different if not bench.with_count(unit.count).is_done(unit.task, unit.method)]
    processes = min(processes, len(missing))
    if processes < 2:
        return
    random.Random(0).shuffle(missing)
    missing.sort(key=attrgetter("task", "count"))
    shares = [missing[len(missing) * i // processes : len(missing) * (i + 1) // processes] for i in range(processes)]
    # spawned, since a GPU cannot be used across a fork
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        for done in [pool.submit(_edit_share, bench.loader, share) for share in shares]:
            done.result()


def try_all(
    bench: Bench, tried: Sequence[tuple[str, str, Method]], tasks: Sequence[str], processes: int = 1
) -> list[Row]:
    """Average methods over tasks.

    Args:
        bench: edits and measures.
        tried: of each method a name, a label for its settings, and what it is.
        tasks: that count alike.
        processes: that share the work.

    Returns:
        a row for each method.
    """
    units = [Unit(bench.count, task, method, f"{name} {label}") for name, label, method in tried for task in tasks]
    edit_all(bench, units, processes)
    return [
        summarise(name, label, [bench.cell(task, method, f"{name} {label}") for task in tasks])
        for name, label, method in tried
    ]


def add_processes(parser: argparse.ArgumentParser) -> None:
    """Add the option that says how many processes share the work."""
    parser.add_argument("--processes", type=int, default=1, help="that share the work (default: 1)")


def _edit_share(load: Callable[[], Bench], units: Sequence[Unit]) -> None:
    torch.set_num_threads(1)
    whole, benches = load(), dict[int, Bench]()
    for unit in units:
        bench = benches.setdefault(unit.count, whole.with_count(unit.count))
        bench.cell(unit.task, unit.method, unit.label)
