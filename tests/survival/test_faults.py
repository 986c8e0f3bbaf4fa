"""A fault at every single call of a model, in every form of the edit: nothing of the model is left changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.comfy.test_lifecycle import patched, state, stock_sample

Form = Callable[[Any], Tensor]


class Fault(Exception):
    """Raised by a model in the middle of a run."""


class Faulty:
    """A wrapper of the UNet, or a patch of its attention, that acts at one call and counts them all."""

    def __init__(self, at: int | None = None, act: Callable[[], None] = lambda: None) -> None:
        self.at, self.act, self.calls = at, act, 0

    def count(self) -> None:
        self.calls += 1
        if self.calls - 1 == self.at:
            self.act()

    def unet(self, apply: Callable[..., Tensor], arguments: dict[str, Any]) -> Tensor:
        self.count()
        return apply(arguments["input"], arguments["timestep"], **arguments["c"])

    def network(self, executor: Any, *arguments: Any, **more: Any) -> Tensor:
        self.count()
        return executor(*arguments, **more)

    def attention(self, n: Tensor, context: Tensor, value: Tensor, options: Any) -> tuple[Tensor, Tensor, Tensor]:
        self.count()
        return n, context, value

    def of(self, model: Any, place: str) -> Any:
        """Put it on a clone of a model; as a function, since ComfyUI copies the object of a method with every clone."""
        faulty = model.clone()
        if place == "unet":
            faulty.set_model_unet_function_wrapper(lambda apply, arguments: self.unet(apply, arguments))
        elif place == "network":
            faulty.add_wrapper_with_key(
                "diffusion_model", "faults", lambda *inputs, **more: self.network(*inputs, **more)
            )
        else:
            faulty.set_model_attn2_patch(lambda *inputs: self.attention(*inputs))
        return faulty


def fail() -> None:
    raise Fault


def interrupt() -> None:
    """Press the cancel button: ComfyUI finds out in the very pass that begins now."""
    import comfy.model_management

    comfy.model_management.interrupt_current_processing()


@pytest.fixture(scope="module")
def kept(in_process: Any, usual: dict[str, Any]) -> dict[str, Callable[[Any], Callable[[], Tensor]]]:
    """What ComfyUI keeps of a node for the next prompt: name -> what makes it of a model; called, it gives a latent."""
    import comfy.samplers

    nodes = in_process.nodes
    # Of three steps with the settings of new nodes one comes before the edit, one is guided, and one is not any more.
    published, new = (in_process.invert(steps=steps, scheduler="normal")[0] for steps in (2, 3))
    settings = {"guidance": 0.1, "unit": "normalized", "guidance_start": 0.0, "guidance_end": 1.0}

    def guider(model: Any, inversion: Any, settings: dict[str, Any]) -> Callable[[], Tensor]:
        inputs = (model, inversion, in_process.source, in_process.target, in_process.source)
        with torch.inference_mode():
            made = nodes.CrossAttnGuider.execute(*inputs, 5.0, **settings).result[0]

        @torch.inference_mode()
        def run() -> Tensor:
            noise, latent = torch.ones_like(inversion.noise), torch.zeros_like(inversion.noise)
            return made.sample(noise, latent, comfy.samplers.sampler_object("heun"), inversion.sigmas)

        return run

    def patch(model: Any) -> Callable[[], Tensor]:
        guided = patched(in_process, model, published)
        return lambda: stock_sample(guided, in_process.target)

    return {
        "patch": patch,
        "guider": lambda model: guider(model, published, settings),
        "guider, new": lambda model: guider(model, new, usual),
    }


@pytest.fixture(scope="module")
def forms(in_process: Any, kept: Any, usual: dict[str, Any]) -> dict[str, Form]:
    """Everything that calls the model: name -> what runs it, and gives a latent or maps."""
    nodes, inversion = in_process.nodes, in_process.invert(steps=2, scheduler="normal")[0]
    three_steps = in_process.invert(steps=3)[0]

    def watched(model: Any) -> Tensor:
        with torch.inference_mode():
            maps = nodes.visualization.watch(model, inversion, in_process.source, 2, 0)
            return torch.cat([probabilities.flatten() for moment in maps for probabilities in moment.values()])

    return {
        "inversion": lambda model: in_process.invert(model=model, steps=2, reconstruct=True)[1]["samples"],
        "sampler": lambda model: in_process.sample(inversion, model=model)[0]["samples"],
        "sampler, published": lambda model: in_process.sample(
            inversion, model=model, negative_from="text", unit="paper", checkpointing="always"
        )[0]["samples"],
        "sampler, new": lambda model: in_process.sample(three_steps, model=model, **usual)[0]["samples"],
        **{name: lambda model, make=make: make(model)() for name, make in kept.items()},
        "maps": watched,
    }


KEPT = ("patch", "guider", "guider, new")
FORMS = ("inversion", "sampler", "sampler, published", "sampler, new", *KEPT, "maps")


@pytest.mark.parametrize("place", ["unet", "attention"])
@pytest.mark.parametrize("form", FORMS)
def test_an_exception_at_every_call(
    in_process: Any, forms: dict[str, Form], form: str, place: str, thorough: bool, record_property: Any
):
    """In the attention it also strikes in the middle of a forward pass and of a backward pass that is checkpointed."""
    run, counted = forms[form], Faulty()
    expected, before = run(counted.of(in_process.model, place)), state(in_process.model)
    assert counted.calls > 1
    step = 1 if thorough or place == "unet" else max(counted.calls // 7, 1)
    for at in range(0, counted.calls, step):
        with pytest.raises(Fault):
            run(Faulty(at, fail).of(in_process.model, place))
        assert state(in_process.model) == before
    record_property("faults", len(range(0, counted.calls, step)))
    assert torch.equal(run(in_process.model), expected)


@pytest.mark.parametrize("form", KEPT)
def test_what_is_kept_runs_again_after_an_exception(in_process: Any, kept: Any, form: str):
    """A fault changes nothing of a guider or of a patched model that the next prompt runs again."""
    make, counted = kept[form], Faulty()
    expected = make(counted.of(in_process.model, "unet"))()
    assert counted.calls > 1
    for at in range(counted.calls):
        run = make(Faulty(at, fail).of(in_process.model, "unet"))
        with pytest.raises(Fault):
            run()
        assert torch.equal(run(), expected)


@pytest.mark.parametrize("form", FORMS)
def test_an_interrupt_at_every_call(in_process: Any, forms: dict[str, Form], form: str, record_property: Any):
    import comfy.model_management

    run, counted = forms[form], Faulty()
    expected, before = run(counted.of(in_process.model, "unet")), state(in_process.model)
    assert counted.calls > 1
    for at in range(counted.calls):
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            run(Faulty(at, interrupt).of(in_process.model, "unet"))
        assert state(in_process.model) == before
    record_property("faults", counted.calls)
    assert torch.equal(run(in_process.model), expected)


@pytest.mark.parametrize("new", [False, True], ids=["0.1.0's settings", "new nodes' settings"])
@pytest.mark.parametrize("checkpointing", ["on demand", "always", "never"])
def test_out_of_memory_in_every_gradient(
    in_process: Any, usual: dict[str, Any], checkpointing: str, new: bool, record_property: Any
):
    """Raised by the model itself in a pass with gradients, once: on demand goes on, the others say what to change."""
    import comfy.model_management as management

    inversion = in_process.invert(steps=3 if new else 2)[0]
    settings = (usual if new else {}) | {"checkpointing": checkpointing}

    def run(model: Any) -> Tensor:
        return in_process.sample(inversion, model=model, **settings)[0]["samples"]

    gradients: list[int] = []
    counted = Faulty()

    def watch(executor: Any, *arguments: Any, **more: Any) -> Tensor:
        if torch.is_grad_enabled():
            gradients.append(counted.calls)
        return counted.network(executor, *arguments, **more)

    watched = in_process.model.clone()
    watched.add_wrapper_with_key("diffusion_model", "faults", watch)
    expected, before = run(watched), state(in_process.model)
    assert gradients

    def run_out() -> None:
        raise management.OOM_EXCEPTION("CUDA out of memory.")

    for at in gradients:
        faulty = Faulty(at, run_out).of(in_process.model, "network")
        if checkpointing == "on demand":  # a gradient that is computed again is rounded in another order
            torch.testing.assert_close(run(faulty), expected, rtol=1e-2, atol=1e-2)
        else:
            with pytest.raises(management.OOM_EXCEPTION, match="Out of memory in the gradient"):
                run(faulty)
        assert state(in_process.model) == before
    record_property("faults", len(gradients))
    assert torch.equal(run(in_process.model), expected)


@pytest.mark.parametrize("at", range(3))
def test_a_text_encoder_that_fails(in_process: Any, load_checkpoint: Any, monkeypatch: pytest.MonkeyPatch, at: int):
    """Of a direction half built nothing is remembered, and no hook stays on the encoder."""
    with torch.inference_mode():
        clip = load_checkpoint("random_zoo.safetensors")[1]
        monkeypatch.setattr(in_process.nodes.directions, "_built", {})
        encode, faulty = clip.encode_from_tokens, Faulty(at, fail)

        def failing(*args: Any, **settings: Any) -> Any:
            result = encode(*args, **settings)
            faulty.count()
            return result

        monkeypatch.setattr(clip, "encode_from_tokens", failing)
        texts = ["\n".join(f"a {animal} in {n} places" for n in range(40)) for animal in ("cat", "dog")]
        with pytest.raises(Fault):
            in_process.nodes.EditDirection.execute(clip, "custom", *texts, 1)
        assert not in_process.nodes.directions._built
        assert not [m for m in clip.cond_stage_model.modules() if m._forward_hooks]
        monkeypatch.setattr(clip, "encode_from_tokens", encode)
        assert in_process.nodes.EditDirection.execute(clip, "custom", *texts, 1).result[0].sentences == (40, 40)


@pytest.mark.parametrize("at", [0, 1, 4])
def test_a_captioner_that_fails_leaves_comfyuis_memory(in_process: Any, monkeypatch: pytest.MonkeyPatch, at: int):
    import gc
    import weakref

    import comfy.model_management as management

    read, faulty, models = in_process.nodes.caption.Captioner.from_folder, Faulty(at, fail), []

    def watched(*args: Any, **settings: Any) -> Any:
        captioner = read(*args, **settings)
        captioner.model.text_decoder.register_forward_pre_hook(lambda *_: faulty.count())
        models.append(weakref.ref(captioner.model))
        return captioner

    monkeypatch.setattr(in_process.nodes.caption.Captioner, "from_folder", watched)
    with torch.inference_mode(), pytest.raises(ValueError, match=r"cannot be read as a BLIP captioner \(Fault"):
        in_process.nodes.BLIPCaption.execute(torch.full((5, 16, 16, 3), 0.5), "tiny_zoo", "", 8, 1)
    gc.collect()
    management.cleanup_models()
    (model,) = models
    assert model() is None
