"""Processes that end as a whole and say what went wrong."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from launcher import processes
from launcher.messages import Failure
from launcher.server import Server, hold_open


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_failed_step_says_which_command_failed_how_and_what_to_do(tmp_path: Path) -> None:
    code = "print('first'); print('No space left'); raise SystemExit(3)"
    with pytest.raises(Failure) as failure:
        processes.execute("installing everything", python(code), tmp_path / "log", remedy="free some disk")
    message = str(failure.value)
    assert "installing everything failed with exit status 3" in message
    assert f"command: {sys.executable} -c " in message
    assert "first\nNo space left" in message
    assert "What to do: free some disk" in message


def test_an_interrupted_step_takes_its_process_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    start = processes.start

    def remember(*arguments: Any, **settings: Any) -> subprocess.Popen[bytes]:
        started.append(start(*arguments, **settings))
        return started[0]

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(processes, "start", remember)
    monkeypatch.setattr(processes, "time", SimpleNamespace(monotonic=time.monotonic, sleep=interrupt))
    with pytest.raises(KeyboardInterrupt):
        processes.execute("waiting", python("import time; time.sleep(60)"), tmp_path / "log")
    assert started[0].returncode is not None


@pytest.mark.skipif(os.name == "nt", reason="pipes are handed to child processes in another way")
def test_stopping_ends_the_whole_process_group(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    sleep = "import time; time.sleep(60)"
    code = (
        f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {sleep!r}]); print('up', flush=True); {sleep}"
    )
    with os.fdopen(writer, "wb") as output, os.fdopen(reader, "rb") as pipe:
        process = processes.start(python(code), processes.child_environment(), output=output)
        output.close()
        assert pipe.readline() == b"up\n"
        processes.stop(process)
        assert pipe.read() == b""  # ends only when nobody holds the other end any more


def test_a_childs_imports_are_not_led_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    assert "PYTHONPATH" not in processes.child_environment()
    assert processes.child_environment({"PYTHONPATH": "/here"})["PYTHONPATH"] == "/here"


def test_the_users_thread_count_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert processes.quiet_cpu()["OMP_NUM_THREADS"] == "7"
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert processes.quiet_cpu()["OMP_NUM_THREADS"] == "1"


class Uninterruptible:
    """A process as on Windows, which Ctrl-C does not reach while somebody waits for it without an end."""

    pid = 0

    def __init__(self) -> None:
        self.polls = 0

    def poll(self) -> int | None:
        self.polls += 1
        return 3 if self.polls > 2 else None

    def wait(self, timeout: float | None = None) -> int:
        assert timeout is not None, "cannot be interrupted"
        return 3


def test_a_wait_can_be_interrupted_where_a_long_one_could_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    process: Any = Uninterruptible()
    monkeypatch.setattr(processes, "start", lambda *_: process)
    monkeypatch.setattr(processes, "stop", lambda process: None)
    assert processes.run_to_end([], {}) == 3

    process, log = Uninterruptible(), tmp_path / "log"
    log.touch()
    with pytest.raises(Failure, match="the server ended with status 3"):
        hold_open(Server("http://127.0.0.1:1", process, log))
