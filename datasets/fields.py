"""How is YAML read strictly? Every scalar as its text, typed where it is used; errors say where.

YAML's own guesses would turn the ligand `NO` into false and `017` into 15.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable
from pathlib import Path
from typing import Any, cast

import yaml

Node = str | list["Node"] | dict[str, "Node"]
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_FLAGS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class _Loader(yaml.BaseLoader):
    """Every scalar is a string, and a key that occurs twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice!r} occurs twice", node.start_mark)
        return super().construct_mapping(node, deep)


def parse(text: str) -> Node:
    """The nested lists and mappings of a YAML (or JSON) text. Raises ValueError with the line of an error."""
    try:
        return cast(Node, yaml.load(text, Loader=_Loader))
    except yaml.YAMLError as error:
        raise ValueError(f"no YAML: {' '.join(str(error).split())}") from error


def fields(node: Node, where: str, required: Collection[str], optional: Collection[str] = ()) -> dict[str, Node]:
    """A mapping with all the required keys and no others than these and the optional ones.

    Optional keys without a value (`msa:` or `msa: null`) are left out.
    """
    if not isinstance(node, dict):
        raise ValueError(f"{where}: wanted the keys {', '.join([*required, *optional])}, found {_shown(node)}")
    for key in node:
        if key not in required and key not in optional:
            raise ValueError(f"{where}: unknown key {key!r}, known are {', '.join([*required, *optional])}")
    for key in required:
        if key not in node:
            raise ValueError(f"{where}: the key {key!r} is missing")
    return {key: value for key, value in node.items() if key in required or not absent(value)}


def only(node: Node, where: str, known: Collection[str]) -> tuple[str, Node]:
    """(key, value) of a mapping with a single key, one of `known`."""
    if not isinstance(node, dict) or len(node) != 1:
        raise ValueError(f"{where}: wanted one of the keys {', '.join(known)}, found {_shown(node)}")
    key, value = next(iter(node.items()))
    if key not in known:
        raise ValueError(f"{where}: unknown key {key!r}, known are {', '.join(known)}")
    return key, value


def absent(node: Node) -> bool:
    """Whether a value was left empty."""
    return isinstance(node, str) and node in _NULL


def items(node: Node, where: str) -> list[Node]:
    """A list; empty where the value is left out."""
    if absent(node):
        return []
    if not isinstance(node, list):
        raise ValueError(f"{where}: wanted a list, found {_shown(node)}")
    return node


def text(node: Node, where: str) -> str:
    """A text that is not empty."""
    if not isinstance(node, str) or not node:
        raise ValueError(f"{where}: wanted a text, found {_shown(node)}")
    return node


def texts(node: Node, where: str) -> tuple[str, ...]:
    """One text or a list of them, at least one."""
    values = node if isinstance(node, list) else [node]
    if not values:
        raise ValueError(f"{where}: the list is empty")
    return tuple(text(value, where) for value in values)


def whole(node: Node, where: str) -> int:
    """A whole number from 1."""
    try:
        number = int(text(node, where))
    except ValueError:
        number = 0
    if number < 1:
        raise ValueError(f"{where}: wanted a whole number from 1, found {_shown(node)}")
    return number


def distance(node: Node, where: str) -> float:
    """A positive, finite number, in Å."""
    try:
        number = float(text(node, where))
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise ValueError(f"{where}: wanted a distance in Å, found {_shown(node)}")
    return number


def flag(node: Node, where: str) -> bool:
    """true or false."""
    value = _FLAGS.get(text(node, where).lower())
    if value is None:
        raise ValueError(f"{where}: wanted true or false, found {_shown(node)}")
    return value


def file(node: Node, where: str, folder: Path) -> Path:
    """An existing file, named from `folder` (that of the input) or else from the working directory."""
    name = Path(text(node, where)).expanduser()
    for base in (folder, Path.cwd()):
        if (base / name).is_file():
            return (base / name).resolve()
    if name.is_absolute():
        raise ValueError(f"{where}: there is no file {name}")
    raise ValueError(f"{where}: there is no file {name}, neither in {folder.resolve()} nor in {Path.cwd()}")


def _shown(node: Node) -> str:
    if isinstance(node, str):
        return repr(node if len(node) <= 40 else node[:37] + "...") if node else "nothing"
    if isinstance(node, list):
        return f"a list of {len(node)}"
    return f"the keys {', '.join(node)}" if node else "no keys"
