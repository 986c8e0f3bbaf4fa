"""Fair settings for every method, in two rounds, as many settings of each on the same validation scenes.

`python -m benchmarks.quality.tune` is the first: `GRIDS`, nine settings a method on 8 scenes a task. It writes
`results/tuning.md`. `python -m benchmarks.quality.tune --finals` is the second: `finals`, the first round's choice and
five near it, on twice as many scenes. It writes `results/finals.md`. Both put their choice in
`benchmarks/settings.json`, which the benchmark reads. With `--model flow` both tune the methods of the flow model, and
the names of their files begin with `flow_`.

Both choose the setting with the highest PSNR to the true edit among those of the method that lose at most two edits
against its most successful one, over the paper's four tasks: the edit has to happen, and then the picture should be the
right one. One setting serves all tasks. Interrupted, they go on where they were.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any

from ..harness.cells import RESULTS, Bench, add_options, write_text
from ..harness.models import MODELS, ModelName, add_model
from ..harness.report import Row, markdown, show
from ..harness.rows import METHODS
from ..harness.settings import adjust, along, combine, each, label_of, read_settings, settings_file
from ..harness.sharing import add_processes, try_all
from ..harness.tasks import PAPER_TASKS

TOLERANCE = 2  # edits
SCENES = {"grids": 8, "finals": 16}  # a task
SHOWN = (
    "edit_success",
    "attributes_kept",
    "bg_lpips",
    "structure_distance",
    "truth_psnr",
    "excess_structure",
    "excess_lpips",
)

SCALES = (3.0, 5.0, 7.5)  # a model that learnt from unreliable captions obeys at these; 7.5 is Stable Diffusion's usual
LOW = (2.0, 3.0, 5.0)  # where the source caption is the negative, which pushes harder
WORD_SWAP = along("cfg", 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.5, 10.0)  # nothing else to tune
SHARES = ({"cross": 0.4, "own": 0.4}, {"cross": 0.8, "own": 0.2}, {"cross": 0.8, "own": 0.4})
STRENGTHS = (0.03, 0.1, 0.3)  # paper units

GRIDS: dict[str, list[dict[str, Any]]] = {
    "sdedit": combine({"strength": (0.5, 0.65, 0.8), "cfg": SCALES}),
    "ddim_word_swap": WORD_SWAP,
    "word_swap_empty": WORD_SWAP,
    "p2p": each(SHARES, {"cfg": LOW}),
    "p2p_direct": each(({"cross": 0.4, "own": 0.6}, *SHARES[:2]), {"cfg": SCALES}),
    "ddpm_friendly": combine({"skip": (0.2, 0.36, 0.5), "cfg": (5.0, 7.5, 15.0)}),
    "pnp": each(
        ({"features": 0.8, "attention": 0.5}, {"features": 0.4, "attention": 0.4}, {"features": 0.2, "attention": 0.2}),
        {"cfg": SCALES},
    ),
    "infedit": each(
        ({"steps": 12, "blend": 0.55}, {"steps": 0, "blend": 0.55}, {"steps": 0, "blend": 0.3}),
        {"cross": (0.4,), "own": (0.4,), "cfg": SCALES[:2]},
    )
    + each(({"steps": 12, "blend": 0.55}, {"steps": 0, "blend": 0.55}), {"cross": (0.7,), "own": (0.7,), "cfg": (2.0,)})
    + [{"steps": 0, "blend": 0.55, "cross": 0.4, "own": 0.4, "cfg": 7.5}],
    "flowedit": combine({"share": (0.5, 0.66, 0.8), "cfg": (5.0, 7.5, 13.5)}),
    "official": combine({"strength": STRENGTHS, "cfg": LOW}),
    "paper": combine({"guidance.strength": STRENGTHS, "cfg": LOW}),
    "ours": combine({"guidance.strength": (0.1, 0.2, 0.4), "cfg": SCALES}),
}
"""Method id -> the settings of the first round. Those of the publications are among them, but for p2p (cfg 7.5, away
from an empty text), pnp (cfg 10, away from a negative text that fades) and FlowEdit's of Flux (0.86, cfg 5.5,
source_cfg 1.5). The source_cfg of FlowEdit and ddpm_friendly stayed at the published 3.5."""

EMBEDDED = (2.0, 4.0, 6.0)  # 2 in the publications, an input of Flux's network

FLOW_GRIDS: dict[str, list[dict[str, Any]]] = {
    **{name: GRIDS[name] for name in ("sdedit", "ddim_word_swap", "word_swap_empty")},
    "rf_inversion": combine({"stop": (0.25, 0.38, 0.6), "cfg": (3.5, 5.0, 7.5)}),
    "rf_solver": each(
        ({"share": 0.2, "blocks": 1}, {"share": 0.4, "blocks": 3}, {"share": 0.6, "blocks": 3}), {"cfg": EMBEDDED}
    ),
    "fireflow": each(
        (
            {"steps": 8, "share": 0.125, "blocks": 2},
            {"steps": 0, "share": 0.4, "blocks": 3},
            {"steps": 0, "share": 0.6, "blocks": 3},
        ),
        {"cfg": EMBEDDED},
    ),
    **{name: GRIDS[name] for name in ("flowedit", "ours")},
}
"""The same for the flow model."""

CFGS = along("cfg", 0.85, 1.2, 0.6, 0.7, 0.78)  # nothing else to tune

REFINED: dict[str, list[dict[str, float]]] = {
    "sdedit": [
        {"strength": 0.85},
        {"strength": 1.15},
        {"strength": 1.25},
        {"strength": 1.15, "cfg": 1.3},
        {"strength": 1.15, "cfg": 0.75},
    ],
    "ddim_word_swap": CFGS,
    "word_swap_empty": CFGS,
    "p2p": [
        {"cross": 0.5},
        {"cross": 0.5, "cfg": 0.75},
        {"cross": 0.25},
        {"cross": 0.5, "own": 0.5},
        {"cross": 0.5, "cfg": 1.25},
    ],
    "p2p_direct": [
        {"cross": 0.5},
        {"own": 0.5},
        {"cross": 0.25},
        {"cross": 0.5, "own": 0.5},
        {"cross": 0.5, "cfg": 0.75},
    ],
    "ddpm_friendly": [
        {"skip": 0.75},
        {"cfg": 0.75},
        {"skip": 0.5},
        {"skip": 0.75, "cfg": 0.75},
        {"skip": 0.5, "cfg": 0.75},
    ],
    "pnp": [
        {"features": 0.5},
        {"attention": 0.5},
        {"attention": 0.25},
        {"features": 0.5, "attention": 0.5},
        {"attention": 0.5, "cfg": 0.75},
    ],
    "infedit": [{"blend": 0.0}, {"blend": 0.5}, {"cross": 0.25}, {"own": 0.5}, {"cfg": 0.75}],
    "flowedit": [
        {"share": 0.85},
        {"share": 1.15},
        {"cfg": 0.8},
        {"share": 1.15, "cfg": 0.8},
        {"share": 1.25, "cfg": 0.8},
    ],
    "official": [
        {"strength": 0.5},
        {"cfg": 0.75},
        {"cfg": 0.85},
        {"strength": 0.5, "cfg": 0.75},
        {"strength": 0.5, "cfg": 0.85},
    ],
    "paper": [
        {"guidance.strength": 0.5},
        {"cfg": 0.75},
        {"guidance.strength": 0.25},
        {"guidance.strength": 0.5, "cfg": 0.75},
        {"guidance.strength": 0.5, "cfg": 1.25},
    ],
    "ours": [
        {"direction": 0.8},
        {"guidance.strength": 0.5},
        {"cfg_start": 0.4},
        {"cfg": 1.333},
        {"cfg": 1.333, "cfg_start": 0.4},
    ],
}
"""Method id -> what the second round multiplies in the first one's choice. The last three came later, for all: several
choices had been at the edge of what was tried."""

FLOW_REFINED: dict[str, list[dict[str, float]]] = {
    **{name: REFINED[name] for name in ("sdedit", "ddim_word_swap", "word_swap_empty")},
    "rf_inversion": [{"stop": 1.3}, {"eta": 0.75}, {"stop": 0.75}, {"cfg": 0.75}, {"cfg": 1.3}],
    "rf_solver": [{"share": 1.3}, {"cfg": 1.4}, {"share": 0.7}, {"cfg": 0.75}, {"share": 1.3, "cfg": 1.4}],
    "fireflow": [{"share": 1.3}, {"cfg": 1.4}, {"share": 0.7}, {"cfg": 0.75}, {"share": 1.3, "cfg": 1.4}],
    **{name: REFINED[name] for name in ("flowedit", "ours")},
}
"""The same for the flow model."""

ROUNDS = {"unet": (GRIDS, REFINED), "flow": (FLOW_GRIDS, FLOW_REFINED)}
"""Model -> what its two rounds try."""


def finals(name: str, choice: Mapping[str, Any], model: ModelName = "unet") -> list[dict[str, Any]]:
    """The settings of the second round: what the first one chose for a method, and that with some of it multiplied."""
    method = adjust(METHODS[model][name], choice)

    def multiplied(factors: Mapping[str, float]) -> dict[str, Any]:
        return {path: round(attrgetter(path)(method) * factor, 3) for path, factor in factors.items()}

    return [dict(choice), *(dict(choice) | multiplied(factors) for factors in ROUNDS[model][1][name])]


def main() -> None:
    """Try every setting of every method and choose."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, count=None)
    add_model(parser)
    add_processes(parser)
    parser.add_argument("--finals", action="store_true", help="the second round")
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=sorted({*GRIDS, *FLOW_GRIDS}),
        help="tune only these, and leave the others as they were chosen; after both rounds, do both again",
    )
    options = parser.parse_args()
    model: ModelName = options.model
    grids, refined = ROUNDS[model]
    before = read_settings(model) if options.finals or options.methods else {}
    first = before["first_round"] if options.finals else {}
    tried = {name: finals(name, first[name], model) if options.finals else grid for name, grid in grids.items()}
    options.count = options.count or SCENES["finals" if options.finals else "grids"]
    bench = Bench.from_options(options, "validation", model)
    about: dict[str, Any] = {
        "tasks": list(PAPER_TASKS),
        "scenes": bench.count,
        "steps": bench.steps,
        "settings_tried": len(grids["ours"]) + (len(refined["ours"]) if options.finals else 0),
        "weights": bench.weights,
    }
    again = bool(options.methods) and not options.finals and before["settings"] != before["first_round"]
    if again:  # the others have had their second round, which is to follow
        about |= {name: before["tuned_on"][name] for name in ("scenes", "settings_tried")}
    if options.methods and (others := [name for name in about if about[name] != before["tuned_on"][name]]):
        parser.error(f"--methods: the others were tuned with other {', '.join(others)}; tune all, or as they were")
    chosen = options.methods or tried
    flat = [(name, label_of(how), adjust(METHODS[model][name], how)) for name in chosen for how in tried[name]]
    found = try_all(bench, flat, PAPER_TASKS, options.processes)
    rows = {name: [row for row in found if row["task"] == name] for name in chosen}
    best = {name: choose(of_method) for name, of_method in rows.items()}
    table = f"{MODELS[model].prefix}{'finals' if options.finals else 'tuning'}.md"
    settings = {name: tried[name][index] for name, index in best.items()}
    lines = describe(rows, best)
    if options.methods:
        first = first or before["first_round"] | settings
        settings = before["settings"] if again else before["settings"] | settings
        lines = renewed((RESULTS / table).read_text(encoding="utf-8"), lines)
    write_text(RESULTS / table, lines)
    about["devices"] = sorted({device for row in found for device in row["devices"]})
    first, settings = ({name: given[name] for name in grids} for given in (first or settings, settings))
    written = {"first_round": first, "settings": settings, "tuned_on": about}
    write_text(settings_file(model), json.dumps(written, indent=1) + "\n")
    print(f"written to {settings_file(model)}")


def describe(rows: Mapping[str, Sequence[Row]], best: Mapping[str, int]) -> str:
    """Lay out in Markdown what was tried, the choices in bold."""
    lines: list[list[str]] = []
    for name, of_method in rows.items():
        for index, row in enumerate(of_method):
            mark = "**" if index == best[name] else ""
            lines.append([name, f"{mark}{row['method']}{mark}", *(show(row[column], column) for column in SHOWN)])
    return markdown(["method", "settings", *SHOWN], lines)


def renewed(before: str, now: str) -> str:
    """Put a table's rows of some methods into another table, in the place of those that they had there."""
    table: dict[str, list[str]] = {}
    for text in (before, now):
        rows: dict[str, list[str]] = {}
        for line in text.splitlines(keepends=True):
            rows.setdefault(line.split("|")[1], []).append(line)
        table |= rows
    return "".join(chain.from_iterable(table.values()))


def choose(rows: Sequence[Row]) -> int:
    """Index of the best row, as the module says."""
    enough = max(row["edit_success"] for row in rows) - (TOLERANCE + 0.01) / rows[0]["n"]  # figures are rounded
    return max(
        (index for index, row in enumerate(rows) if row["edit_success"] >= enough),
        key=lambda index: rows[index]["truth_psnr"],
    )


if __name__ == "__main__":
    main()
