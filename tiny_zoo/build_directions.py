"""Build Tiny Zoo's edit directions with its text encoder, in a ComfyUI: `python -m tiny_zoo.build_directions`.

Run after a change of the text encoder or of a sentence bank. A direction is tied to its encoder by ComfyUI's view of
the latter, so the pack's own nodes make them: Edit Direction and Save Edit Direction.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from launcher.comfyui import make_base
from launcher.processes import quiet_cpu
from launcher.runtime import Runtime
from launcher.server import comfyui_server
from launcher.workflow import Workflow
from pix2pix_zero_core import load_direction
from pix2pix_zero_core.integrations.sentences import read_edits

from .compose_directions import FOLDER


def workflow(edit: str) -> Workflow:
    """Build one edit's direction and save it."""
    unused = {"source": "", "target": "", "sentences": 1}  # of a custom edit
    inputs = {"edit": f"tiny_zoo/{edit}", **unused, "form": "aligned to words"}
    return {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "tiny_zoo.safetensors"}},
        "2": {"class_type": "Pix2PixZeroEditDirection", "inputs": {"clip": ["1", 1], **inputs}},
        "3": {
            "class_type": "Pix2PixZeroSaveEditDirection",
            "inputs": {"direction": ["2", 0], "name": edit, "overwrite": False},
        },
    }


def main() -> None:
    """Build all of them, then replace the files."""
    runtime = Runtime.from_environment(os.environ)
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary)
        make_base(base)
        flags = ("--cpu", "--fp32-text-enc")
        with comfyui_server(runtime, base, base / "server.log", flags=flags, environment=quiet_cpu()) as server:
            for edit in read_edits(FOLDER):
                server.run(workflow(edit))
        for built in sorted((base / "models" / "edit_directions").glob("*.safetensors")):
            load_direction(built).save(FOLDER / built.name, overwrite=True)
            print(FOLDER / built.name)


if __name__ == "__main__":
    main()
