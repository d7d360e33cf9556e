"""Values of a YAML tree, each taken as what it should be; errors say where."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from foldcp.datasets.parsing.text_files import is_unicode
from foldcp.datasets.parsing.yaml_tree import Node, shown
from foldcp.files import check_regular, is_regular, reading

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_FLAGS = {
    "true": True,
    "yes": True,
    "on": True,
    "false": False,
    "no": False,
    "off": False,
}


def fields(
    node: Node, where: str, required: Collection[str], optional: Collection[str] = ()
) -> dict[str, Node]:
    """A mapping with all the required keys and no others than these and the optional ones.

    Optional keys without a value (`msa:` or `msa: null`) are left out.
    """
    if not isinstance(node, dict):
        raise ValueError(
            f"{where}: wanted the keys {', '.join([*required, *optional])}, found {shown(node)}"
        )
    for key in node:
        if key not in required and key not in optional:
            raise ValueError(
                f"{where}: unknown key {shown(key)}, known are {', '.join([*required, *optional])}"
            )
    for key in required:
        if key not in node:
            raise ValueError(f"{where}: the key {shown(key)} is missing")
    return {key: value for key, value in node.items() if key in required or not absent(value)}


def only(node: Node, where: str, known: Collection[str]) -> tuple[str, Node]:
    """(key, value) of a mapping with a single key, one of `known`."""
    if not isinstance(node, dict) or len(node) != 1:
        raise ValueError(f"{where}: wanted one of the keys {', '.join(known)}, found {shown(node)}")
    key, value = next(iter(node.items()))
    if key not in known:
        raise ValueError(f"{where}: unknown key {shown(key)}, known are {', '.join(known)}")
    return key, value


def absent(node: Node) -> bool:
    """Whether a value was left empty."""
    return isinstance(node, str) and node in _NULL


def items(node: Node, where: str) -> list[Node]:
    """A list; empty where the value is left out."""
    if absent(node):
        return []
    if not isinstance(node, list):
        raise ValueError(f"{where}: wanted a list, found {shown(node)}")
    return node


def text(node: Node, where: str) -> str:
    """A text that is not empty."""
    if not isinstance(node, str) or not node:
        raise ValueError(f"{where}: wanted a text, found {shown(node)}")
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
        raise ValueError(f"{where}: wanted a whole number from 1, found {shown(node)}")
    return number


def distance(node: Node, where: str) -> float:
    """A positive, finite number, in Å."""
    try:
        number = float(text(node, where))
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise ValueError(f"{where}: wanted a distance in Å, found {shown(node)}")
    return number


def flag(node: Node, where: str) -> bool:
    """true or false."""
    value = _FLAGS.get(text(node, where).lower())
    if value is None:
        raise ValueError(f"{where}: wanted true or false, found {shown(node)}")
    return value


def file(node: Node, where: str, folder: Path) -> Path:
    """An existing regular file, named from `folder` (that of the input) or else from the working
    directory.
    """
    written = text(node, where)
    with reading(f"{where}: {shown(written)}"):
        name = Path(written).expanduser()
        places = [base / name for base in (folder, Path.cwd())]
        for place in filter(is_regular, places):
            if not is_unicode(str(place.resolve())):
                raise ValueError(
                    f"{where}: {shown(written)} leads to a file whose name is not valid UTF-8"
                )
            return place.resolve()
        for place in places:
            if place.exists():
                check_regular(place)
    if name.is_absolute():
        raise ValueError(f"{where}: there is no file {name}")
    raise ValueError(
        f"{where}: there is no file {name}, neither in {folder.resolve()} nor in {Path.cwd()}"
    )
