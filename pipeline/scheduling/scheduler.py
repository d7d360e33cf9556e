"""Which complex is folded next, on which group of GPUs, and what follows when that goes wrong.

Plain Python on plain objects: the driver tells what happened and when (`ready`, `finished`,
`failed`, `freed`, `lose_node`) and carries out the actions it is answered; the same code runs under
Ray and in the simulator.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from foldcp.pipeline.config import RunSection
from foldcp.pipeline.inputs.tasks import Done, Failed, Outcome, Task
from foldcp.pipeline.scheduling.backfill import BackfillPolicy
from foldcp.pipeline.scheduling.cost_model import Costs, FoldShape
from foldcp.pipeline.scheduling.group_size import CostCache, assign_group_sizes, next_oom_fallback
from foldcp.pipeline.scheduling.node_health import NodeHealth
from foldcp.pipeline.scheduling.placement import Cluster, Placement
from foldcp.pipeline.scheduling.types import (
    Action,
    Attempt,
    Failure,
    FailureKind,
    Fold,
    GroupState,
    Queue,
    QueuedTask,
    Start,
    Stop,
)

NUM_RECENT = 20  # folds of which it is remembered how long they took
MAX_DOUBLINGS = 4  # of the time that a fold is given, while folds are cut and none comes back
LONGEST_START = 900.0  # seconds that a start is given at most
PRIOR_SECONDS = 300.0  # weight of the cost model against the run's own measurements


class Scheduler:
    """State of a run: waiting jobs, groups, free GPUs, outcomes and the record of every attempt.

    `stopped` says why the run cannot go on although tasks are left; it is empty as long as it can.
    `lost_before` are keys of tasks that lost a group in an earlier run of the same folder: like
    those that lose one in this run they come after all others.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        costs: Costs,
        nodes: Mapping[str, int],
        settings: RunSection,
        lost_before: Collection[str] = (),
    ) -> None:
        self.costs = costs
        self.settings = settings
        self.cluster = Cluster(dict(nodes))
        self.groups: dict[int, GroupState] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.attempts: list[Attempt] = []
        self.stopped = ""
        self._queue = Queue()
        self._retries: list[QueuedTask] = []  # lost a group; queued again when nothing else waits
        self._too_large: list[QueuedTask] = []  # for the nodes that are left
        self._health = NodeHealth()
        self._sizes = CostCache(costs, self._largest())
        self._measured = self._predicted = PRIOR_SECONDS
        self._recent: deque[tuple[float, float]] = deque(
            maxlen=NUM_RECENT
        )  # (predicted, measured) seconds of folds
        self._start_seconds = costs.hardware.start_seconds
        self._num_slow_starts = 0  # that were cut, while none has succeeded
        # that were cut since one came back: the machine may be slower than predicted
        self._num_slow_folds = 0
        self._num_groups = 0
        setups: list[tuple[Task, FoldShape]] = []
        for task in tasks:
            if (setup := costs.smallest(task, self._largest())) is None:
                self.outcomes[task.key] = Failed(task, 0, costs.why_not(task, self._largest()))
            else:
                setups.append((task, setup))
        allotted = assign_group_sizes(self._sizes, setups, self.cluster.num_gpus)
        for task, _ in setups:
            setup = allotted[task.key]
            job = QueuedTask(
                task,
                setup,
                self._sizes.seconds(task, setup),
                suspect=task.key in lost_before,
            )
            if job.suspect:
                self._retries.append(job)
            else:
                self._wait(job)

    # What the driver asks.

    @property
    def is_over(self) -> bool:
        """Whether every task has an outcome, or the run had to stop."""
        waiting = self._queue or self._retries or self._too_large
        return bool(self.stopped) or not (
            waiting or any(group.job for group in self.groups.values())
        )

    @property
    def pace(self) -> float:
        """Measured over predicted seconds of the folds so far."""
        return self._measured / self._predicted

    def work_left(self, now: float) -> float:
        """Predicted GPU-seconds of all that has no outcome."""
        waiting = sum(
            job.seconds * size for size, jobs in self._queue.by_size.items() for job in jobs
        )
        waiting += sum(job.seconds * job.size for job in (*self._retries, *self._too_large))
        running = 0.0
        for group in self.groups.values():
            if group.job is not None:
                passed = now - group.since if group.state == "busy" else 0.0
                running += max(0.0, group.job.seconds - passed / self.pace) * group.size
        return waiting + running

    def next_deadline(self, now: float) -> float:
        """When `decide` must be asked at the latest."""
        deadlines = (
            group.deadline for group in self.groups.values() if group.state in ("starting", "busy")
        )
        return min((self._health.next_resume(now), *deadlines))

    def decide(self, now: float) -> list[Action]:
        """What to do at this moment; the state already counts it as done."""
        actions = self._cut_overdue(now)
        for group in list(self.groups.values()):
            if group.state == "idle" and group.job is not None:
                actions.append(self._fold(group, group.job, now))
        if self.stopped:
            return actions
        if not self._queue:
            for job in self._retries:
                self._wait(job)
            self._retries.clear()
        actions += self._pack(now)
        for node in sorted(self._health.doubtful() - self._health.pausing(now)):
            actions += self._probe(node, now)
        if (
            self._too_large
            and not self._queue
            and not any(group.job for group in self.groups.values())
        ):
            first = self._too_large[0].task
            reason = (
                self.costs.why_not(first, self._largest()) if self._largest() else "no node is left"
            )
            self.stopped = (
                f"{len(self._too_large)} complexes fit none of the nodes that are left: {reason}"
            )
        return actions

    def _cut_overdue(self, now: float) -> list[Action]:
        """End the groups whose start or fold is past its deadline."""
        actions: list[Action] = []
        for group in list(self.groups.values()):
            if group.state in ("starting", "busy") and group.deadline <= now:
                word = "start" if group.state == "starting" else "fold"
                actions += self._lost(
                    group,
                    Failure("timeout", f"the {word} took over {now - group.since:.0f} s"),
                    now,
                )
        return actions

    def _pack(self, now: float) -> list[Action]:
        """Start what can be started, and let idle groups fold."""
        actions: list[Action] = []
        packing = self._packing(now)
        for job, size in packing.stretched():
            self._queue.remove(job)
            job.setup = replace(job.setup, num_ranks=size)
            self._wait(job)
        while choice := packing.choose():
            if choice.stop:
                for group in choice.stop:
                    actions.append(
                        self._stop(
                            group,
                            f"its GPUs are wanted by a group of {choice.job.size}",
                        )
                    )
            elif choice.group is not None:
                self._queue.remove(choice.job)
                actions.append(self._fold(choice.group, choice.job, now))
            elif choice.placement is not None:
                self._queue.remove(choice.job)
                actions.append(self._start(choice.placement, choice.job, now))
            packing = self._packing(now)
        return actions

    def _probe(self, node: str, now: float) -> list[Action]:
        """Let a doubtful node fold the smallest complex, if it has nothing else to do."""
        groups = [group for group in self.groups.values() if node in dict(group.placement)]
        if any(group.job is not None or group.state == "stopping" for group in groups):
            return []
        if idle := [group for group in groups if len(group.placement) == 1]:
            if job := self._queue.cheapest(idle[0].size):
                self._queue.remove(job)
                return [self._fold(idle[0], job, now)]
        elif job := self._queue.cheapest(self.cluster.free[node]):
            self._queue.remove(job)
            return [self._start(((node, job.size),), job, now)]
        return []

    def next_jobs(self) -> list[tuple[Task, FoldShape]]:
        """What the busy groups will probably fold next: the longest jobs that wait for groups of
        their size.
        """
        busy = Counter(group.size for group in self.groups.values() if group.state == "busy")
        jobs = [
            job
            for size, count in busy.items()
            for job in self._queue.by_size.get(size, [])[-count:]
        ]
        return [(job.task, job.setup) for job in jobs]

    # What the driver tells.

    def ready(self, group_id: int, now: float) -> None:
        """A group has started. (It may have been given up meanwhile.)"""
        group = self.groups.get(group_id)
        if group is not None and group.state == "starting":
            self._start_seconds = max(self._start_seconds, now - group.since)
            self._num_slow_starts = 0
            group.state = "idle"

    def finished(self, group_id: int, now: float) -> None:
        """A group's fold is done and its result is stored."""
        group = self.groups[group_id]
        assert group.state == "busy" and group.job is not None
        self._measured += now - group.since
        self._predicted += group.job.seconds
        self._recent.append((group.job.seconds, now - group.since))
        self._num_slow_folds = 0
        group.num_folds += 1
        self._health.succeeded(node for node, _ in group.placement)
        self._record(group, "done", "", now)
        self.outcomes[group.job.task.key] = Done(group.job.task, group.job.attempts)
        group.state = "idle"
        group.job = None

    def failed(self, group_id: int, failure: Failure, now: float) -> list[Action]:
        """A group's start or fold failed; all but `invalid` ends the group. (It may have been
        given up meanwhile.)
        """
        group = self.groups.get(group_id)
        if group is None or group.state == "stopping":
            return []
        if failure.kind != "invalid":
            return self._lost(group, failure, now)
        assert group.state == "busy" and group.job is not None
        self._record(group, failure.kind, failure.reason, now)
        self._give_up(group.job, failure.reason)
        group.state = "idle"
        group.job = None
        return []

    def stop(self, reason: str) -> None:
        """End the run, as nothing can be folded any more; what is left stays without an outcome."""
        self.stopped = reason

    def freed(self, group_id: int) -> None:
        """The GPUs of a stopped group can be used again."""
        group = self.groups.pop(group_id)
        assert group.state == "stopping"
        self.cluster.give_back(group.placement)

    def lose_node(self, node: str, reason: str, now: float) -> list[Action]:
        """A node is gone: its groups die, which is no fault of what they fold; what fits none of
        the other nodes waits for new ones.
        """
        self.cluster.lose(node)
        self._health.given_up(node)
        actions: list[Action] = []
        for group in list(self.groups.values()):
            if group.state != "stopping" and any(name == node for name, _ in group.placement):
                actions += self._end(group, Failure("worker_died", reason, node), now)
        self._resize()
        if not self.cluster.nodes:
            self.stopped = f"no node is left: {reason}"
        return actions

    def add_node(self, node: str, num_gpus: int) -> None:
        """A node has joined the cluster."""
        self.cluster.add(node, num_gpus)
        self._resize()

    # The inside.

    def _largest(self) -> int:
        """Ranks of the largest group that may be made."""
        return min(self.settings.max_group or self.cluster.num_gpus, self.cluster.num_gpus)

    def _packing(self, now: float) -> BackfillPolicy:
        """The state as it is, but for the nodes on which nothing may be started now."""
        doubtful = self._health.doubtful()
        kept_out = doubtful | self._health.pausing(now)
        cluster = self.cluster.without(kept_out)
        groups = [
            group
            for group in self.groups.values()
            if group.state != "idle" or not any(node in doubtful for node, _ in group.placement)
        ]
        start = self._start_seconds
        return BackfillPolicy(
            self._queue,
            groups,
            cluster,
            self._sizes,
            now,
            self.pace,
            start,
            may_wait=bool(kept_out),
        )

    def _resize(self) -> None:
        """Find a size for what waits, after nodes have come or gone."""
        self._sizes = CostCache(self.costs, self._largest())
        waiting = [*self._queue.drain(), *self._too_large]
        self._too_large.clear()
        for job in waiting:
            self._wait(job)

    def _wait(self, job: QueuedTask) -> None:
        """Queue a job, for a smaller group if its own is no longer possible."""
        largest = self._largest()
        if job.size > largest:
            smaller = replace(job.setup, num_ranks=max(1, largest))
            if largest == 0 or self.costs.bytes(job.task, smaller) > self.costs.hardware.memory:
                self._too_large.append(job)
                return
            job.setup = smaller
        job.seconds = self._sizes.seconds(job.task, job.setup)
        self._queue.push(job)

    def _start(self, placement: Placement, job: QueuedTask, now: float) -> Start:
        self.cluster.take(placement)
        self._num_groups += 1
        allowed = max(
            self.settings.start_deadline,
            self.settings.deadline_factor * self._start_seconds,
        )
        deadline = now + min(LONGEST_START, allowed * 2**self._num_slow_starts)
        group = GroupState(self._num_groups, placement, "starting", now, deadline, job)
        self.groups[group.id] = group
        return Start(group.id, placement, deadline)

    def _fold(self, group: GroupState, job: QueuedTask, now: float) -> Fold:
        """Let an idle group fold; it may be larger than what the job asked for."""
        assert group.state == "idle"
        job.setup = replace(job.setup, num_ranks=group.size)
        job.seconds = self._sizes.seconds(job.task, job.setup)
        job.attempts += 1
        group.state = "busy"
        group.job = job
        group.since = now
        group.deadline = now + self._allowed_seconds(group, job)
        return Fold(group.id, job.task, job.setup, job.attempts, group.deadline)

    def _allowed_seconds(self, group: GroupState, job: QueuedTask) -> float:
        """How long a fold may take: a multiple of what was predicted, corrected by what folds have
        taken, and of the longest recent fold that was predicted to be no longer; more after folds
        were cut that may have been slow. The first fold of a group on GPUs also compiles kernels,
        which takes about as long as the group's start. What took long to read when the complex was
        planned takes as long again.
        """
        settings = self.settings
        hardware = self.costs.hardware
        shorter = [measured for predicted, measured in self._recent if predicted <= job.seconds]
        expected = max([job.seconds * max(1.0, self.pace), *shorter])
        if not group.num_folds and hardware.device == "cuda":
            expected += hardware.start_seconds
        expected += job.task.read_seconds
        allowed = max(settings.deadline_floor, settings.deadline_factor * expected)
        return allowed * 2 ** max(job.timeouts, min(self._num_slow_folds, MAX_DOUBLINGS))

    def _stop(self, group: GroupState, reason: str) -> Stop:
        group.state = "stopping"
        group.job = None
        return Stop(group.id, reason)

    def _lost(self, group: GroupState, failure: Failure, now: float) -> list[Action]:
        """End a group that failed; its job is tried again or fails, and its node may be doubted."""
        job = group.job
        was_busy = group.state == "busy"
        if job is not None and was_busy:
            self._num_slow_folds += failure.kind == "timeout"
            self._doubt_after_fold(group, job, failure, now)
        else:
            self._doubt_after_start(group, failure, now)
        actions = self._end(group, failure, now, at_fault=was_busy)
        for node, _ in group.placement:
            if node in self.cluster.nodes and self._health.is_bad(node):
                actions += self._give_up_node(node, failure.reason, now)
        return actions

    def _end(
        self, group: GroupState, failure: Failure, now: float, at_fault: bool = False
    ) -> list[Action]:
        """Stop a group; its job goes back to the queue, or what follows a lost attempt if it was
        `at_fault`.
        """
        job = group.job
        if group.state == "busy":
            self._record(group, failure.kind, failure.reason, now)
        stop = self._stop(group, failure.reason)
        if job is not None and at_fault:
            self._again(job, group, failure)
        elif job is not None:
            self._wait(job)
        return [stop]

    def _doubt_after_fold(
        self, group: GroupState, job: QueuedTask, failure: Failure, now: float
    ) -> None:
        """A node is doubted for a complex's first loss only: a complex that is lost again may be
        at fault itself.
        """
        for node in self._blamed(group, failure):
            if failure.killed:
                self._health.pause(node, now)
            elif failure.kind != "oom" and not job.suspect:
                self._health.failed(node, now, job.task.key)

    def _doubt_after_start(self, group: GroupState, failure: Failure, now: float) -> None:
        """A group that does not start is its nodes' fault, whatever it was started for."""
        blamed = self._blamed(group, failure) or [node for node, _ in group.placement]
        names = [f"start {group.id}"]
        if failure.kind == "timeout":  # it costs more to wait for, so it counts twice
            names.append(f"start {group.id} in time")
        for node in blamed:
            self._health.failed(node, now, *names)
        self._num_slow_starts += failure.kind == "timeout"

    def _blamed(self, group: GroupState, failure: Failure) -> list[str]:
        """The node that a failure names, or the only one of the group."""
        if failure.node:
            return [failure.node]
        return [node for node, _ in group.placement] if len(group.placement) == 1 else []

    def _give_up_node(self, node: str, reason: str, now: float) -> list[Action]:
        """Do without a bad node. The last one is not given up: all that is left would be filed
        as failed.
        """
        words = f"groups fail on {node} again and again: {reason}"
        if len(self.cluster.nodes) == 1:
            self.stopped = words
            return []
        return self.lose_node(node, words, now)

    def _again(self, job: QueuedTask, group: GroupState, failure: Failure) -> None:
        """What follows a lost attempt: once more after all others, with less memory, or the end."""
        if failure.killed and not job.kills:
            job.kills += 1
            job.steps = (*job.steps, "again as before, after memory pressure")
            self._retries.append(job)
        elif failure.kind == "oom":
            step = next_oom_fallback(self.costs, job.task, job.setup, self._largest())
            if step is None:
                return self._give_up(
                    job, f"out of memory at the end of the ladder: {failure.reason}"
                )
            job.setup, words = step
            job.steps = (*job.steps, words)
            self._wait(job)
        else:
            job.suspect = True
            job.losses += 1
            job.timeouts += failure.kind == "timeout"
            job.avoid |= {node for node, _ in group.placement}
            if job.losses > self.settings.retries:
                return self._give_up(job, failure.reason)
            self._retries.append(job)
        return None

    def _give_up(self, job: QueuedTask, reason: str) -> None:
        assert job.task.key not in self.outcomes
        self.outcomes[job.task.key] = Failed(job.task, job.attempts, reason)

    def _record(
        self,
        group: GroupState,
        outcome: FailureKind | Literal["done"],
        reason: str,
        now: float,
    ) -> None:
        job = group.job
        assert job is not None
        self.attempts.append(
            Attempt(
                task=job.task,
                number=job.attempts,
                setup=job.setup,
                group=group.id,
                placement=group.placement,
                started=group.since,
                ended=now,
                predicted=job.seconds,
                outcome=outcome,
                reason=reason,
                steps=job.steps,
            )
        )
