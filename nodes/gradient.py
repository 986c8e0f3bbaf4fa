"""The gradient of the guidance on a model that was loaded for inference, in the memory that there is."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from weakref import WeakSet

import comfy.model_management
import torch
import torch.nn.functional as F
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass

from ..pix2pix_zero_core.edit import map_guidance_step
from .attention import TextAttention

CHECKPOINTING = ("on demand", "always", "never")
"""Whether the activations of a block are computed again for the backward pass instead of being kept."""


class GradientStep:
    """The core's `map_guidance_step`, with gradients through a model that was loaded for inference.

    With checkpointing on demand, a step that runs out of memory is tried once more with checkpointing, after whatever
    else is loaded has made room; from then on every step is checkpointed.
    """

    def __init__(self, checkpointing: str) -> None:
        """Choose one of `CHECKPOINTING`.

        Raises:
            ValueError: anything else.
        """
        if checkpointing not in CHECKPOINTING:
            raise ValueError(f"checkpointing is {checkpointing!r}; it must be one of {', '.join(CHECKPOINTING)}.")
        self.checkpointing = checkpointing

    def __call__(self, denoise: Any, *step: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Compute move, distance and prediction as `map_guidance_step` does, with a `GuiderDenoiser`.

        Raises:
            OOM_EXCEPTION: out of memory, with the setting to change.
        """
        network = denoise.guider.inner_model.diffusion_model
        try:
            with contextlib.ExitStack() as run:
                run.enter_context(denoise.attention.hooked())
                saved = run.enter_context(differentiable())
                if self.checkpointing == "always":
                    run.enter_context(checkpointed(network, denoise.attention, saved))
                return map_guidance_step(denoise, *step)
        except comfy.model_management.OOM_EXCEPTION as error:
            if self.checkpointing != "on demand":
                raise comfy.model_management.OOM_EXCEPTION(self._advice()) from error
        # Only here are the activations gone: the handled exception kept them alive through its traceback.
        logging.info("pix2pix-zero: out of memory in the gradient of the guidance; going on with checkpointing.")
        make_room(denoise.guider)
        self.checkpointing = "always"
        return self(denoise, *step)

    def _advice(self) -> str:
        if self.checkpointing == "never":
            remedy = "Set checkpointing to on demand or always."
        else:
            remedy = (
                "It is checkpointed already: raise finest_layer to 2 or 4 (UNets), name fewer blocks (transformers), "
                "or edit a smaller picture or fewer at once."
            )
        return f"Out of memory in the gradient of the cross-attention guidance. {remedy}"


def make_room(guider: Any) -> None:
    """Unload every model that the running guider does not need, and give cached memory back to the device."""
    management = comfy.model_management
    needed = [guider.model_patcher, *guider.loaded_models]
    keep = [loaded for loaded in management.current_loaded_models if any(loaded.model is model for model in needed)]
    management.free_memory(1e32, guider.model_patcher.load_device, keep_loaded=keep)
    management.soft_empty_cache()


@contextlib.contextmanager
def differentiable() -> Iterator[_CopyOnWrite]:
    """Let gradients through a model that was loaded for inference: for a forward pass and its backward pass.

    What it yields keeps further tensors for the backward pass.
    """
    copy_on_write = _CopyOnWrite()
    try:
        with _InferenceTensorsAsConstants(), saved_tensors_hooks(copy_on_write.pack, _unpack), copy_on_write:
            yield copy_on_write
    finally:
        copy_on_write.let_go()


@contextlib.contextmanager
def checkpointed(network: nn.Module, attention: TextAttention, saved: _CopyOnWrite) -> Iterator[None]:
    """Keep only the inputs of a network's blocks for the backward pass, and compute the rest again there.

    Chen et al. (2016), Training deep nets with sublinear memory cost, arXiv:1604.06174.

    Args:
        network: a UNetModel, whose blocks with and without attention are checkpointed, or a transformer.
        attention: its layers; a transformer's blocks.
        saved: keeps the inputs, which blocks may write over.
    """
    unet: list[Any] = [module for module in network.modules() if isinstance(module, ResBlock | SpatialTransformer)]
    blocks = [layer.block for layer in attention.layers if layer.network is not None] or unet
    with contextlib.ExitStack() as after:
        for block in blocks:
            # A pack may have given the instance a forward of its own; else that of its class comes to light again.
            own = {"forward": block.forward} if "forward" in vars(block) else {}
            block.forward = _checkpointed_forward(block.forward, attention, saved)
            after.callback(vars(block).update, own)
            after.callback(vars(block).pop, "forward")
        yield


def _checkpointed_forward(
    forward: Callable[..., Any], attention: TextAttention, saved: _CopyOnWrite
) -> Callable[..., Any]:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        # transformer_options tells patches which block they are in; by the backward pass it tells of the last one.
        arguments = [dict(a) if isinstance(a, dict) else a for a in (*args, *kwargs.values())]
        count, names = len(args), list(kwargs)
        # All of them: a block may also write over what needs no gradient, the text of the first one say.
        tensors = [n for n, a in enumerate(arguments) if isinstance(a, Tensor)]
        current, wanted = attention.current, any(t.requires_grad for t in _tensors(arguments))
        if current is None or not (torch.is_grad_enabled() and wanted):
            return forward(*args, **kwargs)
        # What was seen before is left out: its maps lead back here, in a circle that nothing would ever free.
        apart = dataclasses.replace(current, seen={})

        def run(*inputs: Tensor) -> tuple[Any, dict[Any, Any]]:
            """Compute the block's output, and the maps that are seen in it."""
            given, seen = dict(zip(tensors, inputs, strict=True)), {}
            again = [given.get(n, dict(a) if isinstance(a, dict) else a) for n, a in enumerate(arguments)]
            with attention.watching(dataclasses.replace(apart, seen=seen)):
                return forward(*again[:count], **dict(zip(names, again[count:], strict=True))), seen

        form, seen = list[Any](), dict[Any, Any]()
        outputs = _Recomputed.apply(run, saved, form, seen, *(arguments[n] for n in tensors))
        out, maps = _formed(form[0], outputs)
        for (key, (grid, rows, _)), probabilities in zip(seen.items(), maps, strict=True):
            current.keep(key, (grid, rows, probabilities))
        return out

    return wrapped


def _flat(out: Any) -> list[Tensor]:
    """The tensors of a block's output: a tensor, or a tuple in which some may be None."""
    return [out] if isinstance(out, Tensor) else [t for t in out if isinstance(t, Tensor)]


def _formed(form: Any, outputs: tuple[Tensor, ...]) -> tuple[Any, list[Tensor]]:
    """Give outputs the form that they had, and say which are left over."""
    if form is None:
        return outputs[0], list(outputs[1:])
    rest = iter(outputs)
    return tuple(next(rest) if is_tensor else None for is_tensor in form), list(rest)


class _Recomputed(torch.autograd.Function):
    """A block whose activations are computed again for the backward pass: its outputs, then its maps.

    Not `torch.utils.checkpoint`: without reentry it saves what it computes again by hooks of its own, and a patch or a
    block that writes in place overwrites that unseen; with reentry it gives no gradients to `torch.autograd.grad`.
    """

    @staticmethod
    def forward(
        ctx: Any, run: Any, saved: _CopyOnWrite, form: list[Any], seen: dict[Any, Any], *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.run = run
        ctx.set_materialize_grads(False)
        # Not save_for_backward: that saves after the fact, when a block may have written over its inputs.
        ctx.inputs = [saved.pack(tensor.detach()) for tensor in tensors]
        with torch.enable_grad():  # the operations of the backward pass; of tensors that need no gradient none is kept
            out, maps = run(*(tensor.detach() for tensor in tensors))
        form.append(None if isinstance(out, Tensor) else [isinstance(t, Tensor) for t in out])
        seen.update(maps)
        # What a block has written over its input is a view of that, and autograd lets nobody write to one of several.
        outputs = (_constant(tensor) if tensor._is_view() else tensor for tensor in _flat(out))
        return *outputs, *(probabilities for _, _, probabilities in maps.values())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        # This may run in a thread of its own, where none of the caller's modes holds.
        with torch.inference_mode(False), torch.enable_grad(), differentiable():
            needed = ctx.needs_input_grad[4:]
            inputs = [k.tensor.detach().requires_grad_(need) for k, need in zip(ctx.inputs, needed, strict=True)]
            # Copies: a block may write over what it is given, and autograd refuses that of a leaf.
            out, maps = ctx.run(*(tensor.clone() for tensor in inputs))
            outputs = [*_flat(out), *(probabilities for _, _, probabilities in maps.values())]
            pairs = [(o, g) for o, g in zip(outputs, gradients, strict=True) if g is not None and o.requires_grad]
            leaves = [tensor for tensor in inputs if tensor.requires_grad]
            found = iter(torch.autograd.grad([o for o, _ in pairs], leaves, [g for _, g in pairs], allow_unused=True))
        ctx.inputs = ctx.run = None
        return None, None, None, None, *(next(found) if need else None for need in needed)


class _Saved:
    """A tensor that autograd saved for the backward pass. It lives as long as the graph that saved it."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


class _CopyOnWrite(TorchDispatchMode):
    """What autograd saved is copied before anything writes to its memory: FreeU and others change activations in place.

    Not `torch.autograd.graph.allow_mutation_on_saved_tensors`: up to PyTorch 2.13 at least it misses what is written
    through a view that begins elsewhere, and knows a tensor by addresses that the next one may have after it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._of_memory: defaultdict[int, WeakSet[_Saved]] = defaultdict(WeakSet)

    def pack(self, tensor: Tensor) -> _Saved:
        """Keep a tensor for the backward pass, as a hook of autograd."""
        saved = _Saved(tensor)
        if not is_traceable_wrapper_subclass(tensor):  # a quantised weight has no memory of its own
            self._of_memory[tensor.untyped_storage().data_ptr()].add(saved)
        return saved

    def let_go(self) -> None:
        """Free what the backward pass did not ask for: an output that its own graph saved keeps that, and itself."""
        for of_memory in self._of_memory.values():
            for saved in of_memory:
                del saved.tensor

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func._schema.is_mutable:
            for t in _tensors(kwargs.get(key) if isinstance(key, str) else args[key] for key in _written(func)):
                if is_traceable_wrapper_subclass(t):  # written anew for each layer, and never saved
                    continue
                for saved in self._of_memory.pop(t.untyped_storage().data_ptr(), ()):
                    saved.tensor = saved.tensor.clone()
        return func(*args, **kwargs)


def _unpack(saved: _Saved) -> Tensor:
    return saved.tensor


@functools.cache
def _written(func: Any) -> tuple[int | str, ...]:
    """Find the arguments that an operation writes to: positions, and the names of those passed by name alone."""
    arguments = enumerate(func._schema.arguments)
    written = ((i, a) for i, a in arguments if a.alias_info is not None and a.alias_info.is_write)
    return tuple(a.name if a.kwarg_only else i for i, a in written)


LAYERS = (F.linear, F.conv2d, F.conv3d, F.group_norm, F.layer_norm, F.rms_norm)
"""What the layers of a network call with an activation and their weights."""


@functools.cache
def _eager(func: Any) -> Any:
    """Find the plain form of one of comfy-kitchen's fused operations, which have no backward pass; else the same."""
    package, _, name = getattr(func, "_qualname", str(func)).replace("::", ".").partition(".")
    if package != "comfy_kitchen":
        return func
    forms = importlib.import_module("comfy_kitchen.backends.eager")
    return getattr(forms, name.partition(".")[0], func)


class _InferenceTensorsAsConstants(TorchFunctionMode):
    """Where a tensor that requires grad meets one made under inference mode, or a weight, the latter is a constant.

    Nodes run under `torch.inference_mode()`, and autograd refuses to save the tensors made there: weights,
    conditionings, masks, ControlNet outputs. A view on the same storage, made outside, is an ordinary constant; it
    costs no memory.

    Weights that are not the model's own parameters are copied: ComfyUI casts those that are not on the device, and with
    dynamic VRAM all, into buffers that the next layers use again, long before the backward pass asks for them.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        # This runs for every operation of a UNet: arguments are walked by hand, and reading an attribute is none.
        differentiable = torch.is_grad_enabled() and func.__name__ != "__get__"
        if differentiable and any(t.requires_grad for t in _tensors((*args, *kwargs.values()))):
            func, fixed = _eager(func), _fixed_in_layer if func in LAYERS else _fixed
            return func(*_mapped(fixed, args), **dict(zip(kwargs, _mapped(fixed, kwargs.values()), strict=True)))
        return func(*args, **kwargs)


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Find the tensors among an operation's arguments, and in lists of them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _mapped(function: Callable[[Tensor], Tensor], values: Iterable[Any]) -> list[Any]:
    """Apply a function to them."""

    def of(value: Any) -> Any:
        if isinstance(value, Tensor):
            return function(value)
        if isinstance(value, list | tuple):
            mapped = _mapped(function, value)
            return mapped if isinstance(value, list) else tuple(mapped)
        return value

    return [of(value) for value in values]


def _fixed(t: Tensor) -> Tensor:
    return _constant(t) if t.is_inference() or isinstance(t, nn.Parameter) else t


def _fixed_in_layer(t: Tensor) -> Tensor:
    return _fixed(t) if t.requires_grad or isinstance(t, nn.Parameter) else t.clone()


def _constant(t: Tensor) -> Tensor:
    """View a tensor's storage as an ordinary tensor that needs no gradient."""
    if is_traceable_wrapper_subclass(t):  # a quantised weight is made of several
        names, described = t.__tensor_flatten__()
        parts = {name: _constant(getattr(t, name)) for name in names}
        return type(t).__tensor_unflatten__(parts, described, t.size(), t.stride())
    return torch.empty(0, dtype=t.dtype, device=t.device).set_(
        t.untyped_storage(), t.storage_offset(), t.size(), t.stride()
    )
