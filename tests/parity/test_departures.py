"""Where the published code departs from the paper: one test a departure, numbered as in official.py.

Each shows what the official variant does (followed) or what nobody here does any more (corrected in both), and what the
default does instead.
"""

from __future__ import annotations

import pytest
import torch

from pix2pix_zero_core import Inversion, MapGuidance, NoiseRegularizer, Prediction, edit, invert, official
from pix2pix_zero_core.attention import map_distance
from pix2pix_zero_core.regularizer import (
    draw_shifts,
    pyramid,
    regularize,
    shifted_correlation_gradient,
    shifted_correlation_loss,
)
from pix2pix_zero_core.schedule import ddim_sigmas, ve_to_vp

OFF = NoiseRegularizer(strength=0, kl_strength=0)


class Recorded:
    """A denoiser that notes how it is called."""

    def __init__(self, denoise):
        self.denoise, self.calls = denoise, []

    def __call__(self, x, sigma, cond, *, maps=False):
        self.calls.append((float(sigma[0]), cond, maps, torch.is_grad_enabled()))
        return self.denoise(x, sigma, cond, maps=maps)


@pytest.fixture
def prompts(tiny, cond):
    return cond(tiny.source), cond(tiny.target)


@pytest.fixture
def one_step(tiny):
    sigmas = tiny.denoise.sigmas[[501, 401]]
    return Inversion(tiny.x0 * float(sigmas[0]), sigmas)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def correlated(size: int) -> torch.Tensor:
    white, other = torch.randn(2, 1, 4, size, size, generator=seeded(0))
    return 0.8 * white + 0.6 * torch.nn.functional.avg_pool2d(other, 3, 1, 1) * 3


def test_departure_1_the_step_continues_from_the_negative_row(tiny, prompts, one_step):
    """With eps fixed, only the moved latent can reach the result: officially it does not, by default it does."""

    def fixed_eps(x, sigma, cond, *, maps=False):
        return Prediction(x - sigma[:, None, None, None], tiny.denoise(x, sigma, cond, maps=maps).maps)

    source, target = prompts
    plain, held = (official.edit(fixed_eps, one_step, source, target, negative=source, strength=s) for s in (0.0, 1.0))
    assert held.loss.min() > 1
    assert torch.allclose(held.edited, plain.edited, atol=1e-5)
    ours = edit(fixed_eps, one_step, source, target, guidance=MapGuidance(1.0))
    assert (ours.edited - plain.edited).abs().mean() > 1e-3


def test_departure_2_the_pyramid_loses_its_variance():
    white = torch.randn(4, 4, 64, 64, generator=seeded(0))
    for settings, deviations in ((official.REGULARIZER, [1, 1 / 2, 1 / 4, 1 / 8]), (NoiseRegularizer(), [1] * 4)):
        measured = [level.std().item() for level in pyramid(white, settings.pool_gain)]
        assert measured == pytest.approx(deviations, rel=0.05)
    eps = correlated(64)
    moved = {
        gain: ((regularize(eps, NoiseRegularizer(pool_gain=gain)) - eps).norm() / eps.norm()).item() for gain in (1, 2)
    }
    assert moved[1] < 0.3 * moved[2]


def test_departure_3_five_random_shifts_are_five_steps_of_a_fifth():
    eps = correlated(16)
    settings = NoiseRegularizer(strength=20, kl_strength=0, iterations=1, shifts="random", pool_gain=1)
    expected, generator = eps, seeded(1)
    for _ in range(5):
        expected = expected - 20 / 5 * shifted_correlation_gradient(expected, draw_shifts(eps, 1, generator), 1)
    assert torch.equal(regularize(eps, settings, seeded(1)), expected)
    assert not torch.equal(regularize(eps, settings, seeded(2)), expected)
    assert official.REGULARIZER.shifts == "random"
    assert torch.equal(regularize(eps, NoiseRegularizer(), seeded(1)), regularize(eps, NoiseRegularizer(), seeded(2)))


def test_departure_4_shift_zero_is_never_drawn():
    """A roll by 0 would penalise the variance instead of correlation."""
    eps = correlated(8)
    variance = eps.square().mean((-1, -2)).square().sum() * 2
    assert shifted_correlation_loss(eps, [[0]] * 4).item() == pytest.approx(variance.item())
    assert {shift for _ in range(300) for channel in draw_shifts(eps) for shift in channel} == {1, 2, 3}


def test_departure_5_inversion_leaves_out_two_steps_and_both_ends(tiny, prompts):
    table = tiny.denoise.sigmas

    def no_noise(x, sigma, cond, *, maps=False):
        return Prediction(x)

    model = Recorded(no_noise)
    inversion = official.invert(model, tiny.x0, prompts[0], table, 50, OFF)
    assert [sigma for sigma, *_ in model.calls] == [float(table[t]) for t in range(21, 962, 20)]
    # No noise is predicted, so the VP latent only shrinks: from abar[20], taken for the image, to abar[980]...
    expected = tiny.x0 * (tiny.alphas[980] / tiny.alphas[20]).sqrt()
    # ... and then passes for the latent at 981, where sampling starts.
    assert inversion.sigmas[0] == table[981]
    assert torch.allclose(ve_to_vp(inversion.noise, table[981]), expected, rtol=1e-4)

    model = Recorded(no_noise)
    sigmas = ddim_sigmas(table, 50, final="sigma_min")
    ours = invert(model, tiny.x0, prompts[0], sigmas, OFF, fixed_point=0)
    assert [sigma for sigma, *_ in model.calls] == sigmas.flip(0)[:-1].tolist()
    assert torch.allclose(ours.noise, tiny.x0)


def test_departure_6_the_model_sees_another_timestep_than_the_step_uses(tiny, prompts):
    """The model is asked at t with the VP latent that belongs to t - 1."""
    table, seen = tiny.denoise.sigmas, []

    def note(x, sigma, cond, *, maps=False):
        seen.append((ve_to_vp(x, sigma), float(sigma)))
        return Prediction(x)

    official.invert(note, tiny.x0, prompts[0], table, 50, OFF)
    assert torch.allclose(seen[0][0], tiny.x0, rtol=1e-5)
    assert seen[0][1] == float(table[21])
    assert torch.allclose(seen[1][0], tiny.x0 * (tiny.alphas[40] / tiny.alphas[20]).sqrt(), rtol=1e-5)
    assert seen[1][1] == float(table[41])


def test_departure_7_the_reference_takes_two_rows(tiny, prompts, one_step):
    source, target = prompts
    model = Recorded(tiny.denoise)
    official.edit(model, one_step, source, target, negative=source)
    assert sum(maps and not grad for _, _, maps, grad in model.calls) == 2
    model = Recorded(tiny.denoise)
    edit(model, one_step, source, target)
    assert sum(maps and not grad for _, _, maps, grad in model.calls) == 1


def test_departure_8_the_loss_is_a_mean_over_both_rows(tiny, prompts, one_step):
    source, target = prompts
    sigma = one_step.sigmas[:1]
    with torch.no_grad():
        maps = [tiny.denoise(one_step.noise, sigma, text, maps=True).maps for text in (target, source)]
    distance = map_distance(*maps)
    result = official.edit(tiny.denoise, one_step, source, target, negative=source)
    assert torch.allclose(result.loss[0], distance / 2)  # the negative row equals its reference
    assert torch.allclose(edit(tiny.denoise, one_step, source, target).loss[0], distance)
    tiny.unet.to(torch.bfloat16)
    assert edit(tiny.denoise, one_step, source, target).loss.dtype == torch.float32


def test_departure_9_no_gradients_and_no_self_attention_are_kept(tiny, prompts, one_step):
    source, target = prompts
    official.edit(tiny.denoise, one_step, source, target, negative=source)
    edit(tiny.denoise, one_step, source, target)
    assert all(parameter.grad is None for parameter in tiny.unet.parameters())
    maps = tiny.denoise(one_step.noise, one_step.sigmas[:1], source, maps=True).maps
    assert maps.keys() == {name for name, _ in tiny.unet.named_modules() if name.endswith("attn2")}


def test_departure_10_shifts_are_seeded(tiny, prompts):
    first, again, other = (
        official.invert(tiny.denoise, tiny.x0, prompts[0], tiny.denoise.sigmas, 5, generator=seeded(s)).noise
        for s in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    random = NoiseRegularizer(shifts="random")
    sigmas = ddim_sigmas(tiny.denoise.sigmas, 3)
    state = torch.get_rng_state()
    first, again = (invert(tiny.denoise, tiny.x0, prompts[0], sigmas, random).noise for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), state), "the global generator is left alone"


def test_departure_11_any_batch_and_any_size(tiny, cond):
    x0 = torch.randn(2, 4, 16, 24, generator=seeded(0))
    source, target = (cond(torch.cat([text, 0.5 * text])) for text in (tiny.source, tiny.target))

    def run(rows):
        texts = [cond(text.embedding[rows]) for text in (source, target)]
        inversion = official.invert(tiny.denoise, x0[rows], texts[0], tiny.denoise.sigmas, 5, generator=seeded(3))
        return official.edit(tiny.denoise, inversion, *texts, negative=texts[0])

    together = run(slice(0, 2))
    for b in range(2):
        alone = run(slice(b, b + 1))
        assert torch.allclose(together.edited[b], alone.edited[0], rtol=1e-3, atol=1e-3)
        assert torch.allclose(together.loss[:, b], alone.loss[:, 0], rtol=1e-3)


def test_the_official_variant_checks_its_input(tiny, prompts):
    with pytest.raises(ValueError, match=r"steps is 2; the published inversion leaves out two"):
        official.invert(tiny.denoise, tiny.x0, prompts[0], tiny.denoise.sigmas, 2)
    with pytest.raises(ValueError, match=r"x0 holds NaN"):
        official.invert(tiny.denoise, tiny.x0 * float("nan"), prompts[0], tiny.denoise.sigmas, 5)
