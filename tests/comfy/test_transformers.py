"""Flow models and diffusion transformers: the maps are the model's own, the gradient is right, and all forms agree."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

STEPS = 4
NAMES = (
    "SD 3",
    "SD 3.5",
    "Flux dev",
    "Chroma",
    "Lumina 2",
    "Z-Image",
    "Qwen-Image",
    "AuraFlow",
    "HiDream",
    "HunyuanImage 2.1",
    "PixArt Sigma",
    "HunyuanDiT",
    "Wan 2.1",
    "Cosmos Predict 2",
)
SETTINGS = {"guidance": 1.0, "unit": "normalized", "guidance_start": 0.0, "guidance_end": 0.8, "blocks": "all"}


@pytest.fixture(scope="session")
def load(pack: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Name -> ModelPatcher, made once."""
    from tests.comfy import transformers

    folder, made = tmp_path_factory.mktemp("transformers"), dict[str, Any]()

    def get(name: str) -> Any:
        if name not in made:
            with torch.inference_mode():
                made[name] = transformers.make(name, folder)
        return made[name]

    return get


@pytest.fixture(params=NAMES)
def case(request: pytest.FixtureRequest, load: Callable[[str], Any]) -> Iterator[Any]:
    """Under inference mode, as ComfyUI calls nodes; afterwards no hook of ours is left on the model."""
    from tests.comfy import transformers

    model = load(request.param)
    with torch.inference_mode():
        yield transformers.case(request.param, model)
    modules = model.model.diffusion_model.modules()
    assert not [module for module in modules if module._forward_pre_hooks or "forward" in vars(module)]


def invert(pack: Any, case: Any, steps: int = STEPS, fixed_point: int = 8, reconstruct: bool = False) -> Any:
    """Without regularisation, on the grid that a stock sampler takes."""
    node = pack.nodes.RegularizedDDIMInvert.invert
    return node(case.model, case.latent, case.source, steps, 0.0, 0.0, fixed_point, reconstruct, scheduler="simple")


def sample(guider: Any, latent: Tensor, sigmas: Tensor, noise: Tensor) -> Tensor:
    import comfy.samplers

    return guider.sample(noise, latent, comfy.samplers.ksampler("euler"), sigmas, disable_pbar=True)


def stock(case: Any, model: Any, sigmas: Tensor, noise: Tensor, latent: Tensor | None = None) -> Tensor:
    import comfy.samplers

    from tests.comfy.transformers import MODELS

    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(case.target, case.negative)
    guider.set_cfg(MODELS[case.family].cfg)
    return sample(guider, torch.zeros_like(noise) if latent is None else latent, sigmas, noise)


def edited(pack: Any, form: str, case: Any, inversion: Any, **changed: Any) -> Tensor:
    from tests.comfy.transformers import MODELS

    settings = SETTINGS | changed
    some, empty = torch.ones_like(case.latent["samples"]), torch.zeros_like(case.latent["samples"])
    if form == "patch":
        model = pack.nodes.CrossAttnGuidance.execute(case.model, inversion, case.source, **settings).result[0]
        return stock(case, model, inversion.sigmas, some)
    texts = case.source, case.target, case.negative, MODELS[case.family].cfg
    if form == "guider":
        guider = pack.nodes.CrossAttnGuider.execute(case.model, inversion, *texts, **settings).result[0]
        return sample(guider, empty, inversion.sigmas, some)
    return pack.nodes.CrossAttnGuidedSampler.execute(case.model, inversion, *texts, **settings).result[0]["samples"]


def under_guider(pack: Any, case: Any, sigmas: Tensor, ask: Callable[[Any], Any], blocks: str = "all") -> Any:
    """Ask a `GuiderDenoiser` under a guider that is sampling."""
    import comfy.samplers

    answers = []

    class Asking(comfy.samplers.Sampler):
        def sample(
            self, guider: Any, sigmas: Tensor, extra_args: Any, callback: Any, noise: Tensor, *_: Any, **__: Any
        ) -> Tensor:
            answers.append(ask(pack.nodes.bridge.GuiderDenoiser(guider, extra_args, blocks=blocks)))
            return noise

    guider = comfy.samplers.CFGGuider(case.model.clone())
    guider.inner_set_conds({"positive": case.target, "source": case.source})
    guider.sample(torch.zeros_like(case.latent["samples"]), case.latent["samples"], Asking(), sigmas, disable_pbar=True)
    return answers[0]


def noisy(case: Any) -> tuple[Tensor, Tensor]:
    """A latent with noise in it, and its level."""
    samples = case.latent["samples"].flatten(1, -3)
    return samples + torch.randn(samples.shape, generator=torch.Generator().manual_seed(5)), torch.tensor([0.6])


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_observing_changes_nothing_and_sees_the_text(pack: Any, case: Any):
    x, sigma = noisy(case)

    def ask(denoise: Any) -> Any:
        plain, seen = denoise(x, sigma, "positive"), denoise(x, sigma, "positive", maps=True)
        return plain.denoised, seen, denoise.predict(x, sigma, "positive", denoise.model_options), denoise.attention

    plain, seen, unwatched, attention = under_guider(pack, case, torch.tensor([0.6, 0.0]), ask)
    assert torch.equal(plain, unwatched) and torch.equal(seen.denoised, unwatched)
    assert {key.layer for key in seen.maps} == {layer.name for layer in attention.layers}
    tokens = {"HiDream": 9 + 6 + 6, "HunyuanDiT": 7 + 5}.get(case.family, 9)
    places = {"HunyuanImage 2.1": 12 * 16, "PixArt Sigma": 16 * 18}.get(case.family, 6 * 8)
    for maps in seen.maps.values():
        assert maps.shape[2:] == (places, tokens)
        torch.testing.assert_close(maps.sum(-1), torch.ones_like(maps[..., 0]))


@pytest.mark.parametrize("checkpointing", ["never", "always"])
def test_the_gradient_is_that_of_finite_differences(pack: Any, case: Any, checkpointing: str):
    from pix2pix_zero.pix2pix_zero_core import MapGuidance
    from pix2pix_zero.pix2pix_zero_core.attention import map_distance

    x, sigma = noisy(case)

    def ask(denoise: Any) -> Any:
        maps = denoise(x, sigma, "source", maps=True).maps
        step = pack.nodes.gradient.GradientStep(checkpointing)
        guidance = MapGuidance(1.0, "paper")
        coordinates = pack.nodes.bridge.coordinates_of(case.model)
        move, loss, _ = step(denoise, x, sigma[0], "positive", maps, guidance, coordinates)
        gradient = -move / coordinates.variance(sigma[0])

        def distance(x: Tensor) -> float:
            return float(map_distance(denoise(x, sigma, "positive", maps=True).maps, maps))

        along = gradient / gradient.norm()
        found = (distance(x + 0.01 * along) - distance(x - 0.01 * along)) / 0.02
        return loss, float(gradient.norm()), found

    loss, expected, found = under_guider(pack, case, torch.tensor([0.6, 0.0]), ask)
    assert loss > 0 and expected > 0
    assert found == pytest.approx(expected, rel=5e-3)


def test_an_inversion_leads_back(pack: Any, case: Any):
    inversion, _, reconstruction, _ = invert(pack, case, steps=10, fixed_point=12, reconstruct=True)
    error = relative(reconstruction["samples"], case.latent["samples"])
    flow = inversion.coordinates is pack.nodes.bridge.Coordinates.FLOW
    assert float(inversion.sigmas[0]) == pytest.approx(1.0) if flow else float(inversion.sigmas[0]) > 10
    # HiDream chooses an expert for every token, and where two are as good its velocity jumps.
    bound = 5e-3 if case.family == "HiDream" else 1e-5 if flow else 1e-3
    assert error < bound, error
    again = stock(
        dataclasses.replace(case, target=case.source), case.model, inversion.sigmas, _noise_of(case, inversion)
    )
    assert relative(again, case.latent["samples"]) < bound


def _noise_of(case: Any, inversion: Any) -> Tensor:
    """What a stock sampler of full denoising is given for it to begin with the inversion's noise."""
    noise = inversion.noise.view_as(case.latent["samples"])
    sigma = inversion.sigmas[0]
    sampling = case.model.get_model_object("model_sampling")
    one, zero = torch.ones_like(noise), torch.zeros_like(noise)
    return noise / sampling.noise_scaling(sigma, one, zero, bool(sigma >= sampling.sigma_max))


def test_all_forms_agree_and_bring_the_maps_closer(pack: Any, case: Any, distances: list[tuple[float, float]]):
    inversion = invert(pack, case)[0]
    expected = edited(pack, "all in one", case, inversion)
    assert distances and all(after < before for before, after in distances)
    for form in ("patch", "guider"):
        assert relative(edited(pack, form, case, inversion), expected) < 1e-4
    assert relative(edited(pack, "all in one", case, inversion, guidance=0.0), expected) > 1e-4


@pytest.mark.parametrize("form", ["patch", "guider"])
def test_strength_zero_is_the_stock_sampler(pack: Any, case: Any, form: str):
    inversion = invert(pack, case, fixed_point=2)[0]
    found = edited(pack, form, case, inversion, guidance=0.0, negative_from="text")
    assert torch.equal(found, stock(case, case.model, inversion.sigmas, _noise_of(case, inversion)))


def test_two_pictures_together_are_each_alone(pack: Any, case: Any):
    from tests.comfy.transformers import two_pictures

    both, alone = two_pictures(case.family, case.model)
    together, *each = (edited(pack, "patch", one, invert(pack, one)[0]) for one in (both, *alone))
    torch.testing.assert_close(together, torch.cat(each), rtol=1e-3, atol=1e-3)
