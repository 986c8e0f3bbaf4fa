"""Clocks on a UNet: how long it runs forward and backward, for how many rows, and how long everything else takes."""

from __future__ import annotations

import ctypes
import gc
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor


class Call(NamedTuple):
    """A kind of call.

    Attributes:
        phase: "invert" or "edit".
        what: "forward"; "forward with maps"; "forward with graph", which a backward pass follows; "backward".
        rows: of its batch.
    """

    phase: str
    what: str
    rows: int


@dataclass(frozen=True)
class Usage:
    """What a run took.

    Attributes:
        calls: seconds of every call of the UNet.
        phases: seconds of every phase, calls included.
        wall_seconds: by the clock on the wall, all phases.
        peak_bytes: memory at the peak above what there was before.
        map_bytes: bytes of cross-attention maps that were alive at once, at most; 0 unless they were watched.
    """

    calls: dict[Call, list[float]]
    phases: dict[str, float]
    wall_seconds: float
    peak_bytes: int
    map_bytes: int = 0

    def to_json(self) -> dict[str, Any]:
        """Turn into what `from_json` reads."""
        return vars(self) | {"calls": [[*call, seconds] for call, seconds in self.calls.items()]}

    @staticmethod
    def from_json(values: dict[str, Any]) -> Usage:
        """Read what `to_json` made."""
        calls = {Call(phase, what, rows): seconds for phase, what, rows, seconds in values["calls"]}
        return Usage(**{**values, "calls": calls})


class Meter:
    """Measures one run on a UNet2DConditionModel.

    Seconds are those of the processor, summed over threads; on a GPU, where it would idle, those of the wall.
    """

    def __init__(self, unet: Any, *, watch_maps: bool = False) -> None:
        """Bind a UNet; watching the maps takes time that is counted, so that such a run is not one to be timed."""
        self.unet, self.watch_maps = unet, watch_maps
        self.with_maps = False
        """Whether the next forward pass computes maps beside its prediction; who asks for them says so."""
        self._calls: defaultdict[Call, list[float]] = defaultdict(list)
        self._phases: defaultdict[str, float] = defaultdict(float)
        self._phase, self._since = "", 0.0
        self._rows_with_graph = 0
        self._map_bytes = 0

    def run(self, edit: Callable[[Meter], object]) -> Usage:
        """Measure an edit, which marks its phases with `phase`."""
        gc.collect()
        gc.freeze()
        try:
            return self._run(edit)
        finally:
            gc.unfreeze()

    def _run(self, edit: Callable[[Meter], object]) -> Usage:
        forward, grad, backward = self.unet.forward, torch.autograd.grad, torch.autograd.backward
        with (
            patch.object(self.unet, "forward", self._forward(forward)),
            patch.object(torch.autograd, "grad", self._backward(grad)),
            patch.object(torch.autograd, "backward", self._backward(backward)),
        ):
            before = begin_peak(self.unet.device)
            self._since, started = self._now(), time.perf_counter()
            edit(self)
            self._switch("")
            peak, wall = peak_of(self.unet.device) - before, time.perf_counter() - started
        del self._phases[""]
        return Usage(dict(self._calls), dict(self._phases), wall, peak, self._map_bytes)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time of the block as that of a phase, and not as that of the phase around it."""
        around = self._phase
        self._switch(name)
        try:
            yield
        finally:
            self._switch(around)

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function as a phase."""
        return self.phase(name)(function)

    def _switch(self, name: str) -> None:
        now = self._now()
        self._phases[self._phase] += now - self._since
        self._phase, self._since = name, now

    def _forward(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def forward(sample: Tensor, *args: Any, **kwargs: Any) -> Any:
            what = "forward with maps" if self.with_maps else "forward"
            if torch.is_grad_enabled() and sample.requires_grad:
                what, self._rows_with_graph = "forward with graph", len(sample)
            with self._clock(what, len(sample)):
                result = function(sample, *args, **kwargs)
            if self.watch_maps:
                self._map_bytes = max(self._map_bytes, living_map_bytes())
            return result

        return forward

    def _backward(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def backward(*args: Any, **kwargs: Any) -> Any:
            rows, self._rows_with_graph = self._rows_with_graph, 0
            if not rows:  # of something else, the noise regulariser say
                return function(*args, **kwargs)
            with self._clock("backward", rows):
                return function(*args, **kwargs)

        return backward

    @contextmanager
    def _clock(self, what: str, rows: int) -> Iterator[None]:
        started = self._now()
        try:
            yield
        finally:
            self._calls[Call(self._phase, what, rows)].append(self._now() - started)

    def _now(self) -> float:
        if self.unet.device.type == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()


TOKENS = 77


def living_map_bytes() -> int:
    """Find tensors that are shaped like cross-attention maps, and add up what they hold.

    What was there before `gc.freeze` is left out.
    """
    storages: dict[int, int] = {}
    for thing in gc.get_objects():
        if type(thing) is Tensor and thing.ndim >= 3 and thing.shape[-1] == TOKENS and thing.is_floating_point():
            storage = thing.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def begin_peak(device: torch.device) -> int:
    """Let the peak of the memory in use start anew; what is in use now, bytes."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    give_memory_back()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    return resident("VmRSS")


def peak_of(device: torch.device) -> int:
    """Memory in use at the peak since `begin_peak`, bytes."""
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else resident("VmHWM")


def give_memory_back() -> None:
    """Return what earlier runs freed to the system, which would hide the growth of the next one."""
    ctypes.CDLL(None).malloc_trim(0)


def resident(name: str) -> int:
    """Read a figure of this process's memory, bytes: VmRSS now, VmHWM at its peak."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise OSError(f"/proc/self/status has no {name}; this benchmark needs Linux.")
    return 1024 * int(found[1])
