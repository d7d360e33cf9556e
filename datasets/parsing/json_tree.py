"""Trees of JSON texts, parsed strictly and within limits, with nodes as those of `yaml_tree`."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from foldcp.datasets.parsing.text_files import is_unicode
from foldcp.datasets.parsing.yaml_tree import MAX_DEPTH, MAX_NODES, Node, describe


def parse_json(text: str, max_values: int = MAX_NODES) -> Node:
    """The tree of a JSON text. Numbers, true and false are texts as written; null is "null".

    Raises:
        ValueError: with the line and column where they are known: not JSON, a key that occurs twice
            in an object, nested more than `MAX_DEPTH` levels deep, more than `max_values` values.
    """
    try:
        tree = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=str,
            parse_float=str,
            parse_constant=_refuse_constant,
        )
    except json.JSONDecodeError as error:
        raise ValueError(
            f"not valid JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        ) from error
    except RecursionError as error:
        raise ValueError(f"not valid JSON: nested more than {MAX_DEPTH} levels deep") from error
    return _checked(tree, max_values)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = next(key for key, count in counts.items() if count > 1)
        raise ValueError(f"not valid JSON: the key {describe(twice)} occurs twice")
    return tree


def _refuse_constant(text: str) -> None:
    raise ValueError(f"not valid JSON: {text}")


def _checked(tree: Any, max_values: int) -> Node:
    """The tree with true, false and null as texts, within the limits."""
    num_nodes = 0
    words = {True: "true", False: "false", None: "null"}

    def check(node: Any, depth: int) -> Node:
        nonlocal num_nodes
        num_nodes += 1
        if num_nodes > max_values:
            raise ValueError(f"more than {max_values:,} values")
        if depth > MAX_DEPTH:
            raise ValueError(f"not valid JSON: nested more than {MAX_DEPTH} levels deep")
        if isinstance(node, str) and not is_unicode(node):
            raise ValueError(f"not valid JSON: half of a surrogate pair in {node[:40]!r}")
        if isinstance(node, dict):
            if broken := [key for key in node if not is_unicode(key)]:
                raise ValueError(f"not valid JSON: half of a surrogate pair in {broken[0][:40]!r}")
            return {key: check(value, depth + 1) for key, value in node.items()}
        if isinstance(node, list):
            return [check(value, depth + 1) for value in node]
        return node if isinstance(node, str) else words[node]

    return check(tree, 0)
