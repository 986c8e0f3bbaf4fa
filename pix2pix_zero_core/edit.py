"""Cross-attention guided editing: two trajectories in lockstep, so that only one step's attention maps are alive.

Parmar et al. (2023), arXiv:2302.03027, section 3.3. At every sigma, descending:

    M_ref   = maps of the reference latent under the source conditioning
    x      <- x - strength * (alpha^2 + sigma^2) * grad_x L_xa(maps of x under the target conditioning, M_ref)
    x_next  = alpha_next D + sigma_next eps,      D = D(x, sigma, target),      eps = (x - alpha D) / sigma

The factor alpha^2 + sigma^2 makes the strength a step on the VP latent, the paper's unit: its root, by which x is
longer than x_vp, enters once through the chain rule and once through the step itself. `MapGuidance.applied` can put the
move after the step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from .attention import map_distance, mean_map_distance
from .coordinates import Coordinates, carried, euler_step
from .share import Aim, Pursuit, unguided_distance
from .types import (
    AttentionMaps,
    Denoiser,
    Edit,
    Inversion,
    MapGuidance,
    OnStep,
    Prediction,
    StepInfo,
    check_latent,
    predict,
)

GuidanceStep = Callable[
    [Denoiser, Tensor, Tensor, Any, AttentionMaps, MapGuidance | Aim, Coordinates], tuple[Tensor, Tensor, Tensor]
]
"""What `map_guidance_step` is. A framework passes its own, to prepare the model for gradients before calling that."""


@dataclass(frozen=True)
class ClassifierFreeGuidance:
    """A denoiser that extrapolates from a negative to the given conditioning (Ho and Salimans, arXiv:2207.12598).

    Its maps are those of the positive row.

    Attributes:
        denoise: the model.
        negative: conditioning to move away from; the source caption for real images, an empty text for synthetic ones.
        scale: 1 is the plain model, which then skips the negative row; the published code uses 5.
        below: highest ratio of noise to signal (VE's sigma) at which it guides; above it is the plain model. Guidance
            at high noise levels moves things, and helps little to change them (Kynkaanniemi et al., NeurIPS 2024,
            arXiv:2404.07724).
        coordinates: of the levels that it is called with.

    Raises:
        ValueError: scale or level is negative, or the scale not finite.
    """

    denoise: Denoiser
    negative: Any
    scale: float = 5.0
    below: float = math.inf
    coordinates: Coordinates = Coordinates.VE

    def __post_init__(self) -> None:
        """Validate scale and level."""
        _check_text_guidance(self)

    def __call__(self, x: Tensor, sigma: Tensor, cond: Any, *, maps: bool = False) -> Prediction:
        """Predict as a :class:`Denoiser`; every sample of the batch is at the same level."""
        positive = self.denoise(x, sigma, cond, maps=maps)
        if not _guides(self, sigma[0]):
            return positive
        with torch.no_grad():  # the maps, which are differentiated, are those of the positive row
            negative = self.denoise(x, sigma, self.negative)
        return Prediction(negative.denoised + self.scale * (positive.denoised - negative.denoised), positive.maps)


@dataclass(frozen=True)
class ReplayedGuidance:
    """Classifier-free guidance away from the picture itself: the negative noise is what the inversion recorded.

    The published method asks the model for the source's noise at the edited latent. Here it is the source's noise at
    the source's latent, which the inversion knows:

        eps = eps_recorded + scale * (eps(x, cond) - eps_recorded)

    No negative row is evaluated, and with the source as ``cond`` every scale leads back to the picture. The idea of
    guiding by the difference to a source branch that is exact is that of Direct Inversion (Ju et al., ICLR 2024) and
    FlowEdit (Kulikov et al., arXiv:2412.08629), taken into classifier-free guidance.

    Attributes:
        denoise: the model.
        inversion: of the picture, with its trajectory.
        scale: as in :class:`ClassifierFreeGuidance`; 1 is the plain model.
        below: as in :class:`ClassifierFreeGuidance`.

    Raises:
        ValueError: scale or level is negative, or the scale not finite, or the inversion has no trajectory.
    """

    denoise: Denoiser
    inversion: Inversion
    scale: float = 3.0
    below: float = math.inf

    @property
    def coordinates(self) -> Coordinates:
        """Of the levels that it is called with."""
        return self.inversion.coordinates

    def __post_init__(self) -> None:
        """Validate scale, level and trajectory."""
        _check_text_guidance(self)
        if self.inversion.trajectory is None:
            raise ValueError("ReplayedGuidance: the inversion has no trajectory. Invert a picture, which records one.")

    def __call__(self, x: Tensor, sigma: Tensor, cond: Any, *, maps: bool = False) -> Prediction:
        """Predict as a :class:`Denoiser`; every sample of the batch is at the same level."""
        positive = self.denoise(x, sigma, cond, maps=maps)
        if not _guides(self, sigma[0]):
            return positive
        negative = self.inversion.replayed(x, float(sigma[0]))
        return Prediction(negative + self.scale * (positive.denoised - negative), positive.maps)


def _guides(guidance: ClassifierFreeGuidance | ReplayedGuidance, sigma: Tensor) -> bool:
    """Whether the negative counts at a level."""
    level = float(guidance.coordinates.noise_to_signal(sigma))
    return guidance.scale != 1 and level <= guidance.below * (1 + 1e-4)  # as `step_at`: the same level may be rounded


def _check_text_guidance(guidance: ClassifierFreeGuidance | ReplayedGuidance) -> None:
    if not (math.isfinite(guidance.scale) and guidance.scale >= 0):
        raise ValueError(f"The classifier-free guidance scale is {guidance.scale}; it must be finite and >= 0.")
    if not guidance.below >= 0:
        raise ValueError(
            f"Classifier-free guidance: below is {guidance.below}; it must be a ratio of noise to signal, >= 0."
        )


@torch.no_grad()
def reconstruct(denoise: Denoiser, inversion: Inversion, source: Any, on_step: OnStep = None) -> Tensor:
    """Sample plainly from the inverted noise; what comes out shows what the inversion lost.

    Args:
        denoise: the model, guided or not.
        inversion: noise and sigmas; the trajectory is not used.
        source: conditioning of the image.
        on_step: called after every step.

    Returns:
        latent at the last sigma, (B, C, H, W).

    Raises:
        ValueError: a prediction holds NaN or Inf.
    """
    x = inversion.noise
    for index, (sigma, sigma_next) in enumerate(pairwise(inversion.sigmas.to(x))):
        denoised = predict(denoise, x, sigma, source).denoised
        if on_step is not None:
            on_step(StepInfo(index, len(inversion.sigmas) - 1, float(sigma), x, denoised))
        x = euler_step(x, denoised, sigma, sigma_next, inversion.coordinates)
    return x


@torch.no_grad()
def edit(
    denoise: Denoiser,
    inversion: Inversion,
    source: Any,
    target: Any,
    *,
    guided: Denoiser | None = None,
    guidance: MapGuidance = MapGuidance(),  # noqa: B008 (immutable)
    guide: GuidanceStep | None = None,
    on_step: OnStep = None,
) -> Edit:
    """Sample the edited image while its cross-attention maps are held to those of the original.

    In the unit "share" an unguided run in a few long steps comes first; see `unguided_distance`.

    Where the inversion kept its trajectory, the reference branch replays it: exact, and one row a guided step (Direct
    Inversion, Ju et al., ICLR 2024). Without one it is sampled alongside with ``guided``.

    Args:
        denoise: the model, one row a sample, with maps and gradients.
        inversion: noise, sigmas and perhaps the trajectory.
        source: conditioning of the original image.
        target: conditioning of the edited image.
        guided: the denoiser that takes the steps, ``ClassifierFreeGuidance(denoise, negative=source)`` say; ``denoise``
            itself if None.
        guidance: strength, unit and time of the cross-attention guidance. Strength 0 is plain sampling, bit for bit.
        guide: computes the move of each guided step, where a framework has to prepare its model for gradients;
            `map_guidance_step` if None.
        on_step: called after every step.

    Returns:
        edited and reference latents, and the loss of every step.

    Raises:
        ValueError: a prediction or a gradient holds NaN or Inf, or the maps of the two branches do not match.
    """
    guided = denoise if guided is None else guided
    guide = map_guidance_step if guide is None else guide
    x = reference = inversion.noise
    trajectory, sigmas, coordinates = inversion.trajectory, inversion.sigmas.to(x), inversion.coordinates
    total, losses = len(sigmas) - 1, list[Tensor]()
    after, pursuit, this_step = guidance.applied == "after", None, guidance
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        active, loss, late_move = guidance.covers(index, total), None, torch.zeros_like(x)
        if active and guidance.unit == "share" and pursuit is None:
            levels = sigmas[[step for step in range(total) if guidance.covers(step, total)]]
            unguided = unguided_distance(denoise, x, levels, source, target, inversion, guided, reference)
            pursuit = Pursuit(unguided, guidance.strength, len(levels))
        reference_maps: AttentionMaps = {}
        if trajectory is None:
            prediction = predict(guided, reference, sigma, source, maps=active)
            reference_maps = prediction.maps
            reference = euler_step(reference, prediction.denoised, sigma, sigma_next, coordinates)
        elif active:
            reference_maps = predict(denoise, trajectory[index], sigma, source, maps=True).maps
        if active:
            this_step = pursuit.aim(sigma) if pursuit else guidance.of_one_step(total)
        if active and after:
            late_move, loss, denoised = guide(guided, x, sigma, target, reference_maps, this_step, coordinates)
        else:
            if active:
                move, loss, _ = guide(denoise, x, sigma, target, reference_maps, this_step, coordinates)
                x = x + move
            denoised = predict(guided, x, sigma, target).denoised
        if pursuit and loss is not None:
            pursuit.reached(sigma, loss)
        if on_step is not None:
            on_step(StepInfo(index, total, float(sigma), x, denoised, loss))
        late_move = carried(late_move, sigma, sigma_next, coordinates)
        x = euler_step(x, denoised, sigma, sigma_next, coordinates) + late_move
        losses.append(x.new_zeros(len(x)) if loss is None else loss)
    return Edit(x, reference if trajectory is None else trajectory[-1], torch.stack(losses))


def map_guidance_step(
    denoise: Denoiser,
    x: Tensor,
    sigma: Tensor,
    target: Any,
    reference_maps: AttentionMaps,
    guidance: MapGuidance | Aim,
    coordinates: Coordinates = Coordinates.VE,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the move of a latent down the gradient of its cross-attention distance to the reference.

    Args:
        denoise: the model; its maps are one row a sample.
        x: edited latent, (B, C, H, W).
        sigma: its level, scalar.
        target: conditioning of the edited image.
        reference_maps: maps of the reference latent at this level.
        guidance: what this one step applies; see `MapGuidance.of_one_step`.
        coordinates: of x and sigma.

    Returns:
        what to add to x, (B, C, H, W), the distance L_xa before it, (B,), and the prediction of x0, (B, C, H, W).

    Raises:
        ValueError: gradient or prediction hold NaN or Inf, the maps do not match or are not differentiable, or the
            guidance is in the unit "share", of which a step applies an `Aim`.
    """
    if isinstance(guidance, MapGuidance) and guidance.unit == "share":
        guidance.of_one_step(1)  # refuses it
    # ComfyUI runs nodes in inference mode, which enable_grad alone does not leave.
    with torch.inference_mode(False), torch.enable_grad():
        leaf = x.detach().clone().requires_grad_()
        prediction = denoise(leaf, sigma.repeat(len(x)), target, maps=True)
        maps, denoised = prediction.maps, prediction.denoised.detach()
        loss = map_distance(maps, reference_maps)
        if not loss.requires_grad:
            raise ValueError(
                "The denoiser's attention maps do not depend on x. A denoiser for guidance must compute them with "
                "gradients wherever gradients are enabled; do not wrap it in no_grad or inference_mode."
            )
        (gradient,) = torch.autograd.grad(loss.sum(), leaf)
    check_latent(denoised, f"The model's prediction at sigma {float(sigma):.4g}")
    check_latent(gradient, f"The gradient of the attention distance at sigma {float(sigma):.4g}")
    loss, variance = loss.detach(), coordinates.variance(sigma)
    if isinstance(guidance, Aim):
        scale = guidance.factor(loss, gradient, variance)
    elif guidance.unit == "paper":
        scale = (guidance.strength * variance).expand(len(x))
    else:
        rms = gradient.square().mean((1, 2, 3)).sqrt()
        length = guidance.strength * mean_map_distance(maps, reference_maps).detach().sqrt() * variance.sqrt()
        scale = torch.where(rms > 0, length / rms, 0)
    return -scale[:, None, None, None] * gradient, loss, denoised
