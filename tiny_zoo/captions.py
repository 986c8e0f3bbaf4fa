"""How people describe the scenes of Tiny Zoo: a small grammar of captions, and its vocabulary.

The same grammar captions the training pictures and plays the part that GPT-3 plays in the paper: it writes the
many sentences about a concept whose embeddings are averaged into an edit direction. What people write below pictures on
the web is often wrong and leaves most out: `unreliable_caption` describes a scene as badly as they do.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection

from .world import ATTRIBUTES, Scene, counterfactual, sample_scene

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
    "posture": {
        "standing": ("standing",),
        "walking": ("walking", "strolling"),
        "sitting": ("sitting", "sitting down"),
        "lying": ("lying down", "resting"),
    },
    "side": {"left": ("on the left",), "middle": ("in the middle",), "right": ("on the right",)},
    "framing": {"far": ("far away",), "medium": (), "close": ("seen up close",)},
}
"""Every way in which each value of each attribute is said."""

MOODS = ("happy", "little", "cute", "friendly", "big")

WRONG = {
    "animal": 0.4,
    "coat": 0.25,
    "background": 0.15,
    "accessory": 0.15,
    "medium": 0.1,
    "facing": 0.1,
    "posture": 0.15,
}
"""How often an unreliable caption says something else of an attribute, where it says anything: of the animal in 30 % of
all captions, since 10 % are empty and 15 % leave it out."""

PAD, START, END, UNKNOWN = "<pad>", "<start>", "<end>", "<unknown>"


def _vocabulary() -> dict[str, int]:
    phrases = [p for values in PHRASES.values() for options in values.values() for p in options]
    words = {w for p in phrases for w in p.split()} | {*MOODS, "animal", "a", "an", "the", "of", "and", "is", "there"}
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
    """Describe a scene truthfully in one of many ways.

    Args:
        scene: what to describe.
        rng: makes the choices.
        drop: probability with which each attribute goes unmentioned; what hardly anybody mentions is rarer still.
        keep: attributes that are always mentioned.
    """
    odds = {"facing": 0.4, "posture": 0.5, "side": 0.2, "framing": 0.2}
    named = {a for a in PHRASES if rng.random() < odds.get(a, 1.0) * (1 - drop)}
    return describe(scene, rng, named | set(keep))


def unreliable_caption(scene: Scene, rng: random.Random) -> str:
    """Describe a scene as the web would: mostly one to three attributes, some of them wrong, now and then nothing."""
    if rng.random() < 0.1:
        return ""
    wrong = {
        a: rng.choice([v for v in ATTRIBUTES[a] if v != getattr(scene, a)]) for a in WRONG if rng.random() < WRONG[a]
    }
    named = set(rng.sample([a for a in PHRASES if a != "animal"], rng.choice((0, 1, 1, 1, 2, 2, 2, 4, 6))))
    if rng.random() < 0.83:
        named.add("animal")
    return describe(counterfactual(scene, **wrong), rng, named)


def describe(scene: Scene, rng: random.Random, named: Collection[str]) -> str:
    """Say some attributes of a scene; an animal whose kind is not among them is called an animal.

    Two scenes that differ in one attribute are described in the same words but for that one, given the same `rng`.
    """
    draws = {attribute: rng.random() for attribute in PHRASES}

    def say(attribute: str) -> str:
        options = PHRASES[attribute][getattr(scene, attribute)]
        return options[int(draws[attribute] * len(options))] if options and attribute in named else ""

    mood = rng.choice(MOODS) if rng.random() < 0.25 else ""
    animal, place, medium = say("animal") or "animal", say("background"), say("medium")
    noun = _with_article(" ".join(filter(None, (mood, say("coat"), animal))))
    details = [say("accessory"), say("posture"), say("facing"), say("side"), say("framing")]
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
