"""What the columns say of pictures whose worth is known."""

from __future__ import annotations

import pytest
import torch

from benchmarks.harness.metrics import EXCESS, MEASURED, Drawn, Judge, with_excess
from benchmarks.harness.pixels import psnr
from benchmarks.harness.tasks import TASKS, draw_scenes
from tiny_zoo.probe import pose_of
from tiny_zoo.world import POSE_RANGES

TASK = TASKS["cat2dog"]
SOURCE, TRUTH = draw_scenes(TASK, "validation", 12)
DRAWN = Drawn.of(SOURCE, TRUTH)


@pytest.fixture(scope="module")
def perfect(judge: Judge) -> dict[str, torch.Tensor]:
    return Judge.measure(judge, DRAWN.true_pictures, DRAWN, TASK)


def test_the_true_edit_is_as_good_as_can_be(perfect: dict[str, torch.Tensor]) -> None:
    assert tuple(perfect) == MEASURED
    assert all(values.shape == (12,) for values in perfect.values())
    assert perfect["edit_success"].mean() > 0.9
    assert perfect["attributes_kept"].mean() > 0.9
    assert perfect["pose_error"].mean() < 0.2  # what the probe itself is off by
    assert perfect["bg_lpips"].max() == 0
    assert perfect["truth_psnr"].isinf().all()


def test_an_edit_that_does_nothing_keeps_everything_and_fails(judge: Judge, perfect: dict[str, torch.Tensor]) -> None:
    nothing = Judge.measure(judge, DRAWN.source_pictures, DRAWN, TASK)
    assert nothing["edit_success"].mean() < 0.1
    assert nothing["attributes_kept"].mean() > 0.9
    assert nothing["structure_distance"].max() == 0
    assert nothing["bg_lpips"].max() < 1e-3
    assert (nothing["truth_psnr"] < 30).all()


def test_the_excess_is_what_an_edit_changes_beyond_the_true_one(judge: Judge, perfect: dict[str, torch.Tensor]) -> None:
    nothing = Judge.measure(judge, DRAWN.source_pictures, DRAWN, TASK)
    assert all((with_excess(perfect, perfect)[column] == 0).all() for column in EXCESS)
    columns = with_excess(nothing, perfect)
    assert tuple(columns) == (*MEASURED, "excess_structure", "excess_lpips")
    assert torch.equal(columns["excess_structure"], nothing["structure_distance"] - perfect["structure_distance"])
    assert torch.equal(columns["excess_lpips"], nothing["bg_lpips"] - perfect["bg_lpips"])
    assert (columns["excess_structure"] < 0).all()  # it should have changed something


def test_what_happens_on_the_animal_is_not_the_background(judge: Judge) -> None:
    outside = DRAWN.outside
    inside_changed = torch.where(outside, DRAWN.true_pictures, torch.rand(12, 3, 128, 128))
    outside_changed = torch.where(outside, torch.rand(12, 3, 128, 128), DRAWN.true_pictures)
    assert Judge.measure(judge, inside_changed, DRAWN, TASK)["bg_lpips"].max() == 0
    assert Judge.measure(judge, outside_changed, DRAWN, TASK)["bg_lpips"].min() > 0.01


def test_the_background_leaves_out_both_animals() -> None:
    outside = DRAWN.outside
    assert 0.4 < outside.float().mean() < 0.9
    before, after = DRAWN.source_pictures, DRAWN.true_pictures
    assert ((before - after).abs().amax(1, keepdim=True) * outside).max() < 0.05
    assert outside[:, :, 0].all()


def test_a_part_of_what_is_drawn_is_measured_as_in_the_whole(judge: Judge, perfect: dict[str, torch.Tensor]) -> None:
    part = Judge.measure(judge, DRAWN.true_pictures[3:5], DRAWN.part(3, 2), TASK)
    for name, values in part.items():
        torch.testing.assert_close(values, perfect[name][3:5], atol=1e-5, rtol=1e-5)


def test_poses_are_fractions_of_their_ranges() -> None:
    poses = pose_of(SOURCE)
    assert poses.shape == (12, len(POSE_RANGES))
    assert poses.min() >= 0 and poses.max() <= 1


def test_psnr_is_ten_times_the_logarithm_of_the_error() -> None:
    a = torch.zeros(2, 3, 4, 4)
    torch.testing.assert_close(psnr(a, a + torch.tensor([0.1, 0.01]).view(2, 1, 1, 1)), torch.tensor([20.0, 40.0]))
