"""Pictures on disk: found, cropped as ComfyUI crops, and written under a temporary name first."""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import torch
from PIL import Image, ImageOps, PngImagePlugin
from torch import Tensor

from pix2pix_zero_core.files import write_whole

from .arguments import UsageError

FORMATS = (".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

SUFFIXES = tuple(suffix for suffix in FORMATS if suffix in Image.registered_extensions())
"""Of the files in a folder, those that are taken: what this Pillow reads of the formats that hold pictures."""


class Unreadable(ValueError):
    """A file that is no picture, or a broken one."""


@dataclass(frozen=True)
class Found:
    """Pictures to do something to.

    Attributes:
        pictures: each once.
        searched: the folders in which they were searched for, with the folders in these; else empty.
        left_out: how many files of the folders that were named are no pictures.
    """

    pictures: list[Path]
    searched: tuple[Path, ...]
    left_out: int


def find_pictures(inputs: Sequence[str | Path], *, recursive: bool = False, output: Path | None = None) -> Found:
    """List the pictures that are named, and those of the folders that are named, each once.

    Files of a folder that are hidden (macOS leaves such beside pictures) or no pictures are left out, and counted on
    stderr, and so are folders that are not searched. A link to a picture goes by its own name.

    Args:
        inputs: pictures and folders.
        recursive: also search the folders in the folders, but for hidden ones, and linked ones, which may lead round.
        output: folder of the results, which is not searched.

    Raises:
        UsageError: nothing there, what cannot be read, or a folder without a picture.
    """
    found: dict[Path, None] = {}
    searched, count = list[Path](), 0
    for given in map(Path, inputs):
        try:
            if given.is_dir():
                pictures, left_out = _search(given, output, recursive=recursive)
                count += left_out
                if recursive:
                    searched.append(given.absolute())
            elif given.exists():
                pictures = [given]
            else:
                raise UsageError(f"PICTURE {given}: there is no such file or folder")
        except OSError as error:  # a folder that may not be read, a name that is too long
            raise UsageError(f"PICTURE {error.filename or given}: cannot be read ({error.strerror})") from error
        found |= dict.fromkeys(path.absolute() for path in pictures)
    return Found(list(found), tuple(searched), count)


def _search(folder: Path, output: Path | None, *, recursive: bool) -> tuple[list[Path], int]:
    """The pictures of a folder, and how many of its files are none; see `find_pictures`."""
    inside = sorted(folder.iterdir())
    entries = list(_entries(folder, output)) if recursive else inside
    files = [path for path in entries if not path.is_dir()]
    pictures = [path for path in files if is_picture(path)]
    if left_out := [path.name for path in files if not is_picture(path)]:
        print(f"{folder}: {_some('file', left_out)} left out", file=sys.stderr)
    if linked := [p.name for p in entries if p.is_symlink() and p.is_dir() and not p.name.startswith(".")]:
        print(f"{folder}: {_some('linked folder', linked)} not searched, unless named itself", file=sys.stderr)
    folders = [path.name for path in inside if not recursive and _is_to_search(path, output)]
    if pictures and folders:
        print(f"{folder}: {_some('folder', folders)} not searched; --recursive does that", file=sys.stderr)
    if not pictures:
        deeper = "" if recursive else "; --recursive also searches the folders in it"
        raise UsageError(f"PICTURE {folder}: there is no picture in this folder ({', '.join(SUFFIXES)}){deeper}")
    return pictures, len(left_out)


def _entries(folder: Path, output: Path | None) -> Iterator[Path]:
    """What is in a folder and in those in it, in order, but for the folders that are searched themselves."""
    for path in sorted(folder.iterdir()):
        if _is_to_search(path, output):
            yield from _entries(path, output)
        else:
            yield path


def _is_to_search(path: Path, output: Path | None) -> bool:
    """Whether this is a folder, and none that is hidden, linked or the results'."""
    own = path.is_symlink() or path.name.startswith(".") or path.resolve() == (output and output.resolve())
    return path.is_dir() and not own


def _some(kind: str, names: Sequence[str]) -> str:
    """Say how many there are, and the names of the first: "4 files (a, b, c, ...) are"."""
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"1 {kind} ({shown}) is" if len(names) == 1 else f"{len(names)} {kind}s ({shown}) are"


def place(picture: Path, searched: Sequence[Path]) -> Path:
    """Where in the output a picture's results go: the way to it from the folder in which it was found."""
    return next((picture.parent.relative_to(f) for f in searched if picture.is_relative_to(f)), Path())


def is_picture(path: Path) -> bool:
    """Whether a file of a folder is taken, by its name; a link that leads nowhere is none."""
    return path.is_file() and not path.name.startswith(".") and path.suffix.lower() in SUFFIXES


def name_content(picture: Path) -> str:
    """Name what a picture's file holds, which one of the same name need not hold: its SHA-256.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        status = picture.stat()
        return _hash(picture, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise UsageError(f"PICTURE {picture}: cannot be read ({error.strerror})") from error


@cache
def _hash(picture: Path, changed: int, size: int) -> str:
    """Hash a file once, as long as it is the same by its time and size."""
    return hashlib.sha256(picture.read_bytes()).hexdigest()


def require_own_names(outputs: Sequence[Path]) -> None:
    """Refuse two pictures whose results would have one name.

    Raises:
        UsageError: the first such name.
    """
    for path, count in Counter(outputs).items():
        if count > 1:
            raise UsageError(f"PICTURE: {count} pictures would all become {path}; rename them, or choose other folders")


def require_output_elsewhere(inputs: Sequence[str | Path], output: Path, flag: str = "--output") -> None:
    """Refuse results in a folder whose pictures are read: the next run would take them for pictures.

    Args:
        inputs: pictures and folders.
        output: folder of the results.
        flag: the option that names it.

    Raises:
        UsageError: the folder.
    """
    for given in map(Path, inputs):
        if given.is_dir() and given.resolve() == output.resolve():
            raise UsageError(f"{flag} {output}: is a folder of pictures that are read; choose another for the results")


def read_picture(path: Path, size: tuple[int, int] | None) -> Tensor:
    """Read a picture, turned upright, its middle cropped to the form of `size` (width, height) and resized.

    Args:
        path: of any format that Pillow reads.
        size: None leaves the picture as it is.

    Returns:
        (1, height, width, 3) in 0..1.

    Raises:
        Unreadable: no picture that can be read, or its values have no known range.
    """
    try:
        with Image.open(path) as image:
            image = in_colour(ImageOps.exif_transpose(image))
    except Exception as error:  # a broken file fails with whatever its decoder raises: OSError, SyntaxError ...
        raise Unreadable(f"the picture cannot be read ({type(error).__name__}: {error})") from error
    if size is not None:
        image = fit(image, size)
    return torch.from_numpy(np.array(image))[None].float() / 255


def in_colour(image: Image.Image) -> Image.Image:
    """Convert a picture to RGB of 8 bits: 16 bits and floating point are scaled, alpha is laid over white.

    Raises:
        ValueError: integers beyond 16 bits, or floating point outside of 0..1.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image, dtype=np.float64)
        highest = 1.0 if image.mode == "F" else 65535.0
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= highest):
            raise ValueError(
                f"the picture has values from {values.min():g} to {values.max():g}; floating point must be from 0 to "
                "1, integers from 0 to 65535. Save it with 8 bits a colour"
            )
        image = Image.fromarray((values * (255 / highest)).round().astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def note_on(path: Path) -> str | None:
    """What there is to say of how a picture is read: that it is laid over white, or is the first of several."""
    with Image.open(path) as image:
        notes = ["its transparent parts are laid over white"] if image.has_transparency_data else []
        try:
            frames = getattr(image, "n_frames", 1)
        except Exception:  # a broken file fails with whatever its decoder raises, as in `read_picture`
            notes.append("its first frame could be read, the others are broken")
        else:
            notes += [f"it is the first of {frames} frames"] if frames > 1 else []
    return f"{path.name}: {', and '.join(notes)}" if notes else None


def require_folder(path: Path, flag: str = "--output") -> None:
    """Refuse an output that is no folder, or one that cannot be written; of one that is to be made, where it will lie.

    Args:
        path: of the folder.
        flag: the option that names it.

    Raises:
        UsageError: why.
    """
    try:
        there = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
        with TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise UsageError(f"{flag} {path}: no folder that can be written ({error.strerror or error})") from error


def fit(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Crop a picture's middle to the form of `size` (width, height), and resize it."""
    width, height = size
    # Whole pixels, the same number off both sides: ComfyUI's ImageScale with crop "center". One is left of any picture.
    across = max(0, min(round((image.width - image.height * width / height) / 2), (image.width - 1) // 2))
    down = max(0, min(round((image.height - image.width * height / width) / 2), (image.height - 1) // 2))
    image = image.crop((across, down, image.width - across, image.height - down))
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def write_picture(picture: Tensor, path: Path, text: Mapping[str, str]) -> None:
    """Write a picture (H, W, 3) in 0..1 as PNG, with lines of text that `read_text` reads."""
    info = PngImagePlugin.PngInfo()
    for key, value in text.items():
        info.add_itxt(key, value)
    file = BytesIO()
    Image.fromarray((picture * 255).round().to(torch.uint8).numpy()).save(file, "PNG", pnginfo=info)
    write(path, file.getvalue())


def read_text(path: Path, key: str) -> str | None:
    """Read a line of text that was saved with a picture; None where there is none, or no picture."""
    try:
        with Image.open(path) as image:
            image.load()  # text may follow the pixels
            return image.info.get(key)
    except Exception:  # a broken file fails with whatever its decoder raises, as in `read_picture`
        return None


def write(path: Path, content: bytes) -> None:
    """Write a file that appears under its name only when it is complete; missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content, overwrite=True)
