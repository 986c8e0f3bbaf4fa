"""A small grammar of English that finds many things to say about one concept.

Parmar et al. (2023), arXiv:2302.03027, section 3.2, have a language model write the sentences of an edit direction.
These are composed: two concepts with the same kind and seed get the same sentences round different words, so that
everything but the concept cancels in the difference of the mean embeddings.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator, Mapping
from string import Formatter
from typing import Literal, get_args

from .english import Noun, indefinite_article, shorten

Kind = Literal["thing", "animal", "pet", "person", "material", "medium", "setting"]
"""What a concept is, and so what can be said of it: anything that can be seen; an animal; an animal that also lives
indoors; a person; what things are made of ("marble"); a way to make a picture ("oil painting"); a season, time of day
or weather ("winter", "night", "fog")."""


def sentences_about(concept: str, count: int, seed: int = 0, *, kind: Kind = "thing") -> list[str]:
    """Compose different sentences, each with the concept in it exactly once, in the singular or in the plural.

    Args:
        concept: a noun phrase, with or without its article: "cat", "an old umbrella", "the moon", "cat with glasses".
        count: how many sentences, at least 1.
        seed: another seed gives another selection in another order.
        kind: what the concept is.

    Returns:
        `count` sentences, the same for the same arguments.

    Raises:
        ValueError: no word in the concept, an unknown kind, or a count beyond what the grammar can make.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"kind is {kind!r}; it must be one of {', '.join(get_args(Kind))}.")
    if count < 1:
        raise ValueError(f"count is {count}; it must be at least 1.")
    sentences = list(itertools.islice(_all_sentences(Noun.parse(concept), kind, seed), count))
    if len(sentences) < count:
        about = f"different sentences about {shorten(concept)} as a {kind}"
        if not sentences:
            raise ValueError(f"The grammar makes no {about}. Choose a word or short phrase, without repetition.")
        raise ValueError(
            f"{count} sentences are wanted, but the grammar makes only {len(sentences)} {about}; ask for no more."
        )
    return sentences


def _all_sentences(noun: Noun, kind: Kind, seed: int) -> Iterator[str]:
    """Everything that the grammar can say, taking turns between the templates for variety."""
    streams = [_fill(template, noun, seed) for template in _TEMPLATES[kind] if _suits(template, noun)]
    seen: set[str] = set()
    while streams:
        for stream in tuple(streams):
            sentence = next((sentence for sentence in stream if sentence not in seen), None)
            if sentence is None:
                streams.remove(stream)
            else:
                seen.add(sentence)
                yield sentence


def _suits(template: str, noun: Noun) -> bool:
    """Whether a template needs no plural of a noun without one, no size of a mass, and "a marble bowl" of no other."""
    return (
        (noun.plural is not None or "{nouns}" not in template)
        and (noun.number != "mass" or "{size}" not in template)
        and (noun.number == "mass" or "{an}{noun}" not in template)
    )


def _fill(template: str, noun: Noun, seed: int) -> Iterator[str]:
    """The sentences of one template, in an order that depends on the template and the seed alone."""
    agreement = _agreement(noun)
    slots = [name for _, name, _, _ in Formatter().parse(template) if name in _PHRASES]
    choices = list(itertools.product(*(_PHRASES[slot] for slot in slots)))
    rng = random.Random(f"{seed} {template}")
    choices.sort(key=lambda _: rng.random())  # of Random's methods, only random() is promised never to change
    for choice in choices:
        phrases = {slot: phrase.format_map(agreement) for slot, phrase in zip(slots, choice, strict=True)}
        sentence = template.format_map({**phrases, **agreement})
        sentence = re.sub(f"{_ARTICLE} (\\S+)", lambda match: f"{indefinite_article(match[1])} {match[1]}", sentence)
        if sentence.endswith((".", "!")):
            sentence = sentence[0].upper() + sentence[1:]
        if _reads_well(sentence, noun):
            yield sentence


def _agreement(noun: Noun) -> Mapping[str, str]:
    """What stands in a template for the noun and for the words that agree with it."""
    plural = noun.number == "plural"
    article = {"singular": f"{_ARTICLE} ", "unique": "the ", "plural": "", "mass": ""}[noun.number]
    preposition = "on" if noun.text.lower().endswith(("day", "morning", "afternoon", "evening", "night")) else "in"
    return {
        "noun": noun.text,
        "nouns": noun.plural or "",
        "a": article,
        "an": f"{_ARTICLE} ",
        "this": "the" if noun.number == "unique" else "these" if plural else "this",
        "is": "are" if plural else "is",
        "s": "" if plural else "s",
        "its": "their" if plural else "its",
        "when": _WHEN.get(noun.text.lower(), f"{preposition} {article}{noun.text}"),
    }


def _reads_well(sentence: str, noun: Noun) -> bool:
    """Whether the concept is named once, no word is doubled ("an old old man") and "with" does not pile up."""
    doubled = re.search(r"\b(\w+) \1\b", sentence, re.IGNORECASE)
    return len(noun.mentions(sentence)) == 1 and doubled is None and sentence.count(" with ") < 2


_ARTICLE = "\N{REPLACEMENT CHARACTER}"  # stands for a or an until the next word is known

_WHEN = {
    **{time: f"at {time}" for time in ("dawn", "dusk", "midnight", "night", "noon", "sunrise", "sunset", "twilight")},
    **{time: f"in the {time}" for time in ("morning", "afternoon", "evening", "fall", "fog", "mist", "rain", "snow")},
    **{light: f"in the {light}" for light in ("moonlight", "sunlight", "sunshine")},
    **{season: f"in {season}" for season in ("spring", "summer", "autumn", "winter")},
    **{event: f"during a {event}" for event in ("storm", "sandstorm", "snowstorm", "thunderstorm")},
    "day": "during the day",
}

_PHRASES: dict[str, tuple[str, ...]] = {
    slot: tuple(" ".join(phrase.split()) for phrase in phrases.split(";"))
    for slot, phrases in {
        "photo": """
            a photo of; a picture of; a close-up of; a snapshot of; a color photo of; a wide shot of; a low-angle
            shot of; a high-quality photo of; a blurry photo of; an old photograph of; a black and white photo of; a
            professional photo of; a phone picture of; a magazine photo of
        """,
        "image": """
            a photo of; a picture of; an image of; a close-up of; a painting of; a drawing of; an illustration of; a
            sketch of; a watercolor of; a print of; a postcard with; a poster of; a cartoon of; a mural of; a
            detailed picture of; a stock photo of
        """,
        "adjective": """
            old; new; beautiful; strange; ordinary; unusual; perfect; fine; rare; typical; dark; pale; pretty;
            impressive; familiar; colorful; lovely; simple; real; interesting
        """,
        "size": "small; large; tiny; huge; medium-sized; big; miniature; giant",
        "reaction": "beautiful; strange; lovely; pretty; wonderful; odd; splendid; charming; curious",
        "surroundings": """
            in the morning light; in the distance; in the foreground; against a plain background; at sunset; against
            a white wall; against a blue sky; under a cloudy sky; in the rain; in bright sunlight; in an open field;
            near the sea; by a lake; beside a quiet road; in the countryside; in a garden; in the middle of a city;
            surrounded by trees; with mountains in the background; in the snow; with flowers in the foreground; in
            the fog; in the shade; near an old wall; on a summer evening
        """,
        "viewed": """
            seen from above; seen from a distance; seen from the side; seen through a window; in sharp focus; in
            soft light; half hidden in shadow; in the center of the picture; on the left of the picture; on the
            right of the picture; filling the whole frame; seen up close; lit from behind
        """,
        "quality": """
            easy to recognize; the main subject; larger than expected; hard to miss; the first thing you see; right
            in the middle; a little out of focus; well lit; almost too close; unlike any other; the best part of the
            picture; very well known here; just as I remember; partly in the shade
        """,
        "people": """
            a child; a man; a woman; two friends; an old couple; a tourist; a photographer; three students; a little
            girl; a young boy; a farmer; a family; my neighbor; a painter
        """,
        "spectating": """
            looking at; pointing at; standing next to; standing behind; smiling at; taking a picture of; talking
            about; waiting near; admiring
        """,
        "several": "two; three; four; several; a group of; many; a pair of; a few; some",
        "temper": """
            small; young; old; beautiful; friendly; shy; curious; healthy; lonely; strong; calm; sleepy; tired;
            happy; hungry; alert; lazy; gentle; large; cute; proud; quiet; lively
        """,
        "colored": "black; brown; gray; white; light brown; dark gray; spotted; cream-colored; reddish",
        "doing": """
            sleeping; standing; lying down; walking; running; resting; looking at the camera; waiting; looking away;
            turning {its} head; drinking water; eating; playing; watching a bird; yawning; looking back; jumping;
            listening; sniffing the ground; staring into the distance; crossing a path
        """,
        "outdoors": """
            in a field; under a tree; by a fence; in the tall grass; near a river; on a dirt road; in front of a
            house; in a sunny meadow; on a hill; in the shade; on a rainy day; by the water; next to a barn; at the
            edge of a forest; in the snow; on a quiet street; in the early morning; behind a gate; among
            wildflowers; in the evening light
        """,
        "indoors": """
            on a sofa; on a soft rug; on the kitchen floor; by the window; next to a bookshelf; on a chair; under
            the table; on a blanket; in front of the fireplace; on the stairs; in a basket; at the door; on an
            unmade bed; in a cardboard box; on the balcony; in the hallway; near a lamp; on a cushion
        """,
        "lounging": """
            sleeping; sitting; lying; stretching; resting; sitting quietly; playing with a ball; waiting; rolling
            over; curled up; looking up; sitting alone; chewing on a toy; dozing
        """,
        "feature": """
            dark eyes; bright eyes; a long tail; {its} eyes closed; {its} mouth open; {its} head raised; {its} ears
            up; {its} head down; a gentle face; a shiny coat; a funny expression
        """,
        "caring": "feeding; walking with; petting; playing with; taking care of; talking to; brushing",
        "look": """
            young; kind; tall; smiling; serious; happy; tired; elegant; friendly; thoughtful; cheerful; calm; curious;
            confident; shy; busy; lonely; proud; surprised; laughing
        """,
        "acting": """
            sitting on a bench; reading a book; drinking coffee; waiting for a train; walking down the street;
            looking at the camera; looking out of a window; talking on the phone; leaning against a wall; crossing
            the road; cooking in the kitchen; playing the guitar; working at a desk; sitting on the stairs; eating an
            apple; carrying a bag; holding an umbrella; standing in a doorway; resting under a tree; painting a
            picture; looking away; watering the plants
        """,
        "dressed": """
            in a dark coat; in a white shirt; in a green sweater; in work clothes; in a raincoat; in a striped shirt;
            in winter clothes; in a blue jacket; in a red scarf; in black
        """,
        "around": """
            in a park; at the beach; in a cafe; in front of a house; on a busy street; at a market; in a library; in
            an office; on a bridge; at the station; in a garden; in the mountains; on a balcony; in a workshop; by the
            window; near the sea
        """,
        "portrait": """
            a portrait of; a photo of; a picture of; a close-up of; a studio portrait of; a black and white photo of;
            a candid photo of; an old photograph of; a snapshot of; a full-length picture of; a drawing of; a
            painting of; a passport photo of; a magazine photo of
        """,
        "item": """
            statue; bowl; chair; table; vase; spoon; box; door; mask; ring; cup; plate; bench; clock; lamp; picture
            frame; staircase; toy; chess piece; bust; column; fountain; crown; bracelet; jug; tray; figurine; gate;
            candlestick; bird; horse head; sphere; pyramid; boat; house; heart
        """,
        "finish": """
            polished; old; carved; small; large; simple; delicate; heavy; ornate; unfinished; antique; broken; plain;
            beautiful; smooth; shiny; rough
        """,
        "display": """
            on a table; in a museum; in a garden; on a shelf; in a shop window; on a white background; in the
            sunlight; in a dark room; by the window; on the floor; in a workshop; at an exhibition; in a church; in
            front of a wall; in soft light
        """,
        "origins": """
            made by hand; found in a cellar; bought at a market; from another century; given to us as a present; sold
            at an auction; made by a local artist
        """,
        "scene": """
            a castle by a lake; an old fishing boat; a bowl of fruit; a woman in a red coat; a horse in a field; a
            village in the hills; a cat on a windowsill; a vase of flowers; a bridge over a river; a lighthouse; a
            man with a beard; a busy market; a mountain valley; a house in the woods; a sailing ship; an empty
            street; a dancer; a child with a kite; a wooden chair; a steam train; a quiet harbor; a bird on a
            branch; a stone church; a windmill; an old tree; a pair of shoes; a young girl; a dog on a porch; a
            waterfall; a city skyline; a cup of coffee; a garden gate; a cow in a meadow; a farmhouse; a rocky
            beach; a fox in the forest; a bicycle against a wall; an old man reading
        """,
        "style": """
            detailed; beautiful; small; large; simple; unfinished; famous; old; realistic; framed; delicate;
            expressive; careful; charming; modern; traditional; lovely; quick
        """,
        "treatment": """
            soft shadows; fine detail; a plain background; strong contrast; gentle light; a calm mood; a lot of
            depth; an empty background; clear outlines; a low horizon; a dramatic sky
        """,
        "origin": """
            by a famous artist; by an unknown artist; by a student; from the nineteenth century; in a museum; from
            an old book; in a wooden frame; on a gallery wall; from a private collection; at an exhibition; made
            last year; by my grandmother; above the fireplace; on a white wall
        """,
        "verdict": """
            very detailed; beautifully done; almost finished; quite old; part of a series; for sale; the best in the
            room; smaller than I thought; signed on the back; a gift from a friend; well known
        """,
        "making": "made; bought; found; showed us; sold; kept; framed; gave away; finished; signed",
        "view": """
            a narrow street; a small village; a mountain lake; a city square; a garden with a fence; a park bench; a
            house by the road; a bridge over a river; a row of houses; a country road; an old church; a forest path;
            a train station; a wide valley; a fishing harbor; a farm; a castle on a hill; a lighthouse on the coast;
            a pond in the park; an apartment building; a cabin; a stone wall; an empty playground; a vineyard; a
            parked car; a bus stop; a school yard; a tall tree in a field; a row of shops; a windmill; a wooden
            pier; a rocky coast; a busy crossing; a courtyard; a waterfall; a meadow; the old town; the main street;
            the market square
        """,
        "from_where": """
            seen from above; seen from a hill; seen from the street; seen through a window; in the distance; without
            anyone around; reflected in the water; from a low angle; from far away; in a wide view; on a postcard;
            with a few people around
        """,
        "activity": """
            walking; talking; waiting for a bus; sitting on a bench; riding a bicycle; taking photos; standing by
            the road; walking a dog; looking at the sky; on the way home; reading a map
        """,
        "moving": "walked past; drove by; stopped at; found; took a picture of; visited; came across",
        "land": """
            a wide landscape; a hilly landscape; a rural landscape; a quiet landscape; a river landscape; a coastal
            landscape; a mountain landscape; a city landscape; a peaceful scene; a street scene; a village scene; a
            lonely place; a familiar place; a view of the valley; a view of the city
        """,
        "viewpoint": """
            the balcony; our window; the hill; the train; the tower; the bridge; the hotel room; the roof; the top
            of the stairs; the other side of the river; the kitchen; the road; the boat
        """,
        "impression": "different; peaceful; beautiful; strange; familiar; quiet; unlike itself; lovely",
    }.items()
}

_ANIMAL = (
    "{photo} {a}{noun}",
    "{image} {a}{temper} {noun}",
    "{a}{temper} {noun} {outdoors}",
    "{a}{noun} {doing} {outdoors}",
    "{a}{temper} {noun} {doing}",
    "{photo} {a}{noun} {doing}",
    "{photo} {a}{temper} {noun} {outdoors}",
    "The {noun} {is} {doing} {outdoors}.",
    "The {temper} {noun} {is} {doing}.",
    "{this} {noun} look{s} {temper}.",
    "There {is} {a}{noun} {outdoors}.",
    "{people} {caring} {a}{noun}",
    "{people} {caring} {a}{temper} {noun} {outdoors}",
    "{people} {spectating} {a}{noun} {outdoors}",
    "{a}{noun} with {feature}",
    "{a}{temper} {noun} with {feature}",
    "{photo} {a}{noun}, {viewed}",
    "{a}{noun} {doing}, {viewed}",
    "We watched the {noun} {doing} {outdoors}.",
    "I took {photo} {a}{temper} {noun}.",
    "The {noun} in this picture {is} {quality}.",
    "How {reaction} the {noun} {is}!",
    "{several} {nouns} {doing} {outdoors}",
    "{photo} {several} {nouns} {outdoors}",
    "{people} and {several} {nouns}",
)
_TEMPLATES: dict[Kind, tuple[str, ...]] = {
    "thing": (
        "{image} {a}{noun}",
        "{image} {a}{adjective} {noun}",
        "{photo} {a}{noun} {surroundings}",
        "{a}{adjective} {noun} {surroundings}",
        "{a}{noun} {surroundings}",
        "{a}{adjective} {noun} {viewed}",
        "{a}{size} {noun} {surroundings}",
        "{photo} {a}{size} {noun}",
        "{a}{noun} {surroundings}, {viewed}",
        "{a}{noun}, {viewed}",
        "There {is} {a}{adjective} {noun} {surroundings}.",
        "There {is} {a}{noun} {viewed}.",
        "The {noun} in this picture {is} {quality}.",
        "{this} {adjective} {noun} {is} {quality}.",
        "I took {photo} {a}{noun} {surroundings}.",
        "We saw {a}{adjective} {noun} {surroundings}.",
        "{people} {spectating} {a}{noun}",
        "{people} {spectating} {a}{adjective} {noun}",
        "{people} {spectating} {a}{noun} {surroundings}",
        "Everyone was looking at the {adjective} {noun}.",
        "How {reaction} the {noun} {is}!",
        "{photo} {several} {nouns} {surroundings}",
        "{several} {adjective} {nouns}",
        "{several} {nouns} {viewed}",
    ),
    "animal": _ANIMAL,
    "pet": (
        *_ANIMAL,
        "{a}{noun} {lounging} {indoors}",
        "{a}{colored} {noun} {lounging} {indoors}",
        "{photo} {a}{colored} {noun}",
        "{photo} {a}{noun} {lounging} {indoors}",
        "{a}{temper} {colored} {noun}",
        "The {noun} {is} {lounging} {indoors}.",
        "Our {noun} {is} always {lounging} {indoors}.",
        "{people} sitting with {a}{noun} {indoors}",
        "{several} {nouns} {lounging} {indoors}",
    ),
    "person": (
        "{portrait} {a}{noun}",
        "{portrait} {a}{look} {noun}",
        "{portrait} {a}{noun} {dressed}",
        "{portrait} {a}{noun} {around}",
        "{a}{noun} {acting}",
        "{a}{look} {noun} {acting}",
        "{a}{noun} {dressed}, {acting}",
        "{a}{noun} {dressed} {around}",
        "{a}{look} {noun} {dressed}",
        "{a}{look} {noun} {around}",
        "{photo} {a}{noun} {acting}",
        "{photo} {a}{look} {noun} {around}",
        "The {noun} {is} {acting}.",
        "The {look} {noun} {is} {acting}.",
        "The {noun} {dressed} {is} {acting}.",
        "{this} {noun} look{s} {look}.",
        "There {is} {a}{look} {noun} {around}.",
        "I took {photo} {a}{look} {noun} {around}.",
        "We saw {a}{noun} {dressed} {around}.",
        "We met {a}{look} {noun} {around}.",
        "{a}{noun}, {viewed}",
        "{a}{look} {noun} {around}, {viewed}",
        "{people} standing next to {a}{noun} {around}",
        "{photo} {several} {nouns} {around}",
        "{several} {nouns} {acting}",
        "{several} {look} {nouns} {around}",
    ),
    "material": (
        "{an}{item} made of {noun}",
        "{photo} {an}{item} made of {noun}",
        "{image} {an}{finish} {item} made of {noun}",
        "{an}{finish} {item} made of {noun}",
        "{an}{item} made entirely of {noun}",
        "{an}{item} made of {noun}, {viewed}",
        "{an}{item} made of {noun} {display}",
        "{an}{finish} {item} made of {noun} {display}",
        "{an}{noun} {item}",
        "{photo} {an}{noun} {item}",
        "{an}{noun} {item} {display}",
        "{an}{noun} {item}, {viewed}",
        "{photo} {an}{noun} {item} {display}",
        "The {item} is made of {noun}.",
        "The {finish} {item} {display} is made of {noun}.",
        "This {item} of {noun} was {origins}.",
        "{an}{finish} {item} of {noun}, {origins}",
        "{people} {spectating} {an}{item} made of {noun}",
        "We saw {an}{finish} {item} made of {noun} {display}.",
        "How {reaction} the {item} made of {noun} is!",
        "I took {photo} {an}{item} made of {noun}.",
        "{several} {finish} things made of {noun} {display}",
    ),
    "medium": (
        "{a}{noun} of {scene}",
        "{a}{style} {noun} of {scene}",
        "{a}{noun} of {scene} with {treatment}",
        "{a}{noun} of {scene} {origin}",
        "{a}{style} {noun} {origin}",
        "{a}{noun} showing {scene}",
        "{scene}, {a}{style} {noun}",
        "{scene}, {noun}",
        "{scene} as {a}{noun}",
        "{scene} in the style of {a}{style} {noun}",
        "The {noun} show{s} {scene}.",
        "{this} {noun} of {scene} {is} {verdict}.",
        "{this} {style} {noun} {is} {verdict}.",
        "We looked at {a}{noun} of {scene}.",
        "She {making} {a}{noun} of {scene}.",
        "{people} {spectating} {a}{noun} of {scene}",
        "How {reaction} the {noun} of {scene} {is}!",
        "{several} {nouns} of {scene}",
        "{several} {style} {nouns} {origin}",
    ),
    "setting": (
        "{view} {when}",
        "{photo} {view} {when}",
        "{image} {view} {when}",
        "{view} {when}, {from_where}",
        "{view}, photographed {when}",
        "{view} as it looks {when}",
        "{land} {when}",
        "{image} {land} {when}",
        "{people} {activity} {when}",
        "{photo} {people} {activity} {when}",
        "{people} {activity} near {view} {when}",
        "the view from {viewpoint} {when}",
        "We {moving} {view} {when}.",
        "{when}, we {moving} {view}.",
        "This is {view} {when}.",
        "It was a picture of {view}, taken {when}.",
        "{when}, everything looks {impression} from {viewpoint}.",
        "The view from {viewpoint} looks {impression} {when}.",
    ),
}
