"""Hypothesis's profiles, the fixtures of the ComfyUI tests, and a watchdog.

`ci` is bounded to a few minutes; `thorough` tries thousands of cases and queues a hundred prompts:
`python run.py test tests/survival --hypothesis-profile thorough`.
"""

from __future__ import annotations

import faulthandler
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.comfy.conftest import base as comfy_base
from tests.comfy.conftest import edit_graph, in_process, latent, load_checkpoint, pack, server, usual

__all__ = ["comfy_base", "edit_graph", "in_process", "latent", "load_checkpoint", "pack", "server", "usual"]

HANGS = 3600  # seconds that one test may take before it counts as hanging; the slowest takes minutes

settings.register_profile(
    "ci",
    max_examples=50,
    deadline=None,
    derandomize=True,
    database=None,
    # Files and models are made once and serve every case.
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
)
settings.register_profile("thorough", settings.get_profile("ci"), max_examples=250, derandomize=False, print_blob=True)
settings.load_profile("ci")


@pytest.fixture(scope="session")
def base(comfy_base: Path) -> Path:
    """The base folder of the ComfyUI tests, with the nodes that make faults."""
    shutil.copytree(Path(__file__).parent / "faults", comfy_base / "custom_nodes" / "faults")
    return comfy_base


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    """End the run, with the stack of every thread, where a test hangs."""
    faulthandler.dump_traceback_later(HANGS, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="session")
def thorough() -> bool:
    """Whether this is the long run."""
    return settings.get_current_profile_name() == "thorough"
