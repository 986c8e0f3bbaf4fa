"""What an artist meets first: any picture fits, settings that cannot work are named, sheets say what is what."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from authoring import workflows
from launcher.runtime import PACK, ROOT
from launcher.server import Server

# --- Fit Picture


def fit(pack: Any, height: int, width: int, how: str, side: int = 128) -> list[torch.Tensor]:
    image = torch.rand(2, height, width, 3, generator=torch.Generator().manual_seed(0))
    return pack.nodes.FitPicture.execute(image, None, how, side).args[0]


@pytest.mark.parametrize(("height", "width"), [(128, 128), (100, 333), (1000, 60), (57, 57), (3000, 2000)])
def test_any_picture_keeps_its_shape_in_whole_latent_pixels(pack: Any, height: int, width: int):
    first, second = fit(pack, height, width, "keep shape")
    assert first.shape == second.shape and len(first) == 1
    shape = first.shape[1:3]
    assert all(side % 8 == 0 and side >= 64 for side in shape)
    if min(height, width) * 4 > max(height, width):  # else the shorter side would be less than 64 pixels
        assert shape[0] * shape[1] == pytest.approx(128 * 128, rel=0.15)
        assert shape[1] / shape[0] == pytest.approx(width / height, rel=0.15)


@pytest.mark.parametrize("how", ["crop to square", "pad to square"])
@pytest.mark.parametrize(("height", "width"), [(100, 333), (1000, 60)])
def test_squares_are_cropped_from_the_middle_or_padded(pack: Any, height: int, width: int, how: str):
    (square, _) = fit(pack, height, width, how)
    assert square.shape == (1, 128, 128, 3)
    assert torch.isfinite(square).all()


def test_a_padded_picture_is_whole_and_its_edges_are_drawn_out(pack: Any):
    ramp = torch.linspace(0, 1, 64).expand(1, 32, 64)[..., None].expand(1, 32, 64, 3)
    (square,) = pack.nodes.FitPicture.execute(ramp, None, "pad to square", 64).args[0]
    assert torch.equal(square[0, 0], square[0, 16]) and torch.allclose(square[0, 32], ramp[0, 16], atol=0.02)


@pytest.mark.parametrize(
    ("height", "width", "how", "words"),
    [
        (7, 600, "keep shape", "The picture is 600 x 7 pixels; 78% of it was cut off its edges"),
        (7, 600, "pad to square", ""),
        (97, 301, "keep shape", ""),
        (68, 60, "keep shape", ""),
    ],
)
def test_a_picture_too_narrow_for_its_shape_is_not_cut_without_a_word(
    pack: Any, height: int, width: int, how: str, words: str
):
    output = pack.nodes.FitPicture.execute(torch.rand(1, height, width, 3), None, how, 128)
    (warning,) = output.ui["pix2pix_zero_warning"]
    assert words in warning and bool(warning) == bool(words)


def test_a_square_of_the_right_size_stays_as_it_is(pack: Any):
    image = torch.rand(1, 128, 128, 3)
    for how in pack.nodes.fitting.FITS:
        (fitted,) = pack.nodes.FitPicture.execute(image, None, how, 128).args[0]
        assert torch.allclose(fitted, image, atol=1 / 255)


def test_a_side_that_no_latent_has_is_refused(pack: Any):
    with pytest.raises(ValueError, match="side is 100; it must be a multiple of 8"):
        fit(pack, 64, 64, "crop to square", 100)
    with pytest.raises(ValueError, match="fit is 'stretch'; choose one of keep shape, crop"):
        fit(pack, 64, 64, "stretch")


def test_the_model_says_what_it_was_trained_on(pack: Any, load_checkpoint: Callable[[str], Any], load_family: Any):
    trained_side = pack.nodes.fitting.trained_side
    assert trained_side(load_checkpoint("random_zoo.safetensors")[0]) == 128
    assert trained_side(load_family("SD 1")[0]) == 512
    assert trained_side(load_family("SDXL")[0]) == 1024


# --- Values to Try, Contact Sheet


def test_each_value_has_its_words(pack: Any):
    assert pack.nodes.ValuesToTry.execute("0, .5,1", "cfg").args == ([0.0, 0.5, 1.0], ["cfg 0", "cfg 0.5", "cfg 1"])
    with pytest.raises(ValueError, match=r"values is '1; 2'; write numbers with commas"):
        pack.nodes.ValuesToTry.execute("1; 2", "")
    with pytest.raises(ValueError, match=r"values is '1, nan'; write numbers with commas"):
        pack.nodes.ValuesToTry.execute("1, nan", "")


def test_a_contact_sheet_has_a_line_below_every_picture(pack: Any):
    sheet = pack.nodes.ContactSheet.execute
    images = [torch.zeros(1, 64, 64, 3), torch.zeros(1, 32, 32, 3)]
    (plain,), (shown,) = (
        sheet(images, captions, [torch.zeros(1, 64, 64, 3)]).args[0] for captions in (["", ""], ["one", "two"])
    )
    assert plain.shape == shown.shape and shown.shape[1] == 3 * 64 + 2 * 8
    assert torch.equal(plain[:64], shown[:64])
    for left in (72, 144):
        assert not torch.equal(plain[64:, left : left + 64], shown[64:, left : left + 64])
    with pytest.raises(ValueError, match="captions has 1 lines for 2 pictures"):
        sheet(images, ["one"])


# --- Warnings


def test_words_beside_a_named_edit_and_unknown_words_are_told(pack: Any, load_checkpoint: Callable[[str], Any]):
    _, clip, _ = load_checkpoint("random_zoo.safetensors")

    def warning(edit: str, source: str = "", target: str = "", **form: str) -> str:
        with torch.inference_mode():
            output = pack.nodes.EditDirection.execute(clip, edit, source, target, 4, **form)
        assert output.ui["pix2pix_zero_warning"] == [output.args[1]]
        return output.args[1]

    for edit in pack.nodes.directions.named_edits():
        assert not edit.startswith("tiny_zoo/") or warning(edit) == "", edit
    idle = warning("tiny_zoo/cat2dog", "a lion", "a mouse")
    assert "source ('a lion') and target ('a mouse') did nothing: edit is tiny_zoo/cat2dog. Set edit to custom" in idle
    assert warning("custom", "cat", "dog") == ""
    pairs, alone = ("a drawing of a cat", "a drawing of a dog"), ("a ginger cat in the snow", "the sand")
    lines = ["\n".join(texts) for texts in zip(pairs, alone, strict=True)]
    idle = warning("custom", *lines, form="aligned to words")
    assert "2 of your sentences did nothing, 'a ginger cat in the snow' first: no line of the other text" in idle
    assert "did nothing" not in warning("custom", *lines)
    assert "did nothing" not in warning("custom", *pairs, form="aligned to words")
    assert "does not know 'quokka': the edit may lead anywhere." in warning("custom", "cat", "a quokka")
    assert "more words: the edit may lead anywhere. Choose an edit that is made for it." in warning("horse2zebra")


def test_an_encoder_that_spells_every_word_knows_them_all(pack: Any, load_family: Any):
    assert pack.nodes.text_encoder.unknown_words(load_family("SD 1")[1], "a quokka") == []


@pytest.mark.parametrize(
    ("changed", "cfg", "words"),
    [
        ({"cfg_start": 1.0}, 3.0, "with steps at 4 none begins after it: classifier-free guidance acts at none"),
        ({"cfg_start": 0.8}, 3.0, "cfg_start is 0.8, and with steps at 4 none begins"),
        ({"cfg_start": 0.75}, 3.0, ""),
        ({"cfg_start": 1.0}, 1.0, ""),
        (
            {"cfg_start": 0.8, "noise_from": "fresh"},
            1.0,
            "none begins after it: nothing is edited",
        ),
        ({"cfg_start": 0.75, "noise_from": "fresh"}, 5.0, ""),
        (
            {"cfg_start": 0.75, "guidance_end": 0.7, "noise_from": "fresh"},
            5.0,
            "guidance is 5, but no step is guided: with steps at 4 none begins from 0.75 of them",
        ),
        ({}, 3.0, ""),
        ({}, None, ""),
        ({}, 1.0, ""),
        ({"noise_from": "fresh"}, 1.0, "cfg is 1: most models hardly follow a text at that"),
        ({"negative_from": "inversion"}, 3.0, "edits hardly show. If so, set it to text."),
        ({"negative_from": "inversion"}, 1.0, ""),
        ({"negative_from": "inversion"}, None, "edits hardly show. If so, set it to text."),
        ({}, 0.0, "cfg is 0: the target text is not followed"),
        ({}, 50.0, "cfg is 50: so much breaks"),
        ({"guidance": 1000.0}, 3.0, "guidance is 1000: so much breaks"),
        ({"guidance": 1000.0, "unit": "paper"}, 3.0, ""),
        ({"guidance_start": 0.5, "guidance_end": 0.5}, 3.0, "no step is guided"),
    ],
)
def test_extreme_settings_say_what_they_will_do(pack: Any, changed: dict[str, Any], cfg: float | None, words: str):
    usual = {"guidance": 5.0, "unit": "normalized", "guidance_start": 0.0, "guidance_end": 0.8, "negative_from": "text"}
    inversion = pack.pix2pix_zero_core.Inversion(torch.zeros(1, 4, 8, 8), torch.linspace(14, 0, 5))
    warning = pack.nodes.guidance_settings.Settings(**usual | changed).warning(inversion, [], None, cfg)
    assert words in warning and bool(warning) == bool(words)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"guidance": -0.5}, r"guidance is -0\.5; it must be 0, which holds nothing, or more"),
        ({"guidance": math.inf}, "guidance is inf"),
        ({"guidance_start": -1.0}, r"guidance_start is -1\.0; it must be between 0 and 1"),
        ({"guidance_end": 2.0}, r"guidance_end is 2\.0; it must be between 0 and 1"),
        ({"finest_layer": 0}, "finest_layer is 0; it must be 1 to 8"),
        ({"checkpointing": "bogus"}, "checkpointing is 'bogus'; it must be one of on demand, always, never"),
    ],
)
def test_settings_out_of_range_are_named_as_the_nodes_name_them(pack: Any, changed: dict[str, Any], words: str):
    """Widgets have limits, but what is linked to them is not checked by ComfyUI."""
    usual = {"guidance": 0.2, "unit": "share", "guidance_start": 0.2, "guidance_end": 0.6}
    with pytest.raises(ValueError, match=f"^{words}"):
        pack.nodes.guidance_settings.Settings(**usual | changed)


@pytest.mark.parametrize(("masks", "taken"), [([7], [7]), ([0, 1], [1, 0, 1]), ([0, 1, 2, 3], [1, 2, 3])])
def test_pictures_out_of_a_batch_keep_their_masks(pack: Any, masks: list[int], taken: list[int]):
    """ComfyUI repeats masks where there are fewer than pictures."""
    inversion = pack.nodes.types.ModelInversion(
        torch.zeros(4, 4, 8, 8), torch.linspace(14, 0, 5), mask=torch.tensor(masks).view(-1, 1, 1, 1)
    )
    assert inversion.of([1, 2, 3]).mask.flatten().tolist() == taken


def test_texts_that_do_not_belong_together_are_told(pack: Any):
    settings = pack.nodes.guidance_settings.Settings(5.0, "normalized", 0.0, 0.8, negative_from="text")
    cat, dog = torch.zeros(1, 77, 8), torch.ones(1, 77, 8)
    given: dict[str, Any] = {"noise": torch.zeros(1, 4, 8, 8), "sigmas": torch.linspace(14, 0, 5)}
    unknown = pack.nodes.types.ModelInversion(**given)
    assert "no edit is made" in settings.warning(unknown, [[cat, {}]], [[cat.clone(), {}]], 5.0)
    for target in ([[dog, {}]], [[cat, {}], [dog, {}]], [[torch.zeros(1, 154, 8), {}]]):
        assert settings.warning(unknown, [[cat, {}]], target, 5.0) == ""
    of_the_cat = pack.nodes.types.ModelInversion(**given, texts=(cat,))
    assert settings.warning(of_the_cat, [[cat.clone(), {"control": None}]], [[dog, {}]], 5.0) == ""
    of_the_dog = pack.nodes.types.ModelInversion(**given, texts=(0.3 * dog,))
    assert settings.warning(of_the_dog, [[(0.3 * dog).half(), {}]], [[cat, {}]], 5.0) == ""
    exchanged = settings.warning(of_the_cat, [[dog, {}]], [[cat, {}]], 5.0)
    assert exchanged.startswith("source is not the text that the picture was inverted with. Are source and target")


def test_a_choice_that_is_none_and_a_cfg_that_is_no_number_are_refused(pack: Any):
    usual = {"guidance": 5.0, "unit": "normalized", "guidance_start": 0.0, "guidance_end": 0.8}
    with pytest.raises(ValueError, match="negative_from is 'source'; it must be one of inversion, text"):
        pack.nodes.guidance_settings.Settings(**usual, negative_from="source")
    for cfg in (float("nan"), float("inf"), -1.0):
        with pytest.raises(ValueError, match=f"cfg is {cfg}; it must be a finite number >= 0"):
            pack.nodes.guidance_settings.set_cfg(None, cfg)


def test_guidance_that_ends_before_it_starts_names_its_widgets(pack: Any):
    with pytest.raises(ValueError, match=r"guidance_start is 0\.8 and guidance_end is 0\.2"):
        pack.nodes.guidance_settings.Settings(5.0, "normalized", 0.8, 0.2)


@pytest.mark.parametrize(("decibels", "word"), [(30.0, "good"), (17.0, "fair"), (9.0, "poor")])
def test_a_reconstruction_has_a_word(pack: Any, decibels: float, word: str):
    assert pack.nodes.inversion.in_words(decibels) == word
    assert bool(pack.pix2pix_zero_core.remarks.of_reconstruction(decibels)) == (word == "poor")


def test_few_steps_are_told(pack: Any):
    assert "has 1 step:" in pack.pix2pix_zero_core.remarks.of_steps(1)
    assert pack.pix2pix_zero_core.remarks.of_steps(20) == ""


def test_what_is_said_meanwhile_needs_no_server(pack: Any):
    pack.nodes.saying.say_meanwhile(SimpleNamespace(hidden=None), "strength 1")


def test_what_is_said_meanwhile_names_its_run(pack: Any, monkeypatch: pytest.MonkeyPatch):
    """Or it would stand on whatever workflow is open."""
    sent: list[Any] = []
    instance = SimpleNamespace(
        client_id="me", last_prompt_id="this run", send_sync=lambda *message: sent.append(message)
    )
    monkeypatch.setitem(sys.modules, "server", SimpleNamespace(PromptServer=SimpleNamespace(instance=instance)))
    pack.nodes.saying.say_meanwhile(SimpleNamespace(hidden=SimpleNamespace(unique_id="7")), "strength 1")
    assert sent == [("pix2pix-zero.saying", {"prompt_id": "this run", "node": "7", "note": "strength 1"}, "me")]
    instance.client_id = None  # of a script: ComfyUI would tell every browser
    pack.nodes.saying.say_meanwhile(SimpleNamespace(hidden=SimpleNamespace(unique_id="7")), "strength 2")
    assert len(sent) == 1


# --- what the browser is given


def test_the_template_browser_is_told_the_order() -> None:
    script = (ROOT / "web" / "templates.js").read_text(encoding="utf-8")
    (listed,) = re.findall(r"ORDER = \[(.*?)\]", script, re.DOTALL)
    assert re.findall(r'"(\w+)"', listed) == list(workflows.GRAPHS)


@pytest.mark.parametrize("language", ["en", "zh", "fr", "pt-BR"])
def test_a_help_page_is_there_for_every_language(server: Server, language: str) -> None:
    page = server.request(f"/extensions/{PACK}/docs/Pix2PixZeroCompare/{language}.md").decode()
    assert page.startswith("# Compare Edits\n")


def test_tables_of_help_pages_fit_the_side_bar() -> None:
    rows = [
        (page.name, line)
        for page in (ROOT / "web" / "docs").glob("*.md")
        for line in page.read_text(encoding="utf-8").splitlines()
        if line.startswith("|")
    ]
    assert rows and not [row for row in rows if len(re.findall(r"(?<!\\)\|", row[1])) != 3]
