"""How people describe the scenes of Tiny Zoo: a small grammar of captions, and its vocabulary.

The same grammar captions the training pictures and plays the part that GPT-3 plays in the paper: it writes the
many sentences about a concept whose embeddings are averaged into an edit direction.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection

from .world import Scene, sample_scene

PHRASES: dict[str, dict[str, tuple[str, ...]]] = {
    "animal": {name: (name,) for name in ("cat", "dog", "horse", "zebra", "rabbit", "cow")},
    "coat": {
        "white": ("white",),
        "grey": ("grey", "gray"),
        "orange": ("orange", "ginger"),
        "brown": ("brown",),
        "black": ("black",),
    },
    "background": {
        "meadow": ("in a meadow", "on the grass", "in a green field"),
        "beach": ("on the beach", "by the sea", "on the sand"),
        "snow": ("in the snow", "in winter", "on a snowy field"),
        "night": ("at night", "under the moon", "in the moonlight"),
        "room": ("in a room", "at home", "inside a house"),
    },
    "accessory": {
        "none": (),
        "glasses": ("wearing glasses", "with glasses", "with red glasses"),
        "hat": ("wearing a hat", "with a hat", "in a purple hat"),
    },
    "medium": {
        "drawing": ("drawing", "cartoon", "illustration"),
        "sketch": ("sketch", "pencil sketch", "pencil drawing"),
        "oil": ("oil painting", "painting", "oil picture"),
    },
    "facing": {"left": ("facing left", "looking left"), "right": ("facing right", "looking right")},
}
"""Every way in which each value of each attribute is said."""

MOODS = ("happy", "little", "cute", "friendly", "big")
POSTURES = ("standing", "waiting", "resting")

PAD, START, END, UNKNOWN = "<pad>", "<start>", "<end>", "<unknown>"


def _vocabulary() -> dict[str, int]:
    phrases = [p for values in PHRASES.values() for options in values.values() for p in options]
    words = {w for p in phrases for w in p.split()} | {*MOODS, *POSTURES, "a", "an", "the", "of", "and", "is", "there"}
    return {token: i for i, token in enumerate((PAD, START, END, UNKNOWN, *sorted(words)))}


VOCABULARY = _vocabulary()
"""Token -> id; a word that is not in it is read as `UNKNOWN`."""


def words(text: str) -> list[str]:
    """Split a text as the tokenizer does: lower case, letters and digits only."""
    return re.findall(r"[a-z0-9]+", text.lower())


def token_ids(text: str, length: int = 77) -> list[int]:
    """A text as the text encoder reads it: start, words, end, filled up with the end token, as CLIP does."""
    ids = [VOCABULARY.get(word, VOCABULARY[UNKNOWN]) for word in words(text)][: length - 2]
    return [VOCABULARY[START], *ids, *[VOCABULARY[END]] * (length - 1 - len(ids))]


def caption(scene: Scene, rng: random.Random, drop: float = 0.0, keep: Collection[str] = ("animal",)) -> str:
    """Describe a scene in one of many ways.

    Args:
        scene: what to describe.
        rng: makes the choices.
        drop: probability with which each attribute goes unmentioned.
        keep: attributes that are always mentioned.
    """

    def say(attribute: str, odds: float = 1.0) -> str:
        options = PHRASES[attribute][getattr(scene, attribute)]
        if not options or (attribute not in keep and rng.random() > odds * (1 - drop)):
            return ""
        return rng.choice(options)

    mood = rng.choice(MOODS) if rng.random() < 0.25 else ""
    posture = rng.choice(POSTURES) if rng.random() < 0.25 else ""
    animal, place, medium = say("animal") or "animal", say("background"), say("medium")
    noun = _with_article(" ".join(filter(None, (mood, say("coat"), animal))))
    details = [say("accessory"), posture, say("facing", odds=0.4)]
    match rng.randrange(4):
        case 0 if medium:
            parts = [_with_article(medium), "of", noun, *details, place]
        case 1 if place:
            parts = [place, noun, *details, medium and f", {medium}"]
        case 2 if medium:
            parts = [_with_article(medium), "of", noun, place, *details]
        case _:
            parts = [noun, *details, place, medium and f", {medium}"]
    return " ".join(filter(None, parts)).replace(" ,", ",")


def sentences(count: int, seed: int, **fixed: str) -> list[str]:
    """Write sentences about scenes that share some attributes and differ in everything else.

    Args:
        count: how many.
        seed: the same seed gives the same sentences; two lists of one seed describe the same scenes but for `fixed`.
        **fixed: the shared attributes, all of them mentioned, for example ``animal="dog"``.
    """
    return [
        caption(
            sample_scene(seed * count + i, "train", **fixed),
            random.Random(seed * count + i),
            drop=0.2,
            keep=("animal", *fixed),
        )
        for i in range(count)
    ]


def read_attributes(text: str) -> dict[str, str]:
    """The attributes that a caption names: attribute -> value; unnamed ones are absent."""
    padded = f" {' '.join(words(text))} "
    found: dict[str, tuple[int, str]] = {}
    for attribute, values in PHRASES.items():
        for value, options in values.items():
            for phrase in options:
                if f" {phrase} " in padded and len(phrase) > found.get(attribute, (0, ""))[0]:
                    found[attribute] = (len(phrase), value)
    return {attribute: value for attribute, (_, value) in found.items()}


def _with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
