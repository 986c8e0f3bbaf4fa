"""An edit leaves the model as it found it, however it ends."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from launcher.messages import Failure
from launcher.server import Server
from launcher.workflow import Workflow

Latent = Callable[[dict[str, Any]], Tensor]
EditGraph = Callable[..., Any]


class Broken(Exception):
    """Raised by a model in the middle of a run."""


def breaks_after(calls: int) -> Callable[..., Tensor]:
    """Make a wrapper of the UNet that raises at a later call."""
    done = 0

    def wrapper(apply: Callable[..., Tensor], arguments: dict[str, Any]) -> Tensor:
        nonlocal done
        done += 1
        if done > calls:
            raise Broken
        return apply(arguments["input"], arguments["timestep"], **arguments["c"])

    return wrapper


def state(model: Any) -> dict[str, Any]:
    """Everything of a ModelPatcher and its model that a node could leave changed."""
    weights = dict(model.model.named_parameters()) | dict(model.model.named_buffers())
    return {
        "weights": {
            name: (id(w), w.detach().clone().numpy().tobytes(), w.requires_grad) for name, w in weights.items()
        },
        "gradients": [name for name, w in model.model.named_parameters() if w.grad is not None],
        "training": [name for name, module in model.model.named_modules() if module.training],
        "hooks": [
            name for name, module in model.model.named_modules() if module._forward_hooks or module._forward_pre_hooks
        ],
        "options": copy.deepcopy(model.model_options),
        "patches": {name: len(patches) for name, patches in model.patches.items()},
        "object_patches": dict(model.object_patches),
        "wrappers": copy.deepcopy(model.wrappers),
        "callbacks": copy.deepcopy(model.callbacks),
        "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
    }


def stock_sample(model: Any, positive: Any) -> Tensor:
    import comfy.sample

    with torch.inference_mode():
        noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
        return comfy.sample.sample(
            model, noise, 2, 1.0, "euler", "normal", positive, positive, torch.zeros_like(noise), disable_pbar=True
        )


def test_after_success(in_process: Any):
    expected, before = stock_sample(in_process.model, in_process.target), state(in_process.model)
    inversion = in_process.invert()[0]
    first = in_process.sample(inversion)[0]["samples"]
    assert state(in_process.model) == before
    assert torch.equal(stock_sample(in_process.model, in_process.target), expected)
    assert torch.equal(in_process.sample(inversion)[0]["samples"], first)


@pytest.mark.parametrize("calls", [0, 1, 5])
def test_after_an_exception_in_the_sampler(in_process: Any, calls: int):
    inversion = in_process.invert()[0]
    expected, edited = stock_sample(in_process.model, in_process.target), in_process.sample(inversion)[0]["samples"]
    before = state(in_process.model)
    broken = in_process.model.clone()
    broken.set_model_unet_function_wrapper(breaks_after(calls))
    with pytest.raises(Broken):
        in_process.sample(inversion, model=broken)
    assert state(in_process.model) == before
    assert torch.equal(stock_sample(in_process.model, in_process.target), expected)
    assert torch.equal(in_process.sample(inversion)[0]["samples"], edited)


def test_after_an_exception_in_the_inversion(in_process: Any):
    expected, noise = stock_sample(in_process.model, in_process.target), in_process.invert()[1]["samples"]
    before = state(in_process.model)
    broken = in_process.model.clone()
    broken.set_model_unet_function_wrapper(breaks_after(3))
    with pytest.raises(Broken):
        in_process.invert(model=broken)
    assert state(in_process.model) == before
    assert torch.equal(stock_sample(in_process.model, in_process.target), expected)
    assert torch.equal(in_process.invert()[1]["samples"], noise)


def patched(in_process: Any, model: Any, inversion: Any) -> Any:
    with torch.inference_mode():
        return in_process.nodes.CrossAttnGuidance.execute(
            model, inversion, in_process.source, 0.1, "normalized", 0.0, 1.0, checkpointing="always"
        ).result[0]


def test_under_a_stock_sampler(in_process: Any):
    inversion = in_process.invert(steps=2, scheduler="normal")[0]
    expected, before = stock_sample(in_process.model, in_process.target), state(in_process.model)
    guided = patched(in_process, in_process.model, inversion)
    first = stock_sample(guided, in_process.target)
    assert not torch.equal(first, expected)
    assert state(in_process.model) == before
    assert torch.equal(stock_sample(in_process.model, in_process.target), expected)
    assert torch.equal(stock_sample(guided, in_process.target), first)


@pytest.mark.parametrize("calls", [1, 2])
def test_after_an_exception_under_a_stock_sampler(in_process: Any, calls: int):
    inversion = in_process.invert(steps=2, scheduler="normal")[0]
    expected, before = stock_sample(in_process.model, in_process.target), state(in_process.model)
    broken = in_process.model.clone()
    broken.set_model_unet_function_wrapper(breaks_after(calls))
    with pytest.raises(Broken):
        stock_sample(patched(in_process, broken, inversion), in_process.target)
    assert state(in_process.model) == before
    assert torch.equal(stock_sample(in_process.model, in_process.target), expected)


def test_inputs_are_left_alone(in_process: Any):
    latent = in_process.latent["samples"].clone()
    conditionings = copy.deepcopy((in_process.source, in_process.target))
    inversion = in_process.invert()[0]
    trajectory = inversion.trajectory.clone()
    in_process.sample(inversion)
    assert torch.equal(in_process.latent["samples"], latent)
    assert torch.equal(inversion.trajectory, trajectory)
    for before, after in zip(conditionings, (in_process.source, in_process.target), strict=True):
        assert torch.equal(before[0][0], after[0][0])
        assert before[0][1].keys() == after[0][1].keys()


def interrupt(server: Server, workflow: Workflow) -> str:
    """Queue a long workflow, interrupt it once it has run for a while, and return the class of the node it was in."""
    number = server.queue(workflow)
    while not any(entry[1] == number for entry in server.get("/queue")["queue_running"]):
        time.sleep(0.05)
    time.sleep(3)
    server.request("/interrupt", b"{}")
    with pytest.raises(Failure, match="status 'error'"):
        server.wait(number)
    messages = dict(server.get(f"/history/{number}")[number]["status"]["messages"])
    return messages["execution_interrupted"]["node_type"]


def test_after_an_interrupt(server: Server, latent: Latent, edit_graph: EditGraph):
    """The stock sampler on the same loaded model gives the same before and after; so does an edit."""

    def stock_and_edit(text: str) -> list[Tensor]:
        graph = edit_graph(text=text)
        empty = graph.add("EmptyLatentImage", width=64, height=64, batch_size=1)
        stock = graph.add(
            "KSampler",
            model=[graph.checkpoint, 0],
            seed=0,
            steps=3,
            cfg=5.0,
            sampler_name="euler",
            scheduler="normal",
            positive=[graph.target, 0],
            negative=[graph.source, 0],
            latent_image=[empty, 0],
            denoise=1.0,
        )
        saved = [graph.save(stock), graph.save(graph.sampler)]
        outputs = server.run(graph.workflow)
        return [latent(outputs[node]) for node in saved]

    before = stock_and_edit("a drawing of a cat")
    long = edit_graph(steps=900)
    long.save(long.inversion, 1)
    assert interrupt(server, long.workflow) == "Pix2PixZeroRegularizedDDIMInvert"
    # The spaces defeat ComfyUI's cache.
    for expected, found in zip(before, stock_and_edit(" a drawing of a cat"), strict=True):
        assert torch.equal(found, expected)

    long = edit_graph(steps=60)
    long.set(long.inversion, fixed_point=0, reconstruct=False)
    long.save(long.inversion, 1)
    server.run(long.workflow)  # so that the next one begins with the sampler
    long.save(long.sampler)
    assert interrupt(server, long.workflow) == "Pix2PixZeroCrossAttnGuidedSampler"
    for expected, found in zip(before, stock_and_edit("a  drawing of a cat"), strict=True):
        assert torch.equal(found, expected)
