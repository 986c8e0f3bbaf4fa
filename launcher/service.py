"""`python run.py serve`: ComfyUI with the pack, for the browser."""

from __future__ import annotations

import socket
import subprocess

from .comfyui import copy_examples, make_base
from .environment import set_up
from .messages import Failure, say
from .processes import child_environment
from .runtime import Runtime
from .server import comfyui_server, hold_open


def serve(runtime: Runtime, port: int) -> None:
    """Open ComfyUI with the pack on a loopback port, until Ctrl-C."""
    set_up(runtime)
    make_base(runtime.base)
    copy_examples(runtime.base)
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise Failure(f"port {port} is taken: choose another with --port")
    accelerated = has_accelerator(runtime)
    say(f"ComfyUI computes on the {'GPU' if accelerated else 'CPU: torch finds no GPU here'}")
    flags = ("--preview-method", "auto", *(() if accelerated else ("--cpu",)))
    with comfyui_server(runtime, runtime.base, runtime.logs / "serve.log", port=port, flags=flags) as server:
        say(f"models go into {runtime.base / 'models'}, the log is {server.log}")
        hold_open(server)


def has_accelerator(runtime: Runtime) -> bool:
    """Whether torch finds a GPU here, in the environment that ComfyUI will have."""
    code = "import sys, torch; sys.exit(not torch.accelerator.is_available())"
    return subprocess.run([runtime.python, "-c", code], env=child_environment(), check=False).returncode == 0
