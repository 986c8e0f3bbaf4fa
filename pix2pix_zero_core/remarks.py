"""What is worth saying about settings and results, for people; the nodes and the command line share it."""

from __future__ import annotations

from .settings import NegativeFrom, NoiseFrom

POOR, GOOD = 10.0, 20.0
"""Decibels: below the one reconstructions differ from the picture visibly, from the other on hardly."""

FEW_STEPS = 5

MUCH_CFG = 20.0


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


def of_cfg(cfg: float, negative_from: NegativeFrom, noise_from: NoiseFrom, *, needed: bool = True) -> str:
    """Say so where a scale of classifier-free guidance edits nothing, hardly, or too much; else nothing.

    Args:
        cfg: the scale.
        negative_from: what it moves away from.
        noise_from: in which noise.
        needed: whether the model follows texts only with it, as far as one can tell.
    """
    if cfg == 0:
        return "cfg is 0: the target text is not followed at all, and nothing is edited. Raise it to 1 or more."
    if cfg > MUCH_CFG:
        return f"cfg is {cfg:g}: so much breaks pictures up into patches of colour. Try 1 to 10."
    if cfg > 1 and negative_from == "inversion":
        return (
            "negative_from is inversion: with models that follow a text only at a high cfg, as Stable Diffusion does, "
            "edits hardly show. If so, set it to text."
        )
    if cfg == 1 and noise_from == "fresh" and needed:
        return "cfg is 1: most models hardly follow a text at that, and little is edited. If so, raise it to 5."
    return ""
