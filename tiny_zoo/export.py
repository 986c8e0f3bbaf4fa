"""Put the trained parts into checkpoints that ComfyUI's stock loader takes: `python -m tiny_zoo.export`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor, nn

from .networks import UNet
from .train_decoder import autoencoder
from .train_flow import Aligned
from .train_text import Reader
from .training import CHECKPOINT, WEIGHTS, averaged_weights

FLOW_CHECKPOINT = WEIGHTS / "checkpoints" / "tiny_zoo_flow.safetensors"


def checkpoint() -> dict[str, Tensor]:
    """Averaged weights of the UNet and what it works with, under Stable Diffusion 1's names."""
    return _joined(averaged_weights("unet", UNet()), text="cond_stage_model.transformer.")


def flow_checkpoint() -> dict[str, Tensor]:
    """Averaged weights of the flow transformer and what it works with, under Stable Diffusion 3's names."""
    return _joined(averaged_weights("flow", Aligned()).network, text="text_encoders.clip_l.transformer.")


def _joined(diffusion: nn.Module, text: str) -> dict[str, Tensor]:
    """A diffusion model, the text encoder under its prefix and the autoencoder, in half precision."""
    parts = {
        "model.diffusion_model.": diffusion,
        text: averaged_weights("text", Reader()).encoder,
        "first_stage_model.": autoencoder(),
    }
    return {
        prefix + name: t.half().contiguous() for prefix, part in parts.items() for name, t in part.state_dict().items()
    }


def _write(weights: dict[str, Tensor], path: Path, title: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".partial")
    save_file(weights, unfinished, {"format": "pt", "modelspec.title": title, "license": "MIT"})
    os.replace(unfinished, path)
    print(f"{path} {path.stat().st_size / 1e6:.1f} MB")


def main() -> None:
    """Write the checkpoints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=CHECKPOINT, help="the UNet's checkpoint")
    parser.add_argument("--flow-output", type=Path, default=FLOW_CHECKPOINT, help="the flow transformer's checkpoint")
    parser.add_argument("--only", choices=("unet", "flow"), help="write one of the two")
    arguments = parser.parse_args()
    if arguments.only != "flow":
        _write(checkpoint(), arguments.output, "Tiny Zoo")
    if arguments.only != "unet":
        _write(flow_checkpoint(), arguments.flow_output, "Tiny Zoo, a flow model")


if __name__ == "__main__":
    main()
