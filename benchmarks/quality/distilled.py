"""How good is a distilled edit? `python -m benchmarks.quality.distilled` puts students beside their teacher.

The students that come with Tiny Zoo, or `--students FOLDER`, edit held-out scenes, 100 of each edit, and so does their
teacher: captioner, inversion and guided edit with the nodes' defaults. Writes `distilled.json`, `distilled.md` and a
contact sheet an edit to `benchmarks/results/`. The teacher's edits are kept in `results/cells`; times are measured anew
in every run, of teacher and student by turns, on one thread.

`python -m benchmarks.quality.distilled --study OPTION ...`, with the options of a `pix2pix-zero distill` that has made
its pairs, trains a student on the first 100, 300, 1000 and 3000 good pairs, or as many as there are, with as many steps
each, and plots what they reach: `distilled_study.json`, `distilled_study.svg`. Both go on where they were interrupted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from pix2pix_zero_cli import distill
from pix2pix_zero_cli.arguments import TINY_ZOO
from pix2pix_zero_cli.model import TINY_BLIP, ZOO, DirectionOptions, Model, ModelOptions, find_device
from pix2pix_zero_cli.pictures import find_pictures
from pix2pix_zero_core import Direction
from pix2pix_zero_core.distillation import DistilledEdit, Training
from pix2pix_zero_core.integrations.diffusers import EditSettings
from pix2pix_zero_core.integrations.sentences import load_edit

from ..harness.bootstrap import Figure, draw_means, interval
from ..harness.cells import RESULTS, Bench, write_text
from ..harness.metrics import Columns, with_excess
from ..harness.pixels import psnr
from ..harness.report import TITLES, contact_sheet, environment, markdown, show
from ..harness.tasks import TASKS

STUDENTS = ZOO / "distilled"
COLUMNS = ("edit_success", "attributes_kept", "excess_structure", "pose_error", "truth_psnr")
TEACHER_PSNR = "teacher_psnr"
STUDIED = (100, 300, 1000, 3000)
SHOWN = 3


@dataclass(frozen=True)
class Teacher:
    """The whole method, with the nodes' defaults, on one edit.

    Attributes:
        model: with its captioner.
        direction: of the edit.
        settings: of inversion and edit.
    """

    model: Model
    direction: Direction
    settings: EditSettings

    @classmethod
    def load(cls, edit: str, steps: int) -> Teacher:
        """Load the embedded model, on one thread of the CPU."""
        model = ModelOptions(TINY_ZOO, None, TINY_BLIP, "cpu", "float32", 1).load()
        direction = DirectionOptions(edit, None, load_edit(edit, model.options.edits)).build(model)
        return cls(model, direction, EditSettings(steps=steps))

    def __call__(self, picture: Tensor) -> Tensor:
        """Edit a picture, (1, 128, 128, 3)."""
        editor, captioner = self.model.editor, self.model.captioner
        assert captioner is not None
        inverted = editor.invert(picture, captioner(picture), self.settings)
        return editor.edit(inverted, self.direction, settings=self.settings, output_type="pt").movedim(1, -1)


class Exam:
    """Held-out scenes of an edit, what its teacher makes of them, and what can be measured there.

    Attributes:
        edit: a key of `TASKS`.
        teacher: edits.
        scenes: what is edited, and what the true edits show.
        asked: their pictures, (n, 128, 128, 3).
        answered: the teacher's edits of them, the same.
    """

    def __init__(self, edit: str, bench: Bench) -> None:
        """Draw the scenes, and edit those that are not in the cells yet."""
        self.edit, self.bench = edit, bench
        self.teacher = Teacher.load(edit, bench.steps)
        self.scenes = bench.drawn(edit)
        self.asked = self.scenes.source_pictures.movedim(1, -1)
        self.answered = torch.cat([self._taught(place) for place in range(bench.count)])

    def _taught(self, place: int) -> Tensor:
        """The teacher's edit of a scene, kept under all that it depends on but the code."""
        sentences, captioner = load_edit(self.edit, ZOO / "directions"), (TINY_BLIP / "model.safetensors").read_bytes()
        settings = (self.teacher.settings, self.bench.split, place, self.bench.weights)
        known = repr((sentences, *settings, sha256(captioner).hexdigest()))
        path = self.bench.folder / f"taught_{sha256(known.encode()).hexdigest()[:16]}.safetensors"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            edited = self.teacher(self.asked[place : place + 1])
            unfinished = path.with_suffix(".partial")
            safetensors.torch.save_file({"edited": edited.contiguous()}, unfinished)
            unfinished.replace(path)
            print(f"{self.edit}: the teacher has edited scene {place + 1} of {self.bench.count}", flush=True)
        return safetensors.torch.load_file(path)["edited"]

    def measure(self, edited: Tensor) -> Columns:
        """Read all columns off edited pictures, (n, 128, 128, 3), one value a scene."""
        shown, taught = edited.movedim(-1, 1), self.answered.movedim(-1, 1)
        columns = self.bench.judge.measure(shown, self.scenes, TASKS[self.edit])
        columns = with_excess(columns, self.bench.true_edits(self.edit).columns)
        # Of the teacher to itself it is infinite, of which there is no mean.
        return {name: columns[name] for name in COLUMNS} | {TEACHER_PSNR: psnr(shown, taught).clamp(max=99)}

    def seconds(self, student: DistilledEdit, count: int) -> tuple[float, float]:
        """Median processor time of the first pictures, by the teacher and by the student, by turns."""
        times: tuple[list[float], list[float]] = ([], [])
        student.apply(self.asked[:1])  # warm
        for place in range(min(count, len(self.asked))):
            picture = self.asked[place : place + 1]
            times[0].append(_timed(lambda picture=picture: self.teacher(picture)))
            times[1].append(statistics.median(_timed(lambda picture=picture: student.apply(picture)) for _ in range(5)))
        return statistics.median(times[0]), statistics.median(times[1])

    def sheet(self, student: DistilledEdit) -> Any:
        """The first scenes: source, true edit, teacher, student."""
        some = slice(SHOWN)
        columns = {
            "source": self.asked,
            "true edit": self.scenes.true_pictures.movedim(1, -1),
            "teacher": self.answered,
        }
        columns["student"] = _applied(student, self.asked[some])
        return contact_sheet({name: images[some].movedim(-1, 1) for name, images in columns.items()})


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--students", type=Path, default=STUDENTS, help="folder of EDIT.safetensors")
    parser.add_argument("--edits", nargs="+", choices=TASKS, default=("cat2dog", "horse2zebra"))
    parser.add_argument("--count", type=int, default=100, help="scenes an edit (default: 100)")
    parser.add_argument("--steps", type=int, default=EditSettings().steps, help="of the teacher (default: the nodes')")
    parser.add_argument("--timed", type=int, default=5, help="scenes that are timed (default: 5)")
    parser.add_argument("--study", nargs=argparse.REMAINDER, help="options of pix2pix-zero distill; all that follows")
    options = parser.parse_args()
    torch.set_num_threads(1)
    bench = Bench("test", options.count, options.steps)
    if options.study is not None:
        study(bench, options.study)
        return
    rows: list[dict[str, Any]] = []
    for edit in options.edits:
        student, exam = DistilledEdit.load(options.students / f"{edit}.safetensors"), Exam(edit, bench)
        seconds = exam.seconds(student, options.timed)
        for who, edited, took in (
            ("teacher", exam.answered, seconds[0]),
            ("student", _applied(student, exam.asked), seconds[1]),
        ):
            figures = {name: _figure(values) for name, values in exam.measure(edited).items()}
            rows.append({"edit": edit, "who": who, "n": bench.count, **figures, "seconds": took})
        rows[-1] |= {"faster": seconds[0] / seconds[1], "training": dict(student.figures)}
        rows[-1]["taught_otherwise"] = differing(json.loads(student.teacher), exam.teacher.settings)
        exam.sheet(student).save(RESULTS / f"distilled_{edit}.png", optimize=True)
    about = {"steps": bench.steps, "weights": bench.weights} | environment()
    write_text(RESULTS / "distilled.json", json.dumps({"rows": rows, "environment": about}, indent=1) + "\n")
    write_text(RESULTS / "distilled.md", describe(rows, about))
    print(f"written to {RESULTS / 'distilled.md'}")


def describe(rows: Sequence[dict[str, Any]], about: dict[str, Any]) -> str:
    """Write the table in Markdown, and how each student came about."""
    head = ["edit", "", *(TITLES[name] for name in COLUMNS), "PSNR to the teacher", "CPU seconds", "times faster"]

    def cell(row: dict[str, Any], name: str) -> str:
        if name == TEACHER_PSNR and row["who"] == "teacher":
            return ""
        value, low, high = (show(value, "truth_psnr" if "psnr" in name else name) for value in row[name])
        return f"{value} ({low} – {high})"  # noqa: RUF001

    lines = [
        [
            *(row["edit"], row["who"]),
            *(cell(row, name) for name in (*COLUMNS, TEACHER_PSNR)),
            f"{row['seconds']:.4f}",
            f"{row['faster']:.0f}" if "faster" in row else "",
        ]
        for row in rows
    ]
    origins = [
        f"- {row['edit']}: {found['pairs']} pairs, {found.get('filtered_out', 0)} more left out in which the judge did "
        f"not see the edit; {found['training_steps']} steps in {found['training_seconds'] / 60:.0f} minutes"
        + ("; its own teacher had " if row["taught_otherwise"] else "")
        + ", ".join(f"{name} {then} for {now}" for name, then, now in row["taught_otherwise"])
        + "."
        for row in rows
        if (found := row.get("training"))
    ]
    return (
        f"# Distilled edits beside their teacher\n\nBy `python -m benchmarks.quality.distilled`, {about['date']}: "
        f"held-out scenes of Tiny Zoo, {rows[0]['n']} of each edit; the teacher with the nodes' defaults, "
        f"{about['steps']} steps. In parentheses: 95 % bootstrap intervals over scenes. Seconds of the processor on "
        f"one thread, medians, of teacher and student by turns in one run.\n\n{markdown(head, lines)}\n"
        + "\n".join([*origins, ""])
    )


# ------------------------------------------------------------------------------------------------------------- study


def study(bench: Bench, options: Sequence[str]) -> None:
    """Train a student on each number of pairs, and plot what it reaches."""
    parser = argparse.ArgumentParser("benchmarks.quality.distilled --study")
    distill.add_arguments(parser)
    given = parser.parse_args(options)
    work = (given.work or given.output.with_name(f"{given.output.stem}_work")).resolve()
    found, settings = find_pictures(given.pictures, recursive=given.recursive), distill.training_settings(given)
    task = distill.pair_task(given, work / "pairs", found.searched)
    good = task.good(found.pictures)
    exam = Exam(task.direction.name, bench)
    rows: list[dict[str, Any]] = []
    for count in sorted({min(count, len(good)) for count in STUDIED}):
        folder = work / f"study_{count}"
        folder.mkdir(exist_ok=True)
        training = Training(distill.read_pairs(task, good[:count]), settings, find_device(given.device))
        distill.train(training, folder, given.minutes * 60, overwrite=given.overwrite)
        student = distill.finish(task, training, {}, None, "")
        student.generator.cpu()
        columns = exam.measure(_applied(student, exam.asked))
        figures = {name: _figure(values) for name, values in columns.items()}
        rows.append({"pairs": count, **figures, "training": dict(student.figures)})
        print(f"{count} pairs: {figures['edit_success'][0]:.3f}, {figures[TEACHER_PSNR][0]:.2f} dB", flush=True)
    taught = {name: _figure(values) for name, values in exam.measure(exam.answered).items()}
    about = {"edit": exam.edit, "n": bench.count, "weights": bench.weights} | environment()
    content = {"rows": rows, "teacher": taught, "environment": about}
    write_text(RESULTS / "distilled_study.json", json.dumps(content, indent=1) + "\n")
    draw(rows, taught, RESULTS / "distilled_study.svg")


def draw(rows: Sequence[dict[str, Any]], teacher: dict[str, Figure], path: Path) -> None:
    """Plot edit success, excess structure and PSNR to the teacher against the number of pairs."""
    import matplotlib  # pyright: ignore[reportMissingImports]  # in the benchmark's environment only

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = path.name  # the same figures give the same file
    from matplotlib.figure import Figure as Page  # pyright: ignore[reportMissingImports]

    page = Page(figsize=(11.0, 3.4), layout="constrained")
    counts = [row["pairs"] for row in rows]
    titles = {name: TITLES[name] for name in ("edit_success", "excess_structure")} | {
        TEACHER_PSNR: "PSNR to the teacher"
    }
    for axes, (name, title) in zip(page.subplots(1, 3), titles.items(), strict=True):
        middle, low, high = zip(*(row[name] for row in rows), strict=True)
        axes.fill_between(counts, low, high, alpha=0.2, color="#0072b2", linewidth=0)
        axes.plot(counts, middle, "o-", color="#0072b2", label="student")
        if name != TEACHER_PSNR:
            axes.axhline(teacher[name][0], color="0.5", linestyle="--", label="teacher")
        axes.set(xscale="log", xlabel="pairs", ylabel=title, xticks=counts, xticklabels=[f"{n}" for n in counts])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    page.axes[0].legend()
    unfinished = path.with_name(path.name + ".partial")
    page.savefig(unfinished, format="svg", metadata={"Date": None})
    unfinished.replace(path)


# ------------------------------------------------------------------------------------------------------------- parts


def differing(taught: dict[str, Any], settings: EditSettings) -> list[tuple[str, Any, Any]]:
    """In which settings a student's own teacher was another than this: name, then and now."""

    def flat(settings: dict[str, Any]) -> dict[str, Any]:
        guidance = settings["guidance"]
        return settings | {"guidance": None} | {f"guidance {name}": value for name, value in guidance.items()}

    then = flat(taught)
    return [(name, then.get(name), now) for name, now in flat(asdict(settings)).items() if then.get(name) != now]


def _applied(student: DistilledEdit, images: Tensor) -> Tensor:
    return torch.cat([student.apply(image[None]) for image in images])


def _figure(values: Tensor) -> Figure:
    return interval(draw_means([values]))


def _timed(action: Callable[[], Any]) -> float:
    started = time.process_time()
    action()
    return time.process_time() - started


if __name__ == "__main__":
    main()
