"""Every name that a user can give: no file outside the model folders is read, written or replaced."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from pix2pix_zero_core.files import write_whole
from tests.survival.clear import survive
from tests.survival.damage import TEXT

SECRET = "a secret sentence"
PARTS = ["..", ".", "", "secret.txt", "secret", "edit_directions", "cat.txt", "~", "C:", "\\", "%2e%2e", "\0", "nul"]
NAMES = st.one_of(
    TEXT,
    st.lists(st.sampled_from(PARTS), max_size=5).map("/".join),
    st.lists(st.sampled_from(PARTS), max_size=5).map("\\".join),
    st.text("./\\~ catx-_'+,", max_size=300),
)
"""Names that try to lead elsewhere."""


@pytest.fixture(scope="module")
def models(pack: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """ComfyUI's models folder in this process, with a list of sentences in it and secrets beside and above it."""
    import folder_paths

    models = tmp_path_factory.mktemp("user") / "models"
    for folder in ("edit_directions", "blip", "LLM"):
        (models / folder).mkdir(parents=True)
    (models / "edit_directions" / "cat.txt").write_text("a cat\n")
    for place in (models, models.parent):
        (place / "secret.txt").write_text(SECRET)
        (place / "secret").mkdir()
        (place / "secret" / "config.json").write_text("{}")
    with pytest.MonkeyPatch.context() as patch:
        known = {kind: entry for kind, entry in folder_paths.folder_names_and_paths.items() if kind == "checkpoints"}
        patch.setattr(folder_paths, "folder_names_and_paths", known)
        patch.setattr(folder_paths, "models_dir", str(models))
        yield models


def tree(folder: Path) -> dict[str, str | None]:
    """Every file below a folder with its content, every other thing with None."""
    return {str(path.relative_to(folder)): path.read_text() if path.is_file() else None for path in folder.rglob("*")}


@given(name=NAMES, overwrite=st.booleans())
def test_no_name_leads_out_when_saving(pack: Any, models: Path, name: str, overwrite: bool):
    user, folder = models.parent, models / "edit_directions"
    before = tree(user)
    survive(lambda: pack.nodes.SaveSentences.execute("a dog", name, overwrite))
    after = tree(user)
    changed = {path for path in before.keys() | after.keys() if before.get(path, "") != after.get(path, "")}
    assert all((user / path).parent == folder and path.endswith(".txt") for path in changed), changed
    for path in changed:
        (user / path).unlink()
    (folder / "cat.txt").write_text("a cat\n")


class Encoder(torch.nn.Linear):
    """A text encoder without layers to skip."""

    def reset_clip_options(self) -> None: ...


CLIP = SimpleNamespace(
    patcher=SimpleNamespace(backup={}, object_patches={}, object_patches_backup={}, hook_backup={}),
    layer_idx=None,
    cond_stage_model=Encoder(1, 1),
    tokenize=lambda _: {"l": [[0] * 77]},
    tokenizer=SimpleNamespace(tokenize_with_weights=lambda *_: {"l": [[0] * 77]}),
)
"""As much of a text encoder as has a fingerprint."""

READERS: dict[str, Callable[[Any, str], Any]] = {
    "LoadSentences": lambda nodes, name: nodes.LoadSentences.execute(name),
    "LoadSentences, changed?": lambda nodes, name: nodes.LoadSentences.fingerprint_inputs(name),
    "LoadEditDirection": lambda nodes, name: nodes.LoadEditDirection.execute(name),
    "LoadEditDirection, changed?": lambda nodes, name: nodes.LoadEditDirection.fingerprint_inputs(name),
    "LoadDistilledEdit": lambda nodes, name: nodes.LoadDistilledEdit.execute(name),
    "LoadDistilledEdit, changed?": lambda nodes, name: nodes.LoadDistilledEdit.fingerprint_inputs(name),
    "ImportEditDirection": lambda nodes, name: nodes.ImportEditDirection.execute(CLIP, name, name),
    "ImportEditDirection, changed?": lambda nodes, name: nodes.ImportEditDirection.fingerprint_inputs(name, name),
    "EditDirection": lambda nodes, name: nodes.EditDirection.execute(None, name, "", "", 1),
    "BLIPCaption": lambda nodes, name: nodes.BLIPCaption.execute(torch.ones(1, 8, 8, 3), name, "", 5, 1),
    "WriteSentences": lambda nodes, name: nodes.WriteSentences.execute("cat", name, 1, 0, 1.0),
}
"""Every node that takes the name of a file, a folder or an edit."""


@pytest.mark.parametrize("reader", READERS)
@given(name=NAMES)
def test_no_name_leads_out_when_reading(pack: Any, models: Path, reader: str, name: str):
    nodes = pack.nodes.directions
    assume(name not in {*nodes.named_edits(), *nodes.known_concepts()})  # hypothesis finds those in our source
    result = survive(lambda: READERS[reader](pack.nodes, name))
    if result is not None:
        assert name == "cat.txt" and SECRET not in str(getattr(result, "result", ""))


def test_every_node_that_takes_a_name_is_tried(pack: Any):
    """A new node with a name or a file among its inputs must join the list above."""
    import asyncio

    extension = asyncio.run(pack.comfy_entrypoint())
    nodes = {node.__name__: node for node in asyncio.run(extension.get_node_list())}
    named = {
        name
        for name, node in nodes.items()
        if {entry.id for entry in node.define_schema().inputs} & {"file", "name", "writer", "edit"}
        or name in ("BLIPCaption", "ImportEditDirection")
    } - {"ValuesToTry"}  # its name is only written below pictures
    assert named == {reader.split(",")[0] for reader in READERS} | {"SaveSentences", "SaveEditDirection"}


@pytest.mark.parametrize("name", ["con", "NUL.txt", "Com1.cat", "c" * 151, "ü" * 76, "cat.", "-cat"])
def test_names_that_some_system_refuses(pack: Any, models: Path, name: str):
    before = tree(models)
    with pytest.raises(ValueError, match=r"cannot be a file name|as a file name; at most 150"):
        pack.nodes.SaveSentences.execute("a dog", name, True)
    assert tree(models) == before


@pytest.mark.parametrize("name", ["c" * 146 + ".txt", "console", "ü" * 75])
def test_names_that_every_system_takes(pack: Any, models: Path, name: str):
    pack.nodes.SaveSentences.execute("a dog", name, False)
    file = models / "edit_directions" / f"{name.removesuffix('.txt')}.txt"
    assert file.read_text() == "a dog\n"
    file.unlink()


# --- Links


@pytest.fixture
def outside(models: Path) -> Iterator[Path]:
    """models/edit_directions/link.txt leads to a file outside, which may be missing."""
    target, link = models.parent / "target.txt", models / "edit_directions" / "link.txt"
    link.symlink_to(target)
    yield target
    link.unlink()
    target.unlink(missing_ok=True)


def save(pack: Any, overwrite: bool) -> Any:
    return pack.nodes.SaveSentences.execute("a dog", "link", overwrite)


def test_a_link_is_followed_by_reading_as_everywhere_in_comfyui(pack: Any, outside: Path):
    outside.write_text("a cat elsewhere\n")
    assert pack.nodes.LoadSentences.execute("link.txt").result == ("a cat elsewhere",)


@pytest.mark.parametrize("there", [True, False], ids=["file", "nothing"])
def test_nothing_is_ever_written_through_a_link(pack: Any, models: Path, outside: Path, there: bool):
    link = models / "edit_directions" / "link.txt"
    if there:
        outside.write_text("a cat elsewhere\n")
    with pytest.raises(FileExistsError, match=r"link\.txt exists\. Choose another name, or switch overwrite on"):
        save(pack, overwrite=False)
    assert outside.exists() == there and link.is_symlink()
    save(pack, overwrite=True)
    assert not link.is_symlink() and link.read_text() == "a dog\n"
    assert outside.exists() == there and (not there or outside.read_text() == "a cat elsewhere\n")


def test_a_link_to_a_folder_is_replaced_and_a_folder_stays(pack: Any, models: Path, outside: Path):
    outside.mkdir()
    try:
        save(pack, overwrite=True)
        assert not list(outside.iterdir()) and (models / "edit_directions" / "link.txt").is_file()
    finally:
        outside.rmdir()
    folder = models / "edit_directions" / "folder.txt"
    folder.mkdir()
    for overwrite in (True, False):
        with pytest.raises(FileExistsError, match=r"folder\.txt (is a folder|exists)"):
            pack.nodes.SaveSentences.execute("a dog", "folder", overwrite)
    folder.rmdir()


@pytest.mark.parametrize("reader", ["LoadSentences", "LoadEditDirection", "ImportEditDirection"])
@pytest.mark.parametrize("what", ["folder", "pipe", "loop", "nothing"])
def test_things_that_are_no_files(pack: Any, models: Path, reader: str, what: str):
    """A pipe would be waited for without end."""
    if what == "pipe" and not hasattr(os, "mkfifo"):
        pytest.skip("no pipes in this file system")
    suffix = {"LoadSentences": "txt", "LoadEditDirection": "safetensors", "ImportEditDirection": "pt"}[reader]
    path = models / "edit_directions" / f"{what}.{suffix}"
    make = {"folder": path.mkdir, "pipe": lambda: os.mkfifo(path)}.get(
        what, lambda: path.symlink_to(path if what == "loop" else models / "gone")
    )
    make()
    try:
        with pytest.raises(FileNotFoundError, match=path.name):
            READERS[reader](pack.nodes, path.name)
    finally:
        path.rmdir() if what == "folder" else path.unlink()


# --- Partial files


@pytest.mark.parametrize("broken", ["write", "replace"])
def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str):
    path = tmp_path / "cat.txt"
    path.write_bytes(b"old")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    class FullDisk(io.FileIO):
        def write(self, content: Any) -> int:
            super().write(bytes(content)[:4])
            full()
            return 4

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        if broken == "write":
            patch.setattr(Path, "open", lambda self, mode: FullDisk(self, mode.replace("b", "")))
        else:
            patch.setattr(os, "replace", full)
        write_whole(path, b"new and longer", overwrite=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["cat.txt"] and path.read_bytes() == b"old"


def test_a_partial_file_is_never_somebody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Even where a link lies at its name."""
    import uuid

    monkeypatch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=7))
    target = tmp_path / "target"
    target.write_bytes(b"mine")
    (tmp_path / f"cat.txt.{uuid.UUID(int=7).hex}.partial").symlink_to(target)
    with pytest.raises(FileExistsError):
        write_whole(tmp_path / "cat.txt", b"new", overwrite=True)
    assert target.read_bytes() == b"mine" and not (tmp_path / "cat.txt").exists()
