"""Train all of Tiny Zoo, one part after the other: `python -m tiny_zoo.train`; the same command resumes.

With `--from-nothing` what earlier runs left is deleted first. Every part is a command of its own, with options of its
own, and resumes as well. `python -m tiny_zoo.build_directions` makes the edit directions afterwards, in a ComfyUI.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from .training import RUNS

PARTS = ("train_vae", "train_decoder", "train_text", "train_unet", "train_flow", "train_probe", "train_blip", "export")
"""In the order in which one needs the other."""


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from-nothing", action="store_true", help=f"delete the runs in {RUNS} first")
    if parser.parse_args().from_nothing:
        for run in RUNS.glob("*.pt"):
            run.unlink()
    for part in PARTS:
        print(f"tiny_zoo.{part}", flush=True)
        sys.argv = [part]  # without options
        import_module(f".{part}", __package__).main()


if __name__ == "__main__":
    main()
