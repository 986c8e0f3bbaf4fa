"""Do the defaults hold in the world of 0.1.0? `python -m benchmarks.studies.earlier`, in a clone with its history.

Edits validation scenes of that world, with its weights, its benchmark and today's core, by the defaults of both, and
prints a row of each: edit success, attributes kept, pose error, excess of structure and of LPIPS, PSNR, UNet rows.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CORE = Path(__file__).parents[2] / "pix2pix_zero_core"

COMMIT = "e2929e0"
"""The last one with the weights and the world of 0.1.0."""

EDIT = """
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.cells import Bench
from benchmarks.leap import describe
from benchmarks.methods import Pix2PixZero, adjust
from benchmarks.tasks import PAPER_TASKS
from benchmarks.tune import try_all
from pix2pix_zero_core import EditSettings, FreshNoise, InFreshNoise, MapGuidance, RegionalDenoiser, Remembering
from pix2pix_zero_core import TextDifference, edit, edit_region, invert, within
from pix2pix_zero_core.edit import map_guidance_step
from pix2pix_zero_core.fresh import guided_from, source_scale
from pix2pix_zero_core.schedule import ddim_sigmas
from pix2pix_zero_core.settings import USUAL_STRENGTH

@dataclass(frozen=True)
class Today(Pix2PixZero):
    def __call__(self, denoise, problem):
        sigmas, source = ddim_sigmas(denoise.model.sigmas, problem.steps), problem.source
        inversion = invert(denoise, problem.x0, source, sigmas, self.regularizer, fixed_point=self.fixed_point)
        target = problem.target(self.sentences, self.direction, self.form)
        noise, asked = FreshNoise(inversion), Remembering(denoise)
        unchanged = replace(self, cfg=source_scale(self.cfg)).guided(asked, problem, inversion)
        guided = TextDifference(self.guided(denoise, problem, inversion), unchanged, source, noise, self.cfg_start)
        region = edit_region(denoise, inversion, source, target, self.region)
        guided, guide = RegionalDenoiser(guided, inversion, region), within(map_guidance_step, region)
        seen = InFreshNoise(asked, noise)
        guidance = guided_from(self.guidance, self.cfg_start)
        return edit(seen, inversion, source, target, guided=guided, guidance=guidance, guide=guide).edited

bench = Bench("validation", int(sys.argv[1]), 25, folder=Path("cells"))
usual = EditSettings()
today = {"negative": "empty", "cfg": usual.cfg, "cfg_start": usual.cfg_start, "region": usual.region,
         "direction": USUAL_STRENGTH, "form": "aligned to words", "guidance": usual.guidance}
before = {"guidance": MapGuidance(5.0, "normalized", end=0.8, applied="after"), "cfg": 3.0}  # today's core has others
tried = [("world", "today", adjust(Today(), today)), ("world", "today, CFG 3", adjust(Today(), today | {"cfg": 3.0})),
         ("world", "0.1.0", adjust(Pix2PixZero(), before))]
print(describe(try_all(bench, tried, PAPER_TASKS)))
"""
"""Runs in a checkout of that commit, on today's core."""


@contextmanager
def checkout() -> Iterator[Path]:
    """The tree of that commit with the core of this one, in a folder that goes away again.

    Raises:
        CalledProcessError: this clone lacks it (a shallow one does).
    """
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(["git", "archive", COMMIT], check=True, capture_output=True).stdout
        subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
        shutil.rmtree(Path(folder) / CORE.name)
        shutil.copytree(CORE, Path(folder) / CORE.name)
        yield Path(folder)


def run_there(folder: Path, script: str, *arguments: str) -> None:
    """Run a script of Python in a checkout.

    Raises:
        CalledProcessError: it failed.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([sys.executable, "-c", script, *arguments], cwd=folder, env=environment, check=True)


def main() -> None:
    """Edit, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=16, help="scenes of each task (default: 16)")
    options = parser.parse_args()
    with checkout() as folder:
        run_there(folder, EDIT, str(options.count))


if __name__ == "__main__":
    main()
