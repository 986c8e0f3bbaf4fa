"""What the training scripts share: pictures of the world, resumable checkpoints, averaged weights, a schedule."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from .world import render, sample_scene

HERE = Path(__file__).parent
WEIGHTS = HERE / "weights"
RUNS = HERE / "runs"

M = TypeVar("M", bound=nn.Module)


def pictures(count: int, split: Literal["train", "validation", "test"] = "train", first: int = 0) -> Tensor:
    """Render the scenes first .. first + count - 1 of a split: uint8 (count, 3, 128, 128)."""
    stack = np.stack([np.asarray(render(sample_scene(first + i, split))) for i in range(count)])
    return torch.from_numpy(stack).permute(0, 3, 1, 2).contiguous()


def one_cycle(step: int, steps: int, peak: float, warmup: int = 200) -> float:
    """Learning rate: linear warm-up, then cosine to a hundredth of the peak."""
    if step < warmup:
        return peak * (step + 1) / warmup
    share = (step - warmup) / max(1, steps - warmup)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, share))))


class Run:
    """A training that can be stopped and started again: model, averaged weights, optimiser and step in one file."""

    def __init__(self, name: str, model: nn.Module, lr: float, steps: int, ema: float = 0.999) -> None:
        self.path = RUNS / f"{name}.pt"
        self.model, self.peak, self.steps, self.decay = model, lr, steps, ema
        self.averaged = copy.deepcopy(model).requires_grad_(False)
        parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.99), weight_decay=0.01)
        self.step = 0
        if self.path.exists():
            state = torch.load(self.path, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.averaged.load_state_dict(state["averaged"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step = int(state["step"])
            print(f"resumed {self.path.name} at step {self.step} of {self.steps}", flush=True)

    def save(self) -> None:
        """Write the whole state under a temporary name, then rename it."""
        RUNS.mkdir(exist_ok=True)
        state: dict[str, Any] = {
            "model": self.model.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
        }
        unfinished = self.path.with_suffix(".tmp")
        torch.save(state, unfinished)
        unfinished.replace(self.path)

    def train(
        self,
        loss_of: Callable[[int], Tensor],
        evaluate: Callable[[nn.Module], str],
        every: int = 500,
    ) -> nn.Module:
        """Run to the last step; every `every` steps print the losses and the evaluation, and save.

        Args:
            loss_of: step -> loss (a scalar) of a batch drawn for that step.
            evaluate: averaged model -> a line to print.
            every: steps between two evaluations.
        """
        total, count, start = 0.0, 0, time.time()
        while self.step < self.steps:
            for group in self.optimizer.param_groups:
                group["lr"] = one_cycle(self.step, self.steps, self.peak)
            loss = loss_of(self.step)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.step += 1
            decay = min(self.decay, (1 + self.step) / (10 + self.step))
            with torch.no_grad():
                for slow, fast in zip(
                    self.averaged.state_dict().values(), self.model.state_dict().values(), strict=True
                ):
                    if slow.is_floating_point():
                        slow.lerp_(fast, 1 - decay)
                    else:
                        slow.copy_(fast)
            total, count = total + float(loss.detach()), count + 1
            if self.step % every == 0 or self.step == self.steps:
                speed = f"{(time.time() - start) / count:.3f} s/step"
                line = f"loss {total / count:.4f} {evaluate(self.averaged)} {speed}"
                print(f"{self.step:6d}/{self.steps} {line}", flush=True)
                self.save()
                total, count, start = 0.0, 0, time.time()
        return self.averaged


def averaged_weights(name: str, model: M) -> M:
    """Load the averaged weights of a run into a model of its kind."""
    path = RUNS / f"{name}.pt"
    if not path.exists():
        raise FileNotFoundError(f"No run at {path}: train it first with python -m tiny_zoo.train_{name}.")
    model.load_state_dict(torch.load(path, weights_only=True)["averaged"])
    return model.eval().requires_grad_(False)
