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
NEIGHBOURS = {0: ((0, -1), (-1, -1), (1, 1)), 1: ((0, 1), (-1, 1), (1, -1))}
"""Blocks whose picture tokens attend to each other once more, as in Stable Diffusion 3.5 medium, and the neighbour, so
many rows and columns away, at which each head looks before it is trained. The heads of a block learn to look at one
neighbour each, which takes long, and three are too few to see an outline."""
HEAD_WIDTH = 64  # Stable Diffusion 3 has as many heads as blocks, and ComfyUI reads the depth off the width.
PATCH = 2
POSITIONS = 24
SHARPNESS = 1.5
"""Of those heads at first: the most of their attention is where they look, and some of it around."""

MIDDLE = 16
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
        self.joint_blocks = nn.ModuleList(
            [_JointBlock(width, last=i == depth - 1, looks=NEIGHBOURS.get(i, ())) for i in range(depth)]
        )
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
            x: (B, 4, H, W) latents between picture (t = 0) and noise (t = 1); H and W at most 48.
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

    def __init__(self, width: int, last: bool, looks: tuple[tuple[int, int], ...]) -> None:
        super().__init__()
        self.context_block = _Stream(width, attends=not last)
        self.x_block = _Stream(width, attends=True, looks=looks)

    def forward(self, context: Tensor, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        (of_text, text), (of_picture, picture) = self.context_block.project(context, c), self.x_block.project(x, c)
        attended = _attend(*(torch.cat(both, dim=1) for both in zip(of_text, of_picture, strict=True)))
        to_text, to_picture = attended.split([context.shape[1], x.shape[1]], dim=1)
        if self.context_block.attends:
            context = self.context_block.update(context, to_text, *text)
        return context, self.x_block.update(x, to_picture, *picture)


class _Stream(nn.Module):
    """What text or picture have of their own in a block.

    Args:
        width: of the transformer.
        attends: one that does not only gives keys and values.
        looks: if its tokens also attend to each other alone, where each head looks at first.
    """

    def __init__(self, width: int, attends: bool, looks: tuple[tuple[int, int], ...] = ()) -> None:
        super().__init__()
        self.attends = attends
        self.parts = 2 if not attends else 9 if looks else 6
        self.adaLN_modulation = _modulation(width, self.parts)
        self.attn = _attention(width, attends)
        if looks:
            self.attn2 = _attention(width, attends)
            _look(self.attn2, looks)
        if attends:
            self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})

    def project(self, x: Tensor, c: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], list[Tensor]]:
        """Queries, keys and values (B, tokens, heads, 64), and what of the modulation is left for `update`."""
        shift, scale, *rest = _chunks(self.adaLN_modulation(c), self.parts)
        return _project(self.attn, _modulate(x, shift, scale)), rest

    def update(
        self, x: Tensor, attended: Tensor, gate: Tensor, shift: Tensor, scale: Tensor, mlp_gate: Tensor, *alone: Tensor
    ) -> Tensor:
        change = gate * self.attn["proj"](attended)
        if alone:
            shift_alone, scale_alone, gate_alone = alone
            among = _attend(*_project(self.attn2, _modulate(x, shift_alone, scale_alone)))
            change = change + gate_alone * self.attn2["proj"](among)
        x = x + change
        h = F.gelu(self.mlp["fc1"](_modulate(x, shift, scale)), approximate="tanh")
        return x + mlp_gate * self.mlp["fc2"](h)


class _HeadNorm(nn.RMSNorm):
    """With its weight in the type of what it norms, since autocast leaves both as they are."""

    def forward(self, x: Tensor) -> Tensor:
        assert self.weight is not None
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


def _attention(width: int, attends: bool) -> nn.ModuleDict:
    parts: dict[str, nn.Module] = {
        "qkv": nn.Linear(width, 3 * width),
        "ln_q": _HeadNorm(HEAD_WIDTH, eps=1e-6),
        "ln_k": _HeadNorm(HEAD_WIDTH, eps=1e-6),
    }
    return nn.ModuleDict(parts | ({"proj": nn.Linear(width, width)} if attends else {}))


def _look(attention: nn.ModuleDict, offsets: tuple[tuple[int, int], ...]) -> None:
    """Let each head look at the token so many rows and columns away.

    Keys are the positions' sines and cosines in the frequencies that tell neighbours apart, and queries those of the
    place looked at: the same, turned by its angle.
    """
    qkv, told = attention["qkv"], HEAD_WIDTH // 4  # of each, in sines and cosines, of columns and rows
    assert isinstance(qkv, nn.Linear)
    width = qkv.in_features
    frequencies = _phases(width, torch.ones(1))[0, :told]
    of_column, of_row = torch.eye(width).unflatten(0, (2, 2, -1))[:, :, :told]  # each (sine or cosine, told, width)
    key = torch.cat([of_column, of_row]).flatten(0, 1)
    queries: list[Tensor] = []
    for row, column in offsets:
        turned: list[Tensor] = []
        for (sine, cosine), steps in ((of_column, column), (of_row, row)):
            angles = (steps * frequencies)[:, None]
            turned += [angles.cos() * sine + angles.sin() * cosine, angles.cos() * cosine - angles.sin() * sine]
        queries.append(torch.cat(turned))
    with torch.no_grad():
        qkv.weight[:width] = torch.cat(queries)
        qkv.weight[width : 2 * width] = key.repeat(len(offsets), 1)
        qkv.bias[: 2 * width].zero_()
        for norm in (attention["ln_q"], attention["ln_k"]):
            assert isinstance(norm, _HeadNorm) and norm.weight is not None
            norm.weight.fill_(SHARPNESS)


def _project(attention: nn.ModuleDict, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens (B, N, F) -> queries, keys and values (B, N, heads, 64)."""
    q, k, v = attention["qkv"](x).unflatten(-1, (3, -1, HEAD_WIDTH)).unbind(2)
    return attention["ln_q"](q), attention["ln_k"](k), v


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Written out, since on a CPU the fused kernel's backward pass took a quarter of a training step: -> (B, N, F)."""
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    probabilities = (q * HEAD_WIDTH**-0.5 @ k.mT).softmax(dim=-1).to(v.dtype)
    return (probabilities @ v).transpose(1, 2).flatten(2)


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


def _phases(width: int, patches: Tensor) -> Tensor:
    """Angles of numbers of patches (N,) in every frequency: (N, width / 4)."""
    return torch.outer(PATCH * patches, 10000 ** -torch.linspace(0, 1, width // 4 + 1)[:-1])


def _position_embedding(width: int, size: int) -> Tensor:
    """Sines and cosines of a patch's column, then of its row, counted in latent pixels: (1, size * size, width).

    The middle of the table has the same positions whatever its size.
    """
    phases = _phases(width, MIDDLE + torch.arange(size) - size // 2)
    line = torch.cat([phases.sin(), phases.cos()], dim=1)
    columns, rows = line.expand(size, size, -1), line[:, None].expand(size, size, -1)
    return torch.cat([columns, rows], dim=-1).flatten(0, 1)[None]
