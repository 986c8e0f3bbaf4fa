"""Nothing leaves this machine: the demo's graph in a server that may open no socket but to the loopback."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from authoring import workflows
from launcher.client import save_images
from launcher.comfyui import make_base
from launcher.messages import Failure
from launcher.processes import child_environment, quiet_cpu
from launcher.runtime import EXAMPLES, Runtime
from launcher.server import Server, comfyui_server
from launcher.workflow import Workflow, adapt, node_inputs

GUARD = '''
"""Forbid this process, and its children, to look up or reach anything but this machine; write down every attempt."""

import os
import sys

LOOPBACK = ("127.", "::1", "localhost")


def guard(event, arguments):
    if event in ("socket.connect", "socket.sendto"):
        address = arguments[1]
    elif event == "socket.sendmsg":
        address = arguments[1]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        address = arguments
    else:
        return
    host = address[0] if isinstance(address, tuple) else None  # of the sockets of UNIX there is a path, or nothing
    if isinstance(host, str) and host and not host.startswith(LOOPBACK):
        with open(os.environ["ATTEMPTS"], "a") as log:
            print(event, host, file=log)
        raise PermissionError(f"this process may not reach {host}")


sys.addaudithook(guard)
'''


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a Python without network; the file ATTEMPTS names lists what it tried."""
    folder = tmp_path_factory.mktemp("guard")
    (folder / "sitecustomize.py").write_text(GUARD)
    (folder / "attempts").touch()
    return {"PYTHONPATH": str(folder), "ATTEMPTS": str(folder / "attempts")}


@pytest.fixture(scope="module")
def isolated(guarded: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A ComfyUI with the pack and without network; HF_HUB_OFFLINE is not set, which would hide an attempt."""
    runtime, base = Runtime.from_environment(os.environ), tmp_path_factory.mktemp("isolated")
    make_base(base)
    environment = quiet_cpu() | guarded | {"HF_HUB_OFFLINE": "0"}
    with comfyui_server(runtime, base, base / "server.log", flags=("--cpu",), environment=environment) as server:
        yield server


def attempts(guarded: dict[str, str]) -> list[str]:
    return Path(guarded["ATTEMPTS"]).read_text().splitlines()


@pytest.mark.parametrize(
    "code",
    [
        "import socket; socket.create_connection(('192.0.2.1', 80), 1)",
        "import socket; socket.getaddrinfo('example.invalid', 80)",
        "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))",
        "import urllib.request; urllib.request.urlopen('http://example.invalid')",
    ],
)
def test_the_guard_forbids_and_writes_down(guarded: dict[str, str], code: str):
    python = Runtime.from_environment(os.environ).python
    environment = child_environment(guarded)
    result = subprocess.run([python, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert "may not reach" in result.stderr
    log = Path(guarded["ATTEMPTS"])
    assert attempts(guarded)
    log.write_text("")


def test_the_demo_needs_no_network(isolated: Server, guarded: dict[str, str], tmp_path: Path):
    template = json.loads((workflows.API_FOLDER / "tiny_zoo_edit.json").read_text(encoding="utf-8"))
    workflow = adapt(template, isolated.upload(EXAMPLES / "cat.png"), "tiny_zoo/cat2dog")
    node_inputs(workflow, "Pix2PixZeroRegularizedDDIMInvert")["steps"] = 4
    outputs = isolated.run(workflow)
    assert save_images(isolated, workflow, outputs, tmp_path)
    assert attempts(guarded) == []


def test_a_download_that_was_not_asked_for_is_not_tried(isolated: Server, guarded: dict[str, str]):
    graph: Workflow = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 0}},
        "2": {
            "class_type": "Pix2PixZeroBLIPCaption",
            "inputs": {
                "image": ["1", 0],
                "model": "blip-image-captioning-base",
                "prefix": "",
                "max_tokens": 5,
                "beams": 1,
                "download": False,
            },
        },
        "3": {"class_type": "PreviewAny", "inputs": {"source": ["2", 0]}},
    }
    with pytest.raises(Failure, match="is not there yet"):
        isolated.run(graph)
    assert attempts(guarded) == []
    graph["2"]["inputs"]["download"] = True
    with pytest.raises(Failure, match="cannot be downloaded"):
        isolated.run(graph)
    assert any("huggingface.co" in attempt for attempt in attempts(guarded))
    assert not (Path(isolated.log).parent / "models" / "blip" / "blip-image-captioning-base").exists()
    Path(guarded["ATTEMPTS"]).write_text("")
