"""Sharpen the decoder: `python -m tiny_zoo.train_decoder`; the same command resumes.

Needs the finished autoencoder (`train_vae`). The encoder stays as it is, and with it the latents, so the UNet can be
trained meanwhile. Squared error alone on clean latents, which is what the autoencoder is measured by.
"""

from __future__ import annotations

import argparse
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .networks import AutoEncoder
from .train_vae import crops, psnr
from .training import Run, averaged_weights, pictures, training_pictures


def autoencoder() -> AutoEncoder:
    """The trained encoder with the sharpened decoder."""
    model = averaged_weights("vae", AutoEncoder())
    averaged_weights("decoder", model.taesd_decoder)
    return model


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--scenes", type=int, default=8000)
    parser.add_argument("--seconds", type=float, default=math.inf, help="end after so long, whatever the steps")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()

    torch.set_flush_denormal(True)
    device = torch.device(arguments.device)
    train = training_pictures(arguments.scenes).to(device)
    held_out = pictures(64, "validation").to(device).float() / 255
    model = averaged_weights("vae", AutoEncoder()).to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    decoder = model.taesd_decoder.requires_grad_(True)
    run = Run("decoder", decoder, arguments.lr, arguments.steps, seconds=arguments.seconds)

    def batch_of(step: int) -> tuple[Tensor, ...]:
        return (crops(train, arguments.batch, step),)

    def loss_of(image: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            with torch.no_grad():
                latent = model.encode(image)
            decoded = decoder(latent).float()
        return F.mse_loss(decoded, image)

    with torch.no_grad():
        latent = model.encode(held_out)

    @torch.no_grad()
    def evaluate(averaged: nn.Module) -> str:
        return f"psnr {psnr(averaged(latent).clamp(0, 1), held_out).mean():.2f} dB"

    run.train(batch_of, loss_of, evaluate, every=250)


if __name__ == "__main__":
    main()
