"""Stable Diffusion 3's and Flux's pipelines of diffusers as what `PipelineEditor` asks: a denoiser, texts and times.

Both are rectified flows, x = (1 - t) x0 + t eps, whose networks predict the velocity eps - x0:

    D(x, t) = x - t v(x, t)

In their attention text and image meet in one softmax (Esser et al. 2024, arXiv:2403.03206). What is compared are the
image's queries and the text's keys, as the attention call has them, in a softmax over the text alone, as in the nodes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Generator, Hashable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..attention import attention_probabilities
from ..coordinates import Coordinates
from ..readings import Reading
from ..tokens import Token, marks_words, spell
from ..types import Prediction
from .english import shorten

GUIDANCE = 3.5
"""What guidance-distilled models (Flux.1 dev) are told where nobody says otherwise, in diffusers and in ComfyUI."""

PATCH = 2
"""Height and width of an image token, in the latent's pixels."""


@dataclass(frozen=True)
class FlowConditioning:
    """What a transformer is conditioned on.

    Attributes:
        embedding: token embeddings, (B, L, D), or (1, L, D) for every sample.
        pooled: the text in one vector, (B, P), or (1, P) for every sample.
    """

    embedding: Tensor
    pooled: Tensor


class SD3Denoiser:
    """An ``SD3Transformer2DModel`` as a :class:`~pix2pix_zero_core.types.Denoiser`, in coordinates of a flow."""

    guided: ClassVar[float] = 1.0
    """Which share of the layers, from the first on, the maps are of; as in the nodes."""

    def __init__(self, transformer: nn.Module) -> None:
        """Wrap a model, which is left as it is."""
        self.transformer = cast(Any, transformer)

    def __call__(self, x: Tensor, sigma: Tensor, cond: FlowConditioning, *, maps: bool = False) -> Prediction:
        """Predict as a :class:`~pix2pix_zero_core.types.Denoiser`; sigma is the time, 0 to 1.

        Raises:
            ValueError: sides of the latent that are not even, or attention that could not be seen.
        """
        height, width = x.shape[-2:]
        if height % PATCH or width % PATCH:
            raise ValueError(
                f"The latent is {width} x {height}; the model takes multiples of {PATCH}. Crop the picture."
            )
        image = height * width // PATCH**2
        layers = self.layers()
        watched = dict(list(layers.items())[: math.ceil(self.guided * len(layers))]) if maps else {}
        with _recorded(watched, image, self.text_first) as recorded:
            weight = next(self.transformer.parameters())
            embedding, pooled = (
                part.to(weight).expand(len(x), *part.shape[1:]) for part in (cond.embedding, cond.pooled)
            )
            time = sigma.to(weight.device)  # as exact as it is: in half precision it would be another one
            velocity = self.velocity(x.to(weight), time, embedding, pooled).to(x)
        missing = watched.keys() - recorded.keys()
        if missing:
            raise ValueError(
                f"The attention of {', '.join(sorted(missing))} could not be seen. Give the pipeline's transformer the "
                'attention that it came with: transformer.set_attention_backend("native").'
            )
        return Prediction(x - sigma[:, None, None, None] * velocity, recorded)

    text_first: ClassVar[bool] = False
    """Whether the text's tokens come first in the attention's call."""

    def layers(self) -> dict[str, nn.Module]:
        """Names and modules of the attentions of text and image, from first to last."""
        return {f"transformer_blocks.{i}": block.attn for i, block in enumerate(self.transformer.transformer_blocks)}

    def velocity(self, x: Tensor, time: Tensor, embedding: Tensor, pooled: Tensor) -> Tensor:
        """Ask the network, (B, C, H, W)."""
        return self.transformer(
            x, encoder_hidden_states=embedding, pooled_projections=pooled, timestep=1000 * time, return_dict=False
        )[0]


class FluxDenoiser(SD3Denoiser):
    """A ``FluxTransformer2DModel`` as a :class:`~pix2pix_zero_core.types.Denoiser`, in coordinates of a flow.

    Attributes:
        guidance: what a guidance-distilled model is told, beside classifier-free guidance.
    """

    guided: ClassVar[float] = 0.5
    text_first: ClassVar[bool] = True

    def __init__(self, transformer: nn.Module, guidance: float = GUIDANCE) -> None:
        """Wrap a model, which is left as it is."""
        super().__init__(transformer)
        self.guidance = guidance

    def layers(self) -> dict[str, nn.Module]:
        """Names and modules of the attentions: of the blocks with two streams, then of those with one."""
        single = enumerate(self.transformer.single_transformer_blocks)
        return {**super().layers(), **{f"single_transformer_blocks.{i}": block.attn for i, block in single}}

    def velocity(self, x: Tensor, time: Tensor, embedding: Tensor, pooled: Tensor) -> Tensor:
        """Ask the network about the latent's patches, (B, C, H, W)."""
        rows, columns = (side // PATCH for side in x.shape[-2:])
        places = torch.zeros(rows, columns, 3, device=x.device, dtype=x.dtype)
        places[..., 1] = torch.arange(rows, device=x.device)[:, None]
        places[..., 2] = torch.arange(columns, device=x.device)
        distilled = self.transformer.config.guidance_embeds
        patches = self.transformer(
            F.pixel_unshuffle(x, PATCH).flatten(2).mT,
            encoder_hidden_states=embedding,
            pooled_projections=pooled,
            timestep=time,
            img_ids=places.flatten(0, 1),
            txt_ids=places.new_zeros(embedding.shape[1], 3),
            guidance=x.new_full((len(x),), self.guidance) if distilled else None,
            return_dict=False,
        )[0]
        return F.pixel_shuffle(patches.mT.unflatten(2, (rows, columns)), PATCH)


@contextmanager
def _recorded(layers: Mapping[str, nn.Module], image: int, text_first: bool) -> Generator[dict[Hashable, Tensor]]:
    """Record the maps of a forward pass of some attentions; what is called, and with what, stays as it is."""
    seen = _SeenAttention(image, text_first)
    with ExitStack() as stack:
        for name, layer in layers.items():
            stack.callback(layer.register_forward_pre_hook(seen.enters(name)).remove)
            stack.callback(layer.register_forward_hook(seen.leaves).remove)
        if layers:
            stack.enter_context(seen)
        yield seen.maps


class _SeenAttention(TorchFunctionMode):
    """Works out the probabilities of torch's attention beside it, for the layer that is running."""

    def __init__(self, image: int, text_first: bool) -> None:
        super().__init__()
        self.image, self.text_first = image, text_first
        self.layer: str | None = None
        self.maps: dict[Hashable, Tensor] = {}

    def enters(self, name: str) -> Callable[..., None]:
        def enter(*_: Any) -> None:
            self.layer = name

        return enter

    def leaves(self, *_: Any) -> None:
        self.layer = None

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is F.scaled_dot_product_attention and self.layer is not None:
            named = {**dict(zip(("query", "key"), args, strict=False)), **(kwargs or {})}
            query, key = cast(Tensor, named["query"]), cast(Tensor, named["key"])
            text = key.shape[2] - self.image
            if query.shape[2] == key.shape[2] and text > 0:
                pictured, written = (
                    (slice(text, None), slice(text))
                    if self.text_first
                    else (
                        slice(self.image),
                        slice(self.image, None),
                    )
                )
                layer, self.layer = self.layer, None
                self.maps[layer] = attention_probabilities(
                    query[:, :, pictured], key[:, :, written], named.get("scale")
                )
        return func(*args, **(kwargs or {}))


class SD3Model:
    """What `PipelineEditor` asks a `StableDiffusion3Pipeline`.

    Without T5 (``text_encoder_3=None``) the text has CLIP's tokens alone, as in ComfyUI, and not zeros for T5's.

    Attributes:
        denoise: the transformer.
        encoders: the text encoders that there are.
        coordinates: of the latents.
        multiple: of which the sides of pictures must be multiples, in pixels.
        side: height and width in pixels of the pictures that it was trained on.
        readings: how the encoders lay a text.
    """

    coordinates = Coordinates.FLOW
    padding: ClassVar[int] = 77
    """To how many of T5's tokens texts are filled up, as ComfyUI does; longer ones are refused."""

    def __init__(self, pipeline: Any, guidance: float = GUIDANCE) -> None:
        """Look at a pipeline.

        Raises:
            TypeError: a scheduler that is not of flow matching, or a transformer with other channels in than out.
        """
        self.pipeline = pipeline
        name, config = type(pipeline).__name__, pipeline.transformer.config
        if type(pipeline.scheduler).__name__ != "FlowMatchEulerDiscreteScheduler":
            raise TypeError(
                f"{type(pipeline.scheduler).__name__} does not say how this {name} spaces its times. Give it the "
                "FlowMatchEulerDiscreteScheduler that its model came with."
            )
        if config.out_channels not in (None, config.in_channels):
            raise TypeError(
                f"The transformer of this {name} takes {config.in_channels} channels, and gives {config.out_channels}: "
                "it is shown another picture. Load the text-to-image model."
            )
        self.denoise = self.denoiser(guidance)
        self.multiple: int = PATCH * pipeline.vae_scale_factor
        self.side: int = pipeline.default_sample_size * pipeline.vae_scale_factor

    def denoiser(self, guidance: float) -> SD3Denoiser:
        """The transformer as a denoiser."""
        return SD3Denoiser(self.pipeline.transformer)

    @property
    def network(self) -> nn.Module:
        """The transformer itself."""
        return self.pipeline.transformer

    @property
    def encoders(self) -> list[nn.Module]:
        """The text encoders that there are."""
        names = ("text_encoder", "text_encoder_2", "text_encoder_3")
        return [part for name in names if (part := getattr(self.pipeline, name, None)) is not None]

    @property
    def readings(self) -> tuple[Reading, ...]:
        """How the encoders lay a text: CLIP's tokens, then T5's."""
        clip = Reading(self.pipeline.tokenizer.model_max_length)
        return (clip, Reading(0, start=0)) if self.pipeline.text_encoder_3 is not None else (clip,)

    def sigmas(self, steps: int, latents: Tensor) -> Tensor:
        """Evenly spaced times from pure noise to the picture, shifted as the pipeline's scheduler says, (T+1,).

        Raises:
            ValueError: no steps, or more than the scheduler has times.
        """
        scheduler = copy.deepcopy(self.pipeline.scheduler)
        config = scheduler.config
        count: int = config.num_train_timesteps
        if not 1 <= steps < count:
            raise ValueError(f"steps is {steps}; it must be between 1 and {count - 1}. Change the number of steps.")
        times = [1 - int(i * count / steps) / count for i in range(steps)]
        tokens = latents.shape[-2] * latents.shape[-1] // PATCH**2
        slope = (config.max_shift - config.base_shift) / (config.max_image_seq_len - config.base_image_seq_len)
        shift = config.base_shift + slope * (tokens - config.base_image_seq_len)  # of larger pictures it is more
        scheduler.set_timesteps(sigmas=times, mu=shift if config.use_dynamic_shifting else None)
        return scheduler.sigmas

    def encode_text(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Encode texts: token embeddings (n, L, D), and pooled ones (n, P).

        Raises:
            ValueError: a text that is too long.
        """
        tokenizers = {self.pipeline.tokenizer: self.pipeline.tokenizer.model_max_length}
        if len(self.readings) > 1:
            tokenizers[self.pipeline.tokenizer_3] = self.padding
        _require_room(texts, tokenizers)
        embedding, _, pooled, _ = self.pipeline.encode_prompt(
            prompt=texts,
            prompt_2=None,
            prompt_3=None,
            device=self.network.device,
            do_classifier_free_guidance=False,
            max_sequence_length=self.padding,
        )
        return embedding if len(self.readings) > 1 else embedding[:, : self.pipeline.tokenizer.model_max_length], pooled

    def tokenize(self, text: str) -> list[Token]:
        """Split a text into tokens, as :data:`~pix2pix_zero_core.tokens.Tokenize`: CLIP's, then T5's."""
        pipeline = self.pipeline
        own = own_tokens(pipeline.tokenizer, text, first=1)
        return own + own_tokens(pipeline.tokenizer_3, text, self.readings[0].length) if len(self.readings) > 1 else own

    def condition(self, embedding: Tensor, pooled: Tensor | None, latents: Tensor) -> FlowConditioning:
        """Make what the transformer is told.

        Args:
            embedding: of the text, (B, L, D).
            pooled: of the text, (B, P).
            latents: of the pictures; they do not count.
        """
        assert pooled is not None
        return FlowConditioning(embedding, pooled)


class FluxModel(SD3Model):
    """What `PipelineEditor` asks a `FluxPipeline`; attributes as `SD3Model`'s."""

    padding: ClassVar[int] = 256

    def denoiser(self, guidance: float) -> SD3Denoiser:
        """The transformer as a denoiser."""
        return FluxDenoiser(self.pipeline.transformer, guidance)

    @property
    def readings(self) -> tuple[Reading, ...]:
        """How the encoders lay a text: T5's tokens; CLIP's are only pooled."""
        return (Reading(0, start=0),)

    def encode_text(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Encode texts: token embeddings (n, L, D), and pooled ones (n, P).

        Raises:
            ValueError: a text that is too long.
        """
        _require_room(texts, {self.pipeline.tokenizer_2: self.padding})  # CLIP's tokens are pooled, the first 77
        embedding, pooled, _ = self.pipeline.encode_prompt(
            prompt=texts, prompt_2=None, device=self.network.device, max_sequence_length=self.padding
        )
        return embedding, pooled

    def tokenize(self, text: str) -> list[Token]:
        """Split a text into T5's tokens, as :data:`~pix2pix_zero_core.tokens.Tokenize`."""
        return own_tokens(self.pipeline.tokenizer_2, text, first=0)


FLOWS = {"StableDiffusion3Pipeline": SD3Model, "FluxPipeline": FluxModel}
"""Name of a pipeline's class, or of one that it is made of -> what the editor asks."""


def flow_model(pipeline: Any, guidance: float = GUIDANCE) -> SD3Model | None:
    """What `PipelineEditor` asks a pipeline of a flow model; None where it is another's."""
    for kind in type(pipeline).__mro__:
        if kind.__name__ in FLOWS:
            return FLOWS[kind.__name__](pipeline, guidance)
    return None


def _require_room(texts: Sequence[str], tokenizers: Mapping[Any, int]) -> None:
    for tokenizer, limit in tokenizers.items():
        for text in texts:
            tokens = len(tokenizer(text, verbose=False).input_ids)
            if tokens > limit:
                raise ValueError(f"The text has {tokens} tokens; {limit} is the most. Shorten it: {shorten(text)}.")


def own_tokens(tokenizer: Any, text: str, first: int) -> list[Token]:
    """Split a text by a tokenizer of transformers into its own tokens, which begin at a position of the embedding."""
    ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    spelled = spell(tokenizer.convert_ids_to_tokens(ids), marked=marks_words(tokenizer.get_vocab()))
    return [Token(first + i, number, word) for i, (number, word) in enumerate(zip(ids, spelled, strict=True))]
