"""The methods that are put side by side: none, the published code's, and ours with its defaults but for the steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from pix2pix_zero_core import Direction, EditSettings, apply_direction, official
from pix2pix_zero_core.integrations.diffusers import DiffusersDenoiser, PipelineEditor
from pix2pix_zero_core.integrations.pairs import Form
from pix2pix_zero_core.settings import USUAL_STRENGTH


def methods(steps: int, published_cfg: float) -> dict[str, Method]:
    """All methods by their names.

    Args:
        steps: DDIM steps of all.
        published_cfg: scale of classifier-free guidance in the published runs.
    """
    return {
        "unedited": Unedited(),
        "published": Published(steps, published_cfg),
        "ours": Ours(EditSettings(steps=steps)),
    }


class Method(Protocol):
    """An edit with its settings.

    Attributes:
        form: of its edit direction.
        prompted: whether it takes the caption that came with a picture, if one did, or the captioner's always.
    """

    form: ClassVar[Form]
    prompted: ClassVar[bool]

    @property
    def settings(self) -> Mapping[str, Any]:
        """All that is set, for the report and to know results by."""
        ...

    def __call__(self, editor: PipelineEditor, picture: Tensor, caption: str, direction: Direction) -> Tensor:
        """Edit a picture (1, H, W, 3) in 0..1; gives another."""
        ...


@dataclass(frozen=True)
class Unedited(Method):
    """No edit: a passage through the autoencoder, beyond which nothing here can keep a picture."""

    form: ClassVar[Form] = "mean by position"
    prompted: ClassVar[bool] = False

    @property
    def settings(self) -> Mapping[str, Any]:
        """None."""
        return {}

    def __call__(self, editor: PipelineEditor, picture: Tensor, caption: str, direction: Direction) -> Tensor:
        """Encode and decode."""
        return editor.decode(editor.encode(picture))


@dataclass(frozen=True)
class Published(Method):
    """The published code's algorithm and settings; see `pix2pix_zero_core.official`.

    Attributes:
        steps: nominal DDIM steps.
        cfg: scale of classifier-free guidance, away from the caption.
        guidance: of the cross-attention maps, in the paper's unit.
    """

    steps: int = 50
    cfg: float = 5.0
    guidance: float = 0.1
    form: ClassVar[Form] = "mean by position"
    prompted: ClassVar[bool] = False

    @property
    def settings(self) -> Mapping[str, Any]:
        """All of them."""
        return asdict(self)

    @torch.no_grad()
    def __call__(self, editor: PipelineEditor, picture: Tensor, caption: str, direction: Direction) -> Tensor:
        """Invert and edit; the random shifts of the regulariser are the same for every picture."""
        assert isinstance(editor.denoise, DiffusersDenoiser)
        latents = editor.encode(picture)
        embedding, pooled = editor.encode_text(caption)
        tokens = [editor.tokenize(caption)]
        shifted = apply_direction(direction, embedding, pooled, encoder=editor.encoder, tokens=tokens)
        source = editor.condition(embedding, pooled, latents)
        target = editor.condition(shifted.embedding, shifted.pooled, latents)
        inversion = official.invert(
            editor.denoise,
            latents,
            source,
            editor.denoise.sigmas,
            self.steps,
            generator=torch.Generator().manual_seed(0),
        )
        edited = official.edit(
            editor.denoise, inversion, source, target, source, scale=self.cfg, strength=self.guidance
        ).edited
        return editor.decode(edited)


@dataclass(frozen=True)
class Ours(Method):
    """The project's method.

    Attributes:
        edit: its settings.
        strength: of a direction that is aligned to words. The mean of two prompts leads from the one to the other as it
            is.
    """

    edit: EditSettings = EditSettings()  # noqa: RUF009 (immutable)
    strength: float = USUAL_STRENGTH
    form: ClassVar[Form] = "aligned to words"
    prompted: ClassVar[bool] = True

    @property
    def settings(self) -> Mapping[str, Any]:
        """All of them."""
        return asdict(self)

    def __call__(self, editor: PipelineEditor, picture: Tensor, caption: str, direction: Direction) -> Tensor:
        """Invert and edit."""
        inverted = editor.invert(picture, caption, self.edit)
        strength = self.strength if direction.form == self.form else 1.0
        return editor.decode(editor.edit(inverted, direction, strength, output_type="latent"))
