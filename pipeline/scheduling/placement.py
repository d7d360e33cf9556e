"""Which GPUs of which nodes are free, and where a group of a given size goes. Plain counts: no
Ray, no torch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

# (node, GPUs of it), the fullest share first: rank 0 sits on the first node.
Placement = tuple[tuple[str, int], ...]


def place(size: int, free: Mapping[str, int], whole: Mapping[str, int]) -> Placement | None:
    """Nodes for a group of `size` GPUs, None if they are not free.

    A group that some node of the cluster could hold is never spread over nodes, and goes where it
    leaves the least room, so that large rooms stay whole. A larger one takes whole nodes and the
    rest of it part of one more.
    """
    largest = max(whole.values(), default=0)
    placement: list[tuple[str, int]] = []
    for node in sorted((n for n in free if free[n] == whole[n]), key=lambda n: (-whole[n], n)):
        if size > largest:
            placement.append((node, whole[node]))
            size -= whole[node]
    used = {node for node, _ in placement}
    room = [(count, node) for node, count in free.items() if count >= size and node not in used]
    return (*placement, (min(room)[1], size)) if size <= largest and room else None


@dataclass(slots=True)
class Cluster:
    """GPUs per node, and how many of them nobody holds."""

    nodes: dict[str, int]
    free: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.free = dict(self.nodes)

    @property
    def num_gpus(self) -> int:
        """GPUs of all nodes."""
        return sum(self.nodes.values())

    def take(self, placement: Placement) -> None:
        """Mark GPUs as held."""
        for node, count in placement:
            assert 0 < count <= self.free[node], (
                f"{count} GPUs of {node}, where {self.free[node]} are free"
            )
            self.free[node] -= count

    def give_back(self, placement: Placement) -> None:
        """Mark GPUs as free again; those of a node that is gone are gone."""
        for node, count in placement:
            if node in self.nodes:
                self.free[node] += count
                assert self.free[node] <= self.nodes[node], (
                    f"{node} has only {self.nodes[node]} GPUs"
                )

    def without(self, nodes: Collection[str]) -> Cluster:
        """A copy in which no GPU of some nodes is free."""
        copy = Cluster(dict(self.nodes))
        copy.free = {node: 0 if node in nodes else count for node, count in self.free.items()}
        return copy

    def add(self, node: str, num_gpus: int) -> None:
        """Take a node into the cluster."""
        assert node not in self.nodes, f"{node} is in the cluster already"
        self.nodes[node] = self.free[node] = num_gpus

    def lose(self, node: str) -> None:
        """Take a node out of the cluster."""
        self.nodes.pop(node, None)
        self.free.pop(node, None)


def added(free: Mapping[str, int], placement: Placement, sign: int = 1) -> dict[str, int]:
    """`free` with the GPUs of a placement added (or, by sign -1, taken away); nodes that are
    gone stay away.
    """
    total = dict(free)
    for node, count in placement:
        if node in total:
            total[node] += sign * count
    return total
