"""One part of ours varied, all else as the first round of tuning chose: `python -m benchmarks.studies.sweep NAME`.

On validation scenes. Writes `results/sweeps/NAME.md`, a row a setting. Interrupted, it goes on where it was.
"""

from __future__ import annotations

import argparse
from typing import Any

from ..harness.cells import RESULTS, Bench, add_options, write_text
from ..harness.report import table
from ..harness.rows import before_finals
from ..harness.settings import adjust, along, combine, label_of
from ..harness.sharing import add_processes, try_all
from ..harness.tasks import PAPER_TASKS, TASKS

SWEEPS: dict[str, list[dict[str, Any]]] = {
    "regularizer": along("regularizer.strength", 0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0),
    "regularizer_form": [
        {"regularizer.shifts": shifts, "regularizer.pool_gain": gain, "regularizer.strength": strength}
        for strength in (2.0, 20.0)
        for shifts in ("all", "random")
        for gain in (2.0, 1.0)
    ],
    "kl": along("regularizer.kl_strength", 0.0, 2.0, 5.0, 10.0, 20.0),
    "fixed_point": along("fixed_point", 0, 1, 2, 3, 5),
    "guidance": along("guidance.strength", 0.0, 0.15, 0.3, 0.45, 0.6, 0.8, 1.0),
    "guidance_applied": combine({"guidance.applied": ("before", "after"), "guidance.end": (0.6, 0.8, 0.9, 1.0)}),
    "guidance_time": [
        {"guidance.start": start, "guidance.end": end}
        for start, end in ((0.0, 0.25), (0.0, 0.5), (0.0, 0.75), (0.0, 1.0), (0.25, 1.0), (0.5, 1.0))
    ],
    "guidance_unit": [
        {"guidance.unit": unit, "guidance.strength": strength}  # in this order: each is checked with the other
        for unit, strengths in (("paper", (0.1, 0.3, 1.0, 3.0)), ("normalized", (0.5, 1.0, 2.5, 5.0)))
        for strength in strengths
    ],
    "cfg": combine(
        {
            "noise_from": ("inversion",),  # without which nothing can be replayed
            "negative": ("source", "empty", "replayed"),
            "cfg": (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.5),
        }
    ),
    "reference": along("replay", True, False),
    "direction": along("direction", 0.75, 1.0, 1.25, 1.5, 2.0),
    "steps": along("steps", 5, 10, 20, 30, 50),
    "sentences": combine({"form": ("mean by position",), "sentences": (0, 1, 2, 5, 10, 20, 50, 100, 200)}),
}
"""Name -> settings of ours, each tried on top of those of `before_finals`."""


def main() -> None:
    """Run one sweep and write its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=SWEEPS)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=PAPER_TASKS, help="default: the paper's")
    add_options(parser, count=20)
    add_processes(parser)
    options = parser.parse_args()
    bench = Bench.from_options(options, "validation")
    base = before_finals()
    tried = [("ours", label_of(settings), adjust(base, settings)) for settings in SWEEPS[options.name]]
    rows = try_all(bench, tried, options.tasks, options.processes)
    text = (
        f"Ours with other settings, {options.count} validation scenes of each of {', '.join(options.tasks)}; "
        f"{options.steps} steps, weights {bench.weights[:12]}. Otherwise {base}.\n\n"
    )
    path = RESULTS / "sweeps" / f"{options.name}.md"
    write_text(path, text + table(rows))
    print(f"written to {path}")


if __name__ == "__main__":
    main()
