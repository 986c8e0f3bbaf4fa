"""Which method edits best? `python -m benchmarks.quality` edits held-out scenes of every task with every method.

100 scenes of each of the paper's tasks, and 40 of each reverse, which has fewer rows. Writes `quality.json`,
`quality.md` and contact sheets to `benchmarks/results/` (`results/quick/` with `--quick`). Every method has the
settings that `python -m benchmarks.quality.tune` chose on other scenes. With `--model flow` it is the flow model that
edits, and the names of all files begin with `flow_`. With `--first 20` the tables, of which the names begin with
`from_20_`, leave out the first 20 scenes of every task, by which some defaults were decided. Interrupted, it goes on
where it was.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..harness.cells import RESULTS, Bench, Cell, add_options, write_text
from ..harness.models import MODELS, add_model
from ..harness.report import Row, contact_sheet, contrast, contrast_table, environment, summarise, table
from ..harness.rows import ABLATION, IN_50_STEPS, tuned_methods
from ..harness.settings import read_settings
from ..harness.sharing import Unit, add_processes, edit_all
from ..harness.tasks import PAPER_TASKS, TASKS, draw_scenes, pictures

ABLATION_TASKS = ("cat2dog",)
"""Where ours is also run without each of its parts, as in the paper's Table 2."""

SHEET_ROWS = 3
ALIKE = {"ours_fast", "ours_by_default_fast", *ABLATION, *(f"{name}_50" for name in IN_50_STEPS)}
"""Rows that look like others, and are not on the sheets."""

SCENES = {task: 100 if task in PAPER_TASKS else 40 for task in TASKS}
"""Task -> its scenes."""

BOTH_WAYS = (
    *("ddim_word_swap", "word_swap_empty", "p2p", "ddpm_friendly", "pnp", "flowedit", "official"),
    *("rf_inversion", "rf_solver", "fireflow"),
    *("ours", "ours_by_default", "ours_by_default_fast"),
)
"""Rows that the reverse tasks have, too: those of the README and of ours, and what else is made for flow models."""

OURS = {"ours": "Ours as tuned", "ours_by_default": "Ours by default"}
"""Rows that are compared with all others, and what they are called there."""

Cells = dict[str, dict[str, Cell]]
"""Task -> method -> cell."""


def main() -> None:
    """Do what is not done yet, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, count=None)
    add_model(parser)
    add_processes(parser)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="default: all")
    parser.add_argument("--first", type=int, default=0, help="leave out as many scenes of each task (default: none)")
    parser.add_argument("--quick", action="store_true", help="two scenes a task, 8 steps: does it run?")
    options = parser.parse_args()
    if options.quick:
        options.count, options.steps = 2, 8
    output = RESULTS / "quick" if options.quick else RESULTS
    settings = read_settings(options.model)
    methods = tuned_methods(settings["settings"], options.model)
    whole = Bench.from_options(options, "test", options.model)
    benches = {task: whole.with_count(options.count or SCENES[task]) for task in options.tasks}
    if not 0 <= options.first < (fewest := min(bench.count for bench in benches.values())):
        parser.error(f"--first {options.first}: it must leave some of {fewest} scenes")

    units = [
        Unit(bench.count, task, method, name)
        for task, bench in benches.items()
        for name, method in methods.items()
        if (task in PAPER_TASKS or name in BOTH_WAYS) and (name not in ABLATION or task in ABLATION_TASKS)
    ]
    edit_all(whole, units, options.processes)
    cells: Cells = {task: {} for task in benches}
    for unit in units:
        cell = benches[unit.task].cell(unit.task, unit.method, unit.label)
        cells[unit.task][unit.label] = cell.after(options.first)
    results = collect(cells, {task: bench.true_edits(task).after(options.first) for task, bench in benches.items()})
    about = {"model": options.model, "steps": whole.steps, "weights": whole.weights, "settings": settings}
    about |= environment(results["rows"])
    prefix = MODELS[options.model].prefix + (f"from_{options.first}_" if options.first else "")
    write_text(output / f"{prefix}quality.json", json.dumps({**results, "environment": about}, indent=1) + "\n")
    write_text(output / f"{prefix}quality.md", describe(results, about))
    for task in cells:
        if task in PAPER_TASKS and not options.first:
            draw_sheet(benches[task], task, cells[task], output / f"{prefix}{task}.png")
    print(f"written to {output}")


def collect(cells: Cells, ceilings: dict[str, Cell]) -> dict[str, list[Row]]:
    """Turn cells into rows a task, rows of means over tasks, and comparisons of `OURS` with all others."""
    groups = {task: [task] for task in cells}
    for name, members in {"mean of the paper's tasks": PAPER_TASKS, "mean of all tasks": tuple(TASKS)}.items():
        if cells.keys() >= set(members):
            groups[name] = list(members)
    rows: list[Row] = []
    comparisons: list[Row] = []
    for group, tasks in groups.items():
        shared = [method for method in cells[tasks[0]] if all(method in cells[task] for task in tasks)]
        for method in shared:
            chosen = [cells[task][method] for task in tasks]
            rows.append(summarise(group, method, chosen))
            for mine in OURS:
                if mine in shared and mine != method:
                    contrasted = contrast(group, method, [cells[task][mine] for task in tasks], chosen)
                    comparisons.append({"ours": mine, **contrasted})
    return {
        "rows": [row for row in rows if row["task"] in TASKS],
        "means": [row for row in rows if row["task"] not in TASKS],
        "comparisons": comparisons,
        "ceiling": [summarise(task, "true edit through the autoencoder", [cell]) for task, cell in ceilings.items()],
    }


def describe(results: dict[str, list[Row]], about: dict[str, Any]) -> str:
    """Write all results in Markdown."""
    tuning = about["settings"]["tuned_on"]
    stale = "" if tuning["weights"] == about["weights"] else " Those settings belong to other weights: tune again."
    parts = [
        f"# Quality of edits on held-out scenes, by {MODELS[about['model']].title}\n",
        f"By `python -m benchmarks.quality --model {about['model']}`, {about['date']}, {about['steps']} steps, on "
        f"{' and '.join(about['devices'])}. In parentheses: 95 % bootstrap intervals over the scenes' seeds, which all "
        f"tasks share. Every method was tuned with {tuning['settings_tried']} settings on the same validation scenes, "
        f"at most {tuning['scenes']} a task.{stale} That chose `ours`. `ours_by_default` has the nodes' defaults, "
        "which ablations on those scenes found, in many more trials, for edits that happen more surely.\n",
    ]
    groups = list(dict.fromkeys(row["task"] for row in (*results["means"], *results["rows"])))
    for group in groups:

        def of_group(rows: Sequence[Row]) -> list[Row]:
            return [row for row in rows if row["task"] == group]  # noqa: B023

        rows = of_group((*results["means"], *results["rows"]))
        parts += [f"## {group}\n", f"{rows[0]['n']} scenes.\n", table(rows + of_group(results["ceiling"]))]
        for mine, title in OURS.items():
            if compared := [row for row in of_group(results["comparisons"]) if row["ours"] == mine]:
                parts += [f"{title} less the other's figure, or divided by it (x):\n", contrast_table(compared)]
    return "\n".join(parts)


def draw_sheet(bench: Bench, task: str, cells: dict[str, Cell], path: Path) -> None:
    """Save a contact sheet of a task: source, true edit and every method on the first scenes."""
    source, truth = draw_scenes(TASKS[task], bench.split, min(SHEET_ROWS, bench.count))
    columns = {"source": pictures(source), "true edit": pictures(truth)}
    shown = {name: cell.latents[: len(source)] for name, cell in cells.items() if name not in ALIKE}
    columns |= {name: bench.decode(latents).cpu() for name, latents in shown.items()}
    contact_sheet(columns).save(path, optimize=True)


if __name__ == "__main__":
    main()
