from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from pix2pix_zero_core import Coordinates, Inversion, NoiseRegularizer, Prediction, edit, invert, reconstruct
from pix2pix_zero_core.schedule import ddim_sigmas, sigmas_from_alphas

OFF = NoiseRegularizer(strength=0, kl_strength=0)
TRAINING = sigmas_from_alphas(torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000).double() ** 2, 0))


@pytest.fixture
def x0(generator):
    return torch.randn(2, 4, 16, 16, generator=generator, dtype=torch.float64)


def geometric(steps: int) -> torch.Tensor:
    return torch.logspace(math.log10(10), math.log10(0.03), steps + 1, dtype=torch.float64)


def rms(x: torch.Tensor) -> float:
    return x.square().mean().sqrt().item()


def test_shapes_and_alignment(gaussian, x0, sigmas):
    inversion = invert(gaussian, x0, None, sigmas)
    assert inversion.trajectory.shape == (7, 2, 4, 16, 16)
    assert inversion.residual.shape == (6, 2)
    assert torch.equal(inversion.sigmas, sigmas)
    assert torch.equal(inversion.trajectory[0], inversion.noise)
    assert torch.equal(inversion.trajectory[-1], x0)


def test_noise_converges_to_the_exact_solution_at_first_order(gaussian, x0):
    errors = []
    for steps in (20, 40, 80, 160):
        sigmas = geometric(steps)
        start = gaussian.solve(x0, float(sigmas[-1]))
        noise = invert(gaussian, start, None, sigmas, OFF, fixed_point=0).noise
        errors.append(rms(noise - gaussian.solve(x0, float(sigmas[0]))))
    orders = [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]
    assert orders == pytest.approx([1] * 3, abs=0.2)


def test_round_trip_error_falls_at_first_order(gaussian, x0):
    errors = []
    for steps in (20, 40, 80, 160):
        inversion = invert(gaussian, x0, None, geometric(steps), OFF, fixed_point=0)
        errors.append(rms(reconstruct(gaussian, inversion, None) - x0))
    orders = [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]
    assert orders == pytest.approx([1] * 3, abs=0.2)


@pytest.mark.parametrize("final", ["zero", "sigma_min"])
def test_fixed_point_makes_the_round_trip_nearly_exact(gaussian, x0, final):
    sigmas = ddim_sigmas(TRAINING, 25, final=final)
    error = {}
    for iterations in (0, 3, 30):
        inversion = invert(gaussian, x0, None, sigmas, OFF, fixed_point=iterations)
        error[iterations] = rms(reconstruct(gaussian, inversion, None) - x0)
    assert error[3] < 0.05 * error[0]
    assert error[30] < 1e-9


def test_fixed_point_works_on_attention(model, x0, source, sigmas):
    inversion = invert(model, x0, source, sigmas, OFF, fixed_point=50)
    assert torch.allclose(reconstruct(model, inversion, source), x0, atol=1e-9)


def test_residual_is_the_size_of_the_last_change(gaussian, x0, sigmas):
    residuals = [invert(gaussian, x0, None, sigmas, OFF, fixed_point=n).residual for n in (1, 3, 6)]
    assert (residuals[1] < residuals[0]).all()
    assert (residuals[2] < residuals[1]).all()
    assert invert(gaussian, x0, None, sigmas, OFF, fixed_point=0).residual is None


def test_refinement_stops_when_the_residual_stalls(gaussian, x0, sigmas):
    calls = []

    def counted(x, sigma, cond, *, maps=False):
        calls.append(float(sigma[0]))
        return gaussian(x, sigma, cond)

    invert(counted, x0, None, sigmas, OFF, fixed_point=1000)
    assert len(calls) < 100 * (len(sigmas) - 1)


def test_a_diverging_sample_falls_back_to_the_explicit_step_alone(x0):
    """With eps = k x and step * k > 1 for the first sample only, its iteration diverges, the other one's converges."""
    k = torch.tensor([3.0, 0.2], dtype=torch.float64)[:, None, None, None]
    sigmas = torch.tensor([1.5, 1.0], dtype=torch.float64)

    def denoise(x, sigma, cond, *, maps=False):
        return Prediction(x - sigma[:, None, None, None] * k * x)

    noise = invert(denoise, x0, None, sigmas, OFF, fixed_point=40).noise
    assert torch.allclose(noise[0], x0[0] * (1 + 0.5 * 3))
    assert torch.allclose(noise[1], x0[1] / (1 - 0.5 * 0.2))


def test_a_grid_that_ends_at_zero_never_asks_the_model_there(gaussian, x0, sigmas):
    seen = []

    def recorded(x, sigma, cond, *, maps=False):
        seen.append(float(sigma[0]))
        return gaussian(x, sigma, cond)

    assert sigmas[-1] == 0
    inversion = invert(recorded, x0, None, sigmas, OFF, fixed_point=0)
    assert seen == [0.2, 0.2, 0.5, 1.0, 2.0, 4.0]
    assert torch.isfinite(inversion.trajectory).all()
    eps = (x0 - gaussian(x0, torch.tensor([0.2, 0.2]), None).denoised) / 0.2
    assert torch.allclose(inversion.trajectory[-2], x0 + 0.2 * eps)


def test_regularisation_reaches_every_predicted_noise(gaussian, x0, sigmas):
    plain, pushed = (invert(gaussian, x0, None, sigmas, r).trajectory for r in (OFF, NoiseRegularizer()))
    assert ((plain - pushed)[:-1].flatten(1).abs().amax(1) > 1e-6).all()


def test_random_shifts_differ_between_steps_and_generators(x0, sigmas):
    def fixed_eps(x, sigma, cond, *, maps=False):
        return Prediction(x - sigma[:, None, None, None] * x0)

    regularizer = NoiseRegularizer(shifts="random", kl_strength=0)
    first, other = (
        invert(fixed_eps, x0, None, sigmas, regularizer, generator=torch.Generator().manual_seed(seed)).trajectory
        for seed in (1, 2)
    )
    predicted = first.diff(dim=0) / sigmas.diff()[:, None, None, None, None]
    assert not torch.allclose(predicted[0], predicted[1], atol=1e-6)
    assert not torch.allclose(first, other, atol=1e-6)


def test_random_shifts_stay_the_same_while_a_step_is_solved(gaussian, x0, sigmas):
    regularizer = NoiseRegularizer(shifts="random")
    assert (invert(gaussian, x0, None, sigmas, regularizer, fixed_point=40).residual < 1e-6).all()


def test_inverting_together_equals_inverting_each_alone(model, x0, source, sigmas):
    for regularizer in (NoiseRegularizer(), NoiseRegularizer(shifts="random")):
        # The first sample is near a fixed point of the model and stalls sooner than the second.
        x = torch.stack([0 * x0[0], x0[1]])
        together = invert(
            model, x, source, sigmas, regularizer, fixed_point=8, generator=torch.Generator().manual_seed(5)
        )
        for b in range(2):
            alone = invert(
                model, x[b : b + 1], source, sigmas, regularizer, fixed_point=8,
                generator=torch.Generator().manual_seed(5),
            )  # fmt: skip
            assert torch.allclose(together.trajectory[:, b : b + 1], alone.trajectory, rtol=1e-9, atol=1e-11)
            assert torch.allclose(together.residual[:, b : b + 1], alone.residual, rtol=1e-5, atol=1e-12)


def test_half_precision_latents_are_integrated_in_float32(gaussian, x0, sigmas):
    assert invert(gaussian, x0.half(), None, sigmas).noise.dtype == torch.float32
    assert invert(gaussian, x0, None, sigmas).noise.dtype == torch.float64


def test_steps_are_reported_in_order(gaussian, x0, sigmas):
    steps = []
    inversion = invert(gaussian, x0, None, sigmas, OFF, on_step=steps.append)
    assert [step.index for step in steps] == list(range(6))
    assert {step.total for step in steps} == {6}
    assert [step.sigma for step in steps] == sigmas.flip(0)[:-1].tolist()
    for step, x, x_next, sigma_next in zip(
        steps, inversion.trajectory.flip(0), inversion.trajectory.flip(0)[1:], sigmas.flip(0)[1:], strict=False
    ):
        assert torch.equal(step.x, x)
        # `denoised` lies on the straight line through both ends of the step, at sigma 0.
        assert torch.allclose(step.denoised, x_next - sigma_next * (x_next - x) / (sigma_next - step.sigma))


def test_an_interrupt_reaches_the_caller(gaussian, x0, sigmas):
    def interrupt(step):
        if step.index == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        invert(gaussian, x0, None, sigmas, on_step=interrupt)


def test_no_gradients_are_kept(model, x0, source, sigmas):
    with torch.enable_grad():
        inversion = invert(model, x0.requires_grad_(), source, sigmas)
    assert not inversion.noise.requires_grad
    assert not any(grad for _, _, grad in model.calls)


@pytest.mark.parametrize(
    ("x0", "error", "message"),
    [
        (torch.full((1, 4, 8, 8), math.nan), ValueError, r"x0 holds NaN or Inf \(256 of 256 values\).*float32"),
        (torch.full((1, 4, 8, 8), math.inf), ValueError, "x0 holds NaN or Inf"),
        (torch.zeros(4, 8, 8), ValueError, r"x0 has shape \(4, 8, 8\); it must be \(batch, channels, height, width\)"),
        (torch.zeros(0, 4, 8, 8), ValueError, "x0 has shape"),
        (torch.zeros(1, 4, 8, 8, dtype=torch.int64), TypeError, r"x0 has dtype torch\.int64; it must be floating"),
        (torch.zeros(1, 4, 7, 8), ValueError, "needs at least 8x8.*Use a larger image"),
    ],
)
def test_bad_latents(gaussian, sigmas, x0, error, message):
    with pytest.raises(error, match=message):
        invert(gaussian, x0, None, sigmas)


def test_bad_grid_and_bad_iterations(gaussian, x0, sigmas):
    with pytest.raises(ValueError, match=r"zero steps.*Raise the number of steps"):
        invert(gaussian, x0, None, sigmas[:1])
    with pytest.raises(ValueError, match=r"descends strictly.*unreversed"):
        invert(gaussian, x0, None, sigmas.flip(0))
    with pytest.raises(ValueError, match="fixed_point is -1; it must be >= 0"):
        invert(gaussian, x0, None, sigmas, fixed_point=-1)
    one_step = torch.tensor([1.0, 0.0], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"fixed_point is 0, .* pure noise in one step.*fixed_point to 1"):
        invert(gaussian, x0, None, one_step, fixed_point=0, coordinates=Coordinates.FLOW)


def test_a_model_that_overflows_is_named(x0, sigmas, gaussian):
    def overflow(x, sigma, cond, *, maps=False):
        return Prediction(torch.full_like(x, math.nan))

    with pytest.raises(ValueError, match=r"The model's prediction at sigma 0\.2 holds NaN.*float32"):
        invert(overflow, x0, None, sigmas)
    inversion = invert(gaussian, x0, None, sigmas)
    with pytest.raises(ValueError, match="The model's prediction at sigma 8 holds NaN"):
        reconstruct(overflow, inversion, None)
    with pytest.raises(ValueError, match="The model's prediction at sigma 8 holds NaN"):
        edit(overflow, inversion, None, None)


def test_inversions_are_validated(x0, sigmas):
    with pytest.raises(ValueError, match="Inversion: noise holds NaN"):
        Inversion(x0 * math.nan, sigmas)
    with pytest.raises(ValueError, match="descends strictly"):
        Inversion(x0, sigmas.flip(0))
    with pytest.raises(ValueError, match=r"trajectory has shape \(6, 2.*it must be \(7, 2, 4, 16, 16\).*Invert again"):
        Inversion(x0, sigmas, trajectory=x0.expand(6, *x0.shape))
    with pytest.raises(ValueError, match="trajectory holds NaN or Inf"):
        Inversion(x0, sigmas, trajectory=torch.stack([x0] * 6 + [x0 * math.nan]))
    with pytest.raises(ValueError, match=r"residual has shape \(6,\); it must be \(6, 2\)"):
        Inversion(x0, sigmas, residual=torch.zeros(6))
