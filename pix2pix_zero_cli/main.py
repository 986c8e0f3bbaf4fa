"""The command `pix2pix-zero`, and its exit statuses.

0: all is done. 2: an option or input cannot be used, or the disk is full; nothing more was done, what was done before
stays. 3: some pictures failed, and are listed in errors.jsonl if there is an output folder; the others are done. 130:
interrupted; the same command goes on from what it has written, if it has. 1: an error that nobody foresaw.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib import import_module
from io import TextIOWrapper
from types import ModuleType
from typing import Any, NoReturn

INTERRUPTED = 130

COMMANDS = {
    "edit": "edit pictures",
    "caption": "say what pictures show",
    "judge": "say whether edited pictures show what they should",
    "direction": "make an edit direction, and save it",
    "invert": "find the noise of pictures, and what samples back from it",
    "distill": "distill an edit into a small network that does it at once",
    "apply": "edit pictures by a distilled edit",
    "bench": "measure how long a picture takes on this machine",
    "comfyui": "have several ComfyUI servers run a workflow on many pictures",
}
"""Name of a command, and of its module -> what it does."""

AT_ONCE = ("judge", "direction", "bench")
"""Those that leave nothing from which they could go on."""


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
    given = list(sys.argv[1:] if arguments is None else arguments)
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be no text
    parser = Parser("pix2pix-zero", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    parsers = {name: subparsers.add_parser(name, help=text, description=text) for name, text in COMMANDS.items()}
    if not given or given[0] not in COMMANDS:
        parser.parse_args(given)  # shows the help, or says what is wrong
    name = given[0]
    try:
        with ended_by_ctrl_c(name) if arguments is None else nullcontext():
            command = load(name, parser)
        command.add_arguments(parsers[name])
        options, unknown = parser.parse_known_args(given)
        if unknown:
            parsers[name].error(f"unrecognized arguments: {' '.join(unknown)}")
        return run(command, options, parsers[name])
    except KeyboardInterrupt:
        if arguments is None:  # the process ends, and is not to be interrupted in that
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        say_interrupted(name)
        return INTERRUPTED


def load(name: str, parser: argparse.ArgumentParser) -> ModuleType:
    """Import the module of a command: only now, and only this one, since torch and diffusers take seconds."""
    try:
        return import_module(f".{name}", __package__)
    except ModuleNotFoundError as error:
        parser.error(f'the package {error.name} is missing. Install what the command needs: pip install ".[cli]"')


def run(command: ModuleType, options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Run the command that a module holds."""
    from .arguments import UsageError

    try:
        return command.run(options)
    except UsageError as error:
        parser.error(str(error))


@contextmanager
def ended_by_ctrl_c(name: str) -> Iterator[None]:
    """Let Ctrl-C end the process at once: modules whose import it interrupts may say that a package is missing."""

    def end(*_: Any) -> NoReturn:
        say_interrupted(name)
        os._exit(INTERRUPTED)

    before = signal.signal(signal.SIGINT, end)
    yield
    signal.signal(signal.SIGINT, before)


def say_interrupted(name: str) -> None:
    """Say in a line what Ctrl-C did to a command."""
    print(
        "interrupted" if name in AT_ONCE else "interrupted; the same command goes on from here",
        file=sys.stderr,
        flush=True,
    )
