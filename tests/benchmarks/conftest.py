"""A model with the shipped weights, two scenes to edit in a few steps, and a judge without pretrained networks."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from benchmarks.harness.cells import CHECKPOINT
from benchmarks.harness.metrics import Judge
from benchmarks.harness.tasks import Problem, pose_problem
from tiny_zoo.denoiser import TinyZoo, TinyZooFlow
from tiny_zoo.mmdit import MMDiT
from tiny_zoo.probe import load_probe

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model() -> TinyZoo:
    return TinyZoo.load(CHECKPOINT)


@pytest.fixture(scope="session")
def problem(model: TinyZoo) -> Problem:
    return pose_problem(model, "cat2glasses", "validation", 2, steps=3)


@pytest.fixture(scope="session")
def flow(model: TinyZoo) -> TinyZooFlow:
    """The flow model with random weights, none of which is zero, in its transformer."""
    torch.manual_seed(0)
    transformer = MMDiT()
    for parameter in transformer.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    return TinyZooFlow(model.vae, model.encoder, transformer)


@pytest.fixture(scope="session")
def flow_problem(flow: TinyZooFlow) -> Problem:
    return pose_problem(flow, "cat2glasses", "validation", 2, steps=3)


@pytest.fixture(scope="session")
def judge() -> Judge:
    def distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a - b).abs().mean((1, 2, 3))

    return SimpleNamespace(probe=load_probe(), lpips=distance, structure=distance, measure=None)  # type: ignore
