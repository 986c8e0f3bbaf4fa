"""Write the English names and tooltips: `python -m authoring.locales http://127.0.0.1:8188`, beside a running ComfyUI.

They are what the nodes themselves say, in the form that translators start from: copy `locales/en/nodeDefs.json` to
another language's folder, or what is new in it, and translate. Names on the left and numbers of outputs stay as they
are.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from launcher.client import Client
from launcher.runtime import PACK, ROOT

FOLDER = ROOT / "locales"


def english(object_info: Mapping[str, Any]) -> dict[str, Any]:
    """Names, descriptions and tooltips of the pack's nodes, in the front end's form.

    Args:
        object_info: a server's description of its nodes.
    """
    return {
        node_id: {
            "display_name": node["display_name"],
            "description": node["description"],
            "inputs": {
                name: {"name": name, "tooltip": (*node["input"][part][name], {})[1].get("tooltip", "")}
                for part, names in node["input_order"].items()
                if part != "hidden"
                for name in names
            },
            "outputs": {
                str(i): {"name": name, "tooltip": tooltip or ""}
                for i, (name, tooltip) in enumerate(zip(node["output_name"], node["output_tooltips"], strict=True))
            },
        }
        for node_id, node in sorted(object_info.items())
        if node["python_module"] == f"custom_nodes.{PACK}"
    }


if __name__ == "__main__":
    path = FOLDER / "en" / "nodeDefs.json"
    text = json.dumps(english(Client(sys.argv[1]).get("/object_info")), indent=2) + "\n"
    path.write_text(text, encoding="utf-8", newline="\n")
    print(path)
