"""Ideas of later work, tried on top of ours: `python -m benchmarks.studies.trials`, on validation scenes.

What gains becomes a setting of the core and a row of the ablation; the others stay here, for who would try them on
another model. Writes `results/trials.md`. Interrupted, it goes on where it was.
"""

from __future__ import annotations

import argparse

from ...harness.cells import RESULTS, Bench, add_options, write_text
from ...harness.methods import Pix2PixZero
from ...harness.report import table
from ...harness.rows import before_finals
from ...harness.sampling import Method
from ...harness.settings import adjust
from ...harness.sharing import add_processes, try_all
from ...harness.tasks import PAPER_TASKS, TASKS
from .guided import LocalBlend, LocalBlendByMaps
from .maps import MapsOfOneSize, Scheduled, SelfAttention, SelfAttentionTakenOver, SmallMaps
from .texts import PromptInterpolation, ScaledDirection
from .trial import Trial


def trials(ours: Pix2PixZero) -> dict[str, Method]:
    """What is tried, under its name in the table."""
    ours = adjust(ours, {"noise_from": "inversion", "region": 0.0})  # several of these are regions themselves
    half = adjust(ours, {"guidance.strength": ours.guidance.strength / 2})
    by_step = adjust(ours, {"guidance.unit": "normalized", "guidance.strength": 1.0})  # share makes up for weights
    return {
        "ours": Trial(ours),
        "direction scaled per picture": ScaledDirection(ours),
        "prompt interpolation over half of the steps": PromptInterpolation(ours),
        "noise correction": adjust(ours, {"negative": "corrected"}),
        "local blend at 0.3": LocalBlend(ours),
        "local blend at 0.15": LocalBlend(ours, 0.15),
        "local blend by attention maps at 0.3": LocalBlendByMaps(ours),
        "local blend by attention maps at 0.5": LocalBlendByMaps(ours, 0.5),
        "self-attention at 8 x 8, too": SelfAttention(ours),
        "self-attention at 8 x 8, too, half the strength": SelfAttention(half),
        "self-attention at 8 x 8 alone": SelfAttention(ours, cross=False),
        "self-attention at 16 x 16 alone": SelfAttention(ours, 16, cross=False),
        "self-attention taken over for 0.4 of the steps": SelfAttentionTakenOver(ours, 0.4),
        "self-attention taken over for 0.8 of the steps": SelfAttentionTakenOver(ours),
        "maps in half precision (bfloat16)": SmallMaps(ours),
        "maps averaged over the heads": SmallMaps(ours, heads=False),
        "maps of 8 x 8 alone": MapsOfOneSize(ours),
        "maps of 16 x 16 alone": MapsOfOneSize(ours, 16),
        "guidance of 1 normalized": Trial(by_step),
        "decaying guidance": Scheduled(by_step),
        "guidance at every second step": Scheduled(by_step, "every second"),
    }


def main() -> None:
    """Try all of them and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=PAPER_TASKS, help="default: the paper's")
    add_options(parser, count=8)
    add_processes(parser)
    options = parser.parse_args()
    bench = Bench.from_options(options, "validation")
    ours = before_finals()
    tried = [("ours", name, trial) for name, trial in trials(ours).items()]
    rows = try_all(bench, tried, options.tasks, options.processes)
    text = (
        f"Ours with one thing changed, {options.count} validation scenes of each of {', '.join(options.tasks)}; "
        f"{options.steps} steps, weights {bench.weights[:12]}. Otherwise {ours}.\n\n"
    )
    write_text(RESULTS / "trials.md", text + table(rows))
    print(f"written to {RESULTS / 'trials.md'}")


if __name__ == "__main__":
    main()
