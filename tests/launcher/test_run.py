"""The command line: its options, and its exit status."""

from __future__ import annotations

from pathlib import Path

import pytest

import run
from launcher import checks


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
