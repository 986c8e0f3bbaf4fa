"""Work that is shared is done whole, once, and by as many processes as were asked for."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from benchmarks.harness.methods import Pix2PixZero
from benchmarks.harness.settings import adjust
from benchmarks.harness.sharing import Unit, edit_all
from benchmarks.quality.ablations import BASE, STUDIES, describe, front, setting


@dataclass(frozen=True)
class Ledger:
    """A bench that writes down who did what."""

    folder: Path
    count: int = 0

    @property
    def loader(self) -> Callable[[], Ledger]:
        return partial(Ledger, self.folder)

    def with_count(self, count: int) -> Ledger:
        return replace(self, count=count)

    def is_done(self, task: str, method: str) -> bool:
        return (self.folder / f"{task} {method} {self.count}").exists()

    def cell(self, task: str, method: str, label: str) -> None:
        if method == "broken":
            raise ValueError("this one cannot be edited")
        with (self.folder / f"{task} {method} {self.count}").open("a") as file:
            file.write(f"{os.getpid()}\n")


UNITS = [Unit(count, task, method, "") for count in (1, 2) for task in ("a", "b") for method in ("x", "y", "x")]  # type: ignore


def test_what_is_missing_is_done_once_by_all_processes(tmp_path: Path) -> None:
    (tmp_path / "a x 1").write_text("done\n")
    edit_all(Ledger(tmp_path), UNITS, 2)  # type: ignore
    done = {path.name: path.read_text().split() for path in tmp_path.iterdir()}
    assert set(done) == {f"{unit.task} {unit.method} {unit.count}" for unit in UNITS}
    assert done.pop("a x 1") == ["done"]
    assert all(len(by) == 1 for by in done.values())
    workers = {by[0] for by in done.values()}
    assert str(os.getpid()) not in workers and len(workers) <= 2
    edit_all(Ledger(tmp_path), UNITS, 2)  # type: ignore  # nothing is left
    assert (tmp_path / "b y 2").read_text().split() == done["b y 2"]


def test_one_process_leaves_the_work_to_the_bench(tmp_path: Path) -> None:
    edit_all(Ledger(tmp_path), UNITS, 1)  # type: ignore
    assert not list(tmp_path.iterdir())


def test_what_fails_in_a_process_fails_here(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be edited"):
        edit_all(Ledger(tmp_path), [*UNITS, Unit(1, "a", "broken", "")], 2)  # type: ignore


# ------------------------------------------------------------------ studies of ours


@pytest.mark.parametrize("study", STUDIES)
def test_every_study_fits_the_method(study: str) -> None:
    base = adjust(Pix2PixZero(), BASE)
    assert len({repr(adjust(base, settings)) for settings in STUDIES[study]}) == len(STUDIES[study])


def test_the_front_is_what_no_other_row_beats() -> None:
    rows = [{"edit_success": edits, "excess_structure": excess} for edits, excess in ((1, 3), (0.9, 1), (0.8, 2))]
    assert front(rows) == [True, True, False]
    assert front([rows[0], rows[0]]) == [True, True]


def test_studies_are_laid_out_from_many_edits_to_few() -> None:
    columns = dict.fromkeys(("attributes_kept", "pose_error", "excess_lpips", "truth_psnr", "unet_rows"), 1.0)
    few, many, worse = (
        {"method": name, "edit_success": edits, "excess_structure": excess} | columns
        for name, edits, excess in (("few", 0.5, 0.0), ("many", 0.9, 0.1), ("worse", 0.4, 0.2))
    )
    names = [line.split(" | ")[0] for line in describe([few, worse, many]).splitlines()[2:]]
    assert names == ["| **many**", "| **few**", "| worse"]


def test_settings_are_read_and_unknown_ones_refused() -> None:
    assert setting("cfg_below=1.5") == ("cfg_below", 1.5)
    assert setting("negative=source") == ("negative", "source")
    assert setting("guidance.unit=share") == ("guidance.unit", "share")
    with pytest.raises(Exception, match="cgf=1 is no setting of ours"):
        setting("cgf=1")
