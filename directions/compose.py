"""Compose the sentence banks of the shipped edits from the project's grammar.

Run from the repository's root after a change of the grammar or of a concept: `python -m directions.compose`.
The banks are committed, so that the sentences behind an edit can be read and changed.
"""

from __future__ import annotations

from pathlib import Path

from pix2pix_zero_core.integrations.sentences import SHIPPED, Kind, SentenceBanks, sentences_about

CONCEPTS: dict[str, Kind] = {
    "cat": "pet",
    "dog": "pet",
    "cat with glasses": "pet",
    "horse": "animal",
    "zebra": "animal",
    "pencil sketch": "medium",
    "oil painting": "medium",
    "photograph": "medium",
    "watercolor painting": "medium",
    "day": "setting",
    "night": "setting",
    "summer": "setting",
    "winter": "setting",
}
"""Every concept with a bank. American spelling: it is what the text encoders of Stable Diffusion have seen most."""

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
