"""What the commands' options have in common: ranges, groups of options, and the error that names one of them."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tiny_zoo
from pix2pix_zero_core import EditSettings, NoiseRegularizer
from pix2pix_zero_core.integrations.pairs import Form
from pix2pix_zero_core.integrations.sentences import SHIPPED, read_edits

TINY_ZOO = "tiny_zoo"
"""The model that is installed along."""

ZOO = Path(tiny_zoo.__file__).parent
TINY_EDITS = ZOO / "directions"
"""The embedded model's edits: its sentences use the few words that it knows."""


class UsageError(Exception):
    """An option or an input that cannot be used, in words that name it and the remedy; ends with exit status 2."""


def number(kind: Callable[[str], float], low: float, high: float) -> Callable[[str], float]:
    """Make a type for argparse: a number of a kind, `int` or `float`, within a range, both ends included."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            name = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{text!r} is not {name}; it must be {low:g} to {high:g}") from None
        if not low <= value <= high or not math.isfinite(value):
            raise argparse.ArgumentTypeError(f"{text} is out of range; it must be {low:g} to {high:g}")
        return value

    return parse


def size(text: str) -> tuple[int, int]:
    """Parse a type for argparse: width and height in pixels, "512" or "768x512"."""
    found = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    sides = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if any(side % 8 or not 64 <= side <= 4096 for side in sides):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no size; it must be a side or WIDTHxHEIGHT, each a multiple of 8, 64 to 4096"
        )
    return sides


def some_path(text: str) -> Path:
    """Parse a type for argparse: a path, which "" is not: it would be the folder one is in."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is no path")
    return Path(text)


def add_pictures(
    parser: argparse.ArgumentParser,
    output: Path | None = None,
    *,
    results: bool = True,
    usual_size: str = "what the model was made for",
    overwrite: str = "replace results that were made with other settings or of other pictures; else refuse to",
) -> None:
    """Describe what pictures are read, and where results go, if there are any but those that are printed."""
    add_inputs(parser)
    if results:
        shown = "none, results are only printed" if output is None else output
        parser.add_argument(
            "--output", type=some_path, default=output, help=f"folder for the results (default: {shown})"
        )
        parser.add_argument("--overwrite", action="store_true", help=overwrite)
    add_size(parser, usual_size)


def add_size(parser: argparse.ArgumentParser, usual: str = "what the model was made for") -> None:
    """Describe the size that pictures are brought to; `usual` says what it is without the option."""
    parser.add_argument("--size", type=size, help=f"WIDTHxHEIGHT to crop and resize to (default: {usual})")


def add_inputs(parser: argparse.ArgumentParser) -> None:
    """Describe what pictures are read."""
    parser.add_argument(
        "pictures", nargs="+", type=some_path, metavar="PICTURE", help="a picture, or a folder of pictures"
    )
    add_recursive(parser)


def add_recursive(parser: argparse.ArgumentParser) -> None:
    """Describe how folders are searched."""
    parser.add_argument(
        "--recursive",
        action="store_true",
        help="also search the folders in the folders; results lie in folders of the same names",
    )


def add_model(parser: argparse.ArgumentParser, *, flows: bool = True) -> None:
    """Describe the model, a flow model perhaps, and where it runs."""
    more = "; a folder also of Stable Diffusion 3 or Flux.1" if flows else ""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        default=TINY_ZOO,
        help=f"a folder in diffusers' format, or a .safetensors checkpoint, of Stable Diffusion 1, 2 or XL{more} "
        "(default: tiny_zoo, the embedded miniature)",
    )
    group.add_argument("--config", type=some_path, help="for a checkpoint: a folder in diffusers' format of its family")
    group.add_argument(
        "--dtype", choices=["float32", "float16", "bfloat16"], default="float32", help="precision (default: float32)"
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Describe where models run."""
    parser.add_argument(
        "--device", default="auto", help="cpu, cuda, cuda:1, mps ... (default: auto, a GPU if there is)"
    )
    parser.add_argument("--threads", type=number(int, 1, 1024), help="CPU threads (default: torch's own; on Ray 1)")


def add_captioner(parser: argparse.ArgumentParser) -> None:
    """Describe where captions come from."""
    parser.add_argument(
        "--blip",
        type=Path,
        help="folder of a BLIP captioner, the files of Salesforce/blip-image-captioning-base say (default: that of "
        "Tiny Zoo, which knows only its pictures)",
    )


def add_inversion(parser: argparse.ArgumentParser) -> None:
    """Describe the settings of the inversion."""
    usual = EditSettings()
    group = parser.add_argument_group("inversion")
    group.add_argument(
        "--steps", type=number(int, 1, 999), default=usual.steps, help=f"DDIM steps (default: {usual.steps})"
    )
    group.add_argument(
        "--regularization",
        type=number(float, 0, 1000),
        default=NoiseRegularizer.strength,
        help=f"how strongly the noise is kept uncorrelated (default: {NoiseRegularizer.strength:g})",
    )
    group.add_argument(
        "--kl",
        type=number(float, 0, 1000),
        default=NoiseRegularizer.kl_strength,
        help=f"how strongly it is kept at mean 0 and variance 1 (default: {NoiseRegularizer.kl_strength:g})",
    )
    group.add_argument(
        "--fixed-point",
        type=number(int, 0, 50),
        default=usual.fixed_point,
        help=f"refinements of a step (default: {usual.fixed_point})",
    )


class ListEdits(argparse.Action):
    """Print the ready-made edits, and end the process, whatever else is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Print a line for each edit: its name, and what it changes into what."""
        for model, edits in (("Tiny Zoo", read_edits(TINY_EDITS)), ("Stable Diffusion", read_edits(SHIPPED))):
            print(f"{model}:")
            for name, edit in edits.items():
                print(f"  {name}: {edit.source} -> {edit.target}")
        parser.exit()


def add_named_edit(parser: argparse.ArgumentParser, way: argparse._MutuallyExclusiveGroup) -> None:
    """Describe the ready-made edits, one way of several to name an edit."""
    way.add_argument("--edit", help="a ready-made edit, cat2dog say")
    parser.add_argument("--list-edits", action=ListEdits, nargs=0, help="print the ready-made edits, and end")


USUAL_KIND, USUAL_SENTENCES = "thing", 200
"""--kind and --sentences, where they are not given: told apart, since beside --edit they are refused."""

FORMS: dict[str, Form] = {"aligned": "aligned to words", "mean": "mean by position"}
"""--form -> form of an edit direction."""


def add_direction(parser: argparse.ArgumentParser) -> argparse._MutuallyExclusiveGroup:
    """Describe the edit direction; returns the group of ways to name it."""
    group = parser.add_argument_group("edit")
    way = group.add_mutually_exclusive_group(required=True)
    add_named_edit(parser, way)
    way.add_argument("--from", dest="source", metavar="WORDS", help="what is to be replaced; with --to")
    group.add_argument("--to", dest="target", metavar="WORDS", help="what replaces it; with --from")
    group.add_argument(
        "--kind",
        choices=["thing", "animal", "pet", "person", "material", "medium", "setting"],
        help=f"what the words of --from and --to are (default: {USUAL_KIND})",
    )
    group.add_argument(
        "--sentences",
        type=number(int, 1, 1000),
        help=f"how many are made up around each of --from and --to (default: {USUAL_SENTENCES})",
    )
    group.add_argument(
        "--seed",
        type=number(int, 0, 2**31 - 1),
        help="of the sentences that are made up; all else is the same in every run (default: 0)",
    )
    group.add_argument(
        "--form",
        choices=FORMS,
        help="how sentences become a direction: aligned to words, or the paper's mean by position (default: aligned)",
    )
    return way


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Describe how pictures are shared out."""
    group = parser.add_argument_group("many workers")
    group.add_argument(
        "--ray", metavar="ADDRESS", help="share the pictures out on a Ray cluster; local makes one on this machine"
    )
    group.add_argument(
        "--workers",
        type=number(int, 1, 10000),
        help="models at once, with --ray (default: one a GPU, or one for every --threads CPUs)",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Describe the form of what is printed."""
    parser.add_argument("--json", action="store_true", help="print one JSON object a line instead of words")
