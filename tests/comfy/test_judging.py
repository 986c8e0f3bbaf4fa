"""Judge Edit and Edit Until It Shows: by Tiny Zoo's captioner on drawn pictures, and by judges that are made up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from launcher.runtime import EXAMPLES
from launcher.server import Server

EditGraph = Callable[..., Any]
pytestmark = pytest.mark.parametrize("in_process", ["random_zoo.safetensors"], indirect=True, ids=["fp32"])


def example(*names: str) -> Tensor:
    """Example pictures, (B, 128, 128, 3)."""
    pictures = [np.asarray(Image.open(EXAMPLES / f"{name}.png").convert("RGB")) for name in names]
    return torch.from_numpy(np.stack(pictures)).float() / 255


# --- Judge Edit


@pytest.fixture
def judge(pack: Any) -> Callable[..., Any]:
    def execute(*pictures: str, **changed: Any) -> Any:
        inputs = {"image": example(*pictures), "caption": "a brown cat", "model": "tiny_zoo", "target": "a brown dog"}
        with torch.inference_mode():
            return pack.nodes.JudgeEdit.execute(**inputs | changed)

    return execute


def test_a_batch_is_judged_picture_by_picture(judge: Callable[..., Any], in_process: Any):
    output = judge("dog", "cat")
    (yes, no), shows, words, warnings = output.result
    assert yes > 0 > no and shows == [True, False]
    assert words == [f"dog: clearly ({yes:.1f})", f"dog: no ({no:.1f})"]
    assert warnings[0] == "" and warnings[1].startswith(f"The edit does not show: {words[1]}. Raise ")
    assert judge("dog").result[0][0] == pytest.approx(yes, abs=1e-3)
    assert output.ui["text"] == [f"1: {words[0]}\n2: {words[1]}\n2: {warnings[1]}"]
    assert output.ui["pix2pix_zero_warning"] == [f"2: {warnings[1]}"]


def test_a_direction_brings_its_words_and_every_picture_may_have_a_caption(
    judge: Callable[..., Any], pack: Any, in_process: Any
):
    direction = pack.pix2pix_zero_core.EditDirection(torch.ones(2, 2), None, "cat", "dog", "encoder", (1, 1))
    by_words = judge("dog").result[0]
    assert judge("dog", direction=direction, target="").result[0] == by_words
    two = judge("dog", "dog", direction=direction, target="", caption="a brown cat\na brown cat in a room").result[0]
    assert two[0] == pytest.approx(by_words[0], abs=1e-3) and len(two) == 2


def test_an_edit_backwards_is_judged_backwards(judge: Callable[..., Any], pack: Any, in_process: Any):
    direction = pack.pix2pix_zero_core.EditDirection(torch.ones(2, 2), None, "cat", "dog", "encoder", (1, 1))
    back = {
        "direction": direction,
        "target": "",
        "caption": "a brown dog",
        "original": example("dog"),
        "strength": -1.25,
    }
    yes, no = (judge(shown, **back) for shown in ("cat", "dog"))
    assert yes.result[1] == [True] and yes.result[3] == [""]
    assert no.result[1] == [False] and "The edit does not show: cat: no" in no.result[3][0]
    with pytest.raises(ValueError, match="strength is -1, but no direction is connected"):
        judge("cat", strength=-1.0)


def test_one_original_of_many_is_read_once(judge: Callable[..., Any], pack: Any, in_process: Any, monkeypatch: Any):
    read: list[int] = []
    warn = pack.nodes.judge.warn_originals
    monkeypatch.setattr(
        pack.nodes.judge,
        "warn_originals",
        lambda captioner, shown, asked: read.append(len(shown)) or warn(captioner, shown, asked),
    )
    assert judge("cat", "dog", original=example("dog")).result[3][0].startswith("The picture shows 'dog' already")
    judge("cat", "dog", original=example("cat"), caption="a brown cat\na cat")
    judge("cat", "dog", original=example("cat", "cat"))
    assert read == [1, 2, 2]


def test_the_original_tells_whether_the_edit_fits_it(judge: Callable[..., Any], in_process: Any):
    assert judge("dog", original=example("cat")).result[3] == [""]
    (there,) = judge("dog", original=example("dog")).result[3]
    assert there.startswith("The picture shows 'dog' already (")
    (other,) = judge("dog", original=example("horse")).result[3]
    assert other.startswith("The captioner sees no 'cat' in the picture, where this edit starts, but: ")


def test_an_alpha_channel_is_left_out(judge: Callable[..., Any], in_process: Any):
    """As BLIP Caption, VAE Encode and Compare Edits do."""
    dog, cat = (torch.cat([example(name), torch.rand(1, 128, 128, 1)], -1) for name in ("dog", "cat"))
    assert judge("dog", image=dog, original=cat).result == judge("dog", original=example("cat")).result


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"target": ""}, "needs the edit once: connect a direction"),
        ({"caption": " "}, "empty caption; write what the original shows"),
        ({"caption": "a cat\na cat\na cat"}, "caption has 3 lines for 1 pictures"),
        ({"target": "a teapot"}, "'a teapot' has words that this BLIP's tokenizer does not know"),
        ({"target": "a brown cat"}, "Give a source and a target caption that differ"),
        ({"model": "none such"}, "There is no BLIP model 'none such'"),
        ({"original": torch.zeros(2, 8, 8, 3)}, "original has 2 pictures, image has 1"),
        ({"image": torch.zeros(1, 8, 8, 2)}, "image: shape"),
    ],
)
def test_what_cannot_be_judged_is_named(
    judge: Callable[..., Any], in_process: Any, changed: dict[str, Any], message: str
):
    with pytest.raises(ValueError, match=message):
        judge("dog", **changed)


# --- Edit Until It Shows


class Toy:
    """The node on the random zoo, with a judge that sees an edit from a strength on, a list for the pictures."""

    def __init__(self, pack: Any, in_process: Any, clip: Any, vae: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pack, self.in_process, self.clip, self.vae = pack, in_process, clip, vae
        self.strengths: list[float] = []
        self.needed: list[float] = []
        self.left: list[int] = []
        shift = pack.nodes.until.shift_conditioning

        def watched(source: Any, direction: Any, clip: Any, strength: float, caption: str) -> Any:
            self.strengths.append(strength)
            return shift(source, direction, clip, strength, caption)

        def judged(captioner: Any, images: Tensor, asked: Sequence[Any]) -> list[float]:
            left = [want for want in self.needed if not any(want <= past for past in self.strengths[:-1])]
            self.left.append(len(images))
            assert len(images) == len(left) == len(asked)
            return [1.0 if self.strengths[-1] >= want else -1.0 for want in left]

        monkeypatch.setattr(pack.nodes.until, "shift_conditioning", watched)
        monkeypatch.setattr(pack.nodes.until, "judge_pictures", judged)
        monkeypatch.setattr(pack.nodes.until, "warn_originals", lambda captioner, images, asked: [""] * len(images))
        with torch.inference_mode():
            self.direction = pack.nodes.EditDirection.execute(
                clip, "custom", "a cat\na drawing of a cat", "a dog\na drawing of a dog", 2, form="aligned to words"
            ).result[0]

    def run(self, inversion: Any, *needed: float, **changed: Any) -> tuple[Any, ...]:
        self.needed, self.strengths, self.left = list(needed), [], []
        inputs = {"model": self.in_process.model, "inversion": inversion, "direction": self.direction}
        inputs |= {"source": self.in_process.source, "negative": self.in_process.source, "clip": self.clip}
        inputs |= {"vae": self.vae, "caption": "a drawing of a cat", "blip": "tiny_zoo", "strengths": "0.5, 1, 2"}
        settings = {"cfg": 5.0, "guidance": 0.1, "unit": "normalized", "guidance_start": 0.0, "guidance_end": 1.0}
        with torch.inference_mode():
            return self.pack.nodes.EditUntilItShows.execute(**inputs | settings | changed).result


@pytest.fixture
def toy(pack: Any, in_process: Any, load_checkpoint: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> Toy:
    _, clip, vae = load_checkpoint("random_zoo.safetensors")
    return Toy(pack, in_process, clip, vae, monkeypatch)


def batch(in_process: Any, count: int) -> Any:
    samples = 3 * torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    return in_process.invert(steps=2, latent={"samples": samples})[0]


def test_every_picture_stops_at_its_own_strength_and_is_edited_as_by_the_sampler(toy: Toy, in_process: Any):
    inversion = batch(in_process, 3)
    edited, images, strengths, scores, words, warning = toy.run(inversion, 0.9, 0.1, 1.5)
    assert toy.left == [3, 2, 1] and toy.strengths == [0.5, 1, 2]
    assert strengths == [1, 0.5, 2] and scores == [1.0, 1.0, 1.0]
    assert words.splitlines() == [
        f"{i}: strength {strength:g}, dog: just about (1.0)" for i, strength in enumerate(strengths, start=1)
    ]
    assert warning.startswith("negative_from is inversion") and len(warning.splitlines()) == 1
    assert images.shape == (3, 64, 64, 3)
    for i, strength in enumerate(strengths):
        with torch.inference_mode():
            target = toy.pack.nodes.ApplyEditDirection.execute(
                in_process.source, toy.direction, toy.clip, strength, "a drawing of a cat"
            ).result[0]
        expected = in_process.sample(inversion.of([i]), target=target)[0]["samples"]
        found = edited["samples"][i : i + 1]
        assert (found - expected).norm() < 1e-3 * expected.norm()
        assert torch.allclose(images[i], toy.vae.decode(found)[0], atol=1e-4)


def test_an_edit_that_never_shows_is_the_strongest_and_a_warning(toy: Toy, in_process: Any):
    _, _, strengths, scores, words, warning = toy.run(batch(in_process, 1), 9, strengths="0.5, 1")
    assert strengths == [1] and scores == [-1.0]
    assert words == "strength 1, dog: not quite (-1.0)"
    assert warning.startswith("The edit does not show: dog: not quite (-1.0).")


def test_texts_of_each_picture_go_with_it(toy: Toy, in_process: Any):
    with torch.inference_mode():
        (embedding, options), *_ = in_process.source
        both = [[torch.cat([embedding, 2 * embedding]), options]]
    inversion = batch(in_process, 2)
    together = toy.run(inversion, 0.9, 0.1, source=both)[0]["samples"]
    alone = toy.run(inversion.of([0]), 0.9, source=[[embedding, options]])[0]["samples"]
    assert (together[:1] - alone).norm() < 1e-3 * alone.norm()


@pytest.mark.parametrize("strengths", ["", "1, 0.5", "one", "0, 1"])
def test_strengths_that_cannot_be_tried_are_refused(toy: Toy, in_process: Any, strengths: str):
    with pytest.raises(ValueError, match=r"strengths"):
        toy.run(batch(in_process, 1), 1, strengths=strengths)


def test_inputs_that_the_sampler_gains_come_last(pack: Any, in_process: Any):
    names = [given.id for given in pack.nodes.EditUntilItShows.define_schema().inputs]
    sampler = [given.id for given in pack.nodes.CrossAttnGuidedSampler.define_schema().inputs]
    own = ["direction", "clip", "vae", "caption", "blip", "strengths"]
    assert names == [*sampler[:3], *own, *(name for name in sampler[3:] if name != "target")]


# --- In a server


def test_both_nodes_in_a_graph(server: Server, edit_graph: EditGraph, in_process: Any):
    graph = edit_graph(steps=2)
    settings = graph.workflow[graph.sampler]["inputs"]
    shared = {name: value for name, value in settings.items() if name != "target"}
    until = graph.add(
        "Pix2PixZeroEditUntilItShows",
        **shared,
        direction=[graph.direction, 0],
        clip=[graph.checkpoint, 1],
        vae=[graph.checkpoint, 2],
        caption="a drawing of a cat",
        blip="tiny_zoo",
        strengths="0.5, 1",
    )
    judge = graph.add(
        "Pix2PixZeroJudgeEdit",
        image=[until, 1],
        caption="a drawing of a cat",
        model="tiny_zoo",
        direction=[graph.direction, 0],
        original=[graph.scaled, 0],
    )
    shown = {name: graph.add("PreviewAny", source=[node, slot]) for name, node, slot in looked_at(until, judge)}
    outputs = server.run(graph.workflow)
    said = {name: outputs[node]["text"][0] for name, node in shown.items()}
    assert said["strength"] in ("0.5", "1.0", "1")
    assert float(said["score"]) == pytest.approx(float(said["judged"]), abs=1e-3)
    assert said["words"].startswith(f"strength {float(said['strength']):g}, dog: ")
    assert (said["shows"].lower() == "true") == (float(said["score"]) > 0)
    assert outputs[until]["text"] and outputs[judge]["text"]


def looked_at(until: str, judge: str) -> list[tuple[str, str, int]]:
    """Name, node and output of what is looked at."""
    return [
        ("strength", until, 2),
        ("score", until, 3),
        ("words", until, 4),
        ("judged", judge, 0),
        ("shows", judge, 1),
    ]
