"""Every file that a user can put into our model folders, broken: it is read right, or refused in clear words."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from pix2pix_zero_core import EditDirection, load_direction
from pix2pix_zero_core.direction_files import ALIGNED as ALIGNED_FORM
from pix2pix_zero_core.direction_files import FORMAT, MEAN, VERSIONS, read_embedding
from pix2pix_zero_core.distillation import DistilledEdit, Generator
from pix2pix_zero_core.integrations.sentences import (
    SentenceBanks,
    load_edit,
    parse_sentences,
    read_edits,
    read_sentences,
    save_sentences,
)
from tests.survival.clear import fewer, survive
from tests.survival.damage import JSON, SCALARS, TEXT, damaged, documents, rewritten

METADATA = {
    "format": FORMAT,
    "version": VERSIONS[MEAN],
    "source": "cat",
    "target": "dog",
    "encoder": "Encoder-0123456789abcdef",
    "source_sentences": "200",
    "target_sentences": "200",
}
TYPES = [
    *(torch.float16, torch.float32, torch.float64, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2),
    *(torch.int8, torch.int64, torch.uint8, torch.uint16, torch.bool, torch.complex64),
]


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """Any small tensor."""
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    value = draw(st.sampled_from([0.0, 1.0, -2.0, torch.nan, torch.inf]))
    dtype = draw(st.sampled_from(TYPES))
    return torch.full(shape, value if dtype.is_floating_point else 1.0).to(dtype)


def embedding_file(content: Any, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **settings)
    return buffer.getvalue()


DIRECTION = safetensors.torch.save({"vector": torch.ones(3, 2), "pooled": torch.ones(2)}, METADATA)
SIDES = ("source", "target")
EDITS = [{"weight": 1.0, "exchanges": [{"sentences": 1, **{side: {"text": side, "ids": [1]} for side in SIDES}}]}]
ALIGNED_METADATA = METADATA | {
    **{"version": VERSIONS[ALIGNED_FORM], "form": ALIGNED_FORM, "edits": json.dumps(EDITS), "length": "8"},
}
ALIGNED = safetensors.torch.save({f"0.0.{side}": torch.ones(5, 2) for side in SIDES}, ALIGNED_METADATA)
EMBEDDING = embedding_file(torch.ones(3, 2))
LEGACY = embedding_file(torch.ones(3, 2), _use_new_zipfile_serialization=False)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file, written anew in every case, in a folder where nothing else may appear."""
    return tmp_path_factory.mktemp("files") / "file"


def read_direction(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    direction = survive(lambda: load_direction(file))
    if direction is not None:
        assert min(direction.sentences) >= 0
    if isinstance(direction, EditDirection):
        prompt = torch.zeros(1, *direction.vector.shape)
        assert torch.isfinite(direction.apply(prompt, encoder=direction.encoder)).all()
        assert direction.vector.dtype == torch.float32
    assert list(file.parent.iterdir()) == [file]


@given(content=st.one_of(damaged(DIRECTION), damaged(ALIGNED)))
def test_damaged_directions(file: Path, content: bytes):
    read_direction(file, content)


@given(edits=st.one_of(documents(EDITS), st.text().map(str.encode)), length=st.text(), rows=tensors())
def test_any_phrases_of_an_aligned_direction(file: Path, edits: bytes, length: str, rows: torch.Tensor):
    metadata = ALIGNED_METADATA | {"edits": edits.decode(errors="replace"), "length": length}
    read_direction(file, safetensors.torch.save({"0.0.source": rows, "0.0.target": torch.ones(5, 2)}, metadata))


@given(
    content=st.dictionaries(st.sampled_from(["vector", "pooled", "x"]), tensors()),
    fields=st.dictionaries(st.sampled_from(sorted(METADATA)), st.one_of(st.text(), st.text("0123456789²٣"))),
    missing=st.sampled_from([None, *METADATA]),
)
def test_any_safetensors_file_as_a_direction(
    file: Path, content: dict[str, torch.Tensor], fields: dict[str, str], missing: str | None
):
    metadata = {name: text for name, text in (METADATA | fields).items() if name != missing}
    read_direction(file, safetensors.torch.save(content, metadata))


@given(documents({"__metadata__": METADATA, "vector": {"dtype": "F32", "shape": [3, 2], "data_offsets": [0, 24]}}))
def test_any_header_of_a_direction(file: Path, header: bytes):
    read_direction(file, len(header).to_bytes(8, "little") + header + bytes(24))


def test_a_count_of_sentences_without_end(file: Path):
    read_direction(
        file, safetensors.torch.save({"vector": torch.ones(3, 2)}, METADATA | {"source_sentences": "9" * 9999})
    )


def read_embeddings(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    embedding = survive(lambda: read_embedding(file))
    assert embedding is None or (embedding.ndim == 2 and embedding.dtype == torch.float32)
    direction = survive(lambda: EditDirection.from_embedding_files(file, file, encoder="x"))
    assert direction is None or torch.isfinite(direction.vector).all()
    assert list(file.parent.iterdir()) == [file]


@given(content=st.one_of(damaged(EMBEDDING), damaged(LEGACY)))
def test_damaged_embeddings(file: Path, content: bytes):
    read_embeddings(file, content)


@pytest.fixture(scope="module")
def distilled(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, torch.Tensor], dict[str, str], bytes]:
    """Weights, metadata and bytes of a distilled edit."""
    path = tmp_path_factory.mktemp("distilled") / "it.safetensors"
    edit = DistilledEdit(Generator(4, 0).folded(), "cat2dog", "cat", "dog", (64, 64), "encoder", "{}", "MIT", {})
    edit.save(path)
    with safetensors.safe_open(path, framework="pt") as file:
        return safetensors.torch.load_file(path), file.metadata(), path.read_bytes()


def read_distilled(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    edit = survive(lambda: DistilledEdit.load(file))
    if edit is not None:
        assert edit.describe()
        assert edit.apply(torch.zeros(1, 9, 9, 3)).shape == (1, 9, 9, 3)
    assert list(file.parent.iterdir()) == [file]


@fewer
@given(data=st.data())
def test_damaged_distilled_edits(file: Path, distilled: Any, data: st.DataObject):
    read_distilled(file, data.draw(damaged(distilled[2])))


def decoded(content: bytes) -> str:
    return content.decode(errors="replace")


@fewer
@given(data=st.data())
def test_any_metadata_of_a_distilled_edit(file: Path, distilled: Any, data: st.DataObject):
    weights, metadata, _ = distilled
    numbers = st.one_of(st.text("0123456789²٣-", max_size=9), documents({"pairs": 100}).map(decoded))
    changed = data.draw(st.dictionaries(st.sampled_from(sorted(metadata)), st.one_of(st.text(), numbers)))
    missing = data.draw(st.sampled_from([None, *metadata]))
    found = {name: text for name, text in (metadata | changed).items() if name != missing}
    read_distilled(file, safetensors.torch.save(weights, found))


@fewer
@given(data=st.data())
def test_any_weights_of_a_distilled_edit(file: Path, distilled: Any, data: st.DataObject):
    weights, metadata, _ = distilled
    changed = data.draw(st.dictionaries(st.sampled_from([*weights, "x"]), tensors(), max_size=3))
    read_distilled(file, safetensors.torch.save({**weights, **changed}, metadata))


with zipfile.ZipFile(io.BytesIO(EMBEDDING)) as archive:
    PICKLE = archive.read("archive/data.pkl")


@given(content=damaged(PICKLE))
def test_damaged_pickles_of_embeddings(file: Path, content: bytes):
    read_embeddings(file, rewritten(EMBEDDING, "data.pkl", lambda _: content))


@given(
    st.one_of(tensors(), st.lists(tensors(), max_size=2), st.dictionaries(st.text(), tensors(), max_size=2), SCALARS)
)
def test_any_object_as_an_embedding(file: Path, content: Any):
    read_embeddings(file, embedding_file(content))


@pytest.mark.parametrize(
    "content",
    [
        torch.ones(3, 2).to_sparse(),
        torch.ones(3, 2).to_sparse_csr(),
        torch.ones(3, 2, device="meta"),
        torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        torch.quantize_per_tensor(torch.ones(3, 2), 0.1, 0, torch.qint8),
        torch.nn.Parameter(torch.ones(3, 2)),
        torch.ones(3, 2, requires_grad=True),
    ],
    ids=["sparse", "csr", "meta", "nested", "quantized", "parameter", "gradient"],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_of_other_kinds_as_an_embedding(file: Path, content: torch.Tensor):
    read_embeddings(file, embedding_file(content))


def test_a_small_embedding_file_that_asks_for_much_memory(file: Path):
    """A tensor of 4 TB on a storage of 4 bytes."""
    content = embedding_file(torch.ones(1, 1).expand(10**6, 10**6))
    assert len(content) < 4096
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"\(1000000, 1000000\).*more than the file"):
        read_embedding(file)


CALLS = [
    "os.system",
    "builtins.eval",
    "builtins.exec",
    "subprocess.call",
    "torch.load",
    "pathlib.Path",
    "runpy.run_path",
]


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "bare"])
@pytest.mark.parametrize("call", CALLS)
def test_no_embedding_runs_code(file: Path, call: str, legacy: bool, monkeypatch: pytest.MonkeyPatch):
    """Nothing that a pickle names is imported, let alone called."""
    module, name = call.rsplit(".", 1)
    argument = "open('ran', 'w')"
    monkeypatch.chdir(file.parent)
    code = f"c{module}\n{name}\n(V{argument}\ntR.".encode()
    content = code if legacy else rewritten(EMBEDDING, "data.pkl", lambda _: code)
    file.write_bytes(content)
    with pytest.raises(ValueError, match="holds no tensor that can be read safely"):
        read_embedding(file)
    assert list(file.parent.iterdir()) == [file]
    if call == "builtins.exec":
        pickle.loads(code)  # so the file would have done harm
        (file.parent / "ran").unlink()


@given(content=st.binary())
def test_any_bytes_as_sentences(file: Path, content: bytes):
    file.write_bytes(content)
    sentences = survive(lambda: read_sentences(file))
    assert sentences is None or all(sentence == sentence.strip() != "" for sentence in sentences)


@given(text=st.one_of(TEXT, st.lists(TEXT).map("\n".join)))
def test_sentences_come_back_as_they_were_saved(file: Path, text: str):
    file.unlink(missing_ok=True)
    sentences = survive(lambda: parse_sentences(text))
    if sentences is None:
        return
    survive(lambda: save_sentences(sentences, file))
    if file.exists():
        assert read_sentences(file) == sentences
        assert list(file.parent.iterdir()) == [file]
    else:
        assert not list(file.parent.iterdir())


EDITS = {"cat2dog": {"label": "cat to dog", "source": "cat", "target": "dog"}}


@given(content=documents(EDITS))
def test_any_list_of_edits(tmp_path: Path, content: bytes):
    (tmp_path / "edits.json").write_bytes(content)
    edits = survive(lambda: read_edits(tmp_path))
    for edit in edits or {}:
        survive(lambda edit=edit: load_edit(edit, tmp_path))


@given(document=JSON)
def test_any_document_as_a_list_of_edits(tmp_path: Path, document: Any):
    (tmp_path / "edits.json").write_text(json.dumps(document))
    survive(lambda: read_edits(tmp_path))


@given(concept=st.one_of(TEXT, st.text("./\\~:%\0 cat")))
def test_no_concept_names_a_file_outside_its_folder(tmp_path: Path, concept: str):
    path = survive(lambda: SentenceBanks(tmp_path).path(concept))
    assert path is None or path.resolve().parent == tmp_path.resolve()
    survive(lambda: SentenceBanks(tmp_path).read(concept))
