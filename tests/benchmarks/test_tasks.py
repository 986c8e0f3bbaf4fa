"""The tasks: a word swap says the true edit and nothing else, and no method sees the truth."""

from __future__ import annotations

import random
from dataclasses import fields, replace

import pytest
import torch

from benchmarks.harness.tasks import PAPER_TASKS, TASKS, Problem, draw_scenes, pose_problem, swap_words
from pix2pix_zero_core import EditDirection
from pix2pix_zero_core.integrations.sentences import load_edit, read_edits
from tiny_zoo.captions import caption, read_attributes
from tiny_zoo.compose_directions import FOLDER
from tiny_zoo.denoiser import TinyZoo
from tiny_zoo.world import ATTRIBUTES


def test_there_is_a_direction_for_every_task() -> None:
    assert TASKS.keys() == read_edits(FOLDER).keys()
    assert set(PAPER_TASKS) < TASKS.keys()


@pytest.mark.parametrize("name", TASKS)
def test_the_swapped_caption_describes_the_true_edit(name: str) -> None:
    task = TASKS[name]
    scenes, truth = draw_scenes(task, "validation", 60)
    for seed, (scene, true) in enumerate(zip(scenes, truth, strict=True)):
        text = caption(scene, random.Random(seed), keep=tuple(ATTRIBUTES))
        said = read_attributes(swap_words(text, task.swap))
        for attribute in ATTRIBUTES:
            value = getattr(true, attribute)
            assert said.get(attribute, "none") == value, (text, swap_words(text, task.swap))
        changed = {a for a in ATTRIBUTES if getattr(scene, a) != getattr(true, a)}
        assert changed == set(task.change)


def test_articles_follow_the_swap() -> None:
    to_oil, to_sketch = TASKS["sketch2oil"].swap, TASKS["oil2sketch"].swap
    assert swap_words("a pencil sketch of an orange cat", to_oil) == "an oil painting of an orange cat"
    assert swap_words("an oil picture of a cat", to_sketch) == "a pencil sketch of a cat"


def test_a_caption_without_the_word_is_refused() -> None:
    with pytest.raises(ValueError, match="'a white horse' has none of the phrases cat"):
        swap_words("a white horse", TASKS["cat2dog"].swap)


def test_the_splits_share_no_scene() -> None:
    drawn = [set(draw_scenes(TASKS["cat2dog"], split, 50)[0]) for split in ("validation", "test")]
    assert not drawn[0] & drawn[1]


def test_the_shifts_average_to_the_edit_direction(model: TinyZoo, problem: Problem) -> None:
    texts = load_edit("cat2glasses", FOLDER)
    direction = EditDirection.build(
        lambda sentences: (model.encode_text(sentences), None), *texts[:2], source="cat", target="glasses", encoder="x"
    )
    expected = direction.apply(problem.source, encoder="x")
    torch.testing.assert_close(problem.target(len(problem.shifts)), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(problem.target(0), problem.swapped)
    torch.testing.assert_close(problem.target(0, 0.5), (problem.source + problem.swapped) / 2)


def test_a_direction_may_be_aligned_to_words(problem: Problem) -> None:
    aligned = problem.target(200, form="aligned to words") - problem.source
    assert aligned.any() and not torch.allclose(aligned, problem.target(200) - problem.source)
    torch.testing.assert_close(problem.target(200, 0.5, "aligned to words"), problem.source + aligned / 2)
    with pytest.raises(ValueError, match="has no direction that is aligned to words"):
        replace(problem, aligned=None).target(200, form="aligned to words")


def test_a_part_is_those_pictures(model: TinyZoo, problem: Problem) -> None:
    part = problem.part(1, 5)
    assert torch.equal(part.x0, problem.x0[1:]) and torch.equal(part.shifts, problem.shifts)
    longer = pose_problem(model, "cat2glasses", "validation", 3, steps=3)
    for field in fields(Problem):
        if field.name != "steps":
            torch.testing.assert_close(getattr(longer.part(0, 2), field.name), getattr(problem, field.name))
