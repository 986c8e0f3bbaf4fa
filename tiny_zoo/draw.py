"""Draw samples from captions and let the probe judge them: `python -m tiny_zoo.draw --output samples.png`.

At several scales of classifier-free guidance, `--cfg 1 5 7.5`, it shows how far the model has to be pushed to do as
captions say; a row of the sheet is then the same captions at one scale. `--flow` draws with the flow model.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from pix2pix_zero_core import ClassifierFreeGuidance, Inversion, reconstruct

from .captions import caption
from .denoiser import TinyZoo, TinyZooFlow, Zoo
from .probe import load_probe
from .training import WEIGHTS
from .world import sample_scene


@torch.no_grad()
def sample(model: Zoo, texts: list[str], steps: int, scale: float, seed: int) -> Tensor:
    """Pictures of texts, (B, 3, 128, 128) in 0..1: DDIM with classifier-free guidance from noise of a seed."""
    sigmas = model.grid(steps)
    noise = torch.randn(len(texts), 4, 16, 16, generator=torch.Generator().manual_seed(seed))
    start = Inversion(noise * model.coordinates.variance(sigmas[0]).sqrt(), sigmas, coordinates=model.coordinates)
    guided = ClassifierFreeGuidance(model, model.encode_text([""]), scale)
    return model.vae.decode(reconstruct(guided, start, model.encode_text(texts))).clamp(0, 1)


def sheet(pictures: Tensor, columns: int) -> Image.Image:
    """Tile pictures (B, 3, H, W) in 0..1 into one."""
    tiles = (pictures * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    height, width = tiles.shape[1:3]
    page = Image.new("RGB", (columns * width, -(-len(tiles) // columns) * height), "white")
    for i, tile in enumerate(tiles):
        page.paste(Image.fromarray(tile), (i % columns * width, i // columns * height))
    return page


def main() -> None:
    """Draw, judge, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flow", action="store_true", help="draw with the flow model")
    parser.add_argument("--checkpoint", type=Path, help="default: the one that comes with the model")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--cfg", type=float, nargs="+", default=[5.0])
    parser.add_argument("--output", type=Path, default=Path("samples.png"))
    arguments = parser.parse_args()
    kind, name = (TinyZooFlow, "tiny_zoo_flow") if arguments.flow else (TinyZoo, "tiny_zoo")
    model = kind.load(arguments.checkpoint or WEIGHTS / "checkpoints" / f"{name}.safetensors")
    scenes = [sample_scene(i, "validation") for i in range(arguments.count)]
    keep = ("animal", "coat", "background", "accessory", "medium")
    texts = [caption(scene, random.Random(i), keep=keep) for i, scene in enumerate(scenes)]
    shown: list[Tensor] = []
    for cfg in arguments.cfg:
        parts = [sample(model, texts[i : i + 20], arguments.steps, cfg, seed=i) for i in range(0, len(texts), 20)]
        pictures = torch.cat(parts)
        names, _ = load_probe().read(pictures)
        right = {a: sum(x == getattr(s, a) for x, s in zip(names[a], scenes, strict=True)) for a in keep}
        print(f"cfg {cfg:g}", *(f"{a} {n / len(scenes):.3f}" for a, n in right.items()), flush=True)
        shown.append(pictures[: 32 if len(arguments.cfg) == 1 else 8])
    sheet(torch.cat(shown), 8).save(arguments.output)


if __name__ == "__main__":
    main()
