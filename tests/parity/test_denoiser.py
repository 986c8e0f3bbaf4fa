"""The diffusers integration: right predictions and maps, and a model that is left as it was."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel, UNet2DModel

from pix2pix_zero_core import MapGuidance, NoiseRegularizer, edit, invert, reconstruct
from pix2pix_zero_core.integrations.diffusers import DiffusersDenoiser, TextConditioning
from pix2pix_zero_core.schedule import ddim_sigmas


@pytest.fixture
def sigma(tiny):
    return tiny.denoise.sigmas[[601]]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_denoised_equals_diffusers_original_sample(make_tiny, cond, prediction):
    tiny = make_tiny(prediction)
    tiny.scheduler.set_timesteps(50)
    for t in (981, 501, 1):
        sigma = tiny.denoise.sigmas[[t]]
        with torch.no_grad():
            x_vp = tiny.x0 / (1 + sigma**2).sqrt()
            expected = tiny.scheduler.step(tiny.unet(x_vp, t, tiny.source).sample, t, x_vp).pred_original_sample
            denoised = tiny.denoise(tiny.x0, sigma, cond(tiny.source)).denoised
        assert torch.allclose(denoised, expected, rtol=1e-4, atol=1e-4 * float(sigma))


def test_maps_are_those_the_layers_attend_with(tiny, cond, sigma):
    """A layer's output must be the recorded probabilities times its values."""
    seen = {}
    hooks = [
        module.register_forward_hook(
            lambda module, args, kwargs, output, name=name: seen.update({name: (module, args, kwargs, output)}),
            with_kwargs=True,
        )
        for name, module in tiny.unet.named_modules()
        if name.endswith("attn2")
    ]
    with torch.no_grad():
        maps = tiny.denoise(tiny.x0, sigma, cond(tiny.source), maps=True).maps
        assert maps.keys() == seen.keys()
        assert len(maps) == 4
        for name, (module, _, kwargs, output) in seen.items():
            assert maps[name].dtype == torch.float32
            assert torch.allclose(maps[name].sum(-1), torch.ones(()))
            value = module.to_v(kwargs["encoder_hidden_states"]).unflatten(-1, (module.heads, -1)).transpose(1, 2)
            attended = (maps[name] @ value).transpose(1, 2).flatten(2)
            assert torch.allclose(module.to_out[0](attended), output, atol=1e-5)
    for hook in hooks:
        hook.remove()


def test_asking_for_maps_does_not_change_the_prediction(tiny, cond, sigma):
    with torch.no_grad():
        plain, observed = (tiny.denoise(tiny.x0, sigma, cond(tiny.source), maps=maps) for maps in (False, True))
    assert not plain.maps
    assert torch.equal(plain.denoised, observed.denoised)


def test_maps_and_prediction_are_differentiable_in_x(tiny, cond, sigma):
    x = tiny.x0.clone().requires_grad_()
    prediction = tiny.denoise(x, sigma, cond(tiny.source), maps=True)
    for output in (prediction.denoised.sum(), sum(m.square().sum() for m in prediction.maps.values())):
        (gradient,) = torch.autograd.grad(output, x, retain_graph=True)
        assert gradient.abs().max() > 0


def test_the_model_is_left_as_it_was(tiny, cond, sigma):
    processors = dict(tiny.unet.attn_processors)
    state = {name: tensor.clone() for name, tensor in tiny.unet.state_dict().items()}
    flags = {name: parameter.requires_grad for name, parameter in tiny.unet.named_parameters()}
    sigmas = ddim_sigmas(tiny.denoise.sigmas, 4)
    inversion = invert(tiny.denoise, tiny.x0, cond(tiny.source), sigmas)
    edit(tiny.denoise, inversion, cond(tiny.source), cond(tiny.target))
    for name, processor in tiny.unet.attn_processors.items():
        assert processor is processors[name]
    assert all(torch.equal(tensor, state[name]) for name, tensor in tiny.unet.state_dict().items())
    for name, parameter in tiny.unet.named_parameters():
        assert parameter.requires_grad == flags[name]
        assert parameter.grad is None


def test_the_model_is_restored_after_an_exception(tiny, cond, sigma):
    processors = dict(tiny.unet.attn_processors)
    with pytest.raises(RuntimeError):
        tiny.denoise(tiny.x0, sigma, cond(tiny.source[..., :5]), maps=True)
    assert all(processor is processors[name] for name, processor in tiny.unet.attn_processors.items())


def test_every_sample_has_its_own_sigma_and_text(tiny, cond):
    x, sigmas = torch.cat([tiny.x0, 2 * tiny.x0]), tiny.denoise.sigmas[[981, 101]]
    with torch.no_grad():
        together = tiny.denoise(x, sigmas, cond(torch.cat([tiny.source, tiny.target])), maps=True)
        for b, text in enumerate((tiny.source, tiny.target)):
            alone = tiny.denoise(x[b : b + 1], sigmas[b : b + 1], cond(text), maps=True)
            assert torch.allclose(together.denoised[b], alone.denoised[0], atol=1e-4)
            for layer, probabilities in alone.maps.items():
                assert torch.allclose(together.maps[layer][b], probabilities[0], atol=1e-5)


def test_half_precision_weights_give_float32_predictions(tiny, cond, sigma):
    with torch.no_grad():
        expected = tiny.denoise(tiny.x0, sigma, cond(tiny.source))
        tiny.unet.to(torch.bfloat16)
        prediction = tiny.denoise(tiny.x0, sigma, cond(tiny.source), maps=True)
    assert prediction.denoised.dtype == torch.float32
    assert {m.dtype for m in prediction.maps.values()} == {torch.float32}
    assert torch.allclose(prediction.denoised, expected.denoised, atol=0.05 * float(sigma))


def test_sdxl_style_conditioning_reaches_the_model(tiny):
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=16, block_out_channels=(8, 8), layers_per_block=1, cross_attention_dim=6, attention_head_dim=1,
        norm_num_groups=4, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), addition_embed_type="text_time",
        addition_time_embed_dim=4, projection_class_embeddings_input_dim=6 * 4 + 5,
    )  # fmt: skip
    denoise = DiffusersDenoiser(unet, tiny.alphas)
    sigma, embedding, time_ids = denoise.sigmas[[500]], torch.randn(1, 7, 6), torch.arange(6.0)[None]
    with torch.no_grad():
        first, second = (
            denoise(
                tiny.x0,
                sigma,
                TextConditioning(embedding, {"text_embeds": torch.full((1, 5), v), "time_ids": time_ids}),
            ).denoised
            for v in (0.0, 3.0)
        )
    assert not torch.equal(first, second)


def test_inversion_and_guidance_work_on_a_real_unet(tiny, cond):
    sigmas = ddim_sigmas(tiny.denoise.sigmas, 6, final="sigma_min")
    off = NoiseRegularizer(strength=0, kl_strength=0)
    inversion = invert(tiny.denoise, tiny.x0, cond(tiny.source), sigmas, off, fixed_point=20)
    error = reconstruct(tiny.denoise, inversion, cond(tiny.source)) - tiny.x0
    assert error.square().mean().sqrt() < 1e-3
    free, held = (
        edit(tiny.denoise, inversion, cond(tiny.source), cond(tiny.target), guidance=MapGuidance(s, "normalized"))
        for s in (1e-6, 1.2)
    )
    assert held.loss[-1] < 0.9 * free.loss[-1]


def test_models_without_text_are_refused(tiny):
    unet = UNet2DModel(
        sample_size=16, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    with pytest.raises(TypeError, match=r"UNet2DModel has no plain cross-attention .* Stable Diffusion 1, 2 or XL"):
        DiffusersDenoiser(unet, tiny.alphas)


@pytest.mark.parametrize(("name", "value"), [("norm_cross", torch.nn.LayerNorm(12)), ("added_kv_proj_dim", 12)])
def test_cross_attention_of_another_kind_is_refused(tiny, name, value):
    """Its keys are not a projection of the text alone: the recorded maps would be wrong."""
    setattr(next(module for key, module in tiny.unet.named_modules() if key.endswith("attn2")), name, value)
    with pytest.raises(TypeError, match="has no plain cross-attention"):
        DiffusersDenoiser(tiny.unet, tiny.alphas)


def test_flow_models_are_refused(tiny):
    with pytest.raises(ValueError, match=r'prediction is \'flow\'; only "epsilon" and "v_prediction"'):
        DiffusersDenoiser(tiny.unet, tiny.alphas, "flow")
