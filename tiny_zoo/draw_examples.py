"""Draw the pictures that the demo edits: `python -m tiny_zoo.draw_examples` writes `web/examples/<source>.png`."""

from __future__ import annotations

from pathlib import Path

from .world import render, sample_scene

FOLDER = Path(__file__).parents[1] / "web" / "examples"

EXAMPLES: dict[str, tuple[int, dict[str, str]]] = {
    "cat": (7, {"animal": "cat", "coat": "orange", "background": "meadow", "accessory": "none", "medium": "drawing"}),
    "dog": (16, {"animal": "dog", "coat": "brown", "background": "beach", "accessory": "none", "medium": "drawing"}),
    "horse": (15, {"animal": "horse", "coat": "white", "background": "meadow", "accessory": "none", "medium": "oil"}),
    "zebra": (9, {"animal": "zebra", "coat": "white", "background": "beach", "accessory": "none", "medium": "drawing"}),
    "glasses": (
        2,
        {"animal": "cat", "coat": "grey", "background": "room", "accessory": "glasses", "medium": "drawing"},
    ),
    "sketch": (12, {"animal": "dog", "coat": "orange", "background": "snow", "accessory": "hat", "medium": "sketch"}),
    "oil": (15, {"animal": "cat", "coat": "black", "background": "beach", "accessory": "none", "medium": "oil"}),
}
"""Name -> number of the scene in the test split, and what it shows."""


def main() -> None:
    """Draw every example."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, (seed, shown) in EXAMPLES.items():
        render(sample_scene(seed, "test", **shown)).save(FOLDER / f"{name}.png")


if __name__ == "__main__":
    main()
