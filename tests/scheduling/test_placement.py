"""Placement of worker groups on nodes."""

from __future__ import annotations

import pytest

from foldcp.pipeline.scheduling.placement import Cluster, find_placement
from foldcp.pipeline.scheduling.scheduler import Scheduler
from tests.support.scheduling import COSTS, SETTINGS, tasks


def test_find_placement_fills_a_node_before_it_opens_another() -> None:
    nodes = {f"n{i}": 8 for i in range(4)}
    scheduler = Scheduler(tasks(40, 0, 600, 0.1), COSTS, nodes, SETTINGS)
    for _ in range(4):
        placement = find_placement(1, scheduler.cluster.free, nodes)
        assert placement is not None
        scheduler.cluster.take(placement)
    assert sorted(scheduler.cluster.free.values()) == [4, 8, 8, 8]
    assert find_placement(8, scheduler.cluster.free, nodes) is not None


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
    placement = find_placement(size, free, {"a": 8, "b": 8, "c": 3})
    assert (dict(placement) if placement else None) == expected


def test_cluster_takes_no_gpu_twice() -> None:
    cluster = Cluster({"a": 4})
    cluster.take((("a", 3),))
    with pytest.raises(AssertionError):
        cluster.take((("a", 2),))
    cluster.release((("a", 3),))
    with pytest.raises(AssertionError):
        cluster.release((("a", 1),))
