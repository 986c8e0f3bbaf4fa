"""The nodes on a CUDA card: `COMFYUI_PATH=FOLDER python -m benchmarks.gpu`, in under eight minutes.

Needs torch, transformers, safetensors and what ComfyUI imports; no server, no models, no network. Writes `gpu.md` and
`gpu.json`, anew after every row. A part that fails is a row that says why, and the command then ends with status 1.
Without a card narrow networks run on the CPU, and the tables say what was not run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..harness.cells import RESULTS, write_text
from . import plan
from .plan import NOT_DYNAMIC, PARTS, Job
from .report import describe

Row = dict[str, Any]
ROOT = Path(__file__).parents[2]
ABOUT = """
import json, platform, torch
cuda = torch.cuda.is_available()
card = torch.cuda.get_device_properties(0) if cuda else None
print(json.dumps({
    "card": card.name if cuda else "", "card_gib": card.total_memory / 2**30 if cuda else 0.0,
    "capability": f"{card.major}.{card.minor}" if cuda else "", "cuda": torch.version.cuda or "",
    "torch": torch.__version__, "python": platform.python_version(), "machine": platform.machine(),
}))
"""
"""What a process of its own tells of the machine: this one leaves the card alone."""


def main() -> int:
    """Measure what was asked for; 1 if something failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="less of everything, in two minutes")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure")
    parser.add_argument("--seconds", type=float, default=460, help="after which nothing new is begun (default: 460)")
    parser.add_argument("--output", type=Path, default=RESULTS, help=f"folder of the results (default: {RESULTS})")
    options = parser.parse_args()
    deadline = time.monotonic() + options.seconds
    tree = comfyui_tree()
    about: Row = json.loads(subprocess.run([sys.executable, "-c", ABOUT], check=True, stdout=subprocess.PIPE).stdout)
    about |= {"comfyui": version_of(tree), "date": time.strftime("%Y-%m-%d"), "cpus": os.cpu_count()}
    dynamic = NOT_DYNAMIC in (tree / "comfy" / "cli_args.py").read_text(encoding="utf-8")
    form = plan.without_card if not about["card"] else plan.short if options.short else plan.full
    about["form"] = form.__name__
    jobs = [job for job in form(about["card_gib"], dynamic) if job.part in options.parts]

    rows: list[Row] = []
    for row in results(jobs, tree, deadline):
        rows.append(row)
        print(" ".join(str(value) for value in row.values()), flush=True)
        about["seconds"] = round(options.seconds - (deadline - time.monotonic()), 1)
        write_text(options.output / "gpu.json", json.dumps({"about": about, "rows": rows}, indent=1) + "\n")
        write_text(options.output / "gpu.md", describe(about, rows))
    failed = [row for row in rows if "failed" in row]
    print(f"{len(rows)} rows, {len(failed)} failed; written to {options.output}")
    return 1 if failed else 0


def comfyui_tree() -> Path:
    """ComfyUI's tree."""
    if "COMFYUI_PATH" not in os.environ:
        raise SystemExit("Set COMFYUI_PATH to the folder that holds ComfyUI's main.py; run.py makes one in .runtime.")
    return Path(os.environ["COMFYUI_PATH"]).resolve()


def version_of(tree: Path) -> str:
    """The release of a tree."""
    text = (tree / "comfyui_version.py").read_text(encoding="utf-8")
    return text.rpartition("=")[2].strip(" \n\"'")


def results(jobs: list[Job], tree: Path, deadline: float) -> Iterator[Row]:
    """Do jobs one after the other, those of the same flags in one process."""
    worker: Worker | None = None
    broken: set[tuple[str, ...]] = set()
    with tempfile.TemporaryDirectory() as folder:
        for job in jobs:
            about = {"part": job.part, "network": job.network or "embedded", "weights": job.weights, "mode": job.mode}
            if job.unavailable:
                yield about | {"what": job.task, "skipped": job.unavailable}
                continue
            if time.monotonic() >= deadline:
                yield about | {"what": job.task, "skipped": "the time of --seconds was over"}
                continue
            if job.flags in broken:
                why = f"ComfyUI does not start with the flags {' '.join(job.flags) or '(none)'}"
                yield about | {"what": job.task, "failed": why}
                continue
            if worker is None or worker.flags != job.flags or not worker.alive:
                if worker is not None:
                    worker.stop()
                worker = Worker(job.flags, folder, tree)
            for row in worker.do(job, deadline):
                yield about | row
            if not worker.started:
                broken.add(job.flags)
        if worker is not None:
            worker.stop()


GRACE = 20.0
"""Seconds that a job that has begun may take beyond the deadline."""


class Worker:
    """A process of `benchmarks.gpu.worker`."""

    def __init__(self, flags: tuple[str, ...], folder: str, tree: Path) -> None:
        """Start one with flags of ComfyUI's command line, a folder that workers share, and ComfyUI's tree."""
        self.flags, self.started = flags, False
        command = [sys.executable, "-m", "benchmarks.gpu.worker", folder, *flags]
        environment = os.environ | {"COMFYUI_PATH": str(tree)}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
        )

    @property
    def alive(self) -> bool:
        """Whether it can be given a job."""
        return self._process.poll() is None

    def do(self, job: Job, deadline: float) -> Iterator[Row]:
        """Have a job done; a process that ends on the way is a row that failed."""
        assert self._process.stdin is not None and self._process.stdout is not None
        late = threading.Event()

        def end() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(deadline + GRACE - time.monotonic(), end)
        timer.start()
        try:
            self._process.stdin.write(json.dumps(asdict(job)) + "\n")
            self._process.stdin.flush()
            for line in self._process.stdout:
                row = json.loads(line)
                if not self.started:  # its first word says that ComfyUI is loaded
                    self.started = True
                elif row:
                    yield row
                else:
                    return
        except BrokenPipeError:
            pass
        finally:
            timer.cancel()
        status = self._process.wait()
        why = "stopped, the time of --seconds was over" if late.is_set() else f"the process ended with status {status}"
        yield {"what": job.task, "failed": f"{why}; standard error says more"}

    def stop(self) -> None:
        """Let it end: it has nothing more to read."""
        assert self._process.stdin is not None
        if self.alive:
            self._process.stdin.close()
        try:
            self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()


if __name__ == "__main__":
    raise SystemExit(main())
