"""CLIP and DINO from folders of transformers: what a picture shows, and how it is laid out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel, ViTModel

from pix2pix_zero_core.integrations.folders import LOCAL, MODEL, blamed_on

CLIP_FOLDER = "Put the files of a CLIP there, such as openai/clip-vit-large-patch14."
DINO_FOLDER = "Put the files of a DINO ViT there, such as facebook/dino-vitb8."


class Clip:
    """CLIP (Radford et al. 2021, arXiv:2103.00020) as a similarity of pictures and texts.

    Attributes:
        name: of its folder, and its size.
        model: the network.
    """

    def __init__(self, name: str, model: CLIPModel, tokenizer: Any, processor: Any) -> None:
        """Join its parts; `load` makes them."""
        vision: Any = model.config.vision_config
        self.name = f"{name} (ViT, width {vision.hidden_size}, patches of {vision.patch_size})"
        self.model: Any = model.eval()
        self._tokenizer, self._processor = tokenizer, processor

    @classmethod
    def load(cls, folder: Path) -> Clip:
        """Read a folder of transformers.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it holds no whole CLIP.
        """
        _require(folder, CLIP_FOLDER)
        with blamed_on(folder, "a CLIP", CLIP_FOLDER):
            model, report = cast(Any, CLIPModel).from_pretrained(folder, **MODEL)
            tokenizer = cast(Any, AutoTokenizer).from_pretrained(folder, **LOCAL)
            processor = cast(Any, CLIPImageProcessor).from_pretrained(folder, **LOCAL)
        _require_whole(folder, report, "a CLIP", CLIP_FOLDER)
        return cls(folder.resolve().name, model, tokenizer, processor)

    def to(self, device: str | torch.device) -> Clip:
        """Move the network to a device; returns the whole."""
        self.model.to(device)
        return self

    @torch.no_grad()
    def __call__(self, image: Image.Image, texts: Sequence[str]) -> Tensor:
        """Cosines between a picture and texts, (n,); of a long text the first 77 tokens count."""
        longest = self.model.config.text_config.max_position_embeddings
        tokens = self._tokenizer(list(texts), padding=True, truncation=True, max_length=longest, return_tensors="pt")
        pixels = self._processor(images=image, return_tensors="pt").pixel_values
        device = self.model.device
        seen = self.model(
            input_ids=tokens.input_ids.to(device),
            attention_mask=tokens.attention_mask.to(device),
            pixel_values=pixels.to(device),
        )
        return F.cosine_similarity(seen.image_embeds, seen.text_embeds).cpu()


class Structure:
    """How differently two pictures are laid out (Tumanyan et al. 2022, arXiv:2201.00424).

    The self-similarity of a picture is the matrix of cosines between the keys of DINO's last layer, of all heads
    together, at every two patches and at the class token. The distance of two pictures is the mean squared difference
    of their matrices.

    Attributes:
        name: of its folder, and its size.
        model: the network.
    """

    SIDE = 224
    MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    def __init__(self, name: str, model: ViTModel) -> None:
        """Take a network; `load` makes it."""
        config = model.config
        self.name = f"{name} (ViT, width {config.hidden_size}, patches of {config.patch_size})"
        self.model: Any = model.eval()
        # transformers 5 and 4 name the layer of the keys differently.
        modules = cast(list[tuple[str, nn.Module]], list(model.named_modules()))
        self._keys = [module for path, module in modules if path.endswith(("attention.k_proj", "attention.key"))][-1]

    @classmethod
    def load(cls, folder: Path) -> Structure:
        """Read a folder of transformers.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it holds no whole ViT.
        """
        _require(folder, DINO_FOLDER)
        with blamed_on(folder, "a DINO", DINO_FOLDER):
            model, report = cast(Any, ViTModel).from_pretrained(folder, add_pooling_layer=False, **MODEL)
            found = cls(folder.resolve().name, model)
        _require_whole(folder, report, "a DINO", DINO_FOLDER)
        return found

    def to(self, device: str | torch.device) -> Structure:
        """Move the network to a device; returns the distance itself."""
        self.model.to(device)
        return self

    @torch.no_grad()
    def __call__(self, a: Tensor, b: Tensor, *, white: float = 1.0) -> Tensor:
        """Distance of square pictures (B, 3, H, W) in 0..1 from others, (B,).

        Args:
            a: the pictures.
            b: the others.
            white: what the network is shown for 1. PIE-Bench's code shows it 255 without meaning to: it normalises by
                ImageNet's mean and deviation, but does not divide by 255. Its figures are in that unit.
        """
        return (self.self_similarity(white * a) - self.self_similarity(white * b)).square().mean((1, 2))

    def self_similarity(self, images: Tensor) -> Tensor:
        """Cosines between the keys at every two places of pictures (B, 3, H, W), (B, 1 + N, 1 + N) for N patches."""
        mean, std = (images.new_tensor(values)[:, None, None] for values in (self.MEAN, self.STD))
        # As torchvision 0.13 resizes tensors, without antialiasing; the published code was written with that.
        small = F.interpolate(images, (self.SIDE, self.SIDE), mode="bilinear", align_corners=False)
        keys = list[Tensor]()
        hook = self._keys.register_forward_hook(lambda *call: keys.append(cast(Tensor, call[-1])))
        try:
            self.model(pixel_values=(small - mean) / std, interpolate_pos_encoding=True)
        finally:
            hook.remove()
        unit = F.normalize(keys[0], dim=-1)
        return unit @ unit.mT


def _require(folder: Path, remedy: str) -> None:
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"There is no config.json in {folder}. {remedy}")


def _require_whole(folder: Path, report: dict[str, Any], what: str, remedy: str) -> None:
    """Refuse weights that lack some: transformers makes up the rest."""
    if missing := sorted(report["missing_keys"]):
        raise ValueError(f"{folder} lacks {len(missing)} tensors of {what}, {missing[0]} for one. {remedy}")
