"""Are there better defaults, on both models? `python -m benchmarks.studies.defaults`.

On the UNet alone, beginning earlier with less CFG and a stronger direction looks better than the nodes' defaults. A
default has to hold on the flow transformer as well. All eight tasks, validation scenes. Writes `results/defaults.md`.
"""

from __future__ import annotations

import argparse

from ..harness.cells import RESULTS, Bench, write_text
from ..harness.models import MODELS
from ..harness.report import table
from ..harness.rows import METHODS
from ..harness.settings import adjust, label_of
from ..harness.sharing import add_processes, try_all
from ..harness.tasks import TASKS

EARLIER = {"cfg": 4.0, "cfg_start": 0.08}

TRIED = [
    {},
    EARLIER,
    {**EARLIER, "cfg": 5.0},
    {**EARLIER, "direction": 1.4},
    {**EARLIER, "direction": 1.5},
]
"""Changes of the defaults."""

SCENES = 16  # a task


def main() -> None:
    """Edit what is not edited yet, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_processes(parser)
    processes: int = parser.parse_args().processes
    parts: list[str] = []
    for model in MODELS:
        ours = METHODS[model]["ours"]
        tried = [("ours", label_of(change) or "the defaults", adjust(ours, change)) for change in TRIED]
        rows = try_all(Bench("validation", SCENES, 25, model=model), tried, tuple(TASKS), processes)
        parts.append(f"{model}: {SCENES} validation scenes of each of all tasks, 25 steps.\n\n{table(rows)}")
    write_text(RESULTS / "defaults.md", "\n".join(parts))
    print(f"written to {RESULTS / 'defaults.md'}")


if __name__ == "__main__":
    main()
