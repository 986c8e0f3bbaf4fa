r"""The shipped Stable Diffusion workflows on real checkpoints, for whoever has them (marker `real`).

    PIX2PIX_ZERO_SD15=FILE PIX2PIX_ZERO_SDXL=FILE PIX2PIX_ZERO_BLIP=FOLDER \
        python run.py test tests/comfy/test_real.py -s

Both are .safetensors checkpoints, the folder is of blip-image-captioning-base; what is not named is skipped.
PIX2PIX_ZERO_PICTURE is a photograph of a cat to be edited in place of the drawn one, PIX2PIX_ZERO_STEPS another number
of steps, PIX2PIX_ZERO_FLAGS more of ComfyUI's flags ("--lowvram"). The pictures are left in `output/real`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from authoring import graphs, workflows
from launcher.client import save_images
from launcher.comfyui import make_base
from launcher.runtime import EXAMPLES, ROOT, Runtime
from launcher.server import Server, comfyui_server
from launcher.workflow import Workflow

pytestmark = pytest.mark.real

CHECKPOINTS = {"PIX2PIX_ZERO_SD15": graphs.SD15, "PIX2PIX_ZERO_SDXL": graphs.SDXL}
"""Variable that names a checkpoint -> the model whose workflows it runs."""

GRAPHS = {"sd15_edit": "PIX2PIX_ZERO_SD15", "sd15_generated": "PIX2PIX_ZERO_SD15", "sdxl_edit": "PIX2PIX_ZERO_SDXL"}
"""Workflow -> variable that names its checkpoint."""

PICTURES = ROOT / "output" / "real"


def named(variable: str) -> Path:
    """The path that a variable names; skips without it."""
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} names nothing; set it to a path to run this")
    path = Path(value).resolve()
    assert path.exists(), f"{variable} names {value}, which does not exist"
    return path


def put(path: Path, place: Path) -> None:
    """Put a file or a folder where ComfyUI looks for it, without a copy if the system allows."""
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        place.symlink_to(path, target_is_directory=path.is_dir())
    except OSError:  # Windows lets administrators alone make links
        (shutil.copytree if path.is_dir() else shutil.copy)(path, place)


@pytest.fixture(scope="module")
def real_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A ComfyUI with the checkpoints that are named, under the names that the workflows ask for."""
    base = tmp_path_factory.mktemp("real")
    make_base(base)
    for variable, model in CHECKPOINTS.items():
        if os.environ.get(variable):
            put(named(variable), base / "models" / "checkpoints" / model.file)
    if os.environ.get("PIX2PIX_ZERO_BLIP"):
        put(named("PIX2PIX_ZERO_BLIP"), base / "models" / "blip" / graphs.SD15.blip)
    flags = [*os.environ.get("PIX2PIX_ZERO_FLAGS", "").split(), *([] if torch.cuda.is_available() else ["--cpu"])]
    with comfyui_server(Runtime.from_environment(os.environ), base, base / "server.log", flags=flags) as server:
        yield server


def prepared(name: str, server: Server) -> Workflow:
    """A workflow's twin with the picture and the steps that the variables say."""
    workflow: Workflow = json.loads((workflows.API_FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    for node in workflow.values():
        if node["class_type"] == "LoadImage":
            picture = os.environ.get("PIX2PIX_ZERO_PICTURE") or EXAMPLES / node["inputs"]["image"]
            node["inputs"]["image"] = server.upload(Path(picture))
        if "steps" in node["inputs"] and "PIX2PIX_ZERO_STEPS" in os.environ:
            node["inputs"]["steps"] = int(os.environ["PIX2PIX_ZERO_STEPS"])
    return workflow


@pytest.mark.parametrize("name", GRAPHS)
def test_the_workflow_edits_with_real_weights(name: str, request: pytest.FixtureRequest):
    named(GRAPHS[name])
    if "BLIP" in (workflows.API_FOLDER / f"{name}.json").read_text(encoding="utf-8"):
        named("PIX2PIX_ZERO_BLIP")
    server: Server = request.getfixturevalue("real_server")
    workflow = prepared(name, server)
    said = lambda seconds, state: print(f"{name}: {state}, {seconds:.0f} s", flush=True)  # noqa: E731
    outputs = server.run(workflow, on_wait=said)
    paths = save_images(server, workflow, outputs, PICTURES / name)
    pictures = {title: np.array(Image.open(path).convert("RGB"), dtype=float) for title, path in paths.items()}
    assert all(picture.std() > 1 for picture in pictures.values()), "a picture of one colour"
    edited, before = pictures["edited"], pictures["source"]
    assert edited.shape == before.shape and np.abs(edited - before).mean() > 1, "nothing was edited"
    if "reconstruction" in pictures:
        lost = np.abs(pictures["reconstruction"] - before).mean()
        assert lost < np.abs(edited - before).mean(), "the inversion lost more than the edit changed"
