"""The model that edits, and the one that captions, as the options name them."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pix2pix_zero_core import Direction, EditDirection, load_direction
from pix2pix_zero_core.integrations.captioner import Captioner
from pix2pix_zero_core.integrations.diffusers import PipelineEditor, load_pipeline
from pix2pix_zero_core.integrations.folders import ran_out_of_memory
from pix2pix_zero_core.integrations.pairs import Form
from pix2pix_zero_core.integrations.sentences import (
    SHIPPED,
    EditSentences,
    Kind,
    load_edit,
    read_edits,
    sentences_about,
)

from .arguments import FORMS, TINY_EDITS, TINY_ZOO, USUAL_KIND, USUAL_SENTENCES, ZOO, UsageError

TINY_BLIP = ZOO / "weights" / "blip" / "tiny_zoo"


@dataclass(frozen=True)
class ModelOptions:
    """Which model, and where it runs. Small enough to be sent to another machine, which loads the model itself.

    Attributes:
        name: `TINY_ZOO`, a folder in diffusers' format, or a checkpoint.
        config: for a checkpoint, a folder in diffusers' format.
        blip: folder of the captioner; None where nothing is to be captioned.
        device: of torch.
        dtype: its name in torch.
        threads: CPU threads; None leaves torch's own number.
    """

    name: str
    config: Path | None
    blip: Path | None
    device: str
    dtype: str
    threads: int | None

    @classmethod
    def of(cls, arguments: argparse.Namespace, *, captions: bool) -> ModelOptions:
        """Read the options.

        Args:
            arguments: with the options of `add_model`, and of `add_captioner` if captions are needed.
            captions: whether pictures will be captioned.

        Raises:
            UsageError: there is no captioner, or no model at the path; a captioner or a configuration of no use.
        """
        zoo = arguments.model == TINY_ZOO
        if not zoo and not Path(arguments.model).exists():
            raise UsageError(
                f"--model {arguments.model}: there is no such folder or checkpoint; {TINY_ZOO} is the embedded model"
            )
        if arguments.config is not None:
            if zoo or Path(arguments.model).is_dir():
                model = TINY_ZOO if zoo else f"a folder, {arguments.model}"
                raise UsageError(f"--config {arguments.config}: belongs to a checkpoint, not to {model}")
            if not (arguments.config / "model_index.json").is_file():
                raise UsageError(
                    f"--config {arguments.config}: no folder in diffusers' format, which has a model_index.json"
                )
        if not captions and getattr(arguments, "blip", None) is not None:
            raise UsageError(f"--blip {arguments.blip}: nothing is captioned, since --caption says what pictures show")
        if captions and not zoo and arguments.blip is None:
            raise UsageError(
                "--blip: the embedded captioner knows only Tiny Zoo's pictures. Give a folder with the files of "
                "Salesforce/blip-image-captioning-base, or a --caption"
            )
        blip = (arguments.blip or TINY_BLIP) if captions else None
        if blip is not None and not blip.is_dir():
            raise UsageError(f"--blip {blip}: there is no such folder")
        config, blip = (path and path.resolve() for path in (arguments.config, blip))
        name = TINY_ZOO if zoo else str(Path(arguments.model).resolve())
        threads = arguments.threads or (1 if getattr(arguments, "ray", None) else None)
        return cls(name, config, blip, arguments.device, arguments.dtype, threads)

    def load(self) -> Model:
        """Load the model, and set torch's threads for this process.

        Raises:
            UsageError: it cannot be read or does not fit the method.
        """
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        with named(f"--model {self.name}"):
            pipeline = self._pipeline()
            pipeline.set_progress_bar_config(disable=True)  # the command has its own
            editor = PipelineEditor(pipeline)
        return Model(self, editor, None if self.blip is None else load_captioner(self.blip, self.device))

    def _pipeline(self) -> Any:
        quiet()
        dtype, device = getattr(torch, self.dtype), find_device(self.device)
        if self.name != TINY_ZOO:
            return load_pipeline(self.name, config=self.config, dtype=dtype, device=device)
        from tiny_zoo.pipeline import load_pipeline as load_tiny_zoo

        pipeline = load_tiny_zoo().to(device)
        pipeline.unet.to(dtype)
        pipeline.text_encoder.to(dtype)
        return pipeline

    @property
    def edits(self) -> Path:
        """The folder of the model's ready-made edits."""
        return TINY_EDITS if self.name == TINY_ZOO else SHIPPED


@dataclass(frozen=True)
class Model:
    """A loaded model.

    Attributes:
        options: which one it is.
        editor: edits.
        captioner: captions; None where that is not wanted.
    """

    options: ModelOptions
    editor: PipelineEditor

    captioner: Captioner | None


def load_captioner(blip: Path, device: str) -> Captioner:
    """Load a captioner.

    Raises:
        UsageError: it cannot be read.
    """
    quiet()
    with named(f"--blip {blip}"):
        return Captioner.from_folder(blip, device=find_device(device))


@contextmanager
def named(option: str) -> Iterator[None]:
    """Name the option of a model that cannot be loaded.

    Raises:
        UsageError: instead of what was raised, too little memory also.
    """
    try:
        yield
    except (FileNotFoundError, TypeError, ValueError) as error:
        raise UsageError(f"{option}: {error}") from error
    except (MemoryError, RuntimeError) as error:
        if not ran_out_of_memory(error):
            raise
        said = str(error) or type(error).__name__
        raise UsageError(f"{option}: too little memory ({said}). Free some, or choose another --device") from error


def find_device(name: str) -> torch.device:
    """The device of a name, of which "auto" is the accelerator, or the CPU where there is none.

    Raises:
        UsageError: no such device.
    """
    if name == "auto":  # torch names the accelerator that it was built for, whether there is one or not
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return found or torch.device("cpu")
    try:
        return torch.empty(0, device=name).device
    except (AssertionError, RuntimeError) as error:  # a torch without CUDA asserts
        raise UsageError(f"--device {name}: {error}") from error


@dataclass(frozen=True)
class DirectionOptions:
    """Which edit.

    Attributes:
        name: for file names, cat2dog.
        file: of a direction that was saved; else it is built of `sentences`.
        sentences: about both concepts.
        form: that these become.
    """

    name: str
    file: Path | None
    sentences: EditSentences | None
    form: Form = "aligned to words"

    @classmethod
    def of(cls, arguments: argparse.Namespace, model: ModelOptions) -> DirectionOptions:
        """Read the options of `add_direction`, and --direction where the command has one.

        Raises:
            UsageError: an unknown edit, one of --from and --to without the other, words that are nothing to edit by,
                options that another way to name the edit leaves nothing to do.
        """
        made_up = ("kind", "sentences", "seed")
        if getattr(arguments, "direction", None):
            _require_none_of(arguments, ("target", *made_up, "form"), "--direction")
        if arguments.edit is not None:
            _require_none_of(arguments, ("target", *made_up), "--edit")
        form = FORMS[arguments.form or "aligned"]
        if file := getattr(arguments, "direction", None):
            if not file.is_file():
                raise UsageError(f"--direction {file}: there is no such file; pix2pix-zero direction makes one")
            return cls(file.stem, file.resolve(), None)
        if arguments.edit is not None:
            known = read_edits(model.edits)
            if arguments.edit not in known:
                raise UsageError(f"--edit {arguments.edit}: the edits of this model are {', '.join(known)}")
            return cls(arguments.edit, None, load_edit(arguments.edit, model.edits), form)
        if arguments.target is None:
            raise UsageError("--from: needs --to, what replaces it")
        source, target = arguments.source.strip(), arguments.target.strip()
        if source.lower() == target.lower():
            raise UsageError(f"--from {source} --to {target}: both are the same, there is nothing to change")
        before = _sentences("--from", source, arguments, model)
        after = _sentences("--to", target, arguments, model)
        name = "-".join(re.findall(r"\w+", f"{source} to {target}"))
        return cls(name, None, EditSentences(before, after, source, target), form)

    @property
    def concepts(self) -> tuple[str, str]:
        """What the edit leads away from, and to.

        Raises:
            UsageError: a file that is no direction.
        """
        named = self.sentences or self._load()
        return named.source, named.target

    @property
    def digest(self) -> str:
        """Names what the direction is made of: the file's content, or the sentences and the form."""
        content = json.dumps([self.sentences, self.form]).encode() if self.file is None else self.file.read_bytes()
        return hashlib.sha256(content).hexdigest()

    def build(self, model: Model, on_progress: Any = None) -> Direction:
        """Make or load the direction for a model.

        Raises:
            UsageError: a file that is no direction, or one of another model; words that the model reads as the same.
        """
        if self.file is None:
            assert self.sentences is not None
            named = f"{self.sentences.source} -> {self.sentences.target}"
            try:
                built = model.editor.build_direction(self.sentences, on_progress, self.form)
            except ValueError as error:
                raise UsageError(f"{named}: {error}") from error
            if isinstance(built, EditDirection) and not built.vector.any():
                raise UsageError(f"{named}: both read the same to the text encoder, there is nothing to change")
            return built
        direction = self._load()
        try:
            direction.require_encoder(model.editor.encoder)
        except ValueError as error:
            raise UsageError(f"--direction {self.file}: {error}") from error
        return direction

    def _load(self) -> Direction:
        assert self.file is not None
        try:
            return load_direction(self.file)
        except (FileNotFoundError, ValueError) as error:
            raise UsageError(f"--direction {self.file}: {error}") from error


def _sentences(flag: str, words: str, arguments: argparse.Namespace, model: ModelOptions) -> list[str]:
    """Sentences about the words of an option."""
    if model.name == TINY_ZOO:
        require_tiny_zoo_knows(flag, words)
    kind: Kind = arguments.kind or USUAL_KIND
    try:
        return sentences_about(words, arguments.sentences or USUAL_SENTENCES, arguments.seed or 0, kind=kind)
    except ValueError as error:
        raise UsageError(f"{flag} {words}: {error}") from error


def _require_none_of(arguments: argparse.Namespace, names: Sequence[str], way: str) -> None:
    """Refuse options that mean nothing beside another way to name an edit."""
    flags = {"target": "--to"}
    if given := [flags.get(name, f"--{name}") for name in names if getattr(arguments, name) is not None]:
        owner = "--edit and --from" if given == ["--form"] else "--from"
        raise UsageError(f"{', '.join(given)}: belongs to {owner}, not to {way}")


def require_tiny_zoo_knows(flag: str, text: str) -> None:
    """Refuse words that the embedded model's captions never have.

    Raises:
        UsageError: those words, and those that it knows.
    """
    from tiny_zoo.captions import VOCABULARY

    if not text.strip():
        raise UsageError(f"{flag}: is empty; say what the picture shows or is to show, {flag} cat say")
    words = re.findall(r"\w+", text.lower())
    unknown = [word for word in words if word not in VOCABULARY] or ([] if words else [repr(text)])
    if unknown:
        known = ", ".join(sorted(word for word in VOCABULARY if word.isalnum()))
        raise UsageError(f"{flag} {text}: Tiny Zoo does not know {', '.join(unknown)}; its words are {known}")


def quiet() -> None:
    """Leave the terminal to our own progress bars and messages; what the editor warns of is among those."""
    warnings.filterwarnings("ignore", category=UserWarning, module="pix2pix_zero_cli")
    import diffusers.utils.logging
    import transformers.utils.logging

    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
