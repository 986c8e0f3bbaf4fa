"""FitPicture: any picture, brought to a size that the model draws."""

# ComfyUI's base classes leave the arguments of what they call open.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import comfy.supported_models
import comfy.utils
from comfy.model_base import ModelType
from comfy_api.v0_0_2 import io
from torch import Tensor
from torch.nn.functional import pad

from ..pix2pix_zero_core.types import check_pictures
from .saying import said
from .types import CATEGORY, search_aliases

FITS = ("keep shape", "crop to square", "pad to square")

GRID = 8  # pixels of a latent
SMALLEST = 64  # pixels: the regularised inversion needs latents of 8 by 8

KEPT = 0.85
"""Share of the picture; where less is left, the node says so. Whole latent pixels alone never cost as much."""


class FitPicture(io.ComfyNode):
    """Scale a picture to what the model was trained on, in whole latent pixels."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="Pix2PixZeroFitPicture",
            display_name="Fit Picture",
            category=CATEGORY,
            **search_aliases("resize", "scale", "crop", "pad", "letterbox", "any size"),
            description="Bring a picture of any size to what the model was trained on, in multiples of 8 pixels.",
            inputs=[
                io.Image.Input("image", tooltip="One picture of any size, or a batch."),
                io.Model.Input(
                    "model", tooltip="The model that edits: the picture is scaled to what it was trained on."
                ),
                io.Combo.Input(
                    "fit",
                    options=list(FITS),
                    default=FITS[0],
                    tooltip="keep shape: as much area as the model was trained on; a few pixels are cut off the edges. "
                    "crop to square: the middle of the picture. pad to square: all of it, its edges drawn out.",
                ),
                io.Int.Input(
                    "side",
                    default=0,
                    min=0,
                    max=8192,
                    step=GRID,
                    optional=True,
                    tooltip="Side of a square with the area of the result, pixels, in multiples of 8 from 64 on. 0: "
                    "what the model was trained on (Stable Diffusion 1.5: 512, XL: 1024).",
                ),
            ],
            outputs=[
                io.Image.Output(
                    "picture",
                    display_name="picture",
                    is_output_list=True,
                    tooltip="The picture, for VAE Encode; those of a batch one by one, each with its own caption.",
                )
            ],
        )

    @classmethod
    def execute(cls, image: Tensor, model: Any, fit: str, side: int = 0) -> io.NodeOutput:  # noqa: D102
        check_pictures(image, "image", channels=(3, 4))
        if fit not in FITS:
            raise ValueError(f"fit is {fit!r}; choose one of {', '.join(FITS)}.")
        side = side or trained_side(model)
        if side < SMALLEST or side % GRID:
            raise ValueError(
                f"side is {side}; it must be a multiple of {GRID} from {SMALLEST} on, or 0 for the model's."
            )
        pictures = image[..., :3].movedim(-1, 1)
        if fit == "pad to square":
            fitted = _pad(pictures, side)
        else:
            keeps = fit == "keep shape"
            height, width = whole_size(pictures.shape[2], pictures.shape[3], side) if keeps else (side, side)
            fitted = comfy.utils.common_upscale(pictures, width, height, "lanczos", "center")
        warning = "" if fit != FITS[0] else cut_warning(image.shape[1:3], fitted.shape[2:])
        if warning:
            logging.warning("Fit Picture: %s", warning)
        return io.NodeOutput(list(fitted.movedim(1, -1).split(1)), ui=said(warning=warning))


def trained_side(model: Any) -> int:
    """Side of the squares that a model was trained on, pixels.

    Args:
        model: a ModelPatcher.
    """
    config = model.model.model_config
    if (side := getattr(config, "picture_side", None)) is not None:  # of the embedded model
        return side
    if isinstance(config, comfy.supported_models.SD20):
        return 768 if model.model.model_type == ModelType.V_PREDICTION else 512
    return 512 if isinstance(config, comfy.supported_models.SD15) else 1024


def whole_size(height: int, width: int, side: int) -> tuple[int, int]:
    """The size of the same shape with the area of a square, in multiples of `GRID` and at least `SMALLEST`.

    Args:
        height: of the picture, pixels.
        width: likewise.
        side: of the square, pixels.

    Returns:
        height and width.
    """
    scale = side / (height * width) ** 0.5
    fitted = (max(SMALLEST, round(length * scale / GRID) * GRID) for length in (height, width))
    return next(fitted), next(fitted)


def cut_warning(picture: Sequence[int], fitted: Sequence[int]) -> str:
    """Say so where much of a picture, (height, width), is cut off to fit a size: where it is long and narrow."""
    height, width = picture
    scale = max(side / length for side, length in zip(fitted, picture, strict=True))
    kept = fitted[0] * fitted[1] / (height * width * scale**2)
    if kept >= KEPT:
        return ""
    return (
        f"The picture is {width} x {height} pixels; {1 - kept:.0%} of it was cut off its edges, since sides are "
        f"multiples of {GRID} from {SMALLEST} on. Raise side, or set fit to {FITS[2]}."
    )


def _pad(pictures: Tensor, side: int) -> Tensor:
    """Scale pictures, (B, C, H, W), into a square and draw their edges out to fill it."""
    height, width = pictures.shape[2:]
    scale = side / max(height, width)
    height, width = (max(1, round(length * scale)) for length in (height, width))
    inside = comfy.utils.common_upscale(pictures, width, height, "lanczos", "disabled")
    left, top = (side - width) // 2, (side - height) // 2
    return pad(inside, (left, side - width - left, top, side - height - top), mode="replicate")
