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
    "Flux 2",
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
    "Anima",
    "Kandinsky 5 Image",
    "Krea 2",
)
FORMS = ("patch", "guider", "all in one")
NEIGHBOURS = (
    "none",
    "LoRA",
    "inference mode",
    "network exchanged in each call (TorchCompile)",
    "attention override",
    "attention override without gradient",
)
"""Those of test_compatibility.py that are no matter of UNets and need no text encoder."""
WITH_WORKFLOWS = ("SD 3.5", "Flux dev", "Z-Image", "Qwen-Image", "Cosmos Predict 2")
"""Those that people edit with, Cosmos Predict 2 for Anima, which the pinned ComfyUI has not."""
CELLS = [
    (family, form, neighbour)
    for family in WITH_WORKFLOWS
    for form in FORMS
    for neighbour in NEIGHBOURS
    if form == "patch" or neighbour == "none"  # the forms share their implementation
]
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
    import comfy.supported_models

    from tests.comfy import transformers

    if not hasattr(comfy.supported_models, transformers.MODELS[request.param].config):
        pytest.skip("this ComfyUI does not have it")
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
    places = {"HunyuanImage 2.1": 12 * 16, "PixArt Sigma": 16 * 18, "Flux 2": 4 * 6}.get(case.family, 6 * 8)
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


def oldest_lumina(case: Any) -> bool:
    """Whether this is Lumina 2 as the oldest ComfyUI has it, before it learnt to pad."""
    return case.family == "Lumina 2" and not hasattr(case.model.model.diffusion_model, "pad_tokens_multiple")


def test_all_forms_agree_and_bring_the_maps_closer(pack: Any, case: Any, distances: list[tuple[float, float]]):
    inversion = invert(pack, case)[0]
    expected = edited(pack, "all in one", case, inversion)
    # With random weights a move may lead too far, as the first of Lumina does on the oldest ComfyUI.
    assert distances[oldest_lumina(case) :] and all(
        after < before for before, after in distances[oldest_lumina(case) :]
    )
    for form in ("patch", "guider"):
        assert relative(edited(pack, form, case, inversion), expected) < 1e-4
    assert relative(edited(pack, "all in one", case, inversion, guidance=0.0), expected) > 1e-4


@pytest.mark.parametrize("form", ["patch", "guider"])
def test_strength_zero_is_the_stock_sampler(pack: Any, case: Any, form: str):
    inversion = invert(pack, case, fixed_point=2)[0]
    found = edited(pack, form, case, inversion, guidance=0.0, negative_from="text")
    assert torch.equal(found, stock(case, case.model, inversion.sigmas, _noise_of(case, inversion)))


@pytest.mark.parametrize(
    ("case", "form", "neighbour"), CELLS, ids=[" | ".join(cell) for cell in CELLS], indirect=["case"]
)
def test_transformer_cell(pack: Any, case: Any, distances: list[tuple[float, float]], form: str, neighbour: str):
    from tests.comfy.neighbours import NEIGHBOURS as APPLY

    beside = APPLY[neighbour](case)
    inversion = invert(pack, beside)[0]
    expected = stock(beside, beside.model, inversion.sigmas, _noise_of(beside, inversion))
    without = edited(pack, form, beside, inversion, guidance=0.0, negative_from="text")
    assert not distances
    guided = edited(pack, form, beside, inversion)
    assert torch.isfinite(guided).all() and not torch.equal(guided, without)
    if form == "all in one":  # its noise goes no way through a LATENT, which divides and multiplies by the scale factor
        assert relative(without, expected) < 1e-5
    else:
        assert torch.equal(without, expected)
    assert distances and distances[0][1] < distances[0][0]


def test_two_pictures_together_are_each_alone(pack: Any, case: Any):
    from tests.comfy.transformers import two_pictures

    both, alone = two_pictures(case.family, case.model)
    together, *each = (edited(pack, "patch", one, invert(pack, one)[0]) for one in (both, *alone))
    torch.testing.assert_close(together, torch.cat(each), rtol=1e-3, atol=1e-3)


# ------------------------------------------------------------------------------------------------ padding and masks


def maps_of(pack: Any, case: Any) -> dict[str, Tensor]:
    """The maps of the source, by layer."""
    x, sigma = noisy(case)
    ask: Callable[[Any], Any] = lambda denoise: denoise(x, sigma, "source", maps=True).maps  # noqa: E731
    return {key.layer: maps for key, maps in under_guider(pack, case, torch.tensor([0.6, 0.0]), ask).items()}


def padded(text: Any, count: int) -> Any:
    """A text with tokens of zeros behind it, as encoders that zero out their padding give it."""
    (tokens, extra), *_ = text
    return [[torch.cat([tokens, torch.zeros(1, count, tokens.shape[-1])], 1), extra]]


@pytest.mark.parametrize("case", ["SD 3", "Wan 2.1", "Z-Image"], indirect=True)
def test_padding_is_left_out(pack: Any, case: Any):
    changed = dataclasses.replace(case, source=padded(case.source, 5), target=padded(case.target, 3))
    for maps in maps_of(pack, changed).values():
        assert maps.shape[-1] == 9
        torch.testing.assert_close(maps.sum(-1), torch.ones_like(maps[..., 0]))


@pytest.mark.parametrize("case", ["HunyuanImage 2.1", "Lumina 2"], indirect=True)
def test_masked_tokens_are_left_out(pack: Any, case: Any):
    def masked(text: Any, count: int) -> Any:
        (tokens, extra), *_ = text
        return [[tokens, {**extra, "attention_mask": torch.tensor([[1] * (9 - count) + [0] * count])}]]

    changed = dataclasses.replace(case, source=masked(case.source, 2), target=masked(case.target, 1))
    if oldest_lumina(case):
        with pytest.raises(ValueError, match="7 keys for a text of 9 tokens"):  # it cuts them off by itself
            maps_of(pack, changed)
        return
    assert {maps.shape[-1] for maps in maps_of(pack, changed).values()} == {7}


@pytest.mark.parametrize("case", ["Flux 2"], indirect=True)
def test_padding_in_front_is_left_out(pack: Any, case: Any):
    """ComfyUI pads Flux.2's texts to 512 tokens from the left."""
    found = maps_of(pack, case)
    changed = dataclasses.replace(
        case, source=[[torch.nn.functional.pad(t, (0, 0, 503, 0)), e] for t, e in case.source]
    )
    for layer, maps in maps_of(pack, changed).items():
        torch.testing.assert_close(maps, found[layer])


@pytest.mark.parametrize("case", ["SD 3"], indirect=True)
def test_the_shorter_text_counts(pack: Any, case: Any):
    from tests.comfy.transformers import conditioning

    changed = dataclasses.replace(case, target=conditioning("SD 3", 2, tokens=13))
    assert {maps.shape[-1] for maps in maps_of(pack, changed).values()} == {9}
    inversion = invert(pack, changed)[0]
    assert torch.isfinite(edited(pack, "patch", changed, inversion)).all()


# ---------------------------------------------------------------------------------------------------- the gradient


def move(pack: Any, case: Any, denoise: Any, checkpointing: str) -> Tensor:
    """What the guidance moves a noisy latent by, with the gradient as it is."""
    from pix2pix_zero.pix2pix_zero_core import MapGuidance

    x, sigma = noisy(case)
    maps = denoise(x, sigma, "source", maps=True).maps
    coordinates = pack.nodes.bridge.coordinates_of(case.model)
    step = pack.nodes.gradient.GradientStep(checkpointing)
    return step(denoise, x, sigma[0], "positive", maps, MapGuidance(1.0, "paper"), coordinates)[0]


@pytest.mark.parametrize("case", ["SD 3", "Flux dev", "Flux 2", "Wan 2.1"], indirect=True)
@pytest.mark.parametrize("blocks", ["all", "0"])
def test_what_is_computed_again_gives_the_same_gradient(pack: Any, case: Any, blocks: str):
    ask: Callable[[Any], Any] = lambda denoise: [move(pack, case, denoise, how) for how in ("never", "always")]  # noqa: E731
    plain, again = under_guider(pack, case, torch.tensor([0.6, 0.0]), ask, blocks)
    assert relative(again, plain) < 1e-5


@pytest.mark.parametrize("case", ["SD 3", "Flux dev"], indirect=True)
def test_torch_s_own_checkpoints_do_not_do(pack: Any, case: Any):
    """Flux's blocks write over what torch keeps to compute them again. Once this fails, ours may go."""
    from torch.utils.checkpoint import CheckpointError, checkpoint

    def checkpointed(denoise: Any, forward: Callable[..., Any]) -> Callable[..., Any]:
        attention, constants = denoise.attention, pack.nodes.gradient._InferenceTensorsAsConstants

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if not torch.is_grad_enabled():
                return forward(*args, **kwargs)
            watched = [attention.current]

            def run(*args: Any, **kwargs: Any) -> Any:
                current, watched[0] = watched[0], dataclasses.replace(attention.current or watched[0], seen={})
                with torch.inference_mode(False), constants(), attention.watching(current):
                    return forward(*args, **kwargs)

            return checkpoint(run, *args, use_reentrant=False, **kwargs)

        return wrapped

    def ask(denoise: Any) -> list[Tensor]:
        plain, blocks = move(pack, case, denoise, "never"), [layer.block for layer in denoise.attention.layers]
        with pytest.MonkeyPatch.context() as patch:
            for block in blocks:
                patch.setattr(block, "forward", checkpointed(denoise, block.forward), raising=False)
            found = move(pack, case, denoise, "never")
        for block in blocks:
            vars(block).pop("forward", None)
        return [plain, found]

    try:
        plain, found = under_guider(pack, case, torch.tensor([0.6, 0.0]), ask)
    except CheckpointError:
        right = False
    else:
        right = relative(found, plain) < 1e-5
    assert right == (case.family == "SD 3")


@pytest.mark.parametrize("case", ["Flux dev"], indirect=True)
@pytest.mark.parametrize(("blocks", "guided"), [("", [0, 1]), ("1", [1]), ("0, 2-3", [0, 2, 3]), ("all", [0, 1, 2, 3])])
def test_blocks_are_chosen(pack: Any, case: Any, blocks: str, guided: list[int]):
    x, sigma = noisy(case)

    def ask(denoise: Any) -> Any:
        names = [layer.name for layer in denoise.attention.layers]
        seen = {key.layer for key in denoise(x, sigma, "positive", maps=True).maps}
        kept = saved_for_the_gradient(pack, denoise, x, sigma)
        return [number for number, name in enumerate(names) if name in seen], kept

    found, kept = under_guider(pack, case, torch.tensor([0.6, 0.0]), ask, blocks)
    assert found == guided
    _, all_kept = under_guider(pack, case, torch.tensor([0.6, 0.0]), ask, "all")
    assert kept < all_kept or guided[-1] == 3


def saved_for_the_gradient(pack: Any, denoise: Any, x: Tensor, sigma: Tensor) -> int:
    """How many values are kept for a backward pass."""
    sizes: list[int] = []
    pack_before = pack.nodes.gradient._CopyOnWrite.pack

    def counted(self: Any, tensor: Tensor) -> Any:
        sizes.append(tensor.numel())
        return pack_before(self, tensor)

    with pytest.MonkeyPatch.context() as patch, torch.inference_mode(False), torch.enable_grad():
        patch.setattr(pack.nodes.gradient._CopyOnWrite, "pack", counted)
        with denoise.attention.hooked(), pack.nodes.gradient.differentiable():
            denoise(x.clone().requires_grad_(), sigma.clone(), "positive", maps=True)
    return sum(sizes)


@pytest.mark.parametrize("case", ["SD 3"], indirect=True)
@pytest.mark.parametrize("blocks", ["2", "0-2", "1-0", "first", "0,"])
def test_blocks_that_are_not_there(pack: Any, case: Any, blocks: str):
    inversion = invert(pack, case)[0]
    with pytest.raises(ValueError, match=r"no block of this model. Write numbers and ranges from 0 to 1 "):
        edited(pack, "patch", case, inversion, blocks=blocks)


@pytest.mark.parametrize("case", ["SD 3", "PixArt Sigma"], indirect=True)
def test_an_edit_leaves_no_tensor_behind(pack: Any, case: Any):
    import gc

    inversion = invert(pack, case)[0]

    def alive() -> int:
        edited(pack, "all in one", case, inversion, checkpointing="always")
        gc.collect()
        return sum(type(thing) is Tensor for thing in gc.get_objects())

    alive()
    assert alive() == alive()


def test_fused_operations_have_a_plain_form(pack: Any):
    """comfy-kitchen's, in ComfyUI from 0.7 on, which have no backward pass."""
    kitchen = pytest.importorskip("comfy_kitchen")
    x = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    with pack.nodes.gradient.differentiable():
        out = kitchen.adaln(x, torch.ones(1, 8), torch.ones(1, 8))
        (found,) = torch.autograd.grad(out.square().sum(), x)
    expected = 2 * torch.nn.functional.layer_norm(x, (8,), eps=1e-6) + 1
    (wanted,) = torch.autograd.grad(expected.square().sum(), x)
    torch.testing.assert_close(found, wanted)


# -------------------------------------------------------------------------------------------------------- sentences


@pytest.mark.parametrize("case", ["Flux dev", "Qwen-Image"], indirect=True)
def test_reference_pictures_are_refused(pack: Any, case: Any):
    (tokens, extra), *_ = case.source
    shown = [[tokens, {**extra, "reference_latents": [case.latent["samples"]]}]]
    with pytest.raises(ValueError, match=r"text shows the model another picture \(ref_latents\).* Disconnect the ref"):
        invert(pack, dataclasses.replace(case, source=shown))
    inversion = invert(pack, case)[0]
    with pytest.raises(ValueError, match=r"positive text shows the model another picture"):
        edited(pack, "guider", dataclasses.replace(case, target=shown), inversion)


@pytest.mark.parametrize("case", ["Wan 2.1"], indirect=True)
def test_several_frames_are_refused(pack: Any, case: Any):
    several = case.latent["samples"].repeat(1, 1, 3, 1, 1)
    with pytest.raises(ValueError, match=r"has 3 frames; pix2pix-zero edits pictures"):
        invert(pack, dataclasses.replace(case, latent={"samples": several}))


@pytest.mark.parametrize("case", ["SD 3"], indirect=True)
def test_pictures_larger_than_the_table_of_positions_are_refused(pack: Any, case: Any):
    """The network itself says no more than two numbers. It has a table for 16 tokens of 2 latent pixels a side."""
    samples = case.latent["samples"]
    for size, words in {(33, 20): "160 x 264", (8, 34): "272 x 64"}.items():
        large = {"samples": samples.new_ones(*samples.shape[:2], *size)}
        with pytest.raises(ValueError, match=rf"has {words} pixels, and this .* 16 of its tokens a side, 256 pixels"):
            invert(pack, dataclasses.replace(case, latent=large))


def test_unknown_networks_are_refused(pack: Any):
    """Also those that are made of one of a family, and are shown more than a text."""
    import comfy.ldm.wan.model
    import comfy.supported_models

    sizes = {"model_type": "vace", "dim": 128, "num_heads": 1, "ffn_dim": 128, "num_layers": 1, "in_dim": 16}
    config = comfy.supported_models.WAN21_Vace({"image_model": "wan2.1", "vace_in_dim": 96, "vace_layers": 1, **sizes})
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, "")
    assert isinstance(model.diffusion_model, comfy.ldm.wan.model.WanModel)
    patcher = pack.nodes.bridge.comfy.model_patcher.ModelPatcher(model, torch.device("cpu"), torch.device("cpu"))
    with pytest.raises(ValueError, match=r"WAN21_Vace\) has no attention to the text .* Wan \(one frame\)"):
        pack.nodes.bridge.require_cross_attention_model(patcher)


def test_models_of_videos_from_pictures_are_refused(pack: Any, load: Callable[[str], Any]):
    model = load("Wan 2.1").clone()
    model.model.image_to_video = True
    try:
        with pytest.raises(ValueError, match=r"makes videos from a picture .* Load the text-to-image"):
            pack.nodes.bridge.require_cross_attention_model(model)
    finally:
        model.model.image_to_video = False


@pytest.mark.parametrize("case", ["Flux dev"], indirect=True)
def test_inversions_of_other_models_are_refused(pack: Any, case: Any, load: Callable[[str], Any]):
    from tests.comfy import transformers

    def edit(other: str) -> None:
        of_other = transformers.case(other, load(other))
        edited(pack, "patch", case, invert(pack, of_other)[0])

    for other, words in {
        "AuraFlow": r"has 4 channels, the model takes 16",
        "Cosmos Predict 2": r"is in VE coordinates, the model's are flow",
        "SD 3": r"of the family Stable Diffusion 3 and 3.5, the model is of Flux",
    }.items():
        with pytest.raises(ValueError, match=rf"{words}.* Invert the picture with the model that edits it"):
            edit(other)


@pytest.mark.parametrize("case", ["SD 3"], indirect=True)
def test_schedules_that_do_not_fit_a_flow(pack: Any, case: Any):
    node = pack.nodes.RegularizedDDIMInvert.invert
    for sigmas, words in {
        (1.0, 0.5, 0.2): r"ends at 0.2; a flow model's picture is at 0",
        (14.0, 1.0, 0.0): r"begins at 14.0; in flow coordinates no level is above 1",
    }.items():
        with pytest.raises(ValueError, match=words):
            node(case.model, case.latent, case.source, 2, 0.0, 0.0, 0, False, sigmas=torch.tensor(sigmas))


@pytest.mark.parametrize("case", ["SD 3", "Wan 2.1"], indirect=True)
def test_a_text_without_tokens(pack: Any, case: Any):
    inversion = invert(pack, case)[0]
    (tokens, extra), *_ = case.source
    with pytest.raises(ValueError, match="no tokens of its own, only padding"):
        edited(pack, "guider", dataclasses.replace(case, source=[[torch.zeros_like(tokens), extra]]), inversion)


@pytest.mark.parametrize("case", ["Chroma"], indirect=True)
def test_a_block_that_does_not_run(pack: Any, case: Any):
    inversion = invert(pack, case)[0]
    case.model.model.diffusion_model.skip_dit = [1]  # as packs leave blocks out
    try:
        with pytest.raises(
            ValueError, match=r"did not run, .* its layer diffusion_model.*single_blocks.1|single_blocks.1"
        ):
            edited(pack, "patch", case, inversion)
    finally:
        case.model.model.diffusion_model.skip_dit = []


def test_a_schedule_that_crowds_a_flows_steps_is_told(pack: Any, load: Callable[[str], Any]):
    warning = pack.nodes.inversion.scheduler_warning
    model = load("SD 3.5")
    assert "scheduler is karras, which was made for diffusion models" in warning(model, "karras")
    assert warning(model, "simple") == warning(model, "ddim") == ""


@pytest.mark.parametrize(("models", "told"), [(["SD 3", "UNet"], False), (["UNet", "SD 3"], True), (["SD 3"], True)])
@pytest.mark.parametrize("case", ["SD 3"], indirect=True)
def test_schedulers_of_a_list_are_told_beside_the_models_that_run_with_them(
    pack: Any,
    case: Any,
    load_checkpoint: Callable[[str], tuple[Any, Any, Any]],
    monkeypatch: pytest.MonkeyPatch,
    models: list[str],
    told: bool,
):
    """Of lists the first goes with the first, and of the shorter list the last with all that follow."""
    unet = load_checkpoint("random_zoo.safetensors")[0]
    node, known = pack.nodes.RegularizedDDIMInvert, {"SD 3": case.model, "UNet": unet}
    inversion, *others = invert(pack, case)
    monkeypatch.setattr(node, "invert", lambda **inputs: (inversion, *others))
    inputs = {"latent": [case.latent], "source": [case.source], "scheduler": ["simple", "karras"]}
    warning = node.execute(model=[known[name] for name in models], **inputs).result[4]
    assert ("scheduler is karras" in warning) == told


def test_few_step_models_are_warned_about(pack: Any, load: Callable[[str], Any]):
    model = load("Flux dev")
    warning = pack.nodes.bridge.distilled_warning
    assert warning(model) == "" and warning(load("SD 3")) == ""
    assert not pack.nodes.bridge.needs_cfg(model) and pack.nodes.bridge.needs_cfg(load("SD 3"))
    params = model.model.diffusion_model.params
    params.guidance_embed = False  # schnell has no guidance to be given
    try:
        assert "distilled to a few steps" in warning(model)
    finally:
        params.guidance_embed = True


@pytest.mark.parametrize("case", ["SD 3", "Qwen-Image"], indirect=True)
def test_two_samplers_in_a_row_are_one(pack: Any, case: Any):
    """What the first leaves is a latent of full size, as stock samplers of flows leave it, and the second goes on."""
    import comfy.samplers

    from tests.comfy.transformers import MODELS

    inversion = invert(pack, case)[0]
    model = pack.nodes.CrossAttnGuidance.execute(case.model, inversion, case.source, **SETTINGS).result[0]

    def run(sigmas: Tensor, latent: Tensor) -> Tensor:
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(case.target, case.negative)
        guider.set_cfg(MODELS[case.family].cfg)
        return sample(guider, latent, sigmas, torch.zeros_like(latent))

    empty = torch.zeros_like(case.latent["samples"])
    whole = run(inversion.sigmas, empty)
    half = run(inversion.sigmas[2:], run(inversion.sigmas[:3], empty))
    assert relative(half, whole) < 1e-5


@pytest.mark.parametrize("case", ["SD 3", "Qwen-Image"], indirect=True)
@pytest.mark.parametrize(
    "settings",
    [
        {"unit": "share", "guidance": 0.5},
        {"region": 0.4},
        {"cfg_start": 0.5},
        {"noise_from": "fresh", "negative_from": "text"},
    ],
)
def test_every_setting_means_the_same_in_all_forms(pack: Any, case: Any, settings: dict[str, Any]):
    inversion = invert(pack, case)[0]
    expected = edited(pack, "all in one", case, inversion, **settings)
    for form in ("patch", "guider"):
        assert relative(edited(pack, form, case, inversion, **settings), expected) < 1e-4


@pytest.mark.parametrize("case", ["SD 3", "Qwen-Image"], indirect=True)
def test_a_noise_mask_keeps_what_it_covers(pack: Any, case: Any):
    mask = torch.zeros(1, 1, 12, 16)
    mask[..., :8] = 1
    masked = dataclasses.replace(case, latent={**case.latent, "noise_mask": mask})
    inversion = invert(pack, masked)[0]
    found = edited(pack, "all in one", masked, inversion)
    picture = case.latent["samples"]
    assert relative(found[..., 8:], picture[..., 8:]) < 1e-4
    assert relative(found[..., :8], picture[..., :8]) > 1e-3


@pytest.mark.parametrize("case", ["SD 3", "Qwen-Image"], indirect=True)
def test_maps_are_shown_along_the_way(pack: Any, case: Any):
    inversion = invert(pack, case)[0]
    _, _, path, _ = pack.nodes.CrossAttnGuidedSampler.execute(
        case.model, inversion, case.source, case.target, case.negative, 2.0, **SETTINGS
    ).result
    assert path.coordinates is inversion.coordinates
    rows = pack.nodes.visualization.watch(case.model, path, case.target, 2, 0)
    assert [len(maps) for maps in rows] == [1, 1] if case.family == "Qwen-Image" else [2, 2]
