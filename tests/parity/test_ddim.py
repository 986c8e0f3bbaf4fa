"""Euler in VE coordinates is diffusers' DDIM, step by step."""

from __future__ import annotations

import pytest
import torch

from pix2pix_zero_core import Inversion, reconstruct
from pix2pix_zero_core.edit import euler_step
from pix2pix_zero_core.schedule import ddim_sigmas, ddim_timesteps, ve_to_vp, vp_to_ve

STEPS = [1, 4, 7, 25, 30, 50, 60]


@pytest.mark.parametrize("steps", STEPS)
def test_timesteps_equal_diffusers(tiny, steps):
    tiny.scheduler.set_timesteps(steps)
    assert torch.equal(ddim_timesteps(1000, steps), tiny.scheduler.timesteps)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(("set_alpha_to_one", "final"), [(True, "zero"), (False, "sigma_min")])
@pytest.mark.parametrize("steps", STEPS)
def test_every_step_equals_diffusers(make_tiny, cond, prediction, set_alpha_to_one, final, steps):
    tiny = make_tiny(prediction, set_alpha_to_one)
    tiny.scheduler.set_timesteps(steps)
    sigmas = ddim_sigmas(tiny.denoise.sigmas, steps, final=final)
    x_vp = tiny.x0
    for i, t in enumerate(tiny.scheduler.timesteps[:8]):
        with torch.no_grad():
            output = tiny.unet(x_vp, t, tiny.source).sample
            expected = tiny.scheduler.step(output, t, x_vp).prev_sample
            x = vp_to_ve(x_vp, sigmas[i])
            denoised = tiny.denoise(x, sigmas[i].expand(1), cond(tiny.source)).denoised
        ours = ve_to_vp(euler_step(x, denoised, sigmas[i], sigmas[i + 1]), sigmas[i + 1])
        assert torch.allclose(ours, expected, rtol=1e-4, atol=1e-5)
        x_vp = expected


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_a_whole_run_equals_diffusers(make_tiny, cond, prediction):
    tiny = make_tiny(prediction)
    tiny.scheduler.set_timesteps(20)
    sigmas = ddim_sigmas(tiny.denoise.sigmas, 20, final="sigma_min")
    x_vp = tiny.x0
    with torch.no_grad():
        for t in tiny.scheduler.timesteps:
            x_vp = tiny.scheduler.step(tiny.unet(x_vp, t, tiny.source).sample, t, x_vp).prev_sample
    start = Inversion(vp_to_ve(tiny.x0, sigmas[0]), sigmas)
    x = reconstruct(tiny.denoise, start, cond(tiny.source))
    assert torch.allclose(ve_to_vp(x, sigmas[-1]), x_vp, rtol=1e-4, atol=1e-4)
