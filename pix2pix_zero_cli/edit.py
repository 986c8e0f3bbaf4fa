"""`pix2pix-zero edit`: edited pictures, one for each strength of the guidance and of the direction."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from pix2pix_zero_core import MapGuidance
from pix2pix_zero_core.integrations.concepts import source_warning
from pix2pix_zero_core.integrations.diffusers import EditSettings

from .arguments import (
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
from .model import DirectionOptions, Model, ModelOptions
from .pictures import find_pictures, note_on, read_text, require_own_names, write_picture
from .report import process


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's options."""
    usual = EditSettings()
    add_pictures(parser, Path("edited"))
    way = add_direction(parser)
    way.add_argument("--direction", type=Path, help="a direction that pix2pix-zero direction saved")
    parser.add_argument("--caption", help="what the pictures show; without it BLIP says so of each")
    add_captioner(parser)
    parser.add_argument(
        "--guidance",
        type=number(float, 0, 1000),
        nargs="+",
        default=[usual.guidance.strength],
        help=f"how strongly the layout is kept; several make a picture each (default: {usual.guidance.strength:g})",
    )
    parser.add_argument(
        "--guidance-unit",
        choices=["normalized", "paper", "share"],
        default=usual.guidance.unit,
        help="share: how much of what the edit would change in the attention is taken away, 0 to 1, the same with "
        f"every model (default: {usual.guidance.unit})",
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
        nargs="+",
        default=[1.0],
        help="1 is the full edit, negative leads the other way; several make a picture each (default: 1)",
    )
    parser.add_argument(
        "--cfg",
        type=number(float, 0, 100),
        default=usual.cfg,
        help=f"how strongly the target text is followed (default: {usual.cfg:g})",
    )
    add_inversion(parser)
    add_model(parser)
    add_device(parser)
    add_workers(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Edit what the options name; returns the exit status."""
    pictures = find_pictures(arguments.pictures)
    model = ModelOptions.of(arguments, captions=arguments.caption is None)
    task = EditTask(
        model,
        edit_settings(arguments),
        arguments.caption,
        arguments.size,
        arguments.output.resolve(),
        arguments.overwrite,
        DirectionOptions.of(arguments, model),
        tuple(product(dict.fromkeys(arguments.guidance), dict.fromkeys(arguments.direction_strength))),
    )
    require_own_names([task.outputs(picture)[0] for picture in pictures])
    return process(
        task,
        pictures,
        output=task.output,
        as_json=arguments.json,
        describe=in_words,
        run=choose_runner(task, task.model, arguments),
    )


def edit_settings(arguments: argparse.Namespace) -> EditSettings:
    """Read the settings; of the guidance's strengths the first."""
    guidance = replace(
        EditSettings().guidance,
        strength=arguments.guidance[0],
        unit=arguments.guidance_unit,
        end=arguments.guidance_end,
    )
    return replace(inversion_settings(arguments), cfg=arguments.cfg, guidance=guidance)


def in_words(row: Row) -> str:
    """What a finished picture's line says."""
    assert row.result is not None
    warning = f"\n  {row.result['warning']}" if "warning" in row.result else ""
    return f"{row.result['caption']!r} -> {', '.join(row.result['outputs'])} ({row.seconds:.1f} s){warning}"


@dataclass(frozen=True)
class EditTask(InvertingTask):
    """Edit a picture in every variant, all from one inversion.

    Attributes:
        direction: which edit.
        variants: strengths of the guidance and of the direction, which those in `settings` give way to.
    """

    direction: DirectionOptions
    variants: tuple[tuple[float, float], ...]

    @property
    def ticks(self) -> int:
        """Steps of a picture: there once, and back in every variant."""
        return self.settings.steps * (1 + len(self.variants))

    def outputs(self, picture: Path) -> list[Path]:
        """Where the variants of a picture go."""
        return [
            self.output / f"{picture.stem}_{self.direction.name}_g{guidance:g}_s{strength:g}.png"
            for guidance, strength in self.variants
        ]

    def finished(self, picture: Path) -> bool:
        """See `Task.finished`."""
        return all(
            self.is_made(path, variant) for path, variant in zip(self.outputs(picture), self.variants, strict=True)
        )

    def is_made(self, path: Path, variant: tuple[float, float]) -> bool:
        """Whether a variant is there, made with these settings.

        Raises:
            UsageError: it was made with others, and may not be replaced.
        """
        return path.exists() and self.is_ours(path, read_text(path, SETTINGS), self.record(variant))

    def record(self, variant: tuple[float, float]) -> str:
        """All settings that a picture depends on, in one line of JSON."""
        guidance, strength = variant
        settings = asdict(replace(self.settings, guidance=self.guidance(guidance)))
        edit = {"direction": self.direction.name, "sha256": self.direction.digest, "strength": strength}
        return json.dumps({**self.describe_inputs(), **edit, **settings})

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

    def edit(self, model: Model, direction: Any, path: Path, tick: Tick) -> dict[str, Any]:
        """Edit a picture in the variants that are not there yet."""
        caption, inverted = self.invert_file(model, path, tick)
        for output, variant in zip(self.outputs(path), self.variants, strict=True):
            if not self.is_made(output, variant):
                guidance, strength = variant
                settings = replace(self.settings, guidance=self.guidance(guidance))
                edited = model.editor.edit(inverted, direction, strength, settings, lambda _: tick())
                write_picture(edited[0], output, {SETTINGS: self.record(variant), "caption": caption})
        named = (source_warning(caption, direction.source, direction.target), note_on(path))
        strengths = dict.fromkeys(strength for _, strength in self.variants)
        remarks = [r for strength in strengths for r in model.editor.shift(inverted, direction, strength).remarks]
        warning = "\n  ".join(dict.fromkeys(filter(None, [*named, *remarks])))
        outputs = [str(output) for output in self.outputs(path)]
        return {"outputs": outputs, "caption": caption, **({"warning": warning} if warning else {})}
