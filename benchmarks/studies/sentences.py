"""What an edit direction owes to its sentences; whether directions add up: `python -m benchmarks.studies.sentences`.

Edit success against the number of sentences, on held-out scenes, in two ways: *paired*, the n-th source and target
sentence describe one scene but for the concept, as the shipped banks do; *independent*, they describe different ones,
as sentences of a language model do. Every picture gets sentences of its own, so that no lucky draw decides. Then cats
become dogs, get glasses, and both at once by the sum of two directions.

Writes `sentences.json`, `sentences.md`, `sentences.svg` and `mixing.png` to `results/`. Interrupted, it goes on where
it was.
"""

from __future__ import annotations

import argparse
import functools
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from pix2pix_zero_core import EditDirection
from pix2pix_zero_core.integrations.sentences import load_edit, read_edits
from tiny_zoo.captions import sentences
from tiny_zoo.compose_directions import CONCEPTS, FOLDER
from tiny_zoo.denoiser import Zoo
from tiny_zoo.world import counterfactual

from ..harness.cells import RESULTS, Bench, add_options, write_text
from ..harness.report import Row, contact_sheet, environment, markdown, summarise, table
from ..harness.rows import before_finals
from ..harness.sampling import Counted, Method
from ..harness.settings import adjust
from ..harness.tasks import TASKS, Problem, draw_scenes, pictures

COUNTS = (1, 5, 20, 100, 1000)
POOL = 2000
"""Sentences about each concept that the draws are made from; they are none of the shipped ones."""

MIXED = {"cat2dog": 1.0, "cat2glasses": 1.0}
"""The edits that are made one by one and at once, with their weights in the sum."""

SHEET_ROWS = 6


@dataclass(frozen=True)
class FromSentences:
    """Edit along directions of a given number of sentences, other ones for each picture.

    Attributes:
        edit: id of the edit.
        count: sentences about each of its concepts.
        paired: whether source and target sentences describe the same scenes.
        method: what edits; its own sentences are not used.
    """

    edit: str
    count: int
    paired: bool
    method: Method

    def __call__(self, denoise: Counted, problem: Problem) -> Tensor:
        """Edit as a `Method`."""
        source, target = sentence_pool(denoise.model, self.edit)
        shifts: list[Tensor] = []
        for noise in problem.noise:
            rng = random.Random(float(noise[0, 0, 0]))  # each picture has noise of its own, whatever its batch
            drawn = rng.sample(range(POOL), self.count)
            partners = drawn if self.paired else rng.sample(range(POOL), self.count)
            shifts.append(target[partners].mean(0) - source[drawn].mean(0))
        return edit_along(torch.stack(shifts), self.method, denoise, problem)


@dataclass(frozen=True)
class FromDirections:
    """Edit along the weighted sum of shipped directions.

    Attributes:
        edits: id and weight of each.
        method: what edits; its own sentences are not used.
    """

    edits: tuple[tuple[str, float], ...]
    method: Method

    def __call__(self, denoise: Counted, problem: Problem) -> Tensor:
        """Edit as a `Method`."""
        both = EditDirection.combine([(direction_of(denoise.model, edit), weight) for edit, weight in self.edits])
        return edit_along(both.vector, self.method, denoise, problem)


def edit_along(shift: Tensor, method: Method, denoise: Counted, problem: Problem) -> Tensor:
    """Edit with the captions shifted by (77, D), or by (B, 77, D), as the target."""
    without_sentences = adjust(method, {"sentences": 0})  # then the target is what the problem calls swapped
    return without_sentences(denoise, replace(problem, swapped=problem.source + shift))


@functools.cache
def sentence_pool(model: Zoo, edit: str) -> tuple[Tensor, Tensor]:
    """Embeddings of many sentences about both concepts of an edit, (POOL, 77, D); equal rows describe equal scenes."""
    concepts = read_edits(FOLDER)[edit]

    def embed(concept: str) -> Tensor:
        texts = sentences(POOL, seed=2, **CONCEPTS[concept])
        return torch.cat([model.encode_text(texts[i : i + 200]) for i in range(0, POOL, 200)])

    return embed(concepts.source), embed(concepts.target)


def direction_of(model: Zoo, edit: str) -> EditDirection:
    """The direction of a shipped edit."""
    texts = load_edit(edit, FOLDER)
    return EditDirection.build(
        lambda batch: (model.encode_text(batch), None),
        texts.source_sentences,
        texts.target_sentences,
        source=texts.source,
        target=texts.target,
        encoder="tiny_zoo",
    )


def main() -> None:
    """Measure, draw and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=["cat2dog"], help="default: cat2dog")
    add_options(parser, count=40)
    options = parser.parse_args()
    bench = Bench.from_options(options, "test")
    method = before_finals()
    curves = {
        "paired" if paired else "independent": [by_count(bench, options.tasks, n, paired, method) for n in COUNTS]
        for paired in (True, False)
    }
    mixing, columns = mix(bench, method)
    about = {"tasks": options.tasks, "scenes": bench.count, "steps": bench.steps, "weights": bench.weights}
    results = {"curves": curves, "mixing": mixing, "environment": about | environment()}
    write_text(RESULTS / "sentences.json", json.dumps(results, indent=1) + "\n")
    write_text(RESULTS / "sentences.md", describe(curves, mixing, options.tasks))
    draw(curves, RESULTS / "sentences.svg")
    contact_sheet(columns).save(RESULTS / "mixing.png", optimize=True)
    print(f"written to {RESULTS}")


def by_count(bench: Bench, tasks: Sequence[str], count: int, paired: bool, method: Method) -> Row:
    """One point of a curve: edits along directions of so many sentences, on all tasks."""
    name = f"{count} {'paired' if paired else 'independent'} sentences"
    cells = [bench.cell(task, FromSentences(task, count, paired, method), name) for task in tasks]
    return summarise("all", name, cells) | {"sentences": count}


def mix(bench: Bench, method: Method) -> tuple[list[Row], dict[str, Tensor]]:
    """Make each edit of `MIXED` and all at once on cats without glasses; let the probe say what came of it.

    Returns:
        for each row the shares of pictures that show each change, and all of them; and the pictures of the sheet.
    """
    task = list(MIXED)[-1]  # its scenes lack what every edit of the sum brings in
    changes = {edit: TASKS[edit].change for edit in MIXED}
    scenes, _ = draw_scenes(TASKS[task], bench.split, bench.count)
    everything = {attribute: value for change in changes.values() for attribute, value in change.items()}
    columns = {"source": pictures(scenes[:SHEET_ROWS])}
    rows: list[Row] = []
    for edits in (*({edit: weight} for edit, weight in MIXED.items()), MIXED):
        name = " + ".join(edits)
        cell = bench.cell(task, FromDirections(tuple(edits.items()), method), name)
        edited = bench.decode(cell.latents)
        names, _ = bench.judge.probe.read(edited)

        def shown(change: dict[str, str]) -> float:
            return sum(all(names[a][i] == v for a, v in change.items()) for i in range(bench.count)) / bench.count  # noqa: B023

        rows.append({"edit": name, **{edit: shown(changes[edit]) for edit in MIXED}, "all": shown(everything)})
        columns[name] = edited[:SHEET_ROWS].cpu()
    columns["true edit"] = pictures([counterfactual(scene, **everything) for scene in scenes[:SHEET_ROWS]])
    return rows, columns


def describe(curves: dict[str, list[Row]], mixing: list[Row], tasks: Sequence[str]) -> str:
    """Write all results in Markdown."""
    head = list(mixing[0])
    shares = [[row["edit"], *(f"{row[column]:.3f}" for column in head[1:])] for row in mixing]
    parts = [
        "# Edit directions and their sentences\n",
        f"By `python -m benchmarks.studies.sentences`, on {', '.join(tasks)}. "
        "In parentheses: 95 % bootstrap intervals.\n",
        table([row for rows in curves.values() for row in rows]),
        "## Several edits at once\n",
        "Share of pictures in which the probe finds each change.\n",
        markdown(head, shares),
    ]
    return "\n".join(parts)


def draw(curves: dict[str, list[Row]], path: Path) -> None:
    """Plot edit success against the number of sentences."""
    import matplotlib  # pyright: ignore[reportMissingImports]  # in the benchmark's environment only

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = path.name  # the same figures give the same file
    from matplotlib.figure import Figure  # pyright: ignore[reportMissingImports]

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot(
        xlabel="sentences about each concept", ylabel="edit success", xscale="log", ylim=(0, 1.02)
    )
    for (name, rows), colour in zip(curves.items(), ("#d55e00", "#0072b2"), strict=True):
        x, y = ([row[column] for row in rows] for column in ("sentences", "edit_success"))
        low, high = zip(*(row["intervals"]["edit_success"] for row in rows), strict=True)
        axes.plot(x, y, marker="o", markersize=4, label=name, color=colour)
        axes.fill_between(x, low, high, alpha=0.15, color=colour)
    axes.set_xticks(COUNTS, [str(count) for count in COUNTS])
    axes.grid(alpha=0.3)
    axes.legend()
    unfinished = path.with_name(path.name + ".partial")
    figure.savefig(unfinished, format="svg", metadata={"Date": None})
    unfinished.replace(path)


if __name__ == "__main__":
    main()
