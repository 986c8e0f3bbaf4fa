"""`python run.py test` and `bench`: linters, tests and benchmarks in the private environment."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from .environment import set_up
from .messages import Failure, say
from .processes import child_environment, quiet_cpu, run_to_end, start, stop
from .runtime import ROOT, Runtime

NONE = 5
"""pytest's exit status where no test was collected."""

LONGEST = "comfy"
"""The suite that takes about as long as all the others."""

FAMILIES = ("tests/comfy/test_text_encoders.py", "tests/comfy/test_transformers.py")
"""Files of the ComfyUI tests that are a suite of their own, so that the longest is not longer than the others."""


def test(runtime: Runtime, arguments: Sequence[str]) -> None:
    """Lint, check types and run every test; paths among the arguments choose the tests, and then nothing is linted.

    Where there are several CPUs the longest suite runs beside the others; its output comes in one piece after theirs.
    """
    set_up(runtime, test=True, bench=True)
    commands, results = test_commands(runtime, arguments), dict[str, tuple[int, float]]()
    with ExitStack() as running:
        beside: Beside | None = None
        if len(commands) > 1 and LONGEST in commands and (os.cpu_count() or 1) > 1:
            beside = Beside(*with_environment(*commands.pop(LONGEST)))
            running.callback(beside.end)
            say(f"\n=== {LONGEST}, beside the others")
        for name, command in commands.items():
            say(f"\n=== {name}")
            started = time.monotonic()
            status = run_to_end(*with_environment(*command))
            results[name] = status, time.monotonic() - started
        if beside is not None:
            say(f"\n=== {LONGEST}")
            results[LONGEST] = beside.read_to_end()
    say("")
    # That no test was collected must not pass for success, but where -k or -m may choose tests of other suites.
    chosen = any(argument.startswith(("-k", "-m")) for argument in arguments)
    passing = {0: "passed", NONE: "without such a test"} if chosen else {0: "passed"}
    for name, (status, seconds) in results.items():
        say(f"{name:<10}{passing.get(status, f'FAILED (exit status {status})')} in {seconds:.0f} s")
    failed = [name for name, (status, _) in results.items() if status not in passing]
    if failed:
        raise Failure(f"{', '.join(failed)} failed, see above")
    if all(status == NONE for status, _ in results.values()):
        raise Failure(f"no test is chosen by {' '.join(arguments)}")


def with_environment(command: list[str | Path], path: list[Path]) -> tuple[list[str | Path], dict[str, str]]:
    """A command and the environment that it runs in, with folders for PYTHONPATH."""
    environment = quiet_cpu() | {"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    if path:
        environment["PYTHONPATH"] = os.pathsep.join(map(str, path))
    return command, child_environment(environment)


class Beside:
    """A process that runs beside others, which use the terminal; its output is kept until then."""

    def __init__(self, command: Sequence[str | Path], environment: Mapping[str, str]) -> None:
        """Start it."""
        self._folder = tempfile.TemporaryDirectory()
        output = Path(self._folder.name) / "output"
        self._written, self._read = output.open("wb"), output.open("rb")
        self._started, self._ended = time.monotonic(), 0.0
        self._process = start(command, environment, output=self._written)
        self._watch = threading.Thread(target=self._wait, daemon=True)
        self._watch.start()

    def _wait(self) -> None:
        self._process.wait()
        self._ended = time.monotonic()

    def read_to_end(self) -> tuple[int, float]:
        """Print what it printed, and prints until it ends; its exit status, and the seconds that it ran."""
        running = True
        while running:
            self._watch.join(0.2)
            running = self._watch.is_alive()
            print(self._read.read().decode(errors="replace"), end="", flush=True)
        return self._process.returncode, self._ended - self._started

    def end(self) -> None:
        """End it, if it still runs, and leave nothing behind."""
        stop(self._process)
        for file in (self._written, self._read):
            file.close()
        self._folder.cleanup()


def test_commands(runtime: Runtime, arguments: Sequence[str]) -> dict[str, tuple[list[str | Path], list[Path]]]:
    """List what `test` runs: name -> command line, and the folders of its PYTHONPATH."""
    scripts = runtime.python.parent
    paths, options = split(arguments)
    commands: dict[str, tuple[list[str | Path], list[Path]]] = {}
    if not arguments:
        commands["ruff"] = [scripts / "ruff", "check", "."], []
        commands["pyright"] = [scripts / "pyright", "--pythonpath", runtime.python], [runtime.comfyui]
    # A process each: with the repository first on the path, the pack's nodes/ hides ComfyUI's nodes.py. And pytest's
    # own script: `python -m pytest` would put the repository first by itself.
    live = ("comfy", "survival")
    chosen: dict[str, list[str]] = {suite: [] for suite in ("core", *live)}
    for path in paths:
        suite = next((suite for suite in live if path.startswith(f"tests/{suite}")), "core")
        chosen[suite].append(path)
    if not paths or "tests" in paths:
        chosen = {
            "core": ["tests", *ignored(f"tests/{suite}" for suite in live)],
            "comfy": ["tests/comfy", *ignored(FAMILIES)],
            "families": list(FAMILIES),
            "survival": ["tests/survival"],
        }
    for suite, what in chosen.items():
        command = [scripts / "pytest", *options, *what]
        if what and suite != "core":
            commands[suite] = [*command, "--override-ini=pythonpath="], [runtime.comfyui, ROOT]
        elif what:
            commands[suite] = command, []
    return commands


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part paths of tests, made relative to the repository, from pytest's options and from what -k and -m choose by."""
    paths: list[str] = []
    options: list[str] = []
    for option, argument in zip(["", *arguments], arguments, strict=False):
        file, *test = argument.split("::")
        path = (ROOT / file).resolve()
        if option not in ("-k", "-m") and path.exists() and path.is_relative_to(ROOT / "tests"):
            paths.append("::".join([path.relative_to(ROOT).as_posix(), *test]))
        else:
            options.append(argument)
    return paths, options


def ignored(paths: Iterable[str]) -> list[str]:
    """Options that leave paths out."""
    return [f"--ignore={path}" for path in paths]


def bench(runtime: Runtime, benchmark: str, arguments: Sequence[str]) -> None:
    """Measure the quality or the speed of edits, methods side by side; an interrupted run goes on where it was."""
    set_up(runtime, bench=True)
    command = [runtime.python, "-m", f"benchmarks.{benchmark}", *arguments]
    status = run_to_end(command, child_environment(quiet_cpu()))
    if status != 0:
        raise Failure(f"the benchmark ended with exit status {status}, see above; run again, it goes on where it was")
