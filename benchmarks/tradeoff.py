"""What an edit costs in structure: `python -m benchmarks.tradeoff` turns every method's main knob, on held-out scenes.

CFG is what the first round of tuning chose. Writes `results/tradeoff.json`, `results/tradeoff.md` and, as a plot,
`results/tradeoff.svg`: structure distance and background LPIPS against edit success, a curve a method. Interrupted, it
goes on where it was.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .cells import RESULTS, Bench, add_options, write_text
from .methods import TUNED, adjust
from .report import TITLES, Row, environment, table
from .sweep import along
from .tasks import PAPER_TASKS, TASKS
from .tune import combine, label_of, try_out

STRENGTHS = (0.0, 0.6, 1.25, 2.5, 5.0)

CURVES: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "sdedit": ("sdedit", combine({"cfg": (5.0,), "strength": (0.35, 0.5, 0.65, 0.8, 0.95)})),
    "ddim_word_swap": ("ddim_word_swap", along("cfg", 1.0, 1.5, 2.0, 3.0, 5.0)),
    "p2p": ("p2p", [{"cfg": 1.5, "cross": share, "own": share} for share in (0.2, 0.4, 0.6, 0.8)]),
    "official": ("official", combine({"cfg": (1.5,), "strength": (0.03, 0.1, 0.3, 1.0)})),
    "paper": ("paper", combine({"cfg": (2.0,), "guidance.strength": (0.03, 0.1, 0.3, 1.0)})),
    "ours": ("ours", combine({"cfg": (1.5,), "guidance.strength": STRENGTHS})),
    "ours_direction_1.25": (
        "ours",
        combine({"cfg": (1.5,), "direction": (1.25,), "guidance.strength": STRENGTHS}),
    ),
    "ours_direction_1.25_cfg_1": (
        "ours",
        combine({"cfg": (1.0,), "direction": (1.25,), "guidance.strength": STRENGTHS}),
    ),
}
"""Curve -> its method's id, and its points, from little to much of what the method turns."""

COLOURS = {
    "sdedit": "#999999",
    "ddim_word_swap": "#e69f00",
    "p2p": "#009e73",
    "official": "#0072b2",
    "paper": "#56b4e9",
    "ours": "#d55e00",
    "ours_direction_1.25": "#cc79a7",
    "ours_direction_1.25_cfg_1": "#000000",
}
"""Told apart also by the colour-blind (Okabe and Ito)."""


def main() -> None:
    """Measure every point of every curve, then draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=PAPER_TASKS, help="default: the paper's")
    add_options(parser, count=40)
    options = parser.parse_args()
    bench = Bench.from_options(options, "test")
    curves: dict[str, list[Row]] = {}
    for curve, (name, points) in CURVES.items():
        curves[curve] = [
            try_out(bench, curve, adjust(TUNED[name], settings), label_of(settings), options.tasks)
            for settings in points
        ]
    about = {"tasks": options.tasks, "steps": bench.steps, "weights": bench.weights} | environment()
    write_text(RESULTS / "tradeoff.json", json.dumps({"curves": curves, "environment": about}, indent=1) + "\n")
    write_text(RESULTS / "tradeoff.md", describe(curves, bench, options.tasks))
    draw(curves, RESULTS / "tradeoff.svg")
    print(f"written to {RESULTS / 'tradeoff.json'}")


def describe(curves: dict[str, list[Row]], bench: Bench, tasks: Sequence[str]) -> str:
    """Write the points of all curves in Markdown."""
    head = (
        f"# Edit success against structure\n\nBy `python -m benchmarks.tradeoff`, {bench.steps} steps, {bench.count} "
        f"held-out scenes of each of {', '.join(tasks)}.\n"
    )
    return "\n".join([head, *(f"## {curve}\n\n{table(rows)}" for curve, rows in curves.items())])


def draw(curves: dict[str, list[Row]], path: Path) -> None:
    """Plot structure distance and background LPIPS against edit success."""
    import matplotlib  # pyright: ignore[reportMissingImports]  # in the benchmark's environment only

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = path.name  # the same figures give the same file
    from matplotlib.figure import Figure  # pyright: ignore[reportMissingImports]

    figure = Figure(figsize=(9.6, 4.4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, column in zip(panels, ("structure_distance", "bg_lpips"), strict=True):
        axes.set_xlabel(f"{TITLES[column]} (less is better)")
        axes.locator_params(axis="x", nbins=6)
        axes.grid(alpha=0.3)
        for name, rows in curves.items():
            x, y = ([row[figures] for row in rows] for figures in (column, "edit_success"))
            axes.plot(x, y, marker="o", markersize=4, label=name.replace("_", " "), color=COLOURS[name])
    panels[0].set_ylabel("edit success (more is better)")
    panels[1].legend(loc="lower right")
    unfinished = path.with_name(path.name + ".partial")
    figure.savefig(unfinished, format="svg", metadata={"Date": None})
    unfinished.replace(path)


if __name__ == "__main__":
    main()
