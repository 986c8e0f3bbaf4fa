"""`python run.py serve`: ComfyUI with the pack, for the browser."""

from __future__ import annotations

import socket
import subprocess

from .comfyui import copy_examples, make_base
from .environment import set_up
from .messages import Failure, say
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
    accelerated = subprocess.run(
        [runtime.python, "-c", "import sys, torch; sys.exit(not torch.accelerator.is_available())"], check=False
    )
    flags = ("--preview-method", "auto", *(() if accelerated.returncode == 0 else ("--cpu",)))
    with comfyui_server(runtime, runtime.base, runtime.logs / "serve.log", port=port, flags=flags) as server:
        say(f"models go into {runtime.base / 'models'}, the log is {server.log}")
        hold_open(server)
