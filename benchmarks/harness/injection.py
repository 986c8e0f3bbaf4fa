"""What attention takes over from another run, in a model that runs.

Maps of Tiny Zoo's UNet are replaced, as prompt-to-prompt (arXiv:2208.01626) and others need, or values of the flow
transformer, as RF-Edit (arXiv:2411.04746) does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import SequenceMatcher
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pix2pix_zero_core.attention import attention_probabilities
from tiny_zoo.captions import END, START, words
from tiny_zoo.mmdit import MMDiT

Rewrite = Callable[[Tensor], Tensor]
"""Attention probabilities (B, h, N, L) -> those that the layer shall use, same shape."""


@contextmanager
def rewritten_attention(unet: nn.Module, rewrites: Mapping[str, Rewrite]) -> Iterator[None]:
    """Make attention layers use other probabilities while the block lasts.

    Args:
        unet: its self-attention layers are named "...attn1", its cross-attention layers "...attn2".
        rewrites: end of the layers' names -> what becomes of their probabilities.
    """
    hooks = [
        layer.register_forward_hook(_attend_by(rewrite))
        for name, layer in unet.named_modules()
        for end, rewrite in rewrites.items()
        if name.endswith(end)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _attend_by(rewrite: Rewrite) -> Callable[[Any, tuple[Tensor, Tensor], Tensor], Tensor]:
    def attend(layer: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> Tensor:
        x, context = inputs
        projected = layer.to_q(x), layer.to_k(context), layer.to_v(context)
        q, k, v = (t.unflatten(-1, (layer.heads, -1)).transpose(1, 2) for t in projected)
        return layer.to_out((rewrite(attention_probabilities(q, k)) @ v).transpose(1, 2).flatten(2))

    return attend


@contextmanager
def kept_values(transformer: MMDiT, blocks: int) -> Iterator[list[Tensor]]:
    """Keep the values of the picture's tokens in the last blocks of a forward pass, (B, N, F) of each block."""
    values: list[Tensor] = []

    def keep(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        values.append(output.chunk(3, dim=-1)[2])

    with _hooked(transformer, [keep] * blocks):
        yield values


@contextmanager
def given_values(transformer: MMDiT, values: Sequence[Tensor]) -> Iterator[None]:
    """Give the picture's tokens other values in the last blocks, as `kept_values` kept them, while the block lasts."""

    def giving(kept: Tensor) -> Callable[[nn.Module, tuple[Tensor], Tensor], Tensor]:
        return lambda layer, inputs, output: torch.cat([*output.chunk(3, dim=-1)[:2], kept], dim=-1)

    with _hooked(transformer, [giving(kept) for kept in values]):
        yield


@contextmanager
def _hooked(transformer: MMDiT, hooks: Sequence[Callable[..., Tensor | None]]) -> Iterator[None]:
    """See what the last blocks project the picture's tokens to: queries, keys and values."""
    layers: list[Any] = list(transformer.joint_blocks)[len(transformer.joint_blocks) - len(hooks) :]
    handles = [layer.x_block.attn["qkv"].register_forward_hook(hook) for layer, hook in zip(layers, hooks, strict=True)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def prompt_to_prompt(way: float, cross: float, own: float, alignment: Tensor) -> dict[str, Rewrite]:
    """Choose what the second half of a batch takes over from the first at one step.

    Args:
        way: share of the steps that are done.
        cross: share in which cross-attention maps are taken over, token by token.
        own: share in which self-attention maps are taken over.
        alignment: of each pair of texts, (B, L, L), as :func:`align_tokens` makes it.

    Returns:
        what `rewritten_attention` takes; empty once both shares are done.
    """
    rewrites: dict[str, Rewrite] = {}
    if way < cross:
        rewrites["attn2"] = partial(take_over_aligned, alignment=alignment)
    if way < own:
        rewrites["attn1"] = take_over
    return rewrites


def take_over(values: Tensor, branches: int = 2) -> Tensor:
    """Give all branches of a batch, (branches * B, ...), the values of the first, such as its maps."""
    return values.chunk(branches)[0].repeat(branches, *[1] * (values.ndim - 1))


def take_over_aligned(maps: Tensor, alignment: Tensor) -> Tensor:
    """Give every token of the second half's texts the map of its counterpart in the first half's.

    Args:
        maps: (2B, h, N, L).
        alignment: of each pair of texts, (B, L, L), as :func:`align_tokens` makes it.

    Returns:
        maps, (2B, h, N, L); tokens without a counterpart keep their own.
    """
    source, target = maps.chunk(2)
    own = (alignment.sum(1) == 0)[:, None, None]
    return torch.cat([source, torch.where(own, target, source @ alignment[:, None])])


def align_tokens(source: str, target: str, length: int = 77) -> Tensor:
    """Find for every token of a text its counterpart in another.

    Words that both have belong together, and so do words that replace others at the same place: one to one where they
    are as many, else each takes an equal part of all of them, as in the published code. What fills up the texts belongs
    together by position.

    Args:
        source: a text of Tiny Zoo.
        target: another.
        length: tokens L of both.

    Returns:
        shares, (L, L): source token by target token. The column of a token without a counterpart is 0.
    """
    a, b, changes = _compared(source, target)
    shares = torch.zeros(length, length)
    for _, i, i_end, j, j_end in changes:
        if i_end - i == j_end - j:
            shares[range(i, i_end), range(j, j_end)] = 1
        elif j_end > j:
            shares[i:i_end, j:j_end] = 1 / (j_end - j)
    for j in range(len(b), length):
        shares[max(j, len(a)), j] = 1
    return shares


def new_words(source: str, target: str, length: int = 77) -> Tensor:
    """Find the tokens of a text that another has not.

    Args:
        source: the other, of Tiny Zoo.
        target: a text.
        length: tokens L.

    Returns:
        which of the target's tokens are new, (L,).
    """
    new = torch.zeros(length, dtype=torch.bool)
    for same, _, _, j, j_end in _compared(source, target)[2]:
        new[j:j_end] = same != "equal"
    return new


def _compared(source: str, target: str) -> tuple[list[str], list[str], Sequence[tuple[str, int, int, int, int]]]:
    """The tokens of two texts, and what leads from these to those, as difflib tells it."""
    a, b = ([START, *words(text), END] for text in (source, target))
    return a, b, SequenceMatcher(None, a, b, autojunk=False).get_opcodes()
