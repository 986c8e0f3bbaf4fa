from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from pix2pix_zero_core import NoiseRegularizer
from pix2pix_zero_core.hartley import transform
from pix2pix_zero_core.regularizer import (
    auto_correlation,
    auto_correlation_gradient,
    auto_correlation_loss,
    decorrelate,
    draw_shifts,
    kl_gradient,
    kl_loss,
    longest_step,
    pyramid,
    regularize,
    shifted_correlation_gradient,
    shifted_correlation_loss,
)

SIZES = [(8, 8), (16, 16), (24, 16), (17, 19), (9, 33), (64, 64)]


def correlated(generator: torch.Generator, height: int, width: int, share: float = 0.3, batch: int = 2) -> Tensor:
    """White noise, ``share`` of whose variance is blurred over 5x5 pixels."""
    white, other = torch.randn(2, batch, 4, height, width, generator=generator, dtype=torch.float64)
    blurred = avg_pool2d(pad(other, (2, 2, 2, 2), mode="circular"), 5, 1) * 5
    return (1 - share) ** 0.5 * white + share**0.5 * blurred


def energy(x: Tensor) -> Tensor:
    return x.square().sum((1, 2, 3))


@pytest.mark.parametrize(
    ("size", "sides"),
    [
        ((64, 64), [(64, 64), (32, 32), (16, 16), (8, 8)]),
        ((16, 16), [(16, 16), (8, 8)]),
        ((15, 40), [(15, 40)]),
        ((96, 40), [(96, 40), (48, 20), (24, 10)]),
        ((17, 19), [(17, 19), (8, 9)]),
    ],
)
def test_pyramid_stops_at_eight(size, sides):
    assert [tuple(level.shape[-2:]) for level in pyramid(torch.zeros(1, 4, *size))] == sides


def test_pyramid_keeps_white_noise_white(generator):
    levels = pyramid(torch.randn(8, 4, 64, 64, generator=generator))
    for level in levels:
        assert level.std().item() == pytest.approx(1, abs=0.05)


def test_fft_sum_equals_brute_force_over_all_rolls(generator):
    for height, width in SIZES:
        eps = correlated(generator, height, width)
        expected = torch.zeros(2, dtype=torch.float64)
        for level in pyramid(eps):
            for axis in (-1, -2):
                shifts = range(1, level.shape[axis])
                for shift in shifts:
                    r = (level * level.roll(shift, axis)).mean((-1, -2))
                    expected += r.square().sum(-1) / len(shifts)
        assert torch.allclose(auto_correlation_loss(eps), expected, rtol=1e-10)


@pytest.mark.parametrize("size", SIZES)
def test_the_transform_is_its_own_inverse_and_keeps_energy(generator, size):
    eps = correlated(generator, *size)
    assert torch.allclose(transform(transform(eps)), eps)
    assert torch.allclose(energy(transform(eps)), energy(eps))


def test_auto_correlation_at_zero_is_the_mean_square(generator):
    eps = correlated(generator, 16, 24)
    assert torch.allclose(auto_correlation(eps)[..., 0], eps.square().mean((-1, -2)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("gain", [1.0, 2.0])
def test_closed_form_gradients_equal_autograd(generator, size, gain):
    eps = correlated(generator, *size).requires_grad_()
    shifts = draw_shifts(eps, gain, generator)
    for loss, gradient in [
        (auto_correlation_loss(eps, gain), auto_correlation_gradient(eps, gain)),
        (shifted_correlation_loss(eps, shifts, gain), shifted_correlation_gradient(eps, shifts, gain)),
        (kl_loss(eps), kl_gradient(eps)),
    ]:
        (expected,) = torch.autograd.grad(loss.sum(), eps, retain_graph=True)
        assert torch.allclose(gradient, expected, rtol=1e-8, atol=1e-14)
        assert expected.abs().max() > 1e-6


def test_losses_pass_gradcheck(generator):
    eps = correlated(generator, 8, 9, batch=1)[:, :1].requires_grad_()
    assert torch.autograd.gradcheck(auto_correlation_loss, eps)
    assert torch.autograd.gradcheck(kl_loss, eps)


def test_exact_form_is_the_expectation_of_the_random_form(generator):
    eps = correlated(generator, 9, 9)  # an odd side: shifts 1 to 4 and their mirror images are all there are
    every = torch.stack([shifted_correlation_loss(eps, [[shift]] * 4) for shift in range(1, 5)])
    assert torch.allclose(auto_correlation_loss(eps), every.mean(0))


def test_random_shifts_are_never_zero_and_stay_below_half(generator):
    shifts = [draw_shifts(torch.zeros(1, 4, 16, 24), generator=generator) for _ in range(200)]
    assert {s for draw in shifts for channel in draw for s in channel[:1]} == set(range(1, 8))
    assert {s for draw in shifts for channel in draw for s in channel[1:]} == set(range(1, 4))


def test_kl_is_zero_for_unit_noise_only(generator):
    eps = torch.randn(1, 4, 16, 16, generator=generator, dtype=torch.float64)
    eps = (eps - eps.mean()) / eps.std()
    assert kl_loss(eps).item() == pytest.approx(0, abs=1e-6)
    assert kl_loss(2 * eps).item() > 1
    assert kl_loss(eps + 1).item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("size", [(16, 16), (64, 64)])
@pytest.mark.parametrize("strength", [1.0, 20.0, 1000.0])
@pytest.mark.parametrize("share", [0.1, 0.6, 1.0])
def test_decorrelating_never_overshoots_and_keeps_energy(generator, size, strength, share):
    eps = correlated(generator, *size, share)
    loss = auto_correlation_loss(eps)
    for _ in range(5):
        moved = decorrelate(eps, strength)
        assert torch.allclose(energy(moved), energy(eps))
        eps = moved
    assert (auto_correlation_loss(eps) < 0.8 * loss).all()


def test_no_step_up_to_the_longest_turns_the_noise_round(generator):
    eps = correlated(generator, 16, 16, share=1.0)
    move = longest_step(eps)[..., None, None] * auto_correlation_gradient(eps)
    left = ((eps - move) * eps).sum((-1, -2)) / eps.square().sum((-1, -2))
    assert (left > 0).all()
    assert (move.square().sum((-1, -2)) > 0.01 * eps.square().sum((-1, -2))).all(), "the bound must not be vacuous"


@pytest.mark.parametrize("size", [(8, 8), (15, 15)])
def test_the_longest_step_turns_no_frequency_round(generator, size):
    """Where the pyramid has one level the move acts on each frequency by itself, and the bound is exact."""
    eps = correlated(generator, *size, share=1.0)
    move = longest_step(eps)[..., None, None] * auto_correlation_gradient(eps)
    kept, before = torch.fft.fft2(eps - move), torch.fft.fft2(eps)
    assert ((kept * before.conj()).real > -1e-6 * before.abs().square().amax((-1, -2), keepdim=True)).all()
    further = torch.fft.fft2(eps - 1.1 * move)
    assert ((further * before.conj()).real < -1e-6 * before.abs().square().amax((-1, -2), keepdim=True)).any()


@pytest.mark.parametrize("size", [(16, 16), (64, 64)])
def test_default_strength_is_cautious(generator, size):
    """The measurement behind the default, in the units of its docstring."""
    white, tainted = correlated(generator, *size, share=0.0, batch=8), correlated(generator, *size, share=0.1, batch=8)
    calm, cleaned = (regularize(eps, NoiseRegularizer()) for eps in (white, tainted))
    assert ((calm - white).norm() / white.norm()).item() < 0.03
    assert ((cleaned - tainted).norm() / tainted.norm()).item() < 0.07
    assert auto_correlation_loss(cleaned).mean() < 0.5 * auto_correlation_loss(tainted).mean()
    assert auto_correlation_loss(cleaned).mean() > auto_correlation_loss(white).mean()
    before, after = tainted.var((1, 2, 3)), cleaned.var((1, 2, 3))
    assert ((after / before - 1).abs() < 0.04).all()
    assert ((after - 1).abs() < (before - 1).abs()).all(), "what moves the variance is L_KL, towards 1"


def test_kl_pulls_mean_and_variance_towards_zero_and_one(generator):
    eps = 1.5 * torch.randn(1, 4, 16, 16, generator=generator) + 0.3
    moved = regularize(eps, NoiseRegularizer(strength=0, iterations=20))
    assert abs(moved.mean()) < abs(eps.mean())
    assert 1 < moved.var() < eps.var()


def test_zero_strengths_or_iterations_change_nothing(generator):
    eps = correlated(generator, 16, 16)
    assert torch.equal(regularize(eps, NoiseRegularizer(strength=0, kl_strength=0)), eps)
    assert torch.equal(regularize(eps, NoiseRegularizer(iterations=0)), eps)


def test_constant_and_zero_noise_stay_finite():
    for value in (0.0, 1.0):
        eps = torch.full((1, 4, 8, 8), value)
        assert torch.isfinite(regularize(eps, NoiseRegularizer())).all()


@pytest.mark.parametrize("shifts", ["all", "random"])
def test_regularising_together_equals_regularising_each_alone(generator, shifts):
    eps = correlated(generator, 16, 24, batch=3)
    settings = NoiseRegularizer(strength=5, shifts=shifts)
    together = regularize(eps, settings, torch.Generator().manual_seed(3))
    alone = [regularize(e[None], settings, torch.Generator().manual_seed(3)) for e in eps]
    assert torch.allclose(together, torch.cat(alone), rtol=1e-12)


def test_random_shifts_follow_the_generator(generator):
    eps, settings = correlated(generator, 16, 16), NoiseRegularizer(shifts="random")
    first, again, other = (regularize(eps, settings, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("size", [(7, 64), (64, 7)])
def test_latents_below_eight_are_refused(size):
    with pytest.raises(ValueError, match=rf"The latent is {size[1]}x{size[0]} .* needs at least 8x8"):
        regularize(torch.zeros(1, 4, *size), NoiseRegularizer())


def test_overflow_is_an_error(generator):
    eps = correlated(generator, 64, 64, share=1.0)
    with pytest.raises(ValueError, match=r"overflowed: strength 200 or kl_strength 20 .* Lower it, or use shifts"):
        regularize(eps, NoiseRegularizer(strength=200.0, shifts="random"), generator)
    with pytest.raises(ValueError, match=r"overflowed: kl_strength 1e\+30 is too much for this noise\. Lower it\.$"):
        regularize(eps, NoiseRegularizer(strength=200.0, kl_strength=1e30), generator)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"strength": -1}, "strength is -1; it must be finite and >= 0"),
        ({"strength": float("nan")}, "strength is nan"),
        ({"kl_strength": float("inf")}, "kl_strength is inf; it must be finite and >= 0"),
        ({"iterations": -1}, "iterations is -1; it must be >= 0"),
        ({"shifts": "some"}, 'shifts is \'some\'; it must be "all" or "random"'),
        ({"rolls": 0}, "rolls is 0; it must be >= 1"),
        ({"pool_gain": 0}, "pool_gain is 0; it must be a finite number > 0"),
    ],
)
def test_bad_settings(setting, message):
    with pytest.raises(ValueError, match=message):
        NoiseRegularizer(**setting)
