"""`python run.py demo`: one picture, edited in a headless ComfyUI."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from .client import save_images
from .comfyui import make_base
from .environment import set_up
from .messages import Failure, say
from .processes import quiet_cpu
from .runtime import EXAMPLES, ROOT, Runtime
from .server import comfyui_server, hold_open
from .workflow import adapt, find_node


def demo(runtime: Runtime, image: Path | None, edit: str, output: Path, *, keep_open: bool) -> None:
    """Edit one picture in a headless ComfyUI; save source, reconstruction, edited picture and all side by side.

    Raises:
        Failure: there is no such edit or picture, or no folder for the results; the set-up or the edit fails.
    """
    started = time.monotonic()
    edits = json.loads((ROOT / "tiny_zoo" / "directions" / "edits.json").read_text(encoding="utf-8"))
    if edit not in edits:
        raise Failure(f"--edit {edit}: the edits are {', '.join(edits)}")
    template = json.loads((ROOT / "demo" / "api" / "tiny_zoo_edit.json").read_text(encoding="utf-8"))
    picture = image or EXAMPLES / f"{edit.partition('2')[0]}.png"  # cat.png for cat2dog
    if not picture.is_file():
        raise Failure(f"no picture at {picture}: give an existing file with --image")
    there = next(path for path in (output.absolute(), *output.absolute().parents) if path.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise Failure(f"--output {output}: {there} is no folder that can be written; name another")
    set_up(runtime)
    make_base(runtime.base)
    log = runtime.logs / "demo.log"
    with comfyui_server(runtime, runtime.base, log, flags=("--cpu",), environment=quiet_cpu()) as server:
        workflow = adapt(template, server.upload(picture), f"tiny_zoo/{edit}")
        say(f"editing {picture.name} ({edit})")
        outputs = server.run(workflow, on_wait=lambda seconds, state: say(f"  {state}, {seconds:.0f} s"))
        paths = save_images(server, workflow, outputs, output)
        (caption,) = outputs[find_node(workflow, "PreviewAny")]["text"]
        for title, path in paths.items():
            say(f"{title + ':':<16}{path}")
        say(f"{'caption:':<16}{caption}")
        say(f"{'time:':<16}{time.monotonic() - started:.1f} s in all")
        if keep_open:
            hold_open(server)
