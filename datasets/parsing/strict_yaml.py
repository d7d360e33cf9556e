"""Typed values of a YAML tree; errors say where and what was expected."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from foldcp.datasets.parsing.text_files import in_a_line, is_unicode
from foldcp.datasets.parsing.yaml_tree import Node, describe
from foldcp.files import check_regular, is_regular, reading

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {
    "true": True,
    "yes": True,
    "on": True,
    "false": False,
    "no": False,
    "off": False,
}


def mapping(
    node: Node, location: str, required: Collection[str], optional: Collection[str] = ()
) -> dict[str, Node]:
    """A mapping with all the required keys and no others than these and the optional ones.

    Optional keys without a value (`msa:` or `msa: null`) are left out.
    """
    known = ", ".join([*required, *optional])
    if not isinstance(node, dict):
        raise ValueError(f"{location}: expected the keys {known}, got {describe(node)}")
    for key in node:
        if key not in required and key not in optional:
            raise ValueError(f"{location}: unknown key {describe(key)}; the known keys are {known}")
    for key in required:
        if key not in node:
            raise ValueError(f"{location}: the key {describe(key)} is missing")
    return {key: value for key, value in node.items() if key in required or not is_null(value)}


def single_entry(node: Node, location: str, known: Collection[str]) -> tuple[str, Node]:
    """(key, value) of a mapping with a single key, one of `known`."""
    names = ", ".join(known)
    if not isinstance(node, dict) or len(node) != 1:
        raise ValueError(f"{location}: expected one of the keys {names}, got {describe(node)}")
    key, value = next(iter(node.items()))
    if key not in known:
        raise ValueError(f"{location}: unknown key {describe(key)}; the known keys are {names}")
    return key, value


def is_null(node: Node) -> bool:
    """Whether a value was left empty."""
    return isinstance(node, str) and node in _NULL


def items(node: Node, location: str) -> list[Node]:
    """A list; empty where the value is left out."""
    if is_null(node):
        return []
    if not isinstance(node, list):
        raise ValueError(f"{location}: expected a list, got {describe(node)}")
    return node


def string(node: Node, location: str) -> str:
    """A string that is not empty."""
    if not isinstance(node, str) or not node:
        raise ValueError(f"{location}: expected a string, got {describe(node)}")
    return node


def strings(node: Node, location: str) -> tuple[str, ...]:
    """One string or a list of them, at least one."""
    values = node if isinstance(node, list) else [node]
    if not values:
        raise ValueError(f"{location}: the list is empty")
    return tuple(string(value, location) for value in values)


def positive_integer(node: Node, location: str) -> int:
    """An integer from 1."""
    try:
        number = int(string(node, location))
    except ValueError:
        number = 0
    if number < 1:
        raise ValueError(f"{location}: expected a positive integer, got {describe(node)}")
    return number


def distance(node: Node, location: str) -> float:
    """A positive, finite number, in Å."""
    try:
        number = float(string(node, location))
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise ValueError(f"{location}: expected a distance in Å, got {describe(node)}")
    return number


def boolean(node: Node, location: str) -> bool:
    """A boolean, as YAML 1.1 spells it."""
    value = _BOOLEANS.get(string(node, location).lower())
    if value is None:
        raise ValueError(f"{location}: expected true or false, got {describe(node)}")
    return value


def existing_file(
    node: Node,
    location: str,
    folder: Path,
    *,
    allow_outside: bool = False,
    from_working_directory: bool = True,
) -> Path:
    """The absolute path of a regular file that an input in `folder` names, relative to it.

    A name that is not there may be one from the working directory, if `from_working_directory`. A
    file outside of these folders, links followed, is an error unless `allow_outside`.
    """
    written = string(node, location)
    with reading(f"{location}: {describe(written)}"):
        name = Path(written).expanduser()
        bases = [folder, Path.cwd()] if from_working_directory else [folder]
        candidates = [base / name for base in bases]
        for candidate in filter(is_regular, candidates):
            found = candidate.resolve()
            if not is_unicode(str(found)):
                raise ValueError(
                    f"{location}: {describe(written)} leads to a file whose name is not valid UTF-8"
                )
            if not allow_outside:
                check_inside(found, bases, f"{location}: {describe(written)}")
            return found
        for candidate in candidates:
            if candidate.exists():
                check_regular(candidate)
    what = f"{location}: there is no file {in_a_line(str(name))}"
    if name.is_absolute():
        raise ValueError(what)
    if not from_working_directory:
        raise ValueError(f"{what} in {folder.resolve()}")
    raise ValueError(f"{what}, neither in {folder.resolve()} nor in {Path.cwd()}")


def check_inside(path: Path, folders: Collection[Path], what: str) -> None:
    """Raise ValueError, which begins with `what`, for a resolved path outside of all folders."""
    if not any(path.is_relative_to(folder.resolve()) for folder in folders):
        raise ValueError(
            f"{what} leads to {path}, outside of the input's folder; --allow-outside reads it"
        )
