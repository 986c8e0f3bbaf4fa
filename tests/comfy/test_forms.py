"""Three forms of one guidance: the all-in-one sampler, the model patch and the guider give the same picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from launcher.messages import Failure
from launcher.runtime import ROOT
from launcher.server import Server

Latent = Callable[[dict[str, Any]], Tensor]
EditGraph = Callable[..., Any]

STEPS = 4
GUIDANCE = {"guidance": 0.4, "unit": "normalized", "guidance_start": 0.0, "guidance_end": 0.8}


class Forms:
    """An edit graph with each form of the guidance as a further node."""

    def __init__(self, graph: Any, scheduler: str = "ddim_uniform", steps: int = STEPS, **guidance: Any) -> None:
        self.graph, self.steps, self.scheduler = graph, steps, scheduler
        self.guidance = GUIDANCE | guidance
        graph.set(graph.inversion, steps=steps, scheduler=scheduler, fixed_point=2, regularization=0.0, kl=0.0)
        graph.set(graph.sampler, **self.guidance)
        self.sigmas = graph.add(
            "BasicScheduler", model=[graph.checkpoint, 0], scheduler=scheduler, steps=steps, denoise=1.0
        )

    def patch(self) -> str:
        g = self.graph
        return g.add(
            "Pix2PixZeroCrossAttnGuidance",
            model=[g.checkpoint, 0],
            inversion=[g.inversion, 0],
            source=[g.source, 0],
            **self.guidance,
        )

    def guider(self) -> str:
        g = self.graph
        return g.add(
            "Pix2PixZeroCrossAttnGuider",
            model=[g.checkpoint, 0],
            inversion=[g.inversion, 0],
            source=[g.source, 0],
            target=[g.target, 0],
            negative=[g.source, 0],
            cfg=5.0,
            **self.guidance,
        )

    def ksampler(self, model: str, sampler: str = "euler", **changed: Any) -> str:
        g = self.graph
        inputs = {
            "model": [model, 0],
            "seed": 7,
            "steps": self.steps,
            "cfg": 5.0,
            "sampler_name": sampler,
            "scheduler": self.scheduler,
            "positive": [g.target, 0],
            "negative": [g.source, 0],
            "latent_image": [g.original, 0],
            "denoise": 1.0,
        }
        return g.add("KSampler", **inputs | changed)

    def ksampler_advanced(self, model: str, **changed: Any) -> str:
        g = self.graph
        inputs = {
            "model": [model, 0],
            "add_noise": "disable",
            "noise_seed": 7,
            "steps": self.steps,
            "cfg": 5.0,
            "sampler_name": "euler",
            "scheduler": self.scheduler,
            "positive": [g.target, 0],
            "negative": [g.source, 0],
            "latent_image": [g.inversion, 1],
            "start_at_step": 0,
            "end_at_step": 10000,
            "return_with_leftover_noise": "disable",
        }
        return g.add("KSamplerAdvanced", **inputs | changed)

    def custom_advanced(self, guider: str, noise: str, latent: list[Any], sampler: str = "euler") -> str:
        g = self.graph
        seed = {"noise_seed": 7} if noise == "RandomNoise" else {}
        return g.add(
            "SamplerCustomAdvanced",
            noise=[g.add(noise, **seed), 0],
            guider=[guider, 0],
            sampler=[g.add("KSamplerSelect", sampler_name=sampler), 0],
            sigmas=[self.sigmas, 0],
            latent_image=latent,
        )


def saved(server: Server, latent: Latent, graph: Any, nodes: dict[str, str]) -> dict[str, Tensor]:
    """Run a graph once and read the latents of some of its nodes."""
    numbers = {name: graph.save(node) for name, node in nodes.items()}
    outputs = server.run(graph.workflow)
    return {name: latent(outputs[number]) for name, number in numbers.items()}


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize(
    "settings",
    [
        {"negative_from": "inversion"},
        {"negative_from": "text", "unit": "paper"},
        {"negative_from": "text", "unit": "share", "guidance": 0.5},
        {"negative_from": "text", "cfg_start": 0.5},
        {"negative_from": "inversion", "region": 0.9},
        {"negative_from": "text", "region": 0.9, "cfg_start": 0.5, "guidance": 0.0},
        {"negative_from": "text", "noise_from": "fresh", "unit": "share", "guidance": 0.5, "region": 0.9},
        {"negative_from": "text", "noise_from": "fresh", "cfg_start": 0.5, "guidance": 0.0},
    ],
    ids=lambda settings: " ".join(map(str, settings.values())),
)
def test_all_forms_give_the_same_picture(
    server: Server, latent: Latent, edit_graph: EditGraph, settings: dict[str, Any]
):
    graph = edit_graph("tiny_zoo.safetensors", text="a drawing of an orange cat")
    forms = Forms(graph, **settings)
    patch, guider = forms.patch(), forms.guider()
    nodes = {
        "all in one": graph.sampler,
        "KSampler": forms.ksampler(patch),
        "KSampler, ddim": forms.ksampler(patch, "ddim"),
        "KSamplerAdvanced": forms.ksampler_advanced(patch),
        "SamplerCustomAdvanced, random noise": forms.custom_advanced(guider, "RandomNoise", [graph.original, 0]),
        "SamplerCustomAdvanced, no noise": forms.custom_advanced(guider, "DisableNoise", [graph.inversion, 1]),
    }
    found = saved(server, latent, graph, nodes)
    expected = found.pop("all in one")
    distances = {form: distance(edited, expected) for form, edited in found.items()}
    assert max(distances.values()) < 3e-5  # rounding, which random weights amplify


def test_two_samplers_in_a_row_are_one(server: Server, latent: Latent, edit_graph: EditGraph):
    graph = edit_graph()
    forms = Forms(graph)
    patch = forms.patch()
    first = forms.ksampler_advanced(patch, end_at_step=2, return_with_leftover_noise="enable")
    second = forms.ksampler_advanced(patch, start_at_step=2, latent_image=[first, 0])
    found = saved(server, latent, graph, {"one": graph.sampler, "two": second})
    assert distance(found["two"], found["one"]) < 1e-5


def test_a_late_start_is_on_the_way_of_the_inversion(server: Server, latent: Latent, edit_graph: EditGraph):
    """From the trajectory, without guidance and with the source text, sampling ends at the picture."""
    graph = edit_graph(steps=6)
    forms = Forms(graph, "normal", 6, guidance=0.0)
    graph.set(graph.inversion, fixed_point=8)
    patch = forms.patch()
    late = forms.ksampler_advanced(
        patch,
        add_noise="enable",
        start_at_step=3,
        latent_image=[graph.original, 0],
        positive=[graph.source, 0],
        cfg=1.0,
    )
    partly = forms.ksampler(patch, steps=3, denoise=0.5, positive=[graph.source, 0], cfg=1.0)
    found = saved(server, latent, graph, {"original": graph.original, "late": late, "partly": partly})
    assert distance(found["late"], found["original"]) < 1e-3
    assert distance(found["partly"], found["original"]) < 1e-3


@pytest.mark.parametrize("form", ["patch", "guider"])
def test_strength_zero_is_the_graph_without_the_node(server: Server, latent: Latent, edit_graph: EditGraph, form: str):
    graph = edit_graph()
    forms = Forms(graph, guidance=0.0, negative_from="text")
    if form == "patch":
        nodes = {"ours": forms.ksampler_advanced(forms.patch()), "stock": forms.ksampler_advanced(graph.checkpoint)}
    else:
        stock = graph.add(
            "CFGGuider",
            model=[graph.checkpoint, 0],
            positive=[graph.target, 0],
            negative=[graph.source, 0],
            cfg=5.0,
        )
        nodes = {
            name: forms.custom_advanced(guider, "DisableNoise", [graph.inversion, 1])
            for name, guider in (("ours", forms.guider()), ("stock", stock))
        }
    found = saved(server, latent, graph, nodes)
    assert torch.equal(found["ours"], found["stock"])


def test_samplers_with_a_memory_step_as_euler(server: Server, latent: Latent, edit_graph: EditGraph):
    graph = edit_graph()
    forms = Forms(graph, guidance_end=1.0)
    patch = forms.patch()
    nodes = {name: forms.ksampler(patch, name) for name in ("euler", "dpmpp_2m", "lms", "deis", "ipndm", "heun")}
    found = saved(server, latent, graph, nodes)
    euler, heun = found.pop("euler"), found.pop("heun")
    assert max(distance(other, euler) for other in found.values()) < 1e-4
    assert torch.isfinite(heun).all()
    assert distance(heun, euler) > 1e-3  # two calls a step, and both count


def test_unguided_steps_keep_their_memory(server: Server, latent: Latent, edit_graph: EditGraph):
    graph = edit_graph(steps=6)
    forms = Forms(graph, steps=6, guidance_end=0.2)
    patch, none = forms.patch(), Forms(graph, steps=6, guidance=0.0).patch()
    nodes = {
        "euler": forms.ksampler(patch),
        "dpmpp_2m": forms.ksampler(patch, "dpmpp_2m"),
        "unguided": forms.ksampler(none, "dpmpp_2m"),
    }
    found = saved(server, latent, graph, nodes)
    assert distance(found["dpmpp_2m"], found["euler"]) > 1e-3
    assert distance(found["dpmpp_2m"], found["unguided"]) > 1e-3


@pytest.mark.parametrize(
    ("sampler", "words"),
    [
        ("euler_ancestral", ("adds random noise", "Choose a sampler that adds none: euler")),
        ("dpmpp_2m_sde", ("adds random noise", "the picture would be lost")),
        ("uni_pc", ("only on a whole run", "Choose euler")),
    ],
)
def test_samplers_that_cannot_keep_a_picture_are_refused(
    server: Server, edit_graph: EditGraph, sampler: str, words: tuple[str, ...]
):
    graph = edit_graph()
    forms = Forms(graph)
    graph.save(forms.ksampler(forms.patch(), sampler))
    with pytest.raises(Failure) as caught:
        server.run(graph.workflow)
    message = str(caught.value)
    assert not [word for word in (sampler.replace("_pc", "pc"), *words) if word not in message], message


def test_every_stock_sampler_is_refused_or_keeps_the_picture(pack: Any):
    import comfy.samplers

    refused = set()
    for name in comfy.samplers.SAMPLER_NAMES:
        try:
            pack.nodes.guidance.require_deterministic(comfy.samplers.sampler_object(name))
        except ValueError:
            refused.add(name)
    noisy = {name for name in comfy.samplers.SAMPLER_NAMES if "ancestral" in name or "sde" in name}
    noisy |= {"ddpm", "lcm", "seeds_2", "seeds_3", "sa_solver", "sa_solver_pece"}
    assert refused == noisy | {"dpm_fast", "dpm_adaptive", "uni_pc", "uni_pc_bh2"}


@pytest.mark.parametrize("node", ["CrossAttnGuidance", "CrossAttnGuider"])
def test_the_help_says_what_samplers_do(pack: Any, node: str):
    page = (ROOT / "web" / "docs" / f"Pix2PixZero{node}.md").read_text(encoding="utf-8")
    for text in (page, getattr(pack.nodes, node).define_schema().description):
        exact, _, rest = text.partition("Approximate with")
        approximate, _, refused = rest.partition("Ancestral and SDE samplers are refused")
        assert all(name in exact for name in ("euler", "ddim", "heun", "dpm_2"))
        assert all(name in approximate for name in ("dpmpp_2m", "lms", "deis", "ipndm", "res_multistep", "heunpp2"))
        assert all(name in refused for name in ("uni_pc", "dpm_fast", "dpm_adaptive", "random"))


@pytest.mark.parametrize(("options", "fine"), [({}, True), ({"s_churn": 1.0}, False)])
def test_churn_is_fresh_noise(pack: Any, options: dict[str, float], fine: bool):
    import comfy.samplers

    sampler = comfy.samplers.ksampler("euler", options)
    if fine:
        pack.nodes.guidance.require_deterministic(sampler)
    else:
        with pytest.raises(ValueError, match="s_churn"):
            pack.nodes.guidance.require_deterministic(sampler)


def test_a_schedule_that_starts_above_the_inversion(server: Server, edit_graph: EditGraph):
    graph = edit_graph()
    forms = Forms(graph)
    graph.save(forms.ksampler(forms.patch(), scheduler="normal"))
    with pytest.raises(Failure, match=r"starts at noise level 14\.61, the inversion ends at .* same SIGMAS"):
        server.run(graph.workflow)


def test_a_sampler_that_inverts_is_refused_on_a_guided_model(server: Server, edit_graph: EditGraph):
    forms = Forms(edit_graph())
    rising = forms.graph.add("FlipSigmas", sigmas=[forms.sigmas, 0])
    graph, guider = forms.graph, forms.guider()
    sampler = forms.custom_advanced(guider, "DisableNoise", [graph.inversion, 1])
    graph.set(sampler, sigmas=[rising, 0])
    graph.save(sampler)
    with pytest.raises(Failure, match=r"noise levels rise, from 0\S* to .*: it inverts, and its model is guided"):
        server.run(graph.workflow)


def test_a_latent_of_another_size(server: Server, edit_graph: EditGraph):
    graph = edit_graph()
    forms = Forms(graph)
    other = graph.add("EmptyLatentImage", width=128, height=64, batch_size=1)
    graph.save(forms.ksampler(forms.patch(), latent_image=[other, 0]))
    with pytest.raises(Failure, match=r"\(1, 4, 8, 16\), the inverted picture \(1, 4, 8, 8\)"):
        server.run(graph.workflow)


@pytest.mark.parametrize("node", ["inversion", "sampler"])
def test_a_guided_model_is_not_guided_again(server: Server, edit_graph: EditGraph, node: str):
    graph = edit_graph()
    guided = Forms(graph).patch()
    other = getattr(graph, node)
    twice = graph.add(graph.workflow[other]["class_type"], **graph.workflow[other]["inputs"] | {"model": [guided, 0]})
    graph.save(twice, 1)
    with pytest.raises(Failure, match="guided already"):
        server.run(graph.workflow)


@pytest.mark.parametrize("in_process", ["random_zoo.safetensors"], indirect=True, ids=["fp32"])
def test_a_stock_sampler_reports_every_step_once(in_process: Any):
    """For the progress bar and the live preview, guided or not."""
    import comfy.sample

    inversion = in_process.invert(steps=4, scheduler="normal")[0]
    reported: list[tuple[int, int]] = []

    def callback(step: int, denoised: Tensor, x: Tensor, total: int) -> None:
        assert denoised.shape == x.shape == inversion.noise.shape
        reported.append((step, total))

    with torch.inference_mode():
        model = in_process.nodes.CrossAttnGuidance.execute(
            in_process.model, inversion, in_process.source, 0.1, "normalized", 0.0, 0.5
        ).result[0]
        noise, texts = torch.ones_like(inversion.noise), (in_process.target, in_process.source)
        comfy.sample.sample(model, noise, 4, 5.0, "euler", "normal", *texts, 0 * noise, callback=callback)
    assert reported == [(step, 4) for step in range(4)]


@pytest.mark.parametrize("in_process", ["random_zoo.safetensors"], indirect=True, ids=["fp32"])
def test_inversion_and_edit_show_every_step(in_process: Any, monkeypatch: pytest.MonkeyPatch):
    import latent_preview

    shown: list[tuple[int, int]] = []

    def prepare_callback(model: Any, steps: int) -> Any:
        return lambda step, denoised, x, total: shown.append((step, total))

    monkeypatch.setattr(latent_preview, "prepare_callback", prepare_callback)
    inversion = in_process.invert(steps=2, reconstruct=True)[0]
    assert shown == [(step, 4) for step in range(4)]  # there and back
    shown.clear()
    in_process.sample(inversion)
    assert shown == [(0, 2), (1, 2)]
