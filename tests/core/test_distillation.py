"""A distilled edit: its network, its training on made-up pairs, and its file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pix2pix_zero_core import EditDirection
from pix2pix_zero_core.distillation import Critic, DistilledEdit, Generator, Pairs, Training, TrainingSettings
from pix2pix_zero_core.distillation.training import FEWEST, pick, rate

QUICK = TrainingSettings(steps=8, batch=2, width=4, blocks=1)


def toy_pairs(count: int = 12, side: int = 32) -> Pairs:
    """Smooth colours, and the same with red and blue exchanged where there is much green."""
    generator = torch.Generator().manual_seed(0)
    source = torch.rand(count, 3, 4, 4, generator=generator)
    source = torch.nn.functional.interpolate(source, size=(side, side), mode="bilinear")
    edited = torch.where(source[:, 1:2] > 0.5, source.flip(1), source)
    return Pairs(*((pictures * 255).round().to(torch.uint8) for pictures in (source, edited)))


def student(settings: TrainingSettings = QUICK, steps: int = 3) -> DistilledEdit:
    training = Training(toy_pairs(), settings)
    for _ in range(steps):
        training.advance()
    return DistilledEdit(
        training.averaged.folded(), "cat2dog", "cat", "dog", (32, 32), "encoder", "{}", "MIT", training.figures()
    )


def pictures(*shape: int) -> Tensor:
    return torch.rand(*shape, 3, generator=torch.Generator().manual_seed(1))


# --- networks


@pytest.mark.parametrize("size", [(16, 16), (37, 51), (1, 130), (1, 1)])
def test_a_picture_of_any_size_is_edited(size: tuple[int, int]):
    edited = student().apply(pictures(2, *size))
    assert edited.shape == (2, *size, 3)
    assert edited.min() >= 0 and edited.max() <= 1


def test_the_usual_network_is_small():
    generator = Generator().folded()
    count = sum(parameter.numel() for parameter in generator.state_dict().values())
    assert count <= 5_000_000 and 2 * count <= 4_000_000


def test_normalizations_are_worked_into_the_layers():
    training = Training(toy_pairs(), QUICK)
    for _ in range(3):
        training.advance()
    folded = training.averaged.folded()
    assert not [name for name in folded.state_dict() if "norm" in name]
    x = pictures(2, 32, 48).movedim(-1, 1)
    assert torch.allclose(folded(x), training.averaged(x), atol=1e-5)


def test_the_critic_scores_patches():
    scores = Critic(4)(torch.zeros(2, 3, 32, 32), torch.zeros(2, 3, 32, 32))
    assert scores.shape == (2, 1, 2, 2)


@pytest.mark.parametrize("changed", [{"width": 3}, {"blocks": 17}])
def test_a_network_out_of_range_is_refused(changed: dict[str, int]):
    with pytest.raises(ValueError, match=f"{next(iter(changed))} is"):
        Generator(**changed)


# --- applying


def test_strength_leads_from_the_picture_to_the_edit():
    edit, picture = student(), pictures(1, 20, 20)
    whole = edit.apply(picture)
    assert not torch.equal(whole, picture)
    assert torch.equal(edit.apply(picture, 0.0), picture)
    assert torch.allclose(edit.apply(picture, 0.25), 0.75 * picture + 0.25 * whole)


def test_a_picture_has_the_same_alone_and_in_a_batch():
    edit, batch = student(), pictures(3, 24, 40)
    alone = torch.cat([edit.apply(picture[None]) for picture in batch])
    assert torch.allclose(edit.apply(batch), alone, atol=1e-5)


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_a_strength_out_of_range_is_refused(strength: float):
    with pytest.raises(ValueError, match="strength is"):
        student().apply(pictures(1, 16, 16), strength)


def test_what_is_no_picture_is_refused():
    with pytest.raises(ValueError, match="shape"):
        student().apply(torch.zeros(1, 3, 16, 16))


# --- training


def test_a_student_learns_and_its_figures_tell():
    training = Training(toy_pairs(40), TrainingSettings(steps=90, batch=4, width=8, blocks=1, lr=3e-3))
    losses: list[float] = []
    pauses: list[int] = []
    training.run(losses.append, lambda: pauses.append(training.step), every=1e6)
    assert len(losses) == 90 and pauses == [90]
    assert sum(losses[-10:]) < 0.75 * sum(losses[:10])
    figures = training.figures()
    assert figures["held_out_psnr"] > figures["unedited_psnr"] + 3
    assert (figures["pairs"], figures["held_out"], figures["training_steps"]) == (40, 2, 90)
    assert training.samples().shape == (2 * 32, 3 * 32, 3)


def test_pauses_come_every_so_often():
    training, pauses = Training(toy_pairs(), QUICK), list[int]()
    training.run(lambda loss: None, lambda: pauses.append(training.step), every=0)
    assert pauses == list(range(1, QUICK.steps + 1))


@pytest.mark.parametrize("stop", [2, 6])
def test_a_resumed_training_is_as_if_it_had_not_been_stopped(stop: int, tmp_path: Path):
    """Before the critic has a say, and after."""
    whole = Training(toy_pairs(), QUICK)
    whole.run(lambda loss: None, lambda: None)
    first = Training(toy_pairs(), QUICK)
    for _ in range(stop):
        first.advance()
    first.figures(), first.samples()  # looking changes nothing
    first.save(tmp_path / "state.pt")
    torch.manual_seed(99)
    second = Training(toy_pairs(), QUICK)
    second.resume(tmp_path / "state.pt")
    assert second.step == stop
    second.run(lambda loss: None, lambda: None)
    for name in ("generator", "averaged", "critic"):
        expected, found = (getattr(training, name).state_dict() for training in (whole, second))
        assert all(torch.equal(expected[key], found[key]) for key in expected), name
    assert torch.equal(whole.samples(), second.samples())


def test_the_critic_changes_what_is_learned_from_its_step_on():
    with_critic, without = (Training(toy_pairs(), replace(QUICK, adversarial=weight)) for weight in (1.0, 0.0))
    for step in range(QUICK.steps):
        same = all(
            torch.equal(a, b)
            for a, b in zip(with_critic.generator.parameters(), without.generator.parameters(), strict=True)
        )
        assert same == (step <= QUICK.steps // 2)
        with_critic.advance(), without.advance()


@pytest.mark.parametrize(
    ("settings", "pairs", "message"),
    [
        (replace(QUICK, lr=0.001, batch=1), toy_pairs(), r"with batch 2, lr 0\.002\. Go on with that"),
        (replace(QUICK, width=5), toy_pairs(), "with width 4"),
        (QUICK, toy_pairs(13), "on other pairs"),
    ],
)
def test_the_state_of_another_training_is_refused(
    settings: TrainingSettings, pairs: Pairs, message: str, tmp_path: Path
):
    Training(toy_pairs(), QUICK).save(tmp_path / "state.pt")
    with pytest.raises(ValueError, match=message):
        Training(pairs, settings).resume(tmp_path / "state.pt")


def test_what_is_no_state_is_refused(tmp_path: Path):
    path, training = tmp_path / "state.pt", Training(toy_pairs(), QUICK)
    training.save(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"cannot be read .* Delete it to train anew"):
        training.resume(path)
    torch.save({"weights": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="no state of a distillation"):
        training.resume(path)


def test_every_pair_is_taken_once_a_round():
    taken = [place for step in range(10) for place in pick(7, 3, step, seed=0)]
    assert [sorted(taken[i : i + 7]) for i in (0, 7, 14)] == [list(range(7))] * 3
    assert taken[:7] != taken[7:14]
    assert pick(7, 3, 4, seed=0) == taken[12:15]


def test_the_learning_rate_rises_and_falls():
    rates = [rate(step, 100) for step in range(100)]
    assert rates[4] == 1 and max(rates) == 1
    assert rates[:5] == sorted(rates[:5]) and rates[5:] == sorted(rates[5:], reverse=True)
    assert rate(0, 1) == 1


@pytest.mark.parametrize(
    ("source", "edited"),
    [
        (torch.zeros(9, 3, 32, 32), torch.zeros(9, 3, 32, 32)),
        (torch.zeros(9, 3, 32, 32, dtype=torch.uint8), torch.zeros(9, 3, 32, 33, dtype=torch.uint8)),
        (torch.zeros(9, 3, 31, 32, dtype=torch.uint8), torch.zeros(9, 3, 31, 32, dtype=torch.uint8)),
        (torch.zeros(FEWEST - 1, 3, 32, 32, dtype=torch.uint8),) * 2,
    ],
)
def test_what_are_no_pairs_is_refused(source: Tensor, edited: Tensor):
    with pytest.raises(ValueError, match="Pairs: "):
        Pairs(source, edited)


@pytest.mark.parametrize("changed", [{"steps": 0}, {"lr": 0.2}, {"adversarial_from": -0.1}, {"decay": float("nan")}])
def test_a_setting_out_of_range_is_refused(changed: dict[str, float]):
    with pytest.raises(ValueError, match=f"{next(iter(changed))} is"):
        replace(QUICK, **changed)


def test_another_precision_is_refused():
    with pytest.raises(ValueError, match='precision is \'float16\'; it must be "float32" or "bfloat16"'):
        replace(QUICK, precision="float16")


# --- file


def test_a_file_holds_the_edit_and_all_that_is_known_of_it(tmp_path: Path):
    edit, path = student(), tmp_path / "cat2dog.safetensors"
    edit.save(path)
    read = DistilledEdit.load(path)
    for name in ("name", "source", "target", "size", "encoder", "teacher", "licence", "figures"):
        assert getattr(read, name) == getattr(edit, name)
    assert read.describe() == "cat2dog (cat to dog), learned from 12 pairs of 32 x 32"
    picture = pictures(1, 33, 20)
    assert torch.allclose(read.apply(picture), edit.apply(picture), atol=5e-3)
    assert not any(weight.requires_grad for weight in read.generator.parameters())
    half = DistilledEdit.load(path, torch.bfloat16).apply(picture)
    assert half.dtype == torch.float32 and torch.allclose(half, edit.apply(picture), atol=0.05)
    with pytest.raises(FileExistsError, match="exists"):
        edit.save(path)


def damaged(path: Path, **changed: str) -> Path:
    """A file with other metadata, or another weight."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata, weights = file.metadata(), load_file(path)
    if weight := changed.pop("weight", None):
        name = next(iter(weights))
        weights[name] = {"nan": weights[name] * float("nan"), "shape": weights[name][:-1], "int": weights[name].int()}[
            weight
        ]
    merged = metadata | changed
    save_file(weights, path, {key: value for key, value in merged.items() if value != "missing"})
    return path


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"format": "pix2pix-zero edit direction"}, "no distilled edit: its metadata says format"),
        ({"version": "9"}, "format version '9'"),
        ({"encoder": "missing"}, "lacks encoder"),
        ({"blocks": "2"}, "does not hold the network that its metadata say"),
        ({"blocks": "99999"}, "does not hold the network .* blocks is 99999"),
        ({"channels": "many"}, "channels is 'many', not a number"),
        ({"figures": "{"}, "figures are no JSON"),
        ({"figures": "[]"}, "no JSON object"),
        ({"weight": "nan"}, "NaN or Inf"),
        ({"weight": "shape"}, "does not hold the network"),
        ({"weight": "int"}, r"of the type torch\.int32"),
    ],
)
def test_a_damaged_file_is_refused(changed: dict[str, str], message: str, tmp_path: Path):
    student().save(tmp_path / "it.safetensors")
    with pytest.raises(ValueError, match=message):
        DistilledEdit.load(damaged(tmp_path / "it.safetensors", **changed))


def test_a_corrupt_or_foreign_file_is_refused(tmp_path: Path):
    path = tmp_path / "it.safetensors"
    with pytest.raises(FileNotFoundError, match="no distilled edit"):
        DistilledEdit.load(path)
    student().save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        DistilledEdit.load(path)
    EditDirection(torch.ones(2, 2), None, "cat", "dog", "encoder", (1, 1)).save(path, overwrite=True)
    with pytest.raises(ValueError, match="Choose a file of pix2pix-zero distill"):
        DistilledEdit.load(path)


def test_a_student_that_diverged_is_not_written(tmp_path: Path):
    edit = student()
    edit.generator.out.weight.fill_(float("inf"))
    with pytest.raises(ValueError, match="NaN or Inf"):
        edit.save(tmp_path / "it.safetensors")
    assert not list(tmp_path.iterdir())
