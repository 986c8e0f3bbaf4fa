"""The columns of the paper's Table 1 (arXiv:2302.03027) on a folder of pictures, one edit for all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pix2pix_zero_cli.arguments import UsageError
from pix2pix_zero_cli.pictures import find_pictures, fit, in_colour, is_picture, require_own_names
from pix2pix_zero_core.integrations.english import indefinite_article
from pix2pix_zero_core.integrations.sentences import EditSentences, load_edit, read_edits

from .benchmark import Benchmark, Column, Sample, as_tensor
from .judges import Judges

COLUMNS = {
    "clip_acc": Column("CLIP accuracy, %", 100, 1),
    "bg_lpips": Column("background LPIPS"),
    "structure": Column("structure distance"),
}

PUBLISHED = {
    "cat2dog": {
        "SDEdit + word swap": (71.2, 0.327, 0.081),
        "DDIM + word swap": (72.0, 0.279, 0.087),
        "prompt-to-prompt": (66.0, 0.269, 0.080),
        "pix2pix-zero": (92.4, 0.182, 0.044),
    },
    "horse2zebra": {
        "SDEdit + word swap": (92.2, 0.314, 0.105),
        "DDIM + word swap": (94.0, 0.283, 0.123),
        "prompt-to-prompt": (18.4, 0.261, 0.095),
        "pix2pix-zero": (75.2, 0.194, 0.066),
    },
    "cat2glasses": {
        "SDEdit + word swap": (34.0, None, 0.082),
        "DDIM + word swap": (37.6, None, 0.085),
        "prompt-to-prompt": (69.6, None, 0.081),
        "pix2pix-zero": (71.2, None, 0.028),
    },
    "sketch2pastel": {
        "SDEdit + word swap": (21.2, None, 0.085),
        "DDIM + word swap": (32.4, None, 0.082),
        "prompt-to-prompt": (10.8, None, 0.079),
        "pix2pix-zero": (75.2, None, 0.052),
    },
}
"""Edit -> row of the paper's Table 1: CLIP accuracy, background LPIPS, structure distance."""

NOTES = (
    "The paper's own rows: Stable Diffusion 1.4, 250 pictures of LAION a task, 100 steps, sentences of GPT-3. Its "
    "pictures are not published, nor which CLIP and which LPIPS were used.",
    "CLIP accuracy: share of the edited pictures that CLIP finds more alike to the target text than the source text.",
    "Background LPIPS: to the original, whose thing is pasted over both so that only the background can differ. The "
    "paper finds the background with Detic; here it is what the masks leave.",
    "Structure distance: mean squared difference of the self-similarities of DINO's keys.",
)


class TableOne(Benchmark):
    """A folder of pictures; see `Benchmark`.

    Attributes:
        texts: what CLIP compares pictures with, source and target.
    """

    published_cfg = 5.0  # as the published script has it

    def __init__(
        self,
        folder: Path,
        edit: str,
        edits: Path,
        *,
        masks: Path | None = None,
        texts: Sequence[str] | None = None,
        count: int | None = None,
    ) -> None:
        """Find pictures, and masks if there are any.

        Args:
            folder: of the pictures.
            edit: name of the edit.
            edits: folder of the edits and their sentences.
            masks: folder of pictures of the same names, white where the thing is that the edit changes; without them
                there is no background LPIPS.
            texts: source and target for CLIP; None is the names of the edit's concepts.
            count: of pictures; None takes all.

        Raises:
            UsageError: an unknown edit, no pictures, or a picture without a mask.
        """
        if edit not in (known := read_edits(edits)):
            raise UsageError(f"--edit {edit}: the edits of this model are {', '.join(known)}")
        if not folder.is_dir():
            raise UsageError(f"--pictures {folder}: there is no such folder")
        self._sentences = load_edit(edit, edits)
        self.texts = tuple(texts or (_with_article(self._sentences.source), _with_article(self._sentences.target)))
        paths = find_pictures([str(folder)]).pictures[:count]
        require_own_names([Path(path.stem) for path in paths])
        self.samples = [Sample(path.stem, path, *self.texts) for path in paths]
        self._masks = {} if masks is None else {path.stem: _mask_of(path, masks) for path in paths}
        self.title = f"Table 1: {edit}, {len(paths)} pictures"
        self.columns = {name: column for name, column in COLUMNS.items() if masks or name != "bg_lpips"}
        rows = PUBLISHED.get(edit, {})
        self.published = {
            f"paper: {row}": {n: v for n, v in zip(COLUMNS, values, strict=True) if v is not None and n in self.columns}
            for row, values in rows.items()
        }
        without_masks = () if masks else ("No --masks were given: no background LPIPS.",)
        self.notes = (*NOTES, f"CLIP compared {self.texts[0]!r} with {self.texts[1]!r}.", *without_masks)

    def sentences(self, sample: Sample) -> EditSentences:
        """The sentences of the edit."""
        return self._sentences

    def measured_with(self, sample: Sample) -> str:
        """The texts, and the mask."""
        mask = sha256(self._masks[sample.name].read_bytes()).hexdigest() if self._masks else None
        return json.dumps([sample.source, sample.target, mask])

    def measure(self, judges: Judges, sample: Sample, edited: Image.Image) -> dict[str, float]:
        """Read the columns off an edited picture; the source is cropped and resized as the model saw it."""
        found: dict[str, float] = {}
        with Image.open(sample.path) as image:
            before = fit(in_colour(image), edited.size)
        a, b = (as_tensor(picture).to(judges.device) for picture in (before, edited))
        if judges.clip is not None:
            source, target = judges.clip(edited, [sample.source, sample.target]).tolist()
            found["clip_acc"] = float(target > source)
        if judges.lpips is not None and self._masks:
            thing = self._thing(sample, edited.size).to(a.device)
            found["bg_lpips"] = float(judges.lpips(torch.where(thing, a, b), a))
        if judges.dino is not None:
            found["structure"] = float(judges.dino(a, b))
        return found

    def _thing(self, sample: Sample, size: tuple[int, int]) -> Tensor:
        """Where the thing is, booleans, (H, W)."""
        with Image.open(self._masks[sample.name]) as image:
            return torch.from_numpy(np.array(fit(image.convert("L"), size)) >= 128)


def _mask_of(picture: Path, masks: Path) -> Path:
    found = [path for path in sorted(masks.glob(f"{picture.stem}.*")) if is_picture(path)]
    if not found:
        raise UsageError(f"--masks {masks}: there is no mask {picture.stem}.png for {picture}")
    return found[0]


def _with_article(concept: str) -> str:
    return f"{indefinite_article(concept)} {concept}"
