"""ComfyUI's CLIP as the core's `Encode` and `Tokenize`: many sentences at once, and a name for the encoder."""

from __future__ import annotations

import hashlib
import re
import weakref
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import comfy.model_management
import torch
from comfy.clip_model import CLIPTextModel
from comfy.sd1_clip import SD1ClipModel, SDClipModel
from comfy.sdxl_clip import SDXLClipModel
from comfy.text_encoders.flux import FluxClipModel
from comfy.text_encoders.sd3_clip import SD3ClipModel
from torch import Tensor, nn

from ..pix2pix_zero_core.encoders import CHUNK_LENGTH, CLIP_SKIP, PATCHES, Setting, fingerprint
from ..pix2pix_zero_core.readings import Reading
from ..pix2pix_zero_core.tokens import WORD_END, Token, marks_words, spell

TOGETHER = (SD1ClipModel, SDXLClipModel, FluxClipModel)
"""What puts the chunks of a prompt in a row and does no more to them, so that sentences can pass for chunks. Others cut
a template off, or put another encoder's tokens behind."""

BEHIND = (SD3ClipModel,)
"""What puts the tokens of a further encoder behind CLIP's; others with one only pool CLIP's."""

EMBEDDING = f"embedding{WORD_END}"
"""Of textual inversion: a vector in a word's place."""

PROBE = "a"
"""A text that every encoder can read, to see where it puts it."""

WORD_SWAP = "Encode the text of the edited picture by CLIP Text Encode instead, and connect that as the target."


def encoder_fingerprint(clip: Any) -> str:
    """Name a text encoder by its architecture, its weights, and what is set otherwise than the checkpoint has it.

    Settings are compared by what they do: a clip skip that the encoder has anyway is none. Patches of weights (LoRA)
    don't count: they leave the space of the embeddings what it was. Patches of objects (NegPip) do.
    """
    length, own = (
        _one_or_all(str(len(chunks[0])) for chunks in tokens.values())
        for tokens in (clip.tokenize(""), clip.tokenizer.tokenize_with_weights("", False))
    )
    patches = ", ".join(f"{name} by {_maker(patch)}" for name, patch in sorted(_object_patches(clip).items()))
    settings = [
        _clip_skip(clip, clip.layer_idx),
        Setting(CHUNK_LENGTH, length, own),
        Setting(PATCHES, patches or "none", "none"),
    ]
    return fingerprint(_named(clip, _signs(clip), None), settings)


def current_fingerprint(encoder: str, clip: Any) -> str:
    """Write a fingerprint of 0.1.0 or 0.2.0 as this release does, if it is one of this encoder's.

    0.1.0 hashed the clip skip along with the weights, as it was set and not by what it did; both hashed the scales of
    quantised weights.
    """
    now, scaled = _signs(clip), _signs(clip, scales=True)
    for layer in range(-24, 0):  # what CLIP Set Last Layer offers
        if encoder == _named(clip, scaled, layer):
            return fingerprint(_named(clip, now, None), [_clip_skip(clip, layer)])
    weights = _named(clip, scaled, None)
    return encoder.replace(weights, _named(clip, now, None), 1) if encoder.startswith(weights) else encoder


def encoder_state(clip: Any) -> Hashable:
    """All that the embeddings depend on, while this process lasts: the fingerprint, and patches by identity."""
    patcher = clip.patcher
    changes = {**_object_patches(clip), "hooks": patcher.forced_hooks}
    identities = tuple((name, _identity(change)) for name, change in sorted(changes.items()))
    return encoder_fingerprint(clip), patcher.patches_uuid if patcher.patches else None, identities


SCALES = (".scale_weight", ".scale_input", "scaled_fp8", ".weight_scale", ".input_scale", ".comfy_quant")
"""How the names of what ComfyUI keeps beside quantised weights end."""


def _signs(clip: Any, *, scales: bool = False) -> bytes:
    """The signs of some of each tensor's values, which stand for the weights.

    They are the same in every precision, so that two loads of one checkpoint agree; `scales` counts the scales of
    quantised weights, which other precisions lack. The heads of CLIP don't count: checkpoints of SD1 lack them, and
    ComfyUI then leaves there what it finds in memory. What patches and hooks have put in place is looked through.
    """
    weights = clip.cond_stage_model.state_dict()
    for name, module in clip.patcher.object_patches_backup.items():  # of any clone: they share the model
        if isinstance(module, nn.Module):
            weights = {key: weight for key, weight in weights.items() if not key.startswith(f"{name}.")}
            weights.update(module.state_dict(prefix=f"{name}."))
    # The last hooked text leaves its weights there; what they were may hold other patches, and so comes first.
    weights.update({name: saved for name, (saved, _) in clip.patcher.hook_backup.items()})
    weights.update({name: saved.weight for name, saved in clip.patcher.backup.items()})
    return "".join(
        f"{name} {tuple(weight.shape)} {torch.signbit(weight.detach().flatten()[:64].float()).tolist()}"
        for name, weight in sorted(weights.items())
        if "text_projection" not in name and "logit_scale" not in name and (scales or not name.endswith(SCALES))
    ).encode()


def _named(clip: Any, signs: bytes, layer: int | None) -> str:
    digest = hashlib.sha256(f"layer {layer}".encode() + signs).hexdigest()
    return f"{type(clip.cond_stage_model).__name__}-{digest[:16]}"


def _clip_skip(clip: Any, layer: int | None) -> Setting:
    """What a setting of CLIP Set Last Layer comes to, -1 for the last layer; ComfyUI is asked, as encoding does."""
    model = clip.cond_stage_model
    encoders = [module for module in model.modules() if isinstance(module, SDClipModel)]
    model.reset_clip_options()
    own = _one_or_all(map(_layer, encoders))
    if layer is not None:
        model.set_clip_options({"layer": layer})
    value = _one_or_all(map(_layer, encoders))
    model.reset_clip_options()
    return Setting(CLIP_SKIP, value, own)


def _layer(encoder: SDClipModel) -> str:
    if encoder.layer == "hidden" and encoder.layer_idx is not None:
        depth = encoder.layer_idx
        return str(depth if depth < 0 else depth - encoder.num_layers)
    # The last layer's norm is what "last" has in any case, and -1 only where hidden layers are normed, too.
    return "-1" if encoder.layer == "last" and encoder.layer_norm_hidden_state else str(encoder.layer)


def _one_or_all(values: Iterable[str]) -> str:
    """One value for all encoders of a model, or one for each."""
    listed = list(values)
    return listed[0] if len(set(listed)) == 1 else " and ".join(listed)


def _object_patches(clip: Any) -> dict[str, Any]:
    """What is put in the place of parts of the encoder: by ComfyUI's patches, or into the model itself."""
    replaced: dict[str, Any] = {}
    for name, module in clip.cond_stage_model.named_modules():
        method = vars(module).get("encode_token_weights")  # ComfyUI leaves the class's own there after a patch
        if method is not None and getattr(method, "__func__", None) is not type(module).encode_token_weights:
            replaced[f"{name}.encode_token_weights".removeprefix(".")] = method
    installed = clip.patcher.object_patches_backup  # those of any clone
    own = {name: method for name, method in replaced.items() if name not in installed}
    put = own | clip.patcher.object_patches
    # Later ComfyUIs note there in which precision they compute, which does not make another encoder.
    return {name: patch for name, patch in put.items() if not isinstance(patch, torch.dtype)}


def _maker(patch: Any) -> str:
    """Where the code of a patch is from, the same in every session."""
    if isinstance(patch, partial):
        values = [v for v in (*patch.args, *patch.keywords.values()) if isinstance(v, int | float | str)]
        return _maker(patch.func) + (f" {values}" if values else "")
    code = getattr(patch, "__func__", patch)
    code = code if hasattr(code, "__qualname__") else type(code)
    module = re.split(r"[/\\]", code.__module__)[-1]  # ComfyUI names a pack's module by its path
    return f"{module}.{code.__qualname__}"


def _identity(patch: Any) -> Hashable:
    """Tell a patch from others without keeping it, and the model that it may hold, alive."""
    try:
        reference = weakref.ref(patch)
        hash(reference)
    except TypeError:  # a plain value
        return repr(patch)
    return reference


def encode(clip: Any, sentences: Sequence[str]) -> tuple[Tensor | list[Tensor], Tensor | None]:
    """Encode sentences, in one pass of the encoder where that can be.

    ComfyUI encodes the chunks of one long prompt as a batch. Sentences of one chunk each are passed as such chunks;
    longer ones are encoded one by one, and those of encoders that do more to chunks than put them in a row.

    Returns:
        embeddings (n, L, D), or a list of (L, D) where they are of different lengths, and pooled ones (n, P), or None
        where the model looks at none, all on the CPU.
    """
    comfy.model_management.throw_exception_if_processing_interrupted()
    tokens = [clip.tokenize(sentence) for sentence in sentences]
    lengths = {(name, *map(len, chunks)) for prompt in tokens for name, chunks in prompt.items()}
    of_one_chunk = len(lengths) == len(tokens[0]) and all(len(chunks) == 1 for chunks in tokens[0].values())
    in_a_row = {known.encode_token_weights for known in TOGETHER}
    if of_one_chunk and type(clip.cond_stage_model).encode_token_weights in in_a_row:
        together = {name: [prompt[name][0] for prompt in tokens] for name in tokens[0]}
        with _recorded_pooled(clip.cond_stage_model) as recorded:
            embeddings, first = _embeddings_and_pooled(clip, together)
        pooled = None if first is None else _rows_that_begin_with(first, recorded, len(tokens))
        if first is None or pooled is not None:
            return embeddings.unflatten(1, (len(tokens), -1))[0].cpu(), pooled
    found, vectors = zip(*(_embeddings_and_pooled(clip, prompt) for prompt in tokens), strict=True)
    embeddings = [embedding[0].cpu() for embedding in found]
    pooled = [vector for vector in vectors if vector is not None]
    alike = len({len(embedding) for embedding in embeddings}) == 1
    return torch.stack(embeddings) if alike else embeddings, torch.cat(pooled).cpu() if pooled else None


def readings(clip: Any) -> tuple[Reading, ...]:
    """How a text encoder lays a text into its embedding.

    Raises:
        ValueError: an encoder that gives the model several embeddings of one text.
    """
    found, before = list[Reading](), 0
    length = _embeddings_and_pooled(clip, clip.tokenize(PROBE))[0].shape[1]
    names = _names(clip)
    for name in names:
        text = _written(clip, name, PROBE)
        if name == names[0] and (_is_clip(clip, name) or _encoder(clip, name) is None):
            found.append(Reading(length if len(names) == 1 else text.total))  # patches may make more of a token
        else:
            cut = before + text.total - length  # of the template, by the encoder
            filled = text.total - text.front - len(text.tokens) - text.end
            found.append(
                Reading(
                    0, text.front - cut, text.end, filled > 0 and not getattr(_tokenizer(clip, name), "pad_left", False)
                )
            )
        before += text.total
    return tuple(found)


def tokenize(clip: Any, text: str, laid: Sequence[Reading] | None = None) -> list[Token]:
    """Split a text into the tokens that its embedding is made of, without those that start, end and fill up a chunk.

    Encoders with two CLIPs (SDXL) have the same tokens at the same places in both. Of an encoder whose embedding has
    the text twice (SD3 with T5) the tokens are those of one reading, then those of the other.

    Args:
        clip: ComfyUI's CLIP.
        text: what is encoded.
        laid: the encoder's `readings`; without them the positions are those in the tokenizer's own chunks, templates
            and all.
    """
    return [token for part in tokenize_each(clip, text, laid) for token in part]


def tokenize_each(clip: Any, text: str, laid: Sequence[Reading] | None = None) -> list[list[Token]]:
    """As `tokenize`, a list for each of the encoder's readings."""
    found, before = list[list[Token]](), 0
    for number, name in enumerate(_names(clip)):
        written = _written(clip, name, text)
        cut = 0 if laid is None or laid[number].length else written.front - laid[number].start
        spelled = _spelled(_tokenizer(clip, name), [token for _, token in written.tokens])
        found.append(
            [
                Token(before + position - cut, token if isinstance(token, int) else -1, word)
                for (position, token), word in zip(written.tokens, spelled, strict=True)
            ]
        )
        before += written.total
    return found


class _Written(NamedTuple):
    """A text among the tokens that a tokenizer makes of it.

    Attributes:
        tokens: the text's own, with their positions among all.
        front: how many stand in front of it, padding left out: a start token, a template.
        end: how many stand behind it, padding left out.
        total: all, of all chunks.
    """

    tokens: list[tuple[int, Any]]
    front: int
    end: int
    total: int


def _written(clip: Any, name: str, text: str) -> _Written:
    """Find a text among its tokens: a template is what the empty text has as well."""
    numbered = [entry for chunk in clip.tokenize(text, return_word_ids=True)[name] for entry in chunk]
    words = [(position, token) for position, (token, _, word) in enumerate(numbered) if word]  # 0 is no word
    template = [token for chunk in clip.tokenize("", return_word_ids=True)[name] for token, _, word in chunk if word]
    front = _alike(template, [token for _, token in words])
    back = _alike(template[front:][::-1], [token for _, token in words[front:]][::-1])
    tokenizer = _tokenizer(clip, name)
    start, end = (getattr(tokenizer, mark, None) is not None for mark in ("start_token", "end_token"))
    return _Written(words[front : len(words) - back], front + start, back + end, len(numbered))


def _alike(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How many tokens two texts have in common from the first on; an embedding in a word's place is like none."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if not isinstance(b, int) or a != b), min(len(one), len(other)))


def _names(clip: Any) -> list[str]:
    """The tokenizers whose tokens make up the embedding, in order; one of several CLIPs stands for all.

    Raises:
        ValueError: an encoder that gives the model several embeddings of one text.
    """
    known = [name for name in clip.tokenize("") if _encoder(clip, name) is not None]
    clips = [name for name in known if _is_clip(clip, name)]
    further = [name for name in known if name not in clips]
    if len(further) > 1:
        raise ValueError(
            f"{type(clip.cond_stage_model).__name__.rstrip('_')} gives the model several embeddings of one text, by "
            f"{' and '.join(further)}: an edit direction would shift one of them alone, and a word has no one place. "
            f"{WORD_SWAP}"
        )
    if further and not isinstance(clip.cond_stage_model, BEHIND):
        return further
    return [*clips[:1], *further] or list(clip.tokenize(""))[:1]


def _encoder(clip: Any, name: str) -> Any:
    model = clip.cond_stage_model
    return getattr(model, name, None) or getattr(model, f"clip_{name}", None)


def _tokenizer(clip: Any, name: str) -> Any:
    return getattr(clip.tokenizer, name, None) or getattr(clip.tokenizer, f"clip_{name}", None)


def _is_clip(clip: Any, name: str) -> bool:
    """Whether an encoder takes texts in chunks."""
    return isinstance(getattr(_encoder(clip, name), "transformer", None), CLIPTextModel)


def _spelled(tokenizer: Any, tokens: Sequence[Any]) -> list[str]:
    vocabulary = tokenizer.inv_vocab
    pieces = [vocabulary[token] if isinstance(token, int) else EMBEDDING for token in tokens]
    return spell(pieces, marked=marks_words(vocabulary.values()))


def unknown_words(clip: Any, text: str) -> list[str]:
    """Find the words of a text that an encoder with a closed vocabulary, such as Tiny Zoo's, has no token for."""
    tokenizers = [getattr(part, "tokenizer", None) for part in vars(clip.tokenizer).values()]
    unknown = {getattr(tokenizer, "unk_token_id", None) for tokenizer in tokenizers} - {None}
    # Byte-pair encodings spell every word; CLIP's stands for the end as well, which is no word.
    found = (word for word in re.findall(r"[\w'-]+", text) if {token.id for token in tokenize(clip, word)} & unknown)
    return list(dict.fromkeys(found))


def _embeddings_and_pooled(clip: Any, tokens: Any) -> tuple[Tensor, Tensor | None]:
    embeddings, pooled = clip.encode_from_tokens(tokens, return_pooled=True)
    # SD1 looks at no pooled vector, and its checkpoints lack the head that makes it: it is memory as ComfyUI found it.
    model = clip.cond_stage_model
    idle = getattr(model, "clip", None) == "clip_l" and not getattr(model, "pooled_is_read", False)
    return embeddings, None if idle else pooled


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
