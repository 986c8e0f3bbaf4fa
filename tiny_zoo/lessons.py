"""What the UNet and the flow transformer learn from: latents of pictures of the world, and captions of them.

The first captions are true and nearly complete, which teaches the words in few steps, and the later ones as unreliable
as the web's. So a model ends as Stable Diffusion does: it knows what the words mean, and does as they say only when it
is guided by them.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from .captions import caption, token_ids, unreliable_caption
from .networks import AutoEncoder
from .training import RUNS, averaged_weights, pictures, training_pictures, write
from .world import Scene, sample_scene

VERSIONS = 8
"""Captions of a kind that each scene has: they are written once, so that no step waits for words."""


@torch.no_grad()
def latents(count: int, vae: AutoEncoder, split: Literal["train", "validation"] = "train") -> Tensor:
    """Latents of the first scenes of a split, (count, 4, 16, 16), computed once and kept."""
    path = RUNS / f"latents_{split}_{count}.pt"
    if path.exists():
        return torch.load(path, weights_only=True)
    images = training_pictures(count) if split == "train" else pictures(count, split)
    device = vae.vae_scale.device
    vae = vae.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    with torch.autocast(device.type, torch.bfloat16):
        parts = [
            vae.encode(chunk.to(device, torch.float, memory_format=torch.channels_last) / 255).float().cpu()
            for chunk in images.split(50)
        ]
    encoded = torch.cat(parts)
    write(path, encoded)
    return encoded


def true_caption(scene: Scene, rng: random.Random) -> str:
    """What a careful person says; one in ten says nothing, so that the model can be guided without a classifier."""
    return "" if rng.random() < 0.1 else caption(scene, rng, drop=0.15)


def written(scenes: list[Scene], say: Callable[[Scene, random.Random], str], versions: int = VERSIONS) -> Tensor:
    """Captions of every scene as token ids, uint8 (scenes, versions, 77)."""
    rng = random.Random(0)
    return torch.tensor([[token_ids(say(scene, rng)) for _ in range(versions)] for scene in scenes], dtype=torch.uint8)


class Lessons:
    """Latents of training and held-out scenes with their captions, on a device.

    Args:
        count: scenes to train on.
        device: where to keep them.
    """

    def __init__(self, count: int, device: torch.device) -> None:
        vae = averaged_weights("vae", AutoEncoder()).to(device)
        self.latents = latents(count, vae).to(device)
        scenes = [sample_scene(i) for i in range(count)]
        self.true = written(scenes, true_caption).to(device)
        self.unreliable = written(scenes, unreliable_caption).to(device)
        self.held_out = latents(256, vae, "validation").to(device)
        self.held_out_ids = written([sample_scene(i, "validation") for i in range(256)], true_caption, 1)[:, 0].to(
            device
        )

    def draw(self, size: int, truthful: bool, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Some latents (size, 4, 16, 16), the token ids of a caption of each, uint8 (size, 77), and which they are."""
        rows, versions = (
            torch.randint(high, (size,), generator=generator, device=generator.device)
            for high in (len(self.latents), VERSIONS)
        )
        return self.latents[rows], (self.true if truthful else self.unreliable)[rows, versions], rows
