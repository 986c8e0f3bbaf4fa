"""What is said of settings and results, and that nothing is said of usual ones."""

from __future__ import annotations

import pytest

from pix2pix_zero_core import EditSettings, remarks


def test_nothing_is_said_of_the_defaults() -> None:
    usual = EditSettings()
    assert remarks.of_steps(usual.steps) == remarks.of_reconstruction(remarks.GOOD) == ""
    assert remarks.of_cfg(usual.cfg, usual.negative_from, usual.noise_from) == ""


@pytest.mark.parametrize(
    ("cfg", "negative_from", "noise_from", "needed", "words"),
    [
        (0.0, "text", "fresh", False, "cfg is 0: the target text is not followed at all"),
        (50.0, "text", "inversion", True, "cfg is 50: so much breaks"),
        (3.0, "inversion", "inversion", True, "edits hardly show. If so, set it to text."),
        (1.0, "inversion", "inversion", True, ""),
        (1.0, "text", "fresh", True, "cfg is 1: most models hardly follow a text"),
        (1.0, "text", "fresh", False, ""),
        (1.0, "text", "inversion", True, ""),
    ],
)
def test_scales_that_hardly_edit_or_too_much(cfg, negative_from, noise_from, needed, words) -> None:
    said = remarks.of_cfg(cfg, negative_from, noise_from, needed=needed)
    assert words in said and bool(said) == bool(words)


def test_few_steps_and_poor_reconstructions_are_told() -> None:
    assert "has 1 step:" in remarks.of_steps(1) and "has 4 steps:" in remarks.of_steps(4)
    assert "only 9 dB" in remarks.of_reconstruction(9.0) and remarks.of_reconstruction(10.0) == ""
