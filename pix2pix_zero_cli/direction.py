"""`pix2pix-zero direction`: an edit direction as a file, for `edit --direction` on the same model."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pix2pix_zero_core import EditDirection

from .arguments import UsageError, add_device, add_direction, add_json, add_model, some_path
from .model import DirectionOptions, ModelOptions
from .pictures import require_folder
from .report import DONE, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's options."""
    add_direction(parser)
    parser.add_argument("--output", type=some_path, help="the file (default: the edit's name, .safetensors)")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there; else refuse to")
    add_model(parser)
    add_device(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Make and save a direction; returns the exit status."""
    options = ModelOptions.of(arguments, captions=False)
    wanted = DirectionOptions.of(arguments, options)
    path = arguments.output or Path(f"{wanted.name}.safetensors")
    if path.is_dir():
        raise UsageError(f"--output {path}: is a folder; name a file")
    if path.exists() and not arguments.overwrite:
        raise UsageError(f"--output {path}: exists; choose another name, or --overwrite")
    if not path.parent.is_dir():
        raise UsageError(f"--output {path}: there is no folder {path.parent}")
    require_folder(path.parent)
    model = options.load()
    with tqdm(unit="sentence", file=sys.stderr, disable=None) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        direction = wanted.build(model, show)
    direction.save(path, overwrite=arguments.overwrite)
    before, after = direction.sentences
    described: dict[str, Any] = {
        "direction": direction.name,
        "output": str(path),
        "encoder": direction.encoder,
        "form": direction.form,
    }
    if isinstance(direction, EditDirection):
        described["norm"] = float(direction.vector.norm())
    if arguments.json:
        say(json.dumps({**described, "sentences": [before, after]}))
    else:
        say(f"{direction.name}, {direction.form}, of {before} and {after} sentences: {path}")
    return DONE
