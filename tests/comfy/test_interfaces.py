"""Nodes keep what workflows saved with an earlier release count on: ids, names, types, order of widgets and outputs.

`frozen/nodes-VERSION.json` has the interfaces of a release, as its /object_info told them; nobody rewrites these files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

RELEASES = sorted((Path(__file__).parent / "frozen").glob("nodes-*.json"))
WIDGETS = ("COMBO", "INT", "FLOAT", "STRING", "BOOLEAN")
Interface = dict[str, Any]
"""required and optional: name -> type, in order; outputs: name and type, in order."""


def interface(node: dict[str, Any]) -> Interface:
    """What a workflow sees of a node, from /object_info."""

    def inputs(part: str) -> dict[str, str]:
        types = {name: node["input"][part][name][0] for name in node["input_order"].get(part, [])}
        return {name: "COMBO" if isinstance(type_, list) else type_ for name, type_ in types.items()}

    outputs = [list(output) for output in zip(node["output_name"], node["output"], strict=True)]
    return {"required": inputs("required"), "optional": inputs("optional"), "outputs": outputs}


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
