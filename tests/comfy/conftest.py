"""A live ComfyUI with the pack, for the tests that queue workflows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

import run


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[run.Server]:
    """One server for the session, on the CPU in float32, with a base folder of its own."""
    runtime = run.Runtime.from_environment(os.environ)
    base = tmp_path_factory.mktemp("comfyui")
    run.make_base(base)
    flags = ("--cpu", "--fp32-text-enc")
    with run.comfyui_server(runtime, base, base / "server.log", flags=flags, environment=run.quiet_cpu()) as server:
        yield server


@pytest.fixture(scope="session")
def object_info(server: run.Server) -> dict[str, Any]:
    """The server's description of its nodes, class -> schema."""
    return server.get("/object_info")
