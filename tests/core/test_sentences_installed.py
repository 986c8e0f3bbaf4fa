"""A wheel brings the edits and their sentences along, and Tiny Zoo for the command line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from pix2pix_zero_core.integrations.sentences import SHIPPED

ROOT = Path(__file__).resolve().parents[2]
USE = """
from pathlib import Path
from pix2pix_zero_core.integrations import sentences
assert sentences.SHIPPED.is_relative_to(Path.cwd()), sentences.SHIPPED
edits = sentences.read_edits()
print(len(edits), sum(len(sentences.load_edit(edit).source_sentences) for edit in edits))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's content, built of a copy, since setuptools leaves files in the folder that it builds."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("pix2pix_zero_core", "pix2pix_zero_cli", "tiny_zoo", "directions"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "runs"))
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(target)], cwd=source, check=True, capture_output=True)
    (wheel,) = target.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(target)
    return target


def test_an_installed_core_has_every_edit(installed: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(installed), "PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run(
        [sys.executable, "-c", USE], cwd=installed, env=environment, check=True, capture_output=True, text=True
    )
    edits, sentences = map(int, result.stdout.split())
    assert edits >= 30 and sentences >= 200 * edits


def test_the_wheel_has_the_files_of_the_repository(installed: Path) -> None:
    brought = installed / "pix2pix_zero_core" / "integrations" / "directions"
    assert SHIPPED == ROOT / "directions"
    for pattern in ("edits.json", "sentences/*.txt"):
        files = {path.relative_to(SHIPPED): path.read_bytes() for path in SHIPPED.glob(pattern)}
        assert files == {path.relative_to(brought): path.read_bytes() for path in brought.glob(pattern)} != {}
    assert not [path for path in installed.rglob("*") if path.name in ("nodes", "tests", "probe.pt")]


def test_the_wheel_has_the_command_and_the_model_that_it_edits_with(installed: Path) -> None:
    for folder in ("tiny_zoo/directions/sentences", "tiny_zoo/weights/blip/tiny_zoo", "tiny_zoo/weights/checkpoints"):
        files = {path.name: path.read_bytes() for path in (ROOT / folder).iterdir()}
        assert files == {path.name: path.read_bytes() for path in (installed / folder).iterdir()} != {}
    (entry_points,) = installed.glob("*.dist-info/entry_points.txt")
    assert "pix2pix-zero = pix2pix_zero_cli.main:main" in entry_points.read_text(encoding="utf-8")
    assert (installed / "pix2pix_zero_cli" / "main.py").is_file()


def test_the_wheel_says_that_the_core_is_typed(installed: Path) -> None:
    assert (installed / "pix2pix_zero_core" / "py.typed").is_file()
