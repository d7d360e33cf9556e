"""The nodes of a cluster that is only planned: so many GPUs, in nodes of given sizes."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle

MAX_GPUS = 100_000


def parse_node_sizes(text: str) -> tuple[int, ...]:
    """The GPUs of each node: `8` are equal nodes, `3+8+5` are three of different sizes.

    Raises ValueError naming what is no size of a node.
    """
    sizes: list[int] = []
    for part in text.split("+"):
        if not (part.strip().isascii() and part.strip().isdigit() and int(part) > 0):
            raise ValueError(
                f"--gpus-per-node {text}: {part.strip()!r} is not a number of GPUs; a node of 8 is "
                "8, nodes of different sizes are 3+8+5"
            )
        sizes.append(int(part))
    return tuple(sizes)


def make_nodes(num_gpus: int, node_sizes: tuple[int, ...]) -> dict[str, int]:
    """A cluster of `num_gpus` GPUs: nodes of the sizes, in turn, the last one with what is left.

    0 GPUs stand for one node of each size. Raises ValueError for more than 100,000 GPUs.
    """
    num_gpus = num_gpus or sum(node_sizes)
    if num_gpus > MAX_GPUS:
        raise ValueError(f"--gpus {num_gpus}: more than {MAX_GPUS:,} GPUs")
    nodes: dict[str, int] = {}
    for size in cycle(node_sizes):
        if not num_gpus:
            return nodes
        taken = min(size, num_gpus)
        nodes[f"node{len(nodes) + 1}"] = taken
        num_gpus -= taken
    return nodes


def describe_nodes(nodes: Mapping[str, int]) -> str:
    """`64 nodes of 8`, `1 node of 3, 1 of 5`: the largest first."""
    sizes = sorted(nodes.values(), reverse=True)
    counts = {size: sizes.count(size) for size in dict.fromkeys(sizes)}
    parts = [f"{count:,} of {size}" for size, count in counts.items()]
    first, _, rest = parts[0].partition(" ")
    parts[0] = f"{first} node{'s' * (first != '1')} {rest}"
    return ", ".join(parts)
