"""Fetching BLIP from a server that looks like Hugging Face: a local one."""

from __future__ import annotations

import http.server
import os
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from pix2pix_zero_core.integrations.download import REPOSITORIES, UNFINISHED, download_blip

BASE, LARGE = REPOSITORIES
BASE_FILES = {
    "config.json": b"{}",
    "preprocessor_config.json": b"{}",
    "tokenizer_config.json": b"{}",
    "vocab.txt": b"cat\n",
    "pytorch_model.bin": b"weights" * 1000,
}
LARGE_FILES = BASE_FILES | {"tokenizer.json": b"{}", "model.safetensors": b"safe" * 1000}


class Repository(http.server.BaseHTTPRequestHandler):
    """Serves the files of both repositories; `truncated` names one whose end it does not send."""

    files: ClassVar[dict[str, bytes]] = {
        f"/{REPOSITORIES[name]}/resolve/main/{file}": content
        for name, files in ((BASE, BASE_FILES), (LARGE, LARGE_FILES))
        for file, content in files.items()
    }
    truncated = ""

    def do_GET(self) -> None:
        content = self.files.get(self.path)
        if content is None:
            return self.send_error(404)
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:-5] if self.path.endswith(self.truncated or "\0") else content)

    def log_message(self, *arguments: object) -> None:
        """Say nothing on the console."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Repository]]:
    handler = type("Handler", (Repository,), {})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{running.server_port}/")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield handler
        running.shutdown()


@pytest.mark.parametrize(
    ("name", "left_out"), [(BASE, ()), (LARGE, ("vocab.txt", "pytorch_model.bin"))], ids=["base", "large"]
)
def test_every_part_is_fetched_in_its_preferred_form(
    server: type[Repository], tmp_path: Path, name: str, left_out: tuple[str, ...]
) -> None:
    folder, progress = tmp_path / "blip" / name, []
    download_blip(name, folder, lambda done, size: progress.append((done, size)))
    files = BASE_FILES if name == BASE else LARGE_FILES
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        file: content for file, content in files.items() if file not in left_out
    }
    assert [path.name for path in folder.parent.iterdir()] == [name]
    weights = max(map(len, (files[file] for file in files if file not in left_out)))
    assert progress[-1] == (weights, weights)


@pytest.mark.parametrize("missing", ["config.json", "vocab.txt", "pytorch_model.bin"])
def test_a_repository_that_lacks_a_part_leaves_nothing_behind(
    server: type[Repository], tmp_path: Path, missing: str
) -> None:
    gone = f"/{REPOSITORIES[BASE]}/resolve/main/{missing}"
    server.files = {path: content for path, content in server.files.items() if path != gone}
    with pytest.raises(ConnectionError, match=rf"{re.escape(missing)}.*404.*Put the files of Salesforce/{BASE} into"):
        download_blip(BASE, tmp_path / BASE)
    assert not list(tmp_path.iterdir())


def test_a_file_that_ends_early_leaves_nothing_behind(server: type[Repository], tmp_path: Path) -> None:
    server.truncated = "pytorch_model.bin"
    with pytest.raises(ConnectionError, match=r"(?i)6995.*by hand"):
        download_blip(BASE, tmp_path / BASE)
    assert not list(tmp_path.iterdir())


def test_whoever_watches_may_stop_it(server: type[Repository], tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(done: int, size: int) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        download_blip(BASE, tmp_path / BASE, stop)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", ["1", "true", "ON"])
def test_offline_means_no_connection(
    server: type[Repository], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError(f"the network was used: {arguments}")

    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(ConnectionError, match=rf"HF_HUB_OFFLINE forbids.*{re.escape(str(tmp_path / BASE))} by hand"):
        download_blip(BASE, tmp_path / BASE)


def test_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(ConnectionError, match=r"cannot be downloaded.*refused.*by hand"):
        download_blip(BASE, tmp_path / BASE)


def test_what_exists_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / BASE).mkdir()
    with pytest.raises(FileExistsError, match="Complete it or remove it"):
        download_blip(BASE, tmp_path / BASE)
    with pytest.raises(ValueError, match=f"'other' cannot be downloaded; it must be one of {BASE}, {LARGE}"):
        download_blip("other", tmp_path / "other")


def test_what_a_killed_download_left_is_cleared_away_after_a_day(server: type[Repository], tmp_path: Path) -> None:
    old, new = (tmp_path / f"{BASE}.{name}{UNFINISHED}" for name in ("old", "new"))
    for folder in (old, new):
        folder.mkdir()
    os.utime(old, (0, 0))
    download_blip(BASE, tmp_path / BASE)
    assert not old.exists() and new.exists()
