"""Placement of worker groups on nodes."""

from __future__ import annotations

import pytest

from foldcp.pipeline.scheduling.placement import Cluster, FreeGpus, NodeShapes
from foldcp.pipeline.scheduling.scheduler import Scheduler
from tests.support.scheduling import COSTS, SETTINGS, tasks


def test_find_placement_fills_a_node_before_it_opens_another() -> None:
    nodes = {f"n{i}": 8 for i in range(4)}
    scheduler = Scheduler(tasks(40, 0, 600, 0.1), COSTS, nodes, SETTINGS)
    for _ in range(4):
        placement = scheduler.cluster.find(1)
        assert placement is not None
        scheduler.cluster.take(placement)
    assert sorted(scheduler.cluster.free.counts.values()) == [4, 8, 8, 8]
    assert scheduler.cluster.find(8) is not None


@pytest.mark.parametrize(
    ("size", "free", "expected"),
    [
        (3, {"a": 8, "b": 5, "c": 3}, {"c": 3}),
        (6, {"a": 8, "b": 5, "c": 3}, {"a": 6}),
        (6, {"a": 5, "b": 5, "c": 3}, None),
        (8, {"a": 8, "b": 5, "c": 3}, {"a": 8}),
        (11, {"a": 8, "b": 4, "c": 3}, {"a": 8, "c": 3}),
        (16, {"a": 8, "b": 8, "c": 3}, {"a": 8, "b": 8}),
        (20, {"a": 8, "b": 3, "c": 3}, None),
        (99, {"a": 8, "b": 8, "c": 3}, None),
    ],
)
def test_find_placement(size: int, free: dict[str, int], expected: dict[str, int] | None) -> None:
    placement = FreeGpus(free).find(size, NodeShapes([8, 8, 3]))
    assert (dict(placement) if placement else None) == expected


@pytest.mark.parametrize("sizes", [(3, 8, 5), (8, 8, 7, 7), (3, 8, 5) * 4, (1, 1, 6), (2,)])
def test_every_size_is_placed_on_an_empty_cluster_over_the_fewest_nodes(
    sizes: tuple[int, ...],
) -> None:
    nodes = {f"n{index}": size for index, size in enumerate(sizes)}
    for size in range(1, sum(sizes) + 1):
        placement = Cluster(dict(nodes)).find(size)
        assert placement is not None
        assert sum(count for _, count in placement) == size
        assert all(0 < count <= nodes[node] for node, count in placement)
        fewest = next(
            number
            for number in range(1, len(sizes) + 1)
            if sum(sorted(sizes, reverse=True)[:number]) >= size
        )
        # The ranks of a node follow each other: a ring has no more links between nodes than nodes.
        assert len({node for node, _ in placement}) == len(placement) == fewest
    assert Cluster(dict(nodes)).find(sum(sizes) + 1) is None


def test_cluster_takes_no_gpu_twice() -> None:
    cluster = Cluster({"a": 4})
    cluster.take((("a", 3),))
    with pytest.raises(AssertionError):
        cluster.take((("a", 2),))
    cluster.release((("a", 3),))
    with pytest.raises(AssertionError):
        cluster.release((("a", 1),))
