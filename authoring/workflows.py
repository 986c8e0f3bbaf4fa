"""Write the shipped workflows: `python -m authoring.workflows`, from the repository's root.

Each graph is described once, in `graphs.py`, and written twice: in the UI format that a browser opens (`workflows/`),
and in the API format that POST /prompt takes. The latter lies elsewhere, or ComfyUI would offer it as a template.
Blueprints, graphs that become one node, are in `subgraphs/`, where ComfyUI looks for them.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from launcher.runtime import ROOT

from .formats import api_format, blueprint, ui_format
from .graphs import BLUEPRINTS, GRAPHS

UI_FOLDER = ROOT / "workflows"
API_FOLDER = ROOT / "demo" / "api"
BLUEPRINT_FOLDER = ROOT / "subgraphs"


def compose() -> dict[Path, str]:
    """Path -> text of every file."""
    files = {BLUEPRINT_FOLDER / f"{name}.json": blueprint(graph, name) for name, graph in BLUEPRINTS.items()}
    for name, graph in GRAPHS.items():
        files[UI_FOLDER / f"{name}.json"] = ui_format(graph)
        files[API_FOLDER / f"{name}.json"] = api_format(graph)
    # ASCII only: ComfyUI reads blueprints in the encoding of the system.
    return {path: json.dumps(content, indent=2) + "\n" for path, content in files.items()}


if __name__ == "__main__":
    for path, text in compose().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".partial")
        unfinished.write_text(text, encoding="utf-8", newline="\n")
        os.replace(unfinished, path)
        print(path.relative_to(ROOT))
