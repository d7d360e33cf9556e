"""The scheduler in virtual time: how long a run takes, and what it does when things go wrong."""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from foldcp.pipeline.config import RunSection
from foldcp.pipeline.inputs.tasks import Task
from foldcp.pipeline.scheduling.cost_model import CostModel
from foldcp.pipeline.scheduling.costs.factors import MEASURED_STAGES
from foldcp.pipeline.scheduling.policy.fold_progress import StepTimes
from foldcp.pipeline.scheduling.scheduler import Scheduler
from foldcp.pipeline.scheduling.simulation.simulated_fold import SimulatedFold
from foldcp.pipeline.scheduling.types import (
    Action,
    Failure,
    FailureKind,
    Fold,
    Start,
    Stop,
)

FREE_SECONDS = 0.1  # from the end of a group to its GPUs being free again, as measured with Ray
OOM_SHARE = 0.3  # of a fold's seconds, after which it runs out of memory


@dataclass(frozen=True, slots=True)
class Faults:
    """Probabilities of what goes wrong; the same seed gives the same run."""

    seed: int = 0
    worker_died: float = 0.0  # of a fold: a worker dies at a random moment
    timeout: float = 0.0  # of a fold: it hangs at a random moment
    error: float = 0.0  # of a fold: the program fails
    invalid: float = 0.0  # of a task: its input is at fault
    memory_spread: float = 0.0  # standard deviation of log(true / predicted bytes) of a task
    speed_spread: float = 0.0  # standard deviation of log(true / predicted seconds) of a task
    no_start: float = 0.0  # of a group: it does not start
    # What happens at chosen moments; a "timeout" is a fold or a start that never ends.
    starts: Mapping[int, FailureKind] = field(default_factory=dict)  # to the n-th start, from 1
    folds: Mapping[int, FailureKind] = field(default_factory=dict)  # to the n-th fold, from 1
    # To folds of a task, by its key: so many times, from the first on.
    tasks: Mapping[str, tuple[FailureKind, float]] = field(default_factory=dict)
    lost_nodes: tuple[tuple[float, str], ...] = ()  # (time, node)
    new_nodes: tuple[tuple[float, str, int], ...] = ()  # (time, node, GPUs)


@dataclass(order=True, slots=True)
class _Event:
    time: float
    order: int
    kind: str = field(compare=False)
    group: int = field(compare=False)
    failure: FailureKind = field(compare=False, default="worker_died")
    node: str = field(compare=False, default="")
    num_gpus: int = field(compare=False, default=0)  # of a node that joins
    fold: SimulatedFold | None = field(compare=False, default=None)  # that reports its progress


class Simulation:
    """One run of a scheduler with simulated worker groups."""

    def __init__(
        self,
        tasks: Sequence[Task],
        costs: CostModel,
        nodes: Mapping[str, int],
        settings: RunSection,
        faults: Faults | None = None,
        believed: CostModel | None = None,
        suspects: Collection[str] = (),
    ) -> None:
        """`costs` are the truth; the scheduler believes in them, unless told something else.

        `suspects` are those of `Scheduler`.
        """
        self.tasks = tasks
        self.scheduler = Scheduler(tasks, believed or costs, nodes, settings, suspects)
        self.costs = costs
        self.faults = faults or Faults()
        self.now = 0.0
        self.log: list[tuple[float, Action]] = []
        self.busy_seconds = 0.0  # GPU-seconds of successful folds
        self._random = random.Random(self.faults.seed)
        self._events: list[_Event] = []
        self._num_events = 0
        self._stopped: set[int] = set()
        self._num_starts = 0
        self._num_folds = 0
        self._folds_of: Counter[str] = Counter()
        # Of each task, true over predicted bytes; negative for one whose input is at fault.
        self._memory: dict[str, float] = {}
        self._speed: dict[str, float] = {}  # of each task, true over predicted seconds
        self._kept: dict[str, int] = {}  # of each task, passes whose state is kept
        self._folds: dict[int, SimulatedFold] = {}  # of the groups that fold
        for time, node in self.faults.lost_nodes:
            self._schedule(time, "lost node", 0, node=node)
        for time, node, num_gpus in self.faults.new_nodes:
            self._schedule(time, "new node", 0, node=node, num_gpus=num_gpus)

    @property
    def starts(self) -> list[Start]:
        """The starts of all worker groups."""
        return [action for _, action in self.log if isinstance(action, Start)]

    def run(self, max_folds: float = math.inf) -> Simulation:
        """Run to the end; `now` is then the makespan in seconds.

        Or until `max_folds` folds have begun, as a driver that is killed.
        """
        while True:
            self._execute(self.scheduler.decide(self.now))
            if self.scheduler.is_over or self._num_folds >= max_folds:
                return self
            deadline = self.scheduler.next_deadline(self.now)
            if not self._events or self._events[0].time > deadline:
                assert deadline < math.inf, "deadlock: no event and no deadline is left"
                self.now = deadline
                continue
            event = heapq.heappop(self._events)
            self.now = max(self.now, event.time)
            self._handle(event)

    def _schedule(
        self,
        time: float,
        kind: str,
        group: int,
        failure: FailureKind = "worker_died",
        node: str = "",
        num_gpus: int = 0,
        fold: SimulatedFold | None = None,
    ) -> None:
        """Schedule an event at a time."""
        self._num_events += 1
        event = _Event(time, self._num_events, kind, group, failure, node, num_gpus, fold)
        heapq.heappush(self._events, event)

    def _handle(self, event: _Event) -> None:
        """Tell the scheduler of an event; a stopped group has none but the last."""
        if event.kind == "freed":
            self.scheduler.freed(event.group)
        elif event.kind == "new node":
            self.scheduler.add_node(event.node, event.num_gpus, self.now)
        elif event.kind == "lost node":
            reason = f"node {event.node} is gone"
            if event.node in self.scheduler.cluster.nodes:
                for group in self.scheduler.groups.on_node(event.node):
                    self._tell(group.id)
                self._execute(self.scheduler.lose_node(event.node, reason, self.now))
        elif event.group in self._stopped:
            return
        elif event.kind == "ready":
            self.scheduler.ready(event.group, self.now)
        elif event.kind == "progress":
            if event.fold is self._folds.get(event.group):
                self._tell(event.group)
                self._report_later(event.group)
        elif event.kind == "finished":
            self._folds.pop(event.group, None)
            group = self.scheduler.groups[event.group]
            self.busy_seconds += (self.now - group.since) * group.size
            invalid = Failure("invalid", "simulated: invalid")
            failures = {
                queued.task.key: invalid
                for queued in group.members
                if self._memory_factor(queued.task) < 0
            }
            stages = self._stages(event.group)
            self._execute(self.scheduler.finished(event.group, self.now, stages, failures))
        else:
            self._tell(event.group)
            failure = Failure(event.failure, f"simulated: {event.failure}")
            self._execute(self.scheduler.failed(event.group, failure, self.now))
            self._end_fold(event.group)

    def _execute(self, actions: Iterable[Action]) -> None:
        """Begin an action of the scheduler."""
        for action in actions:
            self.log.append((self.now, action))
            if isinstance(action, Start):
                self._start(action)
            elif isinstance(action, Fold):
                self._fold(action)
            elif isinstance(action, Stop):
                self._stopped.add(action.group)
                self._end_fold(action.group)
                self._schedule(self.now + FREE_SECONDS, "freed", action.group)

    def _start(self, action: Start) -> None:
        kind = "failed" if self._happens(self.faults.no_start) else "ready"
        self._num_starts += 1
        if failure := self.faults.starts.get(self._num_starts):
            if failure == "timeout":
                return
            kind = "failed"
        self._schedule(self.now + self.costs.hardware.start_seconds, kind, action.group)

    def _fold(self, action: Fold) -> None:
        """Schedule the end of a fold, unless it hangs."""
        faults = self.faults
        task = action.task
        members = [task, *(other.task for other in action.others)]
        times = StepTimes.predicted(self.costs, task, action.shape)
        kept = self._kept.get(task.key, 0) if action.keeps_passes else 0
        speed = fmean(map(self._speed_factor, members))
        fold = SimulatedFold(action, times, speed, kept, self.now)
        seconds = fold.seconds
        needed = self.costs.peak_bytes if action.others else self.costs.least_bytes
        true_bytes = needed(task, action.shape) * max(map(self._memory_factor, members))
        chosen = self._chosen_failure(members)
        if chosen == "timeout":
            fold.hangs_at = self.now + seconds * self._random.random()
        elif chosen:
            self._fail(action, seconds * self._random.random(), chosen)
        elif true_bytes < 0:
            self._fail(action, 0.0, "invalid")
        elif true_bytes > self.costs.hardware.memory:
            self._fail(action, OOM_SHARE * seconds, "oom")
        elif self._happens(faults.worker_died):
            self._fail(action, seconds * self._random.random(), "worker_died")
        elif self._happens(faults.error):
            self._fail(action, seconds * self._random.random(), "error")
        elif self._happens(faults.timeout):
            fold.hangs_at = self.now + seconds * self._random.random()
        else:
            self._schedule(self.now + seconds, "finished", action.group)
        self._folds[action.group] = fold
        self._report_later(action.group)

    def _report_later(self, group: int) -> None:
        """Let a group report its step again after a while.

        None does where nothing goes wrong and all folds take what is predicted, as it costs time.
        """
        fold = self._folds.get(group)
        faults = self.faults
        if fold and (faults.timeout or faults.speed_spread):
            self._schedule(fold.next_report(self.now), "progress", group, fold=fold)

    def _tell(self, group: int) -> None:
        """Tell the scheduler the last step of a group, if it folds."""
        fold = self._folds.get(group)
        if fold:
            self._execute(self.scheduler.progressed(group, fold.step(self.now), self.now))

    def _end_fold(self, group: int) -> None:
        """A fold has ended early; the state of the trunk that it kept is left."""
        fold = self._folds.pop(group, None)
        if fold and (kept := fold.kept_passes(self.now)):
            self._kept[fold.action.task.key] = kept

    def _speed_factor(self, task: Task) -> float:
        """True over predicted seconds of a task, on any group."""
        if task.key not in self._speed:
            self._speed[task.key] = math.exp(self._random.gauss(0.0, self.faults.speed_spread))
        return self._speed[task.key]

    def _stages(self, group_id: int) -> dict[str, float]:
        """Seconds of the stages of the fold that a group has finished."""
        group = self.scheduler.groups[group_id]
        assert group.queued is not None
        stages = self.costs.stages(group.queued.task, group.queued.shape)
        slowness = (self.now - group.since) / sum(stages.values())
        return {
            stage: slowness * sum(stages[part] for part in parts)
            for stage, parts in MEASURED_STAGES.items()
        }

    def _chosen_failure(self, tasks: Sequence[Task]) -> FailureKind | None:
        """What happens to the fold of these that begins now, if that was chosen."""
        self._num_folds += 1
        for task in tasks:
            self._folds_of[task.key] += 1
            kind, number = self.faults.tasks.get(task.key, ("error", 0))
            if self._folds_of[task.key] <= number:
                return kind
        return self.faults.folds.get(self._num_folds)

    def _memory_factor(self, task: Task) -> float:
        """True over predicted bytes of a task; negative if its input is at fault."""
        if task.key not in self._memory:
            self._memory[task.key] = math.exp(self._random.gauss(0.0, self.faults.memory_spread))
            if self._happens(self.faults.invalid):
                self._memory[task.key] = -1.0
        return self._memory[task.key]

    def _fail(self, action: Fold, seconds: float, kind: FailureKind) -> None:
        """Let a fold fail after some seconds."""
        self._schedule(self.now + seconds, "failed", action.group, kind)

    def _happens(self, probability: float) -> bool:
        return self._random.random() < probability
