"""Train the flow transformer: `python -m tiny_zoo.train_flow`; the same command resumes.

Needs the finished autoencoder and text encoder (`train_vae`, `train_text`), and learns from the same
lessons as the UNet. Rectified flow (Liu et al. 2023, arXiv:2209.03003) with logit-normal times (Esser et al. 2024,
arXiv:2403.03206).
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .captions import END, VOCABULARY
from .lessons import Lessons
from .mmdit import TIMESTEPS, MMDiT, pooled
from .networks import TextEncoder
from .train_text import Reader
from .training import Run, averaged_weights, start_from

SHORT = 32
"""Tokens that hold every caption; the others are padding, on which a third of a step's time is spent."""


def loss(network: nn.Module, x0: Tensor, t: Tensor, eps: Tensor, context: Tensor, y: Tensor) -> Tensor:
    """Squared error of the velocity of x = (1 - t) x0 + t eps.

    Args:
        network: the transformer, or one with its signature.
        x0: (B, 4, H, W) latents of pictures.
        t: (B,) in 0..1.
        eps: (B, 4, H, W) noise.
        context: (B, L, D) text embeddings.
        y: (B, D) pooled.

    Returns:
        A scalar.
    """
    level = t[:, None, None, None]
    velocity = network((1 - level) * x0 + level * eps, TIMESTEPS * t, context, y)
    return F.mse_loss(velocity.float(), eps - x0)


def read(encoder: nn.Module, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Token ids (B, 77) -> text embeddings (B, 77, D) and pooled (B, D)."""
    with torch.no_grad():
        context = encoder(ids.int()).float()
    return context, pooled(context, ids == VOCABULARY[END])


def drawn(like: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Times (B,), logit-normal, and noise, for latents (B, 4, H, W)."""
    t = torch.randn(len(like), generator=generator, device=like.device).sigmoid()
    return t, torch.randn(like.shape, generator=generator, device=like.device)


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--scenes", type=int, default=16000)
    parser.add_argument(
        "--truthful", type=float, default=0.6, help="share of the steps, from the first on, whose captions are true"
    )
    parser.add_argument(
        "--short",
        type=float,
        default=0.0,
        help=f"share of the steps, from the first on, whose texts are cut to {SHORT} tokens: they take two thirds "
        "of the time; not on a GPU",
    )
    parser.add_argument("--start", type=Path, help="a checkpoint whose weights to start from")
    parser.add_argument("--seconds", type=float, default=math.inf, help="end after so long, whatever the steps")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()

    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    device = torch.device(arguments.device)
    if arguments.short and device.type == "cuda":
        parser.error(f"--short {arguments.short:g} is for CPUs: on a GPU all steps are one graph; leave it out.")
    lessons = Lessons(arguments.scenes, device)
    encoder: TextEncoder = averaged_weights("text", Reader()).encoder.to(device)
    model = MMDiT()
    start_from(model, arguments.start, "model.diffusion_model.")
    model = model.to(device)
    run = Run("flow", model, arguments.lr, arguments.steps, seconds=arguments.seconds)
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters", flush=True)

    def batch_of(step: int) -> tuple[Tensor, ...]:
        generator = torch.Generator(device).manual_seed(step)
        x0, ids = lessons.draw(arguments.batch, run.done < arguments.truthful, generator)
        return x0, ids[:, : SHORT if run.done < arguments.short else None], *drawn(x0, generator)

    def loss_of(x0: Tensor, ids: Tensor, t: Tensor, eps: Tensor, network: nn.Module = model) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return loss(network, x0, t, eps, *read(encoder, ids))

    held_out = lessons.held_out, lessons.held_out_ids
    noised = drawn(lessons.held_out, torch.Generator(device).manual_seed(0))

    @torch.no_grad()
    def evaluate(averaged: nn.Module) -> str:
        return f"held-out {loss_of(*held_out, *noised, network=averaged):.4f}"

    run.train(batch_of, loss_of, evaluate, every=250)


if __name__ == "__main__":
    main()
