"""Tables and contact sheets of finished cells."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from tiny_zoo.draw import sheet

from .bootstrap import Figure, compare, draw_means, interval
from .cells import Cell
from .metrics import COLUMNS, EXCESS

Row = dict[str, Any]

TITLES = {
    "edit_success": "edit success",
    "attributes_kept": "attributes kept",
    "pose_error": "pose error",
    "bg_lpips": "background LPIPS",
    "structure_distance": "structure distance",
    "truth_psnr": "PSNR to the truth",
    "excess_structure": "structure beyond the true edit's",
    "excess_lpips": "LPIPS beyond the true edit's",
    "unet_rows": "network rows",
    "seconds": "seconds",
    "structure_off": "structure off the true edit's, either way",
}
"""Column -> what stands over it. Higher is better in edit success, attributes kept and PSNR, lower in all others."""

SURE = (*COLUMNS, "structure_off")
"""Columns with intervals."""

RATIOS = ("bg_lpips", "structure_distance", "structure_off", "unet_rows", "seconds")
"""Columns in which methods are compared by a ratio; in the others by a difference."""


def measured(cell: Cell) -> dict[str, Tensor]:
    """All columns of a cell, one value a scene.

    The mean of an excess may be near 0 since some edits change too little, others too much; that of its size is not.
    """
    off = cell.columns["excess_structure"].abs()
    return {**cell.columns, "unet_rows": cell.rows, "seconds": cell.seconds, "structure_off": off}


def summarise(task: str, method: str, cells: Sequence[Cell]) -> Row:
    """Average a method's cells, one a task, into a row with bootstrap intervals."""
    columns = [measured(cell) for cell in cells]
    figures = {column: interval(draw_means([values[column] for values in columns])) for column in TITLES}
    return {
        "task": task,
        "method": method,
        "n": sum(len(cell.latents) for cell in cells),
        **{column: round(value, 5) for column, (value, _, _) in figures.items()},
        "intervals": {
            column: [round(low, 5), round(high, 5)] for column, (_, low, high) in figures.items() if column in SURE
        },
        "devices": sorted({device for cell in cells for device in cell.devices}),
    }


def contrast(task: str, method: str, ours: Sequence[Cell], theirs: Sequence[Cell]) -> Row:
    """Compare ours with another method on the same scenes: ours minus theirs, or ours divided by theirs."""
    a, b = [measured(cell) for cell in ours], [measured(cell) for cell in theirs]

    def figure(column: str) -> Figure:
        how = torch.div if column in RATIOS else torch.sub
        return compare([values[column] for values in a], [values[column] for values in b], how)

    return {"task": task, "method": method, **{column: [round(v, 5) for v in figure(column)] for column in TITLES}}


def table(rows: Sequence[Row], first: str = "method", columns: Sequence[str] = tuple(TITLES)) -> str:
    """Lay rows of :func:`summarise` out in Markdown, figures with their 95 % intervals."""

    def cell(row: Row, column: str) -> str:
        low_high = row["intervals"].get(column)
        return show(row[column], column) + (f" ({' – '.join(show(v, column) for v in low_high)})" if low_high else "")  # noqa: RUF001

    lines = [[row[first], *(cell(row, column) for column in columns)] for row in rows]
    return markdown([first, *(TITLES[column] for column in columns)], lines)


def contrast_table(rows: Sequence[Row], first: str = "ours against") -> str:
    """Lay rows of :func:`contrast` out in Markdown."""

    def cell(row: Row, column: str) -> str:
        ratio = column in RATIOS
        value, low, high = (f"x{v:.2f}" if ratio else show(v, column, signed=True) for v in row[column])
        return f"{value} ({low} – {high})" if column in SURE else value  # noqa: RUF001

    lines = [[row["method"], *(cell(row, column) for column in TITLES)] for row in rows]
    return markdown([first, *TITLES.values()], lines)


def show(value: float, column: str, signed: bool = False) -> str:
    """Write a figure with as many digits as its column deserves."""
    digits = {"truth_psnr": 2, "unet_rows": 0, "seconds": 1}.get(column, 4 if "structure" in column else 3)
    return f"{value:{'+' if signed or column in EXCESS else ''}.{digits}f}"


def markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Draw a Markdown table."""
    rule = ["---"] * len(head)
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *lines)) + "\n"


def contact_sheet(columns: Mapping[str, Tensor], across: int = 8) -> Image.Image:
    """Put pictures side by side, one column a name, one row a scene.

    Args:
        columns: name -> its pictures, (n, 3, H, W) in 0..1; as many of each.
        across: most columns beside one another; the others follow below, under their names.
    """
    names = list(columns)
    bands = [_band({name: columns[name] for name in names[i : i + across]}) for i in range(0, len(names), across)]
    page = Image.new("RGB", (bands[0].width, sum(band.height for band in bands)), "white")
    for i, band in enumerate(bands):
        page.paste(band, (0, i * bands[0].height))
    return page.quantize(128, dither=Image.Dither.NONE)  # as PNG smaller than a JPEG that looks as good


def _band(columns: Mapping[str, Tensor]) -> Image.Image:
    page = sheet(torch.stack(list(columns.values()), dim=1).flatten(0, 1), len(columns))
    width, margin = page.width // len(columns), 20
    labelled = Image.new("RGB", (page.width, page.height + margin), "white")
    labelled.paste(page, (0, margin))
    pen, font = ImageDraw.Draw(labelled), ImageFont.load_default(size=12)
    for i, name in enumerate(columns):
        pen.text((i * width + width / 2, margin / 2), name.replace("_", " "), fill="black", font=font, anchor="mm")
    return labelled


def environment(rows: Sequence[Row] = ()) -> dict[str, Any]:
    """Where figures were measured: the devices of rows of :func:`summarise`, and this machine."""
    devices = {device for row in rows for device in row["devices"]}
    return ({"devices": sorted(devices)} if devices else {}) | {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "date": time.strftime("%Y-%m-%d"),
    }
