"""What other nodes do to a model and its texts, by ComfyUI's own nodes where it has one: neighbours of the guidance."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfy.controlnet
import comfy.hooks
import comfy.sd
import node_helpers
import torch
from comfy.cldm.cldm import ControlNet
from comfy.ldm.modules.attention import optimized_attention
from comfy_extras import nodes_freelunch, nodes_hypertile, nodes_pag, nodes_sag
from torch import Tensor

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


def patched(case: Case, node: Any, *settings: Any) -> Case:
    """Put the model through a stock node, whichever way it is written: from release to release more move to V3."""
    output = getattr(node(), node.FUNCTION)(case.model, *settings)
    return dataclasses.replace(case, model=getattr(output, "result", output)[0])


def random_lora(model: Any) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(9)
    lora: dict[str, Tensor] = {}
    for name, weight in model.model.diffusion_model.state_dict().items():
        if ".attn2.to_" in name and weight.ndim == 2:
            key = "diffusion_model." + name.removesuffix(".weight")
            lora[f"{key}.lora_up.weight"] = 0.1 * torch.randn(weight.shape[0], 2, generator=generator)
            lora[f"{key}.lora_down.weight"] = 0.1 * torch.randn(2, weight.shape[1], generator=generator)
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


def area(conditioning: Any, other: Any) -> Any:
    """A text for the whole picture and another for its left half."""
    (half,) = stock.ConditioningSetAreaPercentage().append(other, 0.5, 1.0, 0.0, 0.0, 1.0)
    return [*conditioning, *half]


def areas(case: Case) -> Case:
    other = encode(case.clip, "a red house")
    return dataclasses.replace(case, source=area(case.source, other), target=area(case.target, other))


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
    "HyperTile": hypertile,
    "attn2 replaced (IPAdapter)": ip_adapter,
    "areas": areas,
    "area in the target only": area_of_the_target,
    "masked text": text_mask,
    "target of two chunks": long_target,
    "source of two chunks": long_source,
    "noise mask": noise_mask,
    "inpainting conditioning": inpainting_conditioning,
    "size conditioning": size_conditioning,
}
"""Name -> what it makes of a case."""
