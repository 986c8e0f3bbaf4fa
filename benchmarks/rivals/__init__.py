"""Others' work: later methods, a file each, and in `official` and `pipeline` other implementations of pix2pix-zero.

The implementations are measured for speed beside ours on the same UNet; the methods are rows of the quality tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def left_as_found(unet: Any) -> Iterator[None]:
    """Undo what implementations do to a UNet2DConditionModel: attention processors, maps, gradients of weights."""
    processors = unet.attn_processors
    trained = {name: parameter.requires_grad for name, parameter in unet.named_parameters()}
    try:
        yield
    finally:
        unet.set_attn_processor(processors)
        unet.zero_grad()
        for name, parameter in unet.named_parameters():
            parameter.requires_grad_(trained[name])
        for module in unet.modules():
            vars(module).pop("attn_probs", None)
