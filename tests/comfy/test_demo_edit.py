"""The demo's graph with the trained Tiny Zoo, judged as the benchmark judges: by the probe and by the true edit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from authoring import workflows
from launcher.client import save_images
from launcher.runtime import EXAMPLES
from launcher.server import Server
from launcher.workflow import adapt, find_node
from tiny_zoo import draw_examples
from tiny_zoo.probe import load_probe
from tiny_zoo.world import Scene, counterfactual, render, sample_scene


def tensor(picture: Image.Image) -> Tensor:
    """A picture as (1, 3, H, W) in 0..1."""
    return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)[None].float() / 255


def scene_of(example: str) -> Scene:
    seed, shown = draw_examples.EXAMPLES[example]
    return sample_scene(seed, "test", **shown)


@pytest.mark.parametrize(("source", "target"), [("cat", "dog"), ("dog", "cat")])
def test_the_edited_picture_shows_the_other_animal_in_the_same_place(
    server: Server, tmp_path: Path, source: str, target: str
) -> None:
    template = json.loads((workflows.API_FOLDER / "tiny_zoo_edit.json").read_text(encoding="utf-8"))
    picture = server.upload(EXAMPLES / f"{source}.png")
    workflow = adapt(template, picture, f"tiny_zoo/{source}2{target}")
    outputs = server.run(workflow)
    saved = {name: tensor(Image.open(path)) for name, path in save_images(server, workflow, outputs, tmp_path).items()}
    scene, probe = scene_of(source), load_probe()
    truth = counterfactual(scene, animal=target)

    assert [source] == probe.read(saved["reconstruction"])[0]["animal"]
    names, _ = probe.read(saved["edited"])
    assert [target] == names["animal"]
    assert [scene.background] == names["background"]
    assert [scene.facing] == names["facing"]

    # Nearer to the true edit than the unedited picture is, and than the true edit of another pose.
    def distance(to: Scene) -> Tensor:
        return (saved["edited"] - tensor(render(to))).square().mean()

    assert distance(truth) < distance(scene)
    assert distance(truth) < distance(counterfactual(truth, facing="left" if scene.facing == "right" else "right"))
    (caption,) = outputs[find_node(workflow, "PreviewAny")]["text"]
    assert source in caption.split()
