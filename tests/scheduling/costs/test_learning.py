"""The cost model learns from the folds of a run: times, links and memory."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from foldcp.pipeline.inputs.tasks import Done
from foldcp.pipeline.scheduling.cost_model import CostModel, FoldShape
from foldcp.pipeline.scheduling.costs.factors import MEASURED_STAGES
from foldcp.pipeline.scheduling.costs.learning import (
    PRIOR_FOLDS,
    CostLearner,
    MeasuredFold,
    differs,
)
from foldcp.pipeline.scheduling.group_size import first_precision
from foldcp.pipeline.scheduling.scheduler import Scheduler
from foldcp.pipeline.scheduling.simulation.simulator import Faults, Simulation
from foldcp.pipeline.scheduling.types import Action
from tests.support.scheduling import COSTS, NODE, SETTINGS, audit, task, tasks

HARDWARE = COSTS.hardware


def slower(**rates: float) -> CostModel:
    """The truth on a machine some of whose rates are so many times lower."""
    changed = {name: getattr(HARDWARE, name) / factor for name, factor in rates.items()}
    return replace(COSTS, hardware=replace(HARDWARE, **changed))


TWICE = slower(exp_per_s=2, flop_per_s=2, copy_bytes_per_s=2, launch_seconds=0.5)


def fold(
    truth: CostModel, num_tokens: int, num_ranks: int = 1, factor: float = 1.0, depth: int = 500
) -> MeasuredFold:
    of = task(num_tokens, depth=depth)
    shape = FoldShape(num_ranks, "mixed", 5, 4096)
    predicted = truth.stages(of, shape)
    stages = {
        stage: factor * sum(predicted[part] for part in parts)
        for stage, parts in MEASURED_STAGES.items()
    }
    return MeasuredFold(of, shape, sum(stages.values()), stages)


def seconds(costs: CostModel, num_tokens: int, num_ranks: int = 1) -> float:
    return costs.seconds(task(num_tokens), FoldShape(num_ranks, "mixed", 5, 4096))


def test_few_folds_move_a_factor_little_and_many_decide_it() -> None:
    learner = CostLearner(COSTS)
    assert learner.learned() is COSTS
    expected = {1: 1 / (1 + PRIOR_FOLDS), 16: 16 / (16 + PRIOR_FOLDS)}
    for number in range(1, 17):
        learner.record(fold(COSTS, 1_000, factor=3.0))
        if number in expected:
            share = expected[number]
            costs = learner.learned()
            assert costs.factors is not None
            of_stage = math.log(costs.factors.by_stage["trunk"]) / math.log(3)
            assert of_stage == pytest.approx(share, rel=0.01)
            ratio = math.log(seconds(costs, 1_000) / seconds(COSTS, 1_000)) / math.log(3)
            assert ratio == pytest.approx(share, rel=0.01)
            # What is wrong everywhere counts for sizes and ranks of which nothing is known.
            unknown = math.log(seconds(costs, 8_000, 4) / seconds(COSTS, 8_000, 4)) / math.log(3)
            assert unknown == pytest.approx(share, rel=0.01)


def test_single_slow_folds_teach_nothing() -> None:
    learner = CostLearner(COSTS, [fold(COSTS, 1_000) for _ in range(12)])
    for _ in range(4):
        learner.record(fold(COSTS, 1_000, factor=15.0))
    assert seconds(learner.learned(), 1_000) == pytest.approx(seconds(COSTS, 1_000), rel=0.01)


def test_only_the_wrong_stage_and_size_are_corrected() -> None:
    # Small folds are dominated by launches that take four times as long.
    truth = slower(launch_seconds=0.25)
    sizes = [300, 400, 3_000, 6_000]
    learner = CostLearner(COSTS, [fold(truth, n) for n in sizes for _ in range(16)])
    costs = learner.learned()
    for n in sizes:
        before = abs(math.log(seconds(COSTS, n) / seconds(truth, n)))
        after = abs(math.log(seconds(costs, n) / seconds(truth, n)))
        assert after < max(0.06, 0.3 * before)


def test_slow_link_is_told_from_slow_computing() -> None:
    shapes = [(n, p) for n in (2_000, 4_000, 8_000) for p in (1, 2, 4)]
    slow_link = slower(link_bytes_per_s=10)
    learner = CostLearner(COSTS, [fold(slow_link, *shape) for shape in shapes for _ in range(8)])
    costs = learner.learned()
    factor = HARDWARE.link_bytes_per_s / costs.hardware.link_bytes_per_s
    assert 6 < factor < 12
    assert costs.hardware.network_bytes_per_s == pytest.approx(HARDWARE.network_bytes_per_s)
    # Also for a number of ranks that no fold had.
    assert seconds(costs, 8_000, 8) == pytest.approx(seconds(slow_link, 8_000, 8), rel=0.2)
    learner = CostLearner(COSTS, [fold(TWICE, *shape) for shape in shapes for _ in range(8)])
    costs = learner.learned()
    assert HARDWARE.link_bytes_per_s / costs.hardware.link_bytes_per_s < 2
    assert seconds(costs, 8_000, 8) == pytest.approx(seconds(TWICE, 8_000, 8), rel=0.25)


def test_rate_between_nodes_is_learned_from_groups_over_several() -> None:
    truth = slower(network_bytes_per_s=8)
    folds = [fold(truth, n, p) for n in (8_000, 12_000) for p in (4, 16) for _ in range(8)]
    costs = CostLearner(COSTS, folds).learned()
    assert 5 < HARDWARE.network_bytes_per_s / costs.hardware.network_bytes_per_s < 9
    assert HARDWARE.link_bytes_per_s / costs.hardware.link_bytes_per_s < 1.6


def test_fold_that_ran_out_of_memory_teaches_its_neighbours() -> None:
    big = task(12_000)
    shape = FoldShape(2, "mixed", 5, 4096)
    learner = CostLearner(COSTS)
    assert COSTS.fits(big, shape)
    learner.record(MeasuredFold(big, shape, 100.0, ran_out=True))
    costs = learner.learned()
    assert differs(costs, COSTS)
    assert not costs.fits(task(11_700), shape)
    assert costs.fits(task(11_000), shape)
    assert costs.fits(big, replace(shape, num_ranks=3))
    assert not costs.fits(task(8_300), replace(shape, num_ranks=1))  # as much on each rank
    assert costs.fits(big, replace(shape, precision="bf16"))
    assert first_precision(costs, task(8_300)) == first_precision(COSTS, task(8_300))
    learner.record(MeasuredFold(big, shape, 100.0))  # it was another process's memory
    assert learner.learned().fits(big, shape)


@pytest.mark.parametrize(
    ("slow", "factor", "shape"),
    [
        ("link_bytes_per_s", 10, NODE),
        ("all", 2, NODE),
        ("launch_seconds", 0.25, NODE),
        ("network_bytes_per_s", 13, {"a": 2, "b": 2, "c": 2, "d": 2}),
    ],
)
def test_makespan_approaches_that_of_a_model_that_knew(
    slow: str, factor: float, shape: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = TWICE if slow == "all" else slower(**{slow: factor})
    gpus = max(shape.values())
    truth = replace(truth, hardware=replace(truth.hardware, gpus_per_node=gpus))
    believed = replace(COSTS, hardware=replace(HARDWARE, gpus_per_node=gpus))
    step = 675 if gpus == 2 else 500  # complexes that need more than a node
    big = [task(n, f"{n}/{i}") for n in range(9_000, 9_000 + 20 * step, step) for i in range(4)]
    work = [*tasks(60, 5, 1_500), *big]
    knew = Simulation(work, truth, shape, SETTINGS).run()
    learned = Simulation(work, truth, shape, SETTINGS, believed=believed).run()
    audit(learned, work, shape)
    assert learned.now < 1.05 * knew.now
    if "bytes_per_s" in slow:
        monkeypatch.setattr(Scheduler, "_plan_again", lambda self, now: None)
        ignorant = Simulation(work, truth, shape, SETTINGS, believed=believed).run()
        assert ignorant.now > 1.15 * knew.now


def test_time_left_is_right_after_a_fifth_of_the_folds() -> None:
    work = tasks(200, 7, 1_500)
    simulation = Simulation(work, TWICE, NODE, SETTINGS, believed=COSTS)
    scheduler = simulation.scheduler
    estimates: list[tuple[float, float]] = []
    finished = scheduler.finished

    def recorded(group_id: int, now: float, *results: Any) -> list[Action]:
        actions = finished(group_id, now, *results)
        left = scheduler.work_left(now) * scheduler.slowdown / 8
        estimates.append((now, left))
        return actions

    scheduler.finished = recorded  # type: ignore[method-assign]
    simulation.run()
    now, left = estimates[40]
    assert now + left == pytest.approx(simulation.now, rel=0.15)


def test_neighbours_of_a_fold_that_ran_out_of_memory_get_more_ranks() -> None:
    # Another process holds most of the memory.
    truth = replace(COSTS, hardware=replace(HARDWARE, memory_gb=45))
    work = [task(n, f"{n}/{i}") for n in range(7_000, 13_000, 250) for i in range(3)]
    simulation = Simulation(work, truth, NODE, SETTINGS, believed=COSTS).run()
    audit(simulation, work, NODE)
    scheduler = simulation.scheduler
    assert all(isinstance(outcome, Done) for outcome in scheduler.outcomes.values())
    assert 0 < sum(attempt.outcome == "oom" for attempt in scheduler.attempts) <= 16
    first = {a.task.key: a.shape.precision for a in reversed(scheduler.attempts)}
    assert first == {t.key: first_precision(COSTS, t) for t in work}


def test_learned_times_of_faults_do_not_break_a_run() -> None:
    work = tasks(150, 11)
    faults = Faults(seed=3, speed_spread=0.8, memory_spread=0.3, worker_died=0.02)
    simulation = Simulation(work, TWICE, NODE, SETTINGS, faults, believed=COSTS).run()
    audit(simulation, work, NODE)
