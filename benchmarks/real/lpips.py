"""LPIPS from weight files that people have: torchvision's networks, and the heads that the package lpips carries."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..features import Lpips as InstalledLpips
from ..features import weight_file

STAGES = {
    "alexnet": (2, 5, 8, 10, 12),
    "vgg16": (4, 9, 16, 23, 30),
    "squeezenet1_1": (2, 5, 8, 10, 11, 12, 13),
}
"""Network -> after how many of torchvision's layers its features are compared (Zhang et al. 2018)."""

ALEXNET = (0, 3, 6, 8, 10)
"""Which of torchvision's layers of AlexNet are its convolutions."""

HEADS = {"alexnet": "alex.pth", "vgg16": "vgg.pth", "squeezenet1_1": "squeeze.pth"}
"""Network -> file of its heads, version 0.1, in the packages that carry them."""

CARRIERS = (("lpips", "weights", "v0.1"), ("torchmetrics", "functional", "image", "lpips_models"))

WANTED = (
    "Give torchvision's weights of AlexNet, VGG16 or SqueezeNet 1.1 (alexnet-owt-7be5be79.pth, vgg16-397923af.pth, "
    "squeezenet1_1-b8a52dc0.pth), and the heads that belong to them (alex.pth, vgg.pth, squeeze.pth) where the package "
    "lpips is not installed"
)


class Lpips:
    """Learned perceptual image patch similarity, version 0.1 (Zhang et al. 2018, arXiv:1801.03924).

    Attributes:
        name: of the network.
        model: its layers; torchvision's.
        heads: a weight for every channel of every stage.
    """

    # Mean and standard deviation of ImageNet for pictures in -1..1.
    SHIFT, SCALE = InstalledLpips.SHIFT, InstalledLpips.SCALE

    def __init__(self, name: str, features: Mapping[str, Tensor], heads: Mapping[str, Tensor]) -> None:
        """Take weights under torchvision's names (without "features.") and those of lpips.

        Raises:
            RuntimeError: they are of another network.
            KeyError: heads are missing.
        """
        from torchvision import models  # takes a second

        self.name = name
        self.model: nn.Sequential = getattr(models, name)(weights=None).features
        self.model.load_state_dict(features)
        self.model.requires_grad_(False).eval()
        self.heads = [heads[f"lin{i}.model.1.weight"].float() for i in range(len(STAGES[name]))]

    def to(self, device: str | torch.device) -> Lpips:
        """Move the weights to a device; returns the distance itself."""
        self.model.to(device)
        self.heads = [head.to(device) for head in self.heads]
        return self

    @classmethod
    def installed(cls) -> Lpips:
        """AlexNet and its heads, of the package that `run.py bench` installs.

        Raises:
            FileNotFoundError: it is not installed.
        """
        found = InstalledLpips.load()
        layers = zip(ALEXNET, found.kernels, found.biases, strict=True)
        features = {f"{i}.{part}": t for i, k, b in layers for part, t in (("weight", k), ("bias", b))}
        return cls("alexnet", features, {f"lin{i}.model.1.weight": head for i, head in enumerate(found.heads)})

    @torch.no_grad()
    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance of pictures (B, 3, H, W) in 0..1 from others, (B,); sides of at least 32 pixels."""
        pairs = zip(self.heads, self._features(a), self._features(b), strict=True)
        return torch.stack([(head * (f - g).square()).sum(1).mean((1, 2)) for head, f, g in pairs]).sum(0)

    def _features(self, images: Tensor) -> list[Tensor]:
        """Every stage, scaled to unit length over its channels."""
        shift, scale = (images.new_tensor(values)[:, None, None] for values in (self.SHIFT, self.SCALE))
        x, found = (2 * images - 1 - shift) / scale, list[Tensor]()
        for number, layer in enumerate(self.model, start=1):
            x = layer(x)
            if number in STAGES[self.name]:
                found.append(x / (x.norm(dim=1, keepdim=True) + 1e-10))
        return found


def load_lpips(files: Sequence[Path]) -> Lpips:
    """Read LPIPS from weight files, in any order.

    Args:
        files: the network's, and its heads' where no installed package carries them; `.pth` or `.safetensors`. None at
            all is AlexNet of the installed package.

    Raises:
        FileNotFoundError: a file, or the heads, are missing.
        ValueError: a file that cannot be read, or does not belong here.
    """
    if not files:
        try:
            return Lpips.installed()
        except FileNotFoundError as error:
            raise FileNotFoundError(f"There is no LPIPS. {WANTED}.") from error
    tensors: dict[str, Tensor] = {}
    for path in files:
        tensors |= _read(path)
    features = {name.removeprefix("features."): t for name, t in tensors.items() if name.startswith("features.")}
    name = _network_of(features)
    if name is None:
        raise ValueError(f"{', '.join(map(str, files))}: no network that is known. {WANTED}.")
    heads = {key: tensor for key, tensor in tensors.items() if key.startswith("lin")} or _read(installed_heads(name))
    try:
        return Lpips(name, features, heads)
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"{', '.join(map(str, files))}: not the weights of {name} ({error}). {WANTED}.") from error


def installed_heads(name: str) -> Path:
    """Where an installed package has the heads of a network.

    Raises:
        FileNotFoundError: none has.
    """
    for package, *folders in CARRIERS:
        try:
            return weight_file(package, *folders, HEADS[name])
        except FileNotFoundError:
            continue
    raise FileNotFoundError(
        f"The heads of LPIPS for {name} are missing: give {HEADS[name]} of the package lpips as well (pip install "
        "--no-deps lpips brings it)."
    )


def _network_of(features: Mapping[str, Tensor]) -> str | None:
    """Which network layers belong to."""
    if "3.squeeze.weight" in features:
        return "squeezenet1_1"
    first = features.get("0.weight")
    return None if first is None else {11: "alexnet", 3: "vgg16"}.get(first.shape[-1])


def _read(path: Path) -> dict[str, Tensor]:
    """Read a file of tensors; nothing in it is run."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}. {WANTED}.")
    try:
        content: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
        return {str(name): tensor for name, tensor in content.items()}
    except (AttributeError, EOFError, OSError, RuntimeError, SafetensorError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} cannot be read as a file of weights ({type(error).__name__}: {error}).") from error
