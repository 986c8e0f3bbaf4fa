"""The unit "share": how much of the maps' distance a run takes away, whatever the model and the number of steps."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from pix2pix_zero_core import (
    ClassifierFreeGuidance,
    Inversion,
    MapGuidance,
    Prediction,
    ReplayedGuidance,
    edit,
    invert,
    unguided_distance,
)
from pix2pix_zero_core.attention import map_distance
from pix2pix_zero_core.edit import map_guidance_step
from pix2pix_zero_core.share import FARTHEST_BEHIND, UNGUIDED_LEVELS, Aim, Pursuit, UnguidedDistance


@dataclass(frozen=True)
class LinearMaps:
    """Noise 0, and maps that are linear in the latent: a distance that guidance can take away to nothing.

    Attributes:
        answer: how strongly the maps answer to the latent.
        scale: of all maps.
        back: how fast the sampler's steps undo what has moved the latent.
    """

    answer: float = 1.0
    scale: float = 1.0
    back: float = 0.0

    def __call__(self, x: Tensor, sigma: Tensor, cond: Tensor, *, maps: bool = False) -> Prediction:
        moved = x - NOISE.to(x)
        return Prediction(
            x - self.back * sigma[0] * moved, {"layer": self.scale * (self.answer * x + cond)} if maps else {}
        )


NOISE = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def share_taken(model: Any, guidance: MapGuidance, steps: int = 20, late: bool = False) -> Tensor:
    """What guidance takes away of the mean distance of two pictures, of all steps or of the later half, (2,)."""
    sigmas = torch.linspace(2, 0, steps + 1, dtype=torch.float64)
    noise = NOISE
    source, target = torch.zeros_like(noise), torch.stack([torch.full((4, 6, 6), 0.03), torch.full((4, 6, 6), 0.1)])
    loss = edit(model, Inversion(noise, sigmas), source, target.double(), guidance=guidance).loss
    unguided = map_distance({0: model.scale * target.double()}, {0: model.scale * source})
    return 1 - loss[steps // 2 if late else 0 :].mean(0) / unguided


@pytest.fixture
def inversion(model: Any, source: Tensor, sigmas: Tensor, generator: torch.Generator) -> Inversion:
    return invert(model, torch.randn(2, 4, 8, 8, generator=generator, dtype=torch.float64), source, sigmas)


@pytest.mark.parametrize("applied", ["before", "after"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_share_is_the_same_however_strongly_the_maps_answer(share: float, applied: Any):
    """Of a model that lets it, about the share that was asked for."""
    shares = [
        share_taken(LinearMaps(answer, scale), MapGuidance(share, "share", applied=applied))
        for answer, scale in ((1.0, 1.0), (3.0, 1.0), (1.0, 100.0), (0.7, 0.01))
    ]
    for other in shares:
        torch.testing.assert_close(other, shares[0], rtol=0.05, atol=0)
        assert (0.6 * share < other).all()
        assert (other < 1.25 * share).all()
    normalized = [share_taken(LinearMaps(answer), MapGuidance(0.05, "normalized")) for answer in (1.0, 3.0)]
    assert (normalized[1] > 1.5 * normalized[0]).all()


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_what_the_sampler_undoes_is_pursued(share: float):
    """Models differ in how much of a move comes back with the next steps; the share is the same all the same."""
    for back in (0.0, 1.0, 3.0):
        taken = share_taken(LinearMaps(back=back), MapGuidance(share, "share", applied="after"), late=True)
        assert (0.8 * share < taken).all()
        assert (taken < 1.25 * share).all()


def test_no_more_is_pursued_than_can_be_reached():
    unguided = UnguidedDistance(torch.tensor([8.0, 1.0]), torch.tensor([[4.0, 4.0], [4.0, 4.0]]))
    pursuit, sigma = Pursuit(unguided, 0.4, 5), torch.tensor(2.0)
    assert pursuit.aim(sigma).goal.tolist() == pytest.approx([2.4, 2.4])
    for _ in range(20):  # one picture does not answer, the other goes beyond its goal
        pursuit.reached(sigma, torch.tensor([4.0, 1.0]))
    assert pursuit.aim(sigma).goal.tolist() == pytest.approx([(1 - 0.4 - FARTHEST_BEHIND) * 4, 2.4])


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_a_share_does_not_depend_on_the_number_of_steps(share: float):
    few, many = (share_taken(LinearMaps(), MapGuidance(share, "share"), steps) for steps in (20, 50))
    torch.testing.assert_close(few, many, rtol=0, atol=0.05)


def test_share_zero_is_unguided_bit_for_bit(model: Any, inversion: Inversion, source: Tensor, target: Tensor):
    model.calls.clear()
    result = edit(model, inversion, source, target, guidance=MapGuidance(0.0, "share"))
    assert not any(maps or grad for _, maps, grad in model.calls)
    assert torch.equal(result.edited, edit(model, inversion, source, target, guidance=MapGuidance(0.0)).edited)


@pytest.mark.parametrize("applied", ["before", "after"])
def test_more_is_taken_away_the_more_is_asked_for(
    model: Any, inversion: Inversion, source: Tensor, target: Tensor, applied: Any
):
    losses = [
        edit(model, inversion, source, target, guidance=MapGuidance(share, "share", applied=applied)).loss.mean(0)
        for share in (0.02, 0.1, 0.2, 0.4, 0.7, 1.0)
    ]
    for less, more in zip(losses[1:], losses, strict=False):
        assert (less <= more).all()
    assert (losses[-1] < 0.8 * losses[0]).all()


# --- the step


def test_a_step_goes_to_its_goal_in_first_order(model: Any, inversion: Inversion, source: Tensor, target: Tensor):
    x, sigma = inversion.noise, inversion.sigmas[2]
    reference = model(x, sigma.expand(2), source, maps=True).maps
    loss = map_distance(model(x, sigma.expand(2), target, maps=True).maps, reference)
    goal = loss * torch.tensor([0.999, 0.998])
    move, reported, _ = map_guidance_step(
        model, x, sigma, target, reference, Aim(goal, 10, gain=math.inf, reach=math.inf)
    )
    reached = map_distance(model(x + move, sigma.expand(2), target, maps=True).maps, reference)
    torch.testing.assert_close(reported, loss)
    torch.testing.assert_close(loss - reached, loss - goal, rtol=0.05, atol=0)


def test_limits_of_a_step():
    variance, gradient = torch.tensor(10.0), torch.ones(3, 4, 8, 8)
    loss, goal, squared = torch.tensor([10.0, 10.0, 1.0]), torch.tensor([9.0, 0.0, 2.0]), 4 * 8 * 8

    def descents(**limits: float) -> list[float]:
        aim = Aim(goal, 100, **({"gain": 1e9, "haste": 1e9, "reach": 1e9} | limits))
        return (aim.factor(loss, gradient, variance) * squared).tolist()

    assert descents() == pytest.approx([1.0, 10.0, 0.0])
    assert descents(gain=20) == pytest.approx([0.2, 2.0, 0.0])
    assert descents(haste=1) == pytest.approx([10 * (1 - math.exp(-0.01))] * 2 + [0.0])
    farthest = 0.1 / 100 * math.sqrt(10) * squared  # an RMS of x, where every element of the gradient is 1
    assert descents(reach=0.1) == pytest.approx([farthest, farthest, 0.0])
    assert Aim(goal, 100).factor(loss, torch.zeros_like(gradient), variance).tolist() == [0, 0, 0]


def test_a_step_without_the_unguided_distance_says_what_to_do():
    with pytest.raises(ValueError, match="Measure it with unguided_distance, or set the unit to normalized"):
        MapGuidance(0.5, "share").of_one_step(20)


def test_a_move_by_a_share_says_what_to_do(model: Any, inversion: Inversion, source: Tensor, target: Tensor):
    x, sigma = inversion.noise, inversion.sigmas[0]
    maps = model(x, sigma.expand(len(x)), source, maps=True).maps
    with pytest.raises(ValueError, match="Measure it with unguided_distance"):
        map_guidance_step(model, x, sigma, target, maps, MapGuidance(0.5, "share"))


def test_an_unguided_run_needs_a_reference(model: Any, inversion: Inversion, source: Tensor, target: Tensor):
    random = replace(inversion, trajectory=None)
    with pytest.raises(ValueError, match="no trajectory; give the reference latent"):
        unguided_distance(model, random.noise, random.sigmas[:-1], source, target, random, model)


# --- the distance of an unguided run


@pytest.mark.parametrize("replayed", [True, False])
@pytest.mark.parametrize("start", [0, 2])
def test_at_every_level_it_is_what_an_unguided_run_finds(
    model: Any, inversion: Inversion, source: Tensor, target: Tensor, replayed: bool, start: int
):
    if not replayed:
        inversion = Inversion(inversion.noise, inversion.sigmas)
    guided = ClassifierFreeGuidance(model, 0.5 * source, 3.0)
    steps: list[Any] = []
    guidance = MapGuidance(1e-12, start=start / 6)
    found = edit(model, inversion, source, target, guided=guided, guidance=guidance, on_step=steps.append).loss[start:]
    x, reference = steps[start].x, None
    if not replayed:
        beginning = Inversion(inversion.noise, inversion.sigmas[: start + 1]) if start else None
        reference = inversion.noise if beginning is None else edit(guided, beginning, source, source).reference
    measured = unguided_distance(
        model, x, inversion.sigmas[start:-1], source, target, inversion, guided, reference, levels=6
    )
    torch.testing.assert_close(measured.distances, found, rtol=1e-6, atol=1e-12)
    for index, sigma in enumerate(inversion.sigmas[start:-1]):
        torch.testing.assert_close(measured.at(sigma), found[index], rtol=1e-6, atol=1e-12)


def test_between_levels_and_beyond(model: Any, inversion: Inversion, source: Tensor, target: Tensor):
    measured = unguided_distance(
        model, inversion.noise, inversion.sigmas[:-1], source, target, inversion, model, levels=2
    )
    assert measured.sigmas.tolist() == [8.0, 0.2]
    middle = torch.tensor(math.sqrt(8 * 0.2), dtype=torch.float64)
    torch.testing.assert_close(measured.at(middle), measured.distances.mean(0))
    assert torch.equal(measured.at(torch.tensor(100.0)), measured.distances[0])
    torch.testing.assert_close(measured.at(torch.tensor(0.1)), measured.distances[1])
    single = unguided_distance(model, inversion.noise, inversion.sigmas[:1], source, target, inversion, model)
    assert torch.equal(single.at(torch.tensor(1.0)), single.distances[0])


def test_it_costs_a_few_rows_without_gradient_and_only_where_it_is_needed(
    model: Any, source: Tensor, target: Tensor, generator: torch.Generator
):
    sigmas = torch.linspace(8, 0, 31, dtype=torch.float64)
    x0 = torch.randn(1, 4, 8, 8, generator=generator, dtype=torch.float64)
    inversion = invert(model, x0, source, sigmas)
    guided = ReplayedGuidance(model, inversion, 3.0)

    def rows(guidance: MapGuidance) -> tuple[int, int]:
        model.calls.clear()
        edit(model, inversion, source, target, guided=guided, guidance=guidance)
        return len(model.calls), sum(grad for *_, grad in model.calls)

    without, share = rows(MapGuidance(0.5, "normalized", end=0.8)), rows(MapGuidance(0.5, "share", end=0.8))
    assert share == (without[0] + 2 * round(0.8 * UNGUIDED_LEVELS), without[1])
