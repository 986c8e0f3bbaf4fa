"""Tiny Zoo in ComfyUI: stock loaders and text-encode nodes take it for a very small Stable Diffusion 1 or 3."""

# ComfyUI duck-types its tokenizer and encoder classes and annotates them with the stock ones.
# pyright: reportArgumentType=false

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import comfy.clip_model
import comfy.latent_formats
import comfy.sd1_clip
import comfy.supported_models
import comfy.supported_models_base
import folder_paths

from .captions import END, START, UNKNOWN, VOCABULARY, words
from .mmdit import FLOW_DEPTH
from .networks import LATENT_CHANNELS, TEXT_HEADS, TEXT_LAYERS, TEXT_WIDTH, TOKENS, UNET_CHANNELS, UNET_HEADS

WEIGHTS = Path(__file__).parent / "weights"

# Red, green and blue, in -1..1, of each channel of a latent, and of the bias; `python -m tiny_zoo.preview` fits them.
PREVIEW_COLOURS = [
    [0.142, 0.027, -0.084],
    [-0.031, 0.168, 0.330],
    [-0.384, -0.259, -0.113],
    [0.003, -0.021, -0.038],
    [0.269, 0.250, 0.174],
]


class WordTokenizer:
    """The part of a transformers tokenizer that ComfyUI uses, on the vocabulary of Tiny Zoo's captions.

    Attributes:
        unk_token_id: of every word that is not in it.
    """

    unk_token_id = VOCABULARY[UNKNOWN]

    @classmethod
    def from_pretrained(cls, path: str, **kwargs: Any) -> WordTokenizer:
        """Make one; there is nothing to load."""
        return cls()

    def get_vocab(self) -> dict[str, int]:
        """Token -> id."""
        return dict(VOCABULARY)

    def __call__(self, text: str) -> dict[str, list[int]]:
        """Split into words, between the start and the end token."""
        ids = [VOCABULARY.get(word, self.unk_token_id) for word in words(text)]
        return {"input_ids": [VOCABULARY[START], *ids, VOCABULARY[END]]}


class _SDTokenizer(comfy.sd1_clip.SDTokenizer):
    def __init__(self, embedding_directory: str | None = None, tokenizer_data: dict[str, Any] | None = None) -> None:
        super().__init__(
            tokenizer_path="",
            tokenizer_class=WordTokenizer,
            embedding_directory=embedding_directory,
            embedding_size=TEXT_WIDTH,
            tokenizer_data=tokenizer_data or {},
        )


class _Tokenizer(comfy.sd1_clip.SD1Tokenizer):
    def __init__(self, embedding_directory: str | None = None, tokenizer_data: dict[str, Any] | None = None) -> None:
        super().__init__(embedding_directory, tokenizer_data or {}, tokenizer=_SDTokenizer)


class _TextModel(comfy.clip_model.CLIPTextModel):
    def __init__(self, config: dict[str, Any], dtype: Any, device: Any, operations: Any) -> None:
        super().__init__(config, dtype, device, operations)
        # CLIPEmbeddings is always as long as CLIP's own vocabulary.
        self.set_input_embeddings(operations.Embedding(len(VOCABULARY), TEXT_WIDTH, dtype=dtype, device=device))


class _TextEncoder(comfy.sd1_clip.SDClipModel):
    def __init__(self, device: Any = "cpu", dtype: Any = None, model_options: dict[str, Any] | None = None) -> None:
        super().__init__(
            device=device,
            dtype=dtype,
            model_options=model_options or {},
            textmodel_json_config={
                "hidden_size": TEXT_WIDTH,
                "num_hidden_layers": TEXT_LAYERS,
                "num_attention_heads": TEXT_HEADS,
                "intermediate_size": 4 * TEXT_WIDTH,
                "hidden_act": "quick_gelu",
                "max_position_embeddings": TOKENS,
                "eos_token_id": VOCABULARY[END],
            },
            model_class=_TextModel,
            special_tokens={"start": VOCABULARY[START], "end": VOCABULARY[END], "pad": VOCABULARY[END]},
            return_projected_pooled=False,
        )


class _ClipModel(comfy.sd1_clip.SD1ClipModel):
    pooled_is_read = True  # by the flow model, whose text encoder is the UNet's; so directions have a pooled part

    def __init__(self, device: Any = "cpu", dtype: Any = None, model_options: dict[str, Any] | None = None) -> None:
        super().__init__(device=device, dtype=dtype, model_options=model_options or {}, clip_model=_TextEncoder)


class LatentFormat(comfy.latent_formats.SD15):
    """Stable Diffusion 1's, but for the colours of the live preview; its TAESD decoder does not fit either."""

    def __init__(self) -> None:
        """Set what ComfyUI's previewers read."""
        super().__init__()
        *self.latent_rgb_factors, self.latent_rgb_factors_bias = PREVIEW_COLOURS
        self.taesd_decoder_name = None


class TinyZoo(comfy.supported_models.SD15):
    """Stable Diffusion 1.5's family, recognised by its narrow text and UNet."""

    unet_config: ClassVar[dict[str, Any]] = {
        **comfy.supported_models.SD15.unet_config,
        "context_dim": TEXT_WIDTH,
        "model_channels": UNET_CHANNELS,
    }
    unet_extra_config: ClassVar[dict[str, int]] = {"num_heads": UNET_HEADS, "num_head_channels": -1}
    latent_format = LatentFormat
    picture_side = 128  # pixels: what it was trained on, for Fit Picture

    def clip_target(self, state_dict: dict[str, Any] | None = None) -> Any:
        """The tokenizer and text encoder to build."""
        return comfy.supported_models_base.ClipTarget(_Tokenizer, _ClipModel)


class TinyZooFlow(comfy.supported_models.SD3):
    """Stable Diffusion 3's family, recognised by its depth, its few latent channels and its narrow text."""

    unet_config: ClassVar[dict[str, Any]] = {
        **comfy.supported_models.SD3.unet_config,
        "in_channels": LATENT_CHANNELS,
        "depth": FLOW_DEPTH,
        "adm_in_channels": TEXT_WIDTH,
    }
    # Stable Diffusion 3 spends more steps on noise, since large pictures hide it; these are small.
    sampling_settings: ClassVar[dict[str, float]] = {"shift": 1.0}
    latent_format = LatentFormat
    picture_side = TinyZoo.picture_side

    def clip_target(self, state_dict: dict[str, Any] | None = None) -> Any:
        """The tokenizer and text encoder to build: one encoder, whose pooled output is the model's vector `y`."""
        return comfy.supported_models_base.ClipTarget(_Tokenizer, _ClipModel)


def register() -> None:
    """Make ComfyUI know the architectures, the embedded checkpoints and the embedded BLIP; twice is once."""
    for architecture in (TinyZoo, TinyZooFlow):
        if architecture not in comfy.supported_models.models:
            comfy.supported_models.models.append(architecture)
    folder_paths.add_model_folder_path("checkpoints", str(WEIGHTS / "checkpoints"))
    folder_paths.add_model_folder_path("blip", str(WEIGHTS / "blip"))
