"""A live ComfyUI with the pack, for the tests that queue workflows, and small models with random weights."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from benchmarks.speed.pack import load_pack
from launcher.comfyui import make_base
from launcher.pins import COMFYUI_VERSION
from launcher.processes import quiet_cpu
from launcher.runtime import EXAMPLES, Runtime
from launcher.server import Server, comfyui_server
from launcher.workflow import Workflow
from pix2pix_zero_core.distillation import DistilledEdit, Generator
from tiny_zoo.captions import VOCABULARY
from tiny_zoo.mmdit import MMDiT
from tiny_zoo.networks import AutoEncoder, TextEncoder, UNet

torch.set_num_threads(1)

RANDOM_EDIT = "random_edit.safetensors"
"""Name of a distilled edit with random weights."""

RANDOM_ZOOS = {
    "random_zoo.safetensors": (0, torch.float32),
    "random_zoo_fp16.safetensors": (0, torch.float16),
    "other_zoo.safetensors": (1, torch.float32),
}
"""Name of a checkpoint -> seed and type of its weights."""


def require_nodes(needed: Iterable[str], server: Server, object_info: dict[str, Any]) -> None:
    """Skip on a ComfyUI that lacks a stock node; the pinned one has all."""
    missing = set(needed) - set(object_info)
    if missing and server.get("/system_stats")["system"]["comfyui_version"] != COMFYUI_VERSION:
        pytest.skip(f"this ComfyUI has no {', '.join(sorted(missing))}")
    assert not missing


def random_zoo(seed: int) -> dict[str, torch.nn.Module]:
    """Tiny Zoo's networks with random weights, under the prefixes of a checkpoint.

    No layer is left at zero, so that every one matters. The UNet predicts little noise, so that inversion round-trips,
    and latents of pictures have a variance near 1, both as with trained weights.
    """
    torch.manual_seed(seed)
    unet, autoencoder = UNet(), AutoEncoder()
    for parameter in unet.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    with torch.no_grad():
        unet.out[2].weight.mul_(0.05)
        autoencoder.taesd_encoder[-1].weight.mul_(50)
    return {
        "model.diffusion_model.": unet,
        "cond_stage_model.transformer.": TextEncoder(len(VOCABULARY)),
        "first_stage_model.": autoencoder,
    }


def random_edit() -> DistilledEdit:
    """A distilled edit of a small network with random weights, which changes pictures visibly."""
    torch.manual_seed(0)
    generator = Generator(4, 1).folded()
    torch.nn.init.normal_(generator.out.weight, std=0.1)
    return DistilledEdit(generator, "cat2dog", "cat", "dog", (64, 64), "encoder", "{}", "MIT", {"pairs": 100})


def random_flow() -> dict[str, torch.nn.Module]:
    """The flow model's networks with random weights, under the prefixes of a checkpoint; no layer is left at zero."""
    parts = random_zoo(seed=0)
    flow = MMDiT()
    for parameter in flow.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    return {
        "model.diffusion_model.": flow,
        "text_encoders.clip_l.transformer.": parts["cond_stage_model.transformer."],
        "first_stage_model.": parts["first_stage_model."],
    }


def write_checkpoint(path: Path, parts: dict[str, torch.nn.Module], dtype: torch.dtype) -> None:
    """Write networks into one file, each under its prefix."""
    weights = {
        prefix + key: tensor.to(dtype).contiguous()
        for prefix, network in parts.items()
        for key, tensor in network.state_dict().items()
    }
    safetensors.torch.save_file(weights, path)


@pytest.fixture(scope="session")
def zoo() -> dict[str, torch.nn.Module]:
    """The networks of random_zoo.safetensors, as torch modules."""
    return random_zoo(seed=0)


@pytest.fixture(scope="session")
def flow_zoo() -> dict[str, torch.nn.Module]:
    """The networks of random_flow.safetensors, as torch modules."""
    return random_flow()


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ComfyUI's base folder, with the random checkpoints among its models."""
    base = tmp_path_factory.mktemp("comfyui")
    make_base(base)
    folder = base / "models" / "checkpoints"
    folder.mkdir()
    for name, (seed, dtype) in RANDOM_ZOOS.items():
        write_checkpoint(folder / name, random_zoo(seed), dtype)
    write_checkpoint(folder / "random_flow.safetensors", random_flow(), torch.float32)
    (base / "models" / "distilled_edits").mkdir()
    random_edit().save(base / "models" / "distilled_edits" / RANDOM_EDIT)
    return base


@pytest.fixture(scope="session")
def server(base: Path) -> Iterator[Server]:
    """One server for the session, on the CPU in float32, with a base folder of its own."""
    runtime = Runtime.from_environment(os.environ)
    flags = ("--cpu", "--fp32-text-enc", "--preview-method", "auto")
    with comfyui_server(runtime, base, base / "server.log", flags=flags, environment=quiet_cpu()) as server:
        yield server


@pytest.fixture(scope="session")
def object_info(server: Server) -> dict[str, Any]:
    """The server's description of its nodes, class -> schema."""
    return server.get("/object_info")


@pytest.fixture(scope="session")
def pack() -> Any:
    """The pack's modules in this process, beside ComfyUI's: `pack.nodes`, `pack.tiny_zoo` and so on."""
    from comfy.cli_args import args

    args.cpu = args.fp32_text_enc = True  # before anything of ComfyUI asks for a device
    return load_pack()


@pytest.fixture(scope="session")
def usual(pack: Any) -> dict[str, Any]:
    """What new nodes have in the widgets of the guidance: name -> value; but a region that random weights leave.

    To them two texts disagree about a picture nearly alike everywhere, so that 0.4 would leave nothing out.
    """
    widgets = {widget.id: widget.default for widget in pack.nodes.guidance_settings.guidance_inputs()}
    assert widgets["region"] > 0
    return widgets | {"region": 0.8}


@pytest.fixture(scope="session")
def load_checkpoint(pack: Any, base: Path) -> Callable[[str], tuple[Any, Any, Any]]:
    """What the stock loader loads in this process: name of a checkpoint -> MODEL, CLIP, VAE."""
    import comfy.sd

    def load(name: str) -> tuple[Any, Any, Any]:
        path = base / "models" / "checkpoints" / name
        model, clip, vae = comfy.sd.load_checkpoint_guess_config(str(path), output_vae=True, output_clip=True)[:3]
        return model, clip, vae

    return load


@pytest.fixture(scope="session")
def latent(server: Server) -> Callable[[dict[str, Any]], Tensor]:
    """What a SaveLatent node saved: its output -> (B, C, H, W)."""

    def read(output: dict[str, Any]) -> Tensor:
        (entry,) = output["latents"]
        return safetensors.torch.load(server.view(entry))["latent_tensor"]

    return read


@pytest.fixture
def progress(pack: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """What nodes of this process tell ComfyUI's progress bar, as it grows: how far, of how much."""
    import comfy.utils

    told: list[tuple[int, int]] = []
    hook = lambda done, total, preview=None, **where: told.append((done, total))  # noqa: E731
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", hook)
    return told


class Graph:
    """A workflow that grows by one node a call: `graph.add("VAEDecode", samples=..., vae=...)` returns its number."""

    def __init__(self) -> None:
        self.workflow: Workflow = {}

    def add(self, class_type: str, title: str = "", **inputs: Any) -> str:
        """Add a node; an input is a value or a pair of node and output."""
        number = str(len(self.workflow) + 1)
        self.workflow[number] = {"class_type": class_type, "inputs": inputs, "_meta": {"title": title or class_type}}
        return number


class EditGraph(Graph):
    """An edit of a picture without BLIP, in few steps, on a checkpoint with random weights.

    The attributes name its nodes; `set` changes inputs of one. Nothing runs until `save` asks for a latent.
    """

    def __init__(self, checkpoint: str = "random_zoo.safetensors", text: str = "a drawing of a cat", steps: int = 3):
        super().__init__()
        self.checkpoint = self.add("CheckpointLoaderSimple", ckpt_name=checkpoint)
        self.picture = self.add("LoadImage", image="cat.png")
        self.scaled = self.add(
            "ImageScale", image=[self.picture, 0], upscale_method="lanczos", width=64, height=64, crop="center"
        )
        self.original = self.add("VAEEncode", pixels=[self.scaled, 0], vae=[self.checkpoint, 2])
        self.source = self.add("CLIPTextEncode", text=text, clip=[self.checkpoint, 1])
        self.direction = self.add(
            "Pix2PixZeroEditDirection",
            clip=[self.checkpoint, 1],
            edit="custom",
            source="a cat\na drawing of a cat",
            target="a dog\na drawing of a dog",
            sentences=2,
        )
        self.target = self.add(
            "Pix2PixZeroApplyEditDirection",
            source=[self.source, 0],
            direction=[self.direction, 0],
            clip=[self.checkpoint, 1],
            strength=1.0,
        )
        self.inversion = self.add(
            "Pix2PixZeroRegularizedDDIMInvert",
            model=[self.checkpoint, 0],
            latent=[self.original, 0],
            source=[self.source, 0],
            steps=steps,
            regularization=2.0,
            kl=20.0,
            fixed_point=1,
            reconstruct=True,
        )
        self.sampler = self.add(
            "Pix2PixZeroCrossAttnGuidedSampler",
            model=[self.checkpoint, 0],
            inversion=[self.inversion, 0],
            source=[self.source, 0],
            target=[self.target, 0],
            negative=[self.source, 0],
            cfg=5.0,
            guidance=0.1,
            unit="normalized",
            guidance_start=0.0,
            guidance_end=1.0,
        )

    def set(self, node: str, **inputs: Any) -> EditGraph:
        """Change inputs of a node."""
        self.workflow[node]["inputs"] |= inputs
        return self

    def save(self, node: str, output: int = 0) -> str:
        """Save a latent, anew even where it is in ComfyUI's cache; returns the number of the node that does."""
        return self.add("SaveLatent", samples=[node, output], filename_prefix=uuid.uuid4().hex)


@pytest.fixture(scope="session")
def edit_graph(server: Server) -> Callable[..., EditGraph]:
    """Makes an `EditGraph` whose picture is on the server."""
    server.upload(EXAMPLES / "cat.png")
    return EditGraph


@dataclass
class InProcess:
    """The nodes called directly, on a model of this process, as ComfyUI calls them: under inference mode."""

    nodes: Any
    model: Any
    source: Any
    target: Any
    latent: dict[str, Tensor]

    def invert(self, steps: int = 3, sigmas: Tensor | None = None, **changed: Any) -> tuple[Any, ...]:
        """Call RegularizedDDIMInvert."""
        inputs = {"model": self.model, "latent": self.latent, "source": self.source}
        settings = {"regularization": 2.0, "kl": 20.0, "fixed_point": 1, "reconstruct": False}
        with torch.inference_mode():
            return self.nodes.RegularizedDDIMInvert.invert(**inputs | settings | changed, steps=steps, sigmas=sigmas)

    def sample(self, inversion: Any, guidance: float = 0.1, **changed: Any) -> tuple[Any, ...]:
        """Call CrossAttnGuidedSampler."""
        inputs = {"model": self.model, "source": self.source, "target": self.target, "negative": self.source}
        settings = {"cfg": 5.0, "unit": "normalized", "guidance_start": 0.0, "guidance_end": 1.0}
        with torch.inference_mode():
            return self.nodes.CrossAttnGuidedSampler.execute(
                inversion=inversion, guidance=guidance, **inputs | settings | changed
            ).result


@pytest.fixture(scope="module", params=["random_zoo.safetensors", "random_zoo_fp16.safetensors"], ids=["fp32", "fp16"])
def in_process(
    request: pytest.FixtureRequest, pack: Any, load_checkpoint: Callable[[str], tuple[Any, Any, Any]]
) -> InProcess:
    """The nodes and what they need, loaded under inference mode as ComfyUI does."""
    with torch.inference_mode():
        model, clip, _ = load_checkpoint(request.param)
        source, target = (
            clip.encode_from_tokens_scheduled(clip.tokenize(f"a drawing of a {animal}")) for animal in ("cat", "dog")
        )
        samples = 3 * torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    return InProcess(pack.nodes, model, source, target, {"samples": samples})


@pytest.fixture(scope="session")
def load_family(pack: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Family -> MODEL and CLIP, as the stock loader loads them, once."""
    import comfy.sd

    from tests.comfy import families

    families.register()
    folder, loaded = tmp_path_factory.mktemp("families"), dict[str, Any]()

    def load(family: str) -> Any:
        if family not in loaded:
            path = families.write_checkpoint(folder, family)
            with torch.inference_mode():
                loaded[family] = comfy.sd.load_checkpoint_guess_config(str(path), output_vae=False)[:2]
        return loaded[family]

    return load


@pytest.fixture
def load_case(load_family: Callable[[str], Any]) -> Callable[[str], Any]:
    from tests.comfy.neighbours import Case, encode

    def load(family: str) -> Case:
        model, clip = load_family(family)
        source, target = encode(clip, "a drawing of a cat"), encode(clip, "a painting of two dogs")
        samples = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
        return Case(family, model, clip, source, target, source, {"samples": samples})

    return load


@pytest.fixture
def distances(pack: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """The distance of the maps before and after every move of the guidance."""
    from pix2pix_zero.pix2pix_zero_core.attention import map_distance

    measured: list[tuple[float, float]] = []
    step = pack.nodes.gradient.GradientStep.__call__

    def measure(
        self: Any, denoise: Any, x: Tensor, sigma: Tensor, target: Any, reference: Any, *more: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        move, before, denoised = step(self, denoise, x, sigma, target, reference, *more)
        after = map_distance(denoise(x + move, sigma.expand(len(x)), target, maps=True).maps, reference)
        measured.append((float(before.sum()), float(after.sum())))
        return move, before, denoised

    monkeypatch.setattr(pack.nodes.gradient.GradientStep, "__call__", measure)
    return measured
