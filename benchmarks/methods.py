"""The methods that are compared: each takes the same latents, captions and directions, and returns edited latents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pix2pix_zero_core import (
    ClassifierFreeGuidance,
    MapGuidance,
    NoiseRegularizer,
    Prediction,
    edit,
    invert,
    official,
    reconstruct,
)
from pix2pix_zero_core.schedule import ddim_sigmas
from tiny_zoo.denoiser import TinyZoo

DEFAULT = NoiseRegularizer()
OFF = NoiseRegularizer(strength=0, kl_strength=0)


@dataclass
class Counted:
    """A denoiser that counts the rows it evaluates: a forward pass is 1 a row, a backward pass 2."""

    model: TinyZoo
    rows: int = field(default=0)

    def __call__(self, x: Tensor, sigma: Tensor, cond: Tensor, *, maps: bool = False) -> Prediction:
        """Predict as a `Denoiser`."""
        self.rows += len(x) * (3 if torch.is_grad_enabled() else 1)
        return self.model(x, sigma, cond, maps=maps)


@dataclass(frozen=True)
class Problem:
    """A batch to edit.

    Attributes:
        x0: latents of the pictures, (B, 4, H, W).
        source: embeddings of their captions, (B, 77, D).
        swapped: embeddings of the captions with the word replaced, (B, 77, D).
        target: source shifted along the edit direction, (B, 77, D).
        steps: DDIM steps.
        cfg: scale of classifier-free guidance.
    """

    x0: Tensor
    source: Tensor
    swapped: Tensor
    target: Tensor
    steps: int = 50
    cfg: float = 5.0


Method = Callable[[Counted, Problem], Tensor]


def ddim_word_swap(denoise: Counted, problem: Problem) -> Tensor:
    """Plain DDIM inversion, plain sampling with the word replaced."""
    sigmas = ddim_sigmas(denoise.model.sigmas, problem.steps)
    inversion = invert(denoise, problem.x0, problem.source, sigmas, OFF, fixed_point=0)
    return reconstruct(ClassifierFreeGuidance(denoise, problem.source, problem.cfg), inversion, problem.swapped)


def official_code(denoise: Counted, problem: Problem) -> Tensor:
    """The published code's algorithm, with its own settings."""
    inversion = official.invert(denoise, problem.x0, problem.source, denoise.model.sigmas, steps=problem.steps)
    return official.edit(
        denoise, inversion, problem.source, problem.target, negative=problem.source, scale=problem.cfg
    ).edited


def ours(guidance: MapGuidance, regularizer: NoiseRegularizer = DEFAULT, fixed_point: int = 3) -> Method:
    """This project's method with given settings."""

    def run(denoise: Counted, problem: Problem) -> Tensor:
        sigmas = ddim_sigmas(denoise.model.sigmas, problem.steps)
        inversion = invert(denoise, problem.x0, problem.source, sigmas, regularizer, fixed_point=fixed_point)
        guided = ClassifierFreeGuidance(denoise, problem.source, problem.cfg)
        return edit(denoise, inversion, problem.source, problem.target, guided=guided, guidance=guidance).edited

    return run
