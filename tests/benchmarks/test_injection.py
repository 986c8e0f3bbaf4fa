"""Prompt-to-prompt's tools: which tokens belong together, and what a layer does with another's maps."""

from __future__ import annotations

import pytest
import torch

from benchmarks.harness.injection import align_tokens, rewritten_attention, take_over, take_over_aligned
from benchmarks.harness.tasks import Problem
from tiny_zoo.denoiser import TinyZoo


def test_a_swapped_word_takes_the_place_of_the_other() -> None:
    torch.testing.assert_close(align_tokens("a white cat at night", "a white dog at night"), torch.eye(77))


def test_inserted_words_have_no_counterpart_and_shift_the_rest() -> None:
    shares = align_tokens("a cat at night", "a cat wearing glasses at night", length=12)
    counterparts = [column.nonzero().flatten().tolist() for column in shares.T]
    # start a cat | wearing glasses | at night end | filling
    assert counterparts == [[0], [1], [2], [], [], [3], [4], [5], [8], [9], [10], [11]]


def test_left_out_words_leave_their_maps_to_nobody() -> None:
    shares = align_tokens("a cat wearing glasses at night", "a cat at night", length=12)
    assert [column.nonzero().flatten().tolist() for column in shares.T[:6]] == [[0], [1], [2], [5], [6], [7]]
    assert shares[3:5].sum() == 0


def test_words_that_replace_fewer_share_their_maps() -> None:
    shares = align_tokens("a sketch of", "a oil painting of", length=8)
    assert shares[2].tolist() == [0, 0, 0.5, 0.5, 0, 0, 0, 0]
    assert shares[3].tolist() == [0, 0, 0, 0, 1, 0, 0, 0]


def test_maps_are_taken_over_by_the_second_half_only() -> None:
    maps = torch.rand(4, 2, 5, 6)
    assert torch.equal(take_over(maps), torch.cat([maps[:2], maps[:2]]))
    alignment = torch.eye(6).repeat(2, 1, 1)
    alignment[:, 3, 3] = 0
    taken = take_over_aligned(maps, alignment)
    assert torch.equal(taken[:2], maps[:2])
    torch.testing.assert_close(taken[2:, :, :, [0, 1, 2, 4, 5]], maps[:2, :, :, [0, 1, 2, 4, 5]])
    torch.testing.assert_close(taken[2:, :, :, 3], maps[2:, :, :, 3])


def test_rewriting_nothing_changes_nothing(model: TinyZoo, problem: Problem) -> None:
    sigma = torch.full((2,), 3.0)
    plain = model(problem.x0, sigma, problem.source).denoised
    with rewritten_attention(model.unet, {"attn1": lambda maps: maps, "attn2": lambda maps: maps}):
        rewritten = model(problem.x0, sigma, problem.source).denoised
    torch.testing.assert_close(rewritten, plain, rtol=1e-4, atol=1e-4)


def test_layers_are_as_before_after_an_exception(model: TinyZoo, problem: Problem) -> None:
    sigma = torch.full((2,), 3.0)
    plain = model(problem.x0, sigma, problem.source).denoised
    with pytest.raises(RuntimeError, match="stop"), rewritten_attention(model.unet, {"attn1": torch.zeros_like}):
        assert not torch.equal(model(problem.x0, sigma, problem.source).denoised, plain)
        raise RuntimeError("stop")
    assert torch.equal(model(problem.x0, sigma, problem.source).denoised, plain)
