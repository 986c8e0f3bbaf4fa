"""Trainings can be stopped, resumed and timed; they find the parts that they need; matrices are updated as if alone."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tiny_zoo import train_flow, training
from tiny_zoo.denoiser import TinyZoo
from tiny_zoo.networks import AutoEncoder, UNet
from tiny_zoo.train_decoder import autoencoder
from tiny_zoo.train_flow import Aligned, loss
from tiny_zoo.train_text import Reader
from tiny_zoo.training import CHECKPOINT, Muon, Run, averaged_weights, one_cycle, orthogonal


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


def test_without_a_run_the_shipped_weights_are_taken() -> None:
    shipped = TinyZoo.load(CHECKPOINT)
    own = averaged_weights("unet", UNet()), averaged_weights("text", Reader()).encoder, autoencoder()
    for mine, theirs in zip(own, (shipped.unet, shipped.encoder, shipped.vae), strict=True):
        assert mine.state_dict().keys() == theirs.state_dict().keys()
        for name, weight in theirs.state_dict().items():
            assert torch.equal(mine.state_dict()[name], weight), name


def test_a_run_comes_before_the_shipped_weights(runs: Path) -> None:
    run = Run("unet", UNet(), 0.01, 10)
    run.save()
    found = averaged_weights("unet", UNet()).state_dict()
    assert all(torch.equal(found[name], weight) for name, weight in run.averaged.state_dict().items())


@pytest.mark.parametrize(("anew", "name", "model"), [("vae", "decoder", AutoEncoder), ("text", "unet", UNet)])
def test_shipped_weights_do_not_follow_parts_that_were_trained_anew(
    runs: Path, anew: str, name: str, model: Callable[[], nn.Module]
) -> None:
    (runs / f"{anew}.pt").touch()
    with pytest.raises(
        FileNotFoundError, match=f"does not fit the new {anew}: train it first .* tiny_zoo.train_{name}"
    ):
        averaged_weights(name, model())


def test_a_checkpoint_that_lacks_a_part_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    partial = tmp_path / "partial.safetensors"
    save_file({"first_stage_model.vae_scale": torch.ones(())}, partial)
    monkeypatch.setattr(training, "CHECKPOINT", partial)
    with pytest.raises(ValueError, match=r"partial.safetensors lacks .*train_vae"):
        averaged_weights("vae", AutoEncoder())
    with pytest.raises(FileNotFoundError, match="train_flow"):
        averaged_weights("flow", Aligned())


def test_the_transformer_learns_what_the_unet_sees(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The alignment adds to the loss what the head cannot tell, and nothing once it tells it."""
    monkeypatch.setattr(train_flow, "RUNS", runs)
    torch.manual_seed(0)
    lessons = Pupil(torch.randn(50, 4, 16, 16), torch.randint(0, 9, (50, 1, 77), dtype=torch.uint8))
    encoder = averaged_weights("text", Reader()).encoder
    seen = train_flow.seen_by_unet(lessons, encoder, torch.device("cpu"))  # pyright: ignore[reportArgumentType]
    assert seen.shape == (50, 64, 128)
    assert torch.equal(seen, train_flow.seen_by_unet(lessons, encoder, torch.device("cpu")))  # pyright: ignore[reportArgumentType]

    model, x0, t = Aligned(), lessons.latents[:2], torch.tensor([0.3, 0.8])
    texts = train_flow.read(encoder, lessons.true[:2, 0])
    eps = torch.randn_like(x0)
    plain, aligned = (loss(model, x0, t, eps, *texts, seen[:2], torch.tensor(weight)) for weight in (0.0, 0.5))
    assert plain < aligned < plain + 2 * 0.5
    _, told = model(x0 + t[:, None, None, None] * (eps - x0), 1000 * t, *texts)
    assert loss(model, x0, t, eps, *texts, told.detach(), torch.tensor(0.5)).item() == pytest.approx(
        plain.item(), abs=1e-5
    )


@dataclass
class Pupil:
    latents: Tensor
    true: Tensor
