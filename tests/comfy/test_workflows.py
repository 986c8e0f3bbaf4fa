"""The shipped graphs: what a browser opens, checked against the nodes of a live server."""

from __future__ import annotations

import itertools
import json
import urllib.parse
from collections.abc import Iterator
from typing import Any

import pytest

import run
from workflows import compose

NAMES = sorted(path.stem for path in compose.UI_FOLDER.glob("*.json"))
FRONTEND_NODES = {"MarkdownNote"}  # drawn by the browser, unknown to the server

# Combos that list the files of one machine: any name may be right on another.
FILE_LISTS = {
    ("CheckpointLoaderSimple", "ckpt_name"),
    ("LoadImage", "image"),
    ("Pix2PixZeroBLIPCaption", "model"),
}
NUMBERS = {"INT": int, "FLOAT": (int, float)}

Widget = tuple[str, Any, dict[str, Any]]
"""Name, type (a list for a combo) and options of a widget."""


def read(name: str) -> dict[str, Any]:
    return json.loads((compose.UI_FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def server_nodes(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [node for node in workflow["nodes"] if node["type"] not in FRONTEND_NODES]


def declared_inputs(schema: dict[str, Any]) -> Iterator[Widget]:
    """Every input of a node: required ones first, each in the order of the schema."""
    for part, names in schema["input_order"].items():
        if part != "hidden":
            for name in names:
                type_, options = (*schema["input"][part][name], {})[:2]
                yield name, options["options"] if type_ == "COMBO" else type_, options


def declared_widgets(schema: dict[str, Any]) -> Iterator[Widget]:
    """The inputs that the frontend draws as widgets, and those that it adds to them."""
    for name, type_, options in declared_inputs(schema):
        if options.get("forceInput") or not (isinstance(type_, list) or type_ in compose.WIDGET_TYPES):
            continue
        yield name, type_, options
        if options.get("control_after_generate"):
            yield "control_after_generate", ["fixed", "increment", "decrement", "randomize"], {}
        if options.get("image_upload"):
            yield "upload", ["image"], {}


def fits(value: Any, type_: Any, options: dict[str, Any]) -> bool:
    """Whether a value could have been entered in a widget."""
    if isinstance(type_, list):
        return value in type_
    if type_ in NUMBERS:
        right = isinstance(value, NUMBERS[type_]) and not isinstance(value, bool)
        return right and options["min"] <= value <= options["max"]
    return isinstance(value, {"BOOLEAN": bool, "STRING": str}[type_])


def test_there_are_workflows():
    assert {"tiny_zoo_edit", "sd15_edit"} <= set(NAMES)


def test_the_files_are_what_compose_writes():
    composed = compose.compose()
    found = [*compose.UI_FOLDER.glob("*.json"), *compose.API_FOLDER.glob("*.json")]
    assert set(found) == set(composed)
    changed = [path.name for path, text in composed.items() if path.read_text(encoding="utf-8") != text]
    assert not changed, "run `python -m workflows.compose`"


@pytest.mark.parametrize("name", NAMES)
def test_every_node_exists_and_comes_from_where_the_file_says(name: str, object_info: dict[str, Any]):
    for node in server_nodes(read(name)):
        module = object_info[node["type"]]["python_module"]
        expected = run.PACK if module == f"custom_nodes.{run.PACK}" else "comfy-core"
        assert node["properties"]["cnr_id"] == expected
        assert node["properties"]["Node name for S&R"] == node["type"]


@pytest.mark.parametrize("name", NAMES)
def test_widget_values_fit_the_widgets(name: str, object_info: dict[str, Any]):
    for node in server_nodes(read(name)):
        widgets = list(declared_widgets(object_info[node["type"]]))
        assert len(node["widgets_values"]) == len(widgets), node["type"]
        drawn = [entry["widget"]["name"] for entry in node["inputs"] if "widget" in entry]
        assert drawn == [widget for widget, _, _ in widgets], node["type"]
        for value, (widget, type_, options) in zip(node["widgets_values"], widgets, strict=True):
            if (node["type"], widget) in FILE_LISTS:
                assert isinstance(value, str) and value
            else:
                assert fits(value, type_, options), f"{node['type']}: {widget} is {value!r}"


@pytest.mark.parametrize("name", NAMES)
def test_sockets_are_those_of_the_server(name: str, object_info: dict[str, Any]):
    for node in server_nodes(read(name)):
        schema = object_info[node["type"]]
        widgets = {widget for widget, _, _ in declared_widgets(schema)}
        sockets = [(socket, type_) for socket, type_, _ in declared_inputs(schema) if socket not in widgets]
        assert [(entry["name"], entry["type"]) for entry in node["inputs"] if "widget" not in entry] == sockets
        required = {socket for socket in schema["input_order"]["required"] if socket not in widgets}
        assert required <= {entry["name"] for entry in node["inputs"] if entry["link"] is not None}, node["type"]
        outputs = list(zip(schema["output_name"], schema["output"], strict=True))
        assert [(entry["name"], entry["type"]) for entry in node["outputs"]] == outputs


@pytest.mark.parametrize("name", NAMES)
def test_every_link_joins_existing_sockets_of_one_type(name: str):
    workflow = read(name)
    nodes = {node["id"]: node for node in workflow["nodes"]}
    assert len(nodes) == len(workflow["nodes"])
    assert max(nodes) == workflow["last_node_id"]
    assert [link for link, *_ in workflow["links"]] == list(range(1, workflow["last_link_id"] + 1))
    for link, origin, output, target, slot, type_ in workflow["links"]:
        start, end = nodes[origin]["outputs"][output], nodes[target]["inputs"][slot]
        assert link in start["links"] and link == end["link"]
        assert start["type"] == type_ and end["type"] in (type_, "*")
        assert nodes[origin]["order"] < nodes[target]["order"]
    ends = [entry["link"] for node in nodes.values() for entry in node["inputs"] if entry["link"] is not None]
    starts = [link for node in nodes.values() for entry in node["outputs"] for link in entry["links"] or ()]
    assert sorted(ends) == sorted(starts) == list(range(1, workflow["last_link_id"] + 1))


@pytest.mark.parametrize("name", NAMES)
def test_the_browser_would_queue_the_api_twin(name: str, object_info: dict[str, Any]):
    """Widgets take their values by position, as the frontend reads them, and links override widgets."""
    workflow = read(name)
    origins = {link: [str(origin), output] for link, origin, output, *_ in workflow["links"]}
    queued: dict[str, Any] = {}
    for node in server_nodes(workflow):
        declared = list(declared_inputs(object_info[node["type"]]))
        widgets = [widget for widget, _, _ in declared_widgets(object_info[node["type"]])]
        values = dict(zip(widgets, node["widgets_values"], strict=True))
        values |= {entry["name"]: origins[entry["link"]] for entry in node["inputs"] if entry["link"] is not None}
        inputs = {entry: values[entry] for entry, _, _ in declared if entry in values}
        queued[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    twin = json.loads((compose.API_FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    assert queued == {number: {key: node[key] for key in ("class_type", "inputs")} for number, node in twin.items()}


@pytest.mark.parametrize("name", NAMES)
def test_no_two_nodes_overlap_and_groups_hold_theirs(name: str):
    workflow = read(name)
    boxes = {node["id"]: (*node["pos"], *node["size"]) for node in workflow["nodes"]}
    title = compose.TITLE_BAR

    def overlap(a: Any, b: Any) -> bool:
        return all(a[i] < b[i] + b[i + 2] and b[i] < a[i] + a[i + 2] for i in (0, 1))

    whole = {number: (x, y - title, width, height + title) for number, (x, y, width, height) in boxes.items()}
    assert not [pair for pair in itertools.combinations(whole, 2) if overlap(*(whole[number] for number in pair))]
    bounds = [group["bounding"] for group in workflow["groups"]]
    assert not [pair for pair in itertools.combinations(bounds, 2) if overlap(*pair)]
    for node in server_nodes(workflow):
        x, y, width, height = whole[node["id"]]
        inside = [
            left <= x and top <= y and x + width <= left + across and y + height <= top + down
            for left, top, across, down in bounds
        ]
        assert inside.count(True) == 1, node["type"]


@pytest.mark.parametrize("name", NAMES)
def test_comfyui_offers_the_workflow_as_a_template(name: str, server: run.Server):
    assert name in server.get("/workflow_templates")[run.PACK]
    assert server.get(f"/api/workflow_templates/{urllib.parse.quote(run.PACK)}/{name}.json") == read(name)


def test_only_workflows_are_offered_as_templates(server: run.Server):
    assert sorted(server.get("/workflow_templates")[run.PACK]) == NAMES
