"""The shipped graphs and blueprints: checked against the nodes of a live server, and run."""

from __future__ import annotations

import inspect
import io
import itertools
import json
import os
import shutil
import urllib.error
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
from PIL import Image

from authoring import formats, graphs, kinds, workflows
from launcher.comfyui import make_base
from launcher.processes import quiet_cpu
from launcher.runtime import EXAMPLES, PACK, ROOT, Runtime
from launcher.server import Server, comfyui_server
from launcher.workflow import Workflow, node_inputs
from tests.comfy.conftest import RANDOM_EDIT, random_zoo, require_nodes

GRAPHS = sorted(path.stem for path in workflows.UI_FOLDER.glob("*.json"))
BLUEPRINTS = sorted(path.stem for path in workflows.BLUEPRINT_FOLDER.glob("*.json"))
FRONTEND_NODES = {"MarkdownNote"}  # drawn by the browser, unknown to the server

# Combos that list the files of one machine: any name may be right on another.
FILE_LISTS = {
    ("CheckpointLoaderSimple", "ckpt_name"),
    ("UNETLoader", "unet_name"),
    ("CLIPLoader", "clip_name"),
    ("DualCLIPLoader", "clip_name1"),
    ("DualCLIPLoader", "clip_name2"),
    ("VAELoader", "vae_name"),
    ("LoadImage", "image"),
    ("LoadImageDataSetFromFolder", "folder"),
    ("Pix2PixZeroBLIPCaption", "model"),
    ("Pix2PixZeroJudgeEdit", "model"),
    ("Pix2PixZeroLoadDistilledEdit", "file"),
}
LARGE = ("sd35_edit", "flux_edit", "anima_edit", "z_image_edit", "qwen_image_base_edit")
"""Workflows of models of billions of weights; small ones of their families stand in for them."""
SMALL_MODELS = f"""\
import sys
import types

sys.modules["tests"] = types.ModuleType("tests")  # ComfyUI has a package of this name
sys.modules["tests"].__path__ = [{str(ROOT / "tests")!r}]

from tests.comfy import small_models

small_models.register()
NODE_CLASS_MAPPINGS = {{}}
"""
"""A custom node for the server that has them."""
NUMBERS = {"INT": int, "FLOAT": (int, float)}
EXAMPLE = f"{PACK} example"
SEED_CONTROL = "control_after_generate"
QUICK = {
    ("ImageScale", "width"): 64,
    ("ImageScale", "height"): 64,
    ("EmptyLatentImage", "width"): 64,
    ("EmptyLatentImage", "height"): 64,
    ("KSampler", "steps"): 2,
    ("BasicScheduler", "steps"): 2,
    ("Pix2PixZeroRegularizedDDIMInvert", "steps"): 2,
    ("Pix2PixZeroAttentionMaps", "moments"): 2,
    ("Pix2PixZeroFitPicture", "side"): 64,
    ("Pix2PixZeroLoadDistilledEdit", "file"): RANDOM_EDIT,
}
"""What is replaced so that a test is over soon: (class, input) -> value."""
FEW_SENTENCES = {
    ("Pix2PixZeroEditDirection", "edit"): "custom",
    ("Pix2PixZeroEditDirection", "source"): "cat",
    ("Pix2PixZeroEditDirection", "target"): "dog",
    ("Pix2PixZeroEditDirection", "sentences"): 4,
}
"""The same for the slow text encoders of large models."""

Widget = tuple[str, Any, dict[str, Any]]
"""Name, type (a list for a combo) and options of a widget."""


def read(name: str) -> dict[str, Any]:
    return json.loads((workflows.UI_FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def read_twin(name: str) -> Workflow:
    return json.loads((workflows.API_FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def read_subgraph(name: str) -> dict[str, Any]:
    """What is inside a blueprint, with links as those of a workflow."""
    text = (workflows.BLUEPRINT_FOLDER / f"{name}.json").read_text(encoding="ascii")
    (inside,) = json.loads(text)["definitions"]["subgraphs"]
    return with_rows(inside)


def server_nodes(canvas: dict[str, Any]) -> list[dict[str, Any]]:
    """The nodes that the server knows: no notes, and none that stand for a subgraph."""
    return [node for node in canvas["nodes"] if node["type"] not in FRONTEND_NODES | set(subgraphs(canvas))]


def subgraphs(canvas: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What is inside the nodes that stand for a subgraph, by their type."""
    return {inside["id"]: with_rows(inside) for inside in canvas.get("definitions", {}).get("subgraphs", ())}


def with_rows(inside: dict[str, Any]) -> dict[str, Any]:
    """The inside of a subgraph, with links as those of a workflow."""
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    return {**inside, "links": [[link[key] for key in keys] for link in inside["links"]]}


def require_stock_nodes(canvas: dict[str, Any], server: Server, object_info: dict[str, Any]) -> None:
    """Skip on a ComfyUI that lacks a stock node of a workflow."""
    require_nodes({node["type"] for node in server_nodes(canvas)} - set(kinds.OURS), server, object_info)


def require_network(workflow: dict[str, Any]) -> None:
    """Skip on a ComfyUI that does not know the kind of network that a workflow loads from a file of its own."""
    import comfy.supported_models

    from tests.comfy import small_models, transformers

    for node in workflow.values():
        if node["class_type"] == "UNETLoader":
            family, _ = small_models.NETWORKS[Path(node["inputs"]["unet_name"]).stem]
            if not hasattr(comfy.supported_models, transformers.MODELS[family].config):
                pytest.skip(f"this ComfyUI does not have {family}")


@pytest.fixture(params=[*GRAPHS, *BLUEPRINTS])
def canvas(request: pytest.FixtureRequest, server: Server, object_info: dict[str, Any]) -> dict[str, Any]:
    """A graph as it is saved, or the inside of a blueprint."""
    canvas = (read if request.param in GRAPHS else read_subgraph)(request.param)
    require_stock_nodes(canvas, server, object_info)
    return canvas


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
        if options.get("forceInput") or not (isinstance(type_, list) or type_ in kinds.WIDGET_TYPES):
            continue
        yield name, type_, options
        if options.get("control_after_generate"):
            yield SEED_CONTROL, ["fixed", "increment", "decrement", "randomize"], {}
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


def queued(
    canvas: dict[str, Any], object_info: dict[str, Any], given: Mapping[int, Any] | None = None, path: str = ""
) -> Workflow:
    """What the frontend would queue: widgets take their values by position, and links override widgets.

    Args:
        canvas: as saved.
        object_info: the server's nodes.
        given: of a subgraph, place of an input -> what the node is given there; other inputs are left as they are.
        path: of a subgraph: what the ids begin with.
    """
    inside = {
        node["id"]: subgraphs(canvas)[node["type"]] for node in canvas["nodes"] if node["type"] in subgraphs(canvas)
    }

    def resolve(origin: int, output: int) -> Any:
        if origin == formats.Graph.INPUT:
            return (given or {}).get(output)
        if origin not in inside:
            return [f"{path}{origin}", output]
        (end,) = inside[origin]["outputs"][output]["linkIds"]
        (link,) = (link for link in inside[origin]["links"] if link[0] == end)
        return [f"{path}{origin}:{link[1]}", link[2]]

    origins = {link: resolve(origin, output) for link, origin, output, *_ in canvas["links"]}
    workflow: Workflow = {}
    for node in canvas["nodes"]:
        if node["id"] in inside:
            linked = {i: origins[entry["link"]] for i, entry in enumerate(node["inputs"]) if entry["link"] is not None}
            workflow |= queued(inside[node["id"]], object_info, linked, f"{path}{node['id']}:")
    for node in server_nodes(canvas):
        declared = list(declared_inputs(object_info[node["type"]]))
        widgets = [widget for widget, _, _ in declared_widgets(object_info[node["type"]])]
        values = dict(zip(widgets, node["widgets_values"], strict=True))
        linked = {entry["name"]: origins[entry["link"]] for entry in node["inputs"] if entry["link"] is not None}
        values |= {entry: value for entry, value in linked.items() if value is not None}
        inputs = {entry: values[entry] for entry, _, _ in declared if entry in values}
        workflow[f"{path}{node['id']}"] = {"class_type": node["type"], "inputs": inputs}
    return workflow


# ------------------------------------------------------------------------------------------------------------- files


def test_the_files_are_what_compose_writes():
    composed = workflows.compose()
    folders = (workflows.UI_FOLDER, workflows.API_FOLDER, workflows.BLUEPRINT_FOLDER)
    assert {path for folder in folders for path in folder.glob("*.json")} == set(composed)
    changed = [path.name for path, text in composed.items() if path.read_text(encoding="utf-8") != text]
    assert not changed, "run `python -m authoring.workflows`"


@pytest.mark.parametrize("name", GRAPHS)
def test_every_workflow_has_a_square_thumbnail_and_a_line_in_the_readme(name: str):
    with Image.open(workflows.UI_FOLDER / f"{name}.jpg") as thumbnail:
        assert thumbnail.width == thumbnail.height >= 256
    assert f"| `{name}` |" in (workflows.UI_FOLDER / "README.md").read_text(encoding="utf-8")


def test_a_graph_refuses_inputs_that_a_class_has_not():
    graph = graphs.Graph(graphs.notes.CAPTION)
    loader = graph.add("CheckpointLoaderSimple", ckpt_name="model.safetensors")
    with pytest.raises(ValueError, match=r"VAEDecode has no, or needs a link at: latent, samples"):
        graph.add("VAEDecode", latent=loader["MODEL"], vae=loader["VAE"])


def test_no_input_is_taken_for_an_argument_of_add():
    parameters = inspect.signature(graphs.Graph.add).parameters.values()
    own = {parameter.name for parameter in parameters if parameter.kind == parameter.KEYWORD_ONLY}
    assert own and not own & {name for kind in kinds.KINDS.values() for name in kind.inputs}


# ------------------------------------------------------------------------------------------------------------- nodes


def test_every_node_exists_and_comes_from_where_the_file_says(canvas: dict[str, Any], object_info: dict[str, Any]):
    for node in server_nodes(canvas):
        module = object_info[node["type"]]["python_module"]
        expected = PACK if module == f"custom_nodes.{PACK}" else "comfy-core"
        assert node["properties"]["cnr_id"] == expected
        assert node["properties"]["Node name for S&R"] == node["type"]


def test_widget_values_fit_the_widgets(canvas: dict[str, Any], object_info: dict[str, Any]):
    for node in server_nodes(canvas):
        widgets = list(declared_widgets(object_info[node["type"]]))
        assert len(node["widgets_values"]) == len(widgets), node["type"]
        drawn = [entry["widget"]["name"] for entry in node["inputs"] if "widget" in entry]
        assert drawn == [widget for widget, _, _ in widgets if widget != SEED_CONTROL], node["type"]
        for value, (widget, type_, options) in zip(node["widgets_values"], widgets, strict=True):
            if (node["type"], widget) in FILE_LISTS:
                assert isinstance(value, str) and value
            else:
                assert fits(value, type_, options), f"{node['type']}: {widget} is {value!r}"


@pytest.mark.parametrize("kind", sorted(kinds.OURS))
def test_the_usual_values_of_our_nodes_are_their_defaults(kind: str, object_info: dict[str, Any]):
    usual = {name: entry.value for name, entry in kinds.OURS[kind].inputs.items() if isinstance(entry, kinds.Widget)}
    default = {name: options.get("default") for name, _, options in declared_widgets(object_info[kind])}
    for name in usual:
        if (kind, name) not in FILE_LISTS:
            assert usual[name] == default[name], name


def test_sockets_are_those_of_the_server(canvas: dict[str, Any], object_info: dict[str, Any]):
    for node in server_nodes(canvas):
        schema = object_info[node["type"]]
        widgets = {widget for widget, _, _ in declared_widgets(schema)}
        sockets = [(socket, type_) for socket, type_, _ in declared_inputs(schema) if socket not in widgets]
        assert [(entry["name"], entry["type"]) for entry in node["inputs"] if "widget" not in entry] == sockets
        required = {socket for socket in schema["input_order"]["required"] if socket not in widgets}
        assert required <= {entry["name"] for entry in node["inputs"] if entry["link"] is not None}, node["type"]
        outputs = list(zip(schema["output_name"], schema["output"], strict=True))
        saved = [(entry["name"], entry["type"]) for entry in node["outputs"]]
        # Later releases add outputs to stock nodes.
        assert saved == (outputs if node["type"] in kinds.OURS else outputs[: len(saved)])


def test_every_link_joins_existing_sockets_of_one_type(canvas: dict[str, Any]):
    nodes = {node["id"]: node for node in canvas["nodes"]}
    assert len(nodes) == len(canvas["nodes"])
    assert [link for link, *_ in canvas["links"]] == list(range(1, len(canvas["links"]) + 1))
    for link, origin, output, target, slot, type_ in canvas["links"]:
        if origin in nodes:
            start = nodes[origin]["outputs"][output]
            assert link in start["links"] and start["type"] == type_
        else:
            start = canvas["inputs"][output]
            assert link in start["linkIds"] and start["type"] == type_ and origin == canvas["inputNode"]["id"]
        if target in nodes:
            end = nodes[target]["inputs"][slot]
            assert link == end["link"] and end["type"] in (type_, "*")
        else:
            end = canvas["outputs"][slot]
            assert link in end["linkIds"] and end["type"] == type_ and target == canvas["outputNode"]["id"]
        if origin in nodes and target in nodes:
            assert nodes[origin]["order"] < nodes[target]["order"]
    ends = [entry["link"] for node in nodes.values() for entry in node["inputs"] if entry["link"] is not None]
    ends += [link for entry in canvas.get("outputs", ()) for link in entry["linkIds"]]
    starts = [link for node in nodes.values() for entry in node["outputs"] for link in entry["links"] or ()]
    starts += [link for entry in canvas.get("inputs", ()) for link in entry["linkIds"]]
    assert sorted(ends) == sorted(starts) == [link for link, *_ in canvas["links"]]


@pytest.mark.parametrize("name", GRAPHS)
def test_the_browser_would_queue_the_api_twin(name: str, server: Server, object_info: dict[str, Any]):
    require_stock_nodes(read(name), server, object_info)
    twin = {number: {key: node[key] for key in ("class_type", "inputs")} for number, node in read_twin(name).items()}
    assert queued(read(name), object_info) == twin


def test_no_two_nodes_overlap_and_groups_hold_theirs(canvas: dict[str, Any]):
    boxes = {node["id"]: (*node["pos"], *node["size"]) for node in canvas["nodes"]}
    title = formats.TITLE_BAR

    def overlap(a: Any, b: Any) -> bool:
        return all(a[i] < b[i] + b[i + 2] and b[i] < a[i] + a[i + 2] for i in (0, 1))

    whole = {number: (x, y - title, width, height + title) for number, (x, y, width, height) in boxes.items()}
    assert not [pair for pair in itertools.combinations(whole, 2) if overlap(*(whole[number] for number in pair))]
    bounds = [group["bounding"] for group in canvas["groups"]]
    assert not [pair for pair in itertools.combinations(bounds, 2) if overlap(*pair)]
    for node in server_nodes(canvas):
        x, y, width, height = whole[node["id"]]
        inside = [
            left <= x and top <= y and x + width <= left + across and y + height <= top + down
            for left, top, across, down in bounds
        ]
        assert inside.count(True) == 1, node["type"]


# ---------------------------------------------------------------------------------------------------- what is offered


@pytest.mark.parametrize("name", GRAPHS)
def test_comfyui_offers_the_workflow_as_a_template(name: str, server: Server):
    address = f"/api/workflow_templates/{urllib.parse.quote(PACK)}/{name}"
    assert server.get(f"{address}.json") == read(name)
    assert server.request(f"{address}.jpg") == (workflows.UI_FOLDER / f"{name}.jpg").read_bytes()


def test_only_workflows_are_offered_as_templates(server: Server):
    assert sorted(server.get("/workflow_templates")[PACK]) == GRAPHS


def test_comfyui_offers_the_blueprints(server: Server):
    try:
        offered = server.get("/global_subgraphs")
    except urllib.error.HTTPError as error:
        assert error.code == 404
        pytest.skip("this ComfyUI offers no blueprints")
    ours = {entry["name"]: key for key, entry in offered.items() if entry["info"]["node_pack"].endswith(PACK)}
    assert sorted(ours) == BLUEPRINTS
    for name, key in ours.items():
        data = server.get(f"/global_subgraphs/{key}")["data"]
        assert data == (workflows.BLUEPRINT_FOLDER / f"{name}.json").read_text(encoding="ascii")


# ------------------------------------------------------------------------------------------------------------ running


def files_of(names: tuple[str, ...]) -> dict[str, str]:
    """The files that workflows offer to download: name -> folder in `models`."""
    needed = [model for name in names for node in read(name)["nodes"] for model in node["properties"].get("models", ())]
    return {model["name"]: model["directory"] for model in needed}


@pytest.fixture(scope="module")
def family_server(tmp_path_factory: pytest.TempPathFactory, pack: Any) -> Iterator[Server]:
    """A ComfyUI with small random models under the names that the workflows ask for."""
    from tests.comfy import families, small_models

    base = tmp_path_factory.mktemp("families")
    make_base(base)
    # The same file as a custom node: the loader of that server learns the small sizes.
    source = Path(families.__file__).read_text(encoding="utf-8")
    (base / "custom_nodes" / "families.py").write_text(f"{source}\n\nregister()\nNODE_CLASS_MAPPINGS = {{}}\n")
    folder = base / "models" / "checkpoints"
    small_models.write_files(base / "models", files_of(LARGE))
    (base / "custom_nodes" / "small_models.py").write_text(SMALL_MODELS)
    for model, family in ((graphs.SD15, "SD 1"), (graphs.SDXL, "SDXL")):
        weights = safetensors.torch.load_file(families.write_checkpoint(base, family))
        autoencoder = random_zoo(0)["first_stage_model."].state_dict()
        weights |= {f"first_stage_model.{key}": tensor for key, tensor in autoencoder.items()}
        safetensors.torch.save_file(weights, folder / model.file)
    captioner = ROOT / "tiny_zoo" / "weights" / "blip" / graphs.TINY_ZOO.blip
    shutil.copytree(captioner, base / "models" / "blip" / graphs.SD15.blip)
    runtime, flags = Runtime.from_environment(os.environ), ("--cpu", "--fp32-text-enc")
    with comfyui_server(runtime, base, base / "server.log", flags=flags, environment=quiet_cpu()) as server:
        # Without it the stock loaders would make those models at their full size.
        assert f"(IMPORT FAILED): {base}" not in (base / "server.log").read_text(encoding="utf-8")
        yield server


def pictures(server: Server, outputs: Mapping[str, Any], node: str) -> list[np.ndarray]:
    """What a node has saved, each (H, W, 3)."""
    return [np.array(Image.open(io.BytesIO(server.view(image))).convert("RGB")) for image in outputs[node]["images"]]


def bring_folder(nodes: list[dict[str, Any]], base: Path) -> int:
    """Put the pictures that a workflow brings along where its front end puts them; return how many they are."""
    paths = next(example for node in nodes if isinstance(example := node["properties"].get(EXAMPLE), list))
    for path in paths:
        (base / "input" / path).parent.mkdir(exist_ok=True)
        shutil.copy(EXAMPLES / Path(path).name, base / "input" / path)
    return len(paths)


@pytest.mark.parametrize("name", GRAPHS)
def test_the_workflow_runs(request: pytest.FixtureRequest, base: Path, name: str, object_info: dict[str, Any]):
    real = name in LARGE or name.startswith(("sd15", "sdxl"))
    server: Server = request.getfixturevalue("family_server" if real else "server")
    require_stock_nodes(read(name), server, object_info)
    workflow, batch = read_twin(name), 1
    require_network(workflow)
    for number, node in workflow.items():
        if node["class_type"] == "SaveImage":
            node["inputs"]["filename_prefix"] = f"{name}/{number}"  # or ComfyUI takes it for that of another graph
        for (kind, entry), value in (QUICK | (FEW_SENTENCES if name in LARGE else {})).items():
            if node["class_type"] == kind:
                node["inputs"][entry] = value
        if node["class_type"] == "LoadImage":
            node["inputs"]["image"] = server.upload(EXAMPLES / node["inputs"]["image"])
        if node["class_type"] == "LoadImageDataSetFromFolder":
            batch = bring_folder(read(name)["nodes"], base)
    outputs = server.run(workflow)
    saved = {number: node for number, node in workflow.items() if node["class_type"] == "SaveImage"}
    assert saved
    for number, node in saved.items():
        shown = pictures(server, outputs, number)
        words = workflow[node["inputs"]["images"][0]]["class_type"] in ("Pix2PixZeroAttentionMaps", "MaskToImage")
        assert len(shown) > 1 if words else len(shown) == batch, node["_meta"]["title"]
        assert all(picture.std() > 0 for picture in shown), node["_meta"]["title"]
    titles = {node["_meta"]["title"]: number for number, node in saved.items()}
    if {"source", "edited"} <= set(titles):
        (source,), (edited,) = (pictures(server, outputs, titles[title]) for title in ("source", "edited"))
        assert source.shape == edited.shape and not np.array_equal(source, edited)


@pytest.mark.parametrize("name", BLUEPRINTS)
def test_the_blueprint_runs(name: str, server: Server, object_info: dict[str, Any]):
    """Its inside, with a checkpoint and a picture in place of its inputs, as the frontend would queue it."""
    subgraph = read_subgraph(name)
    widgets = {"steps": 2, "caption_model": "tiny_zoo", "edit": "tiny_zoo/cat2dog", "fit": "crop to square"}
    widgets |= {"strength": 1.0, "cfg": 5.0, "guidance": 0.4}
    sockets = {"model": ["checkpoint", 0], "clip": ["checkpoint", 1], "vae": ["checkpoint", 2], "image": ["picture", 0]}
    given = {place: (sockets | widgets)[entry["name"]] for place, entry in enumerate(subgraph["inputs"])}
    workflow = queued(subgraph, object_info, given)
    node_inputs(workflow, "Pix2PixZeroBLIPCaption")["beams"] = 1  # or all but the pictures is in ComfyUI's cache
    node_inputs(workflow, "Pix2PixZeroFitPicture")["side"] = 64
    workflow |= {
        "checkpoint": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "tiny_zoo.safetensors"}},
        "picture": {"class_type": "LoadImage", "inputs": {"image": server.upload(EXAMPLES / "cat.png")}},
    }
    origins = {link: [str(origin), output] for link, origin, output, *_ in subgraph["links"]}
    for entry in subgraph["outputs"]:
        origin = origins[entry["linkIds"][0]]
        shown = "SaveImage" if entry["type"] == "IMAGE" else "PreviewAny"
        inputs = {"images": origin, "filename_prefix": entry["name"]} if shown == "SaveImage" else {"source": origin}
        workflow[entry["name"]] = {"class_type": shown, "inputs": inputs}
    outputs = server.run(workflow)
    assert "cat" in outputs["caption"]["text"][0].split()
    (reconstruction,), (edited,) = (pictures(server, outputs, node) for node in ("reconstruction", "edited"))
    assert reconstruction.shape == edited.shape == (64, 64, 3)
    assert not np.array_equal(reconstruction, edited)
    assert "The inversion has 2 steps" in outputs["warning"]["text"][0]
