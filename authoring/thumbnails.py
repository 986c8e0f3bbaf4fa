"""Draw the workflows' thumbnails: `python -m authoring.thumbnails [name ...]`, from the repository's root.

Runs the workflows of Tiny Zoo in a ComfyUI of its own and shows what they made of the example pictures. Needs the
interpreter that `python run.py test` made. After a training of Tiny Zoo, draw them again.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

from launcher.comfyui import make_base
from launcher.processes import quiet_cpu
from launcher.runtime import EXAMPLES, ROOT, Runtime
from launcher.server import Server, comfyui_server
from tiny_zoo.canvas import INK, PAPER

from .formats import api_format
from .graphs import GRAPHS
from .pictures import ACCENT, save, split, write
from .workflows import UI_FOLDER

SIDE = 384  # pixels; ComfyUI shows templates as squares
FOOT = 48  # height of the line below a picture

STRIP, SHEET_GAP = 24, 8  # pixels below and between the squares of a contact sheet

Pictures = dict[str, list[Image.Image]]
"""Title of a node that saves -> what it saved."""


def edited(pictures: Pictures, line: str) -> Image.Image:
    """The source left of a slanted line and the edited picture right of it."""
    source, _, result = (fit(picture, SIDE, SIDE) for picture in squares(pictures["side by side"][0], 3))
    return label(split(source, result), line)


def sheet(pictures: Pictures, line: str) -> Image.Image:
    """Source and edits of a contact sheet, in two rows."""
    (contact,) = pictures["contact sheet"]
    side = contact.height - STRIP
    cells = [contact.crop((left, 0, left + side, side)) for left in range(0, contact.width, side + SHEET_GAP)]
    return label(grid(cells, columns=3), line)


def maps(pictures: Pictures, line: str) -> Image.Image:
    """The first and the last moment of a word, of the original and of the edited picture."""
    (shown,) = pictures["attention maps"]
    side = shown.width // 5
    cells = [
        shown.crop((left, bottom - side, left + side, bottom))
        for bottom in (shown.height - side, shown.height)
        for left in (side, shown.width - side)
    ]
    return label(grid(cells, columns=2), line)


def folder(pictures: Pictures, line: str) -> Image.Image:
    """Every picture of a folder above its edit."""
    return _above(pictures, 3, line)


def frames(pictures: Pictures, line: str) -> Image.Image:
    """Every frame above its edit."""
    return _above(pictures, 2, line)


def _above(pictures: Pictures, count: int, line: str) -> Image.Image:
    """The first of each row's squares above the last."""
    cut = [squares(row, count) for row in pictures["side by side"]]
    rows = zip(*((row[0], row[-1]) for row in cut), strict=True)
    return label(grid([picture for row in rows for picture in row], columns=3), line)


def one_node(pictures: Pictures, line: str) -> Image.Image:
    """Before and after, side by side."""
    (together,) = pictures["before and after"]
    side = together.width // 2
    return label(
        grid(
            [together.crop((left, together.height - side, left + side, together.height)) for left in (0, side)],
            columns=2,
        ),
        line,
    )


DRAWN: dict[str, tuple[Callable[[Pictures, str], Image.Image], str]] = {
    "edit_a_picture": (one_node, "start here: one node"),
    "tiny_zoo_edit": (edited, "every step, in the open"),
    "tiny_zoo_two_edits": (edited, "two edits at once"),
    "tiny_zoo_strengths": (sheet, "one edit, five strengths"),
    "tiny_zoo_guider": (edited, "with SamplerCustomAdvanced"),
    "tiny_zoo_attention": (maps, "where it looks for a cat"),
    "tiny_zoo_folder": (folder, "a folder of pictures"),
    "tiny_zoo_distilled": (frames, "an edit in one pass"),
    "flow_tiny_zoo_edit": (edited, "with a flow model"),
}
"""Workflows that run here: name -> how it is drawn, and the line below."""

ANNOUNCED = {
    "sd15_edit": ("your photo", "edited without a prompt", "needs Stable Diffusion 1.5"),
    "sd15_generated": ("your prompt", "drawn, then edited", "needs Stable Diffusion 1.5"),
    "sdxl_edit": ("your photo", "edited at 1024 pixels", "needs Stable Diffusion XL"),
    "sd35_edit": ("your photo", "a flow model's edit", "needs Stable Diffusion 3.5"),
    "flux_edit": ("your photo", "a flow model's edit", "needs Flux.1 dev"),
    "anima_edit": ("your drawing", "one word swapped", "needs Anima"),
    "z_image_edit": ("your photo", "a flow model's edit", "needs Z-Image"),
    "qwen_image_base_edit": ("your photo", "a flow model's edit", "needs Qwen-Image"),
}
"""Nothing is edited with these models here, so these say what goes in and what is needed."""


def draw(names: Sequence[str]) -> None:
    """Run the workflows, and write a thumbnail of each."""
    runtime = Runtime.from_environment(os.environ)
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary)
        make_base(base)
        flags = ("--cpu",)
        with comfyui_server(runtime, base, base / "server.log", flags=flags, environment=quiet_cpu()) as server:
            for name in names:
                if name in DRAWN:
                    drawing, line = DRAWN[name]
                    picture = drawing(run_workflow(server, name, base), line)
                else:
                    picture = announce(*ANNOUNCED[name])
                print(save(picture, UI_FOLDER / f"{name}.jpg").relative_to(ROOT), flush=True)


def run_workflow(server: Server, name: str, base: Path) -> Pictures:
    """Run a workflow with the pictures that it brings along."""
    for node in GRAPHS[name].nodes.values():
        for path in (node.example,) if isinstance(node.example, str) else node.example:
            if path:
                (base / "input" / path).parent.mkdir(exist_ok=True)
                shutil.copy(EXAMPLES / Path(path).name, base / "input" / path)
    workflow = api_format(GRAPHS[name])
    for node in workflow.values():
        if node["class_type"] == "Pix2PixZeroAttentionMaps":
            node["inputs"]["words"] = "cat"
    outputs = server.run(workflow)
    return {
        node["_meta"]["title"]: [Image.open(io.BytesIO(server.view(image))) for image in outputs[number]["images"]]
        for number, node in workflow.items()
        if node["class_type"] == "SaveImage"
    }


def announce(title: str, subtitle: str, line: str) -> Image.Image:
    """What goes in and what is needed, on a pale picture."""
    with Image.open(EXAMPLES / "cat.png") as example:
        pale = Image.blend(fit(example, SIDE, SIDE), Image.new("RGB", (SIDE, SIDE), PAPER), 0.75)
    sketch = ImageDraw.Draw(pale)
    write(sketch, (SIDE // 2, 140), title, 44, INK)
    write(sketch, (SIDE // 2, 200), subtitle, 26, ACCENT)
    return label(pale, line)


def squares(row: Image.Image, count: int) -> list[Image.Image]:
    """The squares of a row, two or more, without titles above and gaps between them."""
    side = min(row.height, row.width // count)
    lefts = [(row.width - side) * place // (count - 1) for place in range(count)]
    return [row.crop((left, row.height - side, left + side, row.height)) for left in lefts]


def grid(pictures: Sequence[Image.Image], columns: int) -> Image.Image:
    """Put pictures in rows that fill a square but for the line below."""
    rows = len(pictures) // columns
    filled = Image.new("RGB", (SIDE, SIDE), INK)
    width, height = SIDE // columns, (SIDE - FOOT) // rows
    for index, picture in enumerate(pictures):
        place = (index % columns * width, FOOT // 2 + index // columns * height)
        filled.paste(fit(picture, width - 2, height - 2), place)
    return filled


def label(picture: Image.Image, line: str) -> Image.Image:
    """Write a line below a square picture, of which a strip above and one below are cut off for it."""
    labelled = Image.new("RGB", picture.size, INK)
    labelled.paste(picture.crop((0, FOOT // 2, SIDE, SIDE - FOOT // 2)))
    write(ImageDraw.Draw(labelled), (SIDE // 2, SIDE - FOOT // 2), line, 24, PAPER)
    return labelled


def fit(picture: Image.Image, width: int, height: int) -> Image.Image:
    """Scale a picture and cut it to a size."""
    return ImageOps.fit(picture.convert("RGB"), (width, height), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    chosen = sys.argv[1:] or list(GRAPHS)
    if not set(chosen) <= set(GRAPHS):
        raise SystemExit(f"{__doc__}\nnames: {', '.join(GRAPHS)}")
    draw(chosen)
