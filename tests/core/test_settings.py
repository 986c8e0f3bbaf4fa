"""Settings of an edit: what is refused, and where classifier-free guidance begins."""

from __future__ import annotations

import math

import pytest
import torch

from pix2pix_zero_core import ClassifierFreeGuidance, EditSettings, MapGuidance
from pix2pix_zero_core.schedule import first_step, level_after, step_at


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps is 0; it must be a whole number >= 1"),
        ({"steps": 20.5}, r"steps is 20\.5"),
        ({"fixed_point": -1}, "fixed_point is -1; it must be a whole number >= 0"),
        ({"cfg": math.nan}, "cfg is nan; it must be finite and >= 0"),
        ({"cfg": "5"}, "cfg is '5'"),
        ({"cfg_start": 1.5}, r"cfg_start is 1\.5; it must be between 0 and 1"),
        ({"region": -0.1}, r"region is -0\.1; it must be between 0 and 1"),
        ({"negative_from": "image"}, 'negative_from is \'image\'; it must be "inversion" or "text"'),
        (
            {"negative_from": "inversion", "negative": "fog"},
            "the negative text is 'fog', but negative_from is 'inversion'",
        ),
        ({"cfg": 1, "negative": "fog"}, "the negative text is 'fog', but at a cfg of 1 nothing moves away"),
        ({"noise_from": "seed"}, 'noise_from is \'seed\'; it must be "fresh" or "inversion"'),
        ({"negative_from": "inversion", "negative": None}, "negative_from is inversion and noise_from is fresh"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(ValueError, match=f"EditSettings: .*{message}"):
        EditSettings(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"guidance": 0.2}, "guidance is 0.2; it must be MapGuidance"),
        ({"regularizer": None}, "regularizer is None; it must be NoiseRegularizer"),
        ({"negative": 3}, "negative is 3; it must be str or None"),
    ],
)
def test_settings_of_another_kind_are_named(settings, message):
    with pytest.raises(TypeError, match=f"EditSettings: {message}"):
        EditSettings(**settings)


@pytest.mark.parametrize("total", [1, 20, 25, 50, 100])
def test_a_fraction_of_the_steps_is_not_rounded_up(total):
    for percent in range(101):
        assert first_step(total, percent / 100) == -(-percent * total // 100)
        assert [MapGuidance(1.0, start=percent / 100).covers(step, total) for step in range(total)] == [
            100 * step >= percent * total for step in range(total)
        ]


@pytest.mark.parametrize("steps", [1, 4, 50])
@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.5, 0.58, 1.0])
def test_text_guidance_begins_at_the_step_after_a_fraction_of_them(steps, fraction):
    sigmas = torch.linspace(14.6, 0, steps + 1)
    guided = [float(sigma) <= float(level_after(sigmas, fraction)) for sigma in sigmas[:-1]]
    assert guided == [step_at(sigmas, float(sigma)) >= fraction * steps for sigma in sigmas[:-1]]  # as the nodes say it


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.44, 0.6])
def test_text_guidance_begins_with_the_edit_where_the_grid_is_finer_than_the_latents(model, source, target, fraction):
    sigmas = torch.logspace(1, -1, 26, dtype=torch.float64)
    guided = ClassifierFreeGuidance(model, source, 5.0, float(level_after(sigmas, fraction)))
    for step, sigma in enumerate(sigmas[:-1].float().double()):
        model.calls.clear()
        guided(torch.zeros(1, 4, 8, 8, dtype=torch.float64), sigma[None], target)
        assert (len(model.calls) == 2) == (step >= first_step(25, fraction))
