"""Tiny Zoo as the core's `Denoiser`, in torch alone: for the benchmark, and for looking at samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from pix2pix_zero_core import Coordinates, Prediction
from pix2pix_zero_core.attention import attention_probabilities
from pix2pix_zero_core.schedule import ddim_sigmas, sigma_to_timestep

from .captions import END, VOCABULARY, token_ids
from .mmdit import TIMESTEPS, MMDiT, pooled
from .networks import AutoEncoder, TextEncoder, UNet, alphas_cumprod

Z = TypeVar("Z", bound="Zoo")


class Zoo(ABC):
    """What the two models have in common; a conditioning is one tensor, whatever the text encoder says of a text.

    Attributes:
        vae: pictures to latents and back.
        encoder: token ids to embeddings.
        network: the diffusion model.
        sigmas: the noise levels of training, (1000,), ascending.
        coordinates: of these levels.
    """

    coordinates: ClassVar[Coordinates]
    encoder_prefix: ClassVar[str]
    network_class: ClassVar[type[nn.Module]]

    def __init__(self, vae: AutoEncoder, encoder: TextEncoder, network: nn.Module, sigmas: Tensor) -> None:
        """Join the parts."""
        self.vae, self.encoder, self.network = vae.eval(), encoder.eval(), network.eval().requires_grad_(False)
        self.sigmas = sigmas

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.sigmas.device

    def to(self: Z, device: str | torch.device) -> Z:
        """Move all parts to a device; returns the model itself."""
        for part in self._parts.values():
            part.to(device)
        self.sigmas = self.sigmas.to(device)
        return self

    @classmethod
    def load(cls: type[Z], checkpoint: Path) -> Z:
        """Read the checkpoint that `tiny_zoo.export` writes, into float32.

        Raises:
            FileNotFoundError: there is none.
        """
        from safetensors.torch import load_file

        if not checkpoint.is_file():
            raise FileNotFoundError(f"There is no {checkpoint}: write it with python -m tiny_zoo.export.")
        state = load_file(checkpoint)
        model = cls(AutoEncoder(), TextEncoder(len(VOCABULARY)), cls.network_class())  # pyright: ignore[reportCallIssue]
        for prefix, part in model._parts.items():
            part.load_state_dict({n.removeprefix(prefix): t.float() for n, t in state.items() if n.startswith(prefix)})
        return model

    @property
    def _parts(self) -> dict[str, nn.Module]:
        """The parts by their prefix in a checkpoint."""
        return {
            "first_stage_model.": self.vae,
            self.encoder_prefix: self.encoder,
            "model.diffusion_model.": self.network,
        }

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Conditionings of texts, (B, L, D)."""
        ids = torch.tensor([token_ids(text) for text in texts], device=self.device)
        embeddings = self.encoder(ids)
        return self.join(embeddings, pooled(embeddings, ids == VOCABULARY[END]))

    @abstractmethod
    def join(self, embeddings: Tensor, vector: Tensor | None) -> Tensor:
        """Make a conditioning of the embeddings of a text's tokens, (B, 77, D), and its pooled vector, (B, D)."""

    @abstractmethod
    def split(self, cond: Tensor) -> tuple[Tensor, Tensor | None]:
        """Take a conditioning apart into what it was made of; None for a pooled vector that the model does not see."""

    @abstractmethod
    def grid(self, steps: int) -> Tensor:
        """The levels of a run in so many steps, (steps + 1,), descending to 0."""

    @abstractmethod
    def __call__(self, x: Tensor, sigma: Tensor, cond: Tensor, *, maps: bool = False) -> Prediction:
        """Predict as a `Denoiser`; `cond` are conditionings, of every sample or one for all."""


class TinyZoo(Zoo):
    """The model with the UNet, in Stable Diffusion 1's form; a conditioning is the embeddings, (B, 77, D)."""

    coordinates = Coordinates.VE
    encoder_prefix = "cond_stage_model.transformer."
    network_class = UNet

    def __init__(self, vae: AutoEncoder, encoder: TextEncoder, unet: UNet) -> None:
        """Join the parts."""
        abar = alphas_cumprod()
        super().__init__(vae, encoder, unet, ((1 - abar) / abar).sqrt())
        self.unet = unet

    def join(self, embeddings: Tensor, vector: Tensor | None) -> Tensor:
        """The embeddings."""
        return embeddings

    def split(self, cond: Tensor) -> tuple[Tensor, None]:
        """The embeddings, and None."""
        return cond, None

    def grid(self, steps: int) -> Tensor:
        """DDIM's levels."""
        return ddim_sigmas(self.sigmas, steps)

    def __call__(self, x: Tensor, sigma: Tensor, cond: Tensor, *, maps: bool = False) -> Prediction:
        """Predict as a `Denoiser`."""
        level = sigma[:, None, None, None]
        layers = ((name, layer) for name, layer in self.unet.named_modules() if maps and name.endswith("attn2"))
        with _recorded(layers, _cross_attention) as recorded:
            timestep = sigma_to_timestep(sigma, self.sigmas)
            eps = self.unet(x / (1 + level**2).sqrt(), timestep, cond.expand(len(x), -1, -1))
        return Prediction(x - level * eps, recorded)


class TinyZooFlow(Zoo):
    """The flow model, in Stable Diffusion 3's form; a conditioning is the embeddings and the pooled vector behind them.

    Both are as wide, so that (B, 78, D) holds them: what is added, averaged or mixed of texts is of both alike.
    """

    coordinates = Coordinates.FLOW
    encoder_prefix = "text_encoders.clip_l.transformer."
    network_class = MMDiT

    def __init__(self, vae: AutoEncoder, encoder: TextEncoder, transformer: MMDiT) -> None:
        """Join the parts."""
        super().__init__(vae, encoder, transformer, torch.arange(1, TIMESTEPS + 1) / TIMESTEPS)
        self.transformer = transformer

    def join(self, embeddings: Tensor, vector: Tensor | None) -> Tensor:
        """The pooled vector behind the embeddings."""
        assert vector is not None
        return torch.cat([embeddings, vector[:, None]], dim=1)

    def split(self, cond: Tensor) -> tuple[Tensor, Tensor]:
        """The embeddings, (B, 77, D), and the pooled vector, (B, D)."""
        return cond[:, :-1], cond[:, -1]

    def grid(self, steps: int) -> Tensor:
        """Even times from pure noise on: what ComfyUI calls simple."""
        passed = torch.arange(steps, device=self.device) * len(self.sigmas) // steps
        return torch.cat([self.sigmas.flip(0)[passed], torch.zeros_like(self.sigmas[:1])])

    def __call__(self, x: Tensor, sigma: Tensor, cond: Tensor, *, maps: bool = False) -> Prediction:
        """Predict as a `Denoiser`."""
        embeddings, vector = self.split(cond.expand(len(x), -1, -1))
        layers = ((name, block) for name, block in self.transformer.joint_blocks.named_children() if maps)
        with _recorded(layers, _joint_attention) as recorded:
            velocity = self.transformer(x, TIMESTEPS * sigma, embeddings, vector)
        return Prediction(x - sigma[:, None, None, None] * velocity, recorded)


@contextmanager
def _recorded(
    layers: Iterable[tuple[str, nn.Module]], maps_of: Callable[..., Tensor]
) -> Iterator[dict[Hashable, Tensor]]:
    """Keep the maps of layers that run while the block lasts, worked out from their inputs."""
    maps: dict[Hashable, Tensor] = {}

    def recorder(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def record(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            maps[name] = maps_of(layer, *inputs)

        return record

    hooks = [layer.register_forward_pre_hook(recorder(name)) for name, layer in layers]
    try:
        yield maps
    finally:
        for hook in hooks:
            hook.remove()


def _cross_attention(layer: Any, x: Tensor, context: Tensor) -> Tensor:
    q, k = layer.to_q(x), layer.to_k(context)
    q, k = (t.unflatten(-1, (layer.heads, -1)).transpose(1, 2) for t in (q, k))
    return attention_probabilities(q, k)


def _joint_attention(block: Any, context: Tensor, x: Tensor, c: Tensor) -> Tensor:
    """Probabilities of the text's tokens alone, of those that one softmax gives to text and picture together.

    The share of the picture cancels: rows sum to 1 as those of cross-attention do.
    """
    (_, k, _), _ = block.context_block.project(context, c)
    (q, _, _), _ = block.x_block.project(x, c)
    return attention_probabilities(q.transpose(1, 2), k.transpose(1, 2))
