"""The releases that are promised, fetched and tested are the same."""

from __future__ import annotations

from launcher import pins
from launcher.runtime import ROOT


def test_the_oldest_release_that_is_promised_is_the_one_that_is_tested() -> None:
    oldest, pinned = pins.COMFYUI_WHEELS
    assert pinned == pins.COMFYUI_VERSION
    assert f'requires-comfyui = ">={oldest}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    workflow = (ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8")
    assert f'COMFYUI_VERSION: "{oldest}"' in workflow
