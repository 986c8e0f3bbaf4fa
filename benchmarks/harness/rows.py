"""The rows of the tables: which methods there are, under which names and with which settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pix2pix_zero_core import MapGuidance, NoiseRegularizer

from ..rivals.ddpm_friendly import DdpmFriendly
from ..rivals.fireflow import FireFlow
from ..rivals.flowedit import FlowEdit
from ..rivals.infedit import InfEdit
from ..rivals.p2p_direct import DirectInversion
from ..rivals.pnp import PlugAndPlay
from ..rivals.rf_inversion import RfInversion
from ..rivals.rf_solver import RfSolver
from .methods import DdimWordSwap, InSteps, OfficialCode, Pix2PixZero, PromptToPrompt, SDEdit
from .models import ModelName
from .sampling import Method
from .settings import adjust, read_settings

TUNED: dict[str, Method] = {
    "sdedit": SDEdit(),
    "ddim_word_swap": DdimWordSwap(),
    "word_swap_empty": DdimWordSwap(negative="empty"),
    "p2p": PromptToPrompt(),
    "p2p_direct": DirectInversion(),
    "ddpm_friendly": DdpmFriendly(),
    "pnp": PlugAndPlay(),
    "infedit": InfEdit(),
    "flowedit": FlowEdit(),
    "official": OfficialCode(),
    # As the paper's text has it: regularised inversion in its random form, the gradient on the edited latent, the
    # reference sampled from the inverted noise.
    "paper": Pix2PixZero(
        guidance=MapGuidance(0.1, "paper"),
        negative="source",
        cfg_start=0.0,
        noise_from="inversion",
        region=0.0,
        regularizer=NoiseRegularizer(strength=20, kl_strength=20, shifts="random"),
        fixed_point=0,
        replay=False,
        direction=1.0,
        form="mean by position",
    ),
    "ours": Pix2PixZero(),
}
"""Method id -> the method before its settings are tuned."""

FLOW: dict[str, Method] = {
    "sdedit": SDEdit(),
    "ddim_word_swap": DdimWordSwap(),
    "word_swap_empty": DdimWordSwap(negative="empty"),
    "rf_inversion": RfInversion(),
    "rf_solver": RfSolver(),
    "fireflow": FireFlow(),
    "flowedit": FlowEdit(),
    "ours": Pix2PixZero(),
}
"""The same for the flow model."""

METHODS: dict[ModelName, dict[str, Method]] = {"unet": TUNED, "flow": FLOW}
"""Model -> its methods before their settings are tuned."""

FAST: dict[str, Any] = {"steps": 20}
"""What is changed in ours where time matters most."""

IN_50_STEPS = ("ddim_word_swap", "word_swap_empty", "official", "ours")
"""Methods that have a second row, in twice the steps of the others, its id with _50 behind."""

ABLATION: dict[str, dict[str, Any]] = {
    "ours_without_guidance": {"guidance.strength": 0.0},
    "ours_without_region": {"region": 0.0},
    "ours_without_later_cfg": {"cfg_start": 0.0},
    "ours_in_inverted_noise": {"noise_from": "inversion"},
    "ours_with_replayed_negative": {"negative": "replayed", "noise_from": "inversion"},
    "ours_without_regularization": {"regularizer.strength": 0.0, "regularizer.kl_strength": 0.0},
    "ours_without_guided_source": {"source_guided": 0.0},
    "ours_without_sentences": {"sentences": 0},
    "ours_without_stronger_direction": {"direction": 1.0},
    "ours_without_replayed_reference": {"replay": False},
    "ours_without_fixed_point": {"fixed_point": 0},
    "ours_without_move_after_step": {"guidance.applied": "before"},
}
"""Method id -> what is changed in ours."""


def tuned_methods(settings: Mapping[str, Mapping[str, Any]], model: ModelName = "unet") -> dict[str, Method]:
    """Every row of a model's tables: the tuned methods, some in more steps, ours by default and with changes.

    What ours is without each of its parts is a table of the UNet's alone.

    Args:
        settings: method id -> its tuned settings, for every method of the model.
        model: that edits.
    """
    methods = {name: adjust(method, settings[name]) for name, method in METHODS[model].items()}
    changes = {"ours_fast": FAST} | (ABLATION if model == "unet" else {})
    changed = {name: adjust(methods["ours"], change) for name, change in changes.items()}
    longer: dict[str, Method] = {f"{name}_50": InSteps(methods[name], 50) for name in IN_50_STEPS if name in methods}
    usual = METHODS[model]["ours"]
    by_default = {"ours_by_default": usual, "ours_by_default_fast": adjust(usual, FAST)}
    return methods | longer | by_default | changed


def before_finals() -> Pix2PixZero:
    """Ours as the first round chose it: what sweeps and trials change, and the sentences are counted with."""
    return adjust(Pix2PixZero(), read_settings()["first_round"]["ours"])
