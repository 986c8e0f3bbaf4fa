"""Settings of methods: those that were chosen, lists of some to try, and a method with others."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

SETTINGS = Path(__file__).parents[1] / "settings.json"
"""What `python -m benchmarks.quality.tune` chose."""

T = TypeVar("T")


def adjust(method: T, settings: Mapping[str, Any]) -> T:
    """Copy a method with other settings.

    Args:
        method: a dataclass, as all methods are.
        settings: name -> value; "guidance.strength" reaches into a part.
    """
    for path, value in settings.items():
        name, _, rest = path.partition(".")
        changed = adjust(getattr(method, name), {rest: value}) if rest else value
        method = replace(method, **{name: changed})  # pyright: ignore[reportArgumentType, reportCallIssue]
    return method


def combine(axes: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination of some settings' values."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def each(settings: Sequence[dict[str, Any]], axes: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Some settings, each with every combination of others."""
    return [first | second for first in settings for second in combine(axes)]


def along(name: str, *values: Any) -> list[dict[str, Any]]:
    """A setting's values, one after the other."""
    return combine({name: values})


def label_of(settings: Mapping[str, Any]) -> str:
    """Settings in a line."""
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def read_settings() -> dict[str, Any]:
    """Read what was chosen: "first_round" and "settings", method id -> settings, and "tuned_on", how.

    Raises:
        FileNotFoundError: nothing was chosen yet.
    """
    if not SETTINGS.is_file():
        raise FileNotFoundError(f"There is no {SETTINGS}: choose settings with python -m benchmarks.quality.tune.")
    return json.loads(SETTINGS.read_text(encoding="utf-8"))
