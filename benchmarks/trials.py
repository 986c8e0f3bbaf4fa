"""Ideas of later work, tried on top of ours: `python -m benchmarks.trials`, on validation scenes.

Each is ours with one thing changed. What gains becomes a setting of the core and a row of the ablation; the others stay
here, for who would try them on another model. Writes `results/trials.md`. Interrupted, it goes on where it was.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, pad

from pix2pix_zero_core import (
    AttentionMaps,
    Coordinates,
    Denoiser,
    Inversion,
    MapGuidance,
    Prediction,
    ReplayedGuidance,
    edit,
    invert,
)
from pix2pix_zero_core.attention import attention_probabilities
from pix2pix_zero_core.edit import GuidanceStep, map_guidance_step
from pix2pix_zero_core.schedule import ddim_sigmas, step_at
from pix2pix_zero_core.types import Aim, predict

from .harness.cells import RESULTS, Bench, add_options, write_text
from .harness.injection import rewritten_attention
from .harness.methods import Counted, Pix2PixZero, adjust
from .harness.report import table
from .harness.sharing import add_processes
from .harness.tasks import PAPER_TASKS, TASKS, Problem
from .tune import before_finals, try_all


@dataclass(frozen=True)
class Trial:
    """Ours as it is; what is derived from it changes one of its parts.

    Attributes:
        ours: settings.
    """

    ours: Pix2PixZero

    def __call__(self, denoise: Counted, problem: Problem) -> Tensor:
        """Edit as a `Method`."""
        sigmas, source = ddim_sigmas(denoise.model.sigmas, problem.steps), problem.source
        inversion = invert(
            denoise, problem.x0, source, sigmas, self.ours.regularizer, fixed_point=self.ours.fixed_point
        )
        model = self.model(denoise, problem, inversion)
        return edit(
            model,
            inversion,
            source,
            self.target(problem),
            guided=self.guided(model, problem, inversion),
            guidance=self.ours.guidance,
            guide=self.guide(inversion),
        ).edited

    def target(self, problem: Problem) -> Tensor:
        """Embeddings of the edited pictures, (B, 77, D)."""
        return problem.target(self.ours.sentences, self.ours.direction)

    def model(self, denoise: Counted, problem: Problem, inversion: Inversion) -> Denoiser:
        """What predicts and has maps."""
        return denoise

    def guided(self, model: Denoiser, problem: Problem, inversion: Inversion) -> Denoiser:
        """What takes the steps."""
        return ReplayedGuidance(model, inversion, self.ours.cfg)

    def guide(self, inversion: Inversion) -> GuidanceStep:
        """What computes a move."""
        return map_guidance_step


@dataclass(frozen=True)
class ScaledDirection(Trial):
    """A direction scaled for each picture, so that its text ends as far along it as the caption with the word swapped.

    After Concept Lancet (Luo et al., CVPR 2025), which asks how much of the concept is in the picture's text.
    """

    def target(self, problem: Problem) -> Tensor:
        """Embeddings of the edited pictures, (B, 77, D)."""
        direction = problem.shifts[: self.ours.sentences].mean(0)
        along = ((problem.swapped - problem.source) * direction).sum((1, 2)) / direction.square().sum()
        return problem.source + self.ours.direction * along[:, None, None] * direction


@dataclass(frozen=True)
class PromptInterpolation(Trial):
    """The text turns gradually, as in PIC (Lee et al., ECCV 2024).

    Attributes:
        share: of the steps after which it has arrived at the target.
    """

    share: float = 0.5

    def model(self, denoise: Counted, problem: Problem, inversion: Inversion) -> Denoiser:
        """What predicts and has maps."""

        def interpolated(x: Tensor, sigma: Tensor, cond: Tensor, *, maps: bool = False) -> Prediction:
            way = step_at(inversion.sigmas, float(sigma[0])) / problem.steps / self.share
            return denoise(x, sigma, problem.source + min(1.0, way) * (cond - problem.source), maps=maps)

        return interpolated


@dataclass(frozen=True)
class NoiseCorrection(Trial):
    """The source text's noise at the edited latent as negative, corrected by what the inversion recorded (PIC)."""

    def guided(self, model: Denoiser, problem: Problem, inversion: Inversion) -> Denoiser:
        """What takes the steps."""

        def corrected(x: Tensor, sigma: Tensor, cond: Tensor, *, maps: bool = False) -> Prediction:
            positive = model(x, sigma, cond, maps=maps)
            with torch.no_grad():
                negative = model(x, sigma, problem.source)
            recorded = x - sigma[0] * inversion.noise_at(float(sigma[0]))
            return Prediction(recorded + self.ours.cfg * (positive.denoised - negative.denoised), positive.maps)

        return corrected


@dataclass(frozen=True)
class LocalBlend(Trial):
    """Outside a mask the latent stays on the source's way: where source and target predict alike.

    Attributes:
        threshold: of what the mask is made from, as a share of its largest value.
    """

    threshold: float = 0.3

    def guided(self, model: Denoiser, problem: Problem, inversion: Inversion) -> Denoiser:
        """What takes the steps."""
        guidance = ReplayedGuidance(model, inversion, self.ours.cfg)

        def blended(x: Tensor, sigma: Tensor, cond: Tensor, *, maps: bool = False) -> Prediction:
            prediction = guidance(x, sigma, cond, maps=True)
            kept = x - sigma[0] * inversion.noise_at(float(sigma[0]))
            with torch.no_grad():
                strength = self.strength(prediction, kept, cond - problem.source)
            mask = (strength > self.threshold * strength.amax((2, 3), keepdim=True)).to(x)
            return Prediction(mask * prediction.denoised + (1 - mask) * kept, prediction.maps)

        return blended

    def strength(self, prediction: Prediction, kept: Tensor, shift: Tensor) -> Tensor:
        """How strong the edit is at every place, (B, 1, H, W)."""
        change = (prediction.denoised - kept).abs().mean(1, keepdim=True)
        return avg_pool2d(pad(change, (1, 1, 1, 1), mode="replicate"), 3, 1)


@dataclass(frozen=True)
class LocalBlendByMaps(LocalBlend):
    """As prompt-to-prompt's blend (Hertz et al., arXiv:2208.01626): where the tokens that the edit moves are attended.

    With an edit direction every token moves; each counts by the square of how far, above what it has everywhere.
    """

    def strength(self, prediction: Prediction, kept: Tensor, shift: Tensor) -> Tensor:
        """How strong the edit is at every place, (B, 1, H, W)."""
        weight = shift.square().sum(-1)
        layers: list[Tensor] = []
        for probabilities in prediction.maps.values():
            attended = (probabilities.mean(1) * weight[:, None]).sum(-1)
            side = math.isqrt(attended.shape[1])
            layers.append(interpolate(attended.unflatten(1, (1, side, side)), kept.shape[2:], mode="bilinear"))
        attended = torch.stack(layers).mean(0)
        return attended - attended.amin((2, 3), keepdim=True)


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
        unet = denoise.model.unet

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

            with rewritten_attention(denoise.model.unet, {"attn1": take_over}):
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
            weight = 2.0 if self.weights == "every second" else 2 * (1 - index / (self.ours.guidance.end * total))
            move, loss, denoised = map_guidance_step(denoise, x, sigma, target, maps, guidance, coordinates)
            return weight * move, loss, denoised

        return step


def trials(ours: Pix2PixZero) -> dict[str, Trial]:
    """What is tried, under its name in the table."""
    half = adjust(ours, {"guidance.strength": ours.guidance.strength / 2})
    return {
        "ours": Trial(ours),
        "direction scaled per picture": ScaledDirection(ours),
        "prompt interpolation over half of the steps": PromptInterpolation(ours),
        "noise correction": NoiseCorrection(ours),
        "local blend at 0.3": LocalBlend(ours),
        "local blend at 0.15": LocalBlend(ours, 0.15),
        "local blend by attention maps at 0.3": LocalBlendByMaps(ours),
        "local blend by attention maps at 0.5": LocalBlendByMaps(ours, 0.5),
        "self-attention at 8 x 8, too": SelfAttention(ours),
        "self-attention at 8 x 8, too, half the strength": SelfAttention(half),
        "self-attention at 8 x 8 alone": SelfAttention(ours, cross=False),
        "self-attention at 16 x 16 alone": SelfAttention(ours, 16, cross=False),
        "self-attention taken over for 0.4 of the steps": SelfAttentionTakenOver(ours, 0.4),
        "self-attention taken over for 0.8 of the steps": SelfAttentionTakenOver(ours),
        "maps in half precision (bfloat16)": SmallMaps(ours),
        "maps averaged over the heads": SmallMaps(ours, heads=False),
        "maps of 8 x 8 alone": MapsOfOneSize(ours),
        "maps of 16 x 16 alone": MapsOfOneSize(ours, 16),
        "decaying guidance": Scheduled(ours),
        "guidance at every second step": Scheduled(ours, "every second"),
    }


def main() -> None:
    """Try all of them and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=PAPER_TASKS, help="default: the paper's")
    add_options(parser, count=8)
    add_processes(parser)
    options = parser.parse_args()
    bench = Bench.from_options(options, "validation")
    ours = before_finals()
    tried = [("ours", name, trial) for name, trial in trials(ours).items()]
    rows = try_all(bench, tried, options.tasks, options.processes)
    text = (
        f"Ours with one thing changed, {options.count} validation scenes of each of {', '.join(options.tasks)}; "
        f"{options.steps} steps, weights {bench.weights[:12]}. Otherwise {ours}.\n\n"
    )
    write_text(RESULTS / "trials.md", text + table(rows))
    print(f"written to {RESULTS / 'trials.md'}")


if __name__ == "__main__":
    main()
