"""What an edit costs in structure: `python -m benchmarks.tradeoff` turns every method's main knob, on held-out scenes.

All other settings are the tuned ones. Writes `results/tradeoff.json` and, as a plot, `results/tradeoff.svg`:
structure distance against edit success, a curve a method. Interrupted, it goes on where it was.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from .cells import RESULTS, Bench, add_options, write_text
from .methods import TUNED, adjust
from .report import Row, environment
from .sweep import along
from .tasks import TASKS
from .tune import label_of, read_settings, try_out

CURVES: dict[str, list[dict[str, Any]]] = {
    "sdedit": along("strength", 0.2, 0.35, 0.5, 0.65, 0.8, 0.95),
    "ddim_word_swap": along("cfg", 1.0, 1.5, 2.0, 3.0, 5.0, 7.5),
    "p2p": [{"cross": share, "own": share / 2} for share in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)],
    "official": along("strength", 0.0, 0.1, 0.3, 1.0, 3.0, 10.0),
    "paper": along("guidance.strength", 0.0, 0.1, 0.3, 1.0, 3.0, 10.0),
    "ours": along("guidance.strength", 0.0, 1.25, 2.5, 5.0, 10.0, 20.0),
}
"""Method id -> the points of its curve, from little to much of what the method turns."""

COLOURS = {
    "sdedit": "#999999",
    "ddim_word_swap": "#e69f00",
    "p2p": "#009e73",
    "official": "#0072b2",
    "paper": "#56b4e9",
    "ours": "#d55e00",
}
"""Told apart also by the colour-blind (Okabe and Ito)."""


def main() -> None:
    """Measure every point of every curve, then draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=["cat2dog", "horse2zebra"])
    add_options(parser, count=40)
    options = parser.parse_args()
    bench = Bench.from_options(options, "test")
    tuned = read_settings()["settings"]
    curves: dict[str, list[Row]] = {}
    for name, points in CURVES.items():
        method = adjust(TUNED[name], tuned[name])
        curves[name] = [
            try_out(bench, name, adjust(method, settings), label_of(settings), options.tasks) for settings in points
        ]
    about = {"tasks": options.tasks, "steps": bench.steps, "weights": bench.weights} | environment()
    write_text(RESULTS / "tradeoff.json", json.dumps({"curves": curves, "environment": about}, indent=1) + "\n")
    draw(curves, RESULTS / "tradeoff.svg")
    print(f"written to {RESULTS / 'tradeoff.json'}")


def draw(curves: dict[str, list[Row]], path: Path) -> None:
    """Plot structure distance against edit success."""
    import matplotlib  # pyright: ignore[reportMissingImports]  # in the benchmark's environment only

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = path.name  # the same figures give the same file
    from matplotlib.figure import Figure  # pyright: ignore[reportMissingImports]

    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.add_subplot(
        xlabel="structure distance to the source (less is better)", ylabel="edit success (more is better)"
    )
    for name, rows in curves.items():
        x, y = ([row[column] for row in rows] for column in ("structure_distance", "edit_success"))
        axes.plot(x, y, marker="o", markersize=4, label=name.replace("_", " "), color=COLOURS[name])
    axes.grid(alpha=0.3)
    axes.legend()
    unfinished = path.with_name(path.name + ".partial")
    figure.savefig(unfinished, format="svg", metadata={"Date": None})
    unfinished.replace(path)


if __name__ == "__main__":
    main()
