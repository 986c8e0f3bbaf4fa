"""The command line: its options, and its exit status."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import run
from launcher import checks, demo, service
from launcher.messages import Failure
from launcher.server import free_port


def test_a_failure_is_printed_and_ends_with_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path / "nowhere"))
    assert run.main(["demo"]) == 1
    assert "error: COMFYUI_PATH=" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "passed"),
    [
        ([], ["benchmarks.quality"]),
        (["--quick"], ["benchmarks.quality", "--quick"]),
        (["--count", "3", "--quick"], ["benchmarks.quality", "--quick", "--count", "3"]),
        (["--speed", "--quick"], ["benchmarks.speed", "--quick"]),
    ],
)
def test_the_benchmark_gets_its_options(monkeypatch: pytest.MonkeyPatch, given: list[str], passed: list[str]) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(checks, "set_up", lambda runtime, *, bench: None)
    monkeypatch.setattr(checks, "run_to_end", lambda command, environment: commands.append(command) or 0)
    assert run.main(["bench", *given]) == 0
    assert [command[1:] for command in commands] == [["-m", *passed]]


def test_a_benchmark_that_fails_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(checks, "set_up", lambda runtime, *, bench: None)
    monkeypatch.setattr(checks, "run_to_end", lambda command, environment: 1)
    assert run.main(["bench"]) == 1
    assert "goes on where it was" in capsys.readouterr().out


@pytest.mark.parametrize("port", ["0", "-1", "65536", "99999", "http"])
def test_a_port_that_is_none_is_refused_before_the_set_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], port: str
) -> None:
    monkeypatch.setattr(service, "set_up", lambda runtime: pytest.fail("too late"))
    with pytest.raises(SystemExit) as exit:
        run.main(["serve", "--port", port])
    assert exit.value.code == 2
    assert f"argument --port: {port} is no port; it must be 1 to 65535" in capsys.readouterr().err


def test_an_environment_that_cannot_be_written_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "a_file").touch()
    monkeypatch.setenv("PIX2PIX_ZERO_RUNTIME", str(tmp_path / "a_file"))
    assert run.main(["demo"]) == 1
    said = capsys.readouterr().out
    assert f"error: PIX2PIX_ZERO_RUNTIME: the environment cannot be at {tmp_path / 'a_file'} (" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--edit", "tiger2lion"], "--edit tiger2lion: the edits are cat2dog, dog2cat, "),
        (["--edit", "cat2fox"], "--edit cat2fox: the edits are cat2dog, dog2cat, "),
        (["--image", "nowhere.png"], "no picture at nowhere.png: give an existing file with --image"),
        (["--output", __file__], f"--output {__file__}: {__file__} is no folder that can be written"),
        (["--output", f"{__file__}/deeper"], f"{__file__} is no folder that can be written"),
    ],
)
def test_a_demo_that_cannot_be_made_is_refused_before_the_set_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    monkeypatch.setattr(demo, "set_up", lambda runtime: pytest.fail("too late"))
    assert run.main(["demo", *options]) == 1
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(("status", "device"), [(0, "GPU"), (1, "CPU: torch finds no GPU here")])
def test_serve_says_where_it_computes_and_asks_in_the_environment_of_comfyui(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, status: int, device: str
) -> None:
    asked: list[dict[str, str]] = []

    def ask(command: list[str], *, env: dict[str, str], check: bool) -> subprocess.CompletedProcess[str]:
        asked.append(env)
        return subprocess.CompletedProcess(command, status)

    def serve(*_: object, flags: tuple[str, ...], **__: object) -> None:
        assert ("--cpu" in flags) == (status != 0)
        raise Failure("seen")

    monkeypatch.setenv("PIX2PIX_ZERO_RUNTIME", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setattr(service, "set_up", lambda runtime: None)
    monkeypatch.setattr(service, "comfyui_server", serve)
    monkeypatch.setattr(service.subprocess, "run", ask)
    assert run.main(["serve", "--port", str(free_port())]) == 1
    said = capsys.readouterr().out
    assert f"ComfyUI computes on the {device}\n" in said and "error: seen" in said
    assert [environment.get("PYTHONPATH") for environment in asked] == [None]
