"""Did FlowEdit's grid end too early, and would ours gain by the same? `python -m benchmarks.studies.edge`.

What the two rounds of `benchmarks.quality.tune` chose for it is at the lowest CFG of its grid, and the second round
moved its share alone. Here is what lies beyond: some settings on the validation scenes of the second round, then two of
them on held-out scenes beside the nodes' defaults, and beside these beginning as early, with less CFG. Writes
`results/edge.md`.
"""

from __future__ import annotations

import argparse

from ..harness.cells import RESULTS, Bench, write_text
from ..harness.report import contrast, contrast_table, summarise, table
from ..harness.rows import METHODS, tuned_methods
from ..harness.settings import adjust, label_of, read_settings
from ..harness.sharing import Unit, add_processes, edit_all, try_all
from ..harness.tasks import PAPER_TASKS, TASKS

TRIED = [
    {"share": share, "cfg": cfg}
    for share, cfg in ((0.8, 5.0), (0.8, 4.0), (0.8, 3.5), (0.92, 5.0), (0.92, 4.0), (1.0, 5.0))
]
"""The choice of both rounds, and settings near it."""

HELD_OUT = TRIED[3:5]

EARLIER = [{"cfg": 4.0}, {"cfg": 4.0, "cfg_start": 0.08, "guidance.start": 0.2}]
"""Of ours: less CFG, and also from 8 % of the steps on."""
VALIDATION, TEST = 16, 40  # scenes a task


def main() -> None:
    """Edit what is not edited yet, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_processes(parser)
    processes: int = parser.parse_args().processes
    flowedit, steps = METHODS["unet"]["flowedit"], 25
    tried = [("flowedit", label_of(settings), adjust(flowedit, settings)) for settings in TRIED]
    ours = tuned_methods(read_settings()["settings"])["ours_by_default"]
    tried += [("ours", f"ours, {label_of(settings)}", adjust(ours, settings)) for settings in ({}, *EARLIER)]
    validation = try_all(Bench("validation", VALIDATION, steps), tried, PAPER_TASKS, processes)

    bench = Bench("test", TEST, steps)
    methods = {"ours_by_default": ours} | {label_of(s): adjust(flowedit, s) for s in HELD_OUT}
    methods[f"ours, {label_of(EARLIER[-1])}"] = adjust(ours, EARLIER[-1])
    edit_all(bench, [Unit(TEST, task, method, name) for name, method in methods.items() for task in TASKS], processes)
    cells = {name: [bench.cell(task, method, name) for task in TASKS] for name, method in methods.items()}
    own = cells["ours_by_default"]
    rows = [summarise("all", name, of_name) for name, of_name in cells.items()]
    compared = [contrast("all", name, own, of_name) for name, of_name in cells.items() if of_name is not own]
    text = (
        f"FlowEdit beyond its grid: {VALIDATION} validation scenes of each of the paper's tasks, {steps} steps.\n\n"
        f"{table(validation)}\n{TEST} held-out scenes of each of all tasks; and the nodes' defaults less it, or "
        f"divided by it (x).\n\n{table(rows)}\n{contrast_table(compared)}"
    )
    write_text(RESULTS / "edge.md", text)
    print(f"written to {RESULTS / 'edge.md'}")


if __name__ == "__main__":
    main()
