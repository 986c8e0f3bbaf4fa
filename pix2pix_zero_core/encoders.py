"""Fingerprints of text encoders: what names their weights, and the settings that are not the encoder's own.

    SD1ClipModel-0123456789abcdef; clip skip: -2 instead of -1

An encoder as its checkpoint has it is named by its weights alone, as in files of 0.1.0.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Setting(NamedTuple):
    """Something about a text encoder that its embeddings depend on, beside the weights.

    Attributes:
        name: what it is, "clip skip".
        value: what it is set to.
        own: what it is where nobody sets it.
    """

    name: str
    value: str
    own: str


CLIP_SKIP, CHUNK_LENGTH, PATCHES = "clip skip", "chunk length", "patches"
REMEDIES = {
    CLIP_SKIP: "set it alike with CLIP Set Last Layer",
    CHUNK_LENGTH: "give both the same tokenizer options",
    PATCHES: "take both CLIPs from behind the node that patches them, or both from before it",
}


def fingerprint(weights: str, settings: Iterable[Setting] = ()) -> str:
    """Name a text encoder by its weights and by those of its settings that are not its own."""
    changed = [f"{name}: {value} instead of {own}" for name, value, own in settings if value != own]
    return "; ".join([weights, *changed])


def kind_of(encoder: str) -> str:
    """The part of a fingerprint that says what computes the encoder, without its weights: "SD1ClipModel"."""
    return _parts(encoder)[0].rpartition("-")[0]


def differing_settings(made_by: str, used: str) -> str:
    """Say in which settings two encoders of the same weights differ, and what to do.

    Args:
        made_by: fingerprint of the encoder that made a direction.
        used: fingerprint of the encoder of a prompt.

    Returns:
        both values of every setting that differs; nothing where the weights differ.
    """
    (weights, made), (other_weights, prompt) = _parts(made_by), _parts(used)
    if weights != other_weights:
        return ""
    own = {name: setting.own for name, setting in (made | prompt).items()}
    values = {name: [s[name].value if name in s else own[name] for s in (made, prompt)] for name in own}
    return "; ".join(
        f"{name} {ours}, the prompt's is {theirs} ({REMEDIES.get(name, 'set it alike')})"
        for name, (ours, theirs) in values.items()
        if ours != theirs
    )


def _parts(encoder: str) -> tuple[str, dict[str, Setting]]:
    weights, *texts = encoder.split("; ")
    split = [text.partition(": ") for text in texts]
    return weights, {name: Setting(name, *values.partition(" instead of ")[::2]) for name, _, values in split}
