"""Schedules of faults in the simulator, by the thousand."""

from __future__ import annotations

import math
import random
from dataclasses import replace

from foldcp.pipeline.config import RunSection
from foldcp.pipeline.inputs.tasks import Done, Failed, Outcome, Task
from foldcp.pipeline.scheduling.simulation.simulator import Faults, Simulation
from foldcp.pipeline.scheduling.types import FailureKind
from tests.chaos.schedule import (
    GROUP_FAULTS,
    NODE_FAULTS,
    SIGNALS,
    TWO_RANKS,
    FoldFaultKind,
    Invocation,
    ProcessFault,
    Schedule,
)
from tests.support.scheduling import COSTS, audit, audit_gpus, task

SETTINGS = RunSection(node_wait=60.0)
TOKENS_OF_TWO_RANKS = 16_000  # more than one of the simulated GPUs holds
SECONDS_BETWEEN_FOLDS = 30.0  # about, for the times at which nodes are lost
FAILURES: dict[FoldFaultKind, FailureKind] = {
    "raise": "error",
    "oom": "oom",
    "memory_error": "oom",
    "nan": "invalid",
    "wrong_type": "error",
    "die": "worker_died",
    "hang": "timeout",
}
MAX_INVOCATIONS = 10  # more than any run should need
LOSSES = ("worker_died", "timeout", "error")
ENDINGS = (*SIGNALS, "disk_full", "kill_gcs", "kill_raylet")


def simulate_schedule(schedule: Schedule) -> int:
    """Let a schedule happen to simulated runs; the number of their folds.

    Raises AssertionError where a run breaks an invariant.
    """
    run = _SimulatedRun(schedule)
    for invocation in schedule.invocations:
        run.invoke(invocation)
    # A run on nodes that fail again and again stops, and resumes with the same command.
    for _ in range(MAX_INVOCATIONS):
        if set(run.outcomes) >= set(run.waiting):
            break
        run.invoke(Invocation())
    run.check_outcomes()
    return run.num_folds


class _SimulatedRun:
    """The folder of a run, as far as the scheduler knows it."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.waiting = {name: _task(name) for name in schedule.complexes}
        self.outcomes: dict[str, Outcome] = {}  # of those that wait: of the last invocation
        self.suspects: set[str] = set()
        self.num_folds = 0
        self.last = Invocation()

    def invoke(self, invocation: Invocation) -> None:
        """One invocation, audited; one with an ending fault ends early."""
        self.last = invocation
        for cut in invocation.truncations:  # a damaged result is folded again
            if done := sorted(set(self.outcomes) - set(self.waiting)):
                name = done[cut % len(done)]
                self.waiting[name] = _task(name)
        for name in self.waiting:
            self.outcomes.pop(name, None)
        simulation = self._simulate(invocation)
        attempts = simulation.scheduler.attempts
        self.num_folds += len(attempts)
        lost = {attempt.task.key for attempt in attempts if attempt.outcome in LOSSES}
        self.suspects |= lost
        self.outcomes |= simulation.scheduler.outcomes
        for name, outcome in simulation.scheduler.outcomes.items():
            if isinstance(outcome, Done):
                del self.waiting[name]

    def _simulate(self, invocation: Invocation) -> Simulation:
        nodes = {f"n{number}": 1 for number in range(self.schedule.num_nodes)}
        faults = _faults(self.schedule, invocation)
        tasks = list(self.waiting.values())
        simulation = Simulation(tasks, COSTS, nodes, SETTINGS, faults, suspects=self.suspects)
        ends = [fault.count for fault in invocation.faults if fault.kind in ENDINGS]
        simulation.run(min(ends, default=math.inf))
        everything = nodes | {node: count for _, node, count in faults.new_nodes}
        is_stable = not (faults.lost_nodes or faults.new_nodes)
        if simulation.scheduler.is_over and not simulation.scheduler.stopped:
            audit(simulation, tasks, everything, is_stable)
        else:
            audit_gpus(simulation, everything, is_stable)
        return simulation

    def check_outcomes(self) -> None:
        """Every complex has one outcome, and fails only for what was drawn."""
        assert set(self.outcomes) == set(self.schedule.complexes)
        always = {fault.complex for fault in self.schedule.fold_faults if fault.is_always}
        once = {fault.complex for fault in self.schedule.fold_faults}
        kinds = [fault.kind for fault in self.last.faults]
        num_lost = sum(kind in GROUP_FAULTS for kind in kinds)
        has_lost_nodes = any(kind in NODE_FAULTS for kind in kinds)
        for name, outcome in self.outcomes.items():
            if not isinstance(outcome, Failed):
                assert name not in always, f"{name} was scored, though every fold of it fails"
                continue
            is_parked = has_lost_nodes and name == TWO_RANKS
            assert name in once or num_lost >= 2 or is_parked, f"{name} failed: {outcome.reason}"


def _task(name: str) -> Task:
    draw = random.Random(name)
    num_tokens = TOKENS_OF_TWO_RANKS if name == TWO_RANKS else draw.randint(200, 3000)
    return task(num_tokens, name)


def _faults(schedule: Schedule, invocation: Invocation) -> Faults:
    """The faults of an invocation, as the simulator takes them."""
    starts: dict[int, FailureKind] = {}
    folds: dict[int, FailureKind] = {}
    lost: list[tuple[float, str]] = []
    new: list[tuple[float, str, int]] = []
    for fault in invocation.faults:
        failure: FailureKind = "timeout" if fault.kind.startswith("freeze") else "worker_died"
        if fault.kind in GROUP_FAULTS:
            (folds if fault.event == "fold_started" else starts)[fault.count] = failure
        elif fault.kind in NODE_FAULTS:
            lost.append((_seconds(fault), f"n{schedule.num_nodes - 1}"))
        elif fault.kind == "add_node":
            new.append((_seconds(fault), "new", 1))
    tasks: dict[str, tuple[FailureKind, float]] = {
        fault.complex: (FAILURES[fault.kind], 1e9 if fault.is_always else 1)
        for fault in schedule.fold_faults
    }
    return replace(
        Faults(seed=schedule.seed),
        starts=starts,
        folds=folds,
        tasks=tasks,
        lost_nodes=tuple(lost),
        new_nodes=tuple(new),
    )


def _seconds(fault: ProcessFault) -> float:
    return (fault.count + fault.delay) * SECONDS_BETWEEN_FOLDS
