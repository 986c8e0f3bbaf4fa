"""Compose the sentence banks of the shipped edits from the project's grammar.

Run from the repository's root after a change of the grammar or of a concept: `python -m authoring.sentences`.
The banks are committed, so that the sentences behind an edit can be read and changed.
"""

from __future__ import annotations

from pathlib import Path

from pix2pix_zero_core.integrations.sentences import SHIPPED, Kind, SentenceBanks, sentences_about

_BY_KIND: dict[Kind, str] = {
    "pet": "cat; dog; rabbit; fox; wolf; cat with glasses; dog with glasses",
    "animal": "horse; zebra; lion; tiger; cow; sheep; bear; elephant",
    "person": "man; woman; child; bearded man; man with sunglasses; woman with sunglasses",
    "thing": "car; bicycle; motorcycle; house; castle; apple; orange; rose; sunflower",
    "material": "wood; marble; gold; bronze; ice",
    "medium": """
        photograph; pencil sketch; oil painting; watercolor painting; oil pastel drawing; cartoon; anime drawing
    """,
    "setting": "day; night; sunset; spring; summer; autumn; winter; sunshine; rain; snow; fog",
}
CONCEPTS: dict[str, Kind] = {
    concept.strip(): kind for kind, concepts in _BY_KIND.items() for concept in concepts.split(";")
}
"""Every concept with a bank. Both concepts of an edit are of one kind, or it would also change what differs between the
kinds: so foxes and wolves lie on sofas here, as dogs do. American spelling is what the text encoders of Stable
Diffusion have seen most."""

SENTENCES = 400
"""A bank's length; each of about 20 to 35 templates is used more than ten times."""


def compose(folder: Path) -> None:
    """Write the bank of every concept into `folder`, over what is there."""
    banks = SentenceBanks(folder)
    for concept, kind in CONCEPTS.items():
        sentences = sentences_about(concept, SENTENCES, kind=kind)
        banks.path(concept).write_text("\n".join(sentences) + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    compose(SHIPPED / "sentences")
