"""BLIP captions, with a tiny model of random weights and a tokenizer of words."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import BlipConfig, BlipForConditionalGeneration

from pix2pix_zero_core.integrations.captioner import Captioner, ImagePreprocessing

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["a", "photo", "painting", "of", "the", "in", "on", "with", "cat", "dog", "horse", "sofa", "meadow", "beach"]
VOCABULARY = SPECIAL + WORDS
SIZE = 32
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def make_folder(folder: Path) -> Path:
    tower = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2)
    tower |= dict(initializer_range=0.5)  # wide enough for captions to depend on the picture
    config = BlipConfig(
        text_config=tower
        | dict(vocab_size=len(VOCABULARY), encoder_hidden_size=32, max_position_embeddings=24)
        | dict(bos_token_id=2, eos_token_id=3, sep_token_id=3, pad_token_id=0),
        vision_config=tower | dict(image_size=SIZE, patch_size=8),
    )
    torch.manual_seed(0)
    BlipForConditionalGeneration(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY), encoding="utf-8")
    preprocessing = {"size": {"height": SIZE, "width": SIZE}, "image_mean": MEAN, "image_std": STD}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def blip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("blip"))


@pytest.fixture
def own_folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path)


@pytest.fixture(scope="module")
def captioner(blip_folder: Path) -> Captioner:
    return Captioner.from_folder(blip_folder)


@pytest.fixture(scope="module")
def images() -> Tensor:
    coarse = torch.rand(3, 3, 5, 4, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.interpolate(coarse, (60, 44), mode="bilinear").movedim(1, -1)


@pytest.mark.parametrize("beams", [1, 3])
def test_captions_are_words_and_repeatable(captioner: Captioner, images: Tensor, beams: int) -> None:
    captions = captioner(images, beams=beams, max_tokens=8)
    assert len(captions) == len(images)
    assert all(word in WORDS for caption in captions for word in caption.split())
    assert len(set(captions)) > 1, "the captions must depend on the picture for the other tests to mean anything"
    assert captioner(images, beams=beams, max_tokens=8) == captions


@pytest.mark.parametrize("beams", [1, 3])
def test_batch_equals_singles(captioner: Captioner, images: Tensor, beams: int) -> None:
    singles = [captioner(image[None], beams=beams, max_tokens=8)[0] for image in images]
    assert captioner(images, beams=beams, max_tokens=8) == singles


def test_prefix_starts_every_caption_and_limit_counts_what_follows(captioner: Captioner, images: Tensor) -> None:
    captions = captioner(images, prefix="A photo of", max_tokens=2, beams=1)
    for caption in captions:
        assert caption.startswith("a photo of")
        assert 3 <= len(caption.split()) <= 5


def test_empty_prefix_equals_the_models_own_start(captioner: Captioner, images: Tensor, blip_folder: Path) -> None:
    preprocess = ImagePreprocessing.from_folder(blip_folder)
    tokens = captioner.model.generate(preprocess(images), max_new_tokens=8, num_beams=1, do_sample=False)
    expected = [" ".join(VOCABULARY[token] for token in row if token >= len(SPECIAL)) for row in tokens.tolist()]
    assert captioner(images, max_tokens=8, beams=1) == expected


def test_longest_caption_fits_the_models_positions(captioner: Captioner, images: Tensor) -> None:
    captioner(images, prefix="a photo of", max_tokens=20, beams=1)
    with pytest.raises(ValueError, match=r"max_tokens is 21.*1\.\.20"):
        captioner(images, prefix="a photo of", max_tokens=21, beams=1)


def test_half_precision_and_inference_mode(blip_folder: Path, images: Tensor) -> None:
    with torch.inference_mode():
        captioner = Captioner.from_folder(blip_folder, dtype=torch.bfloat16)
        assert {parameter.dtype for parameter in captioner.model.parameters()} == {torch.bfloat16}
        assert len(captioner(images, max_tokens=4)) == 3


def test_inputs_follow_a_model_that_was_moved(blip_folder: Path, images: Tensor) -> None:
    captioner = Captioner.from_folder(blip_folder)
    captioner.model.to(torch.float64)
    assert len(captioner(images, max_tokens=4)) == 3


def test_preprocessing_equals_pillow(blip_folder: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    resized = Image.fromarray(pixels).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    expected = (np.asarray(resized, dtype=np.float32) / 255 - MEAN) / STD
    actual = ImagePreprocessing.from_folder(blip_folder)(torch.from_numpy(pixels)[None] / 255)
    assert actual.shape == (1, 3, SIZE, SIZE)
    # Pillow rounds to whole levels after each of its two passes.
    assert np.abs(actual[0].movedim(0, -1).numpy() - expected).max() < 1.1 / 255 / min(STD)


@pytest.mark.parametrize("size", [384, {"height": 384, "width": 384}])
def test_preprocessing_reads_both_generations_of_files(tmp_path: Path, size: object) -> None:
    settings = {"size": size, "image_mean": MEAN, "image_std": STD}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
    old = ImagePreprocessing.from_folder(tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": settings}), encoding="utf-8")
    assert ImagePreprocessing.from_folder(tmp_path) == old == ImagePreprocessing(384, MEAN, STD)


def test_no_connection_is_opened(blip_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError(f"the network was used: {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    Captioner.from_folder(blip_folder)


def test_missing_folder_says_what_to_put_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere.*config\.json.*model\.safetensors.*tokenizer\.json"):
        Captioner.from_folder(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "preprocessor_config.json", "vocab.txt"])
def test_missing_file_is_named(own_folder: Path, name: str) -> None:
    (own_folder / name).unlink()
    with pytest.raises(FileNotFoundError) as caught:
        Captioner.from_folder(own_folder)
    assert str(own_folder) in str(caught.value)
    assert name in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "preprocessor_config.json"])
def test_corrupt_file_is_refused(own_folder: Path, name: str) -> None:
    content = (own_folder / name).read_bytes()
    (own_folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=re.escape(str(own_folder))):
        Captioner.from_folder(own_folder)


@pytest.mark.parametrize("content", ["", "{", "{}"])
def test_corrupt_tokenizer_is_refused(own_folder: Path, content: str) -> None:
    (own_folder / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match=rf"{re.escape(str(own_folder))} cannot be read"):
        Captioner.from_folder(own_folder)


def test_corrupt_pickled_weights_are_refused(own_folder: Path) -> None:
    (own_folder / "model.safetensors").unlink()
    (own_folder / "pytorch_model.bin").write_bytes(b"corrupt")
    with pytest.raises(ValueError, match=rf"{re.escape(str(own_folder))} cannot be read"):
        Captioner.from_folder(own_folder)


def test_weights_of_part_of_the_model_are_refused(own_folder: Path) -> None:
    captioner = Captioner.from_folder(own_folder)
    captioner.model.vision_model.save_pretrained(own_folder / "part")
    (own_folder / "part" / "model.safetensors").replace(own_folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"lack \d+ tensors"):
        Captioner.from_folder(own_folder)


def test_another_kind_of_model_is_refused(own_folder: Path) -> None:
    config = json.loads((own_folder / "config.json").read_text())
    (own_folder / "config.json").write_text(json.dumps(config | {"model_type": "clip"}))
    with pytest.raises(ValueError, match="'clip', not 'blip'"):
        Captioner.from_folder(own_folder)


@pytest.mark.parametrize("architecture", ["BlipForQuestionAnswering", "BlipForImageTextRetrieval", "BlipModel"])
def test_a_blip_for_another_task_is_refused(own_folder: Path, architecture: str) -> None:
    """One for questions has all weights of a captioner, and would write nonsense."""
    config = json.loads((own_folder / "config.json").read_text())
    (own_folder / "config.json").write_text(json.dumps(config | {"architectures": [architecture]}))
    with pytest.raises(ValueError, match=rf"{architecture}.*for another task than captions"):
        Captioner.from_folder(own_folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": {"height": 64, "width": 64}, "image_mean": MEAN, "image_std": STD}, "resized to 64 pixels"),
        ({"size": {"height": 64, "width": 32}, "image_mean": MEAN, "image_std": STD}, "64x32"),
        ({"size": {"shortest_edge": 64}, "image_mean": MEAN, "image_std": STD}, "needs size"),
        ({"size": 32, "image_mean": MEAN[:2], "image_std": STD}, "3 numbers"),
        ([], "JSON object"),
    ],
)
def test_preprocessing_that_does_not_fit_is_refused(own_folder: Path, settings: object, message: str) -> None:
    (own_folder / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        Captioner.from_folder(own_folder)


def test_tokenizer_of_another_model_is_refused(own_folder: Path) -> None:
    (own_folder / "vocab.txt").write_text("\n".join([*VOCABULARY, "unicorn"]), encoding="utf-8")
    with pytest.raises(ValueError, match="tokenizer has 20 words"):
        Captioner.from_folder(own_folder)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 8, 8, 4), "3 channels"),
        ((8, 8, 3), r"are \(batch, height, width, 3 channels\)"),
        ((0, 8, 8, 3), "not empty"),
        ((1, 3, 8, 8), r"are \(batch, height, width, 3 channels\)"),
    ],
)
def test_wrong_shapes_are_refused(captioner: Captioner, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        captioner(torch.zeros(shape))


def test_wrong_values_are_refused(captioner: Captioner, images: Tensor) -> None:
    with pytest.raises(TypeError, match=r"torch\.uint8"):
        captioner((images * 255).to(torch.uint8))
    with pytest.raises(ValueError, match="NaN"):
        captioner(images * float("nan"))
    with pytest.raises(
        ValueError, match=r"images: values from .* to .*; they must be from 0 to 1\. Divide pictures of 8"
    ):
        captioner(images * 255)
    with pytest.raises(ValueError, match="beams is 0"):
        captioner(images, beams=0)
    with pytest.raises(ValueError, match="max_tokens is 0"):
        captioner(images, max_tokens=0)
    with pytest.raises(ValueError, match="'a unicorn' has words"):
        captioner(images, prefix="a unicorn")
    with pytest.raises(ValueError, match=r"leaves no room for a caption: it has \d+ tokens too many\. Shorten prefix"):
        captioner(images, prefix="a photo of " * 100)


# --- Likelihoods of given captions


def test_likelihoods_are_the_models_loss(captioner: Captioner, images: Tensor, blip_folder: Path) -> None:
    (read,) = captioner.likelihoods(images[:1], [["a cat on the sofa"]])[0]
    assert [VOCABULARY[i] for i in read.ids] == ["a", "cat", "on", "the", "sofa", "[SEP]"]
    pixels = ImagePreprocessing.from_folder(blip_folder)(images[:1])
    ids = torch.tensor([[2, *read.ids]])
    with torch.no_grad():
        logits = captioner.model(pixel_values=pixels, input_ids=ids).logits[0, :-1]
    expected = -torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")
    assert torch.allclose(read.log_p, expected, atol=1e-5)


def test_likelihoods_of_a_batch_equal_those_of_each_alone(captioner: Captioner, images: Tensor) -> None:
    captions = [["a cat"], ["a dog on the sofa in a painting", "a horse"], ["a photo of a cat"]]
    together = captioner.likelihoods(images, captions)
    for image, texts, read in zip(images, captions, together, strict=True):
        for text, one in zip(texts, read, strict=True):
            ((alone,),) = captioner.likelihoods(image[None], [[text]])
            assert alone.ids == one.ids and torch.allclose(alone.log_p, one.log_p, atol=1e-5)


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        ([["a cat"]], "There are 3 pictures, and captions for 1"),
        ([["a cat"], [], ["a cat"]], "give each picture at least one"),
        ([["a cat"], ["a teapot"], ["a cat"]], r"'a teapot' has words that .* does not know \(it reads a \[UNK\]\)"),
        ([["a cat"], ["a cat " * 12], ["a cat"]], r"has 26 tokens; this BLIP has room for 24"),
    ],
)
def test_captions_that_cannot_be_read_are_refused(
    captioner: Captioner, images: Tensor, captions: list[list[str]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        captioner.likelihoods(images, captions)
