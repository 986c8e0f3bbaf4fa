"""Stable Diffusion 3's and Flux's pipelines in miniature, with random weights: what the editor asks them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from tokenizers import Tokenizer
from tokenizers.models import Unigram
from tokenizers.pre_tokenizers import Metaspace
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from pix2pix_zero_core import Coordinates, EditSettings, MapGuidance, NoiseRegularizer, carried
from pix2pix_zero_core.attention import attention_probabilities, map_distance
from pix2pix_zero_core.integrations.diffusers import PipelineEditor, load_pipeline
from pix2pix_zero_core.integrations.diffusers_flow import FlowConditioning, SD3Denoiser
from pix2pix_zero_core.integrations.sentences import EditSentences
from tiny_zoo.captions import VOCABULARY
from tiny_zoo.mmdit import MMDiT
from tiny_zoo.pipeline import tokenizer as words_tokenizer
from tiny_zoo.pipeline import transformer as zoo_transformer

TEXTS = EditSentences(["a cat", "see a cat"], ["a zebra", "see a zebra"], "cat", "zebra")
QUICK = EditSettings(steps=4, cfg=2.0, guidance=MapGuidance(1.0, "normalized"), noise_from="inversion", region=0.0)
EXACT = dataclasses.replace(QUICK, regularizer=NoiseRegularizer(0.0, 0.0), fixed_point=12)
WIDTH = 32


def pieces_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of SentencePiece's kind, as T5's, with few pieces; a zebra is two."""
    pieces = ["<pad>", "</s>", "<unk>", "▁a", "▁cat", "▁ze", "bra", "▁see", "▁on", "▁grass"]
    model = Tokenizer(Unigram([(piece, -1.0) for piece in pieces], 2, False))
    model.pre_tokenizer = Metaspace()
    model.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=model, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def clip(kind: Any, seed: int) -> Any:
    torch.manual_seed(seed)
    tokens = words_tokenizer().model_max_length
    return kind(
        CLIPTextConfig(
            vocab_size=len(VOCABULARY),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=3,
            num_attention_heads=2,
            projection_dim=16,
            max_position_embeddings=tokens,
            eos_token_id=words_tokenizer().eos_token_id,
        )
    ).eval()


def t5() -> T5EncoderModel:
    torch.manual_seed(3)
    return T5EncoderModel(
        T5Config(
            vocab_size=10, d_model=WIDTH, d_kv=8, d_ff=32, num_layers=2, num_heads=2, feed_forward_proj="gated-gelu"
        )
    ).eval()


def autoencoder() -> AutoencoderKL:
    torch.manual_seed(4)
    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        scaling_factor=1.5,
        shift_factor=0.1,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).eval()


def sharpened(transformer: Any) -> Any:
    """With maps that answer to the latent, and a weak velocity, so that inversions round-trip."""
    with torch.no_grad():
        for name, parameter in transformer.named_parameters():
            if "linear.weight" in name or "time_text_embed" in name:
                parameter.mul_(3)
            if "to_q.weight" in name or "add_k_proj.weight" in name or "to_k.weight" in name:
                parameter.mul_(4)
        transformer.proj_out.weight.mul_(0.3)
    return transformer.eval()


def make_sd3(with_t5: bool = True, **scheduler: Any) -> StableDiffusion3Pipeline:
    torch.manual_seed(0)
    transformer = SD3Transformer2DModel(
        sample_size=16,
        in_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        caption_projection_dim=32,
        pooled_projection_dim=32,
        out_channels=4,
        pos_embed_max_size=16,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )
    pipeline = StableDiffusion3Pipeline(
        transformer=sharpened(transformer),
        scheduler=FlowMatchEulerDiscreteScheduler(**{"shift": 3.0, **scheduler}),
        vae=autoencoder(),
        text_encoder=clip(CLIPTextModelWithProjection, 1),
        tokenizer=words_tokenizer(),
        text_encoder_2=clip(CLIPTextModelWithProjection, 2),
        tokenizer_2=words_tokenizer(),
        text_encoder_3=t5() if with_t5 else None,
        tokenizer_3=pieces_tokenizer() if with_t5 else None,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def make_flux(distilled: bool = True) -> FluxPipeline:
    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=16,
        guidance_embeds=distilled,
        axes_dims_rope=(4, 6, 6),
    )
    pipeline = FluxPipeline(
        transformer=sharpened(transformer),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=autoencoder(),
        text_encoder=clip(CLIPTextModel, 1),
        tokenizer=words_tokenizer(),
        text_encoder_2=t5(),
        tokenizer_2=pieces_tokenizer(),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


PIPELINES: dict[str, Callable[[], Any]] = {
    "SD3": make_sd3,
    "SD3 without T5": lambda: make_sd3(with_t5=False),
    "Flux dev": make_flux,
    "Flux, not distilled": lambda: make_flux(distilled=False),
}


@pytest.fixture(params=PIPELINES)
def editor(request: pytest.FixtureRequest) -> PipelineEditor:
    return PipelineEditor(PIPELINES[request.param]())


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    torch.manual_seed(7)
    return F.interpolate(torch.rand(2, 3, 4, 4), size=(16, 24), mode="bicubic").clamp(0, 1).movedim(1, -1)


def condition(editor: PipelineEditor, text: str) -> FlowConditioning:
    found = editor.condition(*editor.encode_text(text), torch.zeros(1, 4, 8, 12))
    assert isinstance(found, FlowConditioning)
    return found


def velocity_of(pipeline: Any, x: Tensor, time: Tensor, cond: FlowConditioning, guidance: float) -> Tensor:
    """As the pipelines themselves ask their transformers."""
    texts = {"encoder_hidden_states": cond.embedding, "pooled_projections": cond.pooled}
    if isinstance(pipeline, StableDiffusion3Pipeline):
        return pipeline.transformer(x, timestep=1000 * time, **texts).sample
    height, width = x.shape[-2:]
    packed = pipeline._pack_latents(x, len(x), 4, height, width)
    found = pipeline.transformer(
        packed,
        timestep=time,
        guidance=torch.full((len(x),), guidance) if pipeline.transformer.config.guidance_embeds else None,
        img_ids=pipeline._prepare_latent_image_ids(1, height // 2, width // 2, "cpu", torch.float32),
        txt_ids=torch.zeros(cond.embedding.shape[1], 3),
        **texts,
    ).sample
    return pipeline._unpack_latents(found, height * pipeline.vae_scale_factor, width * pipeline.vae_scale_factor, 2)


@torch.no_grad()
def test_the_prediction_is_the_pipelines_own(editor: PipelineEditor):
    cond, x, time = condition(editor, "a cat"), torch.randn(1, 4, 8, 12), torch.tensor([0.7])
    expected = x - 0.7 * velocity_of(editor.pipeline, x, time, cond, 3.5)
    found = editor.denoise(x, time, cond)
    torch.testing.assert_close(found.denoised, expected, rtol=1e-5, atol=1e-6)
    watched = editor.denoise(x, time, cond, maps=True)
    assert torch.equal(watched.denoised, found.denoised)
    assert len(watched.maps) == 2 and not found.maps  # of Flux the first half
    for probabilities in watched.maps.values():
        assert probabilities.shape == (1, 2, 24, cond.embedding.shape[1])
        torch.testing.assert_close(probabilities.sum(-1), torch.ones(1, 2, 24))
    layers = editor.denoise.layers().values()
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in layers)


@torch.no_grad()
def test_the_maps_are_those_of_the_images_queries_and_the_texts_keys():
    editor = PipelineEditor(make_sd3())
    cond, x, time = condition(editor, "a cat"), torch.randn(1, 4, 8, 12), torch.tensor([0.4])
    inputs = list[dict[str, Tensor]]()
    attention = editor.pipeline.transformer.transformer_blocks[0].attn
    hook = attention.register_forward_pre_hook(lambda *call: inputs.append(call[2]), with_kwargs=True)
    maps = editor.denoise(x, time, cond, maps=True).maps
    hook.remove()
    q, k = attention.to_q(inputs[0]["hidden_states"]), attention.add_k_proj(inputs[0]["encoder_hidden_states"])
    q, k = (t.unflatten(-1, (2, -1)).transpose(1, 2) for t in (q, k))
    expected = attention_probabilities(attention.norm_q(q), attention.norm_added_k(k))
    torch.testing.assert_close(maps["transformer_blocks.0"], expected)


def test_times_are_exact_in_half_precision():
    transformer = make_sd3().transformer.to(torch.bfloat16)
    told: list[Tensor] = []
    transformer.time_text_embed.register_forward_pre_hook(lambda _, inputs: told.append(inputs[0]))
    time = torch.tensor([0.9137])
    cond = FlowConditioning(torch.zeros(1, 4, transformer.config.joint_attention_dim), torch.zeros(1, 32))
    SD3Denoiser(transformer)(torch.zeros(1, 4, 8, 8), time, cond)
    assert torch.equal(told[0].float(), 1000 * time), "bfloat16 has multiples of 4 there"


def test_what_a_distilled_model_is_told_counts():
    x, time = torch.randn(1, 4, 8, 8), torch.tensor([0.7])
    usual, weak = (PipelineEditor(make_flux(), **more) for more in ({}, {"distilled_guidance": 1.0}))
    found = [one.denoise(x, time, condition(one, "a cat")).denoised for one in (usual, weak)]
    assert not torch.allclose(*found, atol=1e-4)


def test_times_are_the_schedulers():
    latents = torch.zeros(1, 4, 32, 32)
    times = PipelineEditor(make_sd3())._model.sigmas(4, latents)
    torch.testing.assert_close(times, torch.tensor([1.0, 0.9, 0.75, 0.5, 0.0]))  # 3 t / (1 + 2 t)
    flux = make_flux()
    found = PipelineEditor(flux)._model.sigmas(4, latents)
    flux.scheduler.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25], mu=0.5)  # 256 tokens of the image
    torch.testing.assert_close(found, flux.scheduler.sigmas)
    with pytest.raises(ValueError, match="steps is 0; it must be between 1 and 999"):
        PipelineEditor(flux)._model.sigmas(0, latents)


def test_pictures_are_inverted_and_edited(editor: PipelineEditor, pictures: Tensor):
    direction = editor.build_direction(TEXTS)
    inverted = editor.invert(pictures, ["see a cat", "a cat on grass"], EXACT)
    assert inverted.inversion.coordinates is Coordinates.FLOW and inverted.inversion.sigmas[0] == 1
    latents = editor.encode(pictures)
    torch.testing.assert_close(editor.reconstruct(inverted), latents, rtol=0, atol=1e-3)
    shifted = editor.shift(inverted, direction)
    assert shifted.remarks == () and shifted.embedding.shape == inverted.embedding.shape
    edited = editor.edit(inverted, direction, output_type="latent")
    assert (
        edited.shape == latents.shape
        and torch.isfinite(edited).all()
        and not torch.allclose(edited, latents, atol=1e-2)
    )
    alone = editor.invert(pictures[1], "a cat on grass", EXACT)
    torch.testing.assert_close(editor.edit(alone, direction, output_type="latent"), edited[1:], rtol=0, atol=1e-3)
    (image, _) = editor.edit(inverted, direction)
    assert image.size == (24, 16)
    fresh = dataclasses.replace(EXACT, noise_from="fresh", region=0.4)
    assert torch.isfinite(editor.edit(inverted, direction, settings=fresh, output_type="latent")).all()


def test_guidance_brings_the_maps_closer(editor: PipelineEditor):
    source, target = condition(editor, "a cat"), condition(editor, "see a zebra")
    x, time = torch.randn(1, 4, 8, 12), torch.tensor([0.6])
    reference = {layer: found.detach() for layer, found in editor.denoise(x, time, source, maps=True).maps.items()}

    def distance(x: Tensor) -> Tensor:
        return map_distance(editor.denoise(x, time, target, maps=True).maps, reference).sum()

    moving = x.clone().requires_grad_()
    before = distance(moving)
    (gradient,) = torch.autograd.grad(before, moving)
    step = 1e-2 * gradient / gradient.norm()
    with torch.no_grad():
        slope = (distance(x + step) - distance(x - step)) / 2
    torch.testing.assert_close(slope, (gradient * step).sum(), rtol=2e-2, atol=0)
    assert carried(step, time[0], time[0], Coordinates.FLOW).shape == x.shape


@torch.no_grad()
def test_the_embedded_transformer_is_the_same_in_diffusers():
    torch.manual_seed(5)
    own = MMDiT().eval()
    for parameter in own.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    state = {f"model.diffusion_model.{name}": tensor.clone() for name, tensor in own.state_dict().items()}
    denoise = SD3Denoiser(zoo_transformer(state))
    width = own.context_embedder.in_features
    x, time = torch.randn(2, 4, 12, 16), torch.tensor([0.3, 0.9])
    cond = FlowConditioning(torch.randn(1, 77, width), torch.randn(1, width))
    velocity = own(x, 1000 * time, cond.embedding.expand(2, -1, -1), cond.pooled.expand(2, -1))
    found = denoise(x, time, cond).denoised
    torch.testing.assert_close(found, x - time[:, None, None, None] * velocity, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["SD3", "Flux dev"])
def test_folders_are_loaded(family: str, tmp_path: Path):
    editor = PipelineEditor(PIPELINES[family]())
    editor.pipeline.save_pretrained(tmp_path / "it")
    loaded = PipelineEditor(load_pipeline(tmp_path / "it"))
    assert loaded.encoder == editor.encoder and loaded.side == editor.side
    x, time = torch.randn(1, 4, 8, 12), torch.tensor([0.4])
    found, expected = (one.denoise(x, time, condition(one, "a cat")).denoised for one in (loaded, editor))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_what_does_not_fit_is_refused_by_name(pictures: Tensor):
    wrong = make_sd3()
    wrong.scheduler = DDIMScheduler()
    with pytest.raises(
        TypeError, match="DDIMScheduler does not say how this StableDiffusion3Pipeline spaces its times"
    ):
        PipelineEditor(wrong)
    editor = PipelineEditor(make_flux())
    with pytest.raises(ValueError, match="multiples of 4"):
        editor.encode(pictures[:, :, :22])
    with pytest.raises(ValueError, match=r"The text has 30[12] tokens; 256 is the most"):
        editor.encode_text("cat " * 300)
    with pytest.raises(ValueError, match="The latent is 12 x 7; the model takes multiples of 2"):
        editor.denoise(torch.randn(1, 4, 7, 12), torch.tensor([0.5]), condition(editor, "a cat"))
    with pytest.raises(ValueError, match=r"attention of transformer_blocks.0.* could not be seen"):
        for block in editor.pipeline.transformer.transformer_blocks:
            block.attn.forward = lambda hidden_states, encoder_hidden_states, **_: (
                hidden_states,
                encoder_hidden_states,
            )
        editor.denoise(torch.randn(1, 4, 8, 12), torch.tensor([0.5]), condition(editor, "a cat"), maps=True)
