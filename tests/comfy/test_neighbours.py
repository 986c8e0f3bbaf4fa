"""What other packs do to a model: handled, or refused in a sentence that names them; never a wrong picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.comfy.test_compatibility import CFG, FORMS, invert, sample
from tests.comfy.test_compatibility import edited as edited_by

LoadCase = Callable[[str], Any]


@pytest.fixture
def case(load_case: LoadCase) -> Iterator[Any]:
    """Under inference mode, as ComfyUI calls nodes; afterwards no hook of ours is left on the model."""
    with torch.inference_mode():
        loaded = load_case("SD 1")
        yield loaded
    modules = loaded.model.model.diffusion_model.modules()
    assert not [module for module in modules if module._forward_pre_hooks or "forward" in vars(module)]


def edited(*arguments: Any, **changed: Any) -> Tensor:
    return edited_by(*arguments, **{"guidance": 0.02} | changed)


def two_samples(case: Any) -> Any:
    samples = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    return dataclasses.replace(case, latent={"samples": samples})


# ------------------------------------------------------------------------------------------- the model as it is


def test_a_plain_model_after_a_patched_one(pack: Any, case: Any):
    """The network is shared, and what the last prompt put into it stays there until the next is loaded."""
    from tests.comfy.neighbours import wrapped_modules

    changed = wrapped_modules(case)
    invert(pack, changed)
    assert [m for m in case.model.model.diffusion_model.modules() if type(m).__name__ == "Wrapped"]
    names = [layer.name for layer in layers(pack, case.model)]
    assert names and not [name for name in names if "inner" in name]
    assert [layer.name for layer in layers(pack, changed.model)] == [f"{name}.inner" for name in names]
    invert(pack, case)


def layers(pack: Any, model: Any) -> list[Any]:
    return pack.nodes.attention.text_layers(pack.nodes.attention.modules_of(model))


@pytest.mark.parametrize("kind", ["CrossAttention", "BasicTransformerBlock"])
def test_wrapped_modules_give_the_same_edit(pack: Any, case: Any, kind: str):
    from tests.comfy.neighbours import wrapped_modules

    inversion, noise = invert(pack, case)
    expected = edited(pack, "all in one", case, inversion, noise)
    found = edited(pack, "all in one", wrapped_modules(case, kind), inversion, noise)
    torch.testing.assert_close(found, expected)


class OwnAttention(nn.Module):
    """Cross-attention by a kernel of its own, which nobody can look into."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, x: Tensor, context: Tensor, **_: Any) -> Tensor:
        own = self.attention
        q, k, v = (
            layer(t).unflatten(-1, (own.heads, -1)).transpose(1, 2)
            for layer, t in ((own.to_q, x), (own.to_k, context), (own.to_v, context))
        )
        return own.to_out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def test_attention_that_cannot_be_seen(pack: Any, case: Any):
    model, name = case.model.clone(), "diffusion_model.middle_block.1.transformer_blocks.0.attn2"
    modules = dict(pack.nodes.attention.modules_of(case.model))
    model.add_object_patch(name, OwnAttention(modules[name]))
    changed = dataclasses.replace(case, model=model)
    with pytest.raises(ValueError, match=r"not so that it can be seen, its layer .*middle_block.* exchanged .*attn2"):
        invert(pack, changed)


def test_a_graph_of_a_checkpointed_block_leaves_another_pack_s_forward(pack: Any, case: Any):
    from comfy.ldm.modules.attention import SpatialTransformer

    inversion, noise = invert(pack, case)
    unet = case.model.model.diffusion_model
    block = next(module for module in unet.modules() if isinstance(module, SpatialTransformer))
    block.forward = own = lambda *args, **kwargs: SpatialTransformer.forward(block, *args, **kwargs)
    try:
        edited(pack, "all in one", case, inversion, noise, checkpointing="always")
        assert vars(block)["forward"] is own
    finally:
        del block.forward


@pytest.mark.parametrize("neighbour", ["none", "FreeU", "LoRA as a hook", "queries written over"])
def test_checkpointing_beside_patches_that_write_in_place(pack: Any, case: Any, neighbour: str):
    from comfy.ldm.modules.attention import optimized_attention

    from tests.comfy.neighbours import NEIGHBOURS

    def written_over(q: Tensor, k: Tensor, v: Tensor, options: dict[str, Any]) -> Tensor:
        out = optimized_attention(q, k, v, options["n_heads"])
        q.zero_()
        return out

    if neighbour in NEIGHBOURS:
        changed = NEIGHBOURS[neighbour](case)
    else:
        model = case.model.clone()
        for block in [("middle", 0), *((side, n) for side in ("input", "output") for n in range(12))]:
            model.set_model_attn2_replace(written_over, *block)
        changed = dataclasses.replace(case, model=model)
    inversion, noise = invert(pack, changed)
    kept, again = (
        edited(pack, "all in one", changed, inversion, noise, checkpointing=checkpointing, guidance=1.0)
        for checkpointing in ("never", "always")
    )
    torch.testing.assert_close(again, kept, rtol=1e-5, atol=1e-5)


# ---------------------------------------------------------------------------------------- passes that are left out


@pytest.mark.parametrize("node", ["EasyCache", "LazyCache"])
def test_stock_caches_are_refused_by_name(pack: Any, case: Any, node: str):
    from comfy_extras import nodes_easycache

    inversion, noise = invert(pack, case)
    cached = getattr(nodes_easycache, f"{node}Node").execute(case.model, 0.2, 0.15, 0.95, False).result[0]
    changed = dataclasses.replace(case, model=cached)
    for run in (
        lambda: invert(pack, changed),
        lambda: edited(pack, "patch", changed, inversion, noise),
        lambda: edited(pack, "all in one", changed, inversion, noise),
    ):
        with pytest.raises(ValueError, match=rf"carries {node}.* Connect the model from before {node}"):
            run()


def test_any_cache_is_refused_by_name(pack: Any, case: Any):
    """As First-Block-Cache does: from the second pass on the rest of the network is left out."""
    from comfy.patcher_extension import WrappersMP

    remembered: list[Tensor] = []

    def cached(executor: Any, *args: Any, **kwargs: Any) -> Tensor:
        if not remembered:
            remembered.append(executor(*args, **kwargs))
        return remembered[0]

    model = case.model.clone()
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "first_block_cache", cached)
    changed = dataclasses.replace(case, model=model)
    message = r"did not run, .* its layer .*In the way may be first_block_cache \(.*test_neighbours.*cached\)"
    with pytest.raises(ValueError, match=message):
        invert(pack, changed)
    inversion, noise = invert(pack, case)
    with pytest.raises(ValueError, match=message):
        edited(pack, "patch", changed, inversion, noise)


# -------------------------------------------------------------------------------------------- rows and pieces


@pytest.mark.parametrize("neighbour", ["attention couple", "tiles in one batch (TiledDiffusion)", "areas", "none"])
def test_two_pictures_together_are_each_alone(pack: Any, case: Any, neighbour: str):
    from tests.comfy.neighbours import NEIGHBOURS

    both = NEIGHBOURS[neighbour](two_samples(case))
    each = [dataclasses.replace(both, latent={"samples": both.latent["samples"][n : n + 1]}) for n in range(2)]
    together, *alone = (edited(pack, "patch", one, *invert(pack, one)) for one in (both, *each))
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-3, atol=1e-3)


def test_windows_along_the_batch(pack: Any, case: Any):
    """Samples in windows of one: every one is guided as without."""
    from tests.comfy.neighbours import wrapped_model

    def one_by_one(evaluate: Callable[..., Tensor], args: dict[str, Any]) -> Tensor:
        count = len(args["input"])
        return torch.cat([
            evaluate(
                args["input"][n : n + 1],
                args["timestep"][n : n + 1],
                **{k: c[n : n + 1] if isinstance(c, Tensor) and len(c) == count else c for k, c in args["c"].items()},
            )
            for n in range(count)
        ])  # fmt: skip

    both = two_samples(case)
    inversion, noise = invert(pack, both)
    expected = edited(pack, "guider", both, inversion, noise)
    found = edited(pack, "guider", wrapped_model(both, one_by_one), inversion, noise)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def rolled(evaluate: Callable[..., Tensor], args: dict[str, Any]) -> Tensor:
    """Pieces of a picture whose edges meet: no rectangles of the latent."""
    halves = args["input"].roll(3, 3).chunk(2, dim=3)
    return torch.cat([evaluate(half, args["timestep"], **args["c"]) for half in halves], 3).roll(-3, 3)


def half(evaluate: Callable[..., Tensor], args: dict[str, Any]) -> Tensor:
    """The left half alone, shown twice."""
    left = evaluate(args["input"][..., :8], args["timestep"], **args["c"])
    return torch.cat([left, left], 3)


def altered(evaluate: Callable[..., Tensor], args: dict[str, Any]) -> Tensor:
    """Another latent of the same form."""
    return evaluate(1.1 * args["input"], args["timestep"], **args["c"])


@pytest.mark.parametrize(
    ("wrapper", "words"),
    [
        (altered, r"runs on another latent than the sampler's.*wrapper \(.*neighbours\.altered\)"),
        (rolled, r"pieces of 16 x 8 that are not cut out of the latent.*wrapper \(.*neighbours\.rolled\)"),
        (half, r"ran on 50% of the latent.*wrapper \(.*neighbours\.half\)"),
    ],
)
@pytest.mark.parametrize("form", ["patch", "all in one"])
def test_pieces_that_cannot_be_placed(pack: Any, case: Any, wrapper: Any, words: str, form: str):
    from tests.comfy.neighbours import wrapped_model

    inversion, noise = invert(pack, case)
    with pytest.raises(ValueError, match=words):
        edited(pack, form, wrapped_model(case, wrapper), inversion, noise)


def test_a_network_that_is_run_twice_in_a_pass(pack: Any, case: Any):
    """As by packs that first show it another picture: its maps are not to be taken for the latent's."""
    from comfy.patcher_extension import WrappersMP

    def reference_first(executor: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        executor(torch.zeros_like(x), *args, **kwargs)
        return executor(x, *args, **kwargs)

    model = case.model.clone()
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "reference", reference_first)
    inversion, noise = invert(pack, case)
    for checkpointing in ("never", "always"):
        with pytest.raises(ValueError, match=r"runs its layer .* twice in one pass.*reference \("):
            changed = dataclasses.replace(case, model=model)
            edited(pack, "patch", changed, inversion, noise, checkpointing=checkpointing)


def test_tokens_that_are_merged(pack: Any, case: Any):
    """Fewer queries than places: no map of the latent."""
    model = case.model.clone()
    model.set_model_attn2_patch(lambda n, context, value, _: (n[:, ::2], context, value))
    model.set_model_attn2_output_patch(lambda n, _: n.repeat_interleave(2, 1))
    inversion, noise = invert(pack, case)
    with pytest.raises(ValueError, match=r"has 128 queries for 16 x 16 places.*attn2_patch \(.*neighbours"):
        edited(pack, "patch", dataclasses.replace(case, model=model), inversion, noise)


# ------------------------------------------------------------------------------------------------- guiders, texts


def perp_neg(case: Any, model: Any) -> Any:
    from comfy_extras.nodes_perpneg import PerpNegGuider

    from tests.comfy.neighbours import first_of

    return first_of(PerpNegGuider, model, case.target, case.negative, case.source, CFG, 1.0)


def dual_cfg(case: Any, model: Any) -> Any:
    from comfy_extras.nodes_custom_sampler import DualCFGGuider

    from tests.comfy.neighbours import first_of

    return first_of(DualCFGGuider, model, case.target, case.source, case.negative, CFG, CFG, "regular")


@pytest.mark.parametrize(
    "settings",
    [
        {"negative_from": "inversion"},
        {"cfg_start": 0.5, "negative_from": "text"},
        {"region": 0.4, "negative_from": "text"},
        {"noise_from": "fresh", "negative_from": "text"},
        {},
    ],
    ids=str,
)
def test_guiders_that_predict_past_comfyui(pack: Any, case: Any, settings: dict[str, Any]):
    """What such a guider cannot be made to do is refused; with nothing of it, it edits."""
    import comfy.samplers

    class Alone(comfy.samplers.CFGGuider):
        def __call__(self, x: Tensor, timestep: Tensor, model_options: Any = None, seed: int | None = None) -> Tensor:
            return self.predict_noise(x, timestep, model_options, seed)

    inversion, noise = invert(pack, case)
    fixed = {
        "guidance": 0.02,
        "unit": "normalized",
        "guidance_start": 0.0,
        "guidance_end": 0.5,
        "negative_from": "text",
    }
    model = pack.nodes.CrossAttnGuidance.execute(case.model, inversion, case.source, **fixed | settings).result[0]
    guider = Alone(model)
    guider.set_conds(case.target, case.negative)
    guider.set_cfg(CFG)
    if not settings:
        assert torch.isfinite(sample(guider, noise, inversion.sigmas)).all()
        return
    (name, value), *_ = settings.items()
    with pytest.raises(ValueError, match=rf"\(Alone\) predicts past ComfyUI's .* did nothing of {name} {value}\. Use"):
        sample(guider, noise, inversion.sigmas)


@pytest.mark.parametrize(("guider", "name"), [(perp_neg, "Guider_PerpNeg"), (dual_cfg, "Guider_DualCFG")])
def test_guiders_that_evaluate_their_texts_themselves(pack: Any, case: Any, guider: Any, name: str):
    inversion, noise = invert(pack, case)
    plain = sample(guider(case, case.model), noise, inversion.sigmas)

    def run(**settings: Any) -> Tensor:
        fixed = {"unit": "normalized", "guidance_start": 0.0, "guidance_end": 0.5}
        model = pack.nodes.CrossAttnGuidance.execute(case.model, inversion, case.source, **fixed, **settings).result[0]
        return sample(guider(case, model), noise, inversion.sigmas)

    for guidance in (0.0, 0.02):
        with pytest.raises(ValueError, match=rf"negative_from is inversion, .*\({name}\).* Set negative_from to text"):
            run(guidance=guidance)
    assert torch.equal(run(guidance=0.0, negative_from="text"), plain)
    assert not torch.equal(run(guidance=0.02, negative_from="text"), plain)


def test_a_guider_without_a_target(pack: Any, case: Any):
    import comfy.samplers

    inversion, noise = invert(pack, case)
    model = pack.nodes.CrossAttnGuidance.execute(
        case.model, inversion, case.source, 0.02, "normalized", 0.0, 0.5, negative_from="text"
    ).result[0]
    guider = comfy.samplers.CFGGuider(model)
    guider.inner_set_conds({"other": case.target})
    with pytest.raises(ValueError, match=r"guider \(CFGGuider\) has no text called positive.* but other"):
        sample(guider, noise, inversion.sigmas)


FRESH = {"noise_from": "fresh", "negative_from": "text"}


@pytest.mark.parametrize(
    "settings",
    [{}, {"guidance": 0.0} | FRESH, {"guidance": 0.0, "region": 0.4, "cfg_start": 0.75} | FRESH],
    ids=["guided", "in fresh noise", "for a region"],
)
@pytest.mark.parametrize("which", ["source", "target"])
def test_a_text_that_is_silent_at_a_guided_level(pack: Any, case: Any, which: str, settings: dict[str, Any]):
    import node_helpers

    inversion, noise = invert(pack, case)
    begins = 0.7 if "region" in settings else 0.5
    late = node_helpers.conditioning_set_values(getattr(case, which), {"start_percent": begins, "end_percent": 1.0})
    changed = dataclasses.replace(case, **{which: late})
    with pytest.raises(ValueError, match=rf"The {which} has no text at noise level .*Conditioning Set Timestep Range"):
        edited(pack, "guider", changed, inversion, noise, **settings)


@pytest.mark.parametrize("form", FORMS)
def test_a_controlnet_on_one_text_alone_is_no_difference_of_texts(pack: Any, case: Any, form: str):
    from tests.comfy.neighbours import controlnet

    steered = dataclasses.replace(controlnet(case), source=case.source)
    inversion, noise = invert(pack, case)
    assert torch.isfinite(edited(pack, form, steered, inversion, noise)).all()
    with pytest.raises(
        ValueError, match=r"One of source and target text has a ControlNet.*set noise_from to inversion"
    ):
        edited(pack, form, steered, inversion, noise, **FRESH)


def test_a_controlnet_on_one_part_of_both_texts_is_on_both(pack: Any, case: Any):
    from tests.comfy.neighbours import controlnet

    steered = controlnet(case)
    both = {name: [*getattr(steered, name), *getattr(case, name)] for name in ("source", "target")}
    more = {"source": steered.source, "target": [*steered.target, *steered.target]}
    inversion, noise = invert(pack, case)
    for texts in (both, more):
        changed = dataclasses.replace(steered, **texts)
        assert torch.isfinite(edited(pack, "guider", changed, inversion, noise, **FRESH)).all()


@pytest.mark.parametrize("form", FORMS)
def test_a_controlnet_takes_no_gradient(pack: Any, case: Any, form: str):
    from comfy.cldm.cldm import ControlNet

    from tests.comfy.neighbours import controlnet

    steered, taken = controlnet(case), list[bool]()
    network = next(part["control"].control_model for _, part in steered.target)
    network.register_forward_hook(lambda _, __, out: taken.extend(t.requires_grad for t in out["output"]))
    assert isinstance(network, ControlNet)
    inversion, noise = invert(pack, steered)
    edited(pack, form, steered, inversion, noise)
    assert taken and not any(taken)


def test_parts_of_different_lengths_in_one_pass(pack: Any, case: Any):
    """ComfyUI repeats the shorter one; of its copies one counts."""
    from tests.comfy.neighbours import encode

    other, long = encode(case.clip, "a red house"), encode(case.clip, "a red house on a hill " * 20)
    changed = dataclasses.replace(case, source=[*case.source, *other], target=[*case.target, *long])
    inversion, noise = invert(pack, changed)
    found, without = (edited(pack, "guider", changed, inversion, noise, guidance=g) for g in (0.02, 0.0))
    assert torch.isfinite(found).all() and not torch.equal(found, without)


def test_bounds_in_time_are_compared_as_comfyui_does(pack: Any):
    """A flow's bounds are doubles, of which a level of the grid may be the nearest float: above or below."""
    active = pack.nodes.bridge._active_parts
    for bound in (0.9265734265734266, 0.2, 0.6, 1 / 3):
        level = float(torch.tensor(bound))
        for name in ("timestep_start", "timestep_end"):
            assert active([{name: bound}], level, "target")


def test_an_area_of_a_video_is_one_of_its_pictures(pack: Any):
    place = pack.nodes.bridge._place({"area": (1, 4, 6, 0, 2, 3)}, torch.zeros(1, 4, 8, 8))
    assert tuple(place) == (2, 3, 4, 5)


@pytest.mark.parametrize("settings", [FRESH, {"region": 0.4}], ids=["fresh noise", "region"])
def test_samplers_that_step_by_the_negative(pack: Any, case: Any, settings: dict[str, Any]):
    inversion, noise = invert(pack, case)

    def run(**changed: Any) -> Tensor:
        fixed = {"unit": "normalized", "guidance_start": 0.0, "guidance_end": 0.5}
        texts = case.source, case.target, case.negative
        guider = pack.nodes.CrossAttnGuider.execute(case.model, inversion, *texts, CFG, 0.02, **fixed, **changed)
        return sample(guider.result[0], noise, inversion.sigmas, "euler_cfg_pp")

    assert torch.isfinite(run()).all()
    with pytest.raises(
        ValueError, match=r"sampler euler_cfg_pp steps by the negative's prediction.* noise_from to inv"
    ):
        run(**settings)


def test_a_target_for_an_area_alone(pack: Any, case: Any):
    """ComfyUI gives the other texts a part of that area, so that the halves are compared."""
    from tests.comfy.neighbours import area

    changed = dataclasses.replace(case, target=area([], case.target))
    inversion, noise = invert(pack, changed)
    found, without = (edited(pack, "guider", changed, inversion, noise, guidance=g) for g in (0.02, 0.0))
    assert torch.isfinite(found).all() and not torch.equal(found, without)


# ---------------------------------------------------------------------------------------------------- noise masks


@pytest.mark.parametrize("settings", [{}, FRESH], ids=["inverted noise", "fresh noise"])
def test_a_noise_mask_means_the_same_in_all_forms(pack: Any, case: Any, settings: dict[str, Any]):
    import comfy.samplers

    mask = torch.zeros(1, 1, 128, 128)
    mask[..., :64] = 1
    masked = dataclasses.replace(case, latent=case.latent | {"noise_mask": mask})
    # Below the model's highest level: there ComfyUI's own samplers begin with a little less noise outside of a mask.
    sigmas = torch.tensor([8.0, 3.0, 1.0, 0.0])
    invert_at = pack.nodes.RegularizedDDIMInvert.invert
    inversion, noise = invert_at(case.model, masked.latent, case.source, 3, 0.0, 0.0, 0, False, sigmas=sigmas)[:2]
    all_in_one = edited(pack, "all in one", masked, inversion, noise, **settings)
    assert torch.equal(inversion.mask, mask)
    guider = pack.nodes.CrossAttnGuider.execute(
        case.model, inversion, case.source, case.target, case.negative, CFG, 0.02, "normalized", 0.0, 0.5, **settings
    ).result[0]
    euler = comfy.samplers.ksampler("euler")
    other = guider.sample(
        torch.ones_like(noise["samples"]), case.latent["samples"], euler, inversion.sigmas, denoise_mask=mask
    )
    torch.testing.assert_close(all_in_one, other, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(all_in_one[..., 8:], case.latent["samples"][..., 8:], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(all_in_one[..., :8], case.latent["samples"][..., :8], atol=1e-2)
    # Nothing of what a mask leads elsewhere is taken for a change of the picture.
    if settings:
        same = dataclasses.replace(masked, target=case.source, negative=case.source)
        found = edited(pack, "all in one", same, inversion, noise, guidance=0.0, **settings)
        torch.testing.assert_close(found, case.latent["samples"], rtol=1e-4, atol=1e-4)
    plain, _ = invert_at(case.model, case.latent, case.source, 3, 0.0, 0.0, 0, False, sigmas=sigmas)[:2]
    assert not torch.allclose(edited(pack, "all in one", case, plain, noise), all_in_one, atol=1e-2)


@pytest.mark.parametrize("settings", [{}, FRESH], ids=["inverted noise", "fresh noise"])
def test_differential_diffusion_means_the_same_in_all_forms(pack: Any, case: Any, settings: dict[str, Any]):
    """A mask that is released level by level, in a run whose guided steps are parts of their own."""
    import comfy.samplers

    def released(sigma: Tensor, mask: Tensor, extra_options: dict[str, Any]) -> Tensor:
        first, last = extra_options["sigmas"][0], extra_options["sigmas"][-1]
        return (mask >= (sigma[0] - last) / (first - last)).to(mask.dtype)

    differential = case.model.clone()
    differential.set_model_denoise_mask_function(released)
    mask = torch.linspace(0, 1, 128).expand(1, 1, 128, 128).clone()
    masked = dataclasses.replace(case, model=differential, latent=case.latent | {"noise_mask": mask})
    sigmas = torch.tensor([8.0, 5.0, 3.0, 1.0, 0.5, 0.0])
    invert_at = pack.nodes.RegularizedDDIMInvert.invert
    inversion, noise = invert_at(case.model, masked.latent, case.source, 5, 0.0, 0.0, 0, False, sigmas=sigmas)[:2]
    usual = {"guidance": 0.3, "unit": "share", "guidance_start": 0.2, "guidance_end": 0.8, "cfg_start": 0.0}
    all_in_one = edited(pack, "all in one", masked, inversion, noise, **usual | settings)
    texts = case.source, case.target, case.negative, CFG
    guider = pack.nodes.CrossAttnGuider.execute(differential, inversion, *texts, **usual | settings).result[0]
    euler, picture = comfy.samplers.ksampler("euler"), case.latent["samples"]
    other = guider.sample(torch.ones_like(noise["samples"]), picture, euler, inversion.sigmas, denoise_mask=mask)
    torch.testing.assert_close(all_in_one, other, rtol=1e-3, atol=1e-3)
    plainly = edited(pack, "all in one", dataclasses.replace(masked, model=case.model), inversion, noise, **usual)
    assert not torch.allclose(plainly, all_in_one, atol=1e-2)
