"""One command trains everything, in an order in which each part finds what it needs."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import pytest

from tiny_zoo import train
from tiny_zoo.training import HERE


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The parts that the command started; the folder of runs holds one."""
    parts: list[str] = []
    for part in train.PARTS:

        def main(part: str = part) -> None:
            assert sys.argv == [part]
            parts.append(part)

        monkeypatch.setattr(import_module(f"tiny_zoo.{part}"), "main", main)
    monkeypatch.setattr(train, "RUNS", tmp_path)
    (tmp_path / "vae.pt").touch()
    return parts


def test_every_training_is_started_once(started: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train"])
    train.main()
    assert set(started) == {path.stem for path in HERE.glob("train_*.py")} | {"export"}
    assert len(started) == len(set(started))
    assert started.index("train_vae") < started.index("train_decoder")
    assert started[-1] == "export"


@pytest.mark.parametrize(("options", "left"), [([], True), (["--from-nothing"], False)])
def test_runs_are_kept_unless_told_otherwise(
    options: list[str], left: bool, started: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["train", *options])
    train.main()
    assert (tmp_path / "vae.pt").exists() == left
