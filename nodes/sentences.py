"""Sentences about a concept as text, for Edit Direction: write them, keep them, get them back."""

# ComfyUI's base classes leave the arguments of what they call open.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

from pathlib import Path

import comfy.model_management
import comfy.utils
import torch
from comfy_api.v0_0_2 import io, ui

from ..pix2pix_zero_core.integrations.language_model import SentenceWriter
from ..pix2pix_zero_core.integrations.sentences import (
    Kind,
    SentenceBanks,
    parse_sentences,
    read_sentences,
    save_sentences,
    sentences_about,
)
from .directions import COLLECTIONS, kind_input
from .files import find_file, list_files, model_folders, new_file
from .memory import loaded
from .types import CATEGORY, search_aliases

GRAMMAR = "grammar"
LANGUAGE_MODELS = "LLM"
"""ComfyUI's model folder for language models, as other packs name it."""

SUFFIX = ".txt"


class WriteSentences(io.ComfyNode):
    """Sentences about any word, by the grammar or by a language model (arXiv:2302.03027, section 3.2)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="Pix2PixZeroWriteSentences",
            display_name="Write Sentences",
            category=CATEGORY,
            **search_aliases("language model", "prompt generator", "sentence bank"),
            description="Write many different sentences about one thing, for a custom Edit Direction. Look at them "
            "with Preview as Text (once Preview Any), keep them with Save Sentences, or paste and change them in Edit "
            "Direction.",
            inputs=[
                io.String.Input("concept", default="cat", tooltip="The word or phrase that every sentence names."),
                io.Combo.Input(
                    "writer",
                    options=[GRAMMAR, *model_folders(LANGUAGE_MODELS)],
                    default=GRAMMAR,
                    tooltip="grammar composes sentences at once. The others are language models of yours: folders in "
                    "models/LLM as on Hugging Face (config.json, .safetensors, tokenizer), causal or seq2seq.",
                ),
                io.Int.Input("count", default=200, min=1, max=1000, tooltip="How many sentences, 1 to 1000."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**31 - 1,
                    control_after_generate=False,
                    tooltip="Another number, from 0 on, gives other sentences; the same one gives the same.",
                ),
                io.Float.Input(
                    "temperature",
                    default=1.0,
                    min=0.1,
                    max=2.0,
                    step=0.05,
                    tooltip="Language models: 0.1 to 2. Higher is more varied and less sensible.",
                ),
                kind_input(),
            ],
            outputs=[
                io.String.Output(
                    "sentences", display_name="sentences", tooltip="One a line, for source or target of Edit Direction."
                )
            ],
        )

    @classmethod
    def execute(  # noqa: D102
        cls, concept: str, writer: str, count: int, seed: int, temperature: float, kind: Kind = "thing"
    ) -> io.NodeOutput:
        if writer == GRAMMAR:
            return io.NodeOutput("\n".join(sentences_about(concept, count, seed, kind=kind)))
        folders = model_folders(LANGUAGE_MODELS)
        if writer not in folders:
            raise ValueError(
                f"There is no language model {writer!r}; models/{LANGUAGE_MODELS} has: {', '.join(folders) or 'none'}. "
                f"Put the model's folder there and reload the page, or choose {GRAMMAR}."
            )
        return io.NodeOutput("\n".join(_written_by_model(folders[writer], concept, count, seed, temperature)))


class LoadSentences(io.ComfyNode):
    """Sentences of a text file or of a shipped bank."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="Pix2PixZeroLoadSentences",
            display_name="Load Sentences",
            category=CATEGORY,
            **search_aliases("prompts from file", "sentence bank"),
            description="Read a list of sentences, for source or target of a custom Edit Direction.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=[*list_files(SUFFIX), *_banks()],
                    tooltip="A text file (.txt, UTF-8, one sentence a line) in models/edit_directions, or one of the "
                    "lists that come with the pack.",
                )
            ],
            outputs=[io.String.Output("sentences", display_name="sentences", tooltip="One a line.")],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str) -> int:
        """Tell ComfyUI when the file has changed."""
        return _sentence_file(file).stat().st_mtime_ns

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:  # noqa: D102
        return io.NodeOutput("\n".join(read_sentences(_sentence_file(file))))


class SaveSentences(io.ComfyNode):
    """A list of sentences as a text file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="Pix2PixZeroSaveSentences",
            display_name="Save Sentences",
            category=CATEGORY,
            **search_aliases("prompts to file", "sentence bank"),
            description="Write sentences to a text file in models/edit_directions, where they can be edited. Load "
            "Sentences reads them again.",
            inputs=[
                io.String.Input("sentences", default="", multiline=True, tooltip="The sentences, one a line."),
                io.String.Input("name", default="cat", tooltip="Name of a file in models/edit_directions; no folders."),
                io.Boolean.Input("overwrite", default=False, tooltip="Replace a file of this name. Off: refuse to."),
            ],
            outputs=[],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, sentences: str, name: str, overwrite: bool) -> io.NodeOutput:  # noqa: D102
        lines = parse_sentences(sentences)
        path = new_file(name, SUFFIX, overwrite)
        save_sentences(lines, path, overwrite=overwrite)
        return io.NodeOutput(ui=ui.PreviewText(f"{len(lines)} sentences saved as {path.name}"))


def _written_by_model(folder: Path, concept: str, count: int, seed: int, temperature: float) -> list[str]:
    """Load a language model in ComfyUI's memory and have it write."""
    device = comfy.model_management.text_encoder_device()
    half = comfy.model_management.should_use_bf16(device, prioritize_performance=False)  # fp16 overflows in some
    writer = SentenceWriter.from_folder(folder, dtype=torch.bfloat16 if half else torch.float32)
    bar = comfy.utils.ProgressBar(count)

    def show(done: int, of: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(done, of)

    with loaded(writer.model):
        return writer(concept, count, seed, temperature=temperature, on_progress=show)


def _banks() -> dict[str, Path]:
    """Name -> file of every list that comes with the pack."""
    banks = {prefix: SentenceBanks(folder / "sentences") for prefix, folder in COLLECTIONS.items()}
    return {prefix + concept: bank.path(concept) for prefix, bank in banks.items() for concept in bank.concepts()}


def _sentence_file(name: str) -> Path:
    return _banks()[name] if name in _banks() else find_file(name, SUFFIX)
