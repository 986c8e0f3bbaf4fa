"""Tiny Zoo as the core's `Denoiser`, in torch alone: for the benchmark, and for looking at samples."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from pix2pix_zero_core import Prediction
from pix2pix_zero_core.attention import attention_probabilities
from pix2pix_zero_core.schedule import sigma_to_timestep

from .captions import VOCABULARY, token_ids
from .networks import AutoEncoder, TextEncoder, UNet, alphas_cumprod


class TinyZoo:
    """All parts of the model.

    Attributes:
        vae: pictures to latents and back.
        encoder: token ids to embeddings.
        unet: predicts noise.
        sigmas: the noise levels of training, (1000,).
    """

    def __init__(self, vae: AutoEncoder, encoder: TextEncoder, unet: UNet) -> None:
        """Join the parts."""
        self.vae, self.encoder, self.unet = vae.eval(), encoder.eval(), unet.eval().requires_grad_(False)
        abar = alphas_cumprod()
        self.sigmas = ((1 - abar) / abar).sqrt()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.sigmas.device

    def to(self, device: str | torch.device) -> TinyZoo:
        """Move all parts to a device; returns the model itself."""
        for part in (self.vae, self.encoder, self.unet):
            part.to(device)
        self.sigmas = self.sigmas.to(device)
        return self

    @classmethod
    def load(cls, checkpoint: Path) -> TinyZoo:
        """Read the checkpoint that `tiny_zoo.export` writes, into float32."""
        from safetensors.torch import load_file

        state = load_file(checkpoint)

        def part(prefix: str, model: nn.Module) -> None:
            own = {n.removeprefix(prefix): t.float() for n, t in state.items() if n.startswith(prefix)}
            model.load_state_dict(own)

        vae, encoder, unet = AutoEncoder(), TextEncoder(len(VOCABULARY)), UNet()
        part("first_stage_model.", vae)
        part("cond_stage_model.transformer.", encoder)
        part("model.diffusion_model.", unet)
        return cls(vae, encoder, unet)

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Embeddings of texts, (B, 77, D)."""
        return self.encoder(torch.tensor([token_ids(text) for text in texts], device=self.device))

    def __call__(self, x: Tensor, sigma: Tensor, cond: Tensor, *, maps: bool = False) -> Prediction:
        """Predict as a `Denoiser`; `cond` are embeddings (B, 77, D)."""
        level = sigma[:, None, None, None]
        recorded: dict[Hashable, Tensor] = {}
        hooks = [
            layer.register_forward_pre_hook(_recorder(name, recorded))
            for name, layer in self.unet.named_modules()
            if maps and name.endswith("attn2")
        ]
        try:
            timestep = sigma_to_timestep(sigma, self.sigmas)
            eps = self.unet(x / (1 + level**2).sqrt(), timestep, cond.expand(len(x), -1, -1))
        finally:
            for hook in hooks:
                hook.remove()
        return Prediction(x - level * eps, recorded)


def _recorder(name: str, maps: dict[Hashable, Tensor]) -> Callable[[nn.Module, tuple[Tensor, Tensor]], None]:
    def record(layer: nn.Module, inputs: tuple[Tensor, Tensor]) -> None:
        x, context = inputs
        q, k = layer.to_q(x), layer.to_k(context)  # pyright: ignore[reportCallIssue]
        q, k = (t.unflatten(-1, (layer.heads, -1)).transpose(1, 2) for t in (q, k))  # pyright: ignore
        maps[name] = attention_probabilities(q, k)

    return record
