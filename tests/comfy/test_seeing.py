"""Heat maps of the attention, and pictures side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
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
    strip = in_process.nodes.seeing.CAPTION_HEIGHT
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
    edited, _, path = in_process.sample(inversion, guidance=0.0)
    assert path.trajectory.shape == inversion.trajectory.shape
    assert torch.equal(path.noise, inversion.noise)
    picture = in_process.model.model.process_latent_out(path.trajectory[-1])
    torch.testing.assert_close(picture, edited["samples"], rtol=1e-5, atol=1e-5)


def test_a_mask_is_the_mean_probability_of_its_word(in_process: Any, clip: Any, latent: dict[str, Tensor]):
    """By hand, on one layer of 2 x 3 queries and a picture of that size."""
    maps = {"layer": torch.rand(2, 6, 77, generator=torch.Generator().manual_seed(0))}
    places = in_process.nodes.seeing.word_places(clip, TEXT, ["cat"])
    heat = in_process.nodes.seeing._heat(maps, places, (2, 3))
    torch.testing.assert_close(heat[0], maps["layer"].mean(0)[:, places["cat"][0]].reshape(2, 3))


@pytest.mark.parametrize(
    ("words", "places"),
    [
        (["cat"], {"cat": [5]}),
        ([], {"a": [1, 4], "drawing": [2], "of": [3], "cat": [5]}),
        (["a cat"], {"a cat": [4, 5]}),
    ],
)
def test_places_of_words(in_process: Any, clip: Any, words: list[str], places: dict[str, list[int]]):
    assert in_process.nodes.seeing.word_places(clip, TEXT, words) == places


@pytest.mark.parametrize(
    ("queries", "size", "grid"), [(24, (64, 96), (4, 6)), (40, (64, 160), (4, 10)), (9, (40, 40), (3, 3))]
)
def test_the_grid_of_a_layer(in_process: Any, queries: int, size: tuple[int, int], grid: tuple[int, int]):
    assert in_process.nodes.seeing._grid(queries, size) == grid


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"words": "dog"}, "has no word 'dog'"),
        ({"text": " ", "words": ""}, "The text is empty"),
        ({"picture": 1}, "the inversion has 1, counted from 0"),
        ({"edited": "inversion"}, "edited and target belong together"),
    ],
)
def test_what_cannot_be_shown(
    in_process: Any, clip: Any, image: Tensor, latent: dict[str, Tensor], changed: dict[str, Any], message: str
):
    inversion = in_process.invert(steps=1, latent=latent)[0]
    changed = {name: inversion if value == "inversion" else value for name, value in changed.items()}
    with pytest.raises(ValueError, match=message):
        show(in_process, inversion, clip, image, **changed)


@pytest.mark.parametrize("titles", [True, False])
def test_pictures_side_by_side(in_process: Any, titles: bool):
    source, edited = torch.zeros(1, 16, 24, 3), torch.full((2, 32, 48, 3), 0.5)
    compare = in_process.nodes.Compare.execute
    (row,) = compare(source, edited, titles=titles).result
    top = in_process.nodes.seeing.CAPTION_HEIGHT if titles else 0
    assert row.shape == (2, top + 16, 48, 3)
    assert float(row[:, top:, :24].max()) == 0
    torch.testing.assert_close(row[:, top:, 24:], torch.full((2, 16, 24, 3), 0.5), atol=0.01, rtol=0)
    (three,) = compare(source, edited, torch.ones(1, 16, 24, 3), titles).result
    torch.testing.assert_close(three[:, top:, 24:48], torch.ones(2, 16, 24, 3), atol=0.01, rtol=0)


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
