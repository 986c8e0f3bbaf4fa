"""Guidance between the steps of any sampler: Euler's with it is `edit`."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from pix2pix_zero_core import Inversion, MapGuidance, carried, edit, guidance_move, guided_steps, invert, pace_of
from pix2pix_zero_core.edit import euler_step
from pix2pix_zero_core.schedule import step_at


@pytest.fixture
def inversion(model: Any, source: Tensor, sigmas: Tensor, generator: torch.Generator) -> Inversion:
    x0 = torch.randn(2, 4, 8, 8, generator=generator, dtype=torch.float64)
    return invert(model, x0, source, sigmas)


@pytest.mark.parametrize("applied", ["before", "after"])
@pytest.mark.parametrize("unit", ["paper", "normalized"])
@pytest.mark.parametrize(("start", "end"), [(0.0, 1.0), (0.2, 0.6), (0.5, 0.5)])
def test_eulers_method_with_moves_is_edit(
    model: Any, inversion: Inversion, source: Tensor, target: Tensor, unit: Any, start: float, end: float, applied: Any
):
    guidance = MapGuidance(0.3, unit, start, end, applied)
    expected = edit(model, inversion, source, target, guidance=guidance).edited
    x = inversion.noise
    active = guided_steps(inversion.sigmas, inversion, guidance)
    for (sigma, sigma_next), guided in zip(pairwise(inversion.sigmas), active, strict=True):
        move = guidance_move(model, x, sigma, source, target, inversion, guidance) if guided else torch.zeros_like(x)
        if applied == "before":
            x = x + move
        x = euler_step(x, model(x, sigma.expand(len(x)), target).denoised, sigma, sigma_next)
        if applied == "after":
            x = x + carried(move, sigma, sigma_next)
    torch.testing.assert_close(x, expected, rtol=0, atol=0)
    plain = edit(model, inversion, source, target, guidance=MapGuidance(0)).edited
    assert torch.equal(x, plain) == (start == end)


def test_start_and_end_count_the_steps_of_the_inversion(inversion: Inversion):
    guidance = MapGuidance(1.0, start=0.5)  # from its fourth of six steps on, which begins at 1
    finer = torch.tensor([4.0, 3.0, 2.0, 1.5, 1.0, 0.7, 0.1])
    assert guided_steps(finer, inversion, guidance) == [False, False, False, False, True, True]
    assert not any(guided_steps(finer, inversion, MapGuidance(0.0)))


def test_finer_steps_move_less_each(model: Any, inversion: Inversion, source: Tensor, target: Tensor):
    """As KSampler's do with a `denoise` of 0.5, whose steps are half of a schedule of twice as many."""
    total, grid = len(inversion.sigmas) - 1, inversion.sigmas
    assert pace_of(grid, inversion) == pace_of(grid[2:], inversion) == pace_of(grid[1:4], inversion) == 1
    finer = torch.cat([torch.stack([level, (level + following) / 2]) for level, following in pairwise(grid)])
    assert pace_of(finer, inversion) == pytest.approx(2, rel=0.1) and pace_of(grid[::2], inversion) == 0.5
    sigma, guidance = grid[1], MapGuidance(0.3, "normalized")
    x = inversion.latent_at(float(sigma))
    whole, half = (
        guidance_move(model, x, sigma, source, target, inversion, guidance, pace=pace) for pace in (1.0, 2.0)
    )
    torch.testing.assert_close(half, whole / 2)
    same = guidance_move(
        model, x, sigma, source, target, inversion, MapGuidance(0.3, "normalized"), pace=1 + 0.1 / total
    )
    assert torch.equal(same, whole), "rounding is no other pace"


def test_a_move_takes_the_reference_of_its_level(model: Any, inversion: Inversion, source: Tensor, target: Tensor):
    """Where the latent is the reference's and the text the source's, there is nothing to hold."""
    sigma = torch.tensor(3.0, dtype=torch.float64)
    guidance, reference = MapGuidance(1.0), inversion.latent_at(3.0)
    still = guidance_move(model, reference, sigma, source, source, inversion, guidance)
    moved = guidance_move(model, reference, sigma, source, target, inversion, guidance)
    assert float(still.abs().max()) < 1e-12 < float(moved.abs().max())


def test_a_reference_between_two_levels_lies_on_the_straight_way(inversion: Inversion):
    assert inversion.trajectory is not None
    for index, sigma in enumerate(inversion.sigmas.tolist()):
        assert torch.equal(inversion.latent_at(sigma), inversion.trajectory[index])
    middle = inversion.latent_at(3.0)  # between 4 and 2
    torch.testing.assert_close(middle, inversion.trajectory[1:3].mean(0))
    assert torch.equal(inversion.latent_at(100.0), inversion.noise)


def test_no_trajectory_no_reference(inversion: Inversion):
    with pytest.raises(ValueError, match="Invert a picture"):
        Inversion(inversion.noise, inversion.sigmas).latent_at(1.0)


@pytest.mark.parametrize(
    ("sigma", "step"),
    [(9.0, 0), (8.0, 0), (7.9999, 0), (5.0, 0), (4.0, 1), (4.0002, 1), (3.999, 1), (0.2, 5), (0.1, 5), (0.0, 5)],
)
def test_every_level_belongs_to_a_step(sigmas: Tensor, sigma: float, step: int):
    assert step_at(sigmas, sigma) == step
