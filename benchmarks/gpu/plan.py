"""What is measured, in which order, and in which state of ComfyUI: data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

PARTS = {
    "embedded": "edits of the embedded model on the card, beside those of the CPU",
    "precision": "a prediction and a guidance step, weights in every type",
    "memory": "the same with low VRAM, no VRAM and, where ComfyUI's tree has it, dynamic VRAM",
    "edit": "whole edits, beside those by the published code's algorithm",
    "compile": "torch.compile, by TorchCompileModel",
}
"""Part -> what it is."""

Flags = tuple[str, ...]


@dataclass(frozen=True)
class Job:
    """A piece of work for one process.

    Attributes:
        part: one of `PARTS`.
        task: one of `tasks.TASKS` or `embedded.TASKS`.
        network: one of `networks.NETWORKS`; none for the embedded model.
        weights: name of torch's type of the weights.
        mode: of ComfyUI's memory, in words.
        flags: of ComfyUI's command line that make the mode.
        room_gib: of the card's memory, what ComfyUI may use; 0 for all.
        repeats: how often a call is timed.
        steps: of an edit.
        unavailable: why it cannot be done here, if so.
    """

    part: str
    task: str
    network: str = ""
    weights: str = "float32"
    mode: str = "normal"
    flags: Flags = ()
    room_gib: float = 0.0
    repeats: int = 3
    steps: int = 20
    unavailable: str = ""


def full(card_gib: float, dynamic: bool) -> list[Job]:
    """What is measured on a card, in under eight minutes on a fast one.

    Args:
        card_gib: the card's memory.
        dynamic: whether ComfyUI's tree has dynamic VRAM.
    """
    jobs = [
        *embedded(8),
        *precision("SD 1.5", ("float32", "float16", "bfloat16", "float8_e4m3fn")),
        *precision("SDXL", ("float32", "float16", "bfloat16", "float8_e4m3fn")),
        *edits({"SD 1.5": 50, "SDXL": 10}),
        *precision("SD 3.5 medium", ("float32", "bfloat16", "float8_e4m3fn")),
        *edits({"SD 3.5 medium": 20}, "bfloat16"),
        *memory({"SD 1.5": 0.8, "SDXL": 2.5}),
        *fp8_products("SDXL"),
        Job("compile", "compiled", "SD 1.5", "float16", steps=4),
        *precision("Z-Image", ("bfloat16",)),
        *precision("Flux.1 dev", ("bfloat16",)),
    ]
    return [finished(job, card_gib, dynamic) for job in jobs]


def short(card_gib: float, dynamic: bool) -> list[Job]:
    """Less of everything, in two minutes."""
    jobs = [
        *embedded(4, ("float32",)),
        *precision("SD 1.5", ("float32", "float16", "bfloat16", "float8_e4m3fn")),
        *precision("SDXL", ("float16",)),
        *edits({"SD 1.5": 10}),
        *precision("SD 3.5 medium", ("bfloat16",)),
        *memory({"SD 1.5": 0.8}),
    ]
    return [finished(job, card_gib, dynamic) for job in jobs]


def without_card(card_gib: float, dynamic: bool) -> list[Job]:
    """What runs on a CPU, on narrow networks, to see that it runs; and what does not, by name."""
    smallest = [
        *embedded(2),
        *precision("SD 1.5, narrow", ("float32", "float16", "float8_e4m3fn")),
        *precision("SDXL, narrow", ("float32",)),
        *precision("SD 3.5, narrow", ("float32", "bfloat16")),
        *edits({"SD 1.5, narrow": 3, "SD 3.5, narrow": 3}, "float32"),
    ]
    absent = [
        *memory({"SD 1.5": 0.8}),
        *fp8_products("SDXL"),
        *(
            job
            for name in ("SD 1.5", "SDXL", "SD 3.5 medium", "Z-Image", "Flux.1 dev")
            for job in precision(name, ("bfloat16",))
        ),
        Job("compile", "compiled", "SD 1.5", "float16"),
    ]
    return [replace(job, flags=("--cpu",), repeats=1) for job in smallest] + [
        replace(job, unavailable="there is no CUDA card here") for job in absent
    ]


def embedded(steps: int, types: Sequence[str] = ("float32", "as loaded")) -> list[Job]:
    """The embedded model, in float32 as on the CPU, and as the loader takes it."""
    return [Job("embedded", "embedded", weights=weights, steps=steps) for weights in types]


def precision(network: str, types: Sequence[str]) -> list[Job]:
    """A network's weights in several types; float32 comes first and is what the others should be."""
    return [Job("precision", "steps", network, weights) for weights in types]


def fp8_products(network: str) -> list[Job]:
    """Not only weights but products in fp8, which ComfyUI takes when it is told to."""
    return [Job("precision", "steps", network, "float8_e4m3fn", "fp8 products", ("--fast", "fp8_matrix_mult"))]


def edits(networks: dict[str, int], weights: str = "float16") -> list[Job]:
    """Edits by the nodes and by the published algorithm: network -> steps."""
    return [Job("edit", "edit", name, weights, steps=steps) for name, steps in networks.items()]


def memory(networks: dict[str, float]) -> list[Job]:
    """Half precision in every mode of ComfyUI's memory: network -> GiB for its weights where memory is low."""
    jobs: list[Job] = []
    for name, gib in networks.items():
        job = Job("memory", "steps", name, "float16")
        jobs += [
            job,
            replace(job, mode="low VRAM", flags=("--lowvram",), room_gib=gib),
            replace(job, mode="no VRAM", flags=("--novram",)),
            replace(job, mode=DYNAMIC),
            replace(job, mode=f"{DYNAMIC}, little room", room_gib=gib),
        ]
    return sorted(jobs, key=lambda job: MODES.index(job.mode))


DYNAMIC = "dynamic VRAM"
MODES = ("normal", "low VRAM", "no VRAM", DYNAMIC, f"{DYNAMIC}, little room")

NOT_DYNAMIC = "--disable-dynamic-vram"
"""A flag of the trees that have it, where it is the normal mode."""

OVERHEAD_GIB = 1.5
"""What CUDA's context takes, and what ComfyUI keeps free for activations, beside what it is told to reserve."""


def finished(job: Job, card_gib: float, dynamic: bool) -> Job:
    """Add the flags that depend on the card and on the tree.

    A card with room would be loaded in full in spite of --lowvram: all but the job's room is reserved.
    """
    if job.mode.startswith(DYNAMIC):
        job = job if dynamic else replace(job, unavailable="ComfyUI's tree has no dynamic VRAM")
    elif dynamic:
        job = replace(job, flags=(NOT_DYNAMIC, *job.flags))
    if job.room_gib:
        reserved = max(0.0, card_gib - OVERHEAD_GIB - job.room_gib)
        job = replace(job, flags=(*job.flags, "--reserve-vram", f"{reserved:.2f}"))
    return job
