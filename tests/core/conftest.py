"""Small denoisers with known properties, shared by the core tests."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from pix2pix_zero_core import Coordinates, Prediction
from pix2pix_zero_core.attention import attention_probabilities

torch.set_num_threads(1)


@dataclass(frozen=True)
class GaussianDenoiser:
    """The exact denoiser of data drawn from N(mean, std^2): its ODE has a closed solution."""

    mean: float = 0.5
    std: float = 0.8
    coordinates: Coordinates = Coordinates.VE

    def __call__(self, x: Tensor, sigma: Tensor, cond: Any, *, maps: bool = False) -> Prediction:
        level = sigma[:, None, None, None]
        alpha = self.coordinates.alpha(level)
        weighted = alpha * self.std**2 * x + level**2 * self.mean
        return Prediction(weighted / (alpha**2 * self.std**2 + level**2))

    def solve(self, x0: Tensor, sigma: float) -> Tensor:
        alpha = float(self.coordinates.alpha(torch.tensor(sigma, dtype=torch.float64)))
        return alpha * self.mean + math.sqrt(alpha**2 * self.std**2 + sigma**2) / self.std * (x0 - self.mean)


@dataclass
class AttentionDenoiser:
    """Two cross-attention layers over 2x2 and 4x4 patches of the latent; cond is (B or 1, L, D)."""

    dtype: torch.dtype = torch.float64
    channels: int = 4
    width: int = 6
    heads: int = 2
    coordinates: Coordinates = Coordinates.VE
    calls: list[tuple[float, bool, bool]] = field(default_factory=list)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(7)

        def weight(*shape: int) -> Tensor:
            return (torch.randn(shape, generator=generator, dtype=torch.float64) / math.sqrt(shape[-2])).to(self.dtype)

        self.layers = {
            f"patch{patch}": (
                patch,
                weight(self.heads, self.channels * patch**2, 8),
                weight(self.heads, self.width, 8),
                weight(self.heads, self.width, self.channels * patch**2),
            )
            for patch in (2, 4)
        }

    def __call__(self, x: Tensor, sigma: Tensor, cond: Tensor, *, maps: bool = False) -> Prediction:
        self.calls.append((float(sigma[0]), maps, torch.is_grad_enabled()))
        level = sigma[:, None, None, None]
        scaled = x / self.coordinates.variance(level).sqrt()
        denoised, recorded = self.coordinates.alpha(level) * scaled / self.coordinates.variance(level).sqrt(), {}
        context = cond.to(x).expand(len(x), -1, -1).unsqueeze(1)
        for name, (patch, to_q, to_k, to_v) in self.layers.items():
            tokens = torch.nn.functional.unfold(scaled, patch, stride=patch).mT.unsqueeze(1)
            probabilities = attention_probabilities(tokens @ to_q, context @ to_k)
            values = (probabilities @ (context @ to_v)).mean(1).mT
            denoised = denoised + 0.3 * torch.nn.functional.fold(values, x.shape[-2:], patch, stride=patch)
            recorded[name] = probabilities
        return Prediction(denoised, recorded if maps else {})


@pytest.fixture
def gaussian() -> GaussianDenoiser:
    return GaussianDenoiser()


@pytest.fixture
def model() -> AttentionDenoiser:
    return AttentionDenoiser()


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def source() -> Tensor:
    return torch.randn(1, 5, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture
def target() -> Tensor:
    return torch.randn(1, 5, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.fixture
def sigmas() -> Tensor:
    return torch.tensor([8.0, 4.0, 2.0, 1.0, 0.5, 0.2, 0.0], dtype=torch.float64)
