"""EASY backfilling (Lifka 1995): which waiting task starts now, and on which GPUs.

The largest groups come first. The first task that does not fit reserves the GPUs that are free
the earliest, and smaller ones start before it only where they do not delay it. Idle worker groups
are used again, or stopped when their GPUs are needed.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from foldcp.pipeline.scheduling.group_size import CostCache, widen_tail
from foldcp.pipeline.scheduling.placement import (
    Cluster,
    Placement,
    add_gpus,
    find_placement,
    subtract_gpus,
)
from foldcp.pipeline.scheduling.types import GroupState, Queue, QueuedTask


@dataclass(frozen=True, slots=True)
class Decision:
    """The next step for a task.

    It folds in an idle group, a group is started for it at a placement, or idle groups are stopped
    first.
    """

    queued: QueuedTask
    group: GroupState | None = None
    placement: Placement | None = None
    stop: tuple[GroupState, ...] = ()


@dataclass(frozen=True, slots=True)
class Reservation:
    """The start time of the first blocked task, and the GPUs of each node that are left then."""

    time: float
    spare: dict[str, int]


@dataclass(frozen=True, slots=True)
class BackfillPolicy:
    """A view of the scheduler's state at one moment."""

    queue: Queue
    groups: Sequence[GroupState]
    cluster: Cluster
    costs: CostCache
    now: float
    slowdown: float  # measured over predicted seconds
    start_seconds: float
    # Whether some free GPUs are kept out of `cluster.free` for a while.
    may_wait: bool = False

    def decide(self) -> Decision | None:
        """The next step; None when nothing more can start now."""
        reservation: Reservation | None = None
        for size in sorted(self.queue.by_size, reverse=True):
            same_size = self.queue.by_size[size]
            if reservation is not None:
                decision = self._backfill(same_size, reservation)
            else:
                decision = self._start_longest(same_size[-1])
                if decision is None:
                    reservation, stop = self._reserve(same_size[-1])
                    decision = Decision(same_size[-1], stop=stop) if stop else None
            if decision is not None:
                return decision
        return None

    def widened(self) -> list[tuple[QueuedTask, int]]:
        """Larger sizes for the waiting tasks if together they leave GPUs idle.

        Empty while there is enough work.
        """
        free = self.cluster.free
        warm: Counter[int] = Counter()
        for group in self.groups:
            if group.is_unused or group.state == "stopping":
                free = add_gpus(free, group.placement)
                warm[group.size] += group.state == "idle"
        num_free = sum(free.values())
        num_requested = sum(size * len(same_size) for size, same_size in self.queue.by_size.items())
        if not len(self.queue) or num_requested >= num_free:
            return []
        waiting = [
            queued for size in sorted(self.queue.by_size) for queued in self.queue.by_size[size]
        ]
        work = [(queued.task, queued.shape) for queued in waiting]
        shapes = widen_tail(self.costs, work, num_free, warm, self.start_seconds)
        for size in sorted((shape.num_ranks for shape in shapes), reverse=True):
            placement = find_placement(size, free, self.cluster.nodes)
            if placement is None:
                return []
            free = subtract_gpus(free, placement)
        return [
            (queued, shape.num_ranks)
            for queued, shape in zip(waiting, shapes, strict=True)
            if shape.num_ranks != queued.size
        ]

    def _start_longest(self, queued: QueuedTask) -> Decision | None:
        """Start the first task of the queue if GPUs are free for it.

        On nodes that it should not avoid, if possible.
        """
        nodes = self.cluster.nodes
        if queued.avoid_nodes:
            others = {node: nodes[node] for node in nodes if node not in queued.avoid_nodes}
            if decision := self._start_on(queued, others):
                return decision
        return self._start_on(queued, nodes)

    def _start_on(self, queued: QueuedTask, nodes: Mapping[str, int]) -> Decision | None:
        """Start a task on some nodes.

        In an idle group of its size, in a larger one if that is cheaper than a new one, or in a new
        one.
        """
        if exact := self._find_idle_group(queued.size, nodes):
            return Decision(queued, group=exact)
        if larger := self._find_larger_group(queued, nodes):
            return Decision(queued, group=larger)
        free = {node: count for node, count in self.cluster.free.items() if node in nodes}
        placement = find_placement(queued.size, free, self.cluster.nodes)
        return Decision(queued, placement=placement) if placement else None

    def _find_larger_group(self, queued: QueuedTask, nodes: Mapping[str, int]) -> GroupState | None:
        """The smallest idle group, larger than a task's own size, that is worth using.

        No other task waits for its size, and the task costs no more on it than on a new group.
        """
        # Each group made for this size would serve its share of the tasks that wait for it.
        num_waiting = len(self.queue.by_size[queued.size])
        num_served = max(1.0, num_waiting * queued.size / self.cluster.num_gpus)
        cost_of_new = queued.size * (queued.seconds + self.start_seconds / num_served)
        for group in sorted(self._idle_groups(), key=lambda group: (group.size, group.id)):
            is_on_nodes = all(node in nodes for node, _ in group.placement)
            if is_on_nodes and group.size > queued.size and group.size not in self.queue.by_size:
                shape = replace(queued.shape, num_ranks=group.size)
                if group.size * self.costs.seconds(queued.task, shape) <= cost_of_new:
                    return group
        return None

    def _reserve(self, queued: QueuedTask) -> tuple[Reservation, tuple[GroupState, ...]]:
        """The earliest start of a task that fits nowhere now.

        With it the idle groups to stop, if the start is at once.
        """
        capacity = self.cluster.nodes
        free = self.cluster.free
        for group in self.groups:
            if group.state in ("idle", "stopping"):
                free = add_gpus(free, group.placement)
        if placement := find_placement(queued.size, free, capacity):
            reservation = Reservation(self.now, subtract_gpus(free, placement))
            return reservation, self._groups_to_stop(placement, self._idle_groups())
        running = [group for group in self.groups if group.state in ("starting", "busy")]
        for group in sorted(running, key=lambda group: (self._expected_end(group), group.id)):
            free = add_gpus(free, group.placement)
            if placement := find_placement(queued.size, free, capacity):
                spare = subtract_gpus(free, placement)
                return Reservation(self._expected_end(group), spare), ()
        if self.may_wait:
            return Reservation(float("inf"), {}), ()
        raise AssertionError(
            f"{queued.task.name} waits for {queued.size} GPUs, more than the cluster has"
        )

    def _backfill(self, same_size: list[QueuedTask], reservation: Reservation) -> Decision | None:
        """A task of one size that does not delay the reservation.

        The longest one on GPUs that the reservation leaves over, or the longest one that ends
        before it begins.
        """
        longest = same_size[-1]
        size = longest.size
        free = self.cluster.free
        capacity = self.cluster.nodes
        spare = {node: min(free[node], reservation.spare.get(node, 0)) for node in free}
        if group := self._find_idle_group(size, reservation.spare):
            return Decision(longest, group=group)
        if placement := find_placement(size, spare, capacity):
            return Decision(longest, placement=placement)
        seconds_left = reservation.time - self.now
        group = self._find_idle_group(size, capacity)
        if group and (short := self._longest_within(same_size, seconds_left)):
            return Decision(short, group=group)
        short = self._longest_within(same_size, seconds_left - self.start_seconds)
        if short and (placement := find_placement(size, free, capacity)):
            return Decision(short, placement=placement)
        return self._stop_unneeded(longest, reservation)

    def _stop_unneeded(self, queued: QueuedTask, reservation: Reservation) -> Decision | None:
        """Stop idle groups whose size no task waits for, to make room for a task.

        Only if the task fits on their GPUs and the reservation allows it.
        """
        unneeded = [
            group
            for group in self._idle_groups()
            if group.size not in self.queue.by_size or group.size > queued.size
        ]
        stopping = [group for group in self.groups if group.state == "stopping"]
        free = self.cluster.free
        for group in [*unneeded, *stopping]:
            free = add_gpus(free, group.placement)
        spare = {node: min(free[node], reservation.spare.get(node, 0)) for node in free}
        placement = find_placement(queued.size, spare, self.cluster.nodes)
        stop = self._groups_to_stop(placement, unneeded) if placement else ()
        return Decision(queued, stop=stop) if stop else None

    def _groups_to_stop(
        self, placement: Placement, groups: Iterable[GroupState]
    ) -> tuple[GroupState, ...]:
        """The fewest idle groups, in the order given, that a placement needs to be stopped.

        Beside their GPUs it has those that are free or of stopping groups.
        """
        available = self.cluster.free
        for group in self.groups:
            if group.state == "stopping":
                available = add_gpus(available, group.placement)
        stop: list[GroupState] = []
        for group in groups:
            if any(available[node] < count and group.has_node(node) for node, count in placement):
                stop.append(group)
                available = add_gpus(available, group.placement)
        return tuple(stop)

    def _idle_groups(self) -> list[GroupState]:
        return [group for group in self.groups if group.is_unused]

    def _find_idle_group(self, size: int, available: Mapping[str, int]) -> GroupState | None:
        """An idle group of exactly this size within the GPUs of `available`."""
        for group in self._idle_groups():
            is_free = all(available.get(node, 0) >= count for node, count in group.placement)
            if group.size == size and is_free:
                return group
        return None

    def _expected_end(self, group: GroupState) -> float:
        """The time at which a group is expected to be idle."""
        assert group.queued is not None
        start = self.start_seconds if group.state == "starting" else 0.0
        return max(self.now, group.since + start + group.queued.seconds * self.slowdown)

    def _longest_within(self, same_size: list[QueuedTask], seconds: float) -> QueuedTask | None:
        """The longest task that takes at most so long."""
        index = bisect.bisect_right(
            same_size, seconds, key=lambda queued: queued.seconds * self.slowdown
        )
        return same_size[index - 1] if index else None
