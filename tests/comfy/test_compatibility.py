"""Family x form x neighbour: without strength nothing changes by a bit, and with it the maps come closer.

`tests/comfy/table.py` writes docs/compatibility.md from the report of this file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

FAMILIES = ("SD 1", "SD 1 inpainting", "SD 2 (v-prediction)", "SDXL")
FORMS = ("patch", "guider", "all in one")
NEIGHBOURS = (
    "none",
    "LoRA",
    "LoRA as a hook",
    "ControlNet",
    "FreeU",
    "PAG",
    "SAG",
    "SEG",
    "HyperTile",
    "attn2 replaced (IPAdapter)",
    "attn2 led away from a negative (NAG)",
    "areas",
    "two areas of one size",
    "area in the target only",
    "masked text",
    "target of two chunks",
    "source of two chunks",
    "noise mask",
    "inpainting conditioning",
    "size conditioning",
    "RescaleCFG",
    "FreSca",
    "ToMe",
    "DeepShrink",
    "context windows",
    "tiles",
    "tiles in one batch (TiledDiffusion)",
    "inference mode",
    "network exchanged in each call (TorchCompile)",
    "wrapped modules",
    "attention couple",
    "keys and values apart (NegPip)",
    "attention override",
    "attention override without gradient",
    "scheduled target",
)
OF_ONE_FAMILY = {
    "inpainting conditioning": "SD 1 inpainting",
    "size conditioning": "SDXL",
    "context windows": "SD 1",  # they do not cut what an inpainting model is shown
}
CELLS = [
    (family, form, neighbour)
    for family in FAMILIES
    for form in FORMS
    for neighbour in NEIGHBOURS
    # The forms share their implementation: every one with every neighbour on one family, and on the others alone.
    if (form == "patch" or neighbour == "none" or family == OF_ONE_FAMILY.get(neighbour, "SD 1"))
    and family == OF_ONE_FAMILY.get(neighbour, family)
    and (form, neighbour) != ("all in one", "noise mask")  # it takes no latent: test_neighbours.py has it
]
NOT_THE_PICTURE = (
    # They change the target's rows and not the negative's, and the source has less classifier-free guidance.
    *("attn2 led away from a negative (NAG)", "attention couple"),
    "ToMe",  # it draws anew for every pass
    "noise mask",  # the latent outside of it is noise here; test_neighbours.py has a picture there
)
"""Beside these an edit to the source itself need not give the picture back."""
STEPS, CFG = 2, 3.0
SETTINGS = {"unit": "normalized", "guidance_start": 0.0, "guidance_end": 0.5}


def invert(pack: Any, case: Any) -> Any:
    invert = pack.nodes.RegularizedDDIMInvert.invert
    return invert(case.model, case.latent, case.source, STEPS, 0.0, 0.0, 0, False, scheduler="simple")[:2]


def sample(guider: Any, latent: dict[str, Tensor], sigmas: Tensor, sampler: str = "euler") -> Tensor:
    """As SamplerCustomAdvanced does, without noise."""
    import comfy.samplers

    samples, mask = latent["samples"], latent.get("noise_mask")
    chosen = comfy.samplers.ksampler(sampler)
    return guider.sample(torch.zeros_like(samples), samples, chosen, sigmas, denoise_mask=mask, disable_pbar=True)


def stock(case: Any, noise: dict[str, Tensor], sigmas: Tensor, model: Any = None) -> Tensor:
    import comfy.samplers

    guider = comfy.samplers.CFGGuider(case.model if model is None else model)
    guider.set_conds(case.target, case.negative)
    guider.set_cfg(CFG)
    return sample(guider, noise, sigmas)


def edited(pack: Any, form: str, case: Any, inversion: Any, noise: dict[str, Tensor], **changed: Any) -> Tensor:
    """The edited latent, by one of the forms."""
    settings = SETTINGS | changed
    if form == "patch":
        guided = pack.nodes.CrossAttnGuidance.execute(case.model, inversion, case.source, **settings).result[0]
        return stock(case, noise, inversion.sigmas, guided)
    texts = case.source, case.target, case.negative, CFG
    if form == "guider":
        guider = pack.nodes.CrossAttnGuider.execute(case.model, inversion, *texts, **settings).result[0]
        return sample(guider, noise, inversion.sigmas)
    return pack.nodes.CrossAttnGuidedSampler.execute(case.model, inversion, *texts, **settings).result[0]["samples"]


@pytest.mark.parametrize(("family", "form", "neighbour"), CELLS, ids=[" | ".join(cell) for cell in CELLS])
def test_cell(
    pack: Any,
    load_case: Callable[[str], Any],
    distances: list[tuple[float, float]],
    usual: dict[str, Any],
    family: str,
    form: str,
    neighbour: str,
):
    """Also with the settings of new nodes: of the two steps one comes before the edit, and the other is guided."""
    from tests.comfy.neighbours import NEIGHBOURS as APPLY

    with torch.inference_mode():
        case = APPLY[neighbour](load_case(family))
        inversion, noise = invert(pack, case)
        noise = case.latent | noise
        torch.manual_seed(0)  # ToMe draws which tokens it merges
        expected = stock(case, noise, inversion.sigmas)
        torch.manual_seed(0)
        without = edited(pack, form, case, inversion, noise, guidance=0.0, negative_from="text")
        assert not distances
        guided = edited(pack, form, case, inversion, noise, guidance=0.02)
        torch.manual_seed(0)
        as_new = edited(pack, form, case, inversion, noise, **usual)
        assert len(distances) == 2
        same = dataclasses.replace(case, target=case.source, negative=case.source)
        unchanged = edited(pack, form, same, inversion, noise, **usual)
    assert torch.isfinite(guided).all()
    assert torch.isfinite(as_new).all() and not torch.equal(as_new, without)
    if neighbour not in NOT_THE_PICTURE:
        torch.testing.assert_close(unchanged, case.latent["samples"], rtol=1e-4, atol=1e-4)
    if form == "all in one":  # its noise goes no way through a LATENT, which divides and multiplies by the scale factor
        assert (without - expected).norm() < 1e-5 * expected.norm()
    else:
        assert torch.equal(without, expected)
    before, after = distances[0]
    assert after < before
    assert not torch.equal(guided, without)


def test_every_neighbour_is_in_the_table(pack: Any):
    from tests.comfy.neighbours import NEIGHBOURS as APPLY

    assert tuple(APPLY) == NEIGHBOURS


@pytest.mark.parametrize(
    "neighbour",
    [
        *("LoRA", "LoRA as a hook", "ControlNet", "FreeU", "PAG", "SAG", "SEG", "HyperTile"),
        *("attn2 led away from a negative (NAG)", "RescaleCFG", "FreSca", "ToMe"),
        *("DeepShrink", "tiles", "tiles in one batch (TiledDiffusion)", "attention couple"),
        *("attention override", "scheduled target", *OF_ONE_FAMILY),
        *("attn2 replaced (IPAdapter)", "keys and values apart (NegPip)", "areas", "two areas of one size"),
        *("area in the target only", "masked text", "target of two chunks", "noise mask"),
    ],
)
def test_neighbours_make_a_difference(pack: Any, load_case: Callable[[str], Any], neighbour: str):
    """A neighbour that does nothing would be compatible with anything."""
    from tests.comfy.neighbours import NEIGHBOURS as APPLY

    with torch.inference_mode():
        case = load_case(OF_ONE_FAMILY.get(neighbour, "SD 1"))
        inversion, noise = invert(pack, case)
        cases = case, APPLY[neighbour](case)
        plain, changed = (stock(c, c.latent | noise, inversion.sigmas) for c in cases)
    assert not torch.equal(plain, changed)


def test_the_refiner_is_refused(pack: Any, load_case: Callable[[str], Any]):
    case = load_case("SDXL refiner")
    with pytest.raises(ValueError, match=r"refiner of SDXL, .* Load the base checkpoint"):
        invert(pack, case)


@pytest.mark.parametrize(
    ("family", "prefix"),
    [
        ("SD 1", "cond_stage_model.transformer.text_model.encoder.layers.0.self_attn.q_proj.weight"),
        ("SD 2 (v-prediction)", "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight"),
        ("SDXL", "conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight"),
    ],
)
def test_checkpoints_have_the_keys_of_their_family(tmp_path: Path, pack: Any, family: str, prefix: str):
    import safetensors

    from tests.comfy import families

    with safetensors.safe_open(families.write_checkpoint(tmp_path, family), "pt") as checkpoint:
        keys = set(checkpoint.keys())
    last = "model.diffusion_model.output_blocks.8.0.in_layers.0.weight"
    assert {prefix, last, "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight"} <= keys


def test_sd2_is_recognised_as_v_prediction(load_case: Callable[[str], Any]):
    from comfy.model_base import ModelType

    types = {family: load_case(family).model.model.model_type for family in ("SD 1", "SD 2 (v-prediction)")}
    assert types == {"SD 1": ModelType.EPS, "SD 2 (v-prediction)": ModelType.V_PREDICTION}
