"""Distilled edits: small networks that edit a picture in one pass, for previews and video frames."""

# ComfyUI's base classes leave the arguments of what they call open.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

from pathlib import Path

import comfy.model_management
import comfy.utils
import torch
from comfy_api.v0_0_2 import io
from torch import Tensor

from ..pix2pix_zero_core.distillation import DistilledEdit
from ..pix2pix_zero_core.types import check_pictures
from .files import DISTILLED, find_file, list_files
from .memory import loaded
from .saying import said
from .types import CATEGORY, DistilledType, search_aliases

SUFFIX = ".safetensors"
EMBEDDED = Path(__file__).parents[1] / "tiny_zoo" / "distilled"
"""Folder of the edits that come with the pack, for Tiny Zoo's pictures; they are listed with `PREFIX`."""
PREFIX = "tiny_zoo/"


class LoadDistilledEdit(io.ComfyNode):
    """Read an edit that `pix2pix-zero distill` made."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="Pix2PixZeroLoadDistilledEdit",
            display_name="Load Distilled Edit",
            category=CATEGORY,
            **search_aliases("fast edit", "real time", "student network", "pix2pix", "GAN"),
            description="Read an edit that was distilled into a small network, and say what it is. One network knows "
            "one edit.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=[*list_files(SUFFIX, DISTILLED), *_embedded()],
                    tooltip="A .safetensors file in models/distilled_edits, as pix2pix-zero distill writes it. Reload "
                    "the page to see new ones. Those of tiny_zoo/ come with the pack, for its own pictures.",
                )
            ],
            outputs=[DistilledType.Output("distilled", display_name="distilled", tooltip="For Apply Distilled Edit.")],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str) -> int:
        """Tell ComfyUI when the file has changed."""
        return _find(file).stat().st_mtime_ns

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:  # noqa: D102
        half = comfy.model_management.should_use_fp16(
            comfy.model_management.get_torch_device(), prioritize_performance=False
        )
        distilled = DistilledEdit.load(_find(file), torch.float16 if half else torch.float32)
        return io.NodeOutput(distilled, ui=said(f"{distilled.describe()}. {distilled.licence}"))


class ApplyDistilledEdit(io.ComfyNode):
    """Edit pictures in one pass each."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="Pix2PixZeroApplyDistilledEdit",
            display_name="Apply Distilled Edit",
            category=CATEGORY,
            **search_aliases("fast edit", "real time", "video", "edit image", "cat to dog"),
            description="Edit pictures by a distilled edit: one pass of a small network a picture, without a "
            "checkpoint, a caption or a prompt.",
            inputs=[
                DistilledType.Input("distilled", tooltip="The edit, from Load Distilled Edit."),
                io.Image.Input(
                    "image",
                    tooltip="One picture or a batch, of any size; best of the size that the edit learned from.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="0 to 1: share of the edit in the result. 0 is the picture, 1 the edit, between them both "
                    "are blended.",
                ),
            ],
            outputs=[io.Image.Output("edited", display_name="edited", tooltip="The edited pictures.")],
        )

    @classmethod
    def execute(cls, distilled: DistilledEdit, image: Tensor, strength: float) -> io.NodeOutput:  # noqa: D102
        check_pictures(image, "image", channels=(3, 4))
        management = comfy.model_management
        bar, edited = comfy.utils.ProgressBar(len(image)), list[Tensor]()
        weight = distilled.generator.out.weight
        # Its largest layers, before and after they are joined, have about this many values a pixel.
        room = image[0, ..., 0].numel() * 2 * len(weight) * weight.element_size()
        with loaded(distilled.generator, management.get_torch_device(), management.unet_offload_device(), room):
            for picture in image[..., :3].split(1):  # without alpha, as VAE Encode has it
                management.throw_exception_if_processing_interrupted()
                edited.append(distilled.apply(picture, strength))
                bar.update(1)
        return io.NodeOutput(torch.cat(edited))


def _embedded() -> dict[str, Path]:
    """Name -> file of every distilled edit that comes with the pack."""
    return {PREFIX + path.name: path for path in sorted(EMBEDDED.glob(f"*{SUFFIX}"))}


def _find(name: str) -> Path:
    embedded = _embedded()
    return embedded[name] if name in embedded else find_file(name, SUFFIX, DISTILLED)
