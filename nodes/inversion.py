"""RegularizedDDIMInvert: from a picture's latent to the noise that samples back to it."""

# ComfyUI's base classes leave the arguments of what they call open.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

import dataclasses
from typing import Any

import comfy.sample
import comfy.samplers
import torch
from comfy_api.v0_0_2 import io
from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor

from ..pix2pix_zero_core import Inversion, NoiseRegularizer, invert, reconstruct
from ..pix2pix_zero_core.schedule import check_sigmas, ddim_sigmas
from ..pix2pix_zero_core.types import check_latent
from .bridge import SOURCE, TARGET, Conditioning, GuiderDenoiser, progress, require_cross_attention_model
from .types import CATEGORY, InversionType, search_aliases

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
            description="Find the noise from which the model samples this picture, kept close to white noise.",
            inputs=[
                io.Model.Input("model", tooltip="The model that edits the picture later."),
                io.Latent.Input("latent", tooltip="The picture, encoded with the checkpoint's VAE."),
                io.Conditioning.Input("source", tooltip="Text of the picture as it is: its caption."),
                io.Int.Input(
                    "steps", default=50, min=1, max=1000, tooltip="DDIM steps. More is more exact and slower."
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
                    default=1,
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
                    tooltip="How the steps are spread. ddim is the paper's, with exactly as many steps as asked for. "
                    "To edit with a stock sampler, choose what it uses.",
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
                    tooltip="Noise, schedule and trajectory, for the guided sampler.",
                ),
                io.Latent.Output(
                    "noise", display_name="noise", tooltip="The noise, for stock samplers (with add_noise off)."
                ),
                io.Latent.Output(
                    "reconstruction", display_name="reconstruction", tooltip="The picture sampled back from the noise."
                ),
                io.Float.Output(
                    "reconstruction_db",
                    display_name="reconstruction_db",
                    tooltip="Signal-to-noise ratio of the reconstructed latent in dB.",
                ),
            ],
        )

    @classmethod
    def execute(  # noqa: D102
        cls,
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
    ) -> io.NodeOutput:
        require_cross_attention_model(model)
        x0: Tensor = latent["samples"]
        check_latent(x0, "The latent")
        channels = model.get_model_object("latent_format").latent_channels
        if x0.shape[1] != channels:
            raise ValueError(
                f"The latent has {x0.shape[1]} channels, the model takes {channels}. Encode the picture with the VAE "
                "of the checkpoint that the model comes from."
            )
        if sigmas is None:
            sigmas = schedule(model, scheduler, steps)[start_at_step : end_at_step + 1]
        check_sigmas(sigmas)  # the stock guider returns at once where there are none
        sampler = _Inverter(model, NoiseRegularizer(regularization, kl), fixed_point, reconstruct)
        guider = comfy.samplers.CFGGuider(model.clone())
        guider.inner_set_conds({TARGET: source, SOURCE: source})
        noise = guider.sample(torch.zeros_like(x0), x0, sampler, sigmas, disable_pbar=True)
        rest: list[Any] = [ExecutionBlocker(None), ExecutionBlocker(None)]
        if reconstruct:
            error = (sampler.reconstruction - x0.to(sampler.reconstruction)).square().mean()
            rest = [{"samples": sampler.reconstruction}, float(10 * (x0.float().var() / error).log10())]
        return io.NodeOutput(sampler.inversion, {"samples": noise}, *rest)


def schedule(model: Any, scheduler: str, steps: int) -> Tensor:
    """Make a sampling grid as a stock sampler would, or the paper's.

    Args:
        model: a ModelPatcher.
        scheduler: one of ComfyUI's, or `DDIM`.
        steps: as the sampler is set; ddim_uniform and others may take another number.

    Returns:
        sigmas, (T+1,), descending.

    Raises:
        ValueError: no such scheduler, no steps, or more than the model has noise levels.
    """
    sampling = model.get_model_object("model_sampling")
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
            denoise, latent_image, SOURCE, sigmas, self.regularizer, fixed_point=self.fixed_point, on_step=on_step
        )
        if self.reconstruct:
            x0 = reconstruct(denoise, inversion, SOURCE, on_step)
            self.reconstruction = guider.inner_model.process_latent_out(x0).cpu()
        self.inversion = dataclasses.replace(
            inversion,
            **{name: value.cpu() for name, value in vars(inversion).items() if isinstance(value, Tensor)},
        )
        return inversion.noise
