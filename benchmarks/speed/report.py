"""The tables and the plot of `python -m benchmarks.speed`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..harness.report import Row, markdown

MIB = 2**20


def describe(results: dict[str, Any]) -> str:
    """Write all results in Markdown."""
    about, regularizer, resident_bytes = (
        results[name] for name in ("environment", "regularizer", "resident_after_edits")
    )
    parts = [
        "# Speed and memory of edits\n",
        f"By `python run.py bench --speed`, {about['date']}, torch {about['torch']}, {about['device']}, "
        f"{about['threads']} thread(s). Seconds are those of the {about['clock']}. Rows of the UNet: a backward pass "
        "counts as two forward passes, by convention. Encoding and decoding the picture is in no figure.\n",
    ]
    for unet in dict.fromkeys(row["unet"] for row in results["rows"]):
        rows = [row for row in results["rows"] if row["unet"] == unet]
        parts += [f"## {unet}\n", scope(rows[0]), speed_table(rows), calls_table(results["calls"], unet)]
    largest = [row["unet"] for row in results["rows"] if "official_takes" in row][-1]
    growth = (resident_bytes[-1] - resident_bytes[len(resident_bytes) // 4]) / MIB
    parts += [
        "## Noise regulariser\n",
        f"On a latent of 64 x 64 x 4: {1e3 * regularizer['ours']:.2f} ms, the official code's "
        f"{1e3 * regularizer['official']:.1f} ms: x{regularizer['ratio']:.1f}. It is "
        f"{regularizer['ours'] / bare_row(results['calls'], largest):.2%} of an inversion step on {largest}.\n",
        "## One edit after another\n",
        f"{len(resident_bytes)} edits in one process: after the last, resident memory is {growth:+.1f} MiB of what it "
        f"was after edit {len(resident_bytes) // 4 + 1}.\n",
    ]
    return "\n".join(parts)


def scope(row: Row) -> str:
    """Say what was measured and what is put together."""
    if row["measured_steps"] == row["steps"]:
        return "Whole edits, medians. Caption and direction are the same work for every method.\n"
    return (
        f"Measured: edits of {row['measured_steps']} steps, with random weights, so there is no caption. Put together: "
        "edits of all steps, each kind of call at its median cost, and as many calls as the method makes on Tiny Zoo; "
        "memory grows by the maps that are kept.\n"
    )


def speed_table(rows: Sequence[Row]) -> str:
    """Lay out the rows of one UNet."""
    head = [
        "method",
        "steps",
        "caption",
        "invert",
        "direction",
        "edit",
        "seconds",
        "official takes",
        "outside the UNet",
    ]
    head += ["rows forward", "rows backward", "peak, MiB", "maps, MiB"]

    def seconds(row: Row, name: str) -> str:
        return f"{row[name]:.2f}" if name in row else ""

    return markdown(
        head,
        [
            [
                row["method"],
                str(row["steps"]),
                *(seconds(row, f"seconds_{phase}") for phase in ("caption", "invert", "direction", "edit")),
                seconds(row, "seconds"),
                f"x{row['official_takes']:.2f}" if "official_takes" in row else "",
                f"{row['seconds_outside_unet'] / row['seconds']:.1%}",
                f"{row['forward_rows']:.0f}",
                f"{row['backward_rows']:.0f}",
                f"{row['peak_bytes'] / MIB:.0f}",
                f"{row['map_bytes'] / MIB:.1f}",
            ]
            for row in rows
        ],
    )


def calls_table(calls: Sequence[Row], unet: str) -> str:
    """Lay out what every kind of call costs on one UNet; the unit is a plain prediction of one row."""
    bare = bare_row(calls, unet)
    return markdown(
        ["method", "call", "rows", "seconds", "plain rows"],
        [
            [call["method"], call["what"], str(call["rows"]), f"{call['seconds']:.4f}", f"{call['seconds'] / bare:.2f}"]
            for call in calls
            if call["unet"] == unet
        ],
    )


def bare_row(calls: Sequence[Row], unet: str) -> float:
    """Seconds of a plain prediction of one row."""
    wanted = (unet, "ours", "forward", 1)
    return next(c["seconds"] for c in calls if (c["unet"], c["method"], c["what"], c["rows"]) == wanted)


COLOURS = {"official": "#0072b2", "diffusers": "#009e73", "ours": "#d55e00"}
"""Told apart also by the colour-blind (Okabe and Ito)."""


def draw(curves: Sequence[Row], path: Path) -> None:
    """Plot time and memory against steps, pictures at once and size."""
    import matplotlib  # pyright: ignore[reportMissingImports]  # in the benchmark's environment only

    matplotlib.use("agg")
    from matplotlib.figure import Figure  # pyright: ignore[reportMissingImports]

    figure = Figure(figsize=(8.4, 4.6), layout="constrained")
    labels = {"steps": "steps", "batch": "pictures", "side": "side, pixels"}
    axes = figure.subplots(2, len(labels), sharex="col", sharey="row")
    for column, (what, label) in enumerate(labels.items()):
        axes[1][column].set_xlabel(label)
        for name in dict.fromkeys(row["method"] for row in curves):
            points = [row for row in curves if (row["vary"], row["method"]) == (what, name)]
            x = [row["value"] for row in points]
            axes[0][column].plot(x, [row["seconds"] for row in points], marker=".", color=COLOURS[name], label=name)
            axes[1][column].plot(x, [row["peak_bytes"] / MIB for row in points], marker=".", color=COLOURS[name])
    for axis in axes.flat:
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("seconds")
    axes[1][0].set_ylabel("peak, MiB")
    axes[0][0].legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".partial")
    figure.savefig(unfinished, format="png", dpi=90)
    unfinished.replace(path)
