"""Pictures as users of diffusers pass them: PIL, numpy or torch, one or several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..types import check_pictures

Picture = Image.Image | np.ndarray[Any, Any] | Tensor
"""A PIL image, or values (H, W, 3) or (3, H, W), with a batch axis in front or without; floating point in 0..1, or
integers of 8 bits."""

SLACK = 0.1
"""How far values may lie outside of 0..1 here, where pictures in -1..1 are usual too: sharpening overshoots a bit."""


def read_pictures(pictures: Picture | Sequence[Picture], factor: int) -> Tensor:
    """Bring pictures of any kind into one form.

    Args:
        pictures: one, a batch, or a list of either; all of one size.
        factor: of which their sides have to be multiples, 2 at least: so none is 3, and the axis of the colours is
            known.

    Returns:
        (B, H, W, 3), floating point in 0..1.

    Raises:
        TypeError: no pictures, or values that are neither floating point nor of 8 bits.
        ValueError: another shape, sides that are no multiples, sizes that differ, values outside of 0..1, NaN or Inf,
            or an image that is neither in colour nor grey.
    """
    if isinstance(pictures, (list, tuple)):
        batches = [read_pictures(picture, factor) for picture in cast(Sequence[Picture], pictures)]
        sizes = {f"{batch.shape[2]} x {batch.shape[1]}" for batch in batches}
        if len(sizes) != 1:
            found = f"have the sizes {', '.join(sorted(sizes))}" if sizes else "are an empty list"
            raise ValueError(f"pictures {found}; a call takes one or more of one size. Resize them, or call for each.")
        return torch.cat([batch.float() for batch in batches])
    if isinstance(pictures, Image.Image):
        pictures = _in_colour(pictures)
    if isinstance(pictures, np.ndarray):
        pictures = torch.as_tensor(np.array(pictures, order="C"))  # a copy: some cannot be written to
    if not isinstance(pictures, Tensor):
        raise TypeError(
            f"pictures are of type {type(pictures).__name__}; they must be PIL images, numpy arrays, tensors, or a "
            "list of those. Open a file with PIL.Image.open."
        )
    values = pictures.float() / 255 if pictures.dtype == torch.uint8 else pictures
    values = values[None] if values.ndim == 3 else values
    if values.ndim == 4 and values.shape[1] == 3 != values.shape[-1]:
        values = values.movedim(1, -1)
    if values.ndim != 4 or values.shape[-1] != 3 or any(side % factor for side in values.shape[1:3]):
        raise ValueError(
            f"pictures have shape {tuple(pictures.shape)}; they must be (batch, height, width, 3) or (batch, 3, "
            f"height, width) with sides that are multiples of {factor}. Crop or resize them."
        )
    check_pictures(values, "pictures", slack=SLACK)
    return values.clamp(0, 1)


def _in_colour(image: Image.Image) -> np.ndarray[Any, Any]:
    """Read an image, turned upright: (H, W, 3), 8 bits."""
    if image.mode not in ("RGB", "L"):
        raise ValueError(
            f"pictures: the mode of the image is {image.mode}; it must be RGB or L. Decide what becomes of alpha or of "
            'more than 8 bits: image.convert("RGB") drops both.'
        )
    return np.array(ImageOps.exif_transpose(image).convert("RGB"))
