"""`pix2pix-zero edit`: edited pictures, one for each strength of the guidance and of the direction."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from torch import Tensor

from pix2pix_zero_core import Direction, EditSettings, MapGuidance, remarks
from pix2pix_zero_core.fresh import guided_from
from pix2pix_zero_core.integrations.captioner import Captioner
from pix2pix_zero_core.integrations.concepts import source_warning
from pix2pix_zero_core.integrations.diffusers import InvertedPictures
from pix2pix_zero_core.integrations.judge import ask_of_direction, judge, warn_after, warn_before
from pix2pix_zero_core.integrations.sentences import known_concepts
from pix2pix_zero_core.schedule import first_step
from pix2pix_zero_core.settings import NEGATIVES, NOISES, USUAL_STRENGTH
from pix2pix_zero_core.until import edit_until, require_rising

from .arguments import (
    TINY_ZOO,
    UsageError,
    add_captioner,
    add_device,
    add_direction,
    add_inversion,
    add_json,
    add_model,
    add_pictures,
    add_workers,
    number,
)
from .cluster import choose_runner
from .inverting import SETTINGS, InvertingTask, inversion_settings
from .jobs import Row, Tick, Work
from .model import DirectionOptions, Model, ModelOptions, require_tiny_zoo_knows
from .pictures import (
    find_pictures,
    name_content,
    note_on,
    read_text,
    require_output_elsewhere,
    require_own_names,
    write_picture,
)
from .report import process

UNTIL = (0.75, 1.0, 1.25, 1.5)
"""Strengths of the direction that --until-it-shows tries where none are given."""

CAPTION = "caption"
"""Of --negative-from: the negative is what the picture shows."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's options."""
    add_pictures(parser, Path("edited"))
    add_edit(parser, several=True)
    parser.add_argument(
        "--until-it-shows",
        action="store_true",
        help="keep one picture, at the first of several rising --direction-strength at which BLIP sees the target "
        f"(default of these: {' '.join(f'{strength:g}' for strength in UNTIL)})",
    )
    add_json(parser)


def add_edit(parser: argparse.ArgumentParser, *, several: bool) -> None:
    """Describe which edit is made, with which model and settings; `several` strengths, or one of each kind."""
    usual = EditSettings()
    each = "; several make a picture each" if several else ""
    way = add_direction(parser)
    way.add_argument("--direction", type=Path, help="a direction that pix2pix-zero direction saved")
    parser.add_argument("--caption", help="what the pictures show; without it BLIP says so of each")
    add_captioner(parser)
    parser.add_argument(
        "--guidance",
        type=number(float, 0, 1000),
        nargs="+" if several else 1,
        default=[usual.guidance.strength],
        help=f"how strongly the layout is kept{each} (default: {usual.guidance.strength:g})",
    )
    parser.add_argument(
        "--guidance-unit",
        choices=["normalized", "paper", "share"],
        default=usual.guidance.unit,
        help="share: how much of what the edit would change in the attention is taken away, 0 to 1, measured on "
        f"each picture (default: {usual.guidance.unit})",
    )
    parser.add_argument(
        "--guidance-start",
        type=number(float, 0, 1),
        default=usual.guidance.start,
        help=f"fraction of the steps after which guidance begins (default: {usual.guidance.start:g})",
    )
    parser.add_argument(
        "--guidance-end",
        type=number(float, 0, 1),
        default=usual.guidance.end,
        help=f"fraction of the steps after which guidance ends (default: {usual.guidance.end:g})",
    )
    parser.add_argument(
        "--direction-strength",
        type=number(float, -10, 10),
        nargs="+" if several else 1,
        help=f"1 is the full edit, a little more makes it show surely, negative leads the other way{each} (default: "
        f"{USUAL_STRENGTH:g})",
    )
    parser.add_argument(
        "--cfg",
        type=number(float, 0, 100),
        default=usual.cfg,
        help=f"how strongly the target text is followed (default: {usual.cfg:g})",
    )
    parser.add_argument(
        "--cfg-start",
        type=number(float, 0, 1),
        default=usual.cfg_start,
        help="fraction of the steps after which --cfg begins, in fresh noise the edit; later leaves more in place "
        f"(default: {usual.cfg_start:g})",
    )
    parser.add_argument(
        "--negative-from",
        choices=(*NEGATIVES, CAPTION),
        default=usual.negative_from,
        help="what --cfg moves away from: the noise that the inversion recorded, the text of --negative, or what the "
        f"picture shows (default: {usual.negative_from})",
    )
    parser.add_argument(
        "--negative",
        metavar="TEXT",
        help="the text of --negative-from text (default: an empty one)",
    )
    parser.add_argument(
        "--noise-from",
        choices=NOISES,
        default=usual.noise_from,
        help="in which noise the model sees the picture: new one at every step, or what the inversion found (default: "
        f"{usual.noise_from})",
    )
    parser.add_argument(
        "--region",
        type=number(float, 0, 1),
        default=usual.region,
        help="edit only where source and target text disagree about the picture: 0 everywhere, 1 where they disagree "
        f"most (default: {usual.region:g})",
    )
    add_inversion(parser)
    add_model(parser)
    add_device(parser)
    add_workers(parser)


def run(arguments: argparse.Namespace) -> int:
    """Edit what the options name; returns the exit status."""
    found = find_pictures(arguments.pictures, recursive=arguments.recursive, output=arguments.output)
    require_output_elsewhere(arguments.pictures, arguments.output)
    until = arguments.until_it_shows
    model = ModelOptions.of(arguments, captions=until or arguments.caption is None)
    given = arguments.direction_strength or (UNTIL if until else (USUAL_STRENGTH,))
    strengths = tuple(dict.fromkeys(given))
    if until:
        try:
            require_rising(strengths)
        except ValueError as error:
            raise UsageError(f"--direction-strength: {error}") from error
    task = (UntilTask if until else EditTask)(
        model,
        edit_settings(arguments),
        arguments.caption,
        arguments.size,
        arguments.output.resolve(),
        found.searched,
        arguments.overwrite,
        DirectionOptions.of(arguments, model),
        tuple(dict.fromkeys(arguments.guidance)),
        strengths,
    )
    require_own_names([task.outputs(picture)[0] for picture in found.pictures])
    names = task.outputs(found.pictures[0])
    if len(set(names)) < len(names):
        raise UsageError("--guidance and --direction-strength: two values look the same in the names of the results")
    return process(
        task,
        found,
        output=task.output,
        as_json=arguments.json,
        describe=in_words,
        run=choose_runner(task, task.model, arguments),
    )


def edit_settings(arguments: argparse.Namespace) -> EditSettings:
    """Read the settings; of the guidance's strengths the first.

    Raises:
        UsageError: --negative, where nothing moves away from a text, or of words that the model does not know; fresh
            noise where that of the inversion is moved away from; guidance of more than all, or without a step.
    """
    if arguments.negative is not None and arguments.negative_from != "text":
        raise UsageError(f"--negative: belongs to --negative-from text, not to {arguments.negative_from}")
    if arguments.negative and arguments.cfg == 1:
        raise UsageError("--negative: at --cfg 1 nothing moves away from it; raise --cfg or leave --negative out")
    if arguments.negative_from == "inversion" and arguments.noise_from != "inversion":
        raise UsageError("--negative-from inversion: belongs to --noise-from inversion, not to fresh")
    fresh, steps = arguments.noise_from == "fresh", arguments.steps
    if fresh and first_step(steps, arguments.cfg_start) == steps:
        raise UsageError(
            f"--cfg-start {arguments.cfg_start:g} --steps {steps}: in fresh noise nothing is edited before, "
            "and no step is left; lower --cfg-start or raise --steps"
        )
    if arguments.model == TINY_ZOO and arguments.negative and arguments.negative.strip():
        require_tiny_zoo_knows("--negative", arguments.negative)
    if arguments.guidance_unit == "share" and max(arguments.guidance) > 1:
        raise UsageError(
            f"--guidance {max(arguments.guidance):g}: in the unit share it must be 0 to 1; --guidance-unit has others"
        )
    start, end = arguments.guidance_start, arguments.guidance_end
    if start > end or (start == end and max(arguments.guidance) > 0):
        raise UsageError(
            f"--guidance-start {start:g} --guidance-end {end:g}: guidance would end before its first step; where "
            "none is wanted, --guidance 0 alone"
        )
    guidance = replace(
        EditSettings().guidance,
        strength=arguments.guidance[0],
        unit=arguments.guidance_unit,
        start=start,
        end=end,
    )
    acts = guided_from(guidance, arguments.cfg_start) if fresh else guidance
    if max(arguments.guidance) > 0 and replace(acts, strength=1).steps(steps) == 0:
        where = f"from {acts.start:g} of them, where --guidance-start or --cfg-start is, "
        if first_step(steps, acts.start) == steps:
            where, remedy = f"{where}on", "lower that or raise --steps"
        else:
            where, remedy = f"{where}to --guidance-end", "raise that"
        flags = f"--guidance-start {start:g} --guidance-end {end:g} --steps {steps}"
        raise UsageError(f"{flags}: no step begins {where}; {remedy}, or --guidance 0 guides none")
    return replace(
        inversion_settings(arguments),
        cfg=arguments.cfg,
        guidance=guidance,
        negative_from="text" if arguments.negative_from == CAPTION else arguments.negative_from,
        negative=None if arguments.negative_from == CAPTION else arguments.negative or "",
        cfg_start=arguments.cfg_start,
        region=arguments.region,
        noise_from=arguments.noise_from,
    )


def in_words(row: Row) -> str:
    """What a finished picture's line says."""
    assert row.result is not None
    tried = zip(row.result.get("strengths", ()), row.result.get("shows", ()), strict=True)
    found = "; ".join(f"shows at strength {s:g}" if shows else f"does not show at {s:g}" for s, shows in tried)
    notes = "".join(f"\n  {note}" for note in (found, row.result.get("warning")) if note)
    return f"{row.result['caption']!r} -> {', '.join(row.result['outputs'])} ({row.seconds:.1f} s){notes}"


@dataclass(frozen=True)
class EditTask(InvertingTask):
    """Edit a picture in every variant, all from one inversion.

    Attributes:
        direction: which edit.
        guidances: strengths of the guidance, which that in `settings` gives way to.
        strengths: of the direction.
    """

    direction: DirectionOptions
    guidances: tuple[float, ...]
    strengths: tuple[float, ...]

    @property
    def variants(self) -> Sequence[tuple[float, float | None]]:
        """Strengths of the guidance and of the direction, a picture each; None where all strengths share one."""
        return list(product(self.guidances, self.strengths))

    @property
    def ticks(self) -> int:
        """Steps of a picture: there once, and back in every variant."""
        return self.settings.steps * (1 + len(self.guidances) * len(self.strengths))

    def outputs(self, picture: Path) -> list[Path]:
        """Where the variants of a picture go."""
        return [
            self.file(
                picture,
                f"_{self.direction.name}_g{guidance:g}_{'until' if strength is None else f's{strength:g}'}.png",
            )
            for guidance, strength in self.variants
        ]

    def finished(self, picture: Path) -> bool:
        """See `Task.finished`."""
        return all(
            self.is_made(path, picture, variant)
            for path, variant in zip(self.outputs(picture), self.variants, strict=True)
        )

    def is_made(self, path: Path, picture: Path, variant: tuple[float, float | None]) -> bool:
        """Whether a variant of a picture is there, made of this very picture with these settings.

        Raises:
            UsageError: it was made otherwise, and may not be replaced.
        """
        return path.exists() and self.is_ours(path, read_text(path, SETTINGS), self.record(picture, variant))

    def remarks(self, model: Model) -> list[str]:
        """What is to be said of the settings."""
        idle = "At a direction strength of 0 the text stays, and no edit is made." if 0 in self.strengths else ""
        most = replace(self.settings, guidance=self.guidance(max(self.guidances)))
        return list(filter(None, [remarks.of_steps(self.settings.steps), *model.editor.remarks(most), idle]))

    def record(self, picture: Path, variant: tuple[float, float | None]) -> str:
        """All that a result depends on, in one line of JSON: the picture, and the settings."""
        return json.dumps({"picture": name_content(picture), **self.describe(variant)})

    def describe(self, variant: tuple[float, float | None]) -> dict[str, Any]:
        """All settings that a result depends on."""
        guidance, strength = variant
        settings = asdict(replace(self.settings, guidance=self.guidance(guidance)))
        edit = {"direction": self.direction.name, "sha256": self.direction.digest, **self.record_strength(strength)}
        return {**self.describe_inputs(), **edit, **self.describe_captioner(), **settings}

    def record_strength(self, strength: float | None) -> dict[str, Any]:
        """The part of the record that says how strong the direction is."""
        return {"strength": strength}

    def leads(self, direction: Direction) -> list[tuple[str, str]]:
        """What the edits lead away from, and what to, each pair once: with a negative strength from the target."""
        start, end = direction.source, direction.target
        signs = [strength for strength in self.strengths if strength] or [1.0]
        return list(dict.fromkeys((start, end) if strength > 0 else (end, start) for strength in signs))

    def guidance(self, strength: float) -> MapGuidance:
        """The guidance of a variant."""
        return replace(self.settings.guidance, strength=strength)

    def start(self) -> Work:
        """See `Task.start`."""
        model = self.model.load()
        direction = self.direction.build(model)

        def work(picture: Path, tick: Tick) -> dict[str, Any]:
            return self.edit(model, direction, picture, tick)

        return work

    def edit(self, model: Model, direction: Direction, path: Path, tick: Tick) -> dict[str, Any]:
        """Edit a picture in the variants that are not there yet."""
        caption, inverted = self.invert_file(model, path, tick)
        for output, variant in zip(self.outputs(path), self.variants, strict=True):
            if not self.is_made(output, path, variant):
                guidance, strength = variant
                settings = replace(self.settings, guidance=self.guidance(guidance))

                def edit_at(strength: float, settings: EditSettings = settings) -> Tensor:
                    edited = model.editor.edit(
                        inverted, direction, strength, settings, lambda _: tick(), output_type="latent"
                    )
                    return model.editor.decode(edited)

                picture, said = self.make(edit_at, strength, model, caption, direction)
                write_picture(picture, output, {SETTINGS: self.record(path, variant), "caption": caption, **said})
        named = [source_warning(caption, *names, known_concepts()) for names in self.leads(direction)]
        shifted = [r for strength in self.strengths for r in model.editor.shift(inverted, direction, strength).remarks]
        said, warnings = self.judged(path, model, inverted, caption, direction)
        warning = "\n  ".join(dict.fromkeys(filter(None, [*named, note_on(path), *shifted, *warnings])))
        outputs = [str(output) for output in self.outputs(path)]
        said = {"caption": caption, **said, **({"warning": warning} if warning else {})}
        return {"outputs": outputs, **said, **({"remarks": found} if (found := self.remarks(model)) else {})}

    def make(
        self,
        edit_at: Callable[[float], Tensor],
        strength: float | None,
        model: Model,
        caption: str,
        direction: Direction,
    ) -> tuple[Tensor, dict[str, str]]:
        """Make a variant, (H, W, 3), and what is to be written into its file."""
        assert strength is not None
        return edit_at(strength)[0], {}

    def judged(
        self, path: Path, model: Model, inverted: InvertedPictures, caption: str, direction: Direction
    ) -> tuple[dict[str, Any], list[str]]:
        """What there is to say about the finished variants of a picture, and warnings."""
        return {}, []


@dataclass(frozen=True)
class UntilTask(EditTask):
    """Edit a picture at rising strengths of the direction, and keep the first at which BLIP sees the target."""

    @property
    def variants(self) -> Sequence[tuple[float, float | None]]:
        """One for each strength of the guidance."""
        return [(guidance, None) for guidance in self.guidances]

    def record_strength(self, strength: float | None) -> dict[str, Any]:
        """All strengths that may be tried."""
        return {"until": self.strengths}

    def make(
        self,
        edit_at: Callable[[float], Tensor],
        strength: float | None,
        model: Model,
        caption: str,
        direction: Direction,
    ) -> tuple[Tensor, dict[str, str]]:
        """See `EditTask.make`; strength and score are written into the file."""
        captioner, questions = _captioner(model), ask_of_direction(caption, direction, self.strengths[0])
        found = edit_until(
            lambda strength, _: edit_at(strength),
            lambda pictures, _: judge(captioner, pictures, [questions]),
            self.strengths,
            1,
        )
        used = self.strengths[int(found.edits) - 1]
        return found.edited[0], {"strength": f"{used:g}", "score": f"{float(found.scores):.3f}"}

    def judged(
        self, path: Path, model: Model, inverted: InvertedPictures, caption: str, direction: Direction
    ) -> tuple[dict[str, Any], list[str]]:
        """See `EditTask.judged`."""
        captioner, questions = _captioner(model), ask_of_direction(caption, direction, self.strengths[0])
        original = model.editor.decode(inverted.inversion.latent_at(0))
        before = judge(captioner, original, [questions]).item()
        read = [[read_text(output, key) for output in self.outputs(path)] for key in ("strength", "score")]
        strengths, scores = ([float(text or "nan") for text in texts] for texts in read)
        said = {"strengths": strengths, "scores": scores, "shows": [score > 0 for score in scores]}
        warnings = [
            warn_before(questions, before, captioner(original)[0]),
            *(warn_after(questions, score) for score in scores),
        ]
        return said, [warning for warning in warnings if warning]


def _captioner(model: Model) -> Captioner:
    assert model.captioner is not None  # `run` asked for one
    return model.captioner
