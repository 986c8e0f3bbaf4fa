"""Pictures a minute against the number of workers on a Ray cluster: `python -m benchmarks.speed.throughput`.

Runs the command `pix2pix-zero edit` on drawn scenes once for each number of workers, on a cluster on this machine, and
writes a table and a plot to `benchmarks/results`. Loading the models is not counted: the clock runs from the first
finished picture of every worker, and counts the pictures after it. The pictures of all runs are compared; they are the
same to the last bit. Needs `pip install ".[cli,ray]"` and matplotlib, and a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from pix2pix_zero_cli.cluster import LOCAL, run_on_ray
from pix2pix_zero_cli.edit import EditTask, edit_settings
from pix2pix_zero_cli.edit import add_arguments as add_edit_arguments
from pix2pix_zero_cli.model import DirectionOptions, ModelOptions
from pix2pix_zero_core.settings import USUAL_STRENGTH
from tiny_zoo.world import render, sample_scene

from ..harness.cells import RESULTS, write_text
from ..harness.report import markdown


def measure(pictures: list[Path], output: Path, workers: int, steps: int) -> float:
    """Edit pictures with a number of workers; returns pictures a minute once all of them are at work.

    Raises:
        RuntimeError: a picture failed, or there were too few for the workers.
    """
    parser = argparse.ArgumentParser()
    add_edit_arguments(parser)
    options = parser.parse_args(
        ["all", "--edit", "cat2dog", "--caption", "a cat", "--steps", str(steps), "--ray", LOCAL]
    )
    model = ModelOptions.of(options, captions=False)
    strengths = (options.guidance[0],), (USUAL_STRENGTH,)
    direction = DirectionOptions.of(options, model)
    task = EditTask(model, edit_settings(options), options.caption, None, output, (), False, direction, *strengths)
    at_work, started, counted = set[str](), 0.0, 0
    for row in run_on_ray(task, model, LOCAL, workers, pictures, lambda: None):
        if row.status != "done" or row.result is None:
            raise RuntimeError(f"{row.picture}: {row.error}")
        if len(at_work) == workers:
            counted += 1
        at_work.add(row.result["worker"])
        if len(at_work) == workers and not started:
            started = time.monotonic()
    if counted == 0:
        raise RuntimeError(f"{len(pictures)} pictures are too few for {workers} workers: raise --count")
    return 60 * counted / (time.monotonic() - started)


def main() -> None:
    """Measure, write the table, draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--count", type=int, default=24, help="pictures a run")
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()
    rates: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        pictures = [Path(folder) / f"{seed}.png" for seed in range(arguments.count)]
        for seed, path in enumerate(pictures):
            render(sample_scene(seed, "test", animal="cat")).save(path)
        first: dict[str, bytes] = {}
        for workers in arguments.workers:
            output = Path(folder) / f"workers{workers}"
            rates[workers] = measure(pictures, output, workers, arguments.steps)
            print(f"{workers} workers: {rates[workers]:.1f} pictures a minute", flush=True)
            made = {path.name: path.read_bytes() for path in output.glob("*.png")}
            first = first or made
            if made != first:
                raise RuntimeError(f"{workers} workers made other pictures than {arguments.workers[0]}")
    write(rates, arguments.count, arguments.steps)


def write(rates: dict[int, float], count: int, steps: int) -> None:
    """Write table and plot of pictures a minute by number of workers."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    one = rates[min(rates)] / min(rates)
    text = (
        f"By `python -m benchmarks.speed.throughput`: {count} pictures of Tiny Zoo, {steps} steps, one CPU thread a "
        "worker, on a Ray cluster on one machine.\n\n"
    )
    lines = [[str(workers), f"{rate:.1f}", f"{rate / workers / one:.0%}"] for workers, rate in rates.items()]
    head = ["workers", "pictures a minute", "of what the fewest make, each"]
    write_text(RESULTS / "throughput.md", text + markdown(head, lines))

    figure, axes = plt.subplots(figsize=(4.5, 3.2), layout="constrained")
    axes.plot(list(rates), [one * workers for workers in rates], color="0.7", linestyle="--", label="in proportion")
    axes.plot(list(rates), list(rates.values()), marker="o", label="measured")
    axes.set(xlabel="workers", ylabel="pictures a minute", xticks=list(rates), ylim=(0, None))
    axes.legend(frameon=False)
    figure.savefig(RESULTS / "throughput.png", dpi=150)


if __name__ == "__main__":
    main()
