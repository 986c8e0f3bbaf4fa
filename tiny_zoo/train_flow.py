"""Train the flow transformer: `python -m tiny_zoo.train_flow`; the same command resumes.

Needs the finished autoencoder and text encoder (`train_vae`, `train_text`), and learns from the same latents and
captions as the UNet (`train_unet`), one in ten of them empty: first from true ones, then from ones as unreliable as the
web's. Rectified flow (Liu et al. 2023, arXiv:2209.03003) with logit-normal times (Esser et al. 2024,
arXiv:2403.03206).
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .captions import END, VOCABULARY, caption, token_ids, unreliable_caption
from .mmdit import TIMESTEPS, MMDiT, pooled
from .networks import AutoEncoder, TextEncoder
from .train_text import Reader
from .train_unet import latents
from .training import Run, averaged_weights, start_from
from .world import Scene, sample_scene

VERSIONS = 16
"""Captions of a kind that each scene has: they are written once, so that no step waits for words."""


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


def true_caption(scene: Scene, rng: random.Random) -> str:
    """What a careful person says; one in ten says nothing."""
    return "" if rng.random() < 0.1 else caption(scene, rng, drop=0.15)


def written(scenes: list[Scene], say: Callable[[Scene, random.Random], str], versions: int = VERSIONS) -> Tensor:
    """Captions of every scene as token ids, uint8 (scenes, versions, 77)."""
    rng = random.Random(0)
    ids = [[token_ids(say(scene, rng)) for _ in range(versions)] for scene in scenes]
    return torch.tensor(ids, dtype=torch.uint8)


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
    parser.add_argument("--start", type=Path, help="a checkpoint whose weights to start from")
    parser.add_argument("--compile", action="store_true", help="compile the loss: faster steps after a slow first one")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()

    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    device = torch.device(arguments.device)
    vae = averaged_weights("vae", AutoEncoder())
    train = latents(arguments.scenes, vae, "train").to(device)
    held_out = latents(256, vae, "validation", "validation").to(device)
    encoder: TextEncoder = averaged_weights("text", Reader()).encoder.to(device)
    scenes = [sample_scene(i) for i in range(arguments.scenes)]
    true, unreliable = (written(scenes, say).to(device) for say in (true_caption, unreliable_caption))
    model = MMDiT()
    start_from(model, arguments.start, "model.diffusion_model.")
    model = model.to(device)
    run = Run("flow", model, arguments.lr, arguments.steps)
    print(
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, latent std {train.std():.3f}", flush=True
    )

    def loss_of_captions(network: nn.Module, x0: Tensor, t: Tensor, eps: Tensor, ids: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return loss(network, x0, t, eps, *read(encoder, ids))

    step_loss = torch.compile(loss_of_captions, fullgraph=True) if arguments.compile else loss_of_captions

    def loss_of(step: int) -> Tensor:
        generator = torch.Generator(device).manual_seed(step)
        rows = torch.randint(len(train), (arguments.batch,), generator=generator, device=device)
        versions = torch.randint(VERSIONS, (arguments.batch,), generator=generator, device=device)
        captions = true if step < arguments.truthful * arguments.steps else unreliable
        x0 = train[rows]
        return step_loss(model, x0, *drawn(x0, generator), captions[rows, versions])

    held_out_captions = written([sample_scene(i, "validation") for i in range(len(held_out))], true_caption, versions=1)
    ids = held_out_captions[:, 0].to(device)
    times_and_noise = drawn(held_out, torch.Generator(device).manual_seed(0))

    @torch.no_grad()
    def evaluate(averaged: nn.Module) -> str:
        return f"held-out {loss_of_captions(averaged, held_out, *times_and_noise, ids):.4f}"

    run.train(loss_of, evaluate, every=250)


if __name__ == "__main__":
    main()
