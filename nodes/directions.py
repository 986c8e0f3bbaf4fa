"""EditDirection and ApplyEditDirection: from words or sentences to a shifted conditioning."""

# ComfyUI's base classes leave the arguments of what they call open.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

import logging
from collections.abc import Hashable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_args

import comfy.utils
import torch
from comfy_api.v0_0_2 import io

from ..pix2pix_zero_core import AlignedDirection, Direction, apply_direction
from ..pix2pix_zero_core import EditDirection as CoreEditDirection
from ..pix2pix_zero_core.forms import ShiftedText
from ..pix2pix_zero_core.integrations.concepts import source_warning
from ..pix2pix_zero_core.integrations.pairs import Form, build_direction, without_partner
from ..pix2pix_zero_core.integrations.sentences import (
    SHIPPED,
    EditSentences,
    Kind,
    distinctive_word,
    known_concepts,
    load_edit,
    parse_sentences,
    read_edits,
    sentences_about,
)
from ..pix2pix_zero_core.settings import USUAL_STRENGTH
from .bridge import Conditioning
from .saying import said
from .text_encoder import (
    current_fingerprint,
    encode,
    encoder_fingerprint,
    encoder_state,
    readings,
    tokenize,
    unknown_words,
)
from .types import CATEGORY, DirectionType, search_aliases

CUSTOM = "custom"
COLLECTIONS = {"": SHIPPED, "tiny_zoo/": Path(__file__).parents[1] / "tiny_zoo" / "directions"}
"""Prefix of an edit's id -> folder that lists it. Tiny Zoo's own sentences use the few words that its model knows."""

MANY = 0.1
"""Share of the words of a named edit's sentences that an encoder does not know, from which on it is another's edit."""

KEPT = 32

_built: dict[Hashable, Direction] = {}
"""The last `KEPT` directions by what they were built of, each under a megabyte: going back to one costs nothing."""


def named_edits() -> list[str]:
    """Ids of all shipped edits."""
    return [prefix + edit for prefix, folder in COLLECTIONS.items() for edit in read_edits(folder)]


def kind_input() -> io.Combo.Input:
    """The widget that says what a word is, for the sentences that the grammar makes up around it."""
    return io.Combo.Input(
        "kind",
        options=list(get_args(Kind)),
        default="thing",
        optional=True,
        tooltip="What the words are, and so what can be said of them: any thing; an animal; a pet, an animal that "
        "is also seen indoors; a person; a material (marble); a medium (oil painting); a setting: season, time of day "
        "or weather (winter, night, fog). Counts only where the grammar makes the sentences up, not for ready-made "
        "edits, lines of your own and language models.",
    )


class EditDirection(io.ComfyNode):
    """An edit direction from many sentences (arXiv:2302.03027, section 3.2)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="Pix2PixZeroEditDirection",
            display_name="Edit Direction",
            category=CATEGORY,
            **search_aliases("concept", "replace object", "word swap", "cat to dog"),
            description="Find the direction in the text encoder's space that leads from one concept to another, out of "
            "many sentences about each; form says how. A word swap needs no direction: give the "
            "text of the edited picture to CLIP Text Encode, and connect that as the target.",
            inputs=[
                io.Clip.Input("clip", tooltip="The text encoder of the checkpoint that edits."),
                io.Combo.Input(
                    "edit",
                    options=[*named_edits(), CUSTOM],
                    default="cat2dog",
                    tooltip="A ready-made edit, or custom for the two texts below. Those of tiny_zoo/ are for the "
                    "embedded Tiny Zoo model.",
                ),
                io.String.Input(
                    "source",
                    default="",
                    multiline=True,
                    tooltip="custom: what is to be replaced. One line: a word or phrase, sentences are made up around "
                    "it. Several lines: the sentences themselves, one a line.",
                ),
                io.String.Input("target", default="", multiline=True, tooltip="custom: what replaces it; as source."),
                io.Int.Input(
                    "sentences",
                    default=200,
                    min=1,
                    max=1000,
                    tooltip="custom: how many sentences are made up around a word, 1 to 1000. Few give a direction "
                    "that changes other things too.",
                ),
                kind_input(),
                io.Combo.Input(
                    "form",
                    options=[AlignedDirection.form, CoreEditDirection.form],
                    default=AlignedDirection.form,
                    optional=True,
                    tooltip=f"{AlignedDirection.form}: what exchanging the word does to it and to what follows, laid "
                    "where the caption has the word; needs sentences that are the same but for the word, line by line. "
                    f"{CoreEditDirection.form}: the paper's: one shift for each position, whatever word stands there; "
                    "any sentences will do.",
                ),
            ],
            outputs=[
                DirectionType.Output(
                    "direction", display_name="direction", tooltip="For Apply Edit Direction, with the same CLIP."
                ),
                io.String.Output(
                    "warning",
                    display_name="warning",
                    tooltip="What was left out, and words that the text encoder does not know; empty if there is none.",
                ),
            ],
        )

    # The default of form is not the widget's: graphs of 0.1.0 say nothing of it, and go on meaning what they meant.
    @classmethod
    def execute(  # noqa: D102
        cls,
        clip: Any,
        edit: str,
        source: str,
        target: str,
        sentences: int,
        kind: Kind = "thing",
        form: Form = "mean by position",
    ) -> io.NodeOutput:
        custom = edit == CUSTOM
        texts = _custom_edit(source, target, sentences, kind) if custom else _named_edit(edit)
        direction = _direction(clip, texts, form)
        idle = _idle_sentences(texts, form, source, target) if custom else _idle_words(edit, source, target)
        warning = " ".join(filter(None, [idle, _unknown_concepts(clip, edit, texts)]))
        if warning:
            logging.warning("Edit Direction: %s", warning)
        return io.NodeOutput(direction, warning, ui=said(warning=warning))


class ApplyEditDirection(io.ComfyNode):
    """Shift a conditioning along an edit direction (arXiv:2302.03027, section 3.2)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="Pix2PixZeroApplyEditDirection",
            display_name="Apply Edit Direction",
            category=CATEGORY,
            **search_aliases("edit conditioning", "edit prompt", "target text"),
            description="Turn the text of the picture as it is into the text of the edited picture. Several in a row "
            "make several edits at once.",
            inputs=[
                io.Conditioning.Input("source", tooltip="Text of the picture as it is."),
                DirectionType.Input("direction", tooltip="From Edit Direction, or loaded, imported or combined."),
                io.Clip.Input("clip", tooltip="The text encoder of the source; the direction must be made by it."),
                io.Float.Input(
                    "strength",
                    default=USUAL_STRENGTH,
                    min=-10.0,
                    max=10.0,
                    step=0.05,
                    tooltip="-10 to 10: 1 is the full edit, a little more makes it show surely, negative leads the "
                    "other way.",
                ),
                io.String.Input(
                    "caption",
                    optional=True,
                    force_input=True,
                    tooltip="The caption that the source was encoded from. A direction that is aligned to words then "
                    "goes exactly where its word stands, and the node says when the edit starts from something that "
                    "the picture does not show. The edit is made all the same.",
                ),
            ],
            outputs=[
                io.Conditioning.Output("target", display_name="target", tooltip="Text of the edited picture."),
                io.String.Output(
                    "warning", display_name="warning", tooltip="Why the edit may not fit the caption; empty if it does."
                ),
            ],
        )

    @classmethod
    def execute(  # noqa: D102
        cls, source: Conditioning, direction: Direction, clip: Any, strength: float, caption: str | None = None
    ) -> io.NodeOutput:
        target, remarks = shift_conditioning(source, direction, clip, strength, caption)
        start, end = direction.source, direction.target
        if strength < 0:
            start, end = end, start
        named = None if caption is None else source_warning(caption, start, end, known_concepts())
        warning = " ".join(filter(None, dict.fromkeys([named, *remarks])))
        if warning:
            logging.warning("Apply Edit Direction: %s", warning)
        return io.NodeOutput(target, warning, ui=said(f"{start} -> {end}, {direction.form}", warning))


def shift_conditioning(
    source: Conditioning, direction: Direction, clip: Any, strength: float, caption: str | None = None
) -> tuple[Conditioning, list[str]]:
    """Shift a conditioning along an edit direction.

    Args:
        source: text of the picture as it is.
        direction: made by the text encoder.
        clip: the text encoder.
        strength: 1 is the full edit.
        caption: that the source was encoded from, where it is known.

    Returns:
        the target, and remarks for people on where the direction was laid.
    """
    encoder, tokens = encoder_fingerprint(clip), None
    if caption is not None and isinstance(direction, AlignedDirection):
        tokens = [tokenize(clip, caption, direction.readings)]
    if direction.encoder != encoder:
        direction = replace(cast(Any, direction), encoder=current_fingerprint(direction.encoder, clip))
    target: Conditioning = []
    remarks: list[str] = []
    for embedding, options in source:
        shifted = apply_direction(
            direction, embedding, options.get("pooled_output"), strength, encoder=encoder, tokens=tokens
        )
        pooled = {} if shifted.pooled is None else {"pooled_output": shifted.pooled}
        target.append([shifted.embedding, {**options, **pooled, **_seen(options, shifted)}])
        remarks += shifted.remarks
    return target, remarks


def _seen(options: dict[str, Any], shifted: ShiftedText) -> dict[str, Any]:
    """The attention mask of a shifted text, if the text has one: words that were put into padding are to be seen."""
    mask = options.get("attention_mask")
    if mask is None:
        return {}
    tokens = shifted.embedding.shape[1]
    mask = torch.nn.functional.pad(mask, (0, tokens - mask.shape[-1]), value=1)
    for row, filled in zip(mask.view(-1, tokens), shifted.filled, strict=False):
        row[list(filled)] = 1
    return {"attention_mask": mask}


def _direction(clip: Any, texts: EditSentences, form: Form) -> Direction:
    """Build a direction, or take the one that was built of the same encoder, patches and sentences."""
    sentences = tuple(texts.source_sentences), tuple(texts.target_sentences)
    key = encoder_state(clip), *sentences, texts.source, texts.target, form
    if key not in _built:
        laid = readings(clip)
        bar = comfy.utils.ProgressBar(len(texts.source_sentences) + len(texts.target_sentences))
        direction = build_direction(
            texts,
            form,
            lambda batch: encode(clip, batch),
            lambda text: tokenize(clip, text, laid),
            encoder=encoder_fingerprint(clip),
            readings=laid,
            on_progress=lambda done, of: bar.update_absolute(done, of),
        )
        for oldest in list(_built)[: len(_built) + 1 - KEPT]:
            del _built[oldest]
        _built[key] = direction
    return _built[key]


def _named_edit(edit: str) -> EditSentences:
    if edit not in named_edits():
        raise ValueError(f"There is no edit {edit!r}; choose one of {', '.join(named_edits())} or {CUSTOM}.")
    prefix = next((p for p in COLLECTIONS if p and edit.startswith(p)), "")
    return load_edit(edit.removeprefix(prefix), COLLECTIONS[prefix])


def _custom_edit(source: str, target: str, count: int, kind: Kind) -> EditSentences:
    for name, text in (("source", source), ("target", target)):
        if not text.strip():
            raise ValueError(
                f"Edit Direction is set to custom, but {name} is empty; write a word or several sentences."
            )
    source_lines, target_lines = parse_sentences(source), parse_sentences(target)
    before, after = (
        lines if len(lines) > 1 else sentences_about(lines[0], count, kind=kind)
        for lines in (source_lines, target_lines)
    )
    if "\n".join(before).lower() == "\n".join(after).lower():  # text encoders read lower case; "a cat" is "cat"
        raise ValueError(
            f"source and target are both {source.strip()!r}; the direction between them is zero. Write what is to be "
            "replaced in source and what replaces it in target."
        )
    names = (
        lines[0] if len(lines) == 1 else distinctive_word(own, other)
        for lines, own, other in ((source_lines, before, after), (target_lines, after, before))
    )
    return EditSentences(before, after, *names)


def _idle_words(edit: str, source: str, target: str) -> str:
    """Say that words stand beside a named edit, which has its own."""
    idle = [
        f"{name} ({text.strip()[:40]!r})" for name, text in (("source", source), ("target", target)) if text.strip()
    ]
    return f"{' and '.join(idle)} did nothing: edit is {edit}. Set edit to {CUSTOM} to use them." if idle else ""


def _idle_sentences(texts: EditSentences, form: Form, source: str, target: str) -> str:
    """Say which of one's own sentences have no partner to be aligned to."""
    if form != AlignedDirection.form:
        return ""
    own = {*parse_sentences(source), *parse_sentences(target)}
    idle = [text for text in without_partner(texts) if text in own]
    if not idle:
        return ""
    return (
        f"{len(idle)} of your sentences did nothing, {idle[0][:60]!r} first: no line of the other text is the same but "
        f"for one phrase. Write such pairs line by line, or set form to {CoreEditDirection.form}."
    )


def _unknown_concepts(clip: Any, edit: str, texts: EditSentences) -> str:
    """Say what of an edit the text encoder reads as an unknown word."""
    if edit == CUSTOM:
        unknown = unknown_words(clip, f"{texts.source} {texts.target}")
        remedy = "Choose words that it was trained on."
    else:
        sentences = " ".join((*texts.source_sentences, *texts.target_sentences))
        unknown = unknown_words(clip, sentences)
        if len(unknown) < MANY * len(set(sentences.split())):
            unknown = []
        remedy = "Choose an edit that is made for it."
    if not unknown:
        return ""
    more = f" and {len(unknown) - 3} more words" if len(unknown) > 3 else ""
    return f"This model does not know {', '.join(map(repr, unknown[:3]))}{more}: the edit may lead anywhere. {remedy}"
