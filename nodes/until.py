"""EditUntilItShows: edits at rising strength of the direction, until the captioner sees them."""

# ComfyUI's base classes leave the arguments of what they call open.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from comfy_api.v0_0_2 import io
from torch import Tensor

from ..pix2pix_zero_core import Direction, Inversion
from ..pix2pix_zero_core.integrations.judge import ask_of_direction, in_words, warn_after
from ..pix2pix_zero_core.until import edit_until, read_strengths
from .bridge import Conditioning, framed, needs_cfg
from .caption import load_captioner
from .directions import shift_conditioning
from .guidance_settings import Settings, edit_inputs, original_inputs
from .judge import captioner_input, judge_pictures, numbered, warn_originals
from .sampling import CrossAttnGuidedSampler
from .saying import said, say_meanwhile
from .types import CATEGORY, DirectionType, search_aliases


class EditUntilItShows(io.ComfyNode):
    """The first strength of an edit at which a judge sees it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        original = original_inputs()
        ours = {"target", *(given.id for given in original)}
        return io.Schema(
            node_id="Pix2PixZeroEditUntilItShows",
            display_name="Edit Until It Shows",
            category=CATEGORY,
            **search_aliases("edit image", "image editing", "auto strength", "cat to dog", "retry"),
            description="Edit at rising strengths of the direction, and keep for every picture the first at which the "
            "captioner sees the target: no more is changed than has to be. Takes the place of Apply Edit Direction, "
            "Cross-Attention Guided Sampler and VAE Decode.",
            inputs=[
                *original,
                DirectionType.Input("direction", tooltip="The edit, from Edit Direction, loaded or combined."),
                io.Clip.Input("clip", tooltip="The text encoder of the source; the direction must be made by it."),
                io.Vae.Input("vae", tooltip="The VAE of the model: the captioner judges pictures, not latents."),
                io.String.Input(
                    "caption",
                    force_input=True,
                    tooltip="What the original shows, as the source was encoded from: from BLIP Caption, say.",
                ),
                captioner_input("blip"),
                io.String.Input(
                    "strengths",
                    default="0.75, 1, 1.25, 1.5",
                    tooltip="Strengths of the direction to try, each further from 0 than the one before, with commas "
                    "between them; 1 is the full edit. Each further one costs another edit of the pictures that do not "
                    "show it yet. Negative ones lead the other way.",
                ),
                # What is added to the guided sampler comes last here as well: the order of the widgets stays.
                *(given for given in edit_inputs() if given.id not in ours),
            ],
            outputs=[
                io.Latent.Output("edited", display_name="edited", tooltip="The edited pictures."),
                io.Image.Output("image", display_name="image", tooltip="The same, decoded."),
                io.Float.Output(
                    "strength",
                    display_name="strength",
                    is_output_list=True,
                    tooltip="Of each picture: the strength of the direction that was kept.",
                ),
                io.Float.Output(
                    "score",
                    display_name="score",
                    is_output_list=True,
                    tooltip="Of each picture, as in Judge Edit: above 0 the edit shows.",
                ),
                io.String.Output(
                    "words", display_name="words", tooltip="Strength and score in words, a line for each picture."
                ),
                io.String.Output(
                    "warning",
                    display_name="warning",
                    tooltip="Where the edit does not show at any strength, or does not fit the picture; else empty.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(  # noqa: D102
        cls,
        model: Any,
        inversion: Inversion,
        source: Conditioning,
        direction: Direction,
        clip: Any,
        vae: Any,
        caption: str,
        blip: str,
        strengths: str,
        negative: Conditioning,
        **settings: Any,
    ) -> io.NodeOutput:
        tries, count = read_strengths(strengths, "strengths"), len(inversion.noise)
        questions = ask_of_direction(caption, direction, tries[0])
        captioner, remarks = load_captioner(blip), list[str]()
        decoded: dict[int, Tensor] = {}

        def edit_at(strength: float, pictures: Sequence[int]) -> Tensor:
            say_meanwhile(
                cls, f"strength {strength:g}" + (f", {len(pictures)} of {count} pictures" if count > 1 else "")
            )
            target, found = shift_conditioning(source, direction, clip, strength, caption)
            remarks.extend(found)
            texts = source, target, negative
            # A ControlNet holds a hint for each picture that nobody can take out: those that are done go along.
            run = range(count) if any("control" in options for text in texts for _, options in text) else pictures
            before, after, away = (_rows(text, run, count) for text in texts)
            edited = CrossAttnGuidedSampler.execute(model, inversion.of(run), before, after, away, **settings).args[0]
            return edited["samples"][[list(run).index(picture) for picture in pictures]]

        def judge(samples: Tensor, pictures: Sequence[int]) -> Tensor:
            images = _pictures(vae.decode(samples))
            decoded.update(zip(pictures, images, strict=True))
            return torch.tensor(judge_pictures(captioner, images, [questions] * len(pictures)))

        latent = model.get_model_object("latent_format").process_out(framed(inversion.latent_at(0), model))
        fits = warn_originals(captioner, _pictures(vae.decode(latent)), [questions] * count)
        found = edit_until(edit_at, judge, tries, count)
        scores, used = found.scores.tolist(), [tries[i] for i in (found.edits - 1).tolist()]
        words = [f"strength {s:g}, {in_words(questions, score)}" for s, score in zip(used, scores, strict=True)]
        missed = [warn_after(questions, score) for score in scores]
        each = numbered([" ".join(filter(None, pair)) for pair in zip(fits, missed, strict=True)])
        guided = Settings(**{name: value for name, value in settings.items() if name != "cfg"})
        extreme = guided.warning(inversion, source, cfg=settings["cfg"], needs_cfg=needs_cfg(model))
        warning = "\n".join(filter(None, [each, *dict.fromkeys(remarks), extreme]))
        if warning:
            logging.warning("Edit Until It Shows: %s", warning)
        text = numbered(words)
        images = torch.stack([decoded[picture] for picture in range(count)])
        return io.NodeOutput({"samples": found.edited}, images, used, scores, text, warning, ui=said(text, warning))


def _pictures(decoded: Tensor) -> Tensor:
    """Pictures, (B, H, W, C), also from the VAE of a model of videos, which gives each a frame."""
    return decoded.flatten(0, -4)


def _rows(cond: Conditioning, pictures: Sequence[int], count: int) -> Conditioning:
    """The part of a conditioning that belongs to some pictures of a batch, where it has one for each."""

    def own(value: Any) -> Any:
        of_each = count > 1 and isinstance(value, Tensor) and value.ndim > 0 and len(value) == count
        return value[list(pictures)] if of_each else value

    return [[own(embedding), {name: own(value) for name, value in options.items()}] for embedding, options in cond]
