"""The node classes of the shipped graphs, as a graph sees them: inputs with their usual values, outputs, size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pix2pix_zero_core import EditSettings
from pix2pix_zero_core.settings import USUAL_STRENGTH

WIDGET_TYPES = ("COMBO", "INT", "FLOAT", "STRING", "BOOLEAN")
"""Inputs of these types have a widget."""

WIDTH = 320  # of most nodes, pixels of the canvas
ROW, LINE, TEXT_BOX = 20, 24, 64  # heights of a socket, a widget and a box for text
PREVIEW, MESSAGE = 230, 64  # heights of a picture and of a line or two that a node shows


@dataclass(frozen=True)
class Socket:
    """An input that takes a link only."""

    type: str
    optional: bool = False


@dataclass(frozen=True)
class Widget:
    """An input with a widget.

    Attributes:
        type: one of WIDGET_TYPES.
        value: what it holds, unless a graph says otherwise.
        optional: whether the node runs without it.
        height: of the widget, pixels.
    """

    type: str
    value: Any
    optional: bool = False
    height: int = LINE


@dataclass(frozen=True)
class Extra:
    """A widget that the front end adds by itself; the server knows nothing of it.

    Attributes:
        value: what it holds.
        type: of its socket; empty where it has none.
    """

    value: str
    type: str = ""


Input = Socket | Widget | Extra


@dataclass(frozen=True)
class Kind:
    """A node class.

    Attributes:
        inputs: name -> input, in the order of the schema, which is that of saved widget values.
        outputs: name -> type.
        room: height below the widgets for what the node shows.
    """

    inputs: Mapping[str, Input]
    outputs: Mapping[str, str]
    room: int = 0

    def value(self, name: str) -> Any:
        """What a widget holds, unless a graph says otherwise."""
        entry = self.inputs[name]
        assert isinstance(entry, Widget)
        return entry.value

    @property
    def height(self) -> int:
        """Of the body, as the front end measures it."""
        sockets = sum(isinstance(entry, Socket) for entry in self.inputs.values())
        widgets = [entry for entry in self.inputs.values() if not isinstance(entry, Socket)]
        height = ROW * max(sockets, len(self.outputs)) + (8 if widgets else 0) + 6 + self.room
        return height + sum(entry.height if isinstance(entry, Widget) else LINE for entry in widgets)


def text_box(value: str = "") -> Widget:
    """A widget for several lines of text."""
    return Widget("STRING", value, height=TEXT_BOX)


USUAL = EditSettings()
INVERSION, DIRECTION = "PIX2PIX_ZERO_INVERSION", "PIX2PIX_ZERO_DIRECTION"
DISTILLED = "PIX2PIX_ZERO_DISTILLED"

GUIDED_EDIT: Mapping[str, Input] = {
    "model": Socket("MODEL"),
    "inversion": Socket(INVERSION),
    "source": Socket("CONDITIONING"),
    "target": Socket("CONDITIONING"),
    "negative": Socket("CONDITIONING"),
    "cfg": Widget("FLOAT", USUAL.cfg),
    "guidance": Widget("FLOAT", USUAL.guidance.strength),
    "unit": Widget("COMBO", USUAL.guidance.unit),
    "guidance_start": Widget("FLOAT", USUAL.guidance.start),
    "guidance_end": Widget("FLOAT", USUAL.guidance.end),
    "checkpointing": Widget("COMBO", "on demand", optional=True),
    "finest_layer": Widget("INT", 1, optional=True),
    "negative_from": Widget("COMBO", USUAL.negative_from, optional=True),
    "cfg_start": Widget("FLOAT", USUAL.cfg_start, optional=True),
    "region": Widget("FLOAT", USUAL.region, optional=True),
    "blocks": Widget("STRING", "", optional=True),
    "noise_from": Widget("COMBO", USUAL.noise_from, optional=True),
}
"""Of Cross-Attention Guided Sampler and of Cross-Attention Guider."""

OURS = {
    "Pix2PixZeroBLIPCaption": Kind(
        {
            "image": Socket("IMAGE"),
            "model": Widget("COMBO", "tiny_zoo"),
            "prefix": Widget("STRING", ""),
            "max_tokens": Widget("INT", 40),
            "beams": Widget("INT", 3),
            "download": Widget("BOOLEAN", False, optional=True),
        },
        {"caption": "STRING"},
        MESSAGE,
    ),
    "Pix2PixZeroEditDirection": Kind(
        {
            "clip": Socket("CLIP"),
            "edit": Widget("COMBO", "cat2dog"),
            "source": text_box(),
            "target": text_box(),
            "sentences": Widget("INT", 200),
            "kind": Widget("COMBO", "thing", optional=True),
            "form": Widget("COMBO", "aligned to words", optional=True),
        },
        {"direction": DIRECTION, "warning": "STRING"},
        MESSAGE,
    ),
    "Pix2PixZeroApplyEditDirection": Kind(
        {
            "source": Socket("CONDITIONING"),
            "direction": Socket(DIRECTION),
            "clip": Socket("CLIP"),
            "strength": Widget("FLOAT", USUAL_STRENGTH),
            "caption": Socket("STRING", optional=True),
        },
        {"target": "CONDITIONING", "warning": "STRING"},
        MESSAGE,
    ),
    "Pix2PixZeroRegularizedDDIMInvert": Kind(
        {
            "model": Socket("MODEL"),
            "latent": Socket("LATENT"),
            "source": Socket("CONDITIONING"),
            "steps": Widget("INT", USUAL.steps),
            "regularization": Widget("FLOAT", USUAL.regularizer.strength),
            "kl": Widget("FLOAT", USUAL.regularizer.kl_strength),
            "fixed_point": Widget("INT", USUAL.fixed_point),
            "reconstruct": Widget("BOOLEAN", True),
            "sigmas": Socket("SIGMAS", optional=True),
            "scheduler": Widget("COMBO", "ddim", optional=True),
            "start_at_step": Widget("INT", 0, optional=True),
            "end_at_step": Widget("INT", 10000, optional=True),
        },
        {
            "inversion": INVERSION,
            "noise": "LATENT",
            "reconstruction": "LATENT",
            "reconstruction_db": "FLOAT",
            "warning": "STRING",
        },
        PREVIEW + MESSAGE,
    ),
    "Pix2PixZeroCrossAttnGuidedSampler": Kind(
        GUIDED_EDIT, {"edited": "LATENT", "reference": "LATENT", "path": INVERSION, "warning": "STRING"}, PREVIEW
    ),
    "Pix2PixZeroCrossAttnGuider": Kind(GUIDED_EDIT, {"guider": "GUIDER", "warning": "STRING"}, MESSAGE),
    "Pix2PixZeroAttentionMaps": Kind(
        {
            "model": Socket("MODEL"),
            "inversion": Socket(INVERSION),
            "source": Socket("CONDITIONING"),
            "clip": Socket("CLIP"),
            "image": Socket("IMAGE"),
            "text": text_box(),
            "words": Widget("STRING", ""),
            "moments": Widget("INT", 5),
            "picture": Widget("INT", 0),
            "edited": Socket(INVERSION, optional=True),
            "target": Socket("CONDITIONING", optional=True),
        },
        {"sheets": "IMAGE", "mask": "MASK", "edited_mask": "MASK"},
    ),
    "Pix2PixZeroCompare": Kind(
        {
            "source": Socket("IMAGE"),
            "edited": Socket("IMAGE"),
            "reconstruction": Socket("IMAGE", optional=True),
            "titles": Widget("BOOLEAN", True, optional=True),
        },
        {"comparison": "IMAGE"},
    ),
    "Pix2PixZeroFitPicture": Kind(
        {
            "image": Socket("IMAGE"),
            "model": Socket("MODEL"),
            "fit": Widget("COMBO", "keep shape"),
            "side": Widget("INT", 0, optional=True),
        },
        {"picture": "IMAGE"},
    ),
    "Pix2PixZeroValuesToTry": Kind(
        {"values": Widget("STRING", "0, 0.5, 0.75, 1, 1.5"), "name": Widget("STRING", "strength")},
        {"value": "FLOAT", "caption": "STRING"},
    ),
    "Pix2PixZeroContactSheet": Kind(
        {"images": Socket("IMAGE"), "captions": Socket("STRING"), "source": Socket("IMAGE", optional=True)},
        {"sheet": "IMAGE"},
    ),
    "Pix2PixZeroJudgeEdit": Kind(
        {
            "image": Socket("IMAGE"),
            "caption": text_box(),
            "model": Widget("COMBO", "tiny_zoo"),
            "direction": Socket(DIRECTION, optional=True),
            "target": replace(text_box(), optional=True),
            "original": Socket("IMAGE", optional=True),
            "strength": Widget("FLOAT", 1.0, optional=True),
        },
        {"score": "FLOAT", "shows": "BOOLEAN", "words": "STRING", "warning": "STRING"},
        MESSAGE,
    ),
    "Pix2PixZeroLoadDistilledEdit": Kind({"file": Widget("COMBO", "")}, {"distilled": DISTILLED}, MESSAGE),
    "Pix2PixZeroApplyDistilledEdit": Kind(
        {"distilled": Socket(DISTILLED), "image": Socket("IMAGE"), "strength": Widget("FLOAT", 1.0)},
        {"edited": "IMAGE"},
    ),
}

STOCK = {
    "CheckpointLoaderSimple": Kind(
        {"ckpt_name": Widget("COMBO", "")}, {"MODEL": "MODEL", "CLIP": "CLIP", "VAE": "VAE"}
    ),
    "UNETLoader": Kind(
        {"unet_name": Widget("COMBO", ""), "weight_dtype": Widget("COMBO", "default")}, {"MODEL": "MODEL"}
    ),
    "CLIPLoader": Kind(
        {
            "clip_name": Widget("COMBO", ""),
            "type": Widget("COMBO", "stable_diffusion"),
            "device": Widget("COMBO", "default", optional=True),
        },
        {"CLIP": "CLIP"},
    ),
    "DualCLIPLoader": Kind(
        {
            "clip_name1": Widget("COMBO", ""),
            "clip_name2": Widget("COMBO", ""),
            "type": Widget("COMBO", "flux"),
            "device": Widget("COMBO", "default", optional=True),
        },
        {"CLIP": "CLIP"},
    ),
    "VAELoader": Kind({"vae_name": Widget("COMBO", "")}, {"VAE": "VAE"}),
    "ModelSamplingAuraFlow": Kind({"model": Socket("MODEL"), "shift": Widget("FLOAT", 1.73)}, {"MODEL": "MODEL"}),
    "FluxGuidance": Kind(
        {"conditioning": Socket("CONDITIONING"), "guidance": Widget("FLOAT", 3.5)}, {"CONDITIONING": "CONDITIONING"}
    ),
    "LoadImage": Kind(
        {"image": Widget("COMBO", ""), "upload": Extra("image", "IMAGEUPLOAD")},
        {"IMAGE": "IMAGE", "MASK": "MASK"},
        PREVIEW,
    ),
    "LoadImageDataSetFromFolder": Kind({"folder": Widget("COMBO", "")}, {"images": "IMAGE"}),
    "ImageScale": Kind(
        {
            "image": Socket("IMAGE"),
            "upscale_method": Widget("COMBO", "lanczos"),
            "width": Widget("INT", 512),
            "height": Widget("INT", 512),
            "crop": Widget("COMBO", "center"),
        },
        {"IMAGE": "IMAGE"},
    ),
    "VAEEncode": Kind({"pixels": Socket("IMAGE"), "vae": Socket("VAE")}, {"LATENT": "LATENT"}),
    "VAEDecode": Kind({"samples": Socket("LATENT"), "vae": Socket("VAE")}, {"IMAGE": "IMAGE"}),
    "CLIPTextEncode": Kind({"text": text_box(), "clip": Socket("CLIP")}, {"CONDITIONING": "CONDITIONING"}),
    "PreviewAny": Kind({"source": Socket("*")}, {}, room=104),
    "EmptyLatentImage": Kind(
        {"width": Widget("INT", 512), "height": Widget("INT", 512), "batch_size": Widget("INT", 1)},
        {"LATENT": "LATENT"},
    ),
    "KSampler": Kind(
        {
            "model": Socket("MODEL"),
            "seed": Widget("INT", 0),
            "control_after_generate": Extra("fixed"),
            "steps": Widget("INT", 20),
            "cfg": Widget("FLOAT", 8.0),
            "sampler_name": Widget("COMBO", "euler"),
            "scheduler": Widget("COMBO", "simple"),
            "positive": Socket("CONDITIONING"),
            "negative": Socket("CONDITIONING"),
            "latent_image": Socket("LATENT"),
            "denoise": Widget("FLOAT", 1.0),
        },
        {"LATENT": "LATENT"},
        PREVIEW,
    ),
    "BasicScheduler": Kind(
        {
            "model": Socket("MODEL"),
            "scheduler": Widget("COMBO", "simple"),
            "steps": Widget("INT", 20),
            "denoise": Widget("FLOAT", 1.0),
        },
        {"SIGMAS": "SIGMAS"},
    ),
    "KSamplerSelect": Kind({"sampler_name": Widget("COMBO", "euler")}, {"SAMPLER": "SAMPLER"}),
    "RandomNoise": Kind({"noise_seed": Widget("INT", 0), "control_after_generate": Extra("fixed")}, {"NOISE": "NOISE"}),
    "SamplerCustomAdvanced": Kind(
        {
            "noise": Socket("NOISE"),
            "guider": Socket("GUIDER"),
            "sampler": Socket("SAMPLER"),
            "sigmas": Socket("SIGMAS"),
            "latent_image": Socket("LATENT"),
        },
        {"output": "LATENT", "denoised_output": "LATENT"},
        PREVIEW,
    ),
    "StringConcatenate": Kind(
        {"string_a": text_box(), "string_b": text_box(), "delimiter": Widget("STRING", "")}, {"STRING": "STRING"}
    ),
    "StringTrim": Kind({"string": text_box(), "mode": Widget("COMBO", "Both")}, {"STRING": "STRING"}),
    "StringReplace": Kind({"string": text_box(), "find": text_box(), "replace": text_box()}, {"STRING": "STRING"}),
    "MaskToImage": Kind({"mask": Socket("MASK")}, {"IMAGE": "IMAGE"}),
    "SaveImage": Kind({"images": Socket("IMAGE"), "filename_prefix": Widget("STRING", "")}, {}, PREVIEW),
}

KINDS: Mapping[str, Kind] = {**OURS, **STOCK}
