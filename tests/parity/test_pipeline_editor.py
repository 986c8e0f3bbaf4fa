"""Edits with a diffusers pipeline: Tiny Zoo in diffusers' format, folders and checkpoints, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from pix2pix_zero_core import EditSettings, MapGuidance, NoiseRegularizer, ReplayedGuidance, StepInfo, edit, invert
from pix2pix_zero_core.integrations.diffusers import (
    PipelineEditor,
    device_of,
    encoder_fingerprint,
    load_pipeline,
)
from pix2pix_zero_core.integrations.sentences import EditSentences
from pix2pix_zero_core.schedule import ddim_sigmas
from tiny_zoo import pipeline as zoo
from tiny_zoo.captions import token_ids
from tiny_zoo.denoiser import TinyZoo
from tiny_zoo.training import pictures

TEXTS = EditSentences(["a cat", "a drawing of a cat"], ["a dog", "a drawing of a dog"], "cat", "dog")
QUICK = EditSettings(steps=4)


@pytest.fixture(scope="module")
def editor() -> PipelineEditor:
    pipeline = zoo.load_pipeline()
    pipeline.set_progress_bar_config(disable=True)
    return PipelineEditor(pipeline)


@pytest.fixture(scope="module")
def folder(editor: PipelineEditor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny_zoo"
    editor.pipeline.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def picture() -> torch.Tensor:
    """A scene, (1, 128, 128, 3) in 0..1."""
    return pictures(1, "test").movedim(1, -1).float() / 255


# ------------------------------------------------------------------------------------------------------- Tiny Zoo


@pytest.mark.parametrize("text", ["", "A drawing of a grey CAT, on the beach!", "a submarine of a cat", "cat " * 75])
def test_the_tokenizer_reads_as_in_training(text: str):
    read = zoo.tokenizer()(text, padding="max_length", max_length=77, truncation=True).input_ids
    assert read == token_ids(text)


def test_the_pipeline_computes_what_the_trained_networks_compute(editor: PipelineEditor, picture: torch.Tensor):
    trained = TinyZoo.load(zoo.CHECKPOINT)
    with torch.no_grad():
        latents = trained.vae.encode(picture.movedim(-1, 1))
        torch.testing.assert_close(editor.encode(picture), latents, rtol=1e-5, atol=1e-5)
        decoded = trained.vae.decode(latents).clamp(0, 1).movedim(1, -1)
        torch.testing.assert_close(editor.decode(latents), decoded, rtol=1e-5, atol=1e-5)
        embedding, pooled = editor.encode_text(["a cat", "a dog in the snow"])
        assert pooled is None
        torch.testing.assert_close(embedding, trained.encode_text(["a cat", "a dog in the snow"]))
        noise = editor.pipeline.unet(latents, 301.0, embedding[:1]).sample
        expected = trained.unet(latents, torch.tensor([301.0]), embedding[:1])
        torch.testing.assert_close(noise, expected, rtol=1e-4, atol=1e-5)


def test_the_converter_writes_a_folder_that_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.argv", ["pipeline", str(tmp_path / "zoo")])
    zoo.main()
    assert [path.name for path in tmp_path.iterdir()] == ["zoo"]
    assert isinstance(load_pipeline(tmp_path / "zoo"), StableDiffusionPipeline)
    with pytest.raises(SystemExit):
        zoo.main()


# ----------------------------------------------------------------------------------------------------------- edits


def test_an_edit_is_what_the_core_gives_on_the_trained_networks(editor: PipelineEditor, picture: torch.Tensor):
    """The same model by another road: Tiny Zoo's own networks, and the core's functions one by one."""
    trained = TinyZoo.load(zoo.CHECKPOINT)
    direction = editor.build_direction(TEXTS, form="mean by position")
    settings = dataclasses.replace(QUICK, noise_from="inversion", negative_from="inversion", cfg_start=0.0, region=0.0)
    inverted = editor.invert(picture, "a cat", settings)
    found = editor.decode(editor.edit(inverted, direction, 1.0, output_type="latent"))

    source = trained.encode_text(["a cat"])
    with torch.no_grad():
        latents = trained.vae.encode(picture.movedim(-1, 1))
    inversion = invert(trained, latents, source, ddim_sigmas(trained.sigmas, 4))
    target = direction.apply(source, encoder=editor.encoder)
    guided = ReplayedGuidance(trained, inversion, settings.cfg)
    edited = edit(trained, inversion, source, target, guided=guided, guidance=settings.guidance).edited
    with torch.no_grad():
        expected = trained.vae.decode(edited).clamp(0, 1).movedim(1, -1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


def test_an_aligned_direction_goes_to_the_word_of_each_caption(editor: PipelineEditor, picture: torch.Tensor):
    captions = ["a drawing of a cat", "in the snow an orange cat"]
    direction = editor.build_direction(TEXTS)
    inverted = editor.invert(picture.repeat(2, 1, 1, 1), captions, EditSettings(steps=1))
    shifted = editor.shift(inverted, direction)
    places = [5, 6]  # behind the start token
    for row, before, place in zip(shifted.embedding, inverted.embedding, places, strict=True):
        moved = (row - before).abs().amax(1) > 1e-4
        assert moved[place:].all() and not moved[:place].any()
    assert shifted.remarks == ()
    unknown = editor.shift(dataclasses.replace(inverted, tokens=None), direction)
    torch.testing.assert_close(unknown.embedding[0, 5], shifted.embedding[0, 5])
    assert len(unknown.remarks) == 2
    (token,) = editor.tokenize("Zebra!")
    assert (token.position, token.text) == (1, "zebra ")


def test_pictures_together_equal_each_alone(editor: PipelineEditor, picture: torch.Tensor):
    direction, captions = editor.build_direction(TEXTS), ["a cat", "an orange cat"]
    both = torch.cat([picture, picture.flip(2)])
    together = editor.edit(editor.invert(both, captions, QUICK), direction, output_type="pt")
    for index, caption in enumerate(captions):
        alone = editor.edit(editor.invert(both[index], caption, QUICK), direction, output_type="pt")
        torch.testing.assert_close(together[index], alone[0], rtol=0, atol=1e-3)


def test_strength_and_guidance_change_the_picture(editor: PipelineEditor, picture: torch.Tensor):
    direction, inverted = editor.build_direction(TEXTS), editor.invert(picture, ["a cat"], QUICK)
    full = editor.edit(inverted, direction, output_type="latent")
    free = dataclasses.replace(QUICK, guidance=MapGuidance(0.0))
    assert not torch.equal(full, editor.edit(inverted, direction, 0.5, output_type="latent"))
    assert not torch.equal(full, editor.edit(inverted, direction, settings=free, output_type="latent"))


def test_no_edit_leads_back_to_the_picture(editor: PipelineEditor, picture: torch.Tensor):
    plain = EditSettings(steps=10, regularizer=NoiseRegularizer(0, 0), fixed_point=10)
    inverted = editor.invert(picture, ["a cat"], plain)
    latents = editor.encode(picture)
    error = (editor.reconstruct(inverted) - latents).square().mean()
    assert error < 0.01 * latents.var()


def test_the_pipeline_is_left_as_it_was(editor: PipelineEditor, picture: torch.Tensor):
    unet = editor.pipeline.unet
    before = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    processors = dict(unet.attn_processors)
    editor.edit(editor.invert(picture, ["a cat"], QUICK), editor.build_direction(TEXTS), 1.0, QUICK)
    assert all(torch.equal(tensor, before[name]) for name, tensor in unet.state_dict().items())
    assert all(unet.attn_processors[name] is processor for name, processor in processors.items())
    assert all(parameter.grad is None for parameter in unet.parameters())


def tiny_xl(zoo_pipeline: StableDiffusionPipeline) -> StableDiffusionXLPipeline:
    """SDXL in small, with random weights: two text encoders, a pooled text, the picture's size."""
    torch.manual_seed(0)
    second = CLIPTextConfig(
        vocab_size=len(zoo_pipeline.tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, projection_dim=16, hidden_act="gelu",
        eos_token_id=zoo_pipeline.tokenizer.eos_token_id,
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=16, block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=128 + 32,
        attention_head_dim=(2, 4), transformer_layers_per_block=(1, 2), use_linear_projection=True,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=6 * 8 + 16,
    )  # fmt: skip
    return StableDiffusionXLPipeline(
        zoo_pipeline.vae, zoo_pipeline.text_encoder, CLIPTextModelWithProjection(second).eval(),
        zoo_pipeline.tokenizer, zoo_pipeline.tokenizer, unet, zoo_pipeline.scheduler,
    )  # fmt: skip


def test_an_xl_pipeline_edits_and_is_told_the_pooled_text_and_the_size(
    editor: PipelineEditor, picture: torch.Tensor, monkeypatch: pytest.MonkeyPatch
):
    xl = PipelineEditor(tiny_xl(editor.pipeline))
    direction = xl.build_direction(TEXTS, form="mean by position")
    assert direction.pooled is not None
    assert direction.pooled.shape == (16,)
    told = []
    forward = type(xl.pipeline.unet).forward
    monkeypatch.setattr(
        type(xl.pipeline.unet), "forward", lambda *x, **options: told.append(options) or forward(*x, **options)
    )
    wide = torch.cat([picture, picture], 2)[:, :64]
    inverted = xl.invert(wide, ["a cat"], QUICK)
    assert {tuple(options["added_cond_kwargs"]["time_ids"][0].tolist()) for options in told} == {
        (64, 256, 0, 0, 64, 256)
    }
    told.clear()
    edited = xl.edit(inverted, direction, 1.0, output_type="np")
    assert edited.shape == wide.shape
    shifted = inverted.pooled + direction.pooled
    assert any(torch.allclose(options["added_cond_kwargs"]["text_embeds"], shifted) for options in told)


# --------------------------------------------------------------------------------------------------------- loading


def test_a_folder_and_a_checkpoint_load_as_the_same_model(editor: PipelineEditor, folder: Path):
    for loaded in (load_pipeline(folder), load_pipeline(zoo.CHECKPOINT, config=folder)):
        other = PipelineEditor(loaded)
        assert other.encoder == editor.encoder
        assert other.side == 128
        for name, tensor in editor.pipeline.unet.state_dict().items():
            assert torch.equal(tensor, loaded.unet.state_dict()[name])


def test_precision_is_that_of_the_unet_while_the_vae_stays_in_float32(editor: PipelineEditor, folder: Path):
    loaded = load_pipeline(folder, dtype=torch.bfloat16)
    assert (loaded.unet.dtype, loaded.text_encoder.dtype, loaded.vae.dtype) == (
        torch.bfloat16,
        torch.bfloat16,
        torch.float32,
    )
    assert PipelineEditor(loaded).encoder == editor.encoder


def test_another_text_encoder_has_another_name(editor: PipelineEditor):
    encoder = editor.pipeline.text_encoder
    torch.manual_seed(0)
    assert encoder_fingerprint([type(encoder)(encoder.config)]) != editor.encoder


def test_what_is_missing_is_named(folder: Path, tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="There is no model at"):
        load_pipeline(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match=r"has no model_index\.json"):
        load_pipeline(tmp_path)
    with pytest.raises(ValueError, match=r"is no \.safetensors file"):
        pickle = tmp_path / "model.ckpt"
        pickle.write_bytes(b"x")
        load_pipeline(pickle)
    with pytest.raises(ValueError, match=r"cannot be read as a StableDiffusionPipeline .* Copy it anew"):
        broken = tmp_path / "broken"
        shutil.copytree(folder, broken)
        (broken / "unet" / "config.json").write_text("{")
        load_pipeline(broken)
    with pytest.raises(ValueError, match="is not a readable safetensors file"):
        empty = tmp_path / "empty.safetensors"
        empty.write_bytes(b"")
        load_pipeline(empty)
    with pytest.raises(ValueError, match="give a folder in diffusers' format of the same family as config"):
        load_pipeline(zoo.CHECKPOINT)


def test_diffusers_is_not_asked_for_a_configuration_since_it_would_go_online(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(StableDiffusionPipeline, "from_single_file", lambda *_, **__: pytest.fail("asked"))
    with pytest.raises(ValueError, match=r"the cache has none for it \(LocalEntryNotFoundError\)"):
        load_pipeline(zoo.CHECKPOINT)


@pytest.mark.parametrize("name", ["attn_implementation", "_attn_implementation"])
def test_an_attention_from_the_network_is_refused(folder: Path, tmp_path: Path, name: str):
    odd = Path(shutil.copytree(folder, tmp_path / "odd"))
    path = odd / "text_encoder" / "config.json"
    config = json.loads(path.read_text())
    for value in ("somebody/kernel", {"": "eager", "text_config": "somebody/kernel"}):
        path.write_text(json.dumps({**config, name: value}))
        for given in ({"path": odd}, {"path": zoo.CHECKPOINT, "config": odd}):
            with pytest.raises(ValueError, match=r"text_encoder.config\.json asks for the attention 'somebody/kernel'"):
                load_pipeline(**given)


def test_a_flow_transformers_checkpoint_wants_its_folder(tmp_path: Path):
    save_file({"model.diffusion_model.joint_blocks.0.x": torch.zeros(1)}, path := tmp_path / "sd35.safetensors")
    with pytest.raises(ValueError, match="is of a flow transformer; of these only a folder"):
        load_pipeline(path)


def test_a_vae_that_waits_elsewhere_is_given_pictures_where_it_computes(editor: PipelineEditor):
    vae = editor.pipeline.vae
    assert device_of(vae) == vae.device
    hook = SimpleNamespace(execution_device=torch.device("meta"))
    assert device_of(SimpleNamespace(_hf_hook=hook, device=torch.device("cpu"))) == torch.device("meta")


def test_other_pipelines_are_refused(folder: Path, tmp_path: Path):
    other = tmp_path / "pixart"
    other.mkdir()
    (other / "model_index.json").write_text(json.dumps({"_class_name": "PixArtAlphaPipeline"}))
    with pytest.raises(ValueError, match="holds a PixArtAlphaPipeline; it must be a StableDiffusionPipeline, a"):
        load_pipeline(other)
    inpainting = zoo.load_pipeline()
    inpainting.unet.register_to_config(in_channels=9)
    with pytest.raises(TypeError, match="takes 9 channels"):
        PipelineEditor(inpainting)


# --------------------------------------------------------------------------------------- what users of diffusers pass


def test_pictures_of_every_kind_are_read_alike(editor: PipelineEditor, picture: torch.Tensor):
    values = (picture[0] * 255).round().to(torch.uint8)
    image, expected = Image.fromarray(values.numpy()), editor.encode(values.float() / 255)
    channels_first = picture.movedim(-1, 1)
    for given in (
        image,
        [image],
        values.numpy(),
        values.numpy()[..., ::-1].copy()[..., ::-1],  # runs backwards, as what comes from OpenCV
        np.asarray(image),  # which cannot be written to
        values.numpy().astype(np.float32) / 255,
        [picture[0].numpy()],
        picture,
        channels_first,
        channels_first[0],
        [channels_first[0]],
        values,
    ):
        torch.testing.assert_close(editor.encode(given), expected, rtol=1e-4, atol=1e-4)
    assert len(editor.encode([image, image])) == len(editor.encode([picture, image])) == 2
    grey = image.convert("L")
    torch.testing.assert_close(editor.encode(grey), editor.encode(grey.convert("RGB")))


def test_a_photo_that_lies_on_its_side_is_turned_upright(editor: PipelineEditor, picture: torch.Tensor):
    image = Image.fromarray((picture[0, :64] * 255).to(torch.uint8).numpy())
    turned = image.transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[0x0112] = 6  # a quarter to the right, to be seen upright
    torch.testing.assert_close(editor.encode(turned), editor.encode(image))


def test_edited_pictures_come_in_the_forms_of_diffusers(editor: PipelineEditor, picture: torch.Tensor):
    inverted, direction = editor.invert(picture, "a cat", QUICK), editor.build_direction(TEXTS)
    latents = editor.edit(inverted, direction, output_type="latent")
    array, tensor = (editor.edit(inverted, direction, output_type=kind) for kind in ("np", "pt"))
    (image,) = editor.edit(inverted, direction)
    decoded = editor.decode(latents)
    assert torch.equal(decoded, torch.from_numpy(array)) and torch.equal(tensor, decoded.movedim(-1, 1))
    assert isinstance(image, Image.Image) and image.size == (128, 128)
    np.testing.assert_array_equal(np.array(image), (array[0] * 255).round().astype(np.uint8))
    with pytest.raises(ValueError, match="output_type is 'jpg'; it must be one of pil, np, pt, latent"):
        editor.edit(inverted, direction, output_type="jpg")


def test_a_caption_is_of_all_pictures_and_a_list_of_each(editor: PipelineEditor, picture: torch.Tensor):
    both, quick = picture.repeat(2, 1, 1, 1), EditSettings(steps=1)
    one, each = editor.invert(both, "a cat", quick), editor.invert(both, ["a cat", "a cat"], quick)
    assert torch.equal(one.embedding, each.embedding) and len(one.embedding) == 2
    assert torch.equal(editor.encode_text("a cat")[0], one.embedding[:1])


def test_the_settings_of_an_inversion_hold_for_its_edits(editor: PipelineEditor, picture: torch.Tensor):
    stronger = dataclasses.replace(QUICK, cfg=6.0)
    inverted, direction = editor.invert(picture, "a cat", stronger), editor.build_direction(TEXTS)
    usual = editor.edit(inverted, direction, output_type="latent")
    assert torch.equal(usual, editor.edit(inverted, direction, settings=stronger, output_type="latent"))
    assert not torch.equal(usual, editor.edit(inverted, direction, settings=QUICK, output_type="latent"))
    for name, value in (("steps", 50), ("regularizer", NoiseRegularizer(0, 0)), ("fixed_point", 3)):
        other = dataclasses.replace(QUICK, **{name: value})
        with pytest.raises(ValueError, match=rf"settings: {name} is .*, but the pictures were inverted with .*replace"):
            editor.edit(inverted, direction, settings=other)


def test_the_bars_are_those_of_the_pipeline(
    editor: PipelineEditor, picture: torch.Tensor, capsys: pytest.CaptureFixture[str]
):
    seen = list[int]()

    def note(step: StepInfo) -> None:
        seen.append(step.index)

    def go() -> str:
        inverted = editor.invert(picture, "a cat", QUICK, note)
        editor.reconstruct(inverted, note)
        editor.edit(inverted, editor.build_direction(TEXTS), on_step=note)
        return capsys.readouterr().err

    assert go() == ""
    editor.pipeline.set_progress_bar_config(desc="editing")
    try:
        said = go()
    finally:
        editor.pipeline.set_progress_bar_config(disable=True)
    assert sum("editing: 100%" in line for line in said.split("\n")) == 4 and "4/4" in said
    assert seen == 6 * [0, 1, 2, 3]


def test_a_negative_text_is_the_caption_or_another(editor: PipelineEditor, picture: torch.Tensor):
    """The same as ClassifierFreeGuidance by hand; the nodes' twin is in tests/comfy."""
    settings = dataclasses.replace(QUICK, negative_from="text", guidance=MapGuidance(0.0))
    inverted, direction = editor.invert(picture, "a cat", settings), editor.build_direction(TEXTS)
    found = {
        text: editor.edit(inverted, direction, settings=dataclasses.replace(settings, negative=text), output_type="pt")
        for text in (None, "a cat", "", "a dog")
    }
    assert torch.equal(found[None], found["a cat"])
    assert not torch.equal(found[None], found[""]) and not torch.equal(found[""], found["a dog"])


def test_bad_input_is_refused_by_name(editor: PipelineEditor, picture: torch.Tensor):
    with pytest.raises(TypeError, match=r"pictures: dtype torch\.int32"):
        editor.encode((picture * 255).to(torch.int32))
    with pytest.raises(TypeError, match=r"pictures are of type str; .* Open a file with PIL\.Image\.open"):
        editor.encode("cat.png")
    with pytest.raises(ValueError, match="pictures are an empty list"):
        editor.encode([])
    with pytest.raises(ValueError, match="pictures have the sizes 128 x 128, 128 x 64; a call takes"):
        editor.encode([picture, picture[:, :64]])
    for mode in ("RGBA", "P", "I;16"):
        with pytest.raises(ValueError, match=f"the mode of the image is {mode}; it must be RGB or L"):
            editor.encode(Image.new(mode, (64, 64)))
    for wrong in (picture * 255, picture * 2 - 1):
        with pytest.raises(ValueError, match=r"values from .* to .*; they must be from 0 to 1"):
            editor.encode(wrong)
    with pytest.raises(ValueError, match="multiples of 8"):
        editor.encode(picture[:, :100])
    with pytest.raises(ValueError, match="2 captions for 1 pictures"):
        editor.invert(picture, ["a cat", "a dog"], QUICK)
    with pytest.raises(ValueError, match=r"has 92 tokens; 77 is the most"):
        editor.encode_text(["cat " * 90])
    with pytest.raises(TypeError, match="captions: None is a NoneType; they must be texts"):
        editor.invert(picture, [None], QUICK)
    with pytest.raises(TypeError, match="texts: 1 is a int; they must be texts"):
        editor.encode_text([1])
    inverted, direction = editor.invert(picture, "a cat", EditSettings(steps=1)), editor.build_direction(TEXTS)
    with pytest.raises(TypeError, match=r"direction is 'cat2dog'; .* build_direction\(load_edit"):
        editor.edit(inverted, "cat2dog")
    with pytest.raises(ValueError, match="strength"):
        editor.edit(inverted, direction, float("nan"))
    with pytest.raises(TypeError, match=r"settings is {'steps': 1}; it must be EditSettings"):
        editor.invert(picture, "a cat", {"steps": 1})
    with pytest.raises(TypeError, match=r"settings is {'steps': 1}; it must be EditSettings"):
        editor.edit(inverted, direction, settings={"steps": 1})
    with pytest.raises(TypeError, match=r"inverted is a .*Direction; it must be what invert gave"):
        editor.edit(direction, inverted)


@pytest.mark.parametrize(("steps", "start"), [(2, 1.0), (1, 0.2)])
def test_an_edit_that_never_begins_is_a_warning(
    editor: PipelineEditor, picture: torch.Tensor, steps: int, start: float
):
    inverted = editor.invert(picture, "a cat", EditSettings(steps=steps, cfg_start=start))
    late = f"cfg_start is {start:g}, and with steps at {steps} none begins after it"
    with pytest.warns(UserWarning, match=late) as told:
        found = editor.edit(inverted, editor.build_direction(TEXTS), output_type="latent")
    assert len([warning for warning in told if "steps at" in str(warning.message)]) == 1
    torch.testing.assert_close(found, inverted.inversion.trajectory[-1], atol=1e-4, rtol=1e-4)


def test_guidance_that_ends_before_the_edit_begins_is_a_warning(editor: PipelineEditor, picture: torch.Tensor):
    inverted = editor.invert(picture, "a cat", EditSettings(steps=5, cfg_start=0.6))
    direction = editor.build_direction(TEXTS)
    with pytest.warns(UserWarning, match=r"no step is guided: with steps at 5 none begins from 0\.6 of them"):
        found = editor.edit(inverted, direction, output_type="latent")
    without = dataclasses.replace(inverted.settings, guidance=MapGuidance(0.0))
    torch.testing.assert_close(found, editor.edit(inverted, direction, settings=without, output_type="latent"))


def test_what_may_go_wrong_with_words_is_a_warning(editor: PipelineEditor, picture: torch.Tensor):
    inverted = editor.invert(picture, "an orange animal", EditSettings(steps=2))
    with pytest.warns(UserWarning, match="The edit goes to 'animal'"):
        editor.edit(inverted, editor.build_direction(TEXTS), output_type="latent")
    more = {"source_sentences": ["snow"], "target_sentences": ["a room at night"]}
    texts = TEXTS._replace(**{name: [*getattr(TEXTS, name), *sentences] for name, sentences in more.items()})
    with pytest.warns(UserWarning, match="2 of 6 sentences do nothing, 'snow' first"):
        editor.build_direction(texts)
