"""Progress of folds: hangs are cut, ends are foreseen, and slow folds get more GPUs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from foldcp.pipeline.config import load
from foldcp.pipeline.inputs.tasks import Done, Task
from foldcp.pipeline.scheduling import scheduler as module
from foldcp.pipeline.scheduling.cost_model import CostModel, FoldShape
from foldcp.pipeline.scheduling.policy.fold_progress import FoldTrack, StepTimes
from foldcp.pipeline.scheduling.scheduler import Scheduler
from foldcp.pipeline.scheduling.simulation.simulated_fold import SimulatedFold
from foldcp.pipeline.scheduling.simulation.simulator import Faults, Simulation
from foldcp.pipeline.scheduling.types import Failure, Fold, FoldStep, Start, Stop
from tests.support.scheduling import COSTS, SETTINGS, audit, driven, simulate, task, tasks

FLOOR = SETTINGS.stall_floor
WARM_UP = SETTINGS.deadline_factor * COSTS.hardware.start_seconds  # of a group's first fold


def times_of(fold: Fold) -> StepTimes:
    return StepTimes.predicted(COSTS, fold.task, fold.shape)


def warm(work: list[Task]) -> tuple[Scheduler, Fold, float]:
    """A scheduler whose only group makes its second fold, and when that began."""
    scheduler, first = driven([*work, task(9_000, "first")], {"a": 1})
    assert first.task.name == "any" and first.task.key == "first"
    now = 10.0 + COSTS.seconds(first.task, first.shape)
    scheduler.finished(first.group, now)
    (fold,) = scheduler.decide(now)
    assert isinstance(fold, Fold)
    return scheduler, fold, now


def test_fold_without_a_step_is_ended_long_before_its_deadline() -> None:
    scheduler, fold, began = warm([task(8_000)])
    total = times_of(fold).num_passes * times_of(fold).blocks
    assert fold.deadline - began > 1_000.0
    step = FoldStep("trunk", 12, total)
    assert scheduler.progressed(fold.group, step, began + 100.0) == []
    now = began + 100.0 + FLOOR
    assert scheduler.progressed(fold.group, replace(step, seconds=FLOOR - 1), now - 1) == []
    (stop,) = scheduler.progressed(fold.group, replace(step, seconds=FLOOR + 14), now + 14)
    assert isinstance(stop, Stop)
    attempt = scheduler.attempts[-1]
    assert attempt.outcome == "timeout"
    assert attempt.reason == f"no step for 74 s in trunk, step 12 of {total}"
    # What the group says now is of no fold.
    assert scheduler.progressed(fold.group, step, now + 20.0) == []


def test_scores_of_a_sample_may_take_as_long_where_ranks_have_samples_of_their_own() -> None:
    costs = CostModel(COSTS.hardware, load(overrides=["model.samples=5"]))
    work = task(2_000)
    alone, on_two = (
        StepTimes.predicted(costs, work, FoldShape(size, "bf16", 5, 1)) for size in (1, 2)
    )
    assert (alone.samples, on_two.samples) == (5, 3)
    assert on_two.stages["confidence"] == pytest.approx(0.6 * alone.stages["confidence"])
    assert on_two.longest_gap("confidence") == pytest.approx(alone.longest_gap("confidence"))


def test_hang_without_reports_is_ended_by_the_deadline_alone() -> None:
    """The progress actor is gone, or the fold writes its result, which may take long."""
    scheduler, fold, began = warm([task(8_000)])
    assert scheduler.progressed(fold.group, FoldStep("writing", 0, 1), began + 1.0) == []
    late = FoldStep("writing", 0, 1, fold.deadline - began - 2.0)
    assert scheduler.progressed(fold.group, late, fold.deadline - 1.0) == []
    assert scheduler.decide(fold.deadline - 1.0) == []
    assert [type(action) for action in scheduler.decide(fold.deadline)] == [Stop]


def test_step_of_the_fold_before_says_nothing() -> None:
    scheduler, fold, began = warm([task(8_000)])
    old = FoldStep("confidence", 5, 5, FLOOR + 100.0)
    assert scheduler.progressed(fold.group, old, began + FLOOR + 99.0) == []
    assert not scheduler.attempts[1:]


def test_first_fold_of_a_group_may_compile_kernels() -> None:
    scheduler, fold = driven([task(5_000)], {"a": 1})
    step = FoldStep("trunk", 0, 272, WARM_UP - 1.0)
    assert WARM_UP - 1.0 > FLOOR
    assert scheduler.progressed(fold.group, step, 10.0 + WARM_UP) == []
    late = replace(step, seconds=WARM_UP + 20.0)
    assert scheduler.progressed(fold.group, late, 10.0 + WARM_UP + 21.0)


def test_slow_steps_are_waited_for_longer() -> None:
    """Blocks take 50 s where 2 s were predicted; three times that is allowed."""
    scheduler, fold, began = warm([task(8_000)])
    for done in range(4):
        now = began + 50.0 * (done + 1)
        assert scheduler.progressed(fold.group, FoldStep("trunk", done, 272), now) == []
    step = FoldStep("trunk", 3, 272, 145.0)
    assert scheduler.progressed(fold.group, step, began + 345.0) == []
    assert scheduler.progressed(fold.group, replace(step, seconds=151.0), began + 351.0)


def test_allowed_time_doubles_after_a_fold_without_a_step() -> None:
    scheduler, fold, began = warm([task(8_000)])
    step = FoldStep("sampling", 3, 200, FLOOR + 1)
    assert scheduler.progressed(fold.group, step, began + 200.0)
    scheduler.freed(fold.group)
    (start,) = scheduler.decide(began + 260.0)
    assert isinstance(start, Start)
    scheduler.ready(start.group, began + 270.0)
    (again,) = scheduler.decide(began + 270.0)
    assert isinstance(again, Fold)
    late = began + 600.0
    assert scheduler.progressed(again.group, replace(step, seconds=2 * WARM_UP), late) == []
    long = replace(step, seconds=2 * (WARM_UP + FLOOR))
    assert scheduler.progressed(again.group, long, late)


def test_work_left_follows_the_steps_of_a_fold() -> None:
    scheduler, fold, began = warm([task(8_000)])
    times = times_of(fold)
    predicted = scheduler.work_left(began)
    half = FoldStep("trunk", 2 * times.blocks, 4 * times.blocks)
    scheduler.progressed(fold.group, FoldStep("trunk", 1, 4 * times.blocks), began + 10.0)
    now = began + 10.0 + 3 * 2 * times.pass_seconds  # three times as slow
    scheduler.progressed(fold.group, half, now)
    left = times.seconds - times.done(half)
    assert left < predicted
    assert scheduler.work_left(now) == pytest.approx(3 * left, rel=0.02)


@pytest.mark.parametrize("kept", [0, 2])
def test_simulated_steps_are_those_of_the_predicted_times(kept: int) -> None:
    one = task(9_000)
    shape = FoldShape(2, "bf16", 5, 1_000)
    times = StepTimes.predicted(COSTS, one, shape)
    assert times.seconds == pytest.approx(COSTS.seconds(one, shape))
    fold = SimulatedFold(Fold(1, one, shape, 1, 0.0, ()), times, 1.5, kept, 100.0)
    assert fold.seconds == pytest.approx(1.5 * times.seconds * times.share_left(kept))
    done = -1.0
    for percent in range(101):
        now = 100.0 + fold.seconds * percent / 100 + 1e-6  # beyond what rounding may lack
        step = fold.step(now)
        assert 0 <= step.done <= step.total and 0 <= step.seconds <= now - 100.0
        assert times.done(step) >= done
        done = times.done(step)
    assert done == pytest.approx(times.seconds)


def test_lost_node_costs_a_pass() -> None:
    """A fold of over 15 minutes keeps its passes, and the next attempt is that much shorter."""
    scheduler, fold = driven([task(20_000)], {"a": 4, "b": 4})
    assert fold.keeps_passes
    times = times_of(fold)
    now = 10.0 + 2.5 * times.pass_seconds
    total = 4 * times.blocks
    scheduler.progressed(fold.group, FoldStep("trunk", 1, total), 15.0)
    scheduler.progressed(fold.group, FoldStep("trunk", 2 * times.blocks + 30, total), now)
    node = scheduler.groups[fold.group].placement[0][0]
    scheduler.lose_node(node, "gone", now)
    scheduler.freed(fold.group)
    (start,) = scheduler.decide(now + 1.0)
    assert isinstance(start, Start)
    scheduler.ready(start.group, now + 10.0)
    (again,) = scheduler.decide(now + 10.0)
    assert isinstance(again, Fold) and again.keeps_passes
    whole = COSTS.seconds(again.task, again.shape)
    queued = scheduler.groups[again.group].queued
    assert queued is not None
    assert queued.seconds == pytest.approx(whole - 2 * times_of(again).pass_seconds, rel=0.05)
    first = FoldStep("trunk", 2 * times.blocks + 1, total, first=2 * times.blocks)
    scheduler.progressed(again.group, first, now + 60.0)
    scheduler.finished(again.group, now + 500.0)
    assert [attempt.first_pass for attempt in scheduler.attempts] == [0, 2]


def test_short_folds_and_those_of_a_setting_keep_nothing() -> None:
    assert not driven([task(2_000)], {"a": 1})[1].keeps_passes
    never = replace(SETTINGS, trunk_checkpoint_seconds=0.0)
    assert not driven([task(20_000)], {"a": 8}, never)[1].keeps_passes
    scheduler = Scheduler([task(20_000)], COSTS, {"a": 8}, SETTINGS, kept_passes={"20000": 3})
    whole = Scheduler([task(20_000)], COSTS, {"a": 8}, SETTINGS)
    assert scheduler.work_left(0.0) < 0.5 * whole.work_left(0.0)


class SlowTask(Simulation):
    """One task, or each, takes twice as long as predicted."""

    slow = "slow"

    def _speed_factor(self, task: Task) -> float:
        return 2.0 if self.slow in (task.key, "all") else 1.0


@pytest.mark.parametrize(("slow", "num_others"), [("slow", 300), ("all", 40)])
def test_fold_that_turns_out_slow_is_begun_again_on_more_gpus(
    slow: str, num_others: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not if all others are as slow."""
    monkeypatch.setattr(SlowTask, "slow", slow)
    nodes = {"a": 8, "b": 8, "c": 8, "d": 8}
    work = [task(24_000, "slow"), task(23_000, "other"), *tasks(num_others, 1)]
    faults = Faults(speed_spread=1e-9)  # folds report
    run = SlowTask(work, COSTS, nodes, SETTINGS, faults).run()
    audit(run, work, nodes)
    assert all(isinstance(outcome, Done) for outcome in run.scheduler.outcomes.values())
    stopped = [a for a in run.scheduler.attempts if a.outcome == "stopped"]
    if slow == "all":
        assert not stopped
        return
    assert [a.task.key for a in stopped if "times as slow" in a.reason] == ["slow"]
    monkeypatch.setattr(module, "MAX_MOVES", 0)
    as_before = SlowTask(work, COSTS, nodes, SETTINGS, faults).run()
    assert run.now < 0.8 * as_before.now


def test_hangs_cost_the_stall_time() -> None:
    work = tasks(60, 3, 6_000)
    calm = simulate(work)
    hung = simulate(work, faults=Faults(timeout=0.15))
    audit(hung, work, {"a": 8})
    attempts = hung.scheduler.attempts
    cut = [a for a in attempts if a.outcome == "timeout" and a.reason.startswith("no step for")]
    assert len(cut) >= 3
    assert hung.now < calm.now * 1.3
    assert all(a.ended - a.started < 4 * a.predicted + 300 for a in cut)


def test_track_takes_each_step_once() -> None:
    times = StepTimes.predicted(COSTS, task(1_000), FoldShape(1, "bf16", 5, 1_000))
    track = FoldTrack(times)
    step = FoldStep("trunk", 70, 272, 1.0, first=68)
    assert track.update(step, 11.0) and not track.update(replace(step, seconds=3.0), 13.0)
    assert track.first_pass == 1 and track.last_at == 10.0
    assert track.update(replace(step, done=74, seconds=0.0), 18.0)
    assert track.longest == {"trunk": 2.0}
    failure = Failure("timeout", track.description)
    assert failure.reason == "trunk, step 74 of 272"
