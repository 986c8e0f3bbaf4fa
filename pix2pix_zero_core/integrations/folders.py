"""Model folders as on Hugging Face, which anybody may have made: neither code in them runs nor does the network."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch

LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
"""What every `from_pretrained` is given."""

MODEL: dict[str, Any] = {**LOCAL, "output_loading_info": True, "attn_implementation": "eager"}
"""What that of a model is given: config.json may name an attention to be fetched from the Hub and run."""


def ran_out_of_memory(error: Exception) -> bool:
    """Whether the memory of the machine or of an accelerator was too small; torch has no type for CPUs' and MPS'."""
    said = str(error) if isinstance(error, RuntimeError) else ""
    told = any(words in said for words in ("out of memory", "can't allocate memory"))
    return told or isinstance(error, MemoryError | torch.cuda.OutOfMemoryError)


def require_plain_attention(folder: str | Path) -> None:
    """Refuse a pipeline of which a configuration names an attention that transformers would fetch from the Hub and run.

    Raises:
        ValueError: names the file. One that cannot be read is left to whoever loads it.
    """
    for path in sorted(Path(folder).glob("*/config.json")):
        try:
            named = set(_attentions(json.loads(path.read_text(encoding="utf-8"))))
        except ValueError:
            continue
        if odd := sorted(named - {"eager", "sdpa"}):
            raise ValueError(
                f"{path} asks for the attention {odd[0]!r}, which may be code from the network. Remove that line."
            )


def _attentions(config: Any, named: bool = False) -> Iterator[str]:
    """All attentions that a configuration names, at any depth: one, or a name for each part."""
    if isinstance(config, dict):
        for name, value in cast(dict[str, Any], config).items():
            yield from _attentions(value, named or "attn_implementation" in name)
    elif named and isinstance(config, str):
        yield config


@contextmanager
def blamed_on(folder: str | Path, what: str, remedy: str) -> Generator[None, None, None]:
    """Say which folder is at fault where transformers fails on it.

    Broken files fail with whatever their parser raises (KeyError, struct.error), senseless settings only in use.

    Args:
        folder: of the model.
        what: it should hold, "a language model".
        remedy: what to do, a sentence.

    Raises:
        ValueError: instead of any other exception but that the memory ran out.
    """
    try:
        yield
    except Exception as error:
        if ran_out_of_memory(error):
            raise
        message = f"{folder} cannot be read as {what} ({type(error).__name__}: {error}). {remedy}"
        raise ValueError(message) from error
