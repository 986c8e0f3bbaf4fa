"""Editing in fresh noise: what the texts change of the picture, seen through new noise at every step.

The inversion's noise leads back to the picture. It is the same at every step, and in spite of the regulariser not
quite white: what it makes the model err in adds up from step to step. So a step may ask the model about the picture in
noise n of its own, and take over only what the prediction for the target differs in from that for the source:

    z_ref = alpha x0 + sigma n,        z = z_ref + (x - x_ref),
    D     = D_ref + D(z, target) - D(z_ref, source),

where x_ref is the inversion's trajectory and D_ref leads along it. This is FlowEdit (Kulikov et al., ICCV 2025,
arXiv:2412.08629) as a denoiser, which any sampler can call and cross-attention guidance can lead: the maps are those of
z and z_ref. As there both branches have classifier-free guidance, the source's less: what guidance does to any picture
is the same on both sides and cancels, and the difference of the texts remains. And as there the first steps, which
settle what stands where, take nothing over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .schedule import first_step, step_at
from .types import Denoiser, Inversion, MapGuidance, Prediction

SOURCE_GUIDED = 0.625
"""How much of what classifier-free guidance adds to the target's prediction the source's gets as well."""


def source_scale(scale: float, share: float = SOURCE_GUIDED) -> float:
    """Find the scale of classifier-free guidance of the source from that of the target: up to 1 it is the same."""
    return scale if scale < 1 else 1 + share * (scale - 1)


@dataclass(frozen=True)
class FreshNoise:
    """Moves latents from the inversion's noise into new noise, another for every step of the inversion's grid.

    A level belongs to the step that begins there. Every second step sees the noise of the one before with its sign
    turned: of what the model errs in, the part that is odd in the noise cancels (antithetic variates, Hammersley and
    Morton 1956). All pictures of a batch are seen in the same noise, so that each is edited as if it were alone.

    Attributes:
        inversion: of the pictures, with its trajectory.
        where: level -> weights of where pictures may change, (B or 1, 1, H, W), 0 to 1: elsewhere x is led by something
            else (a noise mask), and z is z_ref. None is everywhere.

    Raises:
        ValueError: the inversion has no trajectory.
    """

    inversion: Inversion
    where: Callable[[Tensor], Tensor] | None = None

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
            z, the same change of the picture in fresh noise, (B, C, H, W).
        """
        level = sigma.flatten()[0]
        change = x - self.inversion.latent_at(float(level)).to(x)
        if self.where is not None:
            change = self.where(sigma).to(x) * change
        z_ref = self.inversion.coordinates.alpha(level) * self._picture.to(x) + level * self._noise(float(level)).to(x)
        return z_ref + change

    @cached_property
    def _picture(self) -> Tensor:
        """x0, also where the trajectory ends at a noisy latent, (B, C, H, W)."""
        end = float(self.inversion.sigmas[-1])
        return self.inversion.replayed(self.inversion.latent_at(end), end)

    def _noise(self, sigma: float) -> Tensor:
        """That of the step to which a level belongs, (1, C, H, W)."""
        pair, second = divmod(step_at(self.inversion.sigmas, sigma), 2)
        noise = torch.randn(1, *self.inversion.noise.shape[1:], generator=torch.Generator().manual_seed(pair))
        return -noise if second else noise


class Remembering:
    """A denoiser that knows its last prediction: what guidance asks of the picture, the step after it asks again."""

    def __init__(self, denoise: Denoiser) -> None:
        """Wrap a model."""
        self.denoise = denoise
        self._last: tuple[float, Any, Tensor, Tensor] | None = None

    def __call__(self, x: Tensor, sigma: Tensor, cond: Any, *, maps: bool = False) -> Prediction:
        """Predict as a :class:`Denoiser`; every sample of the batch is at the same level."""
        level = float(sigma[0])
        if self._last is not None and not (maps or x.requires_grad):
            known, of, at, denoised = self._last
            if level == known and cond is of and torch.equal(x, at):
                return Prediction(denoised)
        prediction = self.denoise(x, sigma, cond, maps=maps)
        if not prediction.denoised.requires_grad:
            self._last = level, cond, x.clone(), prediction.denoised  # samplers may change x in place
        return prediction


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
        guided: the model with classifier-free guidance, which predicts the edited picture.
        unchanged: predicts the picture as it is: the model with classifier-free guidance of :func:`source_scale`. Where
            guidance of the maps asks the model as well, let one :class:`Remembering` answer both.
        source: conditioning of the picture.
        noise: in which both are asked.
        start: fraction of the inversion's steps before which nothing is taken over.

    Raises:
        ValueError: start is no fraction.
    """

    guided: Denoiser
    unchanged: Denoiser
    source: Any
    noise: FreshNoise
    start: float = 0.0

    def __post_init__(self) -> None:
        """Validate the start."""
        if not 0 <= self.start <= 1:
            raise ValueError(f"TextDifference: start is {self.start}; it must be between 0 and 1.")

    def __call__(self, x: Tensor, sigma: Tensor, cond: Any, *, maps: bool = False) -> Prediction:
        """Predict as a :class:`Denoiser`; every sample of the batch is at the same level."""
        inversion, level = self.noise.inversion, float(sigma[0])
        begun = has_begun(inversion, level, self.start)
        if not (begun or maps):
            return Prediction(along(inversion, torch.zeros_like(x), level))
        edited = self.guided(self.noise.seen(x, sigma), sigma, cond, maps=maps)
        if not begun:
            return Prediction(along(inversion, torch.zeros_like(x), level), edited.maps)
        with torch.no_grad():
            z_ref = self.noise.seen(inversion.latent_at(level).to(x), sigma)
            unchanged = self.unchanged(z_ref, sigma, self.source)
        return Prediction(along(inversion, edited.denoised - unchanged.denoised, level), edited.maps)


def has_begun(inversion: Inversion, sigma: float, start: float) -> bool:
    """Whether a fraction of the inversion's steps is done at a level."""
    return step_at(inversion.sigmas, sigma) >= first_step(len(inversion.sigmas) - 1, start)


def guided_from(guidance: MapGuidance, start: float) -> MapGuidance:
    """Guide as `guidance` says, but no step in which nothing is taken over.

    Args:
        guidance: of the maps.
        start: of :class:`TextDifference`.

    Returns:
        the guidance that begins there, if it would earlier; where it would end before, it guides no step.
    """
    first = max(guidance.start, start)
    return replace(guidance, start=first, end=max(first, guidance.end))


def along(inversion: Inversion, difference: Tensor, sigma: float) -> Tensor:
    """Predict what leads along an inversion, and a difference beside it, (B, C, H, W)."""
    x_ref = inversion.latent_at(sigma).to(difference)
    return inversion.replayed(x_ref, sigma) + difference
