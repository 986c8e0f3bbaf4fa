"""What other nodes do to a model and its texts, by ComfyUI's own nodes where it has one: neighbours of the guidance."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from typing import Any

import comfy.controlnet
import comfy.hooks
import comfy.samplers
import comfy.sd
import node_helpers
import torch
import torch.nn.functional as F
from comfy.cldm.cldm import ControlNet
from comfy.ldm.modules.attention import BasicTransformerBlock, optimized_attention
from comfy.model_patcher import set_model_options_patch_replace
from comfy.patcher_extension import WrappersMP
from comfy_api.torch_helpers.torch_compile import COMPILE_KEY, apply_torch_compile_factory
from comfy_extras import (
    nodes_context_windows,
    nodes_freelunch,
    nodes_fresca,
    nodes_hypertile,
    nodes_model_advanced,
    nodes_model_downscale,
    nodes_pag,
    nodes_sag,
    nodes_tomesd,
)
from torch import Tensor, nn

import nodes as stock
from tests.comfy import families


@dataclass(frozen=True)
class Case:
    """What an edit takes: a model of a family, its texts and a latent."""

    family: str
    model: Any
    clip: Any
    source: Any
    target: Any
    negative: Any
    latent: dict[str, Tensor]


def encode(clip: Any, text: str) -> Any:
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))


def first_of(node: Any, *given: Any) -> Any:
    """The first output of a stock node, whichever way it is written: from release to release more move to V3."""
    output = getattr(node(), node.FUNCTION)(*given)
    return getattr(output, "result", output)[0]


def patched(case: Case, node: Any, *settings: Any) -> Case:
    """Put the model through a stock node."""
    return dataclasses.replace(case, model=first_of(node, case.model, *settings))


def random_lora(model: Any) -> dict[str, Tensor]:
    """Of the attention to the text, or where it has no module of its own, of all attention."""
    generator = torch.Generator().manual_seed(9)
    lora: dict[str, Tensor] = {}
    weights = {name: weight for name, weight in model.model.diffusion_model.state_dict().items() if weight.ndim == 2}
    chosen = [name for name in weights if ".attn2.to_" in name] or [name for name in weights if "att" in name]
    for name in chosen:
        key, (rows, columns) = "diffusion_model." + name.removesuffix(".weight"), weights[name].shape
        lora[f"{key}.lora_up.weight"] = 0.1 * torch.randn(rows, 2, generator=generator)
        lora[f"{key}.lora_down.weight"] = 0.1 * torch.randn(2, columns, generator=generator)
    return lora


def none(case: Case) -> Case:
    return case


def lora(case: Case) -> Case:
    model, _ = comfy.sd.load_lora_for_models(case.model, None, random_lora(case.model), 1.0, 0.0)
    return dataclasses.replace(case, model=model)


def hook_lora(case: Case) -> Case:
    hooks = comfy.hooks.create_hook_lora(random_lora(case.model), 1.0, 0.0)
    source, target = (comfy.hooks.set_hooks_for_conditioning(c, hooks) for c in (case.source, case.target))
    return dataclasses.replace(case, source=source, target=target)


def controlnet(case: Case) -> Case:
    arguments = families.unet_arguments(case.family) | {"in_channels": 4, "hint_channels": 3}
    for name in ("out_channels", "transformer_depth_output"):
        del arguments[name]
    network = ControlNet(**arguments, operations=comfy.ops.disable_weight_init)
    families.randomize(network, 5)
    control = comfy.controlnet.ControlNet(network, load_device=torch.device("cpu"))
    hint = torch.rand(1, 128, 128, 3, generator=torch.Generator().manual_seed(1))

    def controlled(positive: Any, negative: Any) -> Any:
        return stock.ControlNetApplyAdvanced().apply_controlnet(positive, negative, control, hint, 0.5, 0.0, 1.0)

    target, negative = controlled(case.target, case.negative)
    return dataclasses.replace(case, source=controlled(case.source, [])[0], target=target, negative=negative)


def freeu(case: Case) -> Case:
    return patched(case, nodes_freelunch.FreeU_V2, 1.3, 1.4, 0.9, 0.2)


def pag(case: Case) -> Case:
    return patched(case, nodes_pag.PerturbedAttentionGuidance, 2.0)


def sag(case: Case) -> Case:
    return patched(case, nodes_sag.SelfAttentionGuidance, 0.5, 2.0)


def smoothed_energy(case: Case) -> Case:
    """As SEG does (Hong, 2024, arXiv:2408.00760): away from what the model says where self-attention is blurred."""

    def blurred(q: Tensor, k: Tensor, v: Tensor, options: dict[str, Any]) -> Tensor:
        width = options["activations_shape"][-1]
        rows = F.avg_pool2d(q.transpose(1, 2).unflatten(-1, (-1, width)), 3, 1, 1, count_include_pad=False)
        return optimized_attention(rows.flatten(2).transpose(1, 2), k, v, options["n_heads"])

    def away(args: dict[str, Any]) -> Tensor:
        options = set_model_options_patch_replace(args["model_options"].copy(), blurred, "attn1", "middle", 0)
        call = args["model"], [args["cond"]], args["input"], args["sigma"], options
        (smoothed,) = comfy.samplers.calc_cond_batch(*call)
        return args["denoised"] + 2.0 * (args["cond_denoised"] - smoothed)

    model = case.model.clone()
    model.set_model_sampler_post_cfg_function(away)
    return dataclasses.replace(case, model=model)


def hypertile(case: Case) -> Case:
    return patched(case, nodes_hypertile.HyperTile, 32, 1, 1, False)


def ip_adapter(case: Case) -> Case:
    """As IPAdapter does: attn2 is replaced everywhere by one that also looks at the tokens of an image."""
    generator = torch.Generator().manual_seed(5)
    images: dict[int, Tensor] = {}

    def attention(q: Tensor, k: Tensor, v: Tensor, options: dict[str, Any]) -> Tensor:
        width = q.shape[-1]
        if width not in images:
            images[width] = torch.randn(2, 1, 4, width, generator=generator)
        image_k, image_v = (t.expand(len(q), -1, -1) for t in images[width])
        heads = options["n_heads"]
        return optimized_attention(q, k, v, heads) + 0.5 * optimized_attention(q, image_k, image_v, heads)

    model = case.model.clone()
    for block in [("middle", 0), *((side, n) for side in ("input", "output") for n in range(12))]:
        model.set_model_attn2_replace(attention, *block)
    return dataclasses.replace(case, model=model)


def normalized_attention(case: Case) -> Case:
    """As NAG does (Chen et al., 2025, arXiv:2505.21179): attn2 is replaced by one that leads rows away from a text."""
    other = encode(case.clip, "a red house")[0][0]

    def replacement(attention: nn.Module) -> Callable[..., Tensor]:
        keys, values = attention.to_k(other), attention.to_v(other)

        def attend(q: Tensor, k: Tensor, v: Tensor, options: dict[str, Any]) -> Tensor:
            kinds, heads = options["cond_or_uncond"], options["n_heads"]
            chunks = list(optimized_attention(q, k, v, heads).chunk(len(kinds)))
            for n, (kind, queries) in enumerate(zip(kinds, q.chunk(len(kinds)), strict=True)):
                if kind == 0:
                    unwanted = optimized_attention(
                        queries, *(t.expand(len(queries), -1, -1) for t in (keys, values)), heads
                    )
                    led = chunks[n] + 2.0 * (chunks[n] - unwanted)
                    ratio = led.norm(p=1, dim=-1, keepdim=True) / chunks[n].norm(p=1, dim=-1, keepdim=True)
                    chunks[n] = chunks[n].lerp(led * ratio.clamp(max=2.5) / ratio, 0.5)
            return torch.cat(chunks)

        return attend

    model = case.model.clone()
    for name, block in case.model.model.diffusion_model.named_modules():
        if isinstance(block, BasicTransformerBlock):
            side, number, *_, index = name.replace("middle_block.1", "middle_block.0").split(".")
            model.set_model_attn2_replace(replacement(block.attn2), side.partition("_")[0], int(number), int(index))
    return dataclasses.replace(case, model=model)


def area(conditioning: Any, other: Any) -> Any:
    """A text for the whole picture and another for its left half."""
    (half,) = stock.ConditioningSetAreaPercentage().append(other, 0.5, 1.0, 0.0, 0.0, 1.0)
    return [*conditioning, *half]


def areas(case: Case) -> Case:
    other = encode(case.clip, "a red house")
    return dataclasses.replace(case, source=area(case.source, other), target=area(case.target, other))


def two_areas(case: Case) -> Case:
    """Texts for both halves of the picture, of one size: the negative, for all of it, gets a copy for each."""

    def halves(left: Any, right: Any) -> Any:
        place = stock.ConditioningSetAreaPercentage().append
        return [*place(left, 0.5, 1.0, 0.0, 0.0, 1.0)[0], *place(right, 0.5, 1.0, 0.5, 0.0, 1.0)[0]]

    other = encode(case.clip, "a red house")
    return dataclasses.replace(case, source=halves(case.source, other), target=halves(case.target, other))


def area_of_the_target(case: Case) -> Case:
    return dataclasses.replace(case, target=area(case.target, encode(case.clip, "a red house")))


def text_mask(case: Case) -> Case:
    mask = torch.zeros(1, 128, 128)
    mask[:, :, 64:] = 1
    source, target = (
        [*c, *stock.ConditioningSetMask().append(encode(case.clip, "a red house"), mask, "default", 1.0)[0]]
        for c in (case.source, case.target)
    )
    return dataclasses.replace(case, source=source, target=target)


def long_target(case: Case) -> Case:
    return dataclasses.replace(case, target=encode(case.clip, "a painting of two dogs, " * 20))


def long_source(case: Case) -> Case:
    return dataclasses.replace(case, source=encode(case.clip, "a drawing of a cat, " * 20))


def noise_mask(case: Case) -> Case:
    mask = torch.zeros(1, 1, 128, 128)
    mask[..., :64] = 1
    return dataclasses.replace(case, latent=case.latent | {"noise_mask": mask})


def inpainting_conditioning(case: Case) -> Case:
    """As InpaintModelConditioning does: the model is shown what lies outside of a mask."""
    mask = torch.zeros(1, 1, 128, 128)
    mask[..., :64] = 1
    return conditioned(case, {"concat_latent_image": 0.3 * case.latent["samples"], "concat_mask": mask})


def size_conditioning(case: Case) -> Case:
    """As CLIPTextEncodeSDXL does."""
    sizes = {"width": 512, "height": 768, "crop_w": 64, "crop_h": 32, "target_width": 2048, "target_height": 1024}
    return conditioned(case, sizes)


def rescale_cfg(case: Case) -> Case:
    return patched(case, nodes_model_advanced.RescaleCFG, 0.7)


def fresca(case: Case) -> Case:
    return patched(case, nodes_fresca.FreSca, 1.0, 1.25, 4)


def merged_tokens(case: Case) -> Case:
    return patched(case, nodes_tomesd.TomePatchModel, 0.3)


def deep_shrink(case: Case) -> Case:
    return patched(case, nodes_model_downscale.PatchModelAddDownscale, 3, 2.0, 0.0, 1.0, True, "bicubic", "bicubic")


def context_windows(case: Case) -> Case:
    """Along the picture's width."""
    node = nodes_context_windows.ContextWindowsManualNode
    later = {"freenoise": False} if "freenoise" in signature(node.execute).parameters else {}
    return patched(case, node, 8, 4, "standard_static", 1, False, "pyramid", 3, *later.values())


def cut(args: dict[str, Any], starts: tuple[int, ...], width: int) -> tuple[Tensor, dict[str, Any]]:
    """Input and conditioning of pieces of the picture, in one batch."""
    conditioning = {key: torch.cat([c] * len(starts)) for key, c in args["c"].items() if isinstance(c, Tensor)}
    cut_out = {"input": args["input"], **args["c"]}
    for name in {"input", "c_concat"} & cut_out.keys():
        conditioning[name] = torch.cat([cut_out[name][..., start : start + width] for start in starts])
    return conditioning.pop("input"), args["c"] | conditioning


def pieces(evaluate: Callable[..., Tensor], args: dict[str, Any]) -> Tensor:
    """The left and the right half, one after the other."""
    width = args["input"].shape[-1] // 2
    halves = [cut(args, (start,), width) for start in (0, width)]
    return torch.cat([evaluate(half, args["timestep"], **conditioning) for half, conditioning in halves], 3)


def pieces_at_once(evaluate: Callable[..., Tensor], args: dict[str, Any]) -> Tensor:
    """As ComfyUI-TiledDiffusion does: overlapping pieces in one batch, blended, and no gradients."""
    with torch.inference_mode():
        starts = (0, 5, 8)
        tiles, conditioning = cut(args, starts, 8)
        parts = evaluate(tiles, torch.cat([args["timestep"]] * len(starts)), **conditioning).chunk(len(starts))
        total, count = torch.zeros_like(args["input"]), torch.zeros_like(args["input"])
        for start, part in zip(starts, parts, strict=True):
            total[..., start : start + 8] += part
            count[..., start : start + 8] += 1
        return total / count


def wrapped_model(case: Case, wrapper: Callable[..., Tensor]) -> Case:
    model = case.model.clone()
    model.set_model_unet_function_wrapper(wrapper)
    return dataclasses.replace(case, model=model)


def tiles(case: Case) -> Case:
    return wrapped_model(case, pieces)


def tiles_at_once(case: Case) -> Case:
    return wrapped_model(case, pieces_at_once)


def inference_mode(case: Case) -> Case:
    return wrapped_model(
        case, torch.inference_mode()(lambda evaluate, args: evaluate(args["input"], args["timestep"], **args["c"]))
    )


class Wrapped(nn.Module):
    """A module in a module, as packs put it there to look at its calls."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner(*args, **kwargs)


class Exchanged(Wrapped):
    """A network round a network that passes for it, as torch.compile's OptimizedModule does."""

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.inner, name)


def compiled(case: Case) -> Case:
    """As TorchCompileModel does, but that nothing is compiled: a network round the network, put there for each call."""
    model = case.model.clone()
    exchanged = {"diffusion_model": Exchanged(case.model.model.diffusion_model)}
    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, COMPILE_KEY, apply_torch_compile_factory(exchanged))
    return dataclasses.replace(case, model=model)


def wrapped_modules(case: Case, kind: str = "BasicTransformerBlock") -> Case:
    model = case.model.clone()
    for name, module in case.model.model.diffusion_model.named_modules():
        if type(module).__name__ == kind:
            model.add_object_patch(f"diffusion_model.{name}", Wrapped(module))
    return dataclasses.replace(case, model=model)


def attention_couple(case: Case) -> Case:
    """Another text for the right half: rows are repeated before the attention to the text, and blended after it."""
    other = encode(case.clip, "a red house")[0][0]

    def before(q: Tensor, k: Tensor, v: Tensor, options: dict[str, Any]) -> tuple[Tensor, ...]:
        kinds, repeated = options["cond_or_uncond"], ([], [], [])
        for kind, *chunk in zip(kinds, *(t.chunk(len(kinds)) for t in (q, k, v)), strict=True):
            text = other.expand(len(chunk[0]), -1, -1).to(chunk[1])
            for rows, own, added in zip(repeated, chunk, (chunk[0], text, text), strict=True):
                rows += [own] if kind else [own, added]
        return tuple(map(torch.cat, repeated))

    def after(out: Tensor, options: dict[str, Any]) -> Tensor:
        kinds, (_, _, height, width) = options["cond_or_uncond"], options["activations_shape"]
        left = (torch.arange(width) < width / 2).to(out).repeat(height)[None, :, None]
        size, blended = len(out) // sum(1 if kind else 2 for kind in kinds), []
        rows = list(out.split(size))
        for kind in kinds:
            own = rows.pop(0)
            blended.append(own if kind else own * left + rows.pop(0) * (1 - left))
        return torch.cat(blended)

    model = case.model.clone()
    model.set_model_attn2_patch(before)
    model.set_model_attn2_output_patch(after)
    return dataclasses.replace(case, model=model)


def keys_and_values_apart(case: Case) -> Case:
    """As NegPip does: keys and values by turns in the text, twice as many tokens, which attn2 takes apart again."""

    def doubled(conditioning: Any) -> Any:
        return [[torch.stack([t, 1.1 * t], 2).flatten(1, 2), values] for t, values in conditioning]

    model = case.model.clone()
    model.set_model_attn2_patch(lambda q, k, v, _: (q, k[:, 0::2], v[:, 1::2]))
    texts = {name: doubled(getattr(case, name)) for name in ("source", "target", "negative")}
    return dataclasses.replace(case, model=model, **texts)


def other_attention(case: Case) -> Case:
    """An override of another pack, which sharpens all attention."""

    def sharper(function: Callable[..., Tensor], q: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return function(1.2 * q, *args, **kwargs)

    model = case.model.clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = sharper
    return dataclasses.replace(case, model=model)


def attention_without_gradient(case: Case) -> Case:
    """An override that brings its own kernel, as those for sage attention do."""

    def kernel(_: Any, *args: Any, **kwargs: Any) -> Tensor:
        with torch.no_grad():
            return optimized_attention(*args, **kwargs | {"_inside_attn_wrapper": True})

    model = case.model.clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = kernel
    return dataclasses.replace(case, model=model)


def scheduled_target(case: Case) -> Case:
    """Another text from the second step on."""
    begin, end = (
        node_helpers.conditioning_set_values(text, {"start_percent": start, "end_percent": stop})
        for text, start, stop in ((case.target, 0.0, 0.3), (encode(case.clip, "a red house"), 0.3, 1.0))
    )
    return dataclasses.replace(case, target=[*begin, *end])


def conditioned(case: Case, values: dict[str, Any]) -> Case:
    source, target, negative = (
        node_helpers.conditioning_set_values(c, values) for c in (case.source, case.target, case.negative)
    )
    return dataclasses.replace(case, source=source, target=target, negative=negative)


NEIGHBOURS: dict[str, Callable[[Case], Case]] = {
    "none": none,
    "LoRA": lora,
    "LoRA as a hook": hook_lora,
    "ControlNet": controlnet,
    "FreeU": freeu,
    "PAG": pag,
    "SAG": sag,
    "SEG": smoothed_energy,
    "HyperTile": hypertile,
    "attn2 replaced (IPAdapter)": ip_adapter,
    "attn2 led away from a negative (NAG)": normalized_attention,
    "areas": areas,
    "two areas of one size": two_areas,
    "area in the target only": area_of_the_target,
    "masked text": text_mask,
    "target of two chunks": long_target,
    "source of two chunks": long_source,
    "noise mask": noise_mask,
    "inpainting conditioning": inpainting_conditioning,
    "size conditioning": size_conditioning,
    "RescaleCFG": rescale_cfg,
    "FreSca": fresca,
    "ToMe": merged_tokens,
    "DeepShrink": deep_shrink,
    "context windows": context_windows,
    "tiles": tiles,
    "tiles in one batch (TiledDiffusion)": tiles_at_once,
    "inference mode": inference_mode,
    "network exchanged in each call (TorchCompile)": compiled,
    "wrapped modules": wrapped_modules,
    "attention couple": attention_couple,
    "keys and values apart (NegPip)": keys_and_values_apart,
    "attention override": other_attention,
    "attention override without gradient": attention_without_gradient,
    "scheduled target": scheduled_target,
}
"""Name -> what it makes of a case."""
