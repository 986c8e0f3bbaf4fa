"""Edit directions of either form from sentences about two concepts, and the pairs that the aligned form needs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Literal

from ..aligned import AlignedDirection
from ..directions import Direction, EditDirection, Encode, OnProgress
from ..readings import Reading
from ..tokens import Tokenize
from .english import Noun, indefinite_article
from .sentences import EditSentences

Form = Literal["aligned to words", "mean by position"]
"""How the embeddings of sentences become a direction: `AlignedDirection` or `EditDirection`, by their names."""

FEWEST = 0.1
"""Where a smaller share of the sentences has a partner, they were not written in pairs."""


def build_direction(
    texts: EditSentences,
    form: Form,
    encode: Encode,
    tokenize: Tokenize,
    *,
    encoder: str,
    readings: Sequence[Reading] | None = None,
    on_progress: OnProgress = None,
) -> Direction:
    """Make an edit direction.

    Args:
        texts: sentences about both concepts.
        form: of the direction.
        encode: the text encoder.
        tokenize: its tokenizer.
        encoder: its fingerprint.
        readings: how it lays a text into its embedding; None is as CLIP does.
        on_progress: called after every batch with the number of encoded sentences and their total.

    Raises:
        ValueError: an unknown form, or sentences that it cannot be made of.
    """
    source, target = texts.source, texts.target
    if form == AlignedDirection.form:
        pairs = pair_sentences(texts)
        return AlignedDirection.build(
            encode,
            tokenize,
            pairs,
            source=source,
            target=target,
            encoder=encoder,
            readings=readings,
            on_progress=on_progress,
        )
    if form == EditDirection.form:
        sentences = texts.source_sentences, texts.target_sentences
        return EditDirection.build(
            encode, *sentences, source=source, target=target, encoder=encoder, on_progress=on_progress
        )
    raise ValueError(
        f"The form of the direction is {form!r}; it must be {AlignedDirection.form!r} or {EditDirection.form!r}."
    )


def pair_sentences(texts: EditSentences) -> list[tuple[str, str]]:
    """Find pairs of sentences that are the same but for one phrase.

    Sentences with the same number may be such pairs: those of the grammar mostly are. Where fewer than half of them
    are, and more come of it, the concepts' names are exchanged for each other in the sentences of either.

    Args:
        texts: sentences about both concepts.

    Returns:
        pairs of a source and a target sentence.

    Raises:
        ValueError: fewer than a tenth of the sentences have a partner.
    """
    numbered = zip(texts.source_sentences, texts.target_sentences, strict=False)
    pairs = [pair for pair in numbered if _differ_once(*pair)]
    count = max(len(texts.source_sentences), len(texts.target_sentences))
    if 2 * len(pairs) < count:
        pairs = max(pairs, _exchange_names(texts), key=len)
    if len(pairs) < FEWEST * count:
        raise ValueError(
            f"Only {len(pairs)} of {count} sentences about {texts.source!r} have a partner about {texts.target!r} that "
            "is the same but for one phrase. A direction that is aligned to words needs such pairs, line by line; else "
            f"choose the form {EditDirection.form!r}."
        )
    return pairs


def without_partner(texts: EditSentences) -> list[str]:
    """The sentences that are in none of `pair_sentences`' pairs: an aligned direction is made without them."""
    paired = {sentence for pair in pair_sentences(texts) for sentence in pair}
    return [text for text in (*texts.source_sentences, *texts.target_sentences) if text not in paired]


def _differ_once(source: str, target: str) -> bool:
    """Whether two sentences have words in common and differ in one place only, but for a or an before it."""
    words = [["a" if w == "an" else w for w in re.findall(r"\w+|[^\w\s]", text.lower())] for text in (source, target)]
    parts = [kind for kind, *_ in SequenceMatcher(None, *words, autojunk=False).get_opcodes()]
    return "equal" in parts and sum(kind != "equal" for kind in parts) == 1


def _exchange_names(texts: EditSentences) -> list[tuple[str, str]]:
    """Pairs of each sentence that names its concept once, and the same with the other concept's name."""
    source, target = Noun.parse(texts.source), Noun.parse(texts.target)
    if source.number != target.number:
        return []
    there = [(text, _exchange_name(text, source, target)) for text in texts.source_sentences]
    back = [(_exchange_name(text, target, source), text) for text in texts.target_sentences]
    return list(dict.fromkeys((before, after) for before, after in [*there, *back] if before and after))


def _exchange_name(sentence: str, old: Noun, new: Noun) -> str:
    """Put another concept's name in the place of a concept's; empty where that is not possible."""
    names = {old.text.lower(): new.text}
    if old.plural and new.plural:
        names[old.plural.lower()] = new.plural
    pattern = rf"(?<!\w)(an? )?({'|'.join(map(re.escape, names))})(?!\w)"
    if len(old.mentions(sentence)) != 1:
        return ""

    def exchange(match: re.Match[str]) -> str:
        name, article = names.get(match[2].lower(), ""), match[1] or ""
        if article:
            article = f"{indefinite_article(name)} "
        return f"{article[:1].upper() if match[0][0].isupper() else article[:1]}{article[1:]}{name}"

    changed = re.sub(pattern, exchange, sentence, count=1, flags=re.IGNORECASE)
    return "" if changed.count(" with ") > 1 else changed
