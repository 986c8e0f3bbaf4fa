"""ComfyUI's front end in a headless Chromium, worked by mouse and keyboard as a user works it.

The tests in `tests/comfy/test_browser.py` use it, and `python -m authoring.pictures`, which takes the screenshot of the
graph. Needs playwright, and a Chromium of the system: none is downloaded.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import ConsoleMessage, Page, sync_playwright
from playwright.sync_api import TimeoutError as PageTimeoutError

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge")
SCREENSHOTS = Path(__file__).resolve().parents[1] / "output" / "browser"
WINDOW = (1600, 900)
CORNERS = [[0.1 * WINDOW[0], share * WINDOW[1]] for share in (0.9, 0.16)]
"""Where files are dropped, on the first that is free: over a node they would be the node's."""
FREE = f"{CORNERS}.find(corner => document.elementFromPoint(...corner) == app.canvas.canvas)"
PATIENCE = 120.0  # seconds for anything to appear; generous, for busy machines


def find_browser() -> str | None:
    """Path of a Chromium: what BROWSER_PATH names, else the first one on PATH; None where there is none."""
    return os.environ.get("BROWSER_PATH") or next(filter(None, map(shutil.which, BROWSERS)), None)


@contextmanager
def open_front_end(url: str, executable: str) -> Iterator[FrontEnd]:
    """Open a ComfyUI in a browser of its own while the block lasts.

    Args:
        url: a server's address.
        executable: a Chromium.
    """
    with sync_playwright() as playwright:
        # Containers often run as root and have little shared memory.
        flags = ["--no-sandbox", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=executable, args=flags)
        try:
            page = browser.new_page(viewport={"width": WINDOW[0], "height": WINDOW[1]})
            page.set_default_timeout(PATIENCE * 1000)
            front_end = FrontEnd(page)
            page.goto(url)
            front_end.wait_until_ready()
            yield front_end
        finally:
            browser.close()


class FrontEnd:
    """The open page.

    Attributes:
        page: for what this class has no word for.
        complaints: what the page wrote to its console as an error, and the exceptions that nobody caught.
        stuck: what the page showed when something did not happen in time; empty before that.
    """

    def __init__(self, page: Page) -> None:
        """Listen to a page that is not yet open."""
        self.page = page
        self.complaints: list[str] = []
        self.stuck = ""
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.complaints.append(f"exception: {error}"))

    def _note(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.complaints.append(f"{message.location['url']}: {message.text}")

    def evaluate(self, expression: str, argument: Any = None) -> Any:
        """Evaluate JavaScript in which `app` is ComfyUI's application and `argument` what is passed."""
        function = f"async argument => {{ const app = window.comfyAPI.app.app; return {expression} }}"
        return self.page.evaluate(function, argument)

    def wait(self, expression: str, argument: Any = None) -> None:
        """Wait until a JavaScript expression, as in `evaluate`, is true.

        Raises:
            TimeoutError: it was not, for PATIENCE seconds; with what the page shows instead.
        """
        function = f"argument => {{ const app = window.comfyAPI?.app?.app; return Boolean(app && ({expression})) }}"
        try:
            self.page.wait_for_function(function, arg=argument, polling=50)
        except PageTimeoutError as error:
            self.stuck = f"{expression}\nwas not true within {PATIENCE:.0f} s (argument: {argument})."
            self.stuck += f" {self._describe()}"
            raise TimeoutError(self.stuck) from error

    def _describe(self) -> str:
        """What a person would look at: the screen, the open workflows, what covers the canvas, the console."""
        screen = SCREENSHOTS / "stuck.png"
        self.screenshot(screen)
        seen = self.page.evaluate(
            """corners => {
                const workflows = window.comfyAPI?.app?.app?.extensionManager?.workflow
                return {
                    open: workflows?.openWorkflows.map(workflow => workflow.path),
                    active: workflows?.activeWorkflow?.path,
                    corners: corners.map(corner => document.elementFromPoint(...corner)?.outerHTML.slice(0, 200)),
                    dialogs: [...document.querySelectorAll("[role=dialog], [role=alert]")].map(box => box.innerText),
                }
            }""",
            CORNERS,
        )
        complaints = "\n".join(complaint.partition("\n")[0] for complaint in self.complaints[-10:])
        return f"The page, see {screen}: {seen}\nThe end of its console:\n{complaints}"

    def version(self) -> tuple[int, ...]:
        """The front end's version."""
        return tuple(map(int, self.evaluate("window.__COMFYUI_FRONTEND_VERSION__").split(".")))

    def wait_until_ready(self) -> None:
        """Wait until the page takes files and clicks.

        While the front end loads, and until that has faded out, a mask covers the page. It takes no file: one that is
        dropped on it is lost without a word.
        """
        self.wait(f"window.graph && app.extensionManager?.workflow.activeWorkflow && {FREE}")

    # -------------------------------------------------------------------------------------------------- the graph

    def graph(self) -> dict[str, Any]:
        """What *Save* would write of the graph itself: without the view and what the front end notes about itself."""
        graph = self.evaluate("app.graph.serialize()")
        del graph["extra"]
        return graph

    def prompt(self) -> dict[str, Any]:
        """What *Run* would queue, in API format."""
        return self.evaluate("(await app.graphToPrompt()).output")

    def images(self, node: int) -> list[dict[str, Any]]:
        """Address and width of the pictures that a node shows."""
        return self.evaluate(
            "(app.graph.getNodeById(argument).imgs ?? []).map(img => ({src: img.src, width: img.naturalWidth}))", node
        )

    def wait_for_image(self, node: int) -> None:
        """Wait until a node shows a picture."""
        self.wait("app.graph.getNodeById(argument)?.imgs?.[0]?.naturalWidth > 0", node)

    # ------------------------------------------------------------------------------------------- mouse and keyboard

    def drop(self, path: Path) -> None:
        """Drag a workflow, or a picture that holds one, from the desktop onto the canvas; return when it is open."""
        self.wait_until_ready()
        before = self.evaluate("app.extensionManager.workflow.activeWorkflow?.path")
        x, y = self.evaluate(FREE)
        event = {"x": x, "y": y, "data": {"items": [], "files": [str(path)], "dragOperationsMask": 1}}
        session = self.page.context.new_cdp_session(self.page)
        for kind in ("dragEnter", "dragOver", "drop"):
            session.send("Input.dispatchDragEvent", {"type": kind, **event})
        session.detach()
        workflows = "app.extensionManager.workflow"
        # the one before may have the same name, and stays active for a while after the new one is among those open
        fresh = f"{workflows}.activeWorkflow.path !== argument[0]"
        named = f"{workflows}.activeWorkflow.filename.startsWith(argument[1])"
        self.wait(f"{fresh} && {named}", [before, path.stem])
        self.wait_until_ready()
        self.settle()

    def settle(self) -> None:
        """Let two frames pass: a new graph or view is drawn, and what waits for that is done."""
        self.evaluate("await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def point(self, node: int, widget: str | None = None) -> tuple[float, float]:
        """Window position of a widget, or of a node's title, after moving the view so that it can be seen."""
        self.evaluate("app.canvas.centerOnNode(app.graph.getNodeById(argument))", node)
        self.settle()
        place = """(() => {
            const node = app.graph.getNodeById(argument[0])
            const widget = node.widgets?.find(widget => widget.name == argument[1])
            const y = widget ? widget.last_y + (widget.computedHeight ?? 20) / 2 : -15
            const { scale, offset } = app.canvas.ds
            const { left, top } = app.canvas.canvas.getBoundingClientRect()
            const place = [node.pos[0] + node.size[0] / 2, node.pos[1] + y]
            return [left + (place[0] + offset[0]) * scale, top + (place[1] + offset[1]) * scale]
        })()"""
        x, y = self.evaluate(place, [node, widget])
        return x, y

    def choose(self, node: int, widget: str, value: str) -> None:
        """Choose an entry of a combo widget."""
        self.page.mouse.click(*self.point(node, widget))
        self.page.locator(".litecontextmenu .litemenu-entry").get_by_text(value, exact=True).click()

    def enter(self, node: int, widget: str, value: str) -> None:
        """Type a number into a widget."""
        self.page.mouse.click(*self.point(node, widget))
        self.page.mouse.dblclick(*self.point(node, widget))
        self.page.locator(".graphdialog input").fill(value)
        self.page.keyboard.press("Enter")

    def save_image(self, node: int, path: Path) -> None:
        """Save the picture that a node shows by its context menu."""
        self.page.mouse.click(*self.point(node), button="right")
        with self.page.expect_download() as download:
            self.page.locator(".litecontextmenu .litemenu-entry").get_by_text("Save Image", exact=True).first.click()
        download.value.save_as(path)

    def run(self) -> None:
        """Press *Run*."""
        self.page.get_by_test_id("queue-button").click()

    def screenshot(self, path: Path) -> None:
        """Save what the window shows."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=path)
