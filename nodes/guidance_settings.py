"""The settings that the nodes which guide share: their widgets, what they mean, and what extreme ones will do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from comfy_api.v0_0_2 import io
from torch import Tensor

from ..pix2pix_zero_core import EditSettings, FreshNoise, Inversion, MapGuidance, edit_region, within
from ..pix2pix_zero_core.edit import GuidanceStep
from ..pix2pix_zero_core.fresh import guided_from
from ..pix2pix_zero_core.remarks import SAME_TEXT, of_edit
from ..pix2pix_zero_core.settings import FRESH_BESIDE_INVERSION, NEGATIVES, NOISES
from .attention import chosen_layers, modules_of, text_layers
from .bridge import (
    SOURCE,
    TARGET,
    Conditioning,
    GuiderDenoiser,
    begin_text_guidance,
    edit_in_fresh_noise,
    edit_in_region,
    embeddings,
    fresh_noise,
    replay_negative,
    require_cross_attention_model,
    require_inversion_of,
)
from .gradient import CHECKPOINTING, GradientStep
from .types import InversionType, ModelInversion

USUAL = EditSettings()
"""What new nodes have in their widgets."""


def original_inputs() -> list[Any]:
    """Describe the inverted picture: the first inputs of all nodes that guide."""
    return [
        io.Model.Input("model", tooltip="The model of the inversion."),
        InversionType.Input("inversion", tooltip="From Regularized DDIM Invert, with the same model."),
        io.Conditioning.Input("source", tooltip="Text of the picture as it is, as used for the inversion."),
    ]


def edit_inputs() -> list[Any]:
    """Describe the inputs of the nodes that bring their own classifier-free guidance."""
    return [
        *original_inputs(),
        io.Conditioning.Input("target", tooltip="Text of the edited picture: source with an edit direction."),
        io.Conditioning.Input(
            "negative",
            tooltip="What to move away from, where negative_from is text: an empty text, or what is to become less.",
        ),
        io.Float.Input(
            "cfg",
            default=USUAL.cfg,
            min=0.0,
            max=100.0,
            step=0.1,
            tooltip="How strongly the target text is followed. Edit too weak: raise it. Colours too strong: lower it.",
        ),
        *guidance_inputs(),
    ]


def guidance_inputs() -> list[Any]:
    """Describe the settings of the guidance, which are the same in all nodes that guide."""
    return [
        io.Float.Input(
            "guidance",
            default=USUAL.guidance.strength,
            min=0.0,
            max=1000.0,
            step=0.01,
            tooltip="How strongly the layout is kept. Structure lost: raise it. Edit too weak: lower it. 0 does not "
            "hold it.",
        ),
        io.Combo.Input(
            "unit",
            options=["normalized", "paper", "share"],
            default=USUAL.guidance.unit,
            tooltip="Of guidance. share, 0 to 1, is how much of what an unguided edit would change of the attention is "
            "to be taken away: measured on each picture, by a short unguided run beforehand. "
            "normalized needs no such run, and carries over from one size of picture to another; 1 is little. "
            "paper is the published step size (0.1 for real, 0.15 for generated pictures on SD 1.4).",
        ),
        io.Float.Input(
            "guidance_start",
            default=USUAL.guidance.start,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="Fraction of the inversion's steps after which guidance begins.",
        ),
        io.Float.Input(
            "guidance_end",
            default=USUAL.guidance.end,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="Fraction of the inversion's steps after which guidance ends. Ending early is faster; at 1 nothing "
            "corrects the last moves any more.",
        ),
        io.Combo.Input(
            "checkpointing",
            options=list(CHECKPOINTING),
            default=CHECKPOINTING[0],
            optional=True,
            tooltip="Of the guidance's gradient: computes activations again instead of keeping them, in a fraction of "
            "the memory and about a third more time. on demand begins when memory runs out.",
        ),
        io.Int.Input(
            "finest_layer",
            default=1,
            min=1,
            max=8,
            optional=True,
            tooltip="1 guides every cross-attention layer; 2, 4 and 8 only those at this fraction of the latent's "
            "resolution and coarser: less memory, and the finest details are free.",
        ),
        io.Combo.Input(
            "negative_from",
            options=list(NEGATIVES),
            default=USUAL.negative_from,
            optional=True,
            tooltip="What classifier-free guidance moves away from. text: the negative text. inversion: the noise that "
            "was recorded when the picture was inverted, which saves the negative's part of every step, but leaves the "
            "edit undone with models that follow texts only with a high cfg, as Stable Diffusion does; it needs "
            "noise_from at inversion.",
        ),
        io.Float.Input(
            "cfg_start",
            default=USUAL.cfg_start,
            min=0.0,
            max=1.0,
            step=0.01,
            optional=True,
            tooltip="Fraction of the inversion's steps after which classifier-free guidance begins, and in fresh noise "
            "the edit; before, the target text is followed plainly, in fresh noise not at all. Early steps decide "
            "where things are: later begins leave more in place, and are faster. 0 begins with the first step.",
        ),
        io.Float.Input(
            "region",
            default=USUAL.region,
            min=0.0,
            max=1.0,
            step=0.05,
            optional=True,
            tooltip="Edit only where source and target text disagree about the picture, and leave the rest as it was. "
            "0 edits everywhere; 0.4 leaves out what the texts hardly disagree about; 1 edits only where they disagree "
            "most.",
        ),
        io.String.Input(
            "blocks",
            default="",
            optional=True,
            tooltip="Which of the model's blocks are guided, counted from 0: numbers and ranges, 0-11, 20; or all. "
            "Fewer and earlier ones take less memory. Empty: all of a UNet and of small transformers, the first half "
            "of large ones.",
        ),
        io.Combo.Input(
            "noise_from",
            options=list(NOISES),
            default=USUAL.noise_from,
            optional=True,
            tooltip="In which noise the model sees the picture. fresh: in new noise at every step, and little but "
            "what the two texts differ in is taken over, so that the rest of the picture stays; the original is "
            "predicted beside the edit. inversion: in the noise that the inversion found, as in the paper.",
        ),
    ]


def settings_warning_output() -> Any:
    """Describe the last output of the nodes that guide."""
    return io.String.Output(
        "warning", display_name="warning", tooltip="What extreme settings will do; empty if there are none."
    )


@dataclass(frozen=True)
class Settings:
    """The widgets of :func:`guidance_inputs`; those that a graph lacks mean what they meant before they were there.

    So these defaults stay as they are, whatever becomes of `USUAL`.

    Raises:
        ValueError: a value is out of range.
    """

    guidance: float
    unit: str
    guidance_start: float
    guidance_end: float
    checkpointing: str = CHECKPOINTING[0]
    finest_layer: int = 1
    negative_from: str = "inversion"
    cfg_start: float = 0.0
    region: float = 0.0
    blocks: str = ""
    noise_from: str = "inversion"

    def __post_init__(self) -> None:
        """Validate what the core does not see before sampling; a graph from a file may hold anything."""
        for name in ("guidance_start", "guidance_end", "cfg_start", "region"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be between 0 and 1.")
        if not 0 <= self.guidance < math.inf:
            raise ValueError(f"guidance is {self.guidance}; it must be 0, which holds nothing, or more.")
        if not 1 <= self.finest_layer <= 8:
            raise ValueError(f"finest_layer is {self.finest_layer}; it must be 1 to 8.")
        if self.checkpointing not in CHECKPOINTING:
            raise ValueError(f"checkpointing is {self.checkpointing!r}; it must be one of {', '.join(CHECKPOINTING)}.")
        if self.unit == "share" and self.guidance > 1:
            raise ValueError(
                f"guidance is {self.guidance}; in the unit share it must be between 0 (none) and 1 (as much as can be "
                "taken away). Lower it, or set unit to normalized."
            )
        if self.negative_from not in NEGATIVES:
            raise ValueError(f"negative_from is {self.negative_from!r}; it must be one of {', '.join(NEGATIVES)}.")
        if self.noise_from not in NOISES:
            raise ValueError(f"noise_from is {self.noise_from!r}; it must be one of {', '.join(NOISES)}.")
        if self.noise_from == "fresh" and self.negative_from == "inversion":
            raise ValueError(FRESH_BESIDE_INVERSION)
        if self.guidance_start > self.guidance_end:
            raise ValueError(
                f"guidance_start is {self.guidance_start} and guidance_end is {self.guidance_end}; they are fractions "
                "of the steps, with 0 <= start <= end <= 1. Raise guidance_end, or lower guidance_start."
            )

    def warning(
        self,
        inversion: Inversion,
        source: Conditioning,
        target: Conditioning | None = None,
        cfg: float | None = None,
        *,
        needs_cfg: bool = True,
    ) -> str:
        """Say what extreme settings will do, and which texts do not belong together; nothing where there are none.

        Args:
            inversion: of the picture.
            source: its text.
            target: that of the edited picture, where the node has it.
            cfg: of the classifier-free guidance, where the node has it.
            needs_cfg: whether the model follows texts only with it, as far as one can tell.
        """
        said: list[str] = []
        steps, texts = len(inversion.sigmas) - 1, inversion.texts if isinstance(inversion, ModelInversion) else ()
        if target is not None and _are_the_same(embeddings(source), embeddings(target)):
            said.append(SAME_TEXT)
        if texts and not _are_the_same(texts, embeddings(source)):
            said.append(
                "source is not the text that the picture was inverted with. Are source and target exchanged? Connect "
                "the source of Regularized DDIM Invert."
            )
        where: tuple[Any, Any] = (self.negative_from, self.noise_from)
        said += of_edit(steps, self._guidance, cfg, self.cfg_start, *where, needs_cfg=needs_cfg)
        return " ".join(said)

    @property
    def changed_predictions(self) -> list[str]:
        """Which of the settings change what a guider predicts, and how they are set."""
        changes = {
            "region": self.region > 0,
            "cfg_start": self.cfg_start > 0,
            "negative_from": self.negative_from == "inversion",
            "noise_from": self.noise_from == "fresh",
        }
        return [f"{name} {getattr(self, name)}" for name, changed in changes.items() if changed]

    @property
    def _guidance(self) -> MapGuidance:
        unit: Any = self.unit
        return MapGuidance(self.guidance, unit, self.guidance_start, self.guidance_end, "after")

    @property
    def map_guidance(self) -> MapGuidance:
        """Strength, unit and time, in fresh noise not before the edit. The move follows the step, the faster order."""
        return guided_from(self._guidance, self.cfg_start) if self.noise_from == "fresh" else self._guidance

    def patch(self, model: Any, inversion: Inversion) -> Any:
        """Clone a ModelPatcher, and let guiders predict on the clone as the settings say.

        Raises:
            ValueError: the model does not fit the method or the inversion, or is guided already, or has no such blocks;
                or the inversion has no trajectory, and a setting needs one.
        """
        require_cross_attention_model(model)
        require_inversion_of(model, inversion)
        chosen_layers(text_layers(modules_of(model)), self.blocks)
        if self.region > 0 and inversion.trajectory is None:
            raise ValueError(
                f"region is {self.region}, but the inversion has no trajectory to leave the rest of the picture on. "
                "Invert a picture, which records one, or set region to 0."
            )
        if self.noise_from == "fresh":
            FreshNoise(inversion)  # which refuses what has no trajectory
        patched = model.clone()
        if self.negative_from == "inversion":
            replay_negative(patched, inversion)
        if self.cfg_start > 0 and self.noise_from != "fresh":  # where nothing is edited before
            begin_text_guidance(patched, inversion, self.cfg_start)
        return patched

    def lead(
        self, guider: Any, extra_args: dict[str, Any], inversion: Inversion, mask: Tensor | None = None
    ) -> tuple[GuiderDenoiser, GuidanceStep, FreshNoise | None]:
        """Let a guider that is sampling predict in the region and in the noise that the settings say.

        Args:
            guider: a CFGGuider, whose options are this run's own.
            extra_args: of its sampler.
            inversion: of the picture, on the device of the run.
            mask: the run's noise mask.

        Returns:
            its model for the guidance of the maps, what computes a move of that, and the noise where that is fresh.
        """
        step: GuidanceStep = GradientStep(self.checkpointing)
        if self.region > 0:
            region = edit_region(GuiderDenoiser(guider, extra_args), inversion, SOURCE, TARGET, self.region)
            step = within(step, region)
            edit_in_region(guider, inversion, region)
        fresh = fresh_noise(guider, extra_args, inversion, mask) if self.noise_from == "fresh" else None
        denoise = GuiderDenoiser(guider, extra_args, self.finest_layer, self.blocks, fresh)
        if fresh is not None:  # after the region, which is laid round what is predicted in fresh noise
            edit_in_fresh_noise(guider, denoise, fresh, self.cfg_start)
        return denoise, step, fresh


def _are_the_same(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> bool:
    """Whether two texts have the same embeddings, but for rounding: in half precision, say, or on another device."""

    def near(a: Tensor, b: Tensor) -> bool:
        a, b = a.float().cpu(), b.float().cpu()
        return a.shape == b.shape and bool(torch.dist(a, b) <= 1e-3 * a.norm())

    return len(one) == len(other) and all(map(near, one, other))


def set_cfg(guider: Any, cfg: float) -> None:
    """Set a guider's scale of classifier-free guidance.

    Raises:
        ValueError: it is no finite number from 0 on.
    """
    if not (math.isfinite(cfg) and cfg >= 0):
        raise ValueError(f"cfg is {cfg}; it must be a finite number >= 0 (1 follows the target text plainly).")
    guider.set_cfg(cfg)
