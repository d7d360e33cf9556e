"""Which complex is folded next, on which group of GPUs, and what follows when that goes wrong.

Plain Python on plain objects: the driver tells what happened and when (`ready`, `finished`, `failed`, `freed`,
`lose_node`) and carries out the actions it is answered; the same code runs under Ray and in the simulator.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from foldcp.pipeline.cluster import Cluster, Placement
from foldcp.pipeline.config import RunSection
from foldcp.pipeline.costs import Costs, Setup
from foldcp.pipeline.jobs import Action, Attempt, Failure, Fold, Group, Job, Queue, Start, Stop
from foldcp.pipeline.packing import Packing
from foldcp.pipeline.sizing import Sizes, allot, climb
from foldcp.pipeline.tasks import Done, Failed, Outcome, Task

BAD_STREAK = 5  # groups lost in a row on one node, after which the node is given up
PRIOR_SECONDS = 300.0  # weight of the cost model against the run's own measurements


class Scheduler:
    """State of a run: waiting jobs, groups, free GPUs, outcomes and the record of every attempt."""

    def __init__(self, tasks: Sequence[Task], costs: Costs, nodes: Mapping[str, int], settings: RunSection) -> None:
        self.costs, self.settings = costs, settings
        self.cluster = Cluster(dict(nodes))
        self.groups: dict[int, Group] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.attempts: list[Attempt] = []
        self._queue = Queue()
        self._sizes = Sizes(costs, self._largest())
        self._streaks: Counter[str] = Counter()
        self._measured = self._predicted = PRIOR_SECONDS
        self._num_groups, self._last_loss = 0, ""
        setups: list[tuple[Task, Setup]] = []
        for task in tasks:
            if (setup := costs.smallest(task, self._largest())) is None:
                self.outcomes[task.key] = Failed(task, 0, costs.why_not(task, self._largest()))
            else:
                setups.append((task, setup))
        allotted = allot(self._sizes, setups, self.cluster.num_gpus)
        for task, _ in setups:
            self._wait(Job(task, allotted[task.key]))

    # What the driver asks.

    @property
    def is_over(self) -> bool:
        """Whether every task has an outcome."""
        return not self._queue and all(group.job is None for group in self.groups.values())

    @property
    def pace(self) -> float:
        """Measured over predicted seconds of the folds so far."""
        return self._measured / self._predicted

    def work_left(self, now: float) -> float:
        """Predicted GPU-seconds of all that has no outcome."""
        waiting = sum(job.seconds * size for size, jobs in self._queue.by_size.items() for job in jobs)
        running = 0.0
        for group in self.groups.values():
            if group.job is not None:
                passed = now - group.since if group.state == "busy" else 0.0
                running += max(0.0, group.job.seconds - passed / self.pace) * group.size
        return waiting + running

    def next_deadline(self) -> float:
        """When `decide` must be asked at the latest."""
        return min((g.deadline for g in self.groups.values() if g.state in ("starting", "busy")), default=float("inf"))

    def decide(self, now: float) -> list[Action]:
        """What to do at this moment; the state already counts it as done."""
        actions: list[Action] = []
        for group in list(self.groups.values()):
            if group.state in ("starting", "busy") and group.deadline <= now:
                word = "start" if group.state == "starting" else "fold"
                actions += self._lost(group, "hung", f"the {word} took over {now - group.since:.0f} s", now)
        for group in list(self.groups.values()):
            if group.state == "idle" and group.job is not None:
                actions.append(self._fold(group, group.job, now))
        packing = self._packing(now)
        for job, size in packing.stretched():
            self._queue.remove(job)
            job.setup = replace(job.setup, num_ranks=size)
            self._wait(job)
        while choice := packing.choose():
            if choice.stop:
                for group in choice.stop:
                    actions.append(self._stop(group, f"its GPUs are wanted by a group of {choice.job.size}"))
            elif choice.group is not None:
                self._queue.remove(choice.job)
                actions.append(self._fold(choice.group, choice.job, now))
            elif choice.placement is not None:
                self._queue.remove(choice.job)
                actions.append(self._start(choice.placement, choice.job, now))
            packing = self._packing(now)
        return actions

    def upcoming(self) -> list[tuple[Task, Setup]]:
        """What the busy groups will probably fold next: the longest jobs that wait for groups of their size."""
        busy = Counter(group.size for group in self.groups.values() if group.state == "busy")
        jobs = [job for size, count in busy.items() for job in self._queue.by_size.get(size, [])[-count:]]
        return [(job.task, job.setup) for job in jobs]

    # What the driver tells.

    def ready(self, group_id: int) -> None:
        """A group has started. (It may have been given up meanwhile.)"""
        group = self.groups.get(group_id)
        if group is not None and group.state == "starting":
            group.state = "idle"

    def finished(self, group_id: int, now: float) -> None:
        """A group's fold is done and its result is stored."""
        group = self.groups[group_id]
        assert group.state == "busy" and group.job is not None
        self._measured += now - group.since
        self._predicted += group.job.seconds
        for node, _ in group.placement:
            self._streaks[node] = 0
        self._record(group, "done", "", now)
        self.outcomes[group.job.task.key] = Done(group.job.task, group.job.attempts)
        group.state, group.job = "idle", None

    def failed(self, group_id: int, failure: Failure, reason: str, now: float) -> list[Action]:
        """A group's start or fold failed; all but `invalid` ends the group. (It may have been given up meanwhile.)"""
        group = self.groups.get(group_id)
        if group is None or group.state == "stopping":
            return []
        if failure != "invalid":
            return self._lost(group, failure, reason, now)
        assert group.state == "busy" and group.job is not None
        self._record(group, failure, reason, now)
        self._give_up(group.job, reason)
        group.state, group.job = "idle", None
        return []

    def freed(self, group_id: int) -> None:
        """The GPUs of a stopped group can be used again."""
        group = self.groups.pop(group_id)
        assert group.state == "stopping"
        self.cluster.give_back(group.placement)

    def lose_node(self, node: str, reason: str, now: float) -> list[Action]:
        """A node is gone: its groups die, and what no longer fits the rest fails."""
        self.cluster.lose(node)
        self._last_loss = reason
        self._sizes = Sizes(self.costs, self._largest())
        actions: list[Action] = []
        for group in list(self.groups.values()):
            if group.state != "stopping" and any(name == node for name, _ in group.placement):
                actions += self._lost(group, "lost", reason, now)
        for job in self._queue.drain():
            self._wait(job)
        return actions

    # The inside.

    def _largest(self) -> int:
        """Ranks of the largest group that may be made."""
        return min(self.settings.max_group or self.cluster.num_gpus, self.cluster.num_gpus)

    def _packing(self, now: float) -> Packing:
        groups = tuple(self.groups.values())
        start = self.costs.hardware.start_seconds
        return Packing(self._queue, groups, self.cluster, self._sizes, now, self.pace, start)

    def _wait(self, job: Job) -> None:
        """Queue a job, for a smaller group if its own is no longer possible; without any it fails."""
        if job.size > self._largest():
            largest = self._largest()
            job.setup = replace(job.setup, num_ranks=max(1, largest))
            if largest == 0:
                return self._give_up(job, f"no node is left: {self._last_loss}")
            if self.costs.bytes(job.task, job.setup) > self.costs.hardware.memory:
                return self._give_up(job, self.costs.why_not(job.task, largest))
        job.seconds = self._sizes.seconds(job.task, job.setup)
        self._queue.push(job)
        return None

    def _start(self, placement: Placement, job: Job, now: float) -> Start:
        self.cluster.take(placement)
        self._num_groups += 1
        deadline = now + self.settings.start_deadline
        group = Group(self._num_groups, placement, "starting", now, deadline, job)
        self.groups[group.id] = group
        return Start(group.id, placement, deadline)

    def _fold(self, group: Group, job: Job, now: float) -> Fold:
        """Let an idle group fold; it may be larger than what the job asked for."""
        assert group.state == "idle"
        job.setup = replace(job.setup, num_ranks=group.size)
        job.seconds = self._sizes.seconds(job.task, job.setup)
        job.attempts += 1
        allowed = max(self.settings.deadline_floor, self.settings.deadline_factor * job.seconds * max(1.0, self.pace))
        group.state, group.job, group.since, group.deadline = "busy", job, now, now + allowed
        return Fold(group.id, job.task, job.setup, job.attempts, group.deadline)

    def _stop(self, group: Group, reason: str) -> Stop:
        group.state, group.job = "stopping", None
        return Stop(group.id, reason)

    def _lost(self, group: Group, failure: Failure, reason: str, now: float) -> list[Action]:
        """End a group; its job climbs the ladder, gets a fresh group, or fails. A group that never became ready is
        its nodes' fault and not the job's."""
        job, was_busy = group.job, group.state == "busy"
        if was_busy:
            self._record(group, failure, reason, now)
        actions: list[Action] = [self._stop(group, reason)]
        if job is not None and was_busy:
            self._again(job, failure, reason)
        elif job is not None:
            self._wait(job)
        for node, _ in group.placement if failure != "oom" else ():
            self._streaks[node] += 1
            if self._streaks[node] >= BAD_STREAK and node in self.cluster.nodes:
                actions += self.lose_node(node, f"{BAD_STREAK} groups in a row were lost on {node}: {reason}", now)
        return actions

    def _again(self, job: Job, failure: Failure, reason: str) -> None:
        """What follows a lost attempt."""
        if failure == "oom":
            step = climb(self.costs, job.task, job.setup, self._largest())
            if step is None:
                return self._give_up(job, f"out of memory at the end of the ladder: {reason}")
            job.setup, words = step
            job.steps = (*job.steps, words)
        else:
            job.losses += 1
            if job.losses > self.settings.retries:
                return self._give_up(job, reason)
        return self._wait(job)

    def _give_up(self, job: Job, reason: str) -> None:
        assert job.task.key not in self.outcomes
        self.outcomes[job.task.key] = Failed(job.task, job.attempts, reason)

    def _record(self, group: Group, outcome: Failure | Literal["done"], reason: str, now: float) -> None:
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
