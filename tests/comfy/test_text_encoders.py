"""Edit directions of the text encoders of flow models: T5 and language models, with templates, padding and masks.

Weights are random: shown is that directions go where the words are, not what a trained encoder makes of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

SERVED = (
    "SD3, CLIP",
    "SD3, CLIP and T5",
    "Flux",
    "Chroma",
    "AuraFlow",
    "Cosmos",
    "Wan",
    "Qwen-Image",
    "HunyuanImage",
    "OmniGen 2",
    "Z-Image",
    "Lumina 2",
)
UNPADDED = ("Chroma", "Qwen-Image", "HunyuanImage", "OmniGen 2", "Z-Image", "Lumina 2")
"""As many tokens as the text has."""

CAPTION = "a photo of a cat on the pavement"


@pytest.fixture(scope="session")
def encoder(pack: Any) -> Callable[[str], Any]:
    from tests.comfy.encoders import make_encoder

    return functools.cache(make_encoder)


def encoded(clip: Any, text: str) -> list[Any]:
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))


def build(pack: Any, clip: Any, source: str, target: str) -> Any:
    texts = (f"{article} {noun} here\nsee {article} {noun}" for article, noun in (source.split(), target.split()))
    return pack.nodes.EditDirection.execute(clip, "custom", *texts, 5, form="aligned to words").result[0]


def apply(pack: Any, clip: Any, direction: Any, text: str, strength: float = 1.0, *, told: bool = True) -> Any:
    caption = text if told else None
    return pack.nodes.ApplyEditDirection.execute(encoded(clip, text), direction, clip, strength, caption).result


def places(pack: Any, clip: Any, text: str, word: str) -> list[int]:
    tokens = pack.nodes.text_encoder.tokenize(clip, text, pack.nodes.text_encoder.readings(clip))
    return [token.position for token in tokens if token.text == f"{word} "]


@pytest.mark.parametrize("family", SERVED)
@torch.inference_mode()
def test_sentences_of_any_length_are_encoded_as_each_alone(pack: Any, encoder: Callable[[str], Any], family: str):
    clip, sentences = encoder(family), ["a cat", CAPTION, "dogs", ""]
    embeddings, _ = pack.nodes.text_encoder.encode(clip, sentences)
    assert isinstance(embeddings, Tensor) == (family not in UNPADDED)
    for embedding, sentence in zip(embeddings, sentences, strict=True):
        torch.testing.assert_close(embedding, encoded(clip, sentence)[0][0][0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", SERVED)
@torch.inference_mode()
def test_tokens_are_whole_words_at_their_places(pack: Any, encoder: Callable[[str], Any], family: str):
    """What one pair of sentences taught turns one into the other, so that every token is where it is taken to be."""
    clip, text_encoder = encoder(family), pack.nodes.text_encoder
    laid = text_encoder.readings(clip)
    tokens = functools.partial(text_encoder.tokenize, clip, laid=laid)
    assert "".join(token.text for token in tokens("a zebra, two cats")).split()[:5] == [
        "a",
        "zebra",
        ",",
        "two",
        "cats",
    ]
    direction = pack.pix2pix_zero_core.AlignedDirection.build(
        lambda texts: text_encoder.encode(clip, texts),
        tokens,
        [("cat", "dog")],
        source="cat",
        target="dog",
        encoder="this",
        readings=laid,
    )
    assert len(direction.edits) == len(laid) == 1 + (family == "SD3, CLIP and T5")
    before, after = (encoded(clip, text)[0][0] for text in ("cat", "dog"))
    shifted = pack.pix2pix_zero_core.apply_direction(direction, before, None, encoder="this", tokens=[tokens("cat")])
    assert shifted.remarks == () and shifted.embedding.shape == before.shape
    ends = [end for token in tokens("cat") for end in range(token.position, token.position + 2)]
    own = range(len(before[0])) if family in UNPADDED else ends
    assert not torch.allclose(before[0, own], after[0, own], atol=1e-2)
    torch.testing.assert_close(shifted.embedding[0, own], after[0, own], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", SERVED)
@torch.inference_mode()
def test_attention_maps_find_words_where_they_stand(pack: Any, encoder: Callable[[str], Any], family: str):
    """In the middle or in front, with an apostrophe or a capital, in every reading of the text."""
    clip, find = encoder(family), pack.nodes.visualization.word_places
    assert find(clip, CAPTION, ["cat"])["cat"] == places(pack, clip, CAPTION, "cat")
    text = "Cat, my cat in a man's hat"
    found = find(clip, text, [])
    assert list(found) == ["Cat", "my", "cat", "in", "a", "man's", "hat"]
    assert len(found["my"]) == len(pack.nodes.text_encoder.readings(clip))
    others = sorted(position for word in ("my", "in", "a", "man's", "hat") for position in found[word])
    assert len(others) == len(set(others)) and not set(found["cat"]) & set(others)
    with pytest.raises(ValueError, match="has no word 'hats'"):
        find(clip, text, ["hats"])


@pytest.mark.parametrize("family", SERVED)
@torch.inference_mode()
def test_a_word_that_has_another_number_of_tokens(
    pack: Any, encoder: Callable[[str], Any], family: str, tmp_path: Path
):
    clip = encoder(family)
    direction = build(pack, clip, "a cat", "a zebra")
    source = encoded(clip, CAPTION)[0][0]
    target, warning = apply(pack, clip, direction, CAPTION)
    count = source.shape[1]
    surplus = len(direction.edits[-1].exchanges[0].target.ids) - 1
    assert warning == "" and (surplus == 0) == (family == "SD3, CLIP")
    assert target[0][0].shape[1] == count + (surplus if family in UNPADDED else 0)
    at = places(pack, clip, CAPTION, "cat")
    assert len(at) == len(direction.readings)
    for position, edit in zip(at, direction.edits, strict=True):
        (exchange,) = edit.exchanges
        moved = (
            (target[0][0] - source)[0, position] if surplus == 0 else target[0][0][0, position] - source[0, position]
        )
        torch.testing.assert_close(moved, exchange.target.words[0] - exchange.source.words[0], rtol=1e-4, atol=1e-4)
    if family in UNPADDED:
        torch.testing.assert_close(target[0][0][0, count:], direction.edits[0].exchanges[0].target.words[1:])
    unchanged = apply(pack, clip, direction, CAPTION, 0.0)[0][0][0]
    assert torch.equal(unchanged, source)
    direction.save(tmp_path / "it.safetensors")
    loaded = pack.pix2pix_zero_core.load_direction(tmp_path / "it.safetensors")
    assert torch.equal(apply(pack, clip, loaded, CAPTION)[0][0][0], target[0][0])
    both = pack.nodes.CombineEditDirections.execute(direction, build(pack, clip, "a pavement", "a lawn"), 1.0, 1.0)
    assert apply(pack, clip, both.result[0], CAPTION)[1] == ""
    back, warning = apply(pack, clip, direction, "a photo of a zebra on the pavement", -1.0)
    assert warning == "" and back[0][0].shape[1] == len(encoded(clip, "a photo of a zebra on the pavement")[0][0][0])


# In four random layers the word depends more on what stands before it than on itself, and is not found again.
@pytest.mark.parametrize("family", [family for family in SERVED if family != "HunyuanImage"])
@torch.inference_mode()
def test_without_the_caption_the_word_is_looked_for(pack: Any, encoder: Callable[[str], Any], family: str):
    clip = encoder(family)
    direction, text = build(pack, clip, "a cat", "a dog"), "see a cat"
    exact, _ = apply(pack, clip, direction, text)
    found, warning = apply(pack, clip, direction, text, told=False)
    assert "with the caption it would be exact" in warning
    at = places(pack, clip, text, "cat")
    torch.testing.assert_close(found[0][0][0, at], exact[0][0][0, at])


@pytest.mark.parametrize("family", ["Flux", "Chroma", "Qwen-Image", "Lumina 2"])
@torch.inference_mode()
def test_a_word_in_front_or_with_a_capital_is_the_word(pack: Any, encoder: Callable[[str], Any], family: str):
    clip = encoder(family)
    direction = build(pack, clip, "a cat", "a dog")
    for caption in ("cat on a sofa", "Cat on a sofa", "my cat, asleep"):
        assert apply(pack, clip, direction, caption)[1] == "", caption
    assert apply(pack, clip, direction, "catalogue")[1] != ""


@pytest.mark.parametrize("family", ["Z-Image", "Cosmos"])
@torch.inference_mode()
def test_words_that_are_added_are_not_masked(pack: Any, encoder: Callable[[str], Any], family: str):
    clip = encoder(family)
    target, _ = apply(pack, clip, build(pack, clip, "a cat", "a zebra"), CAPTION)
    embedding, options = target[0]
    source = encoded(clip, CAPTION)[0][1]["attention_mask"]
    assert options["attention_mask"].shape[-1] == embedding.shape[1]
    seen = int(options["attention_mask"].sum()) - int(source.sum())
    assert seen == len(build(pack, clip, "a cat", "a zebra").edits[0].exchanges[0].target.ids) - 1


@torch.inference_mode()
def test_sd3s_second_chunk_of_clip_is_no_t5(pack: Any, encoder: Callable[[str], Any]):
    clip = encoder("SD3, CLIP and T5")
    direction = build(pack, clip, "a cat", "a dog")
    caption = " ".join(["a very long text"] * 20) + " of a cat"
    source = encoded(clip, caption)[0][0]
    assert source.shape[1] == 2 * 77 + len(clip.tokenize(caption)["t5xxl"][0])
    target, warning = apply(pack, clip, direction, caption)
    at = places(pack, clip, caption, "cat")
    assert warning == "" and 77 <= at[0] < 2 * 77 <= at[1]
    for position, edit in zip(at, direction.edits, strict=True):
        expected = edit.exchanges[0].target.words[0] - edit.exchanges[0].source.words[0]
        torch.testing.assert_close((target[0][0] - source)[0, position], expected, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_what_cannot_be_served_is_refused(pack: Any, encoder: Callable[[str], Any]):
    for form in ("aligned to words", "mean by position"):
        with pytest.raises(ValueError, match=r"several embeddings of one text, by t5xxl and llama.* CLIP Text Encode"):
            pack.nodes.EditDirection.execute(
                encoder("HiDream"), "custom", "a cat\nmy cat", "a dog\nmy dog", 5, form=form
            )
    with pytest.raises(
        ValueError, match=r"a mean by position needs all of one length.*choose the form 'aligned to words'"
    ):
        pack.nodes.EditDirection.execute(encoder("Z-Image"), "custom", "a cat\nmy old cat", "a dog\nmy old dog", 5)
