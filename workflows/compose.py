"""Write the shipped workflows: `python -m workflows.compose`, from the repository's root.

Each graph is described once and written twice: in the UI format that a browser opens (`workflows/`), and in the API
format that POST /prompt takes. The latter lies elsewhere, or ComfyUI would offer it as a template.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from run import COMFYUI_VERSION, PACK, ROOT

UI_FOLDER = ROOT / "workflows"
API_FOLDER = ROOT / "demo" / "api"

WIDGET_TYPES = ("COMBO", "INT", "FLOAT", "STRING", "BOOLEAN", "IMAGEUPLOAD")
"""Inputs of these types are widgets; the others are sockets."""

TITLE_BAR, GAP, MARGIN = 30, 30, 20  # pixels of the canvas; a node's position is that of its body, below the title bar
SCALE = 0.58  # of the first view; below 0.57 the browser leaves the text out
CORNER = (80, 150)  # pixels of the window that sidebar, tabs and menus cover


@dataclass(frozen=True)
class Kind:
    """A node class as a graph sees it.

    Attributes:
        inputs: name -> type, in the order of the schema.
        outputs: name -> type.
        size: width and height of the body, with room for a preview or a message.
        optional: names of the inputs that may stay open.
        forced: names of the inputs that are sockets although their type has a widget.
        browser: values of the widgets that the frontend adds to those of the schema: name -> (type, value).
    """

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    size: tuple[int, int]
    optional: tuple[str, ...] = ()
    forced: tuple[str, ...] = ()
    browser: Mapping[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])

    def is_widget(self, name: str) -> bool:
        """Whether an input is drawn as a widget."""
        return name in self.browser or (self.inputs[name] in WIDGET_TYPES and name not in self.forced)


KINDS = {
    "CheckpointLoaderSimple": Kind({"ckpt_name": "COMBO"}, {"MODEL": "MODEL", "CLIP": "CLIP", "VAE": "VAE"}, (320, 98)),
    "LoadImage": Kind(
        {"image": "COMBO"}, {"IMAGE": "IMAGE", "MASK": "MASK"}, (320, 326), browser={"upload": ("IMAGEUPLOAD", "image")}
    ),
    "ImageScale": Kind(
        {"image": "IMAGE", "upscale_method": "COMBO", "width": "INT", "height": "INT", "crop": "COMBO"},
        {"IMAGE": "IMAGE"},
        (320, 130),
    ),
    "VAEEncode": Kind({"pixels": "IMAGE", "vae": "VAE"}, {"LATENT": "LATENT"}, (320, 46)),
    "Pix2PixZeroBLIPCaption": Kind(
        {
            "image": "IMAGE",
            "model": "COMBO",
            "prefix": "STRING",
            "max_tokens": "INT",
            "beams": "INT",
            "download": "BOOLEAN",
        },
        {"caption": "STRING"},
        (320, 154),
        optional=("download",),
    ),
    "PreviewAny": Kind({"source": "*"}, {}, (320, 130)),
    "CLIPTextEncode": Kind({"text": "STRING", "clip": "CLIP"}, {"CONDITIONING": "CONDITIONING"}, (320, 110)),
    "Pix2PixZeroEditDirection": Kind(
        {
            "clip": "CLIP",
            "edit": "COMBO",
            "source": "STRING",
            "target": "STRING",
            "sentences": "INT",
            "kind": "COMBO",
        },
        {"direction": "PIX2PIX_ZERO_DIRECTION"},
        (320, 220),
        optional=("kind",),
    ),
    "Pix2PixZeroApplyEditDirection": Kind(
        {
            "source": "CONDITIONING",
            "direction": "PIX2PIX_ZERO_DIRECTION",
            "clip": "CLIP",
            "strength": "FLOAT",
            "caption": "STRING",
        },
        {"target": "CONDITIONING", "warning": "STRING"},
        (320, 170),
        optional=("caption",),
        forced=("caption",),
    ),
    "Pix2PixZeroRegularizedDDIMInvert": Kind(
        {
            "model": "MODEL",
            "latent": "LATENT",
            "source": "CONDITIONING",
            "steps": "INT",
            "regularization": "FLOAT",
            "kl": "FLOAT",
            "fixed_point": "INT",
            "reconstruct": "BOOLEAN",
            "sigmas": "SIGMAS",
            "scheduler": "COMBO",
            "start_at_step": "INT",
            "end_at_step": "INT",
        },
        {
            "inversion": "PIX2PIX_ZERO_INVERSION",
            "noise": "LATENT",
            "reconstruction": "LATENT",
            "reconstruction_db": "FLOAT",
        },
        (340, 520),
        optional=("sigmas", "scheduler", "start_at_step", "end_at_step"),
    ),
    "Pix2PixZeroCrossAttnGuidedSampler": Kind(
        {
            "model": "MODEL",
            "inversion": "PIX2PIX_ZERO_INVERSION",
            "source": "CONDITIONING",
            "target": "CONDITIONING",
            "negative": "CONDITIONING",
            "cfg": "FLOAT",
            "guidance": "FLOAT",
            "unit": "COMBO",
            "guidance_start": "FLOAT",
            "guidance_end": "FLOAT",
            "checkpointing": "COMBO",
            "finest_layer": "INT",
        },
        {"edited": "LATENT", "reference": "LATENT", "path": "PIX2PIX_ZERO_INVERSION"},
        (340, 518),
        optional=("checkpointing", "finest_layer"),
    ),
    "VAEDecode": Kind({"samples": "LATENT", "vae": "VAE"}, {"IMAGE": "IMAGE"}, (250, 46)),
    "ImageStitch": Kind(
        {
            "image1": "IMAGE",
            "direction": "COMBO",
            "match_image_size": "BOOLEAN",
            "spacing_width": "INT",
            "spacing_color": "COMBO",
            "image2": "IMAGE",
        },
        {"IMAGE": "IMAGE"},
        (250, 150),
        optional=("image2",),
    ),
    "SaveImage": Kind({"images": "IMAGE", "filename_prefix": "STRING"}, {}, (320, 300)),
}


class Link(NamedTuple):
    """The output of another node."""

    node: int
    output: int


class ModelFile(NamedTuple):
    """A model that the browser offers to download where it is missing."""

    name: str
    url: str
    directory: str


@dataclass(frozen=True)
class Node:
    """One node of a graph: its class, every input (a value or a link) and what is written on it.

    Attributes:
        models: files that the browser offers to download.
        example: a picture of `web/examples` that `web/examples.js` brings along.
    """

    kind: str
    inputs: Mapping[str, Any]
    title: str = ""
    models: tuple[ModelFile, ...] = ()
    example: str = ""


class Note(NamedTuple):
    """Markdown on the canvas: title, text, width and height of the body."""

    title: str
    text: str
    size: tuple[int, int]


Stack = Mapping[str, tuple[tuple[int | Note, ...], ...]]
"""Groups one above another: title -> columns of node ids and notes, the columns from left to right."""


@dataclass(frozen=True)
class Graph:
    """A workflow.

    Attributes:
        nodes: id -> node, every node after those it takes from.
        note: stands left of the graph.
        stacks: the groups, from left to right.
    """

    nodes: Mapping[int, Node]
    note: Note
    stacks: tuple[Stack, ...]


# ------------------------------------------------------------------------------------------------------------- graphs


def edit_graph(checkpoint: Node, side: int, blip: str, edit: str, introduction: str) -> Graph:
    """One picture, edited along a direction; source, reconstruction and result are saved, and all side by side.

    Args:
        checkpoint: the loader.
        side: width and height that the model was trained on, pixels.
        blip: a folder in models/blip.
        edit: a named edit.
        introduction: Markdown beside the graph.
    """
    model, clip, vae = (Link(1, output) for output in range(3))
    picture, caption, source = Link(3, 0), Link(5, 0), Link(7, 0)
    stitch = {"direction": "right", "match_image_size": True, "spacing_width": 8, "spacing_color": "white"}
    nodes = {
        1: checkpoint,
        2: Node("LoadImage", {"image": "cat.png"}, "picture", example="cat.png"),
        3: Node(
            "ImageScale",
            {"image": Link(2, 0), "upscale_method": "lanczos", "width": side, "height": side, "crop": "center"},
            "to the model's size",
        ),
        4: Node("VAEEncode", {"pixels": picture, "vae": vae}),
        5: Node(
            "Pix2PixZeroBLIPCaption",
            {"image": picture, "model": blip, "prefix": "", "max_tokens": 40, "beams": 3, "download": False},
        ),
        6: Node("PreviewAny", {"source": caption}, "caption"),
        7: Node("CLIPTextEncode", {"text": caption, "clip": clip}, "source text"),
        8: Node(
            "Pix2PixZeroEditDirection",
            {"clip": clip, "edit": edit, "source": "", "target": "", "sentences": 200, "kind": "thing"},
        ),
        9: Node(
            "Pix2PixZeroApplyEditDirection",
            {"source": source, "direction": Link(8, 0), "clip": clip, "strength": 1.0, "caption": caption},
            "target text",
        ),
        10: Node(
            "Pix2PixZeroRegularizedDDIMInvert",
            {
                "model": model,
                "latent": Link(4, 0),
                "source": source,
                "steps": 50,
                "regularization": 2.0,
                "kl": 20.0,
                "fixed_point": 3,
                "reconstruct": True,
                "scheduler": "ddim",
                "start_at_step": 0,
                "end_at_step": 10000,
            },
        ),
        11: Node(
            "Pix2PixZeroCrossAttnGuidedSampler",
            {
                "model": model,
                "inversion": Link(10, 0),
                "source": source,
                "target": Link(9, 0),
                "negative": source,
                "cfg": 5.0,
                "guidance": 0.4,
                "unit": "normalized",
                "guidance_start": 0.0,
                "guidance_end": 1.0,
                "checkpointing": "on demand",
                "finest_layer": 1,
            },
        ),
        12: Node("VAEDecode", {"samples": Link(10, 2), "vae": vae}),
        13: Node("VAEDecode", {"samples": Link(11, 0), "vae": vae}),
        14: Node("SaveImage", {"images": picture, "filename_prefix": f"{PACK}/source"}, "source"),
        15: Node("SaveImage", {"images": Link(12, 0), "filename_prefix": f"{PACK}/reconstruction"}, "reconstruction"),
        16: Node("SaveImage", {"images": Link(13, 0), "filename_prefix": f"{PACK}/edited"}, "edited"),
        17: Node("ImageStitch", {"image1": picture, "image2": Link(12, 0), **stitch}),
        18: Node("ImageStitch", {"image1": Link(17, 0), "image2": Link(13, 0), **stitch}),
        19: Node("SaveImage", {"images": Link(18, 0), "filename_prefix": f"{PACK}/side_by_side"}, "side by side"),
    }
    stacks: tuple[Stack, ...] = (
        {"Picture": ((1, 2, 3, 4),)},
        {"Caption": ((5, 6, 7, CAPTION_NOTE),), "Edit direction": ((8, 9, DIRECTION_NOTE),)},
        {"Invert": ((10, 12, INVERT_NOTE),)},
        {"Edit": ((11, 13, EDIT_NOTE),)},
        {"Result": ((14, 16, 17), (15, 19, 18))},
    )
    return Graph(nodes, Note("How to use it", introduction, (320, 460)), stacks)


CAPTION_NOTE = Note(
    "caption: what to turn",
    """\
**model**: a folder of `models/blip`. **prefix**: how the caption begins. **beams**: 1 is fastest. **max_tokens**: its
longest length.

Caption wrong? Unplug it and type your own into *source text*.
""",
    (320, 100),
)
DIRECTION_NOTE = Note(
    "direction: what to turn",
    """\
- **edit**: what becomes what. `custom` takes your words, or sentences, in **source** and **target**; **sentences** are
  made up around a word, and more of them keep other things as they are.
- **strength**: how far to go. 1 is the whole edit, -1 leads the other way.
""",
    (320, 130),
)
INVERT_NOTE = Note(
    "invert: what to turn",
    """\
- **steps**: more is more exact, and slower.
- **regularization**, **kl**: how strongly the noise is kept white. Lower both if *reconstruction* is off.
- **fixed_point**: refinements of a step. 0 is plain DDIM.
- **reconstruct**: off saves a model call a step.

Look at *reconstruction* first: what is wrong there is lost before the edit begins.
""",
    (340, 140),
)
EDIT_NOTE = Note(
    "edit: what to turn",
    """\
- **guidance**: how strongly the layout is held. Structure lost: raise it. Edit too weak: lower it.
- **cfg**: how strongly the new text is followed.
- **guidance_end**: below 1 guidance stops early; faster, and freer at the end.
- **unit**: leave it at `normalized`; `paper` is the published step size (0.1 for photos, 0.15 for generated pictures).
- **negative**: the source text for photos, an empty text for generated pictures.
""",
    (340, 160),
)
TINY_ZOO_NOTE = """\
# Edit a picture without a prompt
Press **Run**. A cat becomes a dog, in the same place.

1. **BLIP** says what the picture shows.
2. The picture is traced back to its **noise**.
3. A **direction** turns the caption from cat to dog.
4. The sampler draws the new text while its **attention** stays where it was in the original.

Everything here is **Tiny Zoo**, the miniature that comes with the pack: nothing to download. It knows only its own
drawn animals.

## Next
Turn **guidance** up and down. Then another picture: drag one from the pack's folder `web/examples` onto the node
*picture*, and choose an **edit** that fits it, such as `tiny_zoo/horse2zebra` for `horse.png`.
"""

SD15_NOTE = """\
# Edit a photo without a prompt
With Stable Diffusion 1.5. Choose a photo of a cat at *picture*, or another **edit** for another photo, and press
**Run**.

Two models are needed:
- **checkpoint**: `v1-5-pruned-emaonly-fp16.safetensors`, or any other of the 1.x family, in `models/checkpoints`. The
  browser offers to download it.
- **caption**: switch **download** on at *BLIP Caption* to have it fetched once (1 GB), or put the files of
  `Salesforce/blip-image-captioning-base` from Hugging Face into `models/blip/blip-image-captioning-base`.

## How it works
1. **BLIP** says what the photo shows.
2. The photo is traced back to its **noise**.
3. A **direction** turns the caption from cat to dog.
4. The sampler draws the new text while its **attention** stays where it was in the original.
"""

GRAPHS = {
    "tiny_zoo_edit": edit_graph(
        Node("CheckpointLoaderSimple", {"ckpt_name": "tiny_zoo.safetensors"}, "Load Tiny Zoo"),
        side=128,
        blip="tiny_zoo",
        edit="tiny_zoo/cat2dog",
        introduction=TINY_ZOO_NOTE,
    ),
    "sd15_edit": edit_graph(
        Node(
            "CheckpointLoaderSimple",
            {"ckpt_name": "v1-5-pruned-emaonly-fp16.safetensors"},
            "Load Stable Diffusion 1.5",
            (
                ModelFile(
                    "v1-5-pruned-emaonly-fp16.safetensors",
                    "https://huggingface.co/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/"
                    "v1-5-pruned-emaonly-fp16.safetensors",
                    "checkpoints",
                ),
            ),
        ),
        side=512,
        blip="blip-image-captioning-base",
        edit="cat2dog",
        introduction=SD15_NOTE,
    ),
}

# ------------------------------------------------------------------------------------------------------------ formats


def api_format(graph: Graph) -> dict[str, Any]:
    """What POST /prompt takes: node id -> class, inputs, title."""
    return {
        str(number): {
            "class_type": node.kind,
            "inputs": {
                name: [str(value.node), value.output] if isinstance(value, Link) else value
                for name, value in node.inputs.items()
            },
            "_meta": {"title": node.title or node.kind},
        }
        for number, node in graph.nodes.items()
    }


def ui_format(graph: Graph, name: str) -> dict[str, Any]:
    """What the browser opens and saves, version 0.4 of the schema."""
    places, groups = lay_out(graph)
    links = list_links(graph)
    nodes = [ui_node(number, graph, links, places[number], order) for order, number in enumerate(graph.nodes)]
    last = max(graph.nodes)
    for note in places:
        if isinstance(note, Note):
            last += 1
            nodes.append(ui_note(last, note, places[note], len(nodes)))
    corner = [min(place[i] for place in places.values()) for i in (0, 1)]
    offset = [CORNER[0] / SCALE - corner[0], CORNER[1] / SCALE - corner[1]]
    return {
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{PACK}/{name}")),
        "revision": 0,
        "last_node_id": last,
        "last_link_id": len(links),
        "nodes": nodes,
        "links": links,
        "groups": groups,
        "config": {},
        "extra": {"ds": {"scale": SCALE, "offset": [round(value) for value in offset]}},
        "version": 0.4,
    }


def ui_node(number: int, graph: Graph, links: list[list[Any]], position: list[int], order: int) -> dict[str, Any]:
    """One node in the UI format; links as `list_links` gives them."""
    node = graph.nodes[number]
    kind = KINDS[node.kind]
    arriving = {slot: link for link, _, _, target, slot, _ in links if target == number}
    inputs: list[dict[str, Any]] = []
    for slot, (name, type_) in enumerate(input_slots(kind).items()):
        widget = {"widget": {"name": name}} if kind.is_widget(name) else {}
        shape = {"shape": 7} if name in kind.optional else {}  # drawn hollow
        inputs.append({"name": name, **shape, "type": type_, **widget, "link": arriving.get(slot)})
    outputs = [
        {
            "name": name,
            "type": type_,
            "links": [link for link, origin, output, *_ in links if (origin, output) == (number, slot)] or None,
        }
        for slot, (name, type_) in enumerate(kind.outputs.items())
    ]
    ours = node.kind.startswith("Pix2PixZero")
    return {
        "id": number,
        "type": node.kind,
        "pos": position,
        "size": list(kind.size),
        "flags": {},
        "order": order,
        "mode": 0,
        "inputs": inputs,
        "outputs": outputs,
        **({"title": node.title} if node.title else {}),
        "properties": {
            "Node name for S&R": node.kind,
            "cnr_id": PACK if ours else "comfy-core",
            "ver": pack_version() if ours else COMFYUI_VERSION,
            **({"models": [model._asdict() for model in node.models]} if node.models else {}),
            **({f"{PACK} example": node.example} if node.example else {}),
        },
        "widgets_values": widget_values(node),
    }


def ui_note(number: int, note: Note, position: list[int], order: int) -> dict[str, Any]:
    """One note in the UI format."""
    return {
        "id": number,
        "type": "MarkdownNote",
        "pos": position,
        "size": list(note.size),
        "flags": {},
        "order": order,
        "mode": 0,
        "inputs": [],
        "outputs": [],
        "title": note.title,
        "properties": {},
        "widgets_values": [note.text],
        "color": "#432",
        "bgcolor": "#653",
    }


def input_slots(kind: Kind) -> dict[str, str]:
    """Name -> type of every input in the order of the drawn node: sockets, then widgets."""
    types = {**kind.inputs, **{name: type_ for name, (type_, _) in kind.browser.items()}}
    return dict(sorted(types.items(), key=lambda item: kind.is_widget(item[0])))


def widget_values(node: Node) -> list[Any]:
    """Values of a node's widgets in the order of its schema; a widget with a link holds an empty text."""
    kind = KINDS[node.kind]
    values = [node.inputs[name] for name in kind.inputs if kind.is_widget(name)]
    values += [value for _, value in kind.browser.values()]
    return ["" if isinstance(value, Link) else value for value in values]


def list_links(graph: Graph) -> list[list[Any]]:
    """Every link as [id, origin, its output, target, its input, type]."""
    links: list[list[Any]] = []
    for number, node in graph.nodes.items():
        for slot, name in enumerate(input_slots(KINDS[node.kind])):
            value = node.inputs.get(name)
            if isinstance(value, Link):
                type_ = list(KINDS[graph.nodes[value.node].kind].outputs.values())[value.output]
                links.append([len(links) + 1, value.node, value.output, number, slot, type_])
    return links


def lay_out(graph: Graph) -> tuple[dict[int | Note, list[int]], list[dict[str, Any]]]:
    """Place everything: positions of nodes (by id) and notes, and the groups."""

    def size(entry: int | Note) -> tuple[int, int]:
        return entry.size if isinstance(entry, Note) else KINDS[graph.nodes[entry].kind].size

    above = 2 * TITLE_BAR + MARGIN  # of a group's first node: the group's title, then the node's
    places: dict[int | Note, list[int]] = {graph.note: [0, 0]}
    groups: list[dict[str, Any]] = []
    x = graph.note.size[0] + GAP + MARGIN
    for stack in graph.stacks:
        top, right = 0, x
        for title, columns in stack.items():
            left, bottom = x, top
            for column in columns:
                y = top
                for entry in column:
                    places[entry] = [left, y]
                    y += size(entry)[1] + GAP + TITLE_BAR
                bottom = max(bottom, y - GAP - TITLE_BAR)
                left += max(size(entry)[0] for entry in column) + GAP
            right = max(right, left - GAP)
            box = [x - MARGIN, top - above, right - x + 2 * MARGIN, bottom - top + above + MARGIN]
            group = {"title": title, "bounding": box, "color": "#3f789e", "font_size": 24, "flags": {}}
            groups.append({"id": len(groups) + 1, **group})
            top = bottom + MARGIN + GAP + above
        x = right + GAP + 2 * MARGIN
    return places, groups


def pack_version() -> str:
    """The pack's version, from pyproject.toml."""
    return re.findall(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)[0]


# -------------------------------------------------------------------------------------------------------------- files


def compose() -> dict[Path, str]:
    """Path -> text of every file."""
    files: dict[Path, Any] = {}
    for name, graph in GRAPHS.items():
        files[UI_FOLDER / f"{name}.json"] = ui_format(graph, name)
        files[API_FOLDER / f"{name}.json"] = api_format(graph)
    return {path: json.dumps(content, indent=2, ensure_ascii=False) + "\n" for path, content in files.items()}


if __name__ == "__main__":
    for path, text in compose().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".partial")
        unfinished.write_text(text, encoding="utf-8", newline="\n")
        os.replace(unfinished, path)
        print(path.relative_to(ROOT))
