"""Train the autoencoder: `python -m tiny_zoo.train_vae`; the same command resumes.

64-pixel crops, mean squared error with a little L1; the latents are pulled towards zero mean and unit variance
a channel, and the decoder sees them with a little noise, so that the diffusion model meets a well-scaled space.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .networks import LATENT_CHANNELS, AutoEncoder
from .training import Run, pictures, start_from, training_pictures

LATENT_NOISE = 0.025


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of pictures in 0..1, one a picture: (B, 3, H, W) x 2 -> (B,)."""
    return -10 * (a - b).square().mean((1, 2, 3)).log10()


def crops(images: Tensor, count: int, seed: int, side: int = 64) -> Tensor:
    """Cut squares at random places from random pictures: uint8 (N, 3, 128, 128) -> (count, 3, side, side) in 0..1."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(len(images), (count, 1, 1), generator=generator)
    corners = torch.randint(images.shape[-1] - side + 1, (2, count, 1), generator=generator)
    ys, xs = corners + torch.arange(side)
    places = (rows, ys[:, :, None], xs[:, None, :])
    cut = images.movedim(1, -1)[tuple(place.to(images.device) for place in places)]
    return cut.movedim(-1, 1).float().div_(255)


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=6500)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--scenes", type=int, default=8000)
    parser.add_argument("--start", type=Path, help="a checkpoint whose weights to start from")
    parser.add_argument("--seconds", type=float, default=math.inf, help="end after so long, whatever the steps")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()

    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    device = torch.device(arguments.device)
    train = training_pictures(arguments.scenes).to(device)
    held_out = pictures(64, "validation").to(device).float() / 255
    model = AutoEncoder()
    start_from(model, arguments.start, "first_stage_model.")
    model = model.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    run = Run("vae", model, arguments.lr, arguments.steps, seconds=arguments.seconds)
    generator = torch.Generator()

    def batch_of(step: int) -> tuple[Tensor, ...]:
        image = crops(train, arguments.batch, step)
        shape = (len(image), LATENT_CHANNELS, image.shape[-2] // 8, image.shape[-1] // 8)
        noise = LATENT_NOISE * torch.randn(shape, generator=generator.manual_seed(step))
        return image, noise.to(device)

    def loss_of(image: Tensor, noise: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            latent = model.encode(image)
            decoded = model.decode(latent + noise).float()
        latent = latent.float()
        mean, std = latent.mean((0, 2, 3)), latent.std((0, 2, 3))
        scale = mean.square().sum() + (std - 1).square().sum()
        return F.mse_loss(decoded, image) + 0.05 * F.l1_loss(decoded, image) + 0.002 * scale

    @torch.no_grad()
    def evaluate(averaged: nn.Module) -> str:
        assert isinstance(averaged, AutoEncoder)
        latent = averaged.encode(held_out)
        quality = psnr(averaged.decode(latent).clamp(0, 1), held_out).mean()
        return f"psnr {quality:.2f} dB, latent mean {latent.mean():.2f} std {latent.std((0, 2, 3)).tolist()}"

    run.train(batch_of, loss_of, evaluate, every=250)


if __name__ == "__main__":
    main()
