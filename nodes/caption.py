"""BLIPCaption: say what a picture shows, so that nobody has to write a prompt."""

# ComfyUI's base classes leave the arguments of what they call open.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

from pathlib import Path

import comfy.model_management
import comfy.utils
import torch
from comfy_api.v0_0_2 import io
from torch import Tensor

from ..pix2pix_zero_core.integrations.captioner import Captioner
from ..pix2pix_zero_core.integrations.download import REPOSITORIES, download_blip
from ..pix2pix_zero_core.types import check_pictures
from .files import model_folders, own_folder
from .memory import loaded
from .saying import said
from .types import CATEGORY, search_aliases

KIND = "blip"
"""ComfyUI's model folder for BLIP."""

BATCH = 4
"""Pictures captioned at once; with the beams, as many rows as fit beside the model on a small GPU."""


class BLIPCaption(io.ComfyNode):
    """Caption pictures with BLIP (Li et al. 2022, arXiv:2201.12086)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="Pix2PixZeroBLIPCaption",
            display_name="BLIP Caption",
            category=CATEGORY,
            **search_aliases("describe", "image to text", "interrogate", "prompt from image"),
            description="Describe each picture in one sentence: the source text of an edit.",
            inputs=[
                io.Image.Input("image", tooltip="One picture or a batch, of any size."),
                io.Combo.Input(
                    "model",
                    options=captioners(),
                    tooltip="A folder in models/blip, as downloaded from Hugging Face (Salesforce/blip-image-"
                    "captioning-base or -large). tiny_zoo comes with this pack and knows only Tiny Zoo's pictures.",
                ),
                io.String.Input("prefix", default="", tooltip="How the caption begins, for example: a photo of"),
                io.Int.Input(
                    "max_tokens",
                    default=40,
                    min=1,
                    max=500,
                    tooltip="Longest caption in BLIP's tokens, about one a word: 1 to 500, and no more than the model "
                    "has room for.",
                ),
                io.Int.Input(
                    "beams",
                    default=3,
                    min=1,
                    max=20,
                    tooltip="Width of the beam search, 1 to 20. 1 is greedy and fastest, 3 is what BLIP's authors use.",
                ),
                io.Boolean.Input(
                    "download",
                    default=False,
                    optional=True,
                    tooltip="Fetch blip-image-captioning-base (1 GB) or -large (1.9 GB) from Hugging Face if it is not "
                    "in models/blip yet. Off: nothing is ever downloaded.",
                ),
            ],
            outputs=[
                io.String.Output(
                    "caption", display_name="caption", is_output_list=True, tooltip="One caption a picture."
                )
            ],
        )

    @classmethod
    def execute(  # noqa: D102
        cls, image: Tensor, model: str, prefix: str, max_tokens: int, beams: int, download: bool = False
    ) -> io.NodeOutput:
        check_pictures(image, "image", channels=(3, 4))
        captioner = load_captioner(model, download)
        bar = comfy.utils.ProgressBar(len(image))
        captions: list[str] = []
        with loaded(captioner.model):
            for pictures in image[..., :3].split(BATCH):  # as VAE Encode does with an alpha channel
                comfy.model_management.throw_exception_if_processing_interrupted()
                captions += captioner(pictures, prefix=prefix, max_tokens=max_tokens, beams=beams)
                bar.update_absolute(len(captions))
        return io.NodeOutput(captions, ui=said("\n".join(captions)))


def captioners() -> list[str]:
    """Names of the BLIP models that are there, then of those that can be had."""
    return list(dict.fromkeys([*sorted(model_folders(KIND), key=_embedded_first), *REPOSITORIES]))


def load_captioner(model: str, download: bool = False) -> Captioner:
    """Load a BLIP model into main memory, in half precision where ComfyUI wants that.

    Args:
        model: one of `captioners`.
        download: fetch it if it is missing.

    Raises:
        FileNotFoundError: it is missing, and may not be fetched.
        ValueError: an unknown name, or a broken file.
    """
    folder = _find_or_download(model, download)
    device = comfy.model_management.text_encoder_device()
    half = comfy.model_management.should_use_fp16(device, prioritize_performance=False)
    return Captioner.from_folder(folder, dtype=torch.float16 if half else torch.float32)


def _embedded_first(name: str) -> tuple[bool, str]:
    return name != "tiny_zoo", name


def _find_or_download(model: str, download: bool) -> Path:
    """The folder of a model; a missing one is fetched if that was asked for."""
    folders = model_folders(KIND)
    if model in folders:
        return folders[model]
    if model not in REPOSITORIES:
        raise ValueError(
            f"There is no BLIP model {model!r}; models/blip has: {', '.join(folders)}. Put the model's folder there "
            "and reload the page."
        )
    if not download:
        raise FileNotFoundError(
            f"The BLIP model {model!r} is not there yet. Put the files of {REPOSITORIES[model]} (Hugging Face) into "
            f"{own_folder(KIND) / model}, or switch download on in BLIP Caption to have them fetched once."
        )
    bar = comfy.utils.ProgressBar(1)

    def show(done: int, size: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(done, size)

    download_blip(model, own_folder(KIND) / model, show)
    return own_folder(KIND) / model
