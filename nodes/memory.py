"""Networks that are not ComfyUI's own, in ComfyUI's memory: loaded in their turn, and unloaded for what comes next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import comfy.model_management
import comfy.model_patcher
from torch import nn


@contextmanager
def loaded(network: nn.Module) -> Iterator[None]:
    """Move a network to where text encoders run and make room there, for as long as it is needed.

    Args:
        network: has no layers of ComfyUI's, so it is loaded whole or not at all.
    """
    # In a container: ModelPatcher sets `device` on what it loads, which a transformers model forbids.
    patcher = comfy.model_patcher.ModelPatcher(
        nn.ModuleList([network]),
        load_device=comfy.model_management.text_encoder_device(),
        offload_device=comfy.model_management.text_encoder_offload_device(),
    )
    comfy.model_management.load_models_gpu([patcher], force_full_load=True)
    yield  # ComfyUI's books refer to the patcher weakly: it goes with this frame
