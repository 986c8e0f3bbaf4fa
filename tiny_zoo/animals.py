"""The animals of Tiny Zoo: builds and postures that they share, and what makes each of them what it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .canvas import INK, Canvas, Colour, Point, ellipse, mix
from .scene import Scene

COAT_COLOURS: dict[str, Colour] = {
    "white": (244, 240, 234),
    "grey": (150, 156, 168),
    "orange": (240, 150, 54),
    "brown": (134, 84, 48),
    "black": (58, 56, 68),
}
PINK: Colour = (240, 160, 160)
NOSE: Colour = (44, 36, 42)


@dataclass(frozen=True)
class Build:
    """Proportions that animals of one build share in a posture, in units of the animal's size.

    Attributes:
        head: centre of the head.
        body: centre of the trunk.
        trunk: its half axes.
        turn: of the trunk in degrees; negative lifts the chest.
        leg: width of a leg.
        neck: width of the neck.
    """

    head: Point
    body: Point
    trunk: Point
    leg: float
    neck: float
    turn: float = 0.0

    def on(self, u: float, v: float) -> Point:
        """A point of the trunk by fractions of its half axes."""
        c, s = math.cos(math.radians(self.turn)), math.sin(math.radians(self.turn))
        x, y = u * self.trunk[0], v * self.trunk[1]
        return self.body[0] + x * c - y * s, self.body[1] + x * s + y * c


GROUND = 0.43
_SMALL = Build(head=(0.2, -0.19), body=(-0.05, 0.15), trunk=(0.32, 0.19), leg=0.1, neck=0.26)
_LARGE = Build(head=(0.3, -0.28), body=(-0.07, 0.08), trunk=(0.33, 0.19), leg=0.09, neck=0.2)
_BUILDS = {"cat": _SMALL, "dog": _SMALL, "rabbit": _SMALL, "horse": _LARGE, "zebra": _LARGE, "cow": _LARGE}


def build_of(scene: Scene) -> Build:
    """The build of a scene's animal in its posture."""
    build = _BUILDS[scene.animal]
    (hx, hy), (bx, by), (rx, ry) = build.head, build.body, build.trunk
    build = replace(build, trunk=(rx * scene.body, ry))
    if scene.posture == "sitting":
        return replace(build, head=(hx - 0.1, hy - 0.01), body=(bx + 0.01, GROUND - 0.26), turn=-46.0)
    if scene.posture == "lying":
        return replace(build, head=(hx, hy + GROUND - ry - by - 0.02), body=(bx, GROUND - ry))
    return build


@dataclass(frozen=True)
class _Coat:
    plain: Colour
    shade: Colour
    pale: Colour
    mark: Colour
    mane: Colour

    @classmethod
    def of(cls, scene: Scene) -> _Coat:
        plain = COAT_COLOURS[scene.coat]
        return cls(
            plain,
            mix(plain, (20, 14, 20) if scene.coat != "black" else (120, 120, 140), 0.25),
            mix(plain, (255, 250, 240), 0.55),
            (48, 42, 50) if scene.coat != "black" else (226, 224, 220),
            mix(plain, (60, 34, 20) if scene.coat != "brown" else (250, 214, 140), 0.75),
        )


def draw_animal(canvas: Canvas, scene: Scene) -> None:
    """Draw the animal of a scene, and the shadow below it."""
    build, coat = build_of(scene), _Coat.of(scene)
    canvas.shadow(ellipse(build.body[0], GROUND - 0.01, 0.4 * scene.body, 0.05))
    _draw_tail(canvas, scene, build.on(-0.92, -0.3), coat)
    _draw_far_legs(canvas, scene, build, coat)
    trunk = [build.on(*point) for point in ellipse(0, 0, 1, 1)]
    canvas.shape(trunk, coat.plain)
    canvas.marks(46, trunk, mix(coat.plain, coat.shade, 0.55), (0.03, 0.06), 155 if scene.posture != "sitting" else 110)
    _draw_neck(canvas, scene, build, coat)
    _draw_markings(canvas, scene, build, coat)
    _draw_near_legs(canvas, scene, build, coat)
    _draw_head(canvas, scene, build, coat)


def _leg(canvas: Canvas, scene: Scene, build: Build, coat: _Coat, top: Point, swing: float, colour: Colour) -> None:
    """A straight leg from the trunk to the ground, with its hoof or paw."""
    w, foot = build.leg / 2, top[0] + swing
    slant = swing * 0.14 / max(0.1, GROUND - top[1])
    canvas.shape([(top[0] - w, top[1]), (top[0] + w, top[1]), (foot + w, GROUND), (foot - w, GROUND)], colour)
    if scene.animal in ("horse", "zebra", "cow"):
        hoof = [(foot - w - slant, GROUND - 0.05), (foot + w - slant, GROUND - 0.05), (foot + w, GROUND)]
        canvas.shape([*hoof, (foot - w, GROUND)], INK)
    else:
        paw = coat.pale if scene.animal == "dog" else colour
        canvas.shape(ellipse(foot + 0.02, GROUND - 0.02, w * 1.3, 0.035), paw)


def _paw(canvas: Canvas, scene: Scene, coat: _Coat, x: float, colour: Colour) -> None:
    """A folded leg seen from the side: the foot on the ground."""
    hoofed = scene.animal in ("horse", "zebra", "cow")
    tip = INK if hoofed else coat.pale if scene.animal == "dog" else colour
    canvas.shape(ellipse(x - 0.06, GROUND - 0.04, 0.13, 0.045), colour)
    canvas.shape(ellipse(x + 0.05, GROUND - 0.035, 0.05, 0.038), tip)


_SWING = {"standing": (0.0, 0.0, 0.0, 0.0), "walking": (-0.1, 0.12, 0.1, -0.09)}


def _draw_far_legs(canvas: Canvas, scene: Scene, build: Build, coat: _Coat) -> None:
    if scene.posture in _SWING:
        for u, swing in zip((-0.5, 0.72), _SWING[scene.posture][:2], strict=True):
            _leg(canvas, scene, build, coat, (build.on(u, 0)[0], build.body[1]), swing, coat.shade)
    elif scene.posture == "sitting":
        _leg(canvas, scene, build, coat, (build.on(0.55, 0)[0] + 0.08, build.on(0.55, 0)[1]), 0.03, coat.shade)
    else:
        _paw(canvas, scene, coat, build.on(0.95, 0)[0] + 0.06, coat.shade)


def _draw_near_legs(canvas: Canvas, scene: Scene, build: Build, coat: _Coat) -> None:
    if scene.posture in _SWING:
        for u, swing in zip((-0.72, 0.5), _SWING[scene.posture][2:], strict=True):
            _leg(canvas, scene, build, coat, (build.on(u, 0)[0], build.body[1] + 0.1), swing, coat.plain)
        return
    haunch = build.on(-0.62, 0.2)
    canvas.shape(ellipse(haunch[0] + 0.03, GROUND - 0.12, 0.14, 0.12), coat.plain)
    _paw(canvas, scene, coat, haunch[0] + 0.16, coat.plain)
    if scene.posture == "sitting":
        _leg(canvas, scene, build, coat, build.on(0.5, 0.3), 0.0, coat.plain)
    else:
        _paw(canvas, scene, coat, build.on(0.9, 0)[0], coat.plain)


def _draw_neck(canvas: Canvas, scene: Scene, build: Build, coat: _Coat) -> None:
    (hx, hy), w = build.head, build.neck / 2
    if _BUILDS[scene.animal] is _SMALL:
        canvas.shape([(hx - w, hy), (hx + w * 0.8, hy), build.on(0.8, 0), build.on(0.1, -0.7)], coat.plain)
        canvas.shape([build.on(0.42 + 0.48 * u, 0.05 + 0.85 * v) for u, v in ellipse(0, 0, 1, 1)], coat.plain, False)
        return
    top, base = (hx - 0.02, hy - 0.02), build.on(0.62, -0.2)
    if scene.animal != "cow":
        mane = coat.mark if scene.animal == "zebra" else coat.mane
        ends = [(top[0] - 0.2, top[1] - 0.12), (top[0] + 0.02, top[1] - 0.16), base, (base[0] - 0.22, base[1] - 0.06)]
        canvas.shape(ends, mane)
    ends = [(top[0] - w, top[1]), (top[0] + w, top[1] + 0.06)]
    canvas.shape([*ends, (base[0] + w * 1.1, base[1] + 0.1), (base[0] - w * 1.6, base[1] + 0.02)], coat.plain)
    canvas.shape([build.on(0.46 + 0.46 * u, 0.05 + 0.86 * v) for u, v in ellipse(0, 0, 1, 1)], coat.plain, False)


def _draw_tail(canvas: Canvas, scene: Scene, root: Point, coat: _Coat) -> None:
    x, y = root
    if scene.animal == "cat":
        tail = [(x + 0.05, y + 0.02), (x - 0.06, y - 0.08), (x - 0.07, y - 0.2), (x - 0.02, y - 0.3)]
        canvas.line(tail, coat.plain, 0.055 * (0.5 + 0.6 * scene.size))
    elif scene.animal == "dog":
        canvas.shape([(x + 0.06, y - 0.06), (x - 0.1, y - 0.2), (x - 0.13, y - 0.13), (x + 0.04, y + 0.06)], coat.plain)
    elif scene.animal == "rabbit":
        canvas.shape(ellipse(x, y + 0.02, 0.075, 0.075), mix(coat.plain, (255, 255, 255), 0.6))
    elif scene.animal == "cow":
        canvas.line([(x + 0.03, y), (x - 0.04, y + 0.06), (x - 0.04, y + 0.15)], coat.plain, 0.03)
        canvas.shape(ellipse(x - 0.04, y + 0.18, 0.04, 0.05), coat.mark)
    else:
        hair = coat.mark if scene.animal == "zebra" else coat.shade
        reach = min(y + 0.3, GROUND)
        tail = [
            (x + 0.06, y - 0.05),
            (x - 0.08, y + 0.02),
            (x - 0.12, reach),
            (x - 0.02, reach - 0.06),
            (x + 0.06, y + 0.06),
        ]
        canvas.shape(tail, hair)


def _draw_markings(canvas: Canvas, scene: Scene, build: Build, coat: _Coat) -> None:
    if scene.animal == "zebra":
        for u in (-0.72, -0.36, 0.0, 0.36):
            half = math.sqrt(1 - u * u) * 0.86
            stripe = [(u - 0.09, -half), (u + 0.11, -half), (u + 0.06, half * 0.9), (u, half * 0.9)]
            canvas.shape([build.on(*point) for point in stripe], coat.mark, outlined=False)
        base, top = build.on(0.62, -0.2), (build.head[0] + 0.01, build.head[1] - 0.02)
        for share in (0.3, 0.62):
            x, y = base[0] + (top[0] - base[0]) * share, base[1] + (top[1] - base[1]) * share
            canvas.line([(x - 0.07, y - 0.01), (x + 0.06, y + 0.04)], coat.mark, 0.03 * (0.4 + 0.75 * scene.size))
    elif scene.animal == "cow":
        for u, v, rx, ry in ((-0.4, -0.2, 0.36, 0.46), (0.3, 0.25, 0.27, 0.37)):
            canvas.shape([build.on(*point) for point in ellipse(u, v, rx, ry)], coat.mark, outlined=False)
    elif scene.animal in ("cat", "dog"):
        x, y = build.on(0.66, 0.25)
        canvas.shape(ellipse(x, y, 0.1, 0.12), coat.pale, outlined=False)


def _draw_head(canvas: Canvas, scene: Scene, build: Build, coat: _Coat) -> None:
    """The face looks at us: tilted about its centre, its features moved to a side as the head turns."""
    (hx, hy), aside = build.head, 0.05 * scene.turn
    c, s = math.cos(math.radians(scene.tilt)), math.sin(math.radians(scene.tilt))

    def turned(points: Sequence[Point], by: float) -> list[Point]:
        return [(hx + (u + by) * c - v * s, hy + (u + by) * s + v * c) for u, v in points]

    def shape(points: Sequence[Point], colour: Colour, outlined: bool = True, by: float = 0.0) -> None:
        canvas.shape(turned(points, by), colour, outlined)

    def feature(points: Sequence[Point], colour: Colour, outlined: bool = True) -> None:
        shape(points, colour, outlined, by=aside)

    def both(points: Sequence[Point], colour: Colour, outlined: bool = True, by: float = 0.0) -> None:
        for sign in (-1, 1):
            shape([(sign * u, v) for u, v in points], colour, outlined, by)

    def line(points: Sequence[Point], colour: Colour, width: float) -> None:
        canvas.line(turned(points, aside), colour, width)

    ear, animal, plain = scene.ear, scene.animal, coat.plain
    eye_y, eye_x = -0.03, 0.1
    if animal == "cat":
        both([(0.05, -0.15), (0.2, -0.2 - 0.16 * ear), (0.24, -0.04)], plain)
        both([(0.11, -0.17), (0.185, -0.2 - 0.08 * ear), (0.2, -0.1)], PINK, outlined=False)
        shape(ellipse(0, 0, 0.25, 0.215), plain)
        feature(ellipse(0, 0.11, 0.1, 0.07), coat.pale, outlined=False)
        for sign in (-1, 1):
            for v in (0.07, 0.13):
                line([(sign * 0.1, 0.1), (sign * 0.3, v)], coat.mark, 0.009)
        feature([(-0.035, 0.06), (0.035, 0.06), (0, 0.1)], PINK)
    elif animal == "dog":
        shape(ellipse(0, 0, 0.225, 0.215), plain)
        drop = 0.12 * ear
        both([(0.12, -0.19), (0.22, -0.17), (0.31, 0.02 + drop), (0.2, 0.06 + drop), (0.17, -0.02)], coat.shade)
        feature(ellipse(0, 0.12, 0.15, 0.115), coat.pale)
        feature(ellipse(0, 0.19, 0.04, 0.06), (226, 92, 104), outlined=False)
        feature(ellipse(0, 0.075, 0.062, 0.046), NOSE)
    elif animal == "rabbit":
        for sign in (-1, 1):
            shape(ellipse(sign * 0.11, -0.18 * ear - 0.1, 0.062, 0.18 * ear, sign * 8), plain)
            shape(ellipse(sign * 0.11, -0.18 * ear - 0.09, 0.03, 0.12 * ear, sign * 8), PINK, outlined=False)
        shape(ellipse(0, 0, 0.215, 0.2), plain)
        both(ellipse(0.06, 0.1, 0.075, 0.06), coat.pale, outlined=False, by=aside)
        feature([(-0.03, 0.12), (0.03, 0.12), (0.028, 0.19), (-0.028, 0.19)], (255, 255, 255))
        feature(ellipse(0, 0.06, 0.034, 0.026), PINK)
    elif animal == "cow":
        both([(0.08, -0.16), (0.2, -0.26), (0.17, -0.12)], (236, 220, 180))
        both([(0.13, -0.1), (0.3, -0.14 - 0.03 * ear), (0.3, -0.02), (0.15, -0.02)], coat.shade)
        shape(ellipse(0, 0, 0.175, 0.22), plain)
        feature(ellipse(0.075, -0.06, 0.085, 0.1), coat.mark, outlined=False)
        feature(ellipse(0, 0.16, 0.16, 0.1), PINK)
        both(ellipse(0.06, 0.16, 0.02, 0.028), NOSE, outlined=False, by=aside)
        eye_y = -0.05
    else:
        both([(0.05, -0.17), (0.1, -0.22 - 0.12 * ear), (0.16, -0.12)], plain)
        shape(ellipse(0, 0.02, 0.15, 0.25), plain)
        if animal == "zebra":
            for v in (-0.15, 0.06):
                half = 0.1 if v < 0 else 0.075
                both([(0.15, v - 0.03), (0.15, v + 0.03), (0.15 - half, v)], coat.mark, outlined=False)
            shape([(-0.05, -0.3), (0.05, -0.3), (0.03, -0.14), (-0.03, -0.14)], coat.mark)
        else:
            shape([(-0.05, -0.27), (0.06, -0.27), (0.03, -0.1), (-0.02, -0.1)], coat.mane)
        feature(ellipse(0, 0.2, 0.135, 0.1), coat.mark if animal == "zebra" else coat.pale)
        nostril = coat.pale if animal == "zebra" else NOSE
        both(ellipse(0.05, 0.19, 0.018, 0.026), nostril, outlined=False, by=aside)
        eye_y, eye_x = -0.04, 0.085
    both(ellipse(eye_x, eye_y, 0.05, 0.055), (255, 255, 250), by=aside)
    iris = (70, 130, 60) if animal == "cat" else (40, 30, 34)
    both(ellipse(eye_x + 0.012 * scene.turn, eye_y, 0.028, 0.04), iris, outlined=False, by=aside)

    if scene.accessory == "glasses":
        for sign in (-1, 1):
            line(ellipse(sign * eye_x, eye_y, 0.082, 0.078), (206, 34, 60), 0.022)
        line([(-0.02, eye_y), (0.02, eye_y)], (206, 34, 60), 0.022)
    elif scene.accessory == "hat":
        top = -0.17
        shape([(-0.13, top), (-0.1, top - 0.19), (0.1, top - 0.19), (0.13, top)], (88, 60, 150))
        band = [(-0.125, top - 0.03), (-0.12, top - 0.07), (0.12, top - 0.07), (0.125, top - 0.03)]
        shape(band, (250, 204, 70), outlined=False)
        shape(ellipse(0, top, 0.22, 0.04), (88, 60, 150))
