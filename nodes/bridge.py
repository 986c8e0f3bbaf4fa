"""ComfyUI's MODEL and CONDITIONING as the core's `Denoiser`, inside a stock guider.

The core's loops run as ComfyUI samplers (`comfy.samplers.Sampler`) under a `CFGGuider` on a cloned ModelPatcher: the
stock code loads the model, prepares every conditioning and takes everything down again, and other packs' patches,
hooks and wrappers apply as they do under any sampler. The conditionings go by name: "source", "positive" (the target)
and "negative".
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.model_sampling
import comfy.samplers
import comfy.utils
import latent_preview
import torch
from comfy.ldm.modules.attention import attention_pytorch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from ..pix2pix_zero_core import Prediction, StepInfo
from ..pix2pix_zero_core.attention import attention_probabilities

SOURCE, TARGET, NEGATIVE = "source", "positive", "negative"

Conditioning = list[list[Any]]


def require_cross_attention_model(model: Any) -> None:
    """Refuse models that the method does not fit.

    Args:
        model: a ModelPatcher.

    Raises:
        ValueError: a flow model, one without a table of noise levels, or one without cross-attention to the text.
    """
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

    def __init__(self, guider: Any, extra_args: dict[str, Any]) -> None:
        """Bind a guider that is sampling and the arguments its sampler was given."""
        self.guider = guider
        self.model_options: dict[str, Any] = extra_args["model_options"]
        self.seed: int | None = extra_args["seed"]
        self.layers = cross_attention_layers(guider.inner_model.diffusion_model)

    def __call__(self, x: Tensor, sigma: Tensor, cond: str, *, maps: bool = False) -> Prediction:
        """Predict as a core `Denoiser`; `cond` names one of the guider's conditionings."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        recorder = _MapRecorder(self.layers, self.guider.conds[cond]) if maps else None
        options = comfy.model_patcher.create_model_options_clone(self.model_options)
        transformer_options = options.setdefault("transformer_options", {})
        if recorder is not None:
            patches = transformer_options.setdefault("patches", {})
            patches["attn2_patch"] = [*patches.get("attn2_patch", []), recorder]
        if torch.is_grad_enabled():
            transformer_options["optimized_attention_override"] = _differentiable_attention
        denoised = self.predict(x, sigma, cond, options)
        return Prediction(denoised, {} if recorder is None else recorder.maps)

    def predict(self, x: Tensor, sigma: Tensor, cond: str, options: dict[str, Any]) -> Tensor:
        """Ask the model for x0, (B, C, H, W)."""
        model = self.guider.inner_model
        return comfy.samplers.calc_cond_batch(model, [self.guider.conds[cond]], x, sigma, options)[0]


class GuidedDenoiser(GuiderDenoiser):
    """The guider's own prediction: classifier-free guidance and every patch that acts on it."""

    def predict(self, x: Tensor, sigma: Tensor, cond: str, options: dict[str, Any]) -> Tensor:
        """Ask the guider for x0 with `cond` as its positive conditioning, (B, C, H, W)."""
        positive = self.guider.conds[TARGET]
        self.guider.conds[TARGET] = self.guider.conds[cond]
        try:
            return self.guider(x, sigma, model_options=options, seed=self.seed)
        finally:
            self.guider.conds[TARGET] = positive


class _MapRecorder:
    """An `attn2_patch` that changes nothing: it computes the probabilities that the attention is about to use.

    Maps are keyed by layer and by the position of the prompt's part (ConditioningCombine makes several) in the
    conditioning. The first call counts: PAG and SAG run the model again.
    """

    def __init__(self, layers: dict[tuple[str, int, int], Any], cond: list[dict[str, Any]]) -> None:
        self.layers = layers
        self.positions = {part["uuid"]: i for i, part in enumerate(cond)}
        self.maps: dict[Hashable, Tensor] = {}

    def __call__(
        self, n: Tensor, context: Tensor, value: Tensor, extra_options: dict[str, Any]
    ) -> tuple[Tensor, Tensor, Tensor]:
        layer = (*extra_options["block"], extra_options["block_index"])
        attention, heads = self.layers[layer], extra_options["n_heads"]
        q, k = (
            projected.unflatten(-1, (heads, -1)).transpose(1, 2)
            for projected in (attention.to_q(n), attention.to_k(context))
        )
        chunks = len(extra_options["uuids"])
        for uuid, q_rows, k_rows in zip(extra_options["uuids"], q.chunk(chunks), k.chunk(chunks), strict=True):
            key = (*layer, self.positions.get(uuid))
            if uuid in self.positions and key not in self.maps:
                self.maps[key] = attention_probabilities(q_rows, k_rows)
        return n, context, value


@contextlib.contextmanager
def differentiable() -> Iterator[None]:
    """Let gradients through a model that was loaded for inference: for a forward pass and its backward pass."""
    # FreeU and others write into activations in place.
    with _InferenceTensorsAsConstants(), torch.autograd.graph.allow_mutation_on_saved_tensors():
        yield


class _InferenceTensorsAsConstants(TorchFunctionMode):
    """Where a tensor that requires grad meets one made under inference mode, or a weight, the latter is a constant.

    Nodes run under `torch.inference_mode()`, and autograd refuses to save the tensors made there: weights,
    conditionings, masks, ControlNet outputs. A view on the same storage, made outside, is an ordinary constant; it
    costs no memory.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not torch.is_grad_enabled():
            return func(*args, **kwargs)
        tensors: list[Tensor] = []
        tree_map_only(Tensor, tensors.append, (args, kwargs))
        if any(t.requires_grad and not _is_constant(t) for t in tensors) and any(_is_constant(t) for t in tensors):
            return func(*_with_constants(args), **_with_constants(kwargs))
        return func(*args, **kwargs)


def _with_constants(tree: Any) -> Any:
    return tree_map_only(Tensor, lambda t: _constant(t) if _is_constant(t) else t, tree)


def _is_constant(t: Tensor) -> bool:
    return t.is_inference() or isinstance(t, nn.Parameter)


def _constant(t: Tensor) -> Tensor:
    """View a tensor's storage as an ordinary tensor that needs no gradient."""
    return torch.empty(0, dtype=t.dtype, device=t.device).set_(
        t.untyped_storage(), t.storage_offset(), t.size(), t.stride()
    )


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
