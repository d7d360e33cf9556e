"""Which waiting job may start now, and where.

The largest groups come first. The first job that does not fit reserves the GPUs that are free the
earliest, and smaller ones go ahead of it only where they do not delay it (EASY backfilling, Lifka
1995). Idle groups are used again, or stopped when their GPUs are wanted.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from foldcp.pipeline.scheduling.group_size import CostCache, widen_tail
from foldcp.pipeline.scheduling.placement import Cluster, Placement, added, place
from foldcp.pipeline.scheduling.types import GroupState, Queue, QueuedTask


@dataclass(frozen=True, slots=True)
class Decision:
    """The next step for a job: fold in an idle group, start a group at a placement, or first
    stop idle groups.
    """

    job: QueuedTask
    group: GroupState | None = None
    placement: Placement | None = None
    stop: tuple[GroupState, ...] = ()


@dataclass(frozen=True, slots=True)
class Reservation:
    """When the first blocked job can start, and the GPUs per node that it leaves over then."""

    time: float
    spare: dict[str, int]


@dataclass(frozen=True, slots=True)
class BackfillPolicy:
    """A view of the scheduler's state at one moment."""

    queue: Queue
    groups: Sequence[GroupState]
    cluster: Cluster
    sizes: CostCache
    now: float
    pace: float  # measured over predicted seconds
    start_seconds: float
    # whether GPUs that nobody holds are kept out of `cluster.free` for a while
    may_wait: bool = False

    def choose(self) -> Decision | None:
        """The next step, None when nothing more can start now."""
        reservation: Reservation | None = None
        for size in sorted(self.queue.by_size, reverse=True):
            if reservation is None:
                job = self.queue.by_size[size][-1]
                if choice := self._anywhere(job):
                    return choice
                reservation, stop = self._reserve(job)
                if stop:
                    return Decision(job, stop=stop)
            elif choice := self._ahead(self.queue.by_size[size], reservation):
                return choice
        return None

    def _anywhere(self, job: QueuedTask) -> Decision | None:
        """An idle group of its size, a larger one if that is cheaper than a new one, or a new
        one.
        """
        elsewhere = {
            node: count for node, count in self.cluster.nodes.items() if node not in job.avoid
        }
        for room in (elsewhere, self.cluster.nodes) if job.avoid else (elsewhere,):
            if choice := self._within(job, room):
                return choice
        return None

    def _within(self, job: QueuedTask, room: dict[str, int]) -> Decision | None:
        """The same on some of the nodes."""
        if exact := self._idle(job.size, room):
            return Decision(job, group=exact)
        # Each of the groups made for this size would serve its share of the jobs that wait for it.
        served = max(1.0, len(self.queue.by_size[job.size]) * job.size / self.cluster.num_gpus)
        fresh = job.size * (job.seconds + self.start_seconds / served)
        for group in sorted(self._idle_groups(), key=lambda g: (g.size, g.id)):
            within = all(node in room for node, _ in group.placement)
            if within and group.size > job.size and group.size not in self.queue.by_size:
                seconds = self.sizes.seconds(job.task, replace(job.setup, num_ranks=group.size))
                if group.size * seconds <= fresh:
                    return Decision(job, group=group)
        free = {node: count for node, count in self.cluster.free.items() if node in room}
        placement = place(job.size, free, self.cluster.nodes)
        return Decision(job, placement=placement) if placement else None

    def _reserve(self, job: QueuedTask) -> tuple[Reservation, tuple[GroupState, ...]]:
        """The earliest start of a job that fits nowhere now, and the idle groups to stop if that
        is at once.
        """
        free = self.cluster.free
        for group in self.groups:
            if group.state in ("idle", "stopping"):
                free = added(free, group.placement)
        if at_once := place(job.size, free, self.cluster.nodes):
            return Reservation(self.now, added(free, at_once, -1)), self._in_the_way(
                at_once, self._idle_groups()
            )
        running = [group for group in self.groups if group.state in ("starting", "busy")]
        for group in sorted(running, key=lambda g: (self._end(g), g.id)):
            free = added(free, group.placement)
            if placement := place(job.size, free, self.cluster.nodes):
                return Reservation(self._end(group), added(free, placement, -1)), ()
        if self.may_wait:
            return Reservation(float("inf"), {}), ()
        raise AssertionError(
            f"{job.task.name} waits for {job.size} GPUs, more than the cluster has"
        )

    def _ahead(self, jobs: list[QueuedTask], reservation: Reservation) -> Decision | None:
        """A job of one size that does not delay the reservation: the longest one on GPUs that it
        leaves over, or the longest one that ends before it begins.
        """
        size = jobs[-1].size
        spare = {
            node: min(count, reservation.spare.get(node, 0))
            for node, count in self.cluster.free.items()
        }
        if group := self._idle(size, reservation.spare):
            return Decision(jobs[-1], group=group)
        if placement := place(size, spare, self.cluster.nodes):
            return Decision(jobs[-1], placement=placement)
        left = reservation.time - self.now
        if (group := self._idle(size, self.cluster.nodes)) and (job := self._longest(jobs, left)):
            return Decision(job, group=group)
        job = self._longest(jobs, left - self.start_seconds)
        if job and (placement := place(size, self.cluster.free, self.cluster.nodes)):
            return Decision(job, placement=placement)
        return self._make_room(jobs[-1], reservation)

    def _make_room(self, job: QueuedTask, reservation: Reservation) -> Decision | None:
        """Stop idle groups whose size nobody waits for, if a job fits their place and the
        reservation allows it.
        """
        useless = [
            g for g in self._idle_groups() if g.size not in self.queue.by_size or g.size > job.size
        ]
        free = self.cluster.free
        for group in [*useless, *(g for g in self.groups if g.state == "stopping")]:
            free = added(free, group.placement)
        spare = {node: min(count, reservation.spare.get(node, 0)) for node, count in free.items()}
        placement = place(job.size, spare, self.cluster.nodes)
        stop = self._in_the_way(placement, useless) if placement else ()
        return Decision(job, stop=stop) if stop else None

    def _idle_groups(self) -> list[GroupState]:
        return [group for group in self.groups if group.state == "idle" and group.job is None]

    def _idle(self, size: int, room: dict[str, int]) -> GroupState | None:
        """An idle group of exactly this size within `room`."""
        for group in self._idle_groups():
            if group.size == size and all(
                room.get(node, 0) >= count for node, count in group.placement
            ):
                return group
        return None

    def _in_the_way(
        self, placement: Placement, groups: Iterable[GroupState]
    ) -> tuple[GroupState, ...]:
        """The fewest idle groups, as they come, whose GPUs a placement needs beside the free and
        the stopping ones.
        """
        coming = self.cluster.free
        for group in self.groups:
            if group.state == "stopping":
                coming = added(coming, group.placement)
        stop: list[GroupState] = []
        for group in groups:
            lacking = {node for node, count in placement if coming[node] < count}
            if lacking & {node for node, _ in group.placement}:
                stop.append(group)
                coming = added(coming, group.placement)
        return tuple(stop)

    def _end(self, group: GroupState) -> float:
        """When a group is expected to have no work."""
        assert group.job is not None
        start = self.start_seconds if group.state == "starting" else 0.0
        return max(self.now, group.since + start + group.job.seconds * self.pace)

    def _longest(self, jobs: list[QueuedTask], seconds: float) -> QueuedTask | None:
        """The longest job that takes at most so long."""
        index = bisect.bisect_right(jobs, seconds, key=lambda job: job.seconds * self.pace)
        return jobs[index - 1] if index else None

    def stretched(self) -> list[tuple[QueuedTask, int]]:
        """New sizes for the waiting jobs if together they leave GPUs idle; empty while there is
        enough work.
        """
        free = self.cluster.free
        warm: Counter[int] = Counter()
        for group in self.groups:
            if group.state == "stopping" or (group.state == "idle" and group.job is None):
                free = added(free, group.placement)
                warm[group.size] += group.state == "idle"
        num_free = sum(free.values())
        if (
            not len(self.queue)
            or sum(size * len(jobs) for size, jobs in self.queue.by_size.items()) >= num_free
        ):
            return []
        jobs = [job for size in sorted(self.queue.by_size) for job in self.queue.by_size[size]]
        work = [(job.task, job.setup) for job in jobs]
        setups = widen_tail(self.sizes, work, num_free, warm, self.start_seconds)
        for size in sorted((setup.num_ranks for setup in setups), reverse=True):
            if (placement := place(size, free, self.cluster.nodes)) is None:
                return []
            free = added(free, placement, -1)
        return [
            (job, s.num_ranks)
            for job, s in zip(jobs, setups, strict=True)
            if s.num_ranks != job.size
        ]
