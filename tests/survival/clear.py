"""What a failure may look like: an error that we raised on purpose, in words that help."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from hypothesis import settings

ROOT = Path(__file__).resolve().parents[2]
OURS = ("nodes", "pix2pix_zero_core", "tiny_zoo")
KINDS = (ValueError, TypeError, FileNotFoundError, FileExistsError)
WORDS = 6  # of the shortest message that can name the value, what is wrong with it and the remedy

Result = TypeVar("Result")

fewer = settings(max_examples=settings().max_examples // 5)
"""For cases that load a model or queue a prompt."""


def is_clear(error: BaseException) -> bool:
    """Whether one of our own `raise` statements made an error, of a kind and length that our style asks for."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    file = Path(place.filename)
    ours = file.is_relative_to(ROOT) and file.relative_to(ROOT).parts[0] in OURS
    deliberate = (place.line or "").startswith("raise ")
    return ours and deliberate and isinstance(error, KINDS) and len(str(error).split()) >= WORDS


def survive(call: Callable[[], Result]) -> Result | None:
    """Call; None stands for a clear error, and any other one is the test's failure."""
    try:
        return call()
    except Exception as error:
        if not is_clear(error):
            raise
    return None
