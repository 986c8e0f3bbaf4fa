"""What the ComfyUI registry installs, the repository less what .comfyignore names, must do without the rest."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path, PurePosixPath

import pytest

from authoring import workflows
from launcher.client import save_images
from launcher.processes import quiet_cpu
from launcher.runtime import EXAMPLES, PACK, ROOT, Runtime
from launcher.server import comfyui_server
from launcher.workflow import adapt
from tests.core.test_imports import imported_modules


def tracked(*options: str) -> set[str]:
    """Paths of files that git tracks."""
    # Whoever owns the checkout: git refuses to read what another user owns.
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", *options]
    return set(filter(None, subprocess.check_output(command, cwd=ROOT, text=True).split("\0")))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base folder of ComfyUI into which the archive was unpacked."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("the archive is made of what git tracks, and this is no git repository, or there is no git")
    base = tmp_path_factory.mktemp("registry")
    for name in tracked() - tracked("--ignored", "--exclude-from=.comfyignore"):
        path = base / "custom_nodes" / PACK / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, path)
    for name in ("input", "output", "user", "models"):
        (base / name).mkdir()
    return base


def test_what_is_imported_from_the_archive_is_in_it(archive: Path) -> None:
    pack = archive / "custom_nodes" / PACK
    missing = [
        f"{path.relative_to(pack)} imports {name}"
        for path in pack.rglob("*.py")
        for name, relative in imported_modules(
            PurePosixPath(path.relative_to(pack)).with_suffix(""), path.read_text(encoding="utf-8")
        )
        if relative and not ((pack / name).is_dir() or (pack / f"{name}.py").is_file())
    ]
    assert not missing


def test_the_archive_edits_a_picture(archive: Path, tmp_path: Path) -> None:
    pack = archive / "custom_nodes" / PACK
    assert not (pack / "tests").exists()
    runtime = Runtime.from_environment(os.environ)
    template = json.loads((workflows.API_FOLDER / "tiny_zoo_edit.json").read_text(encoding="utf-8"))
    log = archive / "server.log"
    with comfyui_server(runtime, archive, log, flags=("--cpu",), environment=quiet_cpu()) as server:
        workflow = adapt(template, server.upload(EXAMPLES / "cat.png"), "tiny_zoo/cat2dog")
        pictures = save_images(server, workflow, server.run(workflow), tmp_path)
        templates = server.get("/workflow_templates")[PACK]
        help_page = server.request(f"/extensions/{PACK}/docs/Pix2PixZeroCompare.md").decode()
    assert {"source", "reconstruction", "edited"} <= set(pictures)
    assert help_page.startswith("# ")
    assert sorted(templates) == sorted(path.stem for path in (pack / "workflows").glob("*.json"))
