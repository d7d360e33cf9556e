"""The scheduler: which complex is folded next, on which worker group, and what follows a failure.

Plain Python on plain objects: the driver tells what happened and when (`ready`, `finished`,
`failed`, `freed`, `lose_node`, `add_node`) and executes the actions that it is answered; the same
code runs under Ray and in the simulator. The size of a group is chosen in `group_size.py`, the task
that starts next in `backfill.py`, what follows a failed attempt in `retries.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from foldcp.pipeline.config import RunSection
from foldcp.pipeline.inputs.tasks import Done, Failed, Outcome, Task
from foldcp.pipeline.scheduling.backfill import BackfillPolicy
from foldcp.pipeline.scheduling.cost_model import CostModel, FoldShape
from foldcp.pipeline.scheduling.deadlines import Deadlines
from foldcp.pipeline.scheduling.group_size import (
    CostCache,
    assign_group_sizes,
    smallest_shape,
    too_large_reason,
)
from foldcp.pipeline.scheduling.node_health import NodeHealth
from foldcp.pipeline.scheduling.placement import Cluster, Placement
from foldcp.pipeline.scheduling.retries import GiveUp, RetryPolicy
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


class Scheduler:
    """State of a run: waiting tasks, worker groups, free GPUs, outcomes and all attempts.

    `stopped` says why the run cannot continue although tasks are left; it is empty as long as it
    can. `suspects` are keys of tasks whose worker group ended in an earlier run of the same folder:
    like those whose group ends in this run they come after all others.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        costs: CostModel,
        nodes: Mapping[str, int],
        settings: RunSection,
        suspects: Collection[str] = (),
    ) -> None:
        self.costs = costs
        self.settings = settings
        self.cluster = Cluster(dict(nodes))
        self.groups: dict[int, GroupState] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.attempts: list[Attempt] = []
        self.stopped = ""
        self._queue = Queue()
        self._last_retries: list[QueuedTask] = []  # queued again when nothing else waits
        self._too_large: list[QueuedTask] = []  # for the nodes that are left
        self._health = NodeHealth()
        self._deadlines = Deadlines(settings, costs.hardware)
        self._retry_policy = RetryPolicy(costs, settings.retries)
        self._cached_costs = CostCache(costs, self._max_ranks())
        self._num_groups = 0
        self._queue_all(tasks, suspects)

    def _queue_all(self, tasks: Sequence[Task], suspects: Collection[str]) -> None:
        """Choose the group size of each task, and queue it; one that fits no group has failed."""
        max_ranks = self._max_ranks()
        smallest: list[tuple[Task, FoldShape]] = []
        for task in tasks:
            shape = smallest_shape(self.costs, task, max_ranks)
            if shape is None:
                reason = too_large_reason(self.costs, task, max_ranks)
                self.outcomes[task.key] = Failed(task, 0, reason)
            else:
                smallest.append((task, shape))
        shapes = assign_group_sizes(self._cached_costs, smallest, self.cluster.num_gpus)
        for task, _ in smallest:
            queued = QueuedTask(task, shapes[task.key], is_suspect=task.key in suspects)
            if queued.is_suspect:
                queued.seconds = self._cached_costs.seconds(task, queued.shape)
                self._last_retries.append(queued)
            else:
                self._enqueue(queued)

    @property
    def is_over(self) -> bool:
        """Whether every task has an outcome, or the run had to stop."""
        waiting = self._queue or self._last_retries or self._too_large
        running = any(group.queued for group in self.groups.values())
        return bool(self.stopped) or not (waiting or running)

    @property
    def slowdown(self) -> float:
        """Measured over predicted seconds of the folds so far."""
        return self._deadlines.slowdown

    def work_left(self, now: float) -> float:
        """Predicted GPU-seconds of all tasks without an outcome."""
        waiting = sum(
            queued.seconds * size
            for size, same_size in self._queue.by_size.items()
            for queued in same_size
        )
        waiting += sum(
            queued.seconds * queued.size for queued in (*self._last_retries, *self._too_large)
        )
        running = 0.0
        for group in self.groups.values():
            if group.queued is not None:
                elapsed = now - group.since if group.state == "busy" else 0.0
                running += max(0.0, group.queued.seconds - elapsed / self.slowdown) * group.size
        return waiting + running

    def next_deadline(self, now: float) -> float:
        """The latest time at which `decide` must be called."""
        active = [group for group in self.groups.values() if group.state in ("starting", "busy")]
        return min([self._health.next_pause_end(now), *(group.deadline for group in active)])

    def next_tasks(self) -> list[tuple[Task, FoldShape]]:
        """The tasks that the busy groups will probably fold next.

        The longest tasks that wait for groups of their size.
        """
        num_busy = Counter(group.size for group in self.groups.values() if group.state == "busy")
        next_queued: list[QueuedTask] = []
        for size, count in num_busy.items():
            next_queued += self._queue.by_size.get(size, [])[-count:]
        return [(queued.task, queued.shape) for queued in next_queued]

    def decide(self, now: float) -> list[Action]:
        """The actions to take now; the state already counts them as done."""
        actions = self._stop_overdue(now)
        for group in list(self.groups.values()):
            if group.state == "idle" and group.queued is not None:
                actions.append(self._fold(group, group.queued, now))
        if self.stopped:
            return actions
        if not self._queue:
            for queued in self._last_retries:
                self._enqueue(queued)
            self._last_retries.clear()
        actions += self._backfill(now)
        for node in sorted(self._health.doubtful() - self._health.paused(now)):
            actions += self._probe(node, now)
        is_running = any(group.queued for group in self.groups.values())
        if self._too_large and not self._queue and not is_running:
            self.stopped = self._too_large_reason()
        return actions

    def ready(self, group_id: int, now: float) -> None:
        """A group has started. (It may have been stopped meanwhile.)"""
        group = self.groups.get(group_id)
        if group is not None and group.state == "starting":
            self._deadlines.record_start(now - group.since)
            group.state = "idle"

    def finished(self, group_id: int, now: float) -> None:
        """A group's fold is done and its result is stored."""
        group = self.groups[group_id]
        assert group.state == "busy" and group.queued is not None
        self._deadlines.record_fold(group.queued.seconds, now - group.since)
        group.num_folds += 1
        self._health.succeeded(node for node, _ in group.placement)
        self._record(group, "done", "", now)
        task = group.queued.task
        self.outcomes[task.key] = Done(task, group.queued.num_attempts)
        group.state = "idle"
        group.queued = None

    def failed(self, group_id: int, failure: Failure, now: float) -> list[Action]:
        """A group's start or fold failed; all failures but `invalid` end the group.

        It may have been stopped meanwhile.
        """
        group = self.groups.get(group_id)
        if group is None or group.state == "stopping":
            return []
        if failure.kind != "invalid":
            return self._on_group_failure(group, failure, now)
        assert group.state == "busy" and group.queued is not None
        self._record(group, failure.kind, failure.reason, now)
        self._fail(group.queued, failure.reason)
        group.state = "idle"
        group.queued = None
        return []

    def freed(self, group_id: int) -> None:
        """The GPUs of a stopped group can be used again."""
        group = self.groups.pop(group_id)
        assert group.state == "stopping"
        self.cluster.release(group.placement)

    def stop(self, reason: str) -> None:
        """End the run, as nothing can be folded any more; tasks that are left get no outcome."""
        self.stopped = reason

    def lose_node(self, node: str, reason: str, now: float) -> list[Action]:
        """Remove a node that is gone, and its groups, without blaming what they fold.

        Tasks that fit none of the other nodes wait for new ones.
        """
        self.cluster.remove_node(node)
        self._health.forget(node)
        actions: list[Action] = []
        for group in list(self.groups.values()):
            if group.state != "stopping" and group.has_node(node):
                queued = group.queued
                failure = Failure("worker_died", reason, node)
                actions.append(self._end_group(group, failure, now))
                if queued is not None:
                    self._enqueue(queued)
        self._resize()
        if not self.cluster.nodes:
            self.stopped = f"no node is left: {reason}"
        return actions

    def add_node(self, node: str, num_gpus: int) -> None:
        """A node has joined the cluster."""
        self.cluster.add_node(node, num_gpus)
        self._resize()

    def _max_ranks(self) -> int:
        """Ranks of the largest group that may be made."""
        return min(self.settings.max_group or self.cluster.num_gpus, self.cluster.num_gpus)

    def _too_large_reason(self) -> str:
        """The reason why the tasks that are left cannot be folded."""
        reason = "no node is left"
        if max_ranks := self._max_ranks():
            reason = too_large_reason(self.costs, self._too_large[0].task, max_ranks)
        return f"{len(self._too_large)} complexes fit none of the nodes that are left: {reason}"

    def _resize(self) -> None:
        """Choose sizes for the waiting tasks again, after nodes have come or gone."""
        self._cached_costs = CostCache(self.costs, self._max_ranks())
        waiting = [*self._queue.drain(), *self._too_large]
        self._too_large.clear()
        for queued in waiting:
            self._enqueue(queued)

    def _enqueue(self, queued: QueuedTask) -> None:
        """Queue a task, for a smaller group if its own is no longer possible."""
        max_ranks = self._max_ranks()
        if queued.size > max_ranks:
            smaller = replace(queued.shape, num_ranks=max(1, max_ranks))
            needed = self.costs.bytes(queued.task, smaller)
            if max_ranks == 0 or needed > self.costs.hardware.memory:
                self._too_large.append(queued)
                return
            queued.shape = smaller
        queued.seconds = self._cached_costs.seconds(queued.task, queued.shape)
        self._queue.push(queued)

    def _backfill(self, now: float) -> list[Action]:
        """Start what can be started, and let idle groups fold."""
        actions: list[Action] = []
        policy = self._policy(now)
        for queued, size in policy.widened():
            self._queue.remove(queued)
            queued.shape = replace(queued.shape, num_ranks=size)
            self._enqueue(queued)
        while decision := policy.decide():
            queued = decision.queued
            if decision.stop:
                reason = f"its GPUs are needed for a group of {queued.size}"
                actions += [self._stop(group, reason) for group in decision.stop]
            elif decision.group is not None:
                self._queue.remove(queued)
                actions.append(self._fold(decision.group, queued, now))
            elif decision.placement is not None:
                self._queue.remove(queued)
                actions.append(self._start(decision.placement, queued, now))
            policy = self._policy(now)
        return actions

    def _policy(self, now: float) -> BackfillPolicy:
        """The state as it is, but for the nodes on which nothing may be started now."""
        doubtful = self._health.doubtful()
        kept_out = doubtful | self._health.paused(now)
        groups = [
            group
            for group in self.groups.values()
            if group.state != "idle" or not any(node in doubtful for node, _ in group.placement)
        ]
        return BackfillPolicy(
            self._queue,
            groups,
            self.cluster.without_free(kept_out),
            self._cached_costs,
            now,
            self.slowdown,
            self._deadlines.start_seconds,
            may_wait=bool(kept_out),
        )

    def _probe(self, node: str, now: float) -> list[Action]:
        """Let a doubtful node fold the smallest complex, if it has nothing else to do."""
        groups = [group for group in self.groups.values() if group.has_node(node)]
        if any(group.queued is not None or group.state == "stopping" for group in groups):
            return []
        idle = [group for group in groups if len(group.placement) == 1]
        max_ranks = idle[0].size if idle else self.cluster.free[node]
        queued = self._queue.cheapest(max_ranks)
        if queued is None:
            return []
        self._queue.remove(queued)
        if idle:
            return [self._fold(idle[0], queued, now)]
        return [self._start(((node, queued.size),), queued, now)]

    def _start(self, placement: Placement, queued: QueuedTask, now: float) -> Start:
        """Start a group for a task."""
        self.cluster.take(placement)
        self._num_groups += 1
        deadline = self._deadlines.of_start(now)
        group = GroupState(self._num_groups, placement, "starting", now, deadline, queued)
        self.groups[group.id] = group
        return Start(group.id, placement, deadline)

    def _fold(self, group: GroupState, queued: QueuedTask, now: float) -> Fold:
        """Let an idle group fold; it may be larger than the task's own size."""
        assert group.state == "idle"
        queued.shape = replace(queued.shape, num_ranks=group.size)
        queued.seconds = self._cached_costs.seconds(queued.task, queued.shape)
        queued.num_attempts += 1
        group.state = "busy"
        group.queued = queued
        group.since = now
        group.deadline = self._deadlines.of_fold(group, queued, now)
        return Fold(group.id, queued.task, queued.shape, queued.num_attempts, group.deadline)

    def _stop(self, group: GroupState, reason: str) -> Stop:
        """Stop a group, idle or busy."""
        group.state = "stopping"
        group.queued = None
        return Stop(group.id, reason)

    def _stop_overdue(self, now: float) -> list[Action]:
        """Stop the groups whose start or fold is past its deadline."""
        actions: list[Action] = []
        for group in list(self.groups.values()):
            if group.state in ("starting", "busy") and group.deadline <= now:
                what = "start" if group.state == "starting" else "fold"
                reason = f"the {what} took over {now - group.since:.0f} s"
                actions += self._on_group_failure(group, Failure("timeout", reason), now)
        return actions

    def _on_group_failure(self, group: GroupState, failure: Failure, now: float) -> list[Action]:
        """Stop a group that failed; its task is retried or fails, and its node may be doubted."""
        queued = group.queued
        was_folding = group.state == "busy"
        if was_folding and queued is not None:
            if failure.kind == "timeout":
                self._deadlines.record_fold_timeout()
            self._health.fold_failed(group, queued, failure, now)
        else:
            if failure.kind == "timeout":
                self._deadlines.record_start_timeout()
            self._health.start_failed(group, failure, now)
        actions: list[Action] = [self._end_group(group, failure, now)]
        if queued is not None and was_folding:
            self._retry(queued, group, failure)
        elif queued is not None:
            self._enqueue(queued)
        for node, _ in group.placement:
            if node in self.cluster.nodes and self._health.is_bad(node):
                actions += self._give_up_node(node, failure.reason, now)
        return actions

    def _end_group(self, group: GroupState, failure: Failure, now: float) -> Stop:
        """Stop a group, and record the attempt that it was making."""
        if group.state == "busy":
            self._record(group, failure.kind, failure.reason, now)
        return self._stop(group, failure.reason)

    def _retry(self, queued: QueuedTask, group: GroupState, failure: Failure) -> None:
        """Queue a task again after a failed attempt, or let it fail."""
        step = self._retry_policy.after(queued, group.placement, failure, self._max_ranks())
        if isinstance(step, GiveUp):
            self._fail(queued, step.reason)
        elif step.is_last:
            self._last_retries.append(queued)
        else:
            self._enqueue(queued)

    def _fail(self, queued: QueuedTask, reason: str) -> None:
        """Record that a task has failed."""
        assert queued.task.key not in self.outcomes
        self.outcomes[queued.task.key] = Failed(queued.task, queued.num_attempts, reason)

    def _give_up_node(self, node: str, reason: str, now: float) -> list[Action]:
        """Stop using a bad node.

        The last one is kept and the run stops instead: otherwise every task that is left would be
        recorded as failed.
        """
        reason = f"groups fail on {node} again and again: {reason}"
        if len(self.cluster.nodes) == 1:
            self.stopped = reason
            return []
        return self.lose_node(node, reason, now)

    def _record(
        self,
        group: GroupState,
        outcome: FailureKind | Literal["done"],
        reason: str,
        now: float,
    ) -> None:
        """Record a group's attempt that has ended."""
        queued = group.queued
        assert queued is not None
        self.attempts.append(
            Attempt(
                task=queued.task,
                number=queued.num_attempts,
                shape=queued.shape,
                group=group.id,
                placement=group.placement,
                started=group.since,
                ended=now,
                predicted=queued.seconds,
                outcome=outcome,
                reason=reason,
                fallbacks=queued.fallbacks,
            )
        )
