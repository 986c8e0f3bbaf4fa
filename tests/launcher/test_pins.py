"""The release that is fetched and tested is one that is promised."""

from __future__ import annotations

from launcher import pins
from launcher.runtime import ROOT


def test_the_pinned_release_is_promised() -> None:
    """And so are the releases since the hook on the attention call, though none of them can be fetched."""
    assert 'requires-comfyui = ">=0.3.60"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert tuple(map(int, pins.COMFYUI_VERSION.split("."))) >= (0, 3, 60)
