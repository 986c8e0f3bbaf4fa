"""Does a number of guidance mean the same with every model? `python -m benchmarks.studies.dial`.

For each unit, the share of the distance of the attention maps that guidance takes away, against its number: on the
embedded UNet, on that of 0.1.0, which a clone with its history has, and on UNets of Stable Diffusion 1.5 and XL of full
size with random weights. Every step is guided, and counted is the later half of them, which had time to get there.
Then the same for the unit of the defaults with all else as it is by default: in fresh noise, in a region, over less
than half of the steps. Writes `results/dial.json` after each model, and `results/dial.md` of it; models that are not
named keep what they had.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from pix2pix_zero_core import ClassifierFreeGuidance, Denoiser, EditSettings, MapGuidance, edit, invert
from pix2pix_zero_core.integrations.diffusers import DiffusersDenoiser, TextConditioning
from pix2pix_zero_core.schedule import ddim_sigmas
from tiny_zoo.denoiser import TinyZoo
from tiny_zoo.networks import alphas_cumprod

from ..harness.cells import CHECKPOINT, RESULTS, Bench, write_text
from ..harness.methods import Pix2PixZero
from ..harness.models import ModelName
from ..harness.report import markdown
from ..harness.sampling import Counted
from ..harness.tasks import PAPER_TASKS
from ..speed.subjects import random_problem, random_subject
from .earlier import checkout, run_there

NUMBERS = {"share": (0.1, 0.2, 0.3, 0.4, 0.5), "normalized": (1.0, 5.0), "paper": (0.1, 0.5)}
"""Unit -> what is tried."""

PICTURES, STEPS, SIDE = 8, 12, 128

BY_DEFAULT: dict[str, ModelName] = {"Tiny Zoo": "unet", "Tiny Zoo's flow model": "flow"}
"""Name -> model that is measured with the defaults, on `SCENES` validation scenes of each of the paper's tasks."""

DEFAULTS = ", by default"
"""Ends the name of a model of `BY_DEFAULT` in the command."""

SCENES = 4

USUAL = Pix2PixZero().guidance

Found = dict[str, dict[str, str]]
"""Unit -> number -> the share that it takes away, as it is shown."""

POSE = """
import sys
from safetensors.torch import save_file
from benchmarks.cells import Bench
bench = Bench("validation", int(sys.argv[1]), int(sys.argv[2]))
problem = bench.problem("cat2dog")
texts = {"source": problem.source, "target": problem.target(200), "empty": problem.empty}
unet = {f"unet.{name}": weight for name, weight in bench.model.unet.state_dict().items()}
save_file({name: t.contiguous() for name, t in ({"x0": problem.x0} | texts | unet).items()}, sys.argv[3])
"""
"""Runs in that world: the first validation scenes of cat to dog, and the UNet."""


@dataclass(frozen=True)
class Subject:
    """A model, and pictures to edit with it.

    Attributes:
        denoise: the model.
        sigmas: of its training, (1000,).
        x0: latents, (B, 4, H, W).
        source: conditioning of the pictures.
        target: of the edited ones.
        empty: of nothing.
    """

    denoise: Denoiser
    sigmas: Tensor
    x0: Tensor
    source: Any
    target: Any
    empty: Any


def embedded() -> Subject:
    """Tiny Zoo as it is."""
    bench = Bench("validation", PICTURES, STEPS)
    problem = bench.problem("cat2dog")
    return Subject(bench.model, bench.model.sigmas, problem.x0, problem.source, problem.target(200), problem.empty)


def earlier() -> Subject:
    """Tiny Zoo as it was, on pictures of its own world.

    Raises:
        CalledProcessError: this clone lacks the commit (a shallow one does).
    """
    with checkout() as folder:
        posed = folder / "posed.safetensors"
        run_there(folder, POSE, str(PICTURES), str(STEPS), str(posed))
        found = load_file(posed)
    zoo = TinyZoo.load(CHECKPOINT)  # whose UNet has the same layers
    weights = {name.removeprefix("unet."): found.pop(name) for name in list(found) if name.startswith("unet.")}
    zoo.unet.load_state_dict(weights)
    return Subject(zoo, zoo.sigmas, **found)


def stable_diffusion() -> Subject:
    """Stable Diffusion 1.5's UNet."""
    subject = random_subject("SD 1.5", SIDE, STEPS, (320, 640, 1280, 1280), torch.device("cpu"))
    denoise, problem = DiffusersDenoiser(subject.unet, alphas_cumprod()), subject.problem
    texts = (problem.source, problem.swapped, problem.empty)
    return Subject(denoise, denoise.sigmas.float(), problem.x0, *map(TextConditioning, texts))


def stable_diffusion_xl() -> Subject:
    """Stable Diffusion XL's."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    config: dict[str, Any] = {
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    }
    torch.manual_seed(0)
    unet: Any = UNet2DConditionModel(**config)
    with torch.no_grad():
        unet.conv_out.weight *= 0.3  # as in `random_subject`
    denoise = DiffusersDenoiser(unet.eval().requires_grad_(False), alphas_cumprod())
    problem = random_problem(SIDE, STEPS, 2048, torch.device("cpu"))
    pooled, sizes = (
        torch.randn(1, 1280, generator=torch.Generator().manual_seed(1)),
        torch.tensor([[SIDE, SIDE, 0, 0] + [SIDE] * 2]),
    )
    texts = (problem.source, problem.swapped, problem.empty)
    added = {"text_embeds": pooled, "time_ids": sizes.float()}
    return Subject(denoise, denoise.sigmas.float(), problem.x0, *(TextConditioning(text, added) for text in texts))


SUBJECTS: dict[str, Callable[[], Subject]] = {
    "Tiny Zoo": embedded,
    "Tiny Zoo of 0.1.0": earlier,
    "SD 1.5, random weights": stable_diffusion,
    "SDXL, random weights": stable_diffusion_xl,
}
"""Name -> what makes it."""


def shares(subject: Subject) -> Iterator[tuple[str, float, Tensor]]:
    """Measure, for every unit and number, the share of the unguided distance that is gone, of each picture, (B,)."""
    inversion = invert(subject.denoise, subject.x0, subject.source, ddim_sigmas(subject.sigmas, STEPS))
    guided = ClassifierFreeGuidance(subject.denoise, subject.empty)

    def distance(strength: float, unit: Any) -> Tensor:
        guidance = MapGuidance(strength, unit, applied="after")
        found = edit(subject.denoise, inversion, subject.source, subject.target, guided=guided, guidance=guidance)
        return found.loss[STEPS // 2 :].sum(0)

    plain = distance(1e-9, "normalized")
    for unit, numbers in NUMBERS.items():
        for number in numbers:
            yield unit, number, 1 - distance(number, unit) / plain


def shares_by_default(model: ModelName) -> Iterator[tuple[str, float, Tensor]]:
    """Measure the same for numbers of the unit *share*, all else by default: in the later half of the guided steps."""
    bench = Bench("validation", SCENES, EditSettings.steps, model=model)
    ours = Pix2PixZero()
    guided = [step for step in range(bench.steps) if ours.guidance.covers(step, bench.steps)]

    def distance(strength: float, unit: Any = "share") -> Tensor:
        method = replace(ours, guidance=replace(ours.guidance, strength=strength, unit=unit))
        losses = [method.edit(Counted(bench.model), bench.problem(task)).loss for task in PAPER_TASKS]
        return torch.cat(losses, 1)[guided[len(guided) // 2 :]].sum(0)

    plain = distance(1e-9, "normalized")
    for number in NUMBERS["share"]:
        yield "share", number, 1 - distance(number) / plain


def shown(taken: Tensor) -> str:
    """The median, and of several the least and the most."""
    return f"{taken.median():.2f}" + (f" ({taken.min():.2f} to {taken.max():.2f})" if len(taken) > 1 else "")


def main() -> None:
    """Measure what is asked for, and write the tables of all that is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [*SUBJECTS, *(f"{name}{DEFAULTS}" for name in BY_DEFAULT)]
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {'; '.join(known)} (default: all)")
    chosen = parser.parse_args().models or known
    if unknown := [name for name in chosen if name not in known]:
        parser.error(f"there is no model {unknown[0]}; there are {'; '.join(known)}")
    torch.set_flush_denormal(True)
    for name in chosen:
        taken: Found = {}
        for unit, number, shares in measure(name):
            taken.setdefault(unit, {})[f"{number:g}"] = shown(shares)
            print(f"{name}: {unit} {number:g} takes away {shown(shares)}", flush=True)
        path = RESULTS / "dial.json"
        found = (json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}) | {name: taken}
        found = {name: found[name] for name in known if name in found}
        write_text(path, json.dumps(found, indent=1) + "\n")
        write_text(RESULTS / "dial.md", describe(found))
    print(f"written to {RESULTS / 'dial.md'}")


def measure(name: str) -> Iterator[tuple[str, float, Tensor]]:
    """Measure for a model, by its name in the command, what numbers of units take away."""
    if name in SUBJECTS:
        return shares(SUBJECTS[name]())
    return shares_by_default(BY_DEFAULT[name.removesuffix(DEFAULTS)])


def describe(found: Mapping[str, Found]) -> str:
    """Write in Markdown what was found for models, by their names in the command."""

    def of(models: Iterable[str], numbers: Mapping[str, Sequence[float]]) -> str:
        columns = [name for name in models if name in found]
        rows = [
            [unit, f"{number:g}", *(found[name][unit][f"{number:g}"] for name in columns)]
            for unit in numbers
            for number in numbers[unit]
        ]
        return markdown(["unit", "guidance", *(name.removesuffix(DEFAULTS) for name in columns)], rows)

    return (
        f"Share of the attention maps' distance that guidance takes away, in the later half of {STEPS} guided steps; "
        f"CFG 5 away from no text, the inversion's noise. Tiny Zoo: {PICTURES} validation scenes, the median (and the "
        f"least and the most); Stable Diffusion: a random picture of {SIDE} pixels.\n\n"
        + of(SUBJECTS, NUMBERS)
        + f"\nAll else by default, so in fresh noise, in a region, and guided from {USUAL.start:g} to {USUAL.end:g} of "
        f"{EditSettings.steps} steps, of which the later half counts; {SCENES} validation scenes of each of the "
        "paper's tasks.\n\n" + of([f"{name}{DEFAULTS}" for name in BY_DEFAULT], {"share": NUMBERS["share"]})
    )


if __name__ == "__main__":
    main()
