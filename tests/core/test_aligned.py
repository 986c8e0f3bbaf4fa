"""Directions aligned to words, with an encoder whose embeddings are known in closed form.

A token's embedding is its own vector plus half the vectors of all words before it, as causal attention would mix them;
the end token and the padding hold the sum of the sentence. Exchanging a word therefore does the same to every sentence,
wherever the word stands.
"""

from __future__ import annotations

import hashlib
import math

import pytest
import torch
from safetensors.torch import save_file

from pix2pix_zero_core import AlignedDirection, EditDirection, apply_direction, combine_directions, load_direction
from pix2pix_zero_core.aligned import WordEdit
from pix2pix_zero_core.direction_files import read_direction
from pix2pix_zero_core.readings import Reading, part_embedding
from pix2pix_zero_core.tokens import Token, exchanged, occurrences, spell

WIDTH, LENGTH = 16, 14
ENCODER = "toy:1"


def vector(word):
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big")
    return torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed))


def tokenize(text):
    """One token a word; "zebra" takes two, as rare words do."""
    pieces = [piece for word in text.split() for piece in (["ze", "bra "] if word == "zebra" else [f"{word} "])]
    return [
        Token(1 + i + 2 * (i // (LENGTH - 2)), int(hashlib.sha256(piece.encode()).hexdigest()[:6], 16), piece)
        for i, piece in enumerate(pieces)
    ]


def encode(texts):
    rows = []
    for text in texts:
        tokens = tokenize(text)
        chunks = 1 + tokens[-1].position // LENGTH if tokens else 1
        row = torch.zeros(chunks * LENGTH, WIDTH)
        for first in range(0, chunks * LENGTH, LENGTH):
            told = torch.zeros(WIDTH)
            row[first] = vector("<start>")
            here = [token for token in tokens if first <= token.position < first + LENGTH]
            for token in here:
                row[token.position] = vector(token.text) + told / 2
                told = told + vector(token.text)
            row[first + 1 + len(here)] = vector("<end>") + told
            row[first + 2 + len(here) : first + LENGTH] = 0.9 * vector("<end>") + told  # CLIP pads with it, too
        rows.append(row)
    return torch.stack(rows), torch.stack([row[:LENGTH].mean(0) for row in rows])


def encode_one(text):
    return encode([text])[0]


FRAMES = (
    "a {} on a sofa",
    "on the grass a {}",
    "{} at home",
    "a happy white {} in the old garden",
    "my {}",
    "see the {} here",
)


def pairs(source="cat", target="dog", frames=FRAMES):
    return [(frame.format(source), frame.format(target)) for frame in frames]


def build(source="cat", target="dog", **settings):
    settings = {"encode": encode, "tokenize": tokenize, "pairs": pairs(source, target), "encoder": ENCODER} | settings
    return AlignedDirection.build(source=source, target=target, **settings)


def shifted(direction, text, strength=1.0, caption=None, pooled=False):
    tokens = tokenize(text if caption is None else caption)
    embedding, vectors = encode([text])
    result = apply_direction(direction, embedding, vectors, strength, encoder=ENCODER, tokens=[tokens])
    return result.pooled if pooled else result.embedding


# --- tokens


@pytest.mark.parametrize(
    ("before", "after", "phrases"),
    [
        ("a cat sits", "a dog sits", ("cat", "dog")),
        ("a cat", "a cat with glasses", ("cat", "cat with glasses")),
        ("cat", "old cat", ("cat", "old cat")),
        ("a sketch of it", "an oil painting of it", ("a sketch", "an oil painting")),
        ("a zebra runs", "a zebu runs", ("zebra", "zebu")),
        ("a cat with a hat", "a cat", ("with a hat", "")),
    ],
)
def test_the_phrase_that_two_sentences_differ_in(before, after, phrases):
    tokens = tokenize(before), tokenize(after)
    spans = exchanged(*tokens)
    assert (
        tuple("".join(t.text for t in text[span]).strip() for text, span in zip(tokens, spans, strict=True)) == phrases
    )


def test_phrases_are_found_in_whole_words():
    cat = [token.id for token in tokenize("cat")]
    assert occurrences(tokenize("a cat and a cat"), cat) == [1, 4]
    assert occurrences(tokenize("a cats"), cat) == []
    assert occurrences(tokenize("a zebra"), [token.id for token in tokenize("zebra")[1:]]) == []


# --- build and place


@pytest.mark.parametrize(
    "caption", ["a cat on a sofa", "in the evening a grey cat", "cat", "the picture of a cat here"]
)
def test_captions_of_any_order_become_the_swapped_ones_where_a_mean_by_position_is_wrong(caption):
    swapped = encode_one(caption.replace("cat", "dog"))
    torch.testing.assert_close(shifted(build(), caption), swapped, rtol=0, atol=1e-5)
    sentences = [list(side) for side in zip(*pairs(), strict=True)]
    by_position = EditDirection.build(encode, *sentences, source="cat", target="dog", encoder=ENCODER)
    assert (shifted(by_position, caption) - swapped).abs().max() > 0.3


def test_the_pooled_vector_is_shifted_too():
    before = encode(["a cat on a sofa"])[1][0]
    expected = before + sum(encode([b])[1][0] - encode([a])[1][0] for a, b in pairs()) / len(FRAMES)
    torch.testing.assert_close(shifted(build(), "a cat on a sofa", pooled=True)[0], expected)
    without = build(encode=lambda texts: (encode(texts)[0], None))
    assert torch.equal(shifted(without, "a cat", pooled=True), encode(["a cat"])[1])


def test_the_shift_is_linear_in_strength_and_zero_changes_nothing():
    direction, caption = build(), "near the door a cat"
    before = encode_one(caption)
    assert torch.equal(shifted(direction, caption, 0), before)
    whole, more = (shifted(direction, caption, strength) - before for strength in (1.0, 1.5))
    torch.testing.assert_close(more, 1.5 * whole)


def test_a_negative_strength_leads_back():
    direction = build()
    torch.testing.assert_close(
        shifted(direction, "on it a dog sat", -1), encode_one("on it a cat sat"), rtol=0, atol=1e-5
    )
    caption = "on it a cat sat"
    torch.testing.assert_close(
        shifted(direction, caption, -1) - encode_one(caption), encode_one(caption) - shifted(direction, caption, 1)
    )


@pytest.mark.parametrize(("source", "target"), [("sketch", "oil painting"), ("cat", "cat wearing red glasses")])
def test_a_longer_target_puts_its_surplus_into_the_padding(source, target):
    caption = f"here a {source} of it"
    before, after = encode_one(caption)[0], shifted(build(source, target), caption)[0]
    swapped = encode_one(caption.replace(source, target))[0]
    words, surplus = 3, len(target.split()) - 1
    torch.testing.assert_close(after[:words], before[:words])
    torch.testing.assert_close(after[words], swapped[words], rtol=0, atol=1e-5)
    for kept in (4, 5, 6):  # "of", "it" and the end stay where they were
        torch.testing.assert_close(after[kept], swapped[kept + surplus], rtol=0, atol=1e-5)
    added, wanted = slice(7, 7 + surplus), swapped[4 : 4 + surplus]
    assert (after[added] - wanted).norm() < 0.8 * (before[added] - wanted).norm()
    torch.testing.assert_close(after[7 + surplus :], swapped[7 + surplus :], rtol=0, atol=1e-5)


def test_a_shorter_target_leaves_padding_where_words_were():
    caption = "a oil painting of it"
    after, swapped = shifted(build("oil painting", "sketch"), caption)[0], encode_one("a sketch of it")[0]
    torch.testing.assert_close(after[2], swapped[2], rtol=0, atol=1e-5)
    torch.testing.assert_close(after[4:7], swapped[3:6], rtol=0, atol=1e-5)
    assert (after[3] - swapped[-1]).norm() < 0.8 * (encode_one(caption)[0, 3] - swapped[-1]).norm()


def test_what_a_target_lacks_is_put_back_by_a_negative_strength():
    direction = build("cat with a hat", "cat")
    assert direction.phrases == ["with a hat"]
    caption = "the cat with a hat runs"
    placed = direction.place(encode_one(caption)[0], tokenize(caption))
    assert placed.remarks == () and placed.direction.vector[3:6].any(dim=1).all()
    caption = "the cat runs"
    placed = direction.place(encode_one(caption)[0], tokenize(caption), strength=-1)
    assert "'with a hat' is added to its end" in placed.remarks[0]
    assert not placed.direction.vector[:4].any() and placed.direction.vector[4:].any(dim=1).all()


def test_every_phrase_has_a_shift_of_its_own():
    both = [*pairs("cat", "dog"), *pairs("cats", "dogs")]
    direction = build(pairs=both)
    assert direction.phrases == ["cat", "cats"] and direction.sentences == (12, 12)
    for caption in ("some cats there", "one cat there"):
        torch.testing.assert_close(
            shifted(direction, caption), encode_one(caption.replace("cat", "dog")), rtol=0, atol=1e-5
        )


def test_the_longer_phrase_wins():
    direction = build(pairs=[*pairs("sketch", "painting"), *pairs("pencil sketch", "picture")])
    swapped = encode_one("a picture of it")[0]
    after = shifted(direction, "a pencil sketch of it")[0]
    torch.testing.assert_close(after[2], swapped[2], rtol=0, atol=1e-5)
    torch.testing.assert_close(after[4:6], swapped[3:5], rtol=0, atol=1e-5)


def test_every_mention_is_exchanged():
    after, swapped = (encode_one("a dog and a dog"), shifted(build(), "a cat and a cat"))
    assert (after - swapped)[0, [2, 5]].norm() < (after - encode_one("a cat and a cat"))[0, [2, 5]].norm() / 2


def test_only_the_chunk_with_the_word_is_shifted():
    caption = "one two three four five six seven eight nine ten eleven twelve a cat there"
    before, after = encode_one(caption), shifted(build(), caption)
    assert after.shape == (1, 2 * LENGTH, WIDTH)
    assert torch.equal(after[:, :LENGTH], before[:, :LENGTH])
    torch.testing.assert_close(after, encode_one(caption.replace("cat", "dog")), rtol=0, atol=1e-5)


def test_accidents_are_left_out():
    accident = [("a man at the beach", "a woman in an office")]
    direction = build(pairs=[*pairs() * 5, *accident])
    assert direction.phrases == ["cat"]


def test_batches_do_not_change_the_direction_and_progress_counts_sentences():
    progress = []
    one = build(batch_size=4, on_progress=lambda done, total: progress.append((done, total)))
    assert progress == [(8, 12), (12, 12)]
    torch.testing.assert_close(
        one.edits[0].exchanges[0].source.rows, build().edits[0].exchanges[0].source.rows, rtol=0, atol=1e-6
    )


def test_sentences_that_cannot_be_used():
    for settings, message in (
        ({"pairs": []}, "There are no pairs of sentences; give at least one"),
        ({"batch_size": 0}, "batch_size is 0; it must be >= 1"),
        ({"pairs": [("a cat", "a cat")]}, "All 1 pairs .* read the same to the text encoder: 'a cat', 'a cat'"),
        ({"pairs": [(f"a word{i}", f"my text{i}") for i in range(40)]}, "exchange no phrase often enough"),
        (
            {"pairs": [("one two three four five six seven eight nine ten eleven twelve cat", "a dog")]},
            "one chunk. Shorten the",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            build(**settings)


# --- captions without the phrase, and without tokens


def test_without_tokens_the_word_is_found_by_its_embedding():
    direction, caption = build(), "on the grass a cat was seen"
    placed = direction.place(encode_one(caption)[0])
    exact = direction.place(encode_one(caption)[0], tokenize(caption))
    torch.testing.assert_close(placed.direction.vector[:7], exact.direction.vector[:7])  # the end is a guess
    assert exact.remarks == ()
    assert placed.remarks == ("The edit goes to token 5, the nearest to 'cat'; with the caption it would be exact.",)


def test_a_word_that_means_nearly_the_same_is_taken_for_it():
    direction, caption = build(), "on the grass a kitten was seen"
    embedding = encode_one(caption)[0]
    embedding[5] += vector("cat ") - vector("kitten ")
    placed = direction.place(embedding, tokenize(caption))
    assert placed.remarks == ("The edit goes to 'kitten', the nearest to 'cat' in the caption.",)
    assert placed.direction.vector[5].norm() > 1


def test_where_nothing_is_near_the_target_is_added_to_the_end():
    direction, caption = build("sketch", "oil painting"), "two boats"
    placed = direction.place(encode_one(caption)[0], tokenize(caption))
    assert placed.remarks == ("The caption has nothing like 'sketch'; 'oil painting' is added to its end.",)
    assert not placed.direction.vector[:3].any() and (placed.direction.vector[3:].norm(dim=1) > 0.5).all()


def test_a_caption_without_room_says_so():
    caption = "a b c d e f g h sketch j k l"
    placed = build("sketch", "large oil painting").place(encode_one(caption)[0], tokenize(caption))
    assert "leaves no room for 2 of the tokens by which 'large oil painting' is longer" in placed.remarks[0]


def test_an_empty_caption():
    placed = build().place(encode_one("")[0], tokenize(""))
    assert "added to its end" in placed.remarks[0]


# --- apply, combine, save


def test_rows_of_a_batch_have_captions_of_their_own():
    captions = ["a cat on it", "see how my cat"]
    together = apply_direction(
        build(), encode(captions)[0], encode(captions)[1], encoder=ENCODER, tokens=[tokenize(c) for c in captions]
    )
    for row, vectors, caption in zip(together.embedding, together.pooled, captions, strict=True):
        assert torch.equal(row, shifted(build(), caption)[0])
        assert torch.equal(vectors, shifted(build(), caption, pooled=True)[0])


def test_what_does_not_fit_is_refused():
    direction, embedding = build(), encode_one("a cat")
    with pytest.raises(ValueError, match=r"made by text encoder 'toy:1', the prompt by 'other'"):
        apply_direction(direction, embedding, None, encoder="other")
    with pytest.raises(ValueError, match=r"fits \(a multiple of 14 tokens, 16\)"):
        apply_direction(direction, embedding[:, :5], None, encoder=ENCODER)
    with pytest.raises(ValueError, match="strength of the edit is nan; it must be a finite"):
        apply_direction(direction, embedding, None, math.nan, encoder=ENCODER)
    with pytest.raises(ValueError, match="2 pooled embeddings for 1 rows of the prompt's"):
        apply_direction(direction, embedding, torch.zeros(2, 16), encoder=ENCODER)
    with pytest.raises(ValueError, match="with 3 captions; it must be"):
        apply_direction(direction, embedding, None, encoder=ENCODER, tokens=[tokenize("a cat")] * 3)
    with pytest.raises(ValueError, match="must be the text that the prompt was made of"):
        shifted(direction, "a cat", caption="a b c d e f g h i j k l m n cat")


def test_two_edits_in_one_caption():
    both = combine_directions([(build(), 1.0), (build("grass", "snow"), 1.0)])
    assert (both.name, both.sentences, both.form) == ("cat + grass -> dog + snow", (12, 12), "aligned to words")
    after, once = shifted(both, "on grass a cat"), shifted(build(), "on grass a cat")
    torch.testing.assert_close(after, encode_one("on snow a dog"), rtol=0, atol=1e-5)
    torch.testing.assert_close(
        after, shifted(build("grass", "snow"), "on grass a cat") + once - encode_one("on grass a cat")
    )


def test_surplus_words_of_two_edits_do_not_meet():
    caption, edits = "a cat on grass", (build("cat", "cat wearing glasses"), build("grass", "very deep snow"))
    both = combine_directions([(edit, 1.0) for edit in edits])
    before, together = encode_one(caption)[0], shifted(both, caption)[0]
    surplus = [edit.edits[0].exchanges[0].target.words[1:] for edit in edits]
    added = together[6:10] - before[6:10]
    for k, words in enumerate(surplus):
        source = edits[k].edits[0].exchanges[0].source
        other = edits[1 - k].edits[0].exchanges[0]
        expected = words - source.around[3] + (other.target.around - other.source.around)[3]
        torch.testing.assert_close(added[2 * k : 2 * k + 2], expected, rtol=0, atol=1e-5)


def test_an_edit_of_weight_0_is_not_in_the_sum():
    edit, longer = build(), build("grass", "very deep snow")
    alone = combine_directions([(edit, 1.0), (longer, 0.0)])
    assert alone.name == "cat -> dog" and len(alone.edits) == 1
    nothing = combine_directions([(edit, 0.0), (longer, 0.0)])
    placed = nothing.place(encode_one("a cat on sand")[0])
    assert nothing.name == "cat + grass -> dog + very deep snow"
    assert not placed.direction.vector.any() and not placed.filled and placed.remarks == ()


def test_a_negative_weight_leads_back():
    back = combine_directions([(build("dog", "cat"), -1.0)])
    assert back.name == "cat -> dog"
    torch.testing.assert_close(shifted(back, "here a cat"), encode_one("here a dog"), rtol=0, atol=1e-5)


def test_combining_refuses_what_does_not_fit():
    by_position = EditDirection(torch.zeros(LENGTH, WIDTH), None, "cat", "dog", ENCODER, (1, 1))
    with pytest.raises(ValueError, match="cat -> dog is aligned to words, cat -> dog is mean by position; build both"):
        combine_directions([(build(), 1), (by_position, 1)])
    with pytest.raises(ValueError, match="made by text encoder 'toy:1', cat -> dog by 'other'"):
        combine_directions([(build(), 1), (build(encoder="other"), 1)])
    with pytest.raises(ValueError, match="no directions to combine"):
        combine_directions([])
    with pytest.raises(TypeError, match="There is 'dog' among the directions to combine"):
        combine_directions([(build(), 1), ("dog", 1)])  # pyright: ignore
    with pytest.raises(ValueError, match="weight of cat -> dog is inf"):
        combine_directions([(build(), math.inf)])
    with pytest.raises(ValueError, match="embeddings of different widths"):
        combine_directions([(build(), 1), (build(encode=lambda texts: (encode(texts)[0], None)), 1)])


@pytest.mark.parametrize("pooled", [True, False])
def test_save_and_load_return_the_same_direction(tmp_path, pooled):
    one = build(encode=encode if pooled else lambda texts: (encode(texts)[0], None))
    two = build("grass", "deep snow", encode=encode if pooled else lambda texts: (encode(texts)[0], None))
    direction = combine_directions([(one, 0.5), (two, -1.0)])
    direction.save(tmp_path / "x.safetensors")
    loaded = load_direction(tmp_path / "x.safetensors")
    assert isinstance(loaded, AlignedDirection) and read_direction(tmp_path / "x.safetensors").form == loaded.form
    for name in ("name", "encoder", "sentences", "readings", "phrases"):
        assert getattr(loaded, name) == getattr(direction, name)
    for name in (False, True):
        assert torch.equal(
            shifted(loaded, "on grass a cat", pooled=name), shifted(direction, "on grass a cat", pooled=name)
        )


def test_other_forms(tmp_path):
    by_position = EditDirection(torch.zeros(LENGTH, WIDTH), None, "cat", "dog", ENCODER, (1, 1))
    by_position.save(tmp_path / "mean.safetensors")
    assert isinstance(load_direction(tmp_path / "mean.safetensors"), EditDirection)
    build().save(tmp_path / "aligned.safetensors")
    with pytest.raises(
        ValueError, match=r"form 'aligned to words', not 'mean by position'. Read it with load_direction"
    ):
        EditDirection.load(tmp_path / "aligned.safetensors")
    fields = {"format": "pix2pix-zero edit direction", "version": "1", "source": "cat", "target": "dog", "encoder": "e"}
    fields |= {"source_sentences": "1", "target_sentences": "1"}
    save_file({"vector": torch.ones(2, 3)}, tmp_path / "old.safetensors", fields)
    assert load_direction(tmp_path / "old.safetensors").form == "mean by position", "files of 0.1.0 name no form"
    save_file({"vector": torch.ones(2, 3)}, tmp_path / "new.safetensors", fields | {"form": "by rhyme"})
    with pytest.raises(ValueError, match="of the form 'by rhyme'; this release knows 'mean by position' and 'aligned"):
        load_direction(tmp_path / "new.safetensors")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"edits": "{"}, "its phrases cannot be read"),
        ({"edits": "[]"}, "has 0 edits of 1 readings"),
        ({"edits": "5"}, "its phrases cannot be read"),
        ({"edits": '[{"weight": 1, "exchanges": [{"sentences": 1}]}]'}, "its phrases cannot be read"),
        ({"readings": "many"}, "its phrases cannot be read"),
        ({"readings": "[[77, 1]]"}, "its phrases cannot be read"),
        ({"readings": "[]"}, "has 1 edits of 0 readings"),
        ({"readings": "[[77, -1, 1, true]]"}, "which none can"),
    ],
)
def test_damaged_files(tmp_path, changes, message):
    path = tmp_path / "x.safetensors"
    build().save(path)
    file = read_direction(path)
    save_file(dict(file.tensors), path, dict(file.more) | changes)
    with pytest.raises(ValueError, match=message):
        load_direction(path)


def test_values_that_are_not_finite(tmp_path):
    direction = build()
    direction.edits[0].exchanges[0].source.rows[0] = math.nan
    with pytest.raises(ValueError, match="embeddings of 'cat' hold NaN or Inf"):
        build(encode=lambda texts: (encode(texts)[0] * math.nan, None))
    direction.save(tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="embeddings of 'cat' hold NaN or Inf"):
        load_direction(tmp_path / "x.safetensors")


def test_a_direction_needs_phrases_and_an_encoder():
    with pytest.raises(ValueError, match="encoder is empty"):
        AlignedDirection(build().edits, (Reading(LENGTH),), "cat", "dog", "", (1, 1))
    with pytest.raises(ValueError, match=r"exchanges 0 phrases with a weight of 1\.0"):
        WordEdit(())
    with pytest.raises(ValueError, match=r"has 5 embeddings of 'cat'; a phrase of 1 tokens .* with 2 has 6"):
        AlignedDirection(build().edits, (Reading(LENGTH, end=2),), "cat", "dog", ENCODER, (1, 1))


# --- encoders that lay texts otherwise


TEMPLATE, REST = ("<user>", "says"), ("<end>", "<assistant>")


def tokenize_behind_template(text):
    return [token._replace(position=len(TEMPLATE) + i) for i, token in enumerate(tokenize(text))]


def encode_behind_template(texts):
    """As a language model: causal, behind a template, as many tokens as the text has."""
    rows = []
    for text in texts:
        told, row = torch.zeros(WIDTH), []
        for word in (*TEMPLATE, *(token.text for token in tokenize(text)), *REST):
            row.append(vector(word) + told / 2)
            told = told + vector(word)
        rows.append(torch.stack(row))
    return rows, None


MODEL = Reading(0, len(TEMPLATE), len(REST), padded=False)


def build_behind_template(source="cat", target="dog"):
    more = {"encode": encode_behind_template, "tokenize": tokenize_behind_template, "readings": (MODEL,)}
    return build(source, target, **more)


def shifted_behind_template(direction, text, strength=1.0, *, told=True):
    embedding = encode_behind_template([text])[0][0][None]
    tokens = [tokenize_behind_template(text)] if told else None
    return apply_direction(direction, embedding, None, strength, encoder=ENCODER, tokens=tokens)


@pytest.mark.parametrize("told", [True, False])
def test_a_language_model_has_a_template_and_no_padding(told):
    caption = "here a cat on the grass"
    expected = encode_behind_template([caption.replace("cat", "dog")])[0][0]
    found = shifted_behind_template(build_behind_template(), caption, told=told)
    torch.testing.assert_close(found.embedding[0], expected, rtol=0, atol=1e-5)
    assert bool(found.remarks) != told


def test_words_that_find_no_padding_are_added_behind_and_taken_away_again():
    direction, caption = build_behind_template("cat", "zebra"), "here a cat"
    before, after = (encode_behind_template([text])[0][0] for text in (caption, "here a zebra"))
    found = shifted_behind_template(direction, caption).embedding[0]
    torch.testing.assert_close(found[:5], after[:5], rtol=0, atol=1e-5)  # here, a, ze
    torch.testing.assert_close(found[5:7], after[6:], rtol=0, atol=1e-5)  # the rest of the template
    torch.testing.assert_close(found[7], direction.edits[0].exchanges[0].target.words[1])  # bra
    assert torch.equal(shifted_behind_template(direction, caption, 0.0).embedding[0], before)
    half = shifted_behind_template(direction, caption, 0.5).embedding[0]
    assert not torch.equal(half[7], found[7]) and torch.isfinite(half).all()
    back = shifted_behind_template(direction, "here a zebra", -1.0)
    assert back.remarks == () and back.embedding.shape == (1, *after.shape)
    torch.testing.assert_close(back.embedding[0, 6:], before[5:], rtol=0, atol=1e-5)
    assert direction.place(before, tokenize_behind_template(caption)).filled == ()


def test_texts_of_a_batch_that_come_to_different_lengths_are_refused():
    direction, captions = build_behind_template("cat", "zebra"), ("here a cat", "a zebra b")
    tokens = [tokenize_behind_template(caption) for caption in captions]
    embedding = torch.stack([row[:7] for row in encode_behind_template(captions)[0]])
    with pytest.raises(ValueError, match=r"texts of a batch come to \[8, 9\] tokens; all must have as many"):
        apply_direction(direction, embedding, None, encoder=ENCODER, tokens=tokens)


def test_two_readings_of_a_text_are_shifted_each():
    """As in Stable Diffusion 3: CLIP's chunks, then tokens without end, start or padding."""
    laid = (Reading(LENGTH), MODEL)

    def tokens(text):
        own = tokenize(text)
        first = LENGTH * (1 + own[-1].position // LENGTH)
        return own + [token._replace(position=first + token.position) for token in tokenize_behind_template(text)]

    def both(texts):
        return [torch.cat(pair) for pair in zip(encode(texts)[0], encode_behind_template(texts)[0], strict=True)], None

    direction = build(encode=both, tokenize=tokens, readings=laid)
    assert direction.phrases == ["cat", "cat"] and [edit.reading for edit in direction.edits] == [0, 1]
    long = " ".join(["word"] * 13) + " cat"
    for caption, told in (("a cat on a sofa", True), ("a cat on a sofa", False), (long, True)):
        embedding, expected = (both([text])[0][0][None] for text in (caption, caption.replace("cat", "dog")))
        found = apply_direction(direction, embedding, None, encoder=ENCODER, tokens=[tokens(caption)] if told else None)
        torch.testing.assert_close(found.embedding, expected, rtol=0, atol=1e-5)
    assert part_embedding(embedding[0], laid) == [range(2 * LENGTH), range(2 * LENGTH, len(embedding[0]))]
    with pytest.raises(ValueError, match=r"fits \(a multiple of 14 tokens, then tokens, 16\)"):
        apply_direction(direction, embedding[:, :LENGTH], None, encoder=ENCODER)


def test_a_direction_of_an_earlier_file_is_of_chunks(tmp_path):
    build().save(tmp_path / "it.safetensors")
    file = read_direction(tmp_path / "it.safetensors")
    more = {key: value for key, value in file.more.items() if key != "readings"} | {"length": str(LENGTH)}
    save_file(dict(file.tensors), tmp_path / "it.safetensors", more)
    assert load_direction(tmp_path / "it.safetensors").readings == (Reading(LENGTH),)


def test_words_written_alike_are_the_phrase():
    tokens = [Token(0, 5, "Cat "), Token(1, 6, "on "), Token(2, 7, "cats ")]
    assert occurrences(tokens, [9], "cat") == [0] and occurrences(tokens, [9]) == []
    assert occurrences([Token(0, 9, "cat"), Token(1, 3, "alogue ")], [9], "cat") == []


def test_a_text_without_tokens_is_spelled_as_nothing():
    """Quotation marks alone, say, of which some tokenizers keep nothing."""
    assert spell([], marked=True) == []
    assert spell(["\u2581cat", "fish", "\u2581", "dog"], marked=True) == ["cat", "fish ", "", "dog "]
