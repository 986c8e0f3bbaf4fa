"""ComfyUI's HTTP interface, and what it says about a workflow that fails."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .messages import Failure
from .workflow import Workflow, describe_node, describe_rejection

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Asks no proxy: the server is on this machine, which a proxy would look for on its own."""


@dataclass(frozen=True)
class Client:
    """ComfyUI's HTTP interface."""

    url: str

    def request(self, path: str, data: bytes | None = None, content_type: str = "application/json") -> bytes:
        """GET a path, or POST data to it."""
        request = urllib.request.Request(self.url + path, data, {"Content-Type": content_type} if data else {})
        with DIRECT.open(request, timeout=60) as response:
            return response.read()

    def get(self, path: str) -> Any:
        """GET a JSON answer."""
        return json.loads(self.request(path))

    def upload(self, image: Path) -> str:
        """Copy a picture into ComfyUI's input folder and return the name that LoadImage knows it by."""
        boundary = uuid.uuid4().hex
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{{}}"{{}}\r\n\r\n'
        name = image.name.encode("ascii", "replace").decode().replace('"', "_").replace("?", "_")
        body = head.format("image", f'; filename="{name}"').encode() + image.read_bytes() + b"\r\n"
        body += head.format("overwrite", "").encode() + f"true\r\n--{boundary}--\r\n".encode()
        return json.loads(self.request("/upload/image", body, f"multipart/form-data; boundary={boundary}"))["name"]

    def queue(self, workflow: Workflow) -> str:
        """Queue a workflow and return its prompt id.

        Raises:
            Failure: ComfyUI rejects the workflow or a part of it; names the nodes and the reasons.
        """
        try:
            answer = json.loads(self.request("/prompt", json.dumps({"prompt": workflow}).encode()))
        except urllib.error.HTTPError as error:
            answer = json.loads(error.read())
        # With status 200, too, some outputs may have been rejected.
        if answer.get("error") or answer.get("node_errors"):
            raise Failure("ComfyUI rejects the workflow:\n" + "\n".join(describe_rejection(workflow, answer)))
        return answer["prompt_id"]

    def wait(self, prompt_id: str, on_wait: Callable[[float, str], None] | None = None) -> dict[str, Any]:
        """Wait for a prompt to end and return its outputs, node id -> what the node shows.

        Args:
            prompt_id: what `queue` returned.
            on_wait: called every five seconds with the seconds waited and "running" or "queued".

        Raises:
            Failure: a node raised; names the node and the exception.
        """
        started = told = time.monotonic()
        while not (history := self.get(f"/history/{prompt_id}")):
            if on_wait and time.monotonic() - told >= 5:
                told = time.monotonic()
                running = any(entry[1] == prompt_id for entry in self.get("/queue")["queue_running"])
                on_wait(told - started, "running" if running else "queued")
            time.sleep(0.1)
        entry = history[prompt_id]
        for kind, message in entry["status"]["messages"]:
            if kind == "execution_error":
                name = describe_node(entry["prompt"][2], message["node_id"])
                raise Failure(f"{name} raised {message['exception_type']}: {message['exception_message'].strip()}")
        if entry["status"]["status_str"] != "success":
            raise Failure(f"the workflow ended with status {entry['status']['status_str']!r}")
        return entry["outputs"]

    def run(self, workflow: Workflow, on_wait: Callable[[float, str], None] | None = None) -> dict[str, Any]:
        """Queue a workflow and wait for its outputs."""
        return self.wait(self.queue(workflow), on_wait)

    def view(self, image: Mapping[str, str]) -> bytes:
        """Fetch a picture that an output names by filename, subfolder and type."""
        return self.request("/view?" + urllib.parse.urlencode(image))


def save_images(server: Client, workflow: Workflow, outputs: Mapping[str, Any], folder: Path) -> dict[str, Path]:
    """Fetch the first picture of every SaveImage node into `folder`, named after the node's title; title -> path."""
    folder.mkdir(parents=True, exist_ok=True)
    paths: dict[str, Path] = {}
    for node_id, node in workflow.items():
        if node["class_type"] != "SaveImage":
            continue
        title = node["_meta"]["title"]
        path = folder.resolve() / f"{title.replace(' ', '_')}.png"
        unfinished = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")  # another run may save here, too
        unfinished.write_bytes(server.view(outputs[node_id]["images"][0]))
        unfinished.replace(path)
        paths[title] = path
    return paths
