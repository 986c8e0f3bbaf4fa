"""Any three neighbours on one model: guided right, and none refused; without guidance as if we were not there."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.comfy.test_compatibility import edited, invert, stock

PATCHES = (
    *("LoRA", "FreeU", "PAG", "SAG", "HyperTile", "attn2 replaced (IPAdapter)", "areas", "masked text"),
    *("target of two chunks", "RescaleCFG", "FreSca", "DeepShrink", "context windows", "tiles"),
    *("tiles in one batch (TiledDiffusion)", "inference mode", "wrapped modules", "attention couple"),
    *("attention override", "attention override without gradient", "scheduled target"),
)
STACKS = [tuple(random.Random(seed).sample(PATCHES, 3)) for seed in range(20)]
NOT_TOGETHER = {
    ("masked text", "DeepShrink", "context windows"): RuntimeError,  # the mask is as wide as the picture, not a window
    ("attn2 replaced (IPAdapter)", "SAG", "tiles in one batch (TiledDiffusion)"): TypeError,
}
"""What does not go together without our nodes -> what ComfyUI raises. Nothing else may be left out."""


@pytest.mark.parametrize("names", STACKS, ids=[", ".join(names) for names in STACKS])
def test_a_stack(
    pack: Any, load_case: Callable[[str], Any], distances: list[tuple[float, float]], names: tuple[str, ...]
):
    from tests.comfy.neighbours import NEIGHBOURS

    with torch.inference_mode():
        case = load_case("SD 1")
        before = {name: weight.clone() for name, weight in case.model.model.named_parameters()}
        for name in names:
            case = NEIGHBOURS[name](case)
        try:
            stock(case, case.latent, pack.nodes.inversion.schedule(case.model, "simple", 2))
        except Exception as error:
            if type(error) is not NOT_TOGETHER.get(names):
                raise
            pytest.skip(f"they do not go together without our nodes: {type(error).__name__}: {error}")
        inversion, noise = invert(pack, case)
        noise = case.latent | noise
        expected = stock(case, noise, inversion.sigmas)
        without = edited(pack, "patch", case, inversion, noise, guidance=0.0, negative_from="text")
        assert torch.equal(without, expected)
        guided = edited(pack, "patch", case, inversion, noise, guidance=0.02)
        ((distance, moved),) = distances
        assert moved < distance
        assert torch.isfinite(guided).all() and not torch.equal(guided, without)
    case.model.detach()
    after = dict(case.model.model.named_parameters())
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert not [module for module in case.model.model.modules() if module._forward_pre_hooks]
