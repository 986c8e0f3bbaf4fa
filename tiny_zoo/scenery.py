"""Where the animals of Tiny Zoo are: backgrounds of many layouts, and things that no caption names."""

from __future__ import annotations

import math
import random

from .canvas import Canvas, Colour, ellipse, mix, varied
from .scene import Scene

SKY = {"meadow": (150, 208, 244), "beach": (170, 224, 246), "snow": (196, 214, 230), "night": (32, 38, 86)}
GROUND = {"meadow": (124, 190, 84), "beach": (242, 218, 160), "snow": (240, 246, 252), "night": (48, 66, 92)}
WALL: Colour = (238, 198, 170)
FLOOR: Colour = (172, 116, 78)
BRIGHT: tuple[Colour, ...] = ((226, 78, 72), (250, 204, 70), (84, 120, 210), (236, 130, 180), (120, 90, 170))


def draw_scenery(canvas: Canvas, scene: Scene) -> None:
    """Draw all that is behind the animal."""
    rng = random.Random(scene.layout + 1)
    horizon = rng.uniform(0.42, 0.64)
    if scene.background == "room":
        _draw_room(canvas, rng, horizon + 0.08)
    else:
        _draw_outdoors(canvas, scene.background, rng, horizon)
    feet = scene.y + 0.43 * scene.size
    for _ in range(rng.randint(2, 5)):
        depth = rng.uniform(0.1, 0.95)
        ground = horizon + (0.1 if scene.background == "room" else 0.02)
        _draw_thing(canvas, scene.background, rng, rng.uniform(0.03, 0.97), ground + (1 - ground) * depth, 0.5 + depth)
    if rng.random() < 0.15:
        _draw_duck(canvas, rng, rng.choice((0.12, 0.88)), min(0.93, max(horizon + 0.12, feet - 0.12)))


def _band(canvas: Canvas, top: float, colour: Colour, rise: float = 0.0) -> None:
    """Everything below a line; `rise` lifts its middle."""
    edge = [(-0.1 + 0.1 * i, top - rise * math.sin(math.pi * i / 12)) for i in range(13)]
    canvas.shape([*edge, (1.1, 1.1), (-0.1, 1.1)], colour, outlined=top > 0)


def _draw_outdoors(canvas: Canvas, background: str, rng: random.Random, horizon: float) -> None:
    """Sky, what stands at the horizon, and the ground."""
    _band(canvas, -0.1, varied(SKY[background], rng))
    light = (rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.24))
    if background == "night":
        canvas.shape(ellipse(*light, 0.1, 0.1), (250, 240, 190))
        for _ in range(rng.randint(3, 9)):
            canvas.shape(ellipse(rng.random(), rng.uniform(0.04, 0.4), 0.014, 0.014), (250, 244, 206), outlined=False)
    elif rng.random() < 0.7:
        canvas.shape(ellipse(*light, 0.09, 0.09), (255, 222, 104))
    if background in ("meadow", "beach", "snow"):
        for _ in range(rng.randint(0, 2)):
            _draw_cloud(canvas, rng)
    ground = varied(GROUND[background], rng)
    if background == "beach":
        sea = (52, 144, 204)
        _band(canvas, horizon - rng.uniform(0.1, 0.2), sea)
        box = [(0.0, horizon - 0.1), (1.0, horizon - 0.1), (1.0, horizon), (0.0, horizon)]
        canvas.marks(14, box, mix(sea, (255, 255, 255), 0.4), (0.04, 0.09), 0)
        if rng.random() < 0.5:
            _draw_boat(canvas, rng, horizon - 0.09)
    elif rng.random() < 0.5:
        _band(canvas, horizon - 0.04, mix(ground, SKY[background], 0.35), rise=rng.uniform(0.05, 0.16))
    _band(canvas, horizon, ground, rise=rng.uniform(-0.02, 0.04))
    whole = [(0.0, horizon + 0.03), (1.0, horizon + 0.03), (1.0, 1.0), (0.0, 1.0)]
    shade = mix(ground, (20, 40, 30) if background == "meadow" else (90, 90, 120), 0.18)
    canvas.marks(110, whole, shade, (0.015, 0.04), -80 if background == "meadow" else 4)
    for _ in range(rng.randint(1, 3)):
        _draw_landmark(canvas, background, rng, rng.choice((rng.uniform(0, 0.3), rng.uniform(0.7, 1))), horizon)


def _draw_landmark(canvas: Canvas, background: str, rng: random.Random, x: float, horizon: float) -> None:
    """A tree, a sunshade, a fir or a house on the horizon."""
    depth = rng.uniform(0.0, 0.07)
    canvas.place(x, horizon + depth, 0.75 + 4 * depth)
    if background == "meadow":
        canvas.shape([(-0.03, 0.02), (-0.02, -0.26), (0.02, -0.26), (0.03, 0.02)], (124, 84, 56))
        leaves = varied((62, 140, 70), rng)
        if rng.random() < 0.6:
            canvas.shape(ellipse(0, -0.32, 0.14, 0.15), leaves)
            canvas.marks(20, ellipse(0, -0.32, 0.14, 0.15), mix(leaves, (20, 60, 30), 0.3), (0.02, 0.05), 60)
        else:
            canvas.shape([(-0.12, -0.14), (0, -0.48), (0.12, -0.14)], leaves)
    elif background == "beach":
        if rng.random() < 0.6:
            colour = rng.choice(BRIGHT[:3])
            canvas.line([(0, -0.24), (0, 0.08)], (236, 236, 236), 0.02)
            for i, tone in enumerate((colour, (250, 246, 238), colour)):
                canvas.shape(ellipse(0, -0.2, 0.17 - 0.055 * i, 0.16, start=180, end=360), tone)
        else:
            canvas.line([(0, 0.05), (0.02, -0.14), (0.06, -0.3)], (150, 106, 66), 0.03)
            for turn in (-150, -100, -40, 10):
                a = math.radians(turn)
                canvas.shape(
                    ellipse(0.06 + 0.09 * math.cos(a), -0.31 + 0.09 * math.sin(a), 0.11, 0.03, turn), (70, 150, 80)
                )
    elif background == "snow":
        green = varied((58, 110, 96), rng)
        canvas.shape([(-0.14, 0.04), (0, -0.4), (0.14, 0.04)], green)
        canvas.shape([(-0.06, -0.22), (0, -0.4), (0.06, -0.22), (0.02, -0.19), (-0.02, -0.23)], (246, 250, 255), False)
    else:
        canvas.shape([(-0.14, 0.03), (-0.14, -0.14), (0.14, -0.14), (0.14, 0.03)], (74, 62, 96))
        canvas.shape([(-0.17, -0.13), (0, -0.27), (0.17, -0.13)], (96, 56, 78))
        canvas.shape([(-0.04, -0.1), (0.04, -0.1), (0.04, -0.02), (-0.04, -0.02)], (252, 218, 110))
    canvas.place(0.0, 0.0, 1.0)


def _draw_room(canvas: Canvas, rng: random.Random, floor: float) -> None:
    wall, boards = varied(WALL, rng, 14), varied(FLOOR, rng, 14)
    _band(canvas, -0.1, wall)
    if rng.random() < 0.5:
        stripe = mix(wall, (255, 250, 240), 0.3)
        for i in range(7):
            canvas.shape([(i / 7, -0.1), (i / 7 + 0.05, -0.1), (i / 7 + 0.05, floor), (i / 7, floor)], stripe, False)
    _band(canvas, floor, boards)
    whole = [(0.0, floor + 0.02), (1.0, floor + 0.02), (1.0, 1.0), (0.0, 1.0)]
    canvas.marks(50, whole, mix(boards, (60, 30, 20), 0.25), (0.06, 0.14), 0)
    places = [0.16, 0.5, 0.84]
    rng.shuffle(places)
    for x in places[: rng.randint(1, 3)]:
        lift = rng.uniform(-0.03, 0.03)
        match rng.randrange(3):
            case 0:
                frame = [(x - 0.14, 0.08), (x + 0.14, 0.08), (x + 0.14, 0.4 + lift), (x - 0.14, 0.4 + lift)]
                canvas.shape(frame, (180, 222, 242))
                canvas.line([(x, 0.08), (x, 0.4 + lift)], (250, 248, 240), 0.018)
                canvas.line([(x - 0.14, 0.24), (x + 0.14, 0.24)], (250, 248, 240), 0.018)
            case 1:
                shade = [
                    (x - 0.1, 0.24 + lift),
                    (x - 0.06, 0.12 + lift),
                    (x + 0.06, 0.12 + lift),
                    (x + 0.1, 0.24 + lift),
                ]
                canvas.shape(shade, rng.choice(BRIGHT))
            case _:
                frame = [(x - 0.11, 0.12), (x + 0.11, 0.12), (x + 0.11, 0.32 + lift), (x - 0.11, 0.32 + lift)]
                canvas.shape(frame, (150, 104, 60))
                inner = [(x - 0.08, 0.15), (x + 0.08, 0.15), (x + 0.08, 0.29 + lift), (x - 0.08, 0.29 + lift)]
                canvas.shape(inner, varied((150, 190, 170), rng, 30))
    if rng.random() < 0.4:
        rug = rng.choice(BRIGHT)
        canvas.shape(ellipse(rng.uniform(0.3, 0.7), (floor + 1) / 2 + 0.08, 0.36, 0.11), mix(rug, wall, 0.35))


def _draw_cloud(canvas: Canvas, rng: random.Random) -> None:
    x, y, r = rng.random(), rng.uniform(0.06, 0.26), rng.uniform(0.04, 0.07)
    for u, v, size in ((-1.1, 0.2, 0.8), (1.1, 0.2, 0.8), (0, 0, 1.1)):
        canvas.shape(ellipse(x + u * r, y + v * r, size * r * 1.2, size * r * 0.8), (250, 252, 255), outlined=False)


def _draw_boat(canvas: Canvas, rng: random.Random, y: float) -> None:
    x = rng.uniform(0.1, 0.9)
    canvas.shape([(x - 0.08, y), (x + 0.08, y), (x + 0.05, y + 0.04), (x - 0.05, y + 0.04)], (150, 80, 60))
    canvas.shape([(x, y - 0.15), (x + 0.07, y - 0.02), (x, y - 0.02)], (250, 250, 244))


def _draw_thing(canvas: Canvas, background: str, rng: random.Random, x: float, y: float, scale: float) -> None:
    """A stone, a flower, a ball, a bush, a box or a pot on the ground."""
    things = {
        "meadow": ("stone", "flower", "flower", "bush", "ball"),
        "beach": ("stone", "ball", "shell", "box"),
        "snow": ("stone", "heap", "heap", "ball"),
        "night": ("stone", "bush", "flower"),
        "room": ("ball", "box", "pot", "box"),
    }
    canvas.place(x, min(0.97, y), scale)
    match rng.choice(things[background]):
        case "stone":
            canvas.shape(ellipse(0, 0, rng.uniform(0.03, 0.06), 0.03), varied((142, 142, 148), rng, 16))
        case "flower":
            canvas.line([(0, 0.02), (0, -0.04)], (60, 130, 60), 0.012)
            canvas.shape(ellipse(0, -0.055, 0.028, 0.028), rng.choice(BRIGHT), outlined=False)
            canvas.shape(ellipse(0, -0.055, 0.011, 0.011), (255, 240, 160), outlined=False)
        case "bush":
            canvas.shape(ellipse(0, 0, rng.uniform(0.06, 0.1), 0.07, start=180, end=360), varied((66, 128, 66), rng))
        case "ball":
            colour = rng.choice(BRIGHT)
            canvas.shape(ellipse(0, -0.03, 0.045, 0.045), colour)
            canvas.shape(ellipse(0, -0.03, 0.045, 0.016), mix(colour, (255, 255, 255), 0.7), outlined=False)
        case "shell":
            canvas.shape(ellipse(0, 0, 0.035, 0.04, start=180, end=360), (244, 190, 170))
        case "heap":
            canvas.shape(ellipse(0, 0.01, rng.uniform(0.08, 0.14), 0.05, start=180, end=360), (252, 254, 255))
        case "box":
            w, h = rng.uniform(0.05, 0.08), rng.uniform(0.05, 0.09)
            canvas.shape([(-w, 0), (-w, -h), (w, -h), (w, 0)], rng.choice(((196, 150, 96), *BRIGHT)))
        case _:
            canvas.shape([(-0.04, -0.06), (0.04, -0.06), (0.03, 0), (-0.03, 0)], (190, 100, 70))
            for turn in (-130, -90, -50):
                a = math.radians(turn)
                canvas.shape(ellipse(0.05 * math.cos(a), -0.07 + 0.06 * math.sin(a), 0.06, 0.022, turn), (80, 150, 90))
    canvas.place(0.0, 0.0, 1.0)


def _draw_duck(canvas: Canvas, rng: random.Random, x: float, y: float) -> None:
    """A small neighbour that no caption names."""
    canvas.place(x, y, 0.75, mirrored=rng.random() < 0.5)
    yellow = varied((250, 214, 90), rng)
    canvas.shape(ellipse(0, 0, 0.1, 0.06), yellow)
    canvas.shape(ellipse(0.08, -0.08, 0.05, 0.05), yellow)
    canvas.shape([(0.12, -0.09), (0.17, -0.075), (0.12, -0.06)], (240, 130, 50), outlined=False)
    canvas.shape(ellipse(0.09, -0.09, 0.01, 0.01), (40, 30, 34), outlined=False)
    canvas.place(0.0, 0.0, 1.0)
