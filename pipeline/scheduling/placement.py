"""Free GPUs of each node, and the nodes on which a worker group of a given size is placed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

# (node, number of its GPUs), the fullest share first: rank 0 is on the first node.
Placement = tuple[tuple[str, int], ...]


def find_placement(
    size: int, free: Mapping[str, int], capacity: Mapping[str, int]
) -> Placement | None:
    """Nodes for a worker group of `size` GPUs; None if they are not free.

    `free` and `capacity` count the GPUs of each node. A group that some node of the cluster could
    hold is never spread over nodes, and goes where it leaves the fewest GPUs free, so that large
    gaps stay whole. A larger one takes whole nodes and, for the rest, part of one more.
    """
    largest = max(capacity.values(), default=0)
    placement: list[tuple[str, int]] = []
    whole_nodes = [node for node in free if free[node] == capacity[node]]
    for node in sorted(whole_nodes, key=lambda node: (-capacity[node], node)):
        if size > largest:
            placement.append((node, capacity[node]))
            size -= capacity[node]
    used = {node for node, _ in placement}
    candidates = [
        (count, node) for node, count in free.items() if count >= size and node not in used
    ]
    if size > largest or not candidates:
        return None
    _, tightest = min(candidates)
    return (*placement, (tightest, size))


@dataclass(slots=True)
class Cluster:
    """GPUs of each node, and how many of them are free."""

    nodes: dict[str, int]
    free: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.free = dict(self.nodes)

    @property
    def num_gpus(self) -> int:
        """GPUs of all nodes."""
        return sum(self.nodes.values())

    def take(self, placement: Placement) -> None:
        """Mark GPUs as taken."""
        for node, count in placement:
            assert 0 < count <= self.free[node], (
                f"{count} GPUs of {node}, where {self.free[node]} are free"
            )
            self.free[node] -= count

    def release(self, placement: Placement) -> None:
        """Mark GPUs as free again, but for those of nodes that are gone."""
        for node, count in placement:
            if node in self.nodes:
                self.free[node] += count
                assert self.free[node] <= self.nodes[node], (
                    f"{node} has only {self.nodes[node]} GPUs"
                )

    def without_free(self, nodes: Collection[str]) -> Cluster:
        """A copy in which some nodes have no free GPU."""
        copy = Cluster(dict(self.nodes))
        copy.free = {node: 0 if node in nodes else count for node, count in self.free.items()}
        return copy

    def add_node(self, node: str, num_gpus: int) -> None:
        """Add a node, all of whose GPUs are free."""
        assert node not in self.nodes, f"{node} is in the cluster already"
        self.nodes[node] = num_gpus
        self.free[node] = num_gpus

    def remove_node(self, node: str) -> None:
        """Remove a node, if it is there."""
        self.nodes.pop(node, None)
        self.free.pop(node, None)


def add_gpus(free: Mapping[str, int], placement: Placement) -> dict[str, int]:
    """`free` with the GPUs of a placement added, but for those of nodes that are gone."""
    total = dict(free)
    for node, count in placement:
        if node in total:
            total[node] += count
    return total


def subtract_gpus(free: Mapping[str, int], placement: Placement) -> dict[str, int]:
    """`free` without the GPUs of a placement, but for those of nodes that are gone."""
    total = dict(free)
    for node, count in placement:
        if node in total:
            total[node] -= count
    return total
