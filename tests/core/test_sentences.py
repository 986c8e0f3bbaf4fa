"""Sentences about concepts: the grammar, the banks and the shipped edits."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from authoring.sentences import CONCEPTS, compose
from pix2pix_zero_core.integrations.english import Noun, indefinite_article, pluralize
from pix2pix_zero_core.integrations.sentences import (
    SHIPPED,
    Kind,
    SentenceBanks,
    SentenceSource,
    distinctive_word,
    load_edit,
    parse_sentences,
    read_edits,
    read_sentences,
    save_sentences,
    sentences_about,
)

# --- English


A = "cat unicorn university European one-eyed once used ukulele utensil UFO U-boat house 10 110 yellow usual"
AN = "owl umbrella hour honest heir X-ray SUV 8-bit 11 18th uninteresting unidentified usher urban ugly éclair"


@pytest.mark.parametrize(("article", "words"), [("a", A), ("an", AN)])
def test_article_follows_the_sound(article: str, words: str) -> None:
    assert {word: indefinite_article(word) for word in words.split()} == dict.fromkeys(words.split(), article)


def test_plurals() -> None:
    plurals = {
        **{"cat": "cats", "box": "boxes", "bus": "buses", "church": "churches", "dress": "dresses", "dish": "dishes"},
        **{"puppy": "puppies", "monkey": "monkeys", "hero": "heroes", "piano": "pianos", "house": "houses"},
        **{"mouse": "mice", "snowman": "snowmen", "human": "humans", "grandchild": "grandchildren", "fox": "foxes"},
        **{"reindeer": "reindeer", "Wolf": "Wolves", "werewolf": "werewolves", "mongoose": "mongooses", "UFO": "UFOs"},
    }
    assert {noun: pluralize(noun) for noun in plurals} == plurals


@pytest.mark.parametrize(
    ("phrase", "noun"),
    [
        ("cat", Noun("cat", "singular", "cats")),
        ("  an old   umbrella ", Noun("old umbrella", "singular", "old umbrellas")),
        ("cat with glasses", Noun("cat with glasses", "singular", "cats with glasses")),
        ("bowl of fruit", Noun("bowl of fruit", "singular", "bowls of fruit")),
        ("bus", Noun("bus", "singular", "buses")),
        ("camera lens", Noun("camera lens", "singular", "camera lenses")),
        ("sheep", Noun("sheep", "singular", "sheep")),
        ("red glasses", Noun("red glasses", "plural")),
        ("zebras", Noun("zebras", "plural")),
        ("children", Noun("children", "plural")),
        ("fresh snow", Noun("fresh snow", "mass")),
        ("the Eiffel Tower", Noun("Eiffel Tower", "unique")),
        ("with", Noun("with", "singular", "withs")),
    ],
)
def test_number_of_a_phrase(phrase: str, noun: Noun) -> None:
    assert Noun.parse(phrase) == noun


@pytest.mark.parametrize("phrase", ["", "  ", "?!", "two\nlines"])
def test_phrase_without_a_word_is_refused(phrase: str) -> None:
    with pytest.raises(ValueError, match="must be a word or a phrase on one line, of letters"):
        sentences_about(phrase, 1)


# --- The grammar

SAMPLES: list[tuple[str, Kind]] = [
    *(("teapot", "thing"), ("umbrella", "thing"), ("old man", "thing"), ("glasses", "thing"), ("snow", "thing")),
    *(("the Eiffel Tower", "thing"), ("mouse", "animal"), ("sheep", "animal"), ("cat with glasses", "pet")),
    *(("oil painting", "medium"), ("winter", "setting"), ("rainy afternoon", "setting"), ("C++ {book}", "thing")),
    *(("old woman", "person"), ("two old men", "person"), ("ice", "material"), ("bricks", "material")),
]


@pytest.mark.parametrize(("concept", "kind"), SAMPLES)
def test_thousand_sentences_are_different_and_name_the_concept_once(concept: str, kind: Kind) -> None:
    sentences = sentences_about(concept, 1000, kind=kind)
    assert len(set(sentences)) == 1000
    noun = Noun.parse(concept)
    names = re.compile("|".join(rf"(?<!\w){re.escape(name)}(?!\w)" for name in (noun.text, noun.plural) if name), re.I)
    assert [sentence for sentence in sentences if len(names.findall(sentence)) != 1] == []


@pytest.mark.parametrize(("concept", "kind"), SAMPLES)
def test_sentences_are_well_formed(concept: str, kind: Kind) -> None:
    for sentence in sentences_about(concept, 1000, seed=1, kind=kind):
        assert "  " not in sentence and sentence == sentence.strip() and sentence.isprintable()
        assert "\N{REPLACEMENT CHARACTER}" not in sentence
        for article, word in re.findall(r"\b(an?) (\w\S*)", sentence, re.IGNORECASE):
            assert article.lower() == indefinite_article(word), sentence
        assert sentence.endswith((".", "!")) == sentence[0].isupper(), sentence


def test_sentences_agree_in_number() -> None:
    for concept, wrong in {
        "glasses": r"\ban? (\w+ )?glasses\b|glasses (in this picture )?is\b|\bThis\b|There is",
        "snow": r"\ban? (\w+ )?snow\b|snow are\b|\bsnows\b|\b(two|three|several|many|large|tiny) (\w+ )?snow",
        "the moon": r"\ban? (\w+ )?moon\b|\bmoons\b|\bThis\b",
        "cat": r"\bcat are\b|\bcats is\b|\bThese\b",
    }.items():
        assert [sentence for sentence in sentences_about(concept, 2000) if re.search(wrong, sentence)] == []


def test_only_a_mass_stands_before_what_is_made_of_it() -> None:
    assert any(re.search(r"\ban? marble \w+", sentence) for sentence in sentences_about("marble", 100, kind="material"))
    for concept in ("bricks", "the old wood", "pine cone"):
        for sentence in sentences_about(concept, 1000, kind="material"):
            assert re.search(rf"\b(made (entirely )?of|\w+ of) {concept.removeprefix('the ')}\b", sentence), sentence


def test_sentences_depend_on_the_seed_alone() -> None:
    assert sentences_about("cat", 300, seed=3) == sentences_about("cat", 300, seed=3)
    assert sentences_about("cat", 300, seed=3)[:100] == sentences_about("cat", 100, seed=3)
    assert set(sentences_about("cat", 300, seed=3)) != set(sentences_about("cat", 300, seed=4))


def test_two_concepts_get_the_same_sentences_round_different_words() -> None:
    cats, dogs = sentences_about("cat", 500, kind="pet"), sentences_about("dog", 500, kind="pet")
    assert [re.sub(r"\bcat(s?)\b", r"dog\1", sentence) for sentence in cats] == dogs


def test_more_than_the_grammar_can_make_is_refused() -> None:
    with pytest.raises(ValueError, match=r"makes only \d+ different sentences about 'cat'") as caught:
        sentences_about("cat", 10**6)
    capacity = int(re.findall(r"only (\d+)", str(caught.value))[0])
    assert len(set(sentences_about("cat", capacity))) == capacity


def test_what_the_grammar_cannot_make_sentences_about_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"makes no different sentences about 'dog .{56}' \.\.\. as a thing\. Choose"
    ) as caught:
        sentences_about("dog " * 200, 10)
    assert len(str(caught.value)) < 200


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="count is 0"):
        sentences_about("cat", 0)
    with pytest.raises(ValueError, match=r"kind is 'beast'.*thing, animal"):
        sentences_about("cat", 1, kind="beast")  # type: ignore[arg-type]


# --- Banks


def test_sentence_file_is_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes("\ufeffa café cat\r\n\r\n  The cat sleeps. \nlast cat".encode())
    assert read_sentences(path) == ["a café cat", "The cat sleeps.", "last cat"]


def test_bad_sentence_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    with pytest.raises(FileNotFoundError, match=re.escape(str(path))):
        read_sentences(path)
    path.write_text(" \n\n")
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))}.*empty"):
        read_sentences(path)
    path.write_bytes("a café".encode("latin-1"))
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))} is not UTF-8 \(byte 5\)"):
        read_sentences(path)
    with pytest.raises(ValueError, match="empty"):
        parse_sentences("")


@pytest.mark.parametrize("separator", ["\n", "\r\n", "\u2028", "\u2029", "\x0b", "\x0c", "\x85"])
def test_sentences_end_at_every_separator_of_lines(separator: str):
    """As they come pasted from web pages and word processors."""
    assert parse_sentences(f"a cat{separator} on the grass {separator}") == ["a cat", "on the grass"]


def test_saved_sentences_come_back(tmp_path: Path) -> None:
    path = tmp_path / "cats.txt"
    save_sentences(["a café cat", "The cat sleeps."], path)
    assert read_sentences(path) == ["a café cat", "The cat sleeps."]
    with pytest.raises(FileExistsError, match=r"cats\.txt exists. Choose another name, or allow to overwrite it"):
        save_sentences(["a dog"], path)
    save_sentences(["a dog"], path, overwrite=True)
    assert read_sentences(path) == ["a dog"] and [file.name for file in tmp_path.iterdir()] == ["cats.txt"]


@pytest.mark.parametrize("sentences", [[], ["a cat", " "], ["a cat\nin two lines"]])
def test_what_is_no_list_of_sentences_is_not_saved(tmp_path: Path, sentences: list[str]) -> None:
    with pytest.raises(ValueError, match="each must be one line with something on it"):
        save_sentences(sentences, tmp_path / "cats.txt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("sentences", "others", "word"),
    [
        (["a cat on a sofa", "My Cat sleeps.", "the cat"], ["a dog on a sofa", "my dog", "the dog"], "cat"),
        (["an oil painting of a cat"], ["a sketch of a cat"], "painting"),
        (["a dog", "dogs and dogs"], ["a dog and a cat", "a cat and a cat"], "dogs"),
        (["a cat"], ["a cat"], "cat"),
    ],
)
def test_a_list_is_about_what_sets_it_apart(sentences: list[str], others: list[str], word: str) -> None:
    assert distinctive_word(sentences, others) == word


def test_sentences_without_words_have_no_distinctive_one() -> None:
    with pytest.raises(ValueError, match="no word in the sentences, of which the first is ':'"):
        distinctive_word([":", "..."], ["a cat"])


@pytest.mark.parametrize(("source", "target"), [("cat", "dog"), ("rose", "sunflower"), ("winter", "summer")])
def test_banks_are_about_their_concept(source: str, target: str) -> None:
    banks = SentenceBanks(SHIPPED / "sentences")
    assert distinctive_word(banks.read(source), banks.read(target)) == source


def test_bank_draws_without_replacement(tmp_path: Path) -> None:
    (tmp_path / "red_fox.txt").write_text("\n".join(f"red fox {number}" for number in range(50)))
    banks = SentenceBanks(tmp_path)
    drawn = banks("Red fox", 20, seed=5)
    assert len(set(drawn)) == 20 and set(drawn) < set(banks.read("red fox"))
    assert drawn == banks("Red fox", 20, seed=5) != banks("Red fox", 20, seed=6)
    with pytest.raises(ValueError, match=r"count is 51.*1\.\.50"):
        banks("red fox", 51)
    with pytest.raises(FileNotFoundError, match=r"The folder has: red fox\."):
        banks("blue fox", 1)


@pytest.mark.parametrize("concept", ["../cat", "/etc/passwd", "..", "a/b", "a\\b", "C:cat", "cat.txt", "", "cat\0"])
def test_concept_cannot_leave_the_folder(tmp_path: Path, concept: str) -> None:
    with pytest.raises(ValueError, match="cannot name a sentence bank"):
        SentenceBanks(tmp_path).read(concept)


@pytest.mark.parametrize("source", [sentences_about, SentenceBanks(SHIPPED / "sentences")])
def test_every_source_has_one_interface(source: SentenceSource) -> None:
    sentences = source("cat", 7, 1)
    assert len(sentences) == 7
    assert all(re.search(r"\bcats?\b", sentence) for sentence in sentences)


# --- Shipped edits


def test_banks_are_what_the_script_composes(tmp_path: Path) -> None:
    compose(tmp_path)
    composed = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    shipped = {path.name: path.read_text(encoding="utf-8") for path in (SHIPPED / "sentences").iterdir()}
    assert shipped == composed, "run `python -m authoring.sentences` and commit what it writes"


def test_every_edit_has_two_long_banks_about_its_concepts() -> None:
    edits = read_edits()
    wanted = "cat2dog dog2cat horse2zebra zebra2horse cat2glasses glasses2cat sketch2oil oil2sketch day2night"
    assert set(edits) >= {*wanted.split(), "summer2winter", "photo2watercolour"}
    assert {concept for edit in edits.values() for concept in (edit.source, edit.target)} == set(CONCEPTS)
    assert len(CONCEPTS) >= 30
    assert [name for name, edit in edits.items() if CONCEPTS[edit.source] != CONCEPTS[edit.target]] == []
    for name in edits:
        source_sentences, target_sentences, source, target = load_edit(name)
        for concept, sentences in ((source, source_sentences), (target, target_sentences)):
            head = Noun.parse(concept)
            assert len(set(sentences)) == len(sentences) >= 200
            assert all(head.text in sentence or str(head.plural) in sentence for sentence in sentences)


def test_unknown_edit_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no edit 'cat2cow'.*cat2dog, dog2cat"):
        load_edit("cat2cow")


def test_edits_of_another_folder(tmp_path: Path) -> None:
    (tmp_path / "sentences").mkdir()
    (tmp_path / "sentences" / "owl.txt").write_text("an owl\n")
    (tmp_path / "sentences" / "hawk.txt").write_text("a hawk\n")
    (tmp_path / "edits.json").write_text(json.dumps({"o2h": {"label": "Owl", "source": "owl", "target": "hawk"}}))
    assert load_edit("o2h", tmp_path) == (["an owl"], ["a hawk"], "owl", "hawk")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "must map each edit"),
        ("[]", "must map each edit"),
        ('{"a": {"label": "A", "source": "cat"}}', "'target'"),
        ('{"a": {"label": "A", "source": "cat", "target": 3}}', "3 is not a word"),
        ('{"a": {"label": "A", "source": "cat", "target": "cat"}}', "both 'cat'"),
    ],
)
def test_corrupt_list_of_edits_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "edits.json").write_text(content)
    with pytest.raises(ValueError, match=rf"{re.escape(str(tmp_path))}.*{message}"):
        read_edits(tmp_path)


def test_edit_cannot_name_a_bank_outside(tmp_path: Path) -> None:
    (tmp_path / "edits.json").write_text(json.dumps({"a": {"label": "A", "source": "../../x", "target": "cat"}}))
    with pytest.raises(ValueError, match="cannot name a sentence bank"):
        load_edit("a", tmp_path)


def test_missing_list_of_edits_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"edits\.json"):
        read_edits(tmp_path)
