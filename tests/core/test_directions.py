from __future__ import annotations

import math
import os

import pytest
import torch
from safetensors.torch import save_file

from pix2pix_zero_core import EditDirection
from pix2pix_zero_core.direction_files import read_embedding
from pix2pix_zero_core.encoders import Setting, fingerprint

WIDTH, LENGTH = 6, 8


def encode(sentences):
    """Embed a sentence by its characters: any function of the text will do."""
    tokens = torch.zeros(len(sentences), LENGTH, WIDTH)
    for row, sentence in zip(tokens, sentences, strict=True):
        for i, character in enumerate(sentence):
            row[i % LENGTH, i % WIDTH] += ord(character) / 100
    return tokens, tokens.mean(1)


def encode_without_pooled(sentences):
    return encode(sentences)[0], None


def build(source=("a cat", "two cats", "my cat"), target=("a dog", "one dog"), **settings):
    settings = {"encode": encode, "source": "cat", "target": "dog", "encoder": "clip-l:1234"} | settings
    return EditDirection.build(source_sentences=source, target_sentences=target, **settings)


@pytest.fixture
def direction():
    return build()


def test_direction_is_the_difference_of_means(direction):
    source, target = encode(["a cat", "two cats", "my cat"]), encode(["a dog", "one dog"])
    assert torch.allclose(direction.vector, target[0].mean(0) - source[0].mean(0))
    assert torch.allclose(direction.pooled, target[1].mean(0) - source[1].mean(0))
    assert direction.vector.dtype == direction.pooled.dtype == torch.float32
    assert (direction.source, direction.target, direction.name) == ("cat", "dog", "cat -> dog")
    assert direction.sentences == (3, 2)


def test_batches_do_not_change_the_direction(direction):
    for batch_size in (1, 2, 100):
        assert torch.equal(build(batch_size=batch_size).vector, direction.vector)


def test_progress_counts_every_sentence():
    progress = []
    build(batch_size=2, on_progress=lambda done, total: progress.append((done, total)))
    assert progress == [(2, 5), (3, 5), (5, 5)]


def test_equal_sentences_give_a_zero_direction():
    direction = build(source=["a cat"], target=["a cat"])
    assert torch.equal(direction.vector, torch.zeros(LENGTH, WIDTH))


def test_an_encoder_without_pooled_output():
    assert build(encode=encode_without_pooled).pooled is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source": []}, "There are no source sentences; give at least one"),
        ({"target": []}, "There are no target sentences; give at least one"),
        ({"target": ["a dog", "  "]}, "One of the 2 target sentences is empty; remove blank lines"),
        ({"batch_size": 0}, "batch_size is 0; it must be >= 1"),
    ],
)
def test_bad_sentences(settings, message):
    with pytest.raises(ValueError, match=message):
        build(**settings)


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("sentences", [{"source": ["short", "long one"]}, {"target": ["long one"]}])
def test_sentences_of_different_lengths(batch_size, sentences):
    def ragged(sentences):
        tokens, pooled = encode(sentences)
        return (tokens.repeat(1, 2, 1), pooled) if "long one" in sentences else (tokens, pooled)

    if batch_size == 3 and "source" in sentences:
        sentences = {"source": ["short"] * 3 + ["long one"]}
    with pytest.raises(ValueError, match=r"\(8, 6\) and to \(16, 6\).*near 'long one'.*Shorten the sentences"):
        build(encode=ragged, batch_size=batch_size, **sentences)


# --- apply


@pytest.mark.parametrize("chunks", [1, 3])
def test_every_chunk_is_shifted(direction, generator, chunks):
    embedding = torch.randn(2, chunks * LENGTH, WIDTH, generator=generator)
    shifted = direction.apply(embedding, 1.5, encoder=direction.encoder)
    for before, after in zip(embedding.split(LENGTH, 1), shifted.split(LENGTH, 1), strict=True):
        assert torch.allclose(after, before + 1.5 * direction.vector)


def test_the_direction_leads_from_source_to_target():
    direction = build(source=["a cat"], target=["a dog"])
    shifted = direction.apply(encode(["a cat"])[0], encoder=direction.encoder)
    assert torch.allclose(shifted, encode(["a dog"])[0], atol=1e-6)
    back = direction.apply(shifted, -1.0, encoder=direction.encoder)
    assert torch.allclose(back, encode(["a cat"])[0], atol=1e-6)


def test_strength_zero_changes_nothing(direction, generator):
    embedding, pooled = torch.randn(1, LENGTH, WIDTH, generator=generator), torch.randn(1, WIDTH, generator=generator)
    assert torch.equal(direction.apply(embedding, 0, encoder=direction.encoder), embedding)
    assert torch.equal(direction.apply_pooled(pooled, 0, encoder=direction.encoder), pooled)


def test_pooled_embedding_is_shifted_where_there_is_one(direction, generator):
    pooled = torch.randn(2, WIDTH, generator=generator)
    shifted = direction.apply_pooled(pooled, 2.0, encoder=direction.encoder)
    assert torch.allclose(shifted, pooled + 2 * direction.pooled)
    without = build(encode=encode_without_pooled)
    assert torch.equal(without.apply_pooled(pooled, 2.0, encoder=without.encoder), pooled)


def test_dtype_of_the_prompt_is_kept(direction):
    assert direction.apply(torch.zeros(1, LENGTH, WIDTH).half(), encoder=direction.encoder).dtype == torch.float16
    assert direction.apply_pooled(torch.zeros(1, WIDTH).half(), encoder=direction.encoder).dtype == torch.float16


def test_the_prompt_is_not_changed_in_place(direction):
    embedding = torch.zeros(1, LENGTH, WIDTH)
    direction.apply(embedding, encoder=direction.encoder)
    assert not embedding.any()


@pytest.mark.parametrize("shape", [(1, LENGTH + 1, WIDTH), (1, LENGTH, WIDTH + 1), (LENGTH, WIDTH)])
def test_prompts_that_do_not_fit(direction, shape):
    with pytest.raises(ValueError, match=r"fits \(batch, a multiple of 8 tokens, 6\). Build the direction with"):
        direction.apply(torch.zeros(shape), encoder=direction.encoder)


def test_pooled_embeddings_that_do_not_fit(direction):
    with pytest.raises(ValueError, match=r"has shape \(1, 7\); direction cat -> dog fits \(batch, 6\)"):
        direction.apply_pooled(torch.zeros(1, WIDTH + 1), encoder=direction.encoder)


SKIP = Setting("clip skip", "-2", "-1")
NEGPIP = Setting("patches", "encode by NegPip", "none")


@pytest.mark.parametrize(
    ("made_by", "used", "words"),
    [
        ([SKIP], [], ["clip skip -2, the prompt's is -1 (set it alike with CLIP Set Last Layer)"]),
        ([], [SKIP], ["clip skip -1, the prompt's is -2 (set it alike with CLIP Set Last Layer)"]),
        ([SKIP], [SKIP._replace(value="-3")], ["clip skip -2, the prompt's is -3"]),
        ([SKIP, NEGPIP], [SKIP], ["differently: patches encode by NegPip, the prompt's is none (take both CLIPs"]),
        ([SKIP], [NEGPIP], ["clip skip -2, the prompt's is -1", "patches none, the prompt's is encode by NegPip"]),
    ],
)
def test_an_encoder_that_is_set_differently_is_refused_with_both_values(made_by, used, words):
    direction = build(encoder=fingerprint("clip-l:1234", made_by))
    direction.require_encoder(fingerprint("clip-l:1234", [*made_by, Setting("chunk length", "77", "77")]))
    with pytest.raises(ValueError, match="made by the prompt's text encoder, but set differently") as refusal:
        direction.require_encoder(fingerprint("clip-l:1234", used))
    assert all(text in str(refusal.value) for text in words)
    with pytest.raises(ValueError, match=r"the prompt by 'clip-other.*'. The weights are another checkpoint's"):
        direction.require_encoder(fingerprint("clip-other", used))


@pytest.mark.parametrize("method", ["apply", "apply_pooled"])
def test_another_encoder_is_refused(direction, method):
    with pytest.raises(
        ValueError, match=r"made by text encoder 'clip-l:1234', the prompt by 'other-l:1234'. That is another kind, or"
    ):
        getattr(direction, method)(torch.zeros(1, LENGTH, WIDTH), encoder="other-l:1234")


@pytest.mark.parametrize("method", ["apply", "apply_pooled"])
@pytest.mark.parametrize("strength", [math.nan, math.inf])
def test_strength_must_be_finite(direction, method, strength):
    with pytest.raises(ValueError, match=f"strength of the edit is {strength}; it must be a finite number"):
        getattr(direction, method)(torch.zeros(1, LENGTH, WIDTH), strength, encoder=direction.encoder)


# --- combine


def test_directions_add(direction):
    other = build(target=["a horse"])
    both = EditDirection.combine([(direction, 1.0), (other, -0.5)])
    assert torch.allclose(both.vector, direction.vector - 0.5 * other.vector)
    assert torch.allclose(both.pooled, direction.pooled - 0.5 * other.pooled)
    assert both.encoder == direction.encoder
    assert both.sentences == (6, 3)
    assert both.name == "cat + dog -> dog + cat", "a negative weight reverses an edit"


def test_a_direction_of_weight_0_is_not_in_the_sum(direction):
    other = build(target=["a horse"])
    alone = EditDirection.combine([(direction, 0.5), (other, 0.0)])
    assert alone.name == "cat -> dog" and torch.equal(alone.vector, 0.5 * direction.vector)
    assert alone.sentences == direction.sentences
    nothing = EditDirection.combine([(direction, 0.0), (other, 0.0)])
    assert nothing.name == "cat + cat -> dog + dog" and not nothing.vector.any()


def test_combining_refuses_what_does_not_fit(direction):
    with pytest.raises(ValueError, match="no directions to combine"):
        EditDirection.combine([])
    with pytest.raises(ValueError, match="The weight of cat -> dog is nan; it must be finite"):
        EditDirection.combine([(direction, math.nan)])
    with pytest.raises(ValueError, match=r"made by text encoder 'clip-l:1234', cat -> dog by 'other'\. Build both"):
        EditDirection.combine([(direction, 1), (build(encoder="other"), 1)])
    with pytest.raises(ValueError, match="differ in shape or in having a pooled part"):
        EditDirection.combine([(direction, 1), (build(encode=encode_without_pooled), 1)])


# --- files


@pytest.mark.parametrize("encoder", [encode, encode_without_pooled])
def test_save_and_load_return_the_same_direction(tmp_path, encoder):
    direction = build(encode=encoder, source=["eine Katze", "kočka"])
    direction.save(tmp_path / "cat2dog.safetensors")
    loaded = EditDirection.load(tmp_path / "cat2dog.safetensors")
    assert torch.equal(loaded.vector, direction.vector)
    assert (loaded.pooled is None) == (direction.pooled is None)
    assert loaded.pooled is None or torch.equal(loaded.pooled, direction.pooled)
    for name in ("source", "target", "encoder", "sentences"):
        assert getattr(loaded, name) == getattr(direction, name)


def test_an_old_file_is_replaced_only_on_demand(tmp_path, direction):
    path = tmp_path / "cat2dog.safetensors"
    path.write_text("old")
    with pytest.raises(FileExistsError, match=r"cat2dog\.safetensors exists. Choose another name, or allow"):
        direction.save(path)
    assert path.read_text() == "old"
    direction.save(path, overwrite=True)
    assert os.listdir(tmp_path) == ["cat2dog.safetensors"]
    assert torch.equal(EditDirection.load(path).vector, direction.vector)


def test_a_failed_save_keeps_the_old_file_and_cleans_up(tmp_path, direction, monkeypatch):
    path = tmp_path / "cat2dog.safetensors"
    direction.save(path)
    before = path.read_bytes()

    def full(source, target):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        build(target=["a horse"]).save(path, overwrite=True)
    assert os.listdir(tmp_path) == ["cat2dog.safetensors"]
    assert path.read_bytes() == before


def test_missing_files_and_folders(tmp_path, direction):
    with pytest.raises(FileNotFoundError, match=r"no edit direction at .*nothing\.safetensors. Choose an existing"):
        EditDirection.load(tmp_path / "nothing.safetensors")
    with pytest.raises(FileNotFoundError, match=r"Cannot save x\.safetensors: folder .*gone does not exist"):
        direction.save(tmp_path / "gone" / "x.safetensors")


@pytest.mark.parametrize("damage", ["text", "empty", "truncated", "header"])
def test_corrupt_files(tmp_path, direction, damage):
    path = tmp_path / "cat2dog.safetensors"
    direction.save(path)
    content = path.read_bytes()
    path.write_bytes(
        {"text": b"not a direction", "empty": b"", "truncated": content[:-20], "header": b"\xff" * 8 + content[8:]}[
            damage
        ]
    )
    with pytest.raises(ValueError, match=r"cat2dog\.safetensors is not a readable safetensors file .* again"):
        EditDirection.load(path)


def metadata(**changes):
    fields = {
        "format": "pix2pix-zero edit direction",
        "version": "1",
        "source": "cat",
        "target": "dog",
        "encoder": "clip-l:1234",
        "source_sentences": "1",
        "target_sentences": "1",
    } | changes
    return {key: value for key, value in fields.items() if value is not None}


@pytest.mark.parametrize(
    ("tensors", "fields", "message"),
    [
        ({"vector": torch.zeros(2, 3)}, None, "no edit direction: its metadata says format None"),
        ({"vector": torch.zeros(2, 3)}, metadata(format="lora"), "no edit direction: its metadata says format 'lora'"),
        ({"vector": torch.zeros(2, 3)}, metadata(version="9"), "format version '9'; this release reads '1'. Update"),
        ({"vector": torch.zeros(2, 3)}, metadata(encoder=None), "lacks encoder"),
        ({"weight": torch.zeros(2, 3)}, metadata(source_sentences=None), "lacks source_sentences, vector"),
        ({"vector": torch.zeros(6)}, metadata(), r"vector has shape \(6,\); it must be \(tokens, width\)"),
        ({"vector": torch.full((2, 3), math.nan)}, metadata(), "cat -> dog holds NaN or Inf. Build it again"),
        ({"vector": torch.zeros(2, 3), "pooled": torch.zeros(1, 3)}, metadata(), r"pooled has shape \(1, 3\)"),
        ({"vector": torch.zeros(2, 3)}, metadata(encoder=""), "encoder is empty"),
        ({"vector": torch.zeros(2, 3)}, metadata(source_sentences="many"), "source_sentences is 'many'"),
    ],
)
def test_files_that_are_no_direction(tmp_path, tensors, fields, message):
    save_file(tensors, tmp_path / "x.safetensors", fields)
    with pytest.raises(ValueError, match=message):
        EditDirection.load(tmp_path / "x.safetensors")


def test_nan_from_the_encoder_is_refused():
    def broken(sentences):
        return encode(sentences)[0] * math.nan, None

    with pytest.raises(
        ValueError, match=r"cat -> dog holds NaN or Inf. Build it again, with the text encoder in float32"
    ):
        build(encode=broken)


# --- embeddings of the original project


class Payload:
    """What a malicious file would run when it is unpickled."""

    def __reduce__(self):
        return (os.mkdir, ("ran",))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_original_embeddings_become_a_direction(tmp_path, generator, dtype):
    cats, dog = torch.randn(3, LENGTH, WIDTH, generator=generator), torch.randn(LENGTH, WIDTH, generator=generator)
    cats, dog = cats.to(dtype), dog.to(dtype).requires_grad_()
    torch.save(cats, tmp_path / "cat.pt")
    torch.save(dog, tmp_path / "dog.pt")
    direction = EditDirection.from_embedding_files(tmp_path / "cat.pt", tmp_path / "dog.pt", encoder="clip-l")
    assert torch.allclose(direction.vector, dog.float() - cats.float().mean(0))
    assert direction.vector.dtype == torch.float32 and not direction.vector.requires_grad
    assert (direction.pooled, direction.name, direction.sentences) == (None, "cat -> dog", (0, 0))
    direction.save(tmp_path / "cat2dog.safetensors")
    assert EditDirection.load(tmp_path / "cat2dog.safetensors").sentences == (0, 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Payload(), "holds no tensor that can be read safely"),
        ({"cat": torch.zeros(2, 3)}, "holds a dict, not one tensor"),
        (torch.zeros(3), r"shape \(3,\)"),
        (torch.zeros(0, 2, 3), r"shape \(0, 2, 3\)"),
        (torch.zeros(2, 3, dtype=torch.int64), r"type torch\.int64; an embedding is floating point"),
        (torch.full((2, 3), math.nan), "holds NaN or Inf"),
        (torch.zeros(2, 4), r"cat\.pt holds \(2, 4\) and .*dog\.pt holds \(2, 3\)"),
    ],
)
def test_files_that_are_no_embedding(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    torch.save(content, "cat.pt")
    torch.save(torch.zeros(2, 3), "dog.pt")
    with pytest.raises(ValueError, match=message):
        EditDirection.from_embedding_files("cat.pt", "dog.pt", encoder="clip-l")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("length", [0, 10, 100, -30])
def test_truncated_embeddings(tmp_path, length):
    torch.save(torch.zeros(20, 30), tmp_path / "cat.pt")
    (tmp_path / "cat.pt").write_bytes((tmp_path / "cat.pt").read_bytes()[:length])
    with pytest.raises(ValueError, match=r"cat\.pt holds no tensor that can be read safely .* Download it again"):
        read_embedding(tmp_path / "cat.pt")


def test_a_missing_embedding(tmp_path):
    with pytest.raises(FileNotFoundError, match="no embedding at"):
        read_embedding(tmp_path / "cat.pt")
