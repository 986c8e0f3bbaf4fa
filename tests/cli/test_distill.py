"""Distilling an edit on Tiny Zoo, and applying it: with few steps, tiny pictures, and a judge that is made up."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pix2pix_zero_cli import distill
from pix2pix_zero_cli.main import main
from pix2pix_zero_cli.model import DirectionOptions, ModelOptions
from pix2pix_zero_cli.pictures import read_picture, read_text
from pix2pix_zero_core.distillation import DistilledEdit, Training, TrainingSettings

EXAMPLES = Path(__file__).resolve().parents[2] / "web" / "examples"
NAMES = ("cat", "dog", "glasses", "horse", "oil", "zebra")


@pytest.fixture(scope="module", autouse=True)
def made_once() -> Iterator[None]:
    """The model and its direction are made once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        for kind, name in ((ModelOptions, "load"), (DirectionOptions, "build")):
            patch.setattr(kind, name, once(getattr(kind, name)))
        yield


def once(make: Callable[..., Any]) -> Callable[..., Any]:
    made: list[Any] = []
    return lambda *given: made[0] if made else made.append(make(*given)) or made[0]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for name in NAMES:
        shutil.copy(EXAMPLES / f"{name}.png", folder)
    return folder


@pytest.fixture(scope="module")
def pairs(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work folder of a distillation that has made its pairs, of which the judge does not see that of the zebra."""
    work, seen = tmp_path_factory.mktemp("work"), iter(NAMES)

    def judge(captioner: Any, images: Any, questions: Any) -> torch.Tensor:
        return torch.tensor([-1.0 if next(seen) == "zebra" else 3.0])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pix2pix_zero_cli.distill.judge", judge)
        with pytest.raises(SystemExit):
            main(command(pictures, work.parent / "never.safetensors", work, "--min-pairs", "6"))
    return work


@pytest.fixture
def work(pairs: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pairs, tmp_path / "cat2dog_work"))


def command(pictures: Path, output: Path, work: Path, *more: str) -> list[str]:
    teacher = ["--edit", "cat2dog", "--steps", "2", "--caption", "a cat", "--size", "64"]
    student = ["--training-steps", "6", "--batch", "2", "--width", "4", "--blocks", "1", "--device", "cpu"]
    paths = ["--pictures", str(pictures), "--output", str(output), "--work", str(work)]
    return ["distill", *paths, *teacher, *student, "--min-pairs", "4", "--json", *more]


def rows(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def refusal(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2
    return " ".join(capsys.readouterr().err.split())


def test_pairs_in_which_the_edit_shows_become_a_file(
    pictures: Path, work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    output = tmp_path / "cat2dog.safetensors"
    assert main(command(pictures, output, work)) == 0
    *skipped, summary, figures = rows(capsys)
    assert [row["status"] for row in skipped] == ["skipped"] * 6 and summary["skipped"] == 6
    assert (figures["pictures"], figures["filtered_out"], figures["pairs"]) == (6, 1, 5)
    assert figures["output"] == str(output) and figures["training_steps"] == 6
    distilled = DistilledEdit.load(output)
    assert (distilled.name, distilled.source, distilled.target, distilled.size) == ("cat2dog", "cat", "dog", (64, 64))
    assert distilled.encoder and "tiny_zoo" in distilled.licence
    teacher = json.loads(distilled.teacher)
    assert (teacher["model"], teacher["blip"], teacher["steps"]) == ("tiny_zoo", "tiny_zoo", 2)
    assert dict(distilled.figures) == {name: value for name, value in figures.items() if name != "output"}
    with Image.open(work / "samples.png") as samples:
        assert samples.size == (3 * 64, 64)
    assert "exists; choose another name" in refusal(capsys, command(pictures, output, work))


def test_every_option_of_the_training_comes_where_it_belongs():
    parser = argparse.ArgumentParser()
    distill.add_training(parser)
    given = "--training-steps 5 --batch 3 --lr 0.01 --width 8 --blocks 2 --adversarial 0.1 --precision bfloat16"
    expected = TrainingSettings(5, 3, 0.01, 8, 2, adversarial=0.1, precision="bfloat16")
    assert distill.training_settings(parser.parse_args(given.split())) == expected


def test_what_is_said_of_the_licence_stands_in_the_file(pictures: Path, work: Path, tmp_path: Path):
    output = tmp_path / "cat2dog.safetensors"
    assert main(command(pictures, output, work, "--licence", "for the tests alone")) == 0
    assert DistilledEdit.load(output).licence == "for the tests alone"


def test_a_work_folder_among_the_pictures_is_none_of_them(
    pictures: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    shutil.copytree(pictures, tmp_path, dirs_exist_ok=True)
    work = Path(shutil.copytree(pairs, tmp_path / "cat2dog_work"))
    assert main(command(tmp_path, tmp_path / "cat2dog.safetensors", work, "--recursive")) == 0
    assert rows(capsys)[-1]["pictures"] == len(NAMES)


def test_a_training_that_was_stopped_goes_on_as_if_it_had_not_been(
    pictures: Path, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    other = shutil.copytree(work, tmp_path / "other")
    assert main(command(pictures, tmp_path / "whole.safetensors", work)) == 0

    advance = Training.advance

    def interrupted(training: Training) -> float:
        if training.step == 4:
            raise KeyboardInterrupt
        return advance(training)

    monkeypatch.setattr(Training, "advance", interrupted)
    stopped = command(pictures, tmp_path / "stopped.safetensors", other, "--minutes", "0")
    assert main(stopped) == 130
    assert not (tmp_path / "stopped.safetensors").exists()
    monkeypatch.undo()
    assert main(stopped) == 0
    whole, found = (DistilledEdit.load(tmp_path / f"{name}.safetensors") for name in ("whole", "stopped"))
    weights = whole.generator.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in found.generator.state_dict().items())
    assert whole.figures["held_out_psnr"] == found.figures["held_out_psnr"]


def test_a_training_of_other_settings_is_refused_unless_it_may_be_replaced(
    pictures: Path, work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    output = tmp_path / "it.safetensors"
    assert main(command(pictures, output, work)) == 0
    output.unlink()
    changed = command(pictures, output, work, "--batch", "3")
    said = refusal(capsys, changed)
    assert "--work: " in said and "is of a training with batch 2. Go on with that" in said
    assert main([*changed, "--overwrite"]) == 0
    assert DistilledEdit.load(output).figures["training"]["batch"] == 3
    said = refusal(capsys, command(pictures, tmp_path / "other.safetensors", work, "--cfg", "2"))
    assert "--work: " in said and "made with other settings" in said


def test_pairs_of_other_pictures_of_the_same_names_are_not_taken(
    pictures: Path, work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    others = Path(shutil.copytree(pictures, tmp_path / "others"))
    shutil.copy(pictures / "dog.png", others / "cat.png")
    call = command(others, tmp_path / "it.safetensors", work)
    said = refusal(capsys, call)
    assert "--work: " in said and "cat_cat2dog_g0.2_s1.25.png was made of another picture" in said

    (others / "cat.png").write_bytes(b"no picture")
    assert main([*call, "--overwrite"]) == 3, "what cannot be read has no pair, whatever was made before"
    assert rows(capsys)[-1]["pairs"] == 4


@pytest.mark.parametrize("lr", ["0.1", "0.002"])
def test_a_training_that_diverges_names_the_learning_rate(
    lr: str,
    pictures: Path,
    work: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """Whether it is the difference that shows it, or the weights at the end."""
    advance, output = Training.advance, tmp_path / "it.safetensors"

    def diverging(training: Training) -> float:
        found = advance(training)
        for weight in training.averaged.parameters():
            weight.data.fill_(float("nan"))
        return float("nan") if lr == "0.1" else found

    monkeypatch.setattr(Training, "advance", diverging)
    said = refusal(capsys, command(pictures, output, work, "--lr", lr))
    how = "at step 6 the difference is nan" if lr == "0.1" else f"nothing is written to --output {output}"
    assert f"--lr {float(lr):g}: the training has diverged ({how}" in said and "Lower it" in said
    assert (work / "training.pt").exists() is (lr != "0.1") and not output.exists()


def test_an_output_that_appears_meanwhile_is_not_replaced(
    pictures: Path, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    output, advance = tmp_path / "it.safetensors", Training.advance
    monkeypatch.setattr(Training, "advance", lambda training: output.write_text("theirs") and advance(training))
    assert f"--output: {output} exists. Choose another name" in refusal(capsys, command(pictures, output, work))
    assert output.read_text() == "theirs"


def test_a_work_folder_that_cannot_be_one_is_named(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    work, output = tmp_path / "a_file", tmp_path / "it.safetensors"
    work.touch()
    assert f"--work {work}: no folder that can be written" in refusal(capsys, command(pictures, output, work))
    work = Path(shutil.copytree(pictures, tmp_path / "both"))
    assert f"--work {work}: is a folder of pictures that" in refusal(capsys, command(work, output, work))
    call = command(work / "pairs", output, work)
    shutil.copytree(pictures, work / "pairs")
    assert f"--work {work / 'pairs'}: is a folder of pictures that" in refusal(capsys, call)
    assert "argument --pictures: '' is no path" in refusal(capsys, [*command(pictures, output, work), "--pictures", ""])


def test_too_few_pairs_are_counted_out(
    pictures: Path, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    output = tmp_path / "it.safetensors"
    said = refusal(capsys, command(pictures, output, work, "--min-pairs", "15"))
    assert "BLIP sees the edit in 5 of 6 edited pictures, and 15 are wanted (--min-pairs): 10 more" in said
    assert "At that rate 12 more pictures give them" in said
    assert not output.exists() and not (work / "training.pt").exists()

    monkeypatch.setattr("pix2pix_zero_cli.distill.judge", lambda *given: torch.tensor([-1.0]))
    one = command(pictures / "cat.png", output, tmp_path / "none")
    assert "in 0 of 1 edited pictures, and 4 are wanted (--min-pairs): 4 more. Raise --dir" in refusal(capsys, one)


@pytest.mark.parametrize(
    ("output", "said"),
    [("it.pt", "must end in .safetensors"), ("none/it.safetensors", "there is no folder")],
)
def test_an_output_that_cannot_be_written_is_refused_first(
    pictures: Path, tmp_path: Path, output: str, said: str, capsys: pytest.CaptureFixture[str]
):
    assert said in refusal(capsys, command(pictures, tmp_path / output, tmp_path / "work"))
    assert not list(tmp_path.iterdir())


# ----------------------------------------------------------------------------------------------------------- apply


@pytest.fixture(scope="module")
def distilled(pictures: Path, pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("distilled")
    work = shutil.copytree(pairs, folder / "work")
    assert main(command(pictures, folder / "cat2dog.safetensors", Path(work))) == 0
    return folder / "cat2dog.safetensors"


def test_a_folder_is_edited_at_once_and_a_second_call_skips_what_is_finished(
    pictures: Path, distilled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    call = ["apply", str(pictures), "--distilled", str(distilled), "--output", str(tmp_path), "--json"]
    call += ["--device", "cpu"]
    assert main(call) == 0
    *_, summary = rows(capsys)
    assert summary["done"] == 6 and {path.name for path in tmp_path.iterdir()} == {f"{n}_cat2dog.png" for n in NAMES}
    expected = DistilledEdit.load(distilled).apply(read_picture(pictures / "cat.png", None))[0]
    with Image.open(tmp_path / "cat_cat2dog.png") as made:
        np.testing.assert_array_equal(np.array(made), (expected * 255).round().to(torch.uint8).numpy())
    assert main(call) == 0
    assert rows(capsys)[-1]["skipped"] == 6
    assert "made with other settings" in refusal(capsys, [*call, "--strength", "0.5"])
    others = Path(shutil.copytree(pictures, tmp_path / "others"))
    shutil.copy(pictures / "dog.png", others / "cat.png")
    call[1] = str(others)
    assert "cat_cat2dog.png was made of another picture" in refusal(capsys, call)
    assert main([*call, "--overwrite"]) == 0
    assert rows(capsys)[-1] == {"done": 1, "skipped": 5, "failed": 0, "unreadable": 0, "left_out": 0}


def test_strength_0_is_the_picture(pictures: Path, distilled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    call = ["apply", str(pictures / "cat.png"), "--distilled", str(distilled), "--output", str(tmp_path)]
    assert main([*call, "--strength", "0", "--size", "72x64"]) == 0
    expected = read_picture(pictures / "cat.png", (72, 64))
    assert torch.equal(read_picture(tmp_path / "cat_cat2dog.png", None), expected)
    assert read_text(tmp_path / "cat_cat2dog.png", "pix2pix-zero")


def test_what_is_no_distilled_edit_is_refused(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    call = ["apply", str(pictures), "--distilled"]
    assert "There is no distilled edit at" in refusal(capsys, [*call, str(tmp_path / "none.safetensors")])
    (tmp_path / "it.safetensors").write_bytes(b"it")
    assert "not a readable safetensors file" in refusal(capsys, [*call, str(tmp_path / "it.safetensors")])
    (direction,) = (EXAMPLES.parents[1] / "tiny_zoo" / "directions").glob("cat2dog.safetensors")
    assert "no distilled edit: its metadata says format" in refusal(capsys, [*call, str(direction)])
