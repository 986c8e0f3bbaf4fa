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


@dataclass(frozen=True)
class Kind:
    """A node class as a graph sees it.

    Attributes:
        inputs: name -> type, in the order of the schema.
        outputs: name -> type.
        size: width and height of the body.
        optional: names of the inputs that may stay open.
        browser: values of the widgets that the frontend adds to those of the schema: name -> (type, value).
    """

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    size: tuple[int, int]
    optional: tuple[str, ...] = ()
    browser: Mapping[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])


KINDS = {
    "CheckpointLoaderSimple": Kind({"ckpt_name": "COMBO"}, {"MODEL": "MODEL", "CLIP": "CLIP", "VAE": "VAE"}, (320, 98)),
    "LoadImage": Kind(
        {"image": "COMBO"}, {"IMAGE": "IMAGE", "MASK": "MASK"}, (320, 314), browser={"upload": ("IMAGEUPLOAD", "image")}
    ),
    "ImageScale": Kind(
        {"image": "IMAGE", "upscale_method": "COMBO", "width": "INT", "height": "INT", "crop": "COMBO"},
        {"IMAGE": "IMAGE"},
        (320, 130),
    ),
    "VAEEncode": Kind({"pixels": "IMAGE", "vae": "VAE"}, {"LATENT": "LATENT"}, (320, 46)),
    "Pix2PixZeroBLIPCaption": Kind(
        {"image": "IMAGE", "model": "COMBO", "prefix": "STRING", "max_tokens": "INT", "beams": "INT"},
        {"caption": "STRING"},
        (320, 130),
    ),
    "PreviewAny": Kind({"source": "*"}, {}, (320, 100)),
    "CLIPTextEncode": Kind({"text": "STRING", "clip": "CLIP"}, {"CONDITIONING": "CONDITIONING"}, (320, 110)),
    "Pix2PixZeroEditDirection": Kind(
        {"clip": "CLIP", "edit": "COMBO", "source": "STRING", "target": "STRING", "sentences": "INT"},
        {"direction": "PIX2PIX_ZERO_DIRECTION"},
        (320, 220),
    ),
    "Pix2PixZeroApplyEditDirection": Kind(
        {"source": "CONDITIONING", "direction": "PIX2PIX_ZERO_DIRECTION", "clip": "CLIP", "strength": "FLOAT"},
        {"target": "CONDITIONING"},
        (320, 98),
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
        },
        {
            "inversion": "PIX2PIX_ZERO_INVERSION",
            "noise": "LATENT",
            "reconstruction": "LATENT",
            "reconstruction_db": "FLOAT",
        },
        (340, 226),
        optional=("sigmas",),
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
        },
        {"edited": "LATENT", "reference": "LATENT"},
        (340, 250),
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
    "SaveImage": Kind({"images": "IMAGE", "filename_prefix": "STRING"}, {}, (300, 270)),
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
    """One node of a graph: its class, every input (a value or a link) and what is written on it."""

    kind: str
    inputs: Mapping[str, Any]
    title: str = ""
    models: tuple[ModelFile, ...] = ()


@dataclass(frozen=True)
class Graph:
    """A workflow.

    Attributes:
        nodes: id -> node, every node after those it takes from.
        groups: title -> columns of node ids; groups and their columns stand from left to right.
        note: Markdown beside the graph.
    """

    nodes: Mapping[int, Node]
    groups: Mapping[str, tuple[tuple[int, ...], ...]]
    note: str


# ------------------------------------------------------------------------------------------------------------- graphs


def edit_graph(checkpoint: Node, side: int, blip: str, edit: str, note: str) -> Graph:
    """One picture, edited along a direction; source, reconstruction and result are saved, and all side by side.

    Args:
        checkpoint: the loader.
        side: width and height that the model was trained on, pixels.
        blip: a folder in models/blip.
        edit: a named edit.
        note: Markdown beside the graph.
    """
    model, clip, vae = (Link(1, output) for output in range(3))
    picture, caption, source = Link(3, 0), Link(5, 0), Link(7, 0)
    stitch = {"direction": "right", "match_image_size": True, "spacing_width": 8, "spacing_color": "white"}
    nodes = {
        1: checkpoint,
        2: Node("LoadImage", {"image": "cat.png"}, "picture"),
        3: Node(
            "ImageScale",
            {"image": Link(2, 0), "upscale_method": "lanczos", "width": side, "height": side, "crop": "center"},
            "to the model's size",
        ),
        4: Node("VAEEncode", {"pixels": picture, "vae": vae}),
        5: Node(
            "Pix2PixZeroBLIPCaption",
            {"image": picture, "model": blip, "prefix": "", "max_tokens": 40, "beams": 3},
            "BLIP Caption",
        ),
        6: Node("PreviewAny", {"source": caption}, "caption"),
        7: Node("CLIPTextEncode", {"text": caption, "clip": clip}, "source text"),
        8: Node(
            "Pix2PixZeroEditDirection",
            {"clip": clip, "edit": edit, "source": "", "target": "", "sentences": 200},
            "Edit Direction",
        ),
        9: Node(
            "Pix2PixZeroApplyEditDirection",
            {"source": source, "direction": Link(8, 0), "clip": clip, "strength": 1.0},
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
            },
            "Regularized DDIM Invert",
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
            },
            "Cross-Attention Guided Sampler",
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
    groups = {
        "Picture": ((1, 2, 3, 4),),
        "Caption": ((5, 6, 7),),
        "Edit direction": ((8, 9),),
        "Invert": ((10,),),
        "Edit": ((11,),),
        "Result": ((12, 13, 17, 18), (14, 15), (16, 19)),
    }
    return Graph(nodes, groups, note)


KNOBS = """\
## What to turn
- **Edit Direction, edit**: what becomes what. `custom` takes your own words or sentences.
- **target text, strength**: how far to go along the direction. 1 is the whole edit.
- **Sampler, guidance**: how strongly the layout is held. Structure lost: raise it. Edit too weak: lower it.
- **Sampler, cfg**: how strongly the new text is followed.
- **Invert, steps**: more is more exact, and slower.

Look at **reconstruction** first: what is wrong there is lost before the edit begins. If it is off, lower **kl** and
**regularization**.
"""

TINY_ZOO_NOTE = f"""\
# Edit a picture without a prompt
BLIP says what the picture shows; the picture is traced back to its noise; a direction turns the caption from cat to
dog; the sampler draws the new text while its attention stays where it was in the original.

Everything here is **Tiny Zoo**, the miniature that comes with the pack: nothing to download. It knows only its own
drawn animals. Its cat is `demo/cat.png` in the pack's folder: drag it onto **picture**.

{KNOBS}"""

SD15_NOTE = f"""\
# Edit a picture without a prompt, with Stable Diffusion 1.5
Two models are needed:
- **checkpoint**: `v1-5-pruned-emaonly-fp16.safetensors`, or any other of the 1.x family, in `models/checkpoints`.
- **caption**: the files of `Salesforce/blip-image-captioning-base` from Hugging Face (config.json,
  preprocessor_config.json, tokenizer.json or vocab.txt, model.safetensors or pytorch_model.bin) in
  `models/blip/blip-image-captioning-base`. Then reload the page.

Choose a photo of a cat at **picture**, or another **edit** for another picture.

{KNOBS}"""

GRAPHS = {
    "tiny_zoo_edit": edit_graph(
        Node("CheckpointLoaderSimple", {"ckpt_name": "tiny_zoo.safetensors"}, "Load Tiny Zoo"),
        side=128,
        blip="tiny_zoo",
        edit="tiny_zoo/cat2dog",
        note=TINY_ZOO_NOTE,
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
        note=SD15_NOTE,
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
    positions, groups = lay_out(graph)
    links = list_links(graph)
    note_id = max(graph.nodes) + 1
    nodes = [ui_node(number, graph, links, positions[number], order) for order, number in enumerate(graph.nodes)]
    note = {
        "id": note_id,
        "type": "MarkdownNote",
        "pos": [-460, 0],
        "size": [400, 560],
        "flags": {},
        "order": len(nodes),
        "mode": 0,
        "inputs": [],
        "outputs": [],
        "title": "How to use it",
        "properties": {},
        "widgets_values": [graph.note],
        "color": "#432",
        "bgcolor": "#653",
    }
    return {
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{PACK}/{name}")),
        "revision": 0,
        "last_node_id": note_id,
        "last_link_id": len(links),
        "nodes": [*nodes, note],
        "links": links,
        "groups": groups,
        "config": {},
        "extra": {"ds": {"scale": 0.5, "offset": [500, 150]}},
        "version": 0.4,
    }


def ui_node(number: int, graph: Graph, links: list[list[Any]], position: list[int], order: int) -> dict[str, Any]:
    """One node in the UI format; links as `list_links` gives them."""
    node = graph.nodes[number]
    kind = KINDS[node.kind]
    arriving = {slot: link for link, _, _, target, slot, _ in links if target == number}
    inputs: list[dict[str, Any]] = []
    for slot, (name, type_) in enumerate(input_slots(kind).items()):
        widget = {"widget": {"name": name}} if type_ in WIDGET_TYPES else {}
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
        },
        "widgets_values": widget_values(node),
    }


def input_slots(kind: Kind) -> dict[str, str]:
    """Name -> type of every input in the order of the drawn node: sockets, then widgets."""
    types = {**kind.inputs, **{name: type_ for name, (type_, _) in kind.browser.items()}}
    return dict(sorted(types.items(), key=lambda item: item[1] in WIDGET_TYPES))


def widget_values(node: Node) -> list[Any]:
    """Values of a node's widgets in the order of its schema; a widget with a link holds an empty text."""
    kind = KINDS[node.kind]
    values = [node.inputs[name] for name, type_ in kind.inputs.items() if type_ in WIDGET_TYPES]
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


def lay_out(graph: Graph) -> tuple[dict[int, list[int]], list[dict[str, Any]]]:
    """Stack the nodes of each column, columns and groups from left to right: positions by node id, and the groups."""
    positions: dict[int, list[int]] = {}
    groups: list[dict[str, Any]] = []
    x = 0
    for number, (title, columns) in enumerate(graph.groups.items(), 1):
        left, bottom = x, 0
        for column in columns:
            y = 0
            for node in column:
                positions[node] = [x, y]
                y += KINDS[graph.nodes[node].kind].size[1] + TITLE_BAR + GAP
            x += max(KINDS[graph.nodes[node].kind].size[0] for node in column) + GAP
            bottom = max(bottom, y - TITLE_BAR - GAP)
        top = -2 * TITLE_BAR - MARGIN  # above the nodes' title bars, the group's own
        box = [left - MARGIN, top, x - GAP - left + 2 * MARGIN, bottom - top + MARGIN]
        groups.append({"id": number, "title": title, "bounding": box, "color": "#3f789e", "font_size": 24, "flags": {}})
        x += GAP + MARGIN
    return positions, groups


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
