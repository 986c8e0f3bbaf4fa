"""Write the sentence banks of Tiny Zoo's edits: `python -m tiny_zoo.compose_directions`.

Both banks of an edit describe the same scenes but for the concept, so that little else differs in their means.
"""

from __future__ import annotations

import json
from pathlib import Path

from .captions import sentences

FOLDER = Path(__file__).parent / "directions"
COUNT = 200
CONCEPTS: dict[str, dict[str, str]] = {
    "cat": {"animal": "cat"},
    "dog": {"animal": "dog"},
    "horse": {"animal": "horse"},
    "zebra": {"animal": "zebra"},
    "cat without glasses": {"animal": "cat", "accessory": "none"},
    "cat with glasses": {"animal": "cat", "accessory": "glasses"},
    "pencil sketch": {"medium": "sketch"},
    "oil painting": {"medium": "oil"},
}
"""Concept -> the attributes that its sentences share."""

EDITS = {
    "cat2dog": ("Cat to dog", "cat", "dog"),
    "dog2cat": ("Dog to cat", "dog", "cat"),
    "horse2zebra": ("Horse to zebra", "horse", "zebra"),
    "zebra2horse": ("Zebra to horse", "zebra", "horse"),
    "cat2glasses": ("Cat to cat with glasses", "cat without glasses", "cat with glasses"),
    "glasses2cat": ("Cat with glasses to cat", "cat with glasses", "cat without glasses"),
    "sketch2oil": ("Pencil sketch to oil painting", "pencil sketch", "oil painting"),
    "oil2sketch": ("Oil painting to pencil sketch", "oil painting", "pencil sketch"),
}


def compose() -> dict[str, str]:
    """File name relative to `directions/` -> its text."""
    banks = {
        f"sentences/{concept.replace(' ', '_')}.txt": "\n".join(sentences(COUNT, 1, **fixed)) + "\n"
        for concept, fixed in CONCEPTS.items()
    }
    rows = [
        f"  {json.dumps(edit)}: " + json.dumps({"label": label, "source": source, "target": target})
        for edit, (label, source, target) in EDITS.items()
    ]
    return {**banks, "edits.json": "{\n" + ",\n".join(rows) + "\n}\n"}


def main() -> None:
    """Write every file."""
    for name, text in compose().items():
        path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
