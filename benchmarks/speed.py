"""How fast is an edit, and in how much memory? `python -m benchmarks.speed` runs implementations beside each other.

They share the weights and the process, and take turns. Writes `speed.json`, `speed.md` and `speed.png` to
`benchmarks/results/` (`results/quick/` with `--quick`). Interrupted, it goes on where it was.

On Tiny Zoo whole edits are measured. A full-size UNet would take hours on a CPU: there, edits of a few steps show what
every kind of call costs, and an edit of all steps is put together from as many calls as the same method makes on Tiny
Zoo. At 512 px the published code needs 17 GB of free memory. The whole takes about twenty minutes on quiet cores.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from pix2pix_zero_core import EditDirection, NoiseRegularizer
from pix2pix_zero_core.integrations.captioner import Captioner
from pix2pix_zero_core.integrations.diffusers import DiffusersDenoiser, TextConditioning
from pix2pix_zero_core.integrations.sentences import load_edit
from pix2pix_zero_core.noise import regularize
from tiny_zoo.compose_directions import FOLDER
from tiny_zoo.denoiser import TinyZoo
from tiny_zoo.networks import alphas_cumprod
from tiny_zoo.training import WEIGHTS

from .harness import methods
from .harness.cells import CHECKPOINT, RESULTS, write_text
from .harness.report import Row, environment, markdown
from .harness.tasks import TASKS, Problem, draw_scenes, pictures, pose_problem
from .memory import resident
from .meter import Call, Meter, Usage, give_memory_back
from .rivals import left_as_found, official, pipeline
from .tune import SETTINGS, read_settings

TASK = "cat2dog"


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        steps: of an edit.
        runs: edits of Tiny Zoo a method, each of another picture.
        few: steps of an edit on a large UNet; the published inversion needs 3.
        large: large UNet -> side of its picture in pixels, and edits a method.
        channels: of the large UNet's levels.
        vary: what -> values of it, for the plot: steps, pictures at once, sides in pixels.
        edits: how many in a row must not let memory grow.
    """

    steps: int
    runs: int
    few: int
    large: dict[str, tuple[int, int]]
    channels: tuple[int, ...]
    vary: dict[str, tuple[int, ...]]
    edits: int


FULL = Plan(
    steps=50,
    runs=3,
    few=3,
    large={"sd15-256": (256, 2), "sd15-512": (512, 1)},
    channels=(320, 640, 1280, 1280),
    vary={"steps": (10, 20, 30, 40, 50), "batch": (1, 2, 4, 8), "side": (128, 192, 256, 320)},
    edits=20,
)
QUICK = Plan(
    steps=4,
    runs=1,
    few=3,
    large={"sd15-small-64": (64, 1)},
    channels=(32, 32, 64, 64),
    vary={"steps": (3, 4), "batch": (1, 2), "side": (128, 192)},
    edits=4,
)


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
    for unet, (side, runs) in plan.large.items():
        subject = random_subject(unet, side, few_steps, plan.channels, device)
        larger = map_bytes_of_a_row(subject) / map_bytes
        few = workshop.in_turns([subject] * runs, in_any_steps)
        costs[unet] = {name: call_costs(usages) for name, usages in few.items()}
        for name in edits:
            like = "ours" if name in ours else name  # ours_fast makes the same calls, only fewer
            row = projected(few[like], whole[name]) | {"map_bytes": int(larger * held[name])}
            row["peak_bytes"] += int(larger * (held[name] - held_in_few[like]))
            about = {"unet": unet, "method": name, "steps": steps[name], "measured_steps": few_steps}
            rows.append(about | row)
        del subject

    return {
        "rows": [row | {"official_takes": seconds_of_official(rows, row) / row["seconds"]} for row in rows],
        "calls": costs_to_json(costs),
        "regularizer": time_regularizer(),
        "resident_after_edits": resident_after_edits(first.in_steps(plan.few), in_any_steps["ours"], plan.edits),
        "curves": measure_curves(plan, tiny, workshop, in_any_steps),
        "environment": environment() | {"device": device.type, "clock": CLOCKS[device.type]},
    }


@dataclass(frozen=True)
class Subject:
    """A UNet and pictures to edit with it.

    Attributes:
        name: of the UNet.
        unet: a UNet2DConditionModel that predicts noise.
        problem: the pictures, and the number of steps.
    """

    name: str
    unet: Any
    problem: Problem

    @property
    def alphas(self) -> Tensor:
        """The schedule of Stable Diffusion, which Tiny Zoo shares, (1000,)."""
        return alphas_cumprod().to(self.problem.x0)

    def part(self, first: int, count: int) -> Subject:
        """The pictures first .. first + count - 1 of it."""
        return replace(self, problem=self.problem.part(first, count))

    def in_steps(self, steps: int) -> Subject:
        """The same in another number of steps."""
        return replace(self, problem=replace(self.problem, steps=steps))


def moved(problem: Problem, device: torch.device) -> Problem:
    """A problem on a device."""
    tensors = {name: value.to(device) for name, value in vars(problem).items() if isinstance(value, Tensor)}
    return replace(problem, **tensors)


Edit = Callable[[Subject, Meter], object]
"""Edits the pictures of a subject and tells the meter its phases."""

# ------------------------------------------------------------------ methods


def official_edit(subject: Subject, meter: Meter) -> Tensor:
    """Edit by the transcription of the published code: one picture at a time."""
    unet, alphas, problem, edited = subject.unet, subject.alphas, subject.problem, list[Tensor]()
    for x0, source, target in pictures_of(problem):
        with official.prepared(unet):
            with meter.phase("invert"):
                noise = official.invert(unet, alphas, x0, source, problem.steps)
            with meter.phase("edit"):
                edited.append(official.edit(unet, alphas, noise, source, target, problem.steps))
    return torch.cat(edited)


def diffusers_edit(subject: Subject, meter: Meter) -> Tensor:
    """Edit by diffusers' pipeline, one picture at a time: it adds the direction to one row only."""
    pipe, steps, edited = pipeline.make_pipeline(subject.unet, subject.alphas), subject.problem.steps, list[Tensor]()
    for x0, source, target in pictures_of(subject.problem):
        with left_as_found(subject.unet):
            with meter.phase("invert"):
                noise = pipeline.invert(pipe, x0, source, steps)
            with meter.phase("edit"):
                edited.append(pipeline.edit(pipe, noise, source, target, steps))
    return torch.cat(edited)


def our_edit(method: methods.Pix2PixZero) -> Edit:
    """Edit by one of `benchmarks.methods`, all pictures at once."""

    def edit(subject: Subject, meter: Meter) -> Tensor:
        denoise = methods.Counted(_Model(subject, meter))  # pyright: ignore[reportArgumentType]  # all that it needs
        with patch.object(methods, "invert", meter.timed("invert", methods.invert)), meter.phase("edit"):
            return method(denoise, subject.problem)

    return edit


class _Model:
    """A diffusers UNet in the place of Tiny Zoo."""

    def __init__(self, subject: Subject, meter: Meter) -> None:
        self._denoise, self._meter = DiffusersDenoiser(subject.unet, subject.alphas), meter
        self.sigmas = self._denoise.sigmas

    def __call__(self, x: Tensor, sigma: Tensor, cond: Tensor, **options: Any) -> Any:
        self._meter.with_maps = options.get("maps", False)
        return self._denoise(x, sigma, TextConditioning(cond), **options)


def pictures_of(problem: Problem) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Latent, source and target of every picture, each a batch of one."""
    target = problem.target(SENTENCES)
    return list(zip(problem.x0.split(1), problem.source.split(1), target.split(1), strict=True))


SENTENCES = 200
"""Pairs that directions are averaged over."""


RIVALS: dict[str, Edit] = {"official": official_edit, "diffusers": diffusers_edit}
"""Implementations that are not ours."""


def our_methods() -> dict[str, methods.Pix2PixZero]:
    """Ours in its default and its fast setting, as its quality is measured."""
    tuned: dict[str, Any] = methods.tuned_methods(read_settings()["settings"])
    return {name: tuned[name] for name in ("ours", "ours_fast")}


# ------------------------------------------------------------------ UNets


def tiny_zoo_unet(zoo: TinyZoo) -> Any:
    """Tiny Zoo's UNet as one of diffusers."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(64, 128),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=128,
        attention_head_dim=4,
    )
    state = {f"model.diffusion_model.{name}": weight for name, weight in zoo.unet.state_dict().items()}
    unet.load_state_dict(convert_ldm_unet_checkpoint(state, dict(unet.config)))
    return unet.eval().requires_grad_(False)


def random_subject(name: str, side: int, steps: int, channels: tuple[int, ...], device: torch.device) -> Subject:
    """Stable Diffusion 1.5's UNet, in any width, with random weights and a random picture."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    torch.manual_seed(0)
    unet: Any = UNet2DConditionModel(block_out_channels=channels, cross_attention_dim=768, attention_head_dim=8)
    with torch.no_grad():
        unet.conv_out.weight *= 0.3  # a random network is no denoiser; weakened, it does not throw x about
    return Subject(name, unet.eval().requires_grad_(False).to(device), random_problem(side, steps, 768, device))


def random_problem(side: int, steps: int, width: int, device: torch.device) -> Problem:
    """One picture, a caption and an edit of it, all random."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    latent, text = (1, 4, side // 8, side // 8), (1, 77, width)
    source, swapped = draw(*text), draw(*text)
    alignment = torch.eye(77, device=device)[None]
    return Problem(draw(*latent), draw(*latent), source, swapped, alignment, swapped - source, draw(*text), steps)


@torch.no_grad()
def map_bytes_of_a_row(subject: Subject) -> int:
    """Bytes of the cross-attention maps of all layers, one picture in one forward pass."""
    denoise, x = DiffusersDenoiser(subject.unet, subject.alphas), subject.problem.x0[:1]
    prediction = denoise(x, denoise.sigmas[500:501].to(x), TextConditioning(subject.problem.source[:1]), maps=True)
    return sum(maps.nbytes for maps in prediction.maps.values())


# ------------------------------------------------------------------ measuring


class Workshop:
    """Measures what has not been measured yet, and keeps it.

    What is kept is known by everything that it depends on, the code included.
    """

    def __init__(self, folder: Path) -> None:
        """Choose where figures are kept."""
        self.folder = folder
        here = Path(__file__).parent
        code = [*(here.parent / "pix2pix_zero_core").rglob("*.py"), *(here / "rivals").glob("*.py"), Path(__file__)]
        files = [*sorted(code), here / "meter.py", here / "harness" / "methods.py", SETTINGS, CHECKPOINT]
        contents = sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
        self._about = contents, torch.__version__, torch.get_num_threads()

    def usage(self, subject: Subject, method: str, edit: Edit, run: int = 0, *, watch_maps: bool = False) -> Usage:
        """Measure an edit.

        Args:
            subject: what to edit, and on which UNet.
            method: its name.
            edit: how.
            run: number of this measurement.
            watch_maps: count bytes of maps instead of time.
        """
        shape, steps = tuple(subject.problem.x0.shape), subject.problem.steps
        known = repr((self._about, method, shape, steps, run, watch_maps))
        path = self.folder / f"speed-{subject.name}-{method}-{sha256(known.encode()).hexdigest()[:20]}.json"
        if not path.is_file():
            started = time.perf_counter()
            usage = Meter(subject.unet, watch_maps=watch_maps).run(partial(edit, subject))
            write_text(path, json.dumps(usage.to_json()))
            what = f"{steps} steps of {shape[0]} at {8 * shape[3]} px"
            print(f"{subject.name} {method}: {what}, {time.perf_counter() - started:.1f} s", flush=True)
        return Usage.from_json(json.loads(path.read_text()))

    def in_turns(self, subjects: Sequence[Subject], edits: dict[str, Edit]) -> dict[str, list[Usage]]:
        """Edit every subject with every method, the methods taking turns; method -> usages."""
        usages: dict[str, list[Usage]] = {name: [] for name in edits}
        for run, subject in enumerate(subjects):
            for name, edit in edits.items():
                usages[name].append(self.usage(subject, name, edit, run))
        return usages


def seconds_of(function: Callable[[], object], runs: int = 3) -> float:
    """Median processor time of a function, after a call to warm up."""
    function()
    times: list[float] = []
    for _ in range(runs):
        started = time.process_time()
        function()
        times.append(time.process_time() - started)
    return statistics.median(times)


def time_caption() -> float:
    """Seconds in which a picture of Tiny Zoo is described."""
    captioner = Captioner.from_folder(WEIGHTS / "blip" / "tiny_zoo")
    picture = pictures(draw_scenes(TASKS[TASK], "test", 1)[0]).movedim(1, -1)
    return seconds_of(lambda: captioner(picture))


def time_direction(zoo: TinyZoo) -> float:
    """Seconds in which a direction is averaged over `SENTENCES` pairs with Tiny Zoo's text encoder."""
    task = load_edit(TASK, FOLDER)
    source, target = task.source_sentences[:SENTENCES], task.target_sentences[:SENTENCES]

    def build() -> EditDirection:
        return EditDirection.build(
            lambda texts: (zoo.encode_text(texts), None), source, target, source="", target="", encoder="Tiny Zoo"
        )

    return seconds_of(build)


def time_regularizer() -> dict[str, float]:
    """Seconds of the noise regulariser on one latent of 512 px, ours and the published one's."""
    eps = torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    shifts = torch.Generator().manual_seed(0)
    ours = seconds_of(lambda: regularize(eps, NoiseRegularizer()), 15)
    theirs = seconds_of(lambda: official.regularize(eps, shifts), 15)
    return {"ours": ours, "official": theirs, "ratio": theirs / ours}


def resident_after_edits(subject: Subject, edit: Edit, count: int) -> list[int]:
    """Edit again and again; resident memory of the process after each edit, bytes."""
    resident_bytes: list[int] = []
    for _ in range(count):
        Meter(subject.unet).run(partial(edit, subject))
        gc.collect()
        give_memory_back()
        resident_bytes.append(resident("VmRSS"))
    return resident_bytes


# ------------------------------------------------------------------ rows


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
    """Rows of the UNet, forward and backward; a backward pass costs as much as two forward passes."""
    backward = sum(count * call.rows for call, count in counts.items() if call.what == "backward")
    forward = sum(count * call.rows for call, count in counts.items() if call.what != "backward")
    return {"unet_rows": forward + 2 * backward, "forward_rows": forward, "backward_rows": backward}


def seconds_of_official(rows: Sequence[Row], row: Row) -> float:
    """Seconds of the official code on the same UNet."""
    return next(other["seconds"] for other in rows if (other["unet"], other["method"]) == (row["unet"], "official"))


def costs_to_json(costs: dict[str, dict[str, dict[tuple[str, int], float]]]) -> list[Row]:
    """One entry a kind of call."""
    return [
        {"unet": unet, "method": method, "what": what, "rows": rows, "seconds": seconds}
        for unet, of_unet in costs.items()
        for method, of_method in of_unet.items()
        for (what, rows), seconds in sorted(of_method.items())
    ]


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


# ------------------------------------------------------------------ tables and plot

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
        "costs as much as two forward passes. Encoding and decoding the picture is in no figure.\n",
    ]
    for unet in dict.fromkeys(row["unet"] for row in results["rows"]):
        rows = [row for row in results["rows"] if row["unet"] == unet]
        parts += [f"## {unet}\n", scope(rows[0]), speed_table(rows), calls_table(results["calls"], unet)]
    growth = (resident_bytes[-1] - resident_bytes[len(resident_bytes) // 4]) / MIB
    parts += [
        "## Noise regulariser\n",
        f"On a latent of 64 x 64 x 4: {1e3 * regularizer['ours']:.2f} ms, the official code's "
        f"{1e3 * regularizer['official']:.1f} ms: x{regularizer['ratio']:.1f}. It is "
        f"{regularizer['ours'] / bare_row(results['calls'], results['rows'][-1]['unet']):.2%} of an inversion step on "
        f"{results['rows'][-1]['unet']}.\n",
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
                f"x{row['official_takes']:.2f}",
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


CLOCKS = {"cpu": "processor", "cuda": "wall"}
"""Device -> what seconds are told by."""

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


if __name__ == "__main__":
    main()
