"""Attempts after failures: retries, out-of-memory fallbacks, memory pressure, invalid input."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from foldcp.pipeline.config import Fallbacks
from foldcp.pipeline.inputs.tasks import Done, Failed
from foldcp.pipeline.scheduling.cost_model import CostModel, FoldShape
from foldcp.pipeline.scheduling.group_size import initial_shape
from foldcp.pipeline.scheduling.simulation.simulator import Simulation
from foldcp.pipeline.scheduling.types import Failure, FailureKind, Fold, Start, Stop
from tests.support.scheduling import COSTS, SETTINGS, audit, driven, task


def test_out_of_memory_fallbacks_are_recorded_until_none_is_left() -> None:
    class Greedy(Simulation):
        def _happens(self, probability: float) -> bool:
            return False

        def _fold(self, action: Fold) -> None:
            self._schedule(self.now + 1.0, "failed", action.group, "oom")

    t = task(1_000, depth=2000)
    simulation = Greedy([t], COSTS, {"a": 2}, SETTINGS).run()
    audit(simulation, [t], {"a": 2})
    outcome = simulation.scheduler.outcomes[t.key]
    assert isinstance(outcome, Failed)
    assert "no fallback is left" in outcome.reason
    attempts = simulation.scheduler.attempts
    assert [len(a.fallbacks) for a in attempts] == list(range(len(attempts)))
    assert attempts[-1].shape == FoldShape(2, "bf16", 1, 500)
    assert all(a.outcome == "oom" for a in attempts)


@pytest.mark.parametrize(
    ("fallbacks", "shapes"),
    [
        ("exact", [(2, "mixed", 5), (2, "mixed", 1)]),
        ("none", [(2, "mixed", 5)]),
    ],
)
def test_fallbacks_that_are_not_allowed_are_not_taken(
    fallbacks: Fallbacks, shapes: list[tuple[int, str, int]]
) -> None:
    class Greedy(Simulation):
        def _fold(self, action: Fold) -> None:
            self._schedule(self.now + 1.0, "failed", action.group, "oom")

    t = task(1_000, depth=2000)
    settings = replace(SETTINGS, fallbacks=fallbacks)
    simulation = Greedy([t], COSTS, {"a": 2}, settings).run()
    audit(simulation, [t], {"a": 2})
    outcome = simulation.scheduler.outcomes[t.key]
    assert isinstance(outcome, Failed)
    assert f"no fallback is left with run.fallbacks={fallbacks}: " in outcome.reason
    found = [attempt.shape for attempt in simulation.scheduler.attempts]
    assert [(s.num_ranks, s.precision, s.parallel_samples) for s in found] == shapes
    assert len({shape.max_rows for shape in found}) == 1


def test_memory_pressure_is_waited_for_without_any_fallback() -> None:
    scheduler, fold = driven([task(500)], {"a": 1}, replace(SETTINGS, fallbacks="none"))
    scheduler.failed(fold.group, Failure("oom", "killed", killed=True), 20.0)
    assert not scheduler.outcomes
    scheduler.freed(fold.group)
    (again,) = scheduler.decide(21.0)
    assert isinstance(again, Start)


@pytest.mark.parametrize("kind", ["worker_died", "error"])
def test_failed_task_gets_one_new_group_then_fails(kind: FailureKind) -> None:
    scheduler, fold = driven([task(500)], {"a": 1})
    actions = scheduler.failed(fold.group, Failure(kind, "rank 0 died"), 20.0)
    assert [type(action) for action in actions] == [Stop]
    assert not scheduler.decide(20.0)  # its GPUs are not free yet
    scheduler.freed(fold.group)
    (again,) = scheduler.decide(21.0)
    assert isinstance(again, Start)
    assert again.group != fold.group
    scheduler.ready(again.group, 30.0)
    (second,) = scheduler.decide(30.0)
    assert isinstance(second, Fold)
    assert second.number == 2
    scheduler.failed(again.group, Failure(kind, "rank 0 died again"), 40.0)
    outcome = scheduler.outcomes[fold.task.key]
    assert isinstance(outcome, Failed)
    assert outcome.reason == "rank 0 died again"
    assert scheduler.is_over


def test_invalid_input_fails_at_once_and_keeps_the_group() -> None:
    scheduler, fold = driven([task(500, "x"), task(400, "y")], {"a": 1})
    assert scheduler.failed(fold.group, Failure("invalid", "no atoms"), 20.0) == []
    assert isinstance(scheduler.outcomes[fold.task.key], Failed)
    (following,) = scheduler.decide(20.0)
    assert isinstance(following, Fold)
    assert following.group == fold.group


class Pressed(Simulation):
    """For a while the system kills what starts or folds, as other processes take the memory."""

    until = 25.0

    def _killed(self, group: int) -> None:
        failure = Failure("oom", "killed", killed=True)
        self._execute(self.scheduler.failed(group, failure, self.now))

    def _handle(self, event: object) -> None:
        kind = event.kind  # type: ignore[attr-defined]
        group = event.group
        if self.now < self.until and kind in ("ready", "finished") and group not in self._stopped:
            self._killed(group)
        else:
            super()._handle(event)  # type: ignore[arg-type]


@pytest.mark.parametrize("num_gpus", [1, 2, 8])
@pytest.mark.parametrize("until", [25.0, 90.0])
def test_memory_pressure_by_other_processes_changes_no_result(num_gpus: int, until: float) -> None:
    work = [task(600, f"{i}") for i in range(23)]
    costs = CostModel(replace(COSTS.hardware, start_seconds=2.0), COSTS.config)
    simulation = Pressed(work, costs, {"a": num_gpus}, SETTINGS)
    simulation.until = until
    simulation.run()
    audit(simulation, work, {"a": num_gpus})
    scheduler = simulation.scheduler
    assert {type(outcome) for outcome in scheduler.outcomes.values()} == {Done}
    shapes = {replace(attempt.shape, batch=1) for attempt in scheduler.attempts}
    assert shapes == {initial_shape(costs, 1, "mixed")}


def test_lasting_memory_pressure_stops_the_run() -> None:
    work = [task(600, f"{i}") for i in range(3)]
    simulation = Pressed(work, COSTS, {"a": 1}, SETTINGS)
    simulation.until = math.inf
    scheduler = simulation.run().scheduler
    assert scheduler.stopped
    assert not scheduler.outcomes


def test_second_memory_kill_of_a_task_leads_to_out_of_memory_fallbacks() -> None:
    class Greedy(Simulation):
        def _fold(self, action: Fold) -> None:
            failure = Failure("oom", "killed", killed=True)
            self._schedule(self.now + 1.0, "node", action.group)
            self.failure = failure
            self.group = action.group

        def _handle(self, event: object) -> None:
            if event.kind == "node":  # type: ignore[attr-defined]
                self._execute(self.scheduler.failed(self.group, self.failure, self.now))
            else:
                super()._handle(event)  # type: ignore[arg-type]

    t = task(1_000, depth=2000)
    scheduler = Greedy([t], COSTS, {"a": 1}, SETTINGS).run().scheduler
    assert isinstance(scheduler.outcomes[t.key], Failed)
    assert [attempt.shape for attempt in scheduler.attempts][:2] == [
        initial_shape(COSTS, 1, "mixed")
    ] * 2
    assert scheduler.attempts[-1].shape == FoldShape(1, "bf16", 1, 500)
