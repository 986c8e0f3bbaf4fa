"""Pictures shared out on a Ray cluster: an actor a model, streamed by Ray Data.

An actor holds the model and does to a picture what `run_here` does. When one dies, Ray Data starts another, which does
again what the dead one had not answered for: results are written under a temporary name first, so doing a picture twice
leaves what doing it once leaves. All machines must see the pictures and the output folder under the same paths, and
have this package installed.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from .arguments import UsageError
from .jobs import Row, Task, Tick, attempt, run_here
from .model import ModelOptions

LOCAL = "local"
"""In place of an address: a cluster on this machine, for as long as the command runs."""

BLOCKS = 1000
"""Most parts into which the pictures are divided; a part is what is done again when a worker dies."""

OBJECT_STORE = 100 * 2**20
"""Bytes of shared memory on this machine: what travels is paths and rows."""

Runner = Callable[[Sequence[Path], Tick], Iterator[Row]]
"""Does a task to pictures, and yields each as it is finished; tick is called after every step, where that is known."""


def choose_runner(task: Task, model: ModelOptions, arguments: argparse.Namespace) -> Runner:
    """Read the options of `add_workers`.

    Raises:
        UsageError: --workers without --ray.
    """
    if arguments.ray is not None:
        return partial(run_on_ray, task, model, arguments.ray, arguments.workers)
    if arguments.workers is not None:
        raise UsageError("--workers: belongs to --ray; without it there is one model, in this process")
    return partial(run_here, task)


class Worker:
    """An actor: a task that has been started."""

    def __init__(self, task: Task) -> None:
        """Load the model."""
        self._work = task.start()
        self._name = f"{socket.gethostname()}:{os.getpid()}"

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        """Do the task to a picture."""
        row = attempt(self._work, Path(item["picture"]), lambda: None)
        return {"row": json.dumps(asdict(row)), "worker": self._name}


def run_on_ray(
    task: Task, model: ModelOptions, address: str, workers: int | None, pictures: Sequence[Path], tick: Tick
) -> Iterator[Row]:
    """Do a task to pictures on a cluster; yields each as it is finished, in any order.

    Args:
        task: what to do.
        model: its model, of which each worker has one, with a GPU of its own where the cluster has any.
        address: of the cluster, or `LOCAL`.
        workers: models at once; None is one a GPU, or one for each `ModelOptions.threads` CPUs.
        pictures: to what.
        tick: not called; another machine tells of whole pictures only.

    Raises:
        UsageError: Ray is not installed, the cluster cannot be reached, or a worker cannot load the model.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray: Any = import_module("ray")
        data: Any = import_module("ray.data")
    except ModuleNotFoundError as error:
        raise UsageError(f'--ray: the package {error.name} is missing; pip install ".[cli,ray]"') from error

    require_reachable(address)
    cpus = model.threads or 1
    local = {"num_cpus": max(os.cpu_count() or 1, cpus * (workers or 1)), "object_store_memory": OBJECT_STORE}
    try:
        quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
        ray.init(address, **quiet, **(local if address == LOCAL else {}))
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UsageError(f"--ray {address}: {error}") from error
    try:
        gpus = 1 if model.device != "cpu" and ray.cluster_resources().get("GPU", 0) >= 1 else 0
        slots = ray.cluster_resources()["GPU"] if gpus else ray.cluster_resources()["CPU"] // cpus
        context = data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        rows = data.from_items(
            [{"picture": str(picture)} for picture in pictures], override_num_blocks=min(len(pictures), BLOCKS)
        ).map(
            Worker,
            fn_constructor_args=(task,),
            concurrency=min(workers or max(int(slots), 1), len(pictures)),
            num_cpus=cpus,
            num_gpus=gpus,
        )
        for item in rows.iter_rows():
            row = Row(**json.loads(item["row"]))
            yield Row(row.picture, row.status, row.seconds, {**(row.result or {}), "worker": item["worker"]}, row.error)
    except ray.exceptions.RayActorError as error:  # those that die later are started again; these cannot be
        raise UsageError(f"--ray {address}: no worker can be started: {str(error).strip().splitlines()[-1]}") from error
    finally:
        ray.shutdown()


def require_reachable(address: str) -> None:
    """Refuse an address at which nobody listens, for which Ray would wait minutes.

    Raises:
        UsageError: no connection within ten seconds.
    """
    found = re.fullmatch(r"(?:ray://)?([\w.-]+):(\d+)", address)
    if found is None:
        return  # LOCAL, or what Ray finds out by itself
    try:
        socket.create_connection((found[1], int(found[2])), timeout=10).close()
    except OSError as error:
        raise UsageError(f"--ray {address}: {error}. Give the address that `ray start --head` printed") from error
