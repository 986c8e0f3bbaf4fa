"""Model folders as on Hugging Face, which anybody may have made: neither code in them runs nor does the network."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
"""What every `from_pretrained` is given."""

MODEL: dict[str, Any] = {**LOCAL, "output_loading_info": True, "attn_implementation": "eager"}
"""What that of a model is given: config.json may name an attention to be fetched from the Hub and run."""


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
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:
        message = f"{folder} cannot be read as {what} ({type(error).__name__}: {error}). {remedy}"
        raise ValueError(message) from error
