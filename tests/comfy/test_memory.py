"""The gradient in little memory: checkpointing, running out, coarse layers only, weights in other places and types."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytestmark = pytest.mark.parametrize("in_process", ["random_zoo.safetensors"], indirect=True, ids=["fp32"])


@pytest.fixture(scope="module")
def inversion(in_process: Any) -> Any:
    return in_process.invert(steps=2)[0]


@pytest.fixture(scope="module")
def expected(in_process: Any, inversion: Any) -> Tensor:
    return in_process.sample(inversion, checkpointing="never")[0]["samples"]


@pytest.fixture
def block_calls(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Every call of a residual block, and whether gradients were taken."""
    from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock

    calls: list[bool] = []
    forward = ResBlock._forward

    def counted(self: Any, *args: Any) -> Tensor:
        calls.append(torch.is_grad_enabled())
        return forward(self, *args)

    monkeypatch.setattr(ResBlock, "_forward", counted)
    return calls


def test_checkpointing_computes_blocks_twice_and_changes_nothing(
    in_process: Any, inversion: Any, expected: Tensor, block_calls: list[bool]
):
    found = in_process.sample(inversion, checkpointing="always")[0]["samples"]
    assert torch.equal(found, expected)
    twice = sum(block_calls)
    block_calls.clear()
    in_process.sample(inversion, checkpointing="never")
    once = sum(block_calls)
    assert 1.5 * once < twice <= 2 * once  # nothing asks for the blocks after the last cross-attention again
    forwards = [module for module in in_process.model.model.modules() if "forward" in vars(module)]
    assert not forwards


class OutOfMemory:
    """Makes the gradient run out of memory: the first times, or always."""

    def __init__(self, pack: Any, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
        import comfy.model_management as management

        self.left, self.calls, self.freed = times, 0, []
        step = pack.nodes.gradient.map_guidance_step

        def failing(*args: Any) -> Any:
            self.calls += 1
            if self.left:
                self.left -= 1
                raise management.OOM_EXCEPTION("CUDA out of memory.")
            return step(*args)

        def free_memory(memory: float, device: Any, keep_loaded: Any = ()) -> None:
            self.freed.append([loaded.model for loaded in keep_loaded])

        monkeypatch.setattr(pack.nodes.gradient, "map_guidance_step", failing)
        monkeypatch.setattr(pack.nodes.gradient, "make_room", _with(pack.nodes.gradient.make_room, free_memory))


def _with(make_room: Any, free_memory: Any) -> Any:
    """Call `make_room` with another `free_memory`: the stock one is also called by every load of a model."""
    import comfy.model_management as management

    def called(guider: Any) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(management, "free_memory", free_memory)
            make_room(guider)

    return called


def test_out_of_memory_once_goes_on_with_checkpointing(
    in_process: Any,
    inversion: Any,
    expected: Tensor,
    pack: Any,
    monkeypatch: pytest.MonkeyPatch,
    block_calls: list[bool],
):
    failure = OutOfMemory(pack, monkeypatch, times=1)
    found = in_process.sample(inversion, checkpointing="on demand")[0]["samples"]
    assert torch.equal(found, expected)
    assert failure.calls == 3  # two steps, the first of them twice
    (kept,) = failure.freed
    assert [patcher.model for patcher in kept] == [in_process.model.model]
    with_gradient = sum(block_calls)
    block_calls.clear()
    in_process.sample(inversion, checkpointing="always")
    assert with_gradient == sum(block_calls)  # checkpointed from the retry on


@pytest.mark.parametrize(
    ("checkpointing", "calls", "advice"),
    [
        ("never", 1, "Set checkpointing to on demand or always"),
        ("on demand", 2, "checkpointed already: raise finest_layer to 2 or 4"),
        ("always", 1, "checkpointed already: raise finest_layer to 2 or 4"),
    ],
)
def test_out_of_memory_for_good_says_what_to_change(
    in_process: Any,
    inversion: Any,
    expected: Tensor,
    pack: Any,
    monkeypatch: pytest.MonkeyPatch,
    checkpointing: str,
    calls: int,
    advice: str,
):
    import comfy.model_management as management

    with monkeypatch.context() as patch:
        failure = OutOfMemory(pack, patch, times=99)
        with pytest.raises(management.OOM_EXCEPTION, match=advice):
            in_process.sample(inversion, checkpointing=checkpointing)
        assert failure.calls == calls
    assert torch.equal(in_process.sample(inversion)[0]["samples"], expected)


def test_an_unknown_checkpointing(in_process: Any, inversion: Any):
    with pytest.raises(ValueError, match=r"checkpointing is 'sometimes'; it must be one of on demand, always, never"):
        in_process.sample(inversion, checkpointing="sometimes")


def test_coarse_layers_alone_guide_otherwise(in_process: Any, inversion: Any, expected: Tensor):
    coarse = in_process.sample(inversion, finest_layer=2)[0]["samples"]
    assert torch.isfinite(coarse).all()
    assert not torch.equal(coarse, expected)
    with pytest.raises(ValueError, match=r"no cross-attention at 1/8 .* Lower finest_layer"):
        in_process.sample(inversion, finest_layer=8)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float16, 0.01), (torch.bfloat16, 0.05), (torch.float8_e4m3fn, 0.5)], ids=str
)
@pytest.mark.parametrize("checkpointing", ["never", "always"])
def test_weights_cast_on_loading(
    pack: Any, base: Path, in_process: Any, dtype: torch.dtype, tolerance: float, checkpointing: str
):
    """As by the weight_dtype of UNETLoader; on the CPU ComfyUI computes with such weights in float32."""
    import comfy.sd

    path = str(base / "models" / "checkpoints" / "random_zoo.safetensors")
    edits: list[Tensor] = []
    for options in ({}, {"dtype": dtype}):
        with torch.inference_mode():
            model = comfy.sd.load_checkpoint_guess_config(
                path, output_vae=False, output_clip=False, model_options=options
            )[0]
        assert model.model.diffusion_model.dtype == options.get("dtype", torch.float32)
        inversion = in_process.invert(steps=2, model=model)[0]
        edits.append(in_process.sample(inversion, model=model, checkpointing=checkpointing)[0]["samples"])
    full, cast = edits
    assert not torch.equal(full, cast)
    assert (cast - full).norm() < tolerance * full.norm()


@pytest.mark.parametrize("checkpointing", ["never", "always"])
def test_weights_in_a_buffer_that_every_layer_uses_again(
    in_process: Any, inversion: Any, expected: Tensor, monkeypatch: pytest.MonkeyPatch, checkpointing: str
):
    """As ComfyUI does since 0.12 with weights that are not on the device, and with its dynamic VRAM."""
    import comfy.ops

    cast, buffer, used = comfy.ops.cast_bias_weight, torch.empty(2**20), []

    def cast_into_buffer(*args: Any, **kwargs: Any) -> Any:
        weight, *rest = cast(*args, **kwargs)
        view = buffer[: weight.numel()].view(weight.shape)
        view.numpy()[...] = weight.detach().numpy()  # torch does not see what a device copies
        used.append(view)
        return view, *rest

    monkeypatch.setattr(comfy.ops, "cast_bias_weight", cast_into_buffer)
    for module in in_process.model.model.diffusion_model.modules():
        if isinstance(module, comfy.ops.CastWeightBiasOp):
            monkeypatch.setattr(module, "comfy_cast_weights", True)
    found = in_process.sample(inversion, checkpointing=checkpointing)[0]["samples"]
    assert used
    assert torch.equal(found, expected)


def test_the_weights_are_not_copied(in_process: Any, inversion: Any, pack: Any, monkeypatch: pytest.MonkeyPatch):
    """What the backward pass keeps of a model that is on the device in its own precision are its own parameters."""
    kept: set[int] = set()
    step = pack.nodes.gradient.map_guidance_step

    def watched(*args: Any) -> Any:
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.add(t.data_ptr()) or t, lambda t: t):
            return step(*args)

    monkeypatch.setattr(pack.nodes.gradient, "map_guidance_step", watched)
    in_process.sample(inversion, checkpointing="never")
    weights = {
        name: weight.data_ptr()
        for name, weight in in_process.model.model.diffusion_model.named_parameters()
        if name.startswith(("input_blocks", "middle_block")) and name.endswith(("to_q.weight", "proj_in.weight"))
    }
    assert weights and set(weights.values()) <= kept


@pytest.mark.parametrize("negative_from", ["inversion", "text"])
def test_only_the_positive_row_is_differentiated(in_process: Any, inversion: Any, negative_from: str):
    rows: set[tuple[bool, int]] = set()

    def count(_: Any, inputs: tuple[Tensor, ...]) -> None:
        rows.add((torch.is_grad_enabled(), len(inputs[0])))

    hook = in_process.model.model.diffusion_model.register_forward_pre_hook(count)
    try:
        in_process.sample(inversion, negative_from=negative_from, guidance_end=0.5)
    finally:
        hook.remove()
    alone, both = (True, 1), (False, 2)
    assert alone in rows
    assert (True, 2) not in rows
    assert (both in rows) == (negative_from == "text")


def test_the_source_is_asked_once_a_step(in_process: Any, inversion: Any):
    """In fresh noise guidance and the step after it need the same prediction of the source's text."""
    rows: list[int] = []
    passes: list[bool] = []

    def count(_: Any, inputs: tuple[Tensor, ...]) -> None:
        passes.append(torch.is_grad_enabled())
        rows.append(len(inputs[0]))

    hook = in_process.model.model.diffusion_model.register_forward_pre_hook(count)
    try:
        in_process.sample(inversion, 0.0, negative_from="text", noise_from="fresh")
        plain = len(passes)
        in_process.sample(inversion, 0.1, negative_from="text", noise_from="fresh")
    finally:
        hook.remove()
    guided, steps = passes[plain:], len(inversion.sigmas) - 1
    assert sum(guided) == steps
    # Target and source, each with the negative; that of the reference's maps is the source's.
    assert sum(rows[:plain]) == sum(rows[plain:]) == 4 * steps


def test_a_model_that_is_partly_loaded(in_process: Any, inversion: Any, monkeypatch: pytest.MonkeyPatch):
    """Where memory is low, weights come to the device one by one, and LoRAs are added to them on the way."""
    import comfy.model_patcher
    import comfy.sd

    from tests.comfy.neighbours import random_lora

    with torch.inference_mode():
        model, _ = comfy.sd.load_lora_for_models(in_process.model, None, random_lora(in_process.model), 1.0, 0.0)
    expected = in_process.sample(inversion, model=model)[0]["samples"]
    load, patched_on_the_way = comfy.model_patcher.ModelPatcher.load, []

    def load_in_part(self: Any, device: Any, *_: Any, **settings: Any) -> None:
        load(self, device, **settings | {"lowvram_model_memory": 1, "full_load": False})
        patched_on_the_way.append(self.lowvram_patch_counter())

    monkeypatch.setattr(comfy.model_patcher.ModelPatcher, "load", load_in_part)
    model.detach()
    found = in_process.sample(inversion, model=model)[0]["samples"]
    model.detach()
    assert patched_on_the_way and all(patched_on_the_way)
    assert (found - expected).norm() < 1e-4 * expected.norm()


@pytest.mark.parametrize("checkpointing", ["always", "never"])
def test_an_edit_leaves_no_tensor_behind(in_process: Any, checkpointing: str):
    """Autograd's graph may close a circle with what a checkpointed block keeps, which Python cannot see to free."""
    inversion = in_process.invert(steps=2)[0]

    def alive() -> int:
        in_process.sample(inversion, checkpointing=checkpointing)
        gc.collect()
        return sum(isinstance(thing, Tensor) for thing in gc.get_objects())

    alive()
    assert alive() == alive()


def test_latents_lie_where_comfyui_leaves_its_own(in_process: Any, monkeypatch: pytest.MonkeyPatch):
    """On a GPU its nodes could else not put them beside others."""
    import comfy.model_management as management

    monkeypatch.setattr(management, "intermediate_device", lambda: torch.device("meta"))
    inversion, noise, reconstruction, _ = in_process.invert(steps=2, reconstruct=True)
    latents = (noise, reconstruction, *in_process.sample(inversion)[:2])
    assert {latent["samples"].device.type for latent in latents} == {"meta"}
