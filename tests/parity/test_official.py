"""official.py against the published algorithm, transcribed literally: VP coordinates, two rows, alphas by index.

Nothing of the core's mathematics is used on the literal side: only torch, the UNet and diffusers' scheduler.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pix2pix_zero_core import Coordinates, official
from pix2pix_zero_core.schedule import ve_to_vp

STEPS = 10
SCALE = 5.0


# --- the literal side


class KeepProbabilities:
    """Attention by explicit probabilities (rows * heads, N, L), left on the module."""

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, **_):
        q, k, v = (
            attn.head_to_batch_dim(projection)
            for projection in (
                attn.to_q(hidden_states), attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states)
            )
        )  # fmt: skip
        attn.probabilities = torch.softmax(torch.bmm(q, k.transpose(1, 2)) * attn.scale, dim=-1)
        return attn.to_out[0](attn.batch_to_head_dim(torch.bmm(attn.probabilities, v)))


def cross_attention(unet):
    return {name: module for name, module in unet.named_modules() if name.endswith("attn2")}


def literal_pair_loss(eps: Tensor, generator: torch.Generator) -> Tensor:
    assert len(eps) == 1
    loss = torch.zeros(())
    for channel in range(eps.shape[1]):
        level = eps[:, channel : channel + 1]
        while True:
            shift = int(torch.randint(1, level.shape[2] // 2, (), generator=generator))
            loss = loss + (level * torch.roll(level, shift, dims=2)).mean() ** 2
            loss = loss + (level * torch.roll(level, shift, dims=3)).mean() ** 2
            if level.shape[2] <= 8:
                break
            level = F.avg_pool2d(level, 2)
    return loss


def literal_kl(eps: Tensor) -> Tensor:
    return eps.var() + eps.mean() ** 2 - 1 - torch.log(eps.var() + 1e-7)


def descend(eps: Tensor, loss_of, step: float) -> Tensor:
    leaf = eps.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss_of(leaf), leaf)
    return (eps - step * gradient).detach()


def predict_eps(tiny, latent: Tensor, t: int) -> Tensor:
    output = tiny.unet(latent, t, encoder_hidden_states=tiny.source).sample
    if tiny.scheduler.config.prediction_type == "epsilon":
        return output
    return tiny.alphas[t].sqrt() * output + (1 - tiny.alphas[t]).sqrt() * latent


def literal_invert(tiny, x0: Tensor, generator: torch.Generator) -> Tensor:
    alphas, stride = tiny.alphas, 1000 // STEPS
    timesteps = [1 + stride * i for i in range(STEPS)]
    latent = x0
    for t in timesteps[1:-1]:
        with torch.no_grad():
            eps = predict_eps(tiny, latent, t)
        for _ in range(5):
            for _ in range(5):
                eps = descend(eps, lambda e: literal_pair_loss(e, generator) / 5, 20.0)
            eps = descend(eps, literal_kl, 20.0)
        a, a_next = alphas[t - 1], alphas[t + stride - 1]
        predicted_x0 = (latent - (1 - a).sqrt() * eps) / a.sqrt()
        latent = a_next.sqrt() * predicted_x0 + (1 - a_next).sqrt() * eps
    return latent


def literal_edit(tiny, noise: Tensor, strength: float) -> tuple[Tensor, Tensor, Tensor]:
    layers = cross_attention(tiny.unet)
    for layer in layers.values():
        layer.set_processor(KeepProbabilities())
    tiny.scheduler.set_timesteps(STEPS)
    references = {}
    latent = noise
    for t in tiny.scheduler.timesteps:
        with torch.no_grad():
            eps = tiny.unet(torch.cat([latent] * 2), t, torch.cat([tiny.source, tiny.source])).sample
        references[int(t)] = {name: layer.probabilities.detach() for name, layer in layers.items()}
        negative, positive = eps.chunk(2)
        latent = tiny.scheduler.step(negative + SCALE * (positive - negative), t, latent).prev_sample
    reconstruction = latent

    text, latent, losses = torch.cat([tiny.source, tiny.target]), noise, []
    for t in tiny.scheduler.timesteps:
        rows = torch.cat([latent] * 2).requires_grad_()
        tiny.unet(rows, t, text)
        loss = torch.zeros(())
        for name, layer in layers.items():
            loss = loss + ((layer.probabilities - references[int(t)][name]) ** 2).sum((1, 2)).mean(0)
        (gradient,) = torch.autograd.grad(loss, rows)
        rows = (rows - strength * gradient).detach()
        with torch.no_grad():
            negative, positive = tiny.unet(rows, t, text).sample.chunk(2)
        eps = negative + SCALE * (positive - negative)
        latent = tiny.scheduler.step(eps, t, rows.chunk(2)[0]).prev_sample
        losses.append(loss.detach())
    return latent, reconstruction, torch.stack(losses)


# --- parity


def official_invert(tiny, cond):
    generator = torch.Generator().manual_seed(4)
    return official.invert(tiny.denoise, tiny.x0, cond(tiny.source), tiny.denoise.sigmas, STEPS, generator=generator)


@pytest.fixture
def official_run(tiny, cond):
    inversion = official_invert(tiny, cond)

    def run(strength: float):
        source, target = cond(tiny.source), cond(tiny.target)
        return official.edit(tiny.denoise, inversion, source, target, negative=source, scale=SCALE, strength=strength)

    return inversion, run


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_inversion_equals_the_literal_transcription(make_tiny, cond, prediction):
    tiny = make_tiny(prediction)
    expected = literal_invert(tiny, tiny.x0, torch.Generator().manual_seed(4))
    inversion = official_invert(tiny, cond)
    noise = ve_to_vp(inversion.noise, inversion.sigmas[0])
    assert torch.allclose(noise, expected, rtol=1e-4, atol=1e-4)
    other = literal_invert(tiny, tiny.x0, torch.Generator().manual_seed(5))
    assert not torch.allclose(other, expected, atol=1e-3), "the regulariser must matter for this test to mean anything"


@pytest.mark.parametrize("strength", [0.0, 0.1, 1.0])
def test_edit_equals_the_literal_transcription(tiny, official_run, strength):
    inversion, run = official_run
    result = run(strength)
    edited, reconstruction, losses = literal_edit(tiny, ve_to_vp(inversion.noise, inversion.sigmas[0]), strength)
    last = inversion.sigmas[-1]
    assert torch.allclose(ve_to_vp(result.edited, last), edited, rtol=1e-3, atol=1e-3)
    assert torch.allclose(ve_to_vp(result.reference, last), reconstruction, rtol=1e-3, atol=1e-3)
    assert torch.allclose(result.loss[:, 0], losses, rtol=1e-3)


def test_an_inversion_in_other_coordinates_is_refused(tiny, official_run, cond):
    inversion, _ = official_run
    other = replace(inversion, sigmas=torch.tensor([0.9, 0.5, 0.0]), coordinates=Coordinates.FLOW)
    with pytest.raises(ValueError, match="The inversion is in flow coordinates; the published algorithm takes VE's"):
        official.edit(tiny, other, cond, cond, cond)


def test_the_parity_is_of_something(tiny, official_run):
    """The tolerance above is far below what guidance and the edit themselves do."""
    _, run = official_run
    free, held = run(0.0), run(1.0)
    assert (free.edited - held.edited).abs().mean() > 0.02
    assert (free.edited - free.reference).abs().mean() > 0.02
