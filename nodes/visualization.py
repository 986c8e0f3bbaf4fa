"""AttentionMaps and Compare: where the model looks for a word, and what became of the picture."""

# ComfyUI's base classes leave the arguments of what they call open.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

import comfy.samplers
import comfy.utils
import numpy as np
import torch
from comfy.sd1_clip import escape_important, token_weights, unescape_important
from comfy_api.v0_0_2 import io
from PIL import Image, ImageDraw
from torch import Tensor

from ..pix2pix_zero_core import AttentionMaps as Maps
from ..pix2pix_zero_core import Inversion
from ..pix2pix_zero_core.tokens import occurrences, written
from ..pix2pix_zero_core.types import check_pictures
from .bridge import (
    SOURCE,
    TARGET,
    Conditioning,
    GuiderDenoiser,
    framed,
    require_cross_attention_model,
    require_inversion_of,
)
from .saying import said
from .text_encoder import readings, tokenize_each
from .types import CATEGORY, InversionType, search_aliases

CAPTION_HEIGHT = 24  # pixels of the strip that carries a word or a title

REMEDIES = {
    "source": "Enter the text from which the source was encoded.",
    "target": "Connect a target that Apply Edit Direction made of the source: its words stand where the source's do.",
}
"""Input -> what to do where its text has no such place."""


class AttentionMaps(io.ComfyNode):
    """Cross-attention maps as heat maps over the picture (arXiv:2302.03027, figure 4)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="Pix2PixZeroAttentionMaps",
            display_name="Attention Maps",
            category=CATEGORY,
            **search_aliases("DAAM", "heatmap", "word attribution"),
            description="Show where the model looks for each word: one sheet a word, from the noise on the left to the "
            "picture on the right; the original in the upper row, the edited picture, if it is connected, in the "
            "lower. Where the rows differ, the layout was lost.",
            inputs=[
                io.Model.Input("model", tooltip="The model of the inversion."),
                InversionType.Input("inversion", tooltip="From Regularized DDIM Invert: the way of the original."),
                io.Conditioning.Input("source", tooltip="Text of the original."),
                io.Clip.Input("clip", tooltip="The text encoder of the source; it finds the words' places."),
                io.Image.Input("image", tooltip="The picture under the maps."),
                io.String.Input(
                    "text", default="", multiline=True, tooltip="What the source was encoded from: the caption."
                ),
                io.String.Input(
                    "words", default="", tooltip="The words to show, with commas between them. Empty: every word."
                ),
                io.Int.Input("moments", default=5, min=1, max=50, tooltip="How many steps are shown, evenly spread."),
                io.Int.Input("picture", default=0, min=0, max=4095, tooltip="Which picture of a batch is shown."),
                InversionType.Input(
                    "edited", optional=True, tooltip="The way of the edited picture: path of the guided sampler."
                ),
                io.Conditioning.Input(
                    "target",
                    optional=True,
                    tooltip="Text of the edited picture, if it is shown. Its words must stand where the source's do, "
                    "as they do in what Apply Edit Direction makes.",
                ),
            ],
            outputs=[
                io.Image.Output("sheets", display_name="sheets", tooltip="One sheet a word."),
                io.Mask.Output(
                    "mask",
                    display_name="mask",
                    tooltip="The original's map of each word, mean over the moments, 0 to 1.",
                ),
                io.Mask.Output(
                    "edited_mask",
                    display_name="edited_mask",
                    tooltip="The edited picture's, on the same scale; the original's where none is connected.",
                ),
            ],
        )

    @classmethod
    def execute(  # noqa: D102
        cls,
        model: Any,
        inversion: Inversion,
        source: Conditioning,
        clip: Any,
        image: Tensor,
        text: str,
        words: str,
        moments: int,
        picture: int,
        edited: Inversion | None = None,
        target: Conditioning | None = None,
    ) -> io.NodeOutput:
        if (edited is None) != (target is None):
            raise ValueError("edited and target belong together: connect both to see the edited picture, or neither.")
        if moments < 1:
            raise ValueError(f"moments is {moments}; it must be 1 or more.")
        if picture >= len(inversion.noise):
            raise ValueError(f"picture is {picture}; the inversion has {len(inversion.noise)}, counted from 0.")
        if edited is not None and picture >= len(edited.noise):
            raise ValueError(f"picture is {picture}; the edited path has {len(edited.noise)}, counted from 0.")
        check_pictures(image, "image", channels=(3, 4))
        require_one_or_each("image", len(image), "the inversion", len(inversion.noise))
        places = word_places(clip, text, [word.strip() for word in words.split(",") if word.strip()])
        rows = [watch(model, inversion, source, moments, picture)]
        if edited is not None and target is not None:
            rows.append(watch(model, edited, target, moments, picture))
        for name, row in zip(("source", "target"), rows, strict=False):
            require_places(places, row[0], name)
        under = image[picture if len(image) > 1 else 0]
        latent, pixels = inversion.noise.shape[-2:], under.shape[:2]
        heat = torch.stack([torch.stack([_heat(maps, places, pixels, latent) for maps in row]) for row in rows])
        if not bool(torch.isfinite(heat).all()):
            raise ValueError("The maps hold NaN or Inf. Check source and target, or run model and CLIP in float32.")
        # (rows, moments, words, H, W), one scale a word; of a word that nothing looks at, all 0
        heat = heat / heat.amax((0, 1, 3, 4), keepdim=True).clamp(min=torch.finfo(heat.dtype).tiny)
        sheets = [
            captioned(torch.cat([torch.cat([_overlay(under, m) for m in row], 1) for row in heat[:, :, index]]), word)
            for index, word in enumerate(places)
        ]
        masks = heat.mean(1)
        if warning := form_warning(under.shape[:2], inversion.noise.shape[-2:]):
            logging.warning("Attention Maps: %s", warning)
        return io.NodeOutput(torch.stack(sheets), masks[0], masks[-1], ui=said(warning=warning))


class Compare(io.ComfyNode):
    """Source, reconstruction and edit side by side."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="Pix2PixZeroCompare",
            display_name="Compare Edits",
            category=CATEGORY,
            **search_aliases("before and after", "contact sheet", "side by side"),
            description="Put the picture, its reconstruction and the edited picture side by side, with titles.",
            inputs=[
                io.Image.Input("source", tooltip="The picture as it was."),
                io.Image.Input("edited", tooltip="The edited picture; a batch makes one comparison each."),
                io.Image.Input(
                    "reconstruction", optional=True, tooltip="The picture sampled back from its noise, if it is shown."
                ),
                io.Boolean.Input("titles", default=True, optional=True, tooltip="Say which picture is which."),
            ],
            outputs=[io.Image.Output("comparison", display_name="comparison", tooltip="All in one row.")],
        )

    @classmethod
    def execute(  # noqa: D102
        cls, source: Tensor, edited: Tensor, reconstruction: Tensor | None = None, titles: bool = True
    ) -> io.NodeOutput:
        pictures = {"source": source, "reconstruction": reconstruction, "edited": edited}
        shown = {title: batch for title, batch in pictures.items() if batch is not None}
        for title, batch in shown.items():
            check_pictures(batch, title, channels=(3, 4))
            require_one_or_each(title, len(batch), "edited", len(edited))
        count, (height, width) = len(edited), source.shape[1:3]
        columns: list[Tensor] = []
        for title, batch in shown.items():
            column = comfy.utils.common_upscale(batch.movedim(-1, 1), width, height, "lanczos", "disabled")
            column = comfy.utils.repeat_to_batch_size(column.movedim(1, -1)[..., :3], count)
            columns.append(torch.stack([captioned(one, title) for one in column]) if titles else column)
        return io.NodeOutput(torch.cat(columns, 2))


def require_one_or_each(name: str, pictures: int, others: str, count: int) -> None:
    """Refuse a batch whose pictures cannot be put beside others one by one.

    Args:
        name: of the batch.
        pictures: how many it has.
        others: what it is put beside.
        count: how many those are.

    Raises:
        ValueError: it has neither one picture for all of them nor one for each.
    """
    if pictures not in (1, count):
        raise ValueError(
            f"{name} has {pictures} pictures, {others} has {count}. Connect one picture, or one for each. Where every "
            "picture has a caption of its own the edits are a list: make one of the pictures too, by Rebatch Images "
            "with batch_size 1."
        )


def form_warning(picture: Sequence[int], latent: Sequence[int]) -> str:
    """Say so where a picture, (height, width), is of another form than the latent whose maps are laid over it.

    A picture's size need not be a multiple of the latent's pixels: up to one of these on each side is no other form.
    """
    factor = (picture[0] * picture[1] / (latent[0] * latent[1])) ** 0.5
    if all(abs(pixels / factor - side) < 1 for pixels, side in zip(picture, latent, strict=True)):
        return ""
    return (
        f"The picture is {picture[1]} x {picture[0]}, the inverted latent {latent[1]} x {latent[0]}: the maps are "
        "stretched over it. Connect the picture as it was encoded, cropped and scaled."
    )


class _Watcher(comfy.samplers.Sampler):
    """Reads the maps along a recorded way; nothing is sampled."""

    def __init__(self, way: Inversion, steps: Sequence[int], picture: int) -> None:
        self.way, self.steps, self.picture = way, steps, picture
        self.maps: list[Maps] = []

    def sample(
        self, guider: Any, sigmas: Tensor, extra_args: dict[str, Any], callback: Any, noise: Tensor, *_: Any
    ) -> Tensor:
        denoise, bar = GuiderDenoiser(guider, extra_args), comfy.utils.ProgressBar(len(self.steps))
        for step in self.steps:
            sigma = sigmas[step].expand(len(noise))
            latent = self.way.latent_at(float(sigmas[step])).to(noise)
            maps = denoise(latent, sigma, SOURCE, maps=True).maps
            self.maps.append({layer: m[self.picture].mean(0).cpu() for layer, m in maps.items()})
            del maps  # of all pictures and heads, before the next are asked for
            bar.update(1)
        return noise


def watch(model: Any, way: Inversion, cond: Conditioning, moments: int, picture: int) -> list[Maps]:
    """Ask the model for its maps at some moments of a recorded way.

    Args:
        model: a ModelPatcher.
        way: latents at every level.
        cond: the text.
        moments: how many levels, evenly spread over the steps.
        picture: which of the batch.

    Returns:
        for every moment, from noise to picture, layer -> (N, L), the mean over the heads.
    """
    require_cross_attention_model(model)
    require_inversion_of(model, way)
    last = len(way.sigmas) - 2
    steps = sorted({round(moment * last / max(moments - 1, 1)) for moment in range(moments)})
    watcher = _Watcher(way, steps, picture)
    guider = comfy.samplers.CFGGuider(model.clone())
    guider.inner_set_conds({TARGET: cond, SOURCE: cond})
    empty = torch.zeros_like(framed(way.noise, model))
    guider.sample(empty, empty, watcher, way.sigmas, disable_pbar=True)
    return watcher.maps


def word_places(clip: Any, text: str, words: Sequence[str]) -> dict[str, list[int]]:
    """Find the tokens of words in a prompt.

    Args:
        clip: ComfyUI's CLIP.
        text: the prompt.
        words: words or phrases of it; none stands for every word.

    Returns:
        word -> positions in the conditioning, every time that it occurs.

    Raises:
        ValueError: the text is empty, or a word is not in it.
    """
    words = words or words_of(text)
    if not words:
        raise ValueError("The text is empty; enter the caption from which the source was encoded.")
    sentence = tokenize_each(clip, text, readings(clip))
    places: dict[str, list[int]] = {}
    for word in words:
        places[word] = [
            token.position
            for tokens, phrase in zip(sentence, tokenize_each(clip, word), strict=True)
            for start in occurrences(tokens, [token.id for token in phrase], written(phrase))
            for token in tokens[start : start + len(phrase)]
        ]
        if not places[word]:
            raise ValueError(f"The text {text!r} has no word {word!r}; choose words as they are written there.")
    return places


def words_of(text: str) -> list[str]:
    """Split a prompt into its different words: without weights, brackets of emphasis, embeddings and punctuation."""
    plain = " ".join(unescape_important(part) for part, _ in token_weights(escape_important(text), 1.0))
    parts = (part for part in plain.split() if not part.startswith("embedding:"))
    return list(dict.fromkeys(word for part in parts if (word := re.sub(r"^\W+|\W+$", "", part))))


def require_places(places: Mapping[str, list[int]], maps: Maps, name: str) -> None:
    """Refuse words that stand behind the end of the text that the maps are of.

    Args:
        places: word -> its tokens.
        maps: of one moment.
        name: of the input that is the text.

    Raises:
        ValueError: names the word.
    """
    count = next(iter(maps.values())).shape[-1]
    for word, positions in places.items():
        if max(positions) >= count:
            raise ValueError(
                f"The word {word!r} is token {max(positions)} of text, but the {name} has only {count}. "
                f"{REMEDIES[name]}"
            )


def _heat(
    maps: Mapping[Any, Tensor], places: Mapping[str, list[int]], size: Sequence[int], latent: Sequence[int]
) -> Tensor:
    """Mean over layers of the probability of each word's tokens.

    Args:
        maps: of one sample, `MapKey` -> (N, L). Those of its first text count: the words are of that one.
        places: word -> its tokens.
        size: height and width in pixels.
        latent: height and width of the latent; a map may be of a piece of it.

    Returns:
        (words, height, width).
    """
    scale = [pixels / side for pixels, side in zip(size, latent, strict=True)]
    total, count = torch.zeros(len(places), *size), torch.zeros(*size)
    first = next(iter(maps)).text
    for key, probabilities in maps.items():
        if key.text != first or key.copy:
            continue
        top, left = (round(at * factor) for at, factor in zip(key.place[:2], scale, strict=True))
        height, width = (round(side * factor) for side, factor in zip(key.place[2:], scale, strict=True))
        words = torch.stack([probabilities[:, tokens].sum(1) for tokens in places.values()])
        total[:, top : top + height, left : left + width] += torch.nn.functional.interpolate(
            words.unflatten(1, key.grid)[None], size=(height, width), mode="bilinear", align_corners=False
        )[0]
        count[top : top + height, left : left + width] += 1
    return total / count.clamp(min=1)


def _overlay(picture: Tensor, heat: Tensor) -> Tensor:
    """Lay a heat map, (H, W) in 0..1, over a grey copy of a picture, (H, W, 3): dark red to yellow to white."""
    colour = torch.stack([3 * heat, 3 * heat - 1, 3 * heat - 2], -1).clamp(0, 1)
    weight = (0.25 + 0.6 * heat)[..., None]
    return (1 - weight) * picture[..., :3].cpu().mean(-1, keepdim=True) + weight * colour


def captioned(picture: Tensor, words: str, below: bool = False) -> Tensor:
    """Put a strip with words above or below a picture, (H, W, 3) in 0..1 -> (H + CAPTION_HEIGHT, W, 3)."""
    strip = Image.new("RGB", (picture.shape[1], CAPTION_HEIGHT), "white")
    ImageDraw.Draw(strip).text((6, 6), words, fill="black")
    said = torch.from_numpy(np.array(strip)).to(picture) / 255
    return torch.cat([picture, said] if below else [said, picture])
