"""What the commands test and bench run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
    monkeypatch.setattr(checks.os, "cpu_count", lambda: 1)
    return commands


def test_everything_passing_passes(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = statuses(monkeypatch, 0, 0, 0, 0, 0, 0)
    checks.test(runtime, [])
    assert [Path(command[0]).name for command in commands] == ["ruff", "pyright", *["pytest"] * 4]
    assert "tests" in commands[2] and {"--ignore=tests/comfy", "--ignore=tests/survival"} < set(commands[2])
    left_out = {path.removeprefix("--ignore=") for path in commands[3] if path.startswith("--ignore=")}
    assert commands[3][1] == "tests/comfy" and left_out == set(checks.FAMILIES) <= set(commands[4])
    assert commands[5][1] == "tests/survival"
    assert all((ROOT / path).is_file() for path in checks.FAMILIES)


@pytest.mark.parametrize(
    "results",
    [
        (1, 0, 0, 0, 0, 0),
        (0, 1, 0, 0, 0, 0),
        (0, 0, 5, 0, 0, 0),
        (0, 0, 0, 1, 0, 0),
        (0, 0, 0, 0, 1, 0),
        (0, 0, 0, 0, 0, 1),
    ],
)
def test_one_failure_fails_but_everything_runs(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, results: tuple[int, ...]
) -> None:
    commands = statuses(monkeypatch, *results)
    with pytest.raises(Failure):
        checks.test(runtime, [])
    assert len(commands) == 6


@pytest.mark.parametrize("status", [0, 3])
def test_the_longest_suite_runs_beside_the_others_where_there_are_cpus(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, status: int
) -> None:
    """It ends only once the others have begun, and is read in one piece."""
    commands = statuses(monkeypatch, 0, 0, 0, 0, 0)
    monkeypatch.setattr(checks.os, "cpu_count", lambda: 2)
    begun, run_to_end = tmp_path / "begun", checks.run_to_end
    monkeypatch.setattr(checks, "run_to_end", lambda *given: begun.touch() or run_to_end(*given))
    program = f"import pathlib, sys, time\nprint('comfy says so')\nwhile not pathlib.Path({str(begun)!r}).exists(): "
    program += f"time.sleep(0.01)\nsys.exit({status})"
    listed = checks.test_commands
    monkeypatch.setattr(
        checks,
        "test_commands",
        lambda *given: listed(*given) | {"comfy": ([sys.executable, "-c", program], [])},
    )
    try:
        checks.test(runtime, [])
    except Failure as failure:
        assert status and str(failure).startswith("comfy failed")
    else:
        assert not status
    assert len(commands) == 5
    said = capsys.readouterr().out
    assert said.index("=== survival") < said.index("comfy says so") < said.index("core      passed")
    assert f"comfy     {'FAILED (exit status 3)' if status else 'passed'} in " in said


def test_a_suite_beside_others_ends_with_them(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[checks.Beside] = []

    class Watched(checks.Beside):
        def __init__(self, *given: Any) -> None:
            super().__init__([sys.executable, "-c", "import time; time.sleep(600)"], {})
            started.append(self)

    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    statuses(monkeypatch)
    monkeypatch.setattr(checks.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(checks, "run_to_end", interrupted)
    monkeypatch.setattr(checks, "Beside", Watched)
    with pytest.raises(KeyboardInterrupt):
        checks.test(runtime, [])
    assert started[0]._process.poll() is not None


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


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM that can be handled")
def test_fixtures_are_torn_down_where_a_run_is_ended(tmp_path: Path) -> None:
    test = tmp_path / "test_it.py"
    test.write_text(
        "import pathlib, time, pytest\n@pytest.fixture(scope='session')\ndef server():\n    yield\n"
        f"    pathlib.Path({str(tmp_path / 'stopped')!r}).touch()\n"
        "def test_it(server):\n    print('up', flush=True)\n    time.sleep(60)\n"
    )
    command = [sys.executable, "-m", "pytest", "-s", "-q", "-p", "tests.conftest", "-p", "no:cacheprovider", test]
    with subprocess.Popen(list(map(str, command)), cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while "up" not in process.stdout.readline():
            assert process.poll() is None
        process.terminate()
        process.communicate()
    assert (tmp_path / "stopped").exists()


@pytest.mark.parametrize(
    ("arguments", "paths", "options"),
    [
        (["-k", "workflows"], [], ["-k", "workflows"]),
        (["-k", "tests", "-x"], [], ["-k", "tests", "-x"]),
        (["-m", "launcher", "tests/core"], ["tests/core"], ["-m", "launcher"]),
        (
            [str(ROOT / "tests" / "comfy" / "test_nodes.py::test_x[a::b]")],
            ["tests/comfy/test_nodes.py::test_x[a::b]"],
            [],
        ),
        (["./tests/core", "-p", "launcher"], ["tests/core"], ["-p", "launcher"]),
    ],
)
def test_only_paths_of_tests_choose_the_suite(arguments: list[str], paths: list[str], options: list[str]) -> None:
    assert checks.split(arguments) == (paths, options)


def test_all_tests_by_name_are_all_suites(runtime: Runtime) -> None:
    assert list(checks.test_commands(runtime, ["tests"])) == ["core", "comfy", "families", "survival"]


def test_an_absolute_path_goes_to_its_suite(runtime: Runtime) -> None:
    assert list(checks.test_commands(runtime, [str(ROOT / "tests" / "comfy" / "test_nodes.py")])) == ["comfy"]


def test_suites_that_have_none_of_the_tests_that_are_asked_for_pass(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    statuses(monkeypatch, 0, 5, 0, 5)
    checks.test(runtime, ["-k", "region"])
    assert "comfy     without such a test" in capsys.readouterr().out
    statuses(monkeypatch, 5, 5, 5, 5)
    with pytest.raises(Failure, match="no test is chosen by -k fish"):
        checks.test(runtime, ["-k", "fish"])
    statuses(monkeypatch, 5, 1, 5, 5)
    with pytest.raises(Failure, match="comfy failed"):
        checks.test(runtime, ["-k", "region"])
    statuses(monkeypatch, 5)
    with pytest.raises(Failure, match="core failed"):
        checks.test(runtime, ["tests/core"])
