"""`python run.py test` and `bench`: linters, tests and benchmarks in the private environment."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from .environment import set_up
from .messages import Failure, say
from .processes import child_environment, quiet_cpu, run_to_end
from .runtime import ROOT, Runtime


def test(runtime: Runtime, arguments: Sequence[str]) -> None:
    """Lint, check types and run every test; paths among the arguments choose the tests, and then nothing is linted."""
    set_up(runtime, test=True, bench=True)
    results: dict[str, tuple[int, float]] = {}
    for name, (command, path) in test_commands(runtime, arguments).items():
        say(f"\n=== {name}")
        started = time.monotonic()
        environment = quiet_cpu() | {"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
        if path:
            environment["PYTHONPATH"] = os.pathsep.join(map(str, path))
        status = run_to_end(command, child_environment(environment))
        results[name] = status, time.monotonic() - started
    say("")
    for name, (status, seconds) in results.items():
        # pytest's 5 is "no test was collected", which must not pass for success.
        say(f"{name:<10}{'passed' if status == 0 else f'FAILED (exit status {status})'} in {seconds:.0f} s")
    failed = [name for name, (status, _) in results.items() if status != 0]
    if failed:
        raise Failure(f"{', '.join(failed)} failed, see above")


def test_commands(runtime: Runtime, arguments: Sequence[str]) -> dict[str, tuple[list[str | Path], list[Path]]]:
    """List what `test` runs: name -> command line, and the folders of its PYTHONPATH."""
    scripts = runtime.python.parent
    paths = [argument for argument in arguments if (ROOT / argument.split("::")[0]).exists()]
    options = [argument for argument in arguments if argument not in paths]
    commands: dict[str, tuple[list[str | Path], list[Path]]] = {}
    if not arguments:
        commands["ruff"] = [scripts / "ruff", "check", "."], []
        commands["pyright"] = [scripts / "pyright", "--pythonpath", runtime.python], [runtime.comfyui]
    # A process each: with the repository first on the path, the pack's nodes/ hides ComfyUI's nodes.py. And pytest's
    # own script: `python -m pytest` would put the repository first by itself.
    live = ("comfy", "survival")
    chosen: dict[str, list[str]] = {suite: [] for suite in ("core", *live)}
    for path in paths:
        suite = next((suite for suite in live if Path(path).as_posix().startswith(f"tests/{suite}")), "core")
        chosen[suite].append(path)
    if not paths:
        chosen = {"core": ["tests", *(f"--ignore=tests/{suite}" for suite in live)]} | {s: [f"tests/{s}"] for s in live}
    for suite, what in chosen.items():
        command = [scripts / "pytest", *options, *what]
        if what and suite in live:
            commands[suite] = [*command, "--override-ini=pythonpath="], [runtime.comfyui, ROOT]
        elif what:
            commands[suite] = command, []
    return commands


def bench(runtime: Runtime, benchmark: str, arguments: Sequence[str]) -> None:
    """Measure the quality or the speed of edits, methods side by side; an interrupted run goes on where it was."""
    set_up(runtime, bench=True)
    command = [runtime.python, "-m", f"benchmarks.{benchmark}", *arguments]
    status = run_to_end(command, child_environment(quiet_cpu()))
    if status != 0:
        raise Failure(f"the benchmark ended with exit status {status}, see above; run again, it goes on where it was")
