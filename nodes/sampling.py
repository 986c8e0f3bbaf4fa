"""CrossAttnGuidedSampler: sample the edited picture while its cross-attention follows the original's."""

# ComfyUI's base classes leave the arguments of what they call open.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

import dataclasses
from typing import Any

import comfy.samplers
import torch
from comfy_api.v0_0_2 import io
from torch import Tensor

from ..pix2pix_zero_core import Inversion, MapGuidance, edit
from .bridge import (
    NEGATIVE,
    SOURCE,
    TARGET,
    Conditioning,
    GuidedDenoiser,
    GuiderDenoiser,
    differentiable,
    progress,
    require_cross_attention_model,
)
from .types import CATEGORY, InversionType


class CrossAttnGuidedSampler(io.ComfyNode):
    """Cross-attention guided sampling (arXiv:2302.03027, section 3.3)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="Pix2PixZeroCrossAttnGuidedSampler",
            display_name="Cross-Attention Guided Sampler",
            category=CATEGORY,
            description="Sample the edited picture from inverted noise. At every step the latent moves so that the "
            "model's attention to the words stays where it was in the original: the layout is kept.",
            inputs=[
                io.Model.Input("model"),
                InversionType.Input("inversion", tooltip="From Regularized DDIM Invert, with the same model."),
                io.Conditioning.Input("source", tooltip="Text of the picture as it is, as used for the inversion."),
                io.Conditioning.Input("target", tooltip="Text of the edited picture: source with an edit direction."),
                io.Conditioning.Input(
                    "negative",
                    tooltip="What to move away from: the source for real pictures, empty for generated ones.",
                ),
                io.Float.Input(
                    "cfg",
                    default=5.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="How strongly the target text is followed.",
                ),
                io.Float.Input(
                    "guidance",
                    default=0.4,
                    min=0.0,
                    max=1000.0,
                    step=0.01,
                    tooltip="How strongly the layout is kept. Structure lost: raise it. Edit too weak: lower it. "
                    "0 is plain sampling.",
                ),
                io.Combo.Input(
                    "unit",
                    options=["normalized", "paper"],
                    default="normalized",
                    tooltip="Of guidance. normalized carries over from one model and size to another; paper is the "
                    "published step size (0.1 for real, 0.15 for generated pictures on SD 1.4).",
                ),
                io.Float.Input(
                    "guidance_start",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Fraction of the steps after which guidance begins.",
                ),
                io.Float.Input(
                    "guidance_end",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Fraction of the steps after which guidance ends; ending early is faster.",
                ),
            ],
            outputs=[
                io.Latent.Output("edited", display_name="edited", tooltip="The edited picture."),
                io.Latent.Output(
                    "reference", display_name="reference", tooltip="The original, as the reference branch ends."
                ),
            ],
        )

    @classmethod
    def execute(  # noqa: D102
        cls,
        model: Any,
        inversion: Inversion,
        source: Conditioning,
        target: Conditioning,
        negative: Conditioning,
        cfg: float,
        guidance: float,
        unit: str,
        guidance_start: float,
        guidance_end: float,
    ) -> io.NodeOutput:
        require_cross_attention_model(model)
        settings = MapGuidance(guidance, unit, guidance_start, guidance_end)  # pyright: ignore[reportArgumentType]
        channels = model.get_model_object("latent_format").latent_channels
        if inversion.noise.shape[1] != channels:
            raise ValueError(
                f"The inversion has {inversion.noise.shape[1]} channels, the model takes {channels}. Invert the "
                "picture with the model that edits it."
            )
        sampler = _Editor(model, inversion, settings)
        guider = comfy.samplers.CFGGuider(model.clone())
        guider.inner_set_conds({TARGET: target, NEGATIVE: negative, SOURCE: source})
        guider.set_cfg(cfg)
        empty = torch.zeros_like(inversion.noise)
        edited = guider.sample(empty, empty, sampler, inversion.sigmas, disable_pbar=True)
        return io.NodeOutput({"samples": edited}, {"samples": sampler.reference})


class _Editor(comfy.samplers.Sampler):
    """`pix2pix_zero_core.edit` as a ComfyUI sampler; the reference stays with it after sampling."""

    reference: Tensor

    def __init__(self, model: Any, inversion: Inversion, guidance: MapGuidance) -> None:
        self.model, self.inversion, self.guidance = model, inversion, guidance

    def sample(
        self,
        guider: Any,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: Any,
        noise: Tensor,
        latent_image: Tensor | None = None,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        start = dataclasses.replace(
            self.inversion,
            noise=self.inversion.noise.to(noise.device),
            trajectory=None if self.inversion.trajectory is None else self.inversion.trajectory.to(noise.device),
        )
        result = edit(
            GuiderDenoiser(guider, extra_args),
            start,
            SOURCE,
            TARGET,
            guided=GuidedDenoiser(guider, extra_args),
            guidance=self.guidance,
            differentiable=differentiable,
            on_step=progress(self.model, len(sigmas) - 1),
        )
        self.reference = guider.inner_model.process_latent_out(result.reference).cpu()
        return result.edited
