"""Does the captioner see what the probe sees, and what is that worth? `python -m benchmarks.quality.judging`.

On held-out scenes the judge of `pix2pix_zero_core.integrations.judge` is asked of every picture whether the edit shows:
before it, and after it at several strengths of the direction. The probe, which takes no part in edits, says whether
that is so. Then *Edit Until It Shows*, which takes for each picture the first strength at which the judge sees the
edit, stands beside each of the strengths for all pictures. Writes `results/judging.md` and `.json`. Interrupted, it
goes on where it was.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pix2pix_zero_core.integrations.captioner import Captioner
from pix2pix_zero_core.integrations.judge import Question, ask_of_direction, judge
from pix2pix_zero_core.integrations.sentences import load_edit
from tiny_zoo.compose_directions import FOLDER
from tiny_zoo.training import WEIGHTS

from ..harness.cells import RESULTS, Bench, Cell, add_options, write_text
from ..harness.methods import Pix2PixZero
from ..harness.report import TITLES, Row, environment, markdown, show, summarise
from ..harness.settings import adjust
from ..harness.sharing import Unit, add_processes, edit_all
from ..harness.tasks import TASKS, aligned_direction, captions_of
from .ablations import SHOWN

STRENGTHS = (0.75, 1.0, 1.25, 1.5, 2.0)
BLIP = WEIGHTS / "blip" / "tiny_zoo"


@dataclass(frozen=True)
class Verdicts:
    """Whether n pictures show their edit.

    Attributes:
        scores: of the judge, above 0 where it sees the edit, (n,).
        shown: of the probe, 1 where it is there, else 0, (n,).
    """

    scores: Tensor
    shown: Tensor

    @property
    def agreement(self) -> float:
        """Share of the pictures of which both say the same."""
        return float(((self.scores > 0) == (self.shown > 0)).float().mean())


def questions_of(bench: Bench, task: str) -> list[list[Question]]:
    """What the judge is asked of each scene's picture."""
    direction = aligned_direction(bench.model, load_edit(task, FOLDER))
    return [ask_of_direction(caption, direction) for caption in captions_of(bench.drawn(task).source)]


def score(bench: Bench, captioner: Captioner, latents: Tensor, questions: Sequence[Sequence[Question]]) -> Tensor:
    """What the judge says of some latents, (n,)."""
    return judge(captioner, bench.decode(latents).movedim(1, -1).cpu(), questions)


def before_the_edit(bench: Bench, task: str) -> Cell:
    """The pictures of a task as they are, after a passage through the autoencoder."""
    latents = bench.problem(task).x0
    columns = bench.judge.measure(bench.decode(latents), bench.drawn(task), TASKS[task])
    nothing = torch.zeros(len(latents))
    return Cell(latents, columns, nothing, nothing)


def until_it_shows(cells: Sequence[Cell], scores: Sequence[Tensor]) -> tuple[Cell, Tensor]:
    """Take for each picture the first edit that shows, or the last, as `pix2pix_zero_core.edit_until` does.

    Args:
        cells: the same scenes, edited at rising strengths.
        scores: what the judge says of each cell, (n,).

    Returns:
        a cell whose UNet rows are those of all edits that were made, as if each had come with an inversion of its own;
        and how many these were, (n,).
    """
    shows = torch.stack(list(scores)) > 0
    place = torch.where(shows.any(0), shows.int().argmax(0), len(cells) - 1)
    scenes = torch.arange(len(place))

    def chosen(values: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(values))[place, scenes]

    def spent(values: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(values)).cumsum(0)[place, scenes]

    kept = Cell(
        chosen([cell.latents for cell in cells]),
        {name: chosen([cell.columns[name] for cell in cells]) for name in cells[0].columns},
        spent([cell.rows for cell in cells]),
        spent([cell.seconds for cell in cells]),
        cells[0].devices,
    )
    return kept, place + 1


def describe(rows: Sequence[Row], edits: float, agreement: Sequence[tuple[str, float, int]], about: str) -> str:
    """Write what was found in Markdown."""
    said = [[what, f"{share:.3f}", str(count)] for what, share, count in agreement]
    found = [[row["method"], *(show(row[column], column) for column in SHOWN)] for row in rows]
    return "\n".join(
        [
            "# What the captioner sees of edits\n",
            about + "\n",
            "How often it says the same as the probe, which takes no part in edits:\n",
            markdown(["pictures", "agreement", "how many"], said),
            f"One strength of the direction for all pictures, and for each the first that shows: {edits:.2f} edits a "
            "picture, whose UNet rows have an inversion each, of which the node makes one.\n",
            markdown(["strength", *(TITLES[column] for column in SHOWN)], found),
        ]
    )


def main() -> None:
    """Edit, ask, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, count=25)
    add_processes(parser)
    options = parser.parse_args()
    bench, captioner = Bench.from_options(options, "test"), Captioner.from_folder(BLIP)
    methods = [adjust(Pix2PixZero(), {"direction": strength}) for strength in STRENGTHS]
    units = [Unit(bench.count, task, method, f"strength {method.direction}") for task in TASKS for method in methods]
    edit_all(bench, units, options.processes)

    by_strength: list[list[Cell]] = [[] for _ in STRENGTHS]
    found: list[tuple[Cell, Tensor]] = []
    verdicts: dict[str, list[Verdicts]] = {"as they are": [], **{f"edited at {s:g}": [] for s in STRENGTHS}}
    for task in TASKS:
        asked = questions_of(bench, task)
        cells = [bench.cell(task, method, f"strength {method.direction}") for method in methods]
        scores = [score(bench, captioner, cell.latents, asked) for cell in (before_the_edit(bench, task), *cells)]
        for name, cell, said in zip(verdicts, (before_the_edit(bench, task), *cells), scores, strict=True):
            verdicts[name].append(Verdicts(said, cell.columns["edit_success"]))
        for kept, cell in zip(by_strength, cells, strict=True):
            kept.append(cell)
        found.append(until_it_shows(cells, scores[1:]))

    rows = [summarise("all", f"{s:g}", cells) for s, cells in zip(STRENGTHS, by_strength, strict=True)]
    rows.append(summarise("all", "until it shows", [cell for cell, _ in found]))
    edits = float(torch.cat([count for _, count in found]).float().mean())
    usual = f"edited at {Pix2PixZero().direction:g}"
    agreement = [
        (name, sum(v.agreement for v in of_kind) / len(TASKS), bench.count * len(TASKS))
        for name, of_kind in verdicts.items()
    ]
    both = sum(share for name, share, _ in agreement if name in ("as they are", usual)) / 2
    agreement.append((f"as they are, and {usual}", both, 2 * bench.count * len(TASKS)))
    about = (
        f"By `python -m benchmarks.quality.judging`: {bench.count} held-out scenes of each of {len(TASKS)} tasks, "
        f"{bench.steps} steps, the nodes' defaults, weights {bench.weights[:12]}."
    )
    results = {"rows": rows, "edits": edits, "agreement": agreement, "environment": environment(rows)}
    write_text(RESULTS / "judging.json", json.dumps(results, indent=1) + "\n")
    write_text(RESULTS / "judging.md", describe(rows, edits, agreement, about))
    print(f"written to {RESULTS}")


if __name__ == "__main__":
    main()
