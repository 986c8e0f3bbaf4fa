"""The flow transformer of Tiny Zoo in torch alone, with the parameter names of Stable Diffusion 3.

A multimodal diffusion transformer (Esser et al. 2024, arXiv:2403.03206): text and picture have weights of their own and
attend to each other and to themselves in one attention. Names and arithmetic are those of the model that ComfyUI builds
(`comfy.ldm.modules.diffusionmodules.mmdit`); a test runs both on the same weights and compares them.

Shapes: B batch, H and W latent height and width, N patches, L tokens, D text width, F width of the transformer.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .networks import LATENT_CHANNELS, TEXT_WIDTH

FLOW_DEPTH = 3
HEAD_WIDTH = 64  # Stable Diffusion 3 has as many heads as blocks, and ComfyUI reads the depth off the width.
PATCH = 2
POSITIONS = 32
TIME_FREQUENCIES = 128
TIMESTEPS = 1000.0


class MMDiT(nn.Module):
    """Stable Diffusion 3's transformer, small: noisy latents, times and text -> velocity.

    The flow is x = (1 - t) x0 + t eps, and its velocity dx/dt = eps - x0. Timesteps are t times `TIMESTEPS`.
    """

    pos_embed: Tensor

    def __init__(self, depth: int = FLOW_DEPTH, context: int = TEXT_WIDTH) -> None:
        super().__init__()
        width = HEAD_WIDTH * depth
        self.x_embedder = nn.ModuleDict({"proj": nn.Conv2d(LATENT_CHANNELS, width, PATCH, stride=PATCH)})
        self.register_buffer("pos_embed", _position_embedding(width, POSITIONS))
        self.t_embedder = nn.ModuleDict({"mlp": _embedder(2 * TIME_FREQUENCIES, width)})
        self.y_embedder = nn.ModuleDict({"mlp": _embedder(context, width)})
        self.context_embedder = nn.Linear(context, width)
        self.joint_blocks = nn.ModuleList([_JointBlock(width, last=i == depth - 1) for i in range(depth)])
        self.final_layer = nn.ModuleDict(
            {"adaLN_modulation": _modulation(width, 2), "linear": nn.Linear(width, PATCH**2 * LATENT_CHANNELS)}
        )
        nn.init.zeros_(self.final_layer["linear"].weight)  # pyright: ignore[reportArgumentType]
        nn.init.zeros_(self.final_layer["linear"].bias)  # pyright: ignore[reportArgumentType]

    def forward(
        self, x: Tensor, timesteps: Tensor, context: Tensor, y: Tensor, tokens: list[Tensor] | None = None
    ) -> Tensor:
        """Predict the velocity.

        Args:
            x: (B, 4, H, W) latents between picture (t = 0) and noise (t = 1); H and W at most 64.
            timesteps: (B,) in 0..1000.
            context: (B, L, D) text embeddings.
            y: (B, D) the text in one vector, `pooled`.
            tokens: gets every block's picture tokens, (B, N, F).

        Returns:
            (B, 4, H, W).
        """
        height, width = x.shape[-2:]
        x = self.x_embedder["proj"](F.pad(x, (0, width % PATCH, 0, height % PATCH), "circular"))
        rows, columns = x.shape[-2:]
        x = x.flatten(2).mT + self._positions(rows, columns)
        c = self.t_embedder["mlp"](_frequencies(timesteps)) + self.y_embedder["mlp"](y)
        context = self.context_embedder(context)
        for block in self.joint_blocks:
            context, x = block(context, x, c)
            if tokens is not None:
                tokens.append(x)
        shift, scale = _chunks(self.final_layer["adaLN_modulation"](c), 2)
        x = self.final_layer["linear"](_modulate(x, shift, scale))
        x = x.unflatten(2, (PATCH, PATCH, -1)).unflatten(1, (rows, columns)).permute(0, 5, 1, 3, 2, 4)
        return x.flatten(4, 5).flatten(2, 3)[..., :height, :width]

    def _positions(self, rows: int, columns: int) -> Tensor:
        """The middle of the table: (1, N, F)."""
        table = self.pos_embed.unflatten(1, (POSITIONS, POSITIONS))
        top, left = (POSITIONS - rows) // 2, (POSITIONS - columns) // 2
        return table[:, top : top + rows, left : left + columns].flatten(1, 2)


def pooled(context: Tensor, ended: Tensor) -> Tensor:
    """A text's embedding at its first end token, as CLIP pools it.

    Args:
        context: (B, L, D) text embeddings.
        ended: (B, L) true where the token is an end token.

    Returns:
        (B, D).
    """
    return context[torch.arange(len(context), device=context.device), ended.int().argmax(1)]


class _JointBlock(nn.Module):
    """One block of both streams; after the last one nobody reads the text."""

    def __init__(self, width: int, last: bool) -> None:
        super().__init__()
        self.context_block = _Stream(width, attends=not last)
        self.x_block = _Stream(width, attends=True)

    def forward(self, context: Tensor, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        (of_text, text), (of_picture, picture) = self.context_block.project(context, c), self.x_block.project(x, c)
        q, k, v = (torch.cat(both, dim=1).transpose(1, 2) for both in zip(of_text, of_picture, strict=True))
        # Written out: on a CPU the fused kernel's backward pass took a quarter of a training step.
        probabilities = (q * HEAD_WIDTH**-0.5 @ k.mT).softmax(dim=-1).to(v.dtype)
        attended = (probabilities @ v).transpose(1, 2).flatten(2)
        to_text, to_picture = attended.split([context.shape[1], x.shape[1]], dim=1)
        if self.context_block.attends:
            context = self.context_block.update(context, to_text, *text)
        return context, self.x_block.update(x, to_picture, *picture)


class _Stream(nn.Module):
    """What text or picture have of their own in a block; one that does not attend only gives keys and values."""

    def __init__(self, width: int, attends: bool) -> None:
        super().__init__()
        self.attends = attends
        self.adaLN_modulation = _modulation(width, 6 if attends else 2)
        self.attn = nn.ModuleDict(
            {
                "qkv": nn.Linear(width, 3 * width),
                "ln_q": _HeadNorm(HEAD_WIDTH, eps=1e-6),
                "ln_k": _HeadNorm(HEAD_WIDTH, eps=1e-6),
            }
        )
        if attends:
            self.attn["proj"] = nn.Linear(width, width)
            self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})

    def project(self, x: Tensor, c: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], list[Tensor]]:
        """Queries, keys and values (B, tokens, heads, 64), and what of the modulation is left for `update`."""
        shift, scale, *rest = _chunks(self.adaLN_modulation(c), 6 if self.attends else 2)
        q, k, v = self.attn["qkv"](_modulate(x, shift, scale)).unflatten(-1, (3, -1, HEAD_WIDTH)).unbind(2)
        return (self.attn["ln_q"](q), self.attn["ln_k"](k), v), rest

    def update(
        self, x: Tensor, attended: Tensor, gate: Tensor, shift: Tensor, scale: Tensor, mlp_gate: Tensor
    ) -> Tensor:
        x = x + gate * self.attn["proj"](attended)
        h = F.gelu(self.mlp["fc1"](_modulate(x, shift, scale)), approximate="tanh")
        return x + mlp_gate * self.mlp["fc2"](h)


class _HeadNorm(nn.RMSNorm):
    """With its weight in the type of what it norms, since autocast leaves both as they are."""

    def forward(self, x: Tensor) -> Tensor:
        assert self.weight is not None
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


def _embedder(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width))


def _modulation(width: int, parts: int) -> nn.Sequential:
    """Zero at first, so that a block begins as the identity (Peebles & Xie 2023, arXiv:2212.09748)."""
    linear = nn.Linear(width, parts * width)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.SiLU(), linear)


def _chunks(modulation: Tensor, parts: int) -> tuple[Tensor, ...]:
    """(B, parts F) -> so many of (B, 1, F)."""
    return modulation[:, None].chunk(parts, dim=-1)


def _modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=1e-6), 1 + scale)


def _frequencies(timesteps: Tensor) -> Tensor:
    """(B,) -> (B, 2 TIME_FREQUENCIES)."""
    steps = torch.arange(TIME_FREQUENCIES, device=timesteps.device)
    phases = timesteps[:, None].float() * torch.exp(-math.log(10000) * steps / TIME_FREQUENCIES)
    return torch.cat([phases.cos(), phases.sin()], dim=-1)


def _position_embedding(width: int, size: int) -> Tensor:
    """Sines and cosines of a patch's column, then of its row, counted in latent pixels: (1, size * size, width)."""
    phases = torch.outer(PATCH * torch.arange(size), 10000 ** -torch.linspace(0, 1, width // 4 + 1)[:-1])
    line = torch.cat([phases.sin(), phases.cos()], dim=1)
    columns, rows = line.expand(size, size, -1), line[:, None].expand(size, size, -1)
    return torch.cat([columns, rows], dim=-1).flatten(0, 1)[None]
