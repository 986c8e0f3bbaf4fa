"""Folders of BLIP and of language models, broken: loaded, or refused in clear words; and no code in them runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from pix2pix_zero_core.integrations import language_model
from pix2pix_zero_core.integrations.captioner import Captioner
from pix2pix_zero_core.integrations.language_model import SentenceWriter
from tests.survival.clear import ROOT, fewer, survive
from tests.survival.damage import TEXT, damaged, documents

TINY_ZOO = ROOT / "tiny_zoo" / "weights" / "blip" / "tiny_zoo"
PICTURE = torch.full((1, 16, 16, 3), 0.5)

VALUES = st.one_of(st.none(), st.booleans(), st.integers(-2, 40), st.floats(), TEXT, st.just([]), st.just({}))
"""What a setting may be changed to. A model may still be asked to be huge: memory is the user's to give."""


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny Zoo's captioner."""
    return Path(shutil.copytree(TINY_ZOO, tmp_path_factory.mktemp("blip") / "tiny_zoo"))


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model of a dozen words."""
    words = ["<pad>", "<end>", "<unknown>", "\n", "a", "cat", "cats", "dog", "on", "the", "in", "old"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unknown>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    special = {"pad_token": "<pad>", "eos_token": "<end>", "unk_token": "<unknown>"}
    folder = tmp_path_factory.mktemp("writer")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    sizes = {"n_positions": 1024, "n_embd": 16, "n_layer": 1, "n_head": 2}
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(vocab_size=len(words), eos_token_id=1, **sizes)).save_pretrained(folder)
    return folder


class Broken:
    """A folder with one file replaced for as long as the block lasts."""

    def __init__(self, folder: Path, name: str, content: bytes) -> None:
        self.file, self.content, self.before = folder / name, content, (folder / name).read_bytes()

    def __enter__(self) -> None:
        self.names = sorted(path.name for path in self.file.parent.iterdir())
        self.file.write_bytes(self.content)

    def __exit__(self, *_: Any) -> None:
        self.file.write_bytes(self.before)
        assert sorted(path.name for path in self.file.parent.iterdir()) == self.names


def caption(folder: Path) -> str | None:
    """A caption by the model of a folder, None where it is refused."""
    captioner = survive(lambda: Captioner.from_folder(folder))
    if captioner is None:
        return None
    captions = survive(lambda: captioner(PICTURE, max_tokens=3, beams=2))
    return None if captions is None else captions[0]


def write(folder: Path) -> list[str] | None:
    """A sentence by the model of a folder, None where it is refused."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(language_model, "REPLY", 8)
        patch.setattr(language_model, "BATCH", 2)
        patch.setattr(language_model, "PATIENCE", 1)
        model = survive(lambda: SentenceWriter.from_folder(folder))
        return None if model is None else survive(lambda: model("cat", 1))


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.mark.parametrize("name", sorted(path.name for path in TINY_ZOO.glob("*.json")))
@fewer
@given(data=st.data())
def test_any_settings_of_blip(blip: Path, name: str, data: st.DataObject):
    with Broken(blip, name, data.draw(documents(read(TINY_ZOO / name), VALUES))):
        caption(blip)


@fewer
@given(content=damaged((TINY_ZOO / "vocab.txt").read_bytes()))
def test_any_vocabulary_of_blip(blip: Path, content: bytes):
    with Broken(blip, "vocab.txt", content):
        caption(blip)


@fewer
@given(data=st.data())
def test_damaged_weights_of_blip(blip: Path, data: st.DataObject):
    whole = (TINY_ZOO / "model.safetensors").read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    content = data.draw(damaged(whole[:header])) + whole[header:]
    with Broken(blip, "model.safetensors", content if data.draw(st.booleans()) else data.draw(damaged(whole))):
        caption(blip)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "generation_config.json", "tokenizer.json"])
@fewer
@given(data=st.data())
def test_any_settings_of_a_language_model(writer: Path, name: str, data: st.DataObject):
    with Broken(writer, name, data.draw(documents(read(writer / name), VALUES))):
        write(writer)


@fewer
@given(data=st.data())
def test_damaged_weights_of_a_language_model(writer: Path, data: st.DataObject):
    whole = (writer / "model.safetensors").read_bytes()
    with Broken(writer, "model.safetensors", data.draw(damaged(whole))):
        write(writer)


# --- Code in them


def with_fields(folder: Path, name: str, **fields: Any) -> Broken:
    return Broken(folder, name, json.dumps(read(folder / name) | fields).encode())


LOAD: dict[str, Callable[[Path], Any]] = {"blip": Captioner.from_folder, "writer": SentenceWriter.from_folder}


@pytest.mark.parametrize("kind", LOAD)
def test_an_attention_on_the_hub_is_not_fetched(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
):
    """By itself transformers fetches the kernel that config.json names and runs it, where `kernels` is installed."""
    from transformers import modeling_utils

    folder = request.getfixturevalue(kind)
    monkeypatch.setattr(modeling_utils, "lazy_import_flash_attention", lambda *_, **__: pytest.fail("it was fetched"))
    with with_fields(folder, "config.json", attn_implementation="kernels-community/flash-attn"):
        assert LOAD[kind](folder).model.config._attn_implementation == "eager"


@pytest.mark.parametrize("kind", LOAD)
def test_no_code_of_a_tokenizer_runs(kind: str, request: pytest.FixtureRequest, tmp_path: Path):
    """And nobody is asked on the terminal whether it may."""
    folder = request.getfixturevalue(kind)
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    fields = {"auto_map": {"AutoTokenizer": ["mine.Mine", "mine.Mine"]}, "tokenizer_class": "Mine"}
    try:
        with with_fields(folder, "tokenizer_config.json", **fields):
            survive(lambda: LOAD[kind](folder))
    finally:
        (folder / "mine.py").unlink()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", LOAD)
def test_weights_in_a_pickle_run_no_code(kind: str, request: pytest.FixtureRequest, tmp_path: Path):
    folder = Path(shutil.copytree(request.getfixturevalue(kind), tmp_path / "folder"))
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    LOAD[kind](folder)

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.mkdir, (tmp_path / "ran",)

    torch.save(weights | {"payload": Payload()}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="cannot be read"):
        LOAD[kind](folder)
    assert not (tmp_path / "ran").exists()
