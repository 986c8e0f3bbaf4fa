"""Where things are: environment variables choose, and a wrong one is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher import pins
from launcher.messages import Failure
from launcher.runtime import ROOT, Runtime


def test_the_environment_lies_in_the_repository_by_default() -> None:
    runtime = Runtime.from_environment({})
    assert runtime.root == (ROOT / ".runtime").resolve()
    assert runtime.comfyui == runtime.root / f"comfyui-{pins.COMFYUI_VERSION}"
    assert runtime.version == pins.COMFYUI_VERSION


def test_comfyui_path_is_honoured(tmp_path: Path) -> None:
    for name in ("main.py", "nodes.py", "requirements.txt"):
        (tmp_path / name).touch()
    (tmp_path / "comfy").mkdir()
    runtime = Runtime.from_environment({"COMFYUI_PATH": str(tmp_path)})
    assert runtime.comfyui == tmp_path.resolve()
    assert runtime.version is None
    with pytest.raises(Failure, match=r"COMFYUI_VERSION=0\.3\.75 and COMFYUI_PATH=.*; unset one of them"):
        Runtime.from_environment({"COMFYUI_PATH": str(tmp_path), "COMFYUI_VERSION": "0.3.75"})


def test_comfyui_version_chooses_among_the_releases_that_can_be_fetched() -> None:
    for version in pins.COMFYUI_WHEELS:
        runtime = Runtime.from_environment({"COMFYUI_VERSION": version})
        assert runtime.comfyui.relative_to(runtime.root) == Path(f"comfyui-{version}")
    with pytest.raises(Failure, match=r"COMFYUI_VERSION=0\.3\.52 cannot be fetched: choose 0\.3\.75, or"):
        Runtime.from_environment({"COMFYUI_VERSION": "0.3.52"})


def test_comfyui_path_that_is_no_comfyui_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "main.py").touch()
    with pytest.raises(Failure, match=r"COMFYUI_PATH=.* is no ComfyUI \(nodes.py, comfy, requirements.txt missing\)"):
        Runtime.from_environment({"COMFYUI_PATH": str(tmp_path)})
