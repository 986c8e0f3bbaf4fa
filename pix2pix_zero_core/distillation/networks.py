"""The networks of a distilled edit: a generator that adds to the picture, and a critic that looks at patches of it.

References:
    Isola et al., Image-to-Image Translation with Conditional Adversarial Networks (pix2pix), CVPR 2017,
    arXiv:1611.07004: the U-Net of strided 4 x 4 convolutions, and the critic of 70 x 70 patches, PatchGAN.
    Johnson et al., Perceptual Losses for Real-Time Style Transfer and Super-Resolution, ECCV 2016, arXiv:1603.08155:
    residual blocks at the lowest resolution, as also in CycleGAN and pix2pixHD.
    Miyato et al., Spectral Normalization for Generative Adversarial Networks, ICLR 2018, arXiv:1802.05957.
"""

from __future__ import annotations

import copy
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.nn.utils.parametrizations import spectral_norm

LEVELS = 4
"""Halvings of the picture. pix2pix goes on until one pixel is left, and so fits one size only; four fit any."""

WIDTHS, BLOCKS = (4, 128), (0, 16)
"""Ranges of the generator's width and number of residual blocks."""


class Unit(nn.Module):
    """A convolution, batch normalization and an activation: (B, C, H, W) -> (B, C', H', W')."""

    def __init__(self, convolution: nn.Conv2d | nn.ConvTranspose2d, activation: nn.Module) -> None:
        """Add the normalization that fits the convolution."""
        super().__init__()
        self.convolution = convolution
        self.norm: nn.Module = nn.BatchNorm2d(convolution.out_channels)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, normalize, activate."""
        return self.activation(self.norm(self.convolution(x)))

    def fold(self) -> None:
        """Work the normalization, as it is in evaluation, into the convolution's weights."""
        if isinstance(self.norm, nn.BatchNorm2d):
            up = isinstance(self.convolution, nn.ConvTranspose2d)
            self.convolution = fuse_conv_bn_eval(self.convolution, self.norm, transpose=up)
            self.norm = nn.Identity()


class Residual(nn.Module):
    """Two convolutions whose outcome is added: (B, C, H, W) -> the same shape."""

    def __init__(self, channels: int) -> None:
        """Build both, of 3 x 3."""
        super().__init__()
        self.first = Unit(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU())
        self.second = Unit(nn.Conv2d(channels, channels, 3, padding=1), nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        """Add."""
        return x + self.second(self.first(x))


class Generator(nn.Module):
    """pix2pix's U-Net with residual blocks at its bottom: (B, 3, H, W), values in -1..1 -> the same, edited.

    What it computes is added to the picture: an edit leaves most of it as it is. Any height and width will do; what is
    missing to whole 16 by 16 squares repeats the last row and column, and is cut off again.
    """

    def __init__(self, width: int = 32, blocks: int = 3) -> None:
        """Build it.

        Args:
            width: channels after the first halving; then twice as many, and four times from there on.
            blocks: residual blocks.

        Raises:
            ValueError: one of them is out of range.
        """
        super().__init__()
        for name, value, (low, high) in (("width", width, WIDTHS), ("blocks", blocks, BLOCKS)):
            if not low <= value <= high:
                raise ValueError(f"The generator's {name} is {value}; it must be {low} to {high}.")
        channels = [width * min(2**level, 4) for level in range(LEVELS)]
        self.down = nn.ModuleList(
            Unit(nn.Conv2d(inputs, outputs, 4, 2, 1), nn.LeakyReLU(0.2)) for inputs, outputs in pairwise([3, *channels])
        )
        self.bottom = nn.Sequential(*(Residual(channels[-1]) for _ in range(blocks)))
        joined = [channels[-1], *(2 * count for count in reversed(channels[:-1]))]
        self.up = nn.ModuleList(
            Unit(nn.ConvTranspose2d(inputs, outputs, 4, 2, 1), nn.ReLU())
            for inputs, outputs in zip(joined, reversed(channels[:-1]), strict=False)
        )
        self.out = nn.ConvTranspose2d(joined[-1], 3, 4, 2, 1)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)  # training begins with no edit at all, not with noise on the picture

    def forward(self, picture: Tensor) -> Tensor:
        """Edit pictures."""
        height, width = picture.shape[-2:]
        whole = 2**LEVELS
        h = F.pad(picture, (0, -width % whole, 0, -height % whole), mode="replicate")
        skips: list[Tensor] = []
        for level in self.down:
            h = level(h)
            skips.append(h)
        h = self.bottom(h)
        for level, skip in zip(self.up, reversed(skips[:-1]), strict=True):
            h = torch.cat([level(h), skip], 1)
        return picture + self.out(h)[..., :height, :width]

    def folded(self) -> Generator:
        """A copy for use, without normalizations: its layers hold them."""
        copied = copy.deepcopy(self).eval().requires_grad_(False)
        for module in copied.modules():
            if isinstance(module, Unit):
                module.fold()
        return copied


class Critic(nn.Module):
    """PatchGAN: a picture before and after the edit, (B, 3, H, W) x 2 -> a score of each 70 x 70 patch, (B, 1, h, w).

    Every convolution is normalized by its largest singular value, as in pix2pix's successors (SPADE,
    arXiv:1903.07291), in place of batch normalization. Pictures are 32 pixels or more on each side.
    """

    def __init__(self, width: int = 32) -> None:
        """Build it; `width` is the number of channels after the first halving."""
        super().__init__()
        channels = [6, width, 2 * width, 4 * width, 4 * width]
        layers: list[nn.Module] = []
        for (inputs, outputs), stride in zip(pairwise(channels), (2, 2, 2, 1), strict=True):
            layers += [spectral_norm(nn.Conv2d(inputs, outputs, 4, stride, 1)), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, spectral_norm(nn.Conv2d(channels[-1], 1, 4, 1, 1)))

    def forward(self, source: Tensor, edited: Tensor) -> Tensor:
        """Score patches: high where the edit could be the teacher's."""
        return self.layers(torch.cat([source, edited], 1))
