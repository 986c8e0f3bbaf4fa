"""The region of an edit: where two texts disagree, and the picture untouched elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from pix2pix_zero_core import (
    ClassifierFreeGuidance,
    Coordinates,
    Inversion,
    MapGuidance,
    NoiseRegularizer,
    Prediction,
    RegionalDenoiser,
    ReplayedGuidance,
    edit_region,
    invert,
    reconstruct,
    within,
)
from pix2pix_zero_core.edit import map_guidance_step

PLAIN = NoiseRegularizer(strength=0, kl_strength=0)


@dataclass(frozen=True)
class LeftHalf:
    """A denoiser whose text, a number, shows in the left half of the picture alone."""

    def __call__(self, x, sigma, cond, *, maps=False):
        shown = torch.zeros_like(x)
        shown[..., : x.shape[-1] // 2] = float(cond)
        return Prediction((x + shown) / (1 + sigma[:, None, None, None]))


class Corner(LeftHalf):
    """One whose text shows in a corner alone, less than the share of the picture by which regions are scaled."""

    def __call__(self, x, sigma, cond, *, maps=False):
        shown = torch.zeros_like(x)
        shown[..., :1, :1] = float(cond)
        return Prediction((x + shown) / (1 + sigma[:, None, None, None]))


def test_texts_that_differ_in_a_corner_alone_draw_that_corner(sigmas, generator):
    x0 = torch.randn(1, 4, 24, 24, generator=generator, dtype=torch.float64)
    inversion = invert(Corner(), x0, 0.0, sigmas, PLAIN)
    region = edit_region(Corner(), inversion, 0.0, 1.0, 0.4)
    assert region[0, 0, 0, 0] == 1 and region[..., 3:, 3:].max() == 0


@pytest.fixture
def x0(generator):
    return torch.randn(2, 4, 8, 12, generator=generator, dtype=torch.float64)


@pytest.fixture
def inversion(x0, sigmas):
    return invert(LeftHalf(), x0, 0.0, sigmas, PLAIN, fixed_point=60)


def test_the_region_is_where_the_texts_disagree(inversion):
    region = edit_region(LeftHalf(), inversion, 0.0, 1.0)
    assert region.shape == (2, 1, 8, 12)
    torch.testing.assert_close(region[..., :5], torch.ones_like(region[..., :5]))
    torch.testing.assert_close(region[..., 7:], torch.zeros_like(region[..., 7:]))
    assert (region[..., 4:7].diff(dim=-1) <= 0).all()  # a soft edge


def test_outside_the_region_the_picture_comes_back(inversion, x0):
    region = edit_region(LeftHalf(), inversion, 0.0, 1.0)
    edited = reconstruct(RegionalDenoiser(LeftHalf(), inversion, region), inversion, 1.0)
    torch.testing.assert_close(edited[..., 7:], x0[..., 7:])
    assert (edited[..., :5] - x0[..., :5]).abs().min() > 0.01


def test_a_region_of_all_is_the_plain_denoiser(model, x0, source, target, sigmas):
    inversion = invert(model, x0, source, sigmas, PLAIN)
    everywhere = RegionalDenoiser(model, inversion, torch.ones(2, 1, 8, 12))
    torch.testing.assert_close(reconstruct(everywhere, inversion, target), reconstruct(model, inversion, target))


def test_texts_that_agree_leave_the_whole_picture_free(inversion):
    assert (edit_region(LeftHalf(), inversion, 0.0, 0.0) == 1).all()


def test_two_pictures_together_are_each_alone(model, x0, source, target, sigmas):
    inversion = invert(model, x0, source, sigmas, PLAIN, fixed_point=60)
    assert inversion.trajectory is not None
    together = edit_region(model, inversion, source, target)
    for i in range(2):
        alone = Inversion(inversion.noise[i : i + 1], sigmas, inversion.trajectory[:, i : i + 1])
        torch.testing.assert_close(edit_region(model, alone, source, target), together[i : i + 1])


@pytest.mark.parametrize("levels", [1, 2, 9])
def test_a_level_costs_two_rows(model, x0, source, target, sigmas, levels):
    inversion = invert(model, x0, source, sigmas, PLAIN)
    model.calls.clear()
    edit_region(model, inversion, source, target, levels=levels)
    assert sorted({sigma for sigma, _, _ in model.calls}) == {1: [4.0], 2: [1.0, 4.0], 9: [1.0, 2.0, 4.0]}[levels]
    assert len(model.calls) == 2 * min(levels, 3)


@pytest.mark.parametrize(
    ("grid", "nearest"), [([0.6, 0.3, 0.0], 0.6), ([14.0, 0.5, 0.0], 0.5), ([20.0, 9.0, 0.0], 9.0)]
)
def test_a_grid_outside_the_range_is_compared_at_the_nearest_level(model, x0, source, target, grid, nearest):
    inversion = invert(model, x0, source, torch.tensor(grid, dtype=torch.float64), PLAIN)
    model.calls.clear()
    edit_region(model, inversion, source, target)
    assert [sigma for sigma, _, _ in model.calls] == [pytest.approx(nearest)] * 2


def test_one_step_of_a_flow_is_compared_on_its_way(x0):
    inversion = invert(LeftHalf(), x0, 0.0, torch.tensor([1.0, 0.0]).double(), PLAIN, coordinates=Coordinates.FLOW)
    region = edit_region(LeftHalf(), inversion, 0.0, 1.0)
    assert region[..., :6].eq(1).all() and region[..., -5:].eq(0).all()


def test_random_noise_has_no_region(inversion):
    with pytest.raises(ValueError, match="no trajectory"):
        edit_region(LeftHalf(), Inversion(inversion.noise, inversion.sigmas), 0.0, 1.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"threshold": 0.0}, "threshold is 0.0"), ({"threshold": 1.5}, "at most 1"), ({"levels": 0}, "levels are 0")],
)
def test_settings_out_of_range_are_refused(inversion, settings, message):
    with pytest.raises(ValueError, match=message):
        edit_region(LeftHalf(), inversion, 0.0, 1.0, **settings)


def test_a_higher_threshold_frees_less(model, x0, source, target, sigmas):
    inversion = invert(model, x0, source, sigmas, PLAIN)
    loose, tight = (edit_region(model, inversion, source, target, threshold) for threshold in (0.2, 0.9))
    assert (tight <= loose).all() and tight.mean() < loose.mean()


def test_guidance_moves_the_region_alone(model, x0, source, target, sigmas):
    inversion = invert(model, x0, source, sigmas, PLAIN)
    half = torch.zeros(2, 1, 8, 12)
    half[..., :6] = 1
    assert inversion.trajectory is not None
    reference = model(inversion.trajectory[1], sigmas[1].repeat(2), source, maps=True).maps
    step = model, inversion.trajectory[1], sigmas[1], target, reference, MapGuidance(1.0)
    move, loss, denoised = within(map_guidance_step, half)(*step)
    plain, plain_loss, plain_denoised = map_guidance_step(*step)
    torch.testing.assert_close(move, plain * half)
    assert plain[..., 6:].abs().max() > 0
    torch.testing.assert_close((loss, denoised), (plain_loss, plain_denoised))


@pytest.mark.parametrize("guidance", [ClassifierFreeGuidance, ReplayedGuidance])
def test_guidance_by_text_can_begin_below_a_noise_level(model, x0, source, target, sigmas, guidance):
    negative = source if guidance is ClassifierFreeGuidance else invert(model, x0, source, sigmas, PLAIN)
    late, always = guidance(model, negative, 5.0, below=2.0), guidance(model, negative, 5.0)
    for sigma in (4.0, 2.0, 1.0):
        level = torch.full((2,), sigma, dtype=torch.float64)
        expected = (model if sigma > 2 else always)(x0, level, target).denoised
        torch.testing.assert_close(late(x0, level, target).denoised, expected)
    model.calls.clear()
    late(x0, torch.full((2,), 4.0, dtype=torch.float64), target)
    assert len(model.calls) == 1
