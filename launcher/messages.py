"""What the user reads: lines of progress, and what went wrong."""

from __future__ import annotations


class Failure(Exception):
    """What went wrong, in words that tell the user what to do; ends the program with exit status 1."""


def say(text: str) -> None:
    """Print a line at once, also through a pipe."""
    print(text, flush=True)
