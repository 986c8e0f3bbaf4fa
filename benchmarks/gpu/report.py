"""The tables of `python -m benchmarks.gpu`, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..harness.report import markdown
from .plan import PARTS

Row = dict[str, Any]
MIB = 2**20

COLUMNS = {
    "seconds": ("seconds", lambda value: f"{value:.4f}"),
    "cpu_seconds": ("on the CPU", lambda value: f"{value:.2f}"),
    "steps": ("steps", str),
    "peak_bytes": ("peak above the weights, MiB", lambda value: f"{value / MIB:.0f}"),
    "weights_bytes": ("weights on the card, MiB", lambda value: f"{value / MIB:.0f}"),
    "alike_db": ("alike, dB", lambda value: f"{value:.1f}"),
    "times": ("times ours", lambda value: f"x{value:.2f}"),
}
"""Figure -> what stands over it, and how it is written."""

NOTES = {
    "embedded": "The same edit on both devices, latents compared; in float32 they must agree but for rounding.",
    "precision": "alike: with what float32 computes; of checkpointed steps, with the same step not checkpointed, which "
    "must be the same. Weights are random: of types, it says what rounding does to random networks.",
    "memory": "alike: with the same type in the normal mode, which must be the same.",
    "edit": "Default settings of the nodes. The published algorithm is pix2pix_zero_core.official on the same network: "
    "it evaluates its rows one by one.",
    "compile": "alike: with the edit on the network that is not compiled.",
}


def describe(about: Row, rows: Sequence[Row]) -> str:
    """Write everything that was measured."""
    where = f"{about['card']}, {about['card_gib']:.0f} GiB, CUDA {about['cuda']}" if about["card"] else "no card, a CPU"
    failed, skipped = (sum(kind in row for row in rows) for kind in ("failed", "skipped"))
    lines = [
        "# The nodes on a GPU\n",
        f"By `python -m benchmarks.gpu`, {about['date']}: {where}, torch {about['torch']}, ComfyUI {about['comfyui']}, "
        f"Python {about['python']}. {len(rows)} rows in {about['seconds']:.0f} s, {failed} failed, {skipped} "
        "not run.\n",
    ]
    if not about["card"]:
        lines.append(
            "**The GPU parts have not been run: there is no CUDA card here.** What follows ran on a CPU, on narrow "
            "networks, and shows only that the benchmark runs. The embedded model is compared with itself.\n"
        )
    for part, title in PARTS.items():
        of_part = [row for row in rows if row["part"] == part]
        if of_part:
            lines += [f"## {title[0].upper()}{title[1:]}\n", NOTES[part] + "\n", table(of_part)]
    return "\n".join(lines)


def table(rows: Sequence[Row]) -> str:
    """One line a row, with the columns that any of them has."""
    shown = [column for column in COLUMNS if any(column in row for row in rows)]
    head = ["network", "weights", "mode", "what", *(COLUMNS[column][0] for column in shown), "remark"]
    return markdown(
        head,
        [
            [
                *(row[name] for name in ("network", "weights", "mode", "what")),
                *(COLUMNS[column][1](row[column]) if column in row else "" for column in shown),
                remark(row),
            ]
            for row in rows
        ],
    )


def remark(row: Row) -> str:
    """What else there is to say of a row, safe in a table."""
    said = [f"**failed**: {row['failed']}" if "failed" in row else ""]
    said += [f"not run: {row['skipped']}" if "skipped" in row else "", row.get("note", "")]
    return "; ".join(filter(None, said)).replace("|", "\\|")
