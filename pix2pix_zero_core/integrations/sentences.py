"""Where the sentences of an edit direction come from: banks on disk, and two writers for any other word.

All fit one interface, `SentenceSource`: a bank folder is `SentenceBanks(folder)`, the grammar `sentences_about`, a
language model `SentenceWriter` in `language_model.py`. Named edits pair two banks ("cat2dog").
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ..files import write_whole
from .english import check_text
from .sentence_grammar import Kind, sentences_about

__all__ = [
    "SHIPPED",
    "EditSentences",
    "Kind",
    "NamedEdit",
    "SentenceBanks",
    "SentenceSource",
    "distinctive_word",
    "known_concepts",
    "load_edit",
    "parse_sentences",
    "read_edits",
    "read_sentences",
    "save_sentences",
    "sentences_about",
]


def _shipped_folder() -> Path:
    """`directions` beside the package in the repository; an installed wheel has it beside this module."""
    installed = Path(__file__).resolve().parent / "directions"
    return installed if installed.is_dir() else Path(__file__).resolve().parents[2] / "directions"


SHIPPED = _shipped_folder()
"""The folder of the edits and banks that come with the project."""


class SentenceSource(Protocol):
    """Anything that has sentences about a concept."""

    def __call__(self, concept: str, count: int, seed: int = 0) -> list[str]:
        """Give `count` different sentences that name the concept, the same for the same arguments.

        Raises:
            ValueError: it cannot give so many, or none about this concept.
        """
        ...


@dataclass(frozen=True)
class SentenceBanks:
    """A folder of text files, one a concept: "cat with glasses" is `cat_with_glasses.txt`.

    Attributes:
        folder: where the files are; no concept leads out of it.
    """

    folder: Path

    def __call__(self, concept: str, count: int, seed: int = 0) -> list[str]:
        """Draw sentences of a bank without replacement; banks of equal length give the same lines for the same seed.

        Raises:
            FileNotFoundError: no bank for the concept.
            ValueError: a concept that cannot be a file name, a corrupt bank, or more sentences than it has.
        """
        sentences = self.read(concept)
        if not 1 <= count <= len(sentences):
            raise ValueError(f"count is {count}; the bank of {concept!r} has sentences for 1..{len(sentences)}.")
        rng = random.Random(seed)
        return sorted(sentences, key=lambda _: rng.random())[:count]

    def read(self, concept: str) -> list[str]:
        """Every sentence of the concept's bank, in the order of the file.

        Raises:
            FileNotFoundError: no bank for the concept.
            ValueError: a concept that cannot be a file name, or a corrupt bank.
        """
        path = self.path(concept)
        if not path.is_file():
            known = ", ".join(self.concepts()) or "none"
            raise FileNotFoundError(f"There is no sentence bank {path}. The folder has: {known}.")
        return read_sentences(path)

    def concepts(self) -> list[str]:
        """The concepts that have a bank, in alphabetical order."""
        return sorted(path.stem.replace("_", " ") for path in self.folder.glob("*.txt"))

    def path(self, concept: str) -> Path:
        """The file of a concept's bank, whether it exists or not.

        Raises:
            ValueError: characters other than letters, digits, spaces, hyphens and apostrophes.
        """
        name = concept.strip().lower().replace(" ", "_")
        if not re.fullmatch(r"\w[\w'-]*", name):
            raise ValueError(
                f"The concept {concept!r} cannot name a sentence bank; use letters, digits, spaces, - and ' only."
            )
        return self.folder / f"{name}.txt"


def known_concepts() -> list[str]:
    """The concepts of the banks that come with the project."""
    return SentenceBanks(SHIPPED / "sentences").concepts()


def parse_sentences(text: str) -> list[str]:
    """Split a text into sentences, one a line; blank lines are left out.

    Raises:
        ValueError: no sentence in it, or half of a character.
    """
    check_text(text, "The sentence list")
    sentences = [line.strip() for line in text.splitlines() if line.strip()]
    if not sentences:
        raise ValueError("The sentence list is empty; write at least one sentence, one a line.")
    return sentences


def read_sentences(path: str | Path) -> list[str]:
    """Read a text file of sentences, UTF-8, one a line.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not UTF-8, or no sentence in it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no sentence file {path}.")
    try:
        return parse_sentences(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8 text.") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def save_sentences(sentences: Sequence[str], path: str | Path, *, overwrite: bool = False) -> None:
    """Write a text file of sentences, as `read_sentences` reads it; an interrupted write leaves no file behind.

    Args:
        sentences: at least one, each on one line.
        path: where to; its folder must exist.
        overwrite: whether a file that is there already may be replaced.

    Raises:
        ValueError: no sentences, or one that is empty or has several lines.
        FileExistsError: the file exists, and may not be replaced; or a folder has its name.
        FileNotFoundError: the folder does not exist.
    """
    if not sentences or not all(len(sentence.strip().splitlines()) == 1 for sentence in sentences):
        raise ValueError("There must be at least one sentence, and each must be one line with something on it.")
    check_text("\n".join(sentences), "The sentence list")
    write_whole(Path(path), ("\n".join(sentences) + "\n").encode(), overwrite=overwrite)


def distinctive_word(sentences: Sequence[str], others: Sequence[str]) -> str:
    """The word that most sets one list of sentences apart from another: what the first is about.

    Args:
        sentences: about a concept, at least one.
        others: about another one.

    Returns:
        a word of `sentences` in lower case; of several that are equally distinctive, the longest.

    Raises:
        ValueError: there is no word in `sentences`.
    """

    def shares(texts: Sequence[str]) -> Counter[str]:
        return Counter(word for text in texts for word in dict.fromkeys(re.findall(r"[\w'-]+", text.lower())))

    own, other = shares(sentences), shares(others)
    if not own:
        raise ValueError(
            f"There is no word in the sentences, of which the first is {sentences[0]!r}; write some with words."
        )
    return max(own, key=lambda word: (own[word] / len(sentences) - other[word] / max(len(others), 1), len(word)))


@dataclass(frozen=True)
class NamedEdit:
    """An edit from one concept to another, as `edits.json` lists it.

    Attributes:
        label: for people to read.
        source: the concept to be replaced; the name of a bank.
        target: the concept to replace it; the name of a bank.
    """

    label: str
    source: str
    target: str


class EditSentences(NamedTuple):
    """What an edit direction is built from."""

    source_sentences: list[str]
    target_sentences: list[str]
    source: str
    target: str


def read_edits(folder: str | Path = SHIPPED) -> dict[str, NamedEdit]:
    """Read the list of named edits, id to edit, in the order of the file.

    Args:
        folder: holds `edits.json`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is not a JSON object of edits with a label and a source and target that differ.
    """
    path = Path(folder) / "edits.json"
    if not path.is_file():
        raise FileNotFoundError(f"There is no list of edits {path}.")
    try:
        listed: Any = json.loads(path.read_text(encoding="utf-8"))
        edits = {str(name): _parse_edit(entry) for name, entry in listed.items()}
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f'{path} must map each edit to its "label", "source" and "target": {error}.') from error
    return edits


def _parse_edit(entry: Any) -> NamedEdit:
    label, source, target = entry["label"], entry["source"], entry["target"]
    for value in (label, source, target):
        if not isinstance(value, str) or not value:
            raise TypeError(f"{value!r} is not a word")
    if source == target:
        raise ValueError(f"source and target are both {source!r}")
    return NamedEdit(label, source, target)


def load_edit(edit: str, folder: str | Path = SHIPPED) -> EditSentences:
    """Read both sentence banks of a named edit.

    Args:
        edit: its id, such as "cat2dog".
        folder: holds `edits.json` and the banks in `sentences/`.

    Raises:
        FileNotFoundError: the list of edits or a bank is missing.
        ValueError: an id that is not listed, or a corrupt file.
    """
    edits = read_edits(folder)
    if edit not in edits:
        raise ValueError(f"There is no edit {edit!r}; the edits are {', '.join(edits)}.")
    banks = SentenceBanks(Path(folder) / "sentences")
    source, target = edits[edit].source, edits[edit].target
    return EditSentences(banks.read(source), banks.read(target), source, target)
