"""Nodes for a ComfyUI under test: a model that fails on demand, and what a prompt may have changed.

The tests put this folder among the custom nodes of their server; it is no part of the pack.
"""

from __future__ import annotations

import gc
import hashlib
from collections import Counter
from typing import Any

import comfy.model_management
import torch
from comfy.patcher_extension import WrappersMP


class FaultyModel:
    """A model whose UNet fails at one of its calls."""

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "run"
    CATEGORY = "test"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model": ("MODEL",), "fault": ("STRING",), "call": ("INT", {"min": 0, "max": 10**6})}}

    def run(self, model: Any, fault: str, call: int) -> tuple[Any]:
        """Wrap the network: `fault` is error, oom (of the first gradient from that call on) or interrupt."""
        calls, failed = 0, False

        def wrapper(executor: Any, *arguments: Any, **more: Any) -> Any:
            nonlocal calls, failed
            calls += 1
            if calls > call and not failed and (fault != "oom" or torch.is_grad_enabled()):
                failed = True
                if fault == "oom":
                    raise comfy.model_management.OOM_EXCEPTION("a test's")
                if fault == "error":
                    raise RuntimeError("a test's")
                comfy.model_management.interrupt_current_processing()
            return executor(*arguments, **more)

        faulty = model.clone()
        faulty.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "faults", wrapper)
        return (faulty,)


class ModelState:
    """Everything of a loaded model that a prompt could leave changed, and how much is alive in the process."""

    RETURN_TYPES = ("STRING",)
    FUNCTION = "run"
    CATEGORY = "test"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model": ("MODEL",), "salt": ("STRING",)}}

    def run(self, model: Any, salt: str) -> dict[str, Any]:
        """Show a digest, and how many tensors and model patchers are alive that were not when it was first asked.

        Another `salt` defeats the cache.
        """
        gc.collect()
        if not gc.get_freeze_count():
            gc.freeze()  # what is there now is neither searched nor counted again
        digest = hashlib.sha256()
        for name, weight in sorted(model.model.state_dict(keep_vars=True).items()):
            digest.update(f"{name} {weight.dtype} {weight.requires_grad} {weight.grad is None}".encode())
            digest.update(weight.detach().view(-1).view(torch.uint8).numpy().tobytes())
        modules = list(model.model.modules())
        digest.update(
            repr(
                [
                    [module.training for module in modules],
                    [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules],
                    [number for number, module in enumerate(modules) if "forward" in vars(module)],
                    sorted(map(str, model.patches)),
                    sorted(map(str, model.object_patches)),
                    sorted(map(str, model.model_options["transformer_options"])),
                    {kind: sorted(map(str, wrappers)) for kind, wrappers in model.wrappers.items() if wrappers},
                    torch.is_grad_enabled(),
                ]
            ).encode()
        )
        kinds = Counter(map(type, gc.get_objects()))
        counts = sum(count for kind, count in kinds.items() if issubclass(kind, torch.Tensor)), kinds[type(model)]
        return {"ui": {"text": [digest.hexdigest(), *map(str, counts)]}, "result": (digest.hexdigest(),)}


NODE_CLASS_MAPPINGS = {"FaultyModel": FaultyModel, "ModelState": ModelState}
