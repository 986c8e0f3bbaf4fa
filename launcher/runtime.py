"""Where things are: in the repository, and in the private environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from . import pins
from .messages import Failure

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "web" / "examples"  # in the folder that ComfyUI serves: the template brings its picture along
PACK = "pix2pix-zero"


@dataclass(frozen=True)
class Runtime:
    """Where the private environment lies: a virtual environment, a ComfyUI, a base folder, logs.

    `version` is the release of a ComfyUI that run.py fetches; None where COMFYUI_PATH names one.
    """

    root: Path
    comfyui: Path
    version: str | None = None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Runtime:
        """Read COMFYUI_PATH, COMFYUI_VERSION and PIX2PIX_ZERO_RUNTIME.

        Raises:
            Failure: COMFYUI_PATH does not name a ComfyUI, COMFYUI_VERSION none that can be fetched, or both are given.
        """
        root = Path(environ.get("PIX2PIX_ZERO_RUNTIME") or ROOT / ".runtime").expanduser().resolve()
        if not environ.get("COMFYUI_PATH"):
            version = environ.get("COMFYUI_VERSION") or pins.COMFYUI_VERSION
            if version not in pins.COMFYUI_WHEELS:
                raise Failure(
                    f"COMFYUI_VERSION={version} cannot be fetched: choose {' or '.join(pins.COMFYUI_WHEELS)}, or get "
                    "it yourself and name its folder in COMFYUI_PATH"
                )
            return cls(root, root / f"comfyui-{version}", version)
        if environ.get("COMFYUI_VERSION"):
            raise Failure(
                f"COMFYUI_VERSION={environ['COMFYUI_VERSION']} and COMFYUI_PATH={environ['COMFYUI_PATH']}: one says "
                "which ComfyUI to fetch, the other which is there; unset one of them"
            )
        comfyui = Path(environ["COMFYUI_PATH"]).expanduser().resolve()
        needed = ("main.py", "nodes.py", "comfy", "requirements.txt")
        missing = [name for name in needed if not (comfyui / name).exists()]
        if missing:
            raise Failure(
                f"COMFYUI_PATH={environ['COMFYUI_PATH']} is no ComfyUI ({', '.join(missing)} missing): "
                "name the folder that holds ComfyUI's main.py, or unset it to use the pinned one"
            )
        return cls(root, comfyui)

    @property
    def venv(self) -> Path:
        """The virtual environment."""
        return self.root / "venv"

    @property
    def python(self) -> Path:
        """The interpreter of the virtual environment; its scripts lie beside it."""
        return self.venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    @property
    def base(self) -> Path:
        """The base folder of `demo` and `serve`: models, input, output, custom nodes."""
        return self.root / "base"

    @property
    def logs(self) -> Path:
        """One log a step of the set-up and a server."""
        return self.root / "logs"
