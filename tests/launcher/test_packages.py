"""torchvision and torchaudio load beside a torch without CUDA, and sound ones stay as they are."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from launcher.environment import set_up
from launcher.runtime import Runtime


def test_torchvision_is_repaired_where_its_import_fails(runtime: Runtime, installer: Any) -> None:
    set_up(runtime)
    assert (runtime.venv / "torchvision" / "extension.py").read_text().count("_declarations.define") == 1


def test_a_sound_torchvision_is_left_alone(runtime: Runtime, installer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda command, **settings: subprocess.CompletedProcess(command, 0, "", ""))
    set_up(runtime)
    assert (runtime.venv / "torchvision" / "extension.py").read_text() == "def _has_ops(): return False\n"


@pytest.mark.parametrize("sound", [True, False])
def test_another_comfyui_gets_as_much_of_torchaudio_as_loads(
    runtime: Runtime, installer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sound: bool
) -> None:
    (tmp_path / "requirements.txt").write_text("torchaudio\n")
    monkeypatch.setattr(
        subprocess, "run", lambda command, **settings: subprocess.CompletedProcess(command, int(not sound), "", "")
    )
    set_up(Runtime(runtime.root, tmp_path))
    assert (runtime.venv / "torchaudio" / "lib" / "libtorchaudio.so").exists() == sound
    assert "--no-deps" in installer.commands["installing packages: torchaudio"]
