"""CrossAttnGuidedSampler: sample the edited picture while its cross-attention follows the original's."""

# ComfyUI's base classes leave the arguments of what they call open.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

from typing import Any

import comfy.samplers
import torch
from comfy_api.v0_0_2 import io
from torch import Tensor

from ..pix2pix_zero_core import Inversion, StepInfo, edit, within
from .attention import picture_of
from .bridge import (
    NEGATIVE,
    SOURCE,
    TARGET,
    Conditioning,
    GuidedDenoiser,
    at_rest,
    family_of_model,
    framed,
    needs_cfg,
    progress,
)
from .guidance_settings import Settings, edit_inputs, set_cfg, settings_warning_output
from .saying import said
from .types import CATEGORY, InversionType, ModelInversion, search_aliases


class CrossAttnGuidedSampler(io.ComfyNode):
    """Cross-attention guided sampling (arXiv:2302.03027, section 3.3)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="Pix2PixZeroCrossAttnGuidedSampler",
            display_name="Cross-Attention Guided Sampler",
            category=CATEGORY,
            **search_aliases("edit image", "image editing", "image to image", "keep layout"),
            description="Sample the edited picture from inverted noise. At every step the latent moves so that the "
            "model's attention to the words stays where it was in the original: the layout is kept.",
            inputs=edit_inputs(),
            outputs=[
                io.Latent.Output("edited", display_name="edited", tooltip="The edited picture."),
                io.Latent.Output(
                    "reference", display_name="reference", tooltip="The original, as the reference branch ends."
                ),
                InversionType.Output(
                    "path", display_name="path", tooltip="The edited latent at every step, for Attention Maps."
                ),
                settings_warning_output(),
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
        **more: Any,
    ) -> io.NodeOutput:
        settings = Settings(guidance, unit, guidance_start, guidance_end, **more)
        guided = settings.patch(model, inversion)
        sampler = _Editor(model, inversion, settings)
        guider = comfy.samplers.CFGGuider(guided)
        guider.inner_set_conds({TARGET: target, NEGATIVE: negative, SOURCE: source})
        set_cfg(guider, cfg)
        empty = picture = torch.zeros_like(framed(inversion.noise, model))
        mask = inversion.mask if isinstance(inversion, ModelInversion) else None
        if mask is not None and inversion.trajectory is not None:  # what stays is the picture
            picture = framed(inversion.trajectory[-1], model)
            picture = guided.get_model_object("latent_format").process_out(picture)
        edited = guider.sample(empty, picture, sampler, inversion.sigmas, denoise_mask=mask, disable_pbar=True)
        warning = settings.warning(inversion, source, target, cfg, needs_cfg=needs_cfg(model))
        outputs = at_rest(edited), at_rest(sampler.reference), sampler.path
        return io.NodeOutput(*outputs, warning, ui=said(warning=warning))


class _Editor(comfy.samplers.Sampler):
    """`pix2pix_zero_core.edit` as a ComfyUI sampler; the reference and the edited path stay with it after sampling."""

    reference: Tensor
    path: Inversion

    def __init__(self, model: Any, inversion: Inversion, settings: Settings) -> None:
        self.model, self.inversion, self.settings = model, inversion, settings

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
        start = self.inversion.to(noise)
        report, path = progress(self.model, len(sigmas) - 1), list[Tensor]()

        def on_step(step: StepInfo) -> None:
            path.append(step.x.cpu())
            report(step)

        kept = None if denoise_mask is None or latent_image is None else (denoise_mask, latent_image)
        finest_layer, blocks = self.settings.finest_layer, self.settings.blocks
        denoise, guide, fresh = self.settings.lead(guider, extra_args, start, denoise_mask)
        if denoise_mask is not None:
            guide = within(guide, picture_of(denoise_mask))
        result = edit(
            denoise,
            start,
            SOURCE,
            TARGET,
            guided=GuidedDenoiser(guider, extra_args, finest_layer, kept, blocks, fresh),
            guidance=self.settings.map_guidance,
            guide=guide,
            on_step=on_step,
        )
        way = torch.stack([*path, result.edited.cpu()])
        family = family_of_model(self.model).name
        self.path = ModelInversion(path[0], sigmas.cpu(), way, coordinates=start.coordinates, family=family)
        self.reference = guider.inner_model.process_latent_out(result.reference.view_as(noise)).cpu()
        return result.edited.view_as(noise)
