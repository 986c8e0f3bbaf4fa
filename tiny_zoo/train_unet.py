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
import math
import random
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
    device = vae.vae_scale.device
    with torch.autocast(device.type, torch.bfloat16):
        parts = [vae.encode(chunk.to(device).float() / 255).float().cpu() for chunk in images.split(50)]
    encoded = torch.cat(parts)
    write(path, encoded)
    return encoded


def true_caption(scene: Scene, rng: random.Random) -> str:
    """A caption that is complete, mostly, and true; one in ten is empty."""
    return "" if rng.random() < 0.1 else caption(scene, rng, drop=0.15)


def batch(x0: Tensor, texts: list[str], seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Latents (B, 4, H, W) with noise of the same shape, timesteps (B,) and their texts' token ids (B, 77)."""
    generator = torch.Generator().manual_seed(seed)
    t = torch.randint(1000, (len(x0),), generator=generator)
    eps = torch.randn(x0.shape, generator=generator)
    ids = torch.tensor([token_ids(text) for text in texts])
    return x0, eps.to(x0.device), t.to(x0.device), ids.to(x0.device)


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
    parser.add_argument("--seconds", type=float, default=math.inf, help="end after so long, whatever the steps")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()

    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    device = torch.device(arguments.device)
    vae = averaged_weights("vae", AutoEncoder()).to(device)
    train = latents(arguments.scenes, vae, "train").to(device)
    held_out = latents(256, vae, "validation", "validation").to(device)
    scenes = [sample_scene(i) for i in range(arguments.scenes)]
    encoder: TextEncoder = averaged_weights("text", Reader()).encoder.to(device)
    abar = alphas_cumprod().to(device)
    model = UNet()
    start_from(model, arguments.start, "model.diffusion_model.")
    model = model.to(device)
    run = Run("unet", model, arguments.lr, arguments.steps, seconds=arguments.seconds)
    print(
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, latent std {train.std():.3f}", flush=True
    )

    def batch_of(step: int) -> tuple[Tensor, ...]:
        rng = random.Random(step)
        rows = [rng.randrange(len(train)) for _ in range(arguments.batch)]
        say = true_caption if run.done < arguments.truthful else unreliable_caption
        return batch(train[rows], [say(scenes[row], rng) for row in rows], step)

    def loss_of(x0: Tensor, eps: Tensor, t: Tensor, ids: Tensor, network: nn.Module = model) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            with torch.no_grad():
                context = encoder(ids)
            a = abar[t][:, None, None, None]
            predicted = network(a.sqrt() * x0 + (1 - a).sqrt() * eps, t, context).float()
        snr = abar[t] / (1 - abar[t])
        return (F.mse_loss(predicted, eps, reduction="none").mean((1, 2, 3)) * (5 / snr).clamp(max=1)).mean()

    rng = random.Random(0)
    held_out_batch = batch(
        held_out, [true_caption(sample_scene(i, "validation"), rng) for i in range(len(held_out))], 0
    )

    @torch.no_grad()
    def evaluate(averaged: nn.Module) -> str:
        return f"held-out {loss_of(*held_out_batch, network=averaged):.4f}"

    run.train(batch_of, loss_of, evaluate, every=250)


if __name__ == "__main__":
    main()
