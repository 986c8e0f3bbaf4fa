"""Inversion: for any schedule, once, however often the edit is changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from launcher.server import Server
from launcher.workflow import Workflow

Latent = Callable[[dict[str, Any]], Tensor]
EditGraph = Callable[..., Any]


def cached_nodes(server: Server, workflow: Workflow) -> set[str]:
    """Run a workflow; the nodes that ComfyUI took from its cache."""
    number = server.queue(workflow)
    server.wait(number)
    messages = dict(server.get(f"/history/{number}")[number]["status"]["messages"])
    return set(messages["execution_cached"]["nodes"])


def test_a_change_of_the_edit_does_not_invert_again(server: Server, edit_graph: EditGraph):
    graph = edit_graph(text="a drawing of a cat that is inverted once")
    graph.save(graph.sampler)
    assert graph.inversion not in cached_nodes(server, graph.workflow)
    changes = {
        "cfg": 3.0,
        "guidance": 0.2,
        "unit": "paper",
        "guidance_start": 0.1,
        "guidance_end": 0.9,
        "checkpointing": "always",
        "finest_layer": 2,
        "negative_from": "text",
    }
    for setting, value in changes.items():
        graph.set(graph.sampler, **{setting: value})
        cached = cached_nodes(server, graph.workflow)
        assert graph.inversion in cached, setting
        assert graph.sampler not in cached, setting
    graph.set(graph.target, strength=0.5)
    assert graph.inversion in cached_nodes(server, graph.workflow)
    graph.set(graph.inversion, kl=1.0)
    assert graph.inversion not in cached_nodes(server, graph.workflow)


@pytest.mark.parametrize("scheduler", ["normal", "karras", "ddim_uniform", "beta"])
def test_a_scheduler_is_that_of_the_stock_sampler(in_process: Any, scheduler: str):
    import comfy.samplers

    sampling = in_process.model.get_model_object("model_sampling")
    expected = comfy.samplers.calculate_sigmas(sampling, scheduler, 5)
    assert torch.equal(in_process.nodes.inversion.schedule(in_process.model, scheduler, 5), expected)


def test_the_papers_schedule_has_as_many_steps_as_asked_for(in_process: Any):
    sigmas = in_process.nodes.inversion.schedule(in_process.model, "ddim", 6)
    assert len(sigmas) == 7
    assert float(sigmas[-1]) == 0


def test_an_unknown_scheduler(in_process: Any):
    with pytest.raises(ValueError, match=r"no scheduler 'linear'; choose one of ddim, .*karras"):
        in_process.invert(scheduler="linear")


@pytest.mark.parametrize("scheduler", ["ddim", "simple", "karras"])
def test_no_steps(in_process: Any, scheduler: str):
    with pytest.raises(ValueError, match="steps is 0; it must be"):
        in_process.invert(0, scheduler=scheduler)


def test_start_and_end_are_those_of_ksampler_advanced(in_process: Any):
    whole = in_process.nodes.inversion.schedule(in_process.model, "normal", 5)
    inversion = in_process.invert(5, scheduler="normal", start_at_step=1, end_at_step=3)[0]
    assert torch.equal(inversion.sigmas, whole[1:4])


def test_connected_sigmas_win(in_process: Any):
    sigmas = torch.tensor([5.0, 1.0, 0.0])
    inversion = in_process.invert(5, sigmas=sigmas, scheduler="karras", start_at_step=3)[0]
    assert torch.equal(inversion.sigmas, sigmas)


@pytest.mark.parametrize(("start", "end"), [(3, 10000), (20, 20), (2, 1)])
def test_a_part_without_steps(in_process: Any, start: int, end: int):
    message = rf"start_at_step is {start} and end_at_step {end}, which leaves none of 3 steps.* from 0 to 2, and"
    with pytest.raises(ValueError, match=message):
        in_process.invert(3, scheduler="normal", start_at_step=start, end_at_step=end)


def test_sigmas_above_the_models(in_process: Any):
    with pytest.raises(ValueError, match=r"sigmas begins at 80; the model's noise levels end at 14\.61"):
        in_process.invert(sigmas=torch.tensor([80.0, 1.0, 0.0]))


def mapped(in_process: Any, **changed: list[Any]) -> tuple[list[Any], ...]:
    """The node as ComfyUI calls it, with a list for every input."""
    inputs: dict[str, Any] = {
        "model": [in_process.model],
        "latent": [in_process.latent],
        "source": [in_process.source],
        "steps": [2],
        "regularization": [0.0],
        "kl": [0.0],
        "fixed_point": [0],
        "reconstruct": [False],
    }
    with torch.inference_mode():
        return in_process.nodes.RegularizedDDIMInvert.execute(**inputs | changed).result


def test_a_batch_with_a_caption_a_picture(in_process: Any):
    """Each picture with its own; with one caption for all the batch stays one."""
    samples = 3 * torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    texts = [in_process.source, in_process.target]
    batch = {"samples": samples, "noise_mask": torch.ones(2, 1, 64, 64)}
    found = mapped(in_process, latent=[batch], source=texts)[0]
    assert [inversion.noise.shape for inversion in found] == 2 * [(1, 4, 8, 8)]
    assert [inversion.mask.shape for inversion in found] == 2 * [(1, 1, 64, 64)]
    for number, inversion in enumerate(found):
        alone = {"latent": {"samples": samples[number : number + 1]}, "source": texts[number]}
        expected = in_process.invert(2, regularization=0.0, kl=0.0, fixed_point=0, **alone)[0]
        assert torch.equal(inversion.noise, expected.noise)
    (together,) = mapped(in_process, latent=[{"samples": samples}])[0]
    assert together.noise.shape == (2, 4, 8, 8)
    pictures = [{"samples": one} for one in samples.split(1)]
    listed = mapped(in_process, latent=pictures, source=texts)[0]
    assert all(torch.equal(a.noise, b.noise) for a, b in zip(found, listed, strict=True))


def test_batches_and_captions_that_do_not_fit(in_process: Any):
    two = {"samples": torch.randn(2, 4, 8, 8)}
    with pytest.raises(ValueError, match=r"source has 3 texts, latent 2 pictures in 1 batches"):
        mapped(in_process, latent=[two], source=3 * [in_process.source])


def test_a_poor_reconstruction_is_told(in_process: Any, caplog: pytest.LogCaptureFixture):
    mapped(in_process, reconstruct=[True], steps=[2], regularization=[1000.0], kl=[1000.0])
    told = [record.getMessage() for record in caplog.records if "Regularized DDIM Invert" in record.getMessage()]
    assert len(told) == 1 and "The reconstruction has only" in told[0]
