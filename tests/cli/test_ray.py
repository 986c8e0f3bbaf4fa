"""Folder jobs on a Ray cluster of several processes: the same bytes as in one process, and a worker that is killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pix2pix_zero_cli import cluster, report
from pix2pix_zero_cli.main import main

pytest.importorskip("ray.data", reason='Ray is not installed: pip install ".[ray]"')

ROOT = Path(__file__).resolve().parents[2]
EDIT = ["--edit", "cat2dog", "--steps", "2", "--caption", "a cat", "--json"]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Six pictures, and one that cannot be read."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(6):
        shutil.copy(ROOT / "web" / "examples" / ("cat.png", "dog.png")[number % 2], folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"nothing")
    return folder


def rows(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


def test_a_killed_worker_loses_nothing_and_the_bytes_are_those_of_one_process(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    assert main(["edit", str(pictures), *EDIT, "--output", str(alone), "--threads", "1"]) == 3
    assert rows(capsys)[-1] == {"done": 6, "skipped": 0, "failed": 0, "unreadable": 1, "left_out": 0}
    expected = contents(alone)
    assert len(expected) == 6

    killed: list[int] = []
    run_on_ray = cluster.run_on_ray

    def run_and_kill(*arguments: Any) -> Iterator[Any]:
        for row in run_on_ray(*arguments):
            if row.status == "done" and not killed:
                killed.append(int(row.result["worker"].rpartition(":")[2]))
                os.kill(killed[0], signal.SIGKILL)
            yield row

    monkeypatch.setattr(cluster, "run_on_ray", run_and_kill)
    # One picture was finished before.
    shared.mkdir()
    shutil.copy(alone / "0_cat2dog_g0.2_s1.25.png", shared)
    command = ["edit", str(pictures), *EDIT, "--output", str(shared), "--ray", "local", "--workers", "2"]
    assert main(command) == 3
    *done, summary = rows(capsys)
    assert summary == {"done": 5, "skipped": 1, "failed": 0, "unreadable": 1, "left_out": 0}
    assert sorted(Path(row["picture"]).name for row in done) == sorted(path.name for path in pictures.iterdir())
    workers = {int(row["worker"].rpartition(":")[2]) for row in done if row["status"] == "done"}
    assert killed[0] in workers
    assert len(workers) >= 2
    assert contents(shared) == expected
    (error,) = map(json.loads, (shared / report.ERRORS).read_text().splitlines())
    assert Path(error["picture"]).name == "broken.png"


def test_a_model_that_no_worker_can_load_is_reported(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "PixArtSigmaPipeline"}))
    command = ["edit", str(pictures), "--edit", "cat2dog", "--caption", "a cat", "--model", str(folder)]
    with pytest.raises(SystemExit) as exit:
        main([*command, "--output", str(tmp_path / "out"), "--ray", "local", "--workers", "1"])
    assert exit.value.code == 2
    assert "holds a PixArtSigmaPipeline" in " ".join(capsys.readouterr().err.split())


def test_a_cluster_that_is_not_there_is_reported(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as exit:
        main(["edit", str(pictures), *EDIT, "--output", str(tmp_path / "out"), "--ray", "127.0.0.1:1"])
    assert exit.value.code == 2
    assert "--ray 127.0.0.1:1:" in capsys.readouterr().err
