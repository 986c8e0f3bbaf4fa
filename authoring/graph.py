"""What a graph is: nodes that take from one another, and the groups they stand in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from .kinds import KINDS, WIDTH, Extra, Kind, Socket, Widget


class Link(NamedTuple):
    """The output of a node, by the node's number and the output's place."""

    node: int
    output: int
    type: str


class ModelFile(NamedTuple):
    """A model that the front end offers to download where it is missing."""

    name: str
    url: str
    directory: str


@dataclass(frozen=True, eq=False)
class Node:
    """One node of a graph; `node["LATENT"]` is a link to an output.

    Attributes:
        number: its id.
        kind: its class; for a subgraph the name of it.
        schema: what a node of its class takes and gives.
        inputs: name -> value or link, in the order of the schema; sockets that stay open are missing.
        title: what is written on it; empty for the name of its class.
        models: files that the front end offers to download.
        width: of its body.
        example: a picture of `web/examples` that `web/examples.js` brings along, or several with the folder for them.
        inside: the graph that it stands for, if it is a subgraph.
    """

    number: int
    kind: str
    schema: Kind
    inputs: Mapping[str, Any]
    title: str
    width: int = WIDTH
    models: tuple[ModelFile, ...] = ()
    example: str | tuple[str, ...] = ""
    inside: Graph | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of its body."""
        return self.width, self.schema.height

    def __getitem__(self, output: str) -> Link:
        """Link to an output by its name."""
        outputs = self.schema.outputs
        return Link(self.number, list(outputs).index(output), outputs[output])


class Note(NamedTuple):
    """Markdown on the canvas: title, text, width and height of the body."""

    title: str
    text: str
    size: tuple[int, int]


Column = tuple[Node | Note, ...]
Stack = Mapping[str, tuple[Column, ...]]
"""Groups one above another: title -> columns of nodes and notes, from left to right."""


class Graph:
    """A graph that grows by one node a call; a node takes from those before it.

    Attributes:
        note: stands left of the graph.
        nodes: number -> node.
        stacks: the groups, from left to right.
        inputs: of a graph that becomes one node, a subgraph: name -> type. Those with a widget show it on that node.
        values: of such a graph: name of an input with a widget -> what it holds, if not the widget's usual value.
        outputs: of such a graph: name -> what comes out.
        zoom: of the first view.
        help: of a graph that becomes one node: what its help page says, Markdown.
    """

    zoom = 0.58  # below 0.57 the browser leaves the text out
    help = ""

    INPUT = -10
    """What stands for the number of a node in links to the inputs, and -20 for the outputs, as in the front end."""
    OUTPUT = -20

    def __init__(
        self, note: Note, inputs: Mapping[str, str] | None = None, values: Mapping[str, Any] | None = None
    ) -> None:
        """Begin with what the note says and, for a subgraph, with its inputs and what they hold."""
        self.note = note
        self.nodes: dict[int, Node] = {}
        self.stacks: tuple[Stack, ...] = ()
        self.inputs = inputs or {}
        self.values = values or {}
        self.outputs: dict[str, Link] = {}

    def input(self, name: str) -> Link:
        """Link to an input of the subgraph."""
        return Link(self.INPUT, list(self.inputs).index(name), self.inputs[name])

    def add(
        self,
        kind: str,
        title: str = "",
        /,
        *,
        body_width: int = WIDTH,
        room: int | None = None,
        models: tuple[ModelFile, ...] = (),
        example: str | tuple[str, ...] = "",
        **inputs: Any,
    ) -> Node:
        """Add a node; widgets that are not named hold their usual values.

        Args:
            kind: its class.
            title: what is written on it.
            body_width: of its body.
            room: height for what it shows, if not the usual of its class.
            models: see `Node`.
            example: see `Node`.
            inputs: values and links.

        Raises:
            ValueError: an input that the class has not, or a socket without a link that must have one.
        """
        schema = KINDS[kind] if room is None else replace(KINDS[kind], room=room)
        return self._add(Node(len(self.nodes) + 1, kind, schema, inputs, title, body_width, models, example))

    def add_graph(self, name: str, inside: Graph, title: str, *, room: int = 0, **inputs: Any) -> Node:
        """Add a graph as one node; as `add`."""
        return self._add(Node(len(self.nodes) + 1, name, inside.schema(room), inputs, title, inside=inside))

    def schema(self, room: int = 0) -> Kind:
        """What the node takes and gives that stands for this graph."""
        entries = {name: self._promoted(name) or Socket(type_) for name, type_ in self.inputs.items()}
        return Kind(entries, {name: link.type for name, link in self.outputs.items()}, room)

    def held(self, node: Node, name: str) -> Any:
        """What a widget of a node inside holds: its value, or under a link what it would have without.

        Several widgets on one input hold the same.
        """
        value, entry = node.inputs.get(name), node.schema.inputs[name]
        assert not isinstance(entry, Socket)
        if isinstance(value, Link):
            shown = self._promoted(list(self.inputs)[value.output]) if value.node == self.INPUT else None
            return entry.value if shown is None else shown.value
        return node.inputs.get(name, entry.value)

    def _promoted(self, name: str) -> Widget | None:
        """The widget inside that an input shows on the node of this graph."""
        for node in self.nodes.values():
            for inside, value in node.inputs.items():
                entry = node.schema.inputs[inside]
                if value == self.input(name) and isinstance(entry, Widget):
                    return replace(entry, value=self.values.get(name, entry.value))
        return None

    def _add(self, node: Node) -> Node:
        kind, inputs = node.kind, node.inputs
        declared = {name: entry for name, entry in node.schema.inputs.items() if not isinstance(entry, Extra)}
        usual = {name: entry.value for name, entry in declared.items() if isinstance(entry, Widget)}
        needed = {name for name, entry in declared.items() if isinstance(entry, Socket) and not entry.optional}
        if wrong := (set(inputs) - set(declared)) | (needed - set(inputs)):
            raise ValueError(f"{kind} has no, or needs a link at: {', '.join(sorted(wrong))}")
        values = {name: inputs.get(name, usual.get(name)) for name in declared if name in inputs or name in usual}
        self.nodes[node.number] = replace(node, inputs=values)
        return self.nodes[node.number]
