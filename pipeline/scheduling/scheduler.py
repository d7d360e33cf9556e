"""The scheduler: which complex is folded next, on which worker group, and what follows a failure.

Plain Python on plain objects: the driver tells what happened and when (`ready`, `progressed`,
`finished`, `failed`, `freed`, `lose_node`, `add_node`) and executes the actions that it is
answered; the same code runs under Ray and in the simulator. What waits, and for a group of which
size, is in `policy/waiting.py`, the task that starts next in `policy/backfill.py`, the worker
groups and their attempts in `policy/dispatcher.py`, how far folds are in
`policy/fold_progress.py`, what follows a failed attempt in `retries.py`, and which nodes are
trusted in `node_health.py`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType

from foldcp.pipeline.config import RunSection
from foldcp.pipeline.inputs.tasks import Done, Failed, Outcome, Task
from foldcp.pipeline.scheduling.cost_model import CostModel, FoldShape
from foldcp.pipeline.scheduling.costs.learning import CostLearner, MeasuredFold, differs
from foldcp.pipeline.scheduling.deadlines import Deadlines
from foldcp.pipeline.scheduling.node_health import NodeHealth
from foldcp.pipeline.scheduling.placement import Cluster
from foldcp.pipeline.scheduling.policy.backfill import BackfillPolicy
from foldcp.pipeline.scheduling.policy.batches import companions, most_together
from foldcp.pipeline.scheduling.policy.dispatcher import NO_FAILURES, Dispatcher
from foldcp.pipeline.scheduling.policy.fold_progress import FoldTrack
from foldcp.pipeline.scheduling.policy.slow_folds import (
    KNOWN,
    LEAST_SECONDS,
    MAX_MOVES,
    SLOW,
    SlowFold,
    groups_to_stop,
)
from foldcp.pipeline.scheduling.policy.waiting import Waiting
from foldcp.pipeline.scheduling.policy.widening import widened
from foldcp.pipeline.scheduling.retries import GiveUp, RetryPolicy
from foldcp.pipeline.scheduling.types import (
    Action,
    Failure,
    FoldStep,
    GroupState,
    QueuedTask,
)

# The first fold of a group teaches nothing of time if it takes less than so many starts.
WARM_UP_FACTOR = 5
SECONDS_BETWEEN_LOOKS = 30.0  # at a fold, for whether it is slow


class Scheduler:
    """State of a run: waiting tasks, worker groups, free GPUs, outcomes and all attempts.

    `stopped` says why the run cannot continue although tasks are left; it is empty as long as it
    can. `suspects` are keys of tasks whose worker group ended in an earlier run of the same folder:
    like those whose group ends in this run they come after all others. From the folds of `history`,
    of earlier runs, and from those of this one the cost model learns. `kept_passes` are passes
    through the trunk whose state an earlier run has left, by key; tasks of `alone` are in no batch.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        costs: CostModel,
        nodes: Mapping[str, int],
        settings: RunSection,
        suspects: Collection[str] = (),
        history: Iterable[MeasuredFold] = (),
        kept_passes: Mapping[str, int] = MappingProxyType({}),
        alone: Collection[str] = (),
    ) -> None:
        self.costs = costs
        self.settings = settings
        self.cluster = Cluster(dict(nodes))
        self.outcomes: dict[str, Outcome] = {}
        self.stopped = ""
        self._learner = CostLearner(costs, history)
        learned = self._learner.learned()
        self._waiting = Waiting(
            tasks, learned, self.cluster, settings, suspects, kept_passes, alone
        )
        self._health = NodeHealth(settings.node_wait)
        self._deadlines = Deadlines(settings, costs.hardware)
        self._retry_policy = RetryPolicy(costs, settings)
        self._dispatcher = Dispatcher(self.cluster, self._waiting, self._deadlines)
        self.groups = self._dispatcher.groups
        self.attempts = self._dispatcher.attempts
        self._max_batch = self._waiting.cache.max_batch  # less after batches that failed
        self._no_node = ""  # why there is none, and until when the run waits for one
        self._no_node_until = math.inf
        for task, reason in self._waiting.too_large:
            self.outcomes[task.key] = Failed(task, 0, reason)

    @property
    def is_over(self) -> bool:
        """Whether every task has an outcome, or the run had to stop."""
        return bool(self.stopped) or not (len(self._waiting) or self.groups.any_working)

    @property
    def slowdown(self) -> float:
        """Measured over predicted seconds of the folds so far."""
        return self._deadlines.slowdown

    def work_left(self, now: float) -> float:
        """Predicted GPU-seconds of all tasks without an outcome."""
        return self._waiting.gpu_seconds + self.groups.gpu_seconds_left(now) / self.slowdown

    def _seconds_left(self, now: float) -> float:
        """Predicted seconds until all but the tasks that come last are done."""
        queue = self._waiting.queue
        if not queue:
            return 0.0
        running = self.groups.gpu_seconds_left(now) / self.slowdown
        return (queue.gpu_seconds + running) / max(1, self.cluster.num_gpus)

    def next_deadline(self, now: float) -> float:
        """The latest time at which `decide` must be called."""
        return min(
            self._health.next_change(now),
            self.groups.next_deadline(),
            self._patience_ends(),
        )

    def next_tasks(self) -> list[tuple[Task, FoldShape]]:
        """The tasks that the busy groups will probably fold next.

        The longest tasks that wait for groups of their size.
        """
        next_queued: list[QueuedTask] = []
        queue = self._waiting.queue
        for size, count in self.groups.num_busy.items():
            same_size = queue.by_size.get(size, [])
            if count and same_size:
                num_gpus = self.cluster.num_gpus
                batch = most_together(queue, self._waiting.cache, same_size[-1], num_gpus)
                next_queued += same_size[-count * batch :]
        return [(queued.task, queued.shape) for queued in next_queued]

    def decide(self, now: float) -> list[Action]:
        """The actions to take now; the state already counts them as done."""
        actions: list[Action] = []
        for group in self.groups.overdue(now):
            if group.state != "stopping":  # as others of its node were
                actions += self._on_overdue(group, now)
        for group in self.groups.ready():
            assert group.queued is not None
            # A batch would delay what waits for more GPUs.
            is_last = max(self._waiting.queue.by_size, default=1) == 1
            actions.append(self._fold(group, group.queued, now, math.inf if is_last else 0.0))
        if self.stopped:
            return actions
        for node, num_gpus in self._health.take_released(now):
            self.add_node(node, num_gpus, now)
        self._lose_patience(now)
        self._waiting.push_last(now, self._seconds_left(now))
        actions += self._backfill(now)
        for node in sorted(self._health.doubtful() - self._health.paused(now)):
            actions += self._probe(node, now)
        return actions

    def ready(self, group_id: int, now: float) -> None:
        """A group has started. (It may have been stopped meanwhile.)"""
        group = self.groups.get(group_id)
        if group is not None and group.state == "starting":
            self._deadlines.record_start(now - group.since)
            self._health.started(node for node, _ in group.placement)
            with self.groups.changing(group):
                group.state = "idle"

    def finished(
        self,
        group_id: int,
        now: float,
        stages: Mapping[str, float] | None = None,
        failures: Mapping[str, Failure] = NO_FAILURES,
    ) -> list[Action]:
        """A group's fold is done and its results are stored; `stages` are the seconds of each.

        But for the `failures` of single tasks of a batch, by key: they are folded again, alone. One
        that the complex is not to blame for ends the group.
        """
        group = self.groups[group_id]
        assert group.state == "busy" and group.queued is not None
        members = group.members
        seconds = now - group.since
        if not failures:  # else it is not known what took the time
            self._deadlines.record_fold(group.queued.seconds, seconds)
            self._learn_time(group, seconds, stages or {}, now)
        if len(members) > 1:
            self._record_batch(len(members), bool(failures))
        of_group = [failure for failure in failures.values() if failure.kind != "invalid"]
        if of_group:
            self._health.fold_failed(group, group.queued, of_group[0], now)
        elif len(failures) < len(members):
            group.num_folds += 1
            self._health.succeeded(node for node, _ in group.placement)
        self._dispatcher.record(group, "done", "", now, failures)
        for queued in members:
            if queued.task.key in failures:
                queued.is_alone = True
                self._waiting.push(queued, now)
            else:
                self.outcomes[queued.task.key] = Done(queued.task, queued.num_attempts)
        self._dispatcher.set_idle(group)
        if not of_group:
            return []
        stop = self._dispatcher.stop(group, of_group[0].reason)
        return [stop, *self._bench_bad_nodes(group, of_group[0], now)]

    def _record_batch(self, size: int, failed: bool) -> None:
        """Batches that fail get smaller, and larger again as they succeed."""
        if failed:
            self._max_batch = max(1, size // 2)
        else:
            self._max_batch = max(self._max_batch, 2 * size)

    def _learn_time(
        self, group: GroupState, seconds: float, stages: Mapping[str, float], now: float
    ) -> None:
        """Learn from the time of a whole fold, unless a GPU's first one was mostly compiling
        kernels.
        """
        queued = group.queued
        assert queued is not None
        if queued.kept_passes:
            return
        warm_up = WARM_UP_FACTOR * self.costs.hardware.start_seconds
        is_cold = self.costs.hardware.device == "cuda" and not group.num_folds
        if is_cold and seconds < warm_up:
            return
        self._learner.record(MeasuredFold(queued.task, queued.shape, seconds, stages))
        if self._learner.is_due(len(self._waiting)):
            self._plan_again(now)

    def _plan_again(self, now: float) -> None:
        """Choose sizes again with what has been learned, if that has changed the predictions."""
        costs = self._learner.learned()
        if differs(costs, self._waiting.costs):
            before = self._waiting.gpu_seconds
            self._waiting.learn(costs, now)
            if before:
                self._deadlines.rescale_predictions(self._waiting.gpu_seconds / before)

    def progressed(self, group_id: int, step: FoldStep, now: float) -> list[Action]:
        """A group's last step, which is told again and again while it folds.

        A fold is ended that goes on for too long without a step. Nothing is told of a group whose
        last step is not known, so that only its deadline ends it.
        """
        group = self.groups.get(group_id)
        if group is None or group.state != "busy" or step.seconds > now - group.since:
            return []
        assert group.queued is not None
        track = self._dispatcher.track(group, step, now)
        gap = track.times.longest_gap(step.stage)
        if gap is None:
            return []
        longest = track.longest.get(step.stage, 0.0)
        if step.seconds < self._deadlines.of_step(group, group.queued, gap, longest):
            slow = self._slow_fold(group, track, now)
            return [] if slow is None else self._move(slow, now)
        reason = f"no step for {step.seconds:.0f} s in {track.description}"
        return self._on_group_failure(group, Failure("timeout", reason), now)

    def _slow_fold(self, group: GroupState, track: FoldTrack, now: float) -> SlowFold | None:
        """The fold of a group, if it is slower than the others and outlasts them; not a batch."""
        queued = group.queued
        assert queued is not None
        if group.others:
            return None
        left = group.expected_end - now
        if now - track.looked_at < SECONDS_BETWEEN_LOOKS or queued.num_moves == MAX_MOVES:
            return None
        track.looked_at = now
        run_seconds = self.work_left(now) * self.slowdown / max(1, self.cluster.num_gpus)
        if left < max(LEAST_SECONDS, SLOW * run_seconds) or track.share_known < KNOWN:
            return None
        slowdown = track.slowdown(self.slowdown)
        typical = self._dispatcher.typical_slowdown()
        run_seconds *= typical / self.slowdown
        if left < SLOW * run_seconds or slowdown < SLOW * typical:
            return None
        return SlowFold(group, queued, track, left, run_seconds, slowdown, typical)

    def _move(self, slow: SlowFold, now: float) -> list[Action]:
        """Begin a slow fold again on a larger group, if one can be had and saves enough."""
        start_seconds = self._deadlines.start_seconds
        for shape, seconds in slow.sizes(self._waiting.cache, start_seconds):
            saved = slow.seconds_left - seconds
            stop = groups_to_stop(slow, shape.num_ranks, saved, self.cluster, self.groups, now)
            if stop is not None:
                break
        else:
            return []
        queued = slow.queued
        reason = f"{slow.slowdown:.1f} times as slow as predicted: again on {shape.num_ranks} GPUs"
        actions: list[Action] = [self._dispatcher.interrupt(slow.group, reason, now)]
        queued.num_moves += 1
        queued.shape = shape
        self._waiting.push(queued, now)
        for group in stop:
            members = group.members
            reason = f"its GPUs are needed for {queued.task.name}, which is slow"
            actions.append(self._dispatcher.interrupt(group, reason, now))
            for member in members:
                self._waiting.push(member, now)
        return actions

    def failed(self, group_id: int, failure: Failure, now: float) -> list[Action]:
        """A group's start or fold failed; all failures but `invalid` end the group.

        It may have been stopped meanwhile.
        """
        group = self.groups.get(group_id)
        if group is None or group.state == "stopping":
            return []
        if failure.kind != "invalid" or group.others:
            return self._on_group_failure(group, failure, now)
        assert group.state == "busy" and group.queued is not None
        self._dispatcher.record(group, failure.kind, failure.reason, now)
        self._fail(group.queued, failure.reason)
        self._dispatcher.set_idle(group)
        return []

    def freed(self, group_id: int) -> None:
        """The GPUs of a stopped group can be used again."""
        self.cluster.release(self.groups.pop(group_id).placement)

    def stop(self, reason: str) -> None:
        """End the run, as nothing can be folded any more; tasks that are left get no outcome."""
        self.stopped = reason

    def lose_node(self, node: str, reason: str, now: float) -> list[Action]:
        """Remove a node that is gone, and its groups, without blaming what they fold.

        Tasks that fit none of the other nodes wait for new ones.
        """
        self._health.forget(node)
        actions = self._remove_node(node, reason, now)
        if not self.cluster.nodes:
            self._no_node = f"no node is left: {reason}"
            self._no_node_until = now + self.settings.node_wait
        return actions

    def add_node(self, node: str, num_gpus: int, now: float) -> None:
        """A node has joined the cluster, or joins it again."""
        self.cluster.add_node(node, num_gpus)
        for group in self.groups.on_node(node):  # that are still being stopped
            self.cluster.take(tuple(share for share in group.placement if share[0] == node))
        self._waiting.resize(now)

    def _remove_node(self, node: str, reason: str, now: float) -> list[Action]:
        """Stop the groups of a node; what they fold is queued again as if it had not been begun."""
        self.cluster.remove_node(node)
        actions: list[Action] = []
        for group in self.groups.on_node(node):
            if group.state != "stopping":
                members = group.members
                failure = Failure("worker_died", reason, node)
                actions.append(self._dispatcher.end(group, failure, now))
                for queued in members:
                    self._waiting.push(queued, now)
        self._waiting.resize(now)
        return actions

    def _patience_ends(self) -> float:
        """The time until which tasks, or the whole run, wait for nodes."""
        return self._waiting.patience_ends() if self.cluster.nodes else self._no_node_until

    def _lose_patience(self, now: float) -> None:
        """Let parked tasks fail that have waited long enough; without any node the run stops."""
        if now < self._patience_ends():
            return
        if self.cluster.nodes:
            for queued, reason in self._waiting.take_impatient(now):
                self._fail(queued, reason)
        else:
            self.stopped = f"{self._no_node}, and none came within {self.settings.node_wait:g} s"

    def _backfill(self, now: float) -> list[Action]:
        """Start what can be started, and let idle groups fold."""
        actions: list[Action] = []
        queue = self._waiting.queue
        policy = self._policy(now)
        start_seconds = self._deadlines.start_seconds
        for queued, size in widened(
            queue, self.groups, policy.cluster, self._waiting.cache, start_seconds, now
        ):
            self._waiting.set_size(queued, size)
        while decision := policy.decide():
            queued = decision.queued
            if decision.stop:
                reason = f"its GPUs are needed for a group of {queued.size}"
                actions += [self._dispatcher.stop(group, reason) for group in decision.stop]
            elif decision.group is not None:
                queue.remove(queued)
                actions.append(self._fold(decision.group, queued, now, decision.max_seconds))
            elif decision.placement is not None:
                queue.remove(queued)
                actions.append(self._dispatcher.start(decision.placement, queued, now))
            policy = self._policy(now)
        return actions

    def _fold(
        self, group: GroupState, queued: QueuedTask, now: float, max_seconds: float
    ) -> Action:
        """Let an idle group fold a task, with others that wait if it has one GPU and that pays off.

        Others only within `max_seconds`, as predicted.
        """
        others: list[QueuedTask] = []
        if group.size == 1:
            queue = self._waiting.queue
            limit = max_seconds / self.slowdown
            num_gpus = self.cluster.num_gpus
            others = companions(
                queue, self._waiting.cache, queued, num_gpus, limit, self._max_batch
            )
            for other in others:
                queue.remove(other)
        return self._dispatcher.fold(group, queued, now, others)

    def _policy(self, now: float) -> BackfillPolicy:
        """The state as it is, but for the nodes on which nothing may be started now."""
        doubtful = self._health.doubtful()
        kept_out = doubtful | self._health.paused(now)
        return BackfillPolicy(
            self._waiting.queue,
            self.groups,
            self.cluster.without_free(kept_out),
            self._waiting.cache,
            now,
            self.slowdown,
            self._deadlines.start_seconds,
            closed_nodes=doubtful,
            may_wait=bool(kept_out),
        )

    def _probe(self, node: str, now: float) -> list[Action]:
        """Let a doubtful node fold the smallest complex, if it has nothing else to do.

        On as few GPUs as hold it where Ray had none for others. When none is small enough, and
        nothing else runs, a larger one has to tell.
        """
        groups = self.groups.on_node(node)
        if any(group.queued is not None or group.state == "stopping" for group in groups):
            return []
        idle = [group for group in groups if len(group.placement) == 1]
        max_ranks = idle[0].size if idle else self.cluster.free.counts[node]
        queued = self._waiting.queue.cheapest(max_ranks, node)
        if queued is None:
            if not self.groups.any_working:
                self._health.trust(node)
                return self._backfill(now)
            return []
        self._waiting.queue.remove(queued)
        if idle:
            return [self._dispatcher.fold(idle[0], queued, now)]
        num_gpus = queued.min_ranks if self._health.has_no_room(node) else queued.size
        return [self._dispatcher.start(((node, num_gpus),), queued, now)]

    def _on_overdue(self, group: GroupState, now: float) -> list[Action]:
        """Stop a group whose start or fold is past its deadline."""
        what = "start" if group.state == "starting" else "fold"
        reason = f"the {what} took over {now - group.since:.0f} s"
        return self._on_group_failure(group, Failure("timeout", reason), now)

    def _on_group_failure(self, group: GroupState, failure: Failure, now: float) -> list[Action]:
        """Stop a group that failed; its task is retried or fails, and its node may be doubted."""
        if group.others:
            return self._on_batch_failure(group, failure, now)
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
        actions: list[Action] = [self._dispatcher.end(group, failure, now)]
        if queued is not None and was_folding:
            if failure.kind == "oom" and not failure.killed:
                seconds = now - group.since
                fold = MeasuredFold(queued.task, queued.shape, seconds, ran_out=True)
                self._learner.record(fold)
                self._plan_again(now)
            self._retry(queued, group, failure, now)
        elif queued is not None:
            self._waiting.push(queued, now)
        return actions + self._bench_bad_nodes(group, failure, now)

    def _on_batch_failure(self, group: GroupState, failure: Failure, now: float) -> list[Action]:
        """Stop a group that failed with a batch; its tasks are folded again, each alone.

        None of them is blamed: that shows when the one that is at fault fails alone. For the node
        it is one failure.
        """
        members = group.members
        leader = members[0]
        shape = leader.shape
        if failure.kind == "timeout":
            self._deadlines.record_fold_timeout()
        self._record_batch(len(members), failed=True)
        self._health.fold_failed(group, leader, failure, now)
        actions: list[Action] = [self._dispatcher.end(group, failure, now)]
        for queued in members:
            queued.is_alone = True
            self._waiting.push(queued, now)
        if failure.kind == "oom" and not failure.killed:
            fold = MeasuredFold(leader.task, shape, now - group.since, ran_out=True)
            self._learner.record(fold)
            self._plan_again(now)
        return actions + self._bench_bad_nodes(group, failure, now)

    def _bench_bad_nodes(self, group: GroupState, failure: Failure, now: float) -> list[Action]:
        """Put the nodes of a group that failed on probation where that was one failure too many.

        A node that only had no room for it is kept while other groups work there.
        """
        actions: list[Action] = []
        for node, _ in group.placement:
            if failure.kind == "no_room" and any(
                other.state in ("busy", "idle") for other in self.groups.on_node(node)
            ):
                continue
            if node in self.cluster.nodes and self._health.is_bad(node):
                actions += self._bench_node(node, failure.reason, now)
        return actions

    def _retry(self, queued: QueuedTask, group: GroupState, failure: Failure, now: float) -> None:
        """Queue a task again after a failed attempt, or let it fail."""
        max_ranks = self._waiting.max_ranks
        step = self._retry_policy.after(queued, group.placement, failure, max_ranks)
        if isinstance(step, GiveUp):
            self._fail(queued, step.reason)
        elif step.is_last:
            self._waiting.last.append(queued)
        else:
            self._waiting.push(queued, now)

    def _fail(self, queued: QueuedTask, reason: str) -> None:
        """Record that a task has failed."""
        assert queued.task.key not in self.outcomes
        self.outcomes[queued.task.key] = Failed(queued.task, queued.num_attempts, reason)

    def _bench_node(self, node: str, reason: str, now: float) -> list[Action]:
        """Put a bad node on probation: use it no more for a while, then for one small complex.

        The last one is kept and the run stops instead: otherwise every task that is left would be
        recorded as failed.
        """
        reason = f"groups fail on {node} again and again: {reason}"
        if len(self.cluster.nodes) == 1:
            self.stopped = reason
            return []
        self._health.put_on_probation(node, self.cluster.nodes[node], now)
        return self._remove_node(node, reason, now)
