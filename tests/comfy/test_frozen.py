"""Workflows of earlier releases, and of a day before the first, still run. Nobody rewrites these files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from authoring.freeze import FROZEN
from launcher.runtime import EXAMPLES
from launcher.server import Server
from tests.comfy.conftest import require_nodes

PROMPTS = sorted(FROZEN.glob("*/*.api.json"))
STAND_INS = {
    ("CheckpointLoaderSimple", "ckpt_name"): "random_zoo.safetensors",
    ("ImageScale", "width"): 64,
    ("ImageScale", "height"): 64,
    ("EmptyLatentImage", "width"): 64,
    ("EmptyLatentImage", "height"): 64,
    ("KSampler", "steps"): 2,
    ("Pix2PixZeroBLIPCaption", "model"): "tiny_zoo",
    ("Pix2PixZeroEditDirection", "edit"): "tiny_zoo/cat2dog",
    ("Pix2PixZeroRegularizedDDIMInvert", "steps"): 2,
}
"""What is replaced where a workflow needs a file that is not here, or would take long: (class, input) -> value."""


def test_there_are_frozen_workflows() -> None:
    assert PROMPTS
    assert all((path.parent / path.name.replace(".api", "")).is_file() for path in PROMPTS)


@pytest.mark.parametrize("path", PROMPTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_frozen_workflow_runs(path: Path, server: Server, base: Path, object_info: dict[str, Any]) -> None:
    workflow: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    require_nodes({node["class_type"] for node in workflow.values()}, server, object_info)
    for number, node in workflow.items():
        if node["class_type"] == "SaveImage":
            node["inputs"]["filename_prefix"] = f"{path.stem}/{number}"  # or ComfyUI takes it for the one before
        for (kind, name), value in STAND_INS.items():
            if node["class_type"] == kind and name in node["inputs"]:
                node["inputs"][name] = value
        if node["class_type"] == "LoadImage":
            node["inputs"]["image"] = server.upload(EXAMPLES / "cat.png")
        if node["class_type"] == "LoadImageDataSetFromFolder":
            folder = base / "input" / node["inputs"]["folder"]
            folder.mkdir(exist_ok=True)
            shutil.copy(EXAMPLES / "cat.png", folder)
    outputs = server.run(workflow)
    saved = [number for number, node in workflow.items() if node["class_type"] == "SaveImage"]
    assert saved
    assert all(server.view(outputs[number]["images"][0]).startswith(b"\x89PNG") for number in saved)
