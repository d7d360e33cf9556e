"""Indexes of waiting tasks and of worker groups."""

from __future__ import annotations

import math
import random

import pytest

from foldcp.pipeline.scheduling.group_size import initial_shape
from foldcp.pipeline.scheduling.groups import OVERRUN, Groups
from foldcp.pipeline.scheduling.queue import Queue
from foldcp.pipeline.scheduling.types import GroupState, QueuedTask
from tests.support.scheduling import COSTS, task


def queued(name: str, num_ranks: int, seconds: float) -> QueuedTask:
    shape = initial_shape(COSTS, num_ranks, "mixed")
    return QueuedTask(task(100, name), shape, seconds=seconds)


def group(number: int, size: int, end: float, deadline: float = 1e9) -> GroupState:
    placement = (("a", size),)
    found = GroupState(number, placement, "busy", 0.0, deadline, queued(f"{number}", size, end))
    found.expected_end = end
    return found


def test_queue_is_in_order_and_keeps_its_sums() -> None:
    draw = random.Random(0)
    waiting = [queued(f"{i}", draw.randint(1, 4), draw.randint(1, 9)) for i in range(200)]
    queue = Queue()
    queue.push_all(waiting[:100])
    for found in waiting[100:]:
        queue.push(found)
    for found in draw.sample(waiting, 150):
        queue.remove(found)
        waiting.remove(found)
    assert len(queue) == 50
    assert queue.num_requested == sum(found.size for found in waiting)
    assert queue.gpu_seconds == pytest.approx(sum(q.size * q.seconds for q in waiting))
    for size, same_size in queue.by_size.items():
        assert {found.size for found in same_size} == {size}
        assert [q.seconds for q in same_size] == sorted(q.seconds for q in same_size)
    with pytest.raises(AssertionError, match="not in the queue"):
        queue.remove(queued("other", waiting[0].size, waiting[0].seconds))
    assert set(map(id, queue.drain())) == set(map(id, waiting))
    assert (len(queue), queue.num_requested, queue.gpu_seconds) == (0, 0, 0)


def test_cheapest_task_avoids_a_node() -> None:
    queue = Queue()
    small, large = queued("small", 1, 1.0), queued("large", 2, 5.0)
    small.avoid_nodes = frozenset({"a"})
    queue.push_all([small, large])
    assert queue.cheapest(4, "b") is small
    assert queue.cheapest(4, "a") is large
    assert queue.cheapest(1, "a") is None


def test_late_group_is_expected_to_go_on_for_a_while() -> None:
    groups = Groups()
    for found in (group(1, 2, 100.0), group(2, 1, 130.0), group(3, 4, 90.0, deadline=104.0)):
        groups.add(found)
    assert [(time, g.id) for time, g in groups.in_order_of_end(50.0)] == [
        (90.0, 3),
        (100.0, 1),
        (130.0, 2),
    ]
    # 3 is late and ends with its deadline at the latest, 1 is late by a quarter of its time.
    assert [(time, g.id) for time, g in groups.in_order_of_end(102.0)] == [
        (104.0, 3),
        (102.0 + OVERRUN * 102.0, 1),
        (130.0, 2),
    ]
    assert groups.gpu_seconds_left(50.0) == pytest.approx(2 * 50 + 80 + 4 * 40)
    assert groups.next_deadline() == 104.0
    assert [found.id for found in groups.overdue(104.0)] == [3]


def test_groups_are_found_by_state() -> None:
    groups = Groups()
    first = group(1, 2, 100.0)
    groups.add(first)
    assert groups.any_working and not groups.has_idle
    with groups.changing(first):
        first.state = "idle"
        first.queued = None
    assert groups.has_idle and not groups.any_working
    assert (groups.idle_sizes(), list(groups.idle_of_size(2))) == ([2], [first])
    assert groups.next_deadline() == math.inf
    assert groups.gpu_seconds_left(0.0) == 0
    with groups.changing(first):
        first.state = "stopping"
    assert groups.stopping() == [first] == groups.on_node("a")
    assert groups.pop(1) is first
    assert len(groups) == 0 and not groups.on_node("a")
