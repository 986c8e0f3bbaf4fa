"""What is worth saying about settings and results, for people; the nodes and the command line share it."""

from __future__ import annotations

from .fresh import guided_from
from .schedule import first_step
from .settings import NegativeFrom, NoiseFrom
from .types import MapGuidance

POOR, GOOD = 10.0, 20.0
"""Decibels: below the one reconstructions differ from the picture visibly, from the other on hardly."""

FEW_STEPS = 5

SELF_GUIDED_CFG = 2.0
"""As much as models take that guide themselves."""

MUCH_CFG, MUCH_GUIDANCE = 20.0, 50.0
"""Above these pictures break up. On Tiny Zoo a cfg of 30 and a guidance of 100, in the unit normalized, left none."""

SAME_TEXT = (
    "Source and target are the same text: no edit is made, though a high cfg may change the picture. Is the "
    "direction's strength 0, or does a sum of directions come to nothing?"
)


def of_steps(steps: int) -> str:
    """Say so where an inversion has too few steps to edit by; nothing where it has enough."""
    if steps >= FEW_STEPS:
        return ""
    count = "1 step" if steps == 1 else f"{steps} steps"
    return f"The inversion has {count}: edits hardly show, or spoil other things. Raise steps to 20 or more."


def of_reconstruction(decibels: float) -> str:
    """Say what to do about a poor reconstruction; nothing where it is better."""
    if decibels >= POOR:
        return ""
    return (
        f"The reconstruction has only {decibels:.0f} dB: what it lost is lost to an edit with noise_from inversion. "
        "Check the caption, raise steps or fixed_point, or lower regularization and kl."
    )


def of_edit(
    steps: int,
    guidance: MapGuidance,
    cfg: float | None,
    cfg_start: float,
    negative_from: NegativeFrom,
    noise_from: NoiseFrom,
    *,
    needs_cfg: bool = True,
    edges: tuple[str, str] = ("guidance_start", "guidance_end"),
) -> list[str]:
    """Say what extreme settings of an edit will do, and which do nothing; nothing of usual ones.

    Args:
        steps: of the inversion.
        guidance: of the maps, as it is set; in fresh noise it begins with the edit.
        cfg: scale of classifier-free guidance; None where it is not known.
        cfg_start: from where on that acts, in fresh noise the edit.
        negative_from: what it moves away from.
        noise_from: in which noise.
        needs_cfg: whether the model follows texts only with it, as far as one can tell.
        edges: what its user calls start and end of the guidance.
    """
    fresh = noise_from == "fresh"
    if first_step(steps, cfg_start) < steps:
        said = [of_cfg(cfg, negative_from, noise_from, needed=needs_cfg)]
    else:
        late = f"cfg_start is {cfg_start:g}, and with steps at {steps} none begins after it"
        if fresh:
            return [f"{late}: nothing is edited. Lower it, or raise the inversion's steps."]
        said = [f"{late}: classifier-free guidance acts at none. Lower it, or set cfg to 1." if cfg != 1 else ""]
    acts = guided_from(guidance, cfg_start) if fresh else guidance
    return [remark for remark in (*said, of_guidance(guidance, acts, steps, edges)) if remark]


def of_guidance(guidance: MapGuidance, acts: MapGuidance, steps: int, edges: tuple[str, str]) -> str:
    """Say so where guidance of the maps guides no step, or too much; else nothing.

    Args:
        guidance: as it is set.
        acts: as it acts, see `guided_from`.
        steps: of the inversion.
        edges: what its user calls its start and its end.
    """
    if guidance.strength > 0 and acts.steps(steps) == 0:
        start, end = edges
        begun = f"none begins from {acts.start:g} of them, where {start} or cfg_start is"
        if first_step(steps, acts.start) == steps:
            begun, remedy = f"{begun}, on", "Lower that, or raise the inversion's steps"
        else:
            begun, remedy = f"{begun}, to {end} at {guidance.end:g}", f"Raise {end}"
        said = f"guidance is {guidance.strength:g}, but no step is guided: with steps at {steps} {begun}."
        return f"{said} {remedy}, or set guidance to 0."
    if guidance.unit == "normalized" and guidance.strength > MUCH_GUIDANCE:
        return f"guidance is {guidance.strength:g}: so much breaks pictures up into patches of colour. Try 1 to 20."
    return ""


def of_cfg(cfg: float | None, negative_from: NegativeFrom, noise_from: NoiseFrom, *, needed: bool = True) -> str:
    """Say so where a scale of classifier-free guidance edits nothing, hardly, or too much; else nothing.

    Args:
        cfg: the scale; None where it is not known.
        negative_from: what it moves away from.
        noise_from: in which noise.
        needed: whether the model follows texts only with it, as far as one can tell.
    """
    if cfg == 0:
        instead = "and nothing is edited" if noise_from == "fresh" else "only what is moved away from"
        return f"cfg is 0: the target text is not followed at all, {instead}. Raise it to 1 or more."
    if cfg is not None and cfg > MUCH_CFG:
        return f"cfg is {cfg:g}: so much breaks pictures up into patches of colour. Try 1 to 10."
    if (cfg is None or cfg > 1) and negative_from == "inversion":
        return (
            "negative_from is inversion: with models that follow a text only at a high cfg, as Stable Diffusion does, "
            "edits hardly show. If so, set it to text."
        )
    if cfg is None:
        return ""
    if cfg <= 1 and noise_from == "fresh" and needed:
        return f"cfg is {cfg:g}: most models hardly follow a text at that, and little is edited. If so, raise it to 5."
    if cfg > SELF_GUIDED_CFG and not needed:
        return (
            f"cfg is {cfg:g}, but this model was distilled to follow texts by itself: such models want 1, or little "
            "more, at which they are faster, too."
        )
    return ""
