"""EASY backfilling (Lifka 1995): which waiting task starts now, and on which GPUs.

The largest groups come first. The first task that does not fit takes a smaller group that is free
now, if it ends no later so. Otherwise it reserves the GPUs that are free the earliest, and smaller
ones start before it only where they do not delay it. Idle worker groups are used again, or stopped
when their GPUs are needed.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Collection
from dataclasses import dataclass, replace

from foldcp.pipeline.scheduling.group_size import CostCache
from foldcp.pipeline.scheduling.groups import Groups
from foldcp.pipeline.scheduling.placement import Cluster, Placement
from foldcp.pipeline.scheduling.policy.reservation import (
    Reservation,
    groups_to_stop,
    reserve,
    reserve_nothing,
)
from foldcp.pipeline.scheduling.queue import Queue
from foldcp.pipeline.scheduling.types import GroupState, QueuedTask

# A smaller group is taken if it costs at most so many times the GPU-seconds.
NARROWING_COST = 1.02


@dataclass(frozen=True, slots=True)
class Decision:
    """The next step for a task.

    It folds in an idle group, a group is started for it at a placement, or idle groups are stopped
    first. A fold that must end before others begin takes at most `max_seconds`.
    """

    queued: QueuedTask
    group: GroupState | None = None
    max_seconds: float = math.inf
    placement: Placement | None = None
    stop: tuple[GroupState, ...] = ()


@dataclass(frozen=True, slots=True)
class BackfillPolicy:
    """A view of the scheduler's state at one moment."""

    queue: Queue
    groups: Groups
    cluster: Cluster
    costs: CostCache
    now: float
    slowdown: float  # measured over predicted seconds
    start_seconds: float
    closed_nodes: Collection[str] = ()  # whose idle groups are not used
    # Whether some free GPUs are kept out of `cluster.free` for a while.
    may_wait: bool = False

    def decide(self) -> Decision | None:
        """The next step; None when nothing more can start now."""
        if not self.groups.has_idle and not self.cluster.free.num_gpus:
            return None
        reservation: Reservation | None = None
        for size in sorted(self.queue.by_size, reverse=True):
            same_size = self.queue.by_size[size]
            longest = same_size[-1]
            if reservation is not None:
                decision = self._backfill(same_size, reservation)
            else:
                decision = self._start_longest(longest)
                if decision is None:
                    reservation = self._reserve(longest)
                    decision = self._start_narrower(longest, reservation)
            if decision is not None:
                return decision
        return None

    def _start_longest(self, queued: QueuedTask) -> Decision | None:
        """Start the first task of the queue if GPUs are free for it.

        In an idle group of its size, in a larger one if that is cheaper than a new one, or in a new
        one.
        """
        avoid = self._avoided(queued)
        if exact := self._find_idle_group(queued.size, avoid):
            return Decision(queued, group=exact)
        if larger := self._find_larger_group(queued, avoid):
            return Decision(queued, group=larger)
        placement = self.cluster.without_nodes(avoid).find(queued.size)
        return Decision(queued, placement=placement) if placement else None

    def _avoided(self, queued: QueuedTask) -> Collection[str]:
        """The nodes on which a task must not start: its group ended there.

        None if the other nodes cannot hold it as well.
        """
        if not queued.avoid_nodes:
            return ()
        others = self.cluster.without_nodes(queued.avoid_nodes).shapes
        size = queued.size
        can_hold = others.num_gpus >= size
        is_as_good = others.num_nodes(size) == self.cluster.shapes.num_nodes(size)
        return queued.avoid_nodes if can_hold and is_as_good else ()

    def _find_larger_group(self, queued: QueuedTask, avoid: Collection[str]) -> GroupState | None:
        """The smallest idle group, larger than a task's own size, that is worth using.

        No other task waits for its size, and the task costs no more on it than on a new group.
        """
        # Each group made for this size would serve its share of the tasks that wait for it.
        num_waiting = len(self.queue.by_size[queued.size])
        num_served = max(1.0, num_waiting * queued.size / self.cluster.num_gpus)
        cost_of_new = queued.size * (queued.seconds + self.start_seconds / num_served)
        for size in self.groups.idle_sizes():
            if size > queued.size and size not in self.queue.by_size:
                shape = replace(queued.shape, num_ranks=size)
                is_cheap = self.costs.gpu_seconds(queued.task, shape) <= cost_of_new
                if is_cheap and (group := self._find_idle_group(size, avoid)):
                    return group
        return None

    def _reserve(self, queued: QueuedTask) -> Reservation:
        """The earliest start of a task that fits nowhere now."""
        avoid = self._avoided(queued)
        cluster = self.cluster.without_nodes(avoid)
        reservation = reserve(queued.size, cluster, self.groups, self.now)
        assert reservation or self.may_wait, (
            f"{queued.task.name} waits for {queued.size} GPUs, more than the cluster has"
        )
        if reservation is None:
            return reserve_nothing(self.cluster)
        for node in avoid:
            if node in self.cluster.nodes:
                reservation.left.set(node, self.cluster.nodes[node])
                reservation.spare.set(node, self.cluster.free.counts[node])
        return reservation

    def _start_narrower(self, queued: QueuedTask, reservation: Reservation) -> Decision | None:
        """Stop the idle groups that a blocked task needs to start now, or make it smaller.

        It is made smaller if it then starts now, costs hardly more, and ends no later than if it
        waited, or no later than the run will anyway.
        """
        if reservation.stop:
            return Decision(queued, stop=reservation.stop)
        end = reservation.time + queued.seconds * self.slowdown
        work_left = self.queue.gpu_seconds * self.slowdown
        work_left += self.groups.gpu_seconds_left(self.now)
        latest = max(end, self.now + work_left / self.cluster.num_gpus)
        avoid = self._avoided(queued)
        cluster = self.cluster.without_nodes(avoid)
        max_gpu_seconds = NARROWING_COST * queued.size * queued.seconds
        for num_ranks in range(queued.size - 1, queued.min_ranks - 1, -1):
            shape = replace(queued.shape, num_ranks=num_ranks)
            seconds = self.costs.seconds(queued.task, shape) * queued.scale
            if self.now + seconds * self.slowdown > latest:
                return None
            if num_ranks * seconds <= max_gpu_seconds:
                if group := self._find_idle_group(num_ranks, avoid):
                    return Decision(queued, group=group, max_seconds=0.0)
                if placement := cluster.find(num_ranks):
                    return Decision(queued, placement=placement)
        return None

    def _backfill(self, same_size: list[QueuedTask], reservation: Reservation) -> Decision | None:
        """A task of one size that does not delay the reservation.

        The longest one on GPUs that the reservation leaves over, or the longest one that ends
        before it begins.
        """
        longest = self._last_unrestricted(same_size, len(same_size))
        if longest is None:
            return None
        size = longest.size
        for group in self._idle_groups_of_size(size):
            if reservation.leaves(group.placement):
                return Decision(longest, group=group)
        if placement := reservation.spare.find(size, self.cluster.shapes):
            return Decision(longest, placement=placement)
        seconds_left = reservation.time - self.now
        group = self._find_idle_group(size, ())
        if group and (short := self._longest_within(same_size, seconds_left)):
            return Decision(short, group=group, max_seconds=seconds_left)
        short = self._longest_within(same_size, seconds_left - self.start_seconds)
        if short and (placement := self.cluster.find(size)):
            return Decision(short, placement=placement)
        return self._stop_unneeded(longest, reservation)

    def _stop_unneeded(self, queued: QueuedTask, reservation: Reservation) -> Decision | None:
        """Stop idle groups whose size no task waits for, to make room for a task.

        Only if the task fits on their GPUs and the reservation allows it.
        """
        unneeded = [
            group
            for size in self.groups.idle_sizes()
            if size not in self.queue.by_size or size > queued.size
            for group in self._idle_groups_of_size(size)
        ]
        if not unneeded:
            return None
        placements = [group.placement for group in [*unneeded, *self.groups.stopping()]]
        available = self.cluster.free.with_placements(placements)
        spare = available.at_most(reservation.left)
        placement = spare.find(queued.size, self.cluster.shapes)
        if placement is None:
            return None
        stop = groups_to_stop(placement, self.cluster, self.groups, unneeded)
        return Decision(queued, stop=stop) if stop else None

    def _idle_groups_of_size(self, size: int) -> list[GroupState]:
        """Idle groups of a size on nodes that may be used."""
        return [
            group
            for group in self.groups.idle_of_size(size)
            if not any(node in self.closed_nodes for node, _ in group.placement)
        ]

    def _find_idle_group(self, size: int, avoid: Collection[str]) -> GroupState | None:
        """An idle group of exactly this size that has no node that is to be avoided."""
        for group in self._idle_groups_of_size(size):
            if not any(node in avoid for node, _ in group.placement):
                return group
        return None

    def _longest_within(self, same_size: list[QueuedTask], seconds: float) -> QueuedTask | None:
        """The longest task that takes at most so long."""
        number = bisect.bisect_right(
            same_size, seconds, key=lambda queued: queued.seconds * self.slowdown
        )
        return self._last_unrestricted(same_size, number)

    def _last_unrestricted(self, same_size: list[QueuedTask], number: int) -> QueuedTask | None:
        """The last of the first `number` tasks that may start on any node."""
        candidates = (same_size[index] for index in range(number - 1, -1, -1))
        return next((queued for queued in candidates if not self._avoided(queued)), None)
