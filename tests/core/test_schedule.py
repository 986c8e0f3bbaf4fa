from __future__ import annotations

import math

import pytest
import torch

from pix2pix_zero_core.schedule import (
    check_sigmas,
    ddim_sigmas,
    ddim_timesteps,
    sigma_to_timestep,
    sigmas_from_alphas,
    step_at,
    ve_to_vp,
    vp_to_ve,
)

TRAINING = sigmas_from_alphas(torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000).double() ** 2, 0))


@pytest.mark.parametrize("steps", [1, 2, 6, 7, 15, 30, 50, 60, 63, 100, 999])
@pytest.mark.parametrize("final", ["zero", "sigma_min"])
def test_grid_has_exactly_the_steps_asked_for(steps, final):
    sigmas = ddim_sigmas(TRAINING, steps, final=final)
    assert sigmas.shape == (steps + 1,)
    check_sigmas(sigmas)
    assert sigmas[-1] == (0 if final == "zero" else TRAINING[0])


def test_fifty_steps_visit_981_to_1():
    assert ddim_timesteps(1000, 50).tolist() == list(range(981, 0, -20))


@pytest.mark.parametrize("steps", [-1, 0, 1000])
def test_steps_out_of_range(steps):
    with pytest.raises(ValueError, match=rf"steps is {steps}; it must be between 1 and 999"):
        ddim_sigmas(TRAINING, steps)


def test_unknown_final():
    with pytest.raises(ValueError, match=r'final is \'one\'; it must be "zero" or "sigma_min"'):
        ddim_sigmas(TRAINING, 10, final="one")


def test_sigma_is_signal_to_noise():
    abar = torch.tensor([0.5, 0.2], dtype=torch.float64)
    assert torch.allclose(sigmas_from_alphas(abar), torch.tensor([1.0, 2.0], dtype=torch.float64))


def test_coordinates_are_inverse_and_match_the_definition(generator):
    x0, eps = (torch.randn(1, 4, 8, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    abar = 0.3
    sigma = math.sqrt((1 - abar) / abar)
    vp = math.sqrt(abar) * x0 + math.sqrt(1 - abar) * eps
    assert torch.allclose(vp_to_ve(vp, sigma), x0 + sigma * eps)
    assert torch.allclose(ve_to_vp(x0 + sigma * eps, sigma), vp)


def test_timesteps_between_are_interpolated_in_the_logarithm():
    low, high = TRAINING[[500, 501]].log()
    halfway = torch.stack([low, (low + high) / 2, high]).exp()
    assert torch.allclose(sigma_to_timestep(halfway, TRAINING), torch.tensor([500, 500.5, 501]).to(TRAINING), atol=1e-9)


def test_training_sigmas_map_to_whole_timesteps_exactly():
    table = TRAINING.float()
    assert torch.equal(sigma_to_timestep(table, table), torch.arange(1000.0))


def test_sigmas_beyond_the_training_range_are_clamped():
    assert sigma_to_timestep(torch.tensor([1e-6, 1e6]), TRAINING).tolist() == [0.0, 999.0]


@pytest.mark.parametrize(
    ("sigmas", "message"),
    [
        ([], "zero steps"),
        ([1.0], "zero steps"),
        ([[1.0, 0.0]], "shape"),
        ([1.0, math.nan, 0.0], "NaN or Inf"),
        ([math.inf, 1.0, 0.0], "NaN or Inf"),
        ([0.0, 1.0, 2.0], "descends strictly"),
        ([2.0, 1.0, 1.0, 0.0], "descends strictly"),
        ([2.0, 1.0, -0.5], "last value >= 0"),
    ],
)
def test_bad_grids(sigmas, message):
    with pytest.raises(ValueError, match=message):
        check_sigmas(torch.tensor(sigmas))


@pytest.mark.parametrize("grid", [torch.linspace(14, 0, 51), torch.linspace(0, 1.57, 101).double().cos()])
@pytest.mark.parametrize("rounded", [1.0, 1 - 3e-7, 1 + 3e-7])
def test_a_level_that_was_rounded_belongs_to_its_own_step(grid, rounded):
    """Also where levels lie closer than rounding may be: in VP near pure noise."""
    assert [step_at(grid, float(sigma) * rounded) for sigma in grid[:-1]] == list(range(len(grid) - 1))


def test_a_level_between_belongs_to_the_step_that_passes_it():
    grid = torch.tensor([4.0, 2.0, 0.0])
    assert [step_at(grid, sigma) for sigma in (9.0, 4.0, 3.0, 2.1, 2.0, 1.0, 0.0)] == [0, 0, 0, 0, 1, 1, 1]
