"""The arrows of the architecture, checked on the source: nodes -> integrations -> core, and nobody the other way."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("pix2pix_zero_core", "nodes", "tiny_zoo", "pix2pix_zero_cli", "launcher", "authoring")
COMFYUI = {
    "comfy", "comfy_api", "comfy_execution", "comfy_extras", "execution", "folder_paths", "latent_preview",
    "node_helpers", "nodes", "server",
}  # fmt: skip
ALLOWED = {
    "core": {"core"},
    "integrations": {"core", "integrations"},
    "nodes": {"core", "integrations", "nodes"},
    "entry": {"nodes", "tiny_zoo"},
    "launcher": {"launcher"},
}
"""Parts of the repository that each part may import; the others (tiny_zoo, tests, benchmarks) may import any."""

MEASURE_NODES = ("benchmarks/speed/memory*.py", "benchmarks/speed/pack.py", "benchmarks/gpu/*.py")
"""Benchmarks that import ComfyUI."""


def part_of(path: PurePosixPath) -> str:
    """Name the part of the repository that a module path (folders, then module) belongs to."""
    match path.parts:
        case ("pix2pix_zero_core", "integrations", *_):
            return "integrations"
        case ("pix2pix_zero_core", *_):
            return "core"
        case ("__init__",) | ():
            return "entry"
        case (part, *_):
            return part


def imported_modules(path: PurePosixPath, source: str) -> Iterator[tuple[str, bool]]:
    """Yield every imported module as a slash path and whether the import was relative to the repository."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name.replace(".", "/"), False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield (node.module or "").replace(".", "/"), False
        elif isinstance(node, ast.ImportFrom):
            base = path.parents[node.level - 1]
            names = [node.module.replace(".", "/")] if node.module else [alias.name for alias in node.names]
            yield from (((base / name).as_posix(), True) for name in names)


def violations(file: PurePosixPath, source: str) -> list[str]:
    """Name what a file imports against the arrows."""
    module = file.with_suffix("")
    part = part_of(module)
    found: list[str] = []
    for name, relative in imported_modules(module, source):
        root = name.split("/")[0]
        comfy_allowed = part in ("nodes", "tests") or (part == "tiny_zoo" and "comfy" in module.as_posix())
        comfy_allowed = comfy_allowed or any(file.match(measure) for measure in MEASURE_NODES)
        # A bare `nodes` is ComfyUI's module of that name, not our package.
        if not relative and root == module.parts[0] and root in PACKAGES and name != "nodes":
            found.append(f"{file} imports its own package absolutely: {name}")
        elif relative:
            if part in ALLOWED and part_of(PurePosixPath(name)) not in ALLOWED[part]:
                found.append(f"{file} ({part}) imports {name}")
        elif root in COMFYUI:
            if not comfy_allowed:
                found.append(f"{file} imports ComfyUI: {name}")
        elif root in PACKAGES and part in ALLOWED:
            found.append(f"{file} ({part}) imports {name} absolutely")
        elif part == "core" and root not in sys.stdlib_module_names | {"torch", "safetensors"}:
            found.append(f"{file} imports {name}; core needs torch, safetensors and the standard library alone")
        elif part in ("run", "launcher") and root not in sys.stdlib_module_names | {"launcher"}:
            found.append(f"{file} imports {name}; run.py and launcher need the standard library alone")
    return found


def source_files() -> list[Path]:
    hidden = {"output", "build", "models"}
    return [
        path
        for path in sorted(ROOT.rglob("*.py"))
        if not any(p.startswith(".") or p in hidden for p in path.relative_to(ROOT).parts)
    ]


def test_the_repository_follows_the_arrows():
    files = source_files()
    assert ROOT / "pix2pix_zero_core" / "edit.py" in files
    found = [
        violation
        for path in files
        for violation in violations(PurePosixPath(path.relative_to(ROOT).as_posix()), path.read_text("utf-8"))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("pix2pix_zero_core/edit.py", "import numpy"),
        ("pix2pix_zero_core/edit.py", "def f():\n    from diffusers import DDIMScheduler"),
        ("pix2pix_zero_core/edit.py", "from .integrations.diffusers import DiffusersDenoiser"),
        ("pix2pix_zero_core/edit.py", "from .integrations import diffusers"),
        ("pix2pix_zero_core/edit.py", "from ..nodes.bridge import Bridge"),
        ("pix2pix_zero_core/edit.py", "from .. import nodes"),
        ("pix2pix_zero_core/edit.py", "import comfy.samplers"),
        ("pix2pix_zero_core/edit.py", "from pix2pix_zero_core.types import Denoiser"),
        ("pix2pix_zero_core/edit.py", "import tiny_zoo.world"),
        ("pix2pix_zero_core/integrations/captioner.py", "import folder_paths"),
        ("pix2pix_zero_core/integrations/captioner.py", "from ...nodes import caption"),
        ("pix2pix_zero_core/integrations/captioner.py", "from ...tiny_zoo import world"),
        ("nodes/sampling.py", "from ..tiny_zoo import world"),
        ("nodes/sampling.py", "from pix2pix_zero_core import edit"),
        ("nodes/sampling.py", "import nodes.bridge"),
        ("__init__.py", "from .pix2pix_zero_core import edit"),
        ("__init__.py", "from comfy_api.latest import io"),
        ("tiny_zoo/world.py", "import comfy.supported_models"),
        ("nodes/sampling.py", "from launcher.runtime import ROOT"),
        ("run.py", "import torch"),
        ("nodes/directions.py", "from ..authoring import sentences"),
        ("pix2pix_zero_core/directions.py", "from authoring.sentences import CONCEPTS"),
        ("authoring/thumbnails.py", "from authoring.graphs import GRAPHS"),
        ("run.py", "from tiny_zoo import world"),
        ("launcher/client.py", "import requests"),
        ("launcher/client.py", "from launcher.messages import Failure"),
        ("launcher/demo.py", "from ..tiny_zoo import world"),
        ("benchmarks/quality/tune.py", "import comfy"),
    ],
)
def test_a_wrong_arrow_is_found(file, source):
    assert len(violations(PurePosixPath(file), source)) == 1


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("pix2pix_zero_core/edit.py", "import math\nimport torch.nn\nfrom safetensors.torch import save"),
        ("pix2pix_zero_core/edit.py", "from .types import Denoiser\nfrom . import noise"),
        ("pix2pix_zero_core/integrations/diffusers.py", "import diffusers\nfrom ..types import Prediction"),
        ("nodes/sampling.py", "import comfy.utils\nfrom ..pix2pix_zero_core import edit\nfrom . import bridge"),
        ("nodes/sampling.py", "import nodes"),
        ("nodes/caption.py", "from ..pix2pix_zero_core.integrations.captioner import caption"),
        ("tiny_zoo/comfy_model.py", "import comfy.supported_models\nfrom .networks import UNet"),
        ("tiny_zoo/train_unet.py", "import torch\nfrom pix2pix_zero_core import edit"),
        ("tests/comfy/test_live.py", "import comfy\nimport nodes"),
        ("__init__.py", "from .nodes import Pix2PixZeroExtension"),
        ("run.py", "import subprocess\nfrom launcher.demo import demo"),
        ("launcher/client.py", "import urllib.request\nfrom .messages import Failure"),
        ("authoring/thumbnails.py", "from launcher.server import Server\nfrom .graphs import GRAPHS"),
        ("tests/comfy/test_live.py", "from launcher.server import Server"),
    ],
)
def test_a_right_arrow_is_not_blamed(file, source):
    assert violations(PurePosixPath(file), source) == []
