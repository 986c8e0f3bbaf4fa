"""The implementations that are measured, each an `Edit`: ours, the published code, diffusers' pipeline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from pix2pix_zero_core import Coordinates, EditSettings

from ..harness import methods
from ..harness.rows import FAST
from ..harness.sampling import Counted
from ..harness.tasks import Problem
from ..rivals import left_as_found, official, pipeline
from .meter import Meter
from .subjects import Subject

Edit = Callable[[Subject, Meter], object]
"""Edits the pictures of a subject and tells the meter its phases."""


def official_edit(subject: Subject, meter: Meter) -> Tensor:
    """Edit by the transcription of the published code: one picture at a time."""
    unet, alphas, problem, edited = subject.unet, subject.alphas, subject.problem, list[Tensor]()
    for x0, source, target in pictures_of(problem):
        with official.prepared(unet):
            with meter.phase("invert"):
                noise = official.invert(unet, alphas, x0, source, problem.steps)
            with meter.phase("edit"):
                edited.append(official.edit(unet, alphas, noise, source, target, problem.steps))
    return torch.cat(edited)


def diffusers_edit(subject: Subject, meter: Meter) -> Tensor:
    """Edit by diffusers' pipeline, one picture at a time: it adds the direction to one row only."""
    pipe, steps, edited = pipeline.make_pipeline(subject.unet, subject.alphas), subject.problem.steps, list[Tensor]()
    for x0, source, target in pictures_of(subject.problem):
        with left_as_found(subject.unet):
            with meter.phase("invert"):
                noise = pipeline.invert(pipe, x0, source, steps)
            with meter.phase("edit"):
                edited.append(pipeline.edit(pipe, noise, source, target, steps))
    return torch.cat(edited)


def our_edit(method: methods.Pix2PixZero) -> Edit:
    """Edit by one of `benchmarks.harness.methods`, all pictures at once."""

    def edit(subject: Subject, meter: Meter) -> Tensor:
        denoise = Counted(_Model(subject, meter))  # pyright: ignore[reportArgumentType]  # all that it needs
        with patch.object(methods, "invert", meter.timed("invert", methods.invert)), meter.phase("edit"):
            return method(denoise, subject.problem)

    return edit


class _Model:
    """A network of diffusers in the place of Tiny Zoo."""

    def __init__(self, subject: Subject, meter: Meter) -> None:
        self._denoise, self._meter, self.grid = subject.denoiser(), meter, subject.grid
        self.coordinates = Coordinates.FLOW if subject.is_flow else Coordinates.VE

    def __call__(self, x: Tensor, sigma: Tensor, cond: Tensor, **options: Any) -> Any:
        self._meter.with_maps = options.get("maps", False)
        return self._denoise(x, sigma, cond, **options)


def pictures_of(problem: Problem) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Latent, source and target of every picture, each a batch of one."""
    target = problem.target(SENTENCES)
    return list(zip(problem.x0.split(1), problem.source.split(1), target.split(1), strict=True))


SENTENCES = 200
"""Pairs that directions are averaged over."""


RIVALS: dict[str, Edit] = {"official": official_edit, "diffusers": diffusers_edit}
"""Implementations that are not ours."""


def our_methods() -> dict[str, methods.Pix2PixZero]:
    """Ours with the nodes' defaults, steps and all, and the same in 20 steps.

    But for the form of its direction, which costs nothing while it edits: one by position needs no words.
    """
    ours = methods.Pix2PixZero(form="mean by position", steps=EditSettings.steps)
    return {"ours": ours, "ours_fast": replace(ours, **FAST)}
