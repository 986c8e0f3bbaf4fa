"""Settings of methods: those that were chosen, lists of some to try, and a method with others."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from .models import MODELS, ModelName

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


def settings_file(model: ModelName = "unet") -> Path:
    """Where `python -m benchmarks.quality.tune` puts what it chooses for a model."""
    return Path(__file__).parents[1] / f"{MODELS[model].prefix}settings.json"


def read_settings(model: ModelName = "unet") -> dict[str, Any]:
    """Read what was chosen: "first_round" and "settings", method id -> settings, and "tuned_on", how.

    Raises:
        FileNotFoundError: nothing was chosen yet.
    """
    path = settings_file(model)
    if not path.is_file():
        command = f"python -m benchmarks.quality.tune --model {model}"
        raise FileNotFoundError(f"There is no {path}: choose settings with {command}.")
    return json.loads(path.read_text(encoding="utf-8"))
