"""EditDirection and ApplyEditDirection: from words or sentences to a shifted conditioning."""

# ComfyUI's base classes leave the arguments of what they call open.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import comfy.utils
import torch
from comfy_api.v0_0_2 import io
from torch import Tensor

from ..pix2pix_zero_core import EditDirection as CoreEditDirection
from ..pix2pix_zero_core.integrations.sentences import (
    SHIPPED,
    EditSentences,
    load_edit,
    parse_sentences,
    read_edits,
    sentences_about,
)
from .bridge import Conditioning
from .types import CATEGORY, DirectionType

CUSTOM = "custom"
COLLECTIONS = {"": SHIPPED, "tiny_zoo/": Path(__file__).parents[1] / "tiny_zoo" / "directions"}
"""Prefix of an edit's id -> folder that lists it. Tiny Zoo's own sentences use the few words that its model knows."""


def named_edits() -> list[str]:
    """Ids of all shipped edits."""
    return [prefix + edit for prefix, folder in COLLECTIONS.items() for edit in read_edits(folder)]


def encoder_fingerprint(clip: Any) -> str:
    """Name a text encoder by its architecture, some of its weights and its clip-skip.

    Two loads of one checkpoint agree, in full or half precision; another checkpoint's encoder does not.
    """
    digest = hashlib.sha256(f"layer {clip.layer_idx}".encode())
    for name, weight in sorted(clip.cond_stage_model.state_dict().items()):
        sample = weight.detach().flatten()[:16].cpu().to(torch.float16)
        digest.update(f"{name} {tuple(weight.shape)} {sample.tolist()}".encode())
    return f"{type(clip.cond_stage_model).__name__}-{digest.hexdigest()[:16]}"


class EditDirection(io.ComfyNode):
    """An edit direction from many sentences (arXiv:2302.03027, section 3.2)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="Pix2PixZeroEditDirection",
            display_name="Edit Direction",
            category=CATEGORY,
            description="Find the direction in the text encoder's space that leads from one concept to another: the "
            "difference of the mean embeddings of many sentences about each.",
            inputs=[
                io.Clip.Input("clip"),
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
                    tooltip="custom: how many sentences are made up around a word. Few give a direction that changes "
                    "other things too.",
                ),
            ],
            outputs=[
                DirectionType.Output(
                    "direction", display_name="direction", tooltip="For Apply Edit Direction, with the same CLIP."
                )
            ],
        )

    @classmethod
    def execute(cls, clip: Any, edit: str, source: str, target: str, sentences: int) -> io.NodeOutput:  # noqa: D102
        texts = _custom_edit(source, target, sentences) if edit == CUSTOM else _named_edit(edit)
        total = len(texts.source_sentences) + len(texts.target_sentences)
        bar = comfy.utils.ProgressBar(total)
        direction = CoreEditDirection.build(
            lambda batch: _encode(clip, batch),
            texts.source_sentences,
            texts.target_sentences,
            source=texts.source,
            target=texts.target,
            encoder=encoder_fingerprint(clip),
            on_progress=lambda done, of: bar.update_absolute(done, of),
        )
        return io.NodeOutput(direction)


class ApplyEditDirection(io.ComfyNode):
    """Shift a conditioning along an edit direction (arXiv:2302.03027, section 3.2)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="Pix2PixZeroApplyEditDirection",
            display_name="Apply Edit Direction",
            category=CATEGORY,
            description="Turn the text of the picture as it is into the text of the edited picture. Several in a row "
            "make several edits at once.",
            inputs=[
                io.Conditioning.Input("source", tooltip="Text of the picture as it is."),
                DirectionType.Input("direction"),
                io.Clip.Input("clip", tooltip="The text encoder of the source; the direction must be made by it."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.05,
                    tooltip="1 is the full edit, less is a weaker one, negative leads the other way.",
                ),
            ],
            outputs=[io.Conditioning.Output("target", display_name="target", tooltip="Text of the edited picture.")],
        )

    @classmethod
    def execute(  # noqa: D102
        cls, source: Conditioning, direction: CoreEditDirection, clip: Any, strength: float
    ) -> io.NodeOutput:
        encoder = encoder_fingerprint(clip)
        shifted: Conditioning = []
        for embedding, options in source:
            changed = dict(options)
            if changed.get("pooled_output") is not None:
                changed["pooled_output"] = direction.apply_pooled(changed["pooled_output"], strength, encoder=encoder)
            shifted.append([direction.apply(embedding, strength, encoder=encoder), changed])
        return io.NodeOutput(shifted)


def _named_edit(edit: str) -> EditSentences:
    prefix = next((p for p in COLLECTIONS if p and edit.startswith(p)), "")
    if edit not in named_edits():
        raise ValueError(f"There is no edit {edit!r}; choose one of {', '.join(named_edits())} or {CUSTOM}.")
    return load_edit(edit.removeprefix(prefix), COLLECTIONS[prefix])


def _custom_edit(source: str, target: str, count: int) -> EditSentences:
    for name, text in (("source", source), ("target", target)):
        if not text.strip():
            raise ValueError(
                f"Edit Direction is set to custom, but {name} is empty; write a word or several sentences."
            )
    source_lines, target_lines = parse_sentences(source), parse_sentences(target)
    if source_lines == target_lines:
        raise ValueError(
            f"source and target are both {source.strip()!r}; the direction between them is zero. Write what is to be "
            "replaced in source and what replaces it in target."
        )
    return EditSentences(
        _sentences(source_lines, count), _sentences(target_lines, count), source_lines[0], target_lines[0]
    )


def _sentences(lines: list[str], count: int) -> list[str]:
    return lines if len(lines) > 1 else sentences_about(lines[0], count)


def _encode(clip: Any, batch: Sequence[str]) -> tuple[Tensor, Tensor | None]:
    """Encode sentences with ComfyUI's CLIP: embeddings (n, L, D) and pooled ones (n, P)."""
    embeddings, pooled = zip(
        *(clip.encode_from_tokens(clip.tokenize(sentence), return_pooled=True) for sentence in batch), strict=True
    )
    return torch.cat(embeddings), None if pooled[0] is None else torch.cat(pooled)
