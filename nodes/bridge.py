"""ComfyUI's MODEL and CONDITIONING as the core's `Denoiser`, inside a stock guider.

The core's loops run as ComfyUI samplers (`comfy.samplers.Sampler`) under a `CFGGuider` on a cloned ModelPatcher: the
stock code loads the model, prepares every conditioning and takes everything down again, and other packs' patches,
hooks and wrappers apply as they do under any sampler. The conditionings go by name: "source", "positive" (the target)
and "negative".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.model_sampling
import comfy.samplers
import comfy.utils
import latent_preview
import torch
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key
from torch import Tensor

from ..pix2pix_zero_core import Inversion, Prediction, StepInfo
from ..pix2pix_zero_core.coordinates import Coordinates
from ..pix2pix_zero_core.fresh import FreshNoise, along, has_begun, source_scale
from .attention import (
    PACK,
    Obstacle,
    Place,
    Text,
    TextAttention,
    Watch,
    is_watched,
    modules_of,
    picture_of,
    text_layers,
    unwatched,
)
from .families import FAMILIES, UNET, Family, length_of, text_positions
from .fitting import GRID
from .types import ModelInversion

SOURCE, TARGET, NEGATIVE = "source", "positive", "negative"

EVALUATE = "sampler_calc_cond_batch_function"
"""Option of a model: what evaluates a guider's texts."""

CACHES = (
    (WrappersMP.DIFFUSION_MODEL, "easycache", "EasyCache"),
    (WrappersMP.PREDICT_NOISE, "lazycache", "LazyCache"),
)
"""Wrappers of stock nodes that put a remembered prediction in the place of a pass: kind, key, node."""

REFERENCES = (
    "ref_latents",
    "ref_latent",
    "reference_latent",
    "image_cond",
    "clip_fea",
    "c_concat",
    "time_dim_concat",
    "time_dim_replace",
    "guiding_frame_index",
)
"""What a transformer is shown of other pictures, as the model's conditions call it."""

Conditioning = list[list[Any]]


def require_cross_attention_model(model: Any) -> None:
    """Refuse models that the method does not fit.

    Args:
        model: a ModelPatcher.

    Raises:
        ValueError: a model without noise levels that the method knows, one of no family in which it sees the attention
            to the text, one that makes videos from a picture, the refiner of SDXL, one that carries our guidance
            already, or one with a cache that skips steps.
    """
    if model.get_wrappers(WrappersMP.SAMPLER_SAMPLE, PACK):
        raise ValueError(
            "The model is guided already. Connect the model from before Cross-Attention Guidance: to invert with, and "
            "to every other node that guides."
        )
    for kind, key, node in CACHES:
        if model.get_wrappers(kind, key):
            raise ValueError(
                f"The model carries {node}, which leaves out passes of the model; inversion and guidance need every "
                f"one. Connect the model from before {node}."
            )
    if isinstance(model.model, comfy.model_base.SDXLRefiner):
        raise ValueError(
            "The model is the refiner of SDXL, which knows only the last fifth of the noise levels; inversion needs "
            "all. Load the base checkpoint, and refine the edited picture afterwards."
        )
    name = type(model.model).__name__
    coordinates_of(model)
    if not text_layers(modules_of(model)):
        raise ValueError(
            f"The model ({name}) has no attention to the text that pix2pix-zero can see and guide. {_load_another()}"
        )
    if getattr(model.model, "image_to_video", False):
        raise ValueError(
            f"The model ({name}) makes videos from a picture that it is shown; pix2pix-zero edits with models that are "
            "given nothing but text. Load the text-to-image or text-to-video checkpoint."
        )


def _load_another() -> str:
    names = [family.name for family in FAMILIES]
    return f"Load a checkpoint of {', '.join(names[:-1])} or {names[-1]}."


def coordinates_of(model: Any) -> Coordinates:
    """How the latents of a model are written while it samples, and its noise levels.

    Args:
        model: a ModelPatcher.

    Raises:
        ValueError: in a way that the method does not know.
    """
    sampling = model.get_model_object("model_sampling")
    if isinstance(sampling, comfy.model_sampling.CONST):
        return Coordinates.FLOW
    known = comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.COSMOS_RFLOW
    if isinstance(sampling, known):
        return Coordinates.VE
    raise ValueError(
        f"The model ({type(model.model).__name__}) has noise levels of another kind ({type(sampling).__name__}): no "
        f"discrete schedule, and not those of a flow. {_load_another()}"
    )


def family_of_model(model: Any) -> Family:
    """Find the family of a ModelPatcher that `require_cross_attention_model` has passed."""
    return text_layers(modules_of(model))[0].family


def require_size(model: Any, latent: Tensor) -> None:
    """Refuse pictures that are larger than a model's table of positions.

    Args:
        model: a ModelPatcher that `require_cross_attention_model` has passed.
        latent: of pictures, (B, C, H, W).

    Raises:
        ValueError: naming the largest side.
    """
    layer, sides = text_layers(modules_of(model))[0], latent.shape[-2:]
    family, network = layer.family, cast(Any, layer.network)
    tokens: int | None = getattr(network, family.table) if family.table else None
    if tokens is None or max(family.grid(network, None, *sides)) <= tokens:
        return
    height, width = (side * GRID for side in sides)
    raise ValueError(
        f"The picture has {width} x {height} pixels, and this model ({family.name}) has places for "
        f"{tokens} of its tokens a side, {tokens * network.patch_size * GRID} pixels. Scale the picture before "
        "VAE Encode: Fit Picture brings it to what the model was trained on."
    )


def distilled_warning(model: Any) -> str:
    """Say so where a model was distilled to few steps, as far as its architecture tells; else nothing."""
    sampling, network = model.get_model_object("model_sampling"), model.get_model_object("diffusion_model")
    distilled = any(kind.__name__ in ("LCM", "ModelSamplingDiscreteDistilled") for kind in type(sampling).__mro__)
    params = network.params if family_of_model(model).name == "Flux" else None
    schnell = params is not None and params.vec_in_dim is not None and not params.guidance_embed
    if not (schnell or distilled):
        return ""
    return (
        "This model was distilled to a few steps (schnell, LCM), and its way from noise to picture does not lead back: "
        "inversions and edits lose more of the picture. Load the model that it was distilled from, Flux dev say."
    )


def embeddings(text: Conditioning) -> tuple[Tensor, ...]:
    """The embeddings of a text's parts, (B, L, D) each."""
    return tuple(part[0] for part in text)


def needs_cfg(model: Any) -> bool:
    """Whether a model follows texts only with classifier-free guidance, as far as its architecture tells."""
    params = getattr(model.get_model_object("diffusion_model"), "params", None)
    return not (getattr(params, "guidance_embed", False) or distilled_warning(model))


def framed(latent: Tensor, model: Any) -> Tensor:
    """Give a picture's latent, (B, C, H, W), the one frame that a model of videos wants, (B, C, 1, H, W).

    Args:
        latent: of pictures.
        model: a ModelPatcher.
    """
    frames = model.get_model_object("latent_format").latent_dimensions == 3
    return latent.unsqueeze(2) if frames and latent.ndim == 4 else latent


def require_one_frame(latent: Tensor) -> Tensor:
    """Take the frame out of a latent of one.

    Raises:
        ValueError: several frames.
    """
    if latent.ndim == 5 and latent.shape[2] != 1:
        raise ValueError(
            f"The latent has {latent.shape[2]} frames; pix2pix-zero edits pictures. Encode a single picture, or take "
            "one frame of the video."
        )
    return picture_of(latent) if latent.ndim == 5 else latent


def require_inversion_of(model: Any, inversion: Inversion) -> None:
    """Refuse an inversion whose latents the model cannot take.

    Args:
        model: a ModelPatcher.
        inversion: any.

    Raises:
        ValueError: another number of channels, other coordinates, or made by a model of another family.
    """
    channels = model.get_model_object("latent_format").latent_channels
    if inversion.noise.shape[1] != channels:
        raise ValueError(
            f"The inversion has {inversion.noise.shape[1]} channels, the model takes {channels}. Invert the "
            "picture with the model that edits it."
        )
    coordinates, family = coordinates_of(model), family_of_model(model).name
    if inversion.coordinates is not coordinates:
        raise ValueError(
            f"The inversion is in {inversion.coordinates.value} coordinates, the model's are {coordinates.value}: one "
            "is of a flow model, the other is not. Invert the picture with the model that edits it."
        )
    if isinstance(inversion, ModelInversion) and inversion.family not in ("", family):
        raise ValueError(
            f"The inversion was made by a model of the family {inversion.family}, the model is of {family}. Invert the "
            "picture with the model that edits it."
        )


def at_rest(samples: Tensor) -> dict[str, Tensor]:
    """A LATENT of samples, where ComfyUI's own nodes leave theirs: not on the device that samples."""
    return {"samples": samples.to(comfy.model_management.intermediate_device())}


class GuiderDenoiser:
    """A core `Denoiser` on a running guider: one row a sample, no classifier-free guidance, maps and gradients."""

    def __init__(
        self,
        guider: Any,
        extra_args: dict[str, Any],
        finest_layer: int = 1,
        blocks: str = "",
        noise: FreshNoise | None = None,
    ) -> None:
        """Bind a guider that is sampling and the arguments its sampler was given.

        Args:
            guider: a CFGGuider.
            extra_args: of its sampler: model_options and seed.
            finest_layer: maps come from layers at 1/finest_layer of the latent's resolution and coarser.
            blocks: which of the layers maps come from, see `chosen_layers`.
            noise: in which the model is asked; None is the latent's own.

        Raises:
            ValueError: there are no such blocks, or a text of a transformer shows it another picture.
        """
        self.guider = guider
        self.model_options: dict[str, Any] = extra_args["model_options"]
        self.seed: int | None = extra_args["seed"]
        self.attention = TextAttention(guider, blocks)
        self.finest_layer, self.noise = finest_layer, noise
        self._of_the_source: tuple[float, Tensor, Tensor] | None = None
        self.frames = guider.inner_model.latent_format.latent_dimensions == 3
        if self.attention.layers and self.attention.family is not UNET:
            require_text_alone(guider.conds)

    def __call__(self, x: Tensor, sigma: Tensor, cond: str, *, maps: bool = False) -> Prediction:
        """Predict as a core `Denoiser`; `cond` names one of the guider's conditionings.

        Raises:
            ValueError: a layer, a sample or a piece of the latent was left out, or its attention could not be seen; or
                source and target have no text in common at this level.
        """
        comfy.model_management.throw_exception_if_processing_interrupted()
        options, level = comfy.model_patcher.create_model_options_clone(self.model_options), float(sigma[0])
        _active_parts(self.guider.conds[cond], level, cond)  # a silent text would pass for a model that did not run
        texts = self._texts(cond, x, level) if maps else {}
        watch = Watch(self.attention, self.seen(x, sigma), texts, options, self.finest_layer)
        try:
            with self.attention.hooked():
                denoised = self.predict(x, sigma, cond, options)
            watch.require_whole(level)
            found = watch.maps()
        except Obstacle as obstacle:
            raise watch.error(obstacle, level) from obstacle
        finally:
            watch.let_go()
        if maps and not found:
            raise ValueError(
                f"finest_layer is {self.finest_layer}; the model has no cross-attention at 1/{self.finest_layer} of "
                "the latent's resolution or coarser. Lower finest_layer; 1 guides every layer."
            )
        if cond == SOURCE:
            self._of_the_source = level, x, denoised
        return Prediction(denoised, found)

    def known(self, x: Tensor, sigma: float) -> Tensor | None:
        """The x0 that the source text alone predicts, (B, C, H, W), where guidance has just asked for it."""
        if self._of_the_source is None:
            return None
        level, at, denoised = self._of_the_source
        return denoised if level == sigma and torch.equal(x, at) else None

    def _texts(self, cond: str, x: Tensor, sigma: float) -> dict[Any, Text]:
        """Describe the parts of a conditioning that are active at a level: uuid -> part.

        To be seen are those that source and target have in common. Of a text with more chunks of tokens than the other
        the tokens count that both have: their probabilities are the softmax over these alone.
        """
        source, target = (_active_parts(self.guider.conds[name], sigma, name) for name in (SOURCE, TARGET))
        if not source.keys() & target.keys():
            raise ValueError(
                f"At noise level {sigma:.4g} source and target text have no area in common, so that their attention "
                "cannot be compared. Give both a text for the whole picture, or both the same areas."
            )
        texts: dict[Any, Text] = {}
        family = self.attention.family
        for key, part in (source if cond == SOURCE else target).items():
            both = [parts[key]["model_conds"] for parts in (source, target) if key in parts]
            common = None
            if len(both) == 2:
                common = text_positions(family, both)[0 if cond == SOURCE else 1]
                if len(common) == 0:
                    raise ValueError(
                        "Source or target text has no tokens of its own, only padding, so that their attention cannot "
                        "be compared. Encode a text for both; Conditioning Zero Out leaves none."
                    )
            keys, always = length_of(family, part["model_conds"]), "default" not in part
            texts[part["uuid"]] = Text(key, _place(part, x), _tokens(part), common, keys, always)
        return texts

    def predict(self, x: Tensor, sigma: Tensor, cond: str, options: dict[str, Any]) -> Tensor:
        """Ask the model for x0, (B, C, H, W); only the maps carry gradients, so a ControlNet takes none."""
        model, x = self.guider.inner_model, self.framed(self.seen(x.detach(), sigma))
        with torch.no_grad():
            return picture_of(comfy.samplers.calc_cond_batch(model, [self.guider.conds[cond]], x, sigma, options)[0])

    def seen(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Find the latent that the model is asked about, (B, C, H, W)."""
        return x if self.noise is None else self.noise.seen(x, sigma)

    def framed(self, x: Tensor) -> Tensor:
        """Give a latent, (B, C, H, W), the frame that the model may want."""
        return x.unsqueeze(2) if self.frames else x


class GuidedDenoiser(GuiderDenoiser):
    """The guider's own prediction: classifier-free guidance and every patch that acts on it."""

    def __init__(
        self,
        guider: Any,
        extra_args: dict[str, Any],
        finest_layer: int = 1,
        kept: tuple[Tensor, Tensor] | None = None,
        blocks: str = "",
        noise: FreshNoise | None = None,
    ) -> None:
        """Bind a guider as `GuiderDenoiser` does.

        Args:
            guider: a CFGGuider.
            extra_args: of its sampler: model_options and seed.
            finest_layer: see `GuiderDenoiser`.
            kept: a mask, 1 where the picture may change, of the latent's height and width, and the latent that is
                predicted where it is 0; both with a frame where the model wants one.
            blocks: see `GuiderDenoiser`.
            noise: in which the guider asks the model, see `edit_in_fresh_noise`.
        """
        super().__init__(guider, extra_args, finest_layer, blocks, noise)
        self.kept = kept

    def __call__(self, x: Tensor, sigma: Tensor, cond: str, *, maps: bool = False) -> Prediction:
        """Predict as a core `Denoiser`. Without maps this is a stock sampler's call, and nobody watches it."""
        if maps:
            return super().__call__(x, sigma, cond, maps=True)
        comfy.model_management.throw_exception_if_processing_interrupted()
        options = comfy.model_patcher.create_model_options_clone(self.model_options)
        return Prediction(self.ask(x, sigma, cond, options), {})

    def predict(self, x: Tensor, sigma: Tensor, cond: str, options: dict[str, Any]) -> Tensor:
        """Ask the guider while its maps are watched.

        Only those of `cond` are seen, in a pass of its own, and only they carry gradients; the prediction does not.
        """
        _evaluate_apart(options)
        with torch.no_grad():
            return self.ask(x.detach(), sigma, cond, options)

    def ask(self, x: Tensor, sigma: Tensor, cond: str, options: dict[str, Any]) -> Tensor:
        """Ask the guider for x0 with `cond` as its positive conditioning, (B, C, H, W)."""
        positive = self.guider.conds[TARGET]
        self.guider.conds[TARGET] = self.guider.conds[cond]
        try:
            denoised = self.guider(self.framed(x), sigma, model_options=options, seed=self.seed)
        finally:
            self.guider.conds[TARGET] = positive
        if self.kept is None:
            return picture_of(denoised)
        mask, picture = self.kept  # as ComfyUI's own samplers apply a noise mask
        mask = mask_at(self.guider, options, mask, sigma)
        return picture_of(denoised * mask + picture * (1 - mask))


def mask_at(guider: Any, options: dict[str, Any], mask: Tensor, sigma: Tensor) -> Tensor:
    """A noise mask at a level, which packs may let change with it (Differential Diffusion).

    Args:
        guider: that is sampling.
        options: its model's.
        mask: 1 where the picture may change, 0 where it stays.
        sigma: the level, (B,).
    """
    change = options.get("denoise_mask_function")
    if change is None:
        return mask
    sigmas = options["transformer_options"]["sample_sigmas"]
    return change(sigma, mask, extra_options={"model": guider, "sigmas": sigmas})


def fresh_noise(
    guider: Any, extra_args: dict[str, Any], inversion: Inversion, mask: Tensor | None = None
) -> FreshNoise:
    """New noise at every step, for a guider that is sampling.

    Args:
        guider: a CFGGuider.
        extra_args: of its sampler.
        inversion: of the picture, with its trajectory.
        mask: a noise mask: elsewhere samplers lead the latent another way than the inversion's.

    Raises:
        ValueError: the inversion has no trajectory.
    """
    if mask is None:
        return FreshNoise(inversion)
    options = extra_args["model_options"]
    return FreshNoise(inversion, lambda sigma: picture_of(mask_at(guider, options, mask, sigma)))


def require_text_alone(conds: dict[str, list[dict[str, Any]]]) -> None:
    """Refuse what shows a transformer other pictures.

    Args:
        conds: of a guider that is sampling.

    Raises:
        ValueError: names the text and what it shows.
    """
    for name, parts in conds.items():
        for part in parts:
            if shown := [condition for condition in REFERENCES if condition in part["model_conds"]]:
                raise ValueError(
                    f"The {name} text shows the model another picture ({', '.join(shown)}), as instruct and inpainting "
                    "models (Kontext, Qwen-Image-Edit, Fill) are given theirs; pix2pix-zero edits with models that are "
                    "given nothing but text. Disconnect the reference picture, or load the base checkpoint."
                )


def _evaluate_apart(options: dict[str, Any]) -> None:
    """Evaluate positive and negative in passes of their own: only the former's is watched, and to carry gradients.

    The positive comes last: hooks change the weights for each text, and the backward pass may ask for them again.
    """
    evaluate_before = options.get(EVALUATE, _evaluate)

    def evaluate(args: dict[str, Any]) -> list[Tensor]:
        positive, negative = args["conds"]
        alone = {**args, "conds": [None, negative], "model_options": unwatched(args["model_options"])}
        away = None if negative is None else evaluate_before(alone)[1]
        predictions = evaluate_before({**args, "conds": [positive, None]})
        return predictions if away is None else [predictions[0], away]

    options[EVALUATE] = evaluate


def replay_negative(model: Any, inversion: Inversion) -> None:
    """Guide away from the noise that the inversion recorded, as the core's `ReplayedGuidance`.

    The negative is then not evaluated, unless the model carries patches that look at its pass (SAG does).

    Args:
        model: a cloned ModelPatcher.
        inversion: of the picture, with its trajectory.

    Raises:
        ValueError: the inversion has no trajectory; while sampling, the guider does not ask for a negative.
    """
    if inversion.trajectory is None:
        raise ValueError("The inversion has no trajectory to take the negative from. Set negative_from to text.")

    def recorded(x: Tensor, sigma: float, _: Tensor) -> Tensor:
        return inversion.replayed(picture_of(x), sigma).view_as(x)

    refusal = "does not ask for the noise that the inversion recorded. Set negative_from to text."
    replayed = partial(_predict_with_negative, recorded, "negative_from is inversion", refusal)
    model.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, PACK, replayed)


def _predict_with_negative(
    negative_of: Callable[[Tensor, float, Tensor], Tensor],
    setting: str,
    refusal: str,
    executor: Any,
    x: Tensor,
    sigma: Tensor,
    model_options: dict[str, Any],
    seed: int | None,
) -> Tensor:
    """Let a guider predict with another negative than the model's, and refuse one that does not ask for it.

    Args:
        negative_of: the negative's x0 from the latent, its level and the positive's x0.
        setting: what asks for it, and
        refusal: what else to say of a guider that evaluates its texts itself.
        executor: what the guider does by itself.
        x: as a guider is given it.
        sigma: as a guider is given it.
        model_options: as a guider is given them.
        seed: as a guider is given it.
    """
    evaluate_before = model_options.get(EVALUATE, _evaluate)
    asked: list[bool] = []

    def evaluate(args: dict[str, Any]) -> list[Tensor]:
        asked.append(True)
        positive, negative = args["conds"]
        if negative is None:
            return evaluate_before(args)
        watched = args["model_options"].get("sampler_post_cfg_function")
        predicted = evaluate_before(args if watched else {**args, "conds": [positive, None]})[0]
        return [predicted, negative_of(args["input"], float(args["sigma"][0]), predicted)]

    prediction = executor(x, sigma, {**model_options, EVALUATE: evaluate}, seed)
    if not asked:
        guider = type(executor.class_obj).__name__
        raise ValueError(f"{setting}, but the guider ({guider}) evaluates its texts itself and {refusal}")
    return prediction


def begin_text_guidance(model: Any, inversion: Inversion, start: float) -> None:
    """Let guiders follow their positive text plainly before a fraction of the inversion's steps.

    The negative is not evaluated there, unless the model carries patches that look at its pass (SAG does).

    Args:
        model: a cloned ModelPatcher.
        inversion: whose steps count.
        start: fraction of its steps, above 0.

    Raises:
        ValueError: while sampling, the guider does not ask for a negative.
    """
    refusal = "cannot be told to begin later. Set cfg_start to 0."

    def predict(executor: Any, x: Tensor, sigma: Tensor, model_options: dict[str, Any], seed: int | None) -> Tensor:
        if has_begun(inversion, float(sigma[0]), start):
            return executor(x, sigma, model_options, seed)
        arguments = (executor, x, sigma, model_options, seed)
        return _predict_with_negative(lambda x, _, positive: positive, f"cfg_start is {start}", refusal, *arguments)

    model.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, PACK, predict)


def heard_predictions(guider: Any) -> list[float]:
    """Note at which levels a guider predicts where wrappers can change what it predicts; filled while it samples.

    Args:
        guider: a CFGGuider that is sampling: its options are this run's own.
    """
    levels: list[float] = []

    def predict(executor: Any, x: Tensor, sigma: Tensor, *arguments: Any) -> Tensor:
        levels.append(float(sigma[0]))
        return executor(x, sigma, *arguments)

    add_wrapper_with_key(WrappersMP.PREDICT_NOISE, PACK, predict, guider.model_options, is_model_options=True)
    return levels


def edit_in_region(guider: Any, inversion: Inversion, region: Tensor) -> None:
    """Let a guider predict what the inversion recorded outside a region, as the core's `RegionalDenoiser`.

    Args:
        guider: a CFGGuider that is sampling: its options are this run's own.
        inversion: of the picture, with its trajectory.
        region: weights of the edit, (B, 1, H, W).
    """
    predict = partial(_predict_in_region, inversion, region)
    add_wrapper_with_key(WrappersMP.PREDICT_NOISE, PACK, predict, guider.model_options, is_model_options=True)


def _predict_in_region(
    inversion: Inversion,
    region: Tensor,
    executor: Any,
    x: Tensor,
    sigma: Tensor,
    model_options: dict[str, Any],
    seed: int | None,
) -> Tensor:
    prediction = executor(x, sigma, model_options, seed)
    recorded = inversion.replayed(picture_of(x), float(sigma[0]))
    return torch.lerp(recorded, picture_of(prediction), region.to(x)).view_as(x)


def edit_in_fresh_noise(guider: Any, denoise: GuiderDenoiser, noise: FreshNoise, start: float) -> None:
    """Let a guider predict what leads along the inversion and what its text changes, as the core's `TextDifference`.

    Args:
        guider: a CFGGuider that is sampling, with the source's text.
        denoise: its model in that noise, which guidance may ask as well.
        noise: in which it asks the model.
        start: fraction of the inversion's steps before which nothing changes.
    """
    predict = partial(_predict_in_fresh_noise, guider, denoise, noise, start)
    add_wrapper_with_key(WrappersMP.PREDICT_NOISE, PACK, predict, guider.model_options, is_model_options=True)


def _predict_in_fresh_noise(
    guider: Any,
    denoise: GuiderDenoiser,
    noise: FreshNoise,
    start: float,
    executor: Any,
    x: Tensor,
    sigma: Tensor,
    model_options: dict[str, Any],
    seed: int | None,
) -> Tensor:
    inversion, level = noise.inversion, float(sigma[0])

    def ask(latent: Tensor, options: dict[str, Any]) -> Tensor:
        seen = noise.seen(latent, sigma).view_as(x)
        return picture_of(executor(seen, sigma, options, seed))

    if not has_begun(inversion, level, start):
        if is_watched(model_options):
            ask(picture_of(x), model_options)
        return along(inversion, torch.zeros_like(picture_of(x)), level).view_as(x)
    require_comparable(guider.conds, level)
    original, options = inversion.latent_at(level).to(x), unwatched(model_options)
    known = denoise.known(original, level)
    if known is not None and EVALUATE not in denoise.model_options:
        options[EVALUATE] = partial(_evaluate_negative, known.view_as(x))
    with _source_in_place(guider):
        unchanged = ask(original, options)
    edited = ask(picture_of(x), model_options)  # last, as in `_evaluate_apart`
    return along(inversion, edited - unchanged, level).view_as(x)


def _evaluate_negative(positive: Tensor, args: dict[str, Any]) -> list[Tensor]:
    """Evaluate what a guider asks for beside a positive that is known."""
    return [positive, *_evaluate({**args, "conds": [None, *args["conds"][1:]]})[1:]]


@contextmanager
def _source_in_place(guider: Any) -> Generator[None]:
    """Let a guider predict the picture as it is, with less of the guidance that it has.

    Guiders with scales of their own (DualCFGGuider) keep those.
    """
    target, scale = guider.conds[TARGET], guider.cfg
    guider.conds[TARGET], guider.cfg = guider.conds[SOURCE], source_scale(scale)
    try:
        yield
    finally:
        guider.conds[TARGET], guider.cfg = target, scale


def require_comparable(conds: dict[str, list[dict[str, Any]]], sigma: float) -> None:
    """Refuse texts whose predictions differ by more than what they say.

    Args:
        conds: of a guider that is sampling.
        sigma: a level.

    Raises:
        ValueError: source or target has no text there, or one has a ControlNet that the other has not.
    """
    source, target = (_active_parts(conds[name], sigma, name) for name in (SOURCE, TARGET))
    if any(_steered(source, key) != _steered(target, key) for key in {**source, **target}):
        raise ValueError(
            "One of source and target text has a ControlNet, the other has not: in fresh noise all that it does would "
            "be taken for what the texts differ in. Apply it to both, or set noise_from to inversion."
        )


def _steered(parts: dict[PartKey, dict[str, Any]], key: PartKey) -> bool:
    """Whether a part of a text has a ControlNet; of a part that this text lacks, whether any of its parts has."""
    return any("control" in part for part in ([parts[key]] if key in parts else parts.values()))


def _evaluate(args: dict[str, Any]) -> list[Tensor]:
    """What a guider does by itself."""
    return comfy.samplers.calc_cond_batch(
        args["model"], args["conds"], args["input"], args["sigma"], args["model_options"]
    )


PartKey = tuple[Any, int]
"""A part of a conditioning: its area, None for the whole picture, and its number among the active ones of that area."""


def _active_parts(cond: list[dict[str, Any]], sigma: float, name: str) -> dict[PartKey, dict[str, Any]]:
    """Find the parts of a conditioning that ComfyUI evaluates at a level.

    Raises:
        ValueError: none.
    """
    parts: dict[PartKey, dict[str, Any]] = {}
    level = torch.tensor(sigma, dtype=torch.float32)  # in which ComfyUI compares: the bounds of flows are more exact
    for part in cond:
        if not (level > part.get("timestep_start", math.inf) or level < part.get("timestep_end", 0.0)):
            area = part.get("area")
            parts[area, sum(known == area for known, _ in parts)] = part
    if not parts:
        text = "target" if name == TARGET else name
        raise ValueError(
            f"The {text} has no text at noise level {sigma:.4g}, where it is needed. Let the ranges of Conditioning "
            "Set Timestep Range cover all levels that are guided, with noise_from fresh all from cfg_start on, and "
            "with region above 0 all."
        )
    return parts


def _tokens(part: dict[str, Any]) -> Tensor:
    return part["model_conds"]["c_crossattn"].cond


def _place(part: dict[str, Any], x: Tensor) -> Place:
    """The area of a part in a latent, cut off at its edges, as ComfyUI does."""
    below, right = x.shape[-2:]
    area = part.get("area") or (below, right, 0, 0)
    (height, width), (top, left) = area[: len(area) // 2][-2:], area[-2:]  # of videos also the frames
    return Place(top, left, min(height, below - top), min(width, right - left))


def progress(model: Any, total: int) -> Callable[[StepInfo], None]:
    """Report the core's steps to ComfyUI: progress bar and live preview of the predicted picture."""
    callback = latent_preview.prepare_callback(model, total)
    done = 0

    def on_step(step: StepInfo) -> None:
        nonlocal done
        callback(done, step.denoised, step.x, total)
        done += 1

    return on_step
