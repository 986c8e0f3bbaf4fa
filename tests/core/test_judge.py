"""The captioner as judge of edits: with a toy that reads words, and with Tiny Zoo's BLIP on drawn pictures."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from pix2pix_zero_core import AlignedDirection, EditDirection
from pix2pix_zero_core.aligned import WordEdit
from pix2pix_zero_core.integrations.captioner import Captioner, TokenLikelihoods
from pix2pix_zero_core.integrations.judge import (
    NAMED,
    Question,
    ask,
    ask_of_direction,
    ask_of_texts,
    in_words,
    judge,
    warn_after,
    warn_before,
)
from pix2pix_zero_core.integrations.sentences import read_edits
from pix2pix_zero_core.phrases import Exchange, Phrase
from pix2pix_zero_core.readings import Reading
from tiny_zoo.captions import caption
from tiny_zoo.compose_directions import FOLDER
from tiny_zoo.world import counterfactual, render, sample_scene

GLASSES = ("glasses", "red glasses")
WORN = ["a cat with glasses", "a cat wearing glasses"]

ONE = torch.zeros(1, 4, 4, 3)


class Reader:
    """Reads every word with the probability of a table, and all others, and the end, with one half."""

    def __init__(self, table: Mapping[str, float]) -> None:
        self.table, self.ids = table, dict[str, int]()

    def likelihoods(self, images: Tensor, captions: Sequence[Sequence[str]]) -> list[list[TokenLikelihoods]]:
        return [[self.read(text) for text in texts] for texts in captions]

    def read(self, text: str) -> TokenLikelihoods:
        words = [*text.replace(",", " ,").split(), "."]
        ids = [self.ids.setdefault(word, len(self.ids)) for word in words]
        return TokenLikelihoods(ids, torch.tensor([self.table.get(word, 0.5) for word in words]).log())

    def score(self, *questions: Question) -> float:
        return judge(self, ONE, [questions]).item()


def odds(p: float) -> float:
    return math.log(p / (1 - p))


# --- The texts


@pytest.mark.parametrize(
    ("caption", "source", "target", "before", "after"),
    [
        ("a cat on a sofa", "cat", "dog", ["a cat on a sofa"], ["a dog on a sofa"]),
        ("two cats", "cat", "dog", ["two cats"], ["two dogs"]),
        ("a cat", "cat", "elephant", ["a cat"], ["an elephant"]),
        ("An elephant", "elephant", "cat", ["An elephant"], ["A cat"]),
        ("a kitten asleep", "cat", "dog", ["a kitten asleep", "a cat asleep"], ["a dog asleep"]),
        ("two kittens asleep", "cat", "dog", ["two kittens asleep", "two cats asleep"], ["two dogs asleep"]),
        ("a catalog", "cat", "dog", ["a catalog, cat"], ["a catalog, dog"]),
        ("a wall of stones", "white marble", "brick", ["a wall of white marble"], ["a wall of bricks"]),
        (
            "a man with a bearded dragon",
            "bearded man",
            "man",
            ["a bearded man with a bearded dragon"],
            ["a man with a bearded dragon"],
        ),
        ("a boat", "photograph", "oil painting", ["a boat, photograph"], ["a boat, oil painting"]),
        ("", "day", "night", ["day"], ["night"]),
        ("a cat", "cat", "cat with glasses", ["a cat"], WORN),
        ("a cat", "cat without glasses", "cat with glasses", ["a cat"], WORN),
        ("a cat wearing glasses", "cat with glasses", "cat", WORN, ["a cat"]),
        ("a cat", "cat with glasses", "cat", WORN, ["a cat"]),
        ("a man", "man", "bearded man", ["a man"], ["a bearded man"]),
        ("a man with a long beard", "bearded man", "man", ["a man with a long beard"], ["a man"]),
        (
            "a cat in sun, wearing sunglasses",
            "cat with glasses",
            "cat",
            ["a cat in sun, wearing sunglasses"],
            ["a cat in sun"],
        ),
        ("a cat", "a cat", "a dog", ["a cat"], ["a dog"]),
    ],
)
def test_the_target_text_is_the_caption_with_other_words(
    caption: str, source: str, target: str, before: list[str], after: list[str]
) -> None:
    question = ask(caption, source, target)
    assert sorted(question.source) == sorted(before)
    assert sorted(question.target) == sorted(after)
    assert (question.source_name, question.target_name) == (source, target)


def test_phrases_of_a_direction_are_exchanged_the_longest_first_and_say_the_same() -> None:
    exchanges = [("sketch", "oil painting"), ("pencil drawing", "oil painting"), ("portrait", "photo")]
    question = ask("a pencil drawing of a cat", "pencil sketch", "oil painting", exchanges)
    assert set(question.source) == {
        "a pencil drawing of a cat",
        "a sketch of a cat",
        "a pencil sketch of a cat",
    }
    assert question.target == ("an oil painting of a cat",)
    added = ask("a cat", "cat without glasses", "cat with glasses", [("cat", "cat with red glasses")])
    assert added.source == ("a cat",)
    assert set(added.target) == {f"a cat {worn} {what}" for worn in ("with", "wearing") for what in GLASSES}


def exchange(source: str, target: str) -> Exchange:
    return Exchange(*(Phrase(text, (1,), torch.ones(5, 2), None) for text in (source, target)), 10)


def test_a_direction_asks_for_each_edit_that_was_combined_and_backwards_where_it_is_negative() -> None:
    edits = (WordEdit((exchange("kitty", "doggy"),)), WordEdit((exchange("dark", "bright"),), -1.0))
    direction = AlignedDirection(edits, (Reading(8),), "cat + day", "dog + night", "encoder", (10, 10))
    animal, time = ask_of_direction("a kitty by day", direction)
    assert animal.target == ("a doggy by day",)
    assert time.source == ("a kitty by day",) and time.target == ("a kitty by night",)
    twice = replace(direction, edits=(*edits, *(replace(e, reading=1) for e in edits)), readings=(Reading(8),) * 2)
    assert ask_of_direction("a kitty by day", twice) == [animal, time], "an encoder that reads the text twice"
    back, _ = ask_of_direction("a doggy at night", direction, -1.0)
    assert (back.source, back.target) == (("a doggy at night",), ("a kitty at night",))
    named = EditDirection(torch.ones(8, 2), None, "cat", "dog", "encoder", (1, 1))
    (question,) = ask_of_direction("a dog", named, -0.5)
    assert (question.source_name, question.target_name) == ("dog", "cat")


def test_given_texts_are_named_by_what_differs() -> None:
    question = ask_of_texts(["a cat on a sofa"], ["a dog on a sofa", "a puppy on a sofa"])
    assert (question.source_name, question.target_name) == ("cat", "dog")
    assert ask_of_texts(["a cat"], ["a cat with a hat"]).target_name == "cat with a hat"


@pytest.mark.parametrize(("source", "target"), [([], ["a dog"]), (["a dog"], []), (["a Dog "], ["a dog"])])
def test_texts_that_do_not_differ_are_refused(source: list[str], target: list[str]) -> None:
    with pytest.raises(ValueError, match="Give a source and a target caption that differ"):
        ask_of_texts(source, target)


# --- The score


def test_an_exchange_is_scored_by_its_phrases_alone() -> None:
    reader = Reader({"cat": 0.1, "dog": 0.4, "sofa": 0.001})
    question = ask("a cat on a sofa", "cat", "dog")
    assert reader.score(question) == pytest.approx(math.log(4))
    assert reader.score(ask("a dog on a sofa", "dog", "cat")) == pytest.approx(-math.log(4))


def test_phrasings_add_up() -> None:
    reader = Reader({"cat": 0.1, "kitten": 0.3, "dog": 0.2, "puppy": 0.6})
    assert reader.score(Question(("a cat", "a kitten"), ("a dog", "a puppy"), "", "")) == pytest.approx(math.log(2))


def test_what_is_added_need_not_be_said_often_and_what_is_taken_away_is_the_reverse() -> None:
    reader = Reader({"with": 0.2, "wearing": 0.1, "glasses": 1.0})
    assert reader.score(ask("a cat asleep", "cat", "cat with glasses")) == pytest.approx(odds(0.3) - odds(NAMED))
    assert reader.score(ask("a cat asleep", "cat with glasses", "cat")) == pytest.approx(odds(NAMED) - odds(0.3))
    assert Reader({"with": NAMED / 2, "wearing": NAMED / 2, "glasses": 1}).score(
        ask("a cat", "cat", "cat with glasses")
    ) == pytest.approx(0, abs=1e-5)
    sure = Reader({"with": 1.0, "wearing": 0.0, "glasses": 1.0}).score(ask("a cat", "cat", "cat with glasses"))
    assert math.isfinite(sure) and sure > 10


def test_of_several_edits_the_least_counts() -> None:
    reader = Reader({"cat": 0.1, "dog": 0.4, "day": 0.4, "night": 0.1})
    animal, time = ask("a cat by day", "cat", "dog"), ask("a cat by day", "day", "night")
    assert reader.score(animal, time) == pytest.approx(-math.log(4))


def test_texts_that_a_tokenizer_reads_alike_are_refused() -> None:
    class Deaf(Reader):
        def read(self, text: str) -> TokenLikelihoods:
            return super().read("a b")

    with pytest.raises(ValueError, match="reads source and target alike"):
        Deaf({}).score(ask("a cat", "cat", "dog"))


# --- Words and warnings


@pytest.mark.parametrize(
    ("score", "words"),
    [
        (2.3, "dog: clearly (2.3)"),
        (0.4, "dog: just about (0.4)"),
        (-1.0, "dog: not quite (-1.0)"),
        (-7.25, "dog: no (-7.2)"),
    ],
)
def test_a_score_in_words(score: float, words: str) -> None:
    assert in_words([ask("a cat", "cat", "dog")], score) == words


def test_warnings() -> None:
    questions = [ask("a cat", "cat", "dog")]
    assert warn_before(questions, -3.0, "a kitten on a sofa") == ""
    assert warn_before(questions, 3.0, "a dog") == "The picture shows 'dog' already (3.0), where this edit leads."
    assert warn_before(questions, -3.0, "a horse") == (
        "The captioner sees no 'cat' in the picture, where this edit starts, but: a horse"
    )
    assert warn_before([ask("a boat", "photograph", "oil painting")], -3.0, "a boat") == "", "captions seldom say so"
    assert warn_after(questions, 0.1) == ""
    assert warn_after(questions, -1.0).startswith("The edit does not show: dog: not quite (-1.0). Raise the")


# --- Tiny Zoo's BLIP


@pytest.fixture(scope="module")
def tiny_blip() -> Captioner:
    return Captioner.from_folder("tiny_zoo/weights/blip/tiny_zoo")


def drawn(name: str, count: int, *, edited: bool) -> tuple[Tensor, list[list[Question]]]:
    """Pictures of Tiny Zoo's world with their captions before the edit."""
    source, target = {
        "cat2dog": ({"animal": "cat"}, {"animal": "dog"}),
        "horse2zebra": ({"animal": "horse"}, {"animal": "zebra"}),
        "cat2glasses": ({"animal": "cat", "accessory": "none"}, {"accessory": "glasses"}),
        "glasses2cat": ({"animal": "cat", "accessory": "glasses"}, {"accessory": "none"}),
        "sketch2oil": ({"medium": "sketch"}, {"medium": "oil"}),
    }[name]
    before = [sample_scene(seed, "validation", **source) for seed in range(count)]
    scenes = [counterfactual(scene, **target) for scene in before] if edited else before
    pictures = torch.from_numpy(np.stack([np.asarray(render(scene)) for scene in scenes])).float() / 255
    keep = ("animal", "accessory", "medium")
    texts = [caption(scene, random.Random(i), keep=keep) for i, scene in enumerate(before)]
    edit = read_edits(FOLDER)[name]
    return pictures, [[ask(text, edit.source, edit.target)] for text in texts]


@pytest.mark.parametrize("name", ["cat2dog", "horse2zebra", "cat2glasses", "glasses2cat", "sketch2oil"])
def test_tiny_blip_tells_drawn_pictures_before_and_after_the_true_edit(tiny_blip: Captioner, name: str) -> None:
    right = sum(
        int(((judge(tiny_blip, *drawn(name, 10, edited=edited)) > 0) == edited).sum()) for edited in (False, True)
    )
    assert right >= 18


def test_a_batch_is_judged_as_each_picture_alone_and_twice_the_same(tiny_blip: Captioner) -> None:
    pictures, asked = drawn("cat2glasses", 4, edited=True)
    together = judge(tiny_blip, pictures, asked)
    alone = [judge(tiny_blip, picture[None], [question]) for picture, question in zip(pictures, asked, strict=True)]
    assert torch.allclose(together, torch.cat(alone), atol=1e-3)
    assert torch.equal(together, judge(tiny_blip, pictures, asked))
