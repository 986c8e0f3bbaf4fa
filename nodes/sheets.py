"""ValuesToTry and ContactSheet: one edit at several values of a setting, each picture with its value below."""

# ComfyUI's base classes leave the arguments of what they call open.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

import math

import comfy.utils
import torch
from comfy_api.v0_0_2 import io
from torch import Tensor
from torch.nn.functional import pad

from ..pix2pix_zero_core.types import check_pictures
from .types import CATEGORY, search_aliases
from .visualization import captioned

GAP = 8  # pixels between pictures


class ValuesToTry(io.ComfyNode):
    """A list of numbers: what comes after it runs once for each."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="Pix2PixZeroValuesToTry",
            display_name="Values to Try",
            category=CATEGORY,
            **search_aliases("XY plot", "sweep", "list of numbers", "compare settings"),
            description="Several values for one setting: connect them to a number such as strength or cfg, or to "
            "guidance, in share from 0 to 1, and all nodes from there on run once for each. Contact Sheet puts the "
            "pictures together.",
            inputs=[
                io.String.Input("values", default="0, 0.5, 0.75, 1, 1.5", tooltip="Numbers with commas between them."),
                io.String.Input("name", default="strength", tooltip="What is written before each, on a Contact Sheet."),
            ],
            outputs=[
                io.Float.Output(
                    "value", display_name="value", is_output_list=True, tooltip="The numbers, for the setting."
                ),
                io.String.Output(
                    "caption", display_name="caption", is_output_list=True, tooltip="Each in words, for Contact Sheet."
                ),
            ],
        )

    @classmethod
    def execute(cls, values: str, name: str) -> io.NodeOutput:  # noqa: D102
        try:
            numbers = [float(part) for part in values.split(",") if part.strip()]
        except ValueError:
            numbers = []
        if not numbers or not all(map(math.isfinite, numbers)):
            raise ValueError(f"values is {values!r}; write numbers with commas between them: 0.5, 1, 1.5.")
        return io.NodeOutput(numbers, [f"{name} {number:g}".strip() for number in numbers])


class ContactSheet(io.ComfyNode):
    """Pictures in a row, each with a line below."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="Pix2PixZeroContactSheet",
            display_name="Contact Sheet",
            category=CATEGORY,
            **search_aliases("XY plot", "grid", "side by side", "compare settings"),
            description="Put pictures into a row, each with a line below that says which it is.",
            is_input_list=True,
            inputs=[
                io.Image.Input("images", tooltip="The pictures; all are scaled to the size of the first."),
                io.String.Input(
                    "captions", force_input=True, tooltip="A line for each picture, as from Values to Try."
                ),
                io.Image.Input("source", optional=True, tooltip="The picture before the edit, to stand first."),
            ],
            outputs=[io.Image.Output("sheet", display_name="sheet", tooltip="All in one row.")],
        )

    @classmethod
    def execute(  # noqa: D102
        cls, images: list[Tensor], captions: list[str], source: list[Tensor] | None = None
    ) -> io.NodeOutput:
        if not images:
            raise ValueError("images is empty; connect at least one picture to Contact Sheet.")
        for name, batches in (("images", images), ("source", source or [])):
            for batch in batches:
                check_pictures(batch, name, channels=(3, 4))
        lines = [line for text in captions for line in text.splitlines() or [""]]
        pictures = [picture[None] for batch in images for picture in batch]
        if len(lines) != len(pictures):
            raise ValueError(
                f"captions has {len(lines)} lines for {len(pictures)} pictures; connect one line for each picture."
            )
        if source:
            pictures, lines = [source[0][:1], *pictures], ["source", *lines]
        height, width = pictures[0].shape[1:3]
        tiles: list[Tensor] = []
        for picture, line in zip(pictures, lines, strict=True):
            tile = comfy.utils.common_upscale(picture.movedim(-1, 1)[:, :3], width, height, "lanczos", "disabled")
            tiles.append(pad(captioned(tile.movedim(1, -1)[0], line, below=True), (0, 0, 0, GAP), value=1.0))
        return io.NodeOutput(torch.cat(tiles, 1)[None, :, :-GAP])
