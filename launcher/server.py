"""A ComfyUI in a process of our own, up while a block lasts."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
import urllib.error
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from .client import Client
from .messages import Failure, say
from .processes import child_environment, start, stop, tail, wait
from .runtime import Runtime

STARTUP_LIMIT = 600.0  # seconds; generous, for cold disks and busy machines


@dataclass(frozen=True)
class Server(Client):
    """A ComfyUI that this program started."""

    process: subprocess.Popen[bytes]
    log: Path


@contextmanager
def comfyui_server(
    runtime: Runtime,
    base: Path,
    log: Path,
    *,
    port: int | None = None,
    flags: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """Run ComfyUI on a loopback port (a free one by default) while the block lasts, whatever ends the block.

    Raises:
        Failure: the server does not come up or dies; shows the end of its log.
    """
    port = port or free_port()
    command = [runtime.python, "main.py", "--listen", "127.0.0.1", "--port", str(port), "--base-directory", base]
    # Without a database file two servers can share a base; API nodes would call home.
    command += ["--database-url", "sqlite:///:memory:", "--disable-api-nodes", *flags]
    # Each empties its temporary folder when it begins and ends, so each has its own.
    (base / "temp").mkdir(exist_ok=True)
    temporary = tempfile.TemporaryDirectory(dir=base / "temp", ignore_cleanup_errors=True)
    with log.open("wb") as output, temporary as temp:
        command += ["--temp-directory", temp]
        process = start(command, child_environment(environment), folder=runtime.comfyui, output=output)
        server = Server(f"http://127.0.0.1:{port}", process, log)
        try:
            wait_until_ready(server)
            yield server
        except (urllib.error.URLError, ConnectionError) as error:
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=2)  # a dying process closes its connections a moment before it is gone
            if process.returncode is None:
                raise
            raise Failure(f"ComfyUI died with status {process.returncode}; the end of {log}:\n{tail(log)}") from error
        finally:
            stop(process)


def free_port() -> int:
    """A TCP port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_ready(server: Server) -> None:
    """Wait until the server answers, with a sign of life every ten seconds."""
    say(f"starting ComfyUI at {server.url} ...")
    started = shown = time.monotonic()
    while True:
        try:
            server.get("/object_info")
        except (urllib.error.URLError, ConnectionError):
            waited = time.monotonic() - started
            if server.process.poll() is not None:
                raise
            if waited > STARTUP_LIMIT:
                raise Failure(f"no answer after {waited:.0f} s; the end of {server.log}:\n{tail(server.log)}") from None
            if time.monotonic() - shown >= 10:
                shown = time.monotonic()
                say(f"  {waited:.0f} s  {tail(server.log, 1)[:100]}")
            time.sleep(0.1)
        else:
            say(f"ComfyUI is up after {time.monotonic() - started:.1f} s")
            return


def hold_open(server: Server) -> None:
    """Return when the server ends; Ctrl-C interrupts."""
    say(f"ComfyUI is at {server.url} (Ctrl-C stops it)")
    status = wait(server.process)
    raise Failure(f"the server ended with status {status}; the end of its log:\n{tail(server.log)}")
