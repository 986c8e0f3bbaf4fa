"""BLIPCaption: say what a picture shows, so that nobody has to write a prompt."""

# ComfyUI's base classes leave the arguments of what they call open.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.model_patcher
import folder_paths
import torch
from comfy_api.v0_0_2 import io
from torch import Tensor

from ..pix2pix_zero_core.integrations.captioner import Captioner
from .types import CATEGORY


def blip_folders() -> dict[str, Path]:
    """Name -> folder of every BLIP model in ComfyUI's `blip` model folders."""
    folder_paths.add_model_folder_path("blip", str(Path(folder_paths.models_dir) / "blip"))
    roots = [Path(root) for root in folder_paths.get_folder_paths("blip")]
    return {
        config.parent.name: config.parent
        for root in roots
        if root.is_dir()
        for config in sorted(root.glob("*/config.json"))
    }


class BLIPCaption(io.ComfyNode):
    """Caption pictures with BLIP (Li et al. 2022, arXiv:2201.12086)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="Pix2PixZeroBLIPCaption",
            display_name="BLIP Caption",
            category=CATEGORY,
            description="Describe each picture in one sentence: the source text of an edit.",
            inputs=[
                io.Image.Input("image"),
                io.Combo.Input(
                    "model",
                    options=list(blip_folders()),
                    tooltip="A folder in models/blip, as downloaded from Hugging Face (Salesforce/blip-image-"
                    "captioning-base or -large). tiny_zoo comes with this pack and knows only Tiny Zoo's pictures.",
                ),
                io.String.Input("prefix", default="", tooltip="How the caption begins, for example: a photo of"),
                io.Int.Input("max_tokens", default=40, min=1, max=500, tooltip="Longest caption, in BLIP's tokens."),
                io.Int.Input("beams", default=3, min=1, max=20, tooltip="Width of the beam search. 1 is greedy."),
            ],
            outputs=[
                io.String.Output(
                    "caption", display_name="caption", is_output_list=True, tooltip="One caption a picture."
                )
            ],
        )

    @classmethod
    def execute(cls, image: Tensor, model: str, prefix: str, max_tokens: int, beams: int) -> io.NodeOutput:  # noqa: D102
        folders = blip_folders()
        if model not in folders:
            raise ValueError(
                f"There is no BLIP model {model!r}; models/blip has: {', '.join(folders)}. Put the model's folder "
                "there and reload the page."
            )
        device = comfy.model_management.text_encoder_device()
        half = comfy.model_management.should_use_fp16(device, prioritize_performance=False)
        captioner = Captioner.from_folder(folders[model], dtype=torch.float16 if half else torch.float32)
        # In a container: ModelPatcher sets `device` on what it loads, which a transformers model forbids.
        patcher: Any = comfy.model_patcher.ModelPatcher(
            torch.nn.ModuleList([captioner.model]),
            load_device=device,
            offload_device=comfy.model_management.text_encoder_offload_device(),
        )
        comfy.model_management.load_models_gpu([patcher])
        return io.NodeOutput(captioner(image, prefix=prefix, max_tokens=max_tokens, beams=beams))
