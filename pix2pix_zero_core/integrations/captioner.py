"""Captions from BLIP, through transformers (4.5x and 5.x).

The caption of a picture is the source prompt of its inversion (Parmar et al., 2023, section 3.1). Any folder in the
layout of `Salesforce/blip-image-captioning-base` or `-large` loads, from the local disk only. Pictures are resized
and normalised here, in torch, so that torchvision is not needed.

References:
    Li et al., BLIP: Bootstrapping Language-Image Pre-training, 2022, arXiv:2201.12086.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer, BlipForConditionalGeneration, PreTrainedTokenizerBase

from ..types import check_pictures
from .english import check_text
from .folders import LOCAL, MODEL, blamed_on

REQUIRED_FILES: dict[str, tuple[str, ...]] = {
    "configuration": ("config.json",),
    "weights": ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"),
    "image preprocessing": ("preprocessor_config.json", "processor_config.json"),
    "tokenizer": ("tokenizer.json", "vocab.txt"),
}
"""What a BLIP folder holds: for each part, the files that can carry it, preferred first."""


class TokenLikelihoods(NamedTuple):
    """How likely a captioner finds each token of a caption, after those before it.

    Attributes:
        ids: the n tokens in its vocabulary, the end of the text included.
        log_p: natural logarithms of their probabilities, (n,), float32.
    """

    ids: list[int]
    log_p: Tensor


@dataclass(frozen=True)
class ImagePreprocessing:
    """How BLIP wants to see a picture: resized to a square, normalised per channel.

    Attributes:
        size: height and width in pixels.
        mean: per channel, of values in 0..1.
        std: per channel, of values in 0..1.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @classmethod
    def from_folder(cls, folder: Path) -> ImagePreprocessing:
        """Read the settings that transformers saves beside a model.

        Args:
            folder: holds `preprocessor_config.json`, or `processor_config.json` as a transformers 5 processor saves it.

        Raises:
            ValueError: a setting is missing or has another form than BLIP's.
        """
        path = _find(folder, "image preprocessing")
        settings = _read_json(path)
        settings = cast(Mapping[str, Any], settings.get("image_processor", settings))
        try:
            size: Any = settings["size"]
            height, width = (size, size) if isinstance(size, int) else (int(size["height"]), int(size["width"]))
            red_mean, green_mean, blue_mean = map(float, settings["image_mean"])
            red_std, green_std, blue_std = map(float, settings["image_std"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(
                f"{path}: needs size (a number, or height and width), image_mean and image_std (3 numbers each)."
            ) from error
        if height != width or height < 1:
            raise ValueError(f"{path}: size is {height}x{width}; BLIP sees squares of at least 1 pixel.")
        mean, std = (red_mean, green_mean, blue_mean), (red_std, green_std, blue_std)
        if not all(math.isfinite(value) for value in (*mean, *std)) or not all(value > 0 for value in std):
            raise ValueError(f"{path}: image_mean {mean} and image_std {std} must be finite, and image_std above 0.")
        return cls(height, mean, std)

    def __call__(self, images: Tensor) -> Tensor:
        """Resize (bicubic with antialiasing, as Pillow does) and normalise.

        Args:
            images: (B, H, W, 3), values in 0..1.

        Returns:
            (B, 3, size, size), float32, on the device of `images`.
        """
        pixels = images.movedim(-1, 1).float()
        pixels = functional.interpolate(pixels, (self.size, self.size), mode="bicubic", antialias=True).clamp(0, 1)
        mean, std = (torch.tensor(values, device=pixels.device).view(3, 1, 1) for values in (self.mean, self.std))
        return (pixels - mean) / std


class Captioner:
    """BLIP as a function from pictures to captions; deterministic, so the same picture has the same caption.

    Attributes:
        model: the network, an `nn.Module`; move it at will, inputs follow its device and dtype.
    """

    def __init__(
        self,
        model: BlipForConditionalGeneration,
        tokenizer: PreTrainedTokenizerBase,
        preprocess: ImagePreprocessing,
    ) -> None:
        """Join the parts of a captioner; `from_folder` makes them."""
        self.model: Any = model.eval()
        self._tokenizer: Any = tokenizer
        self._preprocess = preprocess

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Captioner:
        """Load a BLIP captioning model from a local folder; the network is never used.

        Args:
            folder: holds config.json, the weights, the image preprocessing and the tokenizer (`REQUIRED_FILES`).
            device: where the model goes.
            dtype: of its weights.

        Raises:
            FileNotFoundError: the folder or one of its files is missing.
            ValueError: a file is corrupt, or the model is not a BLIP captioner.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise FileNotFoundError(f"There is no BLIP folder {folder}. {_WHAT_TO_PUT_THERE}")
        for part in REQUIRED_FILES:
            _find(folder, part)

        config = _read_json(folder / "config.json")
        if config.get("model_type") != "blip":
            raise ValueError(
                f"{folder} holds a model of type {config.get('model_type')!r}, not 'blip'. {_WHAT_TO_PUT_THERE}"
            )
        architectures = config.get("architectures")
        if architectures and BlipForConditionalGeneration.__name__ not in architectures:
            raise ValueError(
                f"{folder} holds {architectures}, a BLIP for another task than captions. {_WHAT_TO_PUT_THERE}"
            )
        preprocess = ImagePreprocessing.from_folder(folder)
        with _blamed_on(folder):
            model, report = cast(Any, BlipForConditionalGeneration).from_pretrained(folder, **MODEL)
            tokenizer = cast(Any, AutoTokenizer).from_pretrained(folder, **LOCAL)
            words, known = len(tokenizer), int(model.config.text_config.vocab_size)
        missing = sorted(report["missing_keys"])
        if missing:
            raise ValueError(
                f"The weights in {folder} lack {len(missing)} tensors of a BLIP captioner, {missing[0]} for one. "
                f"{_WHAT_TO_PUT_THERE}"
            )
        if preprocess.size != model.config.vision_config.image_size:
            raise ValueError(
                f"{folder}: pictures are resized to {preprocess.size} pixels, but config.json says the model sees "
                f"{model.config.vision_config.image_size}. The files belong to different models."
            )
        if words > known:
            raise ValueError(
                f"{folder}: the tokenizer has {words} words, but config.json says the model knows {known}. The files "
                "belong to different models."
            )
        return cls(model.to(device=device, dtype=dtype), tokenizer, preprocess)

    @torch.no_grad()
    def __call__(self, images: Tensor, *, prefix: str = "", max_tokens: int = 40, beams: int = 3) -> list[str]:
        """Caption each picture.

        Args:
            images: (B, H, W, 3), values in 0..1.
            prefix: how every caption starts, such as "a photo of"; BLIP goes on from there.
            max_tokens: most tokens a caption may add to the prefix.
            beams: width of the beam search, 3 in BLIP's own evaluation; 1 is greedy.

        Returns:
            B captions; an uncased tokenizer, such as BLIP's own, makes them lower case.

        Raises:
            ValueError: images of another shape or with NaN, a setting out of its range, or a prefix with words that
                the tokenizer does not know.
            TypeError: images of integers.
        """
        check_pictures(images)
        if beams < 1:
            raise ValueError(f"beams is {beams}; it must be at least 1.")
        check_text(prefix, "The prefix")
        with _blamed_on(self.model.name_or_path):
            prompt: Tensor = self._tokenizer(prefix, return_tensors="pt").input_ids
            # The prompt ends with [SEP], which generate() drops: its place is free for the caption.
            room = int(self.model.config.text_config.max_position_embeddings) - prompt.shape[1] + 1
        if bool((prompt == self._tokenizer.unk_token_id).any()):
            raise ValueError(
                f"The prefix {prefix[:100]!r} has words that this BLIP's tokenizer does not know. Choose words that "
                "it knows, or leave prefix empty."
            )
        if room < 1:
            raise ValueError(
                f"The prefix {prefix[:100]!r} leaves no room for a caption: it has {1 - room} tokens too many. "
                "Shorten prefix."
            )
        if not 1 <= max_tokens <= room:
            raise ValueError(f"max_tokens is {max_tokens}; with this prefix and model it must be in 1..{room}.")

        parameter: Tensor = next(self.model.parameters())
        pixels = self._preprocess(images).to(parameter)
        with _blamed_on(self.model.name_or_path):
            tokens: Tensor = self.model.generate(
                pixel_values=pixels,
                input_ids=prompt.to(parameter.device).repeat(len(images), 1),
                max_new_tokens=max_tokens,
                num_beams=beams,
                do_sample=False,
            )
            # The first token is BLIP's own start of text, which is not in its tokenizer's vocabulary.
            captions: Sequence[str] = self._tokenizer.batch_decode(tokens[:, 1:], skip_special_tokens=True)
        return [caption.strip() for caption in captions]

    @torch.no_grad()
    def likelihoods(self, images: Tensor, captions: Sequence[Sequence[str]]) -> list[list[TokenLikelihoods]]:
        """Say how likely given captions are: log p(caption | picture), token by token.

        Args:
            images: (B, H, W, 3), values in 0..1.
            captions: for each picture one or more.

        Returns:
            for each picture as many as it has captions, on the CPU; a picture has the same alone and in a batch.

        Raises:
            ValueError: images of another shape or with NaN, another number of lists than pictures, an empty one, or a
                caption that the model has no room for, or with words that the tokenizer does not know.
            TypeError: images of integers.
        """
        check_pictures(images)
        if len(captions) != len(images) or not all(captions):
            raise ValueError(
                f"There are {len(images)} pictures, and captions for {len(captions)}; give each picture at least one."
            )
        rows = [self._caption_ids(text) for text in chain.from_iterable(captions)]
        parameter: Tensor = next(self.model.parameters())
        pixels = self._preprocess(images).to(parameter)
        with _blamed_on(self.model.name_or_path):
            seen: Tensor = self.model.vision_model(pixel_values=pixels).last_hidden_state
            each = torch.tensor([len(texts) for texts in captions], device=seen.device)
            ids = pad_sequence([torch.tensor(row) for row in rows], batch_first=True).to(seen.device)
            there = pad_sequence([torch.ones(len(row)) for row in rows], batch_first=True).to(seen.device)
            logits: Tensor = self.model.text_decoder(
                input_ids=ids, attention_mask=there, encoder_hidden_states=seen.repeat_interleave(each, 0)
            ).logits
        log_p = logits[:, :-1].float().log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0].cpu()
        if not bool(torch.isfinite(log_p).all()):
            raise ValueError("BLIP's likelihoods hold NaN or Inf; run it in float32, or copy its folder anew.")
        found = (TokenLikelihoods(row[1:], p[: len(row) - 1]) for row, p in zip(rows, log_p, strict=True))
        return [[next(found) for _ in texts] for texts in captions]

    def _caption_ids(self, caption: str) -> list[int]:
        """Tokens of a caption, from BLIP's own start of text to its end."""
        check_text(caption, "The caption")
        config = self.model.config.text_config
        with _blamed_on(self.model.name_or_path):
            ids: list[int] = self._tokenizer(caption).input_ids
        if self._tokenizer.unk_token_id in ids:
            known = self._tokenizer.convert_ids_to_tokens(ids)
            raise ValueError(
                f"The caption {caption!r} has words that this BLIP's tokenizer does not know (it reads "
                f"{' '.join(known[1:-1])}). Use other words, or another BLIP model."
            )
        if len(ids) > config.max_position_embeddings:
            raise ValueError(
                f"The caption {caption[:60]!r}... has {len(ids)} tokens; this BLIP has room for "
                f"{config.max_position_embeddings}. Shorten it."
            )
        return [config.bos_token_id, *ids[1:]]


_WHAT_TO_PUT_THERE = (
    "Put the files of a BLIP captioning model there, such as Salesforce/blip-image-captioning-base: "
    + "; ".join(f"{part}: {' or '.join(files)}" for part, files in REQUIRED_FILES.items())
    + "."
)


_blamed_on = partial(blamed_on, what="a BLIP captioner", remedy=_WHAT_TO_PUT_THERE)


def _find(folder: Path, part: str) -> Path:
    for name in REQUIRED_FILES[part]:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(
        f"The BLIP folder {folder} has no {part} ({' or '.join(REQUIRED_FILES[part])}). {_WHAT_TO_PUT_THERE}"
    )


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}. Copy the file anew.") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} does not hold a JSON object. Copy the file anew.")
    return cast(Mapping[str, Any], content)
