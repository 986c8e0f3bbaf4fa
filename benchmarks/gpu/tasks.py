"""What is measured of a network: a prediction, a guidance step, an edit, the published algorithm's, compiled ones."""

# ComfyUI's base classes leave the arguments of what they call open.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

import gc
import importlib
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import comfy.model_management
import comfy.model_sampling
import comfy.samplers
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..speed.meter import begin_peak, give_memory_back, peak_of
from .networks import Subject, load
from .plan import Job

Report = Callable[..., None]
"""Called with what was measured, and its figures by name."""

ALIKE = 30.0
"""Decibels above which two ways to compute the same are alike; half precision rounds at about 60."""


# ------------------------------------------------------------------ a network by itself


def steps(pack: Any, job: Job, folder: Path, report: Report) -> None:
    """Measure predictions and guidance steps, each by itself, and compare them with those in other modes.

    What float32 computes is the reference of the other types, and the normal mode that of the other modes.
    """
    subject, found = load(job.network, job.weights), dict[str, Tensor]()
    reference = read(folder / file_name(job.network, job.weights if job.mode != "normal" else "float32"))

    def measure(guider: Any, extra: dict[str, Any], x: Tensor, sigma: Tensor) -> None:
        denoise = pack.nodes.bridge.GuiderDenoiser(guider, extra)
        of_unet = denoise.attention.family is pack.nodes.families.UNET
        others, choice = ("finest_layer 2", {"finest_layer": 2}) if of_unet else ("all blocks", {"blocks": "all"})
        chosen = pack.nodes.bridge.GuiderDenoiser(guider, extra, **choice)
        maps = {which: which(x, sigma.expand(1), "source", maps=True).maps for which in (denoise, chosen)}
        guidance = pack.pix2pix_zero_core.MapGuidance(0.1)

        def move(checkpointing: str, which: Any) -> Callable[[], Tensor]:
            step = pack.nodes.gradient.GradientStep(checkpointing)
            return lambda: step(which, x, sigma, "positive", maps[which], guidance)[0]

        runs: dict[str, Callable[[], Tensor]] = {
            "prediction": lambda: denoise(x, sigma.expand(1), "positive").denoised - x,
            "prediction with maps": lambda: denoise(x, sigma.expand(1), "positive", maps=True).denoised - x,
            "guidance step": move("never", denoise),
            "guidance step, checkpointed": move("always", denoise),
            f"guidance step, {others}": move("never", chosen),
        }
        for what, run in runs.items():
            try:
                found[what], figures = measured(run, x.device, job.repeats)
            except (RuntimeError, ValueError) as error:  # one that does not run must not hide the others
                report(what, failed=reason(error))
                continue
            figures["weights_bytes"] = guider.model_patcher.loaded_size()
            expected, least = reference.get(what), ALIKE if job.part == "memory" and job.mode != "normal" else LOWEST
            if what.endswith("checkpointed"):
                expected, least = found.get("guidance step"), ALIKE
            report(what, **figures, **compared(found[what], expected, least))

    inside(subject, measure)
    if job.mode == "normal":
        kept = {what: tensor.float().cpu() for what, tensor in found.items()}
        save_file(kept, folder / file_name(job.network, job.weights))


def file_name(network: str, weights: str) -> str:
    """Where predictions and moves of the normal mode are kept."""
    return f"{network}-{weights}.safetensors".replace(" ", "_")


def read(path: Path) -> dict[str, Tensor]:
    """What an earlier job kept, or nothing."""
    return load_file(path) if path.is_file() else {}


def inside(subject: Subject, function: Callable[[Any, dict[str, Any], Tensor, Tensor], None]) -> None:
    """Call a function where a sampler runs: with the guider, its sampler's arguments, a latent and its sigma."""

    class Inside(comfy.samplers.Sampler):
        def sample(self, guider: Any, sigmas: Tensor, extra: dict[str, Any], callback: Any, noise: Tensor, *_: Any):
            function(guider, extra, noise * sigmas[0], sigmas[0])
            return noise

    guider = comfy.samplers.CFGGuider(subject.model.clone())
    guider.inner_set_conds({"source": subject.source, "positive": subject.target})
    latent = subject.latent["samples"]
    guider.sample(latent, torch.zeros_like(latent), Inside(), torch.tensor([subject.sigma, 0.0]), disable_pbar=True)


# ------------------------------------------------------------------ whole edits


def edit(pack: Any, job: Job, folder: Path, report: Report) -> None:
    """Measure an edit by the nodes in their default settings, and one by the published code's algorithm."""
    subject = load(job.network, job.weights)
    device = subject.model.load_device
    edit_by_nodes(pack, subject, 3)  # to warm up
    (inversion, _), inverting = measured(lambda: invert_by_node(pack, subject, job.steps), device, 1, warm=True)
    report("inversion", steps=job.steps, **inverting)
    _, sampling = measured(lambda: sample_by_node(pack, subject, inversion), device, 1, warm=True)
    report("guided sampling", steps=job.steps, **sampling)
    ours = {
        "seconds": inverting["seconds"] + sampling["seconds"],
        "peak_bytes": max(inverting["peak_bytes"], sampling["peak_bytes"]),
    }
    report("edit by the nodes", steps=job.steps, **ours)
    if isinstance(subject.model.get_model_object("model_sampling"), comfy.model_sampling.CONST):
        report("edit by the published algorithm", skipped="it knows no flow models")
        return
    published: dict[str, Any] = {}
    inside(subject, lambda *given: published.update(official_edit(pack, subject, job.steps, *given)))
    published["times"] = published["seconds"] / ours["seconds"]
    report("edit by the published algorithm", steps=job.steps, **published)


def edit_by_nodes(pack: Any, subject: Subject, steps: int) -> Tensor:
    """Invert and edit, (B, C, H, W)."""
    return sample_by_node(pack, subject, invert_by_node(pack, subject, steps)[0])


def invert_by_node(pack: Any, subject: Subject, steps: int, **changed: Any) -> tuple[Any, Tensor]:
    """The inversion and its noise, in the node's default settings."""
    node = pack.nodes.RegularizedDDIMInvert
    settings = defaults(node) | {"reconstruct": False, "steps": steps} | changed
    inversion, noise, *_ = node.invert(model=subject.model, latent=subject.latent, source=subject.source, **settings)
    return inversion, noise["samples"]


def sample_by_node(pack: Any, subject: Subject, inversion: Any, **changed: Any) -> Tensor:
    """The edited latent, in the node's default settings."""
    node = pack.nodes.CrossAttnGuidedSampler
    texts = {"source": subject.source, "target": subject.target, "negative": subject.source}
    return node.execute(subject.model, inversion, **texts, **defaults(node) | changed).args[0]["samples"]


def defaults(node: Any) -> dict[str, Any]:
    """A node's widgets as they are when it is new."""
    widgets = ((given.id, getattr(given, "default", None)) for given in node.define_schema().inputs)
    return {name: value for name, value in widgets if value is not None}


def official_edit(
    pack: Any, subject: Subject, count: int, guider: Any, extra: dict[str, Any], x: Tensor, _: Tensor
) -> dict[str, Any]:
    """Edit as the published code does, on the same network: its figures."""
    official = importlib.import_module(f"{pack.pix2pix_zero_core.__name__}.official")
    denoise = pack.nodes.bridge.GuiderDenoiser(guider, extra)
    x0 = guider.inner_model.process_latent_in(subject.latent["samples"].to(x))
    levels = guider.inner_model.model_sampling.sigmas

    def run(count: int) -> Tensor:
        inversion = official.invert(denoise, x0, "source", levels, count, generator=torch.Generator().manual_seed(0))
        return official.edit(denoise, inversion, "source", "positive", negative="source").edited

    with patch.object(official, "map_guidance_step", pack.nodes.gradient.GradientStep("never")):
        run(3)
        return measured(lambda: run(count), x.device, 1, warm=True)[1]


# ------------------------------------------------------------------ torch.compile


def compiled(pack: Any, job: Job, folder: Path, report: Report) -> None:
    """Measure a network that TorchCompileModel compiled, beside itself as it was."""
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    subject = load(job.network, job.weights)
    device, expected = subject.model.load_device, edit_by_nodes(pack, subject, job.steps)
    _, plain = measured(lambda: edit_by_nodes(pack, subject, job.steps), device, 1, warm=True)
    report("edit, not compiled", steps=job.steps, **plain)
    model = subject.model.clone()
    set_torch_compile_wrapper(model, backend="inductor")
    subject = replace(subject, model=model)
    for what in ("edit, compiling", "edit, compiled"):
        edited, figures = measured(lambda: edit_by_nodes(pack, subject, job.steps), device, 1, warm=True)
        report(what, steps=job.steps, **figures, **compared(edited, expected, ALIKE))


# ------------------------------------------------------------------ clocks, and how alike two results are


def measured(
    run: Callable[[], Any], device: torch.device, repeats: int, *, warm: bool = False
) -> tuple[Any, dict[str, Any]]:
    """Run a function: its last result, the median of its seconds, and bytes at the peak above those before.

    Args:
        run: what to measure.
        device: whose clock and memory count.
        repeats: how often.
        warm: it ran before; else it runs once more, uncounted.
    """
    if not warm:
        run()
    before, times, result = begin_peak(device), list[float](), None
    for _ in range(repeats):
        result = None
        started = now(device)
        result = run()
        times.append(now(device) - started)
    return result, {"seconds": statistics.median(times), "peak_bytes": peak_of(device) - before}


def now(device: torch.device) -> float:
    """Seconds, once the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def compared(found: Tensor, expected: Tensor | None, least: float) -> dict[str, Any]:
    """How alike a result and the expected one are, if there is one; and a failure, where that is less than expected."""
    if not torch.isfinite(found).all():
        return {"failed": "the result holds NaN or Inf"}
    if expected is None:
        return {}
    alike = decibels(found, expected)
    if alike >= least:
        return {"alike_db": alike}
    return {"alike_db": alike, "failed": f"differs by more than rounding; {least:.0f} dB are expected"}


LOWEST, HIGHEST = -200.0, 200.0
"""Decibels between which results are told apart."""


def decibels(found: Tensor, expected: Tensor) -> float:
    """How far a finite result is from the expected one: the ratio of its power to that of the difference."""
    found, expected = found.double().cpu(), expected.double().cpu()
    signal, error = expected.square().sum(), (found - expected).square().sum()
    return max(LOWEST, min(HIGHEST, float(10 * (signal / error.clamp(min=1e-300)).clamp(min=1e-300).log10())))


def reason(error: BaseException) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def clear() -> None:
    """Free what a job loaded, without moving it out of the card first."""
    gc.collect()
    comfy.model_management.cleanup_models()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    else:
        give_memory_back()


TASKS = {"steps": steps, "edit": edit, "compiled": compiled}
"""Name of a job's task -> what does it."""
