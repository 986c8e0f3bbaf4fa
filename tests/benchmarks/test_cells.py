"""Work that is finished is kept, and taken up only where nothing that it depends on has changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.harness import cells
from benchmarks.harness.cells import Bench, Cell
from benchmarks.harness.metrics import COLUMNS, EXCESS, MEASURED, Drawn, Judge
from benchmarks.harness.sampling import Counted
from benchmarks.harness.tasks import Problem
from tiny_zoo.denoiser import TinyZooFlow


@dataclass(frozen=True)
class Nothing:
    """A method that edits nothing, and says how often it was asked."""

    setting: float = 0.0
    calls: list[int] = field(default_factory=list, repr=False)

    def __call__(self, denoise: Counted, problem: Problem) -> Tensor:
        self.calls.append(len(problem.x0))
        denoise.rows += 7 * len(problem.x0)
        return problem.x0


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def pose(model: object, task: str, split: str, count: int, steps: int) -> Problem:
        x0 = torch.randn(count, 4, 16, 16, generator=torch.Generator().manual_seed(0))
        texts = torch.zeros(count, 77, 128)
        return Problem(
            x0, x0, texts, texts, torch.zeros(count, 77, 77), texts, texts[:1], steps, torch.zeros(count, 77).bool()
        )

    def measure(edited: Tensor, scenes: Drawn, task: Any) -> dict[str, Tensor]:
        assert len(edited) == len(scenes.source) == len(scenes.true_pictures)
        return {column: edited.mean((1, 2, 3)) + i for i, column in enumerate(MEASURED)}

    judge = type("Fake", (), {"measure": staticmethod(measure)})
    monkeypatch.setattr(Judge, "load", lambda device: judge)
    monkeypatch.setattr(cells, "pose_problem", pose)

    def bench(count: int = 3, **settings: Any) -> Bench:
        return Bench("validation", count, 2, **{"batch": 2, "folder": tmp_path / "cells", **settings})

    return bench


def same(a: Cell, b: Cell) -> bool:
    if a.devices != b.devices:
        return False
    tensors = [(a.latents, b.latents), (a.rows, b.rows), (a.seconds, b.seconds)]
    tensors += [(a.columns[column], b.columns[column]) for column in COLUMNS]
    return all(torch.equal(x, y) for x, y in tensors)


def test_a_cell_is_done_once(make) -> None:
    method = Nothing()
    first = make().cell("cat2dog", method, "nothing")
    again = make().cell("cat2dog", method, "nothing")
    assert method.calls == [2, 1]
    assert same(first, again)
    assert first.rows.tolist() == [7.0, 7.0, 7.0]
    assert first.latents.shape == (3, 4, 16, 16)


def test_an_interrupted_cell_goes_on(make, monkeypatch: pytest.MonkeyPatch) -> None:
    method = Nothing()
    make().true_edits("cat2dog")
    save, saved = Cell.save, []

    def save_once(cell: Cell, path: Path) -> None:
        if saved:
            raise KeyboardInterrupt
        saved.append(path)
        save(cell, path)

    monkeypatch.setattr(Cell, "save", save_once)
    with pytest.raises(KeyboardInterrupt):
        make().cell("cat2dog", method, "nothing")
    monkeypatch.setattr(Cell, "save", save)
    make().cell("cat2dog", method, "nothing")
    assert method.calls == [2, 1, 1]


def test_more_scenes_add_to_those_that_are_done(make) -> None:
    method = Nothing()
    make(count=2).cell("cat2dog", method, "nothing")
    make(count=4).cell("cat2dog", method, "nothing")
    assert method.calls == [2, 2]


def test_other_settings_tasks_or_weights_are_other_work(make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method = Nothing()
    make(count=2).cell("cat2dog", method, "nothing")
    make(count=2).cell("dog2cat", method, "nothing")
    make(count=2).cell("cat2dog", Nothing(0.5, method.calls), "nothing")
    probe = tmp_path / "probe"
    probe.write_bytes(b"another")
    monkeypatch.setattr(cells, "PROBE", probe)
    make(count=2).cell("cat2dog", method, "nothing")
    assert method.calls == [2, 2, 2, 2]


def test_other_columns_are_other_work(make, monkeypatch: pytest.MonkeyPatch) -> None:
    method = Nothing()
    make(count=2).cell("cat2dog", method, "nothing")
    monkeypatch.setattr(cells, "COLUMNS", (*MEASURED, "excess_structure"))
    make(count=2).cell("cat2dog", method, "nothing")
    assert method.calls == [2, 2]


def test_cells_hold_the_excess_over_the_true_edits_of_their_scenes(make) -> None:
    bench = make()
    truth, edited = bench.true_edits("cat2dog"), bench.cell("cat2dog", Nothing(), "nothing")
    assert len(truth.latents) == 3
    for name, plain in EXCESS.items():
        assert (truth.columns[name] == 0).all()
        torch.testing.assert_close(edited.columns[name], edited.columns[plain] - truth.columns[plain])


def test_another_number_of_scenes_changes_nothing_else(make) -> None:
    method, bench = Nothing(), make(count=2)
    assert len(bench.problem("cat2dog").x0) == 2
    more = bench.with_count(4)
    assert len(more.cell("cat2dog", method, "nothing").latents) == 4 == len(more.problem("cat2dog").x0)
    assert len(bench.cell("cat2dog", method, "nothing").latents) == 2 == len(bench.problem("cat2dog").x0)
    assert method.calls == [2, 2]


def test_another_model_edits(make, flow: TinyZooFlow, tmp_path: Path) -> None:
    parts = {"first_stage_model.": flow.vae, "text_encoders.clip_l.transformer.": flow.encoder}
    parts["model.diffusion_model."] = flow.transformer
    weights = {prefix + name: tensor for prefix, part in parts.items() for name, tensor in part.state_dict().items()}
    path = tmp_path / "flow.safetensors"
    with pytest.raises(FileNotFoundError, match=r"no .*flow.safetensors: write it with"):
        make(model="flow", checkpoint=path)
    save_file(weights, path)
    unet, bench = make(), make(model="flow", checkpoint=path)
    for loaded in (bench, bench.loader(), bench.with_count(4)):
        assert isinstance(loaded.model, TinyZooFlow) and loaded.weights == bench.weights != unet.weights
    assert torch.equal(bench.model.encode_text(["a cat"]), flow.encode_text(["a cat"]))
    method = Nothing()
    unet.cell("cat2dog", method, "nothing")
    bench.cell("cat2dog", method, "nothing")
    assert method.calls == [2, 1, 2, 1]


def test_an_unfinished_file_is_nothing(make, tmp_path: Path) -> None:
    method = Nothing()
    make(count=2).cell("cat2dog", method, "nothing")
    (finished,) = (tmp_path / "cells").glob("*-Nothing-*")
    finished.rename(finished.with_suffix(".1.partial"))
    make(count=2).cell("cat2dog", method, "nothing")
    assert method.calls == [2, 2]


def test_parts_say_on_which_devices_they_were_made(make) -> None:
    values = torch.zeros(1)
    cpu, gpu = (Cell(values, dict.fromkeys(COLUMNS, values), values, values, (name,)) for name in ("cpu", "a GPU"))
    assert Cell.join([cpu, gpu, cpu]).devices == ("a GPU", "cpu")
    assert make(count=2).cell("cat2dog", Nothing(), "nothing").devices == ("cpu",)


def test_a_cell_without_its_first_scenes(make) -> None:
    whole = make(count=3).cell("cat2dog", Nothing(), "nothing")
    rest = whole.after(2)
    assert torch.equal(rest.latents, whole.latents[2:]) and len(rest.rows) == len(rest.seconds) == 1
    assert all(torch.equal(rest.columns[column], whole.columns[column][2:]) for column in COLUMNS)


def test_true_edits_are_kept_too(make, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make().true_edits("cat2dog")
    monkeypatch.setattr(cells, "draw_scenes", None)
    assert same(make().true_edits("cat2dog"), first)
