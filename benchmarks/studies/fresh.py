"""Why fresh noise, and which: `python -m benchmarks.studies.fresh` edits validation scenes in noise of other kinds.

Without guidance of the maps; all else is the default. Writes `results/fresh.md`. Interrupted, it goes on where it was.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pix2pix_zero_core import FreshNoise, Inversion, MapGuidance
from pix2pix_zero_core.schedule import step_at

from ..harness.cells import RESULTS, Bench, add_options, write_text
from ..harness.methods import Pix2PixZero
from ..harness.report import table
from ..harness.sampling import Counted
from ..harness.sharing import add_processes, try_all
from ..harness.tasks import PAPER_TASKS, Problem


@dataclass(frozen=True)
class OtherNoise(FreshNoise):
    """Noise that is not, or not all, or not always fresh.

    Attributes:
        own: share of its variance that is the inversion's noise.
        until: fraction of the steps after which all is the inversion's.
        once: the same noise at every step.
        paired: every second step sees the opposite of the noise before it.
    """

    own: float = 0.0
    until: float = 1.0
    once: bool = False
    paired: bool = True

    def seen(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Find where the model is asked about a latent, as `FreshNoise`."""
        level = float(sigma.flatten()[0])
        if step_at(self.inversion.sigmas, level) >= self.until * (len(self.inversion.sigmas) - 1):
            return x
        return super().seen(x, sigma)

    def _noise(self, sigma: float) -> Tensor:
        fresh = super()._noise(float(self.inversion.sigmas[0]) if self.once else sigma)
        if not self.paired:
            generator = torch.Generator().manual_seed(step_at(self.inversion.sigmas, sigma))
            fresh = torch.randn(fresh.shape, generator=generator)
        if not self.own:
            return fresh
        inverted = (self.inversion.latent_at(sigma) - self._picture) / sigma
        return math.sqrt(1 - self.own) * fresh.to(inverted) + math.sqrt(self.own) * inverted


@dataclass(frozen=True)
class InOtherNoise(Pix2PixZero):
    """Ours in it.

    Attributes:
        own: see `OtherNoise`.
        until: see `OtherNoise`.
        once: see `OtherNoise`.
        paired: see `OtherNoise`.
        inverts: whether the trajectory is found by inversion; else it is the picture in one draw of white noise, which
            costs no rows. In fresh noise the edit is led beside it, and only the region looks at it.
    """

    own: float = 0.0
    until: float = 1.0
    once: bool = False
    paired: bool = True
    inverts: bool = True

    def inverted(self, denoise: Counted, problem: Problem) -> Inversion:
        """The trajectory that leads back to the pictures."""
        if self.inverts:
            return super().inverted(denoise, problem)
        x0, coordinates = problem.x0, denoise.model.coordinates
        sigmas = denoise.model.grid(problem.steps).to(x0)
        noise = torch.randn(1, *x0.shape[1:], generator=torch.Generator().manual_seed(1)).expand_as(x0)
        trajectory = torch.stack([coordinates.with_noise(x0, noise, sigmas[-1], sigma) for sigma in sigmas])
        return Inversion(trajectory[0], sigmas, trajectory, coordinates=coordinates)

    def fresh_noise(self, inversion: Inversion) -> FreshNoise:
        """The noise that the picture is seen in."""
        return OtherNoise(inversion, None, self.own, self.until, self.once, self.paired)


OURS = InOtherNoise(guidance=MapGuidance(0.0))

TRIED = {
    "fresh": OURS,
    "fresh, without an inversion": replace(OURS, inverts=False),
    "fresh, every draw by itself": replace(OURS, paired=False),
    "the inversion's alone": replace(OURS, noise_from="inversion"),
    "half of the variance the inversion's": replace(OURS, own=0.5),
    "fresh until 0.7 of the steps": replace(OURS, until=0.7),
    "one draw for all steps": replace(OURS, once=True),
    "fresh, the source not guided": replace(OURS, source_guided=0.0),
    "fresh, the source guided as much as the target": replace(OURS, source_guided=1.0),
    "fresh from the first step on": replace(OURS, cfg_start=0.0),
}
"""Name -> method."""


def main() -> None:
    """Try all, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, count=16)
    add_processes(parser)
    options = parser.parse_args()
    torch.set_flush_denormal(True)
    bench = Bench.from_options(options, "validation")
    rows = try_all(bench, [("fresh", name, method) for name, method in TRIED.items()], PAPER_TASKS, options.processes)
    text = (
        f"{options.count} validation scenes of each of {', '.join(PAPER_TASKS)}; {options.steps} steps, weights "
        f"{bench.weights[:12]}. Otherwise {OURS}.\n\n"
    )
    write_text(RESULTS / "fresh.md", text + table(rows))
    print(f"written to {RESULTS / 'fresh.md'}")


if __name__ == "__main__":
    main()
