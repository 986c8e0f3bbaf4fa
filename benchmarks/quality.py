"""Which method edits best? `python -m benchmarks.quality` edits held-out scenes and lets the probe judge.

Writes `quality.json`, `quality.md` and one contact sheet a task (source, true edit, every method) to
`benchmarks/results/`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pix2pix_zero_core import EditDirection, MapGuidance
from pix2pix_zero_core.integrations.sentences import load_edit
from tiny_zoo.captions import caption
from tiny_zoo.compose_directions import FOLDER
from tiny_zoo.denoiser import TinyZoo
from tiny_zoo.draw import sheet
from tiny_zoo.probe import Probe, load_probe
from tiny_zoo.training import WEIGHTS
from tiny_zoo.world import ATTRIBUTES, POSE_RANGES, Scene, counterfactual, render, sample_scene

from .methods import Counted, Method, Problem, ddim_word_swap, official_code, ours

RESULTS = Path(__file__).parent / "results"

METHODS: dict[str, Method] = {
    "ddim_word_swap": ddim_word_swap,
    "official": official_code,
    "ours": ours(MapGuidance(0.4, "normalized")),
}

Row = dict[str, str | int | float]


@dataclasses.dataclass(frozen=True)
class Task:
    """Scenes to edit: what they must show, and what the edit changes."""

    source: dict[str, str]
    change: dict[str, str]


TASKS = {
    "cat2dog": Task({"animal": "cat"}, {"animal": "dog"}),
    "dog2cat": Task({"animal": "dog"}, {"animal": "cat"}),
}


def tensor(pictures: list[Image.Image]) -> Tensor:
    """Pictures as (B, 3, H, W) in 0..1."""
    return torch.from_numpy(np.stack([np.asarray(p) for p in pictures])).permute(0, 3, 1, 2).float() / 255


def direction_of(model: TinyZoo, edit: str) -> EditDirection:
    """The shipped direction of an edit."""
    source_sentences, target_sentences, source, target = load_edit(edit, FOLDER)
    return EditDirection.build(
        lambda texts: (model.encode_text(texts), None),
        source_sentences,
        target_sentences,
        source=source,
        target=target,
        encoder="tiny_zoo",
    )


def judge(probe: Probe, edited: Tensor, truth: list[Scene], change: dict[str, str]) -> dict[str, float]:
    """Compare edited pictures (B, 3, 128, 128) with the true edits."""
    names, pose = probe.read(edited)
    true_pose = [[(getattr(s, p) - low) / (high - low) for p, (low, high) in POSE_RANGES.items()] for s in truth]
    true_pictures = tensor([render(s) for s in truth])
    kept = [a for a in ATTRIBUTES if a not in change]

    def share(attributes: list[str]) -> float:
        right = [[names[a][i] == getattr(s, a) for a in attributes] for i, s in enumerate(truth)]
        return float(np.mean(right))

    return {
        "edit_success": share(list(change)),
        "attributes_kept": share(kept),
        "pose_error": float((pose - torch.tensor(true_pose)).abs().mean()),
        "truth_psnr": float((-10 * (edited - true_pictures).square().mean((1, 2, 3)).log10()).mean()),
    }


def main() -> None:
    """Run every method on every task, one after the other, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=WEIGHTS / "checkpoints" / "tiny_zoo.safetensors")
    parser.add_argument("--count", type=int, default=32, help="scenes a task")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    model, probe = TinyZoo.load(arguments.checkpoint), load_probe()
    arguments.output.mkdir(parents=True, exist_ok=True)

    rows: list[Row] = []
    for name, task in TASKS.items():
        scenes = [sample_scene(i, "test", **task.source) for i in range(arguments.count)]
        truth = [counterfactual(s, **task.change) for s in scenes]
        keep = ("animal", "coat", "background", "accessory", "medium")

        def texts(shown: list[Scene]) -> Tensor:
            return model.encode_text([caption(s, random.Random(i), keep=keep) for i, s in enumerate(shown)])  # noqa: B023

        source, swapped = texts(scenes), texts(truth)
        target = direction_of(model, name).apply(source, encoder="tiny_zoo")
        with torch.no_grad():
            x0 = model.vae.encode(tensor([render(s) for s in scenes]))
        pages = [tensor([render(s) for s in scenes]), tensor([render(s) for s in truth])]
        for label, method in METHODS.items():
            started, denoise, edited = time.perf_counter(), Counted(model), list[Tensor]()
            for i in range(0, len(scenes), arguments.batch):
                part = slice(i, i + arguments.batch)
                problem = Problem(x0[part], source[part], swapped[part], target[part], arguments.steps)
                latent = method(denoise, problem)
                with torch.no_grad():
                    edited.append(model.vae.decode(latent).clamp(0, 1))
            seconds = (time.perf_counter() - started) / len(scenes)
            pictures = torch.cat(edited)
            pages.append(pictures)
            row: Row = {
                "task": name,
                "method": label,
                "n": len(scenes),
                **judge(probe, pictures, truth, task.change),
                "unet_rows": denoise.rows / len(scenes),
                "seconds": seconds,
            }
            rows.append(row)
            print(" ".join(f"{k}={v:.3f}" if isinstance(v, float) else f"{v}" for k, v in row.items()), flush=True)
        shown = torch.stack([page[:12] for page in pages], dim=1).flatten(0, 1)
        sheet(shown, len(pages)).save(arguments.output / f"{name}.png")

    write(arguments.output, rows)


def write(folder: Path, rows: list[Row]) -> None:
    """Write the rows as JSON and as a Markdown table."""
    environment: dict[str, Any] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "date": time.strftime("%Y-%m-%d"),
    }
    (folder / "quality.json").write_text(json.dumps({"rows": rows, "environment": environment}, indent=1) + "\n")
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    for row in rows:
        cells = [f"{row[c]:.3f}" if isinstance(row[c], float) else str(row[c]) for c in columns]
        lines.append("| " + " | ".join(cells) + " |")
    (folder / "quality.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
