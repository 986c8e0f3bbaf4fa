"""Pictures on disk: found, cropped as ComfyUI crops, and written under a temporary name first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, PngImagePlugin
from torch import Tensor

from pix2pix_zero_core.files import write_whole

from .arguments import UsageError

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")


def find_pictures(inputs: Sequence[str]) -> list[Path]:
    """List the pictures that are named, and those of the folders that are named, each once.

    Raises:
        UsageError: nothing there, or a folder without a picture.
    """
    found: dict[Path, None] = {}
    for given in map(Path, inputs):
        if given.is_dir():
            pictures = sorted(path for path in given.iterdir() if path.suffix.lower() in SUFFIXES)
            if not pictures:
                raise UsageError(f"PICTURE {given}: there is no picture in this folder ({', '.join(SUFFIXES)})")
        elif given.exists():
            pictures = [given]
        else:
            raise UsageError(f"PICTURE {given}: there is no such file or folder")
        found |= dict.fromkeys(path.resolve() for path in pictures)
    return list(found)


def require_own_names(outputs: Sequence[Path]) -> None:
    """Refuse two pictures whose results would have one name.

    Raises:
        UsageError: the first such name.
    """
    for path, count in Counter(outputs).items():
        if count > 1:
            raise UsageError(f"PICTURE: {count} pictures would all become {path}; rename them, or choose other folders")


def read_picture(path: Path, size: tuple[int, int] | None) -> Tensor:
    """Read a picture, turned upright, its middle cropped to the form of `size` (width, height) and resized.

    Args:
        path: of any format that Pillow reads.
        size: None leaves the picture as it is.

    Returns:
        (1, height, width, 3) in 0..1.

    Raises:
        OSError: no picture that can be read.
    """
    with Image.open(path) as image:
        image = ImageOps.exif_transpose(image).convert("RGB")
    if size is not None:
        image = fit(image, size)
    return torch.from_numpy(np.array(image))[None].float() / 255


def fit(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Crop a picture's middle to the form of `size` (width, height), and resize it."""
    width, height = size
    # Whole pixels, the same number off both sides: ComfyUI's ImageScale with crop "center".
    across = max(0, round((image.width - image.height * width / height) / 2))
    down = max(0, round((image.height - image.width * height / width) / 2))
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
    except OSError:
        return None


def write(path: Path, content: bytes) -> None:
    """Write a file that appears under its name only when it is complete; missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content, overwrite=True)
