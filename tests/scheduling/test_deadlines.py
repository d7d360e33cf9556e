"""Deadlines of starts and folds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from foldcp.pipeline.inputs.tasks import Done
from foldcp.pipeline.scheduling.node_health import MAX_PAUSE
from foldcp.pipeline.scheduling.scheduler import Scheduler
from foldcp.pipeline.scheduling.simulation.simulator import Simulation
from foldcp.pipeline.scheduling.types import Failure, Fold, Start, Stop
from tests.support.scheduling import COSTS, SETTINGS, audit, driven, task

ALONE = replace(SETTINGS, batch=1)


def test_fold_past_its_deadline_stops_its_group() -> None:
    scheduler, fold = driven([task(5_000)], {"a": 1})
    predicted = COSTS.seconds(fold.task, fold.shape)
    warm_up = COSTS.hardware.start_seconds  # of the group's first fold
    assert fold.deadline == pytest.approx(10.0 + SETTINGS.deadline_factor * (predicted + warm_up))
    assert scheduler.next_deadline(10.0) == fold.deadline
    assert scheduler.decide(fold.deadline - 1) == []
    (stop,) = scheduler.decide(fold.deadline)
    assert isinstance(stop, Stop)
    assert scheduler.attempts[-1].outcome == "timeout"
    # Results of the stopped group are ignored.
    assert scheduler.failed(fold.group, Failure("worker_died", "killed"), fold.deadline + 1) == []
    assert len(scheduler.attempts) == 1


def test_fold_deadline_follows_the_measured_times() -> None:
    scheduler, fold = driven([task(100, f"{i}") for i in range(3)], {"a": 1}, ALONE)
    predicted = COSTS.seconds(fold.task, fold.shape) + COSTS.hardware.start_seconds
    assert fold.deadline == pytest.approx(10.0 + SETTINGS.deadline_factor * predicted)
    scheduler.finished(fold.group, 5_000.0)  # far slower than predicted
    (following,) = scheduler.decide(5_000.0)
    assert isinstance(following, Fold)
    assert scheduler.slowdown > 10
    assert scheduler.work_left(5_000.0) == pytest.approx(2 * COSTS.seconds(fold.task, fold.shape))
    # As long as the fold before it took, and not only what the corrected prediction says.
    assert following.deadline - 5_000.0 == pytest.approx(SETTINGS.deadline_factor * 4_990.0)


def test_fold_deadline_of_a_warm_group_is_the_floor_or_covers_reading() -> None:
    slow = replace(task(90, "slow"), read_seconds=25.0)
    scheduler, fold = driven([task(100, "first"), task(95, "second"), slow], {"a": 1}, ALONE)
    scheduler.finished(fold.group, 11.0)
    (second,) = scheduler.decide(11.0)
    assert isinstance(second, Fold)
    assert second.deadline == 11.0 + SETTINGS.deadline_floor
    scheduler.finished(fold.group, 12.0)
    (third,) = scheduler.decide(12.0)
    assert isinstance(third, Fold)
    assert third.deadline > 12.0 + SETTINGS.deadline_factor * 25.0


def test_start_deadline_doubles_after_a_timeout() -> None:
    scheduler = Scheduler([task(500)], COSTS, {"a": 1}, SETTINGS)
    (start,) = scheduler.decide(0.0)
    assert isinstance(start, Start)
    allowed = SETTINGS.deadline_factor * COSTS.hardware.start_seconds
    assert scheduler.next_deadline(0.0) == start.deadline == max(SETTINGS.start_deadline, allowed)
    assert [type(action) for action in scheduler.decide(start.deadline)] == [Stop]
    assert not scheduler.is_over
    scheduler.freed(start.group)
    now = start.deadline + MAX_PAUSE
    (again,) = scheduler.decide(now)
    assert isinstance(again, Start)
    assert again.deadline - now == 2 * start.deadline
    scheduler.ready(again.group, now + 1.5 * start.deadline)  # it was slow, and did not hang
    (fold,) = scheduler.decide(now + 1.5 * start.deadline)
    assert isinstance(fold, Fold)
    later = now + 1.5 * start.deadline + 10
    scheduler.failed(fold.group, Failure("worker_died", "died"), later)
    scheduler.freed(fold.group)
    later += MAX_PAUSE
    (third,) = scheduler.decide(later)
    assert isinstance(third, Start)
    assert third.deadline - later == pytest.approx(SETTINGS.deadline_factor * 1.5 * start.deadline)


def test_fold_deadline_doubles_after_a_timeout() -> None:
    scheduler, fold = driven([task(5_000)], {"a": 1})
    scheduler.decide(fold.deadline)
    scheduler.freed(fold.group)
    (start,) = scheduler.decide(fold.deadline + 1)
    scheduler.ready(start.group, fold.deadline + 2)
    (again,) = scheduler.decide(fold.deadline + 2)
    assert isinstance(again, Fold)
    assert again.deadline - (fold.deadline + 2) == pytest.approx(2 * (fold.deadline - 10.0))


def test_machine_far_slower_than_predicted_is_waited_for() -> None:
    class Slow(Simulation):
        def _fold(self, action: Fold) -> None:
            self._schedule(self.now + 200.0, "finished", action.group)

    work = [task(100, f"{i}") for i in range(20)]
    simulation = Slow(work, COSTS, {"a": 3}, ALONE).run()
    audit(simulation, work, {"a": 3})
    scheduler = simulation.scheduler
    assert {type(outcome) for outcome in scheduler.outcomes.values()} == {Done}
    assert 0 < sum(attempt.outcome == "timeout" for attempt in scheduler.attempts) < 7
