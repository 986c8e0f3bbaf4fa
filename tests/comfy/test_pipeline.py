"""The diffusers integration gives the picture of the ComfyUI nodes, on the same weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image

from authoring import workflows
from launcher.client import save_images
from launcher.runtime import EXAMPLES
from launcher.server import Server
from launcher.workflow import adapt, find_node
from pix2pix_zero_core import EditSettings, MapGuidance, NoiseRegularizer
from pix2pix_zero_core.integrations.diffusers import PipelineEditor
from pix2pix_zero_core.integrations.sentences import EditSentences, load_edit
from pix2pix_zero_core.settings import USUAL_STRENGTH
from tiny_zoo.compose_directions import FOLDER
from tiny_zoo.pipeline import load_flow_pipeline, load_pipeline


def test_the_defaults_are_those_of_the_nodes(object_info: dict[str, Any]) -> None:
    def defaults(node: str) -> dict[str, Any]:
        inputs = object_info[node]["input"]
        declared = {**inputs["required"], **inputs["optional"]}
        return {name: entry[1]["default"] for name, entry in declared.items() if "default" in (entry[1:] or [{}])[0]}

    inversion, sampler = (
        defaults(node) for node in ("Pix2PixZeroRegularizedDDIMInvert", "Pix2PixZeroCrossAttnGuidedSampler")
    )
    assert inversion["scheduler"] == "ddim"
    assert EditSettings() == EditSettings(
        inversion["steps"],
        NoiseRegularizer(inversion["regularization"], inversion["kl"]),
        inversion["fixed_point"],
        sampler["cfg"],
        MapGuidance(sampler["guidance"], sampler["unit"], sampler["guidance_start"], sampler["guidance_end"], "after"),
        sampler["negative_from"],
        cfg_start=sampler["cfg_start"],
        region=sampler["region"],
        noise_from=sampler["noise_from"],
    )


@pytest.mark.parametrize(
    "name, load, picture, edit",
    [
        ("tiny_zoo_edit", load_pipeline, "cat.png", "cat2dog"),
        ("flow_tiny_zoo_edit", load_flow_pipeline, "horse.png", "horse2zebra"),
    ],
)
def test_the_picture_is_that_of_the_nodes(
    server: Server, tmp_path: Path, name: str, load: Callable[[], Any], picture: str, edit: str
) -> None:
    template = json.loads((workflows.API_FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    workflow = adapt(template, server.upload(EXAMPLES / picture), f"tiny_zoo/{edit}")
    outputs = server.run(workflow)
    paths = save_images(server, workflow, outputs, tmp_path)
    (caption,) = outputs[find_node(workflow, "PreviewAny")]["text"]
    original, expected = (np.array(Image.open(path).convert("RGB")) for path in (EXAMPLES / picture, paths["edited"]))

    editor = PipelineEditor(load())
    direction = editor.build_direction(load_edit(edit, FOLDER))
    inverted = editor.invert(original, caption)
    found = (editor.edit(inverted, direction, output_type="np")[0] * 255).astype(np.uint8)  # as SaveImage rounds
    difference = np.abs(found.astype(int) - expected.astype(int))
    assert (difference <= 1).mean() >= 0.99


@pytest.mark.parametrize("noise_from", ["inversion", "fresh"])
def test_the_latents_of_a_flow_model_are_those_of_the_nodes(
    pack: Any, load_checkpoint: Any, base: Path, noise_from: Literal["inversion", "fresh"]
) -> None:
    name = "random_flow.safetensors"
    settings = EditSettings(
        steps=4,
        regularizer=NoiseRegularizer(2.0, 2.0),
        cfg=3.0,
        guidance=MapGuidance(2.0, "normalized", 0.0, 1.0, "after"),
        region=0.0,
        noise_from=noise_from,
    )
    editor = PipelineEditor(load_flow_pipeline(base / "models" / "checkpoints" / name))
    editor.pipeline.set_progress_bar_config(disable=True)
    picture = Image.open(EXAMPLES / "cat.png").convert("RGB").resize((64, 96))
    caption = "a drawing of a cat"
    texts = EditSentences(["a cat", "see a cat"], ["a dog", "see a dog"], "cat", "dog")
    direction = editor.build_direction(texts)
    inverted = editor.invert(picture, caption, settings)
    found = editor.edit(inverted, direction, output_type="latent")

    with torch.inference_mode():
        model, clip, _ = load_checkpoint(name)
        source, empty = (clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in (caption, ""))
        torch.testing.assert_close(source[0][0], inverted.embedding, rtol=1e-4, atol=1e-4)
        lines = "\n".join(texts.source_sentences), "\n".join(texts.target_sentences)
        way, _ = pack.nodes.EditDirection.execute(clip, "custom", *lines, 5, form="aligned to words").result
        target, warning = pack.nodes.ApplyEditDirection.execute(source, way, clip, USUAL_STRENGTH, caption).result
        scaling, latents = model.get_model_object("latent_format"), editor.encode(picture)
        latent = {"samples": scaling.process_out(latents)}
        inversion = pack.nodes.RegularizedDDIMInvert.invert(
            model=model,
            latent=latent,
            source=source,
            steps=settings.steps,
            regularization=settings.regularizer.strength,
            kl=settings.regularizer.kl_strength,
            fixed_point=settings.fixed_point,
            reconstruct=False,
            sigmas=None,
        )[0]
        expected = pack.nodes.CrossAttnGuidedSampler.execute(
            model=model,
            inversion=inversion,
            source=source,
            target=target,
            negative=empty,
            cfg=settings.cfg,
            guidance=settings.guidance.strength,
            unit=settings.guidance.unit,
            guidance_start=0.0,
            guidance_end=1.0,
            negative_from=settings.negative_from,
            cfg_start=settings.cfg_start,
            region=settings.region,
            noise_from=noise_from,
        ).result[0]["samples"]
    assert warning == ""
    torch.testing.assert_close(found, scaling.process_in(expected), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, latents, atol=1e-2)
