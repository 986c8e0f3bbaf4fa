"""The flow model and its methods: what defines each rival, and what all methods have to do in a flow's coordinates."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.harness.methods import DdimWordSwap, Pix2PixZero, SDEdit
from benchmarks.harness.rows import FLOW, TUNED, tuned_methods
from benchmarks.harness.sampling import Counted, Method, ddim_inversion
from benchmarks.harness.tasks import Problem
from benchmarks.rivals.fireflow import FireFlow, ReusedMidpoint
from benchmarks.rivals.flowedit import FlowEdit
from benchmarks.rivals.rf_inversion import RfInversion
from benchmarks.rivals.rf_solver import RfSolver, Step, midpoint_step
from pix2pix_zero_core import Coordinates, EditDirection, MapGuidance, Prediction
from pix2pix_zero_core.integrations.sentences import load_edit
from tiny_zoo import mmdit
from tiny_zoo.captions import END, VOCABULARY, token_ids
from tiny_zoo.compose_directions import FOLDER
from tiny_zoo.denoiser import TinyZoo, TinyZooFlow
from tiny_zoo.mmdit import pooled

STEPS = 3  # of `flow_problem`


@dataclass
class Gaussians:
    """A flow to white pictures round the mean that is its conditioning; D(x) is the mean of x0 for given x."""

    coordinates = Coordinates.FLOW

    def grid(self, steps: int) -> Tensor:
        return torch.linspace(1, 0, steps + 1)

    def __call__(self, x: Tensor, sigma: Tensor, cond: Tensor, *, maps: bool = False) -> Prediction:
        t = sigma[:, None, None, None]
        return Prediction(cond + (1 - t) * (x - (1 - t) * cond) / ((1 - t) ** 2 + t**2))

    def velocity(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        t = t.clamp(min=1e-3)
        return (x - self(x, t[None], cond).denoised) / t


@pytest.fixture
def gaussians() -> Any:
    return Gaussians()


@pytest.fixture
def toy(flow_problem: Problem) -> Problem:
    def mean(value: float) -> Tensor:
        return torch.full((1, 1, 1, 1), value)

    return replace(flow_problem, source=mean(-1), swapped=mean(2), empty=mean(0.5), steps=8)


@pytest.fixture
def unchanged(flow_problem: Problem) -> Problem:
    """The problem of making pictures of their own captions."""
    return replace(flow_problem, swapped=flow_problem.source)


# ------------------------------------------------------------------ the model


def test_a_conditioning_holds_embeddings_and_pooled_vector(flow: TinyZooFlow) -> None:
    texts = ["a cat", "a drawing of a dog with red glasses"]
    ids = torch.tensor([token_ids(text) for text in texts])
    embeddings, vector = flow.split(flow.encode_text(texts))
    expected = flow.encoder(ids)
    assert torch.equal(embeddings, expected)
    assert torch.equal(vector, pooled(expected, ids == VOCABULARY[END]))
    assert torch.equal(flow.join(embeddings, vector), flow.encode_text(texts))


def test_it_predicts_what_its_velocity_says(flow: TinyZooFlow, flow_problem: Problem) -> None:
    x, t = flow_problem.noise, torch.tensor([0.3, 1.0])
    velocity = flow.transformer(x, 1000 * t, *flow.split(flow_problem.source))
    expected = x - t[:, None, None, None] * velocity
    torch.testing.assert_close(flow(x, t, flow_problem.source).denoised, expected)
    one_text_for_all = flow(x, t, flow_problem.empty).denoised
    torch.testing.assert_close(one_text_for_all, flow(x, t, flow_problem.empty.repeat(2, 1, 1)).denoised)


def test_its_maps_are_the_texts_share_of_the_joint_attention(
    flow: TinyZooFlow, flow_problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    attend = mmdit._attend

    def watched(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if q.shape[1] > 77:  # the picture's tokens attend to each other alone as well
            logits = q.transpose(1, 2) @ k.transpose(1, 2).mT * q.shape[-1] ** -0.5
            whole = torch.softmax(logits, dim=-1)[:, :, 77:, :77]
            seen.append(whole / whole.sum(-1, keepdim=True))
        return attend(q, k, v)

    x, t = flow_problem.noise, torch.tensor([0.5, 0.5])
    plain = flow(x, t, flow_problem.source).denoised
    monkeypatch.setattr(mmdit, "_attend", watched)
    prediction = flow(x, t, flow_problem.source, maps=True)
    assert torch.equal(prediction.denoised, plain)
    assert len(prediction.maps) == len(seen) == len(flow.transformer.joint_blocks)
    for found, expected in zip(prediction.maps.values(), seen, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


def test_its_maps_have_gradients(flow: TinyZooFlow, flow_problem: Problem) -> None:
    x = flow_problem.noise.clone().requires_grad_()
    maps = flow(x, torch.tensor([0.5, 0.5]), flow_problem.source, maps=True).maps
    (gradient,) = torch.autograd.grad(torch.stack([m.square().sum() for m in maps.values()]).sum(), x)
    assert torch.isfinite(gradient).all() and gradient.any()


def test_directions_move_embeddings_and_pooled_vector_alike(flow: TinyZooFlow, flow_problem: Problem) -> None:
    texts = load_edit("cat2glasses", FOLDER)
    direction = EditDirection.build(
        lambda sentences: flow.split(flow.encode_text(sentences)), *texts[:2], source="a", target="b", encoder="x"
    )
    before = flow.split(flow_problem.source)
    expected = direction.apply(before[0], encoder="x"), direction.apply_pooled(before[1], encoder="x")
    found = flow.split(flow_problem.target(len(flow_problem.shifts)))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    for form in ("mean by position", "aligned to words"):
        for shift in flow.split(flow_problem.target(200, form=form) - flow_problem.source):  # type: ignore
            assert shift.flatten(1).any(1).all()


# ------------------------------------------------------------------ all methods

ROWS = {  # what a method costs a sample in STEPS steps
    "sdedit": (SDEdit(strength=2 / 3), 2 * 2),
    "word swap": (DdimWordSwap(negative="empty"), STEPS + 2 * STEPS),
    "rf_inversion": (RfInversion(), STEPS + 2 * STEPS),
    "rf_inversion without cfg": (RfInversion(cfg=1), STEPS + STEPS),
    "rf_solver": (RfSolver(), 2 * STEPS + 2 * 2 * STEPS),
    "fireflow": (FireFlow(), 9 + 2 * 9),
    "fireflow in as many steps": (FireFlow(steps=0), (1 + STEPS) + 2 * (1 + STEPS)),
    "flowedit": (FlowEdit(share=2 / 3), (2 + 2) * 2),
    "ours, in the noise of the inversion, everywhere": (
        Pix2PixZero(MapGuidance(1.0, "normalized", applied="after"), cfg_start=0.0, noise_from="inversion", region=0),
        (1 + STEPS) + (1 + 3 + 1) * STEPS,
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_are_counted(name: str, flow: TinyZooFlow, flow_problem: Problem) -> None:
    method, expected = ROWS[name]
    denoise = Counted(flow)
    method(denoise, flow_problem.part(0, 1))
    assert denoise.rows == expected


@pytest.mark.parametrize("name", FLOW)
def test_editing_two_pictures_equals_editing_each(name: str, flow: TinyZooFlow, flow_problem: Problem) -> None:
    together = FLOW[name](Counted(flow), flow_problem)
    alone = torch.cat([FLOW[name](Counted(flow), flow_problem.part(i, 1)) for i in range(2)])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-3)
    assert (together - flow_problem.x0).abs().max() > 0.01


def test_every_row_of_the_tables_is_there() -> None:
    methods = tuned_methods({name: {} for name in FLOW}, "flow")
    assert FLOW.keys() | {"ours_by_default", "ours_fast", "ours_50", "word_swap_empty_50"} <= methods.keys()
    assert {method for method in FLOW if method not in TUNED} == {"rf_inversion", "rf_solver", "fireflow"}


@pytest.mark.parametrize("name", ["p2p", "p2p_direct", "pnp", "infedit"])
def test_methods_of_a_unet_are_refused(name: str, flow: TinyZooFlow, flow_problem: Problem) -> None:
    with pytest.raises(TypeError, match=r"one of a UNet.*--model flow"):
        TUNED[name](Counted(flow), flow_problem)


@pytest.mark.parametrize("name", ["rf_solver", "fireflow"])
def test_methods_of_a_transformer_are_refused(name: str, model: TinyZoo, problem: Problem) -> None:
    with pytest.raises(TypeError, match=r"one of a transformer.*--model flow"):
        FLOW[name](Counted(model), problem)


@pytest.mark.parametrize(
    "method",
    [
        FlowEdit(cfg=3.5),
        RfInversion(eta=1, stop=1),
        Pix2PixZero(MapGuidance(0), cfg=1, fixed_point=20, noise_from="fresh", region=0),
    ],
    ids=lambda method: type(method).__name__,
)
def test_the_same_text_gives_the_picture_back(method: Method, flow: TinyZooFlow, unchanged: Problem) -> None:
    still = replace(unchanged, aligned=torch.zeros_like(unchanged.source))
    torch.testing.assert_close(method(Counted(flow), still), still.x0, rtol=0, atol=1e-4)


def test_a_word_swap_follows_the_stock_sampler(flow: TinyZooFlow, flow_problem: Problem) -> None:
    x = ddim_inversion(Counted(flow), flow_problem).noise
    for i in range(STEPS, 0, -1):  # Euler's method in equal steps of time, from pure noise
        t = flow.grid(STEPS)[STEPS - i]
        velocity = flow.transformer(x, 1000 * t.repeat(2), *flow.split(flow_problem.swapped))
        x = x + (flow.grid(STEPS)[STEPS - i + 1] - t) * velocity
    found = DdimWordSwap(cfg=1)(Counted(flow), flow_problem)
    torch.testing.assert_close(found, x, rtol=1e-4, atol=1e-4)


# ------------------------------------------------------------------ each rival


def test_rf_inversion_without_its_controllers_is_plain(gaussians: Any, toy: Problem) -> None:
    found = RfInversion(gamma=0, eta=0, cfg=1)(Counted(gaussians), toy)
    x, times = toy.x0, gaussians.grid(toy.steps)
    for t, t_next in pairwise(times.flip(0)):
        x = x + (t_next - t) * gaussians.velocity(x, t, toy.empty)
    for t, t_next in pairwise(times):
        x = x + (t_next - t) * gaussians.velocity(x, t, toy.swapped)
    torch.testing.assert_close(found, x, rtol=1e-4, atol=1e-4)


def test_rf_inversion_is_led_all_the_way_to_the_noise_that_it_draws(gaussians: Any, toy: Problem) -> None:
    noise = RfInversion(gamma=1).noise_of(Counted(gaussians), toy, gaussians.grid(toy.steps))
    torch.testing.assert_close(noise, toy.noise, rtol=1e-4, atol=1e-4)


def test_rf_inversion_follows_the_published_equation(gaussians: Any, toy: Problem) -> None:
    method = RfInversion(gamma=0.3, eta=0.6, stop=0.5, cfg=1)
    found, times = method(Counted(gaussians), toy), gaussians.grid(toy.steps)
    x = method.noise_of(Counted(gaussians), toy, times)
    for index, (t, t_next) in enumerate(pairwise(times)):
        drift, eta = -gaussians.velocity(x, t, toy.swapped), 0.6 if index < 4 else 0.0
        x = x + (t - t_next) * (drift + eta * ((toy.x0 - x) / t - drift))  # in the paper's time, that of the picture
    torch.testing.assert_close(found, x, rtol=1e-4, atol=1e-4)


def test_the_longer_the_picture_leads_the_less_is_edited(flow: TinyZooFlow, flow_problem: Problem) -> None:
    def change(stop: float) -> float:
        edited = RfInversion(stop=stop)(Counted(flow), flow_problem)
        return float((edited - flow_problem.x0).square().mean())

    assert change(1.0) < change(0.34) < change(0.0)


@pytest.mark.parametrize("solver", [lambda: midpoint_step, ReusedMidpoint], ids=["rf_solver", "fireflow"])
def test_solvers_are_of_second_order(solver: Callable[[], Step]) -> None:
    def error(steps: int) -> float:
        x, take_step = torch.ones((), dtype=torch.float64), solver()
        for t, t_next in pairwise(torch.linspace(0, 1, steps + 1, dtype=torch.float64)):
            x = take_step(lambda x, t: torch.cos(t) * x, x, t, t_next)
        return abs(float(x) - math.exp(math.sin(1)))

    assert error(40) / error(80) == pytest.approx(4, rel=0.1)


def test_rf_solver_comes_back_far_better_than_eulers_method(flow: TinyZooFlow, unchanged: Problem) -> None:
    def error(method: Method) -> float:
        longer = replace(unchanged, steps=10)
        return float((method(Counted(flow), longer) - longer.x0).square().mean().sqrt())

    plain = error(DdimWordSwap(cfg=1))
    assert error(RfSolver(share=0, cfg=1)) < 0.3 * plain
    assert error(FireFlow(share=0, cfg=1, steps=0)) < plain


@pytest.mark.parametrize("method", [RfSolver(share=0), FireFlow(share=0, steps=0)], ids=["rf_solver", "fireflow"])
def test_values_that_are_taken_over_hold_the_picture(
    method: RfSolver | FireFlow, flow: TinyZooFlow, flow_problem: Problem
) -> None:
    free, held, all_held = (
        replace(method, share=share, blocks=blocks)(Counted(flow), flow_problem)
        for share, blocks in ((0, 1), (1, 1), (1, len(flow.transformer.joint_blocks)))
    )
    assert (held - free).abs().max() > 1e-3 and (all_held - held).abs().max() > 1e-3
    x, t = flow_problem.noise, torch.tensor([0.5, 0.5])
    before = flow(x, t, flow_problem.source).denoised
    method(Counted(flow), flow_problem)
    assert torch.equal(flow(x, t, flow_problem.source).denoised, before)  # the blocks are as they were


def test_each_step_back_takes_over_what_its_step_there_kept(
    flow: TinyZooFlow, flow_problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    attend = mmdit._attend

    def watched(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if q.shape[1] > 77:  # the picture's tokens attend to each other alone as well
            seen.append(v[:, 77:])
        return attend(q, k, v)

    monkeypatch.setattr(mmdit, "_attend", watched)
    RfSolver(share=1, blocks=1)(Counted(flow), flow_problem)
    last = seen[len(flow.transformer.joint_blocks) - 1 :: len(flow.transformer.joint_blocks)]
    there, back = last[: 2 * STEPS], last[2 * STEPS :]
    for step in range(STEPS):
        kept = there[2 * (STEPS - 1 - step) :][:2]  # of both evaluations of the midpoint method
        for first, values in enumerate(kept):
            given = back[4 * step + 2 * first :][:2]  # to the text and to the empty text
            assert all(torch.equal(values, taken) for taken in given)


def test_flowedit_follows_the_published_equation(gaussians: Any, toy: Problem) -> None:
    found = FlowEdit(share=1, cfg=1, source_cfg=1)(Counted(gaussians), toy)
    # Whatever the noise, a shift by the difference of the means: optimal transport.
    torch.testing.assert_close(found - toy.x0, torch.full_like(toy.x0, 3.0), rtol=0, atol=1e-4)
