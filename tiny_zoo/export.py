"""Put the trained parts into one checkpoint that ComfyUI's stock loader takes: `python -m tiny_zoo.export`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from .networks import UNet
from .train_decoder import autoencoder
from .train_text import Reader
from .training import WEIGHTS, averaged_weights

CHECKPOINT = WEIGHTS / "checkpoints" / "tiny_zoo.safetensors"


def checkpoint() -> dict[str, Tensor]:
    """Averaged weights of all parts under Stable Diffusion 1's names, in half precision."""
    parts = {
        "model.diffusion_model.": averaged_weights("unet", UNet()),
        "cond_stage_model.transformer.": averaged_weights("text", Reader()).encoder,
        "first_stage_model.": autoencoder(),
    }
    return {
        prefix + name: t.half().contiguous() for prefix, part in parts.items() for name, t in part.state_dict().items()
    }


def main() -> None:
    """Write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=CHECKPOINT)
    output: Path = parser.parse_args().output
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished = output.with_suffix(".partial")
    save_file(checkpoint(), unfinished, {"format": "pt", "modelspec.title": "Tiny Zoo", "license": "MIT"})
    os.replace(unfinished, output)
    print(f"{output} {output.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
