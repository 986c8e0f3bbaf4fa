"""Reproduce published figures with real weights, ours beside them: `python -m benchmarks.real`.

On a folder of pictures, the columns of the paper's Table 1:

    python -m benchmarks.real --model sd-v1-4 --blip blip-image-captioning-base --clip clip-vit-large-patch14
        --dino dino-vitb8 --pictures cats --edit cat2dog --masks cat-masks --output results/cat2dog

On PIE-Bench, with --pie FOLDER in place of --pictures, --edit and --masks; --count 4 takes 4 pictures of each category.
Interrupted, it goes on where it was. Nothing is downloaded. Writes real.md, real.json and sheet.jpg to the output.
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pix2pix_zero_cli.arguments import UsageError, add_captioner, add_device, add_model, number
from pix2pix_zero_cli.model import ModelOptions
from pix2pix_zero_cli.pictures import Unreadable, require_folder
from pix2pix_zero_cli.report import DONE, SOME_FAILED
from pix2pix_zero_core.integrations.diffusers import DiffusersDenoiser

from ..harness.cells import RESULTS
from .benchmark import Benchmark
from .editing import Editing, peak_memory
from .judges import NETWORKS, Judges, Network
from .measuring import measure_all
from .methods import methods
from .pie import CATEGORIES, PieBench
from .report import write_report
from .table1 import TableOne


def main(arguments: Sequence[str] | None = None) -> int:
    """Edit, measure and report; 3 if some edits failed, 2 if nothing can be done."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    try:
        return run(options)
    except (UsageError, Unreadable) as error:
        parser.error(str(error))


def run(options: argparse.Namespace) -> int:
    """Do what the options say.

    Raises:
        UsageError: one that cannot be used.
    """
    if options.side is not None and options.side % 8:
        raise UsageError(f"--side {options.side}: it must be a multiple of 8")
    model_options = ModelOptions.of(options, captions=True)
    benchmark = choose_benchmark(options, model_options.edits)
    chosen = methods(options.steps, benchmark.published_cfg)
    if options.methods:
        if unknown := [name for name in options.methods if name not in chosen]:
            raise UsageError(f"--methods {' '.join(unknown)}: the methods are {', '.join(chosen)}")
        chosen = {name: chosen[name] for name in options.methods}
    output: Path = options.output
    require_folder(output)
    judges = Judges.load({name: getattr(options, name) for name in NETWORKS}, options.without)

    model = model_options.load()
    if not isinstance(model.editor.denoise, DiffusersDenoiser):
        raise UsageError(
            f"--model {model_options.name}: the published algorithm is one of UNets. Give a model of Stable Diffusion "
            "1, 2 or XL."
        )
    editing = Editing(model, output, options.side or model.editor.side, options.overwrite)
    failed = editing.run(benchmark, chosen, report=lambda line: print(line, flush=True))
    device = next(model.editor.pipeline.unet.parameters()).device
    about = describe_run(options, editing, judges, device)
    about["settings"] = {name: dict(method.settings) for name, method in chosen.items()}
    del model, editing  # its memory is for those who measure
    gc.collect()
    torch.cuda.empty_cache()

    print("measuring", flush=True)
    measured = measure_all(benchmark, judges.to(device), list(chosen), output)
    write_report(output, benchmark, measured, about, failed)
    print(f"written to {output}: real.md, real.json, sheet.jpg")
    return SOME_FAILED if failed else DONE


def choose_benchmark(options: argparse.Namespace, edits: Path) -> Benchmark:
    """The benchmark that the options name.

    Raises:
        UsageError: none, or options that do not belong to it.
    """
    if options.pie is not None:
        for flag in ("edit", "masks", "texts"):
            if getattr(options, flag) is not None:
                raise UsageError(f"--{flag}: belongs to --pictures; PIE-Bench brings its own")
        return PieBench(options.pie, options.categories or tuple(CATEGORIES), options.count)
    if options.categories is not None:
        raise UsageError("--categories: belongs to --pie")
    if options.edit is None:
        raise UsageError("--edit: is missing; --pictures needs the name of an edit, cat2dog say")
    return TableOne(
        options.pictures, options.edit, edits, masks=options.masks, texts=options.texts, count=options.count
    )


def describe_run(options: argparse.Namespace, editing: Editing, judges: Judges, device: torch.device) -> dict[str, Any]:
    """What was run, and on what; `environment` adds the machine."""
    return {
        "command": "python -m benchmarks.real " + " ".join(sys.argv[1:]),
        "model": Path(editing.model.options.name).name,
        "weights": editing.weights,
        "precision": options.dtype,
        "pixels": editing.side,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        **({} if (peak := peak_memory()) is None else {"peak GiB while editing": round(peak, 2)}),
        **judges.names,
    }


def make_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.real", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model(parser, flows=False)
    add_captioner(parser)
    add_device(parser)
    what = parser.add_argument_group("what is edited")
    one = what.add_mutually_exclusive_group(required=True)
    one.add_argument("--pictures", type=Path, help="folder of pictures, for the columns of Table 1; with --edit")
    one.add_argument("--pie", type=Path, help="folder of PIE-Bench: mapping_file.json and annotation_images")
    what.add_argument(
        "--edit", help="a ready-made edit; the paper's are cat2dog, horse2zebra, cat2glasses, sketch2pastel"
    )
    what.add_argument(
        "--masks", type=Path, help="folder of masks of the pictures' names, white where the edited thing is"
    )
    what.add_argument(
        "--texts", nargs=2, metavar=("SOURCE", "TARGET"), help="what CLIP compares (default: the concepts)"
    )
    what.add_argument("--categories", nargs="+", choices=CATEGORIES, help="of PIE-Bench (default: all)")
    what.add_argument(
        "--count", type=number(int, 1, 10**6), help="pictures, of PIE-Bench in each category (default: all)"
    )
    how = parser.add_argument_group("how")
    how.add_argument("--methods", nargs="+", metavar="METHOD", help="default: all")
    how.add_argument("--steps", type=number(int, 3, 999), default=50, help="DDIM steps (default: 50, as published)")
    how.add_argument("--side", type=number(int, 64, 4096), help="of the edited pictures (default: the model's)")
    read = parser.add_argument_group("what reads the pictures")
    texts: dict[Network, tuple[str | int, str]] = {
        "clip": (1, "folder of a CLIP for transformers; PIE-Bench: clip-vit-large-patch14"),
        "dino": (1, "folder of a DINO ViT for transformers: dino-vitb8"),
        "lpips": (
            "+",
            "torchvision's weights of a network, and its heads of the package lpips; PIE-Bench: squeezenet1_1 "
            "(default: the AlexNet that run.py bench installs)",
        ),
    }
    for name, (values, text) in texts.items():
        read.add_argument(f"--{name}", type=Path, nargs=values, default=[], metavar="PATH", help=text)
    read.add_argument("--without", nargs="+", choices=NETWORKS, default=[], help="leave the columns of these out")
    parser.add_argument("--output", type=Path, default=RESULTS / "real", help=f"default: {RESULTS / 'real'}")
    parser.add_argument("--overwrite", action="store_true", help="replace results of other settings; else refuse to")
    return parser


if __name__ == "__main__":
    sys.exit(main())
