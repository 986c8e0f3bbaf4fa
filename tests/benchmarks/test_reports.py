"""Choices and tables made of cells with known figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from benchmarks.harness.cells import Cell
from benchmarks.harness.metrics import COLUMNS
from benchmarks.harness.models import MODELS, ModelName
from benchmarks.harness.report import Row, contact_sheet, contrast, markdown, summarise
from benchmarks.harness.rows import METHODS, TUNED, tuned_methods
from benchmarks.harness.settings import adjust, combine, read_settings, settings_file
from benchmarks.harness.tasks import PAPER_TASKS, TASKS
from benchmarks.quality import tune
from benchmarks.quality.__main__ import BOTH_WAYS, SCENES, collect, describe
from benchmarks.quality.tradeoff import STYLES, curves, draw
from benchmarks.quality.tune import ROUNDS, choose, finals, renewed
from benchmarks.studies.sweep import SWEEPS

CURVES = curves()


def cell(value: float, count: int = 4) -> Cell:
    values = torch.linspace(value, 2 * value, count)
    return Cell(torch.zeros(count, 4, 16, 16), dict.fromkeys(COLUMNS, values), torch.full((count,), 10 * value), values)


@pytest.mark.parametrize("model", MODELS)
def test_every_method_is_tried_with_as_many_settings(model: ModelName) -> None:
    grids, refined = ROUNDS[model]
    assert grids.keys() == METHODS[model].keys() == refined.keys()
    assert {len(grid) for grid in grids.values()} == {9}
    for name, grid in grids.items():
        assert len({repr(adjust(METHODS[model][name], settings)) for settings in grid}) == 9


@pytest.mark.parametrize(("model", "name"), [(model, name) for model in MODELS for name in METHODS[model]])
def test_the_second_round_begins_with_any_choice_of_the_first_and_adds_five(model: ModelName, name: str) -> None:
    shares = {"strength", "cross", "own", "skip", "features", "attention", "share", "stop", "eta", "gamma"}
    for choice in ROUNDS[model][0][name]:
        tried = finals(name, choice, model)
        assert tried[0] == choice and len(tried) == 6
        assert len({repr(adjust(METHODS[model][name], settings)) for settings in tried}) == 6
        for settings in tried:
            for share in shares & settings.keys():
                assert 0 < settings[share] <= 1


@pytest.mark.parametrize("model", [model for model in MODELS if settings_file(model).is_file()])
def test_the_settings_in_use_are_among_those_of_the_two_rounds(model: ModelName) -> None:
    chosen, grids = read_settings(model), ROUNDS[model][0]
    assert chosen["settings"].keys() == chosen["first_round"].keys() == grids.keys()
    for name, settings in chosen["settings"].items():
        assert chosen["first_round"][name] in grids[name]
        assert settings in finals(name, chosen["first_round"][name], model)


def test_settings_that_nobody_chose_are_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr("benchmarks.harness.settings.settings_file", lambda model: tmp_path / f"{model}.json")
    with pytest.raises(FileNotFoundError, match=r"flow.json: choose settings with .*tune --model flow"):
        read_settings("flow")


@pytest.mark.parametrize("name", SWEEPS)
def test_every_sweep_fits_the_method(name: str) -> None:
    assert len({repr(adjust(TUNED["ours"], settings)) for settings in SWEEPS[name]}) == len(SWEEPS[name])


@pytest.mark.parametrize("curve", CURVES)
def test_every_curve_fits_its_method(curve: str) -> None:
    name, points = CURVES[curve]
    assert len({repr(adjust(TUNED[name], settings)) for settings in points}) == len(points)


def test_every_method_has_a_curve_and_every_curve_a_style_of_its_own() -> None:
    assert {name for name, _ in CURVES.values()} == TUNED.keys()
    assert CURVES.keys() == STYLES.keys() and len(set(STYLES.values())) == len(STYLES)


def test_settings_are_combined() -> None:
    assert combine({"a": (1, 2), "b.c": ("x",)}) == [{"a": 1, "b.c": "x"}, {"a": 2, "b.c": "x"}]


def test_the_choice_is_the_truest_picture_among_edits_that_succeed() -> None:
    rows = [
        {"n": 64, "edit_success": success, "truth_psnr": psnr}
        for success, psnr in ((0.80, 30.0), (0.94, 21.0), (0.96, 22.0), (0.98, 20.0))
    ]
    assert choose(rows) == 2


def test_the_first_round_needs_no_choice_of_an_earlier_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def found(bench: object, tried: Sequence[tuple[str, str, object]], *others: object) -> list[Row]:
        return [summarise(name, label, [cell(0.5)]) for name, label, _ in tried]

    for module in ("harness.settings", "quality.tune"):
        monkeypatch.setattr(f"benchmarks.{module}.settings_file", lambda model="unet": tmp_path / f"{model}.json")
    monkeypatch.setattr(tune, "try_all", found)
    monkeypatch.setattr(tune, "RESULTS", tmp_path)
    monkeypatch.setattr("sys.argv", ["tune"])
    tune.main()
    chosen = read_settings()
    assert chosen["settings"] == chosen["first_round"] == {name: grid[0] for name, grid in tune.GRIDS.items()}
    assert (tmp_path / "tuning.md").read_text(encoding="utf-8").count("**") == 2 * len(tune.GRIDS)


def test_methods_that_are_tuned_again_keep_their_place_in_the_table() -> None:
    before = markdown(["method", "settings"], [["a", "1"], ["a", "2"], ["b", "3"], ["c", "4"]])
    now = markdown(["method", "settings"], [["b", "5"], ["b", "6"], ["d", "7"]])
    both = markdown(["method", "settings"], [["a", "1"], ["a", "2"], ["b", "5"], ["b", "6"], ["c", "4"], ["d", "7"]])
    assert renewed(before, now) == both


def test_a_row_has_the_columns_that_readers_expect() -> None:
    row = summarise("cat2dog", "ours", [cell(1.0)])
    measured = "edit_success attributes_kept pose_error bg_lpips structure_distance truth_psnr"
    excess = "excess_structure excess_lpips"
    assert list(row)[:13] == ["task", "method", "n", *measured.split(), *excess.split(), "unet_rows", "seconds"]
    assert set(row["intervals"]) == {*COLUMNS, "structure_off"}
    assert (row["n"], row["edit_success"], row["unet_rows"]) == (4, 1.5, 10.0)
    low, high = row["intervals"]["edit_success"]
    assert 1 < low < 1.5 < high < 2


def test_ours_is_compared_by_differences_and_ratios() -> None:
    row = contrast("cat2dog", "sdedit", [cell(1.0)], [cell(2.0)])
    assert row["edit_success"][0] == pytest.approx(-1.5)
    assert row["bg_lpips"] == pytest.approx([0.5, 0.5, 0.5])
    assert row["excess_structure"][0] == row["excess_lpips"][0] == pytest.approx(-1.5)  # by nothing to divide
    assert row["unet_rows"] == pytest.approx([0.5, 0.5, 0.5])


def test_results_hold_every_row_and_the_means_over_tasks() -> None:
    methods = ("ddim_word_swap", "ours")
    cells = {task: {method: cell(1.0 + i) for method in methods} for i, task in enumerate(TASKS)}
    cells["cat2dog"]["ours_without_guidance"] = cell(1.0)
    results = collect(cells, {task: cell(1.0) for task in TASKS})
    assert [(row["task"], row["method"]) for row in results["rows"]] == [
        (task, method) for task in TASKS for method in cells[task]
    ]
    paper, everything = (row for row in results["means"] if row["method"] == "ours")
    assert paper["edit_success"] == pytest.approx(1.5 * (1 + 2 + 3 + 4) / 4) and paper["n"] == 4 * len(PAPER_TASKS)
    assert everything["edit_success"] == pytest.approx(1.5 * sum(range(1, 9)) / 8)
    tuned_on = {"scenes": 8, "settings_tried": 12, "weights": "a"}
    about = {"date": "today", "steps": 50, "devices": ["cpu"], "weights": "a", "settings": {"tuned_on": tuned_on}}
    about["model"] = "unet"
    text = describe(results, about)
    assert all(f"## {task}\n" in text for task in TASKS)
    assert "tune again" not in text and "tune again" in describe(results, about | {"weights": "b"})
    assert json.loads(json.dumps(results)) == results


def test_the_reverse_tasks_have_rows_of_the_papers() -> None:
    models: tuple[ModelName, ...] = ("unet", "flow")
    known = [tuned_methods(read_settings(model)["settings"], model).keys() for model in models]
    assert set(BOTH_WAYS) < known[0] | known[1]
    assert all({"ours", "ours_by_default", "flowedit"} < names & set(BOTH_WAYS) for names in known)
    assert {"official", "p2p"} < known[0] and {"rf_inversion", "rf_solver", "fireflow"} < known[1]


def test_the_papers_tasks_have_the_most_scenes() -> None:
    assert dict(SCENES) == {task: 100 if task in PAPER_TASKS else 40 for task in TASKS}


def test_without_all_tasks_there_is_no_mean_over_them() -> None:
    assert collect({"dog2cat": {"ours": cell(1.0)}}, {})["means"] == []


def test_a_contact_sheet_has_a_column_a_name() -> None:
    sheet = contact_sheet({name: torch.rand(3, 3, 128, 128) for name in ("source", "ours")})
    assert sheet.size == (256, 3 * 128 + 20)


def test_many_columns_of_a_contact_sheet_go_on_below() -> None:
    pictures = {str(i): torch.full((3, 3, 128, 128), i / 10) for i in range(10)}
    sheet = contact_sheet(pictures, across=4)
    assert sheet.size == (4 * 128, 3 * (3 * 128 + 20))
    shown = sheet.convert("RGB").getpixel((128 + 64, 2 * (3 * 128 + 20) + 20 + 64))
    assert shown == (round(0.9 * 255),) * 3


def test_the_plot_is_the_same_for_the_same_figures(tmp_path) -> None:
    pytest.importorskip("matplotlib", reason="`python run.py test` installs matplotlib")
    points = [{"structure_distance": 0.1 * i, "bg_lpips": 0.3 * i, "edit_success": 0.2 * i} for i in range(4)]
    measured = dict.fromkeys(CURVES, points)
    for name in ("a.svg", "b.svg"):
        (tmp_path / name[0]).mkdir()
        draw(measured, tmp_path / name[0] / "plot.svg")
    one, two = ((tmp_path / folder / "plot.svg").read_bytes() for folder in "ab")
    assert one == two and b"ours" in one
