"""The nouns of pix2pix-zero: what a denoiser is, what the loops take and what they return."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from .coordinates import Coordinates
from .schedule import check_sigmas, first_step, step_at

AttentionMaps = Mapping[Hashable, Tensor]
"""Cross-attention probabilities: layer key -> (B, h, N, L), float32, each row over the L tokens sums to 1."""


@dataclass(frozen=True)
class Prediction:
    """What a denoiser says about one noisy latent.

    Attributes:
        denoised: the model's estimate of x0, (B, C, H, W), float32 or better.
        maps: cross-attention probabilities of the same forward pass; empty unless they were asked for.
    """

    denoised: Tensor
    maps: AttentionMaps = field(default_factory=dict[Hashable, Tensor])


class Denoiser(Protocol):
    """The one contract between the method and a model; guidance and model families are wrappers that keep it."""

    def __call__(self, x: Tensor, sigma: Tensor, cond: Any, *, maps: bool = False) -> Prediction:
        """Predict x0 from x = alpha * x0 + sigma * eps.

        Args:
            x: latent in the model's own coordinates, VE for diffusion models, (B, C, H, W). Where gradients are
                enabled, the prediction and its maps are differentiable in x.
            sigma: noise level of every sample in the same coordinates (time, in a flow), (B,), positive.
            cond: text conditioning; its type is between the caller and the denoiser, this package only passes it on.
            maps: also return the cross-attention probabilities, differentiable in x as well. Asking for them does not
                change ``denoised``.
        """
        ...


@dataclass(frozen=True)
class StepInfo:
    """One finished step of a loop, for progress bars and previews.

    Attributes:
        index: number of this step, from 0.
        total: number of steps T.
        sigma: noise level at which the step began, in the model's coordinates.
        x: the latent there, (B, C, H, W); where the step was guided, after the move.
        denoised: the estimate of x0 there, (B, C, H, W).
        loss: cross-attention distance to the reference before the move, (B,); None where nothing was guided.
    """

    index: int
    total: int
    sigma: float
    x: Tensor
    denoised: Tensor
    loss: Tensor | None = None


OnStep = Callable[[StepInfo], None] | None
"""Called after every step. What it raises (an interrupt, say) ends the loop and reaches the caller."""


@dataclass(frozen=True)
class NoiseRegularizer:
    """How predicted noise is pushed towards white noise during inversion (arXiv:2302.03027, section 3.1).

    An iteration is ``eps <- eps - strength * grad L_pair``, then ``eps <- eps - kl_strength * grad L_KL``, where L_pair
    penalises spatial correlation and L_KL a mean and variance other than 0 and 1.

    The default strength is cautious. Measured on 4-channel test noise, five iterations of 2 move white noise by 0.5 %
    of its norm at 64x64 (2 % at 16x16), and noise of which a tenth of the variance is blurred over 5x5 pixels by 2 %
    (5 %), whose L_pair they cut to 36 % (47 %); its variance stays within 3 %. The published 20 would move the latter
    by 7 % (16 %) and take its L_pair below that of white noise: it whitens what is no defect.

    Attributes:
        strength: step along the gradient of L_pair; the published code's lambda_ac, there 20. 0 leaves the term out.
        kl_strength: step along the gradient of L_KL; the published code's lambda_kl, there 20. 0 leaves the term out.
        iterations: gradient iterations on every predicted noise.
        shifts: "all" takes L_pair over every circular shift, exactly, with steps that neither overshoot nor drain the
            noise's energy; "random" is the paper's form, plain steps along shifts drawn anew each time, whose expected
            loss is that of "all" over the shifts it draws from: those shorter than half of a
            level's shorter side.
        rolls: "random" only: draws an iteration, each a step of ``strength / rolls``.
        pool_gain: factor after each 2x2 average pool of the pyramid: 2 keeps unit variance, as in the paper; 1 is the
            published code's, with which the coarse levels nearly vanish.

    Raises:
        ValueError: a setting is out of range.
    """

    strength: float = 2.0
    kl_strength: float = 20.0
    iterations: int = 5
    shifts: Literal["all", "random"] = "all"
    rolls: int = 5
    pool_gain: float = 2.0

    def __post_init__(self) -> None:
        """Validate the settings."""
        for name in ("strength", "kl_strength"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"NoiseRegularizer: {name} is {value}; it must be finite and >= 0 (0 turns it off).")
        if self.iterations < 0:
            raise ValueError(f"NoiseRegularizer: iterations is {self.iterations}; it must be >= 0 (0 turns it off).")
        if self.shifts not in ("all", "random"):
            raise ValueError(f'NoiseRegularizer: shifts is {self.shifts!r}; it must be "all" or "random".')
        if self.rolls < 1:
            raise ValueError(f"NoiseRegularizer: rolls is {self.rolls}; it must be >= 1.")
        if not (math.isfinite(self.pool_gain) and self.pool_gain > 0):
            raise ValueError(f"NoiseRegularizer: pool_gain is {self.pool_gain}; it must be a finite number > 0.")


@dataclass(frozen=True)
class MapGuidance:
    """How far, and when, the edited latent moves to bring its cross-attention maps back to the reference's.

    Attributes:
        strength: size of the move. 0 turns guidance off: no gradient is taken.
        unit: of ``strength``. "paper": the step along the gradient with respect to the VP latent (the published code
            uses 0.1 for real and 0.15 for synthetic images); its effect grows with the number of attention layers and
            with the latent's size. "normalized": the VP latent moves, along the same gradient, by an RMS of
            ``strength`` times the RMS distance of the maps, over all steps of a run together: each of T steps makes
            1/T of the move. That carries over from one size and number of steps to another, and from one model to
            another whose maps answer to the latent alike. "share": how much of L_xa, the squared distance of the maps
            that an unguided run would have, the guidance is to take away: 0 none, 0.5 half of it, 1 as much as it can.
            It is measured on every picture, and what is not reached is pursued: see `pix2pix_zero_core.share`.
        start: guided from this fraction of the steps on, 0 to 1.
        end: guided up to this fraction of the steps, 0 to 1.
        applied: "before" the sampler's step, which then predicts at the moved latent, as in the paper; or "after" it:
            one pass of the model gives the gradient and the prediction, as in Diffusion Posterior Sampling (Chung et
            al., arXiv:2209.14687) and SAGE (arXiv:2505.09571). That saves a row a guided step, but nothing corrects
            what is applied last: end guidance at 0.8 or so.

    Raises:
        ValueError: a setting is out of range.
    """

    strength: float = 0.1
    unit: Literal["paper", "normalized", "share"] = "paper"
    start: float = 0.0
    end: float = 1.0
    applied: Literal["before", "after"] = "before"

    def __post_init__(self) -> None:
        """Validate the settings."""
        if not (math.isfinite(self.strength) and self.strength >= 0):
            raise ValueError(
                f"MapGuidance: strength is {self.strength}; it must be a finite number >= 0 (0 turns guidance off)."
            )
        if self.unit not in ("paper", "normalized", "share"):
            raise ValueError(f'MapGuidance: unit is {self.unit!r}; it must be "paper", "normalized" or "share".')
        if self.unit == "share" and self.strength > 1:
            raise ValueError(
                f'MapGuidance: strength is {self.strength}; in the unit "share" it must be between 0 (none) and 1 (as '
                "much as guidance can take away). Lower the guidance, or set its unit to normalized."
            )
        if not 0 <= self.start <= self.end <= 1:
            raise ValueError(
                f"MapGuidance: start is {self.start} and end is {self.end}; they are fractions of the steps with "
                "0 <= start <= end <= 1."
            )
        if self.applied not in ("before", "after"):
            raise ValueError(f'MapGuidance: applied is {self.applied!r}; it must be "before" or "after" (the step).')

    def covers(self, index: int, total: int) -> bool:
        """Whether step ``index`` of ``total`` is guided."""
        return self.strength > 0 and first_step(total, self.start) <= index < first_step(total, self.end)

    def steps(self, total: int) -> int:
        """How many of ``total`` steps are guided."""
        return sum(self.covers(index, total) for index in range(total))

    def of_one_step(self, total: int) -> MapGuidance:
        """What one of ``total`` steps applies; in the unit "share" that is for `Pursuit` to say.

        Args:
            total: number of steps T.

        Raises:
            ValueError: the unit is "share".
        """
        if self.unit == "share":
            raise ValueError(
                'MapGuidance: the unit "share" is a share of the distance of an unguided run, which is missing. '
                "Measure it with unguided_distance, or set the unit to normalized."
            )
        return replace(self, strength=self.strength / total) if self.unit == "normalized" else self


RECOMMENDED = MapGuidance(0.2, "share", start=0.2, end=0.6, applied="after")
"""The guidance of the ComfyUI nodes and of the command line; `EditSettings` has all that goes with it."""


@dataclass(frozen=True)
class Inversion:
    """Where sampling starts, and how it got there.

    Attributes:
        noise: the latent at ``sigmas[0]``, (B, C, H, W), float32 or better.
        sigmas: the sampling grid, (T+1,), strictly descending; the last is 0 or the model's smallest sigma.
        trajectory: the latent at every sigma, (T+1, B, C, H, W): ``trajectory[i]`` belongs to ``sigmas[i]``,
            ``trajectory[0]`` is ``noise`` and ``trajectory[-1]`` is the image's latent. None for random noise.
        residual: RMS by which the last refinement that counts changed each step's noise, (T, B), in units of the
            noise's standard deviation: where the steps converge, by how much the noise before it missed the implicit
            equation. ``residual[i]`` belongs to the step between ``sigmas[i]`` and ``sigmas[i+1]``. None where nothing
            was refined.
        coordinates: of all latents and sigmas.

    Raises:
        ValueError: a shape does not fit, a latent holds NaN or Inf, or the sigmas do not descend or are no levels of
            the coordinates.
    """

    noise: Tensor
    sigmas: Tensor
    trajectory: Tensor | None = None
    residual: Tensor | None = None
    coordinates: Coordinates = Coordinates.VE

    def __post_init__(self) -> None:
        """Validate shapes and values."""
        check_sigmas(self.sigmas, self.coordinates)
        check_latent(self.noise, "Inversion: noise")
        steps, batch = len(self.sigmas) - 1, len(self.noise)
        expected = (steps + 1, *self.noise.shape)
        if self.trajectory is not None and self.trajectory.shape != expected:
            raise ValueError(
                f"Inversion: trajectory has shape {tuple(self.trajectory.shape)}; for these sigmas and this noise it "
                f"must be {expected}. Invert again with the sigmas that are used for sampling."
            )
        if self.trajectory is not None and not bool(torch.isfinite(self.trajectory).all()):
            raise ValueError("Inversion: trajectory holds NaN or Inf. Invert again, with the model in float32.")
        if self.residual is not None and self.residual.shape != (steps, batch):
            raise ValueError(
                f"Inversion: residual has shape {tuple(self.residual.shape)}; it must be {(steps, batch)} (steps, "
                "batch)."
            )

    def to(self, other: Tensor) -> Inversion:
        """Move the latents to the device of a tensor."""
        trajectory = None if self.trajectory is None else self.trajectory.to(other.device)
        return replace(self, noise=self.noise.to(other.device), trajectory=trajectory)

    def of(self, pictures: Sequence[int]) -> Inversion:
        """Take some pictures out of the batch.

        Args:
            pictures: their numbers, from 0.
        """
        rows = list(pictures)
        trajectory = None if self.trajectory is None else self.trajectory[:, rows]
        residual = None if self.residual is None else self.residual[:, rows]
        return replace(self, noise=self.noise[rows], trajectory=trajectory, residual=residual)

    def latent_at(self, sigma: float) -> Tensor:
        """Find the latent of the recorded trajectory at any noise level.

        Along a step x = alpha x0 + sigma eps with one x0 and one eps: what lies between its ends is exact as well.

        Args:
            sigma: the level; beyond the ends of the grid its end counts.

        Returns:
            latent, (B, C, H, W).

        Raises:
            ValueError: the inversion kept no trajectory.
        """
        begin, end, sigmas = self._step_at(sigma)
        (alpha, alpha_next), (sigma_begin, sigma_next) = self.coordinates.alpha(sigmas), sigmas
        level = sigmas.new_tensor(sigma).clamp(sigma_next, sigma_begin)
        kept = self.coordinates.alpha(level)
        span = alpha * sigma_next - alpha_next * sigma_begin
        of_begin = (kept * sigma_next - alpha_next * level) / span
        of_end = (alpha * level - kept * sigma_begin) / span
        return of_begin * begin + of_end * end

    def noise_at(self, sigma: float) -> Tensor:
        """Recall the noise that the inversion found for the step to which a noise level belongs.

        Args:
            sigma: the level; beyond the ends of the grid its first or last step counts.

        Returns:
            eps in units of its standard deviation, (B, C, H, W): that of which both ends of the step are made.

        Raises:
            ValueError: the inversion kept no trajectory.
        """
        begin, end, sigmas = self._step_at(sigma)
        (alpha, alpha_next), (sigma_begin, sigma_next) = self.coordinates.alpha(sigmas), sigmas
        return (alpha * end - alpha_next * begin) / (alpha * sigma_next - alpha_next * sigma_begin)

    def replayed(self, x: Tensor, sigma: float) -> Tensor:
        """Find what is to be predicted at any latent for a step that follows the recorded noise.

        Args:
            x: latent at the level, (B, C, H, W).
            sigma: the level.

        Returns:
            x0 if the noise in x is that of :meth:`noise_at`, (B, C, H, W). Where all is noise x says nothing of x0:
            there it is the x0 of the recorded step.

        Raises:
            ValueError: the inversion kept no trajectory.
        """
        level, eps = x.new_tensor(sigma), self.noise_at(sigma).to(x)
        if self.coordinates.alpha(level) > 0:
            return self.coordinates.image(x, eps, level)
        _, end, sigmas = self._step_at(sigma)
        return self.coordinates.image(end, self.noise_at(sigma), sigmas[1]).to(x)

    def _step_at(self, sigma: float) -> tuple[Tensor, Tensor, Tensor]:
        """The recorded step to which a level belongs: the latents at its ends, and their sigmas, (2,)."""
        if self.trajectory is None:
            raise ValueError("Inversion: there is no trajectory. Invert a picture, which records one.")
        index = step_at(self.sigmas, sigma)
        return self.trajectory[index], self.trajectory[index + 1], self.sigmas[index : index + 2].to(self.trajectory)


@dataclass(frozen=True)
class Edit:
    """The result of an edit.

    Attributes:
        edited: latent of the edited image, (B, C, H, W).
        reference: latent of the unedited image as the reference branch ends, (B, C, H, W).
        loss: cross-attention distance of the edited to the reference branch before the move of each step, (T, B);
            0 where a step was not guided.
    """

    edited: Tensor
    reference: Tensor
    loss: Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """Promote half precision to float32; float32 and float64 stay."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


OVERSHOOT = 0.5
"""How far values of pictures may lie outside of 0..1: bicubic resizes of hard edges go nearly as far."""


def check_pictures(
    images: Tensor, name: str = "images", channels: tuple[int, ...] = (3,), slack: float = OVERSHOOT
) -> None:
    """Require finite pictures of shape (B, H, W, C), with values in 0..1 or hardly beyond.

    Args:
        images: anything.
        name: of it, in the message.
        channels: how many there may be; 4 with alpha.
        slack: how far values may lie outside.

    Raises:
        TypeError: not floating point.
        ValueError: another shape, an empty one, NaN or Inf, or values further outside.
    """
    if not images.is_floating_point():
        raise TypeError(f"{name}: dtype {images.dtype}; pictures are floating point, with values in 0..1.")
    if images.ndim != 4 or images.shape[-1] not in channels or images.numel() == 0:
        raise ValueError(
            f"{name}: shape {tuple(images.shape)}; pictures are (batch, height, width, "
            f"{' or '.join(map(str, channels))} channels), not empty."
        )
    if not bool(torch.isfinite(images).all()):
        raise ValueError(f"{name}: NaN or Inf. Check the node that made it; a VAE may have to run in float32.")
    lowest, highest = float(images.min()), float(images.max())
    if lowest < -slack or highest > 1 + slack:
        raise ValueError(
            f"{name}: values from {lowest:g} to {highest:g}; they must be from 0 to 1. Divide pictures of 8 bits by "
            "255, and map those from -1 to 1 onto it."
        )


def check_latent(x: Tensor, name: str) -> None:
    """Require a finite floating-point latent of shape (B, C, H, W).

    Raises:
        TypeError: x is not floating point.
        ValueError: another number of dimensions, an empty one, or NaN or Inf.
    """
    if not x.is_floating_point():
        raise TypeError(f"{name} has dtype {x.dtype}; it must be floating point.")
    if x.ndim != 4 or x.numel() == 0:
        raise ValueError(f"{name} has shape {tuple(x.shape)}; it must be (batch, channels, height, width), none 0.")
    broken = int((~torch.isfinite(x)).sum())
    if broken:
        raise ValueError(
            f"{name} holds NaN or Inf ({broken} of {x.numel()} values). Check the step that made it; the usual cause "
            "is a VAE or a model that overflows in half precision: run that one in float32."
        )


def predict(denoise: Denoiser, x: Tensor, sigma: Tensor, cond: Any, *, maps: bool = False) -> Prediction:
    """Call a denoiser with one noise level for the whole batch, and refuse what is not finite.

    Raises:
        ValueError: the prediction holds NaN or Inf.
    """
    prediction = denoise(x, sigma.expand(len(x)), cond, maps=maps)
    check_latent(prediction.denoised, f"The model's prediction at sigma {float(sigma):.4g}")
    return prediction
