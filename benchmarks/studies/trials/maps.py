"""Other attention maps: of self-attention, smaller or fewer; and guidance by them with a weight a step."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pix2pix_zero_core import AttentionMaps, Coordinates, Denoiser, Inversion, MapGuidance, Prediction
from pix2pix_zero_core.attention import attention_probabilities
from pix2pix_zero_core.edit import GuidanceStep, map_guidance_step
from pix2pix_zero_core.schedule import step_at
from pix2pix_zero_core.share import Aim
from pix2pix_zero_core.types import predict

from ...harness.injection import rewritten_attention
from ...harness.sampling import Counted
from ...harness.tasks import Problem
from .trial import Trial


@dataclass(frozen=True)
class SelfAttention(Trial):
    """Guidance holds the self-attention maps of one resolution, too, or those alone.

    Attributes:
        side: of these maps, latent pixels.
        cross: whether the cross-attention maps are held as well.
    """

    side: int = 8
    cross: bool = True

    def model(self, denoise: Counted, problem: Problem, inversion: Inversion) -> Denoiser:
        """What predicts and has maps."""
        unet = denoise.unet

        def with_own(x: Tensor, sigma: Tensor, cond: Tensor, *, maps: bool = False) -> Prediction:
            own: dict[Hashable, Tensor] = {}

            def record(layer: Any, inputs: tuple[Tensor, ...]) -> None:
                if inputs[0].shape[1] == self.side**2:
                    projected = layer.to_q(inputs[0]), layer.to_k(inputs[0])
                    q, k = (t.unflatten(-1, (layer.heads, -1)).transpose(1, 2) for t in projected)
                    own[layer] = attention_probabilities(q, k)

            layers: list[nn.Module] = [layer for name, layer in unet.named_modules() if name.endswith("attn1")]
            hooks = [layer.register_forward_pre_hook(record) for layer in layers if maps]
            try:
                prediction = denoise(x, sigma, cond, maps=maps and self.cross)
            finally:
                for hook in hooks:
                    hook.remove()
            return Prediction(prediction.denoised, {**prediction.maps, **own})

        return with_own


@dataclass(frozen=True)
class SelfAttentionTakenOver(Trial):
    """The reference's self-attention maps are used in place of the edited branch's (Hertz et al.; Plug-and-Play).

    The reference's forward pass is there anyway, for the cross-attention maps: no row more is evaluated.

    Attributes:
        share: of the steps; guidance has to cover them.
    """

    share: float = 0.8

    def model(self, denoise: Counted, problem: Problem, inversion: Inversion) -> Denoiser:
        """What predicts and has maps."""
        of_reference: list[Tensor] = []

        def sharing(x: Tensor, sigma: Tensor, cond: Tensor, *, maps: bool = False) -> Prediction:
            if not maps or step_at(inversion.sigmas, float(sigma[0])) >= self.share * problem.steps:
                return denoise(x, sigma, cond, maps=maps)
            if reference := cond is problem.source:
                of_reference.clear()
            own = iter(of_reference)

            def take_over(probabilities: Tensor) -> Tensor:
                if reference:
                    of_reference.append(probabilities)
                return probabilities if reference else next(own)

            with rewritten_attention(denoise.unet, {"attn1": take_over}):
                return denoise(x, sigma, cond, maps=True)

        return sharing


@dataclass(frozen=True)
class SmallMaps(Trial):
    """Maps that take less memory.

    Attributes:
        heads: whether every head keeps its own, in half precision; else their mean is compared.
    """

    heads: bool = True

    def model(self, denoise: Counted, problem: Problem, inversion: Inversion) -> Denoiser:
        """What predicts and has maps."""

        def with_small(x: Tensor, sigma: Tensor, cond: Tensor, *, maps: bool = False) -> Prediction:
            prediction = denoise(x, sigma, cond, maps=maps)
            small = {
                layer: probabilities.bfloat16() if self.heads else probabilities.mean(1, keepdim=True)
                for layer, probabilities in prediction.maps.items()
            }
            return Prediction(prediction.denoised, small)

        return with_small


@dataclass(frozen=True)
class MapsOfOneSize(Trial):
    """Guidance by the cross-attention maps of one resolution alone.

    Attributes:
        side: of these maps, latent pixels.
    """

    side: int = 8

    def model(self, denoise: Counted, problem: Problem, inversion: Inversion) -> Denoiser:
        """What predicts and has maps."""

        def of_one_size(x: Tensor, sigma: Tensor, cond: Tensor, *, maps: bool = False) -> Prediction:
            prediction = denoise(x, sigma, cond, maps=maps)
            chosen = {layer: p for layer, p in prediction.maps.items() if p.shape[2] == self.side**2}
            return Prediction(prediction.denoised, chosen)

        return of_one_size


@dataclass(frozen=True)
class Scheduled(Trial):
    """Guidance with a weight a step, its total unchanged (SAGE, T-GATE).

    Attributes:
        weights: "decaying" falls linearly to 0 where guidance ends; "every second" leaves out each other step.
    """

    weights: str = "decaying"

    def guide(self, inversion: Inversion) -> GuidanceStep:
        """What computes a move."""
        total = len(inversion.sigmas) - 1

        def step(
            denoise: Denoiser,
            x: Tensor,
            sigma: Tensor,
            target: Any,
            maps: AttentionMaps,
            guidance: MapGuidance | Aim,
            coordinates: Coordinates,
        ) -> tuple[Tensor, Tensor, Tensor]:
            index = step_at(inversion.sigmas, float(sigma))
            if self.weights == "every second" and index % 2:
                return torch.zeros_like(x), x.new_zeros(len(x)), predict(denoise, x, sigma, target).denoised
            start, end = (share * total for share in (self.ours.guidance.start, self.ours.guidance.end))
            weight = 2.0 if self.weights == "every second" else 2 * (end - index) / (end - start)
            move, loss, denoised = map_guidance_step(denoise, x, sigma, target, maps, guidance, coordinates)
            return weight * move, loss, denoised

        return step
