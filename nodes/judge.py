"""JudgeEdit: whether pictures show what an edit leads to, by the captioner."""

# ComfyUI's base classes leave the arguments of what they call open.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import comfy.model_management
import comfy.utils
from comfy_api.v0_0_2 import io
from torch import Tensor, cat

from ..pix2pix_zero_core import Direction
from ..pix2pix_zero_core.integrations.captioner import Captioner
from ..pix2pix_zero_core.integrations.judge import (
    Question,
    ask_of_direction,
    ask_of_texts,
    in_words,
    judge,
    warn_after,
    warn_before,
)
from ..pix2pix_zero_core.integrations.sentences import parse_sentences
from ..pix2pix_zero_core.types import check_pictures
from .caption import BATCH, captioners, load_captioner
from .memory import loaded
from .saying import said
from .types import CATEGORY, DirectionType, search_aliases
from .visualization import require_one_or_each

Asked = Sequence[Sequence[Question]]
"""For each picture the questions of its edit."""


def captioner_input(name: str) -> io.Combo.Input:
    """The widget that chooses the captioner that judges."""
    return io.Combo.Input(
        name,
        options=captioners(),
        tooltip="The BLIP model that judges, as in BLIP Caption, which also downloads it. tiny_zoo comes with this "
        "pack and knows only Tiny Zoo's pictures.",
    )


class JudgeEdit(io.ComfyNode):
    """Whether an edit shows: log p(target caption | picture) - log p(source caption | picture) of BLIP."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="Pix2PixZeroJudgeEdit",
            display_name="Judge Edit",
            category=CATEGORY,
            **search_aliases("score", "did it work", "check edit", "evaluate", "CLIP score"),
            is_output_node=True,
            description="Say of each edited picture whether the edit shows: whether the captioner rather says the "
            "target of it than the source. Above 0 it shows; 2 and more is clear.",
            inputs=[
                io.Image.Input("image", tooltip="The edited picture, or a batch."),
                io.String.Input(
                    "caption",
                    default="",
                    multiline=True,
                    tooltip="What the original shows: the source text of the edit. One line for all pictures, or one "
                    "for each.",
                ),
                captioner_input("model"),
                DirectionType.Input(
                    "direction",
                    optional=True,
                    tooltip="The edit; its words are exchanged in the caption. Without it write a target.",
                ),
                io.String.Input(
                    "target",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="Where no direction is connected: what the edited picture is to show, as a whole caption. "
                    "Several lines are several ways to say the same.",
                ),
                io.Image.Input(
                    "original",
                    optional=True,
                    tooltip="The picture before the edit: the node then also says when it shows the target already, "
                    "or does not show the source.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.05,
                    optional=True,
                    tooltip="That of Apply Edit Direction. Only the sign counts: below 0 the edit leads the other way.",
                ),
            ],
            outputs=[
                io.Float.Output(
                    "score",
                    display_name="score",
                    is_output_list=True,
                    tooltip="Of each picture: above 0 the edit shows. Natural logarithm of the odds.",
                ),
                io.Boolean.Output(
                    "shows", display_name="shows", is_output_list=True, tooltip="Of each picture: whether it shows."
                ),
                io.String.Output(
                    "words", display_name="words", is_output_list=True, tooltip="The score of each picture in words."
                ),
                io.String.Output(
                    "warning",
                    display_name="warning",
                    is_output_list=True,
                    tooltip="Of each picture: what is wrong with the edit; empty if nothing is.",
                ),
            ],
        )

    @classmethod
    def execute(  # noqa: D102
        cls,
        image: Tensor,
        caption: str,
        model: str,
        direction: Direction | None = None,
        target: str = "",
        original: Tensor | None = None,
        strength: float = 1.0,
    ) -> io.NodeOutput:
        check_pictures(image, "image", channels=(3, 4))
        if original is not None:
            check_pictures(original, "original", channels=(3, 4))
            require_one_or_each("original", len(original), "image", len(image))
        asked = _questions(caption, direction, target, strength, len(image))
        captioner = load_captioner(model)
        scores = judge_pictures(captioner, image[..., :3], asked)  # as BLIP Caption does with an alpha channel
        warnings = [warn_after(questions, score) for questions, score in zip(asked, scores, strict=True)]
        if original is not None:
            once = len(original) == 1 and all(questions == asked[0] for questions in asked)
            pictures = original[..., :3].expand(1 if once else len(image), -1, -1, -1)
            fits = warn_originals(captioner, pictures, asked[: len(pictures)]) * (len(image) if once else 1)
            warnings = [" ".join(filter(None, pair)) for pair in zip(fits, warnings, strict=True)]
        words = [in_words(questions, score) for questions, score in zip(asked, scores, strict=True)]
        for warning in filter(None, dict.fromkeys(warnings)):
            logging.warning("Judge Edit: %s", warning)
        shows = [score > 0 for score in scores]
        return io.NodeOutput(scores, shows, words, warnings, ui=said(numbered(words), numbered(warnings)))


def judge_pictures(captioner: Captioner, images: Tensor, asked: Asked) -> list[float]:
    """Score pictures, a few at once, with the captioner in ComfyUI's memory meanwhile."""
    bar, scores = comfy.utils.ProgressBar(len(images)), list[Tensor]()
    with loaded(captioner.model):
        for start in range(0, len(images), BATCH):
            comfy.model_management.throw_exception_if_processing_interrupted()
            some = slice(start, start + BATCH)
            scores.append(judge(captioner, images[some], asked[some]))
            bar.update(len(scores[-1]))
    return cat(scores).tolist()


def warn_originals(captioner: Captioner, originals: Tensor, asked: Asked) -> list[str]:
    """Say of each original why its edit does not fit; nothing where it does."""
    scores, seen = judge_pictures(captioner, originals, asked), list[str]()
    with loaded(captioner.model):
        for pictures in originals.split(BATCH):
            comfy.model_management.throw_exception_if_processing_interrupted()
            seen += captioner(pictures)
    return [warn_before(*picture) for picture in zip(asked, scores, seen, strict=True)]


def numbered(lines: Sequence[str]) -> str:
    """A line for each picture, with its number where there are several; none where nothing is said of it."""
    return "\n".join(f"{i}: {line}" if len(lines) > 1 else line for i, line in enumerate(lines, start=1) if line)


def _questions(caption: str, direction: Any, target: str, strength: float, count: int) -> Asked:
    """The questions of each picture from the widgets of the node."""
    if not caption.strip():
        raise ValueError(
            "Judge Edit has an empty caption; write what the original shows, or connect the caption of BLIP Caption."
        )
    captions = parse_sentences(caption)
    if len(captions) not in (1, count):
        raise ValueError(
            f"caption has {len(captions)} lines for {count} pictures. Write one line for all of them, or one for each."
        )
    if (direction is None) == (not target.strip()):
        raise ValueError(
            "Judge Edit needs the edit once: connect a direction and leave target empty, or write what the edited "
            "picture is to show into target."
        )
    if direction is None and strength < 0:
        raise ValueError(
            f"strength is {strength:g}, but no direction is connected that it could reverse. Set it to 1; target says "
            "where the edit leads."
        )
    if direction is not None:
        asked = [ask_of_direction(text, direction, strength) for text in captions]
    else:
        asked = [[ask_of_texts([text], parse_sentences(target))] for text in captions]
    return asked * (count if len(captions) == 1 else 1)
