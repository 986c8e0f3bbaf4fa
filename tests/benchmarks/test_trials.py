"""Each trial changes one thing, and something comes of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks.harness.methods import Pix2PixZero
from benchmarks.harness.sampling import Counted
from benchmarks.harness.tasks import Problem
from benchmarks.studies.fresh import TRIED
from benchmarks.studies.trials.__main__ import trials
from pix2pix_zero_core import MapGuidance
from tiny_zoo.denoiser import TinyZoo

OURS = Pix2PixZero(guidance=MapGuidance(0.5, "share"), noise_from="inversion", region=0.0)
TRIALS = trials(OURS)


def test_a_trial_that_changes_nothing_is_ours(model: TinyZoo, problem: Problem) -> None:
    assert torch.equal(TRIALS["ours"](Counted(model), problem), OURS(Counted(model), problem))


@pytest.mark.parametrize("name", [name for name in TRIALS if name != "ours"])
def test_every_other_edits_otherwise(name: str, model: TinyZoo, problem: Problem) -> None:
    edited = TRIALS[name](Counted(model), problem.part(0, 1))
    assert torch.isfinite(edited).all()
    assert (edited - TRIALS["ours"](Counted(model), problem.part(0, 1))).abs().max() > 1e-3


def test_fresh_noise_of_no_other_kind_is_ours(model: TinyZoo, problem: Problem) -> None:
    ours = Pix2PixZero(guidance=MapGuidance(0.0))
    assert torch.equal(TRIED["fresh"](Counted(model), problem), ours(Counted(model), problem))


@pytest.mark.parametrize("name", [name for name in TRIED if name != "fresh"])
def test_noise_of_another_kind_edits_otherwise(name: str, model: TinyZoo, problem: Problem) -> None:
    longer = replace(problem.part(0, 1), steps=5)  # so that 0.7 of them leaves a step
    edited = TRIED[name](Counted(model), longer)
    assert torch.isfinite(edited).all()
    assert (edited - TRIED["fresh"](Counted(model), longer)).abs().max() > 1e-3
