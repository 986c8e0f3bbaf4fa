"""A wheel brings the edits and their sentences along."""

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
    for name in ("pix2pix_zero_core", "directions"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
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
    assert not [path for path in installed.rglob("*") if path.name in ("nodes", "tiny_zoo", "tests")]
