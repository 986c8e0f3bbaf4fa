"""How fast is an edit, and in how much memory? `python -m benchmarks.speed` runs implementations beside each other.

They share the weights and the process, and take turns. Writes `speed.json`, `speed.md` and `speed.png` to
`benchmarks/results/` (`results/quick/` with `--quick`). Interrupted, it goes on where it was.

On Tiny Zoo whole edits are measured. A full-size network would take hours on a CPU: there, edits of a few steps show
what every kind of call costs, and an edit of all steps is put together from as many calls as the same method makes on
Tiny Zoo. A flow transformer is edited with by ours alone. At 512 px the published code needs 17 GB of free memory. The
whole takes about twenty minutes on quiet cores.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tiny_zoo.denoiser import TinyZoo

from ..harness.cells import CHECKPOINT, RESULTS, write_text
from ..harness.report import Row, environment
from ..harness.tasks import pose_problem
from .edits import RIVALS, Edit, our_edit, our_methods
from .meter import Meter
from .plan import FULL, QUICK, TASK, Plan
from .report import describe, draw
from .rows import call_costs, compared_with_official, costs_to_json, measured, projected
from .subjects import (
    Subject,
    map_bytes_of_a_row,
    moved,
    random_problem,
    random_subject,
    random_transformer,
    tiny_zoo_unet,
)
from .timings import resident_after_edits, time_caption, time_direction, time_regularizer
from .workshop import Workshop

CLOCKS = {"cpu": "processor", "cuda": "wall"}
"""Device -> what seconds are told by."""


def main() -> None:
    """Measure what is not measured yet, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small UNets and a few steps: does it run?")
    quick = parser.parse_args().quick
    results = measure_all(QUICK if quick else FULL, RESULTS / "cells")
    output = RESULTS / "quick" if quick else RESULTS
    write_text(output / "speed.json", json.dumps(results, indent=1) + "\n")
    write_text(output / "speed.md", describe(results))
    draw(results["curves"], output / "speed.png")
    print(f"written to {output}")


def measure_all(plan: Plan, folder: Path) -> dict[str, Any]:
    """Measure everything of a plan.

    Args:
        plan: what to measure.
        folder: where finished measurements are kept.

    Returns:
        what `speed.json` holds.
    """
    torch.set_flush_denormal(True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    zoo, workshop, ours = TinyZoo.load(CHECKPOINT), Workshop(folder), our_methods()
    edits = RIVALS | {name: our_edit(method) for name, method in ours.items()}
    in_any_steps = RIVALS | {"ours": our_edit(replace(ours["ours"], steps=0))}
    steps = dict.fromkeys(RIVALS, plan.steps) | {name: method.steps or plan.steps for name, method in ours.items()}
    problem = pose_problem(zoo, TASK, "test", max(plan.runs, *plan.vary["batch"]), plan.steps)
    tiny = Subject("tiny-zoo", tiny_zoo_unet(zoo).to(device), moved(problem, device))
    first, few_steps = tiny.part(0, 1), plan.few if device.type == "cpu" else plan.steps

    def maps_held(subject: Subject, chosen: dict[str, Edit]) -> dict[str, int]:
        return {name: workshop.usage(subject, name, e, watch_maps=True).map_bytes for name, e in chosen.items()}

    for edit in in_any_steps.values():
        Meter(tiny.unet).run(partial(edit, first.in_steps(plan.few)))  # to warm up
    whole = workshop.in_turns([tiny.part(i, 1) for i in range(plan.runs)], edits)
    held, held_in_few = maps_held(first, edits), maps_held(first.in_steps(few_steps), in_any_steps)
    shared = {"seconds_caption": time_caption(), "seconds_direction": time_direction(zoo)}
    rows: list[Row] = []
    for name in edits:
        about = {"unet": tiny.name, "method": name, "steps": steps[name], "measured_steps": steps[name]}
        rows.append(about | measured(whole[name]) | {"map_bytes": held[name]} | shared)
    costs = {tiny.name: {name: call_costs(usages) for name, usages in whole.items()}}

    map_bytes = map_bytes_of_a_row(first)
    blocks, flow_side = plan.transformer
    large: dict[str, tuple[Callable[[], Subject], int]] = {
        unet: (partial(random_subject, unet, side, few_steps, plan.channels, device), runs)
        for unet, (side, runs) in plan.large.items()
    }
    flow = f"sd35-of-{blocks}-blocks-{flow_side}"
    large[flow] = partial(random_transformer, flow, blocks, flow_side, few_steps, device), 1
    for network, (make, runs) in large.items():
        subject = make()
        larger = map_bytes_of_a_row(subject) / map_bytes
        of_network = {name: edit for name, edit in in_any_steps.items() if not subject.is_flow or name not in RIVALS}
        few = workshop.in_turns([subject] * runs, of_network)
        costs[network] = {name: call_costs(usages) for name, usages in few.items()}
        for name in edits:
            like = "ours" if name in ours else name  # ours_fast makes the same calls, only fewer
            if like not in few:  # the published code knows no flow
                continue
            row = projected(few[like], whole[name]) | {"map_bytes": int(larger * held[name])}
            row["peak_bytes"] += int(larger * (held[name] - held_in_few[like]))
            about = {"unet": network, "method": name, "steps": steps[name], "measured_steps": few_steps}
            rows.append(about | row)
        del subject

    return {
        "rows": [row | compared_with_official(rows, row) for row in rows],
        "calls": costs_to_json(costs),
        "regularizer": time_regularizer(),
        "resident_after_edits": resident_after_edits(first.in_steps(plan.few), in_any_steps["ours"], plan.edits),
        "curves": measure_curves(plan, tiny, workshop, in_any_steps),
        "environment": environment() | {"device": device.type, "clock": CLOCKS[device.type]},
    }


def measure_curves(plan: Plan, tiny: Subject, workshop: Workshop, edits: dict[str, Edit]) -> list[Row]:
    """Vary steps, pictures at once and their size on Tiny Zoo's UNet, each from the same middle."""
    width, device = tiny.problem.source.shape[-1], tiny.problem.x0.device
    middle = plan.vary["steps"][0]
    subjects = [
        *(("steps", steps, tiny.part(0, 1).in_steps(steps)) for steps in plan.vary["steps"]),
        *(("batch", batch, tiny.part(0, batch).in_steps(middle)) for batch in plan.vary["batch"]),
        *(
            ("side", side, replace(tiny, problem=random_problem(side, middle, width, device)))
            for side in plan.vary["side"]
        ),
    ]
    curves: list[Row] = []
    for what, value, subject in subjects:
        for name, edit in edits.items():
            usage = workshop.usage(subject, name, edit)
            seconds = sum(usage.phases.values())
            curves.append(
                {"method": name, "vary": what, "value": value, "seconds": seconds, "peak_bytes": usage.peak_bytes}
            )
    return curves


if __name__ == "__main__":
    main()
