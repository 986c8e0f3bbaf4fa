"""Plug-and-Play diffusion features (Tumanyan et al., CVPR 2023, arXiv:2211.12572)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from pix2pix_zero_core.edit import euler_step

from ..harness.injection import Rewrite, rewritten_attention, take_over
from ..harness.sampling import Counted, ddim_inversion, guided_by
from ..harness.tasks import Problem

BRANCHES = 3  # the reference, the swapped caption, no text


@dataclass(frozen=True)
class PlugAndPlay:
    """Features and self-attention of the picture's own branch replace those of the edited one in the decoder.

    Of Stable Diffusion's 12 decoder layers the paper takes the residual block of layer 4 (from 0: a third of the way,
    the second one at its resolution) and queries and keys of the self-attention from layer 4 to the last. Tiny Zoo's
    decoder has 4 layers: a third of the way is layer 1, the second of the coarse ones, and self-attention is replaced
    in 1, 2 and 3. Equal queries and keys are equal maps, which is what is replaced here. As in the paper both rows of
    classifier-free guidance get them, and the residual block's features are taken before its skip connection is added.

    The reference is the recorded trajectory of the inversion, as in the authors' implementation in diffusers. They
    invert without a text, here it is the source caption, as for all others; and for real pictures they guide away from
    the source caption at first, less and less up to no text, which is left out here.

    Attributes:
        features: share of the steps in which features are replaced, the paper's tau_f.
        attention: share of the steps in which self-attention is replaced, tau_A.
        cfg: scale of classifier-free guidance against no text.
    """

    features: float = 0.8
    attention: float = 0.5
    cfg: float = 7.5

    @torch.no_grad()
    def __call__(self, denoise: Counted, problem: Problem) -> Tensor:
        """Edit as a `Method`."""
        inversion, unet = ddim_inversion(denoise, problem), denoise.unet
        guided = guided_by(denoise, problem, self.cfg, "empty")
        texts = torch.cat([problem.source, problem.swapped, problem.empty.expand_as(problem.source)])
        x = inversion.noise
        for index, (sigma, sigma_next) in enumerate(pairwise(inversion.sigmas)):
            features, attention = (index < share * problem.steps for share in (self.features, self.attention))
            if features or attention:
                rows = torch.cat([inversion.latent_at(float(sigma)), x, x])
                with injected(unet, features, attention):
                    _, positive, negative = denoise(rows, sigma.repeat(len(rows)), texts).denoised.chunk(BRANCHES)
                denoised = negative + self.cfg * (positive - negative)
            else:
                denoised = guided(x, sigma.repeat(len(x)), problem.swapped).denoised
            x = euler_step(x, denoised, sigma, sigma_next)
        return x


@contextmanager
def injected(unet: Any, features: bool, attention: bool) -> Iterator[None]:
    """Let all branches of a batch share the first one's features and self-attention while the block lasts."""
    layers = range(len(unet.output_blocks) // 3, len(unet.output_blocks))
    share = partial(take_over, branches=BRANCHES)
    rewrites: dict[str, Rewrite] = {
        f"output_blocks.{layer}.1.transformer_blocks.0.attn1": share for layer in layers if attention
    }
    block = unet.output_blocks[layers[0]][0].out_layers
    hooks = [block.register_forward_hook(lambda _layer, _inputs, output: share(output))] if features else []
    try:
        with rewritten_attention(unet, rewrites):
            yield
    finally:
        for hook in hooks:
            hook.remove()
