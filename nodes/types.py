"""What the nodes share: the socket types that ComfyUI has no stock type for, and how the nodes are found."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from comfy_api.v0_0_2 import io
from torch import Tensor

from ..pix2pix_zero_core import Inversion

CATEGORY = "pix2pix-zero"

InversionType = io.Custom("PIX2PIX_ZERO_INVERSION")
"""A `pix2pix_zero_core.Inversion` in the model's own latent space, on the CPU; the nodes make `ModelInversion`."""

DirectionType = io.Custom("PIX2PIX_ZERO_DIRECTION")
"""A `pix2pix_zero_core.Direction`."""

DistilledType = io.Custom("PIX2PIX_ZERO_DISTILLED")
"""A `pix2pix_zero_core.distillation.DistilledEdit`, in main memory."""


@dataclass(frozen=True)
class ModelInversion(Inversion):
    """An inversion, and what the nodes know of it beside.

    Attributes:
        family: of the model that made it, in `families.py`; empty where nobody noted it.
        mask: of its latent, for the sampler that is given none: 1 where the picture may change, 0 where not, as Set
            Latent Noise Mask leaves it; None without one.
        texts: embeddings of the source that it was made with; empty where nobody noted them.
    """

    family: str = ""
    mask: Tensor | None = None
    texts: tuple[Tensor, ...] = ()

    def of(self, pictures: Sequence[int]) -> Inversion:
        """Take some pictures out of the batch, with their masks."""
        taken, mask = super().of(pictures), self.mask
        if mask is None or len(mask) == 1:
            return taken
        masks = mask[[picture % len(mask) for picture in pictures]]  # ComfyUI repeats them
        return dataclasses.replace(taken, mask=masks)  # pyright: ignore[reportCallIssue]


def search_aliases(*words: str) -> dict[str, Any]:
    """Words that find a node in the front end's search, beside its name, as an argument of `io.Schema`.

    Nothing where ComfyUI does not take them: the pinned one does not yet, releases since January 2026 do.
    """
    known = any(field.name == "search_aliases" for field in dataclasses.fields(io.Schema))
    return {"search_aliases": list(words)} if known else {}
