"""The world of Tiny Zoo: pictures drawn from parameters, so that the true edit of each is known.

A `Scene` says what is in a picture; `render` draws it; `dataclasses.replace(scene, animal="dog")` is the
same picture after the perfect edit: the same place, pose, colours and brush strokes, another animal.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from PIL import Image, ImageDraw

Point = tuple[float, float]
Colour = tuple[int, int, int]

ANIMALS = ("cat", "dog", "horse", "zebra", "rabbit", "cow")
COATS = ("white", "grey", "orange", "brown", "black")
BACKGROUNDS = ("meadow", "beach", "snow", "night", "room")
ACCESSORIES = ("none", "glasses", "hat")
MEDIA = ("drawing", "sketch", "oil")
FACINGS = ("left", "right")
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "animal": ANIMALS,
    "coat": COATS,
    "background": BACKGROUNDS,
    "accessory": ACCESSORIES,
    "medium": MEDIA,
    "facing": FACINGS,
}
"""What a picture can show, and the values of each: the classes that the probe reads."""

POSE_RANGES: dict[str, tuple[float, float]] = {
    "x": (0.46, 0.54),
    "y": (0.55, 0.62),
    "size": (0.7, 0.86),
    "tilt": (-18.0, 18.0),
    "ear": (0.8, 1.25),
    "body": (0.85, 1.15),
}
"""Ranges of the continuous parameters: position and size as fractions of the picture, tilt in degrees."""

SPLITS = {"train": 0, "validation": 1_000_000_000, "test": 2_000_000_000}
"""First scene seed of each split; they never overlap."""

INK: Colour = (46, 38, 44)
PAPER: Colour = (246, 242, 232)
COAT_COLOURS: dict[str, Colour] = {
    "white": (244, 240, 234),
    "grey": (150, 156, 168),
    "orange": (240, 150, 54),
    "brown": (134, 84, 48),
    "black": (58, 56, 68),
}


@dataclass(frozen=True)
class Scene:
    """Everything a picture shows. `layout` seeds the background's objects and the brush strokes."""

    animal: str
    coat: str
    background: str
    accessory: str
    medium: str
    facing: str
    x: float
    y: float
    size: float
    tilt: float
    ear: float
    body: float
    layout: int

    def __post_init__(self) -> None:
        """Validate the attributes."""
        for name, values in ATTRIBUTES.items():
            if getattr(self, name) not in values:
                raise ValueError(f"Scene {name} is {getattr(self, name)!r}; it must be one of {', '.join(values)}.")


def sample_scene(seed: int, split: Literal["train", "validation", "test"] = "train", **fixed: str) -> Scene:
    """Draw the scene number `seed` of a split.

    Args:
        seed: number of the scene, at least 0; the same number gives the same scene.
        split: "train", "validation" or "test".
        **fixed: attributes that are not drawn, for example ``animal="cat"``.
    """
    rng = random.Random(SPLITS[split] + seed)
    attributes: dict[str, Any] = {name: rng.choice(values) for name, values in ATTRIBUTES.items()}
    pose = {name: round(rng.uniform(low, high), 4) for name, (low, high) in POSE_RANGES.items()}
    return Scene(**{**attributes, **fixed, **pose}, layout=rng.getrandbits(31))


def render(scene: Scene, size: int = 128, *, animal: bool = True) -> Image.Image:
    """Draw a scene as an RGB picture of `size` x `size` pixels (antialiased), or its background alone."""
    canvas = _Canvas(scene, size * 4)
    _draw_background(canvas, scene)
    canvas.finish_layer(strokes=420)
    if animal:
        foreground = _Canvas(scene, size * 4, onto=canvas.image)
        foreground.place(scene.x, scene.y, scene.size, mirrored=scene.facing == "left")
        _draw_animal(foreground, scene)
    return canvas.image.resize((size, size), Image.Resampling.BOX)


# ------------------------------------------------------------------ drawing tools


def _mix(a: Colour, b: Colour, share: float) -> Colour:
    """`share` of b, the rest of a."""
    return (
        round(a[0] + (b[0] - a[0]) * share),
        round(a[1] + (b[1] - a[1]) * share),
        round(a[2] + (b[2] - a[2]) * share),
    )


def _ellipse(
    x: float, y: float, rx: float, ry: float, turn: float = 0.0, start: float = 0.0, end: float = 360.0
) -> list[Point]:
    """Points of an ellipse, turned by `turn` degrees; a part of it with start and end."""
    c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    steps = max(8, round((end - start) / 12))
    points: list[Point] = []
    for i in range(steps + 1):
        a = math.radians(start + (end - start) * i / steps)
        u, v = rx * math.cos(a), ry * math.sin(a)
        points.append((x + u * c - v * s, y + u * s + v * c))
    return points


class _Canvas:
    """A picture under way: shapes in fractions of the frame, drawn in the scene's medium."""

    def __init__(self, scene: Scene, pixels: int, onto: Image.Image | None = None) -> None:
        self.medium = scene.medium
        self.pixels = pixels
        self.image = Image.new("RGB", (pixels, pixels), PAPER) if onto is None else onto
        self.pen = ImageDraw.Draw(self.image)
        self.rng = random.Random(scene.layout)
        self.place(0.0, 0.0, 1.0, mirrored=False)

    def place(self, x: float, y: float, scale: float, *, mirrored: bool) -> None:
        """Set the frame of what is drawn next: its origin, unit length and direction."""
        self.x, self.y, self.scale, self.sign = x, y, scale, -1.0 if mirrored else 1.0

    def at(self, points: Sequence[Point]) -> list[Point]:
        return [
            ((self.x + self.sign * self.scale * u) * self.pixels, (self.y + self.scale * v) * self.pixels)
            for u, v in points
        ]

    def tone(self, colour: Colour) -> Colour:
        """A colour as the medium shows it: faint crayon, rich oil, or as it is."""
        if self.medium == "sketch":
            return _mix(_mix(colour, PAPER, 0.62), (150, 150, 150), 0.08)
        if self.medium == "oil":
            grey = sum(colour) / 3
            r, g, b = (min(255, max(0, round(grey + (channel - grey) * 1.2))) for channel in colour)
            return _mix((r, g, b), (122, 74, 26), 0.14)
        return colour

    def shape(self, points: Sequence[Point], colour: Colour, outlined: bool = True) -> None:
        """Fill a closed shape; the medium decides on the outline."""
        placed = self.at(points)
        self.pen.polygon(placed, fill=self.tone(colour))
        if outlined and self.medium != "oil":
            self.outline([*placed, placed[0], placed[1]])

    def outline(self, placed: list[Point]) -> None:
        width = max(1, round(self.pixels * 0.009))
        if self.medium == "sketch":
            for shift in (-0.004, 0.004):
                moved = [(u + shift * self.pixels, v - shift * self.pixels) for u, v in placed]
                self.pen.line(moved, fill=(96, 94, 100), width=max(1, width * 2 // 3), joint="curve")
        else:
            self.pen.line(placed, fill=INK, width=width, joint="curve")

    def line(self, points: Sequence[Point], colour: Colour, width: float) -> None:
        placed, pixels = self.at(points), max(1, round(width * self.pixels))
        self.pen.line(placed, fill=self.tone(colour), width=pixels, joint="curve")
        for u, v in (placed[0], placed[-1]):
            self.pen.ellipse((u - pixels / 2, v - pixels / 2, u + pixels / 2, v + pixels / 2), fill=self.tone(colour))

    def finish_layer(self, strokes: int) -> None:
        """Lay brush strokes over what is there (oil), each in the colour that it covers."""
        if self.medium != "oil":
            return
        covered = self.image.resize((64, 64), Image.Resampling.BOX)
        for _ in range(strokes):
            u, v = self.rng.random(), self.rng.random()
            angle, length = self.rng.gauss(-0.5, 0.35), self.rng.uniform(0.04, 0.09)
            light = self.rng.gauss(0.0, 9.0)
            r, g, b = (
                min(255, max(0, round(channel + light)))
                for channel in cast(Colour, covered.getpixel((int(u * 64), int(v * 64))))
            )
            du, dv = math.cos(angle) * length / 2, math.sin(angle) * length / 2
            ends = [((u - du) * self.pixels, (v - dv) * self.pixels), ((u + du) * self.pixels, (v + dv) * self.pixels)]
            self.pen.line(ends, fill=(r, g, b), width=round(0.03 * self.pixels))


# ------------------------------------------------------------------ backgrounds


def _draw_background(canvas: _Canvas, scene: Scene) -> None:
    rng = random.Random(scene.layout + 1)
    horizon = rng.uniform(0.5, 0.62)
    side = rng.choice((0.17, 0.83))
    other = 1.0 - side
    lift = rng.uniform(-0.03, 0.03)

    def band(top: float, colour: Colour) -> None:
        canvas.shape([(-0.1, top), (1.1, top), (1.1, 1.1), (-0.1, 1.1)], colour, outlined=top > 0)

    if scene.background == "meadow":
        band(-0.1, (150, 208, 244))
        canvas.shape(_ellipse(other, 0.16 + lift, 0.1, 0.1), (255, 218, 92))
        band(horizon, (124, 190, 84))
        canvas.shape(
            [(side - 0.03, horizon + 0.06), (side - 0.02, 0.3), (side + 0.02, 0.3), (side + 0.03, horizon + 0.06)],
            (124, 84, 56),
        )
        canvas.shape(_ellipse(side, 0.26 + lift, 0.15, 0.16), (62, 140, 70))
    elif scene.background == "beach":
        band(-0.1, (170, 224, 246))
        band(horizon - 0.16, (52, 144, 204))
        band(horizon, (242, 218, 160))
        canvas.shape(_ellipse(other, 0.15 + lift, 0.09, 0.09), (255, 232, 130))
        canvas.line([(side, 0.3), (side, horizon + 0.14)], (236, 236, 236), 0.02)
        for i, colour in enumerate(((226, 78, 72), (250, 246, 238), (226, 78, 72))):
            canvas.shape(_ellipse(side, 0.34 + lift, 0.17 - 0.055 * i, 0.16, start=180, end=360), colour)
    elif scene.background == "snow":
        band(-0.1, (196, 214, 230))
        for u, w in ((side, 0.15), (side + math.copysign(0.22, 0.5 - side), 0.1)):
            canvas.shape(
                [(u - w, horizon + 0.06), (u, 0.12 + lift + (0.15 - w)), (u + w, horizon + 0.06)], (58, 110, 96)
            )
        band(horizon, (240, 246, 252))
        canvas.shape(_ellipse(other, horizon + 0.02, 0.22, 0.1, start=180, end=360), (252, 254, 255))
    elif scene.background == "night":
        band(-0.1, (32, 38, 86))
        canvas.shape(_ellipse(other, 0.18 + lift, 0.11, 0.11), (250, 240, 190))
        for _ in range(5):
            u, v = rng.uniform(0.05, 0.95), rng.uniform(0.05, 0.4)
            canvas.shape(_ellipse(u, v, 0.016, 0.016), (250, 244, 206), outlined=False)
        band(horizon, (48, 66, 92))
    else:
        band(-0.1, (238, 198, 170))
        band(horizon + 0.1, (172, 116, 78))
        canvas.shape(
            [(side - 0.15, 0.1), (side + 0.15, 0.1), (side + 0.15, 0.42 + lift), (side - 0.15, 0.42 + lift)],
            (180, 222, 242),
        )
        canvas.line([(side, 0.1), (side, 0.42 + lift)], (250, 248, 240), 0.018)
        canvas.line([(side - 0.15, 0.26), (side + 0.15, 0.26)], (250, 248, 240), 0.018)
        canvas.shape(
            [
                (other - 0.1, 0.24 + lift),
                (other - 0.06, 0.12 + lift),
                (other + 0.06, 0.12 + lift),
                (other + 0.1, 0.24 + lift),
            ],
            (116, 92, 160),
        )


# ------------------------------------------------------------------ animals


@dataclass(frozen=True)
class _Build:
    """Proportions that animals of one build share, in units of the animal's size."""

    head: Point
    body: Point
    ground: float
    trunk: Point
    leg: float
    neck: float


_SMALL = _Build(head=(0.2, -0.19), body=(-0.05, 0.15), ground=0.43, trunk=(0.32, 0.19), leg=0.1, neck=0.26)
_LARGE = _Build(head=(0.3, -0.28), body=(-0.07, 0.08), ground=0.44, trunk=(0.33, 0.19), leg=0.09, neck=0.2)
_BUILDS = {"cat": _SMALL, "dog": _SMALL, "rabbit": _SMALL, "horse": _LARGE, "zebra": _LARGE, "cow": _LARGE}


def _draw_animal(canvas: _Canvas, scene: Scene) -> None:
    build = _BUILDS[scene.animal]
    coat = COAT_COLOURS[scene.coat]
    shade = _mix(coat, (20, 14, 20) if scene.coat != "black" else (120, 120, 140), 0.25)
    pale = _mix(coat, (255, 250, 240), 0.55)
    mark = (48, 42, 50) if scene.coat != "black" else (226, 224, 220)
    (bx, by), (rx, ry), long = build.body, build.trunk, scene.body
    rx *= long

    _draw_tail(canvas, scene, (bx - rx * 0.92, by - ry * 0.3), coat, shade, mark)
    for u, colour in ((-0.5, shade), (0.72, shade), (-0.72, coat), (0.5, coat)):
        foot, w = bx + rx * u, build.leg / 2
        leg = [(foot - w, by), (foot + w, by), (foot + w * 0.9, build.ground), (foot - w * 0.9, build.ground)]
        canvas.shape(leg, colour)
        if scene.animal in ("horse", "zebra", "cow"):
            canvas.shape(
                [
                    (foot - w, build.ground - 0.05),
                    (foot + w, build.ground - 0.05),
                    (foot + w, build.ground),
                    (foot - w, build.ground),
                ],
                INK,
            )
        else:
            canvas.shape(
                _ellipse(foot + 0.02, build.ground - 0.02, w * 1.3, 0.035), pale if scene.animal == "dog" else colour
            )
    canvas.shape(_ellipse(bx, by, rx, ry), coat)

    hx, hy = build.head
    if build is _SMALL:
        w = build.neck / 2
        canvas.shape([(hx - w, hy), (hx + w * 0.8, hy), (bx + rx * 0.8, by), (bx + rx * 0.1, by - ry * 0.7)], coat)
        canvas.shape(_ellipse(bx + rx * 0.42, by + 0.01, rx * 0.48, ry * 0.85), coat, outlined=False)
    else:
        top, base = (hx - 0.02, hy - 0.02), (bx + rx * 0.62, by - ry * 0.2)
        if scene.animal != "cow":
            mane = (
                mark
                if scene.animal == "zebra"
                else _mix(coat, (60, 34, 20) if scene.coat != "brown" else (250, 214, 140), 0.75)
            )
            canvas.shape(
                [(top[0] - 0.2, top[1] - 0.12), (top[0] + 0.02, top[1] - 0.16), base, (base[0] - 0.22, base[1] - 0.06)],
                mane,
            )
        w = build.neck / 2
        canvas.shape(
            [
                (top[0] - w, top[1]),
                (top[0] + w, top[1] + 0.06),
                (base[0] + w * 1.1, base[1] + 0.1),
                (base[0] - w * 1.6, base[1] + 0.02),
            ],
            coat,
        )
        canvas.shape(_ellipse(bx + rx * 0.46, by + 0.01, rx * 0.46, ry * 0.86), coat, outlined=False)
    _draw_markings(canvas, scene, (bx, by), (rx, ry), mark, pale)
    _draw_head(canvas, scene, build, coat, shade, pale, mark)


def _draw_tail(canvas: _Canvas, scene: Scene, root: Point, coat: Colour, shade: Colour, mark: Colour) -> None:
    x, y = root
    if scene.animal == "cat":
        canvas.line([(x + 0.05, y + 0.02), (x - 0.06, y - 0.08), (x - 0.07, y - 0.2), (x - 0.02, y - 0.3)], coat, 0.055)
    elif scene.animal == "dog":
        canvas.shape([(x + 0.06, y - 0.06), (x - 0.1, y - 0.2), (x - 0.13, y - 0.13), (x + 0.04, y + 0.06)], coat)
    elif scene.animal == "rabbit":
        canvas.shape(_ellipse(x + 0.0, y + 0.02, 0.075, 0.075), _mix(coat, (255, 255, 255), 0.6))
    elif scene.animal == "cow":
        canvas.line([(x + 0.03, y), (x - 0.04, y + 0.1), (x - 0.04, y + 0.22)], coat, 0.03)
        canvas.shape(_ellipse(x - 0.04, y + 0.26, 0.04, 0.06), mark)
    else:
        hair = mark if scene.animal == "zebra" else shade
        canvas.shape(
            [
                (x + 0.06, y - 0.05),
                (x - 0.08, y + 0.02),
                (x - 0.12, y + 0.3),
                (x - 0.02, y + 0.24),
                (x + 0.06, y + 0.06),
            ],
            hair,
        )


def _draw_markings(canvas: _Canvas, scene: Scene, body: Point, trunk: Point, mark: Colour, pale: Colour) -> None:
    (bx, by), (rx, ry) = body, trunk
    if scene.animal == "zebra":
        for u in (-0.72, -0.36, 0.0, 0.36):
            half = ry * math.sqrt(1 - u * u) * 0.86
            x = bx + rx * u
            canvas.shape(
                [
                    (x - 0.03, by - half),
                    (x + 0.035, by - half),
                    (x + 0.02, by + half * 0.9),
                    (x + 0.0, by + half * 0.9),
                ],
                mark,
                outlined=False,
            )
        for share in (0.3, 0.62):
            nx, ny = bx + rx * 0.62 + (0.31 - bx - rx * 0.62) * share, by - ry * 0.2 + (-0.3 - by + ry * 0.2) * share
            canvas.line([(nx - 0.07, ny - 0.01), (nx + 0.06, ny + 0.04)], mark, 0.03)
    elif scene.animal == "cow":
        canvas.shape(_ellipse(bx - rx * 0.4, by - ry * 0.2, 0.12, 0.09, 20), mark, outlined=False)
        canvas.shape(_ellipse(bx + rx * 0.3, by + ry * 0.25, 0.09, 0.07, -15), mark, outlined=False)
    elif scene.animal in ("cat", "dog"):
        canvas.shape(_ellipse(bx + rx * 0.66, by + ry * 0.25, 0.1, 0.12), pale, outlined=False)


def _draw_head(
    canvas: _Canvas, scene: Scene, build: _Build, coat: Colour, shade: Colour, pale: Colour, mark: Colour
) -> None:
    """The face looks at us, turned about its centre by the tilt."""
    hx, hy = build.head
    c, s = math.cos(math.radians(scene.tilt)), math.sin(math.radians(scene.tilt))

    def turned(points: Sequence[Point]) -> list[Point]:
        return [(hx + u * c - v * s, hy + u * s + v * c) for u, v in points]

    def shape(points: Sequence[Point], colour: Colour, outlined: bool = True) -> None:
        canvas.shape(turned(points), colour, outlined)

    def both(points: Sequence[Point], colour: Colour, outlined: bool = True) -> None:
        for sign in (-1, 1):
            shape([(sign * u, v) for u, v in points], colour, outlined)

    def line(points: Sequence[Point], colour: Colour, width: float) -> None:
        canvas.line(turned(points), colour, width)

    ear, animal = scene.ear, scene.animal
    pink, nose = (240, 160, 160), (44, 36, 42)
    eye_y, eye_x = -0.03, 0.1
    if animal == "cat":
        both([(0.05, -0.15), (0.2, -0.2 - 0.16 * ear), (0.24, -0.04)], coat)
        both([(0.11, -0.17), (0.185, -0.2 - 0.08 * ear), (0.2, -0.1)], pink, outlined=False)
        shape(_ellipse(0, 0, 0.25, 0.215), coat)
        shape(_ellipse(0, 0.11, 0.1, 0.07), pale, outlined=False)
        for sign in (-1, 1):
            for v in (0.07, 0.13):
                line([(sign * 0.1, 0.1), (sign * 0.3, v)], mark, 0.009)
        shape([(-0.035, 0.06), (0.035, 0.06), (0, 0.1)], pink)
    elif animal == "dog":
        shape(_ellipse(0, 0, 0.225, 0.215), coat)
        both([(0.12, -0.19), (0.22, -0.17), (0.31, 0.02 + 0.12 * ear), (0.2, 0.06 + 0.12 * ear), (0.17, -0.02)], shade)
        shape(_ellipse(0, 0.12, 0.15, 0.115), pale)
        shape(_ellipse(0, 0.19, 0.04, 0.06), (226, 92, 104), outlined=False)
        shape(_ellipse(0, 0.075, 0.062, 0.046), nose)
    elif animal == "rabbit":
        for sign in (-1, 1):
            shape(_ellipse(sign * 0.11, -0.18 * ear - 0.1, 0.062, 0.18 * ear, sign * 8), coat)
            shape(_ellipse(sign * 0.11, -0.18 * ear - 0.09, 0.03, 0.12 * ear, sign * 8), pink, outlined=False)
        shape(_ellipse(0, 0, 0.215, 0.2), coat)
        both(_ellipse(0.06, 0.1, 0.075, 0.06), pale, outlined=False)
        shape([(-0.03, 0.12), (0.03, 0.12), (0.028, 0.19), (-0.028, 0.19)], (255, 255, 255))
        shape(_ellipse(0, 0.06, 0.034, 0.026), pink)
    elif animal == "cow":
        both([(0.08, -0.16), (0.2, -0.26), (0.17, -0.12)], (236, 220, 180))
        both([(0.13, -0.1), (0.3, -0.14 - 0.03 * ear), (0.3, -0.02), (0.15, -0.02)], shade)
        shape(_ellipse(0, 0, 0.175, 0.22), coat)
        shape(_ellipse(0.075, -0.06, 0.085, 0.1), mark, outlined=False)
        shape(_ellipse(0, 0.16, 0.16, 0.1), pink)
        both(_ellipse(0.06, 0.16, 0.02, 0.028), nose, outlined=False)
        eye_y = -0.05
    else:
        both([(0.05, -0.17), (0.1, -0.22 - 0.12 * ear), (0.16, -0.12)], coat)
        shape(_ellipse(0, 0.02, 0.15, 0.25), coat)
        if animal == "zebra":
            for v in (-0.15, 0.06):
                half = 0.1 if v < 0 else 0.075
                both([(0.15, v - 0.03), (0.15, v + 0.03), (0.15 - half, v)], mark, outlined=False)
            shape([(-0.05, -0.3), (0.05, -0.3), (0.03, -0.14), (-0.03, -0.14)], mark)
        else:
            shape(
                [(-0.05, -0.27), (0.06, -0.27), (0.03, -0.1), (-0.02, -0.1)],
                _mix(coat, (60, 34, 20) if scene.coat != "brown" else (250, 214, 140), 0.75),
            )
        shape(_ellipse(0, 0.2, 0.135, 0.1), mark if animal == "zebra" else pale)
        both(_ellipse(0.05, 0.19, 0.018, 0.026), pale if animal == "zebra" else nose, outlined=False)
        eye_y, eye_x = -0.04, 0.085
    both(_ellipse(eye_x, eye_y, 0.05, 0.055), (255, 255, 250))
    both(_ellipse(eye_x, eye_y, 0.028, 0.04), (70, 130, 60) if animal == "cat" else (40, 30, 34), outlined=False)

    if scene.accessory == "glasses":
        for sign in (-1, 1):
            ring = [*_ellipse(sign * eye_x, eye_y, 0.082, 0.078)]
            line(ring, (206, 34, 60), 0.022)
        line([(-0.02, eye_y), (0.02, eye_y)], (206, 34, 60), 0.022)
    elif scene.accessory == "hat":
        top = -0.17
        shape([(-0.13, top), (-0.1, top - 0.19), (0.1, top - 0.19), (0.13, top)], (88, 60, 150))
        shape(
            [(-0.125, top - 0.03), (-0.12, top - 0.07), (0.12, top - 0.07), (0.125, top - 0.03)],
            (250, 204, 70),
            outlined=False,
        )
        shape(_ellipse(0, top, 0.22, 0.04), (88, 60, 150))


def counterfactual(scene: Scene, **changes: str) -> Scene:
    """The same scene after the perfect edit."""
    return dataclasses.replace(scene, **changes)
