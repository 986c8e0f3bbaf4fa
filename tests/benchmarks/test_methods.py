"""The rows of the tables: independent samples, true row counts, and rivals that fall together where they should."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from benchmarks.harness.methods import (
    DdimWordSwap,
    InSteps,
    Pix2PixZero,
    PromptToPrompt,
    SDEdit,
)
from benchmarks.harness.rows import ABLATION, IN_50_STEPS, TUNED, tuned_methods
from benchmarks.harness.sampling import Counted, Method
from benchmarks.harness.settings import adjust, read_settings
from benchmarks.harness.tasks import TASKS, Problem, captions_of, draw_scenes, pose_problem
from benchmarks.rivals.ddpm_friendly import DdpmFriendly
from benchmarks.rivals.flowedit import FlowEdit
from benchmarks.rivals.infedit import InfEdit
from benchmarks.rivals.p2p_direct import DirectInversion
from benchmarks.rivals.pnp import PlugAndPlay
from pix2pix_zero_core import EditSettings, MapGuidance, NoiseRegularizer, Prediction, edit_region, invert
from pix2pix_zero_core.integrations.diffusers import PipelineEditor
from pix2pix_zero_core.integrations.sentences import load_edit
from pix2pix_zero_core.schedule import ddim_sigmas
from tiny_zoo.compose_directions import FOLDER
from tiny_zoo.denoiser import TinyZoo
from tiny_zoo.pipeline import load_pipeline
from tiny_zoo.world import render

METHODS = tuned_methods(read_settings()["settings"])
BEFORE = Pix2PixZero(  # 0.1.0's, of few parts
    guidance=MapGuidance(5.0, "normalized", end=0.8, applied="after"),
    cfg=3.0,
    negative="replayed",
    cfg_start=0.0,
    noise_from="inversion",
    region=0.0,
    form="mean by position",
)


def test_every_row_of_the_tables_is_there() -> None:
    assert {"ours_by_default", "ours_fast", *(f"{name}_50" for name in IN_50_STEPS)} <= METHODS.keys()
    assert TUNED.keys() | ABLATION.keys() <= METHODS.keys()
    untuned = read_settings()["tuned_on"]["scenes"] == 0  # then ours is ours by default
    assert len({repr(method) for method in METHODS.values()}) == len(METHODS) - untuned


@pytest.mark.parametrize("name", METHODS)
def test_editing_two_pictures_equals_editing_each(name: str, model: TinyZoo, problem: Problem) -> None:
    method = METHODS[name]
    together = method(Counted(model), problem)
    alone = torch.cat([method(Counted(model), problem.part(i, 1)) for i in range(2)])
    torch.testing.assert_close(together, alone, rtol=1e-2, atol=1e-2)
    assert torch.isfinite(together).all()
    assert (together - problem.x0).abs().max() > 0.01


STEPS = 3
ROWS = {  # what a method costs a sample in STEPS steps
    "sdedit": (SDEdit(strength=2 / 3), 2 * 2),
    "ddim_word_swap": (DdimWordSwap(), STEPS + 2 * STEPS),
    "ddim_word_swap without cfg": (DdimWordSwap(cfg=1.0), STEPS + STEPS),
    "p2p": (PromptToPrompt(), STEPS + 3 * STEPS),
    "word_swap_empty": (TUNED["word_swap_empty"], STEPS + 2 * STEPS),
    "p2p_direct": (DirectInversion(cross=1 / 3, own=2 / 3), STEPS + (3 + 3 + 2)),
    "ddpm_friendly": (DdpmFriendly(skip=1 / 3), (2 + 2) * (STEPS - 1)),
    "ddpm_friendly without cfg": (DdpmFriendly(skip=0, cfg=1, source_cfg=1), 2 * STEPS),
    "pnp": (PlugAndPlay(features=2 / 3, attention=1 / 3), STEPS + (3 + 3 + 2)),
    "infedit": (InfEdit(), 4 * STEPS),
    "infedit in steps of its own": (InfEdit(steps=2), 4 * 2),
    "flowedit": (FlowEdit(share=2 / 3), (2 + 2) * 2),
    "in steps of its own": (InSteps(DdimWordSwap(), 5), 3 * 5),
    "official": (TUNED["official"], (STEPS - 2) + (2 + 2 * 3 + 2) * STEPS),
    "paper": (TUNED["paper"], STEPS + (2 + 3 + 2) * STEPS),
    "ours of 0.1.0": (BEFORE, (1 + STEPS) + (1 + 3) * STEPS),
    "ours, with the source as negative": (replace(BEFORE, negative="source"), (1 + STEPS) + (1 + 3 + 1) * STEPS),
    "ours, guided by texts in the last step alone": (
        replace(BEFORE, negative="empty", cfg_start=0.5),
        (1 + STEPS) + (1 + 3) * STEPS + 1,
    ),
    "ours, in fresh noise": (
        replace(BEFORE, negative="empty", noise_from="fresh"),
        (1 + STEPS) + (1 + 3 + 1 + 1) * STEPS,
    ),
    "ours, in fresh noise, the source not guided": (
        replace(BEFORE, negative="empty", noise_from="fresh", source_guided=0.0),
        (1 + STEPS) + (1 + 3 + 1) * STEPS,
    ),
    "ours, in fresh noise from the second step on": (
        replace(BEFORE, negative="empty", noise_from="fresh", cfg_start=1 / 3, guidance=MapGuidance(0)),
        (1 + STEPS) + (2 + 2) * (STEPS - 1),
    ),
    "ours, in a region": (replace(BEFORE, region=0.4), 2 + (1 + STEPS) + (1 + 3) * STEPS),
    "ours, explicit and unguided": (replace(BEFORE, guidance=MapGuidance(0), fixed_point=0), STEPS + STEPS),
    "ours, with steps of its own": (replace(BEFORE, steps=2), (1 + 2) + (1 + 3) * 2),
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_are_counted(name: str, model: TinyZoo, problem: Problem) -> None:
    method, expected = ROWS[name]
    denoise = Counted(model)
    method(denoise, problem.part(0, 1))
    assert denoise.rows == expected


def difference(a: Method, b: Method, model: TinyZoo, problem: Problem) -> float:
    return float((a(Counted(model), problem) - b(Counted(model), problem)).abs().max())


def test_prompt_to_prompt_without_injection_is_ddim_with_a_word_swap(model: TinyZoo, problem: Problem) -> None:
    assert difference(PromptToPrompt(cross=0, own=0), DdimWordSwap(), model, problem) < 1e-3
    assert difference(PromptToPrompt(cross=1, own=0), DdimWordSwap(), model, problem) > 0.01
    assert difference(PromptToPrompt(cross=0, own=1), DdimWordSwap(), model, problem) > 0.01


def test_prompt_to_prompt_that_swaps_no_word_is_the_reconstruction(model: TinyZoo, problem: Problem) -> None:
    same = replace(problem, swapped=problem.source, alignment=torch.eye(77).repeat(2, 1, 1))
    assert difference(PromptToPrompt(cross=1, own=1), DdimWordSwap(cfg=1.0), model, same) < 1e-3


def test_ours_without_all_its_parts_is_ddim_with_a_word_swap(model: TinyZoo, problem: Problem) -> None:
    bare = Pix2PixZero()
    for changes in ABLATION.values():
        bare = adjust(bare, changes)
    bare = adjust(bare, {"negative": "source"})
    assert difference(bare, DdimWordSwap(cfg=bare.cfg), model, problem) < 1e-3


EMPTY = replace(BEFORE, negative="empty", cfg=5.0, guidance=MapGuidance(0))


def test_guidance_by_texts_begins_at_a_share_of_the_steps_or_at_a_noise_level(model: TinyZoo, problem: Problem) -> None:
    sigmas = ddim_sigmas(model.sigmas, STEPS)
    for negative in ("empty", "replayed"):
        method = adjust(EMPTY, {"negative": negative})
        plain, late = (adjust(method, setting) for setting in ({"cfg": 1.0}, {"cfg_start": 0.5}))
        assert difference(plain, adjust(method, {"cfg_start": 1.0}), model, problem) == 0
        assert difference(plain, adjust(method, {"cfg_below": 0.0}), model, problem) == 0
        assert difference(late, adjust(method, {"cfg_below": float(sigmas[2])}), model, problem) == 0
        assert difference(late, method, model, problem) > 0.01
        assert difference(late, plain, model, problem) > 0.01


def test_an_empty_negative_with_all_of_the_source_is_the_source(model: TinyZoo, problem: Problem) -> None:
    mixed, source = adjust(EMPTY, {"source_share": 1.0}), adjust(EMPTY, {"negative": "source"})
    assert difference(mixed, source, model, problem) < 1e-4
    assert difference(adjust(EMPTY, {"source_share": 0.5}), source, model, problem) > 0.01
    with pytest.raises(ValueError, match=r"source_share is 0.5, with source"):
        adjust(source, {"source_share": 0.5})(Counted(model), problem)


def test_outside_its_region_the_picture_comes_back(model: TinyZoo, problem: Problem) -> None:
    method = replace(EMPTY, region=0.9, guidance=MapGuidance(2.5))
    inversion = invert(
        Counted(model), problem.x0, problem.source, ddim_sigmas(model.sigmas, STEPS), method.regularizer, fixed_point=1
    )
    region = edit_region(
        Counted(model),
        inversion,
        problem.source,
        problem.target(method.sentences, method.direction, method.form),
        method.region,
    )
    change = (method(Counted(model), problem) - problem.x0).abs().amax(1, keepdim=True)
    assert change[region == 0].max() < 1e-3
    assert change[region == 1].max() > 0.01


def test_ours_by_default_is_what_users_run(model: TinyZoo) -> None:
    """The tables' row is the method written out for experiments; its latents are those of `PipelineEditor`."""
    problem = pose_problem(model, "cat2dog", "validation", 1, steps=6)
    scenes, _ = draw_scenes(TASKS["cat2dog"], "validation", 1)
    editor = PipelineEditor(load_pipeline())
    direction = editor.build_direction(load_edit("cat2dog", FOLDER))
    inverted = editor.invert(render(scenes[0]), captions_of(scenes), EditSettings(steps=6))
    users = editor.edit(inverted, direction, output_type="latent")
    torch.testing.assert_close(Pix2PixZero()(Counted(model), problem), users, rtol=1e-4, atol=1e-4)


def test_sdedit_starts_from_noise_at_its_strength(model: TinyZoo, problem: Problem) -> None:
    seen: list[tuple[float, Tensor]] = []

    class Watched(Counted):
        def __call__(self, x: Tensor, sigma: Tensor, cond: Tensor, *, maps: bool = False) -> Prediction:
            seen.append((float(sigma[0]), x))
            return super().__call__(x, sigma, cond, maps=maps)

    SDEdit(strength=1 / 3)(Watched(model), problem)
    level, x = seen[0]
    assert level == float(model.grid(problem.steps)[-2]), "the last of three steps"
    torch.testing.assert_close(x, problem.x0 + level * problem.noise)


def test_settings_reach_into_parts_and_leave_the_original_alone() -> None:
    method = Pix2PixZero()
    changed = adjust(method, {"cfg": 2.0, "guidance.strength": 0.7, "regularizer.shifts": "random"})
    assert (changed.cfg, changed.guidance.strength, changed.guidance.unit) == (2.0, 0.7, "share")
    assert changed.regularizer == NoiseRegularizer(shifts="random")
    assert method == Pix2PixZero()


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(TypeError, match="strenght"):
        adjust(SDEdit(), {"strenght": 1.0})
