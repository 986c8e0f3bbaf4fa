"""The methods that are compared. Each is its settings, and a function from a problem to edited latents.

All of them see the same latents, captions and sentences. Those of this file use the source caption as negative
conditioning unless a setting says otherwise; the later ones, a file each in `rivals`, use no text, as their papers do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, cast

import torch
from torch import Tensor

from pix2pix_zero_core import (
    Denoiser,
    Edit,
    EditSettings,
    FreshNoise,
    InFreshNoise,
    Inversion,
    MapGuidance,
    NoiseRegularizer,
    Prediction,
    RegionalDenoiser,
    Remembering,
    ReplayedGuidance,
    TextDifference,
    edit,
    edit_region,
    invert,
    official,
    reconstruct,
    within,
)
from pix2pix_zero_core.edit import euler_step, map_guidance_step
from pix2pix_zero_core.fresh import SOURCE_GUIDED, guided_from, source_scale
from pix2pix_zero_core.integrations.pairs import Form
from pix2pix_zero_core.schedule import level_after
from pix2pix_zero_core.settings import FRESH_BESIDE_INVERSION, USUAL_STRENGTH, NoiseFrom

from .injection import prompt_to_prompt
from .sampling import Counted, Method, Negative, ddim_inversion, guided_by, predict_both
from .tasks import Problem

USUAL = EditSettings()


@dataclass(frozen=True)
class SDEdit:
    """Noise the picture to some level, sample from there with the swapped caption (Meng et al., arXiv:2108.01073).

    Attributes:
        strength: share of the steps that are sampled.
        cfg: scale of classifier-free guidance.
        negative: its negative conditioning.
    """

    strength: float = 0.65
    cfg: float = 5.0
    negative: Negative = "empty"

    def __call__(self, denoise: Counted, problem: Problem) -> Tensor:
        """Edit as a `Method`."""
        sigmas, coordinates = denoise.model.grid(problem.steps), denoise.model.coordinates
        sigmas = sigmas[-1 - round(self.strength * problem.steps) :]
        noisy = coordinates.with_noise(problem.x0, problem.noise, sigmas[-1], sigmas[0])
        start = Inversion(noisy, sigmas, coordinates=coordinates)
        return reconstruct(guided_by(denoise, problem, self.cfg, self.negative), start, problem.swapped)


@dataclass(frozen=True)
class DdimWordSwap:
    """Plain DDIM inversion (a flow's is Euler's method), then plain sampling with the swapped caption.

    Attributes:
        cfg: scale of classifier-free guidance.
        negative: its negative conditioning.
    """

    cfg: float = 5.0
    negative: Negative = "source"

    def __call__(self, denoise: Counted, problem: Problem) -> Tensor:
        """Edit as a `Method`."""
        inversion = ddim_inversion(denoise, problem)
        return reconstruct(guided_by(denoise, problem, self.cfg, self.negative), inversion, problem.swapped)


@dataclass(frozen=True)
class PromptToPrompt:
    """Inject the source's attention maps while sampling from plainly inverted noise (Hertz et al., arXiv:2208.01626).

    With the source caption as negative the source branch needs no classifier-free guidance, and stays close to the
    picture. The published negative is the empty text, which `p2p_direct` has.

    Attributes:
        cross: share of the steps in which the swapped caption's tokens take over cross-attention maps.
        own: share of the steps in which self-attention maps are taken over.
        cfg: scale of classifier-free guidance.
    """

    cross: float = 0.8
    own: float = 0.4
    cfg: float = 5.0

    @torch.no_grad()
    def __call__(self, denoise: Counted, problem: Problem) -> Tensor:
        """Edit as a `Method`."""
        inversion = ddim_inversion(denoise, problem)
        x = reference = inversion.noise
        for index, (sigma, sigma_next) in enumerate(pairwise(inversion.sigmas)):
            rewrites = prompt_to_prompt(index / problem.steps, self.cross, self.own, problem.alignment)
            source, target = predict_both(denoise, problem, reference, x, sigma, rewrites)
            negative = denoise(x, sigma.repeat(len(x)), problem.source).denoised
            reference = euler_step(reference, source, sigma, sigma_next)
            x = euler_step(x, negative + self.cfg * (target - negative), sigma, sigma_next)
        return x


@dataclass(frozen=True)
class OfficialCode:
    """The algorithm of the code that the paper's authors published; see `pix2pix_zero_core.official`.

    Attributes:
        strength: of cross-attention guidance, paper units.
        cfg: scale of classifier-free guidance.
        direction: strength of the edit direction; the published code has 1.
        sentences: pairs that it is averaged over.
    """

    strength: float = 0.1
    cfg: float = 5.0
    direction: float = 1.0
    sentences: int = 200

    def __call__(self, denoise: Counted, problem: Problem) -> Tensor:
        """Edit as a `Method`."""
        source, target = problem.source, problem.target(self.sentences, self.direction)
        shifts = torch.Generator().manual_seed(0)
        inversion = official.invert(denoise, problem.x0, source, denoise.model.sigmas, problem.steps, generator=shifts)
        return official.edit(
            denoise, inversion, source, target, negative=source, scale=self.cfg, strength=self.strength
        ).edited


@dataclass(frozen=True)
class Pix2PixZero:
    """This project's method as the nodes have it by default; every part can be changed or left out.

    Attributes:
        guidance: of the cross-attention maps.
        cfg: scale of classifier-free guidance.
        negative: its negative conditioning; "replayed" is the noise that the inversion recorded; "corrected" is the
            source caption, with what the inversion recorded in the place of what the model says of it (PIC, Lee et al.,
            ECCV 2024): guided by `cfg` times the difference of the two texts, from the picture itself.
        source_share: how much of the source caption's embedding is mixed into an empty negative, 0 to 1.
        cfg_start: share of the steps before which the target's text is followed plainly, and in fresh noise not at
            all, the nodes' `cfg_start`.
        cfg_below: highest noise level, sigma, at which classifier-free guidance takes part; the same by another scale.
        noise_from: in which noise the model sees the picture, the nodes' `noise_from`.
        source_guided: in fresh noise, how much of the target's classifier-free guidance the source has, 0 to 1.
        region: threshold of `edit_region`, outside which the picture follows the inversion back; 0 edits everywhere.
        regularizer: of the predicted noise during inversion.
        fixed_point: refinements of an inversion step.
        steps: DDIM steps; 0 takes as many as the other methods.
        replay: take the reference maps on the inversion's trajectory; else sample the reference alongside.
        direction: strength of the edit direction.
        sentences: pairs that it is averaged over; 0 takes the direction to the swapped caption instead.
        form: of the edit direction.
    """

    guidance: MapGuidance = USUAL.guidance
    cfg: float = USUAL.cfg
    negative: Negative | Literal["replayed", "corrected"] = "empty"
    source_share: float = 0.0
    cfg_start: float = USUAL.cfg_start
    cfg_below: float = math.inf
    noise_from: NoiseFrom = USUAL.noise_from
    source_guided: float = SOURCE_GUIDED
    region: float = USUAL.region
    regularizer: NoiseRegularizer = NoiseRegularizer()  # noqa: RUF009 (immutable)
    fixed_point: int = 1
    steps: int = 0
    replay: bool = True
    direction: float = USUAL_STRENGTH
    sentences: int = 200
    form: Form = "aligned to words"

    def __call__(self, denoise: Counted, problem: Problem) -> Tensor:
        """Edit as a `Method`."""
        return self.edit(denoise, problem).edited

    def edit(self, denoise: Counted, problem: Problem) -> Edit:
        """Edit, and say how far the maps were from the reference's at every step."""
        inversion = self.inverted(denoise, problem)
        target = problem.target(self.sentences, self.direction, self.form)
        source, model, guide = problem.source, cast(Denoiser, denoise), map_guidance_step
        guided, guidance = self.guided(denoise, problem, inversion), self.guidance
        if self.noise_from == "fresh":
            if self.negative == "replayed":
                raise ValueError(FRESH_BESIDE_INVERSION)
            noise = self.fresh_noise(inversion)
            asked = Remembering(denoise)
            model = InFreshNoise(asked, noise)
            unchanged = self.of_the_source(asked, problem, inversion)
            guided = TextDifference(guided, unchanged, source, noise, self.cfg_start)
            guidance = guided_from(guidance, self.cfg_start)
        if self.region:
            region = edit_region(denoise, inversion, source, target, self.region)
            guided, guide = RegionalDenoiser(guided, inversion, region), within(guide, region)
        start = inversion if self.replay else replace(inversion, trajectory=None)
        return edit(model, start, source, target, guided=guided, guidance=guidance, guide=guide)

    def inverted(self, denoise: Counted, problem: Problem) -> Inversion:
        """The pictures' noise, and how it was found."""
        return invert(
            denoise,
            problem.x0,
            problem.source,
            denoise.model.grid(self.steps or problem.steps),
            self.regularizer,
            fixed_point=self.fixed_point,
            coordinates=denoise.model.coordinates,
        )

    def fresh_noise(self, inversion: Inversion) -> FreshNoise:
        """The noise that the picture is seen in."""
        return FreshNoise(inversion)

    def of_the_source(self, denoise: Denoiser, problem: Problem, inversion: Inversion) -> Denoiser:
        """What predicts the picture as it is, in that noise."""
        less = replace(self, cfg=source_scale(self.cfg, self.source_guided))
        return less.guided(denoise, problem, inversion)

    def guided(self, denoise: Denoiser, problem: Problem, inversion: Inversion) -> Denoiser:
        """What takes the steps where no region is left out.

        Raises:
            ValueError: the source is to be mixed into a negative that is not empty.
        """
        if self.source_share and self.negative != "empty":
            raise ValueError(f"source_share is {self.source_share}, with {self.negative} as negative; set it to empty.")
        if self.negative == "replayed":
            guided = ReplayedGuidance(denoise, inversion, self.cfg)
        elif self.negative == "corrected":
            guided = CorrectedGuidance(denoise, inversion, problem.source, self.cfg)
        else:
            guided = guided_by(denoise, problem, self.cfg, self.negative, self.source_share)
        below = min(self.cfg_below, float(level_after(inversion.sigmas, self.cfg_start)))

        def predict(x: Tensor, sigma: Tensor, cond: Tensor, *, maps: bool = False) -> Prediction:
            return (guided if float(sigma[0]) <= below else denoise)(x, sigma, cond, maps=maps)

        return predict


@dataclass(frozen=True)
class CorrectedGuidance:
    """Guidance by the difference of two texts at the edited latent, from what the inversion recorded (PIC).

    Attributes:
        denoise: the model.
        inversion: of the picture, with its trajectory.
        source: conditioning of the picture.
        scale: of the difference.
    """

    denoise: Denoiser
    inversion: Inversion
    source: Tensor
    scale: float

    def __call__(self, x: Tensor, sigma: Tensor, cond: Tensor, *, maps: bool = False) -> Prediction:
        """Predict as a `Denoiser`."""
        positive = self.denoise(x, sigma, cond, maps=maps)
        with torch.no_grad():
            negative = self.denoise(x, sigma, self.source).denoised
        recorded = self.inversion.replayed(x, float(sigma[0]))
        return Prediction(recorded + self.scale * (positive.denoised - negative), positive.maps)


@dataclass(frozen=True)
class InSteps:
    """Another method in a number of DDIM steps of its own.

    Attributes:
        method: which.
        steps: of its inversion and sampling.
    """

    method: Method
    steps: int

    def __call__(self, denoise: Counted, problem: Problem) -> Tensor:
        """Edit as a `Method`."""
        return self.method(denoise, replace(problem, steps=self.steps))
