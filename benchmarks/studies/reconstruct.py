"""How well inversion brings a picture back: `python -m benchmarks.studies.reconstruct`, on held-out scenes.

The inverted noise is sampled with the same caption, decoded, and compared with the autoencoder's own passage. Writes
`results/reconstruct.md`.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from pix2pix_zero_core import NoiseRegularizer, invert, reconstruct
from pix2pix_zero_core.schedule import ddim_sigmas

from ..harness.cells import RESULTS, Bench, add_options, write_text
from ..harness.pixels import psnr
from ..harness.report import markdown
from ..harness.sampling import PLAIN
from ..harness.tasks import TASKS

REGULARIZERS = {
    "none": PLAIN,
    "ours": NoiseRegularizer(),
    "paper": NoiseRegularizer(strength=20, kl_strength=20, shifts="random"),
}
FIXED_POINT = (0, 1, 3, 5)


def main() -> None:
    """Measure every combination of a regulariser and a number of fixed-point iterations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=TASKS, default="cat2dog", help="whose scenes (default: cat2dog)")
    add_options(parser, count=16)
    options = parser.parse_args()
    bench = Bench.from_options(options, "test")
    expected = bench.decode(bench.problem(options.task).x0)
    lines: list[list[str]] = []
    for name, regularizer in REGULARIZERS.items():
        for fixed_point in FIXED_POINT:
            quality = psnr(reconstruction(bench, options.task, regularizer, fixed_point), expected)
            lines.append([name, str(fixed_point), f"{quality.mean():.1f}", f"{quality.min():.1f}"])
            print(" | ".join(lines[-1]), flush=True)
    text = (
        f"Reconstruction of {bench.count} held-out scenes of {options.task} in {bench.steps} steps; PSNR to the "
        f"autoencoder's own passage, dB. Weights {bench.weights[:12]}.\n\n"
    )
    head = ["regulariser", "fixed-point iterations", "mean", "worst scene"]
    write_text(RESULTS / "reconstruct.md", text + markdown(head, lines))


def reconstruction(bench: Bench, task: str, regularizer: NoiseRegularizer, fixed_point: int) -> Tensor:
    """Invert, sample and decode all scenes of a task, (n, 3, 128, 128)."""
    problem = bench.problem(task)
    sigmas = ddim_sigmas(bench.model.sigmas, bench.steps)
    found: list[Tensor] = []
    for first in range(0, bench.count, bench.batch):
        part = problem.part(first, bench.batch)
        inversion = invert(bench.model, part.x0, part.source, sigmas, regularizer, fixed_point=fixed_point)
        found.append(reconstruct(bench.model, inversion, part.source))
    return bench.decode(torch.cat(found))


if __name__ == "__main__":
    main()
