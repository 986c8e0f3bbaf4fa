"""Bad input: the node says what is wrong, what would be right and what to do, and the server serves the next prompt."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors.torch
import torch

from launcher.messages import Failure
from launcher.server import Server
from launcher.workflow import Workflow

EditGraph = Callable[..., Any]


def fails(server: Server, graph: Any, node: str, *words: str) -> None:
    """Queue a graph that saves a latent of `node` and check the message, and then that the server still works."""
    graph.save(node, 1)  # the noise or the reference
    with pytest.raises(Failure) as caught:
        server.run(graph.workflow)
    message = str(caught.value)
    assert not [word for word in words if word not in message], message
    good: Workflow = {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "random_zoo.safetensors"}},
        "2": {"class_type": "EmptyLatentImage", "inputs": {"width": 32, "height": 32, "batch_size": 1}},
        "3": {"class_type": "VAEDecode", "inputs": {"samples": ["2", 0], "vae": ["1", 2]}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": uuid.uuid4().hex}},
    }
    assert server.run(good)["4"]["images"]


@pytest.mark.parametrize("name", ["inversion", "sampler"])
@pytest.mark.parametrize(
    ("class_type", "settings", "words"),
    [
        (
            "ModelSamplingContinuousEDM",
            {"sampling": "edm", "sigma_max": 80.0, "sigma_min": 0.002},
            ("noise levels of another kind", "Stable Diffusion 1, 2 and XL"),
        ),
    ],
)
def test_other_model_families(
    server: Server,
    edit_graph: EditGraph,
    name: str,
    class_type: str,
    settings: dict[str, Any],
    words: tuple[str, ...],
):
    graph = edit_graph()
    other = graph.add(class_type, model=[graph.checkpoint, 0], **settings)
    node = getattr(graph, name)
    graph.set(node, model=[other, 0])
    fails(server, graph, node, graph.workflow[node]["class_type"], "ValueError", *words)


def test_a_model_without_cross_attention(pack: Any):
    import comfy.model_sampling

    sampling = comfy.model_sampling.ModelSamplingDiscrete()
    objects = {"model_sampling": sampling, "diffusion_model": torch.nn.Linear(1, 1)}
    model = SimpleNamespace(
        model=SimpleNamespace(),
        get_model_object=objects.__getitem__,
        get_wrappers=lambda *_: [],
        object_patches={},
        object_patches_backup={},
    )
    with pytest.raises(ValueError, match=r"no attention to the text .* Stable Diffusion 1, 2 and XL"):
        pack.nodes.bridge.require_cross_attention_model(model)


def test_a_direction_of_another_encoder(server: Server, edit_graph: EditGraph):
    graph = edit_graph()
    other = graph.add("CheckpointLoaderSimple", ckpt_name="other_zoo.safetensors")
    graph.set(graph.direction, clip=[other, 1])
    words = ("ApplyEditDirection", "was made by text encoder", "Build the direction again with the checkpoint in use")
    fails(server, graph, graph.sampler, *words)


def test_half_precision_makes_no_other_encoder(server: Server, edit_graph: EditGraph):
    graph = edit_graph()
    other = graph.add("CheckpointLoaderSimple", ckpt_name="random_zoo_fp16.safetensors")
    graph.set(graph.direction, clip=[other, 1])
    graph.save(graph.sampler)
    server.run(graph.workflow)


def test_latents_of_another_model(server: Server, edit_graph: EditGraph):
    graph = edit_graph()
    latent = graph.add("EmptySD3LatentImage", width=64, height=64, batch_size=1)
    graph.set(graph.inversion, latent=[latent, 0])
    words = ("RegularizedDDIMInvert", "16 channels", "takes 4", "Encode the picture with the VAE of the checkpoint")
    fails(server, graph, graph.inversion, *words)


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_latent_with_nan(server: Server, base: Path, edit_graph: EditGraph, broken: float):
    samples = torch.zeros(1, 4, 8, 8)
    samples[0, 0, 0, 0] = broken
    tensors = {"latent_tensor": samples, "latent_format_version_0": torch.tensor([])}
    safetensors.torch.save_file(tensors, base / "input" / f"{broken}.latent")
    graph = edit_graph()
    latent = graph.add("LoadLatent", latent=f"{broken}.latent")
    graph.set(graph.inversion, latent=[latent, 0])
    words = ("RegularizedDDIMInvert", "NaN or Inf (1 of 256 values)", "run that one in float32")
    fails(server, graph, graph.inversion, *words)


@pytest.mark.parametrize(
    ("name", "setting", "value", "bound"),
    [
        ("inversion", "steps", 0, "min of 1"),
        ("inversion", "steps", 1001, "max of 1000"),
        ("inversion", "regularization", -1.0, "min of 0"),
        ("inversion", "fixed_point", -1, "min of 0"),
        ("sampler", "guidance", -0.1, "min of 0"),
        ("sampler", "cfg", 101.0, "max of 100"),
        ("direction", "sentences", 0, "min of 1"),
    ],
)
def test_numbers_out_of_range(server: Server, edit_graph: EditGraph, name: str, setting: str, value: float, bound: str):
    graph = edit_graph()
    node = getattr(graph, name)
    graph.set(node, **{setting: value})
    fails(server, graph, graph.sampler, "rejects the workflow", graph.workflow[node]["class_type"], setting, bound)


def test_more_steps_than_the_schedule_has(server: Server, edit_graph: EditGraph):
    graph = edit_graph(steps=1000)
    fails(server, graph, graph.inversion, "RegularizedDDIMInvert", "steps is 1000", "between 1 and 999")


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("", "", ("custom", "source is empty", "write a word or several sentences")),
        ("cat", "", ("custom", "target is empty", "write a word or several sentences")),
        (" \n ", "dog", ("custom", "source is empty", "write a word or several sentences")),
        ("cat", "cat ", ("source and target are both 'cat'", "Write what is to be replaced")),
        ("cat\na cat", " cat \n\n a cat\n", ("source and target are both", "Write what is to be replaced")),
    ],
)
def test_custom_texts(server: Server, edit_graph: EditGraph, source: str, target: str, words: tuple[str, ...]):
    graph = edit_graph()
    graph.set(graph.direction, source=source, target=target)
    fails(server, graph, graph.sampler, "EditDirection", *words)


def test_an_unknown_edit(server: Server, edit_graph: EditGraph):
    graph = edit_graph()
    graph.set(graph.direction, edit="cat2unicorn")
    fails(server, graph, graph.sampler, "EditDirection", "'cat2unicorn'")


def test_the_message_about_an_unknown_edit(pack: Any):
    with pytest.raises(ValueError, match=r"no edit 'cat2unicorn'; choose one of .*tiny_zoo/cat2dog.* or custom"):
        pack.nodes.EditDirection.execute(None, "cat2unicorn", "", "", 1)


def test_a_missing_captioner(server: Server, edit_graph: EditGraph):
    graph = edit_graph()
    caption = graph.add(
        "Pix2PixZeroBLIPCaption", image=[graph.scaled, 0], model="no_such_blip", prefix="", max_tokens=40, beams=3
    )
    graph.set(graph.source, text=[caption, 0])
    fails(server, graph, graph.sampler, "BLIPCaption", "'no_such_blip'", "tiny_zoo")


@pytest.mark.parametrize("content", [b"", b"this is no checkpoint"])
def test_a_corrupt_checkpoint(server: Server, base: Path, edit_graph: EditGraph, content: bytes):
    (base / "models" / "checkpoints" / "corrupt.safetensors").write_bytes(content)
    graph = edit_graph("corrupt.safetensors")
    fails(server, graph, graph.sampler, "CheckpointLoaderSimple", "raised")


def test_guidance_that_ends_before_it_starts(server: Server, edit_graph: EditGraph):
    graph = edit_graph()
    graph.set(graph.sampler, guidance_start=0.8, guidance_end=0.2)
    fails(server, graph, graph.sampler, "GuidedSampler", "0.8", "0.2", "0 <= start <= end <= 1")


@pytest.mark.parametrize("denoise", [0.0, 1.0], ids=["empty", "ascending"])
def test_sigmas_that_are_no_sampling_grid(server: Server, edit_graph: EditGraph, denoise: float):
    graph = edit_graph()
    sigmas = graph.add("BasicScheduler", model=[graph.checkpoint, 0], scheduler="normal", steps=4, denoise=denoise)
    flipped = graph.add("FlipSigmas", sigmas=[sigmas, 0])
    graph.set(graph.inversion, sigmas=[flipped, 0])
    words = ("descends strictly", "unreversed") if denoise else ("zero steps", "Raise the number of steps")
    fails(server, graph, graph.inversion, "RegularizedDDIMInvert", "ValueError", *words)
