"""The first edit that shows, picked from edits that are there."""

from __future__ import annotations

import torch

from benchmarks.harness.cells import Cell
from benchmarks.harness.metrics import COLUMNS
from benchmarks.quality.judging import Verdicts, until_it_shows


def cell(strength: float) -> Cell:
    values = torch.full((3,), strength)
    return Cell(values[:, None, None, None].expand(3, 4, 2, 2), {name: values for name in COLUMNS}, 10 * values, values)


def test_the_first_that_shows_is_kept_and_all_that_were_made_are_paid() -> None:
    cells = [cell(1.0), cell(2.0), cell(3.0)]
    scores = [torch.tensor([0.5, -1.0, -3.0]), torch.tensor([-0.5, 0.1, -2.0]), torch.tensor([1.0, 1.0, -1.0])]
    kept, edits = until_it_shows(cells, scores)
    assert edits.tolist() == [1, 2, 3]
    assert kept.latents[:, 0, 0, 0].tolist() == [1.0, 2.0, 3.0]  # the last one never shows, and is the strongest
    assert kept.columns["edit_success"].tolist() == [1.0, 2.0, 3.0]
    assert kept.rows.tolist() == [10.0, 30.0, 60.0]


def test_agreement_counts_both_kinds_of_pictures() -> None:
    assert Verdicts(torch.tensor([1.0, -1.0, 0.0, 2.0]), torch.tensor([1.0, 0.0, 0.0, 0.0])).agreement == 0.75
