"""The figures of real pictures, against what the published implementations say of the same arrays and weights.

The figures expected here were computed with those: torchmetrics 1.2.0, which PIE-Bench was made with; lpips 0.1.4; and
`evaluation/matrics_calculator.py` of cure-lab/PnPInversion at commit f480116 on the ViT of facebookresearch/dino,
resizing without antialiasing, as torchvision 0.13 does.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torchvision import models
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, ViTConfig, ViTModel

from benchmarks.harness.pixels import mse, psnr, ssim
from benchmarks.real.judges import Judges
from benchmarks.real.lpips import HEADS, STAGES, Lpips, load_lpips
from benchmarks.real.networks import Clip, Structure
from benchmarks.real.pie import SIDE, decode_mask, without_brackets
from pix2pix_zero_cli.arguments import UsageError
from tiny_zoo.captions import VOCABULARY
from tiny_zoo.pipeline import tokenizer

PART = torch.ones(64, 64)
PART[10:40, 20:50] = 0
NETWORKS = sorted(STAGES)


def waves(phase: float) -> Tensor:
    """A picture of waves, (1, 3, 64, 64)."""
    t = torch.arange(64, dtype=torch.float64)
    rows = [0.5 + 0.5 * torch.sin((c + 1) * 0.35 * t + phase)[:, None] * torch.cos((c + 2) * 0.2 * t) for c in range(3)]
    return torch.stack(rows)[None].float()


def noise(shape: torch.Size, seed: int) -> Tensor:
    """Weights that look random and are the same everywhere."""
    i = torch.arange(shape.numel(), dtype=torch.float64)
    uniform = (torch.sin(12.9898 * i + seed) * 43758.5453).frac()
    return (uniform * 1.7 / max(shape[1:].numel(), 1) ** 0.5).reshape(shape).float()


A, B = waves(0.0), waves(0.4)


@pytest.mark.parametrize(
    ("distance", "whole", "in_part"),
    [
        (psnr, 19.915864944458008, 20.952617645263672),
        (mse, 0.010195612907409668, 0.008030418306589127),
        (ssim, 0.912113606929779, 0.9398525357246399),
    ],
)
def test_distances_without_a_network_are_those_of_torchmetrics(distance, whole: float, in_part: float):
    assert distance(A, B).item() == pytest.approx(whole, rel=1e-5)
    assert distance(PART * A, PART * B).item() == pytest.approx(in_part, rel=1e-5)
    both = distance(torch.cat([A, PART * A]), torch.cat([B, PART * B]))
    torch.testing.assert_close(both, torch.tensor([whole, in_part]), rtol=1e-5, atol=0)


# ------------------------------------------------------------------------------------------------------------- LPIPS


def lpips_weights(name: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights of a network under torchvision's names, and of its heads, which are positive."""
    shapes = {key: tensor.shape for key, tensor in getattr(models, name)(weights=None).state_dict().items()}
    features = [key for key in shapes if key.startswith("features.")]
    ends = {"alexnet": (64, 192, 384, 256, 256), "vgg16": (64, 128, 256, 512, 512)}
    widths = ends.get(name, (64, 128, 256, 384, 384, 512, 512))
    heads = {f"lin{i}.model.1.weight": noise(torch.Size((1, n, 1, 1)), i).abs() for i, n in enumerate(widths)}
    return {key: noise(shapes[key], i) for i, key in enumerate(features)}, heads


LPIPS = {
    "alexnet": (0.008483052253723145, 0.005332875531166792),
    "vgg16": (0.008420408703386784, 0.006529335863888264),
    "squeezenet1_1": (0.008951002731919289, 0.006916509009897709),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_lpips_is_that_of_the_package(name: str, tmp_path: Path):
    features, heads = lpips_weights(name)
    torch.save(features | {"classifier.1.weight": torch.zeros(1)}, tmp_path / "network.pth")
    save_file(heads, tmp_path / "heads.safetensors")
    found = load_lpips([tmp_path / "heads.safetensors", tmp_path / "network.pth"])
    assert found.name == name
    whole, in_part = LPIPS[name]
    assert found(A, B).item() == pytest.approx(whole, rel=1e-4)
    assert found(PART * A, PART * B).item() == pytest.approx(in_part, rel=1e-4)
    assert found(A, A).item() == 0


def test_without_files_it_is_the_installed_alexnet():
    from benchmarks.harness.features import Lpips as Installed

    try:
        installed = Installed.load()
    except FileNotFoundError as missing:
        pytest.skip(str(missing))
    torch.testing.assert_close(Lpips.installed()(A, B), installed(A, B))
    assert load_lpips([]).name == "alexnet"


def test_lpips_files_that_do_not_fit_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    features, heads = lpips_weights("alexnet")
    network, others, broken = (tmp_path / name for name in ("network.pth", "others.pth", "broken.pth"))
    torch.save(features, network)
    torch.save({"conv.weight": torch.zeros(1)}, others)
    broken.write_bytes(b"no pickle")
    with pytest.raises(FileNotFoundError, match=r"There is no file .*missing.pth.*squeezenet1_1"):
        load_lpips([tmp_path / "missing.pth"])
    with pytest.raises(ValueError, match=r"others.pth: no network that is known"):
        load_lpips([others])
    with pytest.raises(ValueError, match=r"broken.pth cannot be read as a file of weights"):
        load_lpips([broken])
    torch.save({"lin0.model.1.weight": heads["lin0.model.1.weight"]}, tmp_path / "half.pth")
    with pytest.raises(ValueError, match=r"not the weights of alexnet .*lin1"):
        load_lpips([network, tmp_path / "half.pth"])
    monkeypatch.setattr("benchmarks.real.lpips.CARRIERS", (("no_such_package",),))
    with pytest.raises(FileNotFoundError, match=rf"give {HEADS['alexnet']} of the package lpips"):
        load_lpips([network])


# -------------------------------------------------------------------------------------------------------------- DINO


def vit(**changed: int) -> ViTModel:
    """DINO in miniature: its depth and patches."""
    sizes = {"hidden_size": 24, "num_attention_heads": 2, "intermediate_size": 96, "image_size": 224, "patch_size": 8}
    return ViTModel(ViTConfig(**(sizes | changed)), add_pooling_layer=False).eval()


def role(name: str) -> int:
    """Number of a weight by its layer and by what it makes, whatever transformers calls it."""
    layer = re.search(r"layers?\.(\d+)\.", name)
    parts = enumerate((r"q_proj|query", r"k_proj|\.key", r"v_proj|value"), start=1)
    return 4 * int(layer[1] if layer else 12) + next((i for i, part in parts if re.search(part, name)), 0)


def test_structure_is_that_of_the_published_code_in_its_unit():
    model = vit()
    model.load_state_dict({name: noise(tensor.shape, role(name)) for name, tensor in model.state_dict().items()})
    distance = Structure("tiny", model)
    a, b = ((x * 255).round() / 255 for x in (A, B))  # pictures of 8 bits
    assert distance(a, b, white=255).item() == pytest.approx(4.138472650083713e-05, rel=1e-3)
    # The same code, shown values in 0..1 as the paper's authors meant to. Differences of float32 make up the rest.
    assert distance(a, b).item() == pytest.approx(6.205064240205616e-10, rel=1e-2)
    torch.testing.assert_close(distance(torch.cat([a, b]), torch.cat([b, b]), white=255)[1], torch.tensor(0.0))


def test_folders_without_a_whole_network_are_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"There is no config.json in .*facebook/dino-vitb8"):
        Structure.load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"There is no config.json in .*openai/clip-vit-large-patch14"):
        Clip.load(tmp_path)
    model = vit(num_hidden_layers=2)
    model.save_pretrained(tmp_path)
    assert Structure.load(tmp_path).name == f"{tmp_path.name} (ViT, width 24, patches of 8)"
    weights = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith("cls_token")}
    model.save_pretrained(tmp_path, state_dict=weights)
    with pytest.raises(ValueError, match=r"lacks 1 tensors of a DINO, embeddings.cls_token"):
        Structure.load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"cannot be read as a DINO"):
        Structure.load(tmp_path)


def test_an_option_that_is_missing_is_named_with_the_way_out():
    with pytest.raises(UsageError, match=r"--clip: is missing.*clip-vit-large-patch14.*--without clip"):
        Judges.load({"clip": [], "dino": [], "lpips": []}, without=["lpips"])
    with pytest.raises(UsageError, match=r"--dino: There is no config.json in nowhere.*--without dino"):
        Judges.load({"clip": [], "dino": [Path("nowhere")], "lpips": []}, without=["clip", "lpips"])
    nobody = Judges.load({"clip": [], "dino": [], "lpips": []}, without=["clip", "dino", "lpips"])
    assert nobody.names == nobody.fingerprints == {} and nobody.device == torch.device("cpu")


# -------------------------------------------------------------------------------------------------------------- CLIP


def tiny_clip(folder: Path) -> None:
    """Save a CLIP in miniature with random weights."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    words = {"vocab_size": len(VOCABULARY), "max_position_embeddings": 16, "eos_token_id": 1, "bos_token_id": 0}
    config = CLIPConfig(text_config=sizes | words, vision_config=sizes | {"image_size": 32, "patch_size": 8})
    CLIPModel(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    sides = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    CLIPImageProcessor(**sides).save_pretrained(folder)


def test_clip_compares_as_torchmetrics_does(tmp_path: Path):
    tiny_clip(tmp_path)
    clip = Clip.load(tmp_path)
    image = Image.fromarray((A[0].permute(1, 2, 0) * 255).byte().numpy())
    texts = ["a cat", "a drawing of a dog in the snow", "a cat " * 20]
    found = clip(image, texts)
    # What torchmetrics' CLIPScore divides by 100: the cosine of the two projected vectors.
    pixels = clip._processor(images=np.array(image), return_tensors="pt").pixel_values
    for text, cosine in zip(texts, found, strict=True):
        ids = tokenizer()(text, truncation=True, max_length=16, return_tensors="pt").input_ids
        with torch.no_grad():
            picture = clip.model.visual_projection(clip.model.vision_model(pixels).pooler_output)
            words = clip.model.text_projection(clip.model.text_model(ids).pooler_output)
        expected = (picture * words).sum() / (picture.norm() * words.norm())
        assert cosine.item() == pytest.approx(expected.item(), abs=1e-5)


# --------------------------------------------------------------------------------------------------------- PIE-Bench


def test_masks_are_runs_of_pixels_and_their_rim_counts():
    inner = decode_mask([2 * SIDE + 5, 3, 10 * SIDE - 1, 4])[1:-1, 1:-1]
    assert inner.sum() == 3 + 2  # the second run goes on over the rim into the next row
    assert inner[1, 4:7].all() and inner[9, :2].all()
    rim = decode_mask([])
    assert rim.sum() == 4 * SIDE - 4 and rim[0].all() and rim[:, -1].all()
    assert decode_mask([0, SIDE * SIDE + 9]).all()
    with pytest.raises(ValueError, match=r"zip"):
        decode_mask([1, 2, 3])
    assert without_brackets("a [red] cat [on a mat]") == "a red cat on a mat"
