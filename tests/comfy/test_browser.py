"""The shipped graphs in the real front end, in a real browser. Screenshots are left in output/browser."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Request

from authoring import workflows
from authoring.browser import SCREENSHOTS, WINDOW, FrontEnd, find_browser, open_front_end
from authoring.kinds import Widget
from launcher.runtime import EXAMPLES, ROOT
from launcher.server import Server
from tests.comfy.test_workflows import require_stock_nodes

NAMES = sorted(workflows.GRAPHS)
FROZEN = sorted(path for path in (Path(__file__).parent / "frozen").glob("*/*.json") if ".api" not in path.suffixes)
FIRST_VISIT = {"Comfy.TutorialCompleted": True, "Comfy.Workflow.ShowMissingModelsWarning": False}

UNREACHABLE = re.compile(
    r"https://(api\.comfy\.org|huggingface\.co)/|Error fetching file size|/templates/index|core workflow templates"
    r"|/docs/\w+/en\.md"
)
"""What the front end misses: servers outside, barred by --disable-api-nodes; ComfyUI's own templates; and a help page
in English, before it takes the one for every language."""


TELL = "window.comfyAPI.api.api.dispatchCustomEvent(argument[0], argument[1])"
"""Does as if ComfyUI had sent a message: its name, its content."""


@pytest.fixture(scope="module")
def chromium() -> str:
    path = find_browser()
    if path is None:
        reason = "no Chromium here: install one (apt-get install chromium) or name it in BROWSER_PATH"
        if os.environ.get("PIX2PIX_ZERO_BROWSER") == "required":
            pytest.fail(f"PIX2PIX_ZERO_BROWSER=required, and {reason}")
        pytest.skip(reason)
    return path


@pytest.fixture(scope="module")
def page(server: Server, chromium: str) -> Iterator[FrontEnd]:
    """One page for the module: opening it takes longer than most of what is done on it."""
    for name, value in FIRST_VISIT.items():
        server.request(f"/settings/{name}", json.dumps(value).encode())
    with open_front_end(server.url, chromium) as page:
        yield page


@pytest.fixture
def front_end(page: FrontEnd) -> Iterator[FrontEnd]:
    """The page; nothing that the test does on it may end in its console as an error."""
    assert not page.stuck, f"the page has been stuck since an earlier test: {page.stuck}"
    page.page.keyboard.press("Escape")  # whatever a test before has left open
    page.complaints.clear()
    yield page
    assert not [complaint for complaint in page.complaints if not UNREACHABLE.search(complaint)]


@pytest.fixture
def drop(front_end: FrontEnd, server: Server, object_info: dict[str, Any]) -> Callable[[Path], None]:
    """Opens a workflow, or skips where this ComfyUI lacks a node of it."""

    def drop(path: Path) -> None:
        require_stock_nodes(json.loads(path.read_text(encoding="utf-8")), server, object_info)
        front_end.drop(path)

    return drop


def node_boxes(front_end: FrontEnd) -> list[dict[str, Any]]:
    """What is drawn: id, type, position and size with the title bar, and the size that the content needs."""
    return front_end.evaluate(
        """app.graph.nodes.map(node => ({
            id: node.id, type: node.type, known: node.constructor.nodeData != null || node.isVirtualNode,
            box: [node.pos[0], node.pos[1] - 30, node.size[0], node.size[1] + 30],
            size: Array.from(node.size), needed: Array.from(node.computeSize()),
        }))"""
    )


def overlap(a: list[float], b: list[float]) -> bool:
    return all(a[i] < b[i] + b[i + 2] and b[i] < a[i] + a[i + 2] for i in (0, 1))


@pytest.mark.parametrize("name", NAMES)
def test_a_dropped_workflow_opens_as_it_was_drawn(front_end: FrontEnd, name: str, drop: Callable[[Path], None]) -> None:
    path = workflows.UI_FOLDER / f"{name}.json"
    drop(path)
    front_end.screenshot(SCREENSHOTS / f"{name}.png")
    nodes = node_boxes(front_end)
    assert len(nodes) == len(json.loads(path.read_text(encoding="utf-8"))["nodes"])
    assert not [node["type"] for node in nodes if not node["known"]]
    cramped = [node["type"] for node in nodes if any(node["needed"][i] > node["size"][i] for i in (0, 1))]
    assert not cramped, "make them larger in authoring/kinds.py"
    assert not [(a["type"], b["type"]) for a, b in itertools.combinations(nodes, 2) if overlap(a["box"], b["box"])]


def unnumbered(prompt: dict[str, Any]) -> list[str]:
    """A prompt with its nodes written out where they are linked to: some front ends number those of a subgraph anew."""

    def written(number: str) -> list[Any]:
        return [prompt[number]["class_type"], {key: content(value) for key, value in prompt[number]["inputs"].items()}]

    def content(value: Any) -> Any:
        if isinstance(value, list):
            return [written(value[0]), value[1]]
        return int(value) if isinstance(value, float) and value.is_integer() else value  # as JavaScript writes numbers

    return sorted(json.dumps(written(number), sort_keys=True) for number in prompt)


@pytest.mark.parametrize("name", NAMES)
def test_the_browser_queues_the_api_twin(
    front_end: FrontEnd, name: str, drop: Callable[[Path], None], object_info: dict[str, Any]
) -> None:
    drop(workflows.UI_FOLDER / f"{name}.json")
    queued = front_end.prompt()
    for node in queued.values():
        # The front end draws a text box into PreviewAny and sends its content, too, of which the server knows nothing.
        declared = {entry for names in object_info[node["class_type"]]["input_order"].values() for entry in names}
        node["inputs"] = {key: value for key, value in node["inputs"].items() if key in declared}
        node.pop("_meta")  # titles are in the language of the user
    twin = json.loads((workflows.API_FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    assert unnumbered(queued) == unnumbered(twin)


def test_a_workflow_brings_its_picture_along(front_end: FrontEnd, base: Path) -> None:
    brought = base / "input" / "cat.png"
    brought.unlink(missing_ok=True)
    front_end.page.reload()
    front_end.wait_until_ready()
    front_end.complaints.clear()
    front_end.drop(workflows.UI_FOLDER / "tiny_zoo_edit.json")
    front_end.wait_for_image(2)
    assert front_end.images(2)[0]["width"] == 128
    assert brought.read_bytes() == (EXAMPLES / "cat.png").read_bytes()
    brought.unlink()
    front_end.evaluate(TELL, ["reconnected", None])
    front_end.drop(workflows.UI_FOLDER / "tiny_zoo_edit.json")
    assert brought.exists(), "a server that was started again may have another input folder"


def test_the_users_own_picture_of_an_examples_name_stays_chosen(front_end: FrontEnd, base: Path) -> None:
    own, renamed = base / "input" / "cat.png", base / "input" / "cat (1).png"
    shutil.copy(EXAMPLES / "oil.png", own)
    renamed.unlink(missing_ok=True)
    try:
        front_end.evaluate(TELL, ["reconnected", None])
        front_end.drop(workflows.UI_FOLDER / "tiny_zoo_edit.json")
        name = front_end.evaluate("app.extensionManager.workflow.activeWorkflow.filename")
        chosen = "app.graph.getNodeById(2).widgets[0].value"
        assert front_end.evaluate(chosen) == renamed.name
        front_end.choose(2, "image", own.name)
        front_end.drop(workflows.UI_FOLDER / "tiny_zoo_edit.json")
        open_tab(front_end, name)
        assert front_end.evaluate(chosen) == own.name
    finally:
        shutil.copy(EXAMPLES / "cat.png", own)
        front_end.evaluate(TELL, ["reconnected", None])


def test_a_workflow_brings_its_folder_along(
    front_end: FrontEnd, server: Server, base: Path, drop: Callable[[Path], None]
) -> None:
    brought = base / "input" / "tiny_zoo_cats"
    shutil.rmtree(brought, ignore_errors=True)
    front_end.page.reload()
    front_end.wait_until_ready()
    front_end.complaints.clear()
    drop(workflows.UI_FOLDER / "tiny_zoo_folder.json")
    assert front_end.prompt()["2"]["inputs"] == {"folder": brought.name}
    assert {picture.name: picture.read_bytes() for picture in brought.iterdir()} == {
        name: (EXAMPLES / name).read_bytes() for name in ("cat.png", "glasses.png", "oil.png")
    }
    assert (
        brought.name
        in server.get("/object_info/LoadImageDataSetFromFolder")["LoadImageDataSetFromFolder"]["input"]["required"][
            "folder"
        ][1]["options"]
    )


def test_an_edit_from_the_file_to_the_shared_picture(front_end: FrontEnd, server: Server, tmp_path: Path) -> None:
    """Open, change the edit in its combo, run, watch, save the picture, and open that: it holds the same graph."""
    front_end.drop(workflows.UI_FOLDER / "tiny_zoo_edit.json")
    front_end.choose(9, "edit", "tiny_zoo/cat2glasses")
    front_end.enter(11, "steps", "8")
    inputs = {number: node["inputs"] for number, node in front_end.prompt().items()}
    assert (inputs["9"]["edit"], inputs["11"]["steps"]) == ("tiny_zoo/cat2glasses", 8)

    graph = front_end.graph()
    front_end.run()
    front_end.wait("app.graph.getNodeById(12).progress > 0")
    front_end.wait_for_image(12)
    assert front_end.images(12)[0]["src"].startswith("blob:")  # a preview, sent while the node runs
    front_end.screenshot(SCREENSHOTS / "running.png")

    front_end.wait_for_image(19)
    front_end.screenshot(SCREENSHOTS / "edited.png")
    assert [front_end.images(node)[0]["width"] for node in (15, 16, 17, 19)] == [128, 128, 128, 384]

    saved = tmp_path / "my dog.png"
    front_end.save_image(17, saved)
    jobs = server.get("/history").values()  # of other tests, too
    (entry,) = [job for job in jobs if job["prompt"][2].get("9", {}).get("inputs") == inputs["9"]]
    assert saved.read_bytes() == server.view(entry["outputs"]["17"]["images"][0])
    front_end.drop(saved)
    front_end.screenshot(SCREENSHOTS / "reopened.png")
    assert unspoken(front_end.graph()) == unspoken(graph)


def unspoken(graph: dict[str, Any]) -> dict[str, Any]:
    """A graph without its id, and without the heights of its nodes, which grow where these say something."""
    nodes = [{**node, "size": list(node["size"])[:1]} for node in graph["nodes"]]
    return {**graph, "nodes": nodes, "id": None}


def said(front_end: FrontEnd, node: int) -> dict[str, list[str]]:
    """What a node says below its widgets: warnings and notes."""
    return front_end.evaluate(
        """Object.fromEntries(["warning", "note"].map(kind => {
            const faces = app.graph.getNodeById(argument).widgets.filter(({ name }) => name == "pix2pix-zero saying")
            const lines = faces.flatMap(({ element }) => [...element.querySelectorAll(`.${kind}`)])
            return [kind, lines.map(line => line.textContent)]
        }))""",
        node,
    )


def test_the_one_node_says_what_is_wrong_and_goes_on_saying_it(front_end: FrontEnd) -> None:
    """After a run, a cached run, a look at another workflow and a reload; a fresh copy says nothing."""
    front_end.drop(workflows.UI_FOLDER / "edit_a_picture.json")
    assert said(front_end, 3) == {"warning": [], "note": []}
    name = front_end.evaluate("app.extensionManager.workflow.activeWorkflow.filename")
    values = {"steps": 2, "cfg": 50}
    front_end.evaluate(
        "app.graph.getNodeById(3).widgets.forEach(widget => (widget.value = argument[widget.name] ?? widget.value))",
        values,
    )
    front_end.run()
    front_end.wait_for_image(4)
    front_end.wait_for_image(5)
    before = said(front_end, 3)
    assert any("The inversion has 2 steps" in line for line in before["warning"])
    assert any("cfg is 50" in line for line in before["warning"])
    assert any("cat" in line for line in before["note"]) and any("dB" in line for line in before["note"])
    front_end.screenshot(SCREENSHOTS / "one_node.png")

    front_end.run()
    front_end.wait("!document.querySelector('[data-testid=queue-button]')?.disabled && app.ui.lastQueueSize === 0")
    assert said(front_end, 3) == before
    front_end.drop(workflows.UI_FOLDER / "edit_a_picture.json")
    assert said(front_end, 3) == {"warning": [], "note": []}
    front_end.page.locator(".workflow-tabs").get_by_text(name, exact=True).first.click()
    front_end.wait("app.graph.getNodeById(3)?.widgets.some(widget => widget.element?.querySelector('.warning'))")
    assert said(front_end, 3) == before
    front_end.page.reload()
    front_end.wait_until_ready()
    front_end.complaints.clear()
    front_end.wait("app.graph.getNodeById(3)?.widgets.some(widget => widget.element?.querySelector('.warning'))")
    assert said(front_end, 3) == before


def test_a_run_that_waited_speaks_in_its_own_workflow(front_end: FrontEnd) -> None:
    """Another workflow is open when it begins, whose nodes have the same numbers."""
    front_end.drop(workflows.UI_FOLDER / "edit_a_picture.json")
    name = front_end.evaluate("app.extensionManager.workflow.activeWorkflow.filename")
    set_steps = "app.graph.getNodeById(3).widgets.find(widget => widget.name == 'steps').value = argument"
    for steps in (30, 2):
        front_end.evaluate(set_steps, steps)
        front_end.run()
        front_end.wait("app.ui.lastQueueSize > argument", 0 if steps == 30 else 1)
    front_end.drop(workflows.UI_FOLDER / "edit_a_picture.json")
    front_end.wait("app.ui.lastQueueSize === 0")
    assert said(front_end, 3) == {"warning": [], "note": []}
    front_end.page.locator(".workflow-tabs").get_by_text(name, exact=True).first.click()
    front_end.wait("app.graph.getNodeById(3)?.widgets.some(widget => widget.element?.querySelector('.warning'))")
    assert any("The inversion has 2 steps" in line for line in said(front_end, 3)["warning"])


def test_a_cached_node_says_in_another_workflow_what_it_said_in_the_first(front_end: FrontEnd) -> None:
    kinds = ("Pix2PixZeroBLIPCaption", "Pix2PixZeroRegularizedDDIMInvert")
    says: list[dict[str, dict[str, list[str]]]] = []
    for name in ("tiny_zoo_edit", "tiny_zoo_two_edits"):
        front_end.drop(workflows.UI_FOLDER / f"{name}.json")
        nodes = {node.kind: number for number, node in workflows.GRAPHS[name].nodes.items()}
        front_end.evaluate(
            "app.graph.getNodeById(argument).widgets.find(widget => widget.name == 'steps').value = 3",
            nodes["Pix2PixZeroRegularizedDDIMInvert"],
        )
        front_end.run()
        front_end.wait_for_image(nodes["SaveImage"])
        for kind in kinds:
            face = "app.graph.getNodeById(argument).widgets.some(({ element }) => element?.querySelector('.note'))"
            front_end.wait(face, nodes[kind])
        says.append({kind: said(front_end, nodes[kind]) for kind in kinds})
    assert says[1] == says[0]


def test_what_cached_nodes_said_is_looked_up_once_the_run_is_in_the_history(front_end: FrontEnd) -> None:
    """ComfyUI says that a run has succeeded before it writes it down, and after that, that it executes no node."""
    looked_up: list[str] = []

    def note(request: Request) -> None:
        if request.url.endswith("/history?max_items=50"):
            looked_up.append(request.url)

    front_end.page.on("request", note)
    for run, kind in (("of-others", "KSampler"), ("of-ours", "Pix2PixZeroBLIPCaption")):
        remember(front_end, run, {"7": kind}, graph="elsewhere")
        front_end.evaluate(TELL, ["execution_cached", {"prompt_id": run, "nodes": ["7"]}])
    front_end.evaluate(TELL, ["execution_success", {"prompt_id": "of-others"}])
    front_end.evaluate(TELL, ["executing", None])
    front_end.evaluate(TELL, ["execution_success", {"prompt_id": "of-ours"}])
    front_end.settle()
    assert not looked_up
    with front_end.page.expect_request("**/history?max_items=50"):
        front_end.evaluate(TELL, ["executing", None])
    front_end.page.remove_listener("request", note)


def remember(front_end: FrontEnd, run: str, nodes: dict[str, str], graph: str | None) -> None:
    """Let ComfyUI's history have a run, of nodes of these types, that was queued from this graph, or by a script."""
    prompt = {number: {"class_type": kind, "inputs": {}} for number, kind in nodes.items()}
    extra = {"extra_pnginfo": {"workflow": {"id": graph}}} if graph else {}
    entry = {run: {"prompt": [0, run, prompt, extra, []], "outputs": {}}}
    front_end.page.route(f"**/history/{run}", lambda route: route.fulfill(json=entry))


def speak(front_end: FrontEnd, run: str, node: str, note: str) -> None:
    """Let a node of a run say something; return once that is drawn, if it is."""
    with front_end.page.expect_response(f"**/history/{run}"):
        front_end.evaluate(TELL, ["pix2pix-zero.saying", {"prompt_id": run, "node": node, "note": note}])
    front_end.settle()


def open_tab(front_end: FrontEnd, name: str) -> None:
    """Click on the tab of an open workflow; return when it is the active one."""
    front_end.page.locator(".workflow-tabs").get_by_text(name, exact=True).first.click()
    front_end.wait("app.extensionManager.workflow.activeWorkflow.filename === argument", name)
    front_end.wait_until_ready()
    front_end.settle()


def test_a_run_from_before_a_reload_speaks_in_its_own_workflow(front_end: FrontEnd) -> None:
    front_end.drop(workflows.UI_FOLDER / "edit_a_picture.json")
    set_steps = "app.graph.getNodeById(3).widgets.find(({ name }) => name == 'steps').value = argument"
    for steps in (60, 2):
        front_end.evaluate(set_steps, steps)
        front_end.run()
        front_end.wait("app.ui.lastQueueSize > argument", 0 if steps == 60 else 1)
    front_end.page.reload()
    front_end.wait_until_ready()
    front_end.complaints.clear()
    name = front_end.evaluate("app.extensionManager.workflow.activeWorkflow.filename")
    front_end.drop(workflows.UI_FOLDER / "edit_a_picture.json")
    front_end.wait("app.ui.lastQueueSize === 0")
    assert said(front_end, 3) == {"warning": [], "note": []}
    open_tab(front_end, name)
    assert any("The inversion has 2 steps" in line for line in said(front_end, 3)["warning"])


def test_a_scripts_run_says_nothing_in_the_browser(front_end: FrontEnd) -> None:
    """ComfyUI tells every browser when one is interrupted."""
    front_end.drop(workflows.UI_FOLDER / "tiny_zoo_edit.json")
    remember(front_end, "of-a-script", {"9": "Pix2PixZeroEditDirection"}, graph=None)
    interrupted = {"prompt_id": "of-a-script", "node_id": "9", "node_type": "Pix2PixZeroEditDirection"}
    with front_end.page.expect_response("**/history/of-a-script"):
        front_end.evaluate(TELL, ["execution_interrupted", interrupted])
    front_end.settle()
    assert said(front_end, 9) == {"warning": [], "note": []}


def test_a_copy_of_an_open_workflow_speaks_for_itself(front_end: FrontEnd) -> None:
    front_end.drop(workflows.UI_FOLDER / "edit_a_picture.json")
    graph, name = front_end.evaluate("[app.graph.id, app.extensionManager.workflow.activeWorkflow.filename]")
    remember(front_end, "of-the-first", {"3": "Pix2PixZeroEditDirection"}, graph)
    speak(front_end, "of-the-first", "3", "of the first")
    front_end.evaluate("await app.extensionManager.command.execute('Comfy.DuplicateWorkflow')")
    assert front_end.evaluate("app.graph.id") != graph
    assert said(front_end, 3) == {"warning": [], "note": []}
    open_tab(front_end, name)
    assert front_end.evaluate("app.graph.id") == graph
    assert said(front_end, 3)["note"] == ["of the first"]


def test_files_in_api_format_are_told_apart(front_end: FrontEnd) -> None:
    graphs = set[str]()
    for _ in range(2):
        front_end.drop(workflows.API_FOLDER / "tiny_zoo_edit.json")
        graphs.add(front_end.evaluate("app.graph.id"))
    assert len(graphs) == 2
    assert front_end.evaluate("app.extensionManager.workflow.activeWorkflow.activeState.id") in graphs


def test_a_node_inside_that_is_gone_says_nothing_more(front_end: FrontEnd) -> None:
    """The browser's store is full, besides, which is no reason to say nothing."""
    front_end.drop(workflows.UI_FOLDER / "edit_a_picture.json")
    inner = front_end.evaluate("app.graph.getNodeById(3).subgraph.nodes[0].id")
    remember(front_end, "of-two", {"3": "Pix2PixZeroCompare"}, front_end.evaluate("app.graph.id"))
    front_end.evaluate("sessionStorage.setItem = () => { throw new DOMException('full', 'QuotaExceededError') }")
    try:
        speak(front_end, "of-two", f"3:{inner}", "of one inside")
        assert said(front_end, 3)["note"] == ["of one inside"]
        front_end.evaluate("app.graph.getNodeById(3).subgraph.remove(app.graph.getNodeById(3).subgraph.nodes[0])")
        front_end.evaluate(TELL, ["pix2pix-zero.saying", {"prompt_id": "of-two", "node": "3", "note": "of all"}])
        front_end.settle()
        assert said(front_end, 3)["note"] == ["of all"]
    finally:
        front_end.evaluate("delete sessionStorage.setItem")


def test_edits_that_fit_the_checkpoint_come_first_and_idle_words_are_grey(front_end: FrontEnd) -> None:
    front_end.drop(workflows.UI_FOLDER / "tiny_zoo_edit.json")
    values = "app.graph.getNodeById(9).widgets.find(widget => widget.name == 'edit').options.values"
    assert all(edit.startswith("tiny_zoo/") for edit in front_end.evaluate(values)[:4])
    grey = "app.graph.getNodeById(9).widgets.filter(widget => widget.disabled).map(widget => widget.name)"
    assert front_end.evaluate(grey) == ["source", "target", "sentences", "kind"]
    front_end.choose(9, "edit", "custom")
    assert front_end.evaluate(grey) == []
    front_end.choose(9, "edit", "tiny_zoo/cat2dog")
    link = """(() => {
        const [from, node] = [LiteGraph.createNode("PrimitiveNode"), app.graph.getNodeById(9)]
        app.graph.add(from)
        from.connect(0, node, node.inputs.findIndex(({ name }) => name == "edit"))
    })()"""
    front_end.evaluate(link)
    assert front_end.evaluate(grey) == [], "what is chosen elsewhere is not known here"
    front_end.drop(workflows.UI_FOLDER / "edit_a_picture.json")
    front_end.choose(3, "edit", "custom")
    inner = "app.graph.getNodeById(3).subgraph.nodes.find(node => node.comfyClass == 'Pix2PixZeroEditDirection')"
    assert front_end.evaluate(f"{inner}.widgets.filter(widget => widget.disabled).length") == 0
    promoted = "app.graph.getNodeById(3).widgets.find(widget => widget.name == 'edit').options.values"
    assert all(edit.startswith("tiny_zoo/") for edit in front_end.evaluate(promoted)[:4])
    front_end.drop(workflows.UI_FOLDER / "sd15_edit.json")
    assert not [edit for edit in front_end.evaluate(values)[:20] if edit.startswith("tiny_zoo/")]


def test_the_template_browser_shows_the_workflows(front_end: FrontEnd) -> None:
    if front_end.version() < (1, 32):
        pytest.skip("this front end draws a template only once it is scrolled to")
    front_end.page.get_by_text("Templates", exact=True).first.click()
    cards = {name: front_end.page.get_by_test_id(f"template-workflow-{name}") for name in NAMES}
    cards["edit_a_picture"].wait_for()
    shown = """[...document.querySelectorAll("[data-testid^=template-workflow-]")]
        .map(card => card.dataset.testid.replace("template-workflow-", "")).filter(name => argument.includes(name))"""
    assert front_end.evaluate(shown, NAMES) == list(workflows.GRAPHS)
    for name, card in cards.items():
        card.scroll_into_view_if_needed()  # pictures are loaded when they are seen
        picture = "document.querySelector(`[data-testid=template-workflow-${argument}] img`)"
        front_end.wait(f"{picture}?.naturalWidth > 0", name)
    front_end.screenshot(SCREENSHOTS / "templates.png")
    cards["tiny_zoo_edit"].click()
    front_end.wait("app.extensionManager.workflow.activeWorkflow.filename.startsWith('tiny_zoo_edit')")
    assert len(node_boxes(front_end)) > 0


@pytest.mark.parametrize("name", sorted(workflows.BLUEPRINTS))
def test_the_node_library_has_the_blueprint(front_end: FrontEnd, server: Server, name: str) -> None:
    """Found, placed and connected, it queues the nodes that are inside it."""
    if front_end.page.request.get(f"{server.url}/global_subgraphs").status == 404:
        pytest.skip("this ComfyUI offers no blueprints")
    front_end.drop(workflows.UI_FOLDER / "tiny_zoo_edit.json")
    library = front_end.page.get_by_text("Nodes", exact=True).first
    library.click()
    front_end.page.get_by_placeholder("Search").first.fill(name)
    front_end.page.get_by_text(name).first.click()
    front_end.page.mouse.click(0.6 * WINDOW[0], 0.9 * WINDOW[1])  # newer front ends ask where to put it
    node = "app.graph.nodes.find(node => node.title == argument)"
    front_end.wait(f"{node}?.widgets.length", name)
    library.click()
    front_end.evaluate(f"app.canvas.centerOnNode({node})", name)
    front_end.settle()
    front_end.screenshot(SCREENSHOTS / "blueprint.png")

    shown = front_end.evaluate(f"Object.fromEntries({node}.widgets.map(widget => [widget.name, widget.value]))", name)
    inside = workflows.BLUEPRINTS[name]
    assert list(shown) == [entry for entry, slot in inside.schema().inputs.items() if isinstance(slot, Widget)]
    sockets = {"image": (3, 0), "model": (1, 0), "clip": (1, 1), "vae": (1, 2)}
    connect = f"""(() => {{
        const node = {node.replace("argument", "argument[0]")}
        for (const [name, [origin, output]] of Object.entries(argument[1]))
            app.graph.getNodeById(origin).connect(output, node, node.inputs.findIndex(input => input.name == name))
        node.connect(0, app.graph.getNodeById(17), 0)
        node.widgets.find(widget => widget.name == "steps").value = 7
    }})()"""
    front_end.evaluate(connect, [name, sockets])
    queued = {number: entry for number, entry in front_end.prompt().items() if ":" in number}
    assert sorted(entry["class_type"] for entry in queued.values()) == sorted(
        node.kind for node in inside.nodes.values()
    )
    assert [entry["inputs"]["steps"] for entry in queued.values() if "steps" in entry["inputs"]] == [7]


LATER: dict[str, dict[str, Any]] = {
    "Pix2PixZeroEditDirection": {"form": "mean by position"},
    "Pix2PixZeroCrossAttnGuidedSampler": {
        "negative_from": "inversion",
        "cfg_start": 0,
        "region": 0,
        "noise_from": "inversion",
    },
}
"""What 0.1.0 acted by where it had no setting."""


@pytest.mark.parametrize("path", FROZEN, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_frozen_workflow_opens_with_its_settings(
    front_end: FrontEnd, server: Server, path: Path, drop: Callable[[Path], None]
) -> None:
    server.upload(EXAMPLES / "cat.png")
    drop(path)
    assert not [node["type"] for node in node_boxes(front_end) if not node["known"]]
    queued = front_end.prompt()
    twin = json.loads(path.with_suffix(".api.json").read_text(encoding="utf-8"))
    # Some front ends number the nodes of a subgraph anew, so that links into it have other names, too.
    anew = not twin.keys() <= queued.keys()
    for number, node in twin.items():
        same = list(queued.values()) if anew else [queued[number]]
        kept = {name: value for name, value in node["inputs"].items() if not (anew and isinstance(value, list))}
        kept |= {name: value for name, value in LATER.get(node["class_type"], {}).items() if name not in node["inputs"]}
        assert any(
            other["class_type"] == node["class_type"] and kept.items() <= other["inputs"].items() for other in same
        )


def test_an_inserted_node_of_an_earlier_release_has_what_it_meant(front_end: FrontEnd) -> None:
    """The front end inserts a workflow as a graph of its own, of which the nodes are then pasted."""
    workflow = json.loads((FROZEN[0].parents[1] / "0.1.0" / "tiny_zoo_edit.json").read_text(encoding="utf-8"))
    values = """new app.graph.constructor(argument).nodes.map(node =>
        [node.type, Object.fromEntries((node.widgets ?? []).map(({ name, value }) => [name, value]))])"""
    nodes = dict(front_end.evaluate(values, workflow))
    assert all(meant.items() <= nodes[kind].items() for kind, meant in LATER.items())


def test_an_api_file_of_an_earlier_release_opens_with_what_it_meant(front_end: FrontEnd, server: Server) -> None:
    server.upload(EXAMPLES / "cat.png")
    path = FROZEN[0].parents[1] / "0.1.0" / "tiny_zoo_edit.api.json"
    front_end.drop(path)
    queued, twin = front_end.prompt(), json.loads(path.read_text(encoding="utf-8"))
    told = 0
    for number, node in twin.items():
        meant = {name: value for name, value in LATER.get(node["class_type"], {}).items() if name not in node["inputs"]}
        kept = {name: value for name, value in node["inputs"].items() if not isinstance(value, list)}
        assert (kept | meant).items() <= queued[number]["inputs"].items()
        told += len(meant)
    assert told


def test_a_node_shows_its_help_page(front_end: FrontEnd) -> None:
    if front_end.version() < (1, 32):
        pytest.skip("this front end has its help elsewhere")
    front_end.drop(workflows.UI_FOLDER / "tiny_zoo_edit.json")
    front_end.page.mouse.click(*front_end.point(12))
    front_end.page.get_by_test_id("info-button").click()
    front_end.page.get_by_role("heading", name="Cross-Attention Guided Sampler").first.wait_for()
    front_end.wait("document.querySelector('img[src$=\"edit.jpg\"]')?.naturalWidth > 0")
    front_end.screenshot(SCREENSHOTS / "help.png")


@pytest.mark.parametrize("language", ["zh", "ja"])
def test_the_graph_speaks_the_users_language(front_end: FrontEnd, server: Server, language: str) -> None:
    if front_end.version() < (1, 35):
        pytest.skip("this front end forgets what packs translate: Comfy-Org/ComfyUI_frontend issue 6748")
    words = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))
    server.request("/settings/Comfy.Locale", json.dumps(language).encode())
    try:
        front_end.page.reload()
        front_end.wait_until_ready()
        front_end.complaints.clear()
        front_end.drop(workflows.UI_FOLDER / "tiny_zoo_edit.json")
        front_end.screenshot(SCREENSHOTS / f"{language}.png")
        node = "app.graph.getNodeById(11)"
        shown = front_end.evaluate(f"[{node}.getTitle(), {node}.inputs[0].localized_name, {node}.widgets[0].label]")
    finally:
        server.request("/settings/Comfy.Locale", b'"en"')
    expected = words["Pix2PixZeroRegularizedDDIMInvert"]
    assert shown == [expected["display_name"], expected["inputs"]["model"]["name"], expected["inputs"]["steps"]["name"]]
