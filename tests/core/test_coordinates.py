"""One method in three coordinates: what holds in VE holds in VP, and in a flow, which begins at pure noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from pix2pix_zero_core import (
    ClassifierFreeGuidance,
    Coordinates,
    Inversion,
    MapGuidance,
    NoiseRegularizer,
    RegionalDenoiser,
    ReplayedGuidance,
    carried,
    edit,
    edit_region,
    guidance_move,
    guided_steps,
    invert,
    reconstruct,
)
from pix2pix_zero_core.attention import map_distance
from pix2pix_zero_core.coordinates import euler_step
from pix2pix_zero_core.edit import map_guidance_step
from pix2pix_zero_core.regularizer import auto_correlation_loss, regularize
from tests.core.conftest import AttentionDenoiser, GaussianDenoiser

OFF = NoiseRegularizer(strength=0, kl_strength=0)
VE, VP, FLOW = Coordinates.VE, Coordinates.VP, Coordinates.FLOW
GUIDANCES = [
    MapGuidance(0),
    MapGuidance(1.0),
    MapGuidance(0.5, "normalized"),
    MapGuidance(0.5, "normalized", applied="after"),
    MapGuidance(0.5, "share"),
    MapGuidance(0.5, "share", end=0.8, applied="after"),
]


@dataclass(frozen=True)
class Rewritten:
    """A model of VE latents that is asked in other coordinates."""

    model: Any
    coordinates: Coordinates

    def __call__(self, x: Tensor, sigma: Tensor, cond: Any, *, maps: bool = False) -> Any:
        alpha = self.coordinates.alpha(sigma[:, None, None, None])
        return self.model(x / alpha, self.coordinates.noise_to_signal(sigma), cond, maps=maps)


def levels(sigmas: Tensor, coordinates: Coordinates) -> Tensor:
    """VE's levels in other coordinates."""
    return {VE: sigmas, VP: sigmas / (1 + sigmas**2).sqrt(), FLOW: sigmas / (1 + sigmas)}[coordinates]


def rewritten(inversion: Inversion, coordinates: Coordinates) -> Inversion:
    """The same inversion, its latents in other coordinates."""
    sigmas = levels(inversion.sigmas, coordinates)
    alphas = coordinates.alpha(sigmas)
    trajectory = None if inversion.trajectory is None else alphas[:, None, None, None, None] * inversion.trajectory
    return Inversion(alphas[0] * inversion.noise, sigmas, trajectory, coordinates=coordinates)


def stock_euler(denoise: Any, x: Tensor, sigmas: Tensor, cond: Any) -> Tensor:
    """Sample as ComfyUI's euler does, for models of any coordinates but VP."""
    for sigma, sigma_next in pairwise(sigmas):
        velocity = (x - denoise(x, sigma.expand(len(x)), cond).denoised) / sigma
        x = x + velocity * (sigma_next - sigma)
    return x


def error(x: Tensor, expected: Tensor) -> float:
    return float((x - expected).norm() / expected.norm())


@pytest.fixture(params=[VP, FLOW], ids=["VP", "flow"])
def coordinates(request: pytest.FixtureRequest) -> Coordinates:
    return request.param


@pytest.fixture
def x0(generator: torch.Generator) -> Tensor:
    return torch.randn(2, 4, 8, 12, generator=generator, dtype=torch.float64)


@pytest.fixture
def inversion(model: AttentionDenoiser, x0: Tensor, source: Tensor, sigmas: Tensor) -> Inversion:
    return invert(model, x0, source, sigmas, OFF, fixed_point=60)


@pytest.fixture
def flow() -> AttentionDenoiser:
    """The model as a flow, which has an answer where nothing is left of x0."""
    return AttentionDenoiser(coordinates=FLOW)


@pytest.fixture
def times() -> Tensor:
    """All of a flow's way, its steps shifted towards the noise as those of Stable Diffusion 3 are."""
    t = torch.linspace(1, 0, 13, dtype=torch.float64)
    return 3 * t / (1 + 2 * t)


@pytest.fixture
def from_noise(flow: AttentionDenoiser, x0: Tensor, source: Tensor, times: Tensor) -> Inversion:
    return invert(flow, x0, source, times, OFF, fixed_point=60, coordinates=FLOW)


# --- the same in all coordinates


def test_alpha_and_sigma_are_levels_of_one_process(coordinates: Coordinates):
    sigmas = torch.logspace(-2, 2, 20, dtype=torch.float64)
    same = levels(sigmas, coordinates)
    torch.testing.assert_close(coordinates.noise_to_signal(same), sigmas)
    torch.testing.assert_close(
        coordinates.variance(same), coordinates.alpha(same) ** 2 * (1 + sigmas**2), rtol=1e-12, atol=0
    )
    if coordinates is VP:
        torch.testing.assert_close(coordinates.variance(same), torch.ones_like(sigmas))
    assert coordinates.alpha(torch.tensor(coordinates.highest)) == 0


def test_a_step_keeps_image_and_noise(coordinates: Coordinates, x0: Tensor, generator: torch.Generator):
    eps = torch.randn(x0.shape, generator=generator, dtype=torch.float64)
    sigma, sigma_next = torch.tensor([0.9, 0.4], dtype=torch.float64)
    x, expected = (coordinates.alpha(level) * x0 + level * eps for level in (sigma, sigma_next))
    torch.testing.assert_close(euler_step(x, x0, sigma, sigma_next, coordinates), expected)
    torch.testing.assert_close(coordinates.with_noise(x, eps, sigma, sigma_next), expected)
    torch.testing.assert_close(coordinates.noise(x, x0, sigma), eps)
    torch.testing.assert_close(coordinates.image(x, eps, sigma), x0)


@pytest.mark.parametrize(
    ("regularizer", "fixed_point"), [(NoiseRegularizer(), 0), (OFF, 0), (OFF, 300)], ids=["whitened", "plain", "solved"]
)
def test_inversions_are_the_same(
    model: AttentionDenoiser, x0: Tensor, source: Tensor, sigmas: Tensor, coordinates: Coordinates, regularizer: Any,
    fixed_point: int,
):  # fmt: skip
    expected = invert(model, x0, source, sigmas, regularizer, fixed_point=fixed_point)
    same = rewritten(expected, coordinates)
    found = invert(
        Rewritten(model, coordinates), x0, source, same.sigmas, regularizer, fixed_point=fixed_point,
        coordinates=coordinates,
    )  # fmt: skip
    torch.testing.assert_close(found.trajectory, same.trajectory, rtol=0, atol=1e-9)


@pytest.mark.parametrize("fixed_point", [1, 4])
def test_in_ve_an_inversion_is_eulers_method_bit_for_bit(
    model: AttentionDenoiser, x0: Tensor, source: Tensor, sigmas: Tensor, fixed_point: int
):
    def noise(x: Tensor, sigma: Tensor) -> Tensor:
        return regularize((x - model(x, sigma.expand(len(x)), source).denoised) / sigma, NoiseRegularizer())

    inversion, x, eps = invert(model, x0, source, sigmas, fixed_point=fixed_point), x0, noise(x0, sigmas[-2])
    for sigma, sigma_next in pairwise(sigmas.flip(0)):
        for _ in range(fixed_point):
            eps = noise(x + (sigma_next - sigma) * eps, sigma_next)
        x = x + (sigma_next - sigma) * eps
        assert torch.equal(inversion.latent_at(float(sigma_next)), x)


@pytest.mark.parametrize("sigma", [100.0, 8.0, 5.0, 1.7, 0.2, 0.05, 0.0])
def test_what_an_inversion_recorded_is_the_same_at_any_level(
    inversion: Inversion, coordinates: Coordinates, sigma: float, x0: Tensor
):
    same, level = rewritten(inversion, coordinates), levels(torch.tensor(sigma, dtype=torch.float64), coordinates)
    reached = levels(torch.tensor(min(sigma, 8.0), dtype=torch.float64), coordinates)
    expected = coordinates.alpha(reached) * inversion.latent_at(sigma)
    torch.testing.assert_close(same.latent_at(float(level)), expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(same.noise_at(float(level)), inversion.noise_at(sigma), rtol=0, atol=1e-9)
    replayed = same.replayed(coordinates.alpha(level) * x0, float(level))
    torch.testing.assert_close(replayed, inversion.replayed(x0, sigma), rtol=0, atol=1e-9)


@pytest.mark.parametrize("guidance", GUIDANCES, ids=lambda g: f"{g.strength} {g.unit} {g.applied}")
@pytest.mark.parametrize("branch", ["replayed", "sampled"])
def test_edits_are_the_same_pictures(
    model: AttentionDenoiser, inversion: Inversion, source: Tensor, target: Tensor, coordinates: Coordinates,
    guidance: MapGuidance, branch: str,
):  # fmt: skip
    if branch == "sampled":
        inversion = Inversion(inversion.noise, inversion.sigmas)

    def run(model: Any, inversion: Inversion) -> Any:
        guided = ClassifierFreeGuidance(model, 0.5 * source, 3.0, below=3.0, coordinates=inversion.coordinates)
        if branch == "replayed":
            guided = RegionalDenoiser(
                ReplayedGuidance(model, inversion), inversion, edit_region(model, inversion, source, target)
            )
        return edit(model, inversion, source, target, guided=guided, guidance=guidance)

    expected = run(model, inversion)
    found = run(Rewritten(model, coordinates), rewritten(inversion, coordinates))
    torch.testing.assert_close(found.edited, expected.edited, rtol=0, atol=1e-9)  # at sigma 0, where latents are equal
    torch.testing.assert_close(found.reference, expected.reference, rtol=0, atol=1e-9)
    torch.testing.assert_close(found.loss, expected.loss, rtol=1e-9, atol=1e-9)


def test_reconstructions_are_the_same(
    model: AttentionDenoiser, inversion: Inversion, source: Tensor, coordinates: Coordinates
):
    found = reconstruct(Rewritten(model, coordinates), rewritten(inversion, coordinates), source)
    torch.testing.assert_close(found, reconstruct(model, inversion, source), rtol=0, atol=1e-9)


# --- a flow, from where all is noise


def test_the_noise_of_a_flow_converges_to_the_exact_solution_at_first_order(x0: Tensor):
    gaussian, errors = GaussianDenoiser(coordinates=FLOW), []
    for steps in (20, 40, 80, 160):
        times = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
        noise = invert(gaussian, x0, None, times, OFF, fixed_point=0, coordinates=FLOW).noise
        errors.append(error(noise, gaussian.solve(x0, 1.0)))
    orders = [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]
    assert orders == pytest.approx([1] * 3, abs=0.2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_flow_goes_round_through_stock_euler(
    x0: Tensor, source: Tensor, target: Tensor, times: Tensor, dtype: torch.dtype
):
    for flow in (GaussianDenoiser(coordinates=FLOW), AttentionDenoiser(dtype, coordinates=FLOW)):
        inverted = invert(flow, x0.to(dtype), source, times, OFF, fixed_point=30, coordinates=FLOW)
        assert float(inverted.sigmas[0]) == 1
        assert error(stock_euler(flow, inverted.noise, times.to(dtype), source), x0.to(dtype)) < 1e-5
        assert error(reconstruct(flow, inverted, source), x0.to(dtype)) < 1e-5


def test_a_few_refinements_of_a_flow_converge_where_those_of_ve_stall(flow: AttentionDenoiser, x0: Tensor, source: Any):
    sigmas = torch.tensor([1000.0, 19.0, 4.0, 1.0, 0.3, 0.0], dtype=torch.float64)
    errors = {}
    for coordinates in (VE, FLOW):
        model, grid = Rewritten(AttentionDenoiser(), coordinates), levels(sigmas, coordinates)
        inverted = invert(model, x0, source, grid, OFF, fixed_point=20, coordinates=coordinates)
        errors[coordinates] = error(reconstruct(model, inverted, source), x0)
    assert errors[FLOW] < 1e-2 * errors[VE]


def test_the_regulariser_whitens_the_noise_of_a_flow(x0: Tensor, source: Tensor, times: Tensor):
    flow, smooth = GaussianDenoiser(coordinates=FLOW), torch.nn.functional.interpolate(x0, scale_factor=2)
    plain, pushed = (
        invert(flow, smooth, source, times, regularizer, coordinates=FLOW).noise
        for regularizer in (OFF, NoiseRegularizer())
    )
    assert (auto_correlation_loss(pushed) < 0.5 * auto_correlation_loss(plain)).all()
    assert ((pushed.std((1, 2, 3)) - 1).abs() < (plain.std((1, 2, 3)) - 1).abs()).all()


def test_what_is_replayed_from_pure_noise_leads_back_to_the_picture(
    flow: AttentionDenoiser, from_noise: Inversion, x0: Tensor, source: Tensor, target: Tensor
):
    replayed = ReplayedGuidance(flow, from_noise, 7.5)
    torch.testing.assert_close(reconstruct(replayed, from_noise, source), x0, rtol=0, atol=1e-6)
    nowhere = RegionalDenoiser(flow, from_noise, torch.zeros(2, 1, 8, 12))
    torch.testing.assert_close(reconstruct(nowhere, from_noise, target), x0, rtol=0, atol=1e-9)


@pytest.mark.parametrize("guidance", GUIDANCES[1:], ids=lambda g: f"{g.strength} {g.unit} {g.applied}")
def test_guidance_holds_a_flow_from_pure_noise(
    flow: AttentionDenoiser, from_noise: Inversion, source: Tensor, target: Tensor, guidance: MapGuidance
):
    free = edit(flow, from_noise, source, target, guidance=MapGuidance(1e-9))
    held = edit(flow, from_noise, source, target, guidance=guidance)
    assert (held.loss[1:].sum(0) < 0.9 * free.loss[1:].sum(0)).all()


def test_strength_zero_is_stock_euler(
    flow: AttentionDenoiser, from_noise: Inversion, source: Tensor, target: Tensor, times: Tensor
):
    edited = edit(flow, from_noise, source, target, guidance=MapGuidance(0)).edited
    torch.testing.assert_close(edited, stock_euler(flow, from_noise.noise, times, target), rtol=0, atol=1e-12)


def test_the_paper_step_is_taken_on_the_vp_latent(
    flow: AttentionDenoiser, from_noise: Inversion, source: Tensor, target: Tensor
):
    assert from_noise.trajectory is not None
    x, sigma = from_noise.trajectory[3], from_noise.sigmas[4]
    reference = flow(x, sigma.expand(2), source, maps=True).maps
    move, _, _ = map_guidance_step(flow, x, sigma, target, reference, MapGuidance(0.1), FLOW)
    root = ((1 - sigma) ** 2 + sigma**2).sqrt()
    x_vp = (x / root).requires_grad_()
    distance = map_distance(flow(x_vp * root, sigma.expand(2), target, maps=True).maps, reference)
    (gradient,) = torch.autograd.grad(distance.sum(), x_vp)
    torch.testing.assert_close(move / root, -0.1 * gradient)


@pytest.mark.parametrize("applied", ["before", "after"])
def test_eulers_method_with_moves_is_edit(
    flow: AttentionDenoiser, from_noise: Inversion, source: Tensor, target: Tensor, applied: Any
):
    guidance = MapGuidance(0.3, "normalized", end=0.6, applied=applied)
    x, active = from_noise.noise, guided_steps(from_noise.sigmas, from_noise, guidance)
    for (sigma, sigma_next), guided in zip(pairwise(from_noise.sigmas), active, strict=True):
        move = torch.zeros_like(x)
        if guided:
            move = guidance_move(flow, x, sigma, source, target, from_noise, guidance)
        if applied == "before":
            x = x + move
        x = stock_euler(flow, x, torch.stack([sigma, sigma_next]), target)
        if applied == "after":
            x = x + carried(move, sigma, sigma_next, FLOW)
    expected = edit(flow, from_noise, source, target, guidance=guidance).edited
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-10)


def test_two_pictures_together_are_each_alone(flow: AttentionDenoiser, x0: Tensor, source: Tensor, times: Tensor):
    together = invert(flow, x0, source, times, fixed_point=6, coordinates=FLOW)
    for b in range(2):
        alone = invert(flow, x0[b : b + 1], source, times, fixed_point=6, coordinates=FLOW)
        torch.testing.assert_close(together.noise[b : b + 1], alone.noise, rtol=1e-9, atol=1e-11)


# --- bad input


def test_levels_above_pure_noise_say_what_to_do(x0: Tensor, sigmas: Tensor, coordinates: Coordinates):
    message = rf"sigmas begins at 8\.0; in {coordinates.value} coordinates no level is above 1.*schedule of the model"
    with pytest.raises(ValueError, match=message):
        invert(GaussianDenoiser(coordinates=coordinates), x0, None, sigmas, coordinates=coordinates)
    with pytest.raises(ValueError, match=message):
        Inversion(x0, sigmas, coordinates=coordinates)
