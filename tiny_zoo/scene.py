"""Scenes: all that a picture of Tiny Zoo shows, as parameters."""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass
from typing import Any, Literal

ANIMALS = ("cat", "dog", "horse", "zebra", "rabbit", "cow")
COATS = ("white", "grey", "orange", "brown", "black")
BACKGROUNDS = ("meadow", "beach", "snow", "night", "room")
ACCESSORIES = ("none", "glasses", "hat")
MEDIA = ("drawing", "sketch", "oil")
FACINGS = ("left", "right")
POSTURES = ("standing", "walking", "sitting", "lying")
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "animal": ANIMALS,
    "coat": COATS,
    "background": BACKGROUNDS,
    "accessory": ACCESSORIES,
    "medium": MEDIA,
    "facing": FACINGS,
    "posture": POSTURES,
}
"""What a picture can show, and the values of each: the classes that the probe reads."""

POSE_RANGES: dict[str, tuple[float, float]] = {
    "x": (0.18, 0.82),
    "y": (0.5, 0.76),
    "size": (0.5, 0.9),
    "tilt": (-18.0, 18.0),
    "turn": (-1.0, 1.0),
    "ear": (0.8, 1.25),
    "body": (0.85, 1.15),
}
"""Ranges of the continuous parameters: position and size as fractions of the picture, tilt in degrees, the turn of the
head from left to right. In a smaller animal's face, under three latent pixels wide, no glasses would show."""

SPLITS = {"train": 0, "validation": 1_000_000_000, "test": 2_000_000_000}
"""First scene seed of each split; they never overlap."""


@dataclass(frozen=True)
class Scene:
    """Everything a picture shows. `layout` seeds what no caption names: things around, textures, light, brush."""

    animal: str
    coat: str
    background: str
    accessory: str
    medium: str
    facing: str
    posture: str
    x: float
    y: float
    size: float
    tilt: float
    turn: float
    ear: float
    body: float
    layout: int

    def __post_init__(self) -> None:
        """Validate the attributes."""
        for name, values in ATTRIBUTES.items():
            if getattr(self, name) not in values:
                raise ValueError(f"Scene {name} is {getattr(self, name)!r}; it must be one of {', '.join(values)}.")

    @property
    def side(self) -> str:
        """Where the animal is: "left", "middle" or "right"."""
        return "left" if self.x < 0.4 else "right" if self.x > 0.6 else "middle"

    @property
    def framing(self) -> str:
        """How much of the picture it fills: "far", "medium" or "close"."""
        return "far" if self.size < 0.6 else "close" if self.size > 0.78 else "medium"


def sample_scene(seed: int, split: Literal["train", "validation", "test"] = "train", **fixed: str) -> Scene:
    """Draw the scene number `seed` of a split.

    The animal stands on the ground and within the frame, at any place where it fits.

    Args:
        seed: number of the scene, at least 0; the same number gives the same scene.
        split: "train", "validation" or "test".
        **fixed: attributes that are not drawn, for example ``animal="cat"``.
    """
    rng = random.Random(SPLITS[split] + seed)
    attributes: dict[str, Any] = {name: rng.choice(values) for name, values in ATTRIBUTES.items()}
    pose = {name: round(rng.uniform(low, high), 4) for name, (low, high) in POSE_RANGES.items()}
    size = pose["size"]
    feet = rng.uniform(max(0.74, 0.47 + 0.48 * size), 0.97)
    margin = 0.42 * size - 0.02
    pose |= {"x": round(rng.uniform(margin, 1 - margin), 4), "y": round(feet - 0.43 * size, 4)}
    return Scene(**{**attributes, **fixed, **pose}, layout=rng.getrandbits(31))


def counterfactual(scene: Scene, **changes: str) -> Scene:
    """The same scene after the perfect edit."""
    return dataclasses.replace(scene, **changes)
