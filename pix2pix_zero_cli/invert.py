"""`pix2pix-zero invert`: the noise of pictures, what samples back from it, and how much was lost."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open

from pix2pix_zero_core import remarks

from .arguments import (
    add_captioner,
    add_device,
    add_inversion,
    add_json,
    add_model,
    add_pictures,
    add_workers,
)
from .cluster import choose_runner
from .inverting import SETTINGS, InvertingTask, inversion_settings
from .jobs import Row, Tick, Work
from .model import Model, ModelOptions
from .pictures import (
    find_pictures,
    name_content,
    note_on,
    require_output_elsewhere,
    require_own_names,
    write,
    write_picture,
)
from .report import process


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's options."""
    add_pictures(parser, Path("inverted"))
    parser.add_argument("--caption", help="what the pictures show; without it BLIP says so of each")
    add_captioner(parser)
    add_inversion(parser)
    add_model(parser)
    add_device(parser)
    add_workers(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Invert pictures; returns the exit status."""
    found = find_pictures(arguments.pictures, recursive=arguments.recursive, output=arguments.output)
    require_output_elsewhere(arguments.pictures, arguments.output)
    task = InvertTask(
        ModelOptions.of(arguments, captions=arguments.caption is None),
        inversion_settings(arguments),
        arguments.caption,
        arguments.size,
        arguments.output.resolve(),
        found.searched,
        arguments.overwrite,
    )
    require_own_names([task.noise(picture) for picture in found.pictures])
    return process(
        task,
        found,
        output=task.output,
        as_json=arguments.json,
        describe=in_words,
        run=choose_runner(task, task.model, arguments),
    )


def in_words(row: Row) -> str:
    """What a finished picture's line says."""
    assert row.result is not None
    warning = f"\n  {row.result['warning']}" if "warning" in row.result else ""
    decibels = row.result["reconstruction_db"]
    return f"{row.result['caption']!r}, reconstructed at {decibels:.1f} dB ({row.seconds:.1f} s){warning}"


@dataclass(frozen=True)
class InvertTask(InvertingTask):
    """Invert a picture and sample it back."""

    @property
    def ticks(self) -> int:
        """Steps of a picture: there and back."""
        return 2 * self.settings.steps

    def record(self, picture: Path) -> str:
        """All that the noise depends on, in one line of JSON: the picture, and the settings."""
        inversion = {name: asdict(self.settings)[name] for name in ("steps", "regularizer", "fixed_point")}
        settings = {**self.describe_inputs(), **self.describe_captioner(), **inversion}
        return json.dumps({"picture": name_content(picture), **settings})

    def noise(self, picture: Path) -> Path:
        """Where the noise of a picture goes; it is written last."""
        return self.file(picture, "_inversion.safetensors")

    def finished(self, picture: Path) -> bool:
        """See `Task.finished`."""
        path = self.noise(picture)
        return path.exists() and self.is_ours(path, _read_record(path), self.record(picture))

    def start(self) -> Work:
        """See `Task.start`."""
        model = self.model.load()

        def work(picture: Path, tick: Tick) -> dict[str, Any]:
            return self.invert(model, picture, tick)

        return work

    def invert(self, model: Model, path: Path, tick: Tick) -> dict[str, Any]:
        """Invert a picture; write its reconstruction and its noise."""
        caption, inverted = self.invert_file(model, path, tick)
        latents = model.editor.reconstruct(inverted, lambda _: tick())
        inversion = inverted.inversion
        assert inversion.trajectory is not None
        x0 = inversion.trajectory[-1]
        decibels = float(10 * (x0.var() / (latents - x0).square().mean()).log10())

        image, noise = self.file(path, "_reconstruction.png"), self.noise(path)
        about = {SETTINGS: self.record(path), "caption": caption}
        write_picture(model.editor.decode(latents)[0], image, about)
        tensors = {"noise": inversion.noise, "sigmas": inversion.sigmas, "trajectory": inversion.trajectory}
        tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        write(noise, safetensors.torch.save(tensors, about))
        said = {"caption": caption, "reconstruction_db": round(decibels, 2)}
        warning = "\n  ".join(filter(None, [note_on(path), remarks.of_reconstruction(decibels)]))
        said |= {"warning": warning} if warning else {}
        said |= {"remarks": [found]} if (found := remarks.of_steps(self.settings.steps)) else {}
        return {"outputs": [str(image), str(noise)], **said}


def _read_record(path: Path) -> str | None:
    """The settings that a noise file was made with; None where it is none of ours."""
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get(SETTINGS)
    except SafetensorError:
        return None
