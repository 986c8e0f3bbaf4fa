"""Edits with a diffusers pipeline, without ComfyUI; and its UNet as a denoiser, the oracle of the parity tests.

`PipelineEditor` takes a `StableDiffusionPipeline`, `StableDiffusionXLPipeline`, `StableDiffusion3Pipeline` or
`FluxPipeline`, which `load_pipeline` reads from a folder (the first two from a single checkpoint, too), and gives the
picture that the ComfyUI nodes give on the same weights. `diffusers_flow` knows the last two. `DiffusersDenoiser` is the
part that knows the UNet:

    epsilon       D(x, sigma) = x - sigma F(x_vp, t)
    v prediction  D(x, sigma) = x / (1 + sigma^2) - sigma / sqrt(1 + sigma^2) F(x_vp, t)

F is the network, x_vp = x / sqrt(1 + sigma^2) (Salimans and Ho 2022, arXiv:2202.00512, appendix D).
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Generator, Hashable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from ..aligned import AlignedDirection
from ..attention import attention_probabilities
from ..coordinates import Coordinates
from ..directions import Direction, OnProgress
from ..edit import ClassifierFreeGuidance, ReplayedGuidance, edit, map_guidance_step, reconstruct
from ..forms import ShiftedText, apply_direction
from ..fresh import FreshNoise, InFreshNoise, Remembering, TextDifference, guided_from, source_scale
from ..inversion import invert
from ..region import RegionalDenoiser, edit_region, within
from ..remarks import of_edit
from ..schedule import ddim_sigmas, level_after, sigma_to_timestep, sigmas_from_alphas, ve_to_vp
from ..settings import USUAL_STRENGTH, EditSettings
from ..tokens import Token
from ..types import Denoiser, Inversion, OnStep, Prediction, StepInfo
from .diffusers_flow import FLOWS, GUIDANCE, FlowConditioning, FluxModel, flow_model, own_tokens
from .english import shorten
from .folders import blamed_on, require_plain_attention
from .pairs import Form, build_direction, without_partner
from .pictures import Picture, read_pictures
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
class InvertedPictures:
    """What an edit starts from.

    Attributes:
        inversion: of the pictures' latents, with its trajectory.
        settings: that it was made with.
        embedding: of their captions, (B, L, D).
        pooled: of their captions, (B, P); None where the model looks at none (Stable Diffusion 1 and 2).
        tokens: of each caption; None where nobody noted them.
    """

    inversion: Inversion
    settings: EditSettings
    embedding: Tensor
    pooled: Tensor | None
    tokens: tuple[Sequence[Token], ...] | None = None


OUTPUT_TYPES = ("pil", "np", "pt", "latent")
"""Forms of edited pictures, named as in diffusers."""

FIXED = ("steps", "regularizer", "fixed_point")
"""Settings that an inversion fixes."""


class UNetModel:
    """What `PipelineEditor` asks a pipeline of Stable Diffusion 1, 2 or XL; `diffusers_flow.SD3Model` is its twin.

    Attributes:
        denoise: the UNet.
        coordinates: of the latents.
        multiple: of which the sides of pictures must be multiples, in pixels.
        side: height and width in pixels of the pictures that it was trained on.
        readings: how the encoders lay a text; None is as CLIP does.
    """

    coordinates = Coordinates.VE
    readings = None

    def __init__(self, pipeline: Any) -> None:
        """Look at a pipeline.

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
        scheduler = pipeline.scheduler
        # diffusers multiplies in float32, which is off by 1e-5 where there is little noise; ComfyUI does in float64. Of
        # a schedule that ends in pure noise, at alpha 0, its schedulers put another last value there.
        exact = torch.cumprod(1 - scheduler.betas.double(), 0)
        alphas = torch.where(exact > 0, exact, scheduler.alphas_cumprod.double())
        self.denoise = DiffusersDenoiser(pipeline.unet, alphas, scheduler.config.prediction_type)
        self.multiple: int = pipeline.vae_scale_factor
        self.side: int = config.sample_size * pipeline.vae_scale_factor

    @property
    def network(self) -> nn.Module:
        """The UNet itself."""
        return self.pipeline.unet

    @property
    def encoders(self) -> list[nn.Module]:
        """The text encoders."""
        return [self.pipeline.text_encoder, *([self.pipeline.text_encoder_2] if self._is_xl else [])]

    def sigmas(self, steps: int, latents: Tensor) -> Tensor:
        """The noise levels of DDIM, (T+1,), the same for latents of any size."""
        return ddim_sigmas(self.denoise.sigmas, steps)

    def encode_text(self, texts: list[str]) -> tuple[Tensor, Tensor | None]:
        """Encode texts: token embeddings (n, L, D), and pooled ones (n, P) where the model looks at them.

        Raises:
            ValueError: a text that is too long.
        """
        for tokenizer in (self.pipeline.tokenizer, *([self.pipeline.tokenizer_2] if self._is_xl else [])):
            for text in texts:
                tokens, limit = len(tokenizer(text, verbose=False).input_ids), tokenizer.model_max_length
                if tokens > limit:
                    raise ValueError(f"The text has {tokens} tokens; {limit} is the most. Shorten it: {shorten(text)}.")
        encoded = self.pipeline.encode_prompt(
            prompt=texts,
            device=self.pipeline.unet.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
        )
        return encoded[0], encoded[2] if self._is_xl else None

    def tokenize(self, text: str) -> list[Token]:
        """Split a text into tokens, as :data:`~pix2pix_zero_core.tokens.Tokenize`; XL's encoders have the same."""
        return own_tokens(self.pipeline.tokenizer, text, first=1)  # CLIP puts one token in front

    def condition(self, embedding: Tensor, pooled: Tensor | None, latents: Tensor) -> TextConditioning:
        """Make what the UNet is told: the text, and with SDXL the size of the picture, uncropped, as ComfyUI tells it.

        Args:
            embedding: of the text, (B, L, D).
            pooled: of the text, (B, P); None with Stable Diffusion 1 and 2.
            latents: of the pictures, (B, C, H, W), whose size counts.
        """
        if pooled is None:
            return TextConditioning(embedding)
        height, width = (side * self.pipeline.vae_scale_factor for side in latents.shape[-2:])
        sizes = torch.tensor([height, width, 0, 0, height, width]).to(pooled).repeat(len(pooled), 1)
        return TextConditioning(embedding, {"text_embeds": pooled, "time_ids": sizes})


class PipelineEditor:
    """A text-to-image pipeline that edits pictures.

    It takes pictures in every form of `read_pictures`, and shows the pipeline's own progress bars:
    ``pipeline.set_progress_bar_config(disable=True)`` turns them off.

    Attributes:
        pipeline: of diffusers; its weights are frozen, all else is left as it is.
        denoise: its network.
        encoder: fingerprint of its text encoder, which edit directions carry.
        side: height and width in pixels of the pictures that it was trained on.
    """

    def __init__(self, pipeline: Any, *, distilled_guidance: float = GUIDANCE) -> None:
        """Wrap a pipeline, on the device and in the precision in which it is.

        A VAE that overflows in half precision (that of Stable Diffusion XL) has to be in float32; `load_pipeline` sees
        to that.

        Args:
            pipeline: a `StableDiffusionPipeline`, `StableDiffusionXLPipeline`, `StableDiffusion3Pipeline` or
                `FluxPipeline`.
            distilled_guidance: what Flux.1 dev and other guidance-distilled models are told. They follow texts without
                classifier-free guidance: give their edits settings with a cfg of 1.

        Raises:
            TypeError: a model that takes more than noise and text (inpainting, say), the refiner of XL, or one without
                cross-attention or the noise schedule of its kind.
            ValueError: a UNet that predicts neither noise nor v.
        """
        self.pipeline = pipeline
        self._model = flow_model(pipeline, distilled_guidance) or UNetModel(pipeline)
        for part in (self._model.network, pipeline.vae, *self._model.encoders):
            part.requires_grad_(False).eval()
        self.denoise = self._model.denoise
        self.encoder = encoder_fingerprint(self._model.encoders)
        self.side = self._model.side

    @property
    def guides_itself(self) -> bool:
        """Whether the model was distilled to follow texts without classifier-free guidance, as dev and schnell were."""
        return isinstance(self._model, FluxModel)

    def remarks(self, settings: EditSettings) -> list[str]:
        """Say what extreme settings of an edit will do with this model; nothing of usual ones."""
        return of_edit(
            settings.steps,
            settings.guidance,
            settings.cfg,
            settings.cfg_start,
            settings.negative_from,
            settings.noise_from,
            needs_cfg=not self.guides_itself,
            edges=("guidance.start", "guidance.end"),
        )

    @torch.no_grad()
    def encode_text(self, texts: str | Sequence[str]) -> tuple[Tensor, Tensor | None]:
        """Encode texts of one chunk each, as :data:`~pix2pix_zero_core.directions.Encode`.

        Returns:
            token embeddings (n, L, D), and pooled ones (n, P) where the model looks at them.

        Raises:
            TypeError: something else than texts.
            ValueError: a text that is too long.
        """
        return self._model.encode_text(_texts(texts, "texts"))

    def tokenize(self, text: str) -> list[Token]:
        """Split a text into tokens, as :data:`~pix2pix_zero_core.tokens.Tokenize`."""
        return self._model.tokenize(text)

    def build_direction(
        self, texts: EditSentences, on_progress: OnProgress = None, form: Form = "aligned to words"
    ) -> Direction:
        """Make an edit direction of the pipeline's text encoder; see :func:`~.pairs.build_direction`.

        An aligned direction is made without sentences that have no partner; of more than a tenth that is a warning.
        """
        total = len(texts.source_sentences) + len(texts.target_sentences)
        idle = without_partner(texts) if form == AlignedDirection.form else []
        if 10 * len(idle) > total:
            warnings.warn(
                f"{len(idle)} of {total} sentences do nothing, {idle[0][:60]!r} first: no sentence of the other "
                "concept is the same but for one phrase.",
                stacklevel=2,
            )
        with self.pipeline.progress_bar(total=total) as bar:

            def show(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)
                if on_progress is not None:
                    on_progress(done, total)

            return build_direction(
                texts,
                form,
                self.encode_text,
                self.tokenize,
                encoder=self.encoder,
                readings=self._model.readings,
                on_progress=show,
            )

    @torch.no_grad()
    def encode(self, pictures: Picture | Sequence[Picture]) -> Tensor:
        """Turn pictures into the model's latents, (B, C, H/8, W/8), float32: the mean of the VAE's distribution.

        Raises:
            TypeError: as `read_pictures`.
            ValueError: as `read_pictures`, with sides that are multiples of the VAE's factor, of a transformer of twice
                that.
        """
        pictures = read_pictures(pictures, self._model.multiple)
        vae = self.pipeline.vae
        encoded = vae.encode((pictures.movedim(-1, 1) * 2 - 1).to(device_of(vae), vae.dtype))
        latents: Tensor = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
        return (latents.float() - _shift(vae)) * vae.config.scaling_factor

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Turn latents into pictures, (B, 8H, 8W, 3) in 0..1, float32 on the CPU."""
        vae = self.pipeline.vae
        scaled = latents / vae.config.scaling_factor + _shift(vae)
        pixels: Tensor = vae.decode(scaled.to(device_of(vae), vae.dtype)).sample
        return (pixels.float().cpu().movedim(1, -1) / 2 + 0.5).clamp(0, 1)

    def invert(
        self,
        pictures: Picture | Sequence[Picture],
        captions: str | Sequence[str],
        settings: EditSettings = EditSettings(),  # noqa: B008 (immutable)
        on_step: OnStep = None,
    ) -> InvertedPictures:
        """Find the noise of pictures.

        Args:
            pictures: one or more, of one size.
            captions: what the pictures show: one for all, or a list with one for each.
            settings: steps, regulariser and refinements; the edits use the others, where they are given none.
            on_step: called after every step.

        Raises:
            TypeError: as :meth:`encode` and :meth:`encode_text`, or settings that are none.
            ValueError: as :meth:`encode`, :meth:`encode_text` and :func:`~pix2pix_zero_core.invert`.
        """
        _require_settings(settings)
        latents = self.encode(pictures)
        sigmas = self._model.sigmas(settings.steps, latents)
        captions = [captions] * len(latents) if isinstance(captions, str) else _texts(captions, "captions")
        if len(captions) != len(latents):
            raise ValueError(
                f"There are {len(captions)} captions for {len(latents)} pictures; give one for each, or a single text "
                "for all."
            )
        embedding, pooled = self.encode_text(captions)
        with self._progress(settings.steps, on_step) as step:
            inversion = invert(
                self.denoise,
                latents,
                self.condition(embedding, pooled, latents),
                sigmas,
                settings.regularizer,
                fixed_point=settings.fixed_point,
                coordinates=self._model.coordinates,
                on_step=step,
            )
        return InvertedPictures(inversion, settings, embedding, pooled, tuple(map(self.tokenize, captions)))

    def reconstruct(self, inverted: InvertedPictures, on_step: OnStep = None) -> Tensor:
        """Sample the pictures back from their noise: latents, (B, C, H, W), which show what the inversion lost."""
        inversion = inverted.inversion
        source = self.condition(inverted.embedding, inverted.pooled, inversion.noise)
        with self._progress(len(inversion.sigmas) - 1, on_step) as step:
            return reconstruct(self.denoise, inversion, source, step)

    def shift(self, inverted: InvertedPictures, direction: Direction, strength: float = USUAL_STRENGTH) -> ShiftedText:
        """Shift the captions of pictures along a direction: what the edited pictures show, with remarks for people.

        Raises:
            TypeError: no direction.
            ValueError: a direction of another encoder, or a strength that is not finite.
        """
        if not isinstance(cast(Any, direction), Direction):
            raise TypeError(
                f'direction is {direction!r}; it must be an edit direction: build_direction(load_edit("cat2dog")) '
                "makes one, load_direction reads one."
            )
        return apply_direction(
            direction, inverted.embedding, inverted.pooled, strength, encoder=self.encoder, tokens=inverted.tokens
        )

    def edit(
        self,
        inverted: InvertedPictures,
        direction: Direction,
        strength: float = USUAL_STRENGTH,
        settings: EditSettings | None = None,
        on_step: OnStep = None,
        *,
        output_type: str = "pil",
    ) -> Any:
        """Edit pictures.

        What there is to say about the direction and the captions, that they do not name its source say, is a warning.

        Args:
            inverted: of the same pipeline.
            direction: of its text encoder.
            strength: of the direction; 1 is the full edit, a negative one leads the other way.
            settings: of the edit; None is those that the pictures were inverted with.
            on_step: called after every step.
            output_type: form of the edited pictures, as in diffusers: "pil", a list of images; "np", an array (B, H,
                W, 3) in 0..1; "pt", a tensor (B, 3, H, W) in 0..1; all on the CPU; or "latent", (B, C, H/8, W/8), for
                :meth:`decode`.

        Raises:
            TypeError: no direction, no inverted pictures, or settings that are none.
            ValueError: an unknown output type, a direction of another encoder, settings of the inversion that differ
                from those of the pictures, or what :func:`~pix2pix_zero_core.edit` refuses.
        """
        if output_type not in OUTPUT_TYPES:
            raise ValueError(f"output_type is {output_type!r}; it must be one of {', '.join(OUTPUT_TYPES)}.")
        if not isinstance(cast(Any, inverted), InvertedPictures):
            raise TypeError(f"inverted is a {type(inverted).__name__}; it must be what invert gave.")
        settings = inverted.settings if settings is None else settings
        _require_settings(settings)
        _require_settings_of(inverted, settings)
        inversion, pooled = inverted.inversion, inverted.pooled
        source = self.condition(inverted.embedding, pooled, inversion.noise)
        shifted = self.shift(inverted, direction, strength)
        for remark in (*shifted.remarks, *self.remarks(settings)):
            warnings.warn(remark, stacklevel=2)
        target = self.condition(shifted.embedding, shifted.pooled, inversion.noise)
        denoise: Denoiser = self.denoise
        negative = source
        if settings.negative_from == "text" and settings.negative is not None:
            texts = [settings.negative] * len(inversion.noise)
            negative = self.condition(*self.encode_text(texts), inversion.noise)
        guided, guide = _text_guidance(self.denoise, inversion, negative, settings), map_guidance_step
        guidance = settings.guidance
        if settings.noise_from == "fresh":
            guidance = guided_from(guidance, settings.cfg_start)
            noise, asked = FreshNoise(inversion), Remembering(self.denoise)
            denoise = InFreshNoise(asked, noise)
            of_the_source = replace(settings, cfg=source_scale(settings.cfg))
            unchanged = _text_guidance(asked, inversion, negative, of_the_source)
            guided = TextDifference(guided, unchanged, source, noise, settings.cfg_start)
        if settings.region > 0:
            region = edit_region(self.denoise, inversion, source, target, settings.region)
            guided, guide = RegionalDenoiser(guided, inversion, region), within(guide, region)
        with self._progress(settings.steps, on_step) as step:
            edited = edit(
                denoise,
                inversion,
                source,
                target,
                guided=guided,
                guidance=guidance,
                guide=guide,
                on_step=step,
            ).edited
        if output_type == "latent":
            return edited
        pixels = self.decode(edited).movedim(-1, 1)
        return self.pipeline.image_processor.postprocess(pixels, output_type, do_denormalize=[False] * len(pixels))

    def condition(
        self, embedding: Tensor, pooled: Tensor | None, latents: Tensor
    ) -> TextConditioning | FlowConditioning:
        """Make what the network is told: the text, and with SDXL the size of the picture, uncropped, as ComfyUI does.

        Args:
            embedding: of the text, (B, L, D).
            pooled: of the text, (B, P); None with Stable Diffusion 1 and 2.
            latents: of the pictures, (B, C, H, W), whose size counts.
        """
        return self._model.condition(embedding, pooled, latents)

    @contextmanager
    def _progress(self, total: int, on_step: OnStep) -> Generator[OnStep, None, None]:
        """Show the steps of a loop by the pipeline's progress bar; gives what is to be called after each."""
        with self.pipeline.progress_bar(total=total) as bar:

            def step(info: StepInfo) -> None:
                bar.update()
                if on_step is not None:
                    on_step(info)

            yield step


def _text_guidance(denoise: Denoiser, inversion: Inversion, negative: Any, settings: EditSettings) -> Denoiser:
    """Classifier-free guidance of a denoiser as the settings say."""
    below = float(inversion.coordinates.noise_to_signal(level_after(inversion.sigmas, settings.cfg_start)))
    if settings.negative_from == "inversion":
        return ReplayedGuidance(denoise, inversion, settings.cfg, below)
    return ClassifierFreeGuidance(denoise, negative, settings.cfg, below, inversion.coordinates)


def _shift(vae: Any) -> float:
    """What a VAE's latents are shifted by before they are scaled; only those of flow models are."""
    return getattr(vae.config, "shift_factor", None) or 0.0


def _texts(texts: str | Sequence[str], name: str) -> list[str]:
    """One text or several, as a list; `name` is what messages call them."""
    found = [texts] if isinstance(texts, str) else list(texts)
    for text in cast(list[Any], found):
        if not isinstance(text, str):
            raise TypeError(f"{name}: {text!r} is a {type(text).__name__}; they must be texts, of type str.")
    return found


def _require_settings(settings: EditSettings) -> None:
    """Refuse what is no settings."""
    if not isinstance(cast(Any, settings), EditSettings):
        raise TypeError(f"settings is {settings!r}; it must be EditSettings, EditSettings(steps=25) say.")


def _require_settings_of(inverted: InvertedPictures, settings: EditSettings) -> None:
    """Refuse settings that the inversion has fixed, and which differ."""
    for name in FIXED:
        fixed, asked = getattr(inverted.settings, name), getattr(settings, name)
        if fixed != asked:
            raise ValueError(
                f"settings: {name} is {asked}, but the pictures were inverted with {fixed}, which cannot be changed "
                "any more. Change the others with dataclasses.replace(inverted.settings, ...), or invert again."
            )


def device_of(vae: Any) -> torch.device:
    """Where a VAE computes; one that waits elsewhere (`enable_model_cpu_offload`) moves, but not what it is given."""
    return getattr(getattr(vae, "_hf_hook", None), "execution_device", None) or vae.device


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
            tokenizers are read. None is what is in the cache of Hugging Face.
        dtype: of UNet and text encoders; the VAE is in float32, since that of SDXL overflows in half precision.
        device: where it goes.

    Returns:
        a `StableDiffusionPipeline` or `StableDiffusionXLPipeline`; of a folder also a `StableDiffusion3Pipeline` or
        `FluxPipeline`.

    Raises:
        FileNotFoundError: no such folder or file, or one that lacks what belongs to it.
        ValueError: another kind of pipeline or file, or one that cannot be read; a configuration beside a folder.
        MemoryError, RuntimeError: there is too little memory, here or on the device.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no model at {path}: give a folder in diffusers' format or a .safetensors.")
    if path.is_dir():
        name = _pipeline_name(path)
        read = "from_pretrained"
    elif path.suffix == ".safetensors":
        name, read = _checkpoint_name(path), "from_single_file"
    else:
        raise ValueError(f"{path} is no .safetensors file; other checkpoints may hold code and are not read.")
    if config is not None and read == "from_pretrained":
        raise ValueError(f"config is {config}; {path} is a folder, which has its own. Leave it out.")
    if config is not None and not (Path(config) / "model_index.json").is_file():
        raise FileNotFoundError(f"config is {config}; that is no folder in diffusers' format, with a model_index.json.")
    options: dict[str, Any] = {}
    if name == "StableDiffusionPipeline":
        options = {"safety_checker": None, "requires_safety_checker": False}

    import diffusers  # takes seconds, and denoisers do without it

    if read == "from_single_file":
        options["config"] = str(config or _cached_config(path))
    require_plain_attention(options.get("config", path))
    with blamed_on(path, f"a {name}", "Copy it anew."):
        load = getattr(getattr(diffusers, name), read)
        pipeline = load(str(path), dtype=dtype, local_files_only=True, **options)
    pipeline.vae.to(torch.float32)
    return pipeline.to(device)


def _pipeline_name(folder: Path) -> str:
    """The kind of pipeline that a folder holds."""
    path, known = folder / "model_index.json", ("StableDiffusionPipeline", "StableDiffusionXLPipeline", *FLOWS)
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no model_index.json: it holds no pipeline in diffusers' format.")
    try:
        name = json.loads(path.read_text(encoding="utf-8"))["_class_name"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({type(error).__name__}: {error}). Copy the folder anew.") from error
    if name not in known:
        raise ValueError(f"{folder} holds a {name}; it must be a {', a '.join(known[:-1])} or a {known[-1]}.")
    return name


def _checkpoint_name(path: Path) -> str:
    """The kind of pipeline that a checkpoint is of, by the names of its tensors."""
    from safetensors import SafetensorError, safe_open

    try:
        with cast(Any, safe_open)(path, framework="pt") as file:
            names: list[str] = list(file.keys())
    except SafetensorError as error:
        raise ValueError(f"{path} is not a readable safetensors file ({error}). Copy it anew.") from error
    if any(part in name for name in names for part in ("joint_blocks.", "double_blocks.")):
        raise ValueError(
            f"{path} is of a flow transformer; of these only a folder in diffusers' format is read. Give one."
        )
    xl = any(name.startswith("conditioner.embedders.") for name in names)
    return "StableDiffusionXLPipeline" if xl else "StableDiffusionPipeline"


def _cached_config(path: Path) -> str:
    """The folder of Hugging Face's cache with the configuration of a checkpoint's family.

    diffusers would look there as well, and then go online for it, even with `local_files_only`.

    Raises:
        ValueError: it is not there, or nobody knows the family.
    """
    import huggingface_hub
    from diffusers.loaders import single_file_utils
    from safetensors import safe_open

    kinds = ["*.json", "*.txt", "*.model"]  # what diffusers keeps there: without naming them, weights are missed
    try:
        with cast(Any, safe_open)(path, framework="pt") as file:
            shapes = {name: torch.empty(file.get_slice(name).get_shape(), device="meta") for name in file.keys()}  # noqa: SIM118
        repository = cast(Any, single_file_utils).fetch_diffusers_config(shapes)["pretrained_model_name_or_path"]
        return cast(Any, huggingface_hub).snapshot_download(repository, allow_patterns=kinds, local_files_only=True)
    except Exception as error:
        raise ValueError(
            f"{path} holds no configuration and no tokenizer, and the cache has none for it ({type(error).__name__}): "
            "give a folder in diffusers' format of the same family as config."
        ) from error
