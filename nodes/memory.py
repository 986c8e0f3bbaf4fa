"""Networks that are not ComfyUI's own, in ComfyUI's memory: loaded in their turn, and unloaded for what comes next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import comfy.model_management
import comfy.model_patcher
import torch
from torch import nn


@contextmanager
def loaded(
    network: nn.Module, load: torch.device | None = None, offload: torch.device | None = None, room: int = 0
) -> Iterator[None]:
    """Move a network to where it computes and make room there, for as long as it is needed.

    Args:
        network: has no layers of ComfyUI's, so it is loaded whole or not at all.
        load: where it computes; None is where text encoders run.
        offload: where it waits; None is where text encoders do.
        room: bytes that it needs beside its weights.
    """
    # In a container: ModelPatcher sets `device` on what it loads, which a transformers model forbids.
    patcher = comfy.model_patcher.ModelPatcher(
        nn.ModuleList([network]),
        load_device=load or comfy.model_management.text_encoder_device(),
        offload_device=offload or comfy.model_management.text_encoder_offload_device(),
    )
    comfy.model_management.load_models_gpu([patcher], memory_required=room, force_full_load=True)
    try:
        yield  # ComfyUI's books refer to the patcher weakly: it goes with this frame
    finally:
        network.to(patcher.offload_device)  # who holds the network would else hold memory that nobody accounts for
