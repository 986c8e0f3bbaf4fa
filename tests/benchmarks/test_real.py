"""`python -m benchmarks.real` from end to end: Tiny Zoo's trained model, and random networks that read the pictures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.real.__main__ import main
from benchmarks.real.editing import RECORD, SECONDS
from benchmarks.real.methods import Ours, methods
from benchmarks.real.pie import SIDE
from benchmarks.real.table1 import TableOne
from pix2pix_zero_cli.pictures import read_text
from pix2pix_zero_core.integrations.sentences import EditSentences
from tests.benchmarks.test_real_metrics import lpips_weights, tiny_clip, vit
from tiny_zoo.world import render, sample_scene

METHODS = list(methods(3, 5.0))


@pytest.fixture(scope="module")
def judges(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options that name small random networks."""
    folder = tmp_path_factory.mktemp("judges")
    tiny_clip(folder / "clip")
    torch.manual_seed(0)
    vit(num_hidden_layers=2, patch_size=32).save_pretrained(folder / "dino")
    features, heads = lpips_weights("alexnet")
    torch.save(features | heads, folder / "lpips.pth")
    return ["--clip", str(folder / "clip"), "--dino", str(folder / "dino"), "--lpips", str(folder / "lpips.pth")]


@pytest.fixture(scope="module", autouse=True)
def few_sentences() -> Iterator[None]:
    """Directions of a few sentences, for the sake of time."""
    texts = EditSentences(["a cat", "a drawing of a cat"], ["a dog", "a drawing of a dog"], "cat", "dog")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.real.table1.load_edit", lambda *_: texts)
        yield


def draw_cats(folder: Path, seeds: Sequence[int]) -> None:
    """Draw cats into `pictures`, and masks of them into `masks`."""
    for seed in seeds:
        scene = sample_scene(seed, "validation", animal="cat")
        picture, empty = (np.asarray(render(scene, animal=animal)) for animal in (True, False))
        for name, values in (("pictures", picture), ("masks", (picture != empty).any(-1))):
            (folder / name).mkdir(exist_ok=True)
            Image.fromarray(values).save(folder / name / f"cat{seed}.png")


@pytest.fixture
def cats(tmp_path: Path) -> Path:
    """Two cats."""
    draw_cats(tmp_path, range(2))
    return tmp_path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, judges: list[str]) -> Path:
    """One cat, edited by all methods and measured with masks."""
    folder = tmp_path_factory.mktemp("finished")
    draw_cats(folder, [0])
    assert main(table_one(folder, *judges, "--masks", str(folder / "masks"))) == 0
    return folder


@pytest.fixture
def unfinished(finished: Path, tmp_path: Path) -> Path:
    """The same with another cat that has not been edited."""
    folder = tmp_path / "unfinished"
    shutil.copytree(finished, folder)
    draw_cats(folder, [1])
    return folder


def options(folder: Path, *more: str) -> list[str]:
    """Of a short run."""
    return ["--device", "cpu", "--steps", "3", "--side", "64", "--output", str(folder / "output"), *more]


def table_one(folder: Path, *more: str) -> list[str]:
    """Options of a short run on the pictures of a folder."""
    return options(folder, "--pictures", str(folder / "pictures"), "--edit", "cat2dog", *more)


NO_NETWORK = ("--without", "clip", "dino", "lpips")


def table(report: str) -> dict[str, list[str]]:
    """The first table of a report: the first cell of a row -> the others; the head has the key ""."""
    lines = [line for line in report.splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[1:] for row in reversed(rows) if len(row) == len(rows[0])}


def test_the_columns_of_table_1_on_a_folder(finished: Path):
    output = finished / "output"
    report = (output / "real.md").read_text("utf-8")
    rows = table(report)
    assert rows[""] == ["n", "CLIP accuracy, %", "background LPIPS", "structure distance", "seconds"]
    assert rows["paper: pix2pix-zero"] == ["", "92.4", "0.182", "0.044", ""]
    assert set(METHODS) <= set(rows)
    for method in METHODS:
        assert rows[method][0] == "1" and all(rows[method])
    assert "cat2dog, 1 pictures" in report and "'a cat' with 'a dog'" in report
    with Image.open(output / "sheet.jpg") as sheet:
        assert sheet.width > len(METHODS) * 192

    content = json.loads((output / "real.json").read_text("utf-8"))
    assert len(content["rows"]) == len(METHODS) and not content["failed"]
    assert content["about"]["settings"]["published"] == {"steps": 3, "cfg": 5.0, "guidance": 0.1}
    assert content["about"]["settings"]["ours"]["edit"]["steps"] == 3
    for row in content["rows"]:
        assert row["clip_acc"] in (0, 1) and row["bg_lpips"] >= 0 and row["structure"] >= 0 and row["seconds"] > 0
    pictures = [np.asarray(Image.open(output / name / "cat0.png")) for name in METHODS]
    assert all(picture.shape == (64, 64, 3) for picture in pictures)
    assert len({picture.tobytes() for picture in pictures}) == len(METHODS)


def test_a_run_goes_on_where_it_was(unfinished: Path, judges: list[str], monkeypatch, capsys):
    measured = list[str]()
    measure = TableOne.measure

    def counted(self, judges, sample, edited):
        measured.append(sample.name)
        return measure(self, judges, sample, edited)

    monkeypatch.setattr(TableOne, "measure", counted)
    given = table_one(unfinished, *judges, "--methods", "unedited", "ours")
    assert main([*given, "--masks", str(unfinished / "masks")]) == 0
    printed = capsys.readouterr().out
    assert "2/2 cat1: ours in" in printed and "cat0" not in printed
    assert measured == ["cat1", "cat1"]
    # Without masks, and with other texts, the same pictures have other figures.
    assert main([*given, "--texts", "a cat", "a zebra"]) == 0
    assert measured[2:] == ["cat0"] * 2 + ["cat1"] * 2


def test_other_settings_are_refused_unless_they_may_replace(finished: Path, tmp_path: Path, capsys):
    folder = shutil.copytree(finished, tmp_path / "copy")
    given = table_one(folder, *NO_NETWORK, "--methods", "ours", "--steps", "4")
    with pytest.raises(SystemExit):
        main(given)
    assert "cat0.png was made with other settings. Choose another folder, or --overwrite" in capsys.readouterr().err
    assert main([*given, "--overwrite"]) == 0
    edited = folder / "output" / "ours" / "cat0.png"
    assert json.loads(read_text(edited, RECORD) or "")["edit"]["steps"] == 4
    assert float(read_text(edited, SECONDS) or "") > 0


def test_a_picture_that_fails_is_listed_and_the_rest_goes_on(unfinished: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(self, editor, picture, caption, direction):
        raise RuntimeError("no such luck")

    monkeypatch.setattr(Ours, "__call__", fail)
    assert main(table_one(unfinished, *NO_NETWORK, "--methods", "unedited", "ours")) == 3
    report = (unfinished / "output" / "real.md").read_text("utf-8")
    assert "## 1 failed" in report and "- ours/cat1.png: RuntimeError: no such luck" in report
    assert [table(report)[method][0] for method in ("unedited", "ours")] == ["2", "1"]


# --------------------------------------------------------------------------------------------------------- PIE-Bench


@pytest.fixture
def pie(tmp_path: Path) -> Path:
    """PIE-Bench's files with two drawn pictures of category 1 and one of 9."""
    folder = tmp_path / "pie"
    entries = {}
    masks = [[100 * SIDE + 50, 200, 101 * SIDE + 50, 200], [0, SIDE * SIDE], [7, 5]]
    for number, (kind, mask) in enumerate(zip("119", masks, strict=True)):
        name = f"{kind}_kind/{number:012d}.jpg"
        path = folder / "annotation_images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        scene = sample_scene(number, "validation", animal="cat")
        Image.fromarray(np.asarray(render(scene))).resize((SIDE, SIDE)).save(path)
        entries[f"{number:012d}"] = {
            "image_path": name,
            "original_prompt": "a drawing of a [cat]",
            "editing_prompt": "a drawing of a [dog]",
            "editing_instruction": "Change the cat to a dog",
            "editing_type_id": kind,
            "blended_word": "cat dog",
            "mask": mask,
        }
    (folder / "mapping_file.json").write_text(json.dumps(entries), encoding="utf-8")
    return folder


def test_pie_bench_in_its_own_units(tmp_path: Path, pie: Path, judges: list[str]):
    assert main(options(tmp_path, *judges, "--pie", str(pie), "--methods", "published", "ours")) == 0
    output = tmp_path / "output"
    rows = table((output / "real.md").read_text("utf-8"))
    assert rows["published: pix2pix-zero (arXiv:2310.01506)"] == ["", "61.7", "20.4", "", "", "", "", "20.5", ""]
    content = json.loads((output / "real.json").read_text("utf-8"))
    assert content["about"]["settings"]["published"]["cfg"] == 7.5
    by_picture = {(row["picture"], row["method"]): row for row in content["rows"]}
    assert len(by_picture) == 3 * 2 and {"published", "ours"} <= set(rows)
    whole = by_picture["1_kind/000000000001", "ours"]
    assert "psnr" not in whole and "lpips" not in whole  # nothing is left of it as background
    part = by_picture["1_kind/000000000000", "ours"]
    assert part["psnr"] == pytest.approx(-10 * np.log10(part["mse"]), abs=1e-3) and 0 < part["ssim"] < 1
    # Ours starts at the prompt that came with the picture, the published run at a caption.
    about = [
        json.loads(read_text(output / m / "1_kind" / f"{0:012d}.png", RECORD) or "") for m in ("ours", "published")
    ]
    assert about[0]["caption"] == "a drawing of a cat" != about[1]["caption"]

    report = (output / "real.md").read_text("utf-8")
    assert "## 1. change object" in report and "## 9. change style" in report
    assert "1_kind" not in report  # only failures name pictures


def test_pie_bench_takes_as_many_of_each_category_as_asked(tmp_path: Path, pie: Path):
    given = options(tmp_path, *NO_NETWORK, "--pie", str(pie), "--methods", "unedited")
    assert main([*given, "--count", "1"]) == 0
    rows = json.loads((tmp_path / "output" / "real.json").read_text("utf-8"))["rows"]
    assert [row["picture"] for row in rows] == ["1_kind/000000000000", "9_kind/000000000002"]
    assert main([*given, "--categories", "9"]) == 0
    assert len(json.loads((tmp_path / "output" / "real.json").read_text("utf-8"))["rows"]) == 1


# -------------------------------------------------------------------------------------------------------- what fails


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--pictures", "{cats}/pictures"], "--edit: is missing"),
        (["--pictures", "{cats}/pictures", "--edit", "cat2moon"], "--edit cat2moon: the edits of this model are"),
        (["--pictures", "{cats}/nowhere", "--edit", "cat2dog"], "--pictures"),
        (["--pictures", "{cats}/pictures", "--edit", "cat2dog", "--masks", "{cats}"], "there is no mask cat0.png"),
        (["--pictures", "{cats}/pictures", "--edit", "cat2dog", "--categories", "1"], "--categories: belongs to --pie"),
        (["--pictures", "{cats}/pictures", "--edit", "cat2dog", "--methods", "x"], "--methods x: the methods are"),
        (["--pictures", "{cats}/pictures", "--edit", "cat2dog", "--side", "65"], "--side"),
        (["--pictures", "{cats}/pictures", "--edit", "cat2dog", "--model", "nowhere"], "--model nowhere: there is no"),
        (["--pie", "{cats}/pictures"], "mapping_file.json cannot be read"),
        (["--pie", "{pie}", "--edit", "cat2dog"], "--edit: belongs to --pictures"),
        (["--pie", "{pie}", "--categories", "3"], "has no picture of the categories 3"),
    ],
)
def test_options_that_cannot_be_used_are_named(
    given: list[str], said: str, cats: Path, pie: Path, capsys: pytest.CaptureFixture[str]
):
    filled = [text.format(cats=cats, pie=pie) for text in given]
    with pytest.raises(SystemExit) as end:
        main(options(cats, *NO_NETWORK, *filled))
    assert end.value.code == 2 and said in capsys.readouterr().err


def test_pie_bench_files_that_are_not_as_published_are_refused(tmp_path: Path, pie: Path, capsys):
    given = options(tmp_path, *NO_NETWORK, "--pie", str(pie))
    shutil.rmtree(pie / "annotation_images" / "9_kind")
    with pytest.raises(SystemExit):
        main(given)
    assert "000000000002.jpg is missing" in capsys.readouterr().err
    (pie / "mapping_file.json").write_text('{"1": {"image_path": "a.jpg"}}')
    with pytest.raises(SystemExit):
        main(given)
    assert "is not as PIE-Bench has it (KeyError('editing_type_id'))" in capsys.readouterr().err
