"""As much English grammar as sentences about an arbitrary noun need: articles, number and plurals."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Noun:
    """A noun phrase and what a sentence must agree with.

    Attributes:
        text: the phrase without an article.
        number: "singular" goes with a or an, "plural" and "mass" with no article, "unique" with the.
        plural: the phrase in the plural; None where it is one already or cannot be counted.
    """

    text: str
    number: Literal["singular", "plural", "mass", "unique"]
    plural: str | None = None

    @property
    def head(self) -> str:
        """The word that the others say more about: "cat" of "old cat with glasses"."""
        return _split_at_head(self.text)[1]

    def mentions(self, text: str) -> list[str]:
        """Every place where a text has the phrase, in the singular or in the plural, upper or lower case."""
        names = "|".join(re.escape(name) for name in (self.text, self.plural) if name)
        return re.findall(rf"(?<!\w)(?:{names})(?!\w)", text, re.IGNORECASE)

    @classmethod
    def parse(cls, phrase: str) -> Noun:
        """Tell the number of a phrase from its article and its head: "the moon", "an old cat with glasses", "jeans".

        Args:
            phrase: a noun with what belongs to it. A proper name needs its own "the" or is taken for a common noun.

        Raises:
            ValueError: no letter or digit in it, several lines, or half of a character.
        """
        check_text(phrase, "The concept")
        if not any(character.isalnum() for character in phrase) or len(phrase.strip().splitlines()) != 1:
            raise ValueError(
                f"The concept is {shorten(phrase)}; it must be a word or a phrase on one line, of letters or digits."
            )
        text = " ".join(phrase.split())
        article, _, rest = text.partition(" ")
        if article.lower() == "the" and rest:
            return cls(rest, "unique")
        if article.lower() in ("a", "an") and rest:
            text = rest
        before, head, after = _split_at_head(text)
        if head.lower() in _MASS:
            return cls(text, "mass")
        if _is_plural(head.lower()):
            return cls(text, "plural")
        return cls(text, "singular", before + pluralize(head) + after)


def shorten(text: str, most: int = 60) -> str:
    """Quote a text in a message, of a long one the beginning."""
    return repr(text) if len(text) <= most else f"{text[:most]!r} ..."


def check_text(text: str, name: str) -> None:
    """Refuse half of a character: a surrogate alone, as cutting a text in the middle of an emoji leaves it.

    Raises:
        ValueError: one is in the text; no file can hold it and no tokenizer reads it.
    """
    halves = [character for character in text if "\ud800" <= character <= "\udfff"]
    if halves:
        raise ValueError(
            f"{name} holds half of a character, {halves[0]!r}, as is left of an emoji that was cut in two. Write it "
            "again."
        )


def indefinite_article(word: str) -> Literal["a", "an"]:
    """The article that fits the sound with which `word` starts: an hour, a unicorn, an X-ray."""
    plain = unicodedata.normalize("NFKD", word).encode("ascii", "ignore").decode()
    start = re.split(r"[^A-Za-z0-9]", plain, maxsplit=1)[0]
    if start[:1].isdigit():  # eight, eighth, eleven, eighteenth
        vowel = re.match(r"8|1[18](?!\d)", start) is not None
    elif len(start) == 1 or (start.isupper() and len(start) <= 3):  # said letter by letter
        vowel = start[0].upper() in "AEFHILMNORSX"
    else:
        vowel = _STARTS_WITH_VOWEL_SOUND.match(plain) is not None
    return "an" if vowel else "a"


def exchange_phrase(text: str, old: str, new: str) -> str | None:
    """Put a phrase in the place of another, the first time that a text has that, and mend the article before it.

    Args:
        text: any.
        old: the phrase to look for, in whole words, upper or lower case.
        new: what takes its place.

    Returns:
        the text with the one for the other; None where it does not have it.
    """
    found = re.search(rf"(?<!\w)(?:(an?) )?{re.escape(old)}(?!\w)", text, re.IGNORECASE)
    if found is None:
        return None
    article = ""
    if found[1]:
        mended = indefinite_article(new)
        article = f"{mended.capitalize() if found[1][0].isupper() else mended} "
    return text[: found.start()] + article + new + text[found.end() :]


def pluralize(noun: str) -> str:
    """The plural of one English noun: dog, dogs; box, boxes; snowman, snowmen."""
    lower = noun.lower()
    if lower not in _REGULAR:
        for singular, plural in _IRREGULAR_PLURALS.items():
            if lower == singular or (lower.endswith(singular) and len(singular) > 2):
                stem = len(noun) - len(singular)
                return noun[:stem] + (plural.capitalize() if noun[stem].isupper() else plural)
    if re.search(r"[^aeiou]y$", lower):
        return noun[:-1] + "ies"
    if re.search(r"(s|x|z|ch|sh)$", lower) or lower in _TAKE_ES:
        return noun + "es"
    return noun + "s"


def _split_at_head(phrase: str) -> tuple[str, str, str]:
    """Part a phrase round its head, the word that takes the plural: ("old ", "cat", " with glasses")."""
    words = phrase.split(" ")
    end = next((i for i, word in enumerate(words) if i > 0 and word.lower() in _STARTS_POSTMODIFIER), len(words))
    before, after = " ".join([*words[: end - 1], ""]), " ".join(["", *words[end:]])
    return before, words[end - 1], after


def _is_plural(noun: str) -> bool:
    if noun in _IRREGULAR_PLURALS.values() and noun not in _IRREGULAR_PLURALS:
        return True
    if noun in ("cattle", "police") or noun.endswith("men"):
        return noun not in ("specimen", "omen", "abdomen", "stamen", "ramen")
    return noun.endswith("s") and not noun.endswith(("ss", "us", "is")) and noun not in _SINGULAR_IN_S


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_STARTS_WITH_VOWEL_SOUND = re.compile(
    r"(?!uni(?![dmn])|us(?:e|ua|ur|age)|ut[eio]|uk|ubiq|ura|ufo|eu|ewe|once|one\b)[aeiou]|hour|hon(?:est|o)|heir",
    re.IGNORECASE,
)
_STARTS_POSTMODIFIER = _words("and at by covered for from holding in made near of on under wearing with without")
_REGULAR = _words("german human mongoose ottoman roman shaman talisman")
_IRREGULAR_PLURALS = {
    **{"man": "men", "child": "children", "person": "people", "foot": "feet", "tooth": "teeth", "ox": "oxen"},
    **{"mouse": "mice", "goose": "geese", "wolf": "wolves", "calf": "calves", "leaf": "leaves", "loaf": "loaves"},
    **{"shelf": "shelves", "elf": "elves", "scarf": "scarves", "knife": "knives", "wife": "wives", "half": "halves"},
    **{"thief": "thieves", "cactus": "cacti", "sheep": "sheep", "deer": "deer", "moose": "moose", "bison": "bison"},
    **{"fish": "fish", "salmon": "salmon", "aircraft": "aircraft", "series": "series", "species": "species"},
}
_TAKE_ES = _words("echo hero mango potato tomato torpedo volcano")
_SINGULAR_IN_S = _words(
    """
    alias asbestos atlas bias canvas chaos christmas cosmos gas lens news pancreas rhinoceros series species thermos
    """
)
_MASS = _words(
    """
    bread bronze butter chalk cheese chess clay clothing coal coffee concrete copper cotton denim dust equipment fabric
    fog food fur furniture gold graffiti grass gravel hail hair hay honey ice ink ivory ivy jade jewelry lace
    lava leather lightning linen luggage marble meat metal milk mist money moonlight moss mud music news oil paint paper
    pasta plastic porcelain pottery rain rice rubber rust salt sand scenery seaweed silk silver smoke snow soil
    spaghetti steam steel straw sugar sunlight sunshine tea traffic vegetation velvet water weather wheat wine wood
    wool
    """
)
