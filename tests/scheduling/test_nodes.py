"""Nodes that are lost, join, or are bad, and complexes that only make them look so."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest

from foldcp.pipeline.inputs.tasks import Done, Failed
from foldcp.pipeline.scheduling.node_health import BAD, DOUBTFUL, MAX_PAUSE, PROBATION, NodeHealth
from foldcp.pipeline.scheduling.scheduler import Scheduler
from foldcp.pipeline.scheduling.simulation.simulator import Faults, Simulation
from foldcp.pipeline.scheduling.types import Failure, FailureKind, Fold, GroupState, Start
from tests.support.scheduling import COSTS, SETTINGS, audit, driven, simulate, task, tasks

ALONE = replace(SETTINGS, batch=1)


def test_groups_that_never_start_stop_the_run_and_fail_no_task() -> None:
    work = tasks(5, 0)
    simulation = simulate(work, {"a": 1}, Faults(no_start=1.0))
    audit(simulation, work, {"a": 1})
    scheduler = simulation.scheduler
    assert "groups fail on a again and again" in scheduler.stopped
    assert not scheduler.outcomes
    assert not scheduler.attempts
    starts = [time for time, action in simulation.log if isinstance(action, Start)]
    assert len(starts) == BAD
    pauses = [after - before - COSTS.hardware.start_seconds for before, after in pairwise(starts)]
    assert pauses == sorted(pauses)
    assert MAX_PAUSE < sum(pauses) < 3 * MAX_PAUSE + 10


class NoRoom(Simulation):
    """Ray places no group before a time."""

    end = 400.0

    def _start(self, action: Start) -> None:
        if self.now < self.end:
            self._schedule(self.now + 15.0, "failed", action.group, "no_room")
        else:
            super()._start(action)


@pytest.mark.parametrize("nodes", [{"a": 1}, {"a": 2, "b": 2, "c": 2}])
def test_groups_wait_until_ray_places_groups_again(nodes: dict[str, int]) -> None:
    work = tasks(40, 0)
    simulation = NoRoom(work, COSTS, nodes, SETTINGS).run()
    audit(simulation, work, nodes)
    scheduler = simulation.scheduler
    assert all(isinstance(outcome, Done) for outcome in scheduler.outcomes.values())
    assert set(scheduler.cluster.nodes) == set(nodes)
    starts = [time for time, action in simulation.log if isinstance(action, Start)]
    assert sum(time < 400.0 for time in starts) > BAD  # it looks often
    assert min(time for time in starts if time > 400.0) < 400.0 + MAX_PAUSE + 1.0


def test_run_without_room_stops_when_it_has_waited_long_enough() -> None:
    work = tasks(40, 0)
    never = NoRoom(work, COSTS, {"a": 1}, SETTINGS)
    never.end = math.inf
    never.run()
    assert "groups fail on a again and again" in never.scheduler.stopped
    assert not never.scheduler.attempts
    assert SETTINGS.node_wait < never.now < SETTINGS.node_wait + 2 * MAX_PAUSE


class SharedNodes(Simulation):
    """Another job has some GPUs of each node for ever, which Ray counts among the node's."""

    held = 1

    def _start(self, action: Start) -> None:
        for node, count in action.placement:
            groups = self.scheduler.groups.on_node(node)
            others = [group for group in groups if group.id != action.group]
            used = sum(dict(group.placement)[node] for group in others if group.state != "starting")
            if used + count > self.scheduler.cluster.nodes[node] - self.held:
                self._schedule(self.now + 15.0, "failed", action.group, "no_room")
                return
        super()._start(action)


MIXED = [500 + 120 * i for i in range(100)]
LARGE = [12_000] * 40


@pytest.mark.parametrize(
    ("sizes", "nodes", "held", "num_lost"),
    [
        (MIXED, {"a": 8}, 1, 0),
        (MIXED, {"a": 8}, 4, 0),
        (MIXED, {"a": 8, "b": 8}, 4, 0),
        (MIXED, {"a": 8}, 1, 1),
        (LARGE, {"a": 8}, 1, 0),
        (LARGE, {"a": 8}, 4, 0),
        (LARGE, {"a": 8}, 1, 1),
        (LARGE, {"a": 8, "b": 8}, 4, 0),
        (LARGE, {"a": 8, "b": 8}, 6, 0),
        (LARGE, {"a": 8, "b": 8, "c": 8}, 5, 1),
    ],
)
def test_what_fits_beside_another_job_is_folded(
    sizes: list[int], nodes: dict[str, int], held: int, num_lost: int
) -> None:
    work = [task(size, f"{i}") for i, size in enumerate(sizes)]
    work += [task(38_000, "giant")] * num_lost
    shared = SharedNodes(work, COSTS, nodes, SETTINGS)
    shared.held = held
    shared.run()
    outcomes = shared.scheduler.outcomes
    num_done = sum(isinstance(outcome, Done) for outcome in outcomes.values())
    assert num_done == len(work) - num_lost
    assert {attempt.outcome for attempt in shared.scheduler.attempts} <= {"done", "stopped"}


def test_time_without_room_by_hand() -> None:
    health = NodeHealth(patience=600.0)
    failure = Failure("no_room", "Ray gave no GPUs")

    def no_room(now: float) -> None:
        group = GroupState(1, (("a", 1),), "starting", now - 15.0, math.inf)
        health.start_failed(group, failure, now)

    for now in range(15, 615, 60):
        no_room(now)
        assert not health.is_bad("a")
        assert ("a" in health.doubtful()) == (now >= 15 + 60 * (DOUBTFUL - 1))
    no_room(616.0)
    assert health.is_bad("a")
    health.put_on_probation("a", 1, 616.0)
    assert not health.is_bad("a")
    for now in (700.0, 1_500.0, 2_300.0, 3_100.0, 3_900.0, 4_700.0, 5_500.0):
        no_room(now)  # nothing was tried in between
        assert not health.is_bad("a")
    for now in range(5_560, 6_160, 60):
        health.started(["a"])
        no_room(now)
    assert not health.is_bad("a") and "a" not in health.doubtful()


def test_tasks_too_large_for_the_nodes_left_wait_for_nodes_and_then_fail() -> None:
    nodes = {"a": 8, "b": 8}
    work = [task(42_000, "giant"), task(25_000, "big"), *tasks(30, 3, 900)]
    simulation = simulate(work, nodes, Faults(lost_nodes=((100.0, "a"),)))
    audit(simulation, work, nodes)
    scheduler = simulation.scheduler
    outcome = scheduler.outcomes["giant"]
    assert isinstance(outcome, Failed)
    assert "42000 tokens in bf16 need at least 157 GB on each of 8 GPUs" in outcome.reason
    assert "it needs 10 GPUs, or 8 with model.precision=bf16-int8; no node" in outcome.reason
    assert outcome.reason.endswith("no node came within 600 s (run.node_wait)")
    others = [outcome for key, outcome in scheduler.outcomes.items() if key != "giant"]
    assert all(isinstance(outcome, Done) for outcome in others)
    assert all(
        node == "b" for a in scheduler.attempts if a.started > 100 for node, _ in a.placement
    )


def test_run_without_any_node_waits_and_then_stops() -> None:
    nodes = {"a": 8, "b": 8}
    work = [task(42_000, "giant"), task(25_000, "big"), *tasks(30, 3, 900)]
    empty = simulate(work, nodes, Faults(lost_nodes=((100.0, "a"), (200.0, "b"))))
    audit(empty, work, nodes)
    scheduler = empty.scheduler
    assert not any(isinstance(outcome, Failed) for outcome in scheduler.outcomes.values())
    assert scheduler.stopped == "no node is left: node b is gone, and none came within 600 s"
    assert empty.now == 200.0 + SETTINGS.node_wait


def test_add_node_starts_tasks_that_waited_for_it() -> None:
    scheduler = Scheduler(
        [task(42_000, "giant"), task(300, "small")], COSTS, {"a": 8, "b": 8}, SETTINGS
    )
    scheduler.lose_node("a", "node a is gone", 0.0)
    (start,) = scheduler.decide(0.0)
    assert isinstance(start, Start)
    scheduler.add_node("c", 8, 0.5)
    scheduler.ready(start.group, 1.0)
    (fold,) = scheduler.decide(1.0)
    assert isinstance(fold, Fold)
    scheduler.finished(fold.group, 2.0)
    (stop,) = scheduler.decide(2.0)
    scheduler.freed(stop.group)
    (wide,) = scheduler.decide(3.0)
    assert isinstance(wide, Start)
    assert {node for node, _ in wide.placement} == {"b", "c"}
    assert not scheduler.stopped


class Poisoned(Simulation):
    """Some complexes end every group that folds them."""

    def __init__(
        self,
        poison: set[str],
        *args: object,
        kind: FailureKind = "worker_died",
        **kwargs: object,
    ) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.poison = poison
        self.kind = kind

    def _fold(self, action: Fold) -> None:
        if action.task.key in self.poison:
            self._schedule(self.now + 1.0, "failed", action.group, self.kind)
        else:
            super()._fold(action)


@pytest.mark.parametrize("num_gpus", [1, 4, 8])
@pytest.mark.parametrize("num_poisoned", [3, 7, 20])
@pytest.mark.parametrize("kind", ["worker_died", "error"])
def test_tasks_that_end_their_groups_fail_alone(
    num_gpus: int, num_poisoned: int, kind: FailureKind
) -> None:
    # The largest come first, so those at fault are in a row before anything is done.
    poison = [task(4_000, f"bad{i}") for i in range(num_poisoned)]
    work = [*poison, *(task(400, f"good{i}") for i in range(20))]
    nodes = {"a": num_gpus}
    simulation = Poisoned({t.key for t in poison}, work, COSTS, nodes, SETTINGS, kind=kind).run()
    audit(simulation, work, nodes)
    scheduler = simulation.scheduler
    assert not scheduler.stopped
    failed = {key for key, outcome in scheduler.outcomes.items() if isinstance(outcome, Failed)}
    assert failed == {t.key for t in poison}
    for key in failed:
        groups = [attempt.group for attempt in scheduler.attempts if attempt.task.key == key]
        assert len(groups) == len(set(groups)) == 2


def test_tasks_that_all_fail_stop_the_run_and_fail_after_a_resume() -> None:
    poison = [task(900 + i, f"bad{i}") for i in range(30)]
    first = Poisoned({t.key for t in poison}, poison, COSTS, {"a": 1}, ALONE).run().scheduler
    assert "again and again" in first.stopped
    assert not first.outcomes  # a node that did nothing right proves nothing
    lost = {attempt.task.key for attempt in first.attempts}
    assert len(lost) == BAD
    # The same complexes again, which are known to have lost a group: now they are at fault.
    remaining = [t for t in poison if t.key in lost]
    second = Poisoned(lost, remaining, COSTS, {"a": 1}, SETTINGS)
    second.scheduler = Scheduler(remaining, COSTS, {"a": 1}, SETTINGS, suspects=lost)
    scheduler = second.run().scheduler
    assert not scheduler.stopped
    assert {type(outcome) for outcome in scheduler.outcomes.values()} == {Failed}


def test_bad_node_is_on_probation_and_its_tasks_are_done_elsewhere() -> None:
    class BadNode(Simulation):
        def _fold(self, action: Fold) -> None:
            if "b" in dict(self.scheduler.groups[action.group].placement):
                self._schedule(self.now + 1.0, "failed", action.group, "error")
            else:
                super()._fold(action)

    work = [task(800, f"{i}") for i in range(300)]
    nodes = {"a": 2, "b": 2}
    simulation = BadNode(work, COSTS, nodes, ALONE).run()
    audit(simulation, work, nodes)
    scheduler = simulation.scheduler
    assert all(isinstance(outcome, Done) for outcome in scheduler.outcomes.values())
    assert set(scheduler.cluster.nodes) == {"a"}
    on_b = [attempt for attempt in scheduler.attempts if "b" in dict(attempt.placement)]
    assert DOUBTFUL <= len(on_b) <= 2 * BAD
    second_tries = [a for a in scheduler.attempts if a.number == 2]
    assert second_tries
    assert all("a" in dict(a.placement) for a in second_tries)


def test_node_that_recovers_is_used_again_after_its_probation() -> None:
    class Recovering(Simulation):
        def _fold(self, action: Fold) -> None:
            on_b = "b" in dict(self.scheduler.groups[action.group].placement)
            if on_b and self.now < 400.0:
                self._schedule(self.now + 1.0, "failed", action.group, "error")
            else:
                super()._fold(action)

    work = [task(2_500, f"{i}") for i in range(200)]
    nodes = {"a": 2, "b": 2}
    simulation = Recovering(work, COSTS, nodes, SETTINGS).run()
    audit(simulation, work, nodes)
    scheduler = simulation.scheduler
    assert all(isinstance(outcome, Done) for outcome in scheduler.outcomes.values())
    on_b = [a.started for a in scheduler.attempts if "b" in dict(a.placement)]
    late = [time for time in on_b if time > 400.0]
    assert len(late) > 30
    pauses = [after - before for before, after in pairwise(on_b)]
    assert PROBATION < max(pauses) < 2 * PROBATION


def test_loss_of_nodes_again_and_again_fails_no_complex() -> None:
    work = [task(9_000, "long")]
    times = [100.0 + 200.0 * i for i in range(6)]
    faults = Faults(
        lost_nodes=tuple((time, f"n{i}") for i, time in enumerate(times)),
        new_nodes=tuple((time + 50.0, f"n{i + 1}", 1) for i, time in enumerate(times)),
    )
    simulation = simulate(work, {"n0": 1}, faults)
    scheduler = simulation.scheduler
    assert isinstance(scheduler.outcomes["long"], Done)
    assert [attempt.outcome for attempt in scheduler.attempts] == ["worker_died"] * 6 + ["done"]


def test_lose_node_keeps_the_other_node_of_a_group() -> None:
    scheduler, fold = driven([task(42_000, "giant"), task(300, "small")], {"a": 8, "b": 8})
    assert len(scheduler.groups[fold.group].placement) == 2
    scheduler.lose_node("a", "node a is gone", 20.0)
    assert scheduler.attempts[-1].outcome == "worker_died"
    scheduler.freed(fold.group)
    (start,) = scheduler.decide(21.0)
    assert isinstance(start, Start)
    assert start.placement[0][0] == "b"


def test_node_health_by_hand() -> None:
    health = NodeHealth(patience=600.0)
    for number in range(DOUBTFUL):
        assert not health.doubtful()
        for later in (
            0,
            1,
            500,
        ):  # what fails in the pause counts as one, and the same complex counts once
            name = "of the pause" if later == 1 else f"{number}"
            health.failed("a", 1_000.0 * number + later / 2, name)
        health.failed("b", 1_000.0 * number, f"{number}")
    assert health.doubtful() == {"a", "b"}
    health.succeeded(["b"])
    assert health.doubtful() == {"a"}
    for number in range(DOUBTFUL, BAD):
        assert not health.is_bad("a")
        health.failed("a", 1_000.0 * number, f"{number}")
        health.failed("b", 1_000.0 * number, f"{number}")
    assert health.is_bad("a")
    health.forget("a")  # and what b failed at together with it is a's fault
    assert not health.doubtful()
    health.succeeded(["b"])
    now = 0.0
    for seconds in (1.0, 2.0, 4.0, 8.0, 16.0, MAX_PAUSE, MAX_PAUSE):
        health.pause("b", now)
        health.pause("b", now + seconds / 2)  # changes nothing
        assert health.next_change(now) == now + seconds
        assert health.paused(now + 0.9 * seconds) == {"b"}
        now += seconds
        assert not health.paused(now)
    assert health.next_change(now) == math.inf
