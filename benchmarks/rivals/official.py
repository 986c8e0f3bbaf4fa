"""The published implementation of pix2pix-zero, transcribed literally: what it computes, in its order, at its cost.

Written anew from github.com/pix2pixzero/pix2pix-zero at commit 16e5c1d, without its autoencoder and text encoder. It is
the yardstick of speed and memory, so nothing is saved that the original spends:

 - attention probabilities are written out in every layer, self-attention too, and stay on their modules;
 - the reference pass samples the whole trajectory with classifier-free guidance, two rows a step, and keeps the
   cross-attention maps of all steps;
 - both rows of an edited step are differentiated, and the weights of the cross-attention collect gradients that nobody
   reads;
 - the regulariser draws every shift anew and differentiates channel by channel, level by level, draw by draw.

Its mathematics is that of `pix2pix_zero_core.official`, which has the list of departures from the paper; a test
compares the results of both. Latents here are VP, one picture at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import left_as_found

AUTO_CORRELATION, KL = 20.0, 20.0
"""Strengths of the two terms of the regulariser."""

ITERATIONS, DRAWS = 5, 5
"""Iterations of the regulariser, and random shifts in each."""

AttentionMaps = dict[str, Tensor]


class WrittenOutAttention:
    """An attention processor that materialises the probabilities and leaves them on the module."""

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, attention_mask: None = None
    ) -> Tensor:
        """Attend: (B, N, D) and, for cross-attention, (B, L, D') -> (B, N, D); no masks."""
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = (
            attn.head_to_batch_dim(project(x))
            for project, x in ((attn.to_q, hidden_states), (attn.to_k, context), (attn.to_v, context))
        )
        attn.attn_probs = attn.get_attention_scores(q, k)
        mixed = attn.batch_to_head_dim(torch.bmm(attn.attn_probs, v))
        return attn.to_out[1](attn.to_out[0](mixed))


@contextmanager
def prepared(unet: Any) -> Iterator[None]:
    """Change a UNet2DConditionModel as the original does, and leave it as it was."""
    with left_as_found(unet):
        for name, parameter in unet.named_parameters():
            parameter.requires_grad_("attn2" in name)
        unet.set_attn_processor(WrittenOutAttention())
        yield


def auto_correlation_loss(eps: Tensor, shifts: torch.Generator | None) -> Tensor:
    """One random shift a channel and level, the same along both axes; (1, C, H, W) -> a number."""
    loss = torch.zeros((), device=eps.device)
    for channel in range(eps.shape[1]):
        level = eps[0, channel][None, None]
        while True:
            shift = int(torch.randint(1, level.shape[2] // 2, (), generator=shifts))
            for axis in (2, 3):
                loss = loss + (level * torch.roll(level, shifts=shift, dims=axis)).mean() ** 2
            if level.shape[2] <= 8:
                break
            level = F.avg_pool2d(level, kernel_size=2)
    return loss


def kl_loss(eps: Tensor) -> Tensor:
    """Distance of mean and variance from those of white noise; (1, C, H, W) -> a number."""
    mean, variance = eps.mean(), eps.var()
    return variance + mean**2 - 1 - torch.log(variance + 1e-7)


def regularize(eps: Tensor, shifts: torch.Generator | None = None) -> Tensor:
    """Push predicted noise towards white noise by plain gradient steps; (1, C, H, W)."""
    for _ in range(ITERATIONS):
        for _ in range(DRAWS):
            eps = eps - AUTO_CORRELATION / DRAWS * _gradient(lambda e: auto_correlation_loss(e, shifts), eps)
        eps = eps - KL * _gradient(kl_loss, eps)
    return eps


def _gradient(loss: Callable[[Tensor], Tensor], eps: Tensor) -> Tensor:
    leaf = eps.detach().clone().requires_grad_()
    with torch.enable_grad():
        loss(leaf).backward()
    assert leaf.grad is not None
    return leaf.grad


def invert(
    unet: Any, alphas: Tensor, x0: Tensor, source: Tensor, steps: int, shifts: torch.Generator | None = None
) -> Tensor:
    """Walk from a picture to noise.

    Args:
        unet: a prepared UNet2DConditionModel that predicts noise.
        alphas: cumulative alphas of training, (1000,).
        x0: latent of the picture, (1, 4, H, W).
        source: embedding of its caption, (1, L, D).
        steps: nominal number of DDIM steps, of which two are left out.
        shifts: source of the random shifts; None is torch's global one.

    Returns:
        noise, VP, (1, 4, H, W).
    """
    stride, x = len(alphas) // steps, x0
    for t in _timesteps(len(alphas), steps)[::-1][1:-1]:
        with torch.no_grad():
            eps = unet(x, t, encoder_hidden_states=source).sample
        x = _ddim(x, regularize(eps, shifts), alphas[t - 1], alphas[t - 1 + stride])
    return x


def edit(
    unet: Any,
    alphas: Tensor,
    noise: Tensor,
    source: Tensor,
    target: Tensor,
    steps: int,
    *,
    cfg: float = 5.0,
    strength: float = 0.1,
) -> Tensor:
    """Sample the reference and keep its maps, then sample the edit under their guidance.

    Args:
        unet: a prepared UNet2DConditionModel that predicts noise.
        alphas: cumulative alphas of training, (1000,).
        noise: what `invert` returned.
        source: embedding of the caption, (1, L, D); it is the negative as well.
        target: embedding of the edited caption, (1, L, D).
        steps: DDIM steps.
        cfg: scale of classifier-free guidance.
        strength: of cross-attention guidance.

    Returns:
        latent of the edited picture, VP, (1, 4, H, W).
    """
    timesteps, stride = _timesteps(len(alphas), steps), len(alphas) // steps

    def step(x: Tensor, predictions: Tensor, t: int) -> Tensor:
        negative, positive = predictions.chunk(2)
        return _ddim(x, negative + cfg * (positive - negative), alphas[t], alphas[max(t - stride, 0)])

    kept: dict[int, AttentionMaps] = {}
    x, text = noise, torch.cat([source, source])
    for t in timesteps:
        with torch.no_grad():
            predictions = unet(torch.cat([x, x]), t, encoder_hidden_states=text).sample
        kept[t] = {name: maps.detach().cpu() for name, maps in _maps(unet).items()}
        x = step(x, predictions, t)

    x, text = noise, torch.cat([source, target])
    for t in timesteps:
        rows = torch.cat([x, x]).detach().requires_grad_()
        descent = torch.optim.SGD([rows], lr=strength)
        with torch.enable_grad():
            unet(rows, t, encoder_hidden_states=text)
            loss = torch.zeros((), device=x.device)
            for name, maps in _maps(unet).items():
                loss = loss + (maps - kept[t][name].to(x.device)).square().sum((1, 2)).mean(0)
            loss.backward()
        descent.step()
        rows = rows.detach()
        with torch.no_grad():
            predictions = unet(rows, t, encoder_hidden_states=text).sample
        x = step(rows.chunk(2)[0], predictions, t)
    return x


def _maps(unet: Any) -> AttentionMaps:
    return {name: module.attn_probs for name, module in unet.named_modules() if name.endswith("attn2")}


def _timesteps(train_steps: int, steps: int) -> list[int]:
    return [1 + i * (train_steps // steps) for i in reversed(range(steps))]


def _ddim(x: Tensor, eps: Tensor, alpha: Tensor, alpha_next: Tensor) -> Tensor:
    x0 = (x - (1 - alpha).sqrt() * eps) / alpha.sqrt()
    return alpha_next.sqrt() * x0 + (1 - alpha_next).sqrt() * eps
