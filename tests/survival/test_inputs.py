"""Nodes with inputs that make no sense: what comes out is finite, or the error is clear.

Those that read and write files are in `test_files.py` and `test_names.py`; Edit Until It Shows is Apply Edit Direction,
Cross-Attention Guided Sampler and Judge Edit one after the other.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pix2pix_zero_core.integrations.sentence_grammar import Kind
from tests.comfy.test_compatibility import sample
from tests.survival.clear import fewer, survive
from tests.survival.damage import TEXT

pytestmark = pytest.mark.parametrize("in_process", ["random_zoo.safetensors"], indirect=True, ids=["fp32"])

TYPES = st.sampled_from([torch.float32, torch.float16, torch.float64, torch.uint8, torch.int64, torch.bool])
VALUES = st.sampled_from([0.0, 0.5, 1.0, -1.0, 300.0, 1e30, torch.nan, torch.inf, -torch.inf])


@st.composite
def tensors(draw: st.DrawFn, *shape: st.SearchStrategy[int]) -> Tensor:
    """A tensor of noise with one value, or all of them, replaced; now and then of another shape or type."""
    sizes = [draw(size) for size in shape]
    match draw(st.sampled_from(["right", "right", "right", "shape", "type"])):
        case "shape":
            sizes = draw(st.lists(st.integers(0, 3), max_size=5))
            dtype = torch.float32
        case "type":
            dtype = draw(TYPES)
        case _:
            dtype = torch.float32
    found = torch.rand(sizes, generator=torch.Generator().manual_seed(draw(st.integers(0, 9))))
    if draw(st.booleans()) and found.numel():
        found.view(-1)[0 if draw(st.booleans()) else slice(None)] = draw(VALUES)
    return found.nan_to_num().clamp(0, 1).to(dtype) if not dtype.is_floating_point else found.to(dtype)


IMAGES = tensors(st.integers(1, 2), st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 3, 4]))
PICTURES = st.integers(1, 2).map(lambda count: torch.full((count, 16, 16, 3), 0.5))
WORDS = st.sampled_from(["cat", "a", "dog", "", "😀", "(cat:1.2)", "embedding:x"])
LATENTS = tensors(st.integers(1, 2), st.just(4), st.sampled_from([1, 4, 8]), st.sampled_from([1, 2, 8]))
SIGMAS = st.one_of(
    st.lists(st.floats(), max_size=5).map(torch.tensor),
    st.lists(st.floats(0.01, 15), max_size=4, unique=True).map(lambda s: torch.tensor(sorted(s, reverse=True))),
    tensors(st.integers(0, 4)),
)


def tensors_in(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif dataclasses.is_dataclass(value):
        yield from tensors_in([getattr(value, field.name) for field in dataclasses.fields(value)])
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from tensors_in(inner)


def run(node: Callable[..., Any], *inputs: Any, **more: Any) -> tuple[Any, ...] | None:
    """Run a node as ComfyUI does, and see that what comes out is finite; None where it refused."""

    def execute() -> tuple[Any, ...]:
        with torch.inference_mode():
            return node(*inputs, **more).result or ()

    result = survive(execute)
    for tensor in tensors_in(result):
        assert torch.isfinite(tensor).all(), tensor
    return result


# --- Pictures and texts


@given(source=IMAGES, edited=IMAGES, reconstruction=st.none() | IMAGES, titles=st.booleans())
def test_compare(in_process: Any, source: Tensor, edited: Tensor, reconstruction: Tensor | None, titles: bool):
    broken = [t for t in (source, edited, reconstruction) if t is not None and not torch.isfinite(t.double()).all()]
    result = run(in_process.nodes.Compare.execute, source, edited, reconstruction, titles)
    assert not broken or result is None


@fewer
@given(image=IMAGES, prefix=TEXT, max_tokens=st.integers(-1, 600), beams=st.integers(-1, 3))
def test_blip_caption(in_process: Any, image: Tensor, prefix: str, max_tokens: int, beams: int):
    run(in_process.nodes.BLIPCaption.execute, image, "tiny_zoo", prefix, max_tokens, beams)


@given(
    concept=TEXT,
    count=st.integers(-1, 1200),
    seed=st.integers(-5, 2**40),
    kind=st.sampled_from([*get_args(Kind), "none such"]),
)
def test_write_sentences(in_process: Any, concept: str, count: int, seed: int, kind: str):
    result = run(in_process.nodes.WriteSentences.execute, concept, "grammar", count, seed, 1.0, kind)
    if result is not None:
        assert len(result[0].split("\n")) == count


@pytest.fixture(scope="module")
def clip(load_checkpoint: Callable[[str], Any]) -> Any:
    with torch.inference_mode():
        return load_checkpoint("random_zoo.safetensors")[1]


@pytest.fixture(scope="module")
def distilled(in_process: Any) -> Any:
    """One that comes with the pack."""
    name = next(iter(in_process.nodes.distilled._embedded()))
    return in_process.nodes.LoadDistilledEdit.execute(name).result[0]


@fewer
@given(source=TEXT, target=TEXT, sentences=st.integers(1, 5), kind=st.sampled_from(["thing", "setting", "fish"]))
def test_edit_direction(in_process: Any, clip: Any, source: str, target: str, sentences: int, kind: str):
    form = "aligned to words" if sentences % 2 else "mean by position"
    run(in_process.nodes.EditDirection.execute, clip, "custom", source, target, sentences, kind, form)


@pytest.fixture(scope="module", params=["aligned to words", "mean by position"])
def direction(request: pytest.FixtureRequest, in_process: Any, clip: Any) -> Any:
    with torch.inference_mode():
        return in_process.nodes.EditDirection.execute(clip, "custom", "cat", "dog", 3, form=request.param).result[0]


@fewer
@given(strength=st.floats(), caption=st.none() | TEXT, data=st.data())
def test_apply_edit_direction(
    in_process: Any, clip: Any, direction: Any, strength: float, caption: str | None, data: st.DataObject
):
    length, width = 77, 128
    embedding = data.draw(tensors(st.integers(1, 2), st.sampled_from([length, 2 * length]), st.just(width)))
    before = embedding.clone()
    result = run(in_process.nodes.ApplyEditDirection.execute, [[embedding, {}]], direction, clip, strength, caption)
    assert torch.equal(embedding.nan_to_num(), before.nan_to_num())
    assert result is None or result[0][0][0].dtype == embedding.dtype


@given(weights=st.tuples(st.floats(), st.floats()))
def test_combine_edit_directions(in_process: Any, direction: Any, weights: tuple[float, float]):
    run(in_process.nodes.CombineEditDirections.execute, direction, direction, *weights)


@given(
    image=PICTURES | IMAGES,
    fit=st.sampled_from(["keep shape", "crop to square", "pad to square", "none such"]),
    side=st.sampled_from([0, 64, 72, 65, -8]),
)
def test_fit_picture(in_process: Any, image: Tensor, fit: str, side: int):
    result = run(in_process.nodes.FitPicture.execute, image, in_process.model, fit, side)
    assert result is None or len(result[0]) == len(image)


@given(values=TEXT | st.lists(st.floats().map(str)).map(",".join), name=TEXT)
def test_values_to_try(in_process: Any, values: str, name: str):
    result = run(in_process.nodes.ValuesToTry.execute, values, name)
    assert result is None or all(map(math.isfinite, result[0]))


@given(
    images=st.lists(PICTURES | IMAGES, max_size=2),
    captions=st.none() | st.lists(TEXT, max_size=4),
    source=st.none() | PICTURES | IMAGES,
)
def test_contact_sheet(in_process: Any, images: list[Tensor], captions: list[str] | None, source: Tensor | None):
    if captions is None:  # one for each picture
        captions = ["cat"] * sum(len(batch) for batch in images if batch.ndim)
    run(in_process.nodes.ContactSheet.execute, images, captions, source if source is None else [source])


@given(image=PICTURES | IMAGES, strength=st.floats(0, 1) | st.floats())
def test_apply_distilled_edit(in_process: Any, distilled: Any, image: Tensor, strength: float):
    run(in_process.nodes.ApplyDistilledEdit.execute, distilled, image, strength)


@given(
    image=PICTURES | IMAGES,
    caption=st.just("a drawing of a cat") | TEXT,
    target=st.just("a drawing of a dog") | TEXT,
    original=st.none() | PICTURES | IMAGES,
    strength=st.sampled_from([1.0, 1.0, -1.0, torch.nan]),
)
def test_judge_edit(
    in_process: Any, image: Tensor, caption: str, target: str, original: Tensor | None, strength: float
):
    run(in_process.nodes.JudgeEdit.execute, image, caption, "tiny_zoo", None, target, original, strength)


# --- Inversion


@fewer
@given(
    latent=LATENTS,
    steps=st.integers(0, 4),
    sigmas=st.none() | SIGMAS,
    scheduler=st.sampled_from(["ddim", "normal", "karras", "beta", "simple", "none such"]),
    start=st.integers(0, 5),
    end=st.integers(0, 6),
    strengths=st.tuples(*2 * [st.sampled_from([0.0, 2.0, 1000.0, -1.0, torch.nan])]),
    fixed_point=st.integers(-1, 2),
)
def test_regularized_ddim_invert(
    in_process: Any,
    latent: Tensor,
    steps: int,
    sigmas: Tensor | None,
    scheduler: str,
    start: int,
    end: int,
    strengths: tuple[float, float],
    fixed_point: int,
):
    result = run(
        lambda *inputs: SimpleNamespace(result=in_process.nodes.RegularizedDDIMInvert.invert(*inputs)),
        in_process.model,
        {"samples": latent},
        in_process.source,
        steps,
        *strengths,
        fixed_point,
        False,
        sigmas,
        scheduler,
        start,
        end,
    )
    assert result is None or result[1]["samples"].shape == latent.shape


def spoilt(conditioning: Any, value: float, everywhere: bool) -> Any:
    """A conditioning with NaN or Inf in it."""
    found = copy.deepcopy(conditioning)
    for part in found:
        part[0] = part[0].clone()
        part[0].view(-1)[slice(None) if everywhere else 0] = value
    return found


@pytest.mark.parametrize("everywhere", [False, True], ids=["one", "all"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("name", ["source", "target", "negative"])
def test_nan_in_a_conditioning(in_process: Any, name: str, value: float, everywhere: bool):
    inversion = in_process.invert()[0]
    with torch.inference_mode():
        texts = {"source": in_process.source, "target": in_process.target, "negative": in_process.source}
        texts[name] = spoilt(texts[name], value, everywhere)
    with pytest.raises(ValueError, match="NaN or Inf"):
        in_process.sample(inversion, **texts, negative_from="text")
    if name == "source":
        with pytest.raises(ValueError, match="NaN or Inf"):
            in_process.invert(source=texts["source"])
    assert torch.isfinite(in_process.sample(inversion)[0]["samples"]).all()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, -1.0])
def test_bad_sigmas(in_process: Any, value: float):
    for sigmas in ([value, 1.0, 0.0], [5.0, value, 0.0], [5.0, 1.0, value]):
        with pytest.raises(ValueError, match=r"sigmas (holds NaN or Inf|is)"):
            in_process.invert(sigmas=torch.tensor(sigmas))


# --- The edit


@pytest.fixture(scope="module")
def inversion(in_process: Any) -> Any:
    return in_process.invert()[0]


SETTINGS: dict[str, list[Any]] = {
    "guidance": [0.0, 0.1, 5.0, 1000.0, 1e30, -1.0, torch.nan, torch.inf],
    "cfg": [0.0, 1.0, 5.0, 100.0, 1e30],
    "unit": ["normalized", "paper", "share", "none such"],
    "guidance_start": [0.0, 0.5, 1.0, torch.nan, -1.0],
    "guidance_end": [1.0, 0.5, 0.0, 2.0, torch.nan],
    "checkpointing": ["on demand", "always", "never", "none such"],
    "finest_layer": list(range(1, 9)),
    "blocks": ["", "all", "0", "1-2, 4", "0-99", "-", "\u00b2"],
    "negative_from": ["inversion", "text", "none such"],
    "cfg_start": [0.0, 0.5, 1.0, 2.0, -1.0, torch.nan],
    "region": [0.0, 0.4, 1.0, 2.0, -1.0, torch.nan],
    "noise_from": ["inversion", "fresh", "none such"],
}
FEW = st.lists(st.sampled_from([(name, value) for name, values in SETTINGS.items() for value in values]), max_size=3)
"""Few, since of many one is nearly always refused before anything runs."""


@given(changed=FEW.map(dict))
def test_cross_attention_guided_sampler(
    in_process: Any, inversion: Any, usual: dict[str, Any], changed: dict[str, Any]
):
    inputs = (in_process.model, inversion, in_process.source, in_process.target, in_process.source)
    run(in_process.nodes.CrossAttnGuidedSampler.execute, *inputs, **{"cfg": 5.0} | usual | changed)


@given(changed=FEW.map(dict))
def test_cross_attention_guider(in_process: Any, inversion: Any, usual: dict[str, Any], changed: dict[str, Any]):
    """And Cross-Attention Guidance, whose patch the guider puts on its model."""
    inputs = (in_process.model, inversion, in_process.source, in_process.target, in_process.source)

    def execute(**settings: Any) -> SimpleNamespace:
        guider = in_process.nodes.CrossAttnGuider.execute(*inputs, **settings).result[0]
        latent = torch.zeros_like(inversion.noise)
        return SimpleNamespace(result=(sample(guider, {"samples": latent}, inversion.sigmas),))

    run(execute, **{"cfg": 5.0} | usual | changed)


@fewer
@given(
    words=st.one_of(TEXT, st.lists(WORDS).map(",".join)),
    text=st.one_of(TEXT, st.just("a drawing of a cat"), st.just("cat " * 90)),
    moments=st.integers(1, 6),
    picture=st.integers(0, 2),
    image=IMAGES,
    edited=st.booleans(),
)
def test_attention_maps(
    in_process: Any,
    inversion: Any,
    clip: Any,
    words: str,
    text: str,
    moments: int,
    picture: int,
    image: Tensor,
    edited: bool,
):
    inputs = (in_process.model, inversion, in_process.source, clip, image, text, words, moments, picture)
    run(in_process.nodes.AttentionMaps.execute, *inputs, *((inversion, in_process.target) if edited else ()))


@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        ("a drawing of a cat", "?!", r"has no word '\?!'"),  # which is no token
        ("a drawing of a cat", "zebra", "has no word 'zebra'"),
        ("a " * 100 + "cat", "cat", "'cat' is token 10. of text, but the source has only"),
        ("", "", "The text is empty"),
    ],
)
def test_words_that_the_source_has_not(in_process: Any, inversion: Any, clip: Any, text: str, words: str, message: str):
    picture = torch.zeros(1, 8, 8, 3)
    inputs = (in_process.model, inversion, in_process.source, clip, picture, text, words, 2, 0)
    with torch.inference_mode(), pytest.raises(ValueError, match=message):
        in_process.nodes.AttentionMaps.execute(*inputs)


def test_one_step(in_process: Any):
    inversion = in_process.invert(steps=1)[0]
    assert torch.isfinite(in_process.sample(inversion, guidance=5.0)[0]["samples"]).all()


@pytest.mark.parametrize("scheduler", ["ddim", "normal"])
def test_a_thousand_steps(in_process: Any, scheduler: str):
    """As many as the noise levels of the model, and one less in the paper's grid."""
    steps = 999 if scheduler == "ddim" else 1000
    inversion = in_process.invert(steps=steps, fixed_point=0, regularization=0.0, kl=0.0, scheduler=scheduler)[0]
    assert len(inversion.sigmas) == steps + 1
    edited, _, path, _ = in_process.sample(inversion, guidance=5.0, guidance_end=0.01)
    assert torch.isfinite(edited["samples"]).all() and len(path.trajectory) == steps + 1


@pytest.mark.parametrize("form", ["text", "inversion"])
def test_cfg_zero_is_finite(in_process: Any, inversion: Any, form: str):
    edited = in_process.sample(inversion, guidance=5.0, cfg=0.0, negative_from=form)[0]["samples"]
    assert torch.isfinite(edited).all()
