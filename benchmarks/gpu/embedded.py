"""The embedded model by the nodes, on the card and on the CPU: every way to edit, and what goes before an edit."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.sd
import torch
from safetensors.torch import save_file
from torch import Tensor

from pix2pix_zero_core.integrations.captioner import Captioner
from pix2pix_zero_core.integrations.sentences import load_edit
from tiny_zoo.compose_directions import FOLDER
from tiny_zoo.denoiser import TinyZoo
from tiny_zoo.training import WEIGHTS

from ..harness.cells import CHECKPOINT
from ..harness.tasks import TASKS as EDITS
from ..harness.tasks import draw_scenes, pictures, pose_problem
from .networks import Subject
from .plan import Job
from .tasks import Report, compared, defaults, invert_by_node, now, read, reason, sample_by_node

TASK = "cat2dog"

Edit = Callable[[Any, Subject, int], Tensor]
"""Edits with the pack's nodes, in a number of steps: (B, C, H, W)."""


def by_sampler(inverting: dict[str, Any] | None = None, **sampling: Any) -> Edit:
    """Cross-Attention Guided Sampler, in other than the default settings."""

    def edit(pack: Any, subject: Subject, steps: int) -> Tensor:
        inversion, _ = invert_by_node(pack, subject, steps, **inverting or {})
        return sample_by_node(pack, subject, inversion, **sampling)

    return edit


def masked(pack: Any, subject: Subject, steps: int) -> Tensor:
    """With a noise mask over the left half."""
    mask = torch.zeros_like(subject.latent["samples"][:, 0])
    mask[..., : mask.shape[-1] // 2] = 1
    latent = {**subject.latent, "noise_mask": mask}
    return by_sampler()(pack, replace(subject, latent=latent), steps)


GUIDANCE: dict[str, Any] = {"guidance": 5.0, "unit": "normalized", "guidance_start": 0.0, "guidance_end": 0.8}
"""As in 0.1.0: what it did not have yet is then in the inversion's noise, everywhere and from the first step."""

EARLIER = {**GUIDANCE, "negative_from": "inversion", "cfg_start": 0.0, "region": 0.0, "noise_from": "inversion"}


def by_ksampler(settings: dict[str, Any] | None = None) -> Edit:
    """Cross-Attention Guidance on a KSampler, as a new node has it or in other settings."""

    def edit(pack: Any, subject: Subject, steps: int) -> Tensor:
        inversion, noise = invert_by_node(pack, subject, steps, scheduler="normal")
        node, texts = pack.nodes.CrossAttnGuidance, (subject.target, subject.source)
        guided = node.execute(subject.model, inversion, subject.source, **(settings or defaults(node))).args[0]
        picture, how = torch.zeros_like(noise), (steps, 3.0, "euler", "normal")
        return comfy.sample.sample(guided, noise, *how, *texts, picture, seed=0, disable_pbar=True)

    return edit


def by_guider(pack: Any, subject: Subject, steps: int) -> Tensor:
    """Cross-Attention Guider, with a sampler of two predictions a step."""
    inversion, noise = invert_by_node(pack, subject, steps)
    texts = subject.source, subject.target, subject.source
    guider = pack.nodes.CrossAttnGuider.execute(subject.model, inversion, *texts, cfg=3.0, **GUIDANCE).args[0]
    heun, picture = comfy.samplers.sampler_object("heun"), torch.zeros_like(noise)
    return guider.sample(noise, picture, heun, inversion.sigmas, disable_pbar=True, seed=0)


WAYS: dict[str, Edit] = {
    "inversion": lambda pack, subject, steps: invert_by_node(pack, subject, steps)[1],
    "guided sampler": by_sampler(),
    "guided sampler, as in 0.1.0": by_sampler(**EARLIER),
    "guided sampler, noise_from inversion": by_sampler(noise_from="inversion"),
    "guided sampler, cfg_start 0.4": by_sampler(cfg_start=0.4),
    "guided sampler, unit paper": by_sampler(unit="paper", guidance=0.1),
    "guided sampler, unit share": by_sampler(unit="share", guidance=0.5),
    "guided sampler, region 0": by_sampler(region=0.0),
    "guided sampler, noise mask": masked,
    "guided sampler, checkpointing always": by_sampler(checkpointing="always"),
    "guided sampler, finest_layer 2": by_sampler(finest_layer=2),
    "guided sampler, fixed_point 3, not regularised": by_sampler({"fixed_point": 3, "regularization": 0.0, "kl": 0.0}),
    "patch, KSampler euler": by_ksampler(),
    "patch, KSampler euler, as in 0.1.0": by_ksampler(GUIDANCE),
    "guider, heun": by_guider,
}
"""What is edited with."""

ALIKE = {"float32": 40.0, "as loaded": 25.0}
"""Weights -> decibels above which an edit on the card is that of the CPU, in float32, but for rounding."""


def embedded(pack: Any, job: Job, folder: Path, report: Report) -> None:
    """Edit two pictures in every way on the card, and compare with what the CPU makes of them in float32."""
    exact = job.weights == "float32"
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = not exact and allowed
    kept = folder / f"embedded-{job.steps}.safetensors"
    expected, seconds = read(kept), dict[str, float]()
    try:
        on_cpu, on_card = load(on_cpu=True, exact=True), load(on_cpu=False, exact=exact)
        run_all = {**WAYS, "text encoder": texts, "attention maps": maps}
        by_sampler()(pack, on_card, 2)  # to warm up
        for what, run in run_all.items():
            try:
                if what not in expected:
                    started = time.perf_counter()
                    expected[what] = run(pack, on_cpu, job.steps).cpu()
                    seconds[what] = time.perf_counter() - started
                started = now(on_card.model.load_device)
                found = run(pack, on_card, job.steps)
                figures: dict[str, Any] = {"seconds": now(on_card.model.load_device) - started, "steps": job.steps}
            except (RuntimeError, ValueError) as error:  # one that does not run must not hide the others
                report(what, failed=reason(error))
                continue
            if what in seconds:
                figures["cpu_seconds"] = seconds[what]
            report(what, **figures, **compared(found, expected[what], ALIKE[job.weights]))
    finally:
        torch.backends.cudnn.allow_tf32 = allowed
    save_file({what: tensor.contiguous() for what, tensor in expected.items()}, kept)
    captions(pack, report)


def load(*, on_cpu: bool, exact: bool) -> Subject:
    """Load the embedded checkpoint as the stock loader does, and pictures and texts to edit.

    Args:
        on_cpu: leave it there.
        exact: in float32.
    """
    options = {"dtype": torch.float32} if exact or on_cpu else {}
    loaded: tuple[Any, ...] = comfy.sd.load_checkpoint_guess_config(
        str(CHECKPOINT), output_vae=False, output_clip=True, model_options=options, te_model_options=options
    )
    model, clip, *_ = loaded
    if on_cpu:
        for patcher in (model, clip.patcher):
            patcher.load_device = patcher.offload_device = torch.device("cpu")
            patcher.model.to("cpu")
    problem = pose_problem(TinyZoo.load(CHECKPOINT), TASK, "test", 2, 1)
    latent = {"samples": model.get_model_object("latent_format").process_out(problem.x0)}
    return Subject(model, latent, [[problem.source, {}]], [[problem.target(200), {}]], clip=clip)


def texts(pack: Any, zoo: Subject, steps: int) -> Tensor:
    """Embeddings by the model's text encoder."""
    return pack.nodes.text_encoder.encode(zoo.clip, load_edit(TASK, FOLDER).source_sentences[:16])[0]


def maps(pack: Any, zoo: Subject, steps: int) -> Tensor:
    """Attention Maps of an inversion, as a picture."""
    text = load_edit(TASK, FOLDER).source_sentences[0]
    source = zoo.clip.encode_from_tokens_scheduled(zoo.clip.tokenize(text))
    inversion, _ = invert_by_node(pack, replace(zoo, source=source), steps)
    side = 8 * zoo.latent["samples"].shape[-1]
    grey = torch.full((2, side, side, 3), 0.5)
    return pack.nodes.AttentionMaps.execute(
        zoo.model, inversion, source, zoo.clip, grey, text, words="", moments=2, picture=0
    ).args[0]


def captions(pack: Any, report: Report) -> None:
    """Describe pictures by the node, where text encoders run, and by the core on the CPU."""
    images = pictures(draw_scenes(EDITS[TASK], "test", 4)[0]).movedim(1, -1)
    expected = Captioner.from_folder(WEIGHTS / "blip" / "tiny_zoo")(images)
    device = comfy.model_management.text_encoder_device()
    started = now(device)
    found = pack.nodes.BLIPCaption.execute(images, "tiny_zoo", "", 30, 3).args[0]
    same = sum(a == b for a, b in zip(found, expected, strict=True))
    report("BLIP caption", seconds=now(device) - started, note=f"{same} of {len(expected)} captions as on the CPU")


TASKS = {"embedded": embedded}
