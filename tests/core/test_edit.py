from __future__ import annotations

import math

import pytest
import torch

from pix2pix_zero_core import (
    ClassifierFreeGuidance,
    Inversion,
    MapGuidance,
    NoiseRegularizer,
    Prediction,
    ReplayedGuidance,
    edit,
    invert,
    reconstruct,
)
from pix2pix_zero_core.attention import map_distance, mean_map_distance
from pix2pix_zero_core.edit import euler_step, map_guidance_step

OFF = MapGuidance(strength=0)
GUIDANCES = [
    MapGuidance(3.0),
    MapGuidance(0.5, "normalized"),
    MapGuidance(0.5, "normalized", applied="after"),
    MapGuidance(0.5, "share"),
    MapGuidance(0.5, "share", applied="after"),
]


@pytest.fixture
def x0(generator):
    return torch.randn(2, 4, 8, 12, generator=generator, dtype=torch.float64)


@pytest.fixture
def inversion(model, x0, source, sigmas):
    return invert(model, x0, source, sigmas, NoiseRegularizer(strength=0, kl_strength=0), fixed_point=60)


@pytest.fixture
def random(inversion):
    """The same noise without its trajectory, as for synthetic images."""
    return Inversion(inversion.noise, inversion.sigmas)


def rms(x):
    return x.square().mean((1, 2, 3)).sqrt()


def plain_euler(denoise, x, sigmas, cond):
    """Sample as k-diffusion writes it."""
    for i in range(len(sigmas) - 1):
        d = (x - denoise(x, sigmas[i].expand(len(x)), cond).denoised) / sigmas[i]
        x = x + d * (sigmas[i + 1] - sigmas[i])
    return x


# --- identity


@pytest.mark.parametrize("replayed", [True, False])
def test_strength_zero_is_unguided_euler_bit_for_bit(model, inversion, random, source, target, replayed):
    model.calls.clear()
    result = edit(model, inversion if replayed else random, source, target, guidance=OFF)
    assert not any(maps or grad for _, maps, grad in model.calls), "strength 0 asks for neither maps nor gradients"
    assert torch.equal(result.edited, plain_euler(model, inversion.noise, inversion.sigmas, target))
    assert torch.equal(result.loss, torch.zeros(6, 2, dtype=torch.float64))


@pytest.mark.parametrize("guidance", GUIDANCES)
@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_a_zero_direction_gives_zero_loss_and_the_reconstruction(model, random, source, guidance, scale):
    guided = ClassifierFreeGuidance(model, negative=source, scale=scale)
    result = edit(model, random, source, source, guided=guided, guidance=guidance)
    assert torch.equal(result.loss, torch.zeros_like(result.loss))
    assert torch.equal(result.edited, result.reference)
    assert torch.equal(result.edited, reconstruct(guided, random, source))


@pytest.mark.parametrize("guidance", GUIDANCES)
def test_a_zero_direction_reproduces_the_inverted_image(model, inversion, x0, source, guidance):
    result = edit(model, inversion, source, source, guidance=guidance)
    assert torch.allclose(result.edited, x0, atol=1e-8)
    assert (result.loss < 1e-12).all()


def test_replayed_reference_is_the_source_itself(model, x0, source, target, sigmas):
    coarse = invert(model, x0, source, sigmas, NoiseRegularizer(strength=10), fixed_point=0)
    assert not torch.allclose(reconstruct(model, coarse, source), x0, atol=1e-2)
    assert torch.equal(edit(model, coarse, source, target).reference, x0)


# --- the step


def test_paper_step_is_the_gradient_step_on_the_vp_latent(model, inversion, source, target):
    """Checked against autograd in VP coordinates, which the factor 1 + sigma^2 stands for."""
    x, sigma = inversion.noise, inversion.sigmas[1]
    reference = model(inversion.trajectory[1], sigma.expand(2), source, maps=True).maps
    move, loss, _ = map_guidance_step(model, x, sigma, target, reference, MapGuidance(0.1))
    root = (1 + sigma**2).sqrt()
    x_vp = (x / root).requires_grad_()
    distance = map_distance(model(x_vp * root, sigma.expand(2), target, maps=True).maps, reference)
    (gradient,) = torch.autograd.grad(distance.sum(), x_vp)
    assert torch.allclose(move / root, -0.1 * gradient)
    assert torch.allclose(loss, distance.detach())
    assert gradient.abs().max() > 1e-4


def test_guidance_gradient_passes_finite_differences(model, inversion, source, target):
    sigma = inversion.sigmas[2].expand(1)
    reference = model(inversion.trajectory[2][:1], sigma, source, maps=True).maps
    x = inversion.trajectory[2][:1].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: map_distance(model(x, sigma, target, maps=True).maps, reference), x)


def test_normalized_step_has_the_promised_length_and_direction(model, inversion, source, target):
    x, sigma = inversion.noise, inversion.sigmas[1]
    reference = model(x, sigma.expand(2), source, maps=True).maps
    maps = model(x, sigma.expand(2), target, maps=True).maps
    paper, _, _ = map_guidance_step(model, x, sigma, target, reference, MapGuidance(1.0))
    move, _, _ = map_guidance_step(model, x, sigma, target, reference, MapGuidance(0.7, "normalized"))
    in_vp = move / (1 + sigma**2).sqrt()
    assert torch.allclose(rms(in_vp), 0.7 * mean_map_distance(maps, reference).sqrt())
    cosine = torch.nn.functional.cosine_similarity(move.flatten(1), paper.flatten(1))
    assert torch.allclose(cosine, torch.ones_like(cosine))


def test_normalized_step_does_not_grow_with_the_number_of_layers(model, inversion, source, target):
    def doubled(x, sigma, cond, *, maps=False):
        prediction = model(x, sigma, cond, maps=maps)
        return Prediction(prediction.denoised, {(k, i): m for k, m in prediction.maps.items() for i in range(2)})

    x, sigma = inversion.noise, inversion.sigmas[1]
    for unit, factor in (("normalized", 1.0), ("paper", 2.0)):
        moves = [
            map_guidance_step(
                m, x, sigma, target, m(x, sigma.expand(2), source, maps=True).maps, MapGuidance(1.0, unit)
            )
            for m in (model, doubled)
        ]
        assert torch.allclose(moves[1][0], factor * moves[0][0])


@pytest.mark.parametrize("applied", ["before", "after"])
def test_one_guided_step_written_out(model, random, source, target, applied):
    first = Inversion(random.noise, random.sigmas[:2])
    guided = ClassifierFreeGuidance(model, negative=source, scale=4.0)
    x, (sigma, sigma_next) = first.noise, first.sigmas
    level = sigma.expand(2)
    leaf = x.clone().requires_grad_()
    reference = model(x, level, source, maps=True).maps
    (gradient,) = torch.autograd.grad(map_distance(model(leaf, level, target, maps=True).maps, reference).sum(), leaf)
    move_of_vp = -0.5 * (1 + sigma**2).sqrt() * gradient
    start = x + move_of_vp * (1 + sigma**2).sqrt() if applied == "before" else x
    negative, positive = (model(start, level, cond).denoised for cond in (source, target))
    expected = euler_step(start, negative + 4 * (positive - negative), sigma, sigma_next)
    if applied == "after":
        expected = expected + move_of_vp * (1 + sigma_next**2).sqrt()
    result = edit(model, first, source, target, guided=guided, guidance=MapGuidance(0.5, applied=applied))
    assert torch.allclose(result.edited, expected)
    assert torch.allclose(result.reference, plain_euler(model, x, first.sigmas, source))
    assert move_of_vp.abs().max() > 1e-4


def test_a_move_after_the_step_spares_a_row_and_differentiates_one(model, inversion, source, target):
    model.calls.clear()
    guided = ClassifierFreeGuidance(model, negative=source, scale=4.0)
    edit(model, inversion, source, target, guided=guided, guidance=MapGuidance(0.1, end=0.5, applied="after"))
    per_step = [[call for call in model.calls if call[0] == float(s)] for s in inversion.sigmas[:-1]]
    reference, gradient, row = (True, False), (True, True), (False, False)
    assert [[call[1:] for call in calls] for calls in per_step] == [[reference, gradient, row]] * 3 + [[row, row]] * 3


@pytest.mark.parametrize("guidance", GUIDANCES)
def test_guidance_brings_the_maps_closer(model, inversion, source, target, guidance):
    free = edit(model, inversion, source, target, guidance=MapGuidance(1e-9))
    held = edit(model, inversion, source, target, guidance=guidance)
    assert (held.loss[1:].sum(0) < 0.9 * free.loss[1:].sum(0)).all()


# --- the branches


def test_lockstep_reference_is_sampled_with_the_guided_denoiser(model, random, source, target):
    guided = ClassifierFreeGuidance(model, negative=0.5 * source, scale=3.0)
    result = edit(model, random, source, target, guided=guided)
    assert torch.equal(result.reference, plain_euler(guided, random.noise, random.sigmas, source))


def test_replay_takes_the_reference_maps_on_the_recorded_trajectory(model, inversion, source, target):
    seen = []

    def recorded(x, sigma, cond, *, maps=False):
        if maps and not torch.is_grad_enabled():
            seen.append(x)
        return model(x, sigma, cond, maps=maps)

    edit(recorded, inversion, source, target)
    assert torch.equal(torch.stack(seen), inversion.trajectory[:-1])


def test_replay_costs_one_source_row_a_guided_step_and_none_after(model, inversion, source, target):
    model.calls.clear()
    edit(model, inversion, source, target, guidance=MapGuidance(0.1, end=0.5))
    per_step = [[call for call in model.calls if call[0] == float(s)] for s in inversion.sigmas[:-1]]
    reference, gradient, step = (True, False), (True, True), (False, False)
    assert [[call[1:] for call in calls] for calls in per_step] == [[reference, gradient, step]] * 3 + [[step]] * 3


@pytest.mark.parametrize(
    ("start", "end", "guided_steps"),
    [(0, 1, [0, 1, 2, 3, 4, 5]), (0, 0.5, [0, 1, 2]), (0.5, 1, [3, 4, 5]), (0.3, 0.6, [2, 3]), (0.5, 0.5, [])],
)
def test_guidance_acts_in_its_window_only(model, inversion, source, target, start, end, guided_steps):
    steps = []
    result = edit(
        model, inversion, source, target, guidance=MapGuidance(0.1, start=start, end=end), on_step=steps.append
    )
    assert [step.index for step in steps if step.loss is not None] == guided_steps
    assert [i for i in range(6) if result.loss[i].any()] == guided_steps


@pytest.mark.parametrize("guidance", GUIDANCES)
@pytest.mark.parametrize("replayed", [True, False])
def test_editing_together_equals_editing_each_alone(model, inversion, source, target, guidance, replayed):
    sources, targets = (torch.cat([cond, 0.5 * cond]) for cond in (source, target))

    def run(rows):
        start = Inversion(inversion.noise[rows], inversion.sigmas, inversion.trajectory[:, rows] if replayed else None)
        guided = ClassifierFreeGuidance(model, negative=sources[rows], scale=3.0)
        return edit(model, start, sources[rows], targets[rows], guided=guided, guidance=guidance)

    together = run(slice(0, 2))
    for b in range(2):
        alone = run(slice(b, b + 1))
        assert torch.allclose(together.edited[b], alone.edited[0], rtol=1e-9)
        assert torch.allclose(together.loss[:, b], alone.loss[:, 0], rtol=1e-9)
    assert not torch.allclose(together.loss[:, 0], together.loss[:, 1])


def test_the_same_call_twice_gives_the_same_picture(model, inversion, source, target):
    first, again = (edit(model, inversion, source, target, guidance=GUIDANCES[0]) for _ in range(2))
    assert torch.equal(first.edited, again.edited)


@pytest.mark.parametrize("guidance", GUIDANCES)
def test_works_under_inference_mode_and_without_it_alike(model, inversion, source, target, guidance):
    expected = edit(model, inversion, source, target, guidance=guidance)
    with torch.inference_mode():
        inside = Inversion(inversion.noise.clone(), inversion.sigmas.clone(), inversion.trajectory.clone())
        result = edit(model, inside, source, target, guidance=guidance)
        again = edit(model, Inversion(inside.noise, inside.sigmas), source, target, guidance=guidance)
    assert torch.equal(result.edited, expected.edited)
    assert not torch.equal(again.edited, inside.noise)


def test_steps_are_reported_in_order(model, inversion, source, target):
    steps, plain = [], []
    result = edit(model, inversion, source, target, on_step=steps.append)
    reconstruct(model, inversion, source, plain.append)
    for reported in (steps, plain):
        assert [step.index for step in reported] == list(range(6))
        assert [step.sigma for step in reported] == inversion.sigmas[:-1].tolist()
        assert {step.total for step in reported} == {6}
    assert torch.equal(torch.stack([step.loss for step in steps]), result.loss)
    last = steps[-1]
    assert torch.equal(result.edited, euler_step(last.x, last.denoised, inversion.sigmas[-2], inversion.sigmas[-1]))


def test_an_interrupt_reaches_the_caller(model, inversion, source, target):
    def interrupt(step):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        edit(model, inversion, source, target, on_step=interrupt)


# --- classifier-free guidance


def test_cfg_extrapolates_and_keeps_the_positive_maps(model, x0, source, target):
    sigma = torch.full((2,), 2.0, dtype=torch.float64)
    prediction = ClassifierFreeGuidance(model, negative=source, scale=5.0)(x0, sigma, target, maps=True)
    assert [maps for _, maps, _ in model.calls] == [True, False], "only the positive row is asked for maps"
    positive, negative = model(x0, sigma, target, maps=True), model(x0, sigma, source)
    assert torch.equal(prediction.denoised, negative.denoised + 5 * (positive.denoised - negative.denoised))
    assert all(torch.equal(prediction.maps[layer], positive.maps[layer]) for layer in positive.maps)


def test_cfg_of_one_skips_the_negative_row(model, x0, source, target):
    sigma = torch.full((2,), 2.0, dtype=torch.float64)
    prediction = ClassifierFreeGuidance(model, negative=source, scale=1.0)(x0, sigma, target)
    assert len(model.calls) == 1
    assert torch.equal(prediction.denoised, model(x0, sigma, target).denoised)


@pytest.mark.parametrize("scale", [-1.0, math.nan, math.inf])
def test_bad_cfg(model, source, scale):
    with pytest.raises(ValueError, match=f"guidance scale is {scale}; it must be finite and >= 0"):
        ClassifierFreeGuidance(model, source, scale)
    with pytest.raises(ValueError, match=r"below is -1\.0; it must be a ratio of noise to signal, >= 0"):
        ClassifierFreeGuidance(model, source, below=-1.0)


# --- errors


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"strength": -0.1}, r"strength is -0\.1; it must be a finite number >= 0 \(0 turns guidance off\)"),
        ({"strength": math.nan}, "strength is nan"),
        ({"applied": "during"}, 'applied is \'during\'; it must be "before" or "after"'),
        ({"unit": "pixels"}, 'unit is \'pixels\'; it must be "paper", "normalized" or "share"'),
        ({"strength": 1.5, "unit": "share"}, r'strength is 1\.5; in the unit "share" it must be between 0 .* and 1'),
        ({"start": 0.6, "end": 0.4}, r"start is 0\.6 and end is 0\.4; .* 0 <= start <= end <= 1"),
        ({"end": 1.5}, r"end is 1\.5"),
        ({"start": math.nan}, "start is nan"),
    ],
)
def test_bad_guidance(setting, message):
    with pytest.raises(ValueError, match=message):
        MapGuidance(**setting)


def test_prompts_of_different_length_say_what_to_do(model, inversion, source, target):
    with pytest.raises(ValueError, match="same number of tokens: shorten the longer prompt"):
        edit(model, inversion, source, torch.cat([target, target], 1))


def test_a_model_without_maps_says_what_to_do(gaussian, inversion, source, target):
    with pytest.raises(ValueError, match=r"no cross-attention maps.*set the guidance strength to 0"):
        edit(gaussian, inversion, source, target)


def test_a_denoiser_without_gradients_says_what_to_do(model, inversion, source, target):
    @torch.no_grad()
    def frozen(x, sigma, cond, *, maps=False):
        return model(x, sigma, cond, maps=maps)

    with pytest.raises(ValueError, match=r"maps do not depend on x.*do not wrap it in no_grad"):
        edit(frozen, inversion, source, target)


def test_a_gradient_that_overflows_is_named(model, inversion, source, target):
    def unstable(x, sigma, cond, *, maps=False):
        prediction = model(x, sigma, cond, maps=maps)
        poison = 1 + torch.sqrt(0 * x.sum())  # infinite slope, finite value
        return Prediction(prediction.denoised, {k: m * poison for k, m in prediction.maps.items()})

    with pytest.raises(ValueError, match="The gradient of the attention distance at sigma 8 holds NaN"):
        edit(unstable, inversion, source, target)


# --- guidance away from the recorded noise


@pytest.mark.parametrize("scale", [0.0, 2.0, 7.5])
def test_replayed_guidance_with_the_source_leads_back_to_the_picture(model, inversion, x0, source, scale):
    result = reconstruct(ReplayedGuidance(model, inversion, scale), inversion, source)
    assert torch.allclose(result, x0, atol=1e-6)


def test_replayed_guidance_extrapolates_from_the_recorded_noise(model, inversion, target):
    index, scale = 2, 3.0
    x, sigma = inversion.trajectory[index] + 0.3, inversion.sigmas[index].expand(2)
    recorded = (inversion.trajectory[index] - inversion.trajectory[index + 1]) / (
        inversion.sigmas[index] - inversion.sigmas[index + 1]
    )
    predicted = (x - model(x, sigma, target).denoised) / sigma[0]
    guided = ReplayedGuidance(model, inversion, scale)(x, sigma, target)
    assert torch.allclose((x - guided.denoised) / sigma[0], recorded + scale * (predicted - recorded))


def test_replayed_guidance_evaluates_no_negative_row(model, inversion, source, target):
    model.calls.clear()
    edit(model, inversion, source, target, guided=ReplayedGuidance(model, inversion), guidance=OFF)
    assert len(model.calls) == len(inversion.sigmas) - 1


def test_replayed_guidance_at_scale_1_is_the_plain_model(model, inversion, source, target):
    guided = ReplayedGuidance(model, inversion, 1.0)
    result = edit(model, inversion, source, target, guided=guided, guidance=OFF)
    assert torch.equal(result.edited, edit(model, inversion, source, target, guidance=OFF).edited)


def test_replayed_guidance_needs_a_trajectory_and_a_finite_scale(model, inversion, random):
    with pytest.raises(ValueError, match="no trajectory"):
        ReplayedGuidance(model, random)
    with pytest.raises(ValueError, match="scale is -1"):
        ReplayedGuidance(model, inversion, -1.0)
