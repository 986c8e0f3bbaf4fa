"""The nodes in a live server: what they promise to saved workflows, and what they compute."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from launcher.client import save_images
from launcher.runtime import EXAMPLES, PACK, ROOT
from launcher.server import Server
from launcher.workflow import adapt, find_node, node_inputs

Latent = Callable[[dict[str, Any]], Tensor]
EditGraph = Callable[..., Any]

INVERSION, DIRECTION = "PIX2PIX_ZERO_INVERSION", "PIX2PIX_ZERO_DIRECTION"
DISTILLED = "PIX2PIX_ZERO_DISTILLED"
SETTINGS = "guidance:FLOAT unit:COMBO guidance_start:FLOAT guidance_end:FLOAT"
OPTIONAL = (
    "checkpointing:COMBO finest_layer:INT negative_from:COMBO cfg_start:FLOAT region:FLOAT blocks:STRING "
    "noise_from:COMBO"
)
FROZEN = {
    "Pix2PixZeroBLIPCaption": (
        "BLIP Caption",
        "image:IMAGE model:COMBO prefix:STRING max_tokens:INT beams:INT",
        "download:BOOLEAN",
        "caption:STRING*",
    ),
    "Pix2PixZeroRegularizedDDIMInvert": (
        "Regularized DDIM Invert",
        "model:MODEL latent:LATENT source:CONDITIONING steps:INT regularization:FLOAT kl:FLOAT fixed_point:INT "
        "reconstruct:BOOLEAN",
        "sigmas:SIGMAS scheduler:COMBO start_at_step:INT end_at_step:INT",
        f"inversion:{INVERSION}* noise:LATENT* reconstruction:LATENT* reconstruction_db:FLOAT* warning:STRING",
    ),
    "Pix2PixZeroEditDirection": (
        "Edit Direction",
        "clip:CLIP edit:COMBO source:STRING target:STRING sentences:INT",
        "kind:COMBO form:COMBO",
        f"direction:{DIRECTION} warning:STRING",
    ),
    "Pix2PixZeroApplyEditDirection": (
        "Apply Edit Direction",
        f"source:CONDITIONING direction:{DIRECTION} clip:CLIP strength:FLOAT",
        "caption:STRING",
        "target:CONDITIONING warning:STRING",
    ),
    "Pix2PixZeroCrossAttnGuidedSampler": (
        "Cross-Attention Guided Sampler",
        f"model:MODEL inversion:{INVERSION} source:CONDITIONING target:CONDITIONING negative:CONDITIONING "
        f"cfg:FLOAT {SETTINGS}",
        OPTIONAL,
        f"edited:LATENT reference:LATENT path:{INVERSION} warning:STRING",
    ),
    "Pix2PixZeroCrossAttnGuidance": (
        "Cross-Attention Guidance",
        f"model:MODEL inversion:{INVERSION} source:CONDITIONING {SETTINGS}",
        OPTIONAL,
        "model:MODEL warning:STRING",
    ),
    "Pix2PixZeroCrossAttnGuider": (
        "Cross-Attention Guider",
        f"model:MODEL inversion:{INVERSION} source:CONDITIONING target:CONDITIONING negative:CONDITIONING "
        f"cfg:FLOAT {SETTINGS}",
        OPTIONAL,
        "guider:GUIDER warning:STRING",
    ),
    "Pix2PixZeroAttentionMaps": (
        "Attention Maps",
        f"model:MODEL inversion:{INVERSION} source:CONDITIONING clip:CLIP image:IMAGE text:STRING words:STRING "
        "moments:INT picture:INT",
        f"edited:{INVERSION} target:CONDITIONING",
        "sheets:IMAGE mask:MASK edited_mask:MASK",
    ),
    "Pix2PixZeroCompare": (
        "Compare Edits",
        "source:IMAGE edited:IMAGE",
        "reconstruction:IMAGE titles:BOOLEAN",
        "comparison:IMAGE",
    ),
    "Pix2PixZeroLoadEditDirection": ("Load Edit Direction", "file:COMBO", "", f"direction:{DIRECTION}"),
    "Pix2PixZeroSaveEditDirection": (
        "Save Edit Direction",
        f"direction:{DIRECTION} name:STRING overwrite:BOOLEAN",
        "",
        "",
    ),
    "Pix2PixZeroImportEditDirection": (
        "Import Edit Direction",
        "clip:CLIP source:COMBO target:COMBO",
        "",
        f"direction:{DIRECTION}",
    ),
    "Pix2PixZeroCombineEditDirections": (
        "Combine Edit Directions",
        f"direction_1:{DIRECTION} direction_2:{DIRECTION} weight_1:FLOAT weight_2:FLOAT",
        "",
        f"direction:{DIRECTION}",
    ),
    "Pix2PixZeroWriteSentences": (
        "Write Sentences",
        "concept:STRING writer:COMBO count:INT seed:INT temperature:FLOAT",
        "kind:COMBO",
        "sentences:STRING",
    ),
    "Pix2PixZeroLoadSentences": ("Load Sentences", "file:COMBO", "", "sentences:STRING"),
    "Pix2PixZeroSaveSentences": (
        "Save Sentences",
        "sentences:STRING name:STRING overwrite:BOOLEAN",
        "",
        "",
    ),
    "Pix2PixZeroJudgeEdit": (
        "Judge Edit",
        "image:IMAGE caption:STRING model:COMBO",
        f"direction:{DIRECTION} target:STRING original:IMAGE strength:FLOAT",
        "score:FLOAT* shows:BOOLEAN* words:STRING* warning:STRING*",
    ),
    "Pix2PixZeroEditUntilItShows": (
        "Edit Until It Shows",
        f"model:MODEL inversion:{INVERSION} source:CONDITIONING direction:{DIRECTION} clip:CLIP vae:VAE caption:STRING "
        f"blip:COMBO strengths:STRING negative:CONDITIONING cfg:FLOAT {SETTINGS}",
        OPTIONAL,
        "edited:LATENT image:IMAGE strength:FLOAT* score:FLOAT* words:STRING warning:STRING",
    ),
    "Pix2PixZeroFitPicture": ("Fit Picture", "image:IMAGE model:MODEL fit:COMBO", "side:INT", "picture:IMAGE*"),
    "Pix2PixZeroValuesToTry": ("Values to Try", "values:STRING name:STRING", "", "value:FLOAT* caption:STRING*"),
    "Pix2PixZeroContactSheet": ("Contact Sheet", "images:IMAGE captions:STRING", "source:IMAGE", "sheet:IMAGE"),
    "Pix2PixZeroLoadDistilledEdit": ("Load Distilled Edit", "file:COMBO", "", f"distilled:{DISTILLED}"),
    "Pix2PixZeroApplyDistilledEdit": (
        "Apply Distilled Edit",
        f"distilled:{DISTILLED} image:IMAGE strength:FLOAT",
        "",
        "edited:IMAGE",
    ),
}
"""Node -> display name, required inputs, optional inputs, outputs (a star marks a list), in the order of the widgets.

Saved workflows hold widget values by position and sockets by name: nothing here may change; inputs and outputs may
only be added at the end.
"""


def sockets(schema: dict[str, Any], part: str) -> str:
    names = schema["input_order"].get(part, [])
    types = [schema["input"][part][name][0] for name in names]
    return " ".join(f"{name}:{'COMBO' if isinstance(t, list) else t}" for name, t in zip(names, types, strict=True))


def test_the_pack_has_these_nodes_and_no_others(object_info: dict[str, Any]):
    found = {name for name, node in object_info.items() if node["python_module"] == f"custom_nodes.{PACK}"}
    assert found == set(FROZEN)


@pytest.mark.parametrize("name", FROZEN)
def test_names_and_sockets_are_frozen(object_info: dict[str, Any], name: str):
    node = object_info[name]
    outputs = " ".join(
        f"{output}:{type_}{'*' if is_list else ''}"
        for output, type_, is_list in zip(node["output_name"], node["output"], node["output_is_list"], strict=True)
    )
    found = node["display_name"], sockets(node, "required"), sockets(node, "optional"), outputs
    assert found == FROZEN[name]
    assert node["category"] == "pix2pix-zero"
    assert node["description"]


def test_the_whole_graph_gives_every_picture(server: Server, tmp_path: Any):
    workflow = json.loads((ROOT / "demo" / "api" / "tiny_zoo_edit.json").read_text(encoding="utf-8"))
    workflow = adapt(workflow, server.upload(EXAMPLES / "cat.png"), "tiny_zoo/cat2dog")
    caption = find_node(workflow, "Pix2PixZeroBLIPCaption")
    workflow = {
        number: node
        for number, node in workflow.items()
        if number != caption and node["inputs"].get("source") != [caption, 0]
    }
    for node in workflow.values():
        links = {name: "a drawing of an orange cat" for name, value in node["inputs"].items() if value == [caption, 0]}
        node["inputs"] |= links
    node_inputs(workflow, "CheckpointLoaderSimple")["ckpt_name"] = "random_zoo.safetensors"
    node_inputs(workflow, "Pix2PixZeroRegularizedDDIMInvert")["steps"] = 3
    node_inputs(workflow, "ImageScale").update(width=64, height=64)
    pictures = save_images(server, workflow, server.run(workflow), tmp_path)
    assert set(pictures) == {"source", "reconstruction", "edited", "side by side"}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures.values())


def test_the_same_graph_twice_gives_the_same_bytes(server: Server, latent: Latent, edit_graph: EditGraph):
    results = []
    for text in ("a drawing of a cat", "a  drawing of a cat "):  # the spaces defeat ComfyUI's cache
        graph = edit_graph(text=text)
        saved = [graph.save(graph.inversion, 1), graph.save(graph.inversion, 2), graph.save(graph.sampler)]
        picture = graph.add("VAEDecode", samples=[graph.sampler, 0], vae=[graph.checkpoint, 2])
        picture = graph.add("SaveImage", images=[picture, 0], filename_prefix="test")
        outputs = server.run(graph.workflow)
        results.append(
            ([latent(outputs[node]).numpy().tobytes() for node in saved], server.view(outputs[picture]["images"][0]))
        )
    (first, first_picture), (second, second_picture) = results
    assert first == second
    assert pixels(first_picture) == pixels(second_picture)


def pixels(png: bytes) -> bytes:
    return Image.open(io.BytesIO(png)).tobytes()


@pytest.mark.parametrize("cfg", [1.0, 7.5])
def test_away_from_the_recorded_noise_the_source_leads_back_to_the_picture(
    server: Server, latent: Latent, edit_graph: EditGraph, cfg: float
):
    graph = edit_graph()
    graph.set(graph.inversion, steps=6, fixed_point=30, regularization=0.0, kl=0.0)
    graph.set(graph.sampler, target=[graph.source, 0], cfg=cfg, negative_from="inversion", cfg_start=0.0)
    edited, original = graph.save(graph.sampler), graph.save(graph.original)
    outputs = server.run(graph.workflow)
    edited, original = latent(outputs[edited]), latent(outputs[original])
    assert (edited - original).norm() < 1e-3 * original.norm()


@pytest.mark.parametrize("cfg", [1.0, 5.0])
def test_without_guidance_it_samples_as_the_stock_sampler(
    server: Server, latent: Latent, edit_graph: EditGraph, cfg: float
):
    graph = edit_graph()
    sigmas = graph.add("BasicScheduler", model=[graph.checkpoint, 0], scheduler="ddim_uniform", steps=3, denoise=1.0)
    graph.set(graph.inversion, sigmas=[sigmas, 0]).set(graph.sampler, guidance=0.0, cfg=cfg, negative_from="text")
    euler = graph.add("KSamplerSelect", sampler_name="euler")
    stock = graph.add(
        "SamplerCustom",
        model=[graph.checkpoint, 0],
        add_noise=False,
        noise_seed=0,
        cfg=cfg,
        positive=[graph.target, 0],
        negative=[graph.source, 0],
        sampler=[euler, 0],
        sigmas=[sigmas, 0],
        latent_image=[graph.inversion, 1],
    )
    ours, expected = graph.save(graph.sampler), graph.save(stock)
    outputs = server.run(graph.workflow)
    ours, expected = latent(outputs[ours]), latent(outputs[expected])
    # Not bit-identical: on its way through a LATENT socket the noise is divided and multiplied by the scale factor.
    assert (ours - expected).norm() < 2e-6 * expected.norm()


def test_the_reconstruction_is_the_picture(server: Server, latent: Latent, edit_graph: EditGraph):
    graph = edit_graph(steps=6)
    graph.set(graph.inversion, regularization=0.0, kl=0.0, fixed_point=5)
    original, rebuilt = graph.save(graph.original), graph.save(graph.inversion, 2)
    reference = graph.save(graph.sampler, 1)
    level = graph.add("PreviewAny", source=[graph.inversion, 3])
    outputs = server.run(graph.workflow)
    original, rebuilt, reference = (latent(outputs[node]) for node in (original, rebuilt, reference))
    error = (rebuilt - original).square().mean()
    assert error < 1e-3 * original.var()
    assert float(outputs[level]["text"][0]) == pytest.approx(float(10 * (original.var() / error).log10()), abs=0.01)
    torch.testing.assert_close(reference, original, rtol=1e-5, atol=1e-5)


def test_guidance_changes_the_picture_more_the_stronger_it_is(server: Server, latent: Latent, edit_graph: EditGraph):
    graph = edit_graph()
    samplers = {0.0: graph.sampler}
    graph.set(graph.sampler, guidance=0.0)
    for strength in (0.01, 0.1):
        inputs = graph.workflow[graph.sampler]["inputs"] | {"guidance": strength}
        samplers[strength] = graph.add("Pix2PixZeroCrossAttnGuidedSampler", **inputs)
    saved = {strength: graph.save(node) for strength, node in samplers.items()}
    outputs = server.run(graph.workflow)
    plain, weak, strong = (latent(outputs[node]) for node in saved.values())
    assert 0 < (weak - plain).norm() < (strong - plain).norm()


@pytest.mark.parametrize("unit", ["normalized", "paper"])
def test_half_precision_weights_give_nearly_the_same_edit(
    server: Server, latent: Latent, edit_graph: EditGraph, unit: str
):
    edited = []
    for checkpoint in ("random_zoo.safetensors", "random_zoo_fp16.safetensors"):
        graph = edit_graph(checkpoint)
        graph.set(graph.sampler, unit=unit, cfg=1.0)
        saved = graph.save(graph.sampler)
        edited.append(latent(server.run(graph.workflow)[saved]))
    full, half = edited
    assert not torch.equal(full, half)
    assert (half - full).norm() < 0.02 * full.norm()


def test_a_batch_is_edited_as_each_picture_alone(server: Server, latent: Latent, edit_graph: EditGraph):
    graph = edit_graph()
    other = graph.add("EmptyImage", width=64, height=64, batch_size=1, color=0x3366CC)
    batch = graph.add("ImageBatch", image1=[graph.scaled, 0], image2=[other, 0])
    alone = graph.save(graph.sampler)
    inputs = graph.workflow[graph.original]["inputs"] | {"pixels": [batch, 0]}
    both = graph.add("VAEEncode", **inputs)
    inverted = graph.add(
        "Pix2PixZeroRegularizedDDIMInvert", **graph.workflow[graph.inversion]["inputs"] | {"latent": [both, 0]}
    )
    sampled = graph.add(
        "Pix2PixZeroCrossAttnGuidedSampler", **graph.workflow[graph.sampler]["inputs"] | {"inversion": [inverted, 0]}
    )
    together = graph.save(sampled)
    outputs = server.run(graph.workflow)
    alone, together = latent(outputs[alone]), latent(outputs[together])
    assert len(together) == 2
    assert (together[:1] - alone).norm() < 1e-3 * alone.norm()


def test_guidance_lowers_the_distance_of_the_maps(in_process: Any, monkeypatch: pytest.MonkeyPatch):
    sampling, results = in_process.nodes.sampling, []

    def edit(*args: Any, **kwargs: Any) -> Any:
        results.append(core_edit(*args, **kwargs))
        return results[-1]

    core_edit = sampling.edit
    monkeypatch.setattr(sampling, "edit", edit)
    inversion = in_process.invert(steps=6)[0]
    for guidance in (1e-6, 30.0):
        in_process.sample(inversion, guidance)
    plain, guided = (result.loss for result in results)
    assert torch.allclose(guided[0], plain[0])  # measured before the first move
    assert guided[1:].mean() < plain[1:].mean()
