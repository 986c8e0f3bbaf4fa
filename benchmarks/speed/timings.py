"""What is timed beside edits: captions, directions, the noise regulariser; and memory after many edits."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch

from pix2pix_zero_core import EditDirection, NoiseRegularizer
from pix2pix_zero_core.integrations.captioner import Captioner
from pix2pix_zero_core.integrations.sentences import load_edit
from pix2pix_zero_core.regularizer import regularize
from tiny_zoo.compose_directions import FOLDER
from tiny_zoo.denoiser import TinyZoo
from tiny_zoo.training import WEIGHTS

from ..harness.tasks import TASKS, draw_scenes, pictures
from ..rivals import official
from .edits import SENTENCES, Edit
from .meter import Meter, give_memory_back, resident
from .plan import TASK
from .subjects import Subject


def seconds_of(function: Callable[[], object], runs: int = 3) -> float:
    """Median processor time of a function, after a call to warm up."""
    function()
    times: list[float] = []
    for _ in range(runs):
        started = time.process_time()
        function()
        times.append(time.process_time() - started)
    return statistics.median(times)


def time_caption() -> float:
    """Seconds in which a picture of Tiny Zoo is described."""
    captioner = Captioner.from_folder(WEIGHTS / "blip" / "tiny_zoo")
    picture = pictures(draw_scenes(TASKS[TASK], "test", 1)[0]).movedim(1, -1)
    return seconds_of(lambda: captioner(picture))


def time_direction(zoo: TinyZoo) -> float:
    """Seconds in which a direction is averaged over `SENTENCES` pairs with Tiny Zoo's text encoder."""
    task = load_edit(TASK, FOLDER)
    source, target = task.source_sentences[:SENTENCES], task.target_sentences[:SENTENCES]

    def build() -> EditDirection:
        return EditDirection.build(
            lambda texts: (zoo.encode_text(texts), None), source, target, source="", target="", encoder="Tiny Zoo"
        )

    return seconds_of(build)


def time_regularizer() -> dict[str, float]:
    """Seconds of the noise regulariser on one latent of 512 px, ours and the published one's."""
    eps = torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    shifts = torch.Generator().manual_seed(0)
    ours = seconds_of(lambda: regularize(eps, NoiseRegularizer()), 15)
    theirs = seconds_of(lambda: official.regularize(eps, shifts), 15)
    return {"ours": ours, "official": theirs, "ratio": theirs / ours}


def resident_after_edits(subject: Subject, edit: Edit, count: int) -> list[int]:
    """Edit again and again; resident memory of the process after each edit, bytes."""
    resident_bytes: list[int] = []
    for _ in range(count):
        Meter(subject.unet).run(partial(edit, subject))
        gc.collect()
        give_memory_back()
        resident_bytes.append(resident("VmRSS"))
    return resident_bytes
