"""Train the flow transformer: `python -m tiny_zoo.train_flow`; the same command resumes.

Needs the finished autoencoder, text encoder and UNet (`train_vae`, `train_text`, `train_unet`), and learns from the
same lessons as the UNet. Rectified flow (Liu et al. 2023, arXiv:2209.03003) with logit-normal times (Esser et al. 2024,
arXiv:2403.03206). A transformer of patches has to find out by itself what a convolution is born with; the UNet helps
it: a block's picture tokens are to tell what the UNet sees in the same places of the clean picture (Yu et al. 2024,
arXiv:2410.06940), in the first part of the training, since later it holds back (Wang et al. 2025, arXiv:2505.16792).
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .captions import END, VOCABULARY
from .lessons import Lessons
from .mmdit import FLOW_DEPTH, HEAD_WIDTH, TIMESTEPS, MMDiT, pooled
from .networks import UNET_CHANNELS, UNET_LEVELS, TextEncoder, UNet
from .train_text import Reader
from .train_unet import alphas_cumprod
from .training import RUNS, Run, averaged_weights, start_from, write

SHORT = 32
"""Tokens that hold every caption; the others are padding, on which a third of a step's time is spent."""

ALIGNMENT = 0.5
"""Weight of telling what the UNet sees, beside the velocity's error."""

ALIGNED = 1
"""The block whose picture tokens are to tell what the UNet sees: of three the second."""

NEARLY_CLEAN = 50
"""The UNet's timestep at which it looks at a picture."""

TIME_MEAN = 0.3
"""Mean of the logits of the times, between 0 and the 0.7 that learned high noise sooner and low noise later: what a
picture of so few pixels shows is decided at high noise."""


class Aligned(nn.Module):
    """The transformer with a head that tells, from a block's picture tokens, what the UNet sees there."""

    def __init__(self) -> None:
        super().__init__()
        width, seen = HEAD_WIDTH * FLOW_DEPTH, UNET_CHANNELS * UNET_LEVELS[-1]
        self.network = MMDiT()
        self.head = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, seen))

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity (B, 4, H, W), and what the head tells of every patch, (B, N, UNet channels)."""
        tokens: list[Tensor] = []
        velocity = self.network(x, timesteps, context, y, tokens)
        return velocity, self.head(tokens[ALIGNED])


@torch.no_grad()
def seen_by_unet(lessons: Lessons, encoder: nn.Module, device: torch.device) -> Tensor:
    """What the UNet's deepest level makes of each clean picture: bfloat16 (scenes, 64, channels), computed once."""
    path = RUNS / f"seen_{len(lessons.latents)}.pt"
    if path.exists():
        return torch.load(path, weights_only=True)
    unet = averaged_weights("unet", UNet()).to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    kept: list[Tensor] = []
    unet.output_blocks[0].register_forward_hook(lambda _module, _inputs, output: kept.append(output.flatten(2).mT))
    generator, level = torch.Generator(device).manual_seed(0), alphas_cumprod()[NEARLY_CLEAN].to(device)
    for x0, ids in zip(lessons.latents.split(50), lessons.true[:, 0].split(50), strict=True):
        eps = torch.randn(x0.shape, generator=generator, device=device)
        times = torch.full((len(x0),), NEARLY_CLEAN, device=device)
        with torch.autocast(device.type, torch.bfloat16):
            unet(level.sqrt() * x0 + (1 - level).sqrt() * eps, times, encoder(ids.int()))
    seen = torch.cat([tokens.bfloat16() for tokens in kept])
    seen -= seen.float().mean((0, 1)).bfloat16()
    write(path, seen.cpu())
    return seen


def loss(
    network: nn.Module, x0: Tensor, t: Tensor, eps: Tensor, context: Tensor, y: Tensor, seen: Tensor, weight: Tensor
) -> Tensor:
    """Squared error of the velocity of x = (1 - t) x0 + t eps, and what it lacks in telling what the UNet sees.

    Args:
        network: `Aligned`, or one with its signature.
        x0: (B, 4, H, W) latents of pictures.
        t: (B,) in 0..1.
        eps: (B, 4, H, W) noise.
        context: (B, L, D) text embeddings.
        y: (B, D) pooled.
        seen: (B, N, channels) what the UNet sees in each patch.
        weight: () of telling it.

    Returns:
        A scalar.
    """
    level = t[:, None, None, None]
    velocity, told = network((1 - level) * x0 + level * eps, TIMESTEPS * t, context, y)
    error = F.mse_loss(velocity.float(), eps - x0)
    return error + weight * (1 - F.cosine_similarity(told.float(), seen.float(), dim=-1)).mean()


def read(encoder: nn.Module, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Token ids (B, 77) -> text embeddings (B, 77, D) and pooled (B, D)."""
    with torch.no_grad():
        context = encoder(ids.int()).float()
    return context, pooled(context, ids == VOCABULARY[END])


def drawn(like: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Times (B,), logit-normal, and noise, for latents (B, 4, H, W)."""
    t = (TIME_MEAN + torch.randn(len(like), generator=generator, device=like.device)).sigmoid()
    return t, torch.randn(like.shape, generator=generator, device=like.device)


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--scenes", type=int, default=16000)
    parser.add_argument(
        "--truthful", type=float, default=0.6, help="share of the steps, from the first on, whose captions are true"
    )
    parser.add_argument(
        "--aligned",
        type=float,
        default=0.4,
        help="share of the steps, from the first on, that learn from what the UNet sees; later the velocity is all",
    )
    parser.add_argument(
        "--short",
        type=float,
        default=0.0,
        help=f"share of the steps, from the first on, whose texts are cut to {SHORT} tokens: they take two thirds "
        "of the time, but what follows has to learn the padding; not on a GPU",
    )
    parser.add_argument(
        "--compile", action="store_true", help="by torch.compile: on a CPU with a C++ compiler, a seventh faster"
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
    if arguments.compile and device.type == "cuda":
        parser.error("--compile is for CPUs: on a GPU all steps are one graph; leave it out.")
    lessons = Lessons(arguments.scenes, device)
    encoder: TextEncoder = averaged_weights("text", Reader()).encoder.to(device)
    seen = seen_by_unet(lessons, encoder, device).to(device)
    model = Aligned()
    start_from(model.network, arguments.start, "model.diffusion_model.")
    model = model.to(device)
    run = Run("flow", model, arguments.lr, arguments.steps, seconds=arguments.seconds)
    print(f"{sum(p.numel() for p in model.network.parameters()) / 1e6:.2f} M parameters", flush=True)
    trained = cast(nn.Module, torch.compile(model)) if arguments.compile else model

    def batch_of(step: int) -> tuple[Tensor, ...]:
        generator = torch.Generator(device).manual_seed(step)
        x0, ids, rows = lessons.draw(arguments.batch, run.done < arguments.truthful, generator)
        weight = torch.tensor(ALIGNMENT if run.done < arguments.aligned else 0.0, device=device)
        ids = ids[:, : SHORT if run.done < arguments.short else None]
        return x0, ids, *drawn(x0, generator), seen[rows], weight

    def loss_of(
        x0: Tensor, ids: Tensor, t: Tensor, eps: Tensor, seen: Tensor, weight: Tensor, network: nn.Module = trained
    ) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return loss(network, x0, t, eps, *read(encoder, ids), seen, weight)

    held_out = lessons.held_out, lessons.held_out_ids
    noised = drawn(lessons.held_out, torch.Generator(device).manual_seed(0))

    @torch.no_grad()
    def evaluate(averaged: nn.Module) -> str:
        unaligned = seen[: len(lessons.held_out)], torch.zeros((), device=device)
        return f"held-out {loss_of(*held_out, *noised, *unaligned, network=averaged):.4f}"

    run.train(batch_of, loss_of, evaluate, every=250)


if __name__ == "__main__":
    main()
