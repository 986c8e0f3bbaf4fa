"""Which concepts a caption names, so that an edit whose source is not in the picture can be noticed."""

from __future__ import annotations

import re
from collections.abc import Iterable

from .english import Noun, pluralize


def find_concepts(caption: str, concepts: Iterable[str]) -> list[str]:
    """Find the concepts that a caption names, by their main word, its plural or a synonym.

    One right before another only describes it: "an orange cat" names no fruit.

    "a kitten on a sofa" names "cat". Of a phrase every word must be named: "a tabby wearing glasses" names "cat with
    glasses" and "cat", "a cat" names only the latter.

    Args:
        caption: any text.
        concepts: nouns or noun phrases, as the sentence banks are named.

    Returns:
        those of `concepts` that are named, in the order of the caption; of those named by one word, the one that says
        more comes first.
    """
    found: list[tuple[int, int, str]] = []
    ends: dict[str, int] = {}
    for concept in dict.fromkeys(concepts):
        head, *details = _content_words(concept)
        place = _search(head, caption)
        if place is not None and all(_find(word, caption) is not None for word in details):
            found.append((place.start(), -len(details), concept))
            ends[concept] = place.end()
    begins = {begin for begin, _, _ in found}
    # the orange of "an orange cat"
    describes = {concept for concept, end in ends.items() if caption[end : end + 1] == " " and end + 1 in begins}
    return [concept for _, _, concept in sorted(found) if concept not in describes]


def find_mention(caption: str, concept: str) -> str | None:
    """Find the word by which a caption names the main word of a concept: "kitten" for "cat with glasses".

    Args:
        caption: any text.
        concept: a noun or noun phrase.

    Returns:
        the word as the caption writes it; None where it names no such thing.
    """
    place = _search(_content_words(concept)[0], caption)
    return None if place is None else place[0]


def source_warning(caption: str, source: str, target: str, known: Iterable[str] = ()) -> str | None:
    """Say in a sentence for people why an edit does not fit a picture.

    Args:
        caption: what the picture shows.
        source: what the edit leads away from; a combined one joins several with " + ".
        target: what it leads to, joined likewise.
        known: other concepts, to say what the picture seems to show instead.

    Returns:
        a warning, or None where the source is named, or where captions seldom name such a thing ("day", "photograph").
    """
    targets, known = [part for part in target.split(" + ") if part], list(known)
    for part in dict.fromkeys(source.split(" + ")):
        main = _content_words(part)[0]
        named = find_concepts(caption, [main, *targets, *known])
        if main in named:
            continue
        there = [name for name in targets if name in named]
        if there:
            led = f"already names {there[0]!r}, where this edit leads, and not {part!r}"
            return f"The caption {led}: {caption.strip()}."
        if main in _SELDOM_NAMED:
            continue
        of_medium = _OF_A_MEDIUM.match(caption)
        shown = caption[of_medium.end() :] if of_medium else caption
        others = [name for name in find_concepts(shown, known) if name not in _SELDOM_NAMED]
        instead = f", but {others[0]!r}" if others else ""
        return (
            f"The caption does not name {part!r}, where this edit starts{instead}. Choose another edit, or correct the "
            f"caption: {caption.strip() or 'it is empty'}."
        )
    return None


def without_details(caption: str, concept: str) -> str:
    """A caption without what it adds about a concept in other words: of a "bearded man" that he is *with a beard*."""
    for detail in _content_words(concept)[1:]:
        names = [re.sub(r"^with an? ", "", form) for name in _names(detail) for form in (name, pluralize(name))]
        named = "|".join(map(re.escape, names))
        added = rf",?\s+(?:with|wearing)\s+(?:(?:an?|the|his|her|its)\s+)?(?:[\w-]+\s+)?(?:{named})"
        added += r"(?=\s*(?:[,.;]|$|\b(?:and|in|on|at|with|wearing|who)\b))"  # no "bearded dragon"
        caption = re.sub(added, "", caption, flags=re.IGNORECASE)
    return caption


def mentions_several(mention: str, concept: str) -> bool:
    """Whether a word that :func:`find_mention` found is a plural: "kittens" for "cat"."""
    names = _names(_content_words(concept)[0])
    return mention.lower() not in names and mention.lower() in map(pluralize, names)


_OF_A_MEDIUM = re.compile(
    r"\s*(?:black and white |(?:[\w-]+ ){0,2})"
    r"(?:picture|painting|drawing|sketch|illustration|photo|photograph)s? of ",
    re.IGNORECASE,
)
"""How a caption begins that says what its picture is made of: "an oil painting of a cow"."""


def _content_words(concept: str) -> list[str]:
    """The main word of a phrase, then those that say more about it: ["cat", "glasses"]."""
    head = Noun.parse(concept).head.lower()
    words = [word.lower() for word in re.findall(r"[\w'-]+", concept)]
    return [head, *(word for word in words if word not in _FUNCTION_WORDS and word != head)]


def _find(word: str, caption: str) -> int | None:
    """Where a caption first names a word, its plural or a synonym; None where it does not."""
    found = _search(word, caption)
    return None if found is None else found.start()


def _search(word: str, caption: str) -> re.Match[str] | None:
    names = [name for one in _names(word) for name in (one, pluralize(one))]
    return re.search(rf"(?<!\w)(?:{'|'.join(map(re.escape, names))})(?!\w)", caption, re.IGNORECASE)


def _names(word: str) -> list[str]:
    """A word and its synonyms."""
    return [word, *_SYNONYMS.get(word, ())]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FUNCTION_WORDS = _words("a an the and at by for from in made near of on under wearing with without")

_SYNONYMS: dict[str, tuple[str, ...]] = {
    word: tuple(name.strip() for name in names.split(";"))
    for word, names in {
        "cat": "kitten; kitty; tabby; tomcat; feline; calico; siamese; persian; maine coon",
        "dog": """
            puppy; pup; doggy; hound; canine; terrier; retriever; labrador; poodle; corgi; dachshund; bulldog; pug;
            beagle; husky; german shepherd; chihuahua; dalmatian; spaniel; rottweiler; mutt; greyhound; collie
        """,
        "rabbit": "bunny; hare",
        "fox": "vixen; fox cub",
        "wolf": "wolf pup; wolf cub",
        "horse": "pony; foal; stallion; mare; colt; stud; mustang",
        "zebra": "zebra foal",
        "lion": "lioness; lion cub",
        "tiger": "tigress; tiger cub",
        "cow": "cattle; calf; bull; ox; heifer; bovine",
        "sheep": "lamb; ewe; ram",
        "bear": "bear cub; grizzly; polar bear",
        "elephant": "elephant calf",
        "man": "guy; gentleman; boy; male; businessman; father; husband; grandfather",
        "woman": "lady; girl; female; businesswoman; mother; wife; grandmother; bride",
        "child": "kid; boy; girl; toddler; baby; infant",
        "bearded": "beard; with a beard",
        "glasses": "eyeglasses; spectacles; sunglasses; goggles",
        "sunglasses": "shades; dark glasses; glasses",
        "car": "automobile; sedan; suv; convertible; taxi; cab; sports car; vehicle; van; jeep; coupe",
        "bicycle": "bike; cycle",
        "motorcycle": "motorbike; bike; moped; scooter",
        "house": "home; cottage; cabin; villa; bungalow; farmhouse; mansion; building",
        "castle": "fortress; palace; citadel",
        "apple": "red apple; green apple",
        "orange": "tangerine; mandarin; clementine",
        "rose": "rosebud",
        "wood": "wooden; timber; oak; pine; walnut",
        "marble": "stone",
        "gold": "golden; gilded",
        "bronze": "brass; copper",
        "ice": "icy; frozen",
        "photograph": "photo; snapshot; portrait; picture",
        "sketch": "drawing; pencil drawing; line art; doodle",
        "painting": "oil; canvas",
        "watercolor": "watercolour",
        "drawing": "illustration; sketch; artwork",
        "cartoon": "comic; animation; illustration",
        "anime": "manga",
        "pastel": "crayon; chalk",
        "day": "daytime; daylight; afternoon; morning; noon; sunny",
        "night": "nighttime; midnight; dark; moonlight; moon",
        "sunset": "dusk; sundown; sunrise",
        "spring": "springtime; blossom",
        "summer": "summertime; summery",
        "autumn": "fall; autumnal",
        "winter": "wintertime; wintry; snowy; snow",
        "sunshine": "sunny; sun; sunlight",
        "rain": "rainy; raining; rainstorm; wet",
        "snow": "snowy; snowing; snowstorm; blizzard",
        "fog": "foggy; mist; misty; haze",
    }.items()
}
"""Main word -> other words for the same thing that captions use, each with its plural."""

_SELDOM_NAMED = _words(
    """
    photograph photo sketch drawing painting cartoon day night sunset spring summer autumn winter sunshine rain snow
    fog wood marble gold bronze ice
    """
)
"""What captions mostly leave unsaid: its absence says nothing about the picture."""
