"""Train the UNet: `python -m tiny_zoo.train_unet`; the same command resumes.

Needs the finished autoencoder and text encoder (`train_vae`, `train_text`). Predicts the noise on Stable
Diffusion's own schedule, with min-SNR weights (Hang et al. 2023, arXiv:2303.09556, gamma 5); one caption in ten
is empty, so that the model can be guided without a classifier.

It learns the words from captions that are complete and true, which takes few steps, and then from captions as
unreliable as the web's. So it ends as Stable Diffusion does: it knows what the words mean, and does as they say only
when it is guided by them.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .captions import caption, token_ids, unreliable_caption
from .networks import AutoEncoder, TextEncoder, UNet, alphas_cumprod
from .train_text import Reader
from .training import RUNS, Run, averaged_weights, pictures, start_from, training_pictures, write
from .world import Scene, sample_scene


@torch.no_grad()
def latents(count: int, vae: AutoEncoder, name: str, split: Literal["train", "validation"] = "train") -> Tensor:
    """Latents of the first scenes of a split, (count, 4, 16, 16), computed once and kept."""
    path = RUNS / f"latents_{name}_{count}.pt"
    if path.exists():
        return torch.load(path, weights_only=True)
    images = training_pictures(count) if split == "train" else pictures(count, split)
    with torch.autocast("cpu", torch.bfloat16):
        encoded = torch.cat([vae.encode(chunk.float() / 255).float() for chunk in images.split(50)])
    write(path, encoded)
    return encoded


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--scenes", type=int, default=16000)
    parser.add_argument(
        "--truthful", type=float, default=0.6, help="share of the steps, from the first on, whose captions are true"
    )
    parser.add_argument("--start", type=Path, help="a checkpoint whose weights to start from")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()

    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    device = torch.device(arguments.device)
    vae = averaged_weights("vae", AutoEncoder())
    train = latents(arguments.scenes, vae, "train").to(device)
    held_out = latents(256, vae, "validation", "validation").to(device)
    scenes = [sample_scene(i) for i in range(arguments.scenes)]
    encoder: TextEncoder = averaged_weights("text", Reader()).encoder.to(device)
    abar = alphas_cumprod().to(device)
    model = UNet()
    start_from(model, arguments.start, "model.diffusion_model.")
    model = model.to(device)
    run = Run("unet", model, arguments.lr, arguments.steps)
    print(
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, latent std {train.std():.3f}", flush=True
    )

    def true_caption(scene: Scene, rng: random.Random) -> str:
        return "" if rng.random() < 0.1 else caption(scene, rng, drop=0.15)

    def encode(shown: list[Scene], rng: random.Random, say: Callable[[Scene, random.Random], str]) -> Tensor:
        texts = [say(scene, rng) for scene in shown]
        with torch.no_grad():
            return encoder(torch.tensor([token_ids(text) for text in texts], device=device))

    def loss(network: nn.Module, x0: Tensor, context: Tensor, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        t = torch.randint(1000, (len(x0),), generator=generator).to(device)
        eps = torch.randn(x0.shape, generator=generator).to(device)
        a = abar[t][:, None, None, None]
        predicted = network(a.sqrt() * x0 + (1 - a).sqrt() * eps, t, context).float()
        snr = abar[t] / (1 - abar[t])
        return (F.mse_loss(predicted, eps, reduction="none").mean((1, 2, 3)) * (5 / snr).clamp(max=1)).mean()

    def loss_of(step: int) -> Tensor:
        rng = random.Random(step)
        rows = [rng.randrange(len(train)) for _ in range(arguments.batch)]
        say = true_caption if step < arguments.truthful * arguments.steps else unreliable_caption
        with torch.autocast(device.type, torch.bfloat16):
            return loss(model, train[rows], encode([scenes[r] for r in rows], rng, say), step)

    held_out_context = encode(
        [sample_scene(i, "validation") for i in range(len(held_out))], random.Random(0), true_caption
    )

    @torch.no_grad()
    def evaluate(averaged: nn.Module) -> str:
        with torch.autocast(device.type, torch.bfloat16):
            return f"held-out {loss(averaged, held_out, held_out_context, 0):.4f}"

    run.train(loss_of, evaluate, every=250)


if __name__ == "__main__":
    main()
