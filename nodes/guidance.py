"""Cross-attention guidance for stock samplers: as a patch of the MODEL, and as a GUIDER.

Two wrappers on a cloned ModelPatcher. OUTER_SAMPLE adds the source text to the guider's conditionings, so that the
stock code prepares it like the others. SAMPLER_SAMPLE puts the picture's inverted noise where the sampler would start
from random noise, and runs the sampler one step at a time, moving the latent after each. The wrappers compose with
those of other packs, under KSampler and under every guider.
"""

# ComfyUI's base classes leave the arguments of what they call open.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import comfy.sampler_helpers
import comfy.samplers
import torch
from comfy.patcher_extension import WrappersMP
from comfy_api.v0_0_2 import io
from torch import Tensor

from ..pix2pix_zero_core import (
    Inversion,
    Pursuit,
    carried,
    guidance_move,
    guided_steps,
    pace_of,
    unguided_distance,
)
from .attention import PACK, picture_of
from .bridge import (
    NEGATIVE,
    SOURCE,
    TARGET,
    Conditioning,
    GuidedDenoiser,
    heard_predictions,
    needs_cfg,
    require_one_frame,
)
from .guidance_settings import Settings, edit_inputs, guidance_inputs, original_inputs, set_cfg, settings_warning_output
from .saying import said
from .types import CATEGORY, search_aliases

SAMPLERS_HELP = (
    "Exact with samplers that take each step by itself: euler and ddim, dpm_2 on the inversion's own SIGMAS (KSampler "
    "gives it other levels), and heun where noise_from is inversion (in fresh noise the second look of a step sees the "
    "next one's). Approximate with those that remember earlier steps or look ahead (dpmpp_2m, lms, deis, ipndm, "
    "res_multistep, heunpp2): where guidance is active they are run step by step, and then step as euler does. "
    "Ancestral and SDE samplers are refused: their random noise would overwrite the noise that the picture was "
    "inverted to. So are uni_pc, dpm_fast and dpm_adaptive, which cannot be run step by step."
)


class CrossAttnGuidance(io.ComfyNode):
    """Cross-attention guidance as a patch of the model (arXiv:2302.03027, section 3.3)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="Pix2PixZeroCrossAttnGuidance",
            display_name="Cross-Attention Guidance",
            category=CATEGORY,
            **search_aliases("edit image", "image editing", "keep layout", "structure"),
            description="Patch a model so that a stock sampler (KSampler, KSamplerAdvanced, SamplerCustom) edits the "
            "inverted picture: positive is the target text, negative an empty text. The sampler starts from the "
            "picture's noise instead of a random one; with a denoise below 1, or a later start_at_step, from the place "
            "on the inversion's way that fits. Where the sampler adds no noise, it starts from the latent that it is "
            f"given. Set the inversion's scheduler and steps to the sampler's. {SAMPLERS_HELP}",
            inputs=[*original_inputs(), *guidance_inputs()],
            outputs=[
                io.Model.Output(
                    "guided", display_name="model", tooltip="For a stock sampler; edits only this picture."
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
        guidance: float,
        unit: str,
        guidance_start: float,
        guidance_end: float,
        **more: Any,
    ) -> io.NodeOutput:
        settings = Settings(guidance, unit, guidance_start, guidance_end, **more)
        guided = GuidedSampling(inversion, source, settings).patch(model)
        warning = settings.warning(inversion, source)
        return io.NodeOutput(guided, warning, ui=said(warning=warning))


class CrossAttnGuider(io.ComfyNode):
    """Cross-attention guidance as a guider (arXiv:2302.03027, section 3.3)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="Pix2PixZeroCrossAttnGuider",
            display_name="Cross-Attention Guider",
            category=CATEGORY,
            **search_aliases("edit image", "image editing", "keep layout", "structure"),
            description="Edit the inverted picture with SamplerCustomAdvanced. The sampler starts from the picture's "
            "noise in place of RandomNoise; with DisableNoise, from the latent that it is given. Connect the same "
            f"SIGMAS to the sampler and to the inversion. {SAMPLERS_HELP}",
            inputs=edit_inputs(),
            outputs=[
                io.Guider.Output("guider", display_name="guider", tooltip="For SamplerCustomAdvanced."),
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
        sampling = GuidedSampling(inversion, source, settings)
        guider = comfy.samplers.CFGGuider(sampling.patch(model))
        guider.inner_set_conds({TARGET: target, NEGATIVE: negative})
        if sampling.compares:
            guider.inner_set_conds({SOURCE: source})  # in time for its hooks to be registered
        set_cfg(guider, cfg)
        warning = settings.warning(inversion, source, target, cfg, needs_cfg=needs_cfg(model))
        return io.NodeOutput(guider, warning, ui=said(warning=warning))


@dataclass(frozen=True)
class GuidedSampling:
    """The wrappers that make a stock sampler edit an inverted picture.

    Attributes:
        inversion: of the picture, with its trajectory.
        source: text of the picture.
        settings: with a guidance of 0, no region and noise_from inversion they only start the sampler from the
            inversion.
    """

    inversion: Inversion
    source: Conditioning
    settings: Settings

    @property
    def compares(self) -> bool:
        """Whether the source text is needed beside the target's."""
        return self.settings.guidance > 0 or self.settings.region > 0 or self.settings.noise_from == "fresh"

    def patch(self, model: Any) -> Any:
        """Clone a ModelPatcher and put the wrappers on the clone.

        Raises:
            ValueError: as `Settings.patch`.
        """
        patched = self.settings.patch(model, self.inversion)
        patched.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, PACK, self.sampler_sample)
        if self.compares:
            patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, PACK, self.outer_sample)
        return patched

    def outer_sample(self, executor: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Give the guider the source text, before the stock code prepares its conditionings."""
        guider = executor.class_obj
        if SOURCE not in guider.conds:
            guider.conds[SOURCE] = comfy.sampler_helpers.convert_cond(self.source)
            registered = guider.model_options.get("registered_hooks")
            for part in guider.conds[SOURCE]:
                if "hooks" in part and (registered is None or not part["hooks"].is_subset_of(registered)):
                    raise ValueError(
                        "The source text has hooks (a LoRA on a prompt, say) that the sampler's positive text has not. "
                        "Attach the same hooks to both, or use Cross-Attention Guider, which registers the source's."
                    )
        return executor(*args, **kwargs)

    def sampler_sample(
        self,
        executor: Any,
        guider: Any,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: Any,
        *rest: Any,
        **more: Any,
    ) -> Tensor:
        """Run the sampler from the inversion's trajectory, (B, C, H, W), and refuse guiders that cannot be led."""
        heard, settings = heard_predictions(guider), self.settings.changed_predictions

        def require_heard() -> None:
            if settings and not heard:
                raise ValueError(
                    f"The guider ({type(guider).__name__}) predicts past ComfyUI's predict_noise, and did nothing of "
                    f"{', '.join(settings)}. Use Cross-Attention Guider, CFGGuider, BasicGuider or a KSampler; or set "
                    "region and cfg_start to 0, negative_from to text and noise_from to inversion."
                )

        def on_step(*shown: Any) -> None:
            require_heard()  # after the first one, not after a whole edit
            if callback is not None:
                callback(*shown)

        edited = self._sample(executor, guider, sigmas, extra_args, on_step, *rest, **more)
        if len(sigmas) > 1:
            require_heard()  # of samplers that report no step
        return edited

    def _sample(
        self,
        executor: Any,
        guider: Any,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: Any,
        noise: Tensor,
        latent_image: Tensor,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        """Run the sampler, one guided step at a time."""
        sampler, total = executor.class_obj, len(sigmas) - 1
        extra_args = masked_by_whole_run(extra_args, sigmas)
        require_deterministic(sampler)
        if self.settings.region > 0 or self.settings.noise_from == "fresh":
            require_own_predictions(sampler)
        if total > 0 and sigmas[0] < sigmas[-1]:
            raise ValueError(
                f"The sampler's noise levels rise, from {float(sigmas[0]):.4g} to {float(sigmas[-1]):.4g}: it inverts, "
                "and its model is guided to edit. Connect the model from before Cross-Attention Guidance to it."
            )
        self.require_start(noise, float(sigmas[0]))

        scale = _NoiseScaling(guider, sampler)
        first = float(sigmas[0])
        # In a flow pure noise has nothing of the latent that a sampler without noise is given to start from.
        if noise.any() or float(self.inversion.coordinates.alpha(sigmas[0])) == 0:
            noise = scale.noise(self.inversion.latent_at(first).to(noise).view_as(noise), latent_image, sigmas)
        guidance, finest_layer, blocks = self.settings.map_guidance, self.settings.finest_layer, self.settings.blocks
        if self.compares:
            require_target(guider)
        denoise, step, fresh = self.settings.lead(guider, extra_args, self.inversion.to(noise), denoise_mask)
        active = guided_steps(sigmas, self.inversion, guidance)
        if not any(active):
            return executor(guider, sigmas, extra_args, callback, noise, latent_image, denoise_mask, disable_pbar)

        steps, pace = len(self.inversion.sigmas) - 1, pace_of(sigmas, self.inversion)
        x, begin, pursuit = scale.latent(noise, latent_image, sigmas), 0, None
        while begin < total:
            move = torch.zeros_like(x)
            if active[begin]:
                end = begin + 1
                if guidance.unit == "share" and pursuit is None:
                    kept = None if denoise_mask is None else (denoise_mask, latent_image)
                    guided = GuidedDenoiser(guider, extra_args, finest_layer, kept, blocks, fresh)
                    levels = sigmas[:-1][torch.tensor(active, device=sigmas.device)]
                    pictures = picture_of(x)
                    unguided = unguided_distance(denoise, pictures, levels, SOURCE, TARGET, self.inversion, guided)
                    pursuit = Pursuit(unguided, guidance.strength, max(1, round(pace * guidance.steps(steps))))
                move = guidance_move(
                    denoise, picture_of(x), sigmas[begin], SOURCE, TARGET, self.inversion, guidance, step, pursuit, pace
                ).view_as(x)
                move = carried(move, sigmas[begin], sigmas[end], self.inversion.coordinates)
            else:
                end = next((step for step in range(begin, total) if active[step]), total)
            part, report = sigmas[begin : end + 1], _numbered(callback, begin, total)
            noise = scale.noise(x, latent_image, part)
            x = executor(guider, part, extra_args, report, noise, latent_image, denoise_mask, True)
            x = scale.with_noise(x, part) + (move if denoise_mask is None else move * denoise_mask)
            begin = end
        return scale.left(x, sigmas)

    def require_start(self, noise: Tensor, sigma: float) -> None:
        """Refuse to start where the inversion's trajectory does not lead.

        Args:
            noise: of the sampler, (B, C, H, W), perhaps with a frame.
            sigma: where the sampler starts.

        Raises:
            ValueError: another shape, several frames, or a higher noise level than the inversion's.
        """
        inverted, highest = self.inversion.noise.shape, float(self.inversion.sigmas[0])
        shape = require_one_frame(noise).shape
        if shape != inverted:
            raise ValueError(
                f"The sampler's latent has shape {tuple(shape)}, the inverted picture {tuple(inverted)} (batch, "
                "channels, height, width). Give the sampler the latent that was inverted, or one of its shape. A node "
                "that has it, and first tries itself on a latent of its own (ClownsharKSampler), cannot be guided: "
                "take KSampler or SamplerCustomAdvanced with the same sampler."
            )
        if sigma > highest * (1 + 1e-4):
            raise ValueError(
                f"The sampler starts at noise level {sigma:.4g}, the inversion ends at {highest:.4g}. Set scheduler "
                "and steps of Regularized DDIM Invert to those of the sampler, or connect the same SIGMAS to both."
            )


@dataclass(frozen=True)
class _NoiseScaling:
    """How a stock sampler mixes noise and latent where it begins, and leaves a latent where it ends.

    Attributes:
        guider: a CFGGuider that is sampling.
        sampler: a `comfy.samplers.Sampler`.
    """

    guider: Any
    sampler: Any

    def latent(self, noise: Tensor, latent_image: Tensor, sigmas: Tensor) -> Tensor:
        """What a sampler that is given noise and latent begins a schedule with."""
        scaling = self.guider.inner_model.model_sampling.noise_scaling
        return scaling(sigmas[0], noise, latent_image, self.sampler.max_denoise(self.guider, sigmas))

    def noise(self, x: Tensor, latent_image: Tensor, sigmas: Tensor) -> Tensor:
        """What noise makes it begin with x."""
        one, zero = torch.ones_like(x), torch.zeros_like(x)
        return (x - self.latent(zero, one, sigmas) * latent_image) / self.latent(one, zero, sigmas)

    def left(self, x: Tensor, sigmas: Tensor) -> Tensor:
        """What it gives back where a schedule ends at x; a flow's noise is taken to be on a latent of full size."""
        return self.guider.inner_model.model_sampling.inverse_noise_scaling(sigmas[-1], x)

    def with_noise(self, left: Tensor, sigmas: Tensor) -> Tensor:
        """What x a schedule ended at, from what was given back."""
        return left / self.left(torch.ones_like(left), sigmas)


def masked_by_whole_run(extra_args: dict[str, Any], sigmas: Tensor) -> dict[str, Any]:
    """What a sampler is given for a part of a run, with a noise mask that changes by the levels of the whole run.

    Args:
        extra_args: of the sampler: model_options and seed.
        sigmas: all levels of the run: from the first to the last such a mask changes (Differential Diffusion).
    """
    options = extra_args["model_options"]
    change = options.get("denoise_mask_function")
    if change is None:
        return extra_args

    def changed(sigma: Tensor, mask: Tensor, extra_options: dict[str, Any]) -> Tensor:
        return change(sigma, mask, extra_options={**extra_options, "sigmas": sigmas})

    return {**extra_args, "model_options": {**options, "denoise_mask_function": changed}}


def require_target(guider: Any) -> None:
    """Refuse guiders whose target text is not known.

    Raises:
        ValueError: none of the guider's conditionings is called positive.
    """
    if TARGET not in guider.conds:
        known = ", ".join(name for name in guider.conds if name != SOURCE) or "none"
        raise ValueError(
            f"The guider ({type(guider).__name__}) has no text called {TARGET}, to compare with the source, but "
            f"{known}. Use Cross-Attention Guider, CFGGuider, BasicGuider or a KSampler."
        )


def _numbered(callback: Any, begin: int, total: int) -> Any:
    """Report the steps of a part of a run as those of the whole."""
    if callback is None:
        return None
    return lambda step, denoised, x, _: callback(begin + step, denoised, x, total)


NOISE_NOT_USED = ("res_multistep", "res_multistep_cfg_pp")
"""Samplers that accept a source of noise and never ask it."""

WHOLE_RUNS = ("dpm_fast", "dpm_adaptive", "unipc", "unipc_bh2")
"""Samplers that choose their own noise levels, or take no step on a schedule of one."""


def require_own_predictions(sampler: Any) -> None:
    """Refuse samplers that step by the negative's prediction beside the guider's.

    Args:
        sampler: a `comfy.samplers.Sampler`; of those that are no KSAMPLER nothing is known, and they pass.

    Raises:
        ValueError: names it, and what will do.
    """
    if not isinstance(sampler, comfy.samplers.KSAMPLER):
        return
    name = sampler.sampler_function.__name__.removeprefix("sample_")
    if "cfg_pp" in name or sampler.extra_options.get("cfg_pp"):
        raise ValueError(
            f"The sampler {name} steps by the negative's prediction, which knows nothing of the region and of fresh "
            "noise. Choose euler, ddim, heun or dpm_2, or set region to 0 and noise_from to inversion."
        )


def require_deterministic(sampler: Any) -> None:
    """Refuse samplers that add noise or cannot be led step by step.

    Args:
        sampler: a `comfy.samplers.Sampler`; of those that are no KSAMPLER nothing is known, and they pass.

    Raises:
        ValueError: with the reason, and samplers that will do.
    """
    if not isinstance(sampler, comfy.samplers.KSAMPLER):
        return
    name = sampler.sampler_function.__name__.removeprefix("sample_").removesuffix("_function")
    if name in WHOLE_RUNS:
        raise ValueError(
            f"The sampler {name} works only on a whole run; guidance needs one that can be run step by step. Choose "
            "euler, ddim, heun or dpm_2."
        )
    declared = inspect.signature(sampler.sampler_function).parameters
    options = {key: parameter.default for key, parameter in declared.items()} | sampler.extra_options
    fresh = "noise_sampler" in declared and name not in NOISE_NOT_USED and options.get("eta", 1.0) > 0
    if fresh or options.get("s_churn", 0.0) > 0:
        raise ValueError(
            f"The sampler {name} adds random noise at its steps, which overwrites the noise that the picture was "
            "inverted to: the picture would be lost. Choose a sampler that adds none: euler, ddim, heun, dpm_2 (or "
            "set eta and s_churn to 0)."
        )
