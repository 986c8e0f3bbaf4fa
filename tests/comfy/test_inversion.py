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


def test_a_start_after_the_last_step(in_process: Any):
    with pytest.raises(ValueError, match="zero steps"):
        in_process.invert(3, scheduler="normal", start_at_step=3)
