"""Hypothesis strategies for damaged files and documents."""

from __future__ import annotations

import copy
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import strategies as st

TEXT = st.text(st.characters(exclude_categories=()), max_size=30)
"""Any text, lone surrogates included: JSON can carry them into a prompt."""

NUMBERS = st.one_of(st.integers(-3, 300), st.sampled_from([2**31, 2**63, -(2**63), 10**30]), st.floats(), st.booleans())
SCALARS = st.one_of(st.none(), NUMBERS, TEXT)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=8
)
"""Any JSON document, NaN and Infinity included, as Python's parser reads them."""


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Cut a file off, or change, insert or remove bytes at a few places."""
    found = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(found)))
        match draw(st.sampled_from(["cut", "change", "insert", "remove", "repeat"])):
            case "cut":
                del found[at:]
            case "change":
                new = draw(st.binary(min_size=1, max_size=8))
                found[at : at + len(new)] = new
            case "insert":
                found[at:at] = draw(st.binary(min_size=1, max_size=8))
            case "remove":
                del found[at : at + draw(st.integers(1, 64))]
            case _:
                found[at:at] = found[at : at + draw(st.integers(1, 64))]
    return bytes(found)


@st.composite
def changed(draw: st.DrawFn, document: Any, values: st.SearchStrategy[Any] = JSON) -> Any:
    """Replace or remove a few values of a document of dictionaries and lists, at any depth."""
    found = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(found))
        if not places:
            return draw(values)
        parent, key = draw(st.sampled_from(places))
        if draw(st.booleans()):
            parent[key] = draw(values)
        else:
            del parent[key]
    return found


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of a document."""
    entries = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in entries:
        yield document, key
        yield from _places(value)


@st.composite
def documents(draw: st.DrawFn, document: Any, values: st.SearchStrategy[Any] = JSON) -> bytes:
    """A JSON file that was edited by hand, badly: other values, damaged text, or nested without end."""
    match draw(st.sampled_from(["values", "values", "values", "bytes", "nested"])):
        case "values":
            return json.dumps(draw(changed(document, values))).encode()
        case "bytes":
            return draw(damaged(json.dumps(document).encode()))
        case _:
            return b'{"a":' * draw(st.sampled_from([10, 100_000])) + b"[]"


def rewritten(archive: bytes, name: str, change: Callable[[bytes], bytes]) -> bytes:
    """A zip file with one member changed and its checksum right, which damaging the file itself would not pass."""
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(result, "w") as new:
        for member in old.infolist():
            content = old.read(member)
            new.writestr(member, change(content) if member.filename.endswith(name) else content)
    return result.getvalue()
