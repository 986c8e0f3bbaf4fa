"""Tiny Zoo's torch networks and what ComfyUI's stock loader builds are the same functions of the same weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tiny_zoo.captions import token_ids
from tiny_zoo.denoiser import TinyZooFlow
from tiny_zoo.mmdit import TIMESTEPS
from tiny_zoo.networks import alphas_cumprod
from tiny_zoo.train_flow import read

PARTS = ("first_stage_model.", "text_encoders.clip_l.transformer.", "model.diffusion_model.")
TEXTS = (
    "",
    "a drawing of an orange cat in a meadow",
    "Oil painting, of a DOG with red glasses!",
    "a submarine of a cat",
    "cat " * 75,
)


@pytest.fixture(scope="module")
def loaded(load_checkpoint: Callable[[str], tuple[Any, Any, Any]]) -> tuple[Any, Any, Any]:
    return load_checkpoint("random_zoo.safetensors")


@pytest.fixture(scope="module")
def loaded_flow(load_checkpoint: Callable[[str], tuple[Any, Any, Any]]) -> tuple[Any, Any, Any]:
    return load_checkpoint("random_flow.safetensors")


@pytest.mark.parametrize("text", TEXTS)
def test_the_tokenizer_reads_texts_as_in_training(loaded: tuple[Any, Any, Any], text: str):
    (chunk,) = loaded[1].tokenize(text)["l"]
    assert [token for token, _ in chunk] == token_ids(text)


def test_a_text_too_long_for_one_chunk_makes_two(loaded: tuple[Any, Any, Any]):
    chunks = loaded[1].tokenize("cat " * 76)["l"]
    assert [len(chunk) for chunk in chunks] == [77, 77]


@pytest.mark.parametrize("text", TEXTS)
def test_text_encoder(loaded: tuple[Any, Any, Any], zoo: dict[str, nn.Module], text: str):
    clip = loaded[1]
    with torch.no_grad():
        expected = zoo["cond_stage_model.transformer."](torch.tensor([token_ids(text)]))
        found = clip.encode_from_tokens(clip.tokenize(text))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(16, 16), (8, 12)])
def test_unet(loaded: tuple[Any, Any, Any], zoo: dict[str, nn.Module], size: tuple[int, int]):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, *size, generator=generator)
    context = torch.randn(2, 77, 128, generator=generator)
    timesteps = torch.tensor([1.0, 999.0])
    with torch.no_grad():
        expected = zoo["model.diffusion_model."](x, timesteps, context)
        found = loaded[0].model.diffusion_model(x, timesteps, context=context)
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(16, 16), (8, 12), (15, 21)])
def test_flow_transformer(
    loaded_flow: tuple[Any, Any, Any], flow_zoo: dict[str, nn.Module], size: tuple[int, int]
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, *size, generator=generator)
    context, y = (torch.randn(2, *shape, generator=generator) for shape in ((77, 128), (128,)))
    timesteps = torch.tensor([1.0, 999.0])
    with torch.no_grad():
        expected = flow_zoo["model.diffusion_model."](x, timesteps, context, y)
        found = loaded_flow[0].model.diffusion_model(x, timesteps, context=context, y=y)
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("text", TEXTS)
def test_the_flow_reads_texts_as_in_training(
    loaded_flow: tuple[Any, Any, Any], flow_zoo: dict[str, nn.Module], text: str
) -> None:
    clip = loaded_flow[1]
    expected = read(flow_zoo["text_encoders.clip_l.transformer."], torch.tensor([token_ids(text)]))
    with torch.no_grad():
        found = clip.encode_from_tokens(clip.tokenize(text), return_pooled=True)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_stock_sampler_follows_the_flow(loaded_flow: tuple[Any, Any, Any], flow_zoo: dict[str, nn.Module]) -> None:
    import comfy.sample

    model, clip, vae = loaded_flow
    text, steps = TEXTS[1], 4
    noise = torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        condition = clip.encode_from_tokens_scheduled(clip.tokenize(text))
        found = comfy.sample.sample(
            model,
            noise,
            steps,
            1.0,
            "euler",
            "simple",
            condition,
            condition,
            torch.zeros_like(noise),
            disable_pbar=True,
        )
        assert vae.decode(found).shape == (1, 64, 96, 3)
        expected = flow(flow_zoo, text, noise, steps)
    assert (expected - noise).std() > 0.01
    torch.testing.assert_close(model.model.process_latent_in(found), expected, rtol=1e-4, atol=1e-4)


def test_the_benchmarks_denoiser_is_the_nodes(
    pack: Any, loaded_flow: tuple[Any, Any, Any], flow_zoo: dict[str, nn.Module]
) -> None:
    """In its levels, its predictions and its maps."""
    import comfy.samplers

    model, clip, _ = loaded_flow
    alone = TinyZooFlow(*(flow_zoo[prefix] for prefix in PARTS))  # type: ignore
    sampling = model.get_model_object("model_sampling")
    for steps in (7, 25):
        expected = comfy.samplers.calculate_sigmas(sampling, "simple", steps)
        torch.testing.assert_close(alone.grid(steps), expected, rtol=0, atol=1e-6)

    x, sigma = torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(0)), torch.tensor([0.6])
    answers: list[Any] = []

    class Asking(comfy.samplers.Sampler):
        def sample(
            self, guider: Any, sigmas: Tensor, extra_args: Any, callback: Any, noise: Tensor, *_: Any, **__: Any
        ) -> Tensor:
            denoise = pack.nodes.bridge.GuiderDenoiser(guider, extra_args, blocks="all")
            answers.append(denoise(x, sigma, "positive", maps=True))
            return noise

    with torch.inference_mode():
        texts = (clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in (TEXTS[1], "a dog"))
        guider = comfy.samplers.CFGGuider(model.clone())
        guider.inner_set_conds(dict(zip(("positive", "source"), texts, strict=True)))
        nothing = torch.zeros_like(x)
        guider.sample(nothing, nothing, Asking(), torch.tensor([0.6, 0.0]), disable_pbar=True)
        found = alone(x, sigma, alone.encode_text([TEXTS[1]]), maps=True)
    (expected,) = answers
    torch.testing.assert_close(found.denoised, expected.denoised, rtol=1e-4, atol=1e-5)
    assert len(found.maps) == len(expected.maps)
    for ours, theirs in zip(found.maps.values(), expected.maps.values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def flow(parts: dict[str, nn.Module], text: str, noise: Tensor, steps: int) -> Tensor:
    """From noise to a picture's latents, by Euler's method in equal steps of time."""
    context, y = read(parts["text_encoders.clip_l.transformer."], torch.tensor([token_ids(text)]))
    x = noise
    for i in range(steps, 0, -1):
        x = x - parts["model.diffusion_model."](x, torch.tensor([TIMESTEPS * i / steps]), context, y) / steps
    return x


def test_the_noise_schedule(loaded: tuple[Any, Any, Any]):
    expected = (1 / alphas_cumprod().double() - 1).sqrt().float()
    found = loaded[0].get_model_object("model_sampling").sigmas.cpu()
    # Float32 keeps abar near 1 to 6e-8, and the lowest sigma is the root of 1 - abar = 9e-4.
    torch.testing.assert_close(found, expected, rtol=5e-5, atol=0)


def test_autoencoder(loaded: tuple[Any, Any, Any], zoo: dict[str, nn.Module]):
    model, _, vae = loaded
    autoencoder: Any = zoo["first_stage_model."]
    image = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = autoencoder.encode(image)
        found = model.model.process_latent_in(vae.encode(image.movedim(1, -1)))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        picture = autoencoder.decode(expected)
        decoded = vae.decode(model.model.process_latent_out(expected)).movedim(-1, 1)
    torch.testing.assert_close(decoded, picture.clamp(0, 1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["tiny_zoo.safetensors", "random_zoo.safetensors", "random_zoo_fp16.safetensors"])
def test_the_stock_loader_lists_the_checkpoint(object_info: dict[str, Any], name: str):
    assert name in object_info["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"][0]


def test_registering_twice_is_registering_once(pack: Any):
    import comfy.supported_models
    import folder_paths

    before = list(comfy.supported_models.models), folder_paths.get_folder_paths("checkpoints")[:]
    pack.tiny_zoo.comfy_model.register()
    assert before == (comfy.supported_models.models, folder_paths.get_folder_paths("checkpoints"))
