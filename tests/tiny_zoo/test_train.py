"""One command trains everything, in an order in which each part finds what it needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tiny_zoo import train
from tiny_zoo.training import HERE


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the command started, and an empty folder of runs that holds one."""
    commands: list[str] = []

    def run(command: list[str], **_: Any) -> None:
        commands.append(command[-1])

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(train, "RUNS", tmp_path)
    (tmp_path / "vae.pt").touch()
    return commands


def test_every_training_is_started_once(started: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train"])
    train.main()
    trainings = {f"tiny_zoo.{path.stem}" for path in HERE.glob("train_*.py")}
    assert set(started) == trainings | {"tiny_zoo.export"}
    assert len(started) == len(set(started))
    assert started.index("tiny_zoo.train_vae") < started.index("tiny_zoo.train_decoder")
    assert started[-1] == "tiny_zoo.export"


@pytest.mark.parametrize(("options", "left"), [([], True), (["--from-nothing"], False)])
def test_runs_are_kept_unless_told_otherwise(
    options: list[str], left: bool, started: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["train", *options])
    train.main()
    assert (tmp_path / "vae.pt").exists() == left
