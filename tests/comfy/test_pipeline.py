"""The diffusers integration gives the picture of the ComfyUI nodes, on the same weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from authoring import workflows
from launcher.client import save_images
from launcher.runtime import EXAMPLES
from launcher.server import Server
from launcher.workflow import adapt, find_node
from pix2pix_zero_core import EditSettings, MapGuidance, NoiseRegularizer
from pix2pix_zero_core.integrations.diffusers import PipelineEditor
from pix2pix_zero_core.integrations.sentences import load_edit
from tiny_zoo.compose_directions import FOLDER
from tiny_zoo.pipeline import load_pipeline


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


@pytest.mark.parametrize("source, target", [("cat", "dog")])
def test_the_picture_is_that_of_the_nodes(server: Server, tmp_path: Path, source: str, target: str) -> None:
    template = json.loads((workflows.API_FOLDER / "tiny_zoo_edit.json").read_text(encoding="utf-8"))
    workflow = adapt(template, server.upload(EXAMPLES / f"{source}.png"), f"tiny_zoo/{source}2{target}")
    outputs = server.run(workflow)
    paths = save_images(server, workflow, outputs, tmp_path)
    (caption,) = outputs[find_node(workflow, "PreviewAny")]["text"]
    original, expected = (np.array(Image.open(paths[name]).convert("RGB")) for name in ("source", "edited"))

    editor = PipelineEditor(load_pipeline())
    direction = editor.build_direction(load_edit(f"{source}2{target}", FOLDER))
    inverted = editor.invert(original, caption)
    found = (editor.edit(inverted, direction, output_type="np")[0] * 255).astype(np.uint8)  # as SaveImage rounds
    difference = np.abs(found.astype(int) - expected.astype(int))
    assert (difference <= 1).mean() >= 0.99
