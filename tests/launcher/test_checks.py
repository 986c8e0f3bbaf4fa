"""What the commands test and bench run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from launcher import checks
from launcher.messages import Failure
from launcher.runtime import ROOT, Runtime


def statuses(monkeypatch: pytest.MonkeyPatch, *results: int) -> list[list[str]]:
    commands: list[list[str]] = []
    answers = iter(results)

    def run_to_end(command: Sequence[str | Path], environment: dict[str, str]) -> int:
        commands.append([str(part) for part in command])
        return next(answers)

    monkeypatch.setattr(checks, "set_up", lambda runtime, *, test, bench: None)
    monkeypatch.setattr(checks, "run_to_end", run_to_end)
    return commands


def test_everything_passing_passes(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = statuses(monkeypatch, 0, 0, 0, 0, 0)
    checks.test(runtime, [])
    assert [Path(command[0]).name for command in commands] == ["ruff", "pyright", "pytest", "pytest", "pytest"]
    assert "tests" in commands[2] and {"--ignore=tests/comfy", "--ignore=tests/survival"} < set(commands[2])
    assert [command[1] for command in commands[3:]] == ["tests/comfy", "tests/survival"]


@pytest.mark.parametrize(
    "results", [(1, 0, 0, 0, 0), (0, 1, 0, 0, 0), (0, 0, 5, 0, 0), (0, 0, 0, 1, 0), (0, 0, 0, 0, 1)]
)
def test_one_failure_fails_but_everything_runs(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, results: tuple[int, ...]
) -> None:
    commands = statuses(monkeypatch, *results)
    with pytest.raises(Failure):
        checks.test(runtime, [])
    assert len(commands) == 5


def test_paths_choose_the_suite_and_skip_the_linters(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = statuses(monkeypatch, 0)
    checks.test(runtime, ["tests/launcher/test_run.py::test_x", "-q"])
    (command,) = commands
    assert command[1:] == ["-q", "tests/launcher/test_run.py::test_x"]


@pytest.mark.parametrize("suite", ["comfy", "survival"])
def test_live_tests_see_comfyuis_nodes_before_the_packs(runtime: Runtime, suite: str) -> None:
    command, path = checks.test_commands(runtime, [f"tests/{suite}", "tests/core"])[suite]
    assert command[1:] == [f"tests/{suite}", "--override-ini=pythonpath="]
    assert path == [runtime.comfyui, ROOT]
