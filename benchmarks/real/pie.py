"""PIE-Bench (Ju et al., ICLR 2024, arXiv:2310.01506) from its published files, in its own units.

Read from github.com/cure-lab/PnPInversion at commit f480116 (`evaluation/`), and computed anew. All figures are
those of the picture as a whole, source against edit, with the part to be edited painted black in both where the
background is compared.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from pix2pix_zero_cli.arguments import UsageError
from pix2pix_zero_cli.pictures import in_colour
from pix2pix_zero_core.integrations.sentences import EditSentences

from ..harness.pixels import mse, psnr, ssim
from .benchmark import Benchmark, Column, Sample, as_tensor
from .judges import Judges

SIDE = 512
"""Of the pictures and masks, in pixels."""

CATEGORIES = {
    "0": "random",
    "1": "change object",
    "2": "add object",
    "3": "delete object",
    "4": "change content",
    "5": "change pose",
    "6": "change colour",
    "7": "change material",
    "8": "change background",
    "9": "change style",
}
"""`editing_type_id` -> what is edited."""

COLUMNS = {
    "structure": Column("structure distance x 1000", 1e3, 2),
    "psnr": Column("background PSNR, dB", 1, 2),
    "lpips": Column("background LPIPS x 1000", 1e3, 2),
    "mse": Column("background MSE x 10000", 1e4, 2),
    "ssim": Column("background SSIM x 100", 1e2, 2),
    "clip_whole": Column("CLIP whole", 1e2, 2),
    "clip_edited": Column("CLIP edited", 1e2, 2),
}

PUBLISHED = {
    "published: pix2pix-zero (arXiv:2310.01506)": {"structure": 61.7, "psnr": 20.4, "clip_edited": 20.5},
    "published: prompt-to-prompt, Direct Inversion (arXiv:2310.01506)": {
        "structure": 11.6,
        "psnr": 27.2,
        "lpips": 54.0,
        "clip_edited": 22.1,
    },
}
"""Row -> figures of papers, Stable Diffusion 1.4, all 700 pictures, 50 steps; rounded."""

NOTES = (
    "PIE-Bench's own networks are clip-vit-large-patch14, dino-vitb8 and LPIPS with SqueezeNet; figures of others do "
    "not compare with those of papers.",
    "The published run captions with BLIP and takes the difference of the two prompts as its direction, at CFG 7.5. "
    "Ours take the source prompt for the caption, so that the shifted text is the target prompt.",
    "Edited pictures were measured as PNG; PIE-Bench's are saved as JPEG. A picture whose mask covers all has no "
    "background, and does not count there.",
)


class PieBench(Benchmark):
    """The published pictures and their edits; see `Benchmark`."""

    published, published_cfg, notes, columns = PUBLISHED, 7.5, NOTES, COLUMNS

    def __init__(self, folder: Path, categories: Sequence[str] = tuple(CATEGORIES), count: int | None = None) -> None:
        """Read the list of edits.

        Args:
            folder: holds `mapping_file.json` and `annotation_images`.
            categories: which are taken.
            count: of pictures a category; None takes all.

        Raises:
            UsageError: a file is missing, or not as published.
        """
        listed, pictures = folder / "mapping_file.json", folder / "annotation_images"
        try:
            entries: dict[str, dict[str, Any]] = json.loads(listed.read_text(encoding="utf-8"))
            self.samples = list(_samples(entries.values(), pictures, categories, count))
            self._masks = {_name(entry): list[int](entry["mask"]) for entry in entries.values()}
        except OSError as error:
            raise UsageError(f"--pie {folder}: {listed} cannot be read ({error.strerror})") from error
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UsageError(f"--pie {folder}: {listed} is not as PIE-Bench has it ({error!r})") from error
        if not self.samples:
            raise UsageError(f"--pie {folder}: it has no picture of the categories {', '.join(categories)}")
        for sample in self.samples:
            if not sample.path.is_file():
                raise UsageError(f"--pie {folder}: the picture {sample.path} is missing")
        self.title = f"PIE-Bench, {len(self.samples)} pictures"

    def sentences(self, sample: Sample) -> EditSentences:
        """The two prompts: a direction of one pair."""
        return EditSentences([sample.source], [sample.target], sample.source, sample.target)

    def measured_with(self, sample: Sample) -> str:
        """The target prompt, and the mask."""
        return sha256(json.dumps([sample.target, self._masks[sample.name]]).encode()).hexdigest()

    def measure(self, judges: Judges, sample: Sample, edited: Image.Image) -> dict[str, float]:
        """Read the columns off an edited picture, at 512 by 512 pixels."""
        with Image.open(sample.path) as image:
            before = _at_side(in_colour(image))
        mask = decode_mask(self._masks[sample.name])
        after, device = _at_side(edited), judges.device
        a, b = (as_tensor(picture).to(device) for picture in (before, after))
        background = (~mask).to(device)
        found: dict[str, float] = {}
        if judges.dino is not None:
            found["structure"] = float(judges.dino(a, b, white=255))
        if background.any():
            behind = a * background, b * background
            found |= {
                name: float(distance(*behind)) for name, distance in (("psnr", psnr), ("mse", mse), ("ssim", ssim))
            }
            if judges.lpips is not None:
                found["lpips"] = float(judges.lpips(*behind))
        if judges.clip is not None:
            part = Image.composite(after, Image.new("RGB", after.size), Image.fromarray(mask.numpy()))
            found["clip_whole"] = max(0.0, float(judges.clip(after, [sample.target])))
            found["clip_edited"] = max(0.0, float(judges.clip(part, [sample.target])))
        return found


def decode_mask(runs: Sequence[int], side: int = SIDE) -> Tensor:
    """Decode a mask: where a picture may be edited, booleans, (side, side).

    Args:
        runs: first pixel and length of one run after the other, pixels counted row by row. What reaches beyond the
            picture is cut off.
        side: of the picture. Its outermost pixels count as edited always, as in the published code.

    Raises:
        ValueError: an odd number of values.
    """
    flat = torch.zeros(side * side, dtype=torch.bool)
    for start, length in zip(runs[::2], runs[1::2], strict=True):
        flat[start : start + length] = True
    mask = flat.view(side, side)
    mask[0], mask[-1], mask[:, 0], mask[:, -1] = True, True, True, True
    return mask


def without_brackets(prompt: str) -> str:
    """A prompt without the brackets round the words that the edit changes."""
    return prompt.replace("[", "").replace("]", "")


def _samples(
    entries: Iterable[dict[str, Any]], pictures: Path, categories: Sequence[str], count: int | None
) -> Iterable[Sample]:
    seen = Counter[str]()
    for entry in entries:
        kind = str(entry["editing_type_id"])
        if kind not in categories or (count is not None and seen[kind] >= count):
            continue
        seen[kind] += 1
        source, target = without_brackets(entry["original_prompt"]), without_brackets(entry["editing_prompt"])
        path = pictures / entry["image_path"]
        yield Sample(_name(entry), path, source, target, source, f"{kind}. {CATEGORIES[kind]}")


def _name(entry: dict[str, Any]) -> str:
    return str(Path(entry["image_path"]).with_suffix(""))


def _at_side(image: Image.Image) -> Image.Image:
    return image if image.size == (SIDE, SIDE) else image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
