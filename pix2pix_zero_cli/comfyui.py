"""`pix2pix-zero comfyui`: a workflow in API format, run on many pictures by several ComfyUI servers.

Each server has a thread, which takes the next picture, uploads it, queues the workflow, waits, and fetches what was
saved. A server that does not answer any more gives its picture back and is asked again from time to time; the others go
on meanwhile. A picture on which a node raises has failed: another server would raise as well.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import re
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from http.client import HTTPException
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from .arguments import UsageError, add_inputs, add_json, some_path
from .jobs import Row, Tick, seconds_since
from .pictures import find_pictures, name_content, place, require_output_elsewhere, require_own_names, write
from .report import process, say

Workflow = dict[str, dict[str, Any]]
"""API format: id of a node -> class_type, inputs, _meta."""

POLL = 0.2
"""Seconds between two looks at a server, or at the queue."""

TIMEOUT = 60
"""Seconds without an answer, after which a server counts as gone."""

PAUSES = (1, 2, 4, 8, 16)
"""Seconds to wait before a server that is gone is tried again; after the last it is given up."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's options."""
    add_inputs(parser)
    parser.add_argument("--workflow", type=Path, required=True, help="a workflow, as ComfyUI's Export (API) saves it")
    parser.add_argument(
        "--server", required=True, action="append", metavar="URL", help="http://127.0.0.1:8188 say; once a server"
    )
    parser.add_argument(
        "--output", type=some_path, default=Path("edited"), help="folder for the results (default: edited)"
    )
    parser.add_argument("--node", help="id of the LoadImage that is given the picture, where there are several")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace results of another workflow or picture; else refuse to"
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run a workflow on pictures; returns the exit status."""
    found = find_pictures(arguments.pictures, recursive=arguments.recursive, output=arguments.output)
    require_output_elsewhere(arguments.pictures, arguments.output)
    workflow = read_workflow(arguments.workflow)
    loader, output = find_loader(workflow, arguments.node), arguments.output.resolve()
    job = Job(workflow, loader, output, found.searched, arguments.overwrite)
    require_own_names([job.record(picture) for picture in found.pictures])
    servers = [Server(url) for url in dict.fromkeys(url.rstrip("/") for url in arguments.server)]
    for server in servers:
        if not server.url.startswith(("http://", "https://")):
            raise UsageError(f"--server {server.url}: it must begin with http:// or https://")
    share_out = partial(spread, servers, job)
    return process(job, found, output=job.output, as_json=arguments.json, describe=in_words, run=share_out)


def in_words(row: Row) -> str:
    """What a finished picture's line says."""
    assert row.result is not None
    return f"{', '.join(row.result['outputs'])} ({row.result['server']}, {row.seconds:.1f} s)"


def read_workflow(path: Path) -> Workflow:
    """Read a workflow in API format.

    Raises:
        UsageError: no such file, or something else in it.
    """
    if not path.is_file():
        raise UsageError(f"--workflow {path}: there is no such file")
    try:
        workflow = json.loads(path.read_text(encoding="utf-8-sig"))
        if not all(
            isinstance(node["class_type"], str) and isinstance(node["inputs"], dict) for node in workflow.values()
        ):
            raise TypeError("a node without class_type and inputs")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"--workflow {path}: no workflow in API format ({type(error).__name__}: {error}). Save it in ComfyUI with "
            "Export (API)"
        ) from error
    return workflow


def find_loader(workflow: Workflow, wanted: str | None) -> str:
    """The id of the LoadImage node that is given the pictures.

    Raises:
        UsageError: there is none, or several and none of them is named.
    """
    loaders = [node for node in workflow if workflow[node]["class_type"] == "LoadImage"]
    if not loaders:
        raise UsageError("--workflow: it has no LoadImage node, which is given the pictures. Load them by one")
    if wanted is not None and wanted not in loaders:
        raise UsageError(f"--node {wanted}: the LoadImage nodes of the workflow are {', '.join(loaders)}")
    if wanted is None and len(loaders) != 1:
        raise UsageError(f"--node: the workflow has {len(loaders)} LoadImage nodes ({', '.join(loaders)}); name one")
    return wanted or loaders[0]


@dataclass(frozen=True)
class Job:
    """A workflow for many pictures.

    Attributes:
        workflow: in API format.
        loader: id of the LoadImage node that is given the picture.
        output: folder of the results.
        searched: folders whose own folders the output repeats; see `place`.
        overwrite: whether results of another workflow or picture are replaced.
    """

    workflow: Workflow
    loader: str
    output: Path
    searched: tuple[Path, ...]
    overwrite: bool

    @property
    def ticks(self) -> int:
        """A picture is one step."""
        return 1

    @property
    def digest(self) -> str:
        """Names the workflow."""
        return hashlib.sha256(json.dumps([self.workflow, self.loader]).encode()).hexdigest()

    def record(self, picture: Path) -> Path:
        """The file that says what came of a picture; it is written last."""
        return self.output / place(picture, self.searched) / f"{picture.stem}.json"

    def finished(self, picture: Path) -> bool:
        """See `Results.finished`."""
        path = self.record(picture)
        if not path.exists():
            return False
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            of = record["workflow"], record["picture"]
            same, files = of == (self.digest, name_content(picture)), [path.parent / name for name in record["files"]]
        except (KeyError, TypeError, ValueError):
            same, files = False, []
        if not same and not self.overwrite:
            raise UsageError(
                f"--output: {path} is of another workflow or picture. Choose another folder, or --overwrite"
            )
        return same and all(file.exists() for file in files)

    def of(self, image: str) -> Workflow:
        """The workflow with a picture that has been uploaded.

        What it saves gets a name of its own on the server: ComfyUI shows nothing of a prompt that is all in its cache.
        """
        workflow, name = copy.deepcopy(self.workflow), uuid.uuid4().hex[:8]
        workflow[self.loader]["inputs"]["image"] = image
        for node in workflow.values():
            if isinstance(node["inputs"].get("filename_prefix"), str):
                node["inputs"]["filename_prefix"] += f"_{name}"
        return workflow

    def file_name(self, picture: Path, node: str, index: int, saved: str) -> str:
        """What a picture that a node saved is called here: after the source and the node's title.

        Args:
            picture: the source.
            node: id of the node.
            index: of the picture among those that the node saved.
            saved: its name on the server.
        """
        titles = {
            name: re.sub(r"(?:[^\w-]|_)+", "_", entry.get("_meta", {}).get("title", "saved"))
            for name, entry in self.workflow.items()
        }
        alone = list(titles.values()).count(titles[node]) == 1
        title = titles[node] if alone else f"{titles[node]}_{re.sub(r'[^0-9a-zA-Z-]+', '_', node)}"
        number = f"_{index + 1}" if index else ""
        return f"{picture.stem}_{title}{number}{Path(saved).suffix}"


class Gone(Exception):
    """A server does not answer any more, or has forgotten what it was asked."""


@dataclass(frozen=True)
class Server:
    """A ComfyUI server.

    Attributes:
        url: without a slash at the end.
    """

    url: str

    @cached_property
    def opener(self) -> urllib.request.OpenerDirector:
        """Asks as the environment says, but no proxy for a server on this machine: it would look on its own."""
        host = urllib.parse.urlsplit(self.url).hostname or ""
        here = host in ("localhost", "::1") or host.startswith("127.")
        return urllib.request.build_opener(urllib.request.ProxyHandler({} if here else None))

    def run(self, job: Job, picture: Path, stopped: threading.Event) -> dict[str, Any]:
        """Have a picture edited, and fetch what was saved.

        Args:
            job: the workflow.
            picture: read here, and uploaded.
            stopped: ends the wait.

        Returns:
            the outputs' paths, and the server.

        Raises:
            Gone: the server does not answer, or has forgotten what it was asked.
            ValueError: it rejects the workflow, a node raises, or nothing is saved.
        """
        outputs = self.wait(self.queue(job.of(self.upload(picture))), stopped)
        files: dict[str, bytes] = {}
        for node, shown in outputs.items():
            for index, image in enumerate(shown.get("images", [])):
                if image["type"] == "output":
                    name = job.file_name(picture, node, index, image["filename"])
                    files[name] = self.request(f"/view?{urllib.parse.urlencode(image)}")
        if not files:
            raise ValueError("the workflow saved no picture; it needs a SaveImage node")
        path = job.record(picture)
        for name, content in files.items():
            write(path.parent / name, content)
        record = {"workflow": job.digest, "picture": name_content(picture), "files": list(files), "server": self.url}
        write(path, json.dumps(record).encode())
        return {"outputs": [str(path.parent / name) for name in files], "server": self.url}

    def request(self, path: str, data: bytes | None = None, content_type: str = "application/json") -> bytes:
        """GET a path, or POST data to it.

        Raises:
            Gone: no answer, or one of a proxy or a server in trouble.
            HTTPError: the server refuses.
        """
        request = urllib.request.Request(self.url + path, data, {"Content-Type": content_type} if data else {})
        try:
            with self.opener.open(request, timeout=TIMEOUT) as response:
                return response.read()
        except (OSError, HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code < 500:
                raise
            raise Gone(str(error)) from error

    def get(self, path: str) -> Any:
        """GET a JSON answer."""
        return json.loads(self.request(path))

    def upload(self, picture: Path) -> str:
        """Copy a picture into the server's input folder; returns the name that LoadImage knows it by.

        The name is made of the content, so that two pictures never share one.
        """
        content, boundary = picture.read_bytes(), uuid.uuid4().hex
        name = f"{hashlib.sha256(content).hexdigest()[:16]}{picture.suffix.lower()}"
        parts = {f'name="image"; filename="{name}"': content, 'name="overwrite"': b"true"}
        body = b"".join(
            f"--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + value + b"\r\n"
            for head, value in parts.items()
        )
        kind = f"multipart/form-data; boundary={boundary}"
        return json.loads(self.request("/upload/image", body + f"--{boundary}--\r\n".encode(), kind))["name"]

    def queue(self, workflow: Workflow) -> str:
        """Queue a workflow; returns its prompt id.

        Raises:
            ValueError: it is rejected, wholly or in part.
        """
        try:
            answer = json.loads(self.request("/prompt", json.dumps({"prompt": workflow}).encode()))
        except urllib.error.HTTPError as error:
            if error.code != 400:
                raise
            answer = json.loads(error.read())
        if answer.get("error") or answer.get("node_errors"):
            raise ValueError(f"the server rejects the workflow: {_reasons(workflow, answer)}")
        return answer["prompt_id"]

    def wait(self, prompt: str, stopped: threading.Event) -> Mapping[str, Any]:
        """Wait for a prompt to end; returns what its nodes show, id of a node -> output.

        Raises:
            Gone: the server has started anew, and forgotten the prompt; or the wait was ended.
            ValueError: a node raised.
        """
        while not (history := self.get(f"/history/{prompt}")):
            waiting = self.get("/queue")
            known = any(entry[1] == prompt for entry in [*waiting["queue_running"], *waiting["queue_pending"]])
            if not known and not self.get(f"/history/{prompt}"):  # not one that ended between the two looks
                raise Gone("it has forgotten the prompt: it was started anew, or its queue was cleared")
            if stopped.wait(POLL):
                raise Gone("not waited for any longer")
        entry = history[prompt]
        for kind, message in entry["status"]["messages"]:
            if kind == "execution_error":
                what = f"{message['exception_type']}: {message['exception_message'].strip()}"
                raise ValueError(f"node {message['node_id']} ({message['node_type']}) raised {what}")
        if entry["status"]["status_str"] != "success":
            raise ValueError(f"the workflow ended with status {entry['status']['status_str']!r}")
        return entry["outputs"]


def spread(servers: Sequence[Server], job: Job, pictures: Sequence[Path], tick: Tick) -> Iterator[Row]:
    """Have servers run a workflow on pictures; yields each as it is finished, in any order.

    Args:
        servers: at least one.
        job: the workflow.
        pictures: to what.
        tick: not called; a picture is one step.

    Yields:
        a row a picture; those that are left when no server is have failed.

    Raises:
        UsageError: no server answers at the beginning.
    """
    require_answer(servers)
    todo, rows, stopped = Queue[Path](), Queue[Row | str](), threading.Event()
    for picture in pictures:
        todo.put(picture)
    for server in servers:
        threading.Thread(target=_serve, args=(server, job, todo, rows, stopped), daemon=True).start()
    left, lost = len(pictures), list[str]()
    try:
        while left:
            try:
                news = rows.get(timeout=POLL)  # Windows cannot interrupt a wait without an end
            except Empty:
                continue
            if isinstance(news, Row):
                left -= 1
                yield news
            else:
                lost.append(news)
            if len(lost) == len(servers):
                for _ in range(left):
                    yield Row(str(todo.get()), "failed", error=f"no server is left: {'; '.join(lost)}")
                return
    finally:
        stopped.set()


def require_answer(servers: Sequence[Server]) -> None:
    """Refuse to begin where there is nobody to ask.

    Raises:
        UsageError: no server answers; says what came of asking each.
    """
    reasons = list[str]()
    for server in servers:
        try:
            server.get("/queue")
        except (Gone, urllib.error.HTTPError, ValueError) as error:
            reasons.append(f"{server.url} ({error})")
        else:
            return
    raise UsageError(f"--server: no ComfyUI answers at {', nor at '.join(reasons)}. Start it, or correct the address")


def _serve(server: Server, job: Job, todo: Queue[Path], rows: Queue[Row | str], stopped: threading.Event) -> None:
    """Keep one server busy until all is done or the server is given up, of which the reason is the last news."""
    absences = 0
    while not stopped.is_set():
        try:
            picture = todo.get(timeout=POLL)  # another server may give one back at any time
        except Empty:
            continue
        started = time.monotonic()
        try:
            result = server.run(job, picture, stopped)
        except Gone as error:
            todo.put(picture)
            if absences == len(PAUSES):
                say(f"{server.url} is given up ({error})", sys.stderr)
                rows.put(f"{server.url}: {error}")
                return
            if absences == 0 and not stopped.is_set():
                say(f"{server.url} does not answer ({error}); it is asked again, and others go on", sys.stderr)
            stopped.wait(PAUSES[absences])
            absences += 1
        except Exception as error:  # the picture's own fault, or the workflow's: it becomes a row as everywhere
            rows.put(Row(str(picture), "failed", seconds_since(started), error=f"{type(error).__name__}: {error}"))
        else:
            absences = 0
            rows.put(Row(str(picture), "done", seconds_since(started), result))


def _reasons(workflow: Workflow, answer: Mapping[str, Any]) -> str:
    """Why a workflow was rejected, as ComfyUI's answer to /prompt says."""
    reasons = [f"{answer['error']['message']} {answer['error']['details']}"] if answer.get("error") else []
    for node, rejected in answer.get("node_errors", {}).items():
        kind = workflow[node]["class_type"]
        reasons += [f"node {node} ({kind}): {error['message']}: {error['details']}" for error in rejected["errors"]]
    return "; ".join(reasons)
