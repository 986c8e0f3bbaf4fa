"""The edits that are measured, and what a method is given of each: pictures, captions, sentences, never the truth."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pix2pix_zero_core import apply_direction
from pix2pix_zero_core.directions import Direction
from pix2pix_zero_core.integrations.pairs import Form, build_direction
from pix2pix_zero_core.integrations.sentences import EditSentences, load_edit
from pix2pix_zero_core.tokens import Token
from tiny_zoo.captions import caption, token_ids, words
from tiny_zoo.compose_directions import FOLDER
from tiny_zoo.denoiser import Zoo
from tiny_zoo.world import Scene, counterfactual, render, sample_scene

from .injection import align_tokens, new_words

Split = Literal["validation", "test"]


@dataclass(frozen=True)
class Task:
    """An edit of the world.

    Attributes:
        source: what the pictures show before it; everything else is drawn at random.
        change: what it means to change.
        swap: phrases of the caption and what a word swap puts in their place; the first that is found counts.
    """

    source: dict[str, str]
    change: dict[str, str]
    swap: dict[str, str]


TASKS = {
    "cat2dog": Task({"animal": "cat"}, {"animal": "dog"}, {"cat": "dog"}),
    "horse2zebra": Task({"animal": "horse"}, {"animal": "zebra"}, {"horse": "zebra"}),
    "cat2glasses": Task(
        {"animal": "cat", "accessory": "none"}, {"accessory": "glasses"}, {"cat": "cat wearing glasses"}
    ),
    "sketch2oil": Task(
        {"medium": "sketch"},
        {"medium": "oil"},
        {"pencil sketch": "oil painting", "pencil drawing": "oil painting", "sketch": "oil painting"},
    ),
    "dog2cat": Task({"animal": "dog"}, {"animal": "cat"}, {"dog": "cat"}),
    "zebra2horse": Task({"animal": "zebra"}, {"animal": "horse"}, {"zebra": "horse"}),
    "glasses2cat": Task(
        {"animal": "cat", "accessory": "glasses"},
        {"accessory": "none"},
        {"wearing glasses": "", "with red glasses": "", "with glasses": ""},
    ),
    "oil2sketch": Task(
        {"medium": "oil"},
        {"medium": "sketch"},
        {"oil painting": "pencil sketch", "oil picture": "pencil sketch", "painting": "pencil sketch"},
    ),
}
"""The paper's four tasks and their reverses, under the names of Tiny Zoo's edit directions."""

PAPER_TASKS = ("cat2dog", "horse2zebra", "cat2glasses", "sketch2oil")


@dataclass(frozen=True)
class Problem:
    """Pictures to edit; B of them.

    Attributes:
        x0: their latents, (B, 4, 16, 16).
        noise: white noise of each, for methods that draw some, (B, 4, 16, 16).
        source: embeddings of their captions, (B, 77, D); with the flow model, here and below, (B, 78, D), the last row
            of which is the pooled vector, as `TinyZooFlow` takes them.
        swapped: embeddings of the captions after the word swap, (B, 77, D).
        alignment: which tokens of the two captions belong together, (B, 77, 77); see `align_tokens`.
        shifts: embedding of the n-th target sentence less that of the n-th source sentence, (n, 77, D).
        empty: embedding of no text, (1, 77, D).
        steps: DDIM steps.
        new_words: which tokens of the swapped captions the source captions have not, (B, 77); none where the edit is of
            the whole picture, its medium.
        aligned: the shift of each caption's embedding along an edit direction that is aligned to words, of all pairs of
            sentences, (B, 77, D); None where there are none.
    """

    x0: Tensor
    noise: Tensor
    source: Tensor
    swapped: Tensor
    alignment: Tensor
    shifts: Tensor
    empty: Tensor
    steps: int
    new_words: Tensor
    aligned: Tensor | None = None

    def part(self, first: int, count: int) -> Problem:
        """The pictures first .. first + count - 1 of it."""
        names = (
            "x0",
            "noise",
            "source",
            "swapped",
            "alignment",
            "new_words",
            *(() if self.aligned is None else ("aligned",)),
        )
        return replace(self, **{name: getattr(self, name)[first : first + count] for name in names})

    def target(self, sentences: int, strength: float = 1.0, form: Form = "mean by position") -> Tensor:
        """Embeddings shifted along an edit direction.

        Args:
            sentences: pairs that the direction is averaged over; the mean of the differences is the difference of the
                means, which `EditDirection.build` computes. 0 takes the direction to the swapped captions. One that is
                aligned to words is averaged over all pairs.
            strength: of the shift, 1 for all of it.
            form: of the direction.
        """
        shift = self.shifts[:sentences].mean(0) if sentences else self.swapped - self.source
        if form == "aligned to words" and sentences:
            if self.aligned is None:
                raise ValueError("This problem has no direction that is aligned to words; take the mean by position.")
            shift = self.aligned
        return self.source + strength * shift


def draw_scenes(task: Task, split: Split, count: int) -> tuple[list[Scene], list[Scene]]:
    """The first scenes of a split that the task applies to, and their true edits."""
    scenes = [sample_scene(seed, split, **task.source) for seed in range(count)]
    return scenes, [counterfactual(scene, **task.change) for scene in scenes]


def pose_problem(model: Zoo, name: str, split: Split, count: int, steps: int) -> Problem:
    """Set the first `count` scenes of a split to be edited."""
    task = TASKS[name]
    scenes, _ = draw_scenes(task, split, count)
    captions = captions_of(scenes)
    swapped = [swap_words(text, task.swap) for text in captions]
    sentences = load_edit(name, FOLDER)
    new = torch.stack([new_words(a, b) for a, b in zip(captions, swapped, strict=True)])
    noise = [torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(seed)) for seed in range(count)]
    with torch.no_grad():
        x0 = torch.cat([model.vae.encode(pictures([scene]).to(model.device)) for scene in scenes])
    return Problem(
        x0=x0,
        noise=torch.stack(noise).to(x0),
        source=model.encode_text(captions),
        swapped=model.encode_text(swapped),
        alignment=torch.stack([align_tokens(a, b) for a, b in zip(captions, swapped, strict=True)]).to(x0),
        shifts=model.encode_text(sentences.target_sentences) - model.encode_text(sentences.source_sentences),
        empty=model.encode_text([""]),
        steps=steps,
        new_words=new.to(x0.device) if "medium" not in task.change else torch.zeros_like(new, device=x0.device),
        aligned=aligned_shifts(model, sentences, captions),
    )


def captions_of(scenes: Sequence[Scene]) -> list[str]:
    """Caption of each scene of a task: true, with all that is edited or kept; where it faces and how, by chance."""
    keep = ("animal", "coat", "background", "accessory", "medium")
    return [caption(scene, random.Random(seed), keep=keep) for seed, scene in enumerate(scenes)]


def aligned_direction(model: Zoo, texts: EditSentences) -> Direction:
    """The direction of some sentences that is aligned to words."""
    return build_direction(
        texts,
        "aligned to words",
        lambda batch: model.split(model.encode_text(batch).cpu()),
        tokenize,
        encoder="tiny_zoo",
    )


def aligned_shifts(model: Zoo, texts: EditSentences, captions: Sequence[str]) -> Tensor:
    """Shifts of captions' embeddings along the direction of some sentences that is aligned to words, (B, 77, D)."""
    direction = aligned_direction(model, texts)
    before = model.encode_text(captions).cpu()
    tokens = [tokenize(caption) for caption in captions]
    shifted = apply_direction(direction, *model.split(before), encoder="tiny_zoo", tokens=tokens)
    return (model.join(shifted.embedding, shifted.pooled) - before).to(model.device)


def tokenize(text: str) -> list[Token]:
    """Split a text into Tiny Zoo's tokens, a word each, as the core's `Tokenize`."""
    ids = token_ids(text)[1:]
    return [Token(1 + i, ids[i], f"{word} ") for i, word in enumerate(words(text)[: len(ids) - 1])]


def swap_words(text: str, swap: dict[str, str]) -> str:
    """Replace the first of some phrases that a caption has, and mend its articles.

    Raises:
        ValueError: it has none of them.
    """
    for phrase, replacement in swap.items():
        swapped = re.sub(rf"\b{phrase}\b", replacement, text)
        if swapped != text:
            swapped = re.sub(r"\ban?(?= ([aeiou])?)", lambda article: "an" if article[1] else "a", swapped)
            return " ".join(swapped.split())
    raise ValueError(f"The caption {text!r} has none of the phrases {', '.join(swap)}.")


def pictures(scenes: list[Scene], *, animal: bool = True) -> Tensor:
    """Draw scenes, or their backgrounds alone: (B, 3, 128, 128) in 0..1."""
    images = np.stack([np.asarray(render(scene, animal=animal)) for scene in scenes])
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
