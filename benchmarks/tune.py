"""Fair settings for every method: `python -m benchmarks.tune` tries as many for each, on the same validation scenes.

Of each method's settings it chooses the one with the highest PSNR to the true edit among those whose edit success is
within 0.065 of the best of that method, both as means over the paper's four tasks: the edit has to happen, and then the
picture should be the right one. One setting serves all tasks. Writes `benchmarks/settings.json`, which the benchmark
reads, and `results/tuning.md` with all that was tried. Interrupted, it goes on where it was.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .cells import RESULTS, Bench, add_options, write_text
from .methods import TUNED, Method, adjust
from .report import Row, markdown, show, summarise
from .tasks import PAPER_TASKS

SETTINGS = Path(__file__).parent / "settings.json"
TOLERANCE = 0.065  # of edit success: two of 32 scenes
SHOWN = ("edit_success", "attributes_kept", "bg_lpips", "structure_distance", "truth_psnr")


def combine(axes: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination of some settings' values."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


SCALES = (1.5, 2.0, 5.0)  # the world is simple: texts alone say enough, and little guidance by them is best
STRENGTHS = (0.1, 0.3, 1.0)  # paper units

GRIDS: dict[str, list[dict[str, Any]]] = {
    "sdedit": combine({"strength": (0.5, 0.65, 0.8), "cfg": SCALES, "negative": ("empty",)}),
    "ddim_word_swap": [
        *combine({"cfg": (1.0, 1.5, 2.0, 3.0, 5.0), "negative": ("source",)}),
        *combine({"cfg": (1.5, 2.0, 3.0, 5.0), "negative": ("empty",)}),
    ],
    "p2p": [
        {"cross": cross, "own": own, "cfg": cfg}
        for cross, own in ((0.4, 0.4), (0.8, 0.2), (0.8, 0.4))
        for cfg in SCALES
    ],
    "official": combine({"strength": STRENGTHS, "cfg": SCALES}),
    "paper": combine({"guidance.strength": STRENGTHS, "cfg": SCALES}),
    "ours": combine({"guidance.strength": (1.25, 2.5, 5.0), "cfg": (1.5, 2.0, 3.0)}),
}
"""Method id -> the settings that are tried; those of the publications are among them."""


def main() -> None:
    """Try every setting of every method and choose."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, count=8)
    parser.add_argument(
        "--methods", nargs="+", choices=GRIDS, help="try only these and choose nothing, to share the work"
    )
    options = parser.parse_args()
    bench = Bench.from_options(options, "validation")
    for name in options.methods or ():
        for tried in GRIDS[name]:
            try_out(bench, name, adjust(TUNED[name], tried), label_of(tried), PAPER_TASKS)
    if options.methods:
        return
    settings: dict[str, dict[str, Any]] = {}
    lines: list[list[str]] = []
    for name, grid in GRIDS.items():
        rows = [try_out(bench, name, adjust(TUNED[name], tried), label_of(tried), PAPER_TASKS) for tried in grid]
        best = choose(rows)
        settings[name] = grid[best]
        for index, row in enumerate(rows):
            mark = "**" if index == best else ""
            lines.append([name, f"{mark}{row['method']}{mark}", *(show(row[column], column) for column in SHOWN)])
    about = {
        "tasks": PAPER_TASKS,
        "scenes": bench.count,
        "steps": bench.steps,
        "settings_tried": len(GRIDS["ours"]),
        "weights": bench.weights,
    }
    write_text(RESULTS / "tuning.md", markdown(["method", "settings", *SHOWN], lines))
    write_text(SETTINGS, json.dumps({"settings": settings, "tuned_on": about}, indent=1) + "\n")
    print(f"written to {SETTINGS}")


def try_out(bench: Bench, name: str, method: Method, label: str, tasks: Sequence[str]) -> Row:
    """Average a method over tasks, under a label for its settings."""
    return summarise(name, label, [bench.cell(task, method, f"{name} {label}") for task in tasks])


def choose(rows: Sequence[Row]) -> int:
    """Index of the best row, as the module says."""
    enough = max(row["edit_success"] for row in rows) - TOLERANCE
    return max(
        (index for index, row in enumerate(rows) if row["edit_success"] >= enough),
        key=lambda index: rows[index]["truth_psnr"],
    )


def label_of(settings: Mapping[str, Any]) -> str:
    """Settings in a line."""
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def read_settings() -> dict[str, Any]:
    """Read what was chosen: "settings", method id -> settings, and "tuned_on", how.

    Raises:
        FileNotFoundError: nothing was chosen yet.
    """
    if not SETTINGS.is_file():
        raise FileNotFoundError(f"There is no {SETTINGS}: choose settings with python -m benchmarks.tune.")
    return json.loads(SETTINGS.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
