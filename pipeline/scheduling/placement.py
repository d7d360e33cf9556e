"""Free GPUs of each node, and the nodes on which a worker group of a given size is placed."""

from __future__ import annotations

import bisect
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate

# (node, number of its GPUs), the largest share first: rank 0 is on the first node, and the ranks of
# a node follow each other, so that a ring over all ranks has one link from each node to the next.
Placement = tuple[tuple[str, int], ...]


class NodeShapes:
    """The GPUs of each node of a cluster, and how many nodes a group of a size needs at least."""

    def __init__(self, capacity: Iterable[int]) -> None:
        # The GPUs of the largest node, of the two largest, ..
        self._ends = list(accumulate(sorted(capacity, reverse=True)))

    @property
    def largest(self) -> int:
        """GPUs of the largest node, 0 without any."""
        return self._ends[0] if self._ends else 0

    @property
    def num_gpus(self) -> int:
        """GPUs of all nodes."""
        return self._ends[-1] if self._ends else 0

    def num_nodes(self, size: int) -> int:
        """The fewest nodes that have `size` GPUs; one more than there are if all have fewer."""
        return bisect.bisect_left(self._ends, size) + 1


class FreeGpus:
    """The number of free GPUs of each node, and the nodes of each number, in order of their names.

    To find nodes for a group takes time in proportion to the nodes that it needs, not to those that
    there are.
    """

    def __init__(self, counts: Mapping[str, int]) -> None:
        self.counts = dict(counts)
        self.num_gpus = sum(counts.values())  # free ones
        self._nodes: dict[int, list[str]] = {}  # by number of free GPUs
        for node in sorted(counts):
            self._nodes.setdefault(counts[node], []).append(node)

    def set(self, node: str, count: int) -> None:
        """Say how many GPUs of a node are free; the node may be new."""
        self.remove(node)
        self.counts[node] = count
        self.num_gpus += count
        bisect.insort(self._nodes.setdefault(count, []), node)

    def remove(self, node: str) -> None:
        """Remove a node, if it is there."""
        before = self.counts.pop(node, None)
        if before is not None:
            self.num_gpus -= before
            same_count = self._nodes[before]
            del same_count[bisect.bisect_left(same_count, node)]
            if not same_count:
                del self._nodes[before]

    def find(self, size: int, shapes: NodeShapes) -> Placement | None:
        """Nodes for a worker group of `size` GPUs; None if they are not free.

        A group that some node of the cluster (`shapes`) could hold is never spread over nodes, and
        goes where it leaves the fewest GPUs free, so that large gaps stay whole. A larger one is
        spread over the fewest nodes that could hold it: over those with the most free GPUs, and
        with the rest on the one where it leaves the fewest.
        """
        fullest = self._fullest(shapes.num_nodes(size) - 1)
        rest = size - sum(count for _, count in fullest)
        used = {node for node, _ in fullest}
        for count in sorted(self._nodes):
            if count >= rest:
                for node in self._nodes[count]:
                    if node not in used:
                        return (*fullest, (node, rest))
        return None

    def _fullest(self, number: int) -> Placement:
        """The `number` nodes with the most free GPUs, with all of these."""
        found: list[tuple[str, int]] = []
        for count in sorted(self._nodes, reverse=True):
            found += [(node, count) for node in self._nodes[count][: number - len(found)]]
        return tuple(found)

    def with_placements(self, placements: Iterable[Placement]) -> FreeGpus:
        """A copy with the GPUs of these placements free, but for those of nodes that are gone."""
        copy = FreeGpus(self.counts)
        for placement in placements:
            copy.add(placement)
        return copy

    def at_most(self, other: FreeGpus) -> FreeGpus:
        """Of each node the smaller number of both."""
        counts = other.counts
        return FreeGpus(
            {node: min(count, counts.get(node, 0)) for node, count in self.counts.items()}
        )

    def add(self, placement: Placement) -> None:
        """Mark GPUs as free, but for those of nodes that are gone."""
        for node, count in placement:
            if node in self.counts:
                self.set(node, self.counts[node] + count)

    def subtract(self, placement: Placement) -> None:
        """Mark GPUs as taken, but for those of nodes that are gone."""
        for node, count in placement:
            if node in self.counts:
                self.set(node, self.counts[node] - count)


@dataclass(slots=True)
class Cluster:
    """GPUs of each node, and how many of them are free."""

    nodes: dict[str, int]
    free: FreeGpus = field(init=False)
    shapes: NodeShapes = field(init=False)

    def __post_init__(self) -> None:
        self.free = FreeGpus(self.nodes)
        self.shapes = NodeShapes(self.nodes.values())

    @property
    def num_gpus(self) -> int:
        """GPUs of all nodes."""
        return self.shapes.num_gpus

    def find(self, size: int) -> Placement | None:
        """Nodes with `size` free GPUs, see `FreeGpus.find`."""
        return self.free.find(size, self.shapes)

    def take(self, placement: Placement) -> None:
        """Mark GPUs as taken."""
        for node, count in placement:
            free = self.free.counts[node]
            assert 0 < count <= free, f"{count} GPUs of {node}, where {free} are free"
        self.free.subtract(placement)

    def release(self, placement: Placement) -> None:
        """Mark GPUs as free again, but for those of nodes that are gone."""
        self.free.add(placement)
        for node, _ in placement:
            if node in self.nodes:
                assert self.free.counts[node] <= self.nodes[node], (
                    f"{node} has only {self.nodes[node]} GPUs"
                )

    def without_free(self, nodes: Collection[str]) -> Cluster:
        """A copy in which some nodes have no free GPU; the cluster itself for no nodes."""
        if not nodes:
            return self
        copy = Cluster(dict(self.nodes))
        copy.free = FreeGpus(
            {node: 0 if node in nodes else count for node, count in self.free.counts.items()}
        )
        return copy

    def without_nodes(self, nodes: Collection[str]) -> Cluster:
        """A copy that lacks some nodes; the cluster itself for no nodes."""
        if not nodes:
            return self
        kept = {node: count for node, count in self.nodes.items() if node not in nodes}
        copy = Cluster(kept)
        copy.free = FreeGpus({node: self.free.counts[node] for node in kept})
        return copy

    def add_node(self, node: str, num_gpus: int) -> None:
        """Add a node, all of whose GPUs are free."""
        assert node not in self.nodes, f"{node} is in the cluster already"
        self.nodes[node] = num_gpus
        self.free.set(node, num_gpus)
        self.shapes = NodeShapes(self.nodes.values())

    def remove_node(self, node: str) -> None:
        """Remove a node, if it is there."""
        self.nodes.pop(node, None)
        self.free.remove(node)
        self.shapes = NodeShapes(self.nodes.values())
