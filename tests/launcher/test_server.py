"""A server that is stopped whatever happens, and whose death shows its log."""

from __future__ import annotations

import ast
import os
import sys
import urllib.error
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.messages import Failure
from launcher.runtime import Runtime
from launcher.server import Server, comfyui_server

posix_only = pytest.mark.skipif(os.name == "nt", reason="the stand-in interpreter is a symbolic link")
FAKE_COMFYUI = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path != "/object_info":
            import os; print("out of memory", flush=True); os._exit(9)
        self.send_response(200); self.end_headers(); self.wfile.write(b"{}")
http.server.HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""


@pytest.fixture
def fake_comfyui(tmp_path: Path) -> Callable[[str], Runtime]:
    """A function that makes an environment whose ComfyUI is the given program."""

    def make(program: str) -> Runtime:
        runtime = Runtime(tmp_path, tmp_path / "comfyui")
        runtime.comfyui.mkdir()
        (runtime.comfyui / "main.py").write_text(program)
        runtime.python.parent.mkdir(parents=True)
        runtime.python.symlink_to(sys.executable)
        return runtime

    return make


@posix_only
def test_a_server_that_does_not_start_shows_its_log(fake_comfyui: Callable[[str], Runtime], tmp_path: Path) -> None:
    runtime = fake_comfyui("raise SystemExit('no module named torch')")
    with (
        pytest.raises(Failure, match=r"ComfyUI died with status 1(.*\n)+no module named torch"),
        comfyui_server(runtime, tmp_path, tmp_path / "log"),
    ):
        pytest.fail("the block must not be entered")


@posix_only
@pytest.mark.parametrize("exception", [None, ValueError("in the block"), KeyboardInterrupt()])
def test_the_server_is_stopped_whatever_ends_the_block(
    fake_comfyui: Callable[[str], Runtime], tmp_path: Path, exception: BaseException | None
) -> None:
    servers: list[Server] = []

    def use() -> None:
        with comfyui_server(fake_comfyui(FAKE_COMFYUI), tmp_path, tmp_path / "log") as server:
            servers.append(server)
            assert server.process.poll() is None
            if exception is not None:
                raise exception

    if exception is None:
        use()
    else:
        with pytest.raises(type(exception)):
            use()
    assert servers[0].process.returncode is not None
    with pytest.raises(urllib.error.URLError):
        servers[0].get("/object_info")


@posix_only
def test_a_server_that_dies_under_way_shows_its_log(fake_comfyui: Callable[[str], Runtime], tmp_path: Path) -> None:
    with (
        pytest.raises(Failure, match=r"ComfyUI died with status 9(.*\n)+out of memory"),
        comfyui_server(fake_comfyui(FAKE_COMFYUI), tmp_path, tmp_path / "log") as server,
    ):
        server.get("/queue")


@posix_only
def test_servers_of_one_base_have_a_temporary_folder_each(
    fake_comfyui: Callable[[str], Runtime], tmp_path: Path
) -> None:
    folders: list[Path] = []
    runtime = fake_comfyui("import sys; print(sys.argv)\n" + FAKE_COMFYUI)
    for name in ("first", "second"):
        with comfyui_server(runtime, tmp_path, tmp_path / name) as server:
            options = ast.literal_eval(server.log.read_text().splitlines()[0])
            folders.append(Path(options[options.index("--temp-directory") + 1]))
            assert folders[-1].is_dir() and folders[-1].parent == tmp_path / "temp"
        assert not folders[-1].exists()
    assert folders[0] != folders[1]
