"""Starts, folds and ends of worker groups: the actions, and the record of groups and attempts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from types import MappingProxyType
from typing import Literal

from foldcp.pipeline.scheduling.deadlines import Deadlines
from foldcp.pipeline.scheduling.groups import Groups
from foldcp.pipeline.scheduling.placement import Cluster, Placement
from foldcp.pipeline.scheduling.policy.fold_progress import FoldTrack, StepTimes
from foldcp.pipeline.scheduling.policy.slow_folds import KNOWN
from foldcp.pipeline.scheduling.policy.waiting import Waiting
from foldcp.pipeline.scheduling.types import (
    Attempt,
    BatchMember,
    Failure,
    FailureKind,
    Fold,
    FoldStep,
    GroupState,
    QueuedTask,
    Start,
    Stop,
)

NO_FAILURES: Mapping[str, Failure] = MappingProxyType({})


class Dispatcher:
    """The worker groups of a run and all attempts that have ended.

    Each action is counted as done as soon as it is decided.
    """

    def __init__(self, cluster: Cluster, waiting: Waiting, deadlines: Deadlines) -> None:
        self.groups = Groups()
        self.attempts: list[Attempt] = []
        self._tracks: dict[int, FoldTrack] = {}  # of the groups that fold and have told of it
        self._cluster = cluster
        self._waiting = waiting
        self._deadlines = deadlines
        self._num_groups = 0

    def start(self, placement: Placement, queued: QueuedTask, now: float) -> Start:
        """Start a group for a task."""
        self._cluster.take(placement)
        self._num_groups += 1
        deadline = self._deadlines.of_start(now)
        group = GroupState(self._num_groups, placement, "starting", now, deadline, queued)
        self._resize_task(queued, group)
        start_seconds = self._deadlines.start_seconds
        group.expected_end = now + start_seconds + queued.seconds * self._deadlines.slowdown
        self.groups.add(group)
        return Start(group.id, placement, deadline)

    def fold(
        self,
        group: GroupState,
        queued: QueuedTask,
        now: float,
        others: Sequence[QueuedTask] = (),
    ) -> Fold:
        """Let an idle group fold; it may be larger than the task's own size.

        `others` are folded together with the task, which is the largest.
        """
        assert group.state == "idle"
        self._resize_task(queued, group, 1 + len(others))
        for member in (queued, *others):
            member.shape = queued.shape
            member.seconds = queued.seconds
            member.num_attempts += 1
            member.parked_since = math.inf
        with self.groups.changing(group):
            group.state = "busy"
            group.queued = queued
            group.others = tuple(others)
            group.since = now
            group.deadline = self._deadlines.of_fold(group, queued, now, others)
            group.expected_end = now + queued.seconds * self._deadlines.slowdown
        return Fold(
            group=group.id,
            task=queued.task,
            shape=queued.shape,
            number=queued.num_attempts,
            deadline=group.deadline,
            fallbacks=queued.fallbacks,
            keeps_passes=self._keeps_passes(queued),
            others=tuple(BatchMember(other.task, other.num_attempts) for other in others),
        )

    def _keeps_passes(self, queued: QueuedTask) -> bool:
        """Whether a fold takes so long that the state of the trunk is kept between its passes."""
        least = self._waiting.settings.trunk_checkpoint_seconds
        if not least or queued.shape.batch > 1:
            return False
        whole = self._waiting.cache.seconds(queued.task, queued.shape) * self._deadlines.slowdown
        return whole >= least or queued.kept_passes > 0

    def track(self, group: GroupState, step: FoldStep, now: float) -> FoldTrack:
        """Take in the last known step of a group that folds; its expected end follows from it."""
        queued = group.queued
        assert group.state == "busy" and queued is not None
        if group.id not in self._tracks:
            times = StepTimes.predicted(self._waiting.costs, queued.task, queued.shape)
            self._tracks[group.id] = FoldTrack(times, self._keeps_passes(queued))
        track = self._tracks[group.id]
        if track.update(step, now):
            left = track.seconds_left * track.slowdown(self._deadlines.slowdown)
            self.groups.expect(group, track.last_at + left)
        return track

    def set_idle(self, group: GroupState) -> None:
        """A group has no task any more."""
        with self.groups.changing(group):
            group.state = "idle"
            group.queued = None
            group.others = ()

    def stop(self, group: GroupState, reason: str) -> Stop:
        """Stop a group, idle or busy."""
        with self.groups.changing(group):
            group.state = "stopping"
            group.queued = None
            group.others = ()
        return Stop(group.id, reason)

    def typical_slowdown(self) -> float:
        """Measured over predicted seconds, the median of the folds that run."""
        slowdown = self._deadlines.slowdown
        known = [
            track.slowdown(slowdown)
            for track in self._tracks.values()
            if track.share_known >= KNOWN
        ]
        return median(known) if known else slowdown

    def interrupt(self, group: GroupState, reason: str, now: float) -> Stop:
        """Stop a group that folds, for which its task is not to blame."""
        self.record(group, "stopped", reason, now)
        return self.stop(group, reason)

    def end(self, group: GroupState, failure: Failure, now: float) -> Stop:
        """Stop a group, and record the attempt that it was making."""
        if group.state == "busy":
            self.record(group, failure.kind, failure.reason, now)
        return self.stop(group, failure.reason)

    def record(
        self,
        group: GroupState,
        outcome: FailureKind | Literal["done", "stopped"],
        reason: str,
        now: float,
        failures: Mapping[str, Failure] = NO_FAILURES,
    ) -> None:
        """Record a group's attempt that has ended, of each task that it folds.

        `failures` are those of single tasks of a batch.
        """
        queued = group.queued
        assert queued is not None
        track = self._tracks.pop(group.id, None)
        for member in group.members:
            failure = failures.get(member.task.key)
            self.attempts.append(
                Attempt(
                    task=member.task,
                    number=member.num_attempts,
                    shape=member.shape,
                    group=group.id,
                    placement=group.placement,
                    started=group.since,
                    ended=now,
                    predicted=member.seconds,
                    outcome=failure.kind if failure else outcome,
                    reason=failure.reason if failure else reason,
                    fallbacks=member.fallbacks,
                    first_pass=track.first_pass if track else 0,
                )
            )
        if track is not None and outcome != "done" and not group.others:
            self._learn(queued, track)

    def _learn(self, queued: QueuedTask, track: FoldTrack) -> None:
        """What an attempt has kept, and its speed, count for the next one."""
        times = track.times
        if track.keeps_passes:
            num_passes = min(times.num_passes_done(track.last), times.num_passes - 1)
            queued.kept_passes = max(queued.kept_passes, num_passes)
        slowdown = self._deadlines.slowdown
        relative = track.slowdown(slowdown) / slowdown
        queued.scale = times.share_left(queued.kept_passes) * relative

    def _resize_task(self, queued: QueuedTask, group: GroupState, batch: int = 1) -> None:
        """Give a task the size of the group that folds it, and of its batch."""
        queued.shape = replace(queued.shape, num_ranks=group.size, batch=batch)
        queued.seconds = self._waiting.seconds(queued)
