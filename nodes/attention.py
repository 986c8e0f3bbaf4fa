"""Where text meets image, seen at the attention call itself, whatever other packs do to the model.

Forward pre-hooks on the blocks of a network put an `optimized_attention_override` into the options of the attention in
which text and image meet, round the one that may be there. It sees the queries and keys that the model really uses,
after every patch, works out their probabilities, and changes nothing. A wrapper round `apply_model` says what the rows
of a forward pass are: which text, which sample, which piece of its latent. In the end there is one map a sample, text
and layer, and together they cover the whole latent, or there is an error that names the patches that may be in the way.

What differs from family to family of networks is data, in `families.py`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import comfy.model_patcher
import comfy.patcher_extension
import torch
from comfy.ldm.modules.attention import attention_pytorch
from comfy.patcher_extension import WrappersMP
from torch import Tensor, nn

from ..pix2pix_zero_core import AttentionMaps
from ..pix2pix_zero_core.attention import attention_probabilities
from .families import Family, Options, family_of

PACK = "pix2pix_zero"
"""Key of all that is ours in a model's options."""

OVERRIDE = "optimized_attention_override"


class Layer(NamedTuple):
    """A block in which text and image meet, and the network that it belongs to."""

    name: str
    block: nn.Module
    family: Family
    network: nn.Module | None


def text_layers(modules: Iterable[tuple[str, nn.Module]]) -> list[Layer]:
    """Find the layers in which text and image meet by the type of their blocks, wherever these are wrapped."""
    named = list(modules)
    family, network = family_of(module for _, module in named)
    return [
        Layer(name, module, family, network)
        for name, module in named
        if family.holds(name, module) and family.attention_of(module) is not None
    ]


def chosen_layers(layers: Sequence[Layer], blocks: str) -> frozenset[str]:
    """Choose the layers that are guided.

    Args:
        layers: of a network, in the order in which they run.
        blocks: numbers and ranges from 0, "0-11, 20"; "all"; or empty for what the family has by default.

    Returns:
        names of layers.

    Raises:
        ValueError: not of that form, or there is no such layer.
    """
    count, chosen = len(layers), range(len(layers))
    if layers and not blocks.strip():
        begin, end = layers[0].family.guided
        chosen = range(math.floor(begin * count), math.ceil(end * count))
    elif blocks.strip() not in ("", "all"):
        chosen = [number for part in blocks.split(",") for number in _numbers(part, blocks, count)]
    return frozenset(layers[number].name for number in chosen)


def _numbers(part: str, blocks: str, count: int) -> range:
    """Read a number or a range of numbers."""
    first, _, last = (end.strip() for end in part.partition("-"))
    if first.isdecimal() and (last or first).isdecimal() and int(first) <= int(last or first) < count:
        return range(int(first), int(last or first) + 1)
    raise ValueError(
        f"blocks is {blocks!r}, of which {part.strip()!r} is no block of this model. Write numbers and ranges from 0 "
        f"to {count - 1} with commas between them (0-{count // 2}), or all; leave it empty for the model's default."
    )


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
        common: positions, among its keys, of the tokens that are compared with the other text's; None where the text is
            not to be seen.
        keys: how many keys it has, with padding; one a token, or more where further encoders add theirs.
        always: whether it is evaluated in every forward pass; a default conditioning only where others leave room.
    """

    key: Any
    place: Place
    tokens: Tensor
    common: Tensor | None
    keys: int = 0
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
        guided: names of the layers that maps come from.
        tokens: length of every row's text; of texts of several lengths ComfyUI repeats the shorter ones. 0 where there
            is none.
        ran: names of the layers.
        seen: layer, copy and key of the text -> grid, numbers of the rows, and their probabilities, (rows, h, N, L).
    """

    rows: list[Row]
    texts: int
    finest_layer: int
    guided: frozenset[str]
    tokens: int = 0
    ran: set[str] = field(default_factory=set)
    seen: dict[tuple[str, int, Any], tuple[tuple[int, int], list[int], Tensor]] = field(default_factory=dict)

    def record(self, layer: Layer, options: Options | None, q: Tensor, k: Tensor, mask: Tensor | None = None) -> None:
        """Compute the probabilities of an attention call, and keep them, if it is that of text and image.

        Args:
            layer: where the call is made.
            options: of its block; None where it has none.
            q: queries, (rows, h, N, d).
            k: keys, (rows, h, L, d), or of fewer heads that several of the queries' share.
            mask: of the call, as torch's attention takes it.
        """
        if not self.rows:
            self.ran.add(layer.name)
            return
        place = self.rows[0].place
        grid = layer.family.grid(layer.network, options, place.height, place.width)
        parts = layer.family.places(layer.network, q.shape[2], k.shape[2], math.prod(grid))
        if parts is None and not layer.family.attention:
            return  # a block makes other calls as well
        self.ran.add(layer.name)
        finest = math.ceil(place.height / self.finest_layer) * math.ceil(place.width / self.finest_layer)
        if math.prod(grid) > finest or layer.name not in self.guided:
            return
        if parts is None:
            raise Obstacle(f"its layer {layer.name} has {q.shape[2]} queries for {grid[0]} x {grid[1]} places")
        image, text = parts
        q, k = q[:, :, image], k[:, :, text]
        if k.shape[1] < q.shape[1]:  # heads that share their keys
            k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
        for copy, numbers in enumerate(self._copies(q, layer)):
            for shown in {row.text.key: row.text for row in self.rows if row.text.common is not None}.values():
                of_text = [number for number, row in enumerate(self.rows) if row.text is shown]
                keys = _in_common(k.shape[2], self.tokens, shown, layer)
                if mask is not None and not _spares(mask, image, text, keys):
                    raise Obstacle(f"its layer {layer.name} masks the attention to the text")
                rows = [numbers[number] for number in of_text]
                maps = attention_probabilities(_rows(q, rows), _rows(k, rows)[:, :, keys])
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


def _in_common(keys: int, tokens: int, text: Text, layer: Layer) -> slice | Tensor:
    """Find the keys of the tokens in common, also where a patch has made more or fewer of every token.

    Of a text that is repeated those of its first copy: the others have the same probabilities.
    """
    assert text.common is not None
    copies, remainder = divmod(tokens, text.tokens.shape[1])
    if layer.family.attention and copies > 1 and not remainder and keys % copies == 0:
        keys //= copies
    expected, count = text.keys or text.tokens.shape[1], len(text.common)
    joint = not layer.family.attention and keys > expected  # padding that the network adds
    if keys == expected or joint:
        from_the_first = int(text.common[-1]) == count - 1  # they ascend
        return slice(count) if from_the_first else text.common
    scaled, remainder = divmod(keys * count, expected)
    if remainder:
        raise Obstacle(f"its layer {layer.name} has {keys} keys for a text of {expected} tokens")
    return slice(scaled)


def _spares(mask: Tensor, image: slice, text: slice, keys: slice | Tensor) -> bool:
    """Whether a mask leaves the image's attention to some keys of the text as it is, or at least the same to all."""
    seen = mask[..., text][..., keys]
    if seen.ndim > 2 and seen.shape[-2] > 1:
        seen = seen[..., image, :]
    return bool((seen == seen[..., :1]).all())


def _rows(t: Tensor, numbers: list[int]) -> Tensor:
    """Take rows, without a copy where they follow each other."""
    first = numbers[0]
    if numbers == list(range(first, first + len(numbers))):
        return t[first : first + len(numbers)]
    return t[numbers]


class TextAttention:
    """The layers of a running model in which text and image meet.

    Attributes:
        layers: all of them, in the order in which they run.
        guided: names of those that maps come from.
        exchanged: modules of the network that a patch has put others in the place of.
        current: the forward pass that is watched at the moment. It is no option of the pass: not every network hands
            its options on to its blocks, and a block that is computed again belongs to another.
    """

    def __init__(self, guider: Any, blocks: str = "") -> None:
        """Find the layers of the network of a guider that is sampling, with its patches on.

        Args:
            guider: a CFGGuider.
            blocks: which of the layers are guided, see `chosen_layers`.

        Raises:
            ValueError: there are no such blocks.
        """
        network = guider.inner_model.diffusion_model
        self.layers = text_layers(network.named_modules())
        self.guided = chosen_layers(self.layers, blocks)
        self.exchanged = [name for name in guider.model_patcher.object_patches if name.startswith("diffusion_model")]
        self.current: Pass | None = None
        self._hooked = False

    @property
    def family(self) -> Family:
        """Of the network."""
        return self.layers[0].family

    @contextlib.contextmanager
    def watching(self, current: Pass | None) -> Iterator[None]:
        """Let what runs meanwhile belong to a forward pass, or to none."""
        before, self.current = self.current, current
        try:
            yield
        finally:
            self.current = before

    @contextlib.contextmanager
    def hooked(self) -> Iterator[None]:
        """Keep the hooks on the blocks. A gradient needs them for its backward pass as well, if that runs blocks."""
        if self._hooked:
            yield
            return
        last = max((number for number, layer in enumerate(self.layers) if layer.name in self.guided), default=-1)
        with contextlib.ExitStack() as hooks:

            def hook(module: nn.Module, function: Callable[..., Any], layer: Layer) -> None:
                handle = module.register_forward_pre_hook(partial(function, layer), with_kwargs=True)
                hooks.callback(handle.remove)

            for number, layer in enumerate(self.layers):
                attention = layer.family.attention_of(layer.block)
                assert attention is not None
                if number > last and layer.network is not None:
                    hook(layer.block, self._without_gradient, layer)
                if layer.family.replacements:
                    hook(layer.block, self._in_block, layer)
                hook(attention, self._project if layer.family.project else self._in_attention, layer)
            self._hooked = True
            hooks.callback(setattr, self, "_hooked", False)
            yield

    def _without_gradient(self, _: Layer, __: Any, args: tuple[Any, ...], kwargs: Options) -> Any:
        """End the gradient behind the last layer that is guided: what comes after need not be kept for it."""

        def cut(value: Any) -> Any:
            return value.detach() if isinstance(value, Tensor) else value

        return tuple(map(cut, args)), {name: cut(value) for name, value in kwargs.items()}

    def _in_block(self, layer: Layer, _: Any, args: tuple[Any, ...], kwargs: Options) -> Any:
        """A look at what takes the place of the attention call."""

        def changed(options: Options) -> Options:
            replacements = options.get("patches_replace", {})
            replaced = replacements.get(layer.family.replacements, {})
            seen = {block: partial(self._replacement, layer, patch) for block, patch in replaced.items()}
            return {**options, "patches_replace": {**replacements, layer.family.replacements: seen}}

        return self._change_options(changed, args, kwargs)

    def _in_attention(self, layer: Layer, _: Any, args: tuple[Any, ...], kwargs: Options) -> Any:
        """A look at the attention calls of a module."""

        def changed(options: Options) -> Options:
            return {**options, OVERRIDE: partial(self._attend, layer, options)}

        return self._change_options(changed, args, kwargs)

    def _change_options(self, change: Callable[[Options], Options], args: tuple[Any, ...], kwargs: Options) -> Any:
        """Give a module other options than its caller does, as a hook, where the forward pass is watched."""
        if self.current is None:
            return None

        def changed(value: Any) -> Any:
            return change(value) if isinstance(value, dict) and PACK in value else value

        return tuple(map(changed, args)), {name: changed(value) for name, value in kwargs.items()}

    def _replacement(
        self, layer: Layer, patch: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, options: Options
    ) -> Tensor:
        if self.current is not None:
            self.current.record(layer, options, *(_heads(t, options["n_heads"]) for t in (q, k)))
        return patch(q, k, v, options)

    def _attend(
        self,
        layer: Layer,
        options: Options,
        function: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        heads: int,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        """What takes the place of an attention call: the same, and a look at it."""
        before = options.get(OVERRIDE)
        if self.current is not None:
            mask = args[0] if args else kwargs.get("mask")
            split = kwargs.get("skip_reshape", False)
            queries, keys = (t if split else _heads(t, heads) for t in (q, k))
            self.current.record(layer, options, queries, keys, mask)
        attention = function if before is None else partial(before, function)
        return attention(q, k, v, heads, *args, **kwargs)

    def _project(self, layer: Layer, module: Any, args: tuple[Any, ...], kwargs: Options) -> None:
        """A look at an attention call that nobody can see, by its module's own projections."""
        if self.current is not None:
            assert layer.family.project is not None
            self.current.record(layer, None, *layer.family.project(module, *args, **kwargs))


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


def is_watched(options: Options) -> bool:
    """Whether a :class:`Watch` looks at the call of a model with these options."""
    return bool(options["transformer_options"].get("wrappers", {}).get(WrappersMP.APPLY_MODEL, {}).get(PACK))


def unwatched(options: Options) -> Options:
    """Copy a model's options without the :class:`Watch` that may look at its call."""
    copied: Options = comfy.model_patcher.create_model_options_clone(options)
    copied["transformer_options"].get("wrappers", {}).get(WrappersMP.APPLY_MODEL, {}).pop(PACK, None)
    return copied


class Watch:
    """Sees one call of a model, in however many forward passes and pieces it is made."""

    def __init__(
        self, attention: TextAttention, x: Tensor, texts: Mapping[Any, Text], options: Options, finest_layer: int = 1
    ) -> None:
        """Put a wrapper round the model into the options of the call.

        Args:
            attention: the layers.
            x: the latent, (B, C, H, W). If it requires grad, passes whose text is shown are run with gradients back to
                it, though whoever runs the model takes none.
            texts: uuid of a part of the conditioning -> what it is; none where no maps are asked for.
            options: a copy of the model's options.
            finest_layer: maps come from layers at 1/finest_layer of the latent's resolution and coarser.
        """
        self.attention, self.x, self.texts, self.options, self.finest_layer = attention, x, texts, options, finest_layer
        self.passes: list[Pass] = []
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
        flat = picture_of(x)
        rows = self._identify(flat, c_crossattn, transformer_options.get("uuids", ()))
        shown = {row for row in self._places(rows) if row not in self._known()}
        if self.texts and not shown:
            with self.attention.watching(None):
                return executor(x, t, c_concat, c_crossattn, control, transformer_options, **kwargs)
        tokens = 0 if c_crossattn is None else c_crossattn.shape[1]
        texts = len(transformer_options.get("uuids", ()))
        current = Pass(rows, texts, self.finest_layer, self.attention.guided, tokens)
        self.passes.append(current)
        options = {**transformer_options, PACK: True}
        if not (shown and self.x.requires_grad):
            with self.attention.watching(current):
                return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)
        options[OVERRIDE] = partial(_differentiable, options.get(OVERRIDE))
        with torch.inference_mode(False), torch.enable_grad(), self.attention.watching(current):
            if not x.requires_grad:  # the denoiser runs the model without gradients: here they begin
                x = torch.stack([row.place.of(self.x[row.sample]) for row in rows]).view_as(x)
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


def picture_of(latent: Tensor) -> Tensor:
    """Take the frame out of a latent that has one, (B, C, 1, H, W); others stay as they are, (B, C, H, W)."""
    return latent.flatten(1, -3)


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
