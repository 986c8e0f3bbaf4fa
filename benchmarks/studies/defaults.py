"""Are there better defaults, on both models? `python -m benchmarks.studies.defaults`.

On the UNet alone, beginning earlier with less CFG and a stronger direction looks better than the nodes' defaults. A
default has to hold on the flow transformer as well. All eight tasks, validation scenes; then the one that makes more
edits on both is compared with the defaults on more of them. Writes `results/defaults.md`.
"""

from __future__ import annotations

import argparse

from ..harness.cells import RESULTS, Bench, write_text
from ..harness.models import MODELS, ModelName
from ..harness.report import contrast, contrast_table, table
from ..harness.rows import METHODS
from ..harness.settings import adjust, label_of
from ..harness.sharing import Unit, add_processes, edit_all, try_all
from ..harness.tasks import TASKS

EARLIER = {"cfg": 4.0, "cfg_start": 0.08}

MORE_EDITS = {**EARLIER, "cfg": 5.0}

TRIED = [
    {},
    EARLIER,
    MORE_EDITS,
    {**EARLIER, "direction": 1.4},
    {**EARLIER, "direction": 1.5},
]
"""Changes of the defaults."""

SCENES = 16  # a task
SCENES_OF_MORE_EDITS = 64

GROUPS = {
    "all eight edits": list(TASKS),
    "the six of things": [task for task in TASKS if "oil" not in task],
    "the two of the medium": [task for task in TASKS if "oil" in task],
}


def main() -> None:
    """Edit what is not edited yet, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_processes(parser)
    processes: int = parser.parse_args().processes
    parts = [part for model in MODELS for part in (try_changes(model, processes), look_again(model, processes))]
    write_text(RESULTS / "defaults.md", "\n".join(parts))
    print(f"written to {RESULTS / 'defaults.md'}")


def try_changes(model: ModelName, processes: int) -> str:
    """Average every change over all tasks."""
    ours = METHODS[model]["ours"]
    tried = [("ours", label_of(change) or "the defaults", adjust(ours, change)) for change in TRIED]
    rows = try_all(Bench("validation", SCENES, 25, model=model), tried, tuple(TASKS), processes)
    return f"{model}: {SCENES} validation scenes of each of all tasks, 25 steps.\n\n{table(rows)}"


def look_again(model: ModelName, processes: int) -> str:
    """Compare one change with the defaults, scene by scene."""
    bench = Bench("validation", SCENES_OF_MORE_EDITS, 25, model=model)
    usual = METHODS[model]["ours"]
    changed = adjust(usual, MORE_EDITS)
    units = [Unit(bench.count, task, method, "ours") for task in TASKS for method in (usual, changed)]
    edit_all(bench, units, processes)
    rows = [
        contrast("", group, *([bench.cell(task, method, "ours") for task in tasks] for method in (changed, usual)))
        for group, tasks in GROUPS.items()
    ]
    figures = f"{label_of(MORE_EDITS)} less the defaults' figure, or divided by it (x)"
    return f"{model}: {figures}; {bench.count} validation scenes a task.\n\n{contrast_table(rows, first='edits')}"


if __name__ == "__main__":
    main()
