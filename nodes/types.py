"""The two socket types that ComfyUI has no stock type for."""

from __future__ import annotations

from comfy_api.v0_0_2 import io

CATEGORY = "pix2pix-zero"

InversionType = io.Custom("PIX2PIX_ZERO_INVERSION")
"""A `pix2pix_zero_core.Inversion`, in the model's own latent space, on the CPU."""

DirectionType = io.Custom("PIX2PIX_ZERO_DIRECTION")
"""A `pix2pix_zero_core.EditDirection`."""
