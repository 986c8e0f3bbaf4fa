"""The command `pix2pix-zero`, and its exit statuses.

0: all is done. 2: an option or input cannot be used, and nothing was done. 3: some pictures failed, and are listed in
errors.jsonl; the others are done. 130: interrupted; the same command goes on from there. 1: an error that nobody
foresaw.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

INTERRUPTED = 130

COMMANDS = {
    "edit": "edit pictures",
    "caption": "say what pictures show",
    "judge": "say whether edited pictures show what they should",
    "direction": "make an edit direction, and save it",
    "invert": "find the noise of pictures, and what samples back from it",
    "bench": "measure how long a picture takes on this machine",
    "comfyui": "have several ComfyUI servers run a workflow on many pictures",
}
"""Name of a command, and of its module -> what it does."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are a line, without the usage above it."""

    def error(self, message: str) -> NoReturn:
        """End the process with status 2."""
        self.exit(2, f"{self.prog}: {message}\n{self.prog} --help lists the options\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    Args:
        arguments: of the command line; None is that of this process.
    """
    try:
        return run(list(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt:
        if arguments is None:  # the process ends, and is not to be interrupted in that
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED


def run(given: list[str]) -> int:
    """Run the command that arguments name."""
    parser = Parser("pix2pix-zero", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    parsers = {name: subparsers.add_parser(name, help=text, description=text) for name, text in COMMANDS.items()}
    if not given or given[0] not in COMMANDS:
        parser.parse_args(given)  # shows the help, or says what is wrong
    name = given[0]
    try:  # only now, and only this one: torch and diffusers take seconds to import
        command = import_module(f".{name}", __package__)
        from .arguments import UsageError
    except ModuleNotFoundError as error:
        parser.error(f'the package {error.name} is missing. Install what the command needs: pip install ".[cli]"')
    command.add_arguments(parsers[name])
    options = parser.parse_args(given)
    try:
        return command.run(options)
    except UsageError as error:
        parsers[name].error(str(error))
