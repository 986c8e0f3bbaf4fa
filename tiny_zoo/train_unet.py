"""Train the UNet: `python -m tiny_zoo.train_unet`; the same command resumes.

Needs the finished autoencoder and text encoder (`train_vae`, `train_text`). Predicts the noise on Stable
Diffusion's own schedule, with min-SNR weights (Hang et al. 2023, arXiv:2303.09556, gamma 5).
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .lessons import Lessons
from .networks import TextEncoder, UNet, alphas_cumprod
from .train_text import Reader
from .training import Run, averaged_weights, start_from


def noise(x0: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Noise for latents (B, 4, H, W) and timesteps (B,) at which to add it."""
    t = torch.randint(1000, (len(x0),), generator=generator, device=x0.device)
    return torch.randn(x0.shape, generator=generator, device=x0.device), t


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
    lessons = Lessons(arguments.scenes, device)
    encoder: TextEncoder = averaged_weights("text", Reader()).encoder.to(device)
    abar = alphas_cumprod().to(device)
    model = UNet()
    start_from(model, arguments.start, "model.diffusion_model.")
    model = model.to(device)
    run = Run("unet", model, arguments.lr, arguments.steps, seconds=arguments.seconds)
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters", flush=True)

    def batch_of(step: int) -> tuple[Tensor, ...]:
        generator = torch.Generator(device).manual_seed(step)
        x0, ids, _ = lessons.draw(arguments.batch, run.done < arguments.truthful, generator)
        return x0, ids, *noise(x0, generator)

    def loss_of(x0: Tensor, ids: Tensor, eps: Tensor, t: Tensor, network: nn.Module = model) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            with torch.no_grad():
                context = encoder(ids.int())
            a = abar[t][:, None, None, None]
            predicted = network(a.sqrt() * x0 + (1 - a).sqrt() * eps, t, context).float()
        snr = abar[t] / (1 - abar[t])
        return (F.mse_loss(predicted, eps, reduction="none").mean((1, 2, 3)) * (5 / snr).clamp(max=1)).mean()

    held_out = lessons.held_out, lessons.held_out_ids
    noised = noise(lessons.held_out, torch.Generator(device).manual_seed(0))

    @torch.no_grad()
    def evaluate(averaged: nn.Module) -> str:
        return f"held-out {loss_of(*held_out, *noised, network=averaged):.4f}"

    run.train(batch_of, loss_of, evaluate, every=250)


if __name__ == "__main__":
    main()
