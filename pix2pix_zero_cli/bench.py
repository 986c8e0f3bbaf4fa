"""`pix2pix-zero bench`: how long captioning, inversion and edit of a picture take on this machine."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from pix2pix_zero_core.integrations.sentences import load_edit
from pix2pix_zero_core.schedule import first_step
from tiny_zoo.world import render, sample_scene

from .arguments import TINY_ZOO, UsageError, add_captioner, add_device, add_inversion, add_json, add_model, number, size
from .inverting import inversion_settings
from .model import DirectionOptions, ModelOptions, find_device
from .pictures import fit
from .report import DONE, say

EDIT = "cat2dog"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's options."""
    parser.add_argument(
        "--count", type=number(int, 1, 1000), default=3, help="pictures, after one to warm up (default: 3)"
    )
    parser.add_argument("--size", type=size, help="WIDTHxHEIGHT of the pictures (default: what the model was made for)")
    add_captioner(parser)
    add_inversion(parser)
    add_model(parser)
    add_device(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; returns the exit status."""
    options = ModelOptions.of(arguments, captions=arguments.model == TINY_ZOO or arguments.blip is not None)
    settings, device = inversion_settings(arguments), find_device(options.device)
    if first_step(settings.steps, settings.cfg_start) == settings.steps:
        raise UsageError(f"--steps {settings.steps}: so few edit nothing, and would not time an edit; raise it")
    seconds: dict[str, list[float]] = {}

    def timed(name: str, action: Callable[[], Any]) -> Any:
        synchronize(device)
        started = time.perf_counter()
        result = action()
        synchronize(device)
        seconds.setdefault(name, []).append(time.perf_counter() - started)
        return result

    model = timed("load", options.load)
    wanted = DirectionOptions(EDIT, None, load_edit(EDIT, options.edits))
    direction = timed("direction", lambda: wanted.build(model))
    for seed in tqdm(range(arguments.count + 1), unit="picture", file=sys.stderr, disable=None):
        picture = draw(seed, arguments.size or (model.editor.side, model.editor.side))
        if model.captioner is not None:
            timed("caption", lambda picture=picture: model.captioner(picture))
        inverted = timed("invert", lambda picture=picture: model.editor.invert(picture, ["a cat"], settings))
        timed("edit", lambda inverted=inverted: model.editor.edit(inverted, direction, 1.0, settings))

    # The first picture warms up; model and direction are made once.
    medians = {name: statistics.median(values[1:] or values) for name, values in seconds.items()}
    a_picture = sum(medians[name] for name in ("caption", "invert", "edit") if name in medians)
    if arguments.json:
        about = {"model": options.name, "device": str(device), "threads": torch.get_num_threads()}
        say(json.dumps({**about, "steps": settings.steps, "seconds": medians, "pictures_a_minute": 60 / a_picture}))
    else:
        for name, value in medians.items():
            say(f"{name:<10}{value:9.3f} s")
        say(f"{60 / a_picture:.2f} pictures a minute, {settings.steps} steps, {device}")
    return DONE


def draw(seed: int, size: tuple[int, int]) -> Tensor:
    """A picture to edit, (1, height, width, 3) in 0..1: a cat of Tiny Zoo's world, whatever the model."""
    image = fit(render(sample_scene(seed, "test", animal="cat")), size)
    return torch.from_numpy(np.array(image))[None].float() / 255


def synchronize(device: torch.device) -> None:
    """Wait until a device has done what it was asked to."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
