"""Editing in fresh noise: what the texts change of the picture, seen through new noise at every step.

The inversion's noise leads back to the picture. It is the same at every step, and in spite of the regulariser not
quite white: what it makes the model err in adds up from step to step. So a step may ask the model about the picture in
noise n of its own, and take over only what the two texts differ in:

    z_ref = alpha x0 + sigma n,        z = z_ref + (x - x_ref),
    D     = D_ref + D(z, target) - D(z_ref, source),

where x_ref is the inversion's trajectory and D_ref leads along it. With the source as target every step leads back to
the picture, exactly. This is FlowEdit (Kulikov et al., ICCV 2025, arXiv:2412.08629) as a denoiser, which any sampler
can call and cross-attention guidance can lead: the maps are those of z and z_ref. There the source branch is guided as
well; here it follows its text plainly, for a row less.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .schedule import step_at
from .types import Denoiser, Inversion, Prediction


@dataclass(frozen=True)
class FreshNoise:
    """Moves latents from the inversion's noise into new noise, drawn anew for every step of its grid.

    All pictures of a batch are seen in the same noise, so that each is edited as if it were alone.

    Attributes:
        inversion: of the pictures, with its trajectory.
        seed: of the noise.

    Raises:
        ValueError: the inversion has no trajectory.
    """

    inversion: Inversion
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate the trajectory."""
        if self.inversion.trajectory is None:
            raise ValueError(
                "The inversion has no trajectory, and so no picture to look at in fresh noise. Invert a picture, or "
                "set noise_from to inversion."
            )

    def seen(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Find where the model is asked about a latent.

        Args:
            x: latent on its way from the inversion's noise, (B, C, H, W); may require grad.
            sigma: its level, scalar or of every sample, (B,), all the same.

        Returns:
            the same change of the picture, in fresh noise, (B, C, H, W).
        """
        inversion, level = self.inversion, sigma.flatten()[0]
        end = float(inversion.sigmas[-1])
        picture = inversion.replayed(inversion.latent_at(end), end).to(x)
        z_ref = inversion.coordinates.alpha(level) * picture + level * self._noise(float(level)).to(x)
        return z_ref + (x - inversion.latent_at(float(level)).to(x))

    def _noise(self, sigma: float) -> Tensor:
        """That of the step to which a level belongs, (1, C, H, W)."""
        steps = len(self.inversion.sigmas) - 1
        generator = torch.Generator().manual_seed(self.seed * steps + step_at(self.inversion.sigmas, sigma))
        return torch.randn(1, *self.inversion.noise.shape[1:], generator=generator)


@dataclass(frozen=True)
class InFreshNoise:
    """A denoiser that is asked in fresh noise.

    Attributes:
        denoise: the model, guided or not.
        noise: which.
    """

    denoise: Denoiser
    noise: FreshNoise

    def __call__(self, x: Tensor, sigma: Tensor, cond: Any, *, maps: bool = False) -> Prediction:
        """Predict as a :class:`Denoiser`; every sample of the batch is at the same level."""
        return self.denoise(self.noise.seen(x, sigma), sigma, cond, maps=maps)


@dataclass(frozen=True)
class TextDifference:
    """What leads along the inversion, and beside it what the edited picture's text changes: D of this module.

    Attributes:
        guided: predicts the edited picture, in fresh noise.
        denoise: predicts the picture as it is, in the same noise.
        source: conditioning of the picture.
        inversion: of the picture, with its trajectory.
    """

    guided: Denoiser
    denoise: Denoiser
    source: Any
    inversion: Inversion

    def __call__(self, x: Tensor, sigma: Tensor, cond: Any, *, maps: bool = False) -> Prediction:
        """Predict as a :class:`Denoiser`; every sample of the batch is at the same level."""
        edited = self.guided(x, sigma, cond, maps=maps)
        with torch.no_grad():
            unchanged = self.denoise(self.inversion.latent_at(float(sigma[0])).to(x), sigma, self.source)
        return Prediction(along(self.inversion, edited.denoised - unchanged.denoised, float(sigma[0])), edited.maps)


def along(inversion: Inversion, difference: Tensor, sigma: float) -> Tensor:
    """Predict what leads along an inversion, and a difference beside it, (B, C, H, W)."""
    x_ref = inversion.latent_at(sigma).to(difference)
    return inversion.replayed(x_ref, sigma) + difference
