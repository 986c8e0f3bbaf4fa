"""The gradient of L_pair in the frequency domain, where `regularizer` spends all its iterations.

Along each axis of each level of the pyramid the gradient is a filter with an even spectrum (see `regularizer`).
Hartley's transform, the sum over n of e[n] (cos + sin)(2 pi k n / N) / sqrt(N), is real and its own inverse, and such
filters multiply it as they do Fourier's. Pooling is linear, so the next coarser level's transform is this level's
between two constant matrices. (Bracewell 1983, The discrete Hartley transform.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class Level:
    """Constants of one level of the pyramid, of H x W pixels.

    Attributes:
        row_filter: takes power along the height to the gradient's filter there, (H, H).
        column_filter: the same along the width, (W, W).
        pool_rows: takes this level's transform along the height to that of the next coarser one, (H // 2, H).
        pool_columns: the same along the width, (W, W // 2).
        gain: of pooling and its adjoint together.
    """

    row_filter: Tensor
    column_filter: Tensor
    pool_rows: Tensor
    pool_columns: Tensor
    gain: float


def transform(eps: Tensor) -> Tensor:
    """Transform along both axes, or back again; (B, C, H, W)."""
    rows, columns = (hartley(side, eps.dtype, eps.device) for side in eps.shape[-2:])
    return rows @ eps @ columns


def correlation_gradient(spectrum: Tensor, levels: Sequence[Level]) -> tuple[Tensor, Tensor]:
    """Differentiate L_pair.

    Args:
        spectrum: transform of the noise at the finest of the levels, (B, C, H, W).
        levels: from :func:`pyramid_levels`.

    Returns:
        transform of the gradient, (B, C, H, W), and the summed largest gains of its filters, (B, C).
    """
    level, coarser = levels[0], levels[1:]
    power = spectrum.square()
    by_row, by_column = power.sum(-1) @ level.row_filter, power.sum(-2) @ level.column_filter
    gradient = spectrum * (by_row[..., None] + by_column[..., None, :])
    largest = by_row.abs().amax(-1) + by_column.abs().amax(-1)
    if coarser:
        further, larger = correlation_gradient(level.pool_rows @ spectrum @ level.pool_columns, coarser)
        gradient = gradient + level.pool_rows.mT @ further @ level.pool_columns.mT
        largest = largest + level.gain * larger
    return gradient, largest


@lru_cache(maxsize=8)
def pyramid_levels(
    sizes: tuple[tuple[int, int], ...], gain: float, dtype: torch.dtype, device: torch.device
) -> tuple[Level, ...]:
    """Make the constants of a pyramid.

    Args:
        sizes: height and width of every level, the finest first.
        gain: factor after each 2x2 average pool, half of which belongs to either axis.
        dtype: of the noise.
        device: of the noise.
    """
    # ComfyUI runs nodes in inference mode, whose tensors autograd would refuse ever after.
    with torch.inference_mode(False):
        return tuple(
            Level(
                _filter(height, width).to(device, dtype),
                _filter(width, height).to(device, dtype),
                gain**0.5 * _pool(height).to(device, dtype),
                gain**0.5 * _pool(width).mT.to(device, dtype),
                (gain / 2) ** 2,
            )
            for height, width in sizes
        )


@lru_cache(maxsize=8)
def hartley(side: int, dtype: torch.dtype = torch.float64, device: torch.device = torch.device("cpu")) -> Tensor:  # noqa: B008 (immutable)
    """Make the matrix of the transform, (side, side); symmetric, its own inverse."""
    with torch.inference_mode(False):
        places = torch.arange(side, dtype=torch.float64)
        phase = 2 * torch.pi / side * (torch.outer(places, places) % side)
        return ((phase.cos() + phase.sin()) / side**0.5).to(device, dtype)


def _pool(side: int) -> Tensor:
    """Matrix that averages pairs of pixels, from transform to transform, (side // 2, side); an odd one is left out."""
    half, every = side // 2, hartley(side)
    return hartley(half) @ (every[0 : 2 * half : 2] + every[1 : 2 * half : 2]) / 2


def _filter(n: int, m: int) -> Tensor:
    """Matrix from power, summed over an axis of m, to the filter along one of n: the spectrum of r with r(0) = 0."""
    same = torch.eye(n, dtype=torch.float64)
    even = (same + same.flip(0).roll(1, 0)) / 2
    return 4 / (n * m**2 * (n - 1)) * (even - 1 / n)
