"""`pix2pix-zero distill`: an edit as a small network, which learns it from pairs that the whole method makes.

First the pictures are edited, as `pix2pix-zero edit` does it, and BLIP judges every result: pairs in which it sees
the edit are kept. Then the network is trained on them. Both can be stopped, and go on when the same command is called
again; what they have so far is in --work, also a picture of samples, drawn anew every few minutes: before the edit, by
the network, by the method.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from tqdm import tqdm

from pix2pix_zero_core import Direction
from pix2pix_zero_core.distillation import DistilledEdit, Pairs, Training, TrainingSettings
from pix2pix_zero_core.distillation.training import FEWEST
from pix2pix_zero_core.integrations.diffusers import InvertedPictures
from pix2pix_zero_core.integrations.judge import ask_of_direction, judge
from pix2pix_zero_core.settings import USUAL_STRENGTH

from .arguments import UsageError, add_json, add_recursive, add_size, number, some_path
from .cluster import choose_runner
from .edit import EditTask, add_edit, edit_settings
from .jobs import Row
from .model import DirectionOptions, Model, ModelOptions, find_device
from .pictures import (
    find_pictures,
    read_picture,
    read_text,
    require_folder,
    require_output_elsewhere,
    require_own_names,
    write_picture,
)
from .report import process, say

SUFFIX = ".safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's options."""
    parser.add_argument(
        "--pictures",
        nargs="+",
        type=some_path,
        required=True,
        metavar="PICTURE",
        help="pictures to learn from, or folders of them",
    )
    add_recursive(parser)
    parser.add_argument(
        "--output", type=some_path, required=True, metavar="FILE", help="the distilled edit, .safetensors"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the file, and pairs or a training of other settings"
    )
    parser.add_argument(
        "--work", type=some_path, help="folder for pairs, samples and the state of the training (default: the output's "
        "name, and _work)"
    )  # fmt: skip
    parser.add_argument(
        "--min-pairs",
        type=number(int, FEWEST, 10**6),
        default=100,
        help="pairs in which BLIP has to see the edit, or nothing is trained (default: 100)",
    )
    parser.add_argument(
        "--licence",
        help="what the file says of who may use it (default: that the model's and the pictures' licences apply)",
    )
    add_size(parser)
    add_edit(parser, several=False)
    add_training(parser)
    add_json(parser)


def add_training(parser: argparse.ArgumentParser) -> None:
    """Describe the settings of the training."""
    usual = TrainingSettings()
    group = parser.add_argument_group("training")

    def setting(flag: str, value: Callable[[str], float], default: float, help: str) -> None:
        group.add_argument(flag, type=value, default=default, help=f"{help} (default: {default:g})")

    setting("--training-steps", number(int, 1, 10**7), usual.steps, "steps in all")
    setting("--batch", number(int, 1, 1024), usual.batch, "pairs a step")
    setting("--lr", number(float, 1e-6, 0.1), usual.lr, "peak of the learning rate")
    setting("--width", number(int, 4, 128), usual.width, "of the network; its size and time grow with the square")
    setting("--blocks", number(int, 0, 16), usual.blocks, "residual blocks of the network")
    setting("--adversarial", number(float, 0, 1), usual.adversarial, "weight of the critic's word; 0 does without it")
    group.add_argument(
        "--precision",
        choices=["float32", "bfloat16"],
        default=usual.precision,
        help="of the training's convolutions; bfloat16 is faster on GPUs, and on CPUs that compute in it (default: "
        f"{usual.precision})",
    )
    setting("--minutes", number(float, 0, 1440), 3, "between two savings, each with a picture of samples")


def run(arguments: argparse.Namespace) -> int:
    """Make pairs, and distill the edit; returns the exit status."""
    output = arguments.output.resolve()
    work = (arguments.work or output.with_name(f"{output.stem}_work")).resolve()
    found = find_pictures(arguments.pictures, recursive=arguments.recursive, output=work)
    pictures = found.pictures
    require_file(output, overwrite=arguments.overwrite)
    for folder in (work, work / "pairs"):
        require_output_elsewhere(arguments.pictures, folder, PairTask.flag)
    require_folder(work, PairTask.flag)
    task, settings = pair_task(arguments, work / "pairs", found.searched), training_settings(arguments)
    require_own_names([task.edited(picture) for picture in pictures])
    status = process(
        task,
        found,
        output=task.output,
        as_json=arguments.json,
        describe=in_words,
        run=choose_runner(task, task.model, arguments),
        flag=task.flag,
    )
    made = [picture for picture in pictures if task.finished(picture)]  # one that failed may have an older pair
    good = task.good(made)
    require_enough(task, len(good), len(made), len(pictures), arguments.min_pairs)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    training = Training(read_pairs(task, good), settings, find_device(arguments.device))
    train(training, work, arguments.minutes * 60, overwrite=arguments.overwrite)
    counts = {"pictures": len(pictures), "filtered_out": len(made) - len(good)}
    distilled = finish(task, training, counts, arguments.licence, read_text(task.edited(good[0]), "encoder") or "")
    try:
        distilled.save(output, overwrite=arguments.overwrite)
    except OSError as error:  # somebody else has made one meanwhile, or the disk is full
        raise UsageError(f"--output: {error}") from error
    except ValueError as error:
        raise diverged(training, work, f"nothing is written to --output {output}: {error}") from error
    figures = distilled.figures
    if arguments.json:
        say(json.dumps({"output": str(output), **figures}))
    else:
        say(
            f"{distilled.describe()}: {figures['held_out_psnr']:.1f} dB to the method's edits of {figures['held_out']} "
            f"others (unedited {figures['unedited_psnr']:.1f}): {output}"
        )
    return status


def in_words(row: Row) -> str:
    """What a finished pair's line says."""
    assert row.result is not None
    seen = "shows" if row.result["shows"] else "does not show, left out"
    warning = f"\n  {row.result['warning']}" if "warning" in row.result else ""
    return f"{row.result['caption']!r}, {seen} ({row.result['score']:.1f}; {row.seconds:.1f} s){warning}"


# ------------------------------------------------------------------------------------------------------------- pairs


@dataclass(frozen=True)
class PairTask(EditTask):
    """Edit a picture, and judge whether the edit shows."""

    flag: ClassVar[str] = "--work"

    def edited(self, picture: Path) -> Path:
        """Where the edited picture goes, with the judgement in it."""
        return self.outputs(picture)[0]

    def score(self, picture: Path) -> float:
        """The judgement of a finished pair: above 0 the edit shows; NaN where there is none."""
        return float(read_text(self.edited(picture), "score") or "nan")

    def good(self, pictures: Sequence[Path]) -> list[Path]:
        """The pictures of which there is a pair in which the edit shows."""
        return [picture for picture in pictures if self.score(picture) > 0]

    def make(
        self,
        edit_at: Callable[[float], Tensor],
        strength: float | None,
        model: Model,
        caption: str,
        direction: Direction,
    ) -> tuple[Tensor, dict[str, str]]:
        """See `EditTask.make`."""
        assert strength is not None and model.captioner is not None  # `pair_task` asked for both
        picture, _ = super().make(edit_at, strength, model, caption, direction)
        score = judge(model.captioner, picture[None], [ask_of_direction(caption, direction, strength)]).item()
        return picture, {"score": f"{score:.3f}", "encoder": model.editor.encoder}

    def judged(
        self, path: Path, model: Model, inverted: InvertedPictures, caption: str, direction: Direction
    ) -> tuple[dict[str, Any], list[str]]:
        """See `EditTask.judged`."""
        score = self.score(path)
        return {"score": score, "shows": score > 0}, []


def pair_task(arguments: argparse.Namespace, output: Path, searched: tuple[Path, ...]) -> PairTask:
    """Read the options of `add_edit`."""
    model = ModelOptions.of(arguments, captions=True)
    return PairTask(
        model,
        edit_settings(arguments),
        arguments.caption,
        arguments.size,
        output,
        searched,
        arguments.overwrite,
        DirectionOptions.of(arguments, model),
        tuple(arguments.guidance),
        tuple(arguments.direction_strength or (USUAL_STRENGTH,)),
    )


def require_file(path: Path, *, overwrite: bool) -> None:
    """Refuse an output before anything is done, that could not be written at the end.

    Raises:
        UsageError: why.
    """
    if path.suffix != SUFFIX:
        raise UsageError(f"--output {path}: must end in {SUFFIX}")
    if path.exists() and (path.is_dir() or not overwrite):
        raise UsageError(f"--output {path}: exists; choose another name, or --overwrite")
    if not path.parent.is_dir():
        raise UsageError(f"--output {path}: there is no folder {path.parent}")
    require_folder(path.parent)


def require_enough(task: PairTask, good: int, made: int, pictures: int, wanted: int) -> None:
    """Refuse to train on too few pairs.

    Raises:
        UsageError: how many more are wanted, and what to do.
    """
    if good >= wanted:
        return
    advice = (
        f"At that rate {math.ceil((wanted - good) * pictures / good)} more pictures give them"
        if good
        else "Raise --direction-strength or --cfg, or lower --guidance"
    )
    raise UsageError(
        f"--pictures: BLIP sees the edit in {good} of {made} edited pictures, and {wanted} are wanted (--min-pairs): "
        f"{wanted - good} more. {advice}; the edits are in {task.output}, look at them first"
    )


def read_pairs(task: PairTask, pictures: Sequence[Path]) -> Pairs:
    """Read pictures, as the model saw them, and their edits."""
    edited = torch.stack([_in_bytes(task.edited(picture), None) for picture in pictures])
    height, width = edited.shape[2:]
    return Pairs(torch.stack([_in_bytes(picture, (width, height)) for picture in pictures]), edited)


def _in_bytes(path: Path, size: tuple[int, int] | None) -> Tensor:
    """Read a picture: uint8, (3, H, W)."""
    return (read_picture(path, size)[0] * 255).round().to(torch.uint8).movedim(-1, 0).contiguous()


# ---------------------------------------------------------------------------------------------------------- training


def training_settings(arguments: argparse.Namespace) -> TrainingSettings:
    """Read the options of `add_training`."""
    return TrainingSettings(
        steps=arguments.training_steps,
        batch=arguments.batch,
        lr=arguments.lr,
        width=arguments.width,
        blocks=arguments.blocks,
        adversarial=arguments.adversarial,
        precision=arguments.precision,
    )


def train(training: Training, work: Path, every: float, *, overwrite: bool) -> None:
    """Train to the end, from where an earlier call saved.

    What was done since then when a call is interrupted is lost: only between steps do all the networks belong together.

    Args:
        training: not begun.
        work: folder of the state, training.pt, and of the samples, samples.png.
        every: seconds between two savings.
        overwrite: whether the state of a training with other settings is replaced.

    Raises:
        UsageError: the state is of another training, and may not be replaced.
    """
    state = work / "training.pt"
    if state.exists():
        try:
            training.resume(state)
        except ValueError as error:
            if not overwrite:
                raise UsageError(f"--work: {error} Or call with --overwrite") from error
    steps = training.settings.steps
    with tqdm(total=steps, initial=training.step, unit="step", file=sys.stderr, disable=None) as bar:
        last = 0.0

        def show(difference: float) -> None:
            nonlocal last
            last = difference
            bar.set_postfix(difference=f"{difference:.4f}", refresh=False)
            bar.update()

        def pause() -> None:
            if not math.isfinite(last):
                raise diverged(training, work, f"at step {training.step} the difference is {last}")
            training.save(state)
            write_picture(training.samples(), work / "samples.png", {})
            found = training.figures()
            line = f"step {training.step} of {steps}: {found['held_out_psnr']:.2f} dB to the method's edits"
            tqdm.write(f"{line} (unedited {found['unedited_psnr']:.2f}); {work / 'samples.png'}", file=sys.stderr)

        training.run(show, pause, every)


def diverged(training: Training, work: Path, how: str) -> UsageError:
    """What is said of a training whose weights have grown without bounds."""
    return UsageError(
        f"--lr {training.settings.lr:g}: the training has diverged ({how}). Lower it, and call with --overwrite, or "
        f"delete {work / 'training.pt'} if it is there"
    )


def finish(
    task: PairTask, training: Training, counts: dict[str, int], licence: str | None, encoder: str
) -> DistilledEdit:
    """The distilled edit of a finished training.

    Args:
        task: that made the pairs.
        training: finished.
        counts: how many pictures there were, and how many were left out.
        licence: what is to be said of it; None says what is known.
        encoder: fingerprint of the model's text encoder.
    """
    (variant,), (source, target) = task.variants, task.direction.concepts
    teacher = task.describe(variant)
    teacher |= {name: Path(teacher[name]).name for name in ("model", "blip")}  # where they are is nobody's business
    if task.strengths[0] < 0:
        source, target = target, source
    height, width = training.pairs.source.shape[2:]
    said = f"Learned from edits by {teacher['model']}; its licence and those of the pictures apply."
    figures = {**counts, **training.figures()}
    return DistilledEdit(
        training.averaged.folded(),
        task.direction.name,
        source,
        target,
        (width, height),
        encoder,
        json.dumps(teacher),
        licence or said,
        figures,
    )
