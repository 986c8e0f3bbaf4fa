"""Train the text encoder: `python -m tiny_zoo.train_text`; the same command resumes.

It learns to say, from the end token and the padding after it, what a caption tells of a scene (a class
"unmentioned" for the rest), and to predict the next word. The diffusion model then meets words that already mean
something, and learns to follow them sooner.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .captions import END, PHRASES, UNKNOWN, VOCABULARY, caption, read_attributes, token_ids
from .networks import TEXT_WIDTH, TextEncoder
from .training import Run, start_from
from .world import sample_scene


class Reader(nn.Module):
    """A text encoder with heads that read the scene off its embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = TextEncoder(len(VOCABULARY))
        self.next_word = nn.Linear(TEXT_WIDTH, len(VOCABULARY))
        self.heads = nn.ModuleDict({a: nn.Linear(TEXT_WIDTH, len(v) + 1) for a, v in PHRASES.items()})


def batch(step: int, size: int, unknown: float) -> tuple[Tensor, dict[str, Tensor]]:
    """Captions of random scenes as token ids (size, 77), some words made unknown, and what they tell."""
    rng = random.Random(step)
    texts = [caption(sample_scene(rng.getrandbits(30)), rng, drop=0.3, keep=()) for _ in range(size)]
    told = [read_attributes(text) for text in texts]
    labels = {
        a: torch.tensor([list(values).index(t[a]) if a in t else len(values) for t in told])
        for a, values in PHRASES.items()
    }
    ids = torch.tensor([token_ids(text) for text in texts])
    mask = torch.rand(ids.shape, generator=torch.Generator().manual_seed(step)) < unknown
    return ids.masked_fill(mask & (ids > VOCABULARY[UNKNOWN]), VOCABULARY[UNKNOWN]), labels


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--start", type=Path, help="a checkpoint of the same words whose weights to start from")
    arguments = parser.parse_args()

    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    model = Reader()
    start_from(model.encoder, arguments.start, "cond_stage_model.transformer.")
    run = Run("text", model, arguments.lr, arguments.steps, ema=0.99)

    def read(reader: Reader, ids: Tensor) -> dict[str, Tensor]:
        x = reader.encoder(ids)
        ended = (ids == VOCABULARY[END]).float()
        first = ended.argmax(1)
        summary = x[torch.arange(len(x)), first] + (x * ended[..., None]).sum(1) / ended.sum(1, keepdim=True)
        return {a: head(summary) for a, head in reader.heads.items()} | {"words": reader.next_word(x)}

    def batch_of(step: int) -> tuple[Tensor, ...]:
        ids, labels = batch(step, arguments.batch, unknown=0.05)
        return ids, *(labels[attribute] for attribute in PHRASES)

    def loss_of(ids: Tensor, *labels: Tensor) -> Tensor:
        answers = read(model, ids)
        words = F.cross_entropy(answers["words"][:, :24].flatten(0, 1), ids[:, 1:25].flatten())
        told = [F.cross_entropy(answers[a], label) for a, label in zip(PHRASES, labels, strict=True)]
        return 0.2 * words + torch.stack(told).sum()

    @torch.no_grad()
    def evaluate(averaged: nn.Module) -> str:
        assert isinstance(averaged, Reader)
        ids, labels = batch(-1, 512, unknown=0.0)
        answers = read(averaged, ids)
        return ", ".join(f"{a} {(answers[a].argmax(1) == label).float().mean():.3f}" for a, label in labels.items())

    run.train(batch_of, loss_of, evaluate, every=250)


if __name__ == "__main__":
    main()
