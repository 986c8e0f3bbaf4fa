from __future__ import annotations

import pytest
import torch

from pix2pix_zero_core.attention import attention_probabilities, map_distance, mean_map_distance


def random_maps(generator, *shapes):
    return {i: torch.rand(shape, generator=generator).softmax(-1) for i, shape in enumerate(shapes)}


def test_probabilities_equal_torch_attention(generator):
    q, k = torch.randn(2, 3, 10, 8, generator=generator), torch.randn(2, 3, 7, 8, generator=generator)
    probabilities = attention_probabilities(q, k)
    assert probabilities.shape == (2, 3, 10, 7)
    assert torch.allclose(probabilities.sum(-1), torch.ones(2, 3, 10))
    v = torch.randn(2, 3, 7, 8, generator=generator)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    assert torch.allclose(probabilities @ v, expected, atol=1e-6)


def test_scale_replaces_the_default(generator):
    q, k = torch.randn(2, 1, 2, 5, 4, generator=generator)
    assert torch.allclose(attention_probabilities(q, k, 0.5), attention_probabilities(q, k))
    assert not torch.allclose(attention_probabilities(q, k, 1.0), attention_probabilities(q, k))


def test_half_precision_is_promoted(generator):
    q, k = torch.randn(2, 1, 2, 5, 4, generator=generator).bfloat16()
    assert attention_probabilities(q, k).dtype == torch.float32
    maps = {0: torch.rand(1, 2, 5, 7, generator=generator).bfloat16()}
    assert map_distance(maps, {0: torch.zeros(1, 2, 5, 7)}).dtype == torch.float32


def test_distance_is_the_written_sum(generator):
    shapes = [(2, 3, 10, 7), (2, 4, 5, 7)]
    maps, reference = random_maps(generator, *shapes), random_maps(generator, *shapes)
    for b in range(2):
        total, mean = 0.0, 0.0
        for layer, (_, heads, queries, tokens) in enumerate(shapes):
            squared = sum(
                (maps[layer][b, h, n, t] - reference[layer][b, h, n, t]).item() ** 2
                for h in range(heads)
                for n in range(queries)
                for t in range(tokens)
            )
            total += squared / heads
            mean += squared / heads / queries / len(shapes)
        assert map_distance(maps, reference)[b].item() == pytest.approx(total, rel=1e-5)
        assert mean_map_distance(maps, reference)[b].item() == pytest.approx(mean, rel=1e-5)


def test_equal_maps_have_no_distance(generator):
    maps = random_maps(generator, (2, 3, 10, 7))
    assert map_distance(maps, maps).tolist() == [0, 0]


def test_mean_distance_of_disjoint_attention_is_two():
    maps, reference = torch.zeros(2, 1, 3, 16, 7)
    maps[..., 0], reference[..., 1] = 1, 1
    assert mean_map_distance({"a": maps, "b": maps}, {"a": reference, "b": reference}).item() == 2


def test_gradient_is_correct(generator):
    q = torch.randn(2, 2, 6, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    k = torch.randn(2, 2, 3, 4, generator=generator, dtype=torch.float64)
    reference = {0: torch.rand(2, 2, 6, 3, generator=generator, dtype=torch.float64).softmax(-1)}
    assert torch.autograd.gradcheck(lambda q: map_distance({0: attention_probabilities(q, k)}, reference), q)


@pytest.mark.parametrize("distance", [map_distance, mean_map_distance])
def test_mismatches_say_what_to_do(generator, distance):
    maps = random_maps(generator, (1, 2, 5, 77))
    with pytest.raises(ValueError, match=r"no cross-attention maps.*set the guidance strength to 0"):
        distance({}, {})
    with pytest.raises(ValueError, match=r"different attention layers: mid in only one.*same model"):
        distance({**maps, "mid": maps[0]}, maps)
    with pytest.raises(ValueError, match=r"different attention layers: 0 in only one"):
        distance({}, maps)
    with pytest.raises(ValueError, match=r"\(1, 2, 5, 77\).*\(1, 2, 5, 154\).*same number of tokens: shorten"):
        distance(maps, random_maps(generator, (1, 2, 5, 154)))
    with pytest.raises(ValueError, match=r"\(1, 2, 5, 77\).*\(2, 2, 5, 77\).*latents of the same shape\.$"):
        distance(maps, random_maps(generator, (2, 2, 5, 77)))
