"""Freeze what a release promises: `python -m authoring.freeze`, from the repository's root, once it has its version.

Writes what later states are compared with, `nodes-VERSION.json` and a folder VERSION of workflows, to
`tests/comfy/frozen`: the interfaces of all nodes, as a ComfyUI's /object_info tells them, and both formats of the
workflows that one checkpoint runs. What is there already stays: a release does not change. Needs the interpreter that
`python run.py demo` made.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from launcher.comfyui import make_base
from launcher.processes import quiet_cpu
from launcher.runtime import ROOT, Runtime
from launcher.server import comfyui_server

from .formats import pack_version
from .workflows import API_FOLDER, UI_FOLDER

FROZEN = ROOT / "tests" / "comfy" / "frozen"
PREFIX = "Pix2PixZero"

Interface = dict[str, Any]
"""required and optional: name -> type, in order; outputs: name and type, in order."""


def interface(node: dict[str, Any]) -> Interface:
    """What a workflow sees of a node, from /object_info."""

    def inputs(part: str) -> dict[str, str]:
        types = {name: node["input"][part][name][0] for name in node["input_order"].get(part, [])}
        return {name: "COMBO" if isinstance(type_, list) else type_ for name, type_ in types.items()}

    outputs = [list(output) for output in zip(node["output_name"], node["output"], strict=True)]
    return {"required": inputs("required"), "optional": inputs("optional"), "outputs": outputs}


def frozen(object_info: dict[str, Any], version: str) -> dict[Path, str]:
    """Path -> text of every file of a release."""
    nodes = {name: interface(node) for name, node in object_info.items() if name.startswith(PREFIX)}
    files = {FROZEN / f"nodes-{version}.json": json.dumps(nodes, indent=1) + "\n"}
    for twin in sorted(API_FOLDER.glob("*.json")):
        content = twin.read_text(encoding="utf-8")
        loaders = {node["class_type"] for node in json.loads(content).values() if "Loader" in node["class_type"]}
        if loaders <= {"CheckpointLoaderSimple"}:
            files[FROZEN / version / f"{twin.stem}.api.json"] = content
            files[FROZEN / version / twin.name] = (UI_FOLDER / twin.name).read_text(encoding="utf-8")
    return files


def main() -> None:
    """Ask a ComfyUI, and write the files.

    Raises:
        FileExistsError: the release is frozen already.
    """
    runtime = Runtime.from_environment(os.environ)
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary)
        make_base(base)
        log = base / "server.log"
        with comfyui_server(runtime, base, log, flags=("--cpu",), environment=quiet_cpu()) as server:
            files = frozen(server.get("/object_info"), pack_version())
    for path, text in files.items():
        path.parent.mkdir(exist_ok=True)
        with path.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
