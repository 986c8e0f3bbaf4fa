"""Peak memory of the guidance's gradient on a full-size Stable Diffusion 1.5 UNet with random weights, on the CPU.

    COMFYUI_PATH=.runtime/comfyui-0.3.75 .runtime/venv/bin/python -m benchmarks.speed.memory
    ... -m benchmarks.speed.memory --side 128 --channels 64        a small one, to see that it works

Every row is a process of its own: one forward pass and one gradient step of one picture, as an edit takes them. What is
counted is resident memory above what the loaded model takes, from Linux's own record of the peak. It prints Markdown.
"""

# ComfyUI's base classes leave the arguments of what they call open.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from .meter import resident
from .pack import find_comfyui, load_pack

ROWS = {
    "prediction alone": None,
    "gradient": ("never", 1),
    "gradient, finest_layer 2": ("never", 2),
    "gradient, checkpointing": ("always", 1),
    "gradient, checkpointing, finest_layer 2": ("always", 2),
}
"""What is measured -> checkpointing and finest_layer of the gradient step."""


def main() -> None:
    """Measure every row and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=512, help="width and height of the picture, pixels")
    parser.add_argument("--channels", type=int, default=320, help="of the UNet's first block; 320 is full size")
    parser.add_argument("--row", choices=ROWS, help="measure this one alone")
    options = parser.parse_args()
    if options.row:
        peak, seconds = measure(options.row, options.side, options.channels)
        print(f"| {options.row} | {peak / 2**20:.0f} | {seconds:.1f} |")
        return
    print(f"| {options.side} px, {options.channels} channels, float32 | peak above the model, MiB | seconds |")
    print("|---|---|---|", flush=True)
    for row in ROWS:
        subprocess.run([sys.executable, "-m", "benchmarks.speed.memory", *sys.argv[1:], "--row", row], check=True)


def measure(row: str, side: int, channels: int) -> tuple[int, float]:
    """Run one row.

    Args:
        row: one of `ROWS`.
        side: width and height of the picture, pixels.
        channels: width of the UNet.

    Returns:
        bytes at the peak above those before, and seconds.
    """
    find_comfyui(["--cpu"])
    pack = load_pack()
    import comfy.model_patcher
    import comfy.samplers
    import torch

    cpu = torch.device("cpu")
    with torch.inference_mode():
        patcher = comfy.model_patcher.ModelPatcher(random_model(channels), load_device=cpu, offload_device=cpu)
        texts = [[[torch.randn(1, 77, 768, generator=torch.Generator().manual_seed(seed)), {}]] for seed in (1, 2)]
        latent = torch.randn(1, 4, side // 8, side // 8, generator=torch.Generator().manual_seed(0))
        guider = comfy.samplers.CFGGuider(patcher)
        guider.inner_set_conds({"source": texts[0], "positive": texts[1]})
        sampler = one_step(pack, ROWS[row])
        guider.sample(latent, torch.zeros_like(latent), sampler, torch.tensor([5.0, 0.0]), disable_pbar=True)
    return sampler.peak, sampler.seconds


def one_step(pack: Any, settings: tuple[str, int] | None) -> Any:
    """Make a ComfyUI sampler that takes one prediction, and a gradient step if there are settings for one."""
    import comfy.samplers

    from_pack = pack.nodes

    class OneStep(comfy.samplers.Sampler):
        peak, seconds = 0, 0.0

        def sample(self, guider: Any, sigmas: Any, extra_args: dict[str, Any], callback: Any, noise: Any, *_: Any):
            checkpointing, finest_layer = settings or ("never", 1)
            denoise = from_pack.bridge.GuiderDenoiser(guider, extra_args, finest_layer)
            step = from_pack.gradient.GradientStep(checkpointing)
            guidance = pack.pix2pix_zero_core.MapGuidance(0.1)
            x, sigma = noise * sigmas[0], sigmas[0]
            before, began = resident("VmRSS"), time.perf_counter()
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
            maps = denoise(x, sigma.expand(1), "source", maps=True).maps
            if settings:
                step(denoise, x, sigma, "positive", maps, guidance)
            self.peak, self.seconds = resident("VmHWM") - before, time.perf_counter() - began
            return noise

    return OneStep()


def random_model(channels: int) -> Any:
    """Build Stable Diffusion 1.5 as ComfyUI does, with random weights."""
    import comfy.supported_models
    import torch

    config = comfy.supported_models.SD15(
        {
            "image_size": 32,
            "in_channels": 4,
            "out_channels": 4,
            "model_channels": channels,
            "num_res_blocks": [2, 2, 2, 2],
            "channel_mult": (1, 2, 4, 4),
            "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
            "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
            "transformer_depth_middle": 1,
            "context_dim": 768,
            "adm_in_channels": None,
            "use_spatial_transformer": True,
            "use_linear_in_transformer": False,
            "legacy": False,
        }
    )
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({})
    for name, parameter in model.diffusion_model.named_parameters():
        parameter.data = torch.ones_like(parameter) if parameter.ndim == 1 else torch.randn_like(parameter)
        if parameter.ndim > 1:
            parameter.data /= parameter[0].numel() ** 0.5
        elif name.endswith("bias"):
            parameter.data.zero_()
    return model.eval()


if __name__ == "__main__":
    main()
