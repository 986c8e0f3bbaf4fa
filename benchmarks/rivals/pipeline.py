"""The pipeline of diffusers, `StableDiffusionPix2PixZeroPipeline`, on any UNet: deprecated, and removed one day.

Seen working with diffusers 0.42.1 beside transformers 5.23. Text encoder, tokenizer, captioner and safety checker are
left out, embeddings are passed instead; since `invert` decodes what it found, a tiny autoencoder stands in. What the
pipeline does to its UNet, `left_as_found` undoes.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor

NAME = "StableDiffusionPix2PixZeroPipeline"


def make_pipeline(unet: Any, alphas: Tensor) -> Any:
    """Wrap a UNet.

    Args:
        unet: a UNet2DConditionModel that predicts noise.
        alphas: cumulative alphas of training, (1000,).

    Raises:
        ImportError: this diffusers has the pipeline no longer.
    """
    diffusers: Any = import_module("diffusers")
    if not hasattr(diffusers, NAME):
        raise ImportError(f"diffusers {diffusers.__version__} has no {NAME}; 0.42.1 has it.")
    betas = 1 - alphas.double() / torch.cat([alphas.new_ones(1).double(), alphas[:-1].double()])
    schedule: dict[str, Any] = {"trained_betas": betas.tolist(), "clip_sample": False, "steps_offset": 1}
    autoencoder = diffusers.AutoencoderKL(
        block_out_channels=(4, 4, 4, 4),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=2,
    )
    pipeline = getattr(diffusers, NAME)(
        vae=autoencoder.to(unet.device).requires_grad_(False),
        unet=unet,
        scheduler=diffusers.DDIMScheduler(**schedule, set_alpha_to_one=False),
        inverse_scheduler=diffusers.DDIMInverseScheduler(**schedule, set_alpha_to_one=False),
        **dict.fromkeys(("text_encoder", "tokenizer", "feature_extractor", "safety_checker")),
        **dict.fromkeys(("caption_generator", "caption_processor")),
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def invert(pipeline: Any, x0: Tensor, source: Tensor, steps: int) -> Tensor:
    """Walk from a picture's latent (1, 4, H, W) to noise, VP."""
    shifts = torch.Generator().manual_seed(0)
    return pipeline.invert(prompt_embeds=source, image=x0, num_inference_steps=steps, generator=shifts).latents


def edit(pipeline: Any, noise: Tensor, source: Tensor, target: Tensor, steps: int, cfg: float = 5.0) -> Tensor:
    """Sample the edited picture's latent, (1, 4, H, W); the source is the negative as well."""
    return pipeline(
        prompt_embeds=source,
        negative_prompt_embeds=source,
        source_embeds=source,
        target_embeds=target,
        height=8 * noise.shape[2],
        width=8 * noise.shape[3],
        latents=noise,
        num_inference_steps=steps,
        guidance_scale=cfg,
        output_type="latent",
    ).images
