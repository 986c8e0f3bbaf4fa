"""Fetch a BLIP captioner from Hugging Face, for those who ask for it. Nothing here runs by itself.

The files come over plain HTTPS into a folder of their own, which gets its name once all of them are complete.
"""

from __future__ import annotations

import http.client
import os
import shutil
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

REPOSITORIES = {
    "blip-image-captioning-base": "Salesforce/blip-image-captioning-base",
    "blip-image-captioning-large": "Salesforce/blip-image-captioning-large",
}
"""Name of a folder -> repository on Hugging Face that it can be filled from: about 1 GB and 1.9 GB."""

PARTS: tuple[tuple[str, ...], ...] = (
    ("config.json",),
    ("preprocessor_config.json",),
    ("tokenizer_config.json",),
    ("tokenizer.json", "vocab.txt"),
    ("model.safetensors", "pytorch_model.bin"),
)
"""What is fetched: of each part, the first file that the repository has."""

CHUNK = 1 << 20  # bytes
TIMEOUT = 60  # seconds without a byte
UNFINISHED = ".partial"
"""Ends the name of a folder that is being filled, or that a killed process left behind."""
STALE = 24 * 60 * 60  # seconds after which such a folder is nobody's

OnBytes = Callable[[int, int], None] | None
"""Called with the bytes of the present file that have arrived and its size; may raise to stop."""


def download_blip(name: str, folder: Path, on_bytes: OnBytes = None) -> None:
    """Fetch a captioner into a new folder.

    The environment variables HF_ENDPOINT (another server), HF_HUB_OFFLINE (no connection) and the usual ones of a
    proxy are honoured.

    Args:
        name: a key of `REPOSITORIES`.
        folder: where to; it must not exist yet.
        on_bytes: told of the progress of each file; the weights come last.

    Raises:
        ValueError: an unknown name.
        FileExistsError: the folder exists.
        ConnectionError: HF_HUB_OFFLINE is set, or a file cannot be fetched whole; no folder is left behind.
    """
    if name not in REPOSITORIES:
        raise ValueError(f"{name!r} cannot be downloaded; it must be one of {', '.join(REPOSITORIES)}.")
    repository = REPOSITORIES[name]
    by_hand = f"Put the files of {repository} into {folder} by hand, or try again."
    if folder.exists():
        raise FileExistsError(f"{folder} exists, but holds no complete BLIP model. Complete it or remove it.")
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise ConnectionError(f"HF_HUB_OFFLINE forbids to download {repository}. {by_hand}")
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f"{name}.*{UNFINISHED}"):
        if time.time() - left.stat().st_mtime > STALE:
            shutil.rmtree(left, ignore_errors=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f"{name}.", suffix=UNFINISHED, dir=folder.parent))
    try:
        for files in PARTS:
            _fetch_first(f"{endpoint}/{repository}/resolve/main", files, unfinished, on_bytes)
        unfinished.chmod(0o755)  # mkdtemp makes it private
        os.replace(unfinished, folder)
    except (OSError, http.client.HTTPException) as error:
        raise ConnectionError(f"{repository} cannot be downloaded ({error}). {by_hand}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _fetch_first(address: str, files: Sequence[str], folder: Path, on_bytes: OnBytes) -> None:
    """Fetch the first of several files that the server has."""
    for file in files:
        request = urllib.request.Request(f"{address}/{file}", headers={"User-Agent": "pix2pix-zero"})
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
                _save(response, folder / file, on_bytes)
            return
        except urllib.error.HTTPError as error:
            if error.code != 404 or file == files[-1]:
                raise OSError(f"{request.full_url}: {error}") from error


def _save(response: http.client.HTTPResponse, path: Path, on_bytes: OnBytes) -> None:
    """Write what a server sends, and see that it is all there."""
    size, done = int(response.headers.get("Content-Length", 0)), 0
    with path.open("wb") as file:
        while chunk := response.read(CHUNK):
            file.write(chunk)
            done += len(chunk)
            if on_bytes is not None:
                on_bytes(done, max(size, done))
    if done < size:
        raise OSError(f"{path.name} ended after {done} of {size} bytes")
