"""From a caption to the concepts it names, and to a warning where an edit does not fit."""

from __future__ import annotations

import re

import pytest

from authoring.sentences import CONCEPTS
from pix2pix_zero_core.integrations.concepts import find_concepts, source_warning


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a cat sitting on a sofa", ["cat"]),
        ("two kittens in a basket", ["cat"]),
        ("A Puppy, running in the snow", ["dog", "snow", "winter"]),
        ("a labrador next to a tabby", ["dog", "cat"]),
        ("a dog chasing a cat", ["dog", "cat"]),
        ("a tabby wearing glasses", ["cat with glasses", "cat"]),
        ("three wolves and a pony", ["wolf", "horse"]),
        ("a catalog of dogmas on a bearing", []),
        ("", []),
    ],
)
def test_concepts_are_found_by_word_plural_and_synonym(caption: str, expected: list[str]) -> None:
    assert find_concepts(caption, CONCEPTS) == expected


@pytest.mark.parametrize("concept", CONCEPTS)
def test_every_shipped_concept_is_found_in_its_own_sentence(concept: str) -> None:
    assert concept in find_concepts(f"here is a {concept}.", CONCEPTS)


def test_concepts_of_the_user() -> None:
    assert find_concepts("some red foxes by an old teapot", ["teapot", "red fox", "blue fox", "fox", "fox"]) == [
        "red fox",
        "fox",
        "teapot",
    ]


@pytest.mark.parametrize(
    ("caption", "source", "target"),
    [
        ("a cat on a sofa", "cat", "dog"),
        ("a kitten on a sofa", "cat", "cat with glasses"),
        ("a cat on a sofa", "cat with glasses", "cat"),
        ("a cat and a dog", "cat", "dog"),
        ("a red fox", "an old fox", "wolf"),
        ("a street with cars", "day", "night"),
        ("a cat on a sofa", "photograph", "watercolor painting"),
        ("a cat on a sofa", "cat + photograph", "dog + oil painting"),
    ],
)
def test_an_edit_that_fits_or_cannot_be_told(caption: str, source: str, target: str) -> None:
    assert source_warning(caption, source, target, CONCEPTS) is None


@pytest.mark.parametrize(
    ("caption", "source", "target", "words"),
    [
        (
            "a puppy on a sofa ",
            "cat",
            "horse",
            "does not name 'cat', where this edit starts, but 'dog'. Choose .*: a puppy on a sofa\\.$",
        ),
        ("a puppy on a sofa", "cat", "dog", "already names 'dog', where this edit leads, and not 'cat'"),
        ("a bowl of soup", "cat", "dog", "does not name 'cat', where this edit starts. Choose another edit"),
        ("a snowy street at night", "day", "night", "already names 'night'"),
        ("a dog in a park", "dog + cat", "cat + dog", "already names 'dog', where this edit leads, and not 'cat'"),
        ("an oil picture of a black cow in a hat", "cat", "dog", "edit starts, but 'cow'"),
        ("a drawing of an orange zebra in a field", "cat", "dog", "edit starts, but 'zebra'"),
        ("a cat next to a painting of a dog", "horse", "zebra", "edit starts, but 'cat'"),
        ("a black and white photo of a cow", "cat", "dog", "edit starts, but 'cow'"),
        ("a cat/dog mix", "horse", "zebra", "edit starts, but 'cat'"),
        ("an orange cat", "apple", "orange", "does not name 'apple', where this edit starts, but 'cat'"),
        ("an orange cat", "orange", "apple", "does not name 'orange', where this edit starts, but 'cat'"),
        ("", "cat", "dog", r"does not name 'cat', .* correct the caption: it is empty\.$"),
    ],
)
def test_an_edit_that_does_not_fit(caption: str, source: str, target: str, words: str) -> None:
    warning = source_warning(caption, source, target, CONCEPTS)
    assert warning and re.search(words, warning), warning
