"""One Markdown file to send back, its contact sheet, and the figures of every picture."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from pix2pix_zero_cli.pictures import fit, in_colour

from ..bootstrap import draw_means, interval
from ..cells import write_text
from ..report import contact_sheet, environment, markdown
from .benchmark import Benchmark, as_tensor
from .measuring import Measured

SHOWN, SIDE = 12, 192
"""How many pictures the contact sheet has, and their side in pixels."""


def write_report(
    folder: Path,
    benchmark: Benchmark,
    measured: Sequence[Measured],
    about: Mapping[str, Any],
    failed: Mapping[str, str],
) -> None:
    """Write `real.md`, `real.json` and `sheet.jpg`."""
    rows = [{"picture": m.sample.name, "method": m.method, "seconds": m.seconds, **m.figures} for m in measured]
    content = {"about": {**about, **environment()}, "rows": rows, "failed": dict(failed)}
    write_text(folder / "real.json", json.dumps(content, indent=1) + "\n")
    write_text(folder / "real.md", describe(benchmark, measured, about, failed))
    if measured:
        save_sheet(folder / "sheet.jpg", measured)


def describe(
    benchmark: Benchmark, measured: Sequence[Measured], about: Mapping[str, Any], failed: Mapping[str, str]
) -> str:
    """Say all in Markdown."""
    where = {**about, **environment()}
    settings = where.pop("settings", {})
    groups = list(dict.fromkeys(m.sample.group for m in measured))
    parts = [
        f"# {benchmark.title}\n",
        "By `python -m benchmarks.real`. In parentheses: 95 % bootstrap intervals over pictures, and behind them how "
        "many count where not all do.\n",
        table(benchmark, measured, published=True),
        "![Source and edits](sheet.jpg)\n",
        "\n".join(f"- {note}" for note in benchmark.notes) + "\n",
    ]
    if len(groups) > 1:
        for group in groups:
            parts += [f"## {group}\n", table(benchmark, [m for m in measured if m.sample.group == group])]
    if failed:
        parts += [f"## {len(failed)} failed\n", "\n".join(f"- {path}: {why}" for path, why in failed.items()) + "\n"]
    parts += ["## Where\n", markdown(["", ""], [[str(name), str(value)] for name, value in where.items()])]
    parts += ["## Settings\n", f"```json\n{json.dumps(settings, indent=1)}\n```\n"]
    return "\n".join(parts)


def table(benchmark: Benchmark, measured: Sequence[Measured], *, published: bool = False) -> str:
    """A row a method, and if wanted the published figures above them."""
    columns = [name for name in benchmark.columns if any(name in m.figures for m in measured)]
    methods = list(dict.fromkeys(m.method for m in measured))
    lines = [
        [row, "", *(_number(figures.get(name)) for name in columns), ""]
        for row, figures in (benchmark.published if published else {}).items()
    ]
    for method in methods:
        own = [m for m in measured if m.method == method]
        seconds = [m.seconds for m in own]
        cells = [_figure(benchmark, name, own) for name in columns]
        lines.append([method, str(len(own)), *cells, f"{sum(seconds) / len(seconds):.1f}"])
    return markdown(["", "n", *(benchmark.columns[name].title for name in columns), "seconds"], lines)


def save_sheet(path: Path, measured: Sequence[Measured]) -> None:
    """Save the first pictures and their edits side by side, of those that every method has edited."""
    methods = list(dict.fromkeys(m.method for m in measured))
    by_name: dict[str, dict[str, Measured]] = {}
    for m in measured:
        by_name.setdefault(m.sample.name, {})[m.method] = m
    whole = [found for found in by_name.values() if len(found) == len(methods)][:SHOWN]
    if not whole:
        return
    columns = {"source": torch.cat([_small(found[methods[0]].sample.path) for found in whole])}
    columns |= {method: torch.cat([_small(found[method].path) for found in whole]) for method in methods}
    contact_sheet(columns).convert("RGB").save(path, quality=90)


def _small(path: Path) -> torch.Tensor:
    with Image.open(path) as image:
        return as_tensor(fit(in_colour(image), (SIDE, SIDE)))


def _figure(benchmark: Benchmark, name: str, measured: Sequence[Measured]) -> str:
    values = [m.figures[name] for m in measured if name in m.figures]
    if not values:
        return ""
    show = benchmark.columns[name].show
    estimate, low, high = interval(draw_means([torch.tensor(values)]))
    count = f" ({len(values)})" if len(values) < len(measured) else ""
    return f"{show(estimate)} ({show(low)} – {show(high)}){count}"  # noqa: RUF001


def _number(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:g}"
