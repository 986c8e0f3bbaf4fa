"""What a graph is: nodes that take from one another, and the groups they stand in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from .kinds import KINDS, WIDTH, Extra, Socket, Widget


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
        kind: its class.
        inputs: name -> value or link, in the order of the schema; sockets that stay open are missing.
        title: what is written on it; empty for the name of its class.
        models: files that the front end offers to download.
        width: of its body.
        example: a picture of `web/examples` that `web/examples.js` brings along, or several with the folder for them.
    """

    number: int
    kind: str
    inputs: Mapping[str, Any]
    title: str
    width: int = WIDTH
    models: tuple[ModelFile, ...] = ()
    example: str | tuple[str, ...] = ""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of its body."""
        return self.width, KINDS[self.kind].height

    def __getitem__(self, output: str) -> Link:
        """Link to an output by its name."""
        outputs = KINDS[self.kind].outputs
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
        outputs: of such a graph: name -> what comes out.
    """

    INPUT = -10
    """What stands for the number of a node in links to the inputs, and -20 for the outputs, as in the front end."""
    OUTPUT = -20

    def __init__(self, note: Note, inputs: Mapping[str, str] | None = None) -> None:
        """Begin with what the note says and, for a subgraph, with its inputs."""
        self.note = note
        self.nodes: dict[int, Node] = {}
        self.stacks: tuple[Stack, ...] = ()
        self.inputs = inputs or {}
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
        models: tuple[ModelFile, ...] = (),
        example: str | tuple[str, ...] = "",
        **inputs: Any,
    ) -> Node:
        """Add a node; widgets that are not named hold their usual values.

        Raises:
            ValueError: an input that the class has not, or a socket without a link that must have one.
        """
        declared = {name: entry for name, entry in KINDS[kind].inputs.items() if not isinstance(entry, Extra)}
        usual = {name: entry.value for name, entry in declared.items() if isinstance(entry, Widget)}
        needed = {name for name, entry in declared.items() if isinstance(entry, Socket) and not entry.optional}
        if wrong := (set(inputs) - set(declared)) | (needed - set(inputs)):
            raise ValueError(f"{kind} has no, or needs a link at: {', '.join(sorted(wrong))}")
        values = {name: inputs.get(name, usual.get(name)) for name in declared if name in inputs or name in usual}
        node = Node(len(self.nodes) + 1, kind, values, title, body_width, models, example)
        self.nodes[node.number] = node
        return node
