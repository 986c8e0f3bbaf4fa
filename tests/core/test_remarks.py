"""What is said of settings and results, and that nothing is said of usual ones."""

from __future__ import annotations

import pytest

from pix2pix_zero_core import EditSettings, MapGuidance, remarks


def test_nothing_is_said_of_the_defaults() -> None:
    usual = EditSettings()
    assert remarks.of_steps(usual.steps) == remarks.of_reconstruction(remarks.GOOD) == ""
    where = usual.negative_from, usual.noise_from
    assert remarks.of_edit(usual.steps, usual.guidance, usual.cfg, usual.cfg_start, *where) == []


@pytest.mark.parametrize(
    ("cfg", "negative_from", "noise_from", "needed", "words"),
    [
        (0.0, "text", "fresh", False, "cfg is 0: the target text is not followed at all, and nothing is edited"),
        (0.0, "text", "inversion", True, "is not followed at all, only what is moved away from. Raise"),
        (50.0, "text", "inversion", True, "cfg is 50: so much breaks"),
        (3.0, "inversion", "inversion", True, "edits hardly show. If so, set it to text."),
        (None, "inversion", "inversion", True, "edits hardly show. If so, set it to text."),
        (1.0, "inversion", "inversion", True, ""),
        (1.0, "text", "fresh", True, "cfg is 1: most models hardly follow a text"),
        (0.5, "text", "fresh", True, "cfg is 0.5: most models hardly follow a text"),
        (1.0, "text", "fresh", False, ""),
        (5.0, "text", "fresh", False, "cfg is 5, but this model was distilled to follow texts by itself"),
        (1.0, "text", "inversion", True, ""),
        (None, "text", "fresh", True, ""),
    ],
)
def test_scales_that_hardly_edit_or_too_much(cfg, negative_from, noise_from, needed, words) -> None:
    said = remarks.of_cfg(cfg, negative_from, noise_from, needed=needed)
    assert words in said and bool(said) == bool(words)


@pytest.mark.parametrize(
    ("steps", "guidance", "cfg", "start", "noise_from", "words"),
    [
        (10, (0.2, "share", 0.2, 0.6), 5.0, 0.2, "fresh", []),
        (1, (0.2, "share", 0.2, 0.6), 5.0, 0.2, "fresh", ["none begins after it: nothing is edited"]),
        (10, (0.0, "share", 0.0, 0.6), 50.0, 1.0, "inversion", ["classifier-free guidance acts at none. Lower it"]),
        (10, (0.0, "share", 0.0, 0.6), 1.0, 1.0, "inversion", []),
        (1, (0.2, "share", 0.2, 1.0), 1.0, 0.0, "inversion", ["start or cfg_start is, on. Lower that, or raise"]),
        (10, (0.2, "share", 0.0, 0.6), 5.0, 0.6, "fresh", ["from 0.6 of them, where start or cfg_start is, to end at"]),
        (10, (60.0, "normalized", 0.0, 0.6), 5.0, 0.2, "fresh", ["guidance is 60: so much breaks"]),
        (10, (60.0, "paper", 0.0, 0.6), 30.0, 0.2, "fresh", ["cfg is 30: so much breaks"]),
    ],
)
def test_an_edit_is_told_once_what_does_nothing_or_too_much(steps, guidance, cfg, start, noise_from, words) -> None:
    set_to = MapGuidance(*guidance, applied="after")
    said = remarks.of_edit(steps, set_to, cfg, start, "text", noise_from, edges=("start", "end"))
    assert len(said) == len(words) and all(some in found for some, found in zip(words, said, strict=True))


def test_few_steps_and_poor_reconstructions_are_told() -> None:
    assert "has 1 step:" in remarks.of_steps(1) and "has 4 steps:" in remarks.of_steps(4)
    assert "only 9 dB" in remarks.of_reconstruction(9.0) and remarks.of_reconstruction(10.0) == ""
