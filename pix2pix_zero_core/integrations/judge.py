"""Whether a picture shows what an edit leads to, by the captioner that is loaded anyway.

Of two texts the one is asked for that BLIP rather says of the picture: ``log p(target | picture) - log p(source |
picture)``, natural logarithms, 0 where both are as likely. Three things make that a judgement of the edit:

    Only the phrases count.   What both texts begin with is given, and what both end with is left out: how likely a
                              captioner is to go on with "on a sofa" after "a cat wearing glasses" says nothing of the
                              glasses.
    Phrasings add up.         "with glasses" and "wearing glasses" say the same, and so p(target) is the sum of both.
    Silence is no denial.     Where an edit adds something, the source text stays true of the edited picture, and
                              captions leave most things out. The two texts are then no alternatives, and the target
                              is taken for shown where the captioner names it at its place with a probability of at
                              least `NAMED`: the score is logit p(target) - logit `NAMED`. Where something is taken
                              away, the same holds of the source.

References:
    Li et al., BLIP: Bootstrapping Language-Image Pre-training, 2022, arXiv:2201.12086.
    Hessel et al., CLIPScore: A Reference-free Evaluation Metric for Image Captioning, EMNLP 2021, arXiv:2104.08718,
    which judges captions by a network that wrote none of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor

from ..aligned import AlignedDirection
from ..directions import Direction
from ..tokens import Token, exchanged, written
from .captioner import TokenLikelihoods
from .concepts import find_mention, mentions_several, source_warning, without_details
from .english import Noun, exchange_phrase

NAMED = 0.1
"""How likely a captioner at least names a detail that is there, at the one place where it is looked for.

A convention, not a fit: captions name some of all details, in an order of their own. One in ten is well above what a
captioner says of details that are not there, and below what it says of those that are."""

_NAMED_LOGIT = math.log(NAMED / (1 - NAMED))

CLEAR = 2.0
"""A score from which on a judgement is called clear: odds of 7 to 1."""


class Reads(Protocol):
    """What is needed of a captioner: `Captioner` is one."""

    def likelihoods(self, images: Tensor, captions: Sequence[Sequence[str]]) -> list[list[TokenLikelihoods]]:
        """See `Captioner.likelihoods`."""
        ...


@dataclass(frozen=True)
class Question:
    """Two texts in one phrasing or several, of which a picture fits one better.

    Attributes:
        source: what is said of the picture before the edit.
        target: what is said of it afterwards.
        source_name: what the edit leads away from, for people.
        target_name: what it leads to.

    Raises:
        ValueError: no text of one kind, or a text of both.
    """

    source: tuple[str, ...]
    target: tuple[str, ...]
    source_name: str
    target_name: str

    def __post_init__(self) -> None:
        """Validate that there is something to ask."""
        both = {text.strip().lower() for text in self.source} & {text.strip().lower() for text in self.target}
        if not self.source or not self.target or both:
            raise ValueError(
                f"The judge is to tell {self.target_name!r} from {self.source_name!r} by the texts {self.target} and "
                f"{self.source}; there must be at least one of each, and none of both. Give a source and a target "
                "caption that differ."
            )


def ask(caption: str, source: str, target: str, exchanges: Iterable[tuple[str, str]] = ()) -> Question:
    """Make the texts of an edit from a caption, by exchanging what it says of the source for the target.

    Where the caption does not name the source, both names are put at its end.

    Args:
        caption: of the picture before the edit.
        source: name of what the edit leads away from, "cat".
        target: name of what it leads to, "dog".
        exchanges: further phrases and what takes their place, as an aligned direction knows them.

    Raises:
        ValueError: a name without a word in it, or texts that come out the same.
    """
    before, after = (Noun.parse(_without_denial(name)) for name in (source, target))
    pairs = [*exchanges, (before.text, after.text)]
    if before.plural and after.plural:
        pairs.append((before.plural, after.plural))
    for old, new in sorted(pairs, key=lambda pair: -len(pair[0])):
        for place in _phrasings(old):
            if exchange_phrase(caption, place, new) is not None:
                news = [its for other, its in pairs if other == old]
                olds = [place, *(other for other, its in pairs if its in news)]
                return Question(_fill(caption, place, olds), _fill(caption, place, news), source, target)
    place = find_mention(caption, source)
    if place is None:
        said = [", ".join(filter(None, [caption.strip(), noun.text])) for noun in (before, after)]
        return Question((said[0],), (said[1],), source, target)
    bare = without_details(caption, source)
    if bare != caption and before.head == after.text:
        return Question((caption,), (bare,), source, target)
    there = after.plural if mentions_several(place, source) and after.plural else after.text
    olds = [old for old, new in pairs if new == there] or [before.text]
    if before.text == before.head:  # else the caption has the "cat" of "cat with glasses", and says nothing of glasses
        olds.append(place)
    return Question(_fill(caption, place, olds), _fill(caption, place, [there]), source, target)


def ask_of_direction(caption: str, direction: Direction, strength: float = 1.0) -> list[Question]:
    """Make the questions of an edit direction: one, or as many as were combined.

    Args:
        caption: of the picture before the edit.
        direction: of any form; one that is aligned to words knows more phrases than its names.
        strength: only its sign counts; a negative one leads back from the target.

    Raises:
        ValueError: see `ask`.
    """
    names = list(zip(direction.source.split(" + "), direction.target.split(" + "), strict=False))
    exchanges: list[list[tuple[str, str]]] = [[] for _ in names]
    # of an encoder that reads a text twice there are as many for each reading
    edits = [e for e in direction.edits if e.reading == 0] if isinstance(direction, AlignedDirection) else []
    if len(edits) == len(names):
        for known, edit in zip(exchanges, edits, strict=True):
            phrases = [(e.source.text, e.target.text) for e in edit.exchanges]
            known += phrases if edit.weight >= 0 else _reversed(phrases)
    if strength < 0:
        names, exchanges = _reversed(names), [_reversed(known) for known in exchanges]
    return [ask(caption, *pair, known) for pair, known in zip(names, exchanges, strict=True)]


def ask_of_texts(source: Sequence[str], target: Sequence[str]) -> Question:
    """Make a question of captions; what is in one and not in the other gives the names.

    Args:
        source: what is said of the picture before the edit, in one phrasing or several.
        target: what is said of it afterwards.

    Raises:
        ValueError: no text of one kind, or nothing that differs.
    """
    if not source or not target:
        return Question(tuple(source), tuple(target), "source", "target")
    words = [re.findall(r"[\w'-]+", texts[0]) for texts in (source, target)]
    ids = {word.lower(): number for number, word in enumerate([*words[0], *words[1]])}
    tokens = [[Token(i, ids[word.lower()], f"{word} ") for i, word in enumerate(text)] for text in words]
    names = [written(text[part]) for text, part in zip(tokens, exchanged(*tokens), strict=True)]
    return Question(tuple(source), tuple(target), names[0] or source[0], names[1] or target[0])


def judge(captioner: Reads, images: Tensor, questions: Sequence[Sequence[Question]]) -> Tensor:
    """Score pictures: above 0 a picture shows the target, below it does not; see the head of this module.

    Args:
        captioner: reads the pictures.
        images: (B, H, W, 3), values in 0..1.
        questions: for each picture one or more; of several edits the least one counts.

    Returns:
        (B,), float32, natural logarithms of odds; a picture has the same alone and in a batch.

    Raises:
        ValueError: another number of questions than pictures, or what `Captioner.likelihoods` refuses.
    """
    texts = [[text for question in asked for text in (*question.source, *question.target)] for asked in questions]
    scores: list[float] = []
    for asked, read in zip(questions, captioner.likelihoods(images, texts), strict=True):
        rest = iter(read)
        answers = [(list(islice(rest, len(q.source))), list(islice(rest, len(q.target)))) for q in asked]
        scores.append(min(_score(*answer) for answer in answers))
    return torch.tensor(scores)


def in_words(questions: Sequence[Question], score: float) -> str:
    """Say a score for people: "dog: clearly (2.3)"."""
    said = "clearly" if score >= CLEAR else "just about" if score > 0 else "not quite" if score > -CLEAR else "no"
    return f"{_targets(questions)}: {said} ({score:.1f})"


def warn_before(questions: Sequence[Question], score: float, seen: str) -> str:
    """Say why an edit does not fit a picture, before it is made.

    Args:
        questions: of the edit.
        score: of the picture.
        seen: the captioner's own caption of it.

    Returns:
        a warning, or nothing.
    """
    if score > 0:
        return f"The picture shows {_targets(questions)!r} already ({score:.1f}), where this edit leads."
    for question in questions:
        if source_warning(seen, question.source_name, question.target_name) is not None:
            return f"The captioner sees no {question.source_name!r} in the picture, where this edit starts, but: {seen}"
    return ""


def warn_after(questions: Sequence[Question], score: float) -> str:
    """Say that an edit does not show; nothing where it does."""
    if score > 0:
        return ""
    return (
        f"The edit does not show: {in_words(questions, score)}. Raise the direction's strength or cfg, or lower "
        "guidance."
    )


def _score(source: Sequence[TokenLikelihoods], target: Sequence[TokenLikelihoods]) -> float:
    """The score of a picture from the likelihoods of both kinds of text."""
    texts = [text.ids for text in (*source, *target)]
    shortest = min(map(len, texts))
    begin = next((i for i in range(shortest) if len({ids[i] for ids in texts}) > 1), shortest)
    left = shortest - begin
    end = next((i for i in range(left) if len({ids[-1 - i] for ids in texts}) > 1), left)
    before, after = (
        [text.log_p[begin : len(text.ids) - end].double().sum() for text in side if len(text.ids) > begin + end]
        for side in (source, target)
    )
    adds, takes_away = len(before) < len(source), len(after) < len(target)
    if (adds and not after) or (takes_away and not before):
        raise ValueError("The captioner's tokenizer reads source and target alike; give texts that differ in words.")
    if adds:
        return _logit(_sum(after)) - _NAMED_LOGIT
    if takes_away:
        return _NAMED_LOGIT - _logit(_sum(before))
    return float(_sum(after) - _sum(before))


def _sum(log_p: Sequence[Tensor]) -> Tensor:
    """The logarithm of a sum of probabilities."""
    return torch.stack(list(log_p)).logsumexp(0)


def _logit(log_p: Tensor) -> float:
    """The logarithm of the odds, log p - log(1 - p), finite also where the captioner has no doubt."""
    log_p = log_p.clamp(max=-1e-6)
    return float(log_p - torch.log(-torch.expm1(log_p)))


def _fill(caption: str, place: str, phrases: Iterable[str]) -> tuple[str, ...]:
    """The caption with each of some phrases in every phrasing where it has another."""
    said = [said for phrase in phrases for said in _phrasings(phrase)]
    return tuple(dict.fromkeys(text for phrase in said if (text := exchange_phrase(caption, place, phrase))))


def _phrasings(phrase: str) -> list[str]:
    """A phrase, and the same in other words: "cat with glasses", "cat wearing glasses"."""
    other = {"with": "wearing", "wearing": "with"}
    said = re.sub(r"\b(with|wearing)\b", lambda found: other[found[0]], phrase, count=1)
    return list(dict.fromkeys([phrase, said]))


def _without_denial(name: str) -> str:
    """What captions say of a "cat without glasses": they do not say what is not there."""
    return re.sub(r" without .*", "", name)


def _targets(questions: Sequence[Question]) -> str:
    return " + ".join(question.target_name for question in questions)


def _reversed(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(after, before) for before, after in pairs]
