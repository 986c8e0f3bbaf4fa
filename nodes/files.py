"""Where this pack's files are among ComfyUI's: model folders, and the files of edit directions and distilled edits.

The model folder `edit_directions` holds directions, embeddings and sentence lists, `distilled_edits` networks. As with
every model folder, extra_model_paths.yaml may name further places.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import folder_paths

from ..pix2pix_zero_core.integrations.download import UNFINISHED

KIND, DISTILLED = "edit_directions", "distilled_edits"

LONGEST = 150
"""Bytes of a name: file systems end at 255, and a file has a longer one while it is written."""

RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
"""Names of devices on Windows, with any suffix."""


def own_folder(kind: str) -> Path:
    """ComfyUI's own folder for a kind of models."""
    return Path(folder_paths.models_dir) / kind


def roots(kind: str = KIND) -> list[Path]:
    """All folders for a kind of models: what extra_model_paths.yaml and packs name, then ComfyUI's own."""
    folder_paths.add_model_folder_path(kind, str(own_folder(kind)))
    return [Path(root) for root in folder_paths.get_folder_paths(kind)]


def model_folders(kind: str) -> dict[str, Path]:
    """Name -> folder of every transformers model in the folders for a kind, or one folder deeper.

    A model in the layout of Hugging Face's cache (models--OWNER--NAME/snapshots/COMMIT) goes by OWNER/NAME.
    """
    return {
        _model_name(config.parent.relative_to(root)): config.parent
        for root in reversed(roots(kind))  # where two have one name, the first root wins
        for pattern in ("models--*/snapshots/*/config.json", "*/*/config.json", "*/config.json")
        for config in sorted(root.glob(pattern))
        if not config.parent.name.endswith(UNFINISHED)
    }


def _model_name(folder: Path) -> str:
    """The name under which a folder is offered, from its path below models/KIND."""
    cached = folder.parts[0].startswith("models--")
    return folder.parts[0].removeprefix("models--").replace("--", "/") if cached else folder.as_posix()


def list_files(suffix: str, kind: str = KIND) -> list[str]:
    """Names of the files with a suffix, in all folders for a kind."""
    return sorted({path.name for root in roots(kind) for path in root.glob(f"*{suffix}")})


def find_file(name: str, suffix: str, kind: str = KIND) -> Path:
    """The path of a listed file.

    Raises:
        FileNotFoundError: no folder has a file of this name, or it has another suffix.
    """
    for root in roots(kind):
        if name in (path.name for path in root.glob(f"*{suffix}")):
            return root / name
    raise FileNotFoundError(
        f"There is no file {name!r} in models/{kind}; it has: {', '.join(list_files(suffix, kind)) or 'none'}. Put it "
        "there and reload the page."
    )


def new_file(name: str, suffix: str, overwrite: bool) -> Path:
    """The path that a file is to be saved at, in a folder that exists.

    Args:
        name: with or without the suffix; a name alone, not a path.
        suffix: with its dot.
        overwrite: whether the file may exist.

    Raises:
        ValueError: a name that could lead out of the folder, or that some systems refuse.
        FileExistsError: the file exists.
    """
    stem = name.strip().removesuffix(suffix)
    if not re.fullmatch(r"\w[\w .,+'-]*", stem) or stem.endswith((".", " ")) or RESERVED.match(stem):
        raise ValueError(
            f"{name[:100]!r} cannot be a file name; begin with a letter or digit and use letters, digits, spaces and "
            "_ - . , + ' only, and no name that Windows keeps for itself. The file goes to models/edit_directions."
        )
    if len(stem.encode()) > LONGEST:
        raise ValueError(f"{name[:20]}... has {len(stem.encode())} bytes as a file name; at most {LONGEST} will do.")
    path = roots()[0] / f"{stem}{suffix}"
    if os.path.lexists(path) and not overwrite:
        raise FileExistsError(f"{path} exists. Choose another name, or switch overwrite on.")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
