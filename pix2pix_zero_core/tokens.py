"""Tokens of texts: which ones two sentences differ in, and where a text has a phrase."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple


class Token(NamedTuple):
    """A piece of a text as the text encoder reads it.

    Attributes:
        position: of its embedding among those of the whole text, from 0.
        id: its number in the vocabulary.
        text: how it is written; it ends in a space where a word ends.
    """

    position: int
    id: int
    text: str


Tokenize = Callable[[str], Sequence[Token]]
"""A text -> its tokens, in order. What starts, ends and fills up the text is left out."""

SPACES, WORD_END = ("\u2581", "\u0120", "\u010a"), "</w>"
"""How vocabularies mark words: SentencePiece's and byte-level ones by the space in front, CLIP's by their end."""


def marks_words(vocabulary: Iterable[str]) -> bool:
    """Whether a vocabulary marks where words begin or end; else every token of it is a word."""
    return any(piece.startswith(SPACES) or piece.endswith(WORD_END) for piece in vocabulary)


def spell(pieces: Sequence[str], *, marked: bool) -> list[str]:
    """Write the tokens of a text as `Token.text` has them.

    Args:
        pieces: as the vocabulary writes them.
        marked: whether it marks words, see `marks_words`.
    """
    following = [*pieces, ""][1:]  # none of none
    return [
        piece.removesuffix(WORD_END).strip("".join(SPACES)) + " " * (not marked or _ends_word(piece, after))
        for piece, after in zip(pieces, following, strict=True)
    ]


def _ends_word(piece: str, after: str) -> bool:
    """Whether a word ends between two tokens, and not only a part of it."""
    if piece.endswith(WORD_END) or not after or after.startswith(SPACES):
        return True
    if piece in SPACES:  # of the word that follows
        return False
    # Byte-level tokenizers write a letter that is not of ASCII as two, not always letters.
    return not all(sign.isalnum() or ord(sign) > 127 for sign in (piece[-1], after[0]))


def exchanged(before: Sequence[Token], after: Sequence[Token]) -> tuple[slice, slice]:
    """Find the phrase of a sentence that another sentence has exchanged for a phrase of its own.

    Args:
        before: tokens of the sentence.
        after: tokens of the other one.

    Returns:
        the tokens of each that the other lacks, in whole words. Where something was only put in, the word in front of
        it (or behind it, at the start) belongs to both phrases, so that the first says where.
    """
    shortest = min(len(before), len(after))
    first = next((i for i in range(shortest) if before[i].id != after[i].id), shortest)
    last = next((i for i in range(shortest - first) if before[-1 - i].id != after[-1 - i].id), shortest - first)
    while first > 0 and (first + last == len(before) or not before[first - 1].text.endswith(" ")):
        first -= 1
    while last > 0 and (first + last == len(before) or not _end_in_words(before, after, last)):
        last -= 1
    return slice(first, len(before) - last), slice(first, len(after) - last)


def _end_in_words(before: Sequence[Token], after: Sequence[Token], last: int) -> bool:
    """Whether two texts without their last tokens end where words end."""
    return all(text[-1 - last].text.endswith(" ") for text in (before, after) if len(text) > last)


def occurrences(tokens: Sequence[Token], phrase: Sequence[int], text: str = "") -> list[int]:
    """Find where a text has a phrase, in whole words.

    Args:
        tokens: of the text.
        phrase: the ids of its tokens.
        text: how it is written. As many tokens that are written so pass for it as well: many tokenizers have another
            token for the word at the start of a text, and for the word with a capital.

    Returns:
        the index in `tokens` of every beginning; none for an empty phrase.
    """
    wanted, count = tuple(phrase), len(phrase)

    def found(start: int) -> bool:
        window = tokens[start : start + count]
        named = tuple(token.id for token in window) == wanted or written(window).lower() == text.lower()
        return named and (start == 0 or tokens[start - 1].text.endswith(" ")) and window[-1].text.endswith(" ")

    return [start for start in range(len(tokens) - count + 1) if found(start)] if wanted else []


def written(tokens: Sequence[Token]) -> str:
    """How tokens are written together."""
    return "".join(token.text for token in tokens).strip()
