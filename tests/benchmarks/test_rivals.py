"""Later methods, each by what its paper promises: pictures that come back, references that stay, sums that agree."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.harness.injection import new_words
from benchmarks.harness.methods import DdimWordSwap
from benchmarks.harness.rows import TUNED
from benchmarks.harness.sampling import Counted, Method, ddim_inversion, white_noise
from benchmarks.harness.settings import adjust
from benchmarks.harness.tasks import Problem, pose_problem
from benchmarks.rivals.ddpm_friendly import DdpmFriendly, mean_of_step
from benchmarks.rivals.flowedit import FlowEdit
from benchmarks.rivals.infedit import InfEdit, Looked
from benchmarks.rivals.p2p_direct import DirectInversion
from benchmarks.rivals.pnp import PlugAndPlay
from pix2pix_zero_core import Coordinates, Prediction
from pix2pix_zero_core.schedule import ddim_sigmas, ve_to_vp
from tiny_zoo.denoiser import TinyZoo

RIVALS = ("word_swap_empty", "p2p_direct", "ddpm_friendly", "pnp", "infedit", "flowedit")


@pytest.fixture
def unchanged(problem: Problem) -> Problem:
    """The problem of making pictures of their own captions."""
    return replace(problem, swapped=problem.source, alignment=torch.eye(77).repeat(2, 1, 1))


@pytest.mark.parametrize("name", RIVALS)
def test_editing_two_pictures_equals_editing_each(name: str, model: TinyZoo, problem: Problem) -> None:
    together = TUNED[name](Counted(model), problem)
    alone = torch.cat([TUNED[name](Counted(model), problem.part(i, 1)) for i in range(2)])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-3)
    assert (together - problem.x0).abs().max() > 0.01


@pytest.mark.parametrize(
    "method",
    [DdpmFriendly(skip=0, cfg=3.5), DdpmFriendly(skip=1 / 3, cfg=1, source_cfg=1), InfEdit(cfg=1), FlowEdit(cfg=3.5)],
    ids=repr,
)
def test_the_same_text_gives_the_picture_back(method: Method, model: TinyZoo, unchanged: Problem) -> None:
    torch.testing.assert_close(method(Counted(model), unchanged), unchanged.x0, rtol=0, atol=1e-4)


def test_infedit_corrects_the_targets_noise_by_what_the_sources_misses(model: TinyZoo, problem: Problem) -> None:
    """Equation of virtual inversion, in noise as it is published; `InfEdit` has it in pictures."""
    edited, x0, cfg = problem.x0, problem.x0, 3.0
    sigmas = ddim_sigmas(model.sigmas, problem.steps)[:-1]
    for sigma, noise in zip(sigmas, white_noise(problem, len(sigmas)), strict=True):
        source, target = x0 + sigma * noise, edited + sigma * noise

        def seen(x: Tensor, text: Tensor, sigma: Tensor = sigma) -> Tensor:
            return (x - model(x, sigma.repeat(len(x)), text.expand(len(x), -1, -1)).denoised) / sigma

        plain = seen(target, problem.empty)
        guided = plain + cfg * (seen(target, problem.swapped) - plain)
        edited = target - sigma * (guided - seen(source, problem.source) + noise)
    found = InfEdit(cross=0, own=0, cfg=cfg, blend=0)(Counted(model), problem)
    torch.testing.assert_close(found, edited, rtol=1e-3, atol=1e-3)


def test_infedit_edits_where_a_new_word_is_looked_for() -> None:
    """Two pictures, of which the first has two new words, by the coarser of two layers; the second has none."""
    looked = Looked(torch.tensor([[False, True, True], [False, False, False]]))
    coarse = torch.zeros(2, 1, 4, 3)
    coarse[:, :, 0, 0], coarse[:, :, 1, 1], coarse[:, :, 2, 2] = 9.0, 1.0, 0.6
    looked.at(coarse)
    looked.at(torch.rand(2, 1, 16, 3))
    looked.at(3 * coarse)
    above = looked.above(0.5, torch.zeros(2, 4, 4, 4))
    assert above[0, 0, ::2, ::2].flatten().tolist() == [False, True, True, False]
    assert looked.above(0.7, torch.zeros(2, 4, 4, 4))[0, 0, ::2, ::2].flatten().tolist() == [False, True, False, False]
    assert above[1].all()


def test_infedit_leaves_the_rest_of_the_picture(model: TinyZoo, problem: Problem) -> None:
    """But for the last step, which is not blended."""
    away = {
        blend: (InfEdit(cross=0.4, own=0.4, cfg=5.0, blend=blend)(Counted(model), problem) - problem.x0).abs().mean()
        for blend in (0.0, 0.8)
    }
    assert away[0.8] < 0.7 * away[0.0]


@pytest.mark.parametrize(
    ("source", "target", "new"),
    [
        ("a cat on grass", "a dog on grass", [2]),
        ("a cat on grass", "a cat wearing glasses on grass", [3, 4]),
        ("a cat wearing glasses", "a cat", []),
    ],
)
def test_new_words(source: str, target: str, new: list[int]) -> None:
    assert new_words(source, target).nonzero().flatten().tolist() == new


def test_an_edit_of_the_medium_has_no_new_words(model: TinyZoo, problem: Problem) -> None:
    assert not pose_problem(model, "sketch2oil", "validation", 2, 3).new_words.any()
    assert problem.new_words.any(1).all()


def test_direct_inversion_gives_the_picture_back_as_steps_get_finer(model: TinyZoo, unchanged: Problem) -> None:
    method = DirectInversion(cross=1, own=1, cfg=1)

    def error(steps: int) -> float:
        problem = replace(unchanged.part(0, 1), steps=steps)
        return float((method(Counted(model), problem) - problem.x0).square().mean().sqrt())

    assert error(60) < 0.5 * error(10) < 0.1


def test_direct_inversion_looks_at_the_recorded_trajectory(model: TinyZoo, problem: Problem) -> None:
    calls: list[Tensor] = []

    class Watched(Counted):
        def __call__(self, x: Tensor, sigma: Tensor, cond: Tensor, *, maps: bool = False) -> Prediction:
            calls.append(x)
            return super().__call__(x, sigma, cond, maps=maps)

    DirectInversion(cross=1, own=1)(Watched(model), problem)
    trajectory = ddim_inversion(Counted(model), problem).trajectory
    assert trajectory is not None
    references = [x[:2] for x in calls if len(x) == 4]
    assert len(references) == problem.steps
    for seen, recorded in zip(references, trajectory, strict=False):
        torch.testing.assert_close(seen, recorded, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "method", [PlugAndPlay(features=0, attention=0, cfg=5), DirectInversion(cross=0, own=0, cfg=5)], ids=repr
)
def test_without_injection_nothing_but_the_word_swap_is_left(method: Method, model: TinyZoo, problem: Problem) -> None:
    expected = DdimWordSwap(cfg=5, negative="empty")(Counted(model), problem)
    torch.testing.assert_close(method(Counted(model), problem), expected, rtol=1e-4, atol=1e-4)
    for name in ("features", "attention") if isinstance(method, PlugAndPlay) else ("cross", "own"):
        injected = adjust(method, {name: 1.0})(Counted(model), problem)
        assert (injected - expected).abs().max() > 0.01


def test_all_that_is_injected_makes_an_edit_more_like_the_picture(model: TinyZoo, problem: Problem) -> None:
    longer = replace(problem, steps=12)
    free, held = (PlugAndPlay(share, share, cfg=5)(Counted(model), longer) for share in (0, 1))
    assert ((held - problem.x0).square().mean((1, 2, 3)) < (free - problem.x0).square().mean((1, 2, 3))).all()


def test_the_layers_are_as_before_after_an_edit(model: TinyZoo, problem: Problem) -> None:
    sigma = torch.full((2,), 3.0)
    plain = model(problem.x0, sigma, problem.source).denoised
    for name in RIVALS:
        TUNED[name](Counted(model), problem)
    assert torch.equal(model(problem.x0, sigma, problem.source).denoised, plain)


def test_a_stochastic_step_has_the_mean_of_diffusers(model: TinyZoo, problem: Problem) -> None:
    diffusers: Any = pytest.importorskip("diffusers", reason="`python run.py test` installs diffusers")
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
    )
    scheduler.set_timesteps(10)
    sigmas = ddim_sigmas(model.sigmas, 10)
    for index in (0, 5, 9):
        sigma, sigma_next = sigmas[index : index + 2]
        x = problem.x0 + sigma * problem.noise
        eps = (x - model(x, sigma.repeat(2), problem.source).denoised) / sigma
        expected = scheduler.step(
            eps, scheduler.timesteps[index], ve_to_vp(x, sigma), eta=1.0, variance_noise=torch.zeros_like(x)
        ).prev_sample
        mean = ve_to_vp(mean_of_step(model, x, problem.source, sigma, sigma_next), sigma_next)
        torch.testing.assert_close(mean, expected, rtol=1e-4, atol=1e-4)


class Gaussians:
    """A model of white pictures around the mean that is its conditioning: D(x) = (x + sigma^2 mean) / (1 + sigma^2)."""

    coordinates = Coordinates.VE

    def __init__(self, model: TinyZoo) -> None:
        self.grid = model.grid

    def __call__(self, x: Tensor, sigma: Tensor, cond: Tensor, *, maps: bool = False) -> Prediction:
        variance = sigma[:, None, None, None] ** 2
        return Prediction((x + variance * cond) / (1 + variance))


def test_flowedit_follows_the_published_equation(model: TinyZoo, problem: Problem) -> None:
    source, target = torch.full((1, 1, 1, 1), -1.0), torch.full((1, 1, 1, 1), 2.0)
    gaussians: Any = Gaussians(model)
    toy = replace(problem, source=source, swapped=target, empty=source, steps=400)
    edited = FlowEdit(share=1, cfg=1, source_cfg=1)(Counted(gaussians), toy)

    def velocity(z: Tensor, t: float, cond: Tensor) -> Tensor:
        return (z - gaussians(z / (1 - t), torch.tensor([t / (1 - t)]), cond).denoised) / t

    highest = float(ddim_sigmas(model.sigmas, 400)[0])
    times = torch.linspace(highest / (1 + highest), 0, 4001).tolist()
    z = x0 = problem.x0
    for t, t_next in pairwise(times):
        z_src = (1 - t) * x0 + t * problem.noise
        z = z + (t_next - t) * (velocity(z + z_src - x0, t, target) - velocity(z_src, t, source))
    torch.testing.assert_close(edited, z, rtol=0, atol=0.03)
    # Whatever the noise: from an infinite level it would be optimal transport, a shift by the difference of the means.
    torch.testing.assert_close(edited - x0, torch.full_like(x0, 3 * (1 - (1 + highest**2) ** -0.5)), rtol=0, atol=0.03)


def test_averaging_draws_is_averaging(model: TinyZoo, problem: Problem) -> None:
    one, many = (FlowEdit(share=1 / 3, draws=draws)(Counted(model), problem) for draws in (1, 3))
    denoise = Counted(model)
    FlowEdit(share=1 / 3, draws=3)(denoise, problem)
    assert denoise.rows == 2 * 3 * 4  # pictures, draws, two texts with CFG each
    assert not torch.equal(one, many)


def test_noise_is_white_and_each_pictures_own(problem: Problem) -> None:
    noise = white_noise(problem, 50)
    assert noise.shape == (50, *problem.x0.shape)
    assert abs(float(noise.mean())) < 0.02 and abs(float(noise.std()) - 1) < 0.02
    assert torch.equal(noise[:, 1:], white_noise(problem.part(1, 1), 50))
    assert not torch.equal(noise[:, 0], noise[:, 1]) and not torch.equal(noise[0], noise[1])
