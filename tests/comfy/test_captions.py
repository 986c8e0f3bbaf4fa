"""BLIP in ComfyUI: found in every model folder, in ComfyUI's memory, one caption a picture, fetched only on demand."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from launcher.runtime import ROOT
from launcher.server import Server

EditGraph = Callable[..., Any]
TINY_ZOO = ROOT / "tiny_zoo" / "weights" / "blip" / "tiny_zoo"
SETTINGS = {"model": "tiny_zoo", "prefix": "", "max_tokens": 20, "beams": 3}


@pytest.fixture
def pictures() -> Tensor:
    """Six pictures (6, 64, 80, 3): more than are captioned at once."""
    coarse = torch.rand(6, 3, 5, 4, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.interpolate(coarse, (64, 80), mode="bilinear").movedim(1, -1)


@pytest.fixture
def folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """ComfyUI's models folder in this process, empty, with none but the embedded BLIP registered."""
    import folder_paths

    known = dict(folder_paths.folder_names_and_paths) | {"blip": ([str(TINY_ZOO.parent)], set())}
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", known)
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path / "models"))
    yield tmp_path / "models"


def test_a_batch_gives_one_caption_a_picture(pack: Any, folders: Path, pictures: Tensor):
    with torch.inference_mode():
        (captions,) = pack.nodes.BLIPCaption.execute(pictures, **SETTINGS).result
        alone = [pack.nodes.BLIPCaption.execute(picture[None], **SETTINGS).result[0] for picture in pictures[:2]]
    assert len(captions) == len(pictures) and all(isinstance(caption, str) and caption for caption in captions)
    assert [[caption] for caption in captions[:2]] == alone


def test_an_alpha_channel_is_left_out(pack: Any, folders: Path, pictures: Tensor):
    """As VAE Encode and Compare Edits do."""
    with_alpha = torch.cat([pictures[:1], torch.rand(1, 64, 80, 1)], -1)
    with torch.inference_mode():
        found, expected = (pack.nodes.BLIPCaption.execute(p, **SETTINGS).result for p in (with_alpha, pictures[:1]))
    assert found == expected


def test_a_model_in_the_layout_of_hugging_face_s_cache_is_found(pack: Any, folders: Path):
    snapshot = folders / "blip" / "models--Salesforce--blip-image-captioning-base" / "snapshots" / "0a1b"
    shutil.copytree(TINY_ZOO, snapshot)
    assert pack.nodes.files.model_folders("blip")["Salesforce/blip-image-captioning-base"] == snapshot


def test_the_progress_bar_counts_pictures(pack: Any, folders: Path, pictures: Tensor, progress: list[tuple[int, int]]):
    with torch.inference_mode():
        pack.nodes.BLIPCaption.execute(pictures, **SETTINGS)
    assert progress == [(4, 6), (6, 6)]


def test_a_list_of_captions_runs_what_follows_for_each(server: Server, edit_graph: EditGraph):
    graph = edit_graph()
    other = graph.add("EmptyImage", width=64, height=64, batch_size=1, color=0x3366CC)
    batch = graph.add("ImageBatch", image1=[graph.scaled, 0], image2=[other, 0])
    caption = graph.add("Pix2PixZeroBLIPCaption", image=[batch, 0], **SETTINGS)
    shown = graph.add("PreviewAny", source=[caption, 0])
    captions = server.run(graph.workflow)[shown]["text"]
    assert len(captions) == 2 and all(captions)


def test_a_batch_is_edited_with_a_caption_a_picture_in_all_forms(server: Server, edit_graph: EditGraph):
    """Two pictures and two captions are two edits, not four."""
    graph = edit_graph(steps=2)
    other = graph.add("EmptyImage", width=64, height=64, batch_size=1, color=0x3366CC)
    batch = graph.add("ImageBatch", image1=[graph.scaled, 0], image2=[other, 0])
    captions = graph.add("Pix2PixZeroBLIPCaption", image=[batch, 0], **SETTINGS)
    graph.set(graph.original, pixels=[batch, 0]).set(graph.source, text=[captions, 0])
    graph.set(graph.inversion, scheduler="ddim_uniform")
    inverted = {"model": [graph.checkpoint, 0], "inversion": [graph.inversion, 0], "source": [graph.source, 0]}
    guidance = {"guidance": 0.1, "unit": "normalized", "guidance_start": 0.0, "guidance_end": 0.5}
    texts = {"target": [graph.target, 0], "negative": [graph.source, 0], "cfg": 5.0}
    patch = graph.add("Pix2PixZeroCrossAttnGuidance", **inverted, **guidance)
    guider = graph.add("Pix2PixZeroCrossAttnGuider", **inverted, **texts, **guidance)
    sampled = [
        graph.sampler,
        graph.add(
            "KSampler",
            **{"model": [patch, 0], "seed": 7, "steps": 2, "cfg": 5.0, "sampler_name": "euler", "denoise": 1.0},
            **{"scheduler": "ddim_uniform", "positive": [graph.target, 0], "negative": [graph.source, 0]},
            latent_image=[graph.inversion, 1],
        ),
        graph.add(
            "SamplerCustomAdvanced",
            noise=[graph.add("DisableNoise"), 0],
            guider=[guider, 0],
            sampler=[graph.add("KSamplerSelect", sampler_name="euler"), 0],
            sigmas=[
                graph.add(
                    "BasicScheduler", model=[graph.checkpoint, 0], scheduler="ddim_uniform", steps=2, denoise=1.0
                ),
                0,
            ],
            latent_image=[graph.inversion, 1],
        ),
    ]
    saved = [graph.save(node) for node in sampled]
    outputs = server.run(graph.workflow)
    assert [len(outputs[number]["latents"]) for number in saved] == [2, 2, 2]


def test_the_model_is_on_comfyuis_books_while_it_works_and_gone_afterwards(
    pack: Any, folders: Path, pictures: Tensor, monkeypatch: pytest.MonkeyPatch
):
    import comfy.model_management as memory

    models: list[weakref.ref[Any]] = []
    on_books: list[bool] = []
    captioner = pack.nodes.caption.Captioner
    work = captioner.__call__

    def watched(self: Any, *arguments: Any, **settings: Any) -> list[str]:
        models.append(weakref.ref(self.model))
        on_books.append(any(self.model in entry.model.model for entry in memory.current_loaded_models))
        return work(self, *arguments, **settings)

    monkeypatch.setattr(captioner, "__call__", watched)
    with torch.inference_mode():
        pack.nodes.BLIPCaption.execute(pictures, **SETTINGS)
    gc.collect()
    assert on_books == [True, True], "six pictures are captioned in two goes"
    assert [model() for model in models] == [None, None]
    memory.cleanup_models_gc()
    memory.cleanup_models()
    assert all(entry.model is not None for entry in memory.current_loaded_models)


def test_a_network_is_loaded_whole_where_text_encoders_run(pack: Any, monkeypatch: pytest.MonkeyPatch):
    import comfy.model_management as memory

    loads: list[tuple[Any, dict[str, Any]]] = []
    monkeypatch.setattr(memory, "load_models_gpu", lambda patchers, **settings: loads.append((patchers, settings)))
    monkeypatch.setattr(memory, "text_encoder_device", lambda: torch.device("meta"))
    network = torch.nn.Linear(2, 2)
    with pack.nodes.memory.loaded(network):
        ((patchers, settings),) = loads
        (patcher,) = patchers
        assert network in patcher.model
        assert patcher.load_device == torch.device("meta")
        assert patcher.offload_device == memory.text_encoder_offload_device()
        assert settings == {"memory_required": 0, "force_full_load": True}


def test_a_network_waits_elsewhere_after_its_turn(pack: Any, monkeypatch: pytest.MonkeyPatch):
    """Or who holds it on would hold memory of the GPU that is in nobody's books."""
    import comfy.model_management as memory

    monkeypatch.setattr(memory, "text_encoder_offload_device", lambda: torch.device("meta"))
    network = torch.nn.Linear(2, 2)
    with pytest.raises(KeyError), pack.nodes.memory.loaded(network):
        assert network.weight.device.type == "cpu"
        raise KeyError
    assert network.weight.device.type == "meta"


@pytest.mark.parametrize("half", [True, False])
def test_half_precision_where_comfyui_wants_it(
    pack: Any, folders: Path, pictures: Tensor, monkeypatch: pytest.MonkeyPatch, half: bool
):
    import comfy.model_management as memory

    types: list[torch.dtype] = []
    from_folder = pack.nodes.caption.Captioner.from_folder

    def watched(folder: Path, *, dtype: torch.dtype) -> Any:
        types.append(dtype)
        return from_folder(folder)

    monkeypatch.setattr(pack.nodes.caption.Captioner, "from_folder", watched)
    monkeypatch.setattr(memory, "should_use_fp16", lambda *arguments, **settings: half)
    with torch.inference_mode():
        pack.nodes.BLIPCaption.execute(pictures[:1], **SETTINGS)
    assert types == [torch.float16 if half else torch.float32]


def test_every_folder_that_extra_model_paths_names(pack: Any, folders: Path, tmp_path: Path):
    import folder_paths

    far = tmp_path / "far" / "blips"
    unfinished = folders / "blip" / "blip-image-captioning-base.a1b2.partial"
    for place in (folders / "blip" / "mine", folders / "blip" / "Salesforce" / "large", far / "other", unfinished):
        place.mkdir(parents=True)
        (place / "config.json").write_text("{}")
    config = tmp_path / "extra_model_paths.yaml"
    config.write_text(json.dumps({"elsewhere": {"base_path": str(tmp_path / "far"), "blip": "blips"}}))
    load_extra_model_paths(config)
    assert folder_paths.get_folder_paths("blip")[1] == str(far)
    found = pack.nodes.files.model_folders("blip")
    assert set(found) == {"mine", "Salesforce/large", "other", "tiny_zoo"}
    assert found["other"] == far / "other"


def load_extra_model_paths(path: Path) -> None:
    """What ComfyUI does with the file at its start; by path, since a test process has other modules named utils."""
    import importlib.util

    import folder_paths

    source = Path(folder_paths.__file__).parent / "utils" / "extra_config.py"
    spec = importlib.util.spec_from_file_location("extra_config", source)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.load_extra_path_config(str(path))


# --- A model that is not there


def test_nothing_is_downloaded_without_being_asked(
    pack: Any, folders: Path, pictures: Tensor, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pack.nodes.caption, "download_blip", lambda *arguments: pytest.fail("it was downloaded"))
    settings = SETTINGS | {"model": "blip-image-captioning-large"}
    place = folders / "blip" / "blip-image-captioning-large"
    with pytest.raises(FileNotFoundError) as caught:
        pack.nodes.BLIPCaption.execute(pictures, **settings)
    for words in ("Salesforce/blip-image-captioning-large", str(place), "switch download on"):
        assert words in str(caught.value)
    with pytest.raises(ValueError, match="no BLIP model 'other'; models/blip has: tiny_zoo"):
        pack.nodes.BLIPCaption.execute(pictures, **SETTINGS | {"model": "other"}, download=True)


def test_a_model_is_downloaded_once_when_asked(
    pack: Any, folders: Path, pictures: Tensor, monkeypatch: pytest.MonkeyPatch, progress: list[tuple[int, int]]
):
    asked: list[str] = []

    def fetch(name: str, folder: Path, on_bytes: Callable[[int, int], None]) -> None:
        asked.append(name)
        on_bytes(1000, 2000)
        shutil.copytree(TINY_ZOO, folder)

    monkeypatch.setattr(pack.nodes.caption, "download_blip", fetch)
    settings = SETTINGS | {"model": "blip-image-captioning-base", "download": True}
    with torch.inference_mode():
        captions = [pack.nodes.BLIPCaption.execute(pictures[:1], **settings).result for _ in range(2)]
    assert asked == ["blip-image-captioning-base"] and captions[0] == captions[1]
    assert progress == [(1000, 2000), (1, 1), (1, 1)], "bytes, then pictures, the second time only these"


def test_the_cancel_button_stops_a_download(
    pack: Any, folders: Path, pictures: Tensor, monkeypatch: pytest.MonkeyPatch
):
    import comfy.model_management as memory

    monkeypatch.setattr(pack.nodes.caption, "download_blip", lambda name, folder, on_bytes: on_bytes(1, 2))
    memory.interrupt_current_processing()
    with pytest.raises(memory.InterruptProcessingException):
        pack.nodes.BLIPCaption.execute(pictures, **SETTINGS | {"model": "blip-image-captioning-base"}, download=True)


def test_offline_says_where_to_put_the_files(
    pack: Any, folders: Path, pictures: Tensor, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    place = folders / "blip" / "blip-image-captioning-base"
    with pytest.raises(ConnectionError) as caught:
        pack.nodes.BLIPCaption.execute(pictures, **SETTINGS | {"model": place.name}, download=True)
    assert f"Put the files of Salesforce/{place.name} into {place} by hand" in str(caught.value)
