"""What the pack says of its nodes: help pages, and names and tooltips in every language."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from authoring import locales
from launcher.runtime import PACK, ROOT
from launcher.server import Server

TRANSLATIONS = ("zh", "ja")
DOCS = ROOT / "web" / "docs"


@pytest.fixture(scope="module")
def english(object_info: dict[str, Any]) -> dict[str, Any]:
    return locales.english(object_info)


def names(node: dict[str, Any]) -> list[str]:
    """Names of a node's inputs and outputs."""
    return [*node["inputs"], *(output["name"] for output in node["outputs"].values())]


def test_every_node_input_and_output_is_explained(english: dict[str, Any]) -> None:
    assert english
    assert not [node_id for node_id, node in english.items() if not node["description"]]
    slots = [
        (node_id, *slot) for node_id, node in english.items() for slot in (node["inputs"] | node["outputs"]).items()
    ]
    assert not [(node_id, name) for node_id, name, slot in slots if not slot["tooltip"]]


def test_every_node_is_found_by_other_words(object_info: dict[str, Any], english: dict[str, Any]) -> None:
    if "search_aliases" not in object_info["KSampler"]:
        pytest.skip("this ComfyUI finds nodes by their names alone")
    assert not [node_id for node_id in english if not object_info[node_id]["search_aliases"]]


def test_english_is_what_the_nodes_say(english: dict[str, Any]) -> None:
    written = json.loads((locales.FOLDER / "en" / "nodeDefs.json").read_text(encoding="utf-8"))
    assert written == english, "run `python -m authoring.locales URL` beside a running ComfyUI"


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_a_translation_covers_everything_and_nothing_else(language: str, english: dict[str, Any]) -> None:
    translated = json.loads((locales.FOLDER / language / "nodeDefs.json").read_text(encoding="utf-8"))
    assert set(translated) == set(english)
    for node_id, node in english.items():
        other = translated[node_id]
        assert other["display_name"] and other["description"] not in ("", node["description"]), node_id
        for part in ("inputs", "outputs"):
            assert set(other.get(part, {})) == set(node[part]), (node_id, part)
            for name, slot in node[part].items():
                assert other[part][name]["name"], (node_id, name)
                assert other[part][name]["tooltip"] not in ("", slot["tooltip"]), (node_id, name)


def test_the_server_offers_the_translations(server: Server, english: dict[str, Any]) -> None:
    offered = server.get("/i18n")
    for language in ("en", *TRANSLATIONS):
        assert set(english) <= set(offered[language]["nodeDefs"])


def test_every_node_has_a_help_page_that_names_every_input_and_output(server: Server, english: dict[str, Any]) -> None:
    assert {page.stem for page in DOCS.glob("*.md")} == set(english)
    for node_id, node in english.items():
        page = server.request(f"/extensions/{PACK}/docs/{node_id}.md").decode()
        assert page.startswith(f"# {node['display_name']}\n")
        assert not [name for name in names(node) if f"`{name}`" not in page], node_id


def test_pictures_in_help_pages_exist() -> None:
    shown = [
        picture
        for page in DOCS.glob("*.md")
        for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text("utf-8"))
    ]
    assert shown
    assert not [picture for picture in shown if not (DOCS / picture).is_file()]
