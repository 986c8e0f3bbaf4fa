"""Edits with a diffusers pipeline, without ComfyUI; and its UNet as a denoiser, the oracle of the parity tests.

`PipelineEditor` takes a `StableDiffusionPipeline` or `StableDiffusionXLPipeline`, which `load_pipeline` reads from a
folder or a single checkpoint, and gives the picture that the ComfyUI nodes give on the same weights.
`DiffusersDenoiser` is the part that knows the UNet:

    epsilon       D(x, sigma) = x - sigma F(x_vp, t)
    v prediction  D(x, sigma) = x / (1 + sigma^2) - sigma / sqrt(1 + sigma^2) F(x_vp, t)

F is the network, x_vp = x / sqrt(1 + sigma^2) (Salimans and Ho 2022, arXiv:2202.00512, appendix D).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Hashable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from ..attention import attention_probabilities
from ..directions import Direction, OnProgress
from ..edit import ReplayedGuidance, edit, reconstruct
from ..forms import ShiftedText, apply_direction
from ..inversion import invert
from ..schedule import ddim_sigmas, sigma_to_timestep, sigmas_from_alphas, ve_to_vp
from ..tokens import Token
from ..types import RECOMMENDED, Inversion, MapGuidance, NoiseRegularizer, OnStep, Prediction, check_pictures
from .pairs import Form, build_direction
from .sentences import EditSentences


@dataclass(frozen=True)
class TextConditioning:
    """What a diffusers UNet is conditioned on.

    Attributes:
        embedding: token embeddings, (B, L, D), or (1, L, D) for every sample.
        added: further inputs, ``added_cond_kwargs`` of the UNet (SDXL: ``text_embeds`` and ``time_ids``).
    """

    embedding: Tensor
    added: Mapping[str, Tensor] | None = None


class DiffusersDenoiser:
    """A ``UNet2DConditionModel`` and its noise schedule as a :class:`~pix2pix_zero_core.types.Denoiser`.

    Attributes:
        sigmas: sigma of every training timestep, (N,), ascending; for :func:`~pix2pix_zero_core.schedule.ddim_sigmas`.
    """

    def __init__(
        self, unet: nn.Module, alphas_cumprod: Tensor, prediction: Literal["epsilon", "v_prediction"] = "epsilon"
    ) -> None:
        """Wrap a model, which is left as it is.

        Args:
            unet: a diffusers ``UNet2DConditionModel`` with cross-attention.
            alphas_cumprod: of the scheduler that the model was trained with, (N,), descending.
            prediction: the scheduler's ``config.prediction_type``.

        Raises:
            TypeError: the model has no plain cross-attention.
            ValueError: another prediction type.
        """
        if prediction not in ("epsilon", "v_prediction"):
            raise ValueError(
                f'prediction is {prediction!r}; only "epsilon" and "v_prediction" models have the noise schedule that '
                "DDIM inversion needs."
            )
        self._unet, self._prediction = unet, prediction
        modules = cast(Iterable[tuple[str, nn.Module]], unet.named_modules())
        self._layers = {name: module for name, module in modules if name.split(".")[-1] == "attn2"}
        layers = [cast(Any, layer) for layer in self._layers.values()]
        if not layers or any(layer.added_kv_proj_dim or layer.norm_cross for layer in layers):
            raise TypeError(
                f"{type(unet).__name__} has no plain cross-attention layers (attn2). Use the UNet2DConditionModel of "
                "Stable Diffusion 1, 2 or XL."
            )
        self.sigmas = sigmas_from_alphas(alphas_cumprod)

    def __call__(self, x: Tensor, sigma: Tensor, cond: TextConditioning, *, maps: bool = False) -> Prediction:
        """Predict as a :class:`~pix2pix_zero_core.types.Denoiser`."""
        level = sigma[:, None, None, None]
        with _recorded(self._layers if maps else {}) as recorded:
            weight = next(self._unet.parameters())
            output: Tensor = self._unet(
                ve_to_vp(x, level).to(weight),
                sigma_to_timestep(sigma, self.sigmas.to(sigma)),
                encoder_hidden_states=cond.embedding.to(weight).expand(len(x), -1, -1),
                added_cond_kwargs=None if cond.added is None else dict(cond.added),
                return_dict=False,
            )[0].to(x)
        if self._prediction == "epsilon":
            return Prediction(x - level * output, recorded)
        return Prediction(x / (1 + level**2) - level / (1 + level**2).sqrt() * output, recorded)


@contextmanager
def _recorded(layers: Mapping[str, nn.Module]) -> Generator[Mapping[Hashable, Tensor], None, None]:
    """Record the attention probabilities of a forward pass; the layers' processors are put back in any case."""
    maps: dict[Hashable, Tensor] = {}
    originals: dict[str, Callable[..., Tensor]] = {}
    try:
        for name, layer in layers.items():
            attention = cast(Any, layer)
            originals[name] = attention.processor
            attention.set_processor(_Recorder(attention.processor, name, maps))
        yield maps
    finally:
        for name, processor in originals.items():
            cast(Any, layers[name]).set_processor(processor)


class _Recorder:
    """An attention processor that works out the probabilities beside the original one, whose output it returns."""

    def __init__(self, original: Callable[..., Tensor], name: str, maps: dict[Hashable, Tensor]) -> None:
        self._original, self._name, self._maps = original, name, maps

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:
        q, k = (
            projected.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for projected in (attn.to_q(hidden_states), attn.to_k(encoder_hidden_states))
        )
        self._maps[self._name] = attention_probabilities(q, k, attn.scale)
        return self._original(attn, hidden_states, encoder_hidden_states, *args, **kwargs)


@dataclass(frozen=True)
class EditSettings:
    """How pictures are edited. The defaults are those of the ComfyUI nodes.

    Attributes:
        steps: DDIM steps, there and back.
        regularizer: of the inversion.
        fixed_point: refinements of a step of the inversion.
        cfg: scale of classifier-free guidance, away from the noise that the inversion recorded.
        guidance: strength and time of the cross-attention guidance.
    """

    steps: int = 50
    regularizer: NoiseRegularizer = NoiseRegularizer()  # noqa: RUF009 (immutable)
    fixed_point: int = 1
    cfg: float = ReplayedGuidance.scale
    guidance: MapGuidance = RECOMMENDED


@dataclass(frozen=True)
class InvertedPictures:
    """What an edit starts from.

    Attributes:
        inversion: of the pictures' latents, with its trajectory.
        embedding: of their captions, (B, L, D).
        pooled: of their captions, (B, P); None where the model looks at none (Stable Diffusion 1 and 2).
        tokens: of each caption; None where nobody noted them.
    """

    inversion: Inversion
    embedding: Tensor
    pooled: Tensor | None
    tokens: tuple[Sequence[Token], ...] | None = None


SLACK = 0.1
"""How far values of pictures may lie outside of 0..1: what sharpens and resizes overshoots a little."""


class PipelineEditor:
    """A Stable Diffusion pipeline that edits pictures. Pictures are (B, H, W, 3) in 0..1, as in ComfyUI.

    Attributes:
        pipeline: of diffusers; its weights are frozen, all else is left as it is.
        denoise: its UNet.
        encoder: fingerprint of its text encoder, which edit directions carry.
        side: height and width in pixels of the pictures that it was trained on.
    """

    def __init__(self, pipeline: Any) -> None:
        """Wrap a pipeline, on the device and in the precision in which it is.

        A VAE that overflows in half precision (that of Stable Diffusion XL) has to be in float32; `load_pipeline` sees
        to that.

        Args:
            pipeline: a `StableDiffusionPipeline` or `StableDiffusionXLPipeline`.

        Raises:
            TypeError: a model that takes more than noise and text (inpainting, say), the refiner of XL, or one without
                cross-attention or a discrete noise schedule.
            ValueError: a model that predicts neither noise nor v.
        """
        self.pipeline = pipeline
        name, config = type(pipeline).__name__, pipeline.unet.config
        self._is_xl = config.addition_embed_type == "text_time"
        if config.in_channels != config.out_channels or (config.addition_embed_type and not self._is_xl):
            raise TypeError(
                f"The UNet of this {name} takes {config.in_channels} channels and further inputs than a text. Load the "
                "text-to-image checkpoint of Stable Diffusion 1, 2 or XL, not one for inpainting or instructions."
            )
        if pipeline.text_encoder is None:
            raise TypeError(
                f"This {name} lacks the first text encoder, as the refiner of SDXL does, which knows only the last "
                "fifth of the noise levels. Load the base model."
            )
        if not hasattr(pipeline.scheduler, "alphas_cumprod"):
            raise TypeError(
                f"{type(pipeline.scheduler).__name__} has no discrete noise schedule (alphas_cumprod). Give the "
                "pipeline the scheduler that its model came with, DDIMScheduler say."
            )
        for part in self._networks():
            part.requires_grad_(False).eval()
        scheduler = pipeline.scheduler
        alphas: Tensor = scheduler.alphas_cumprod
        self.denoise = DiffusersDenoiser(pipeline.unet, alphas, scheduler.config.prediction_type)
        self.encoder = encoder_fingerprint(self._encoders())
        self.side: int = config.sample_size * pipeline.vae_scale_factor

    def _encoders(self) -> list[nn.Module]:
        return [self.pipeline.text_encoder, *([self.pipeline.text_encoder_2] if self._is_xl else [])]

    def _networks(self) -> list[nn.Module]:
        return [self.pipeline.unet, self.pipeline.vae, *self._encoders()]

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        """Encode texts of one chunk each, as :data:`~pix2pix_zero_core.directions.Encode`.

        Returns:
            token embeddings (n, L, D), and pooled ones (n, P) where the model looks at them.

        Raises:
            ValueError: a text that is too long.
        """
        for tokenizer in (self.pipeline.tokenizer, *([self.pipeline.tokenizer_2] if self._is_xl else [])):
            for text in texts:
                tokens, limit = len(tokenizer(text, verbose=False).input_ids), tokenizer.model_max_length
                if tokens > limit:
                    raise ValueError(f"The text has {tokens} tokens; {limit} is the most. Shorten {text!r}.")
        encoded = self.pipeline.encode_prompt(
            prompt=list(texts),
            device=self.pipeline.unet.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
        )
        return encoded[0], encoded[2] if self._is_xl else None

    def tokenize(self, text: str) -> list[Token]:
        """Split a text into tokens, as :data:`~pix2pix_zero_core.tokens.Tokenize`; XL's encoders have the same."""
        tokenizer = self.pipeline.tokenizer
        ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
        texts: list[str] = tokenizer.convert_ids_to_tokens(ids)
        marked = any(piece.endswith("</w>") for piece in texts)  # else every token is a word
        return [
            Token(1 + i, number, piece.removesuffix("</w>") + " " * (not marked or piece.endswith("</w>")))
            for i, (number, piece) in enumerate(zip(ids, texts, strict=True))  # CLIP puts one token in front
        ]

    def build_direction(
        self, texts: EditSentences, on_progress: OnProgress = None, form: Form = "mean by position"
    ) -> Direction:
        """Make an edit direction of the pipeline's text encoder; see :func:`~.pairs.build_direction`."""
        return build_direction(
            texts, form, self.encode_text, self.tokenize, encoder=self.encoder, on_progress=on_progress
        )

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """Turn pictures into the model's latents, (B, C, H/8, W/8), float32: the mean of the VAE's distribution.

        Raises:
            TypeError: not floating point.
            ValueError: another shape than (B, H, W, 3), sides that are no multiples of the VAE's factor, or values
                outside of 0..1.
        """
        factor: int = self.pipeline.vae_scale_factor
        if pictures.ndim != 4 or pictures.shape[-1] != 3 or any(side % factor for side in pictures.shape[1:3]):
            raise ValueError(
                f"pictures have shape {tuple(pictures.shape)}; they must be (batch, height, width, 3) with sides that "
                f"are multiples of {factor}. Crop or resize them."
            )
        check_pictures(pictures, "pictures")
        lowest, highest = float(pictures.min()), float(pictures.max())
        if lowest < -SLACK or highest > 1 + SLACK:
            raise ValueError(
                f"pictures have values from {lowest:g} to {highest:g}; they must be from 0 to 1. Divide pictures of 8 "
                "bits by 255, and map those from -1 to 1 onto it."
            )
        vae = self.pipeline.vae
        encoded = vae.encode((pictures.movedim(-1, 1) * 2 - 1).to(vae.device, vae.dtype))
        latents: Tensor = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
        return latents.float() * vae.config.scaling_factor

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Turn latents into pictures, (B, 8H, 8W, 3) in 0..1, float32 on the CPU."""
        vae = self.pipeline.vae
        pixels: Tensor = vae.decode((latents / vae.config.scaling_factor).to(vae.device, vae.dtype)).sample
        return (pixels.float().cpu().movedim(1, -1) / 2 + 0.5).clamp(0, 1)

    def invert(
        self,
        pictures: Tensor,
        captions: Sequence[str],
        settings: EditSettings = EditSettings(),
        on_step: OnStep = None,
    ) -> InvertedPictures:
        """Find the noise of pictures.

        Args:
            pictures: (B, H, W, 3) in 0..1.
            captions: one a picture: what it shows.
            settings: steps, regulariser and refinements.
            on_step: called after every step.

        Raises:
            ValueError: as :meth:`encode`, :meth:`encode_text` and :func:`~pix2pix_zero_core.invert`.
        """
        if len(captions) != len(pictures):
            raise ValueError(f"There are {len(captions)} captions for {len(pictures)} pictures; give one each.")
        latents = self.encode(pictures)
        embedding, pooled = self.encode_text(captions)
        sigmas = ddim_sigmas(self.denoise.sigmas, settings.steps)
        inversion = invert(
            self.denoise,
            latents,
            self._condition(embedding, pooled, latents),
            sigmas,
            settings.regularizer,
            fixed_point=settings.fixed_point,
            on_step=on_step,
        )
        return InvertedPictures(inversion, embedding, pooled, tuple(map(self.tokenize, captions)))

    def reconstruct(self, inverted: InvertedPictures, on_step: OnStep = None) -> Tensor:
        """Sample the pictures back from their noise: latents, (B, C, H, W), which show what the inversion lost."""
        inversion = inverted.inversion
        source = self._condition(inverted.embedding, inverted.pooled, inversion.noise)
        return reconstruct(self.denoise, inversion, source, on_step)

    def shift(self, inverted: InvertedPictures, direction: Direction, strength: float = 1.0) -> ShiftedText:
        """Shift the captions of pictures along a direction: what the edited pictures show, with remarks for people.

        Raises:
            ValueError: a direction of another encoder.
        """
        return apply_direction(
            direction, inverted.embedding, inverted.pooled, strength, encoder=self.encoder, tokens=inverted.tokens
        )

    def edit(
        self,
        inverted: InvertedPictures,
        direction: Direction,
        strength: float = 1.0,
        settings: EditSettings = EditSettings(),
        on_step: OnStep = None,
    ) -> Tensor:
        """Edit pictures.

        Args:
            inverted: of the same pipeline.
            direction: of its text encoder.
            strength: of the direction; 1 is the full edit, a negative one leads the other way.
            settings: guidance.
            on_step: called after every step.

        Returns:
            the edited pictures, (B, H, W, 3) in 0..1, on the CPU.

        Raises:
            ValueError: a direction of another encoder, or what :func:`~pix2pix_zero_core.edit` refuses.
        """
        inversion, pooled = inverted.inversion, inverted.pooled
        source = self._condition(inverted.embedding, pooled, inversion.noise)
        shifted = self.shift(inverted, direction, strength)
        target = self._condition(shifted.embedding, shifted.pooled, inversion.noise)
        guided = ReplayedGuidance(self.denoise, inversion, settings.cfg)
        result = edit(
            self.denoise, inversion, source, target, guided=guided, guidance=settings.guidance, on_step=on_step
        )
        return self.decode(result.edited)

    def _condition(self, embedding: Tensor, pooled: Tensor | None, latents: Tensor) -> TextConditioning:
        """What the UNet is told: the text, and with SDXL the size of the picture, uncropped, as ComfyUI tells it."""
        if pooled is None:
            return TextConditioning(embedding)
        height, width = (side * self.pipeline.vae_scale_factor for side in latents.shape[-2:])
        sizes = torch.tensor([height, width, 0, 0, height, width]).to(pooled).repeat(len(pooled), 1)
        return TextConditioning(embedding, {"text_embeds": pooled, "time_ids": sizes})


def encoder_fingerprint(encoders: Iterable[nn.Module]) -> str:
    """Name text encoders by their architecture and their weights.

    The signs of some of each tensor's values stand for the weights: they are the same in every precision.

    Args:
        encoders: of transformers; the same name results in its releases 4 and 5, which name tensors differently.
    """
    digest, names = hashlib.sha256(), list[str]()
    for encoder in encoders:
        names.append(type(encoder).__name__)
        for name, weight in sorted(encoder.state_dict().items()):
            signs = cast(Any, torch.signbit(weight.detach().flatten()[:64].float())).tolist()
            digest.update(f"{name.removeprefix('text_model.')} {tuple(weight.shape)} {signs}".encode())
    return f"{'+'.join(names)}-{digest.hexdigest()[:16]}"


def load_pipeline(
    path: str | Path,
    *,
    config: str | Path | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Any:
    """Load a Stable Diffusion pipeline from this machine; the network is never used.

    Args:
        path: a folder in diffusers' format, or a single `.safetensors` checkpoint.
        config: for a checkpoint: a folder in diffusers' format of the same family, of which the configuration and the
            tokenizers are read. None is what diffusers finds in its cache.
        dtype: of UNet and text encoders; the VAE is in float32, since that of SDXL overflows in half precision.
        device: where it goes.

    Returns:
        a `StableDiffusionPipeline` or `StableDiffusionXLPipeline`.

    Raises:
        FileNotFoundError: no such folder or file, or one that lacks what belongs to it.
        ValueError: another kind of pipeline or file, or one that cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no model at {path}: give a folder in diffusers' format or a .safetensors.")
    if path.is_dir():
        name = _pipeline_name(path)
        read, options = "from_pretrained", {}
    elif path.suffix == ".safetensors":
        name = "StableDiffusionXLPipeline" if _has_second_encoder(path) else "StableDiffusionPipeline"
        read, options = "from_single_file", {} if config is None else {"config": str(config)}
    else:
        raise ValueError(f"{path} is no .safetensors file; other checkpoints may hold code and are not read.")
    if name == "StableDiffusionPipeline":
        options = {**options, "safety_checker": None, "requires_safety_checker": False}

    import diffusers  # takes seconds, and denoisers do without it

    try:
        load = getattr(getattr(diffusers, name), read)
        pipeline = load(str(path), torch_dtype=dtype, local_files_only=True, **options)
    except Exception as error:  # a corrupt file fails with whatever its parser raises: KeyError, struct.error ...
        remedy = "Copy it anew."
        if read == "from_single_file" and config is None:
            remedy = (
                "A checkpoint holds no configuration and no tokenizer: give a folder in diffusers' format of the same "
                "family as config."
            )
        raise ValueError(f"{path} cannot be read as a {name} ({type(error).__name__}: {error}). {remedy}") from error
    pipeline.vae.to(torch.float32)
    return pipeline.to(device)


def _pipeline_name(folder: Path) -> str:
    """The kind of pipeline that a folder holds."""
    path, known = folder / "model_index.json", ("StableDiffusionPipeline", "StableDiffusionXLPipeline")
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no model_index.json: it holds no pipeline in diffusers' format.")
    try:
        name = json.loads(path.read_text(encoding="utf-8"))["_class_name"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({type(error).__name__}: {error}). Copy the folder anew.") from error
    if name not in known:
        raise ValueError(f"{folder} holds a {name}; it must be a {' or a '.join(known)}.")
    return name


def _has_second_encoder(path: Path) -> bool:
    """Whether a checkpoint is of the XL family."""
    from safetensors import SafetensorError, safe_open

    try:
        with cast(Any, safe_open)(path, framework="pt") as file:
            return any(name.startswith("conditioner.embedders.") for name in file.keys())  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is not a readable safetensors file ({error}). Copy it anew.") from error
