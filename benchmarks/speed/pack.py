"""The node pack in a process of its own, beside ComfyUI's modules and without its server."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def find_comfyui(flags: Sequence[str]) -> None:
    """Put ComfyUI's tree where this process's modules come from, and its flags where it reads them."""
    if "COMFYUI_PATH" not in os.environ:
        raise SystemExit("Set COMFYUI_PATH to the folder that holds ComfyUI's main.py; run.py makes one in .runtime.")
    sys.path[0] = str(Path(os.environ["COMFYUI_PATH"]).resolve())  # instead of this folder
    sys.argv = [sys.argv[0], *flags]
    import comfy.options

    comfy.options.enable_args_parsing()


def load_pack() -> Any:
    """Import the pack beside ComfyUI's modules."""
    spec = importlib.util.spec_from_file_location(
        "pix2pix_zero", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    asyncio.run(module.comfy_entrypoint())
    return module
