"""A set-up that is done once, and survives interruption at every step."""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import Any

import pytest

from launcher import pins
from launcher.environment import exclusive, set_up, try_lock
from launcher.messages import Failure
from launcher.runtime import Runtime


def test_a_second_set_up_does_nothing(runtime: Runtime, installer: Any) -> None:
    set_up(runtime, test=True)
    assert len(installer.steps) == 7
    set_up(runtime, test=True)
    assert len(installer.steps) == 7


def test_the_test_tools_are_added_to_a_demo_environment(runtime: Runtime, installer: Any) -> None:
    set_up(runtime)
    installer.steps.clear()
    set_up(runtime, test=True)
    assert installer.steps == ["installing packages: test"]


def test_the_benchmarks_packages_are_added_and_bring_nothing_along(runtime: Runtime, installer: Any) -> None:
    set_up(runtime)
    installer.steps.clear()
    set_up(runtime, bench=True)
    assert installer.steps == ["installing packages: bench", "installing packages: weights"]
    assert "--no-deps" in installer.commands["installing packages: weights"]
    assert "--no-deps" not in installer.commands["installing packages: bench"]
    installer.steps.clear()
    set_up(runtime, bench=True)
    assert installer.steps == []


def test_changed_requirements_repeat_only_their_step(
    runtime: Runtime, installer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up(runtime)
    installer.steps.clear()
    monkeypatch.setattr(pins, "PACK_PACKAGES", ("diffusers==99",))
    set_up(runtime)
    assert installer.steps == ["installing packages: pack"]


STEPS = ("virtual environment", "downloading", "packages: torch", "torchvision", "packages: ComfyUI", "packages: pack")


@pytest.mark.parametrize("step", STEPS)
def test_an_interrupted_set_up_is_redone(runtime: Runtime, installer: Any, step: str) -> None:
    runtime.venv.mkdir(parents=True)
    installer.fail_at = step
    with pytest.raises(KeyboardInterrupt):
        set_up(runtime)
    installer.fail_at = None
    set_up(runtime)
    assert (runtime.comfyui / "main.py").is_file()
    if step != "downloading":  # which does not touch the virtual environment
        assert not (runtime.venv / "half-made").exists()
    installer.steps.clear()
    set_up(runtime)
    assert installer.steps == []


def test_a_failed_step_is_repeated_in_the_same_environment(runtime: Runtime, installer: Any) -> None:
    installer.fail_at, installer.exception = "packages: ComfyUI", Failure("no network")
    with pytest.raises(Failure, match="no network"):
        set_up(runtime)
    installer.fail_at = None
    installer.steps.clear()
    set_up(runtime)
    assert installer.steps == ["installing packages: ComfyUI", "installing packages: pack"]


def test_another_python_gets_a_new_environment(
    runtime: Runtime, installer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up(runtime)
    (runtime.venv / "old").touch()
    monkeypatch.setattr(sys, "base_prefix", "/another/python")
    set_up(runtime)
    assert not (runtime.venv / "old").exists()
    assert not list(runtime.root.glob("*.discarded"))


def test_comfyui_is_not_downloaded_when_one_is_named(runtime: Runtime, installer: Any, tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("av\n")
    set_up(Runtime(runtime.root, tmp_path))
    assert not [step for step in installer.steps if "downloading" in step]


def test_two_set_ups_exclude_each_other(tmp_path: Path) -> None:
    with exclusive(tmp_path / "lock"), (tmp_path / "lock").open("w") as other:
        assert not try_lock(other)
    with (tmp_path / "lock").open("w") as other:
        assert try_lock(other)


def test_a_lock_that_there_cannot_be_is_no_other_set_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    said = r"PIX2PIX_ZERO_RUNTIME: the environment cannot be at .* \(No locks available\); name a folder"
    with pytest.raises(Failure, match=said), exclusive(tmp_path / "lock"):
        pytest.fail("there is no lock")


def test_what_fails_under_the_lock_is_not_blamed_on_it(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no space left"), exclusive(tmp_path / "lock"):
        raise OSError("no space left")
