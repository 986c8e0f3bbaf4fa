"""The networks that read pictures, as the command's options name them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from pix2pix_zero_cli.arguments import UsageError
from pix2pix_zero_core.integrations.diffusers import encoder_fingerprint

from .lpips import Lpips, load_lpips
from .networks import Clip, Structure

Network = Literal["clip", "dino", "lpips"]

NETWORKS: tuple[Network, ...] = ("clip", "dino", "lpips")
"""Each is an option."""


@dataclass(frozen=True)
class Judges:
    """The networks that read pictures; None where their columns are left out."""

    clip: Clip | None
    dino: Structure | None
    lpips: Lpips | None

    @classmethod
    def load(cls, paths: Mapping[Network, Sequence[Path]], without: Sequence[Network]) -> Judges:
        """Load them to the CPU.

        Args:
            paths: network -> its folder or files; none is the installed AlexNet for "lpips".
            without: which are left out.

        Raises:
            UsageError: one that is neither given nor left out, or that cannot be read; names its option.
        """
        loaders: dict[Network, Callable[[Sequence[Path]], Any]] = {
            "clip": lambda given: Clip.load(_the_folder(given, "openai/clip-vit-large-patch14")),
            "dino": lambda given: Structure.load(_the_folder(given, "facebook/dino-vitb8")),
            "lpips": load_lpips,
        }
        loaded: dict[str, Any] = dict.fromkeys(NETWORKS)
        for name in NETWORKS:
            if name not in without:
                try:
                    loaded[name] = loaders[name](paths[name])
                except (FileNotFoundError, ValueError) as error:
                    raise UsageError(f"--{name}: {error} Or leave its columns out: --without {name}") from error
        return cls(**loaded)

    def to(self, device: torch.device) -> Judges:
        """Move all to a device; returns them."""
        for judge in self._there.values():
            judge.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """Where they are; the CPU if there is none."""
        return next((next(judge.model.parameters()).device for judge in self._there.values()), torch.device("cpu"))

    @property
    def names(self) -> dict[str, str]:
        """Which networks they are, for people."""
        return {name: judge.name for name, judge in self._there.items()}

    @property
    def fingerprints(self) -> dict[str, str]:
        """Names of their weights, to know figures by that were read with others."""
        return {name: encoder_fingerprint([judge.model]) for name, judge in self._there.items()}

    @property
    def _there(self) -> dict[str, Any]:
        return {name: judge for name, judge in vars(self).items() if judge is not None}


def _the_folder(given: Sequence[Path], example: str) -> Path:
    if not given:
        raise FileNotFoundError(f"is missing. Give the folder of one for transformers, {example} say.")
    return given[0]
