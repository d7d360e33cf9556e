"""Whole runs of the scheduler in virtual time.

No task is lost, doubled or double-booked, and the makespan is near the lower bound.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from time import perf_counter

import pytest

from foldcp.pipeline.inputs.tasks import Done, Failed
from foldcp.pipeline.scheduling.group_size import cost_cache, lower_bound, smallest_shape
from foldcp.pipeline.scheduling.scheduler import Scheduler
from foldcp.pipeline.scheduling.simulation.simulator import Faults
from foldcp.pipeline.scheduling.types import Action, Fold, Start
from tests.support.scheduling import COSTS, NODE, SETTINGS, audit, simulate, task, tasks

CLUSTERS = [
    {"a": 8},
    {"a": 3},
    {"a": 1},
    {"a": 8, "b": 8},
    {"a": 4, "b": 8, "c": 5},
    {f"n{i}": 8 for i in range(4)},
]


@pytest.mark.parametrize("seed", range(12))
def test_faults_lose_and_double_no_task(seed: int) -> None:
    nodes = CLUSTERS[seed % len(CLUSTERS)]
    work = tasks(150, seed, scale=2500)
    faults = Faults(
        seed,
        worker_died=0.08,
        timeout=0.03,
        error=0.04,
        invalid=0.03,
        memory_spread=0.4,
        speed_spread=0.5,
        no_start=0.05,
        lost_nodes=((3000.0, "b"), (9000.0, "n2")) if seed % 2 else (),
    )
    simulation = simulate(work, nodes, faults)
    audit(simulation, work, nodes)
    assert {a.outcome for a in simulation.scheduler.attempts} >= {
        "done",
        "worker_died",
        "error",
    }


@pytest.mark.parametrize("seed", range(12))
def test_worker_failures_alone_lose_no_task(seed: int) -> None:
    work = tasks(120, seed)
    nodes = CLUSTERS[seed % len(CLUSTERS)]
    simulation = simulate(
        work, nodes, Faults(seed, worker_died=0.08, timeout=0.02), replace(SETTINGS, retries=12)
    )
    audit(simulation, work, nodes)
    fitting = {t.key for t in work if smallest_shape(COSTS, t, sum(nodes.values()))}
    assert {
        key for key, outcome in simulation.scheduler.outcomes.items() if isinstance(outcome, Done)
    } == fitting


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("number", "scale"), [(400, 1200), (60, 4000), (15, 9000)])
def test_makespan_is_near_the_lower_bound(seed: int, number: int, scale: float) -> None:
    work = tasks(number, seed, scale)
    simulation = simulate(work)
    audit(simulation, work, NODE)
    costs = cost_cache(COSTS, 8, SETTINGS)
    fitting = [(t, shape) for t in work if (shape := smallest_shape(COSTS, t, 8))]
    bound = lower_bound(costs, fitting, 8)
    start = COSTS.hardware.start_seconds
    assert bound < simulation.now < {400: 1.02, 60: 1.08, 15: 1.25}[number] * bound + 3 * start
    if number == 400:
        assert simulation.busy_seconds / simulation.now / 8 > 0.95


def test_large_groups_come_first_and_warm_groups_are_reused() -> None:
    work = [*tasks(60, 1, 700, 0.2), task(17_000, "big1"), task(17_500, "big2")]
    simulation = simulate(work)
    folds = [action for _, action in simulation.log if isinstance(action, Fold)]
    assert folds[0].task.key in ("big1", "big2")
    starts = [action for _, action in simulation.log if isinstance(action, Start)]
    assert len(starts) <= 12  # not one per fold


def test_too_large_task_fails_before_the_start() -> None:
    scheduler = Scheduler([task(90_000), task(300)], COSTS, NODE, replace(SETTINGS, max_group=4))
    outcome = scheduler.outcomes["90000"]
    assert isinstance(outcome, Failed)
    assert outcome.attempt == 0
    assert "on each of 4 GPUs" in outcome.reason


def test_max_group_holds_even_when_gpus_are_idle() -> None:
    simulation = simulate(tasks(10, 0, 5_000, 0.3), settings=replace(SETTINGS, max_group=3))
    assert max(a.shape.num_ranks for a in simulation.scheduler.attempts) <= 3


def test_thousands_of_tasks_are_scheduled_in_seconds() -> None:
    work = tasks(2_000, 9, 1_000, 1.0)
    nodes = {f"n{i}": 8 for i in range(8)}
    began = perf_counter()
    simulation = simulate(work, nodes)
    assert perf_counter() - began < 20
    audit(simulation, work, nodes)


def test_next_tasks_foresees_what_is_folded_next(monkeypatch: pytest.MonkeyPatch) -> None:
    known: set[str] = set()
    foreseen: Counter[bool] = Counter()
    decide = Scheduler.decide

    def watched(self: Scheduler, now: float) -> list[Action]:
        actions = decide(self, now)
        for action in actions:
            if isinstance(action, Fold):
                members = [action.task, *(other.task for other in action.others)]
                foreseen.update(member.key in known for member in members)
        known.clear()
        known.update(task.key for task, _ in self.next_tasks())
        return actions

    monkeypatch.setattr(Scheduler, "decide", watched)
    simulate(tasks(300, 5))
    assert foreseen[True] + foreseen[False] == 300
    assert foreseen[True] > 240
