"""Sentences as pairs: line by line, or with the concepts' names exchanged."""

from __future__ import annotations

import pytest
import torch

from pix2pix_zero_core.integrations.pairs import build_direction, pair_sentences, without_partner
from pix2pix_zero_core.integrations.sentences import EditSentences, load_edit, read_edits, sentences_about
from pix2pix_zero_core.tokens import Token
from tiny_zoo.compose_directions import FOLDER


def test_lines_that_differ_in_one_phrase_are_pairs():
    texts = EditSentences(
        ["a cat sits", "the sketch of a boat", "see my cat"],
        ["a dog sits", "the oil painting of a boat", "your dog"],
        "x",
        "y",
    )
    assert pair_sentences(texts) == list(zip(*texts[:2], strict=True))[:2]
    assert without_partner(texts) == ["see my cat", "your dog"]


def test_articles_belong_to_the_phrase():
    texts = EditSentences(["a horse runs"], ["an elephant runs"], "horse", "elephant")
    assert pair_sentences(texts) == [("a horse runs", "an elephant runs")]


def test_names_are_exchanged_where_lines_are_no_pairs():
    texts = EditSentences(
        ["A cat on a mat", "three cats here", "an animal"], ["see the owl", "An owl sleeps", "the owls"], "cat", "owl"
    )
    assert pair_sentences(texts) == [
        ("A cat on a mat", "An owl on a mat"),
        ("three cats here", "three owls here"),
        ("see the cat", "see the owl"),
        ("A cat sleeps", "An owl sleeps"),
        ("the cats", "the owls"),
    ]


def test_phrases_that_hold_the_other_name():
    texts = EditSentences(
        ["a cat with its eyes closed", "a cat at home"],
        ["our cat with glasses is here", "none"],
        "cat",
        "cat with glasses",
    )
    assert pair_sentences(texts) == [
        ("a cat at home", "a cat with glasses at home"),
        ("our cat is here", "our cat with glasses is here"),
    ]


def test_sentences_without_partners_are_refused():
    texts = EditSentences(["a boat here"] * 20, ["my car is in it"] * 20, "cat", "dogs")
    with pytest.raises(
        ValueError, match=r"Only 0 of 20 sentences about 'cat' have a partner about 'dogs'.*'mean by pos"
    ):
        pair_sentences(texts)


@pytest.mark.parametrize("edit", read_edits())
def test_every_shipped_edit_has_pairs(edit: str):
    pairs = pair_sentences(load_edit(edit))
    assert len(pairs) >= 380 and all(source != target for source, target in pairs)


@pytest.mark.parametrize("edit", read_edits(FOLDER))
def test_every_edit_of_tiny_zoo_has_pairs(edit: str):
    assert len(pair_sentences(load_edit(edit, FOLDER))) >= 100


@pytest.mark.parametrize("kind", ["thing", "pet"])
def test_the_grammars_sentences_are_pairs(kind):
    texts = EditSentences(*(sentences_about(word, 100, kind=kind) for word in ("cat", "owl")), "cat", "owl")
    assert len(pair_sentences(texts)) == 100


def tokenize(text):
    return [Token(1 + i, hash(word), f"{word} ") for i, word in enumerate(text.split())]


def encode(texts):
    return torch.stack([torch.arange(60.0).view(20, 3) + len(text) for text in texts]), None


def test_either_form_is_built():
    texts = EditSentences(["a cat", "my cat"], ["a dog", "my dog"], "cat", "dog")
    for form in ("aligned to words", "mean by position"):
        direction = build_direction(texts, form, encode, tokenize, encoder="toy")
        assert (direction.form, direction.name, direction.sentences) == (form, "cat -> dog", (2, 2))
    with pytest.raises(ValueError, match="form of the direction is 'x'; it must be 'aligned to words' or 'mean by"):
        build_direction(texts, "x", encode, tokenize, encoder="toy")
