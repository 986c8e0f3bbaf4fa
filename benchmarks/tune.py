"""Fair settings for every method, in two rounds, as many settings of each on the same validation scenes.

`python -m benchmarks.tune` is the first: `GRIDS`, nine settings a method on 8 scenes a task. It writes
`results/tuning.md`. `python -m benchmarks.tune --finals` is the second: `FINALS`, the first round's choice and two
others, on twice as many scenes. It writes `results/finals.md` and
`benchmarks/settings.json`, which the benchmark reads.

Both choose the setting with the highest PSNR to the true edit among those of the method that lose at most two edits
against its most successful one, over the paper's four tasks: the edit has to happen, and then the picture should be the
right one. One setting serves all tasks. Interrupted, they go on where they were.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .cells import RESULTS, Bench, add_options, write_text
from .methods import TUNED, Method, Pix2PixZero, adjust
from .report import Row, markdown, show, summarise
from .tasks import PAPER_TASKS

SETTINGS = Path(__file__).parent / "settings.json"
TOLERANCE = 2  # edits
SCENES = {"grids": 8, "finals": 16}  # a task
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
"""Method id -> the settings of the first round; those of the publications are among them."""

FINALS: dict[str, list[dict[str, Any]]] = {
    "sdedit": [
        {"strength": 0.5, "cfg": 5.0, "negative": "empty"},
        {"strength": 0.5, "cfg": 3.0, "negative": "empty"},
        {"strength": 0.4, "cfg": 5.0, "negative": "empty"},
    ],
    "ddim_word_swap": [
        {"cfg": 1.0, "negative": "source"},
        {"cfg": 1.25, "negative": "source"},
        {"cfg": 1.5, "negative": "empty"},
    ],
    "p2p": [
        {"cross": 0.4, "own": 0.4, "cfg": 1.5},
        {"cross": 0.2, "own": 0.4, "cfg": 1.25},
        {"cross": 0.6, "own": 0.6, "cfg": 1.5},
    ],
    "official": [
        {"strength": 0.1, "cfg": 1.5},
        {"strength": 0.03, "cfg": 1.5},
        {"strength": 0.03, "cfg": 1.0},
    ],
    "paper": [
        {"guidance.strength": 0.1, "cfg": 2.0},
        {"guidance.strength": 0.03, "cfg": 1.5},
        {"guidance.strength": 0.03, "cfg": 1.0},
    ],
    "ours": [
        {"guidance.strength": 2.5, "cfg": 1.5},
        {"guidance.strength": 1.25, "cfg": 1.0, "direction": 1.25},
        {"guidance.strength": 0.6, "cfg": 1.0, "direction": 1.25},
    ],
}
"""Method id -> the settings of the second round; the first of each is what the first round chose."""


def main() -> None:
    """Try every setting of every method and choose."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, count=None)
    parser.add_argument("--finals", action="store_true", help="the second round")
    parser.add_argument(
        "--methods", nargs="+", choices=GRIDS, help="try only these and choose nothing, to share the work"
    )
    options = parser.parse_args()
    tried = FINALS if options.finals else GRIDS
    options.count = options.count or SCENES["finals" if options.finals else "grids"]
    bench = Bench.from_options(options, "validation")
    rows: dict[str, list[Row]] = {}
    for name in options.methods or tried:
        labelled = [(label_of(settings), adjust(TUNED[name], settings)) for settings in tried[name]]
        rows[name] = [try_out(bench, name, method, label, PAPER_TASKS) for label, method in labelled]
    if options.methods:
        return
    best = {name: choose(of_method) for name, of_method in rows.items()}
    write_text(RESULTS / ("finals.md" if options.finals else "tuning.md"), describe(rows, best))
    if options.finals:
        about = {
            "tasks": PAPER_TASKS,
            "scenes": bench.count,
            "steps": bench.steps,
            "settings_tried": len(GRIDS["ours"]) + len(FINALS["ours"]) - 1,
            "weights": bench.weights,
        }
        settings = {name: FINALS[name][index] for name, index in best.items()}
        write_text(SETTINGS, json.dumps({"settings": settings, "tuned_on": about}, indent=1) + "\n")
        print(f"written to {SETTINGS}")


def describe(rows: Mapping[str, Sequence[Row]], best: Mapping[str, int]) -> str:
    """Lay out in Markdown what was tried, the choices in bold."""
    lines: list[list[str]] = []
    for name, of_method in rows.items():
        for index, row in enumerate(of_method):
            mark = "**" if index == best[name] else ""
            lines.append([name, f"{mark}{row['method']}{mark}", *(show(row[column], column) for column in SHOWN)])
    return markdown(["method", "settings", *SHOWN], lines)


def before_finals() -> Pix2PixZero:
    """Ours as the first round chose it: what sweeps and trials change, and the sentences are counted with."""
    return adjust(Pix2PixZero(), FINALS["ours"][0])


def try_out(bench: Bench, name: str, method: Method, label: str, tasks: Sequence[str]) -> Row:
    """Average a method over tasks, under a label for its settings."""
    return summarise(name, label, [bench.cell(task, method, f"{name} {label}") for task in tasks])


def choose(rows: Sequence[Row]) -> int:
    """Index of the best row, as the module says."""
    enough = max(row["edit_success"] for row in rows) - (TOLERANCE + 0.01) / rows[0]["n"]  # figures are rounded
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
