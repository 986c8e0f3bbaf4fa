"""The GPU benchmark's plan, its processes and its tables; what it measures takes a ComfyUI."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu.networks import NETWORKS
from benchmarks.gpu.plan import NOT_DYNAMIC, PARTS, Job, full, short, without_card
from benchmarks.gpu.report import describe

ABOUT = {
    "card": "A card",
    "card_gib": 80.0,
    "cuda": "13.0",
    "torch": "2",
    "python": "3.12",
    "comfyui": "0.3.75",
    "date": "2026-01-01",
    "seconds": 1.0,
}
LATER = time.monotonic() + 1e6


@pytest.mark.parametrize("form", [full, short, without_card])
@pytest.mark.parametrize("dynamic", [True, False])
def test_every_job_is_of_a_part_and_a_network_that_there_is(form: Any, dynamic: bool) -> None:
    for job in form(80.0, dynamic):
        assert job.part in PARTS
        assert job.network in NETWORKS or job.part == "embedded"


def test_the_full_form_has_every_part() -> None:
    assert {job.part for job in full(80.0, dynamic=True)} == set(PARTS)


def test_without_a_card_nothing_asks_for_one() -> None:
    for job in without_card(0.0, dynamic=False):
        assert job.flags == ("--cpu",) or "no CUDA card" in job.unavailable


def test_dynamic_vram_is_off_but_where_it_is_measured() -> None:
    for job in full(80.0, dynamic=True):
        assert (NOT_DYNAMIC in job.flags) != job.mode.startswith("dynamic VRAM")
        assert not job.unavailable
    for job in full(80.0, dynamic=False):
        assert NOT_DYNAMIC not in job.flags
        assert bool(job.unavailable) == job.mode.startswith("dynamic VRAM")


def test_low_vram_leaves_a_card_with_room_less_of_it() -> None:
    reserved = [float(job.flags[-1]) for job in full(80.0, dynamic=False) if job.mode == "low VRAM"]
    assert reserved and all(70 < gib < 80 for gib in reserved)


class Fake:
    """In the place of `gpu.Worker`: what it does is in the job's network."""

    begun = 0

    def __init__(self, flags: tuple[str, ...], folder: str, tree: Path) -> None:
        self.flags, self.alive, self.started = flags, True, "--broken" not in flags
        Fake.begun += 1

    def do(self, job: Job, deadline: float) -> Iterator[dict[str, Any]]:
        self.alive = self.started and job.network != "deadly"
        yield {"what": job.task, "seconds": 1.0} if self.alive else {"what": job.task, "failed": "the process ended"}

    def stop(self) -> None:
        pass


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[Fake]:
    Fake.begun = 0
    monkeypatch.setattr(gpu, "Worker", Fake)
    return Fake


JOB = Job("precision", "steps", "good")


def test_jobs_of_the_same_flags_share_a_process(fake: type[Fake]) -> None:
    rows = list(gpu.results([JOB, JOB, replace(JOB, flags=("--novram",))], Path(), LATER))
    assert len(rows) == 3 and fake.begun == 2


def test_a_process_that_ends_is_a_row_that_failed_and_the_next_job_gets_a_new_one(fake: type[Fake]) -> None:
    rows = list(gpu.results([replace(JOB, network="deadly"), JOB], Path(), LATER))
    assert ["failed" in row for row in rows] == [True, False]
    assert fake.begun == 2


def test_a_comfyui_that_does_not_start_is_not_started_again(fake: type[Fake]) -> None:
    broken = replace(JOB, flags=("--broken",))
    rows = list(gpu.results([broken, broken, JOB], Path(), LATER))
    assert ["failed" in row for row in rows] == [True, True, False]
    assert "--broken" in rows[1]["failed"]
    assert fake.begun == 2


def test_what_is_not_run_says_why(fake: type[Fake]) -> None:
    rows = list(gpu.results([replace(JOB, unavailable="no card")], Path(), LATER))
    rows += gpu.results([JOB], Path(), time.monotonic() - 1)
    assert [row["skipped"] for row in rows] == ["no card", "the time of --seconds was over"]
    assert fake.begun == 0


def test_a_worker_that_cannot_start_fails_and_says_so(tmp_path: Path) -> None:
    """There is no ComfyUI in an empty folder."""
    worker = gpu.Worker((), str(tmp_path), tmp_path)
    (row,) = worker.do(JOB, LATER)
    worker.stop()
    assert "status 1" in row["failed"] and not worker.started


def test_the_tables_tell_failures_and_what_was_not_run() -> None:
    about = {"part": "precision", "network": "SDXL", "weights": "float16", "mode": "normal"}
    rows = [
        about | {"what": "prediction", "seconds": 0.5, "peak_bytes": 2**20},
        about | {"what": "guidance step", "failed": "a | b"},
        about | {"what": "steps", "skipped": "the time was over"},
    ]
    text = describe(ABOUT, rows)
    assert "A card" in text and "1 failed, 1 not run" in text
    assert "**failed**: a \\| b" in text and "not run: the time was over" in text
    assert "have not been run" not in text
    assert "have not been run: there is no CUDA card" in describe(ABOUT | {"card": "", "card_gib": 0.0}, rows)
