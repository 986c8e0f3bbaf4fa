"""Edits are metered once: what has been measured is kept, and taken up again."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path

import torch

from ..harness.cells import CHECKPOINT, write_text
from .edits import Edit
from .meter import Meter, Usage
from .subjects import Subject


class Workshop:
    """Measures what has not been measured yet, and keeps it.

    What is kept is known by everything that it depends on, the code and the machine included.
    """

    def __init__(self, folder: Path) -> None:
        """Choose where figures are kept."""
        self.folder = folder
        benchmarks = Path(__file__).parents[1]
        code = [*(benchmarks.parent / "pix2pix_zero_core").rglob("*.py"), *(benchmarks / "rivals").glob("*.py")]
        code += [benchmarks / "harness" / name for name in ("methods.py", "rows.py", "sampling.py", "tasks.py")]
        code += list((benchmarks.parent / "tiny_zoo").glob("*.py"))
        code += [benchmarks / "speed" / name for name in ("edits.py", "meter.py", "plan.py", "subjects.py")]
        files = [*sorted(code), CHECKPOINT]
        contents = sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
        self._about = contents, torch.__version__, torch.get_num_threads()

    def usage(self, subject: Subject, method: str, edit: Edit, run: int = 0, *, watch_maps: bool = False) -> Usage:
        """Measure an edit.

        Args:
            subject: what to edit, and on which UNet.
            method: its name.
            edit: how.
            run: number of this measurement.
            watch_maps: count bytes of maps instead of time.
        """
        shape, steps = tuple(subject.problem.x0.shape), subject.problem.steps
        where = platform.node(), str(subject.problem.x0.device)
        known = repr((self._about, where, method, shape, steps, run, watch_maps))
        path = self.folder / f"speed-{subject.name}-{method}-{sha256(known.encode()).hexdigest()[:20]}.json"
        if not path.is_file():
            started = time.perf_counter()
            usage = Meter(subject.unet, watch_maps=watch_maps).run(partial(edit, subject))
            write_text(path, json.dumps(usage.to_json()))
            what = f"{steps} steps of {shape[0]} at {8 * shape[3]} px"
            print(f"{subject.name} {method}: {what}, {time.perf_counter() - started:.1f} s", flush=True)
        return Usage.from_json(json.loads(path.read_text()))

    def in_turns(self, subjects: Sequence[Subject], edits: dict[str, Edit]) -> dict[str, list[Usage]]:
        """Edit every subject with every method, the methods taking turns; method -> usages."""
        usages: dict[str, list[Usage]] = {name: [] for name in edits}
        for run, subject in enumerate(subjects):
            for name, edit in edits.items():
                usages[name].append(self.usage(subject, name, edit, run))
        return usages
