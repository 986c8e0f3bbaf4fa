"""Distances of pictures that need no network, as torchmetrics computes them, which PIE-Bench uses."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SIGMA, SIDE = 1.5, 11
"""Of the Gaussian window in which :func:`ssim` looks, and its side in pixels."""

STABILISERS = (0.01**2, 0.03**2)
"""What keeps :func:`ssim` from dividing by nothing, for values in 0..1."""


def mse(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared error of pictures (B, 3, H, W) in 0..1 from others, (B,)."""
    return (a - b).square().mean((1, 2, 3))


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of pictures (B, 3, H, W) in 0..1 to others, dB, (B,); infinite if they are equal."""
    return -10 * mse(a, b).log10()


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004) of pictures (B, 3, H, W) in 0..1 to others, (B,); sides of at least 11.

    Means, variances and covariance are those of every channel in a Gaussian window round each pixel, without the
    pixels whose window reaches beyond the picture.
    """
    at = torch.arange(SIDE, dtype=a.dtype, device=a.device) - SIDE // 2
    window = torch.exp(-(at / SIGMA).square() / 2)
    kernel = (window[:, None] * window / window.sum().square()).expand(3, 1, SIDE, SIDE)

    def smoothed(x: Tensor) -> Tensor:
        return F.conv2d(x, kernel, groups=3)

    mean_a, mean_b = smoothed(a), smoothed(b)
    variances = smoothed(a * a) - mean_a.square() + smoothed(b * b) - mean_b.square()
    covariance = smoothed(a * b) - mean_a * mean_b
    c1, c2 = STABILISERS
    brightness = (2 * mean_a * mean_b + c1) / (mean_a.square() + mean_b.square() + c1)
    return (brightness * (2 * covariance + c2) / (variances + c2)).mean((1, 2, 3))
