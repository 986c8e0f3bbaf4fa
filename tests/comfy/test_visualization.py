"""Heat maps of the attention, and pictures side by side."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from launcher.server import Server

EditGraph = Callable[..., Any]
pytestmark = pytest.mark.parametrize("in_process", ["random_zoo.safetensors"], indirect=True, ids=["fp32"])
TEXT = "a drawing of a cat"


@pytest.fixture
def clip(load_checkpoint: Callable[[str], Any]) -> Any:
    return load_checkpoint("random_zoo.safetensors")[1]


@pytest.fixture
def image() -> Tensor:
    return torch.rand(1, 64, 96, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def latent() -> dict[str, Tensor]:
    return {"samples": torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(1))}


def show(in_process: Any, inversion: Any, clip: Any, image: Tensor, **changed: Any) -> tuple[Tensor, ...]:
    inputs = {
        "model": in_process.model,
        "inversion": inversion,
        "source": in_process.source,
        "clip": clip,
        "image": image,
        "text": TEXT,
        "words": "cat, drawing",
        "moments": 3,
        "picture": 0,
    }
    with torch.inference_mode():
        return in_process.nodes.AttentionMaps.execute(**inputs | changed).result


def test_sheets_of_words_and_moments(in_process: Any, clip: Any, image: Tensor, latent: dict[str, Tensor]):
    inversion = in_process.invert(steps=3, latent=latent)[0]
    path = in_process.sample(inversion)[2]
    strip = in_process.nodes.visualization.CAPTION_HEIGHT
    sheets, mask, again = show(in_process, inversion, clip, image)
    assert sheets.shape == (2, strip + 64, 3 * 96, 3)
    assert torch.equal(mask, again)
    both, mask, edited = show(in_process, inversion, clip, image, edited=path, target=in_process.target)
    assert both.shape == (2, strip + 2 * 64, 3 * 96, 3)
    assert mask.shape == edited.shape == (2, 64, 96)
    for values in (both, mask, edited):
        assert values.min() >= 0 and values.max() <= 1
    assert not torch.equal(mask, edited)
    assert not torch.equal(mask[0], mask[1])


def test_the_path_of_an_edit_starts_at_its_noise_and_ends_at_its_picture(in_process: Any):
    inversion = in_process.invert(steps=3)[0]
    edited, _, path, _ = in_process.sample(inversion, guidance=0.0)
    assert path.trajectory.shape == inversion.trajectory.shape
    assert torch.equal(path.noise, inversion.noise)
    picture = in_process.model.model.process_latent_out(path.trajectory[-1])
    torch.testing.assert_close(picture, edited["samples"], rtol=1e-5, atol=1e-5)


def test_a_mask_is_the_mean_probability_of_its_word(in_process: Any, clip: Any):
    """By hand: a layer of 2 x 3 queries and one of which a patch has shown two pieces, of 2 x 1 and 2 x 2."""
    attention, visualization = in_process.nodes.attention, in_process.nodes.visualization
    whole, left, right = (attention.Place(0, *place) for place in ((0, 2, 3), (0, 2, 1), (1, 2, 2)))
    pieces = {("first", whole): (2, 3), ("second", left): (2, 1), ("second", right): (2, 2)}
    generator = torch.Generator().manual_seed(0)
    maps = {
        attention.MapKey(layer, (None, 0), 0, place, grid): torch.rand(grid[0] * grid[1], 77, generator=generator)
        for (layer, place), grid in pieces.items()
    }
    others = {key._replace(copy=1): torch.zeros_like(m) for key, m in maps.items()}
    places = visualization.word_places(clip, TEXT, ["cat"])
    heat = visualization._heat(maps | others, places, (2, 3), (2, 3))
    one, *halves = (m[:, places["cat"][0]].reshape(key.grid) for key, m in maps.items())
    torch.testing.assert_close(heat[0], (one + torch.cat(halves, 1)) / 2)


def test_a_target_that_is_too_short_for_the_words_is_named(in_process: Any):
    visualization = in_process.nodes.visualization
    maps = {"layer": torch.ones(1, 4, 6)}
    visualization.require_places({"cat": [5]}, maps, "target")
    for name, remedy in (("source", "Enter the text from which"), ("target", "that Apply Edit Direction made")):
        with pytest.raises(ValueError, match=f"'sofa' is token 6 of text, but the {name} has only 6. .*{remedy}"):
            visualization.require_places({"cat": [2], "sofa": [6]}, maps, name)


def test_the_grid_is_the_latent_s(in_process: Any, clip: Any, latent: dict[str, Tensor]):
    """A picture of another form is told of, and its maps are those of the right picture, stretched."""
    inversion = in_process.invert(steps=1, latent=latent)[0]
    generator = torch.Generator().manual_seed(0)
    right, wide = (torch.rand(1, 64, width, 3, generator=generator) for width in (96, 192))
    masks = [show(in_process, inversion, clip, image)[1] for image in (right, wide)]
    torch.testing.assert_close(masks[1][..., ::2], masks[0], atol=0.1, rtol=0)
    warning = in_process.nodes.visualization.form_warning
    assert not warning((64, 96), (8, 12)) and not warning((67, 99), (8, 12))
    assert "192 x 64, the inverted latent 12 x 8" in warning((64, 192), (8, 12))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a man's hat, it's red.", ["a", "man's", "hat", "it's", "red"]),
        ("a (cat:1.3) on ((a sofa)) \\(left\\)", ["a", "cat", "on", "sofa", "left"]),
        ("embedding:mycat, a cat", ["a", "cat"]),
        ("\u732b \u043a\u043e\u0442", ["\u732b", "\u043a\u043e\u0442"]),
        (" ,. ", []),
    ],
)
def test_words_of_a_text(in_process: Any, text: str, words: list[str]):
    assert in_process.nodes.visualization.words_of(text) == words


@pytest.mark.parametrize(
    "text", ["a man's hat, it's red", "a (cat:1.3) on a sofa", "embedding:mycat, a \u043a\u043e\u0442"]
)
def test_words_are_found_by_stable_diffusion_s_tokenizer(in_process: Any, tmp_path: Path, text: str):
    """Apostrophes, weights, an embedding of two tokens, and a script that is tokenized by bytes."""
    from tests.comfy.encoders import make_encoder

    clip = make_encoder("SD1")
    clip.tokenizer = type(clip.tokenizer)(embedding_directory=str(tmp_path))
    safetensors.torch.save_file({"emb_params": torch.zeros(2, 768)}, tmp_path / "mycat.safetensors")
    places = in_process.nodes.visualization.word_places(clip, text, [])
    assert list(places) == in_process.nodes.visualization.words_of(text)
    found = sorted(position for positions in places.values() for position in positions)
    assert len(found) == len(set(found)) and found[0] == (4 if "embedding" in text else 1)


@pytest.mark.parametrize(
    ("words", "places"),
    [
        (["cat"], {"cat": [5]}),
        ([], {"a": [1, 4], "drawing": [2], "of": [3], "cat": [5]}),
        (["a cat"], {"a cat": [4, 5]}),
    ],
)
def test_places_of_words(in_process: Any, clip: Any, words: list[str], places: dict[str, list[int]]):
    assert in_process.nodes.visualization.word_places(clip, TEXT, words) == places


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"words": "dog"}, "has no word 'dog'"),
        ({"text": " ", "words": ""}, "The text is empty"),
        ({"picture": 1}, "the inversion has 1, counted from 0"),
        ({"edited": "inversion"}, "edited and target belong together"),
        ({"image": torch.zeros(2, 64, 96, 3)}, "image has 2 pictures, the inversion has 1. .* batch_size 1"),
    ],
)
def test_what_cannot_be_shown(
    in_process: Any, clip: Any, image: Tensor, latent: dict[str, Tensor], changed: dict[str, Any], message: str
):
    inversion = in_process.invert(steps=1, latent=latent)[0]
    changed = {name: inversion if value == "inversion" else value for name, value in changed.items()}
    with pytest.raises(ValueError, match=message):
        show(in_process, inversion, clip, **{"image": image} | changed)


@pytest.mark.parametrize("titles", [True, False])
def test_pictures_side_by_side(in_process: Any, titles: bool):
    source, edited = torch.zeros(1, 16, 24, 3), torch.full((2, 32, 48, 3), 0.5)
    compare = in_process.nodes.Compare.execute
    (row,) = compare(source, edited, titles=titles).result
    top = in_process.nodes.visualization.CAPTION_HEIGHT if titles else 0
    assert row.shape == (2, top + 16, 48, 3)
    assert float(row[:, top:, :24].max()) == 0
    torch.testing.assert_close(row[:, top:, 24:], torch.full((2, 16, 24, 3), 0.5), atol=0.01, rtol=0)
    (three,) = compare(source, edited, torch.ones(1, 16, 24, 3), titles).result
    torch.testing.assert_close(three[:, top:, 24:48], torch.ones(2, 16, 24, 3), atol=0.01, rtol=0)


@pytest.mark.parametrize("counts", [{"source": 2}, {"source": 3, "edited": 2}, {"reconstruction": 2}])
def test_pictures_that_cannot_be_paired(in_process: Any, counts: dict[str, int]):
    """As a batch of pictures whose edits are a list, since each has a caption of its own."""
    pictures = {name: torch.zeros(counts.get(name, 1), 8, 8, 3) for name in ("source", "edited", "reconstruction")}
    with pytest.raises(ValueError, match=r"has \d pictures, edited has \d.* Rebatch Images with batch_size 1"):
        in_process.nodes.Compare.execute(**pictures)


def test_in_a_graph(server: Server, edit_graph: EditGraph, in_process: Any):
    graph = edit_graph()
    maps = graph.add(
        "Pix2PixZeroAttentionMaps",
        model=[graph.checkpoint, 0],
        inversion=[graph.inversion, 0],
        source=[graph.source, 0],
        clip=[graph.checkpoint, 1],
        image=[graph.scaled, 0],
        text=TEXT,
        words="",
        moments=2,
        picture=0,
        edited=[graph.sampler, 2],
        target=[graph.target, 0],
    )
    decoded = graph.add("VAEDecode", samples=[graph.sampler, 0], vae=[graph.checkpoint, 2])
    compare = graph.add("Pix2PixZeroCompare", source=[graph.scaled, 0], edited=[decoded, 0], titles=True)
    saved = [graph.add("PreviewImage", images=[node, 0]) for node in (maps, compare)]
    masks = graph.add("PreviewImage", images=[graph.add("MaskToImage", mask=[maps, 1]), 0])
    outputs = server.run(graph.workflow)
    assert [len(outputs[node]["images"]) for node in (*saved, masks)] == [4, 1, 4]  # a, drawing, of, cat
