"""What ours should do where a model obeys texts only if it is pushed: `python -m benchmarks.quality.ablations`.

On validation scenes. Each study varies a part of `BASE` at several scales of classifier-free guidance. What counts is
the front: how often the edit happens against what it changes beyond the true one. Writes
`results/ablations/STUDY.md`, in bold the rows that no other of the study beats in both, and
`results/ablations/STUDY.json`, with `--model flow` `flow_STUDY`. Interrupted, it goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from itertools import accumulate
from operator import or_
from typing import Any

from pix2pix_zero_core import EditSettings
from pix2pix_zero_core.fresh import SOURCE_GUIDED
from pix2pix_zero_core.types import RECOMMENDED

from ..harness.cells import RESULTS, Bench, add_options, write_text
from ..harness.methods import Pix2PixZero
from ..harness.models import MODELS, add_model
from ..harness.report import TITLES, Row, environment, markdown, show
from ..harness.settings import adjust, combine, each, label_of
from ..harness.sharing import add_processes, try_all
from ..harness.tasks import PAPER_TASKS, TASKS

UNGUIDED: dict[str, Any] = {
    "guidance.strength": 0.0,
    "guidance.unit": "normalized",
    "guidance.start": 0.0,
    "guidance.end": 0.8,
}

BASE: dict[str, Any] = {
    "negative": "empty",
    "cfg_start": 0.0,
    "noise_from": "inversion",
    "source_guided": 0.0,
    "region": 0.0,
    "direction": 1.0,
} | UNGUIDED
"""Settings of ours that all studies share, where they do not vary them; `--set` changes some."""

SCALES = {"cfg": (3.0, 5.0, 7.5)}
BELOW = {"cfg_below": (math.inf, 3.0, 1.5, 0.8)}  # sigma
REGIONS = {"region": (0.0, 0.3, 0.4, 0.5)}

NEGATIVES = combine({"source_share": (0.0, 0.25, 0.5)}) + combine({"negative": ("source", "replayed", "corrected")})
DIRECTIONS = combine({"sentences": (0,), "direction": (1.0, 1.25)}) + combine(
    {"form": ("aligned to words", "mean by position"), "direction": (1.0, 1.25, 1.5)}
)
GUIDANCE = combine({"guidance.strength": (0.0, 1.25, 2.5, 5.0, 7.5)}) + combine(
    {"guidance.strength": (0.2, 0.4, 0.6, 0.8), "guidance.unit": ("share",)}
)

HELD: dict[str, Any] = {f"guidance.{name}": getattr(RECOMMENDED, name) for name in ("strength", "unit", "start", "end")}
LATE_IN_REGION: dict[str, Any] = {"cfg_start": EditSettings.cfg_start, "region": EditSettings.region}

FRESH: dict[str, Any] = HELD | LATE_IN_REGION | {"noise_from": "fresh", "cfg": 5.0, "direction": 1.25}

ROUTE: list[dict[str, Any]] = [
    {"cfg": 5.0},
    {"region": 0.4},
    {"direction": 1.25},
    HELD,
    {"cfg_start": EditSettings.cfg_start},
    {"noise_from": "fresh"},
    {"source_guided": SOURCE_GUIDED},
]
"""From a plain edit to the defaults, a setting at a time."""

BEFORE: dict[str, Any] = {
    "negative": "replayed",
    "cfg": 3.0,
    "guidance.strength": 5.0,
    "form": "mean by position",
}
"""The defaults of 0.1.0, which were found in a world whose captions were complete and true."""

STUDIES: dict[str, list[dict[str, Any]]] = {
    "route": [BEFORE, *accumulate(ROUTE, or_)],
    "negative_in_region": each(NEGATIVES, {"cfg": (5.0,), "direction": (1.0,), "region": (0.4,)}),
    "negative": each(NEGATIVES, SCALES),
    "direction": each(DIRECTIONS, SCALES),
    "below": combine(BELOW | SCALES),
    "region": combine(REGIONS | SCALES),
    "noise": each(
        [HELD | LATE_IN_REGION | {"noise_from": "fresh"}, LATE_IN_REGION | {"noise_from": "fresh"}],
        {"cfg": (3.0, 5.0, 7.5), "direction": (1.25,)},
    ),
    "source": [
        *each([FRESH], {"source_guided": (0.0, SOURCE_GUIDED, 1.0), "cfg_start": (0.0, EditSettings.cfg_start)}),
        FRESH | {"source_guided": SOURCE_GUIDED, "cfg_start": 0.3},
        FRESH | {"source_guided": SOURCE_GUIDED, "guidance.end": 0.4},
        FRESH | {"source_guided": SOURCE_GUIDED, "guidance.strength": 0.0},
    ],
    "medium": [
        *each([FRESH], {"source_guided": (SOURCE_GUIDED,), "cfg": (1.5, 2.0, 3.0, 4.0, 5.0)}),
        *each([FRESH], {"source_guided": (SOURCE_GUIDED,), "cfg": (3.0, 5.0), "direction": (1.0,)}),
        *each([FRESH], {"source_guided": (0.3, 1.0)}),
        *each([FRESH], {"source_guided": (SOURCE_GUIDED,), "cfg_start": (0.0, 0.3)}),
        FRESH | {"source_guided": SOURCE_GUIDED, "region": 0.0},
        FRESH | {"source_guided": SOURCE_GUIDED, "guidance.strength": 0.0},
    ],
    "steps": each([FRESH], {"source_guided": (SOURCE_GUIDED,), "steps": (0, 20, 50)}),  # 0 is those of all
    "guidance": each(GUIDANCE, SCALES),
    "together": each(
        each([UNGUIDED, {"guidance.strength": 2.5}, {"guidance.strength": 0.4, "guidance.unit": "share"}], BELOW),
        REGIONS | {"cfg": (5.0, 7.5)},
    ),
}
"""Name -> what it tries."""

SHOWN = (
    "edit_success",
    "attributes_kept",
    "pose_error",
    "excess_structure",
    "excess_lpips",
    "truth_psnr",
    "unet_rows",
)
FRONT = ("edit_success", "excess_structure")
"""More of the first is better, less of the second."""


def front(rows: Sequence[Row]) -> list[bool]:
    """Which rows no other beats: as many edits and less excess, or more edits and no more of it."""

    def beaten(row: Row) -> bool:
        edits, excess = (row[column] for column in FRONT)
        at_least = [other for other in rows if other[FRONT[0]] >= edits and other[FRONT[1]] <= excess]
        return any(other[FRONT[0]] > edits or other[FRONT[1]] < excess for other in at_least)

    return [not beaten(row) for row in rows]


def describe(rows: Sequence[Row]) -> str:
    """Lay a study out in Markdown, from many edits to few, its front in bold."""
    marked = sorted(zip(rows, front(rows), strict=True), key=lambda pair: -pair[0][FRONT[0]])
    lines = [
        [f"**{row['method']}**" if best else row["method"], *(show(row[column], column) for column in SHOWN)]
        for row, best in marked
    ]
    return markdown(["settings", *(TITLES[column] for column in SHOWN)], lines)


def setting(text: str) -> tuple[str, Any]:
    """Read name=value, the value as JSON, or else as a word.

    Raises:
        argparse.ArgumentTypeError: there is no such setting, or no value.
    """
    name, _, value = text.partition("=")
    try:
        read = json.loads(value)
    except json.JSONDecodeError:
        read = value
    try:
        adjust(Pix2PixZero(), BASE | {name: read})
    except (AttributeError, TypeError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{text} is no setting of ours: {error}") from error
    return name, read


def main() -> None:
    """Run some studies and write their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="*", metavar="STUDY", help=f"of {', '.join(STUDIES)} (default: all)")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=PAPER_TASKS, help="default: the paper's")
    parser.add_argument("--set", nargs="+", type=setting, default=[], metavar="NAME=VALUE", help="what all share")
    add_options(parser, count=16)
    add_model(parser)
    add_processes(parser)
    options = parser.parse_args()
    for name in options.studies:
        if name not in STUDIES:
            parser.error(f"there is no study {name}; there are {', '.join(STUDIES)}")
    bench = Bench.from_options(options, "validation", options.model)
    base = adjust(Pix2PixZero(), BASE | dict(options.set))
    names = options.studies or list(STUDIES)
    tried = [(name, label_of(how), adjust(base, how)) for name in names for how in STUDIES[name]]
    found = try_all(bench, tried, options.tasks, options.processes)
    for name in names:
        rows = [row for row in found if row["task"] == name]
        about = {"tasks": options.tasks, "scenes": bench.count, "steps": bench.steps, "weights": bench.weights}
        results = {"rows": rows, "base": repr(base), "environment": about | environment(rows)}
        text = (
            f"{options.count} validation scenes of each of {', '.join(options.tasks)}; {options.steps} steps, weights "
            f"{bench.weights[:12]}. Otherwise {base}.\n\n{describe(rows)}"
        )
        file = RESULTS / "ablations" / f"{MODELS[options.model].prefix}{name}"
        write_text(file.with_suffix(".json"), json.dumps(results, indent=1) + "\n")
        write_text(file.with_suffix(".md"), text)
    print(f"written to {RESULTS / 'ablations'}")


if __name__ == "__main__":
    main()
