"""Files that are there as a whole or not at all."""

from __future__ import annotations

import os
import uuid
from pathlib import Path


def write_whole(path: Path, content: bytes, *, overwrite: bool) -> None:
    """Write a file that appears under its name once it is complete; whatever interrupts that leaves nothing behind.

    A link in its place is replaced, never followed, and so is nothing outside the folder ever written to.

    Args:
        path: where to; its folder must exist.
        content: all of the file.
        overwrite: whether a file that is there already may be replaced.

    Raises:
        FileExistsError: the file exists, and may not be replaced; or a folder has its name.
        FileNotFoundError: the folder does not exist.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"Cannot save {path.name}: folder {path.parent} does not exist. Create it first.")
    if path.is_dir() and not path.is_symlink():
        raise FileExistsError(f"{path} is a folder. Choose another name.")
    if os.path.lexists(path) and not overwrite:
        raise FileExistsError(f"{path} exists. Choose another name, or allow to overwrite it.")
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with partial.open("xb") as file:
            file.write(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
