"""pix2pix-zero, independent of any framework.

Parmar et al., *Zero-shot Image-to-Image Translation*, SIGGRAPH 2023, arXiv:2302.03027.

Everywhere in this package a latent is ``x = alpha * x0 + sigma * eps``, in the coordinates of its model: unless told
otherwise, the variance-exploding ones of k-diffusion and ComfyUI, where alpha is 1 and DDIM with eta = 0 is Euler's
method in sigma. Letters in shapes: B batch, C channels, H and W latent height and width, h attention heads, N queries,
L tokens, D embedding width, T steps.
"""

from .aligned import AlignedDirection
from .coordinates import Coordinates, carried
from .directions import Direction, EditDirection
from .edit import ClassifierFreeGuidance, ReplayedGuidance, edit, reconstruct
from .forms import apply_direction, combine_directions, load_direction
from .fresh import FreshNoise, InFreshNoise, Remembering, TextDifference
from .guidance import guidance_move, guided_steps, pace_of
from .inversion import invert
from .region import RegionalDenoiser, edit_region, within
from .settings import EditSettings
from .share import Pursuit, unguided_distance
from .types import (
    AttentionMaps,
    Denoiser,
    Edit,
    Inversion,
    MapGuidance,
    NoiseRegularizer,
    OnStep,
    Prediction,
    StepInfo,
)
from .until import Until, edit_until

__all__ = [
    "AlignedDirection",
    "AttentionMaps",
    "ClassifierFreeGuidance",
    "Coordinates",
    "Denoiser",
    "Direction",
    "Edit",
    "EditDirection",
    "EditSettings",
    "FreshNoise",
    "InFreshNoise",
    "Inversion",
    "MapGuidance",
    "NoiseRegularizer",
    "OnStep",
    "Prediction",
    "Pursuit",
    "RegionalDenoiser",
    "Remembering",
    "ReplayedGuidance",
    "StepInfo",
    "TextDifference",
    "Until",
    "apply_direction",
    "carried",
    "combine_directions",
    "edit",
    "edit_region",
    "edit_until",
    "guidance_move",
    "guided_steps",
    "invert",
    "load_direction",
    "pace_of",
    "reconstruct",
    "unguided_distance",
    "within",
]
