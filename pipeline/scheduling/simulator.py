"""The scheduler in virtual time: how long a run takes, and what it does when things go wrong."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from foldcp.pipeline.config import RunSection
from foldcp.pipeline.inputs.tasks import Task
from foldcp.pipeline.scheduling.cost_model import Costs
from foldcp.pipeline.scheduling.scheduler import Scheduler
from foldcp.pipeline.scheduling.types import Action, Failure, FailureKind, Fold, Start, Stop

FREE_SECONDS = 0.1  # from the end of a group to its GPUs being visible again, as measured with Ray


@dataclass(frozen=True, slots=True)
class Faults:
    """Chances of what goes wrong; the same seed gives the same run."""

    seed: int = 0
    worker_died: float = 0.0  # of a fold: a rank dies at a random moment
    timeout: float = 0.0  # of a fold: it never comes back
    error: float = 0.0  # of a fold: the program fails
    invalid: float = 0.0  # of a task: its input is at fault
    memory_spread: float = 0.0  # standard deviation of log(true bytes / predicted bytes) of a task
    speed_spread: float = (
        0.0  # standard deviation of log(true seconds / predicted seconds) of a fold
    )
    no_start: float = 0.0  # of a group: it does not start
    lost_nodes: tuple[tuple[float, str], ...] = ()  # (time, node)


@dataclass(order=True, slots=True)
class _Event:
    time: float
    order: int
    kind: str = field(compare=False)
    group: int = field(compare=False)
    failure: FailureKind = field(compare=False, default="worker_died")
    node: str = field(compare=False, default="")


class Simulation:
    """One run of a scheduler against invented groups."""

    def __init__(
        self,
        tasks: Sequence[Task],
        costs: Costs,
        nodes: Mapping[str, int],
        settings: RunSection,
        faults: Faults | None = None,
    ) -> None:
        self.scheduler = Scheduler(tasks, costs, nodes, settings)
        self.costs = costs
        self.faults = faults or Faults()
        self.now = 0.0
        self.log: list[tuple[float, Action]] = []
        self.busy_seconds = 0.0  # GPU-seconds of folds that came back
        self._random = random.Random(self.faults.seed)
        self._events: list[_Event] = []
        self._num_events = 0
        self._stopped: set[int] = set()
        self._memory: dict[str, float] = {}
        for time, node in self.faults.lost_nodes:
            self._later(time, "node", 0, node=node)

    def run(self) -> Simulation:
        """Run to the end; `now` is then the makespan."""
        while True:
            self._carry_out(self.scheduler.decide(self.now))
            if self.scheduler.is_over:
                return self
            deadline = self.scheduler.next_deadline(self.now)
            if not self._events or self._events[0].time > deadline:
                assert deadline < math.inf, "the run stands still"
                self.now = deadline
                continue
            event = heapq.heappop(self._events)
            self.now = max(self.now, event.time)
            self._tell(event)

    def _later(
        self,
        time: float,
        kind: str,
        group: int,
        failure: FailureKind = "worker_died",
        node: str = "",
    ) -> None:
        self._num_events += 1
        heapq.heappush(self._events, _Event(time, self._num_events, kind, group, failure, node))

    def _tell(self, event: _Event) -> None:
        if event.kind == "freed":
            self.scheduler.freed(event.group)
        elif event.kind == "node":
            self._carry_out(
                self.scheduler.lose_node(event.node, f"node {event.node} is gone", self.now)
            )
        elif event.group in self._stopped:
            pass
        elif event.kind == "ready":
            self.scheduler.ready(event.group, self.now)
        elif event.kind == "finished":
            group = self.scheduler.groups[event.group]
            self.busy_seconds += (self.now - group.since) * group.size
            self.scheduler.finished(event.group, self.now)
        else:
            failure = Failure(event.failure, f"simulated: {event.failure}")
            self._carry_out(self.scheduler.failed(event.group, failure, self.now))

    def _carry_out(self, actions: Iterable[Action]) -> None:
        for action in actions:
            self.log.append((self.now, action))
            if isinstance(action, Start):
                self._start(action)
            elif isinstance(action, Fold):
                self._fold(action)
            elif isinstance(action, Stop):
                self._stopped.add(action.group)
                self._later(self.now + FREE_SECONDS, "freed", action.group)

    def _start(self, action: Start) -> None:
        seconds = self.costs.hardware.start_seconds
        kind = "failed" if self._chance(self.faults.no_start) else "ready"
        self._later(self.now + seconds, kind, action.group)

    def _fold(self, action: Fold) -> None:
        faults = self.faults
        task = action.task
        seconds = self.costs.seconds(task, action.setup) * math.exp(
            self._random.gauss(0.0, faults.speed_spread)
        )
        if task.key not in self._memory:
            self._memory[task.key] = math.exp(self._random.gauss(0.0, faults.memory_spread))
            if self._chance(faults.invalid):
                self._memory[task.key] = -1.0
        true_bytes = self.costs.bytes(task, action.setup) * self._memory[task.key]
        if true_bytes < 0:
            self._later(self.now, "failed", action.group, "invalid")
        elif true_bytes > self.costs.hardware.memory:
            self._later(self.now + 0.3 * seconds, "failed", action.group, "oom")
        elif self._chance(faults.worker_died):
            self._later(
                self.now + seconds * self._random.random(),
                "failed",
                action.group,
                "worker_died",
            )
        elif self._chance(faults.error):
            self._later(
                self.now + seconds * self._random.random(),
                "failed",
                action.group,
                "error",
            )
        elif not self._chance(faults.timeout):
            self._later(self.now + seconds, "finished", action.group)

    def _chance(self, probability: float) -> bool:
        return self._random.random() < probability
