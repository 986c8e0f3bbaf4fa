"""The tree that is unpacked, and the base folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from launcher.comfyui import copy_examples, make_base, read_requirements
from launcher.environment import set_up
from launcher.messages import Failure
from launcher.runtime import EXAMPLES, PACK, ROOT, Runtime


def test_requirements_of_another_comfyui_leave_out_what_is_pinned_or_not_needed(tmp_path: Path) -> None:
    path = tmp_path / "requirements.txt"
    path.write_text(
        "torch\ntorchsde\ntorchvision\ntorchaudio>=2\n\n#non essential:\nav>=14.2.0\n"
        "comfyui-workflow-templates==0.7\nkornia>=0.7.1 # for masks\n"
    )
    assert read_requirements(path) == ("torchsde", "av>=14.2.0", "kornia>=0.7.1")


def test_only_the_comfyui_tree_is_unpacked(runtime: Runtime, installer: Any) -> None:
    set_up(runtime)
    assert [path.name for path in runtime.comfyui.iterdir()] == ["main.py"]
    assert not (runtime.root / "comfyui.partial").exists()


def test_a_wheel_with_another_hash_is_refused(runtime: Runtime, installer: Any) -> None:
    installer.wheel += b"changed"
    with pytest.raises(Failure, match="SHA-256"):
        set_up(runtime)
    assert not runtime.comfyui.exists()


def test_the_pack_is_linked_once_and_relinked_when_the_repository_moved(tmp_path: Path) -> None:
    make_base(tmp_path)
    make_base(tmp_path)
    link = tmp_path / "custom_nodes" / PACK
    assert link.resolve() == ROOT
    if os.name != "nt":
        link.unlink()
        link.symlink_to(tmp_path / "gone")
        make_base(tmp_path)
        assert link.resolve() == ROOT


def test_our_pictures_join_the_users_and_replace_none(tmp_path: Path) -> None:
    make_base(tmp_path)
    (tmp_path / "input" / "cat.png").write_bytes(b"the user's cat")
    copy_examples(tmp_path)
    assert (tmp_path / "input" / "cat.png").read_bytes() == b"the user's cat"
    assert (tmp_path / "input" / "dog.png").read_bytes() == (EXAMPLES / "dog.png").read_bytes()
