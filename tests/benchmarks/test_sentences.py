"""Directions of a given number of sentences, and sums of directions: what is measured is what is said."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.harness.cells import Cell
from benchmarks.harness.methods import Pix2PixZero
from benchmarks.harness.metrics import COLUMNS, Judge
from benchmarks.harness.sampling import Counted, Method
from benchmarks.harness.tasks import Problem
from benchmarks.studies import sentences
from benchmarks.studies.sentences import FromDirections, FromSentences, direction_of
from pix2pix_zero_core import MapGuidance
from tiny_zoo.denoiser import TinyZoo

OURS = Pix2PixZero(guidance=MapGuidance(0), fixed_point=0, form="mean by position")


@pytest.fixture(autouse=True)
def small_pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sentences, "POOL", 40)
    sentences.sentence_pool.cache_clear()
    yield
    sentences.sentence_pool.cache_clear()


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("count", [1, 40])
def test_every_picture_has_sentences_of_its_own(model: TinyZoo, problem: Problem, count: int, paired: bool) -> None:
    method = FromSentences("cat2dog", count, paired, OURS)
    together = method(Counted(model), problem)
    alone = torch.cat([method(Counted(model), problem.part(i, 1)) for i in range(2)])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-3)


def test_all_sentences_of_the_pool_give_one_direction(model: TinyZoo, problem: Problem) -> None:
    source, target = sentences.sentence_pool(model, "cat2dog")
    expected = sentences.edit_along((target - source).mean(0), OURS, Counted(model), problem)
    for paired in (True, False):
        edited = FromSentences("cat2dog", 40, paired, OURS)(Counted(model), problem)
        torch.testing.assert_close(edited, expected, rtol=1e-3, atol=1e-3)


def test_a_shipped_direction_edits_as_the_benchmark_does(model: TinyZoo, problem: Problem) -> None:
    torch.testing.assert_close(direction_of(model, "cat2glasses").vector, problem.shifts.mean(0), rtol=1e-4, atol=1e-5)
    edited = FromDirections((("cat2glasses", 1.0),), OURS)(Counted(model), problem)
    torch.testing.assert_close(edited, OURS(Counted(model), problem), rtol=1e-3, atol=1e-3)


def test_results_are_written(model: TinyZoo, problem: Problem, judge: Judge) -> None:
    def cell(task: str, method: Method, label: str) -> Cell:
        return Cell(
            method(Counted(model), problem), dict.fromkeys(COLUMNS, torch.ones(2)), torch.ones(2), torch.ones(2)
        )

    def decode(latents: Tensor) -> Tensor:
        return model.vae.decode(latents).detach().clamp(0, 1)

    bench: Any = SimpleNamespace(cell=cell, decode=decode, judge=judge, split="validation", count=2)
    rows = [sentences.by_count(bench, ["cat2dog"], count, True, OURS) for count in (1, 5)]
    assert [row["sentences"] for row in rows] == [1, 5]
    mixing, columns = sentences.mix(bench, OURS)
    assert [row["edit"] for row in mixing] == ["cat2dog", "cat2glasses", "cat2dog + cat2glasses"]
    for row in mixing:
        assert 0 <= row["all"] <= min(row["cat2dog"], row["cat2glasses"]) <= 1
    assert {len(column) for column in columns.values()} == {2}
    text = sentences.describe({"paired": rows}, mixing, ["cat2dog"])
    assert "| 5 paired sentences |" in text and "| cat2dog + cat2glasses |" in text


def test_the_plot_is_the_same_every_time(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="`python run.py test` installs matplotlib")
    rows = [
        {"sentences": count, "edit_success": 0.5, "intervals": {"edit_success": [0.4, 0.6]}}
        for count in sentences.COUNTS
    ]
    files = [tmp_path / name / "plot.svg" for name in "ab"]
    for file in files:
        file.parent.mkdir()
        sentences.draw({"paired": rows, "independent": rows}, file)
    assert files[0].read_bytes() == files[1].read_bytes() != b""
