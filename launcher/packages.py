"""pip in the virtual environment, and what torch's companions need beside a torch without CUDA."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from . import pins, processes
from .runtime import Runtime

TORCHVISION_DECLARATIONS = """

if not _has_ops():  # added by pix2pix-zero's run.py: this torchvision is a CUDA build and this torch is not
    _declarations = torch.library.Library("torchvision", "DEF")
    for _name in ("nms", "qnms"):
        _declarations.define(_name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""


def pip(runtime: Runtime, command: str) -> list[str | Path]:
    """Start a pip command line."""
    return [runtime.python, "-m", "pip", command, "--disable-pip-version-check", "--no-input", "--progress-bar=off"]


def pip_install(runtime: Runtime, name: str, requirements: Sequence[str], *options: str) -> None:
    """Install packages; torch's pins go along, so that no package can replace it."""
    command = [*pip(runtime, "install"), *options, *dict.fromkeys((*pins.TORCH, *requirements))]
    processes.execute(f"installing packages: {name}", command, runtime.logs / f"install-{name}.log")


def install_torch(runtime: Runtime) -> None:
    """Install torch and torchvision, and make torchvision importable beside a torch without CUDA.

    PyPI's torchvision is a CUDA build on Linux. Beside a CPU torch its library does not load, and its import then fails
    on two operators that nobody declared. ComfyUI and transformers need just the import, so they are declared.
    """
    pip_install(runtime, "torch", pins.TORCH)
    check = [runtime.python, "-c", "import torchvision"]
    result = subprocess.run(check, capture_output=True, text=True, check=False, env=processes.child_environment())
    if "operator torchvision::nms does not exist" in result.stderr:
        extension = next(runtime.venv.rglob("torchvision/extension.py"))
        with extension.open("a", encoding="utf-8") as file:
            file.write(TORCHVISION_DECLARATIONS)
    processes.execute("importing torchvision", check, runtime.logs / "torchvision.log")


def install_torchaudio(runtime: Runtime) -> None:
    """Install torchaudio, without its libraries where they do not load: they are of a CUDA build on Linux, too."""
    pip_install(runtime, "torchaudio", pins.TORCHAUDIO, "--no-deps")
    check = [runtime.python, "-c", "import torchaudio"]
    if subprocess.run(check, capture_output=True, check=False, env=processes.child_environment()).returncode != 0:
        for library in runtime.venv.rglob("torchaudio/lib/*.so"):
            library.unlink()
    processes.execute("importing torchaudio", check, runtime.logs / "torchaudio.log")
