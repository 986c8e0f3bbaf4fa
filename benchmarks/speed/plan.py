"""What is measured of speed and memory, in full and in short."""

from __future__ import annotations

from dataclasses import dataclass

TASK = "cat2dog"
"""The edit that is measured."""


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        steps: of an edit.
        runs: edits of Tiny Zoo a method, each of another picture.
        few: steps of an edit on a large UNet; the published inversion needs 3.
        large: large UNet -> side of its picture in pixels, and edits a method.
        channels: of the large UNet's levels.
        transformer: blocks of Stable Diffusion 3.5's transformer, and side of its picture in pixels; medium has 24.
        vary: what -> values of it, for the plot: steps, pictures at once, sides in pixels.
        edits: how many in a row must not let memory grow.
    """

    steps: int
    runs: int
    few: int
    large: dict[str, tuple[int, int]]
    channels: tuple[int, ...]
    transformer: tuple[int, int]
    vary: dict[str, tuple[int, ...]]
    edits: int


FULL = Plan(
    steps=50,
    runs=3,
    few=3,
    large={"sd15-256": (256, 2), "sd15-512": (512, 1)},
    channels=(320, 640, 1280, 1280),
    transformer=(24, 512),
    vary={"steps": (10, 20, 30, 40, 50), "batch": (1, 2, 4, 8), "side": (128, 192, 256, 320)},
    edits=20,
)
QUICK = Plan(
    steps=4,
    runs=1,
    few=3,
    large={"sd15-small-64": (64, 1)},
    channels=(32, 32, 64, 64),
    transformer=(2, 64),
    vary={"steps": (3, 4), "batch": (1, 2), "side": (128, 192)},
    edits=4,
)
