"""The table and the plot of students beside their teacher, of made-up figures; and the pictures they learn from."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from benchmarks.quality.distilled import COLUMNS, TEACHER_PSNR, Teacher, describe, differing, draw
from pix2pix_zero_cli.main import main
from pix2pix_zero_cli.pictures import read_picture
from pix2pix_zero_core import EditSettings
from tiny_zoo import draw_scenes
from tiny_zoo.world import sample_scene

FIGURES = dict.fromkeys((*COLUMNS, TEACHER_PSNR), (0.9, 0.8, 1.0))
TRAINING = {"pairs": 900, "filtered_out": 100, "training_steps": 4000, "training_seconds": 1200.0}


def test_the_table_says_how_each_student_came_about() -> None:
    shared = {"edit": "cat2dog", "n": 100, **FIGURES}
    now = EditSettings(steps=50)
    taught = asdict(now) | {"cfg_start": 0.3, "guidance": asdict(now.guidance) | {"end": 0.5}}
    assert differing(asdict(now), now) == []
    others = {"taught_otherwise": differing(taught, now), "training": TRAINING}
    rows = [
        shared | {"who": "teacher", "seconds": 5.0},
        shared | {"who": "student", "seconds": 0.0125, "faster": 400.0, **others},
    ]
    text = describe(rows, {"date": "2026-11-28", "steps": 50})
    teacher, student = (line for line in text.splitlines() if line.startswith("| cat2dog"))
    assert teacher.endswith("|  | 5.0000 |  |") and student.endswith("| 0.90 (0.80 – 1.00) | 0.0125 | 400 |")  # noqa: RUF001
    assert "900 pairs, 100 more left out" in text and "4000 steps in 20 minutes" in text
    assert "; its own teacher had cfg_start 0.3 for 0.2, guidance end 0.5 for 0.6.\n" in text
    assert "100 of each edit; the teacher with the nodes' defaults, 50 steps" in text


def test_the_teacher_edits_as_the_command_does(tmp_path: Path) -> None:
    picture = Path(__file__).parents[2] / "web" / "examples" / "cat.png"
    assert (
        main(["edit", str(picture), "--edit", "cat2dog", "--steps", "2", "--device", "cpu", "--output", str(tmp_path)])
        == 0
    )
    (made,) = tmp_path.rglob("*.png")
    taught = Teacher.load("cat2dog", 2)(read_picture(picture, None))
    torch.testing.assert_close(taught, read_picture(made, None), atol=0.51 / 255, rtol=0)


def test_quality_against_pairs_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="`python run.py test` installs matplotlib")
    rows = [{"pairs": count, **FIGURES} for count in (100, 300, 1000)]
    draw(rows, FIGURES, tmp_path / "study.svg")
    first = (tmp_path / "study.svg").read_bytes()
    draw(rows, FIGURES, tmp_path / "study.svg")
    assert (tmp_path / "study.svg").read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == ["study.svg"]


def test_scenes_to_learn_from_are_those_of_the_training_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn: list[object] = []
    render = draw_scenes.render
    monkeypatch.setattr(draw_scenes, "render", lambda scene: drawn.append(scene) or render(scene))
    for count in ("1", "2"):
        monkeypatch.setattr(sys, "argv", ["draw", str(tmp_path), "--count", count, "--show", "animal=cat"])
        draw_scenes.main()
    assert drawn == [sample_scene(seed, "train", animal="cat") for seed in range(2)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000.png", "00001.png"]
    monkeypatch.setattr(sys, "argv", ["draw", str(tmp_path), "--show", "animal=fish"])
    with pytest.raises(SystemExit):
        draw_scenes.main()
    assert "animal=fish: the attributes are animal" in capsys.readouterr().err
