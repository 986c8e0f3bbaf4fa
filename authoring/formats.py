"""A graph as ComfyUI reads it: in the UI format, in the API format, and as a subgraph blueprint."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import Any

from launcher.pins import COMFYUI_VERSION
from launcher.runtime import PACK, ROOT

from .graph import Graph, Link, Node, Note
from .kinds import Extra, Kind, Socket, Widget

TITLE_BAR, GAP, MARGIN = 30, 30, 20  # pixels of the canvas; a node's position is that of its body, below the title bar
CORNER = (80, 150)  # pixels of the window that sidebar, tabs and menus cover
ALIASES = ("edit image", "image editing", "replace object", "cat to dog")  # words that find a blueprint
SLOT = 20  # height of an input of a subgraph, drawn at its edge

UILink = tuple[int, int, int, int, int, str]
"""Id, origin and its output, target and its input, type."""

Place = list[int]
"""Left and top."""


def api_format(graph: Graph, path: str = "", given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What POST /prompt takes: node id -> class, inputs, title. The nodes of a subgraph stand in place of its own.

    Args:
        graph: what is queued.
        path: of a subgraph: what its ids begin with, "3:".
        given: of a subgraph: name of an input -> what it is given.
    """

    def resolve(value: Any) -> Any:
        if not isinstance(value, Link):
            return value
        if value.node == Graph.INPUT:
            return (given or {})[list(graph.inputs)[value.output]]
        number, output, inside = f"{path}{value.node}", value.output, graph.nodes[value.node].inside
        if inside is not None:
            link = list(inside.outputs.values())[output]
            number, output = f"{number}:{link.node}", link.output
        return [number, output]

    prompt: dict[str, Any] = {}
    for number, node in graph.nodes.items():
        inputs = {name: resolve(value) for name, value in node.inputs.items()}
        if node.inside is None:
            title = {"title": node.title or node.kind}
            prompt[f"{path}{number}"] = {"class_type": node.kind, "inputs": inputs, "_meta": title}
        else:
            prompt |= api_format(node.inside, f"{path}{number}:", inputs)
    return prompt


def ui_format(graph: Graph) -> dict[str, Any]:
    """What the browser opens and saves, version 0.4 of the schema."""
    links, (places, groups) = list_links(graph), lay_out(graph)
    nodes = ui_nodes(graph, links, places)
    corner = [min(place[i] for place in places.values()) for i in (0, 1)]
    offset = [edge / graph.zoom - start for edge, start in zip(CORNER, corner, strict=True)]
    inside = {node.kind: node.inside for node in graph.nodes.values() if node.inside is not None}
    # No id: the front end gives every copy that is opened one of its own.
    return {
        "revision": 0,
        "last_node_id": len(nodes),
        "last_link_id": len(links),
        "nodes": nodes,
        "links": links,
        "groups": groups,
        **({"definitions": {"subgraphs": [subgraph(part, name) for name, part in inside.items()]}} if inside else {}),
        "config": {},
        "extra": {"ds": {"scale": graph.zoom, "offset": [round(value) for value in offset]}},
        "version": 0.4,
    }


def blueprint(graph: Graph, name: str) -> dict[str, Any]:
    """What `subgraphs/` holds: a workflow of one node, and the graph inside it."""
    inside = subgraph(graph, name)
    node = ui_node(graph, Node(1, name, graph.schema(), {}, name, inside=graph), [], [0, 0], 0)
    return {
        "id": identify(name),
        "revision": 0,
        "last_node_id": 1,
        "last_link_id": 0,
        "nodes": [node],
        "links": [],
        "groups": [],
        "definitions": {"subgraphs": [inside]},
        "config": {},
        "extra": {"BlueprintDescription": graph.help, "BlueprintSearchAliases": list(ALIASES)},
        "version": 0.4,
    }


def subgraph(graph: Graph, name: str) -> dict[str, Any]:
    """The inside of a blueprint: a graph between its inputs, drawn at the left edge, and its outputs at the right."""
    links, (places, groups) = list_links(graph), lay_out(graph)
    nodes = ui_nodes(graph, links, places)
    right = max(group["bounding"][0] + group["bounding"][2] for group in groups)

    def slot(name_: str, type_: str, left: int, index: int, ends: list[int]) -> dict[str, Any]:
        place = [left, SLOT * (index + 1)]
        return {"id": identify(f"{name}/{name_}"), "name": name_, "type": type_, "linkIds": ends, "pos": place}

    inputs = [
        slot(entry, type_, -60, index, [link for link, *start, _, _, _ in links if start == [Graph.INPUT, index]])
        for index, (entry, type_) in enumerate(graph.inputs.items())
    ]
    outputs = [
        slot(
            entry, out.type, right + 60, index, [link for link, _, _, *end, _ in links if end == [Graph.OUTPUT, index]]
        )
        for index, (entry, out) in enumerate(graph.outputs.items())
    ]
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    return {
        "id": identify(f"{name}/inside"),
        "version": 1,
        "state": {"lastGroupId": len(groups), "lastNodeId": len(nodes), "lastLinkId": len(links), "lastRerouteId": 0},
        "revision": 0,
        "config": {},
        "name": name,
        "inputNode": {"id": Graph.INPUT, "bounding": [-160, 0, 120, SLOT * (len(inputs) + 2)]},
        "outputNode": {"id": Graph.OUTPUT, "bounding": [right + 40, 0, 120, SLOT * (len(outputs) + 2)]},
        "inputs": inputs,
        "outputs": outputs,
        "widgets": [],
        "nodes": nodes,
        "groups": groups,
        "links": [dict(zip(keys, link, strict=True)) for link in links],
        "extra": {},
    }


def ui_nodes(graph: Graph, links: list[UILink], places: Mapping[Node | Note, Place]) -> list[dict[str, Any]]:
    """Every node of a graph, then every note."""
    nodes = [ui_node(graph, node, links, places[node], order) for order, node in enumerate(graph.nodes.values())]
    for note, place in places.items():
        if isinstance(note, Note):
            nodes.append(ui_note(len(nodes) + 1, note, place))
    return nodes


def ui_node(graph: Graph, node: Node, links: list[UILink], place: Place, order: int) -> dict[str, Any]:
    """One node in the UI format."""
    kind = node.schema
    arriving = {slot: link for link, _, _, target, slot, _ in links if target == node.number}
    inputs: list[dict[str, Any]] = []
    for slot, (name, entry) in enumerate(drawn(kind).items()):
        widget = {} if isinstance(entry, Socket) else {"widget": {"name": name}}
        hollow = {"shape": 7} if not isinstance(entry, Extra) and entry.optional else {}
        inputs.append({"name": name, **hollow, "type": entry.type, **widget, "link": arriving.get(slot)})
    outputs = [
        {
            "name": name,
            "type": type_,
            "links": [link for link, origin, output, *_ in links if (origin, output) == (node.number, slot)] or None,
        }
        for slot, (name, type_) in enumerate(kind.outputs.items())
    ]
    return {
        "id": node.number,
        "type": node.kind if node.inside is None else identify(f"{node.kind}/inside"),
        "pos": place,
        "size": [node.width, kind.height],
        "flags": {},
        "order": order,
        "mode": 0,
        "inputs": inputs,
        "outputs": outputs,
        **({"title": node.title} if node.title else {}),
        "properties": {} if node.inside else properties(node),
        "widgets_values": [] if node.inside else widget_values(graph, node),
    }


def properties(node: Node) -> dict[str, Any]:
    """What a node of a class carries: where that is from, and what it needs."""
    ours = node.kind.startswith("Pix2PixZero")
    return {
        "Node name for S&R": node.kind,
        "cnr_id": PACK if ours else "comfy-core",
        "ver": pack_version() if ours else COMFYUI_VERSION,
        **({"models": [model._asdict() for model in node.models]} if node.models else {}),
        **({f"{PACK} example": node.example} if node.example else {}),
    }


def ui_note(number: int, note: Note, place: Place) -> dict[str, Any]:
    """One note in the UI format."""
    return {
        "id": number,
        "type": "MarkdownNote",
        "pos": place,
        "size": list(note.size),
        "flags": {},
        "order": number - 1,
        "mode": 0,
        "inputs": [],
        "outputs": [],
        "title": note.title,
        "properties": {},
        "widgets_values": [note.text],
        "color": "#432",
        "bgcolor": "#653",
    }


def drawn(kind: Kind) -> dict[str, Socket | Widget | Extra]:
    """Every input that has a socket, in the order of the drawn node: plain sockets, then those of widgets."""
    entries = {name: entry for name, entry in kind.inputs.items() if entry.type}
    return dict(sorted(entries.items(), key=lambda item: not isinstance(item[1], Socket)))


def widget_values(graph: Graph, node: Node) -> list[Any]:
    """Values of a node's widgets in the order of its schema."""
    return [graph.held(node, name) for name, entry in node.schema.inputs.items() if not isinstance(entry, Socket)]


def list_links(graph: Graph) -> list[UILink]:
    """Every link, those to the outputs of a subgraph last."""
    links: list[UILink] = []
    for node in graph.nodes.values():
        for slot, name in enumerate(drawn(node.schema)):
            value = node.inputs.get(name)
            if isinstance(value, Link):
                links.append((len(links) + 1, value.node, value.output, node.number, slot, value.type))
    for slot, link in enumerate(graph.outputs.values()):
        links.append((len(links) + 1, link.node, link.output, Graph.OUTPUT, slot, link.type))
    return links


def lay_out(graph: Graph) -> tuple[dict[Node | Note, Place], list[dict[str, Any]]]:
    """Place everything: left and top of nodes and notes, and the groups."""
    above = 2 * TITLE_BAR + MARGIN  # of a group's first node: the group's title, then the node's
    places: dict[Node | Note, Place] = {graph.note: [0, 0]}
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
                    y += entry.size[1] + GAP + TITLE_BAR
                bottom = max(bottom, y - GAP - TITLE_BAR)
                left += max(entry.size[0] for entry in column) + GAP
            right = max(right, left - GAP)
            box = [x - MARGIN, top - above, right - x + 2 * MARGIN, bottom - top + above + MARGIN]
            group = {"title": title, "bounding": box, "color": "#3f789e", "font_size": 24, "flags": {}}
            groups.append({"id": len(groups) + 1, **group})
            top = bottom + MARGIN + GAP + above
        x = right + GAP + 2 * MARGIN
    return places, groups


def identify(name: str) -> str:
    """The same UUID for the same name."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{PACK}/{name}"))


def pack_version() -> str:
    """The pack's version, from pyproject.toml."""
    return re.findall(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)[0]
