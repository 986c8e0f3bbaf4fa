"""A diffusers UNet as a denoiser: use without ComfyUI, and the oracle of the parity tests.

    epsilon       D(x, sigma) = x - sigma F(x_vp, t)
    v prediction  D(x, sigma) = x / (1 + sigma^2) - sigma / sqrt(1 + sigma^2) F(x_vp, t)

F is the network, x_vp = x / sqrt(1 + sigma^2) (Salimans and Ho 2022, arXiv:2202.00512, appendix D).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

from torch import Tensor, nn

from ..attention import attention_probabilities
from ..schedule import sigma_to_timestep, sigmas_from_alphas, ve_to_vp
from ..types import Prediction


@dataclass(frozen=True)
class TextConditioning:
    """What a diffusers UNet is conditioned on.

    Attributes:
        embedding: token embeddings, (B, L, D), or (1, L, D) for every sample.
        added: further inputs, ``added_cond_kwargs`` of the UNet (SDXL: ``text_embeds`` and ``time_ids``).
    """

    embedding: Tensor
    added: Mapping[str, Tensor] | None = None


class DiffusersDenoiser:
    """A ``UNet2DConditionModel`` and its noise schedule as a :class:`~pix2pix_zero_core.types.Denoiser`.

    Attributes:
        sigmas: sigma of every training timestep, (N,), ascending; for :func:`~pix2pix_zero_core.schedule.ddim_sigmas`.
    """

    def __init__(
        self, unet: nn.Module, alphas_cumprod: Tensor, prediction: Literal["epsilon", "v_prediction"] = "epsilon"
    ) -> None:
        """Wrap a model, which is left as it is.

        Args:
            unet: a diffusers ``UNet2DConditionModel`` with cross-attention.
            alphas_cumprod: of the scheduler that the model was trained with, (N,), descending.
            prediction: the scheduler's ``config.prediction_type``.

        Raises:
            TypeError: the model has no plain cross-attention.
            ValueError: another prediction type.
        """
        if prediction not in ("epsilon", "v_prediction"):
            raise ValueError(
                f'prediction is {prediction!r}; only "epsilon" and "v_prediction" models have the noise schedule that '
                "DDIM inversion needs."
            )
        self._unet, self._prediction = unet, prediction
        modules = cast(Iterable[tuple[str, nn.Module]], unet.named_modules())
        self._layers = {name: module for name, module in modules if name.split(".")[-1] == "attn2"}
        layers = [cast(Any, layer) for layer in self._layers.values()]
        if not layers or any(layer.added_kv_proj_dim or layer.norm_cross for layer in layers):
            raise TypeError(
                f"{type(unet).__name__} has no plain cross-attention layers (attn2). Use the UNet2DConditionModel of "
                "Stable Diffusion 1, 2 or XL."
            )
        self.sigmas = sigmas_from_alphas(alphas_cumprod)

    def __call__(self, x: Tensor, sigma: Tensor, cond: TextConditioning, *, maps: bool = False) -> Prediction:
        """Predict as a :class:`~pix2pix_zero_core.types.Denoiser`."""
        level = sigma[:, None, None, None]
        with _recorded(self._layers if maps else {}) as recorded:
            weight = next(self._unet.parameters())
            output: Tensor = self._unet(
                ve_to_vp(x, level).to(weight),
                sigma_to_timestep(sigma, self.sigmas.to(sigma)),
                encoder_hidden_states=cond.embedding.to(weight).expand(len(x), -1, -1),
                added_cond_kwargs=None if cond.added is None else dict(cond.added),
                return_dict=False,
            )[0].to(x)
        if self._prediction == "epsilon":
            return Prediction(x - level * output, recorded)
        return Prediction(x / (1 + level**2) - level / (1 + level**2).sqrt() * output, recorded)


@contextmanager
def _recorded(layers: Mapping[str, nn.Module]) -> Generator[Mapping[Hashable, Tensor], None, None]:
    """Record the attention probabilities of a forward pass; the layers' processors are put back in any case."""
    maps: dict[Hashable, Tensor] = {}
    originals: dict[str, Callable[..., Tensor]] = {}
    try:
        for name, layer in layers.items():
            attention = cast(Any, layer)
            originals[name] = attention.processor
            attention.set_processor(_Recorder(attention.processor, name, maps))
        yield maps
    finally:
        for name, processor in originals.items():
            cast(Any, layers[name]).set_processor(processor)


class _Recorder:
    """An attention processor that works out the probabilities beside the original one, whose output it returns."""

    def __init__(self, original: Callable[..., Tensor], name: str, maps: dict[Hashable, Tensor]) -> None:
        self._original, self._name, self._maps = original, name, maps

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:
        q, k = (
            projected.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for projected in (attn.to_q(hidden_states), attn.to_k(encoder_hidden_states))
        )
        self._maps[self._name] = attention_probabilities(q, k, attn.scale)
        return self._original(attn, hidden_states, encoder_hidden_states, *args, **kwargs)
