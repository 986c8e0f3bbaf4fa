"""Trainings can be stopped, resumed and timed, and matrices of one shape are updated as each would be alone."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tiny_zoo import training
from tiny_zoo.training import Muon, Run, one_cycle, orthogonal


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(training, "RUNS", tmp_path)
    return tmp_path


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 12))


def taught(run: Run, until: int) -> nn.Module:
    """Teach a network to give back what it is given, up to a step of its run."""

    def batch_of(step: int) -> tuple[Tensor, ...]:
        if step == until:
            raise KeyboardInterrupt
        return (torch.randn(8, 12, generator=torch.Generator().manual_seed(step)),)

    def loss_of(x: Tensor) -> Tensor:
        return (run.model(x) - x).square().mean()

    with contextlib.suppress(KeyboardInterrupt):
        run.train(batch_of, loss_of, lambda _: "", every=5)
    return run.averaged


def test_resumed_is_uninterrupted(runs: Path) -> None:
    whole = taught(Run("whole", network(), 0.01, 20), 20)
    taught(Run("parts", network(), 0.01, 20), 10)
    resumed = taught(Run("parts", network(), 0.01, 20), 20)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    assert sorted(path.name for path in runs.iterdir()) == ["parts.pt", "whole.pt"]


def test_a_clock_ends_a_training(runs: Path) -> None:
    run = Run("timed", network(), 0.01, 10**9, seconds=0.2)
    taught(run, 10**9)
    assert 0 < run.step < 10**9
    assert int(torch.load(runs / "timed.pt", weights_only=True)["step"]) == run.step


def test_learning_lowers_the_loss() -> None:
    model = network()
    x = torch.randn(64, 12, generator=torch.Generator().manual_seed(99))
    before = (model(x) - x).square().mean()
    taught(Run("learning", model, 0.02, 300), 300)
    assert (model(x) - x).square().mean() < before / 2


def test_matrices_of_one_shape_are_updated_as_each_alone() -> None:
    torch.manual_seed(1)
    start = [torch.randn(12, 9, 3, 3), torch.randn(12, 9, 3, 3), torch.randn(10, 30)]
    gradients = [torch.randn_like(t) for t in start]

    def moved(numbers: list[int]) -> list[Tensor]:
        parameters = [nn.Parameter(start[n].clone()) for n in numbers]
        for parameter, n in zip(parameters, numbers, strict=True):
            parameter.grad = gradients[n]
        Muon(parameters, lr=0.1).step()
        return [p.detach() for p in parameters]

    for n, together in enumerate(moved([0, 1, 2])):
        torch.testing.assert_close(together, moved([n])[0], rtol=0, atol=2e-3)  # bfloat16 sums in another order


def test_orthogonal_brings_singular_values_near_one() -> None:
    torch.manual_seed(2)
    values = torch.linalg.svdvals(orthogonal(torch.randn(3, 20, 50)))
    assert float(values.min()) > 0.5
    assert float(values.max()) < 1.5


def test_the_schedule_rises_and_falls() -> None:
    rates = [one_cycle(step, step / 1000, 1.0) for step in range(1001)]
    assert rates.index(max(rates)) in range(150, 250)
    assert math.isclose(rates[-1], 0.01)
