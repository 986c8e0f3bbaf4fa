"""What all readers of model folders share."""

from __future__ import annotations

import pytest
import torch

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
