"""Colours for ComfyUI's live preview: the linear map from Tiny Zoo's latents to pictures at an eighth of the size.

    python -m tiny_zoo.preview

prints what `comfy_model.py` holds. It depends on the encoder alone: fit it again when that has been trained again.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .denoiser import TinyZoo
from .training import CHECKPOINT, pictures


@torch.no_grad()
def fit_colours(count: int = 256) -> Tensor:
    """Fit by least squares on drawn pictures.

    Returns:
        (5, 3): red, green and blue, in -1..1, of each channel of a latent, and of the bias.
    """
    images = pictures(count).float() / 255
    latents = TinyZoo.load(CHECKPOINT).vae.encode(images)
    small = F.interpolate(images, latents.shape[-2:], mode="area") * 2 - 1
    channels = F.pad(latents.movedim(1, -1).flatten(0, -2), (0, 1), value=1.0)
    return torch.linalg.lstsq(channels, small.movedim(1, -1).flatten(0, -2)).solution


if __name__ == "__main__":
    for row in fit_colours().tolist():
        print("[" + ", ".join(f"{value:.3f}" for value in row) + "],")
