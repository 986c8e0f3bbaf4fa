"""The pack in a live ComfyUI: it imports, and leaves the stock nodes alone."""

from __future__ import annotations

from typing import Any

import pytest

from launcher.messages import Failure
from launcher.runtime import PACK
from launcher.server import Server
from launcher.workflow import Workflow

NODES = (
    "Pix2PixZeroBLIPCaption",
    "Pix2PixZeroRegularizedDDIMInvert",
    "Pix2PixZeroEditDirection",
    "Pix2PixZeroCrossAttnGuidedSampler",
)
STOCK_NODES = (
    "CheckpointLoaderSimple",
    "CLIPTextEncode",
    "KSampler",
    "LoadImage",
    "SaveImage",
    "VAEDecode",
    "VAEEncode",
)


def test_the_pack_imports_without_an_error(server: Server) -> None:
    lines = [line for line in server.log.read_text(encoding="utf-8").splitlines() if PACK in line]
    assert lines, "ComfyUI's list of import times does not name the pack"
    assert not [
        line for line in lines if "IMPORT FAILED" in line or "Error while calling" in line or "Cannot import" in line
    ]


@pytest.mark.parametrize("node", NODES)
def test_the_packs_nodes_are_listed(object_info: dict[str, Any], node: str) -> None:
    assert object_info[node]["python_module"] == f"custom_nodes.{PACK}"


@pytest.mark.parametrize("node", STOCK_NODES)
def test_the_stock_nodes_are_still_comfyuis(object_info: dict[str, Any], node: str) -> None:
    assert object_info[node]["python_module"] == "nodes"


def test_a_rejected_workflow_names_the_node_and_leaves_the_server_usable(server: Server) -> None:
    workflow: Workflow = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 0, "height": 8, "batch_size": 1, "color": 0}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}, "_meta": {"title": "shown"}},
    }
    with pytest.raises(Failure, match=r"EmptyImage.*width"):
        server.queue(workflow)
    workflow["1"]["inputs"]["width"] = 8
    (image,) = server.run(workflow)["2"]["images"]
    assert server.view(image).startswith(b"\x89PNG")


def test_a_workflow_that_raises_names_the_node_and_the_exception(server: Server) -> None:
    workflow: Workflow = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}},
        "2": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "3": {"class_type": "SaveLatent", "inputs": {"samples": ["2", 0], "filename_prefix": "../../outside"}},
    }
    with pytest.raises(Failure, match=r"node 3 .*SaveLatent.* raised "):
        server.run(workflow)


def test_an_uploaded_picture_comes_back(server: Server, tmp_path: Any) -> None:
    blue = {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 255}}
    (made,) = server.run(
        {"1": blue, "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "b"}}}
    )["2"]["images"]
    picture = tmp_path / 'a "blue" pícture.png'
    picture.write_bytes(server.view(made))
    name = server.upload(picture)
    assert server.view({"filename": name, "subfolder": "", "type": "input"}) == picture.read_bytes()
