"""What an edit costs in structure: `python -m benchmarks.quality.tradeoff` turns every method's main knob.

On held-out scenes; all else is as tuning chose. Writes `results/tradeoff.json`,
`results/tradeoff.md` and, as a plot, `results/tradeoff.svg`: structure distance and background LPIPS against edit
success, a curve a method. Interrupted, it goes on where it was.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..harness.cells import RESULTS, Bench, add_options, write_text
from ..harness.report import TITLES, Row, environment, table
from ..harness.rows import TUNED
from ..harness.settings import adjust, along, label_of, read_settings
from ..harness.sharing import add_processes, try_all
from ..harness.tasks import PAPER_TASKS, TASKS

STRENGTHS = (0.0, 0.15, 0.3, 0.45, 0.6)
SCALES = (1.0, 2.0, 3.0, 5.0, 7.5)
SHARES = (0.1, 0.2, 0.4, 0.6, 0.8)

POINTS: dict[str, list[dict[str, Any]]] = {
    "sdedit": along("strength", 0.35, 0.5, 0.65, 0.8, 0.95),
    "ddim_word_swap": along("cfg", *SCALES),
    "word_swap_empty": along("cfg", *SCALES),
    "p2p": [{"cross": share, "own": share} for share in SHARES],
    "p2p_direct": [{"cross": share, "own": share} for share in SHARES],
    "ddpm_friendly": along("skip", *SHARES),
    "pnp": [{"features": share, "attention": share} for share in SHARES],
    "infedit": [{"cross": share, "own": share} for share in SHARES],
    "flowedit": along("share", *SHARES[1:], 1.0),
    "official": along("strength", 0.03, 0.1, 0.3, 1.0),
    "paper": along("guidance.strength", 0.03, 0.1, 0.3, 1.0),
    "ours": along("guidance.strength", *STRENGTHS),
}
"""Method id -> the points of its curve, from little to much of what it turns."""

STYLES = {
    "sdedit": ("#999999", "o-"),
    "ddim_word_swap": ("#e69f00", "o-"),
    "word_swap_empty": ("#e69f00", "s--"),
    "p2p": ("#009e73", "o-"),
    "p2p_direct": ("#009e73", "s--"),
    "ddpm_friendly": ("#cc79a7", "o-"),
    "pnp": ("#cc79a7", "s--"),
    "infedit": ("#000000", "o-"),
    "flowedit": ("#000000", "s--"),
    "official": ("#0072b2", "o-"),
    "paper": ("#56b4e9", "o-"),
    "ours": ("#d55e00", "o-"),
    "ours_direction_1": ("#d55e00", "s--"),
}
"""Curve -> colour, marker and line: told apart also by the colour-blind (Okabe and Ito)."""


def curves() -> dict[str, tuple[str, list[dict[str, Any]]]]:
    """Every curve: its method's id, and the settings of its points."""
    tuned = read_settings()["settings"]
    found = {name: (name, [tuned[name] | point for point in points]) for name, points in POINTS.items()}
    name, points = found["ours"]
    return found | {"ours_direction_1": (name, [point | {"direction": 1.0} for point in points])}


def main() -> None:
    """Measure every point of every curve, then draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=PAPER_TASKS, help="default: the paper's")
    add_options(parser, count=40)
    add_processes(parser)
    options = parser.parse_args()
    bench = Bench.from_options(options, "test")
    drawn = curves()
    tried = [
        (curve, label_of(how), adjust(TUNED[name], how)) for curve, (name, points) in drawn.items() for how in points
    ]
    rows = try_all(bench, tried, options.tasks, options.processes)
    measured = {curve: [row for row in rows if row["task"] == curve] for curve in drawn}
    about = {"tasks": options.tasks, "steps": bench.steps, "weights": bench.weights} | environment(rows)
    write_text(RESULTS / "tradeoff.json", json.dumps({"curves": measured, "environment": about}, indent=1) + "\n")
    write_text(RESULTS / "tradeoff.md", describe(measured, bench, options.tasks))
    draw(measured, RESULTS / "tradeoff.svg")
    print(f"written to {RESULTS / 'tradeoff.json'}")


def describe(measured: dict[str, list[Row]], bench: Bench, tasks: Sequence[str]) -> str:
    """Write the points of all curves in Markdown."""
    head = (
        f"# Edit success against structure\n\nBy `python -m benchmarks.quality.tradeoff`, {bench.steps} steps, "
        f"{bench.count} held-out scenes of each of {', '.join(tasks)}.\n"
    )
    return "\n".join([head, *(f"## {curve}\n\n{table(rows)}" for curve, rows in measured.items())])


def draw(measured: dict[str, list[Row]], path: Path) -> None:
    """Plot structure distance and background LPIPS against edit success."""
    import matplotlib  # pyright: ignore[reportMissingImports]  # in the benchmark's environment only

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = path.name  # the same figures give the same file
    from matplotlib.figure import Figure  # pyright: ignore[reportMissingImports]

    figure = Figure(figsize=(11.0, 4.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, column in zip(panels, ("structure_distance", "bg_lpips"), strict=True):
        axes.set_xlabel(f"{TITLES[column]} (less is better)")
        axes.locator_params(axis="x", nbins=6)
        axes.grid(alpha=0.3)
        for name, rows in measured.items():
            x, y = ([row[figures] for row in rows] for figures in (column, "edit_success"))
            colour, style = STYLES[name]
            axes.plot(x, y, style, markersize=4, label=name.replace("_", " "), color=colour)
    panels[0].set_ylabel("edit success (more is better)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")
    unfinished = path.with_name(path.name + ".partial")
    figure.savefig(unfinished, format="svg", metadata={"Date": None})
    unfinished.replace(path)


if __name__ == "__main__":
    main()
