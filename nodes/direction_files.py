"""Edit directions on disk, and their sums: load, save, import the original project's, combine."""

# ComfyUI's base classes leave the arguments of what they call open.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

from pathlib import Path
from typing import Any

from comfy_api.v0_0_2 import io, ui

from ..pix2pix_zero_core import Direction, EditDirection, combine_directions, load_direction
from .directions import COLLECTIONS
from .files import find_file, list_files, new_file
from .text_encoder import encode, encoder_fingerprint
from .types import CATEGORY, DirectionType, search_aliases

SUFFIX, ORIGINAL_SUFFIX = ".safetensors", ".pt"


class LoadEditDirection(io.ComfyNode):
    """Read a direction that Save Edit Direction wrote."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="Pix2PixZeroLoadEditDirection",
            display_name="Load Edit Direction",
            category=CATEGORY,
            **search_aliases("edit embedding", "direction from file"),
            description="Read an edit direction from models/edit_directions. It fits the text encoder that made it.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=[*list_files(SUFFIX), *_shipped()],
                    tooltip="A .safetensors file in models/edit_directions, as Save Edit Direction writes it. Reload "
                    "the page to see new ones. Those of tiny_zoo/ come with the pack, for its own model.",
                )
            ],
            outputs=[DirectionType.Output("direction", display_name="direction", tooltip="For Apply Edit Direction.")],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str) -> int:
        """Tell ComfyUI when the file has changed."""
        return _direction_file(file).stat().st_mtime_ns

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:  # noqa: D102
        return io.NodeOutput(load_direction(_direction_file(file)))


class SaveEditDirection(io.ComfyNode):
    """Write a direction with what it is, what made it and from how many sentences."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="Pix2PixZeroSaveEditDirection",
            display_name="Save Edit Direction",
            category=CATEGORY,
            **search_aliases("edit embedding", "direction to file"),
            description="Write an edit direction to models/edit_directions, to use it again or to pass it on.",
            inputs=[
                DirectionType.Input("direction", tooltip="From Edit Direction or Combine Edit Directions."),
                io.String.Input(
                    "name", default="cat2dog", tooltip="Name of the file in models/edit_directions; no folders."
                ),
                io.Boolean.Input("overwrite", default=False, tooltip="Replace a file of this name. Off: refuse to."),
            ],
            outputs=[],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, direction: Direction, name: str, overwrite: bool) -> io.NodeOutput:  # noqa: D102
        path = new_file(name, SUFFIX, overwrite)
        direction.save(path, overwrite=overwrite)
        return io.NodeOutput(ui=ui.PreviewText(f"{direction.name}, {direction.form}, saved as {path.name}"))


class ImportEditDirection(io.ComfyNode):
    """Make a direction of two mean embeddings of the original project."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        tooltip = (
            "A .pt file of the original project in models/edit_directions: the mean embedding of sentences about {}. "
            "Only tensors are read from it; a file with code is refused."
        )
        return io.Schema(
            node_id="Pix2PixZeroImportEditDirection",
            display_name="Import Edit Direction",
            category=CATEGORY,
            **search_aliases("pt embeddings", "official directions"),
            description="Make an edit direction of two embedding files (.pt) of the original pix2pix-zero. Those it "
            "distributes are for Stable Diffusion 1.4 and its relatives.",
            inputs=[
                io.Clip.Input("clip", tooltip="The text encoder that made the files; they don't say which it was."),
                io.Combo.Input("source", options=list_files(ORIGINAL_SUFFIX), tooltip=tooltip.format("the source")),
                io.Combo.Input("target", options=list_files(ORIGINAL_SUFFIX), tooltip=tooltip.format("the target")),
            ],
            outputs=[DirectionType.Output("direction", display_name="direction", tooltip="For Apply Edit Direction.")],
        )

    @classmethod
    def fingerprint_inputs(cls, source: str, target: str, **inputs: Any) -> list[int]:
        """Tell ComfyUI when a file has changed."""
        return [find_file(name, ORIGINAL_SUFFIX).stat().st_mtime_ns for name in (source, target)]

    @classmethod
    def execute(cls, clip: Any, source: str, target: str) -> io.NodeOutput:  # noqa: D102
        before, after = (find_file(name, ORIGINAL_SUFFIX) for name in (source, target))
        direction = EditDirection.from_embedding_files(before, after, encoder=encoder_fingerprint(clip))
        expected = tuple(encode(clip, [""])[0][0].shape)
        if direction.vector.shape != expected:
            raise ValueError(
                f"{source} and {target} hold {tuple(direction.vector.shape)} (tokens, width), the text encoder makes "
                f"{expected}. Load the checkpoint they were made for, Stable Diffusion 1.4 or a relative of it."
            )
        return io.NodeOutput(direction)


class CombineEditDirections(io.ComfyNode):
    """Add directions: several edits at once."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""

        def weight(name: str) -> io.Float.Input:
            return io.Float.Input(
                name,
                default=1.0,
                min=-10.0,
                max=10.0,
                step=0.05,
                tooltip="-10 to 10: 1 is the whole edit, 0 none of it, negative the reverse.",
            )

        return io.Schema(
            node_id="Pix2PixZeroCombineEditDirections",
            display_name="Combine Edit Directions",
            category=CATEGORY,
            **search_aliases("mix edits", "add directions", "several edits"),
            description="The weighted sum of two edit directions: both edits at once. Chain it for more.",
            inputs=[
                DirectionType.Input("direction_1", tooltip="An edit direction."),
                DirectionType.Input(
                    "direction_2", tooltip="Another one, of the same form and made by the same text encoder."
                ),
                weight("weight_1"),
                weight("weight_2"),
            ],
            outputs=[DirectionType.Output("direction", display_name="direction", tooltip="For Apply Edit Direction.")],
        )

    @classmethod
    def execute(  # noqa: D102
        cls, direction_1: Direction, direction_2: Direction, weight_1: float, weight_2: float
    ) -> io.NodeOutput:
        return io.NodeOutput(combine_directions([(direction_1, weight_1), (direction_2, weight_2)]))


def _shipped() -> dict[str, Path]:
    """Name -> file of every direction that comes with the pack: Tiny Zoo's, since others need the user's encoder."""
    return {
        prefix + path.name: path for prefix, folder in COLLECTIONS.items() for path in sorted(folder.glob(f"*{SUFFIX}"))
    }


def _direction_file(name: str) -> Path:
    shipped = _shipped()
    return shipped[name] if name in shipped else find_file(name, SUFFIX)
