"""ComfyUI's MODEL and CONDITIONING as the core's `Denoiser`, inside a stock guider.

The core's loops run as ComfyUI samplers (`comfy.samplers.Sampler`) under a `CFGGuider` on a cloned ModelPatcher: the
stock code loads the model, prepares every conditioning and takes everything down again, and other packs' patches,
hooks and wrappers apply as they do under any sampler. The conditionings go by name: "source", "positive" (the target)
and "negative".
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable
from typing import Any

import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.model_sampling
import comfy.samplers
import comfy.utils
import latent_preview
import torch
from comfy.ldm.modules.attention import attention_pytorch
from comfy.patcher_extension import WrappersMP
from torch import Tensor, nn

from ..pix2pix_zero_core import Inversion, Prediction, StepInfo
from ..pix2pix_zero_core.attention import attention_probabilities

SOURCE, TARGET, NEGATIVE = "source", "positive", "negative"

GUIDANCE = "pix2pix_zero"
"""Key of our wrappers on a ModelPatcher."""

Conditioning = list[list[Any]]


def require_cross_attention_model(model: Any) -> None:
    """Refuse models that the method does not fit.

    Args:
        model: a ModelPatcher.

    Raises:
        ValueError: a flow model, one without a table of noise levels, one without cross-attention to the text, the
            refiner of SDXL, or a model that carries our guidance already.
    """
    if model.get_wrappers(WrappersMP.SAMPLER_SAMPLE, GUIDANCE):
        raise ValueError(
            "The model is guided already. Connect the model from before Cross-Attention Guidance: to invert with, and "
            "to every other node that guides."
        )
    if isinstance(model.model, comfy.model_base.SDXLRefiner):
        raise ValueError(
            "The model is the refiner of SDXL, which knows only the last fifth of the noise levels; inversion needs "
            "all. Load the base checkpoint, and refine the edited picture afterwards."
        )
    sampling = model.get_model_object("model_sampling")
    name = type(model.model).__name__
    if isinstance(sampling, comfy.model_sampling.CONST):
        raise ValueError(
            f"The model ({name}) is a flow model; pix2pix-zero inverts DDIM, which needs a noise-predicting diffusion "
            "model. Load a Stable Diffusion 1.x, 2.x or XL checkpoint."
        )
    if not isinstance(sampling, comfy.model_sampling.ModelSamplingDiscrete):
        raise ValueError(
            f"The model ({name}) has no discrete noise schedule ({type(sampling).__name__}). Load a Stable Diffusion "
            "1.x, 2.x or XL checkpoint."
        )
    if not cross_attention_layers(model.model.diffusion_model):
        raise ValueError(
            f"The model ({name}) has no cross-attention to the text, which pix2pix-zero guides. Load a Stable "
            "Diffusion 1.x, 2.x or XL checkpoint."
        )


def require_inversion_of(model: Any, inversion: Inversion) -> None:
    """Refuse an inversion whose latents the model cannot take.

    Args:
        model: a ModelPatcher.
        inversion: any.

    Raises:
        ValueError: another number of channels.
    """
    channels = model.get_model_object("latent_format").latent_channels
    if inversion.noise.shape[1] != channels:
        raise ValueError(
            f"The inversion has {inversion.noise.shape[1]} channels, the model takes {channels}. Invert the "
            "picture with the model that edits it."
        )


def cross_attention_layers(unet: nn.Module) -> dict[tuple[str, int, int], Any]:
    """Find the cross-attention of a UNetModel: (block, number, index in the block), as patches see it, to module."""
    pattern = re.compile(r"(input|middle|output)_blocks?\.(\d+)\..*transformer_blocks\.(\d+)\.attn2")
    layers: dict[tuple[str, int, int], Any] = {}
    for name, module in unet.named_modules():
        if found := pattern.fullmatch(name):
            block, number, index = found.groups()
            layers[block, 0 if block == "middle" else int(number), int(index)] = module
    return layers


class GuiderDenoiser:
    """A core `Denoiser` on a running guider: one row a sample, no classifier-free guidance, maps and gradients."""

    def __init__(self, guider: Any, extra_args: dict[str, Any], finest_layer: int = 1) -> None:
        """Bind a guider that is sampling and the arguments its sampler was given.

        Args:
            guider: a CFGGuider.
            extra_args: of its sampler: model_options and seed.
            finest_layer: maps come from layers at 1/finest_layer of the latent's resolution and coarser.
        """
        self.guider = guider
        self.model_options: dict[str, Any] = extra_args["model_options"]
        self.seed: int | None = extra_args["seed"]
        self.layers = cross_attention_layers(guider.inner_model.diffusion_model)
        self.finest_layer = finest_layer

    def __call__(self, x: Tensor, sigma: Tensor, cond: str, *, maps: bool = False) -> Prediction:
        """Predict as a core `Denoiser`; `cond` names one of the guider's conditionings."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        recorder = _MapRecorder(self.layers, self._tokens(cond), self.finest_layer) if maps else None
        options = comfy.model_patcher.create_model_options_clone(self.model_options)
        transformer_options = options.setdefault("transformer_options", {})
        if recorder is not None:
            patches = transformer_options.setdefault("patches", {})
            patches["attn2_patch"] = [*patches.get("attn2_patch", []), recorder]
        if torch.is_grad_enabled():
            transformer_options["optimized_attention_override"] = _differentiable_attention
        denoised = self.predict(x, sigma, cond, options)
        if recorder is not None and not recorder.maps and self.finest_layer > 1:
            raise ValueError(
                f"The model has no cross-attention at 1/{self.finest_layer} of the latent's resolution or coarser. "
                "Lower finest_layer; 1 guides every layer."
            )
        return Prediction(denoised, {} if recorder is None else recorder.maps)

    def _tokens(self, cond: str) -> dict[Any, tuple[PartKey, int]]:
        """Find the parts of a conditioning that source and target have in common: uuid -> key, tokens in common."""
        source, target = (_parts(self.guider.conds[name]) for name in (SOURCE, TARGET))
        own = source if cond == SOURCE else target
        return {
            part["uuid"]: (key, min(_token_count(source[key]), _token_count(target[key])))
            for key, part in own.items()
            if key in source and key in target
        }

    def predict(self, x: Tensor, sigma: Tensor, cond: str, options: dict[str, Any]) -> Tensor:
        """Ask the model for x0, (B, C, H, W)."""
        model = self.guider.inner_model
        return comfy.samplers.calc_cond_batch(model, [self.guider.conds[cond]], x, sigma, options)[0]


class GuidedDenoiser(GuiderDenoiser):
    """The guider's own prediction: classifier-free guidance and every patch that acts on it."""

    def predict(self, x: Tensor, sigma: Tensor, cond: str, options: dict[str, Any]) -> Tensor:
        """Ask the guider for x0 with `cond` as its positive conditioning, (B, C, H, W).

        Where gradients are enabled, only the maps of that conditioning carry them; the prediction does not.
        """
        if torch.is_grad_enabled():
            _differentiate_positive(options, x)
            with torch.no_grad():
                return self.predict(x.detach(), sigma, cond, options)
        positive = self.guider.conds[TARGET]
        self.guider.conds[TARGET] = self.guider.conds[cond]
        try:
            return self.guider(x, sigma, model_options=options, seed=self.seed)
        finally:
            self.guider.conds[TARGET] = positive


def _differentiate_positive(options: dict[str, Any], leaf: Tensor) -> None:
    """Evaluate the positive row with gradients back to `leaf`, and all else that a guider evaluates without."""
    evaluate_before = options.get("sampler_calc_cond_batch_function", _evaluate)

    def evaluate(args: dict[str, Any]) -> list[Tensor]:
        positive, negative = args["conds"]
        with torch.enable_grad():
            predictions = evaluate_before({**args, "input": leaf, "conds": [positive, None]})
        predictions = [prediction.detach() for prediction in predictions]
        if negative is not None:
            predictions[1] = evaluate_before({**args, "conds": [None, negative]})[1]
        return predictions

    options["sampler_calc_cond_batch_function"] = evaluate


def replay_negative(model: Any, inversion: Inversion) -> None:
    """Guide away from the noise that the inversion recorded, as the core's `ReplayedGuidance`.

    The negative is then not evaluated, unless the model carries patches that look at its pass (SAG does).

    Args:
        model: a cloned ModelPatcher.
        inversion: of the picture, with its trajectory.

    Raises:
        ValueError: the inversion has no trajectory.
    """
    if inversion.trajectory is None:
        raise ValueError("The inversion has no trajectory to take the negative from. Set negative_from to text.")
    evaluate_before = model.model_options.get("sampler_calc_cond_batch_function", _evaluate)

    def evaluate(args: dict[str, Any]) -> list[Tensor]:
        positive, negative = args["conds"]
        if negative is None:
            return evaluate_before(args)
        watched = args["model_options"].get("sampler_post_cfg_function")
        x, sigma = args["input"], float(args["sigma"][0])
        predictions = evaluate_before(args if watched else {**args, "conds": [positive, None]})
        return [predictions[0], x - sigma * inversion.noise_at(sigma).to(x)]

    model.set_model_sampler_calc_cond_batch_function(evaluate)


def _evaluate(args: dict[str, Any]) -> list[Tensor]:
    """What a guider does by itself."""
    return comfy.samplers.calc_cond_batch(
        args["model"], args["conds"], args["input"], args["sigma"], args["model_options"]
    )


PartKey = tuple[Any, int]
"""A part of a conditioning: its area, None for the whole picture, and its number among those of that area."""


def _parts(cond: list[dict[str, Any]]) -> dict[PartKey, dict[str, Any]]:
    parts: dict[PartKey, dict[str, Any]] = {}
    for part in cond:
        area = part.get("area")
        parts[area, sum(known == area for known, _ in parts)] = part
    return parts


def _token_count(part: dict[str, Any]) -> int:
    return part["model_conds"]["c_crossattn"].cond.shape[1]


class _MapRecorder:
    """An `attn2_patch` that changes nothing: it computes the probabilities that the attention is about to use.

    Maps are keyed by layer and by the part of the prompt (ConditioningCombine and areas make several). Of a text with
    more chunks of tokens than the other they hold the probabilities among the tokens that both have: the softmax over
    these alone. The first call counts: PAG and SAG run the model again, and so does checkpointing, which wants the
    same operations each time.
    """

    def __init__(
        self, layers: dict[tuple[str, int, int], Any], tokens: dict[Any, tuple[PartKey, int]], finest_layer: int
    ) -> None:
        self.layers, self.tokens, self.finest_layer = layers, tokens, finest_layer
        self.maps: dict[Hashable, Tensor] = {}

    def __call__(
        self, n: Tensor, context: Tensor, value: Tensor, extra_options: dict[str, Any]
    ) -> tuple[Tensor, Tensor, Tensor]:
        height, width = (math.ceil(side / self.finest_layer) for side in extra_options["original_shape"][2:])
        if n.shape[1] > height * width:
            return n, context, value
        layer = (*extra_options["block"], extra_options["block_index"])
        attention, heads = self.layers[layer], extra_options["n_heads"]
        q, k = (
            projected.unflatten(-1, (heads, -1)).transpose(1, 2)
            for projected in (attention.to_q(n), attention.to_k(context))
        )
        chunks = len(extra_options["uuids"])
        for uuid, q_rows, k_rows in zip(extra_options["uuids"], q.chunk(chunks), k.chunk(chunks), strict=True):
            if uuid in self.tokens:
                part, tokens = self.tokens[uuid]
                self.maps.setdefault((*layer, part), attention_probabilities(q_rows, k_rows[:, :, :tokens]))
        return n, context, value


def _differentiable_attention(_: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Attention by torch's own kernel: not every optimised one has a backward pass."""
    return attention_pytorch(*args, **kwargs)


def progress(model: Any, total: int) -> Callable[[StepInfo], None]:
    """Report the core's steps to ComfyUI: progress bar and live preview of the predicted picture."""
    callback = latent_preview.prepare_callback(model, total)
    done = 0

    def on_step(step: StepInfo) -> None:
        nonlocal done
        callback(done, step.denoised, step.x, total)
        done += 1

    return on_step
