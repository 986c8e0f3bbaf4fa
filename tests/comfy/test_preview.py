"""The live preview shows Tiny Zoo's pictures in their colours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tiny_zoo.training import pictures


@pytest.fixture(scope="module")
def tiny_zoo(load_checkpoint: Callable[[str], tuple[Any, Any, Any]], pack: Any) -> tuple[Any, Any, Any]:
    return load_checkpoint(str(Path(pack.tiny_zoo.comfy_model.WEIGHTS) / "checkpoints" / "tiny_zoo.safetensors"))


@torch.no_grad()
def test_the_preview_looks_like_the_picture(tiny_zoo: tuple[Any, Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    import comfy.cli_args
    import latent_preview

    monkeypatch.setattr(comfy.cli_args.args, "preview_method", comfy.cli_args.LatentPreviewMethod.Auto)
    model, _, vae = tiny_zoo
    previewer = latent_preview.get_previewer(torch.device("cpu"), model.model.latent_format)
    images = pictures(16, "test").float() / 255
    latents = model.model.process_latent_in(vae.encode(images.movedim(1, -1)))
    small = F.interpolate(images, latents.shape[-2:], mode="area").movedim(1, -1)

    previews = [previewer.decode_latent_to_preview(latent[None]) for latent in latents]
    seen = torch.from_numpy(np.stack([np.asarray(preview, dtype=np.float32) / 255 for preview in previews]))
    # Stable Diffusion's colours explain less than the mean colour does: minus .7 of the variance.
    assert 1 - (seen - small).square().mean() / small.var(dim=(0, 1, 2)).mean() > 0.6
