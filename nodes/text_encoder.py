"""ComfyUI's CLIP as the core's `Encode` and `Tokenize`: many sentences at once, and a name for the encoder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import comfy.model_management
import torch
from comfy.sd1_clip import SDClipModel
from torch import Tensor, nn

from ..pix2pix_zero_core.tokens import Token


def encoder_fingerprint(clip: Any) -> str:
    """Name a text encoder by its architecture, its weights and its clip-skip.

    The signs of some of each tensor's values stand for the weights: they are the same in every precision, so that two
    loads of one checkpoint agree. Patches (LoRA) don't count: they leave the space of the embeddings what it was. Nor
    do the heads of CLIP: checkpoints of SD1 lack them, and ComfyUI then leaves there what it finds in memory.
    """
    unpatched = {name: saved.weight for name, saved in clip.patcher.backup.items()}
    digest = hashlib.sha256(f"layer {clip.layer_idx}".encode())
    for name, weight in sorted({**clip.cond_stage_model.state_dict(), **unpatched}.items()):
        if "text_projection" in name or "logit_scale" in name:
            continue
        signs = torch.signbit(weight.detach().flatten()[:64].float()).tolist()
        digest.update(f"{name} {tuple(weight.shape)} {signs}".encode())
    return f"{type(clip.cond_stage_model).__name__}-{digest.hexdigest()[:16]}"


def encode(clip: Any, sentences: Sequence[str]) -> tuple[Tensor, Tensor | None]:
    """Encode sentences in one pass of the encoder.

    ComfyUI encodes the chunks of one long prompt as a batch. Sentences of one chunk each are passed as such chunks;
    longer ones are encoded one by one.

    Returns:
        embeddings (n, L, D) and pooled ones (n, P), or None where the model looks at none, both on the CPU.
    """
    comfy.model_management.throw_exception_if_processing_interrupted()
    tokens = [clip.tokenize(sentence) for sentence in sentences]
    lengths = {(name, *map(len, chunks)) for prompt in tokens for name, chunks in prompt.items()}
    if len(lengths) == len(tokens[0]) and all(len(chunks) == 1 for chunks in tokens[0].values()):
        together = {name: [prompt[name][0] for prompt in tokens] for name in tokens[0]}
        with _recorded_pooled(clip.cond_stage_model) as recorded:
            embeddings, first = _embeddings_and_pooled(clip, together)
        pooled = None if first is None else _rows_that_begin_with(first, recorded, len(tokens))
        if first is None or pooled is not None:
            return embeddings.unflatten(1, (len(tokens), -1))[0].cpu(), pooled
    embeddings, vectors = zip(*(_embeddings_and_pooled(clip, prompt) for prompt in tokens), strict=True)
    _require_one_length(embeddings, sentences)
    pooled = [vector for vector in vectors if vector is not None]
    return torch.cat(embeddings).cpu(), torch.cat(pooled).cpu() if pooled else None


def tokenize(clip: Any, text: str) -> list[Token]:
    """Split a text into the tokens that its embedding is made of, without those that start, end and fill up a chunk.

    Encoders with two CLIPs (SDXL) have the same tokens at the same places in both.
    """
    chunks = next(iter(clip.tokenize(text, return_word_ids=True).values()))
    numbered = enumerate(token for chunk in chunks for token in chunk)
    written = [(position, token) for position, (token, _, word) in numbered if word]  # 0 is no word
    texts = [_spelling(clip, token) for _, token in written]
    marked = any(text.endswith("</w>") for text in texts)  # else every token is a word
    return [
        Token(position, token if isinstance(token, int) else -1, text.removesuffix("</w>") + " " * ends)
        for (position, token), text in zip(written, texts, strict=True)
        for ends in [text.endswith("</w>") or not marked]
    ]


def _spelling(clip: Any, token: Any) -> str:
    if not isinstance(token, int):
        return "embedding</w>"  # of textual inversion: a vector in a word's place
    return clip.tokenizer.untokenize([(token, 1.0)])[0][1]


def _embeddings_and_pooled(clip: Any, tokens: Any) -> tuple[Tensor, Tensor | None]:
    embeddings, pooled = clip.encode_from_tokens(tokens, return_pooled=True)
    # SD1 looks at no pooled vector, and its checkpoints lack the head that makes it: it is memory as ComfyUI found it.
    return embeddings, None if getattr(clip.cond_stage_model, "clip", None) == "clip_l" else pooled


@contextmanager
def _recorded_pooled(model: nn.Module) -> Iterator[list[Tensor]]:
    """Keep what every CLIP in a text encoder pools: ComfyUI passes on the first row alone."""
    recorded: list[Tensor] = []

    def record(module: nn.Module, inputs: Any, output: tuple[Any, ...]) -> None:
        if output[1] is not None:
            recorded.append(output[1])

    hooks = [m.register_forward_hook(record) for m in model.modules() if isinstance(m, SDClipModel)]
    try:
        yield recorded
    finally:
        for hook in hooks:
            hook.remove()


def _rows_that_begin_with(first: Tensor, recorded: list[Tensor], count: int) -> Tensor | None:
    """The recorded pooled vectors (count, P) that `first` (1, P) is the first of; None where there are none."""
    for rows in recorded:
        if rows.shape[1:] == first.shape[1:] and torch.equal(rows[:1].to(first), first):
            return rows[:count].cpu()  # weighted words add a row, of the empty text
    return None


def _require_one_length(embeddings: Sequence[Tensor], sentences: Sequence[str]) -> None:
    tokens = embeddings[0].shape[1]
    for embedding, sentence in zip(embeddings, sentences, strict=True):
        if embedding.shape[1] != tokens:
            raise ValueError(
                f"{sentence!r} is encoded to {embedding.shape[1]} tokens, {sentences[0]!r} to {tokens}; a direction "
                "needs all of one length. Shorten the sentences that take more than one chunk."
            )
