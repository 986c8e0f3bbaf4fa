"""Intervals that cover what they should, and comparisons that are paired."""

from __future__ import annotations

import pytest
import torch

from benchmarks.harness.bootstrap import compare, draw_means, interval


def test_an_interval_holds_the_true_mean_as_often_as_it_says() -> None:
    generator = torch.Generator().manual_seed(1)
    covered = 0
    for _ in range(200):
        values = torch.randn(50, generator=generator)
        _, low, high = interval(draw_means([values], draws=400))
        covered += low < 0 < high
    assert 0.89 < covered / 200 < 0.99


def test_the_estimate_is_the_mean_over_tasks_whatever_their_sizes() -> None:
    samples = [torch.tensor([1.0, 3.0]), torch.tensor([10.0, 10.0, 10.0, 10.0])]
    estimate, low, high = interval(draw_means(samples))
    assert estimate == pytest.approx(6.0)
    assert low == pytest.approx(5.5) and high == pytest.approx(6.5)


def test_tasks_with_the_same_scenes_are_no_more_sure_than_one() -> None:
    values = torch.randn(40, generator=torch.Generator().manual_seed(2))
    alone, twice = interval(draw_means([values])), interval(draw_means([values, values]))
    assert twice == pytest.approx(alone, abs=1e-6)
    other = torch.randn(40, generator=torch.Generator().manual_seed(3))
    _, low, high = interval(draw_means([values, other]))
    assert high - low < alone[2] - alone[1]


def test_a_constant_shift_between_methods_is_certain() -> None:
    a = torch.randn(40, generator=torch.Generator().manual_seed(2))
    estimate, low, high = compare([a + 0.5], [a], torch.sub)
    assert estimate == pytest.approx(0.5, abs=1e-5)
    assert high - low < 1e-5


def test_a_ratio_is_that_of_the_means() -> None:
    a, b = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 4.0, 6.0])
    assert compare([a], [b], torch.div) == pytest.approx((0.5, 0.5, 0.5))
