"""Trees of YAML and JSON texts: nested lists and mappings, parsed strictly and within limits.

Every scalar is its text as written, to be typed where it is used: YAML's own guesses would turn the
ligand `NO` into false and `017` into 15. The tree is built from the parser's events, without
recursion.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field

import yaml

from foldcp.datasets.parsing.text_files import join_names

Node = str | list["Node"] | dict[str, "Node"]

MAX_CHARACTERS = 10_000_000  # of a text; a complex of 50,000 residues needs a hundredth of it
MAX_DEPTH = 32
MAX_NODES = 1_000_000  # an alias counts as all the nodes it expands to

# libyaml's parser, where PyYAML was built with it, is some fifty times as fast.
_LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_SURROGATE = re.compile("[\ud800-\udfff]")


def parse(text: str, known: Collection[str] = ()) -> Node:
    """The tree of a text; an empty text where it holds no document.

    Args:
        text: YAML 1.1 or JSON, one document.
        known: the keys of the mapping that the document must be; another key, or another kind of
            document, is an error as soon as it is met. Any document is valid if empty.

    Raises:
        ValueError: with the line and column: not YAML, two documents, a key that occurs twice or is
            not a string, an alias without an anchor before it, more than `MAX_CHARACTERS`,
            `MAX_DEPTH` or `MAX_NODES`, or a key that is not `known`.
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"more than {MAX_CHARACTERS:,} characters of YAML or JSON")
    tree = _Tree(known)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            tree.add(event)
    except yaml.YAMLError as error:
        raise ValueError(f"not valid YAML: {_problem(error)}") from error
    return tree.root


def _problem(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        words = " ".join(filter(None, [error.context, error.problem]))
        return f"{words} ({_position(error.problem_mark)})"
    return " ".join(str(error).split())


def _position(mark: yaml.Mark) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"


@dataclass(slots=True)
class _Open:
    """A list or mapping whose end has not been read yet."""

    node: list[Node] | dict[str, Node]
    anchor: str | None
    num_before: int  # nodes of the tree before it
    key: str | None = None  # of a mapping, the key whose value comes next


@dataclass(slots=True)
class _Tree:
    """The tree of the events so far."""

    known: Collection[str]
    root: Node = ""
    num_nodes: int = 0
    num_documents: int = 0
    open: list[_Open] = field(default_factory=list)
    # what each names, and its number of nodes
    anchors: dict[str, tuple[Node, int]] = field(default_factory=dict)

    def add(self, event: yaml.Event) -> None:
        """Take the next event."""
        if isinstance(event, yaml.ScalarEvent):
            self._count(1, event)
            self._name(event.anchor, event.value, 1, event)
            self._put(event.value, event)
        elif isinstance(event, yaml.SequenceStartEvent | yaml.MappingStartEvent):
            self._start(event)
        elif isinstance(event, yaml.SequenceEndEvent | yaml.MappingEndEvent):
            done = self.open.pop()
            self._name(done.anchor, done.node, self.num_nodes - done.num_before, event)
            self._put(done.node, event)
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in self.anchors:
                raise _error(
                    f"the alias {describe('*' + str(event.anchor))} has no anchor before it",
                    event,
                )
            node, num_nodes = self.anchors[event.anchor]
            self._count(num_nodes, event)
            self._put(node, event)
        elif isinstance(event, yaml.DocumentStartEvent):
            self.num_documents += 1
            if self.num_documents > 1:
                raise _error("expected one document, got another", event)

    def _start(self, event: yaml.SequenceStartEvent | yaml.MappingStartEvent) -> None:
        is_list = isinstance(event, yaml.SequenceStartEvent)
        if len(self.open) == MAX_DEPTH:
            raise _error(f"nested more than {MAX_DEPTH} levels deep", event)
        if is_list and not self.open and self.known:
            raise ValueError(f"the file: expected the keys {', '.join(self.known)}, got a list")
        self._count(1, event)
        self.open.append(_Open([] if is_list else {}, event.anchor, self.num_nodes - 1))

    def _count(self, num_nodes: int, event: yaml.Event) -> None:
        self.num_nodes += num_nodes
        if self.num_nodes > MAX_NODES:
            raise _error(f"more than {MAX_NODES:,} values, with aliases expanded", event)

    def _name(self, anchor: str | None, node: Node, num_nodes: int, event: yaml.Event) -> None:
        if anchor is None:
            return
        if anchor in self.anchors:
            raise _error(f"the anchor {describe('&' + anchor)} occurs twice", event)
        self.anchors[anchor] = node, num_nodes

    def _put(self, node: Node, event: yaml.Event) -> None:
        """Add a finished node to the list or mapping around it."""
        if isinstance(node, str) and not node.isascii() and _SURROGATE.search(node):
            raise _error("half of a surrogate pair, which is not a character", event)
        if not self.open:
            self.root = node
            return
        around = self.open[-1]
        if isinstance(around.node, list):
            around.node.append(node)
        elif around.key is not None:
            around.node[around.key] = node
            around.key = None
        else:
            around.key = self._checked_key(node, around.node, event)

    def _checked_key(self, node: Node, mapping: dict[str, Node], event: yaml.Event) -> str:
        if not isinstance(node, str):
            raise _error("a key is not a string", event)
        if node in mapping:
            raise _error(f"the key {describe(node)} occurs twice", event)
        if self.known and len(self.open) == 1 and node not in self.known:
            raise ValueError(
                f"the file: unknown key {describe(node)}; the known keys are "
                f"{', '.join(self.known)}"
            )
        return node


def _error(problem: str, event: yaml.Event) -> ValueError:
    return ValueError(f"not valid YAML: {problem} ({_position(event.start_mark)})")


def describe(node: Node) -> str:
    """A value as errors show it: a string in quotes, a list or mapping by its size or keys."""
    if isinstance(node, str):
        return repr(_shortened(node)) if node else "nothing"
    if isinstance(node, list):
        return f"a list of {len(node)}"
    return f"the keys {join_names(map(_shortened, node), 10)}" if node else "no keys"


def _shortened(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."
