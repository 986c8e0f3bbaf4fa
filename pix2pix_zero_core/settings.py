"""How pictures are edited where nobody says otherwise: the nodes, `PipelineEditor` and the command line share it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal

from .types import RECOMMENDED, MapGuidance, NoiseRegularizer

NegativeFrom = Literal["inversion", "text"]
"""What classifier-free guidance moves away from: the noise that the inversion recorded, or a text."""

NoiseFrom = Literal["fresh", "inversion"]
"""In which noise the model sees the picture while it is edited: new one at every step, or what the inversion found."""

USUAL_STRENGTH = 1.25
"""How far to go along an edit direction: 1 is the edit as its sentences have it, a little more makes it show surely."""

NEGATIVES: tuple[NegativeFrom, ...] = ("inversion", "text")
NOISES: tuple[NoiseFrom, ...] = ("fresh", "inversion")

FRESH_BESIDE_INVERSION = (
    "negative_from is inversion and noise_from is fresh, in which the model does not see the noise that the inversion "
    "recorded. Set negative_from to text, or noise_from to inversion."
)


@dataclass(frozen=True)
class EditSettings:
    """All settings of an edit; the first three are of the inversion.

    Attributes:
        steps: DDIM steps, there and back.
        regularizer: of the inversion.
        fixed_point: refinements of a step of the inversion.
        cfg: scale of classifier-free guidance.
        guidance: strength and time of the cross-attention guidance.
        negative_from: what classifier-free guidance moves away from.
        negative: the text that it moves away from, where that is a text. None is the caption of each picture, as
            published for real pictures.
        cfg_start: fraction of the steps after which classifier-free guidance begins, 0 to 1; in fresh noise the edit
            itself.
        region: threshold of :func:`~pix2pix_zero_core.edit_region`, to edit only where the texts disagree; 0 edits
            everywhere.
        noise_from: in which noise the model sees the picture; see :mod:`~pix2pix_zero_core.fresh`.

    Raises:
        TypeError: `guidance`, `regularizer` or `negative` is something else than it should be.
        ValueError: a value is out of range, there is a negative text that nothing moves away from (at a `cfg` of 1
            nothing does), or fresh noise beside a negative that is the inversion's.
    """

    steps: int = 25
    regularizer: NoiseRegularizer = NoiseRegularizer()  # noqa: RUF009 (immutable)
    fixed_point: int = 1
    cfg: float = 5.0
    guidance: MapGuidance = RECOMMENDED
    negative_from: NegativeFrom = "text"
    negative: str | None = ""
    cfg_start: float = 0.2
    region: float = 0.4
    noise_from: NoiseFrom = "fresh"

    def __post_init__(self) -> None:
        """Validate what is checked nowhere else, and what is checked only after an inversion."""
        kinds = {"regularizer": (NoiseRegularizer,), "guidance": (MapGuidance,), "negative": (str, type(None))}
        for name, allowed in kinds.items():
            if not isinstance(getattr(self, name), allowed):
                wanted = " or ".join("None" if kind is type(None) else kind.__name__ for kind in allowed)
                raise TypeError(f"EditSettings: {name} is {getattr(self, name)!r}; it must be {wanted}.")
        for name, low in (("steps", 1), ("fixed_point", 0)):
            value: Any = getattr(self, name)
            if not (isinstance(value, Integral) and int(value) >= low):
                raise ValueError(f"EditSettings: {name} is {value!r}; it must be a whole number >= {low}.")
        for name, high in (("cfg", math.inf), ("cfg_start", 1), ("region", 1)):
            value = getattr(self, name)
            if not (isinstance(value, Real) and math.isfinite(value) and 0 <= float(value) <= high):
                span = "between 0 and 1" if high == 1 else "finite and >= 0"
                raise ValueError(f"EditSettings: {name} is {value!r}; it must be {span}.")
        if self.negative_from not in NEGATIVES:
            raise ValueError(
                f'EditSettings: negative_from is {self.negative_from!r}; it must be "inversion" or "text".'
            )
        if self.negative and self.negative_from != "text":
            raise ValueError(
                f"EditSettings: the negative text is {self.negative!r}, but negative_from is {self.negative_from!r}, "
                'which looks at none. Set negative_from to "text", or leave negative empty.'
            )
        if self.negative and self.cfg == 1:
            raise ValueError(
                f"EditSettings: the negative text is {self.negative!r}, but at a cfg of 1 nothing moves away from it. "
                "Raise cfg, or leave negative empty."
            )
        if self.noise_from not in NOISES:
            raise ValueError(f'EditSettings: noise_from is {self.noise_from!r}; it must be "fresh" or "inversion".')
        if self.noise_from == "fresh" and self.negative_from == "inversion":
            raise ValueError(f"EditSettings: {FRESH_BESIDE_INVERSION}")
