"""RegularizedDDIMInvert: from a picture's latent to the noise that samples back to it."""

# ComfyUI's base classes leave the arguments of what they call open.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

import dataclasses
import logging
import math
from typing import Any

import comfy.model_sampling
import comfy.sample
import comfy.samplers
import torch
from comfy_api.v0_0_2 import io
from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor

from ..pix2pix_zero_core import EditSettings, Inversion, NoiseRegularizer, invert, reconstruct, remarks
from ..pix2pix_zero_core.coordinates import Coordinates
from ..pix2pix_zero_core.schedule import check_sigmas, ddim_sigmas
from ..pix2pix_zero_core.types import check_latent
from .attention import picture_of
from .bridge import (
    SOURCE,
    TARGET,
    Conditioning,
    GuiderDenoiser,
    at_rest,
    coordinates_of,
    distilled_warning,
    embeddings,
    family_of_model,
    framed,
    progress,
    require_cross_attention_model,
    require_one_frame,
    require_size,
)
from .saying import said
from .types import CATEGORY, InversionType, ModelInversion, search_aliases

DDIM = "ddim"
"""The paper's own grid, beside ComfyUI's schedulers."""


class RegularizedDDIMInvert(io.ComfyNode):
    """DDIM inversion with regularised noise (arXiv:2302.03027, section 3.1)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="Pix2PixZeroRegularizedDDIMInvert",
            display_name="Regularized DDIM Invert",
            category=CATEGORY,
            **search_aliases("image to noise", "inversion", "reverse sampling", "unsampler"),
            description="Find the noise from which the model samples this picture, kept close to white noise. A batch "
            "with a list of captions, one a picture, is inverted one by one, each picture with its own.",
            is_input_list=True,
            inputs=[
                io.Model.Input("model", tooltip="The model that edits the picture later."),
                io.Latent.Input("latent", tooltip="The picture, encoded with the checkpoint's VAE."),
                io.Conditioning.Input("source", tooltip="Text of the picture as it is: its caption."),
                io.Int.Input(
                    "steps",
                    default=EditSettings.steps,
                    min=1,
                    max=1000,
                    tooltip="DDIM steps. More is more exact and slower.",
                ),
                io.Float.Input(
                    "regularization",
                    default=NoiseRegularizer.strength,
                    min=0.0,
                    max=1000.0,
                    step=0.1,
                    tooltip="How strongly the noise is kept uncorrelated (the paper's lambda). 0 turns it off.",
                ),
                io.Float.Input(
                    "kl",
                    default=NoiseRegularizer.kl_strength,
                    min=0.0,
                    max=1000.0,
                    step=0.1,
                    tooltip="How strongly the noise is kept at mean 0 and variance 1. 0 turns it off.",
                ),
                io.Int.Input(
                    "fixed_point",
                    default=EditSettings.fixed_point,
                    min=0,
                    max=50,
                    tooltip="Refinements of a step, each one model call. 0 is plain DDIM inversion, which costs one "
                    "call as well; 3 without regularization and kl is nearly exact.",
                ),
                io.Boolean.Input(
                    "reconstruct",
                    default=True,
                    tooltip="Also sample the picture back from the noise, to see what was lost: one model call a step. "
                    "Off: the reconstruction outputs stay silent.",
                ),
                io.Sigmas.Input(
                    "sigmas",
                    optional=True,
                    tooltip="A schedule of your own; replaces steps, scheduler, start_at_step and end_at_step.",
                ),
                io.Combo.Input(
                    "scheduler",
                    options=[DDIM, *comfy.samplers.SCHEDULER_NAMES],
                    default=DDIM,
                    optional=True,
                    tooltip="How the steps are spread. ddim is the paper's, with exactly as many steps as asked for; "
                    "for flow models it is simple. To edit with a stock sampler, choose what it uses.",
                ),
                io.Int.Input(
                    "start_at_step",
                    default=0,
                    min=0,
                    max=10000,
                    optional=True,
                    tooltip="As in KSampler (Advanced): invert only up to the noise at which this step begins. 0 is "
                    "all the way.",
                ),
                io.Int.Input(
                    "end_at_step",
                    default=10000,
                    min=1,
                    max=10000,
                    optional=True,
                    tooltip="As in KSampler (Advanced): the latent holds the noise that this step leaves. steps or "
                    "more is a clean picture.",
                ),
            ],
            outputs=[
                InversionType.Output(
                    "inversion",
                    display_name="inversion",
                    is_output_list=True,
                    tooltip="Noise, schedule and trajectory, for the guided sampler.",
                ),
                io.Latent.Output(
                    "noise",
                    display_name="noise",
                    is_output_list=True,
                    tooltip="The noise, for stock samplers with add_noise off. Of a flow model only where "
                    "start_at_step is above 0: at pure noise ComfyUI drops the latent.",
                ),
                io.Latent.Output(
                    "reconstruction",
                    display_name="reconstruction",
                    is_output_list=True,
                    tooltip="The picture sampled back from the noise.",
                ),
                io.Float.Output(
                    "reconstruction_db",
                    display_name="reconstruction_db",
                    is_output_list=True,
                    tooltip="Signal-to-noise ratio of the reconstructed latent in dB.",
                ),
                io.String.Output(
                    "warning",
                    display_name="warning",
                    tooltip="What is wrong with the reconstruction or the settings; empty if nothing is.",
                ),
            ],
        )

    @classmethod
    def execute(cls, **inputs: list[Any]) -> io.NodeOutput:  # noqa: D102
        inputs["latent"] = latents_of(inputs["latent"], len(inputs["source"]))
        count = max(map(len, inputs.values()))
        # As ComfyUI maps a node over lists: where one is shorter its last value counts.
        runs = [cls.invert(**{name: v[min(run, len(v) - 1)] for name, v in inputs.items()}) for run in range(count)]
        inversions, noises, reconstructions, decibels = map(list, zip(*runs, strict=True))
        known = [db for db in decibels if isinstance(db, float)]
        note = "\n".join(f"reconstruction {db:.1f} dB: {in_words(db)}" for db in known)
        schedulers = [DDIM] if inputs.get("sigmas") else inputs.get("scheduler", [DDIM])
        pairs = [tuple(v[min(run, len(v) - 1)] for v in (inputs["model"], schedulers)) for run in range(count)]
        warnings = (
            remarks.of_steps(min(len(inversion.sigmas) - 1 for inversion in inversions)),
            remarks.of_reconstruction(min(known, default=remarks.GOOD)),
            *dict.fromkeys(distilled_warning(model) for model in inputs["model"]),
            *dict.fromkeys(scheduler_warning(model, scheduler) for model, scheduler in pairs),
        )
        warning = " ".join(filter(None, warnings))
        if warning:
            logging.warning("Regularized DDIM Invert: %s", warning)
        return io.NodeOutput(inversions, noises, reconstructions, decibels, warning, ui=said(note, warning))

    @staticmethod
    def invert(
        model: Any,
        latent: dict[str, Any],
        source: Conditioning,
        steps: int,
        regularization: float,
        kl: float,
        fixed_point: int,
        reconstruct: bool,
        sigmas: Tensor | None = None,
        scheduler: str = DDIM,
        start_at_step: int = 0,
        end_at_step: int = 10000,
    ) -> tuple[Inversion, dict[str, Tensor], Any, Any]:
        """Invert one latent, or a batch with one text for all: the values of the four outputs.

        The last two are blocked where nothing is reconstructed.
        """
        for name, value in (("regularization", regularization), ("kl", kl)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} is {value:g}; it must be 0, which turns it off, or more.")
        require_cross_attention_model(model)
        x0: Tensor = require_one_frame(latent["samples"])
        check_latent(x0, "The latent")
        channels = model.get_model_object("latent_format").latent_channels
        if x0.shape[1] != channels:
            raise ValueError(
                f"The latent has {x0.shape[1]} channels, the model takes {channels}. Encode the picture with the VAE "
                "of the checkpoint that the model comes from."
            )
        require_size(model, x0)
        if sigmas is None:
            sigmas = part_of(schedule(model, scheduler, steps), start_at_step, end_at_step)
        coordinates = coordinates_of(model)
        check_sigmas(sigmas, coordinates)  # the stock guider returns at once where there are none
        if coordinates is Coordinates.FLOW and sigmas[-1] > 0:
            raise ValueError(
                f"sigmas ends at {float(sigmas[-1]):.4g}; a flow model's picture is at 0, where its inversion begins. "
                "Connect a schedule that ends there, or set end_at_step to steps or more."
            )
        highest = float(model.get_model_object("model_sampling").sigma_max)
        if float(sigmas[0]) > highest * (1 + 1e-3):
            raise ValueError(
                f"sigmas begins at {float(sigmas[0]):.4g}; the model's noise levels end at {highest:.4g}. Connect a "
                "schedule that was made for this model, or none."
            )
        sampler = _Inverter(model, NoiseRegularizer(regularization, kl), fixed_point, reconstruct)
        guider = comfy.samplers.CFGGuider(model.clone())
        guider.inner_set_conds({TARGET: source, SOURCE: source})
        x = framed(x0, model)
        noise = guider.sample(torch.zeros_like(x), x, sampler, sigmas, disable_pbar=True)
        found = {field.name: getattr(sampler.inversion, field.name) for field in dataclasses.fields(Inversion)}
        inversion = ModelInversion(
            **found, family=family_of_model(model).name, mask=latent.get("noise_mask"), texts=embeddings(source)
        )
        if not reconstruct:
            return inversion, at_rest(noise), ExecutionBlocker(None), ExecutionBlocker(None)
        error = (sampler.reconstruction - x.to(sampler.reconstruction)).square().mean()
        decibels = float(10 * (x0.float().var() / error).log10())
        return inversion, at_rest(noise), at_rest(sampler.reconstruction), decibels


def in_words(decibels: float) -> str:
    """Say a reconstruction's signal-to-noise ratio for people."""
    return "good" if decibels >= remarks.GOOD else "fair" if decibels >= remarks.POOR else "poor"


CROWDED = ("karras", "exponential")
"""Schedulers that, in a flow's times, take nearly all steps close to the picture."""


def scheduler_warning(model: Any, scheduler: str) -> str:
    """Say so where a scheduler was made for other models than this; else nothing."""
    if coordinates_of(model) is not Coordinates.FLOW or scheduler not in CROWDED:
        return ""
    return (
        f"scheduler is {scheduler}, which was made for diffusion models: in a flow nearly all steps are close to the "
        "picture, where edits hardly show. Set it to simple."
    )


def latents_of(latents: list[dict[str, Any]], texts: int) -> list[dict[str, Any]]:
    """Take the pictures of batches apart where each has a text of its own.

    Args:
        latents: as ComfyUI passes them, each perhaps a batch.
        texts: how many source texts there are.

    Returns:
        the latents as they are, or one a picture.

    Raises:
        ValueError: there are several texts, and neither one a picture nor one a batch.
    """
    sizes = [len(latent["samples"]) for latent in latents]
    if texts in (1, len(latents)) or max(sizes) == 1:
        return latents
    if sum(sizes) != texts:
        raise ValueError(
            f"source has {texts} texts, latent {sum(sizes)} pictures in {len(latents)} batches. Give every picture a "
            "text of its own, or all the same one."
        )
    return [
        {"samples": latent["samples"][n : n + 1]} | _mask_of(latent, n)
        for latent in latents
        for n in range(len(latent["samples"]))
    ]


def _mask_of(latent: dict[str, Any], number: int) -> dict[str, Tensor]:
    """The noise mask of a picture of a batch, which may have one for all."""
    mask = latent.get("noise_mask")
    if mask is None:
        return {}
    shared = mask.ndim < 3 or len(mask) == 1
    return {"noise_mask": mask if shared else mask[number % len(mask)][None]}


def part_of(sigmas: Tensor, start_at_step: int, end_at_step: int) -> Tensor:
    """Cut the steps out of a schedule that KSampler (Advanced) would take.

    Raises:
        ValueError: none are left.
    """
    steps = len(sigmas) - 1
    if start_at_step >= min(end_at_step, steps):
        raise ValueError(
            f"start_at_step is {start_at_step} and end_at_step {end_at_step}, which leaves none of {steps} steps. "
            f"start_at_step must be from 0 to {steps - 1}, and end_at_step greater."
        )
    return sigmas[start_at_step : end_at_step + 1]


def schedule(model: Any, scheduler: str, steps: int) -> Tensor:
    """Make a sampling grid as a stock sampler would, or the paper's.

    Args:
        model: a ModelPatcher.
        scheduler: one of ComfyUI's, or `DDIM`, which is "simple" for models without training timesteps.
        steps: as the sampler is set; ddim_uniform and others may take another number.

    Returns:
        sigmas, (T+1,), descending.

    Raises:
        ValueError: no such scheduler, no steps, or more than the model has noise levels.
    """
    sampling = model.get_model_object("model_sampling")
    discrete = isinstance(sampling, comfy.model_sampling.ModelSamplingDiscrete)
    if scheduler == DDIM and not discrete:
        scheduler = "simple"  # a flow has no training timesteps: evenly spaced times from pure noise on
    if scheduler == DDIM:
        return ddim_sigmas(sampling.sigmas.float().cpu(), steps)
    if scheduler not in comfy.samplers.SCHEDULER_NAMES:
        known = ", ".join((DDIM, *comfy.samplers.SCHEDULER_NAMES))
        raise ValueError(f"There is no scheduler {scheduler!r}; choose one of {known}.")
    if steps < 1:
        raise ValueError(f"steps is {steps}; it must be at least 1. Change the number of steps.")
    return comfy.samplers.calculate_sigmas(sampling, scheduler, steps)


class _Inverter(comfy.samplers.Sampler):
    """`pix2pix_zero_core.invert` as a ComfyUI sampler; the result stays with it after sampling."""

    inversion: Inversion
    reconstruction: Tensor

    def __init__(self, model: Any, regularizer: NoiseRegularizer, fixed_point: int, reconstruct: bool) -> None:
        self.model, self.regularizer, self.fixed_point, self.reconstruct = model, regularizer, fixed_point, reconstruct

    def sample(
        self,
        guider: Any,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: Any,
        noise: Tensor,
        latent_image: Tensor,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        denoise = GuiderDenoiser(guider, extra_args)
        on_step = progress(self.model, (len(sigmas) - 1) * (2 if self.reconstruct else 1))
        inversion = invert(
            denoise,
            picture_of(latent_image),
            SOURCE,
            sigmas,
            self.regularizer,
            fixed_point=self.fixed_point,
            coordinates=coordinates_of(self.model),
            on_step=on_step,
        )
        if self.reconstruct:
            x0 = reconstruct(denoise, inversion, SOURCE, on_step).view_as(latent_image)
            self.reconstruction = guider.inner_model.process_latent_out(x0).cpu()
        self.inversion = dataclasses.replace(
            inversion,
            **{name: value.cpu() for name, value in vars(inversion).items() if isinstance(value, Tensor)},
        )
        left = inversion.noise.view_as(latent_image)
        if float(inversion.coordinates.alpha(sigmas[0])) > 0:  # as stock samplers leave a latent with noise in it
            left = guider.inner_model.model_sampling.inverse_noise_scaling(sigmas[0], left)
        return left
