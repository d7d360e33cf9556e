"""The last tasks of a run: larger groups for them, when they leave GPUs without work."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence
from itertools import takewhile

from foldcp.pipeline.inputs.tasks import Task
from foldcp.pipeline.scheduling.cost_model import FoldShape
from foldcp.pipeline.scheduling.group_size import CostCache
from foldcp.pipeline.scheduling.groups import Groups
from foldcp.pipeline.scheduling.placement import Cluster
from foldcp.pipeline.scheduling.queue import Queue
from foldcp.pipeline.scheduling.types import QueuedTask

WIDENING_GAIN = 0.9  # a wider group must take less than this share of the time
SOON = 0.1  # of a task's seconds: so long it may wait for more GPUs


def widened(
    queue: Queue,
    groups: Groups,
    cluster: Cluster,
    costs: CostCache,
    start_seconds: float,
    now: float,
) -> list[tuple[QueuedTask, int]]:
    """Larger sizes for the waiting tasks if together they leave GPUs idle.

    Empty while there is enough work. GPUs count as idle if they are so within a small share of the
    time of the longest task. The largest task comes first, and where a size cannot be placed beside
    those before it, the task has the next smaller one.
    """
    if not len(queue) or queue.num_requested >= cluster.num_gpus:
        return []
    soon = now + SOON * max(same_size[-1].seconds for same_size in queue.by_size.values())
    ending = takewhile(lambda end: end[0] <= soon, groups.in_order_of_end(now))
    unused = [*groups.idle(), *groups.stopping(), *(group for _, group in ending)]
    free = cluster.free.with_placements(group.placement for group in unused)
    if queue.num_requested >= free.num_gpus:
        return []
    waiting = [queued for size in sorted(queue.by_size) for queued in queue.by_size[size]]
    work = [(queued.task, queued.shape) for queued in waiting]
    warm = set(groups.idle_sizes())
    scales = [queued.scale for queued in waiting]
    shapes = widen_tail(costs, work, scales, free.num_gpus, warm, start_seconds)
    found: list[tuple[QueuedTask, int]] = []
    pairs = zip(waiting, shapes, strict=True)
    for queued, shape in sorted(pairs, key=lambda pair: -pair[1].num_ranks):
        sizes = [option.num_ranks for option in costs.options(queued.task, queued.shape)]
        for size in reversed(sizes):
            if size <= shape.num_ranks and (placement := free.find(size, cluster.shapes)):
                free.subtract(placement)
                if size > queued.size:
                    found.append((queued, size))
                break
    return found


def widen_tail(
    costs: CostCache,
    work: Sequence[tuple[Task, FoldShape]],
    scales: Sequence[float],
    num_gpus: int,
    warm: Collection[int],
    start_seconds: float,
) -> list[FoldShape]:
    """Shapes for the last tasks, which together leave GPUs without work.

    The slowest one is widened as long as that gains more than the start of a new group costs.
    `scales` correct the predicted times, and `warm` are the sizes of which there is an idle group.
    """
    chosen = [shape for _, shape in work]
    spare = num_gpus - sum(shape.num_ranks for shape in chosen)

    def seconds_to_end(index: int, shape: FoldShape) -> float:
        task, _ = work[index]
        start = 0.0 if shape.num_ranks in warm else start_seconds
        return costs.seconds(task, shape) * scales[index] + start

    slowest_first = [(-seconds_to_end(index, shape), index) for index, shape in enumerate(chosen)]
    heapq.heapify(slowest_first)
    while spare > 0:
        _, slowest = slowest_first[0]
        current = chosen[slowest]
        task, smallest = work[slowest]
        limit = WIDENING_GAIN * seconds_to_end(slowest, current)
        wider = next(
            (
                option
                for option in costs.options(task, smallest)
                if current.num_ranks < option.num_ranks <= current.num_ranks + spare
                and seconds_to_end(slowest, option) < limit
            ),
            None,
        )
        if wider is None:
            break
        chosen[slowest] = wider
        spare -= wider.num_ranks - current.num_ranks
        heapq.heapreplace(slowest_first, (-seconds_to_end(slowest, wider), slowest))
    return chosen
