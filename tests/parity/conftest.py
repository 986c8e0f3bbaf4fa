"""A random Stable Diffusion in miniature: the oracle's UNet, its schedule and two prompts."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor

from pix2pix_zero_core.integrations.diffusers import DiffusersDenoiser, TextConditioning

torch.set_num_threads(1)


@dataclass(frozen=True)
class TinyDiffusion:
    unet: UNet2DConditionModel
    scheduler: DDIMScheduler
    denoise: DiffusersDenoiser
    source: Tensor
    target: Tensor
    x0: Tensor

    @property
    def alphas(self) -> Tensor:
        return self.scheduler.alphas_cumprod


def make(prediction: str = "epsilon", set_alpha_to_one: bool = False) -> TinyDiffusion:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=12,
        attention_head_dim=2,
        norm_num_groups=8,
    ).eval()
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if "attn2.to_q" in name or "attn2.to_k" in name:
                parameter *= 4  # random attention is nearly uniform; guidance needs maps that react to x
        unet.conv_out.weight *= 0.3  # a random network is no denoiser; weakened, it does not throw x about
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=set_alpha_to_one,
        steps_offset=1,
        prediction_type=prediction,
    )
    return TinyDiffusion(
        unet,
        scheduler,
        DiffusersDenoiser(unet, scheduler.alphas_cumprod, prediction),
        source=torch.randn(1, 7, 12),
        target=torch.randn(1, 7, 12),
        x0=torch.randn(1, 4, 16, 16),
    )


@pytest.fixture
def tiny() -> TinyDiffusion:
    return make()


@pytest.fixture
def make_tiny():
    return make


@pytest.fixture
def cond():
    return TextConditioning
