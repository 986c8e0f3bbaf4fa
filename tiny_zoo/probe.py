"""The probe: a small network that reads a scene's attributes and pose off a picture, to measure edits.

It never takes part in an edit. It is trained on rendered scenes, half of them through the autoencoder, so that it
judges what is in the picture and not how sharp it is.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from .world import ATTRIBUTES, POSE_RANGES, Scene

WEIGHTS = Path(__file__).parent / "weights" / "probe.pt"


class Probe(nn.Module):
    """Pictures (B, 3, 128, 128) in 0..1 -> logits of every attribute and the pose, scaled to 0..1 over its ranges."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for outputs in (width, 2 * width, 4 * width, 4 * width, 4 * width):
            layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
            inputs = outputs
        self.features = nn.Sequential(*layers, nn.Flatten(), nn.Linear(inputs * 16, 128), nn.ReLU())
        self.heads = nn.ModuleDict({name: nn.Linear(128, len(values)) for name, values in ATTRIBUTES.items()})
        self.pose = nn.Linear(128, len(POSE_RANGES))

    def forward(self, images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        h = self.features(images)
        return {name: head(h) for name, head in self.heads.items()}, self.pose(h)

    @torch.no_grad()
    def read(self, images: Tensor) -> tuple[dict[str, list[str]], Tensor]:
        """Name every attribute of each picture; pose (B, P) as fractions of `POSE_RANGES`."""
        logits, pose = self(images)
        names = {a: [ATTRIBUTES[a][i] for i in scores.argmax(1).tolist()] for a, scores in logits.items()}
        return names, pose


def pose_of(scenes: list[Scene]) -> Tensor:
    """Pose of scenes as :meth:`Probe.read` reads it, (B, P): fractions of `POSE_RANGES`."""
    return torch.tensor(
        [[(getattr(s, p) - low) / (high - low) for p, (low, high) in POSE_RANGES.items()] for s in scenes]
    )


def load_probe(path: Path = WEIGHTS) -> Probe:
    """Load the trained probe.

    Raises:
        FileNotFoundError: it is not there.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no probe at {path}: train it with python -m tiny_zoo.train_probe.")
    probe = Probe()
    probe.load_state_dict({name: t.float() for name, t in torch.load(path, weights_only=True).items()})
    return probe.eval()
