"""Draw the pictures that the pack shows itself with, from the repository's root.

    python -m authoring.pictures logo      docs/icon.png and docs/banner.png, for the registry
    python -m authoring.pictures results   docs/cat2dog.png and web/docs/edit.jpg, from what run.py demo left in output/
    python -m authoring.pictures graph     docs/graph.png, the first workflow in the real front end (its own ComfyUI)
    python -m authoring.pictures settings  docs/settings_*.jpg, one edit under several values of each setting (likewise)
    python -m authoring.pictures flow      docs/flow.jpg, edits by the UNet and by the flow transformer (likewise)

Needs the interpreter that `python run.py test` made. After a training of Tiny Zoo, draw all but the logo again. The
thumbnails of the workflows are drawn by `python -m authoring.thumbnails`.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from launcher.comfyui import make_base
from launcher.processes import quiet_cpu
from launcher.runtime import EXAMPLES, ROOT, Runtime
from launcher.server import Server, comfyui_server
from launcher.workflow import Workflow, adapt, node_inputs
from tiny_zoo import draw_examples
from tiny_zoo.canvas import INK, PAPER
from tiny_zoo.world import counterfactual, render, sample_scene

DOCS = ROOT / "docs"
OUTPUT = ROOT / "output"
WORKFLOWS = ROOT / "workflows"

ACCENT = (63, 120, 158)

# ---------------------------------------------------------------------------------------------------------- the logo


def draw_logo() -> list[Path]:
    """Draw the icon (a square) and the banner (21:9), the forms that the registry asks for."""
    seed, shown = draw_examples.EXAMPLES["cat"]
    cat = sample_scene(seed, "test", **shown)
    dog = counterfactual(cat, animal="dog")
    icon = round_off(split(render(cat, 256), render(dog, 256)), 40)

    banner = Image.new("RGB", (1260, 540), PAPER)
    for x, scene in ((60, cat), (860, dog)):
        picture = round_off(render(scene, 340), 24)
        banner.paste(picture, (x, 100), picture)
    draw = ImageDraw.Draw(banner)
    write(draw, (630, 220), "pix2pix-zero", 64, INK)
    write(draw, (630, 290), "change one thing, keep the rest", 27, ACCENT)
    draw.line((500, 360, 745, 360), fill=INK, width=10)
    draw.polygon(((745, 335), (745, 385), (790, 360)), fill=INK)
    return [save(icon, DOCS / "icon.png"), save(banner, DOCS / "banner.png")]


# ----------------------------------------------------------------------------------------------------------- results


def draw_results() -> list[Path]:
    """Enlarge the demo's row of pictures for README and help.

    Raises:
        SystemExit: the demo has not been run.
    """
    if not (OUTPUT / "side_by_side.png").is_file():
        raise SystemExit("output/ lacks side_by_side: run `python run.py demo` first")
    row = read(OUTPUT / "side_by_side.png")
    row = row.resize((row.width * 2, row.height * 2), Image.Resampling.LANCZOS)
    return [save(row, DOCS / "cat2dog.png"), save(row, ROOT / "web" / "docs" / "edit.jpg")]


# --------------------------------------------------------------------------------------------------------- the graph


def draw_graph() -> list[Path]:
    """Run the first workflow in the real front end and take its picture.

    Raises:
        SystemExit: no Chromium.
    """
    from .browser import find_browser, open_front_end

    browser = find_browser()
    if browser is None:
        raise SystemExit("no Chromium here: install one (apt-get install chromium) or name it in BROWSER_PATH")
    with comfyui() as (server, base):
        for name in ("TutorialCompleted", "Minimap.Visible"):
            value = b"true" if name == "TutorialCompleted" else b"false"
            server.request(f"/settings/Comfy.{name}", value)
        with open_front_end(server.url, browser) as front_end:
            front_end.drop(WORKFLOWS / "tiny_zoo_edit.json")
            front_end.run()
            front_end.wait_for_image(19)
            front_end.screenshot(base / "graph.png")
            return [save(read(base / "graph.png").quantize(256), DOCS / "graph.png")]


# ------------------------------------------------------------------------------------------------------ the settings

SAMPLER = "Pix2PixZeroCrossAttnGuidedSampler"
SETTINGS = {
    "strength": ("Pix2PixZeroApplyEditDirection", (-1.0, 0.5, 1.0, 1.25, 2.0)),
    "cfg": (SAMPLER, (1.0, 3.0, 5.0, 10.0)),
    "cfg_start": (SAMPLER, (0.0, 0.2, 0.5, 0.8)),
    "region": (SAMPLER, (0.0, 0.2, 0.4, 1.0)),
    "guidance": (SAMPLER, (0.0, 0.2, 0.5, 1.0)),
    "noise_from": (SAMPLER, ("fresh", "inversion")),
    "steps": ("Pix2PixZeroRegularizedDDIMInvert", (5, 10, 25, 50)),
}
"""Name of an input -> its node, and the values to show."""

TILE = 160  # pixels


def draw_settings() -> list[Path]:
    """Edit one picture with every value of `SETTINGS`, else as the first workflow does."""
    drawn: list[Path] = []
    with comfyui() as (server, base):
        picture = server.upload(EXAMPLES / "cat.png")
        for name, (class_type, values) in SETTINGS.items():
            tiles: dict[str, Path] = {"picture": EXAMPLES / "cat.png"}
            for value in values:
                workflow = adapt(template("tiny_zoo_edit"), picture, "tiny_zoo/cat2dog")
                node_inputs(workflow, class_type)[name] = value
                tiles[f"{name} {value}"] = edited(server, workflow, base / f"{name}_{value}.png")
            drawn.append(save(label(tiles), DOCS / f"settings_{name}.jpg"))
    return drawn


def label(tiles: dict[str, Path]) -> Image.Image:
    """Pictures side by side, each with its title below."""
    row = Image.new("RGB", ((TILE + 8) * len(tiles) - 8, TILE + 28), PAPER)
    draw = ImageDraw.Draw(row)
    for number, (title, path) in enumerate(tiles.items()):
        x = (TILE + 8) * number
        row.paste(read(path).resize((TILE, TILE), Image.Resampling.LANCZOS), (x, 0))
        write(draw, (x + TILE // 2, TILE + 14), title, 15, INK)
    return row


# ----------------------------------------------------------------------------------------------- the flow transformer

EDITS = {"cat2dog": "cat.png", "horse2zebra": "horse.png", "cat2glasses": "cat.png", "sketch2oil": "sketch.png"}
"""Edit -> the example that it is shown on."""

NETWORKS = {"by the UNet": "tiny_zoo_edit", "by the flow transformer": "flow_tiny_zoo_edit"}


def draw_flow() -> list[Path]:
    """Edit examples by the workflows of the UNet and of the flow transformer: a column an edit."""
    width, height = TILE + 8, TILE + 28
    page = Image.new("RGB", (width * len(EDITS) - 8, height * (1 + len(NETWORKS))), PAPER)
    draw = ImageDraw.Draw(page)

    def show(picture: Image.Image, column: int, row: int, title: str) -> None:
        page.paste(picture.resize((TILE, TILE), Image.Resampling.LANCZOS), (width * column, height * row))
        write(draw, (width * column + TILE // 2, height * row + TILE + 14), title, 15, INK)

    with comfyui() as (server, base):
        for column, (edit, example) in enumerate(EDITS.items()):
            show(read(EXAMPLES / example), column, 0, edit)
            picture = server.upload(EXAMPLES / example)
            for row, (title, name) in enumerate(NETWORKS.items(), start=1):
                workflow = adapt(template(name), picture, f"tiny_zoo/{edit}")
                show(read(edited(server, workflow, base / f"{edit}_{name}.png")), column, row, title)
    return [save(page, DOCS / "flow.jpg")]


# ------------------------------------------------------------------------------------------------------ small pieces


@contextmanager
def comfyui() -> Iterator[tuple[Server, Path]]:
    """A ComfyUI with the pack while the block lasts, and its base folder, which goes with it."""
    runtime = Runtime.from_environment(os.environ)
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        make_base(base)
        flags = ("--cpu", "--preview-method", "auto")
        with comfyui_server(runtime, base, base / "server.log", flags=flags, environment=quiet_cpu()) as server:
            yield server, base


def template(name: str) -> Workflow:
    """A shipped workflow in API format."""
    return json.loads((ROOT / "demo" / "api" / f"{name}.json").read_text(encoding="utf-8"))


def edited(server: Server, workflow: Workflow, path: Path) -> Path:
    """Run a workflow, and keep its edited picture."""
    (node,) = (key for key, node in workflow.items() if node["_meta"]["title"] == "edited")
    workflow[node]["inputs"]["filename_prefix"] = path.stem  # saved though it was drawn before
    path.write_bytes(server.view(server.run(workflow)[node]["images"][0]))
    return path


def split(left: Image.Image, right: Image.Image) -> Image.Image:
    """Show one picture left of a slanted line and another one right of it."""
    width, height = left.size
    line = ((width * 0.58, 0), (width * 0.42, height))
    mask = Image.new("L", left.size, 0)
    ImageDraw.Draw(mask).polygon((*line, (width, height), (width, 0)), fill=255)
    both = Image.composite(right, left, mask)
    ImageDraw.Draw(both).line(line, fill=PAPER, width=max(4, width // 48))
    return both


def round_off(picture: Image.Image, radius: int) -> Image.Image:
    """Round the corners off."""
    mask = Image.new("L", (picture.width * 4, picture.height * 4), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, mask.width, mask.height), radius * 4, fill=255)
    rounded = picture.convert("RGBA")
    rounded.putalpha(mask.resize(picture.size, Image.Resampling.BOX))
    return rounded


def write(draw: ImageDraw.ImageDraw, centre: tuple[int, int], text: str, size: int, colour: tuple[int, ...]) -> None:
    """Write a line in Pillow's own font."""
    draw.text(centre, text, fill=colour, font=ImageFont.load_default(size), anchor="mm")


def read(path: Path) -> Image.Image:
    """Read a picture."""
    with Image.open(path) as picture:
        return picture.convert("RGB")


def save(picture: Image.Image, path: Path) -> Path:
    """Save a picture by way of another name, so that an interruption leaves no half of it."""
    unfinished = path.with_name(f"unfinished-{path.name}")
    picture.save(unfinished, optimize=True, quality=85)
    unfinished.replace(path)
    return path


DRAWINGS = {
    "logo": draw_logo,
    "results": draw_results,
    "graph": draw_graph,
    "settings": draw_settings,
    "flow": draw_flow,
}

if __name__ == "__main__":
    if len(sys.argv) < 2 or not set(sys.argv[1:]) <= set(DRAWINGS):
        raise SystemExit(__doc__)
    for drawing in sys.argv[1:]:
        for path in DRAWINGS[drawing]():
            print(f"{path.relative_to(ROOT)}, {path.stat().st_size / 1000:.0f} kB")
