"""What editing and inverting have in common: settings, and the way from a picture's file to its noise."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pix2pix_zero_core import EditSettings, NoiseRegularizer
from pix2pix_zero_core.integrations.diffusers import InvertedPictures

from .jobs import Tick, made_alike
from .model import Model, ModelOptions
from .pictures import place, read_picture

SETTINGS = "pix2pix-zero"
"""Key of the line in a result's metadata that says how it was made."""


def inversion_settings(arguments: argparse.Namespace) -> EditSettings:
    """Read the options of `add_inversion`."""
    regularizer = NoiseRegularizer(arguments.regularization, arguments.kl)
    return EditSettings(arguments.steps, regularizer, arguments.fixed_point)


@dataclass(frozen=True)
class InvertingTask:
    """A task that begins with the inversion of a picture.

    Attributes:
        model: which model.
        settings: of the inversion, and of what follows.
        caption: of every picture; None leaves it to BLIP.
        size: width and height; None is the model's own.
        output: folder of the results.
        searched: folders whose own folders the output repeats; see `place`.
        overwrite: whether results that were made with other settings or of other pictures are replaced.
        flag: the option that names the folder.
    """

    flag: ClassVar[str] = "--output"

    model: ModelOptions
    settings: EditSettings
    caption: str | None
    size: tuple[int, int] | None
    output: Path
    searched: tuple[Path, ...]
    overwrite: bool

    def file(self, picture: Path, ending: str) -> Path:
        """A result of a picture, of which the name begins with the picture's."""
        return self.output / place(picture, self.searched) / f"{picture.stem}{ending}"

    def describe_inputs(self) -> dict[str, Any]:
        """The part of a result's record that says of what it was made."""
        return {"model": self.model.name, "dtype": self.model.dtype, "size": self.size, "caption": self.caption}

    def describe_captioner(self) -> dict[str, Any]:
        """The part that says who captions the pictures, or judges them; nothing where nobody does."""
        return {} if self.model.blip is None else {"blip": str(self.model.blip)}

    def is_ours(self, path: Path, found: str | None, record: str) -> bool:
        """See `made_alike`."""
        return made_alike(path, found, record, overwrite=self.overwrite, flag=self.flag)

    def invert_file(self, model: Model, path: Path, tick: Tick) -> tuple[str, InvertedPictures]:
        """Read a picture, caption it if nobody has, and find its noise; its caption, and what was found."""
        picture = read_picture(path, self.size or (model.editor.side, model.editor.side))
        caption = self.caption
        if caption is None:
            caption = model.captioner(picture)[0] if model.captioner else ""
        return caption, model.editor.invert(picture, [caption], self.settings, lambda _: tick())
