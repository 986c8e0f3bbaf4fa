"""From what edits used to rows of figures, and from a few steps on a large UNet to an edit of all."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from ..harness.report import Row
from .meter import Call, Usage


def measured(usages: Sequence[Usage]) -> Row:
    """Medians of whole edits."""

    def median(figure: Callable[[Usage], float]) -> float:
        return statistics.median(figure(usage) for usage in usages)

    phases = {f"seconds_{phase}": median(lambda usage: usage.phases[phase]) for phase in ("invert", "edit")}  # noqa: B023
    return {
        "seconds": median(lambda usage: sum(usage.phases.values())),
        **phases,
        "seconds_outside_unet": median(lambda usage: sum(outside(usage).values())),
        "wall_seconds": median(lambda usage: usage.wall_seconds),
        **count_rows(mean_counts(usages)),
        "peak_bytes": int(median(lambda usage: usage.peak_bytes)),
    }


def projected(few: Sequence[Usage], whole: Sequence[Usage]) -> Row:
    """An edit of all steps on a large UNet: the costs of its calls there, the counts of an edit on Tiny Zoo.

    Args:
        few: of edits of few steps on the large UNet.
        whole: of edits of all steps on Tiny Zoo, by the same method.
    """
    costs, counts = call_costs(few), mean_counts(whole)
    inside = {phase: 0.0 for phase in few[0].phases}
    for call, count in counts.items():
        inside[call.phase] += count * costs[call.what, call.rows]
    beside = {
        phase: statistics.median(outside(usage)[phase] / forward_calls(usage, phase) for usage in few)
        * statistics.mean(forward_calls(usage, phase) for usage in whole)
        for phase in inside
    }
    return {
        "seconds": sum(inside.values()) + sum(beside.values()),
        **{f"seconds_{phase}": inside[phase] + beside[phase] for phase in inside},
        "seconds_outside_unet": sum(beside.values()),
        **count_rows(counts),
        "peak_bytes": int(statistics.median(usage.peak_bytes for usage in few)),
    }


def outside(usage: Usage) -> dict[str, float]:
    """Seconds of every phase that were not spent in the UNet."""
    inside = {phase: 0.0 for phase in usage.phases}
    for call, seconds in usage.calls.items():
        inside[call.phase] += sum(seconds)
    return {phase: usage.phases[phase] - inside[phase] for phase in inside}


def forward_calls(usage: Usage, phase: str) -> int:
    """How often the UNet was called in a phase."""
    return sum(len(times) for call, times in usage.calls.items() if call.phase == phase and call.what != "backward")


def call_costs(usages: Sequence[Usage]) -> dict[tuple[str, int], float]:
    """Median seconds of a call: (what, rows) -> seconds."""
    times: dict[tuple[str, int], list[float]] = {}
    for usage in usages:
        for call, seconds in usage.calls.items():
            times.setdefault((call.what, call.rows), []).extend(seconds)
    return {kind: statistics.median(seconds) for kind, seconds in times.items()}


def mean_counts(usages: Sequence[Usage]) -> dict[Call, float]:
    """How often each kind of call was made, a mean over edits."""
    kinds = {call for usage in usages for call in usage.calls}
    return {call: statistics.mean(len(usage.calls.get(call, ())) for usage in usages) for call in kinds}


def count_rows(counts: dict[Call, float]) -> Row:
    """Rows of the UNet, forward and backward; by convention a backward pass is two, whatever it takes."""
    backward = sum(count * call.rows for call, count in counts.items() if call.what == "backward")
    forward = sum(count * call.rows for call, count in counts.items() if call.what != "backward")
    return {"unet_rows": forward + 2 * backward, "forward_rows": forward, "backward_rows": backward}


def compared_with_official(rows: Sequence[Row], row: Row) -> Row:
    """How many times as long the official code takes on the same network, if it runs there."""
    official = [other["seconds"] for other in rows if (other["unet"], other["method"]) == (row["unet"], "official")]
    return {"official_takes": official[0] / row["seconds"]} if official else {}


def costs_to_json(costs: dict[str, dict[str, dict[tuple[str, int], float]]]) -> list[Row]:
    """One entry a kind of call."""
    return [
        {"unet": unet, "method": method, "what": what, "rows": rows, "seconds": seconds}
        for unet, of_unet in costs.items()
        for method, of_method in of_unet.items()
        for (what, rows), seconds in sorted(of_method.items())
    ]
