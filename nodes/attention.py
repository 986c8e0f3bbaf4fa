"""Where text meets image, seen at the attention call itself, whatever other packs do to the model.

Forward pre-hooks on the blocks of a network put an `optimized_attention_override` into the options of the attention in
which text and image meet, round the one that may be there. It sees the queries and keys that the model really uses,
after every patch, works out their probabilities, and changes nothing. A wrapper round `apply_model` says what the rows
of a forward pass are: which text, which sample, which piece of its latent. In the end there is one map a sample, text
and layer, and together they cover the whole latent, or there is an error that names the patches that may be in the way.

What differs from family to family of networks is data: `FAMILIES`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import comfy.patcher_extension
import torch
from comfy.ldm.modules.attention import BasicTransformerBlock, attention_pytorch
from comfy.patcher_extension import WrappersMP
from torch import Tensor, nn

from ..pix2pix_zero_core import AttentionMaps
from ..pix2pix_zero_core.attention import attention_probabilities

PACK = "pix2pix_zero"
"""Key of all that is ours in a model's options."""

OVERRIDE = "optimized_attention_override"

Options = dict[str, Any]
"""What ComfyUI calls transformer_options."""


@dataclass(frozen=True)
class Family:
    """How the networks of a kind let text and image meet.

    Attributes:
        block: class of the blocks; each that has such an attention is a layer of the maps.
        attention: the module of a block whose attention call holds text and image; None where it has none.
        image_and_text: from the number of a call's queries, of its keys and of the image's tokens: which of the queries
            are the image's and which of the keys the text's; None where the call is another one.
        grid: height and width of the image's tokens, from the options of the block.
        replacements: name of the patches that take the place of the whole attention call, in `patches_replace`.
    """

    block: type[nn.Module]
    attention: Callable[[Any], nn.Module | None]
    image_and_text: Callable[[int, int, int], tuple[slice, slice] | None]
    grid: Callable[[Options], tuple[int, int]]
    replacements: str


UNET = Family(
    block=BasicTransformerBlock,
    attention=lambda block: block.attn2,
    image_and_text=lambda queries, _, tokens: (slice(None), slice(None)) if queries == tokens else None,
    grid=lambda options: tuple(options["activations_shape"][2:]),
    replacements="attn2",
)
"""Stable Diffusion 1, 2 and XL: cross-attention, the queries the image's, the keys the text's."""

FAMILIES = (UNET,)


class Layer(NamedTuple):
    """A block in which text and image meet."""

    name: str
    block: nn.Module
    family: Family


def text_layers(modules: Iterable[tuple[str, nn.Module]]) -> list[Layer]:
    """Find the layers in which text and image meet by the type of their blocks, wherever these are wrapped."""
    return [
        Layer(name, module, family)
        for name, module in modules
        for family in FAMILIES
        if isinstance(module, family.block) and family.attention(module) is not None
    ]


def modules_of(model: Any) -> Iterator[tuple[str, nn.Module]]:
    """Walk through the network of a ModelPatcher as that patcher has it.

    The network itself is shared by all patchers of a checkpoint, and holds what the last prompt's put into it.
    """
    own, originals = model.object_patches, model.object_patches_backup

    def walk(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
        yield name, module
        for child, there in module.named_children():
            path = f"{name}.{child}"
            yield from walk(path, own.get(path, originals.get(path, there)))

    return walk("diffusion_model", model.get_model_object("diffusion_model"))


class Place(NamedTuple):
    """A piece of a latent, in its pixels."""

    top: int
    left: int
    height: int
    width: int

    def of(self, latent: Tensor) -> Tensor:
        """Cut the piece out of (..., H, W)."""
        return latent[..., self.top : self.top + self.height, self.left : self.left + self.width]


@dataclass(frozen=True, eq=False)
class Text:
    """A part of a conditioning; areas and ConditioningCombine make several.

    Attributes:
        key: what it has in common with the same part of another text.
        place: its area of the latent.
        tokens: embeddings, (B or 1, L, D).
        common: how many of its tokens that other text has as well; None where the text is not to be seen.
        always: whether it is evaluated in every forward pass; a default conditioning only where others leave room.
    """

    key: Any
    place: Place
    tokens: Tensor
    common: int | None
    always: bool = True


class Row(NamedTuple):
    """What a row of a forward pass is: a text on a piece of a sample."""

    text: Text
    sample: int
    place: Place


class MapKey(NamedTuple):
    """What a map is of. `copy` counts where a patch repeats the rows of a text, to give each another one."""

    layer: str
    text: Any
    copy: int
    place: Place
    grid: tuple[int, int]


class Obstacle(Exception):
    """Why the attention of a forward pass could not be seen; `Watch` adds the patches that may be in the way."""


@dataclass
class Pass:
    """One forward pass: its rows, the layers that ran, and the probabilities of those that are asked for.

    Attributes:
        rows: what each row is; none where only the running of the layers is asked for.
        finest_layer: maps come from layers at 1/finest_layer of the latent's resolution and coarser.
        ran: names of the layers.
        seen: layer, copy and key of the text -> grid, numbers of the rows, and their probabilities, (rows, h, N, L).
    """

    rows: list[Row]
    texts: int
    finest_layer: int
    ran: set[str] = field(default_factory=set)
    seen: dict[tuple[str, int, Any], tuple[tuple[int, int], list[int], Tensor]] = field(default_factory=dict)

    def record(self, layer: Layer, options: Options, q: Tensor, k: Tensor) -> None:
        """Compute the probabilities of an attention call, and keep them.

        Args:
            layer: where the call is made.
            options: of its block.
            q: queries, (rows, h, N, d).
            k: keys, (rows, h, L, d).
        """
        self.ran.add(layer.name)
        if not self.rows:
            return
        grid, place = layer.family.grid(options), self.rows[0].place
        finest = math.ceil(place.height / self.finest_layer) * math.ceil(place.width / self.finest_layer)
        if math.prod(grid) > finest:
            return
        parts = layer.family.image_and_text(q.shape[2], k.shape[2], math.prod(grid))
        if parts is None:
            raise Obstacle(f"its layer {layer.name} has {q.shape[2]} queries for {grid[0]} x {grid[1]} places")
        image, text = parts
        q, k = q[:, :, image], k[:, :, text]
        for copy, numbers in enumerate(self._copies(q, layer)):
            for shown in {row.text.key: row.text for row in self.rows if row.text.common is not None}.values():
                of_text = [number for number, row in enumerate(self.rows) if row.text is shown]
                keys = _in_common(k.shape[2], shown, layer)
                rows = [numbers[number] for number in of_text]
                maps = attention_probabilities(_rows(q, rows), _rows(k, rows)[:, :, :keys])
                self.keep((layer.name, copy, shown.key), (grid, of_text, maps))

    def keep(self, key: tuple[str, int, Any], found: tuple[tuple[int, int], list[int], Tensor]) -> None:
        """Keep the maps of a layer, of which a pass has one of each kind."""
        if key in self.seen:
            raise Obstacle(f"it runs its layer {key[0]} twice in one pass")
        self.seen[key] = found

    def _copies(self, q: Tensor, layer: Layer) -> list[list[int]]:
        """Find which rows of a call belong to the rows of the pass: a list a copy.

        Attention couple and its like give every text its rows once more for each of their own, with the same queries.
        """
        count = len(self.rows)
        if len(q) == count:
            return [list(range(count))]
        numbers = torch.arange(len(q)) if len(q) % count == 0 else torch.zeros(0)
        copies = numbers.view(self.texts, -1, count // self.texts).transpose(0, 1).flatten(1).tolist()
        if not copies or any(not torch.equal(q[copy], q[copies[0]]) for copy in copies[1:]):
            raise Obstacle(f"its layer {layer.name} has {len(q)} rows for {count} of the latent's")
        return copies


def _in_common(keys: int, text: Text, layer: Layer) -> int:
    """Count the keys of the tokens in common, where a patch has made more or fewer of every token."""
    assert text.common is not None
    count, remainder = divmod(keys * text.common, text.tokens.shape[1])
    if remainder:
        raise Obstacle(f"its layer {layer.name} has {keys} keys for a text of {text.tokens.shape[1]} tokens")
    return count


def _rows(t: Tensor, numbers: list[int]) -> Tensor:
    """Take rows, without a copy where they follow each other."""
    first = numbers[0]
    if numbers == list(range(first, first + len(numbers))):
        return t[first : first + len(numbers)]
    return t[numbers]


class TextAttention:
    """The layers of a running model in which text and image meet."""

    def __init__(self, guider: Any) -> None:
        """Find the layers of the network of a guider that is sampling, with its patches on."""
        network = guider.inner_model.diffusion_model
        self.layers = text_layers(network.named_modules())
        self.exchanged = [name for name in guider.model_patcher.object_patches if name.startswith("diffusion_model")]
        self._hooked = False

    @contextlib.contextmanager
    def hooked(self) -> Iterator[None]:
        """Keep the hooks on the blocks. A gradient needs them for its backward pass as well, if that runs blocks."""
        if self._hooked:
            yield
            return
        with contextlib.ExitStack() as hooks:
            for layer in self.layers:
                attention = layer.family.attention(layer.block)
                assert attention is not None
                for module, change in ((layer.block, _in_block), (attention, _in_attention)):
                    hook = module.register_forward_pre_hook(partial(_change_options, layer, change), with_kwargs=True)
                    hooks.callback(hook.remove)
            self._hooked = True
            hooks.callback(setattr, self, "_hooked", False)
            yield


def _change_options(
    layer: Layer, change: Callable[[Layer, Pass, Options], Options], _: Any, args: tuple[Any, ...], kwargs: Options
) -> tuple[tuple[Any, ...], Options]:
    """Give a module other options than its caller does, as a hook, where the forward pass is watched."""

    def changed(value: Any) -> Any:
        return change(layer, value[PACK], value) if isinstance(value, dict) and PACK in value else value

    return tuple(map(changed, args)), {name: changed(value) for name, value in kwargs.items()}


def _in_block(layer: Layer, current: Pass, options: Options) -> Options:
    """Options of a block: attention with a gradient, and a look at what takes the place of the attention call."""
    changed = dict(options)
    if torch.is_grad_enabled():
        changed[OVERRIDE] = partial(_differentiable, options.get(OVERRIDE))
    replacements = options.get("patches_replace", {})
    if replaced := replacements.get(layer.family.replacements):
        seen = {block: partial(_replacement, layer, current, patch) for block, patch in replaced.items()}
        changed["patches_replace"] = {**replacements, layer.family.replacements: seen}
    return changed


def _replacement(
    layer: Layer, current: Pass, patch: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, options: Options
) -> Tensor:
    current.record(layer, options, *(_heads(t, options["n_heads"]) for t in (q, k)))
    return patch(q, k, v, options)


def _in_attention(layer: Layer, current: Pass, options: Options) -> Options:
    """Options of the attention in which text and image meet: a look at its call."""

    def attend(function: Any, q: Tensor, k: Tensor, v: Tensor, heads: int, *args: Any, **kwargs: Any) -> Tensor:
        mask = args[0] if args else kwargs.get("mask")
        if mask is not None:
            raise Obstacle(f"its layer {layer.name} masks the attention to the text")
        split = kwargs.get("skip_reshape", False)
        current.record(layer, options, *(t if split else _heads(t, heads) for t in (q, k)))
        attention = function if before is None else partial(before, function)
        return attention(q, k, v, heads, *args, **kwargs)

    before = options.get(OVERRIDE)
    return {**options, OVERRIDE: attend}


def _heads(t: Tensor, heads: int) -> Tensor:
    """Split (rows, N, h d) into (rows, h, N, d)."""
    return t.unflatten(-1, (heads, -1)).transpose(1, 2)


def _differentiable(before: Any, _: Any, q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Attention by torch's own kernel: not every optimised one has a backward pass.

    An override of another pack stays, unless it brings its own kernel and loses the gradient with it.
    """
    if before is not None:
        out = before(attention_pytorch, q, k, v, *args, **kwargs)
        if out.requires_grad or not any(t.requires_grad for t in (q, k, v)):
            return out
    return attention_pytorch(q, k, v, *args, **kwargs)


class Watch:
    """Sees one call of a model, in however many forward passes and pieces it is made."""

    def __init__(
        self, attention: TextAttention, x: Tensor, texts: Mapping[Any, Text], options: Options, finest_layer: int = 1
    ) -> None:
        """Put a wrapper round the model into the options of the call.

        Args:
            attention: the layers.
            x: the latent, (B, C, H, W). If it requires grad, passes whose text is shown are run with gradients back to
                it, also where a patch runs the model without.
            texts: uuid of a part of the conditioning -> what it is; none where no maps are asked for.
            options: a copy of the model's options.
            finest_layer: maps come from layers at 1/finest_layer of the latent's resolution and coarser.
        """
        self.attention, self.x, self.texts, self.options, self.finest_layer = attention, x, texts, options, finest_layer
        self.passes: list[Pass] = []
        self.blocked: Obstacle | None = None
        add = comfy.patcher_extension.add_wrapper_with_key
        add(WrappersMP.APPLY_MODEL, PACK, self._apply_model, options, is_model_options=True)

    def _apply_model(
        self,
        executor: Any,
        x: Tensor,
        t: Tensor,
        c_concat: Tensor | None = None,
        c_crossattn: Tensor | None = None,
        control: Any = None,
        transformer_options: Options = {},  # noqa: B006 (as the wrapped method has it)
        **kwargs: Any,
    ) -> Tensor:
        """Watch a forward pass, unless another one before it had the same rows: PAG and SAG run the model again."""
        rows = self._identify(x, c_crossattn, transformer_options.get("uuids", ()))
        shown = {row for row in self._places(rows) if row not in self._known()}
        if self.texts and not shown:
            return executor(x, t, c_concat, c_crossattn, control, transformer_options, **kwargs)
        current = Pass(rows, len(transformer_options.get("uuids", ())), self.finest_layer)
        self.passes.append(current)
        options = {**transformer_options, PACK: current}
        if not (shown and self.x.requires_grad):
            return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)
        with torch.inference_mode(False), torch.enable_grad():
            if not x.requires_grad:  # a patch runs the model without gradients
                x = torch.stack([row.place.of(self.x[row.sample]) for row in rows])
            out = executor(x, t, c_concat, c_crossattn, control, options, **kwargs)
        return out if torch.is_grad_enabled() else out.detach()

    @staticmethod
    def _places(rows: Sequence[Row]) -> list[tuple[Any, int, Place]]:
        return [(row.text.key, row.sample, row.place) for row in rows if row.text.common is not None]

    def _known(self) -> set[tuple[Any, int, Place]]:
        return {place for known in self.passes for place in self._places(known.rows)}

    def _identify(self, x: Tensor, c_crossattn: Tensor | None, uuids: Sequence[Any]) -> list[Row]:
        """Find what the rows of a forward pass are.

        ComfyUI puts the texts one after the other, every one with all samples. Packs that tile the latent, or run a
        batch in windows, give other pieces of it; where they belong is found by their content.
        """
        texts = [self.texts.get(uuid) for uuid in uuids]
        if not any(text is not None and text.common is not None for text in texts):
            return []
        if len(x) % len(texts):
            raise Obstacle(f"it runs {len(x)} rows of {len(texts)} texts")
        each, batch = len(x) // len(texts), len(self.x)
        orders = [[row // each for row in range(len(x))], [row // batch % len(texts) for row in range(len(x))]]
        for order in orders:
            rows = [self._row(x[number], texts[text], number) for number, text in enumerate(order)]
            if len(texts) == 1 or all(map(_has_its_text, rows, c_crossattn if c_crossattn is not None else [])):
                return rows
        raise Obstacle("it runs its texts in an order of its own")

    def _row(self, x: Tensor, text: Text | None, number: int) -> Row:
        """Find the piece of the latent that a row is, (C, h, w)."""
        sample, latent = number % len(self.x), self.x.detach()
        if text is None or text.common is None:
            return Row(text or _UNKNOWN, sample, Place(0, 0, *x.shape[1:]))
        if x.shape == text.place.of(latent).shape[1:]:
            expected = text.place.of(latent)
            equal = [sample, *(other for other in range(len(latent)) if other != sample)]
            found = next((s for s in equal if torch.equal(expected[s], x)), None)
            if found is None:
                raise Obstacle("it runs on another latent than the sampler's")
            return Row(text, found, text.place)
        for other, top, left in _corners(x, latent, sample):
            place = Place(top, left, *x.shape[1:])
            if torch.equal(place.of(latent[other]), x):
                return Row(text, other, place)
        size = " x ".join(map(str, x.shape[1:]))
        raise Obstacle(f"it runs on pieces of {size} that are not cut out of the latent as it is")

    def require_whole(self, sigma: float) -> None:
        """Refuse a call that did not show every layer, text and sample, over the whole latent.

        Raises:
            ValueError: names what is missing, and the patches that may be in the way.
        """
        names = [layer.name for layer in self.attention.layers]
        for current in self.passes:
            if missing := [name for name in names if name not in current.ran]:
                raise self.error(f"it did not run, or not so that it can be seen, its layer {missing[0]}", sigma)
        if not self.passes:
            raise self.error("it did not run", sigma)
        rows = [row for current in self.passes for row in current.rows]
        for text in self.texts.values():
            if text.common is None or not text.always:
                continue
            covered = torch.zeros(len(self.x), *self.x.shape[2:], dtype=torch.bool)
            for row in rows:
                if row.text.key == text.key:
                    row.place.of(covered[row.sample])[...] = True
            if not text.place.of(covered).all():
                share = text.place.of(covered).float().mean()
                raise self.error(f"it ran on {share:.0%} of the latent", sigma)

    def maps(self) -> AttentionMaps:
        """Collect the maps: `MapKey` -> (B, h, N, L).

        Raises:
            Obstacle: a piece of the latent was run for some samples only.
        """
        pieces: dict[MapKey, dict[int, tuple[Tensor, int]]] = {}
        for current in self.passes:
            for (layer, copy, text), (grid, numbers, maps) in current.seen.items():
                for index, number in enumerate(numbers):
                    _, sample, place = current.rows[number]
                    pieces.setdefault(MapKey(layer, text, copy, place, grid), {}).setdefault(sample, (maps, index))
        return {key: self._batch(key, samples) for key, samples in pieces.items()}

    def _batch(self, key: MapKey, samples: Mapping[int, tuple[Tensor, int]]) -> Tensor:
        """Put the samples of a map into their order."""
        if len(samples) < len(self.x):
            raise Obstacle(f"it runs its layer {key.layer} on other pieces of one sample than of another")
        found = [samples[sample] for sample in range(len(self.x))]
        maps = found[0][0]
        if all(other is maps for other, _ in found):
            return _rows(maps, [index for _, index in found])
        return torch.stack([maps[index] for maps, index in found])

    def let_go(self) -> None:
        """Forget what was seen: a checkpointed block keeps the options of its call, and with them this watch.

        Its maps lead back to that block through autograd's graph, a circle that nothing else would ever free.
        """
        self.passes.clear()

    def error(self, reason: Any, sigma: float) -> ValueError:
        """Say why the attention could not be seen, and which patches may be in the way."""
        patches = [*foreign_patches(self.options), *(f"an exchanged {name}" for name in self.attention.exchanged)]
        remedy = (
            f"In the way may be {', '.join(patches)}. Connect the model from before the node that put it there."
            if patches
            else "A node that changes the model is in the way: connect the model from before it."
        )
        return ValueError(
            f"At noise level {sigma:.4g} the model does not show its attention to the text: {reason}. {remedy}"
        )


_UNKNOWN = Text(None, Place(0, 0, 0, 0), torch.empty(0), None)
"""What stands for a text that nobody asked about."""


def _has_its_text(row: Row, tokens: Tensor) -> bool:
    """Whether the embeddings of a row of a forward pass, (L, D), are those of its text, perhaps several times."""
    if row.text is _UNKNOWN:
        return True
    expected = row.text.tokens[row.sample % len(row.text.tokens)]
    return len(tokens) % len(expected) == 0 and torch.equal(tokens[: len(expected)], expected.to(tokens))


def _corners(x: Tensor, latent: Tensor, sample: int) -> list[tuple[int, int, int]]:
    """Find where in a latent, (B, C, H, W), a piece, (C, h, w), may begin; its likely sample comes first."""
    (height, width), (below, right) = x.shape[1:], latent.shape[2:]
    if height > below or width > right:
        return []
    corners = latent[:, 0, : below - height + 1, : right - width + 1] == x[0, 0, 0]
    return sorted(map(tuple, corners.nonzero().tolist()), key=lambda corner: corner[0] != sample)


HARMLESS = ("attn1_patch", "attn1_output_patch", "attn2_output_patch", "output_block_patch")
"""Patches that are run after the attention to the text, or beside it."""


def foreign_patches(options: Mapping[str, Any]) -> list[str]:
    """Name what other packs have put into a model's options that may stand between us and its attention.

    Args:
        options: model_options.

    Returns:
        a description each, with the module that it comes from.
    """
    inner = options.get("transformer_options", {})
    found = [
        f"{key or 'a wrapper'} ({_origin(wrapper)})"
        for kind, by_key in inner.get("wrappers", {}).items()
        for key, wrappers in by_key.items()
        for wrapper in wrappers
        if key != PACK and kind in (WrappersMP.PREDICT_NOISE, *_ROUND_A_PASS)
    ]
    for name in ("model_function_wrapper", "context_handler"):
        if options.get(name) is not None:
            found.append(f"a {name.replace('_', ' ')} ({_origin(options[name])})")
    for kind, patches in inner.get("patches", {}).items():
        found += [f"an {kind} ({_origin(patch)})" for patch in patches if kind not in HARMLESS]
    if OVERRIDE in inner:
        found.append(f"an {OVERRIDE} ({_origin(inner[OVERRIDE])})")
    return list(dict.fromkeys(found))


_ROUND_A_PASS = (WrappersMP.CALC_COND_BATCH, WrappersMP.APPLY_MODEL, WrappersMP.DIFFUSION_MODEL)


def _origin(patch: Any) -> str:
    """Say where a function or an object comes from: the last parts of its module, and its name."""
    patch = getattr(patch, "func", patch)
    name = getattr(patch, "__qualname__", type(patch).__qualname__)
    module = getattr(patch, "__module__", "") or ""
    return ".".join([*module.split(".")[-2:], name.split("<locals>.")[-1]])
