"""What all readers of model folders share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from pix2pix_zero_core.integrations.diffusers import load_pipeline
from pix2pix_zero_core.integrations.folders import blamed_on

NO_ROOM = (
    MemoryError(),
    torch.cuda.OutOfMemoryError("CUDA out of memory."),
    RuntimeError("MPS backend out of memory (MPS allocated: 5.1 GB)"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried ..."),
)


@pytest.mark.parametrize("error", NO_ROOM, ids=str)
def test_a_folder_is_not_to_blame_for_too_little_memory(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, blamed_on("blip", "a BLIP model", "Copy it anew."):
        raise error
    assert raised.value is error


@pytest.mark.parametrize("error", [KeyError("x"), RuntimeError("size mismatch")], ids=str)
def test_a_folder_is_to_blame_for_all_else(error: Exception) -> None:
    said = "blip cannot be read as a BLIP model .* Copy it anew"
    with pytest.raises(ValueError, match=said), blamed_on("blip", "a BLIP model", "Copy it anew."):
        raise error


@pytest.mark.parametrize("error", NO_ROOM, ids=str)
def test_a_pipeline_is_not_to_blame_for_too_little_memory(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diffusers = pytest.importorskip("diffusers")

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(diffusers.StableDiffusionPipeline, "from_pretrained", fail)
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    with pytest.raises(type(error)) as raised:
        load_pipeline(tmp_path)
    assert raised.value is error


def test_a_configuration_of_no_use_is_named(tmp_path: Path) -> None:
    folder, checkpoint = tmp_path / "folder", tmp_path / "it.safetensors"
    folder.mkdir()
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    save_file({"x": torch.zeros(1)}, checkpoint)
    with pytest.raises(ValueError, match=r"config is .*folder; .* is a folder, which has its own\. Leave it out"):
        load_pipeline(folder, config=folder)
    with pytest.raises(FileNotFoundError, match=r"config is .*nowhere; that is no folder in diffusers' format"):
        load_pipeline(checkpoint, config=tmp_path / "nowhere")
