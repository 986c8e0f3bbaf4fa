"""Editing in fresh noise: what the texts differ in is taken over, and nothing else."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import pytest
import torch

from pix2pix_zero_core import (
    ClassifierFreeGuidance,
    Coordinates,
    FreshNoise,
    InFreshNoise,
    Inversion,
    MapGuidance,
    NoiseRegularizer,
    Remembering,
    TextDifference,
    edit,
    invert,
    reconstruct,
)
from pix2pix_zero_core.edit import euler_step
from pix2pix_zero_core.fresh import guided_from, source_scale

from .conftest import AttentionDenoiser

PLAIN = NoiseRegularizer(strength=0, kl_strength=0)
FLOW = torch.tensor([1.0, 0.8, 0.5, 0.3, 0.0], dtype=torch.float64)


@pytest.fixture
def x0(generator):
    return torch.randn(2, 4, 8, 12, generator=generator, dtype=torch.float64)


def difference(model, source, noise):
    return TextDifference(model, model, source, noise)


def noise_of_step(index):
    """New noise for every second step; that after it sees the same, its sign turned."""
    noise = torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(index // 2))
    return noise * (-1) ** index


@pytest.mark.parametrize("coordinates", [Coordinates.VE, Coordinates.FLOW])
def test_the_source_text_leads_back_to_the_picture(x0, source, sigmas, coordinates):
    """However badly it was inverted: what the inversion has lost comes back as well."""
    model = AttentionDenoiser(coordinates=coordinates)
    grid = sigmas if coordinates is Coordinates.VE else FLOW
    inversion = invert(model, x0, source, grid, fixed_point=0, coordinates=coordinates)
    denoise = difference(model, source, FreshNoise(inversion))
    torch.testing.assert_close(reconstruct(denoise, inversion, source), x0)


def test_it_is_the_difference_of_two_branches(model, x0, source, target, sigmas):
    """FlowEdit as its paper has it: a change of its own, led by the velocities of two branches in the same noise."""
    inversion = invert(model, x0, source, sigmas, fixed_point=0)
    noise = FreshNoise(inversion)
    edited = reconstruct(difference(model, source, noise), inversion, target)
    change = torch.zeros_like(x0)
    for index, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        n = noise_of_step(index)
        z_ref, level = x0 + sigma * n, sigma.repeat(2)
        denoised = model(z_ref + change, level, target).denoised - model(z_ref, level, source).denoised
        change = euler_step(change, denoised, sigma, sigma_next)
    torch.testing.assert_close(edited, x0 + change)


@pytest.mark.parametrize("start", [0.0, 0.3, 0.5, 1.0])
def test_both_branches_are_guided_and_the_first_steps_left_out(model, x0, source, target, sigmas, start):
    """As in FlowEdit's paper; of six steps a start of 0.3 leaves out two."""
    inversion, empty = invert(model, x0, source, sigmas), torch.zeros_like(source)
    noise, skipped = FreshNoise(inversion), {0.0: 0, 0.3: 2, 0.5: 3, 1.0: 6}[start]
    guided = ClassifierFreeGuidance(model, empty, 5.0)
    unchanged = ClassifierFreeGuidance(model, empty, source_scale(5.0))
    model.calls.clear()
    edited = reconstruct(TextDifference(guided, unchanged, source, noise, start), inversion, target)
    assert len(model.calls) == 4 * (6 - skipped)
    change = torch.zeros_like(x0)
    for index, (sigma, sigma_next) in list(enumerate(pairwise(sigmas)))[skipped:]:
        n = noise_of_step(index)
        z_ref, level = x0 + sigma * n, sigma.repeat(2)
        denoised = guided(z_ref + change, level, target).denoised - unchanged(z_ref, level, source).denoised
        change = euler_step(change, denoised, sigma, sigma_next)
    torch.testing.assert_close(edited, x0 + change)
    assert (change.abs().max() > 0) == (start < 1)


def test_maps_are_seen_before_the_edit_begins(model, x0, source, target, sigmas):
    inversion = invert(model, x0, source, sigmas)
    noise = FreshNoise(inversion)
    denoise = TextDifference(model, model, source, noise, 0.5)
    found = denoise(inversion.noise, sigmas[0].repeat(2), target, maps=True)
    seen = model(noise.seen(inversion.noise, sigmas[0]), sigmas[0].repeat(2), target, maps=True)
    torch.testing.assert_close(found.maps, seen.maps)
    torch.testing.assert_close(found.denoised, inversion.replayed(inversion.noise, float(sigmas[0])))


@pytest.mark.parametrize("start", [-0.1, 1.1, float("nan")])
def test_a_start_that_is_no_fraction(model, x0, source, sigmas, start):
    with pytest.raises(ValueError, match=r"start is .*; it must be between 0 and 1"):
        TextDifference(model, model, source, FreshNoise(invert(model, x0, source, sigmas)), start)


@pytest.mark.parametrize(("scale", "expected"), [(5.0, 3.5), (1.0, 1.0), (0.5, 0.5), (0.0, 0.0)])
def test_the_source_is_guided_less(scale, expected):
    assert source_scale(scale) == pytest.approx(expected)


def test_no_step_is_guided_before_the_edit_begins():
    guidance = MapGuidance(0.2, "share", 0.2, 0.6)
    assert guided_from(guidance, 0.0) == guided_from(guidance, 0.2) == guidance
    assert guided_from(guidance, 0.28) == MapGuidance(0.2, "share", 0.28, 0.6)
    assert [step for step in range(25) if guided_from(guidance, 0.28).covers(step, 25)] == list(range(7, 15))
    assert guided_from(guidance, 0.8).steps(25) == 0


def test_how_the_picture_was_inverted_does_not_count(model, x0, source, target, sigmas):
    exact, poor = (invert(model, x0, source, sigmas, PLAIN, fixed_point=points) for points in (40, 0))
    found = [reconstruct(difference(model, source, FreshNoise(i)), i, target) for i in (exact, poor)]
    torch.testing.assert_close(*found)


def test_where_nothing_may_change_the_picture_is_seen_as_it_is(model, x0, source, sigmas):
    """A noise mask leads x elsewhere: none of that is taken for a change."""
    inversion = invert(model, x0, source, sigmas)
    left = torch.zeros(1, 1, 8, 12, dtype=x0.dtype)
    left[..., :6] = 1
    noise, masked = FreshNoise(inversion), FreshNoise(inversion, lambda _: left)
    x, sigma = torch.randn_like(x0), sigmas[2].repeat(2)
    torch.testing.assert_close(masked.seen(x, sigma)[..., :6], noise.seen(x, sigma)[..., :6])
    torch.testing.assert_close(
        masked.seen(x, sigma)[..., 6:], noise.seen(inversion.latent_at(float(sigma[0])), sigma)[..., 6:]
    )


def test_guidance_by_texts_strengthens_what_the_text_has_more_than_the_negative(model, x0, source, target, sigmas):
    inversion = invert(model, x0, source, sigmas)
    guided = ClassifierFreeGuidance(model, target, 3.0)
    noise = FreshNoise(inversion)
    edited = reconstruct(TextDifference(guided, model, source, noise), inversion, source)
    assert (edited - x0).abs().max() > 1e-3


def test_two_pictures_together_are_each_alone(model, x0, source, target, sigmas):
    inversion = invert(model, x0, source, sigmas)

    def edited(part: Inversion):
        noise = FreshNoise(part)
        plain, guided = InFreshNoise(model, noise), difference(model, source, noise)
        return edit(plain, part, source, target, guided=guided, guidance=MapGuidance(0.3, "share")).edited

    together = edited(inversion)
    for picture in range(2):
        torch.testing.assert_close(edited(inversion.of([picture])), together[picture : picture + 1])


def test_guidance_compares_both_texts_in_the_same_noise(model, x0, source, target, sigmas):
    """With the source as target nothing differs, and nothing moves; with another it does, towards the reference."""
    inversion = invert(model, x0, source, sigmas)
    noise = FreshNoise(inversion)
    plain, guided = InFreshNoise(model, noise), difference(model, source, noise)

    def run(text, strength):
        guidance = MapGuidance(strength, "normalized")
        return edit(plain, inversion, source, text, guided=guided, guidance=guidance)

    same = run(source, 5.0)
    torch.testing.assert_close(same.edited, x0)
    assert same.loss.max() < 1e-12
    assert run(target, 5.0).loss[1:].sum() < run(target, 1e-9).loss[1:].sum()


@pytest.mark.parametrize("applied", ["before", "after"])
def test_what_guidance_asks_of_the_picture_is_not_asked_again(model, x0, source, target, sigmas, applied):
    inversion = invert(model, x0, source, sigmas)
    noise = FreshNoise(inversion)
    guidance = MapGuidance(0.3, "normalized", end=0.5, applied=applied)

    def run(asked):
        model.calls.clear()
        plain, guided = InFreshNoise(asked, noise), TextDifference(model, asked, source, noise)
        return edit(plain, inversion, source, target, guided=guided, guidance=guidance), len(model.calls)

    (twice, rows), (once, fewer) = run(model), run(Remembering(model))
    assert torch.equal(twice.edited, once.edited)
    assert torch.equal(twice.loss, once.loss)
    assert fewer == rows - 3  # of six steps half are guided


def test_what_is_remembered_is_only_of_the_same_latent_level_and_text(model, x0, source, target):
    asked, sigma = Remembering(model), torch.tensor([2.0, 2.0], dtype=torch.float64)
    questions = [(x0, sigma, source), (x0 + 1, sigma, source), (x0 + 1, 2 * sigma, source), (x0 + 1, 2 * sigma, target)]
    for x, level, cond in questions:
        assert torch.equal(asked(x, level, cond).denoised, model(x, level, cond).denoised)
    model.calls.clear()
    assert asked(x0 + 1, 2 * sigma, target, maps=True).maps
    assert asked((x0 + 1).requires_grad_(), 2 * sigma, target).denoised.requires_grad
    assert len(model.calls) == 2
    x = x0.clone()
    assert not torch.equal(asked(x, sigma, source).denoised, asked(x.add_(1), sigma, source).denoised)


def test_noise_is_left_on_a_picture_that_was_inverted_from_within(model, x0, source, sigmas):
    """A part of a schedule ends at a noisy latent; seen is the picture in it."""
    inversion = invert(model, x0, source, sigmas[:-1])
    noise = FreshNoise(inversion)
    end = sigmas[-2]
    picture = inversion.replayed(x0, float(end))
    n = noise_of_step(len(sigmas) - 3)
    torch.testing.assert_close(noise.seen(x0, end), picture + end * n)


def test_noise_without_a_picture_is_refused(model, x0, source, sigmas):
    inversion = dataclasses.replace(invert(model, x0, source, sigmas), trajectory=None)
    with pytest.raises(ValueError, match=r"no trajectory.*noise_from to inversion"):
        FreshNoise(inversion)
