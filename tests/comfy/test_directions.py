"""Directions and sentences in ComfyUI: every kind of CLIP, files that are kept, and what happens to bad ones."""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import re
import shutil
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from launcher.messages import Failure
from launcher.runtime import ROOT
from launcher.server import Server
from pix2pix_zero_core.integrations.sentences import load_edit, read_edits
from tiny_zoo.compose_directions import FOLDER as TINY_ZOO

EditGraph = Callable[..., Any]

SENTENCES = ["a cat", "a photo of an old cat on a sofa", "the cat is (very) sleepy, and so am I", ""]
LONG = " ".join(["a very long description of a cat"] * 20)


@pytest.fixture(scope="module")
def make_clip(pack: Any) -> Callable[..., Any]:
    """Makes a CLIP as ComfyUI's loaders do, of a real family in narrow, with random weights."""
    import comfy.sd
    import comfy.sd1_clip
    import comfy.sdxl_clip
    import comfy.supported_models_base
    import comfy.text_encoders.sd2_clip

    families = {
        "SD1": (comfy.sd1_clip.SD1Tokenizer, comfy.sd1_clip.SD1ClipModel),
        "SD2": (comfy.text_encoders.sd2_clip.SD2Tokenizer, comfy.text_encoders.sd2_clip.SD2ClipModel),
        "SDXL": (comfy.sdxl_clip.SDXLTokenizer, comfy.sdxl_clip.SDXLClipModel),
    }

    def make(family: str, seed: int = 0, dtype: torch.dtype = torch.float32) -> Any:
        narrow = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 3}
        options = {f"clip_{name}_model_config": narrow for name in "lgh"} | {"dtype": dtype}
        with torch.inference_mode():
            clip = comfy.sd.CLIP(
                comfy.supported_models_base.ClipTarget(*families[family]), model_options=options, parameters=1
            )
            torch.manual_seed(seed)
            for parameter in clip.cond_stage_model.parameters():
                parameter.copy_(torch.randn(parameter.shape) * 0.3)
        return clip

    return make


def encode_alone(clip: Any, sentence: str) -> tuple[torch.Tensor, torch.Tensor]:
    return clip.encode_from_tokens(clip.tokenize(sentence), return_pooled=True)


@pytest.mark.parametrize(("family", "width"), [("SD1", 32), ("SD2", 32), ("SDXL", 64)])
@torch.inference_mode()
def test_sentences_are_encoded_together_as_each_alone(
    pack: Any, make_clip: Callable[..., Any], family: str, width: int
):
    clip = make_clip(family)
    calls: list[int] = []
    encode_token_weights = clip.cond_stage_model.encode_token_weights
    clip.cond_stage_model.encode_token_weights = lambda tokens: calls.append(1) or encode_token_weights(tokens)
    embeddings, pooled = pack.nodes.text_encoder.encode(clip, SENTENCES)
    assert len(calls) == 1
    assert embeddings.shape == (4, 77, width)
    alone, alone_pooled = (torch.cat(rows) for rows in zip(*(encode_alone(clip, s) for s in SENTENCES), strict=True))
    torch.testing.assert_close(embeddings, alone, rtol=1e-4, atol=1e-4)
    if family == "SD1":
        assert pooled is None
    else:
        torch.testing.assert_close(pooled, alone_pooled, rtol=1e-4, atol=1e-4)
    assert not [module for module in clip.cond_stage_model.modules() if module._forward_hooks]


@torch.inference_mode()
def test_an_encoder_that_mixes_what_it_pools_is_encoded_one_by_one(pack: Any, make_clip: Callable[..., Any]):
    clip = make_clip("SDXL")
    encode_token_weights = clip.cond_stage_model.encode_token_weights

    def mix(tokens: Any) -> Any:
        embedding, pooled = encode_token_weights(tokens)
        return embedding, 2 * pooled

    clip.cond_stage_model.encode_token_weights = mix
    _, pooled = pack.nodes.text_encoder.encode(clip, SENTENCES)
    expected = torch.cat([encode_alone(clip, sentence)[1] for sentence in SENTENCES])
    torch.testing.assert_close(pooled, expected)


@torch.inference_mode()
def test_sentences_of_several_chunks(pack: Any, make_clip: Callable[..., Any]):
    clip = make_clip("SDXL")
    embeddings, pooled = pack.nodes.text_encoder.encode(clip, [LONG, LONG + " again"])
    assert embeddings.shape[1] % 77 == 0 and embeddings.shape[1] > 77 and pooled.shape == (2, 32)
    torch.testing.assert_close(embeddings[:1], encode_alone(clip, LONG)[0])
    assert [len(one) for one in pack.nodes.text_encoder.encode(clip, [LONG, "a cat"])[0]] == [embeddings.shape[1], 77]
    texts = f"a cat\n{LONG}", "a dog\na small dog"
    with pytest.raises(
        ValueError, match=r"needs all of one length. Shorten the sentences that take more than one chunk"
    ):
        pack.nodes.EditDirection.execute(clip, "custom", *texts, 5)


@pytest.mark.parametrize("family", ["SD1", "SD2", "SDXL"])
@torch.inference_mode()
def test_a_direction_shifts_every_chunk_and_the_pooled_vector(pack: Any, make_clip: Callable[..., Any], family: str):
    clip = make_clip(family)
    direction, _ = pack.nodes.EditDirection.execute(clip, "custom", "a cat\nmy cat", "a dog\nmy dog", 5).result
    assert (direction.name, direction.sentences) == ("cat -> dog", (2, 2))
    cats, dogs = ([encode_alone(clip, f"{start} {animal}") for start in ("a", "my")] for animal in ("cat", "dog"))
    delta, pooled_delta = (
        (torch.cat([d[i] for d in dogs]).mean(0) - torch.cat([c[i] for c in cats]).mean(0)) for i in (0, 1)
    )
    source = clip.encode_from_tokens_scheduled(clip.tokenize(LONG))
    before = source[0][0].clone()
    target, warning = pack.nodes.ApplyEditDirection.execute(source, direction, clip, -0.5).result
    chunks = before.shape[1] // 77
    torch.testing.assert_close(target[0][0], before - 0.5 * delta.repeat(chunks, 1), rtol=1e-4, atol=1e-4)
    if family != "SD1":
        torch.testing.assert_close(
            target[0][1]["pooled_output"], source[0][1]["pooled_output"] - 0.5 * pooled_delta, rtol=1e-4, atol=1e-4
        )
    assert torch.equal(source[0][0], before) and warning == ""


ALIGNED = {"form": "aligned to words"}


@pytest.mark.parametrize("family", ["SD1", "SD2", "SDXL"])
@torch.inference_mode()
def test_an_aligned_direction_goes_to_the_word_in_its_chunk(pack: Any, make_clip: Callable[..., Any], family: str):
    clip = make_clip(family)
    texts = "custom", "a cat\nmy cat", "a dog\nmy dog", 5
    direction, _ = pack.nodes.EditDirection.execute(clip, *texts, **ALIGNED).result
    assert (direction.name, direction.form, direction.sentences) == ("cat -> dog", "aligned to words", (2, 2))
    caption = f"{LONG.replace('cat', 'lion')}, and (my cat:1.2)"
    source = clip.encode_from_tokens_scheduled(clip.tokenize(caption))
    before = source[0][0].clone()
    target, warning = pack.nodes.ApplyEditDirection.execute(source, direction, clip, 1.0, caption).result
    moved = (target[0][0] - before)[0].abs().amax(1) > 1e-5
    (cat,) = (token for token in pack.nodes.text_encoder.tokenize(clip, caption) if token.text == "cat ")
    assert warning == "" and cat.position > 77
    assert moved[cat.position :].all() and not moved[: cat.position].any()
    at_word = torch.cat(
        [encode_alone(clip, f"{start} dog")[0] - encode_alone(clip, f"{start} cat")[0] for start in ("a", "my")]
    )
    torch.testing.assert_close((target[0][0] - before)[0, cat.position], at_word.mean(0)[2], rtol=1e-4, atol=1e-4)
    if family != "SD1":
        assert not torch.equal(target[0][1]["pooled_output"], source[0][1]["pooled_output"])


@torch.inference_mode()
def test_an_aligned_direction_without_its_word_or_the_caption_warns(pack: Any, make_clip: Callable[..., Any]):
    clip = make_clip("SD1")
    direction, _ = pack.nodes.EditDirection.execute(
        clip, "custom", "sketch", "oil painting", 20, "medium", **ALIGNED
    ).result
    source = clip.encode_from_tokens_scheduled(clip.tokenize("a sketch of a boat"))
    apply = pack.nodes.ApplyEditDirection.execute
    exact, warning = apply(source, direction, clip, 1.0, "a sketch of a boat").result
    assert warning == "" and torch.equal(
        apply(source, direction, clip, 0.0, "a sketch of a boat").result[0][0][0], source[0][0]
    )
    unsure, warning = apply(source, direction, clip, 1.0).result
    assert "with the caption it would be exact" in warning or "is added to its end" in warning
    assert unsure[0][0].shape == exact[0][0].shape
    other = clip.encode_from_tokens_scheduled(clip.tokenize("boats"))
    assert apply(other, direction, clip, 1.0, "boats").result[1]


@torch.inference_mode()
def test_the_form_of_graphs_that_name_none_is_the_one_there_was(pack: Any, make_clip: Callable[..., Any]):
    clip = make_clip("SD1")
    texts = "custom", "a cat\nmy cat", "a dog\nmy dog", 5
    direction, _ = pack.nodes.EditDirection.execute(clip, *texts).result
    assert direction.form == "mean by position"
    (form,) = (entry for entry in pack.nodes.EditDirection.define_schema().inputs if entry.id == "form")
    assert form.default == "aligned to words" and form.optional
    with pytest.raises(ValueError, match="form of the direction is 'by rhyme'; it must be 'aligned to words' or 'mean"):
        pack.nodes.EditDirection.execute(clip, *texts, form="by rhyme")


@torch.inference_mode()
def test_a_head_that_the_checkpoint_lacks_is_in_no_direction(pack: Any, make_clip: Callable[..., Any]):
    clip = make_clip("SD1")
    clip.cond_stage_model.clip_l.transformer.text_projection.weight.fill_(torch.nan)
    direction, _ = pack.nodes.EditDirection.execute(clip, "custom", "a cat\nmy cat", "a dog\nmy dog", 5).result
    source = clip.encode_from_tokens_scheduled(clip.tokenize("a cat"))
    target, _ = pack.nodes.ApplyEditDirection.execute(source, direction, clip, 1.0).result
    assert torch.isfinite(target[0][0]).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_precision_makes_no_other_encoder(pack: Any, make_clip: Callable[..., Any], dtype: torch.dtype):
    name = pack.nodes.text_encoder.encoder_fingerprint
    assert name(make_clip("SDXL")) == name(make_clip("SDXL", dtype=dtype))
    assert len({name(make_clip(family, seed)) for family in ("SD1", "SD2", "SDXL") for seed in (0, 1)}) == 6


@torch.inference_mode()
def test_weights_that_a_checkpoint_lacks_do_not_count(pack: Any, make_clip: Callable[..., Any]):
    clip, name = make_clip("SD1"), pack.nodes.text_encoder.encoder_fingerprint
    expected = name(clip)
    clip.cond_stage_model.clip_l.transformer.text_projection.weight.normal_()
    clip.cond_stage_model.clip_l.logit_scale.fill_(-1)
    assert name(clip) == expected
    clip.cond_stage_model.clip_l.transformer.text_model.final_layer_norm.bias.neg_()
    assert name(clip) != expected


def with_lora(clip: Any) -> Any:
    patched = clip.clone()
    key = "clip_l.transformer.text_model.final_layer_norm.weight"
    assert patched.add_patches({key: (torch.full((32,), 5.0),)}, 1.0) == [key]
    return patched


@torch.inference_mode()
def test_a_lora_makes_no_other_encoder_loaded_or_not(pack: Any, make_clip: Callable[..., Any]):
    clip, name = make_clip("SD1"), pack.nodes.text_encoder.encoder_fingerprint
    patched, other = with_lora(clip), clip.clone()
    other.clip_layer(-2)
    expected = name(clip)
    assert name(patched) == expected != name(other)
    plain, _ = encode_alone(clip, "a cat")
    assert not torch.allclose(encode_alone(patched, "a cat")[0], plain)
    assert patched.patcher.backup, "the test is about weights that are patched in place"
    assert name(patched) == name(clip) == expected


@torch.inference_mode()
def test_a_lora_by_a_hook_makes_no_other_encoder_while_its_weights_are_there(pack: Any, make_clip: Callable[..., Any]):
    import comfy.hooks
    import comfy.lora
    from comfy_extras.nodes_hooks import SetClipHooks

    clip, name = make_clip("SD1"), pack.nodes.text_encoder.encoder_fingerprint
    expected = name(clip)
    plain = clip.encode_from_tokens_scheduled(clip.tokenize("a cat"))[0][0]
    values = clip.cond_stage_model.state_dict()
    key, weight = next((key, value) for key, value in values.items() if key.endswith("q_proj.weight"))
    known = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, {})
    name_there = next(there for there, here in known.items() if here == key)
    generator = torch.Generator().manual_seed(0)
    up, down = (torch.randn(size, generator=generator) for size in ((len(weight), 4), (4, weight.shape[1])))
    weights = {f"{name_there}.lora_up.weight": up, f"{name_there}.lora_down.weight": down}
    (hooked,) = SetClipHooks().apply_hooks(clip, False, False, comfy.hooks.create_hook_lora(weights, 1.0, 1.0))
    assert not torch.equal(hooked.encode_from_tokens_scheduled(hooked.tokenize("a cat"))[0][0], plain)
    assert clip.patcher.hook_backup, "the test is about weights that a hook has left there"
    assert name(clip) == name(hooked) == expected


@torch.inference_mode()
def test_scales_of_quantised_weights_make_no_other_encoder(pack: Any, make_clip: Callable[..., Any]):
    clip, scaled = make_clip("SD1"), make_clip("SD1")
    built, _ = pack.nodes.EditDirection.execute(clip, "custom", "a cat\nmy cat", "a dog\nmy dog", 5).result
    layer = scaled.cond_stage_model.clip_l.transformer.text_model.final_layer_norm
    for scale in ("scale_weight", "weight_scale"):
        layer.register_buffer(scale, torch.ones(1))
    name = pack.nodes.text_encoder.encoder_fingerprint
    assert name(clip) == name(scaled) != fingerprint_of_0_1_0(scaled)
    source = clip.encode_from_tokens_scheduled(clip.tokenize("a cat"))
    for made_by in (built.encoder, fingerprint_of_0_1_0(scaled)):  # 0.2.0 named it as 0.1.0 did
        pack.nodes.ApplyEditDirection.execute(source, dataclasses.replace(built, encoder=made_by), scaled, 1.0)


@torch.inference_mode()
def test_directions_are_remembered(pack: Any, make_clip: Callable[..., Any], monkeypatch: pytest.MonkeyPatch):
    module = pack.nodes.directions
    monkeypatch.setattr(module, "_built", {})
    monkeypatch.setattr(module, "KEPT", 3)
    encoded: list[str] = []
    monkeypatch.setattr(module, "encode", lambda clip, batch: (encoded.extend(batch), encode(clip, batch))[1])
    encode, clip = pack.nodes.text_encoder.encode, make_clip("SD1")

    def build(clip: Any, source: str = "cat", target: str = "dog", count: int = 2) -> Any:
        before = len(encoded)
        direction, _ = module.EditDirection.execute(clip, "custom", source, target, count).result
        return direction, len(encoded) - before

    first, count = build(clip)
    assert count == 4
    assert build(clip) == (first, 0)
    assert build(make_clip("SD1")) == (first, 0), "the same weights loaded again are the same encoder"
    changed, count = build(with_lora(clip))
    assert count == 4 and not torch.equal(changed.vector, first.vector)
    assert build(clip, target="horse")[1] == build(clip, target="horse", count=3)[1] - 2 == 4
    assert len(module._built) == 3
    assert build(clip)[1] == 4, "the oldest is forgotten"
    patched, again = with_double_tokens(clip), with_double_tokens(clip)
    for other in (patched, again):
        assert build(other)[1] == 4, "what another patch does may be another thing"
    assert build(patched)[1] == build(patched.clone())[1] == build(clip)[1] == 0
    unloaded = with_double_tokens(clip)
    patch = weakref.ref(unloaded.patcher.object_patches["clip_l.encode_token_weights"])
    state = pack.nodes.text_encoder.encoder_state(unloaded)
    del unloaded
    gc.collect()
    assert state and patch() is None, "what is remembered keeps no text encoder alive"


# --- Settings of one text encoder


def skipped(clip: Any, layer: int) -> Any:
    clip = clip.clone()
    clip.clip_layer(layer)
    return clip


def doubled(encode: Callable[..., Any], pairs: Any) -> tuple[Any, ...]:
    out, *rest = encode(pairs)
    return out.repeat_interleave(2, dim=1), *rest


def with_double_tokens(clip: Any) -> Any:
    """Twice as many tokens, as NegPip has them."""
    patched = clip.clone()
    for name in ("clip_l", "clip_g"):
        if hasattr(clip.cond_stage_model, name):
            encode = getattr(clip.cond_stage_model, name).encode_token_weights
            patched.patcher.add_object_patch(f"{name}.encode_token_weights", partial(doubled, encode))
    return patched


def fingerprint_of_0_1_0(clip: Any) -> str:
    digest = hashlib.sha256(f"layer {clip.layer_idx}".encode())
    for name, weight in sorted(clip.cond_stage_model.state_dict().items()):
        if "text_projection" not in name and "logit_scale" not in name:
            signs = torch.signbit(weight.flatten()[:64].float()).tolist()
            digest.update(f"{name} {tuple(weight.shape)} {signs}".encode())
    return f"{type(clip.cond_stage_model).__name__}-{digest.hexdigest()[:16]}"


@pytest.mark.parametrize("family", ["SD1", "SD2", "SDXL"])
@torch.inference_mode()
def test_encoders_are_the_same_where_their_embeddings_are(pack: Any, make_clip: Callable[..., Any], family: str):
    clip = make_clip(family)
    variants = [clip, *(skipped(clip, layer) for layer in range(-3, 0))]  # beyond its depth ComfyUIs differ
    names = [pack.nodes.text_encoder.encoder_fingerprint(variant) for variant in variants]
    embeddings = [encode_alone(variant, "a cat")[0] for variant in variants]
    for name, embedding in zip(names, embeddings, strict=True):
        same = [torch.equal(embedding, other) for other in embeddings]
        assert [name == other for other in names] == same
    assert names[0] == fingerprint_of_0_1_0(clip) and len(set(names)) == 3


def saved_and_loaded(pack: Any, direction: Any, path: Path) -> Any:
    direction.save(path, overwrite=True)
    return pack.pix2pix_zero_core.load_direction(path)


DOUBLED = f"clip_l.encode_token_weights by {__name__}.doubled"


@pytest.mark.parametrize(
    ("change", "setting", "own", "value", "remedy"),
    [
        (lambda clip: skipped(clip, -3), "clip skip", "-1", "-3", "set it alike with CLIP Set Last Layer"),
        (with_double_tokens, "patches", "none", DOUBLED, "take both CLIPs from behind the node that patches them"),
    ],
    ids=["clip skip", "patches"],
)
@pytest.mark.parametrize("form", ["mean by position", "aligned to words"])
@torch.inference_mode()
def test_a_saved_direction_is_refused_where_the_encoder_is_set_differently(
    pack: Any,
    make_clip: Callable[..., Any],
    tmp_path: Path,
    change: Callable[[Any], Any],
    setting: str,
    own: str,
    value: str,
    remedy: str,
    form: str,
):
    clip = make_clip("SD1")
    changed = change(clip)

    def direction(clip: Any) -> Any:
        built, _ = pack.nodes.EditDirection.execute(
            clip, "custom", "a cat\nmy cat", "a dog\nmy dog", 5, form=form
        ).result
        return saved_and_loaded(pack, built, tmp_path / "cat2dog.safetensors")

    def apply(direction: Any, clip: Any) -> Any:
        source = clip.encode_from_tokens_scheduled(clip.tokenize("a cat"))
        return pack.nodes.ApplyEditDirection.execute(source, direction, clip, 1.0).result[0][0][0]

    plain, other = direction(clip), direction(changed)
    for built, encoder in ((plain, clip), (other, changed), (other, change(clip)), (plain, clip)):
        assert torch.isfinite(apply(built, encoder)).all()
    for built, encoder, ours, theirs in ((plain, changed, own, value), (other, clip, value, own)):
        with pytest.raises(ValueError, match="was made by the prompt's text encoder, but set differently") as refusal:
            apply(built, encoder)
        assert f"{setting} {ours}, the prompt's is {theirs} ({remedy}" in str(refusal.value)
        assert "build the direction again with the CLIP that encodes the prompt" in str(refusal.value)
    with pytest.raises(ValueError, match=r"The weights are another checkpoint's\. Build the direction again"):
        apply(other, make_clip("SD1", seed=1))


@torch.inference_mode()
def test_another_length_of_chunks_is_another_encoder(pack: Any, make_clip: Callable[..., Any]):
    clip, name = make_clip("SDXL"), pack.nodes.text_encoder.encoder_fingerprint
    padded = clip.clone()
    padded.set_tokenizer_option("clip_l_min_length", 60)
    assert name(padded) == name(clip), "chunks are filled up to 77 in any case"
    padded.set_tokenizer_option("clip_l_min_length", 154)
    assert name(padded) == f"{name(clip)}; chunk length: 77 and 154 instead of 77"
    built, _ = pack.nodes.EditDirection.execute(clip, "custom", "a cat\nmy cat", "a dog\nmy dog", 5).result
    source = clip.encode_from_tokens_scheduled(clip.tokenize("a cat"))
    with pytest.raises(ValueError, match=r"chunk length 77, the prompt's is 77 and 154 .give both the same tokenizer"):
        pack.nodes.ApplyEditDirection.execute(source, built, padded, 1.0)


@torch.inference_mode()
def test_what_is_patched_shows_in_no_other_clone(pack: Any, make_clip: Callable[..., Any]):
    clip, name = make_clip("SDXL"), pack.nodes.text_encoder.encoder_fingerprint
    plain, patched = name(clip), name(with_double_tokens(clip))
    assert plain != patched
    wrapped, doubling = clip.clone(), with_double_tokens(clip)
    layer = "clip_g.transformer.text_model.final_layer_norm"
    wrapped.patcher.add_object_patch(layer, torch.nn.Sequential(wrapped.patcher.get_model_object(layer)))
    wrapped_name = name(wrapped)
    for loaded in (doubling, wrapped, clip):
        encode_alone(loaded, "a cat")
        assert (name(clip), name(doubling), name(wrapped)) == (plain, patched, wrapped_name)
    encode = clip.cond_stage_model.clip_g.encode_token_weights
    clip.cond_stage_model.clip_g.encode_token_weights = partial(doubled, encode)  # without ComfyUI's patches
    assert DOUBLED.replace("clip_l", "clip_g") in name(clip)


@pytest.mark.parametrize(("family", "own", "layer"), [("SD1", -1, -2), ("SD2", -2, -1), ("SDXL", -2, -1)])
@torch.inference_mode()
def test_directions_of_0_1_0_are_known_with_their_clip_skip(
    pack: Any, make_clip: Callable[..., Any], family: str, own: int, layer: int
):
    clip = make_clip(family)
    built, _ = pack.nodes.EditDirection.execute(clip, "custom", "a cat\nmy cat", "a dog\nmy dog", 5).result
    source = clip.encode_from_tokens_scheduled(clip.tokenize("a cat"))

    def apply(made_by: Any, used: Any) -> None:
        old = dataclasses.replace(built, encoder=fingerprint_of_0_1_0(made_by))
        pack.nodes.ApplyEditDirection.execute(source, old, used, 1.0)

    same, other = skipped(clip, own), skipped(clip, layer)
    for made_by, used in ((clip, clip), (clip, same), (same, clip), (same, same), (other, other)):
        apply(made_by, used)
    with pytest.raises(ValueError, match=f"clip skip {layer}, the prompt's is {own}"):
        apply(other, clip)
    with pytest.raises(ValueError, match=f"clip skip {own}, the prompt's is {layer}"):
        apply(clip, other)


# --- Ready-made edits


def test_a_ready_made_edit_is_computed_once_with_progress(
    pack: Any,
    make_clip: Callable[..., Any],
    progress: list[tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
):
    module, clip, encoded = pack.nodes.directions, make_clip("SD1"), list[str]()
    monkeypatch.setattr(module, "_built", {})
    monkeypatch.setattr(
        module, "encode", lambda clip, batch: (encoded.extend(batch), (torch.zeros(len(batch), 77, 32), None))[1]
    )
    built = [module.EditDirection.execute(clip, "day2night", "", "", 1).result[0] for _ in range(2)]
    assert built[0] is built[1] and built[0].name == "day -> night"
    days, nights, *_ = load_edit("day2night")
    assert encoded == days + nights
    assert progress[0] == (32, 800) and progress[-1] == (800, 800)


@pytest.mark.parametrize(
    ("edit", "reverse"),
    [
        ("cat2dog", "dog2cat"),
        ("horse2zebra", "zebra2horse"),
        ("cat2glasses", "glasses2cat"),
        ("sketch2oil", "oil2sketch"),
    ],
)
@torch.inference_mode()
def test_the_directions_of_tiny_zoo_are_what_its_encoder_makes(pack: Any, edit: str, reverse: str):
    import comfy.sd

    checkpoint = ROOT / "tiny_zoo" / "weights" / "checkpoints" / "tiny_zoo.safetensors"
    clip = comfy.sd.load_checkpoint_guess_config(str(checkpoint), output_model=False, output_vae=False)[1]
    loaded, back = (
        pack.nodes.LoadEditDirection.execute(f"tiny_zoo/{name}.safetensors").result[0] for name in (edit, reverse)
    )
    inputs = {"source": "", "target": "", "sentences": 1, "form": loaded.form}
    built, _ = pack.nodes.EditDirection.execute(clip, f"tiny_zoo/{edit}", **inputs).result
    for name in ("encoder", "name", "sentences"):
        assert getattr(loaded, name) == getattr(built, name), "run `python -m tiny_zoo.build_directions`"
    source = clip.encode_from_tokens_scheduled(clip.tokenize("a cat wearing glasses and a horse, pencil sketch"))
    inputs = {"clip": clip, "strength": 1.0, "caption": "a cat wearing glasses and a horse, pencil sketch"}
    targets = [
        pack.nodes.ApplyEditDirection.execute(source, direction, **inputs).result[0][0][0]
        for direction in (loaded, built)
    ]
    torch.testing.assert_close(*targets, rtol=1e-3, atol=1e-3)
    assert (back.source, back.target, back.encoder) == (loaded.target, loaded.source, loaded.encoder)


def test_every_edit_of_tiny_zoo_is_precomputed():
    assert {path.stem for path in TINY_ZOO.glob("*.safetensors")} == set(read_edits(TINY_ZOO))


def test_the_kind_of_a_word_chooses_its_sentences(pack: Any):
    texts = pack.nodes.directions._custom_edit("marble", "gold", 50, "material")
    assert all("marble" in source and "gold" in target for source, target in zip(*texts[:2], strict=True))
    assert texts[2:] == ("marble", "gold")
    assert texts[0] != pack.nodes.directions._custom_edit("marble", "gold", 50, "thing")[0]


@pytest.mark.parametrize(("source", "target"), [("cat", "a cat"), ("Cat", "cat "), ("a\ncat", "A\n\nCAT")])
def test_texts_that_say_the_same(pack: Any, source: str, target: str):
    with pytest.raises(ValueError, match=r"source and target are both .* the direction between them is zero"):
        pack.nodes.directions._custom_edit(source, target, 20, "pet")


def test_sentence_lists_are_named_by_what_they_are_about(pack: Any):
    source = "a cat on a sofa\nmy cat sleeps\nthere is a cat"
    assert pack.nodes.directions._custom_edit(source, "a dog\nmy dog sleeps", 1, "thing")[2:] == ("cat", "dog")


# --- In a live server


@pytest.fixture
def folder(base: Path) -> Path:
    """models/edit_directions, empty."""
    folder = base / "models" / "edit_directions"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def read_direction(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    with safe_open(path, framework="pt") as file:
        return file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def options(server: Server, node: str, name: str) -> list[str]:
    """What a combo offers."""
    return server.get(f"/object_info/{node}")[node]["input"]["required"][name][1]["options"]


def fails(server: Server, graph: Any, *words: str) -> None:
    with pytest.raises(Failure) as caught:
        server.run(graph.workflow)
    assert not [word for word in words if word not in str(caught.value)], str(caught.value)


def save(graph: Any, name: str, node: str = "", overwrite: bool = False) -> str:
    """Save a direction."""
    return graph.add(
        "Pix2PixZeroSaveEditDirection", direction=[node or graph.direction, 0], name=name, overwrite=overwrite
    )


def test_a_saved_direction_edits_as_the_one_it_was(
    server: Server, folder: Path, edit_graph: EditGraph, latent: Callable[[Any], torch.Tensor]
):
    graph = edit_graph()
    note = save(graph, "cat2dog")
    saved = graph.save(graph.sampler)
    outputs = server.run(graph.workflow)
    expected = latent(outputs[saved])
    assert outputs[note]["text"] == ["cat -> dog, mean by position, saved as cat2dog.safetensors"]
    assert [path.name for path in folder.iterdir()] == ["cat2dog.safetensors"]
    metadata, _ = read_direction(folder / "cat2dog.safetensors")
    assert metadata.pop("encoder").startswith("_ClipModel-")
    assert metadata == {
        **{"format": "pix2pix-zero edit direction", "version": "1", "source": "cat", "target": "dog"},
        **{"source_sentences": "2", "target_sentences": "2", "form": "mean by position"},
    }
    shipped = [f"tiny_zoo/{edit}.safetensors" for edit in sorted(read_edits(TINY_ZOO))]
    assert options(server, "Pix2PixZeroLoadEditDirection", "file") == ["cat2dog.safetensors", *shipped]
    graph = edit_graph()
    loaded = graph.add("Pix2PixZeroLoadEditDirection", file="cat2dog.safetensors")
    graph.set(graph.target, direction=[loaded, 0])
    saved = graph.save(graph.sampler)
    assert torch.equal(latent(server.run(graph.workflow)[saved]), expected)


def test_a_direction_that_comes_with_the_pack_fits_its_model(server: Server, edit_graph: EditGraph):
    graph = edit_graph("tiny_zoo.safetensors")
    loaded = graph.add("Pix2PixZeroLoadEditDirection", file="tiny_zoo/cat2dog.safetensors")
    graph.set(graph.target, direction=[loaded, 0])
    saved = graph.save(graph.sampler)
    assert server.run(graph.workflow)[saved]["latents"]


def test_a_direction_of_another_encoder_is_refused_from_disk_too(server: Server, folder: Path, edit_graph: EditGraph):
    graph = edit_graph("other_zoo.safetensors")
    save(graph, "other")
    server.run(graph.workflow)
    graph = edit_graph()
    loaded = graph.add("Pix2PixZeroLoadEditDirection", file="other.safetensors")
    graph.set(graph.target, direction=[loaded, 0])
    graph.save(graph.sampler)
    fails(server, graph, "ApplyEditDirection", "was made by text encoder", "load the checkpoint that made it")


def test_a_sum_of_directions(server: Server, folder: Path, edit_graph: EditGraph):
    graph = edit_graph()
    inputs = graph.workflow[graph.direction]["inputs"] | {"target": "a zebra\na drawing of a zebra"}
    zebra = graph.add("Pix2PixZeroEditDirection", **inputs)
    both = graph.add(
        "Pix2PixZeroCombineEditDirections",
        **{"direction_1": [graph.direction, 0], "direction_2": [zebra, 0], "weight_1": 1.0, "weight_2": 0.5},
    )
    for name, node in (("dog", graph.direction), ("zebra", zebra), ("both", both)):
        save(graph, name, node)
    server.run(graph.workflow)
    vectors = {name: read_direction(folder / f"{name}.safetensors")[1]["vector"] for name in ("dog", "zebra", "both")}
    torch.testing.assert_close(vectors["both"], vectors["dog"] + 0.5 * vectors["zebra"])
    assert read_direction(folder / "both.safetensors")[0]["target"] == "dog + zebra"


def test_aligned_directions_are_saved_loaded_and_added(server: Server, folder: Path, edit_graph: EditGraph):
    graph = edit_graph()
    graph.set(graph.direction, **ALIGNED)
    note = save(graph, "aligned")
    assert server.run(graph.workflow)[note]["text"] == ["cat -> dog, aligned to words, saved as aligned.safetensors"]
    assert read_direction(folder / "aligned.safetensors")[0]["form"] == "aligned to words"
    graph = edit_graph()
    loaded = graph.add("Pix2PixZeroLoadEditDirection", file="aligned.safetensors")
    inputs = {"direction_2": [loaded, 0], "weight_1": 1.0, "weight_2": 0.5}
    both = graph.add("Pix2PixZeroCombineEditDirections", direction_1=[loaded, 0], **inputs)
    graph.set(graph.target, direction=[both, 0], caption="a drawing of a cat")
    saved = graph.save(graph.sampler)
    outputs = server.run(graph.workflow)
    assert outputs[saved]["latents"] and outputs[graph.target]["pix2pix_zero_warning"] == [""]
    graph.set(both, direction_1=[graph.direction, 0])
    fails(server, graph, "CombineEditDirections", "is aligned to words", "is mean by position")


def test_nothing_is_overwritten_without_being_asked(server: Server, folder: Path, edit_graph: EditGraph):
    for name in ("cat2dog.safetensors", "cat.txt"):
        (folder / name).write_text("old")

    def graphs(overwrite: bool) -> dict[str, Any]:
        direction, sentences = edit_graph(), edit_graph()
        save(direction, "cat2dog.safetensors", overwrite=overwrite)
        sentences.add("Pix2PixZeroSaveSentences", sentences="a cat\n", name="cat", overwrite=overwrite)
        return {"cat2dog.safetensors": direction, "cat.txt": sentences}

    for file, graph in graphs(overwrite=False).items():
        fails(server, graph, f"{file} exists. Choose another name, or switch overwrite on")
    assert {path.read_text() for path in folder.iterdir()} == {"old"}
    for graph in graphs(overwrite=True).values():
        server.run(graph.workflow)
    assert (folder / "cat.txt").read_text() == "a cat\n"
    read_direction(folder / "cat2dog.safetensors")


@pytest.mark.parametrize("name", ["../escape", "/tmp/escape", "a/b", "a\\b", "..", "", ".hidden", "C:escape", "a\nb"])
def test_names_cannot_leave_the_folder(server: Server, folder: Path, edit_graph: EditGraph, name: str):
    before = sorted(folder.parent.iterdir())
    for class_type, inputs in (
        ("Pix2PixZeroSaveEditDirection", {"overwrite": True}),
        ("Pix2PixZeroSaveSentences", {"overwrite": True, "sentences": "a cat"}),
    ):
        graph = edit_graph()
        inputs = inputs if "sentences" in inputs else inputs | {"direction": [graph.direction, 0]}
        graph.add(class_type, name=name, **inputs)
        fails(server, graph, class_type, "cannot be a file name")
    assert sorted(folder.parent.iterdir()) == before and not list(folder.iterdir())


UNLISTED = ["../checkpoints/random_zoo.safetensors", "/etc/passwd", "nothing.safetensors"]


@pytest.mark.parametrize("name", UNLISTED)
@pytest.mark.parametrize("node", ["LoadEditDirection", "LoadSentences", "ImportEditDirection"])
def test_only_listed_files_are_read(server: Server, folder: Path, edit_graph: EditGraph, node: str, name: str):
    """Newer releases compare the choice with the list themselves; before, the node does."""
    graph = edit_graph()
    if node == "ImportEditDirection":
        loaded = graph.add(f"Pix2PixZero{node}", clip=[graph.checkpoint, 1], source=name, target=name)
    else:
        loaded = graph.add(f"Pix2PixZero{node}", file=name)
    graph.add("PreviewAny", source=[loaded, 0])
    fails(server, graph, node, repr(name))


@pytest.mark.parametrize("name", UNLISTED)
@pytest.mark.parametrize(
    ("node", "inputs"),
    [("LoadEditDirection", ["file"]), ("LoadSentences", ["file"]), ("ImportEditDirection", ["source", "target"])],
)
def test_a_file_that_is_not_listed(
    pack: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, node: str, inputs: list[str], name: str
):
    monkeypatch.setattr(pack.nodes.files, "roots", lambda kind="": [tmp_path])
    clip = {"clip": None} if node == "ImportEditDirection" else {}
    with pytest.raises(FileNotFoundError, match=rf"There is no file {name!r} in models/edit_directions; it has: none"):
        getattr(pack.nodes, node).execute(**clip, **dict.fromkeys(inputs, name))


@pytest.mark.parametrize("content", [b"", b"no safetensors", b"\x08\0\0\0\0\0\0\0{}      "])
def test_corrupt_directions(server: Server, folder: Path, edit_graph: EditGraph, content: bytes):
    (folder / "bad.safetensors").write_bytes(content)
    graph = edit_graph()
    loaded = graph.add("Pix2PixZeroLoadEditDirection", file="bad.safetensors")
    graph.add("PreviewAny", source=[loaded, 0])
    fails(server, graph, "LoadEditDirection", "bad.safetensors")


def import_graph(graph: Any) -> Any:
    imported = graph.add("Pix2PixZeroImportEditDirection", clip=[graph.checkpoint, 1], source="cat.pt", target="dog.pt")
    graph.set(graph.target, direction=[imported, 0])
    save(graph, "imported", imported, overwrite=True)
    graph.save(graph.sampler)
    return graph


def test_embeddings_of_the_original_project(server: Server, folder: Path, edit_graph: EditGraph):
    graph = edit_graph()
    save(graph, "own")
    server.run(graph.workflow)
    own = read_direction(folder / "own.safetensors")[1]["vector"]
    torch.save(torch.zeros(1, *own.shape), folder / "cat.pt")
    torch.save(own[None].half(), folder / "dog.pt")
    assert options(server, "Pix2PixZeroImportEditDirection", "target") == ["cat.pt", "dog.pt"]
    server.run(import_graph(edit_graph()).workflow)
    metadata, tensors = read_direction(folder / "imported.safetensors")
    torch.testing.assert_close(tensors["vector"], own, rtol=1e-3, atol=1e-3)
    assert (metadata["source"], metadata["target"], metadata["source_sentences"]) == ("cat", "dog", "0")


class Payload:
    """What a malicious file would run when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.mkdir, (self.path,))


def test_bad_embeddings(server: Server, folder: Path, tmp_path: Path, edit_graph: EditGraph):
    torch.save(torch.zeros(77, 64), folder / "cat.pt")
    for content, words in (
        (Payload(tmp_path / "ran"), ("dog.pt", "holds no tensor that can be read safely")),
        (torch.zeros(5, 64), ("come from different text encoders",)),
        (torch.zeros(77, 3), ("come from different text encoders",)),
    ):
        torch.save(content, folder / "dog.pt")
        fails(server, import_graph(edit_graph()), "ImportEditDirection", *words)
    assert not (tmp_path / "ran").exists()
    for name in ("cat.pt", "dog.pt"):
        torch.save(torch.zeros(77, 768), folder / name)
    words = ("hold (77, 768) (tokens, width), the text encoder makes (77, ", "Stable Diffusion 1.4")
    fails(server, import_graph(edit_graph()), "ImportEditDirection", *words)


# --- Sentences as text


def test_sentences_are_written_saved_loaded_and_used(server: Server, folder: Path, edit_graph: EditGraph):
    graph = edit_graph()
    settings = {"count": 30, "seed": 3, "temperature": 1.0, "kind": "pet"}
    for animal in ("cat", "dog"):
        written = graph.add("Pix2PixZeroWriteSentences", concept=animal, writer="grammar", **settings)
        graph.add("Pix2PixZeroSaveSentences", sentences=[written, 0], name=f"my {animal}s", overwrite=False)
    server.run(graph.workflow)
    lines = (folder / "my cats.txt").read_text(encoding="utf-8").splitlines()
    assert len(set(lines)) == 30 and all(re.search(r"\bcats?\b", line) for line in lines)

    with (folder / "my cats.txt").open("a", encoding="utf-8") as file:
        file.write("one more: a café cat\n")
    graph = edit_graph()
    texts = {
        name: [graph.add("Pix2PixZeroLoadSentences", file=f"my {animal}s.txt"), 0]
        for name, animal in (("source", "cat"), ("target", "dog"))
    }
    graph.set(graph.direction, **texts)
    save(graph, "mine")
    server.run(graph.workflow)
    metadata, _ = read_direction(folder / "mine.safetensors")
    assert [metadata[key] for key in ("source", "source_sentences", "target", "target_sentences")] == [
        *("cat", "31"),
        *("dog", "30"),
    ]


def test_shipped_banks_can_be_read(server: Server, folder: Path, edit_graph: EditGraph):
    (folder / "own.txt").write_text("a cat")
    offered = options(server, "Pix2PixZeroLoadSentences", "file")
    assert offered[0] == "own.txt" and {"cat", "cat with glasses", "tiny_zoo/cat"} <= set(offered)
    graph = edit_graph()
    shown = graph.add("PreviewAny", source=[graph.add("Pix2PixZeroLoadSentences", file="tiny_zoo/cat"), 0])
    (text,) = server.run(graph.workflow)[shown]["text"]
    assert len(text.splitlines()) == 200


def test_a_list_that_is_not_utf8(server: Server, folder: Path, edit_graph: EditGraph):
    (folder / "latin.txt").write_bytes("a café".encode("latin-1"))
    graph = edit_graph()
    graph.add("PreviewAny", source=[graph.add("Pix2PixZeroLoadSentences", file="latin.txt"), 0])
    fails(server, graph, "LoadSentences", "latin.txt is not UTF-8 (byte 5); save it as UTF-8 text")


@pytest.fixture(scope="module")
def language_model(base: Path) -> str:
    """A causal model of random weights on a few words, in models/LLM."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    folder = base / "models" / "LLM" / "some" / "tiny"
    words = ["<end>", "<unknown>", "\n", "\n", "a", "cat", "dog", "on", "the", "sofa", "old", "sleeping", "cat"]
    words = [f"{word}{' ' * words[:i].count(word)}" for i, word in enumerate(words)]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unknown>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    special = {"eos_token": "<end>", "unk_token": "<unknown>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(words), n_embd=16, n_layer=1, n_head=2, eos_token_id=0, bos_token_id=0)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return "some/tiny"


def test_a_language_model_writes(server: Server, folder: Path, language_model: str, edit_graph: EditGraph):
    assert language_model in options(server, "Pix2PixZeroWriteSentences", "writer")
    graph = edit_graph()
    settings = {"writer": language_model, "count": 10, "seed": 0, "temperature": 1.0}
    shown = [
        graph.add("PreviewAny", source=[graph.add("Pix2PixZeroWriteSentences", concept=text, **settings), 0])
        for text in ("cat", "cat ")
    ]
    outputs = server.run(graph.workflow)
    first, second = (outputs[node]["text"][0].splitlines() for node in shown)
    assert first == second and len(set(first)) == 10
    assert all("cat" in line.split() for line in first)


def test_bad_writers(server: Server, base: Path, edit_graph: EditGraph):
    broken = base / "models" / "LLM" / "broken"
    broken.mkdir(parents=True, exist_ok=True)
    (broken / "config.json").write_text("{}")
    settings = {"concept": "cat", "count": 10, "seed": 0, "temperature": 1.0}
    for writer, words in (
        ("nothing", ("'nothing'", "grammar")),
        ("../checkpoints", ("'../checkpoints'", "grammar")),
        ("broken", ("cannot be read as a language model",)),
    ):
        graph = edit_graph()
        graph.add("PreviewAny", source=[graph.add("Pix2PixZeroWriteSentences", writer=writer, **settings), 0])
        fails(server, graph, "WriteSentences", *words)


# --- From caption to edit


@pytest.mark.parametrize(
    ("caption", "strength", "words"),
    [
        ("two kittens on a sofa", 1.0, ""),
        ("a puppy on a sofa", 1.0, "already names 'dog', where this edit leads, and not 'cat'"),
        ("a puppy on a sofa", -1.0, ""),
        ("a zebra at night", 1.0, "does not name 'cat', where this edit starts, but 'zebra'"),
    ],
)
def test_an_edit_that_does_not_fit_the_caption_warns_and_goes_on(
    server: Server, edit_graph: EditGraph, caption: str, strength: float, words: str
):
    graph = edit_graph()
    graph.set(graph.target, caption=caption, strength=strength)
    shown = graph.add("PreviewAny", source=[graph.target, 1])
    saved = graph.save(graph.sampler)
    outputs = server.run(graph.workflow)
    assert outputs[saved]["latents"]
    (warning,) = outputs[shown]["text"]
    assert outputs[graph.target]["pix2pix_zero_warning"] == [warning]
    assert words in warning and bool(words) == bool(warning)
