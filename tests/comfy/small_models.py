"""Small models of the families whose workflows load a model in several files, in the place of those files.

What `comfy.sd` makes of the file of a diffusion model or a text encoder has sizes that it takes for granted, so the
functions that read these are exchanged; the nodes that call them are the stock ones. Autoencoders in files of their own
are read as ever, from small files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import comfy.ldm.wan.vae
import comfy.sd
import comfy.supported_models
import comfy.taesd.taesd
import safetensors.torch
import torch

from tests.comfy import encoders, transformers

WIDTH = 32  # of the text encoders
VAE_WIDTH = 8

NETWORKS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "flux1-dev": ("Flux dev", {"context_in_dim": WIDTH, "vec_in_dim": WIDTH}),
    "anima-base-v1.0": (
        # A ComfyUI that does not know Anima has the network that it was made from.
        "Anima" if hasattr(comfy.supported_models, "Anima") else "Cosmos Predict 2",
        {"crossattn_emb_channels": WIDTH},
    ),
    "z_image_bf16": ("Z-Image", {"cap_feat_dim": WIDTH}),
    "qwen_image_fp8_e4m3fn": ("Qwen-Image", {"joint_attention_dim": WIDTH}),
}
"""Name of a file, without its ending -> its family, and what its sizes are for these text encoders."""

ENCODERS = {
    "clip_l": "Flux",
    "qwen_3_06b_base": "Cosmos",  # Anima's own is not in the pinned ComfyUI
    "qwen_3_4b": "Z-Image",
    "qwen_2.5_vl_7b_fp8_scaled": "Qwen-Image",
}
"""Name of the first file of an encoder, without its ending -> its family."""

SD35 = "sd3.5_medium_incl_clips_t5xxlfp8scaled"
"""Name of a checkpoint that holds all of a model."""


def random_weights(path: Path, network: torch.nn.Module) -> None:
    """Write a network with random weights."""
    transformers.randomize(network, "no layer")
    safetensors.torch.save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path)


def write_files(models: Path, files: Mapping[str, str]) -> None:
    """Put a small file in the place of each.

    Args:
        models: ComfyUI's folder of models.
        files: name -> folder.
    """
    for name, folder in files.items():
        (models / folder).mkdir(parents=True, exist_ok=True)
        path = models / folder / name
        if folder != "vae":
            safetensors.torch.save_file({"stands_for": torch.zeros(1)}, path)
        elif name.startswith("qwen"):
            sizes: dict[str, Any] = {"dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_scales": []}
            sizes |= {"temperal_downsample": [False, True, True], "dropout": 0.0}
            random_weights(path, comfy.ldm.wan.vae.WanVAE(dim=VAE_WIDTH, z_dim=16, **sizes))
        else:
            random_weights(path, comfy.taesd.taesd.TAESD(latent_channels=16))


def register() -> None:
    """Exchange what reads the files."""
    read_checkpoint: Callable[..., Any] = comfy.sd.load_checkpoint_guess_config
    read_network: Callable[..., Any] = comfy.sd.load_diffusion_model

    def diffusion_model(path: str, *arguments: Any, **options: Any) -> Any:
        if Path(path).stem not in NETWORKS:
            return read_network(path, *arguments, **options)
        name, sizes = NETWORKS[Path(path).stem]
        return transformers.make(name, Path(path).parent, **sizes)

    def text_encoder(ckpt_paths: list[str], **_: Any) -> Any:
        return encoders.make_encoder(ENCODERS[Path(ckpt_paths[0]).stem])

    def checkpoint(ckpt_path: str, **options: Any) -> Any:
        if Path(ckpt_path).stem != SD35:
            return read_checkpoint(ckpt_path, **options)
        context = {"target": "torch.nn.Linear", "params": {"in_features": encoders.SD3_WIDTH, "out_features": 128}}
        model = transformers.make("SD 3.5", Path(ckpt_path).parent, context_embedder_config=context)
        taesd = comfy.taesd.taesd.TAESD(latent_channels=16)
        transformers.randomize(taesd, "no layer")
        return model, encoders.make_encoder("SD3, CLIP and T5"), comfy.sd.VAE(sd=taesd.state_dict()), None

    make_autoencoder = comfy.ldm.wan.vae.WanVAE

    def autoencoder(dim: int, **sizes: Any) -> torch.nn.Module:
        return make_autoencoder(dim=VAE_WIDTH, **sizes)  # the oldest ComfyUI takes the full width for granted

    comfy.ldm.wan.vae.WanVAE = autoencoder
    comfy.sd.load_diffusion_model = diffusion_model
    comfy.sd.load_clip = text_encoder
    comfy.sd.load_checkpoint_guess_config = checkpoint
