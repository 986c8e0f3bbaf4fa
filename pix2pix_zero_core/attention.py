"""Cross-attention probabilities, and the distance between two sets of them.

    M = softmax(q k^T / sqrt(d)),        L_xa = sum over layers of mean over heads of sum over (query, token) of
                                               (M_edited - M_reference)^2

Parmar et al. (2023), arXiv:2302.03027, section 3.3. Always in float32 or better, always one number a sample.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .types import AttentionMaps, at_least_float32


def attention_probabilities(q: Tensor, k: Tensor, scale: float | None = None) -> Tensor:
    """Compute attention probabilities in float32 or better.

    Args:
        q: queries, (B, h, N, d).
        k: keys, (B, h, L, d).
        scale: factor of the scores; None is d^-0.5.

    Returns:
        probabilities, (B, h, N, L), float32 or better, each row sums to 1.
    """
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    return torch.softmax(at_least_float32(q) @ at_least_float32(k).mT * factor, dim=-1)


def map_distance(maps: AttentionMaps, reference: AttentionMaps) -> Tensor:
    """Compare cross-attention maps: L_xa, the loss of cross-attention guidance.

    Args:
        maps: of the edited branch, layer -> (B, h, N, L).
        reference: of the reference branch; same layers, same shapes.

    Returns:
        sum over layers of the mean over heads of the summed squared difference, one a sample, (B,).

    Raises:
        ValueError: no maps at all, other layers, or other shapes (another number of tokens, say).
    """
    return torch.stack([distance.sum(-1) for distance in _layer_distances(maps, reference)]).sum(0)


def mean_map_distance(maps: AttentionMaps, reference: AttentionMaps) -> Tensor:
    """Compare cross-attention maps by a number that does not grow with the model or the image.

    Args:
        maps: of the edited branch, layer -> (B, h, N, L).
        reference: of the reference branch; same layers, same shapes.

    Returns:
        mean over layers, queries and heads of the squared distance of two rows of probabilities, one a sample, (B,),
        between 0 and 2.

    Raises:
        ValueError: as :func:`map_distance`.
    """
    return torch.stack([distance.mean(-1) for distance in _layer_distances(maps, reference)]).mean(0)


def _layer_distances(maps: AttentionMaps, reference: AttentionMaps) -> Iterator[Tensor]:
    """Yield for every layer the mean over heads of the squared distance of each query's probabilities, (B, N)."""
    if not maps and not reference:
        raise ValueError(
            "The denoiser returned no cross-attention maps. Guidance needs a model with cross-attention to the text; "
            "for any other set the guidance strength to 0."
        )
    if maps.keys() != reference.keys():
        differing = sorted(map(str, maps.keys() ^ reference.keys()))
        raise ValueError(
            f"Edited and reference branch recorded different attention layers: {', '.join(differing)} in only one of "
            "them. Both branches must run through the same model with the same patches."
        )
    for layer, probabilities in maps.items():
        expected = reference[layer]
        if probabilities.shape != expected.shape:
            remedy = "Both branches must run through the same model, with latents of the same shape."
            if probabilities.shape[:-1] == expected.shape[:-1]:
                remedy = (
                    "Source and target text must take the same number of tokens: shorten the longer prompt to the same "
                    "number of 77-token chunks, or make the target by applying an edit direction to the source."
                )
            raise ValueError(
                f"Attention maps of layer {layer} have shape {tuple(probabilities.shape)} in the edited and "
                f"{tuple(expected.shape)} in the reference branch (batch, heads, queries, tokens). {remedy}"
            )
        yield (at_least_float32(probabilities) - at_least_float32(expected)).square().sum(-1).mean(1)
