"""What differs from family to family of networks, as data: where text meets image, and which tokens are whose.

Classes are named, not imported: not every ComfyUI has all of them. A network belongs to a family by its own class: what
is made of one (VACE, camera control, speech) has further inputs. A block belongs to it by any class that it is made of,
wherever it is wrapped.

    cross           the queries are the image's, the keys the text's
    text first      one call holds both, as many queries as keys: (registers) text (padding) image (padding)
    image first     the same, image text
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

Options = dict[str, Any]
"""What ComfyUI calls transformer_options."""

Order = Literal["cross", "text first", "image first"]


class Part(NamedTuple):
    """One of the embeddings that make up a text's keys: its name, and its mask's, among the model's conditions."""

    tokens: str = "c_crossattn"
    mask: str = "attention_mask"


@dataclass(frozen=True)
class Family:
    """How the networks of a kind let text and image meet.

    Attributes:
        name: as people know it.
        networks: full names of their classes; none where the blocks alone say which family it is.
        blocks: full names of the classes of their blocks; each that has such an attention is a layer of the maps.
        within: names of the lists that hold the blocks, where others of the class have another task.
        attention: name of the module of a block whose call is looked at; "" looks at the calls of the whole block, of
            which one holds text and image.
        order: of text and image in that call, from the network.
        patch: name of the network's attribute that has the side of an image token in the latent's pixels; None where
            the options of a block have the image's height and width.
        table: name of the network's attribute that says how many image tokens a side its table of positions has; None
            where it goes on for larger pictures.
        parts: what makes up the text's keys, in their order.
        registers: how many tokens stand before a text that comes first.
        multiple: name of the network's attribute whose multiples text and image are padded to; None for none, as are
            networks without it, of earlier ComfyUIs.
        replacements: name of the patches that take the place of the whole attention call, in `patches_replace`.
        project: from the attention's module and its arguments the queries, (rows, h, N, d), and keys, (rows, h, L, d),
            of a network that does not hand its options on to the attention call, so that nobody sees that.
        padded: whether tokens whose embedding is all zeros are padding.
        guided: fractions of the layers from which to which are guided unless others are asked for.
    """

    name: str
    networks: tuple[str, ...]
    blocks: tuple[str, ...]
    within: tuple[str, ...] = ()
    attention: str = ""
    order: Callable[[Any], Order] = lambda network: "text first"
    patch: str | None = "patch_size"
    table: str | None = None
    parts: tuple[Part, ...] = (Part(),)
    registers: int = 0
    multiple: str | None = None
    replacements: str = ""
    project: Callable[..., tuple[Tensor, Tensor]] | None = None
    padded: bool = True
    guided: tuple[float, float] = (0.0, 1.0)

    def attention_of(self, block: nn.Module) -> nn.Module | None:
        """Find the module whose call is looked at; None in blocks without one."""
        return getattr(block, self.attention) if self.attention else block

    def holds(self, name: str, module: nn.Module) -> bool:
        """Whether a module, by its path in the network, is one of the blocks."""
        named = not self.within or any(part in self.within for part in name.split("."))
        return named and not _names(type(module)).isdisjoint(self.blocks)

    def grid(self, network: Any, options: Options | None, height: int, width: int) -> tuple[int, int]:
        """Count the image's tokens below and beside each other.

        Args:
            network: of this family.
            options: of the block, where the network hands them on.
            height: of the piece of the latent that is run, and
            width: of the same.
        """
        if self.patch is None:
            assert options is not None
            below, beside = options["activations_shape"][2:]
            return below, beside
        patch = getattr(network, self.patch)
        side: int = patch[-1] if isinstance(patch, Sequence) else patch
        return -(-height // side), -(-width // side)

    def places(self, network: Any, queries: int, keys: int, image: int) -> tuple[slice, slice] | None:
        """Find which queries of a call are the image's and which keys the text's; None where it is another call.

        Args:
            network: of this family.
            queries: of the call, and
            keys: of the same.
            image: number of the image's tokens.
        """
        order = self.order(network)
        if order == "cross":
            return (slice(None), slice(None)) if queries == image else None
        if queries != keys or keys <= image:
            return None
        if order == "image first":
            return slice(image), slice(image, None)
        multiple = (getattr(network, self.multiple, None) if self.multiple else None) or 1
        begin = keys + -image // multiple * multiple
        return slice(begin, begin + image), slice(self.registers, begin)

    def own_tokens(self, conditions: dict[str, Any]) -> list[Tensor]:
        """Find the tokens of a text that are no padding and not masked, in every row of a batch.

        Args:
            conditions: the model's, of a part of a conditioning.

        Returns:
            for every part of the text a flag a token, (L,).
        """
        found: list[Tensor] = []
        for part in self.parts:
            if part.tokens not in conditions:
                continue
            tokens: Tensor = conditions[part.tokens].cond
            own = torch.ones(tokens.shape[-2], dtype=torch.bool, device=tokens.device)
            if self.padded:
                own = tokens.any(-1).flatten(0, -2).all(0)
            mask = conditions[part.mask].cond if part.mask in conditions else None
            if mask is not None and mask.shape[-1] == len(own):
                own = own & (mask > 0).reshape(-1, len(own)).all(0).to(own.device)
            found.append(own.cpu())
        return found


def _names(kind: type[Any]) -> set[str]:
    """The full names of a class and of what it is made of."""
    return {f"{base.__module__}.{base.__qualname__}" for base in kind.__mro__}


def family_of(modules: Iterable[nn.Module]) -> tuple[Family, nn.Module | None]:
    """Find the family of a network by the class of one of its modules, outermost first.

    Returns:
        the family and that module; UNets, whose blocks alone tell them, where there is none.
    """
    for module in modules:
        name = f"{type(module).__module__}.{type(module).__qualname__}"
        for family in TRANSFORMERS:
            if name in family.networks:
                return family, module
    return UNET, None


def _cross(network: Any) -> Order:
    return "cross"


def _image_first(network: Any) -> Order:
    return "image first"


def _hunyuan_order(network: Any) -> Order:
    """ComfyUI 0.3.75 has the image first; later ones do not flip it."""
    return "image first" if getattr(network.double_blocks[0], "flipped_img_txt", False) else "text first"


def _pixart_projections(module: Any, x: Tensor, cond: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
    q = module.q_linear(x).unflatten(-1, (module.num_heads, -1))
    # The texts of a batch come in one row.
    k = module.kv_linear(cond).view(len(x), -1, 2, module.num_heads, module.head_dim)[:, :, 0]
    return q.transpose(1, 2), k.transpose(1, 2)


def _hunyuan_dit_projections(module: Any, x: Tensor, y: Tensor, freqs_cis_img: Any = None) -> tuple[Tensor, Tensor]:
    from comfy.ldm.hydit import attn_layers

    rotate: Callable[..., tuple[Tensor, Any]] = attn_layers.apply_rotary_emb
    q = module.q_norm(module.q_proj(x).unflatten(-1, (module.num_heads, -1)))
    k = module.k_norm(module.kv_proj(y).unflatten(-1, (2, module.num_heads, -1))[:, :, 0])
    if freqs_cis_img is not None:
        q, _ = rotate(q, None, freqs_cis_img)
    return q.transpose(1, 2), k.transpose(1, 2)


UNET = Family(
    name="Stable Diffusion 1, 2 and XL",
    networks=(),
    blocks=("comfy.ldm.modules.attention.BasicTransformerBlock",),
    attention="attn2",
    order=_cross,
    patch=None,
    replacements="attn2",
    padded=False,
)
"""Padding counts as text, as in the paper: CLIP's says as much of a text as its last word does."""

FLUX_BLOCKS = ("comfy.ldm.flux.layers.DoubleStreamBlock", "comfy.ldm.flux.layers.SingleStreamBlock")

TRANSFORMERS = (
    Family(
        name="Stable Diffusion 3 and 3.5",
        networks=("comfy.ldm.modules.diffusionmodules.mmdit.OpenAISignatureMMDITWrapper",),
        blocks=("comfy.ldm.modules.diffusionmodules.mmdit.JointBlock",),
        table="pos_embed_max_size",
    ),
    Family(name="Flux", networks=("comfy.ldm.flux.model.Flux",), blocks=FLUX_BLOCKS, guided=(0.0, 0.5)),
    Family(
        name="Chroma",
        networks=("comfy.ldm.chroma.model.Chroma",),
        # The second pair is of ComfyUI 0.3.60, in which Chroma has blocks of its own.
        blocks=(*FLUX_BLOCKS, "comfy.ldm.chroma.layers.DoubleStreamBlock", "comfy.ldm.chroma.layers.SingleStreamBlock"),
        guided=(0.0, 0.5),
    ),
    Family(
        name="Lumina 2 and Z-Image",
        networks=("comfy.ldm.lumina.model.NextDiT",),
        blocks=("comfy.ldm.lumina.model.JointTransformerBlock",),
        within=("layers",),
        multiple="pad_tokens_multiple",
        guided=(0.0, 0.5),
    ),
    Family(
        name="Qwen-Image",
        networks=("comfy.ldm.qwen_image.model.QwenImageTransformer2DModel",),
        blocks=("comfy.ldm.qwen_image.model.QwenImageTransformerBlock",),
        guided=(0.0, 0.5),
    ),
    Family(
        name="Krea 2",
        networks=("comfy.ldm.krea2.model.SingleStreamDiT",),
        blocks=("comfy.ldm.krea2.model.SingleStreamBlock",),
        patch="patch",
        guided=(0.0, 0.5),
    ),
    Family(
        name="AuraFlow",
        networks=("comfy.ldm.aura.mmdit.MMDiT",),
        blocks=("comfy.ldm.aura.mmdit.MMDiTBlock", "comfy.ldm.aura.mmdit.DiTBlock"),
        registers=8,
        guided=(0.0, 0.5),
    ),
    Family(
        name="HiDream",
        networks=("comfy.ldm.hidream.model.HiDreamImageTransformer2DModel",),
        blocks=("comfy.ldm.hidream.model.HiDreamImageBlock",),
        order=_image_first,
        # T5's, then those of Llama's last layer, then those of the block's own layer of Llama
        parts=(Part(), *(Part("encoder_hidden_states_llama3", ""),) * 2),
        guided=(0.0, 0.5),
    ),
    Family(
        name="HunyuanImage",
        networks=("comfy.ldm.hunyuan_video.model.HunyuanVideo",),
        blocks=FLUX_BLOCKS,
        order=_hunyuan_order,
        parts=(Part(), Part("txt_byt5", "")),
        guided=(0.0, 0.5),
    ),
    Family(
        name="PixArt",
        networks=("comfy.ldm.pixart.pixartms.PixArtMS",),
        blocks=("comfy.ldm.pixart.pixartms.PixArtMSBlock",),
        attention="cross_attn",
        order=_cross,
        project=_pixart_projections,
    ),
    Family(
        name="HunyuanDiT",
        networks=("comfy.ldm.hydit.models.HunYuanDiT",),
        blocks=("comfy.ldm.hydit.models.HunYuanDiTBlock",),
        attention="attn2",
        order=_cross,
        parts=(
            Part(mask="text_embedding_mask"),
            Part("encoder_hidden_states_t5", "text_embedding_mask_t5"),
        ),
        project=_hunyuan_dit_projections,
    ),
    Family(
        name="Wan (one frame)",
        networks=("comfy.ldm.wan.model.WanModel",),
        blocks=("comfy.ldm.wan.model.WanAttentionBlock",),
        attention="cross_attn",
        order=_cross,
        guided=(0.0, 0.5),
    ),
    Family(
        name="Cosmos Predict 2 and Anima",
        networks=("comfy.ldm.cosmos.predict2.MiniTrainDIT", "comfy.ldm.anima.model.Anima"),
        blocks=("comfy.ldm.cosmos.predict2.Block",),
        within=("blocks",),
        attention="cross_attn",
        order=_cross,
        patch="patch_spatial",
    ),
    Family(
        name="Kandinsky 5 Image",
        networks=("comfy.ldm.kandinsky5.model.Kandinsky5",),
        blocks=("comfy.ldm.kandinsky5.model.TransformerDecoderBlock",),
        attention="cross_attention",
        order=_cross,
        guided=(0.0, 0.5),
    ),
)
"""Which layers are guided by default is a matter of memory here: half of them where the full size has billions of
weights. What that does to an edit nobody has measured."""

FAMILIES = (UNET, *TRANSFORMERS)


def text_positions(family: Family, texts: Sequence[dict[str, Any]]) -> list[Tensor]:
    """Find the tokens by which texts are compared: as many of each part as all of them have, from its first on.

    Args:
        family: of the network.
        texts: the model's conditions of each.

    Returns:
        for each text positions among its keys, ascending, all the same number.
    """
    own = [family.own_tokens(conditions) for conditions in texts]
    positions: list[list[Tensor]] = [[] for _ in texts]
    begins = [0] * len(texts)
    for parts in zip(*own, strict=False):
        common = min(int(part.sum()) for part in parts)
        for number, part in enumerate(parts):
            positions[number].append(begins[number] + part.nonzero()[:common, 0])
            begins[number] += len(part)
    return [torch.cat(found) for found in positions]


def length_of(family: Family, conditions: dict[str, Any]) -> int:
    """Count the keys of a text, padding and all."""
    return sum(conditions[part.tokens].cond.shape[-2] for part in family.parts if part.tokens in conditions)
