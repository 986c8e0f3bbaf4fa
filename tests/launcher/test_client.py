"""The client against a server that gives prepared answers."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher.client import Client, save_images
from launcher.messages import Failure
from launcher.workflow import Workflow

WORKFLOW: Workflow = {
    "8": {"class_type": "Pix2PixZeroEditDirection", "inputs": {"edit": "cat2dog"}, "_meta": {"title": "direction"}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["7", 0]}, "_meta": {"title": "side by side"}},
}


@pytest.fixture
def answering() -> Iterator[Callable[[dict[str, tuple[int, Any]]], Client]]:
    """A function that starts an HTTP server with the given answers, path -> (status, JSON or bytes)."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def serve(answers: dict[str, tuple[int, Any]]) -> Client:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status, answer = answers[self.path.split("?")[0]]
                self.send_response(status)
                self.end_headers()
                self.wfile.write(answer if isinstance(answer, bytes) else json.dumps(answer).encode())

            do_POST = do_GET

            def log_message(self, format: str, *args: Any) -> None:
                pass

        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return Client(f"http://127.0.0.1:{servers[-1].server_port}")

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


Answering = Callable[[dict[str, tuple[int, Any]]], Client]
NODE_ERRORS = {"8": {"class_type": "x", "errors": [{"type": "t", "message": "Value too big", "details": "strength"}]}}


def test_a_rejected_workflow_names_its_nodes(answering: Answering) -> None:
    error = {"type": "t", "message": "Prompt outputs failed validation", "details": ""}
    client = answering({"/prompt": (400, {"error": error, "node_errors": NODE_ERRORS})})
    with pytest.raises(Failure, match=r"node 8 'direction' \(Pix2PixZeroEditDirection\): Value too big: strength"):
        client.queue(WORKFLOW)


def test_a_partly_rejected_workflow_is_rejected_although_the_status_is_200(answering: Answering) -> None:
    client = answering({"/prompt": (200, {"prompt_id": "p", "node_errors": NODE_ERRORS})})
    with pytest.raises(Failure, match="Value too big"):
        client.queue(WORKFLOW)


def history(status: str, messages: list[Any]) -> dict[str, tuple[int, Any]]:
    entry = {"prompt": [0, "p", WORKFLOW, {}, []], "outputs": {"9": {"text": ["a cat"]}}}
    entry["status"] = {"status_str": status, "messages": messages}
    return {"/prompt": (200, {"prompt_id": "p", "node_errors": {}}), "/history/p": (200, {"p": entry})}


def test_a_workflow_returns_its_outputs(answering: Answering) -> None:
    assert answering(history("success", [])).run(WORKFLOW) == {"9": {"text": ["a cat"]}}


def test_a_node_that_raises_is_named_with_its_exception(answering: Answering) -> None:
    raised = {"node_id": "8", "exception_type": "ValueError", "exception_message": "no such edit\n", "traceback": []}
    client = answering(history("error", [["execution_start", {}], ["execution_error", raised]]))
    with pytest.raises(Failure, match=r"node 8 'direction' .* raised ValueError: no such edit$"):
        client.run(WORKFLOW)


def test_an_interrupted_workflow_is_a_failure(answering: Answering) -> None:
    client = answering(history("error", [["execution_interrupted", {}]]))
    with pytest.raises(Failure, match="status 'error'"):
        client.run(WORKFLOW)


def test_pictures_are_saved_under_their_titles(answering: Answering, tmp_path: Path) -> None:
    client = answering({"/view": (200, b"picture")})
    outputs = {"9": {"images": [{"filename": "x.png", "subfolder": "", "type": "output"}]}}
    paths = save_images(client, WORKFLOW, outputs, tmp_path / "new")
    assert paths == {"side by side": tmp_path / "new" / "side_by_side.png"}
    assert paths["side by side"].read_bytes() == b"picture"
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_no_proxy_is_asked_for_a_server_on_this_machine(answering: Answering, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("urllib.request._opener", None)  # made of the environment when first used
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert answering({"/queue": (200, {})}).get("/queue") == {}
