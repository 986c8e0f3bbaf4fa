"""Edits at rising strength until a judge sees them, with numbers for pictures."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from pix2pix_zero_core import Inversion
from pix2pix_zero_core.until import Until, edit_until, read_strengths

PICTURES = torch.tensor([[0.0, 1.0], [10.0, 1.0], [20.0, 1.0]])
"""What they are, and what a strength of 1 adds."""


class Calls:
    """An edit that adds the strength, a judge that wants an amount of each picture, and all that was asked of both."""

    def __init__(self, *wanted: float) -> None:
        self.wanted = torch.tensor(wanted)
        self.edits: list[tuple[float, list[int]]] = []

    def edit(self, strength: float, pictures: Sequence[int]) -> Tensor:
        self.edits.append((strength, list(pictures)))
        return PICTURES[list(pictures)] * torch.tensor([1.0, 0.0]) + strength

    def judge(self, edited: Tensor, pictures: Sequence[int]) -> Tensor:
        return edited[:, 1].abs() - self.wanted[list(pictures)]

    def until(self, *strengths: float) -> Until:
        return edit_until(self.edit, self.judge, strengths, len(self.wanted))


def test_each_picture_is_kept_at_the_first_strength_that_shows_and_left_out_afterwards() -> None:
    calls = Calls(0.5, 1.2, 0.9)
    until = calls.until(0.75, 1, 1.25, 1.5)
    assert calls.edits == [(0.75, [0, 1, 2]), (1, [1, 2]), (1.25, [1])], "1.5 is not needed"
    assert until.strengths.tolist() == [0.75, 1.25, 1.0]
    assert until.edits.tolist() == [1, 3, 2]
    assert until.shown.tolist() == [True, True, True]
    assert torch.allclose(until.edited, torch.tensor([[0.75, 0.75], [11.25, 1.25], [21.0, 1.0]]))
    assert torch.allclose(until.scores, torch.tensor([0.25, 0.05, 0.1]))


def test_where_none_shows_the_strongest_is_given() -> None:
    until = Calls(0.5, 9).until(0.75, 1.5)
    assert until.shown.tolist() == [True, False]
    assert until.strengths.tolist() == [0.75, 1.5]
    assert until.scores[1] == pytest.approx(-7.5)
    assert until.edited[1].tolist() == [11.5, 1.5]


def test_a_batch_is_edited_as_each_picture_alone() -> None:
    wanted = (0.5, 1.2, 0.9)
    together = Calls(*wanted).until(0.75, 1, 1.25)
    for i, want in enumerate(wanted):
        alone = edit_until(
            lambda strength, _, i=i: Calls().edit(strength, [i]),
            lambda edited, _, want=want: Calls(want).judge(edited, [0]),
            (0.75, 1, 1.25),
            1,
        )
        assert torch.equal(alone.edited[0], together.edited[i])
        assert (alone.strengths[0], alone.edits[0]) == (together.strengths[i], together.edits[i])


def test_a_score_of_nothing_does_not_show() -> None:
    assert not edit_until(Calls().edit, lambda edited, _: torch.zeros(len(edited)), [1.0], 1).shown


def test_negative_strengths_lead_the_other_way() -> None:
    assert Calls(0.9).until(-0.5, -1).strengths.tolist() == [-1.0]


@pytest.mark.parametrize("strengths", [(), (1, 1), (1, 0.5), (0, 1), (-1, 1), (float("nan"),), (1, float("inf"))])
def test_strengths_that_do_not_rise_are_refused(strengths: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"strengths to try are .*0\.75, 1, 1\.25, 1\.5"):
        Calls(1).until(*strengths)


def test_no_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="There are 0 pictures"):
        Calls().until(1)


def test_strengths_are_read_from_text() -> None:
    assert read_strengths(" 0.75, 1,1.5, ", "strengths") == [0.75, 1.0, 1.5]
    with pytest.raises(ValueError, match=r"--direction-strength is 'a, 1'; it must be numbers"):
        read_strengths("a, 1", "--direction-strength")
    with pytest.raises(ValueError, match="strengths to try are none"):
        read_strengths("", "strengths")


def test_some_pictures_of_an_inversion() -> None:
    trajectory = torch.randn(3, 3, 4, 2, 2)
    whole = Inversion(trajectory[0], torch.tensor([2.0, 1.0, 0.0]), trajectory, torch.rand(2, 3))
    some = whole.of([2, 0])
    assert torch.equal(some.noise, whole.noise[[2, 0]])
    assert some.residual is not None and whole.residual is not None
    assert torch.equal(some.residual, whole.residual[:, [2, 0]])
    for sigma in (1.5, 0.0):
        assert torch.equal(some.latent_at(sigma), whole.latent_at(sigma)[[2, 0]])
    assert Inversion(whole.noise, whole.sigmas).of([1]).trajectory is None
