"""Every setting that the nodes and the diffusers integration share does the same in both.

On random weights, which predict little, and without regularisation: else more becomes of a rounding error than is
allowed here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pix2pix_zero_core import EditSettings, MapGuidance, NoiseRegularizer
from pix2pix_zero_core.integrations.diffusers import PipelineEditor
from pix2pix_zero_core.integrations.sentences import EditSentences
from tiny_zoo.pipeline import load_pipeline
from tiny_zoo.training import pictures

WEIGHTS = "random_zoo.safetensors"
CAPTION = "a drawing of a cat"
TEXTS = EditSentences(["a cat", "a drawing of a cat"], ["a dog", "a drawing of a dog"], "cat", "dog")
USUAL = EditSettings(steps=6, regularizer=NoiseRegularizer(0, 0), fixed_point=0)


@pytest.fixture(scope="module")
def editor(base: Path) -> PipelineEditor:
    pipeline = load_pipeline(base / "models" / "checkpoints" / WEIGHTS)
    pipeline.set_progress_bar_config(disable=True)
    return PipelineEditor(pipeline)


@pytest.fixture(scope="module")
def picture() -> Tensor:
    """Part of a scene, (1, 64, 64, 3) in 0..1."""
    return pictures(1, "test").movedim(1, -1)[:, 32:96, 32:96].float() / 255


@pytest.fixture(scope="module")
def stock(pack: Any, load_checkpoint: Callable[[str], tuple[Any, Any, Any]]) -> tuple[Any, Any]:
    """The same weights as MODEL and CLIP."""
    with torch.inference_mode():
        return load_checkpoint(WEIGHTS)[:2]


def edit_by_nodes(pack: Any, stock: tuple[Any, Any], latents: Tensor, target: Tensor, settings: EditSettings) -> Tensor:
    """What the nodes make of latents with these settings, (B, C, H, W)."""
    (model, clip), guidance = stock, settings.guidance
    latent_format = model.get_model_object("latent_format")
    with torch.inference_mode():
        source, empty = (clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in (CAPTION, ""))
        inversion, *_ = pack.nodes.RegularizedDDIMInvert.invert(
            model,
            {"samples": latent_format.process_out(latents)},
            source,
            settings.steps,
            settings.regularizer.strength,
            settings.regularizer.kl_strength,
            settings.fixed_point,
            False,
        )
        edited, *_ = pack.nodes.CrossAttnGuidedSampler.execute(
            model=model,
            inversion=inversion,
            source=source,
            target=[[target, {}]],
            negative=source if settings.negative is None else empty,
            cfg=settings.cfg,
            guidance=guidance.strength,
            unit=guidance.unit,
            guidance_start=guidance.start,
            guidance_end=guidance.end,
            negative_from=settings.negative_from,
            cfg_start=settings.cfg_start,
            region=settings.region,
            noise_from=settings.noise_from,
        ).result
    return latent_format.process_in(edited["samples"])


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"cfg_start": 0.5},
        {"region": 0.9},
        {"noise_from": "inversion"},
        {"noise_from": "inversion", "negative_from": "inversion"},
        {"negative": None, "cfg": 3.0},
        {"noise_from": "inversion", "negative_from": "inversion", "cfg_start": 0.0, "region": 0.2},
        {"cfg_start": 1.0, "region": 1.0, "guidance": MapGuidance(0.5, "share", end=0.8, applied="after")},
        {"region": 0.6, "guidance": MapGuidance(0.0, applied="after")},
    ],
    ids=str,
)
def test_the_latents_are_those_of_the_nodes(
    pack: Any, stock: tuple[Any, Any], editor: PipelineEditor, picture: Tensor, changed: dict[str, Any]
) -> None:
    settings = replace(USUAL, **changed)
    inverted = editor.invert(picture, CAPTION, settings)
    direction = editor.build_direction(TEXTS)
    found = editor.edit(inverted, direction, output_type="latent")
    target = editor.shift(inverted, direction).embedding
    expected = edit_by_nodes(pack, stock, editor.encode(picture), target, settings)
    assert float((found - expected).norm() / expected.norm()) < 3e-5
    if changed:
        usual = editor.edit(inverted, direction, settings=USUAL, output_type="latent")
        assert float((found - usual).norm() / usual.norm()) > 1e-3, "the setting does something"
