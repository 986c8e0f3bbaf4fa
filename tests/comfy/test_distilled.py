"""Load Distilled Edit and Apply Distilled Edit: any size and batch, strength, and the same as the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from launcher.runtime import EXAMPLES, ROOT
from launcher.server import Server
from tests.comfy.conftest import RANDOM_EDIT, Graph, random_edit


@pytest.fixture
def folder(pack: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of distilled edits in this process, with one in it."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "folder_names_and_paths", {})
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path))
    folder = tmp_path / "distilled_edits"
    folder.mkdir()
    random_edit().save(folder / RANDOM_EDIT)
    return folder


@pytest.fixture
def apply(pack: Any, folder: Path) -> Callable[..., Tensor]:
    def execute(image: Tensor, strength: float = 1.0) -> Tensor:
        with torch.inference_mode():
            (distilled,) = pack.nodes.LoadDistilledEdit.execute(RANDOM_EDIT).result
            (edited,) = pack.nodes.ApplyDistilledEdit.execute(distilled, image, strength).result
        return edited

    return execute


def pictures(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(1, 64, 64, 3), (3, 37, 50, 3), (2, 1, 9, 3)])
def test_pictures_of_any_size_and_number_are_edited(apply: Callable[..., Tensor], shape: tuple[int, ...]):
    image = pictures(*shape)
    edited = apply(image)
    assert edited.shape == shape and edited.dtype == torch.float32
    assert edited.min() >= 0 and edited.max() <= 1 and not torch.equal(edited, image)
    assert torch.equal(edited[:1], apply(image[:1]))


def test_strength_blends_picture_and_edit(apply: Callable[..., Tensor]):
    image = pictures(1, 20, 20, 3)
    assert torch.equal(apply(image, 0.0), image)
    assert torch.allclose(apply(image, 0.5), (image + apply(image)) / 2, atol=1e-6)


def test_alpha_is_left_out(apply: Callable[..., Tensor]):
    image = pictures(1, 16, 16, 4)
    assert torch.equal(apply(image), apply(image[..., :3]))


def test_the_node_edits_as_the_command_line_does(apply: Callable[..., Tensor], folder: Path, tmp_path: Path):
    from pix2pix_zero_cli.main import main

    call = ["apply", str(EXAMPLES / "cat.png"), "--distilled", str(folder / RANDOM_EDIT), "--output", str(tmp_path)]
    assert main([*call, "--strength", "0.75", "--device", "cpu"]) == 0
    with Image.open(EXAMPLES / "cat.png") as picture:
        image = torch.from_numpy(np.array(picture.convert("RGB")))[None].float() / 255
    with Image.open(tmp_path / "cat_random_edit.png") as made:
        np.testing.assert_array_equal(np.array(made), (apply(image, 0.75)[0] * 255).round().to(torch.uint8).numpy())


def test_the_network_computes_in_half_precision_where_comfyui_wants_that(
    pack: Any, folder: Path, apply: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
):
    import comfy.model_management

    image = pictures(1, 32, 32, 3)
    expected = apply(image)
    monkeypatch.setattr(comfy.model_management, "should_use_fp16", lambda *given, **more: True)
    (distilled,) = pack.nodes.LoadDistilledEdit.execute(RANDOM_EDIT).result
    assert {weight.dtype for weight in distilled.generator.parameters()} == {torch.float16}
    edited = apply(image)
    assert edited.dtype == torch.float32 and torch.allclose(edited, expected, atol=0.02)


def test_the_network_waits_its_turn_in_comfyuis_memory(apply: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch):
    import comfy.model_management

    rooms: list[int] = []
    load = comfy.model_management.load_models_gpu

    def watched(models: Any, memory_required: int = 0, **more: Any) -> None:
        rooms.append(memory_required)
        load(models, memory_required=memory_required, **more)

    monkeypatch.setattr(comfy.model_management, "load_models_gpu", watched)
    apply(pictures(2, 32, 32, 3))
    apply(pictures(1, 64, 64, 3))
    assert rooms[0] > 32 * 32 * 3 * 4 and rooms[1] == 4 * rooms[0]


def test_progress_is_told_and_the_cancel_button_heard(
    apply: Callable[..., Tensor], progress: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
):
    import comfy.model_management

    apply(pictures(3, 16, 16, 3))
    assert progress in ([(1, 3), (2, 3), (3, 3)], [(1, 3), (3, 3)])  # later ComfyUIs leave out what comes at once

    def cancelled() -> None:
        raise comfy.model_management.InterruptProcessingException

    monkeypatch.setattr(comfy.model_management, "throw_exception_if_processing_interrupted", cancelled)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        apply(pictures(1, 16, 16, 3))


def test_the_file_says_what_it_is_and_a_changed_one_is_read_again(pack: Any, folder: Path):
    import os

    node = pack.nodes.LoadDistilledEdit
    output = node.execute(RANDOM_EDIT)
    (said,) = output.ui["text"]
    assert said == "cat2dog (cat to dog), learned from 100 pairs of 64 x 64. MIT"
    before = node.fingerprint_inputs(RANDOM_EDIT)
    os.utime(folder / RANDOM_EDIT, (0, 0))
    assert node.fingerprint_inputs(RANDOM_EDIT) != before


def test_files_of_the_folder_and_those_of_the_pack_are_listed(
    pack: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert pack.nodes.distilled.EMBEDDED == ROOT / "tiny_zoo" / "distilled"
    monkeypatch.setattr(pack.nodes.distilled, "EMBEDDED", tmp_path)
    random_edit().save(tmp_path / "horse2zebra.safetensors")
    (given,) = pack.nodes.LoadDistilledEdit.define_schema().inputs
    assert given.options == [RANDOM_EDIT, "tiny_zoo/horse2zebra.safetensors"]
    assert pack.nodes.LoadDistilledEdit.execute("tiny_zoo/horse2zebra.safetensors").result


def test_what_is_no_distilled_edit_is_refused(pack: Any, folder: Path):
    load = pack.nodes.LoadDistilledEdit.execute
    with pytest.raises(FileNotFoundError, match=rf"models/distilled_edits; it has: {RANDOM_EDIT}"):
        load("none.safetensors")
    (folder / RANDOM_EDIT).write_bytes((folder / RANDOM_EDIT).read_bytes()[:-9])
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load(RANDOM_EDIT)
    (folder / "cat2dog.safetensors").symlink_to(ROOT / "tiny_zoo" / "directions" / "cat2dog.safetensors")
    with pytest.raises(ValueError, match="no distilled edit"):
        load("cat2dog.safetensors")


def test_both_nodes_in_a_graph(server: Server):
    server.upload(EXAMPLES / "cat.png")
    graph = Graph()
    picture = graph.add("LoadImage", image="cat.png")
    loaded = graph.add("Pix2PixZeroLoadDistilledEdit", file=RANDOM_EDIT)
    edited = graph.add("Pix2PixZeroApplyDistilledEdit", distilled=[loaded, 0], image=[picture, 0], strength=1.0)
    saved = graph.add("SaveImage", images=[edited, 0], filename_prefix="distilled")
    outputs = server.run(graph.workflow)
    assert len(outputs[saved]["images"]) == 1
    assert outputs[loaded]["text"][0].startswith("cat2dog (cat to dog)")
