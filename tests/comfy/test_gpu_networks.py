"""The GPU benchmark's networks are what ComfyUI takes them for: in full size, weights of its names and shapes."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.gpu.networks import NETWORKS, without_memory


@pytest.mark.parametrize("name", NETWORKS)
def test_the_loader_recognises_a_network_and_finds_all_of_its_weights(
    pack: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    import comfy.model_detection
    import comfy.supported_models

    # A copy, since narrow ones are added to it; without the small families that other tests have added.
    stock = [model for model in comfy.supported_models.models if model.__module__ == comfy.supported_models.__name__]
    monkeypatch.setattr(comfy.supported_models, "models", stock)

    if not hasattr(comfy.supported_models, NETWORKS[name].family):
        pytest.skip("this ComfyUI does not have it")
    weights = without_memory(NETWORKS[name])
    config = comfy.model_detection.model_config_from_unet(weights, "")
    assert type(config).__name__.removeprefix("Narrow") == NETWORKS[name].family
    built = config.get_model({}, "", device="meta").diffusion_model.state_dict()
    assert {key: weight.shape for key, weight in built.items()} == {key: w.shape for key, w in weights.items()}
