"""How Tiny Zoo draws: shapes in fractions of a frame, in the scene's medium."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import cast

from PIL import Image, ImageDraw

Point = tuple[float, float]
Colour = tuple[int, int, int]

INK: Colour = (46, 38, 44)
PAPER: Colour = (246, 242, 232)
GRAPHITE: Colour = (96, 94, 100)


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """`share` of b, the rest of a."""
    return (
        round(a[0] + (b[0] - a[0]) * share),
        round(a[1] + (b[1] - a[1]) * share),
        round(a[2] + (b[2] - a[2]) * share),
    )


def varied(colour: Colour, rng: random.Random, by: float = 10.0) -> Colour:
    """A colour a little lighter or darker, warmer or colder."""
    light = rng.gauss(0.0, by)
    r, g, b = (min(255, max(0, round(channel + light + rng.gauss(0.0, by / 3)))) for channel in colour)
    return (r, g, b)


def ellipse(
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


class Canvas:
    """A picture under way.

    Args:
        medium: "drawing", "sketch" or "oil".
        pixels: side of the picture.
        onto: what is there already; blank paper if None.
        seed: of the brush strokes.
    """

    def __init__(self, medium: str, pixels: int, seed: int, onto: Image.Image | None = None) -> None:
        self.medium = medium
        self.pixels = pixels
        self.image = Image.new("RGB", (pixels, pixels), PAPER) if onto is None else onto
        self.pen = ImageDraw.Draw(self.image, "RGBA")
        self.rng = random.Random(seed)
        self.place(0.0, 0.0, 1.0, mirrored=False)

    def place(self, x: float, y: float, scale: float, *, mirrored: bool = False) -> None:
        """Set the frame of what is drawn next: its origin, unit length and direction."""
        self.x, self.y, self.scale, self.sign = x, y, scale, -1.0 if mirrored else 1.0

    def at(self, points: Sequence[Point]) -> list[Point]:
        """Points of the frame in pixels."""
        return [
            ((self.x + self.sign * self.scale * u) * self.pixels, (self.y + self.scale * v) * self.pixels)
            for u, v in points
        ]

    def tone(self, colour: Colour) -> Colour:
        """A colour as the medium shows it: faint crayon, rich oil, or as it is."""
        if self.medium == "sketch":
            return mix(mix(colour, PAPER, 0.62), (150, 150, 150), 0.08)
        if self.medium == "oil":
            grey = sum(colour) / 3
            r, g, b = (min(255, max(0, round(grey + (channel - grey) * 1.2))) for channel in colour)
            return mix((r, g, b), (122, 74, 26), 0.14)
        return colour

    def shape(self, points: Sequence[Point], colour: Colour, outlined: bool = True) -> None:
        """Fill a closed shape; the medium decides on the outline."""
        placed = self.at(points)
        self.pen.polygon(placed, fill=self.tone(colour))
        if outlined and self.medium != "oil":
            self._outline([*placed, placed[0], placed[1]])

    def _outline(self, placed: list[Point]) -> None:
        width = max(1, round(self.pixels * 0.009))
        if self.medium == "sketch":
            for shift in (-0.004, 0.004):
                moved = [(u + shift * self.pixels, v - shift * self.pixels) for u, v in placed]
                self.pen.line(moved, fill=GRAPHITE, width=max(1, width * 2 // 3), joint="curve")
        else:
            self.pen.line(placed, fill=INK, width=width, joint="curve")

    def line(self, points: Sequence[Point], colour: Colour, width: float) -> None:
        """Draw a round-ended line; its width is a fraction of the picture."""
        placed, pixels = self.at(points), max(1, round(width * self.pixels))
        self.pen.line(placed, fill=self.tone(colour), width=pixels, joint="curve")
        for u, v in (placed[0], placed[-1]):
            self.pen.ellipse((u - pixels / 2, v - pixels / 2, u + pixels / 2, v + pixels / 2), fill=self.tone(colour))

    def shadow(self, points: Sequence[Point], alpha: int = 56) -> None:
        """Darken what is there."""
        self.pen.polygon(self.at(points), fill=(20, 22, 40, alpha))

    def marks(self, count: int, inside: Sequence[Point], colour: Colour, length: Point, angle: float) -> None:
        """Strew short strokes over a shape, in tones round a colour: fur, blades of grass, sand.

        Args:
            count: how many.
            inside: the shape.
            colour: of the strokes.
            length: the shortest and the longest, in units of the frame.
            angle: their direction in degrees; they spread round it.
        """
        mask = Image.new("1", (64, 64))
        left, top = min(u for u, _ in inside), min(v for _, v in inside)
        width, height = max(u for u, _ in inside) - left, max(v for _, v in inside) - top
        ImageDraw.Draw(mask).polygon([((u - left) / width * 63, (v - top) / height * 63) for u, v in inside], fill=1)
        for _ in range(count):
            u, v = self.rng.random(), self.rng.random()
            a, reach = math.radians(self.rng.gauss(angle, 14)), self.rng.uniform(*length)
            tone = varied(colour, self.rng)
            if not mask.getpixel((int(u * 63), int(v * 63))):
                continue
            x, y = left + u * width, top + v * height
            ends = self.at([(x, y), (x + reach * math.cos(a), y + reach * math.sin(a))])
            self.pen.line(ends, fill=self.tone(tone), width=max(1, round(0.007 * self.pixels)))

    def strokes(self, count: int) -> None:
        """Lay brush strokes over what is there (oil), each in the colour that it covers."""
        if self.medium != "oil":
            return
        covered = self.image.resize((64, 64), Image.Resampling.BOX)
        for _ in range(count):
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
