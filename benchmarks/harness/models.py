"""The models that methods edit with: Tiny Zoo with its UNet, and its flow transformer."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tiny_zoo.denoiser import TinyZoo, TinyZooFlow, Zoo
from tiny_zoo.training import WEIGHTS

ModelName = Literal["unet", "flow"]

CHECKPOINTS = WEIGHTS / "checkpoints"


@dataclass(frozen=True)
class Model:
    """A model, and what its results are called.

    Attributes:
        title: in reports.
        kind: loads it.
        checkpoint: where it is unless somebody says otherwise.
        prefix: of the names of its settings and results.
    """

    title: str
    kind: type[Zoo]
    checkpoint: Path
    prefix: str = ""


MODELS: Mapping[ModelName, Model] = {
    "unet": Model("Tiny Zoo", TinyZoo, CHECKPOINTS / "tiny_zoo.safetensors"),
    "flow": Model("Tiny Zoo's flow model", TinyZooFlow, CHECKPOINTS / "tiny_zoo_flow.safetensors", "flow_"),
}


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the option that says which model edits."""
    parser.add_argument("--model", choices=MODELS, default="unet", help="that edits (default: unet)")
