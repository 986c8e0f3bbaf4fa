"""The training of a distilled edit on pairs of pictures, before and after the edit.

A conditional generator as in pix2pix (Isola et al. 2017, arXiv:1611.07004): the difference to the teacher's edit, and
from the middle of the training on what a critic of patches says of it, by the hinge loss (Lim and Ye 2017,
arXiv:1705.02894; used so in SPADE, arXiv:1903.07291). pix2pix takes the mean absolute difference; here the mean square
is added to it. Of most pixels an edit changes nothing, and with the absolute difference alone a student that does
nothing either is a place where the training rests for long. The critic comes late because what it teaches, sharp
detail, is worth nothing before the edit stands where it should, as in VQGAN (arXiv:2012.09841). What is kept are
running averages of the weights (Karras et al. 2018, arXiv:1710.10196).

Whatever is random is drawn for a step from its number alone, so a training that was stopped goes on as if it had not
been: on a CPU with the same number of threads to the bit.
"""

from __future__ import annotations

import copy
import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..files import write_whole
from .networks import BLOCKS, WIDTHS, Critic, Generator

HELD_OUT = 20
"""Of so many pairs one is not trained on: the figures are about these."""

FEWEST = 4
"""Pairs, of which one is held out."""

SHOWN = 6
"""Most pairs in a picture of samples."""

STATE = "pix2pix-zero distillation"


@dataclass(frozen=True)
class Pairs:
    """Pictures before and after an edit.

    Attributes:
        source: before, uint8 (N, 3, H, W).
        edited: after, the same.

    Raises:
        ValueError: another type or shape, pictures of fewer than 32 pixels a side, or too few of them.
    """

    source: Tensor
    edited: Tensor

    def __post_init__(self) -> None:
        """Validate them."""
        shape = tuple(self.source.shape)
        if self.source.dtype != torch.uint8 or self.edited.dtype != torch.uint8 or self.edited.shape != shape:
            raise ValueError(
                f"Pairs: {self.source.dtype} {shape} before the edit, {self.edited.dtype} {tuple(self.edited.shape)} "
                "after it; both must be uint8, of one shape."
            )
        if len(shape) != 4 or shape[1] != 3 or min(shape[2:]) < 32 or shape[0] < FEWEST:
            raise ValueError(
                f"Pairs: shape {shape}; it must be (pairs, 3, height, width), {FEWEST} pairs and 32 pixels or more."
            )

    def __len__(self) -> int:
        """Count them."""
        return len(self.source)

    @cached_property
    def digest(self) -> str:
        """Names the pictures."""
        found = hashlib.sha256()
        for pictures in (self.source, self.edited):
            for picture in pictures:
                found.update(picture.contiguous().numpy().tobytes())
        return found.hexdigest()

    def take(self, places: list[int]) -> tuple[Tensor, Tensor]:
        """Some of them as the networks have them: float32 in -1..1, (n, 3, H, W) before and after."""
        before, after = (pictures[places].float() / 127.5 - 1 for pictures in (self.source, self.edited))
        return before, after


@dataclass(frozen=True)
class TrainingSettings:
    """How a student is trained.

    Attributes:
        steps: in all.
        batch: pairs a step.
        lr: peak of the learning rate of generator and critic.
        width: of the generator, see `Generator`.
        blocks: its residual blocks.
        square: weight of the mean square of the difference, of values in -1..1; that of its mean absolute value is 1.
        adversarial: weight of the critic's word. pix2pix has 1 to 100 for the mean absolute difference.
        adversarial_from: share of the steps after which the critic has a say; 1 does without it.
        decay: of the running averages.
        precision: of the networks' convolutions; weights, averages and losses are float32 in any case.
        seed: of the first weights, and of which pairs come when.

    Raises:
        ValueError: a setting is out of range.
    """

    steps: int = 4000
    batch: int = 8
    lr: float = 2e-3
    width: int = 32
    blocks: int = 3
    square: float = 4.0
    adversarial: float = 0.05
    adversarial_from: float = 0.5
    decay: float = 0.999
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate the ranges."""
        ranges = {
            "steps": (1, 10_000_000),
            "batch": (1, 1024),
            "lr": (1e-6, 0.1),
            "width": WIDTHS,
            "blocks": BLOCKS,
            "square": (0, 100),
            "adversarial": (0, 1),
            "adversarial_from": (0, 1),
            "decay": (0, 0.99999),
            "seed": (0, 2**31 - 1),
        }
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be {low:g} to {high:g}.")
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f'precision is {self.precision!r}; it must be "float32" or "bfloat16".')


class Training:
    """A training under way: both networks, the averaged weights, and where it stands.

    Attributes:
        settings: how it goes.
        pairs: what is learned.
        step: steps that are done.
        seconds: that they took.
        averaged: the generator with averaged weights.
    """

    def __init__(self, pairs: Pairs, settings: TrainingSettings, device: torch.device | str = "cpu") -> None:
        """Begin a training.

        Args:
            pairs: what is to be learned; they stay in main memory.
            settings: how.
            device: where the networks are.
        """
        self.settings, self.pairs, self.device = settings, pairs, torch.device(device)
        with cast(Any, torch).random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(settings.seed)  # the layers draw their first weights from it
            self.generator = Generator(settings.width, settings.blocks).to(self.device)
            self.critic = Critic(settings.width).to(self.device)
        self.averaged = copy.deepcopy(self.generator).eval().requires_grad_(False)
        self._optimizers = [
            torch.optim.Adam(network.parameters(), settings.lr, betas=(0.5, 0.99))
            for network in (self.generator, self.critic)
        ]
        self.step, self.seconds = 0, 0.0
        held_out = set(range(0, len(pairs), HELD_OUT))
        self._held_out = sorted(held_out)
        self._taught = [place for place in range(len(pairs)) if place not in held_out]

    # ------------------------------------------------------------------------------------------------------- training

    def run(self, on_step: Callable[[float], None], on_pause: Callable[[], None], every: float = 180.0) -> None:
        """Train to the last step.

        Args:
            on_step: called after each with the mean absolute difference of its batch, of values in 0..1.
            on_pause: called every so often, and after the last step: the time to save, and to look.
            every: seconds between two pauses.
        """
        last = time.monotonic()
        while self.step < self.settings.steps:
            on_step(self.advance())
            if time.monotonic() - last >= every or self.step == self.settings.steps:
                on_pause()
                last = time.monotonic()

    def advance(self) -> float:
        """Do a step; returns the mean absolute difference of its batch, of values in 0..1, before it."""
        began, s = time.monotonic(), self.settings
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = s.lr * rate(self.step, s.steps)
        source, edited = self._batch()
        criticized = s.adversarial > 0 and self.step >= s.adversarial_from * s.steps
        with self._precision():
            made = self.generator(source)
        difference = F.l1_loss(made.float(), edited)
        loss = difference + s.square * F.mse_loss(made.float(), edited)
        if criticized:
            self.critic.requires_grad_(False)
            with self._precision():
                said = self.critic(source, made)
            loss = loss - s.adversarial * said.float().mean()
        self._move(0, loss)
        if criticized:
            self.critic.requires_grad_(True)
            with self._precision():
                of_made, of_edited = self.critic(source, made.detach()), self.critic(source, edited)
            self._move(1, F.relu(1 + of_made.float()).mean() + F.relu(1 - of_edited.float()).mean())
        self.step += 1
        self._average()
        found = float(difference.detach()) / 2
        self.seconds += time.monotonic() - began
        return found

    def _move(self, which: int, loss: Tensor) -> None:
        """Take a step of one optimizer down a loss."""
        optimizer = self._optimizers[which]
        optimizer.zero_grad(set_to_none=True)
        cast(Any, loss).backward()
        cast(Any, optimizer).step()

    @torch.no_grad()
    def _average(self) -> None:
        """Move the averaged weights; early ones, which are of little worth, are left behind faster."""
        decay = min(self.settings.decay, (1 + self.step) / (10 + self.step))
        for slow, fast in zip(self.averaged.state_dict().values(), self.generator.state_dict().values(), strict=True):
            if slow.is_floating_point():
                slow.lerp_(fast, 1 - decay)
            else:
                slow.copy_(fast)

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bfloat16")

    def _batch(self) -> tuple[Tensor, Tensor]:
        """The pairs of this step, each perhaps mirrored, and shifted by up to a sixteenth of the picture."""
        s = self.settings
        places = pick(len(self._taught), s.batch, self.step, s.seed)
        source, edited = self.pairs.take([self._taught[place] for place in places])
        generator = torch.Generator().manual_seed(s.seed * 1_000_003 + self.step)
        both = torch.cat([source, edited], 1)
        moved = [jitter(pair, generator) for pair in both]
        batch = torch.stack(moved).to(self.device)
        return batch[:, :3], batch[:, 3:]

    # -------------------------------------------------------------------------------------------------------- looking

    @torch.no_grad()
    def figures(self) -> dict[str, Any]:
        """What is known of the training: settings, steps and seconds, and how near the held-out pairs are met.

        `held_out_psnr` is the peak signal-to-noise ratio to the teacher's edits in dB, averaged over the pairs, and
        `unedited_psnr` that of the pictures before the edit, which a student that does nothing would have.
        """
        student, nothing = 0.0, 0.0
        for place in self._held_out:
            source, edited = (pictures.to(self.device) for pictures in self.pairs.take([place]))
            student += psnr(self.averaged(source).clamp(-1, 1), edited)
            nothing += psnr(source, edited)
        count = len(self._held_out)
        return {
            "pairs": len(self.pairs),
            "held_out": count,
            "held_out_psnr": round(student / count, 2),
            "unedited_psnr": round(nothing / count, 2),
            "training_steps": self.step,
            "training_seconds": round(self.seconds, 1),
            "training": asdict(self.settings),
        }

    @torch.no_grad()
    def samples(self) -> Tensor:
        """A picture of held-out pairs, a row each: before, by the student, by the teacher; (H', W', 3) in 0..1."""
        rows: list[Tensor] = []
        for place in self._held_out[:SHOWN]:
            source, edited = (pictures.to(self.device) for pictures in self.pairs.take([place]))
            rows.append(torch.cat([source, self.averaged(source), edited], 3)[0])
        return (torch.cat(rows, 1).movedim(0, -1) / 2 + 0.5).clamp(0, 1).cpu()

    # ------------------------------------------------------------------------------------------------------- resuming

    def save(self, path: Path) -> None:
        """Write all that is needed to go on."""
        content = BytesIO()
        state = {
            "format": STATE,
            "settings": asdict(self.settings),
            "pairs": self.pairs.digest,
            "step": self.step,
            "seconds": self.seconds,
            "networks": [network.state_dict() for network in self._networks],
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
        }
        torch.save(state, content)
        write_whole(path, content.getvalue(), overwrite=True)

    def resume(self, path: Path) -> None:
        """Go on from what :meth:`save` wrote, on this or another device.

        Raises:
            ValueError: no such state, or one of another training: of other settings or pairs.
        """
        try:
            state: Any = torch.load(path, map_location=self.device, weights_only=True)
        except Exception as error:  # a corrupt file fails with whatever its parser raises: IndexError, KeyError ...
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            raise ValueError(f"{path} cannot be read ({reason}). Delete it to train anew.") from error
        state = cast(dict[str, Any], state) if isinstance(state, dict) else {}
        if state.get("format") != STATE:
            raise ValueError(f"{path} is no state of a distillation. Choose another folder.")
        given: dict[str, Any] = asdict(self.settings)
        found: dict[str, Any] = state["settings"]
        if changed := [f"{name} {found.get(name)}" for name in given if found.get(name) != given[name]]:
            raise ValueError(
                f"{path} is of a training with {', '.join(changed)}. Go on with that, or delete it to train anew."
            )
        if state["pairs"] != self.pairs.digest:
            raise ValueError(f"{path} is of a training on other pairs. Delete it to train on these.")
        for network, saved in zip(self._networks, state["networks"], strict=True):
            network.load_state_dict(saved)
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.seconds = int(state["step"]), float(state["seconds"])

    @property
    def _networks(self) -> tuple[nn.Module, ...]:
        return self.generator, self.averaged, self.critic


def rate(step: int, steps: int) -> float:
    """Share of the peak learning rate: a linear warm-up over a twentieth of the steps, then a cosine to a hundredth."""
    warmup = max(1, steps // 20)
    if step < warmup:
        return (step + 1) / warmup
    share = (step - warmup) / max(1, steps - warmup)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share))


def pick(count: int, batch: int, step: int, seed: int) -> list[int]:
    """The places of a step's batch: all are taken once, in a random order, before the next round begins."""
    picked: list[int] = []
    for number in range(step * batch, (step + 1) * batch):
        epoch, place = divmod(number, count)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed + epoch))
        picked.append(int(order[place]))
    return picked


def jitter(pair: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror a pair or not, and shift it by up to a sixteenth of its sides: (C, H, W) -> the same shape.

    A small set of pairs is soon learned by heart; pix2pix mirrors and shifts as well.
    """
    height, width = pair.shape[-2:]
    down, across = height // 16, width // 16
    mirrored, top, left = (int(torch.randint(n, (), generator=generator)) for n in (2, 2 * down + 1, 2 * across + 1))
    wide = F.pad(pair[None], (across, across, down, down), mode="reflect")[0]
    moved = wide[:, top : top + height, left : left + width]
    return moved.flip(-1) if mirrored else moved


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio of a picture to another, values in -1..1, dB; 100 for pictures that are alike."""
    return float(-10 * ((a - b).square().mean() / 4).clamp(min=1e-10).log10())
