"""Nodes keep what workflows saved with an earlier release count on: ids, names, types, order of widgets and outputs.

`frozen/nodes-VERSION.json` has the interfaces of a release, by `python -m authoring.freeze`; nobody rewrites them.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from authoring.freeze import FROZEN, Interface, interface
from launcher.runtime import ROOT

RELEASES = sorted(FROZEN.glob("nodes-*.json"))
WIDGETS = ("COMBO", "INT", "FLOAT", "STRING", "BOOLEAN")


def breaks(name: str, before: Interface, now: Interface) -> list[str]:
    """What a workflow saved with the earlier interface would lose."""
    old, new = ({**side["required"], **side["optional"]} for side in (before, now))
    found = [
        f"{name}: input {key} was {type_}, is {new.get(key)}" for key, type_ in old.items() if new.get(key) != type_
    ]
    # Saved widget values go by position.
    widgets = [[key for key, type_ in side.items() if type_ in WIDGETS] for side in (old, new)]
    if widgets[1][: len(widgets[0])] != widgets[0]:
        found.append(f"{name}: the widgets were {widgets[0]}, are {widgets[1]}; new ones go to the end")
    if asked := [key for key in now["required"] if key not in before["required"]]:
        found.append(f"{name}: inputs that saved workflows lack are required: {asked}")
    if now["outputs"][: len(before["outputs"])] != before["outputs"]:
        found.append(f"{name}: the outputs were {before['outputs']}, are {now['outputs']}; new ones go to the end")
    return found


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.stem)
def test_workflows_of_a_release_find_what_they_count_on(object_info: dict[str, Any], release: Path):
    frozen: dict[str, Interface] = json.loads(release.read_text(encoding="utf-8"))
    assert frozen
    missing = [f"{name} is gone" for name in frozen if name not in object_info]
    there = {name: before for name, before in frozen.items() if name in object_info}
    changed = [line for name, before in there.items() for line in breaks(name, before, interface(object_info[name]))]
    assert not missing + changed, "\n".join(missing + changed)


def test_every_release_is_frozen():
    """A release that is not frozen is one that nothing is compared with."""
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    released = re.findall(r"^## (\d+\.\d+\.\d+)\b", changelog, re.MULTILINE)
    assert released
    assert [f"nodes-{version}" for version in sorted(released)] == [path.stem for path in RELEASES]
    assert all((FROZEN / version).is_dir() for version in released)


BEFORE: Interface = {
    "required": {"model": "MODEL", "a": "INT"},
    "optional": {"b": "FLOAT"},
    "outputs": [["x", "LATENT"]],
}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"required": {"model": "MODEL", "a": "FLOAT"}}, ["input a was INT, is FLOAT"]),
        ({"optional": {}}, ["input b was FLOAT, is None", "the widgets were"]),
        ({"required": {"model": "MODEL", "c": "INT", "a": "INT"}}, ["the widgets were", "required: ['c']"]),
        ({"outputs": [["y", "MASK"], ["x", "LATENT"]]}, ["the outputs were"]),
        ({"optional": {"b": "FLOAT", "c": "INT"}, "outputs": [["x", "LATENT"], ["y", "MASK"]]}, []),
    ],
)
def test_a_break_is_found(changed: Interface, said: list[str]):
    found = breaks("Node", BEFORE, BEFORE | changed)
    assert len(found) == len(said)
    assert all(part in line for part, line in zip(said, found, strict=True))
