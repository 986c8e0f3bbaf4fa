"""The client that shares pictures out over several ComfyUI servers, of which one dies on the way."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from authoring import workflows
from launcher.comfyui import make_base
from launcher.processes import quiet_cpu, stop
from launcher.runtime import EXAMPLES, Runtime
from launcher.server import Server, comfyui_server
from launcher.workflow import node_inputs
from pix2pix_zero_cli import comfyui
from pix2pix_zero_cli.main import main

COUNT = 6


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(COUNT):
        shutil.copy(EXAMPLES / ("cat.png", "dog.png")[number % 2], folder / f"{number}.png")
    return folder


@pytest.fixture
def workflow(tmp_path: Path) -> Path:
    """The first workflow, in few steps."""
    content = json.loads((workflows.API_FOLDER / "tiny_zoo_edit.json").read_text(encoding="utf-8"))
    node_inputs(content, "Pix2PixZeroRegularizedDDIMInvert")["steps"] = 2
    path = tmp_path / "workflow.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def rows(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]


def test_a_server_that_dies_loses_no_picture(
    server: Server,
    pictures: Path,
    workflow: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second server is killed while it has a picture to edit."""
    base, output = tmp_path / "base", tmp_path / "out"
    make_base(base)
    monkeypatch.setattr(comfyui, "PAUSES", (0.1, 0.1))
    doomed: list[str] = []
    with ExitStack() as stack:
        second = stack.enter_context(
            comfyui_server(
                Runtime.from_environment(os.environ),
                base,
                base / "server.log",
                flags=("--cpu",),
                environment=quiet_cpu(),
            )
        )
        queue = comfyui.Server.queue

        def queue_and_kill(self: comfyui.Server, content: comfyui.Workflow) -> str:
            prompt = queue(self, content)
            if self.url == second.url:
                doomed.append(prompt)
                stop(second.process)
            return prompt

        monkeypatch.setattr(comfyui.Server, "queue", queue_and_kill)
        command = ["comfyui", str(pictures), "--workflow", str(workflow), "--output", str(output), "--json"]
        assert main([*command, "--server", second.url, "--server", server.url]) == 0
    assert len(doomed) == 1
    said = capsys.readouterr()
    assert f"{second.url} does not answer (" in said.err and f"{second.url} is given up (" in said.err
    *done, summary = [json.loads(line) for line in said.out.splitlines() if line.startswith("{")]
    assert (summary["done"], summary["failed"]) == (COUNT, 0)
    assert sorted(Path(row["picture"]).name for row in done) == sorted(path.name for path in pictures.iterdir())
    assert {row["server"] for row in done} == {server.url}
    for number in range(COUNT):
        edited = output / f"{number}_edited.png"
        assert edited.read_bytes().startswith(b"\x89PNG")
    assert not list(output.glob("*.partial"))

    # What is finished is not asked for again, and nobody needs to be there for it.
    assert main([*command, "--server", second.url]) == 0
    assert rows(capsys)[-1]["skipped"] == COUNT
    (output / "0_edited.png").unlink()
    with pytest.raises(SystemExit) as exit:
        main([*command, "--server", second.url])
    assert exit.value.code == 2
    assert f"--server: no ComfyUI answers at {second.url} (" in capsys.readouterr().err


def test_a_node_that_raises_fails_its_picture_and_the_rest_goes_on(
    server: Server, pictures: Path, workflow: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(2, COUNT):
        (pictures / f"{number}.png").unlink()
    (pictures / "1.png").write_bytes(b"no picture")
    command = ["comfyui", str(pictures), "--workflow", str(workflow), "--server", server.url, "--json"]
    assert main([*command, "--output", str(tmp_path / "out")]) == 3
    by_name = {Path(row["picture"]).name: row for row in rows(capsys)[:-1]}
    assert by_name["0.png"]["status"] == "done"
    assert by_name["1.png"]["status"] == "failed"
    assert "LoadImage" in by_name["1.png"]["error"]


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        ({"nodes": [], "links": []}, [], "no workflow in API format"),
        ({"1": {"class_type": "EmptyImage", "inputs": {}}}, [], "it has no LoadImage node"),
        ({"1": {"class_type": "LoadImage", "inputs": {}}}, ["--node", "7"], "--node 7: the LoadImage nodes of the"),
        ({"1": {"class_type": "LoadImage", "inputs": {}}}, ["--server", "here"], "--server here: it must begin with"),
    ],
)
def test_a_bad_workflow_or_server_is_refused(
    pictures: Path, tmp_path: Path, content: Any, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(content), encoding="utf-8-sig")  # as Notepad and PowerShell write it
    with pytest.raises(SystemExit) as exit:
        main(["comfyui", str(pictures), "--workflow", str(path), "--server", "http://127.0.0.1:1", *options])
    assert exit.value.code == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_results_among_the_pictures_are_refused(pictures: Path, workflow: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as exit:
        command = ["comfyui", str(pictures), "--workflow", str(workflow), "--server", "http://127.0.0.1:1"]
        main([*command, "--output", str(pictures)])
    assert exit.value.code == 2
    assert "is a folder of pictures that are read" in " ".join(capsys.readouterr().err.split())
