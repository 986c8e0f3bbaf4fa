"""A process that measures: `python -m benchmarks.gpu.worker FOLDER FLAGS...`, with ComfyUI's command line as its state.

It writes an empty object once ComfyUI is loaded. Then it reads a job a line from standard input, in JSON, and writes
each row that it measured as a line, and an empty object after the last one. All else that is printed goes to standard
error.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..speed.pack import ROOT, find_comfyui, load_pack
from .plan import Job

Row = dict[str, Any]


def main() -> None:
    """Load ComfyUI and the pack, and do what is asked for until standard input ends."""
    folder, flags = Path(sys.argv[1]), sys.argv[2:]
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what ComfyUI prints is no answer
    find_comfyui(flags)
    dynamic = begin_dynamic_vram()
    pack = load_pack()
    sys.path.append(str(ROOT))  # behind ComfyUI, whose `nodes` must come first
    if dynamic:
        go_on_with_dynamic_vram()

    import torch

    from . import embedded, tasks

    known: dict[str, Callable[[Any, Job, Path, Callable[..., None]], None]] = tasks.TASKS | embedded.TASKS
    print("{}", file=answers)
    for line in sys.stdin:
        job = Job(**json.loads(line))

        def report(what: str, **figures: Any) -> None:
            print(json.dumps({"what": what} | figures), file=answers)

        try:
            with torch.inference_mode():
                known[job.task](pack, job, folder, report)
        except Exception as error:
            traceback.print_exc()
            report(job.task, failed=tasks.reason(error))
        finally:
            tasks.clear()
        print("{}", file=answers)


def begin_dynamic_vram() -> bool:
    """Do what ComfyUI's main.py does before it imports torch, if the tree has dynamic VRAM and no flag forbids it."""
    import comfy.cli_args

    enabled = getattr(comfy.cli_args, "enables_dynamic_vram", None)
    if enabled is None or not enabled():
        return False
    import comfy_aimdo.control as aimdo  # pyright: ignore[reportMissingImports]  # of newer trees

    given = comfy.cli_args.args
    watches = {"nvml_pressure": not given.disable_nvml_pressure} if hasattr(given, "disable_nvml_pressure") else {}
    aimdo.init(simple_vram_headroom=given.reserve_vram and int(given.reserve_vram * 2**30), **watches)
    return True


def go_on_with_dynamic_vram() -> None:
    """Do what main.py does once the devices are known."""
    import comfy.memory_management  # pyright: ignore[reportMissingImports]  # of newer trees
    import comfy.model_management as management
    import comfy.model_patcher as patcher
    import comfy_aimdo.control as aimdo  # pyright: ignore[reportMissingImports]
    from comfy.cli_args import args

    devices: Any = management.get_all_torch_devices()  # pyright: ignore[reportAttributeAccessIssue]  # of newer trees
    if not aimdo.init_devices((device.index, int(args.vram_headroom * 2**30)) for device in devices):
        raise SystemExit("comfy-aimdo does not start on this machine, so that there is no dynamic VRAM.")
    patcher.CoreModelPatcher = patcher.ModelPatcherDynamic  # pyright: ignore[reportAttributeAccessIssue]
    comfy.memory_management.aimdo_enabled = True  # pyright: ignore[reportAttributeAccessIssue]


if __name__ == "__main__":
    main()
