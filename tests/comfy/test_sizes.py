"""Any size in multiples of 8 pixels, and batches: each picture is edited as if it were alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

pytestmark = pytest.mark.parametrize("in_process", ["random_zoo.safetensors"], indirect=True, ids=["fp32"])

SIZES = [(8, 13), (17, 9), (12, 20)]
"""Height and width of latents, eighths of the picture's."""


@pytest.fixture(params=["all in one", "patch"])
def edit(request: pytest.FixtureRequest, in_process: Any) -> Any:
    """Invert and edit latents, (B, 4, H, W), with texts that may be batches themselves.

    Without regularisation and with a low cfg: both blow up the last bits of float32, which depend on the batch.
    """
    cfg = 2.0
    plain = {"steps": 2, "regularization": 0.0, "kl": 0.0}

    def all_in_one(samples: Tensor, source: Any, target: Any) -> Tensor:
        inversion = in_process.invert(**plain, latent={"samples": samples}, source=source)[0]
        return in_process.sample(inversion, source=source, target=target, negative=source, cfg=cfg)[0]["samples"]

    def patch(samples: Tensor, source: Any, target: Any) -> Tensor:
        import comfy.sample

        inversion = in_process.invert(**plain, scheduler="simple", latent={"samples": samples}, source=source)[0]
        with torch.inference_mode():
            model = in_process.nodes.CrossAttnGuidance.execute(
                in_process.model, inversion, source, 0.1, "normalized", 0.0, 1.0
            ).result[0]
            noise = torch.ones_like(samples)
            return comfy.sample.sample(
                model, noise, 2, cfg, "euler", "simple", target, source, samples, disable_pbar=True
            )

    return {"all in one": all_in_one, "patch": patch}[request.param]


def latents(count: int, size: tuple[int, int]) -> Tensor:
    return torch.randn(count, 4, *size, generator=torch.Generator().manual_seed(2))


def together(*conditionings: Any) -> Any:
    """One conditioning with a caption for every picture of a batch."""
    captions = torch.cat([conditioning[0][0] for conditioning in conditionings])
    return [[captions, conditionings[0][0][1]]]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_sizes(edit: Any, in_process: Any, size: tuple[int, int]):
    samples = latents(1, size)
    edited = edit(samples, in_process.source, in_process.target)
    assert edited.shape == samples.shape
    assert torch.isfinite(edited).all()


def test_a_batch_with_one_caption(edit: Any, in_process: Any):
    samples = latents(3, (8, 12))
    batch = edit(samples, in_process.source, in_process.target)
    for index, found in enumerate(batch):
        alone = edit(samples[index : index + 1], in_process.source, in_process.target)[0]
        assert (found - alone).norm() < 1e-5 * alone.norm()


def test_a_batch_with_a_caption_each(edit: Any, in_process: Any):
    samples = latents(2, (8, 8))
    sources, targets = (in_process.source, in_process.target), (in_process.target, in_process.source)
    batch = edit(samples, together(*sources), together(*targets))
    for index, found in enumerate(batch):
        alone = edit(samples[index : index + 1], sources[index], targets[index])[0]
        assert (found - alone).norm() < 1e-5 * alone.norm()
