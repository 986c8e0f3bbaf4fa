"""The ruler of speed: rivals that compute what they should, clocks that add up, results that readers expect."""

from __future__ import annotations

import gc
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from benchmarks.harness.tasks import Problem
from benchmarks.rivals import left_as_found, official, pipeline
from benchmarks.speed.__main__ import measure_all
from benchmarks.speed.edits import RIVALS, official_edit, our_edit, our_methods, pictures_of
from benchmarks.speed.meter import Call, Meter, Usage
from benchmarks.speed.plan import QUICK
from benchmarks.speed.report import describe, draw
from benchmarks.speed.rows import count_rows, mean_counts, outside, projected
from benchmarks.speed.subjects import Subject, map_bytes_of_a_row, tiny_zoo_unet
from benchmarks.speed.timings import resident_after_edits
from pix2pix_zero_core import official as core_official
from pix2pix_zero_core.integrations.diffusers import DiffusersDenoiser, TextConditioning
from pix2pix_zero_core.schedule import ve_to_vp
from tiny_zoo.denoiser import TinyZoo

pytest.importorskip("diffusers", reason="every method runs on a UNet of diffusers")

SMALL = replace(QUICK, steps=3, vary={"steps": (3,), "batch": (2,), "side": (128,)}, edits=2)
STEPS = 6


@pytest.fixture(scope="module")
def subject(model: TinyZoo, problem: Problem) -> Subject:
    return Subject("tiny-zoo", tiny_zoo_unet(model), replace(problem, steps=STEPS)).part(0, 1)


def state(unet) -> dict[str, object]:
    return {
        "processors": {name: id(processor) for name, processor in unet.attn_processors.items()},
        "trained": [name for name, p in unet.named_parameters() if p.requires_grad],
        "gradients": [name for name, p in unet.named_parameters() if p.grad is not None],
        "maps": [name for name, module in unet.named_modules() if hasattr(module, "attn_probs")],
    }


# ------------------------------------------------------------------ the same network, the same algorithm


def test_tiny_zoo_is_the_same_in_diffusers(model: TinyZoo, subject: Subject) -> None:
    x, text = torch.randn(2, 4, 16, 16), subject.problem.source.expand(2, -1, -1)
    t = torch.tensor([10.0, 900.0])
    with torch.no_grad():
        torch.testing.assert_close(
            subject.unet(x, t, encoder_hidden_states=text).sample, model.unet(x, t, text), rtol=1e-4, atol=1e-4
        )


def test_the_transcription_edits_as_the_core_official_does(subject: Subject) -> None:
    unet, alphas, denoise = subject.unet, subject.alphas, DiffusersDenoiser(subject.unet, subject.alphas)
    ((x0, source, target),) = pictures_of(subject.problem)
    with official.prepared(unet):
        noise = official.invert(unet, alphas, x0, source, STEPS, torch.Generator().manual_seed(1))
        edited = official.edit(unet, alphas, noise, source, target, STEPS, strength=1.0)
    before, after = TextConditioning(source), TextConditioning(target)
    inversion = core_official.invert(
        denoise, x0, before, denoise.sigmas, STEPS, generator=torch.Generator().manual_seed(1)
    )
    expected = core_official.edit(denoise, inversion, before, after, negative=before, strength=1.0)
    torch.testing.assert_close(noise, ve_to_vp(inversion.noise, inversion.sigmas[0]), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(edited, ve_to_vp(expected.edited, inversion.sigmas[-1]), rtol=1e-2, atol=1e-2)
    assert (edited - x0).abs().mean() > 0.05


def test_diffusers_edits_as_the_transcription_does(subject: Subject) -> None:
    pipe, unet = pipeline.make_pipeline(subject.unet, subject.alphas), subject.unet
    ((x0, source, target),) = pictures_of(subject.problem)
    with left_as_found(unet):
        noise = pipeline.invert(pipe, x0, source, STEPS)
        theirs = pipeline.edit(pipe, noise, source, target, STEPS)
    with official.prepared(unet):
        edited = official.edit(unet, subject.alphas, noise, source, target, STEPS)
    torch.testing.assert_close(theirs, edited, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", ["official", "diffusers"])
def test_a_rival_leaves_the_unet_as_it_was(name: str, subject: Subject) -> None:
    before = state(subject.unet)
    Meter(subject.unet).run(partial(RIVALS[name], subject))
    assert state(subject.unet) == before


# ------------------------------------------------------------------ clocks


def test_the_official_code_is_counted_row_by_row(subject: Subject) -> None:
    usage = Meter(subject.unet, watch_maps=True).run(partial(official_edit, subject))
    assert {call: len(times) for call, times in usage.calls.items()} == {
        Call("invert", "forward", 1): STEPS - 2,
        Call("edit", "forward", 2): 2 * STEPS,
        Call("edit", "forward with graph", 2): STEPS,
        Call("edit", "backward", 2): STEPS,
    }
    assert count_rows(mean_counts([usage])) == {
        "unet_rows": STEPS - 2 + 10 * STEPS,
        "forward_rows": STEPS - 2 + 6 * STEPS,
        "backward_rows": 2 * STEPS,
    }
    row = map_bytes_of_a_row(subject)
    assert 2 * STEPS * row < usage.map_bytes <= (2 * STEPS + 4) * row


def test_ours_holds_the_maps_of_two_rows(subject: Subject) -> None:
    method = replace(our_methods()["ours"], steps=0)
    usage = Meter(subject.unet, watch_maps=True).run(partial(our_edit(method), subject))
    assert usage.map_bytes <= 2.5 * map_bytes_of_a_row(subject)
    assert {call.phase for call in usage.calls} == {"invert", "edit"}


def test_time_is_that_of_the_unet_or_outside_of_it(subject: Subject) -> None:
    usage = Meter(subject.unet).run(partial(official_edit, subject))
    around, inside = outside(usage), sum(sum(times) for times in usage.calls.values())
    assert sum(usage.phases.values()) == pytest.approx(sum(around.values()) + inside)
    assert all(seconds > 0 for seconds in around.values())
    assert Usage.from_json(json.loads(json.dumps(usage.to_json()))) == usage


def test_an_edit_of_all_steps_is_put_together_from_its_calls() -> None:
    one, two = Call("invert", "forward", 1), Call("edit", "backward", 2)
    few = Usage({one: [2.0, 2.0], two: [5.0]}, {"invert": 4.5, "edit": 5.5}, 10.0, 100)
    whole = Usage({one: [0.1] * 10, two: [0.1] * 20}, {"invert": 1.0, "edit": 2.0}, 3.0, 10)
    few.calls[Call("edit", "forward", 1)] = [0.0]
    whole.calls[Call("edit", "forward", 1)] = [0.0] * 4
    row = projected([few], [whole])
    # `forward` costs the median over both phases, 2 s; outside the UNet each forward call takes 0.25 s and 0.5 s.
    assert row["seconds_invert"] == pytest.approx(10 * 2 + 10 * 0.25)
    assert row["seconds_edit"] == pytest.approx(20 * 5 + 4 * 2 + 4 * 0.5)
    assert row["seconds_outside_unet"] == pytest.approx(10 * 0.25 + 4 * 0.5)
    assert (row["forward_rows"], row["backward_rows"], row["unet_rows"], row["peak_bytes"]) == (14, 40, 94, 100)


# ------------------------------------------------------------------ results


def test_a_quick_run_writes_what_readers_expect_and_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = json.loads(json.dumps(measure_all(SMALL, tmp_path)))
    assert [(row["unet"], row["method"]) for row in results["rows"]] == [
        (unet, method)
        for unet in ("tiny-zoo", *SMALL.large)
        for method in ("official", "diffusers", "ours", "ours_fast")
    ] + [("sd35-of-2-blocks-64", method) for method in ("ours", "ours_fast")]
    for row in results["rows"]:
        expected = "unet method steps seconds seconds_outside_unet unet_rows peak_bytes map_bytes"
        assert all(name in row for name in expected.split())
        assert 0 < row["seconds_outside_unet"] < row["seconds"]
        assert row["seconds"] == pytest.approx(row["seconds_invert"] + row["seconds_edit"])
    assert {"threads", "torch", "device"} <= results["environment"].keys()
    assert len(results["resident_after_edits"]) == SMALL.edits
    text = describe(results)
    networks = ("tiny-zoo", *SMALL.large, "sd35-of-2-blocks-64")
    assert all(f"## {network}\n" in text for network in networks) and "ours_fast" in text
    pytest.importorskip("matplotlib", reason="`python run.py test` installs matplotlib")
    draw(results["curves"], tmp_path / "speed.png")
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")

    assert "official" in capsys.readouterr().out
    measure_all(SMALL, tmp_path)
    assert capsys.readouterr().out == "", "what is measured is not measured again"


def living_tensors() -> int:
    gc.collect()
    return sum(type(thing) is torch.Tensor for thing in gc.get_objects())


def test_one_edit_after_another_holds_no_more(subject: Subject) -> None:
    edit, counts, short = our_edit(replace(our_methods()["ours"], steps=0)), [], subject.in_steps(2)
    (before,) = resident_after_edits(short, edit, 1)
    for _ in range(20):
        edit(short, Meter(short.unet))
        counts.append(living_tensors())
    assert len(set(counts)) == 1
    (after,) = resident_after_edits(short, edit, 1)
    assert after - before < 64 * 2**20
