"""Child processes: each in a group of its own, which ends as a whole."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from .messages import Failure, say
from .runtime import ROOT


def child_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a child: the user's, without what would lead its imports elsewhere."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return kept | {"PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"} | dict(extra or {})


def quiet_cpu() -> dict[str, str]:
    """Settings for tiny models on a CPU without network.

    One thread by default: such models gain little from more, which wait for each other wherever a core is busy.
    """
    threads = os.environ.get("OMP_NUM_THREADS", "1")
    return {"OMP_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}


def start(
    command: Sequence[str | Path],
    environment: Mapping[str, str],
    *,
    folder: Path = ROOT,
    output: IO[bytes] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a process in a group of its own, which `stop` can end as a whole; without `output` it uses the terminal."""
    return subprocess.Popen(
        [str(part) for part in command],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=None if output is None else subprocess.STDOUT,
        creationflags=subprocess.CREATE_NEW_PROCESS_GROUP if sys.platform == "win32" else 0,
        start_new_session=sys.platform != "win32",
    )


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process and everything that it started."""
    if sys.platform == "win32":
        if process.poll() is None:
            subprocess.run(["taskkill", "/F", "/T", "/PID", str(process.pid)], capture_output=True, check=False)
    else:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=10)
    wait(process)


def wait(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process, and return its exit status; in short waits, since Windows cannot interrupt a long one."""
    while (status := process.poll()) is None:
        time.sleep(0.2)
    return status


def run_to_end(command: Sequence[str | Path], environment: Mapping[str, str]) -> int:
    """Run a command on this terminal and return its exit status."""
    process = start(command, environment)
    try:
        return wait(process)
    finally:
        stop(process)


def execute(step: str, command: Sequence[str | Path], log: Path, remedy: str = "") -> None:
    """Run a step of the set-up, its output in a log, with a sign of life every ten seconds.

    Raises:
        Failure: it exited with another status than 0; names the step, the command and the last lines of its output.
    """
    say(f"{step} ...")
    started = shown = time.monotonic()
    with log.open("wb") as output:
        process = start(command, child_environment(), output=output)
        try:
            while process.poll() is None:
                time.sleep(0.1)
                if time.monotonic() - shown >= 10:
                    shown = time.monotonic()
                    say(f"  {shown - started:.0f} s  {tail(log, 1)[:100]}")
        finally:
            stop(process)
    if process.returncode != 0:
        advice = remedy or "check network, proxy and free disk space"
        raise Failure(
            f"{step} failed with exit status {process.returncode}\ncommand: {shlex.join(map(str, command))}\n"
            f"the last lines of {log}:\n{tail(log)}\nWhat to do: {advice}; then run it again, it continues from here."
        )


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log, those of pip's lists of versions cut short."""
    text = log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
    return "\n".join(line if len(line) <= 300 else line[:300] + " ..." for line in text)


def exit_by_exception(signals: Sequence[str]) -> None:
    """Turn signals that would kill this process into exits that stop its servers; ignored ones stay ignored."""
    for number in (getattr(signal, name) for name in signals if hasattr(signal, name)):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, lambda number, frame: sys.exit(128 + number))
