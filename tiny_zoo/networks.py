"""The networks of Tiny Zoo in torch alone, with the parameter names of Stable Diffusion 1.x.

Training needs nothing but torch; the names and the arithmetic are those of the models that ComfyUI builds
(`comfy.taesd`, `comfy.clip_model`, `comfy.ldm...openaimodel`), so a trained state dict is loaded by its stock
checkpoint loader. A test runs both on the same weights and compares them.

Shapes: B batch, C channels, H and W latent height and width, L tokens, D text width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LATENT_CHANNELS = 4
TOKENS = 77
TEXT_WIDTH = 128
TEXT_LAYERS = 3
TEXT_HEADS = 4
UNET_CHANNELS = 64
UNET_LEVELS = (1, 2)
UNET_BLOCKS = 1
UNET_HEADS = 4


# ------------------------------------------------------------------ autoencoder


class _Clamp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(_conv(width, width), nn.ReLU(), _conv(width, width), nn.ReLU(), _conv(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x) + x)


def _conv(inputs: int, outputs: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=bias)


class AutoEncoder(nn.Module):
    """TAESD (github.com/madebyollin/taesd): 8x down, 4 latent channels, 64 wide.

    `encode` and `decode` speak the diffusion model's latents (zero mean, unit variance); the checkpoint's
    `vae_scale` makes ComfyUI's SD 1.5 latent format, which multiplies by 0.18215, arrive at the same numbers.
    """

    LATENT_FORMAT_SCALE = 0.18215

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        encoder: list[nn.Module] = [_conv(3, width), _Block(width)]
        for _ in range(3):
            encoder += [_conv(width, width, stride=2, bias=False), _Block(width), _Block(width), _Block(width)]
        self.taesd_encoder = nn.Sequential(*encoder, _conv(width, LATENT_CHANNELS))
        decoder: list[nn.Module] = [_Clamp(), _conv(LATENT_CHANNELS, width), nn.ReLU()]
        for _ in range(3):
            decoder += [
                _Block(width),
                _Block(width),
                _Block(width),
                nn.Upsample(scale_factor=2),
                _conv(width, width, bias=False),
            ]
        self.taesd_decoder = nn.Sequential(*decoder, _Block(width), _conv(width, 3))
        self.vae_scale = nn.Parameter(torch.tensor(self.LATENT_FORMAT_SCALE), requires_grad=False)
        self.vae_shift = nn.Parameter(torch.tensor(0.0), requires_grad=False)

    def encode(self, image: Tensor) -> Tensor:
        """(B, 3, 8H, 8W) in 0..1 -> latents (B, 4, H, W)."""
        return self.taesd_encoder(image)

    def decode(self, latent: Tensor) -> Tensor:
        """Latents (B, 4, H, W) -> (B, 3, 8H, 8W), 0..1 but for overshoot."""
        return self.taesd_decoder(latent)


# ------------------------------------------------------------------ text encoder


class TextEncoder(nn.Module):
    """CLIP's text transformer (causal, pre-norm, quick GELU), small: token ids (B, 77) -> embeddings (B, 77, D)."""

    def __init__(
        self, vocabulary: int, width: int = TEXT_WIDTH, layers: int = TEXT_LAYERS, heads: int = TEXT_HEADS
    ) -> None:
        super().__init__()
        self.text_model = nn.ModuleDict(
            {
                "embeddings": nn.ModuleDict(
                    {
                        "token_embedding": nn.Embedding(vocabulary, width),
                        "position_embedding": nn.Embedding(TOKENS, width),
                    }
                ),
                "encoder": nn.ModuleDict({"layers": nn.ModuleList([_TextLayer(width, heads) for _ in range(layers)])}),
                "final_layer_norm": nn.LayerNorm(width),
            }
        )
        for name in ("token_embedding", "position_embedding"):
            nn.init.normal_(self.text_model["embeddings"][name].weight, std=0.3)  # pyright: ignore[reportIndexIssue]

    def forward(self, ids: Tensor) -> Tensor:
        embeddings = self.text_model["embeddings"]
        x = embeddings["token_embedding"](ids) + embeddings["position_embedding"].weight[: ids.shape[1]]  # pyright: ignore
        for layer in self.text_model["encoder"]["layers"]:  # pyright: ignore
            x = layer(x)
        return self.text_model["final_layer_norm"](x)


class _TextLayer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.layer_norm1 = nn.LayerNorm(width)
        self.self_attn = nn.ModuleDict(
            {name: nn.Linear(width, width) for name in ("q_proj", "k_proj", "v_proj", "out_proj")}
        )
        self.layer_norm2 = nn.LayerNorm(width)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer_norm1(x)
        q, k, v = (self.self_attn[name](h) for name in ("q_proj", "k_proj", "v_proj"))
        x = x + self.self_attn["out_proj"](_attend(q, k, v, self.heads, causal=True))
        h = self.mlp["fc1"](self.layer_norm2(x))
        return x + self.mlp["fc2"](h * torch.sigmoid(1.702 * h))


def _attend(q: Tensor, k: Tensor, v: Tensor, heads: int, causal: bool = False) -> Tensor:
    """Multi-head attention: q (B, N, D), k and v (B, L, D) -> (B, N, D)."""
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    if causal:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
    # Written out: on a CPU the fused kernel and its backward pass took nearly half of a training step.
    probabilities = (q * q.shape[-1] ** -0.5 @ k.mT).softmax(dim=-1).to(v.dtype)
    return (probabilities @ v).transpose(1, 2).flatten(2)


# ------------------------------------------------------------------ denoising UNet


class UNet(nn.Module):
    """Stable Diffusion 1.x's UNet, small: noisy latents, timesteps and text embeddings -> predicted noise."""

    def __init__(
        self,
        channels: int = UNET_CHANNELS,
        levels: tuple[int, ...] = UNET_LEVELS,
        blocks: int = UNET_BLOCKS,
        heads: int = UNET_HEADS,
        context: int = TEXT_WIDTH,
    ) -> None:
        super().__init__()
        self.channels = channels
        time = 4 * channels
        self.time_embed = nn.Sequential(nn.Linear(channels, time), nn.SiLU(), nn.Linear(time, time))
        self.input_blocks = nn.ModuleList([_Stage(_conv(LATENT_CHANNELS, channels))])
        width, skips = channels, [channels]
        for level, multiple in enumerate(levels):
            for _ in range(blocks):
                out = multiple * channels
                self.input_blocks.append(_Stage(_ResBlock(width, out, time), _SpatialTransformer(out, heads, context)))
                width = out
                skips.append(width)
            if level < len(levels) - 1:
                self.input_blocks.append(_Stage(_Downsample(width)))
                skips.append(width)
        self.middle_block = _Stage(
            _ResBlock(width, width, time), _SpatialTransformer(width, heads, context), _ResBlock(width, width, time)
        )
        self.output_blocks = nn.ModuleList()
        for level, multiple in reversed(list(enumerate(levels))):
            for i in range(blocks + 1):
                out = multiple * channels
                stage: list[nn.Module] = [
                    _ResBlock(width + skips.pop(), out, time),
                    _SpatialTransformer(out, heads, context),
                ]
                width = out
                if level and i == blocks:
                    stage.append(_Upsample(width))
                self.output_blocks.append(_Stage(*stage))
        self.out = nn.Sequential(nn.GroupNorm(32, channels), nn.SiLU(), _conv(channels, LATENT_CHANNELS))
        nn.init.zeros_(self.out[2].weight)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        """X (B, 4, H, W) variance-preserving, timesteps (B,) in 0..999, context (B, L, D) -> noise (B, 4, H, W)."""
        frequencies = torch.exp(
            -math.log(10000) * torch.arange(self.channels // 2, device=x.device) / (self.channels // 2)
        )
        phases = timesteps[:, None].float() * frequencies
        time = self.time_embed(torch.cat([phases.cos(), phases.sin()], dim=-1))
        skips: list[Tensor] = []
        for stage in self.input_blocks:
            x = stage(x, time, context)
            skips.append(x)
        x = self.middle_block(x, time, context)
        for stage in self.output_blocks:
            x = stage(torch.cat([x, skips.pop()], dim=1), time, context)
        return self.out(x)


class _Stage(nn.Sequential):
    """Layers in a row, each given what it takes."""

    def forward(self, x: Tensor, time: Tensor, context: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        for layer in self:
            if isinstance(layer, _ResBlock):
                x = layer(x, time)
            elif isinstance(layer, _SpatialTransformer):
                x = layer(x, context)
            else:
                x = layer(x)
        return x


class _Downsample(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.op = _conv(width, width, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class _Upsample(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = _conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class _ResBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, time: int) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(nn.GroupNorm(32, inputs), nn.SiLU(), _conv(inputs, outputs))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(time, outputs))
        self.out_layers = nn.Sequential(nn.GroupNorm(32, outputs), nn.SiLU(), nn.Dropout(0.0), _conv(outputs, outputs))
        self.skip_connection = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        nn.init.zeros_(self.out_layers[3].weight)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.in_layers(x) + self.emb_layers(time)[..., None, None]
        return self.skip_connection(x) + self.out_layers(h)


class _SpatialTransformer(nn.Module):
    def __init__(self, width: int, heads: int, context: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(32, width, eps=1e-6)
        self.proj_in = nn.Conv2d(width, width, 1)
        self.transformer_blocks = nn.ModuleList([_TransformerBlock(width, heads, context)])
        self.proj_out = nn.Conv2d(width, width, 1)
        nn.init.zeros_(self.proj_out.weight)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        h = self.proj_in(self.norm(x)).flatten(2).transpose(1, 2)
        for block in self.transformer_blocks:
            h = block(h, context)
        return x + self.proj_out(h.transpose(1, 2).reshape(x.shape))


class _TransformerBlock(nn.Module):
    def __init__(self, width: int, heads: int, context: int) -> None:
        super().__init__()
        self.attn1 = _Attention(width, width, heads)
        self.ff = _FeedForward(width)
        self.attn2 = _Attention(width, context, heads)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        h = self.norm1(x)
        x = x + self.attn1(h, h)
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class _Attention(nn.Module):
    def __init__(self, width: int, context: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context, width, bias=False)
        self.to_v = nn.Linear(context, width, bias=False)
        self.to_out = nn.Sequential(nn.Linear(width, width), nn.Dropout(0.0))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        return self.to_out(_attend(self.to_q(x), self.to_k(context), self.to_v(context), self.heads))


class _FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(_GatedGelu(width, 4 * width), nn.Dropout(0.0), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class _GatedGelu(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.proj = nn.Linear(inputs, 2 * outputs)

    def forward(self, x: Tensor) -> Tensor:
        x, gate = self.proj(x).chunk(2, dim=-1)
        return x * F.gelu(gate)


# ------------------------------------------------------------------ noise schedule


def alphas_cumprod() -> Tensor:
    """abar_t of Stable Diffusion's scaled linear schedule, (1000,)."""
    return (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2).cumprod(0).float()
