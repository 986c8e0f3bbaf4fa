"""Train the probe: `python -m tiny_zoo.train_probe`; the same command resumes. Needs the finished autoencoder."""

from __future__ import annotations

import argparse
import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .networks import AutoEncoder
from .probe import WEIGHTS, Probe, pose_of
from .train_decoder import autoencoder
from .training import Run, pictures, training_pictures
from .world import ATTRIBUTES, Scene, sample_scene


def attribute_labels(scenes: list[Scene]) -> dict[str, Tensor]:
    """Class index of every attribute, (B,) each."""
    return {a: torch.tensor([values.index(getattr(s, a)) for s in scenes]) for a, values in ATTRIBUTES.items()}


def mirrored(scene: Scene) -> Scene:
    """What the mirror image of a scene's picture shows."""
    other = {"left": "right", "right": "left"}
    return dataclasses.replace(scene, x=1 - scene.x, facing=other[scene.facing])


@torch.no_grad()
def through_autoencoder(images: Tensor, vae: AutoEncoder) -> Tensor:
    """Encode and decode uint8 pictures (N, 3, 128, 128)."""
    parts: list[Tensor] = []
    device = vae.vae_scale.device
    for chunk in images.split(2 if device.type == "cpu" else 200):  # small parts stay in a processor's cache
        with torch.autocast(device.type, torch.bfloat16):
            decoded = vae.decode(vae.encode(chunk.to(device).float() / 255)).float()
        parts.append((decoded.clamp(0, 1) * 255).round().to(torch.uint8).cpu())
    return torch.cat(parts)


def main() -> None:
    """Train, and write the weights beside the others."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--scenes", type=int, default=14000)
    parser.add_argument("--seconds", type=float, default=math.inf, help="end after so long, whatever the steps")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()

    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    device = torch.device(arguments.device)
    vae = autoencoder().to(device)
    half = arguments.scenes // 2
    drawn = training_pictures(2 * half)
    train = torch.cat([drawn[:half], through_autoencoder(drawn[half:], vae)]).to(device)
    scenes = [sample_scene(i) for i in range(2 * half)]
    held_out_scenes = [sample_scene(i, "validation") for i in range(300)]
    held_out = pictures(300, "validation")
    held_out_blurred = through_autoencoder(held_out, vae)
    model = Probe().to(device)
    run = Run("probe", model, arguments.lr, arguments.steps, ema=0.99, seconds=arguments.seconds)

    def batch_of(step: int) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(step)
        rows = torch.randint(len(train), (arguments.batch,), generator=generator)
        images, shown = train[rows.to(device)].float() / 255, [scenes[row] for row in rows.tolist()]
        noise = torch.randn(images.shape, generator=torch.Generator(device).manual_seed(step), device=device)
        images = images + 0.05 * float(torch.rand((), generator=generator)) * noise
        if step % 2:
            images, shown = images.flip(-1), [mirrored(scene) for scene in shown]
        return images, pose_of(shown), *attribute_labels(shown).values()

    def loss_of(images: Tensor, pose: Tensor, *labels: Tensor) -> Tensor:
        model.train()
        with torch.autocast(device.type, torch.bfloat16):
            logits, read_pose = model(images)
        classes = [F.cross_entropy(logits[a].float(), label) for a, label in zip(ATTRIBUTES, labels, strict=True)]
        return torch.stack(classes).sum() + 5 * F.mse_loss(read_pose.float(), pose)

    def evaluate(averaged: nn.Module) -> str:
        assert isinstance(averaged, Probe)
        averaged.eval()
        lines: list[str] = []
        for images in (held_out, held_out_blurred):
            names, pose = averaged.read(images.to(device).float() / 255)
            right = {
                a: sum(x == getattr(s, a) for x, s in zip(v, held_out_scenes, strict=True)) for a, v in names.items()
            }
            error = (pose.cpu() - pose_of(held_out_scenes)).abs().mean()
            lines.append(" ".join(f"{a} {n / 300:.3f}" for a, n in right.items()) + f" pose {error:.3f}")
        return " | ".join(lines)

    averaged = run.train(batch_of, loss_of, evaluate, every=250)
    weights = {name: t.half() if t.is_floating_point() else t for name, t in averaged.cpu().state_dict().items()}
    torch.save(weights, WEIGHTS)


if __name__ == "__main__":
    main()
