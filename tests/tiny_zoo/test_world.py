"""The world: what a scene says is what is drawn, and an edit changes nothing else."""

from __future__ import annotations

import dataclasses
import random
import re

import numpy as np
import pytest

from tiny_zoo.captions import END, VOCABULARY, caption, read_attributes, sentences, token_ids, unreliable_caption
from tiny_zoo.compose_directions import FOLDER, compose
from tiny_zoo.train_flow import SHORT
from tiny_zoo.world import ATTRIBUTES, POSE_RANGES, counterfactual, render, sample_scene


def picture(scene):
    return np.asarray(render(scene), dtype=np.float32) / 255


def test_a_scene_is_its_number():
    assert sample_scene(5) == sample_scene(5)
    assert sample_scene(5) != sample_scene(6)
    assert sample_scene(5, "test") != sample_scene(5, "train")
    np.testing.assert_array_equal(picture(sample_scene(5)), picture(sample_scene(5)))


def test_scenes_stay_in_the_ranges_that_the_probe_learns():
    for seed in range(50):
        for name, (low, high) in POSE_RANGES.items():
            assert low <= getattr(sample_scene(seed), name) <= high


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_every_attribute_shows(attribute):
    scene = sample_scene(3, animal="cat", medium="drawing")
    drawn = [picture(counterfactual(scene, **{attribute: value})) for value in ATTRIBUTES[attribute]]
    for i, one in enumerate(drawn):
        for other in drawn[:i]:
            assert np.abs(one - other).max() > 0.2


@pytest.mark.parametrize("medium", ATTRIBUTES["medium"])
def test_another_animal_leaves_the_background_alone(medium):
    scene = sample_scene(11, animal="cat", medium=medium)
    cat, dog = picture(scene), picture(counterfactual(scene, animal="dog"))
    changed = np.abs(cat - dog).max(-1) > 0
    assert 0.02 < changed.mean() < 0.4
    assert not changed[:4].any() and not changed[:, :2].any()


@pytest.mark.parametrize("seed", range(20))
def test_the_animal_is_within_the_frame(seed):
    scene = sample_scene(seed, accessory="none")
    changed = np.abs(picture(scene) - np.asarray(render(scene, animal=False), dtype=np.float32) / 255).max(-1) > 0.1
    centred = dataclasses.replace(scene, x=0.5, y=0.55, size=0.5)
    alone = np.asarray(render(centred, animal=False), dtype=np.float32) / 255
    expected = (np.abs(picture(centred) - alone).max(-1) > 0.1).mean() * (scene.size / 0.5) ** 2
    assert changed.mean() > 0.75 * expected


def test_scenes_of_one_description_differ():
    """Things that no caption names, light and place make most of a picture."""
    said = {"animal": "cat", "coat": "white", "background": "meadow", "accessory": "none", "medium": "drawing"}
    drawn = [picture(sample_scene(seed, facing="left", posture="sitting", **said)) for seed in range(6)]
    for i, one in enumerate(drawn):
        for other in drawn[:i]:
            assert np.abs(one - other).mean() > 0.05


def test_an_unknown_value_is_refused():
    with pytest.raises(ValueError, match=r"animal is 'fish'.*cat, dog"):
        dataclasses.replace(sample_scene(0), animal="fish")


def test_captions_say_what_is_there_and_nothing_else():
    for seed in range(200):
        scene = sample_scene(seed)
        told = read_attributes(caption(scene, random.Random(seed), drop=0.3))
        assert told["animal"] == scene.animal
        for attribute, value in told.items():
            assert value == getattr(scene, attribute)


def test_unreliable_captions_are_as_bad_as_the_webs():
    """METHOD: one to three attributes, the animal unnamed in 15 %, another one named in 20 to 30 %, 10 % empty."""
    count, said, named = 4000, {"empty": 0, "unnamed": 0, "another": 0, "right": 0}, 0
    for seed in range(count):
        scene = sample_scene(seed)
        text = unreliable_caption(scene, random.Random(seed))
        told = read_attributes(text)
        right = "right" if told.get("animal") == scene.animal else "another"
        said["empty" if not text else "unnamed" if "animal" not in told else right] += 1
        named += 1 <= len(told) <= 3
    shares = {name: number / count for name, number in said.items()}
    assert shares["empty"] == pytest.approx(0.1, abs=0.02)
    assert shares["unnamed"] == pytest.approx(0.15, abs=0.02)
    assert shares["another"] == pytest.approx(0.3, abs=0.03)
    assert named / count > 0.6


def test_token_ids_are_clip_like():
    ids = token_ids("a cat, and a unicorn!")
    assert len(ids) == 77
    words = {i: w for w, i in VOCABULARY.items()}
    assert [words[i] for i in ids[:8]] == ["<start>", "a", "cat", "and", "a", "<unknown>", "<end>", "<end>"]
    assert len(token_ids("cat " * 200)) == 77 and token_ids("cat " * 200)[-1] == VOCABULARY["<end>"]


@pytest.mark.parametrize("say", [caption, unreliable_caption])
def test_short_texts_hold_every_caption(say):
    rng = random.Random(0)
    ends = [token_ids(say(sample_scene(seed, "train"), rng)).index(VOCABULARY[END]) for seed in range(2000)]
    assert 15 < max(ends) < SHORT


def test_sentences_about_two_concepts_describe_the_same_scenes():
    cats, dogs = sentences(20, 1, animal="cat"), sentences(20, 1, animal="dog")
    assert [s.replace("cat", "dog") for s in cats] == dogs
    bare, worn = sentences(20, 1, animal="cat", accessory="none"), sentences(20, 1, animal="cat", accessory="glasses")
    assert [re.sub(r" (wearing|with red|with) glasses", "", s) for s in worn] == bare


def test_the_banks_are_what_the_script_writes():
    for name, text in compose().items():
        assert (FOLDER / name).read_text(encoding="utf-8") == text
