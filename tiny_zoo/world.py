"""The world of Tiny Zoo: pictures drawn from parameters, so that the true edit of each is known.

A `Scene` says what is in a picture; `render` draws it; `dataclasses.replace(scene, animal="dog")` is the
same picture after the perfect edit: the same place, pose, colours and brush strokes, another animal.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from .animals import draw_animal
from .canvas import Canvas
from .scene import ATTRIBUTES, POSE_RANGES, Scene, counterfactual, sample_scene
from .scenery import draw_scenery

__all__ = ["ATTRIBUTES", "POSE_RANGES", "Scene", "counterfactual", "render", "sample_scene"]


def render(scene: Scene, size: int = 128, *, animal: bool = True) -> Image.Image:
    """Draw a scene as an RGB picture of `size` x `size` pixels (antialiased), or its surroundings alone."""
    surroundings = Canvas(scene.medium, size * 4, scene.layout)
    draw_scenery(surroundings, scene)
    surroundings.strokes(420)
    if animal:
        foreground = Canvas(scene.medium, size * 4, scene.layout + 2, onto=surroundings.image)
        foreground.place(scene.x, scene.y, scene.size, mirrored=scene.facing == "left")
        draw_animal(foreground, scene)
    return _lit(surroundings.image.resize((size, size), Image.Resampling.BOX), scene)


def _lit(image: Image.Image, scene: Scene) -> Image.Image:
    """Light from one side, a warm or cold cast, and the grain of paper or canvas."""
    rng = np.random.default_rng(scene.layout)
    picture = np.asarray(image, np.float32)
    side = picture.shape[0]
    place = np.linspace(-1, 1, side, dtype=np.float32)
    angle, slope, cast = rng.uniform(0, 2 * math.pi), rng.uniform(0, 0.13), rng.uniform(-0.05, 0.05)
    light = 1 + slope * (math.cos(angle) * place[None, :] + math.sin(angle) * place[:, None])
    tint = np.array([1 + cast, 1.0, 1 - cast], np.float32)
    grain = rng.normal(0, {"drawing": 0.8, "sketch": 2.0, "oil": 1.4}[scene.medium], (side, side)).astype(np.float32)
    return Image.fromarray((picture * light[..., None] * tint + grain[..., None]).clip(0, 255).round().astype(np.uint8))
