"""Properties of runs on random clusters with random failures, losses and joins of nodes."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foldcp.pipeline.inputs.tasks import Done, Failed
from foldcp.pipeline.scheduling.group_size import smallest_shape
from foldcp.pipeline.scheduling.simulation.simulator import Faults, Simulation
from foldcp.pipeline.scheduling.types import Action
from tests.support.scheduling import COSTS, SETTINGS, audit, simulate, task, tasks

RUNS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SHAPES = st.lists(st.integers(1, 9), min_size=1, max_size=6)
SHARE = st.sampled_from([0.0, 0.0, 0.02, 0.1, 0.3])


def nodes_of(shape: list[int]) -> dict[str, int]:
    return {f"n{index}": size for index, size in enumerate(shape)}


@st.composite
def changes(draw: st.DrawFn, nodes: dict[str, int]) -> Faults:
    """Probabilities of faults, and the times at which nodes are lost and others join."""
    time = st.floats(0, 20_000)
    lost = draw(st.lists(st.tuples(time, st.sampled_from(sorted(nodes))), max_size=4))
    joins = draw(st.lists(st.tuples(time, st.integers(1, 9)), max_size=3))
    return Faults(
        seed=draw(st.integers(0, 1000)),
        worker_died=draw(SHARE),
        timeout=draw(SHARE),
        error=draw(SHARE),
        invalid=draw(SHARE),
        no_start=draw(SHARE),
        memory_spread=draw(st.sampled_from([0.0, 0.3])),
        speed_spread=draw(st.sampled_from([0.0, 0.5])),
        lost_nodes=tuple(lost),
        new_nodes=tuple((when, f"x{index}", gpus) for index, (when, gpus) in enumerate(joins)),
    )


@RUNS
@given(data=st.data(), shape=SHAPES, number=st.integers(1, 60), scale=st.floats(300, 9000))
def test_every_complex_ends_once_whatever_happens(
    data: st.DataObject, shape: list[int], number: int, scale: float
) -> None:
    nodes = nodes_of(shape)
    faults = data.draw(changes(nodes))
    work = tasks(number, data.draw(st.integers(0, 1000)), scale)
    # `run` asserts that there is no deadlock, and `audit` that no GPU is taken twice, no complex is
    # folded twice at once and none has two results.
    simulation = simulate(work, nodes, faults)
    joined = {node: count for _, node, count in faults.new_nodes}
    audit(simulation, work, nodes | joined, is_stable=False)
    scheduler = simulation.scheduler
    if scheduler.stopped:
        return
    for outcome in scheduler.outcomes.values():
        if isinstance(outcome, Failed):
            assert outcome.reason
    # The loss of a node fails no complex: without other faults only those fail that fit nowhere.
    if faults == Faults(faults.seed, lost_nodes=faults.lost_nodes, new_nodes=faults.new_nodes):
        for outcome in scheduler.outcomes.values():
            if isinstance(outcome, Failed):
                assert "it needs" in outcome.reason or "no number of GPUs" in outcome.reason


@RUNS
@given(
    shape=SHAPES, number=st.integers(1, 80), seed=st.integers(0, 1000), scale=st.floats(300, 9e3)
)
def test_calm_runs_fold_all_that_fits_with_groups_that_pay_off(
    shape: list[int], number: int, seed: int, scale: float
) -> None:
    nodes = nodes_of(shape)
    work = tasks(number, seed, scale)
    simulation = simulate(work, nodes)
    audit(simulation, work, nodes)
    scheduler = simulation.scheduler
    num_gpus = sum(shape)
    smallest = {t.key: smallest_shape(COSTS, t, num_gpus) for t in work}
    done = {key for key, outcome in scheduler.outcomes.items() if isinstance(outcome, Done)}
    assert done == {key for key, found in smallest.items() if found}
    for attempt in scheduler.attempts:
        least = smallest[attempt.task.key]
        assert least is not None
        assert attempt.shape.precision == least.precision
        assert attempt.shape.num_ranks >= least.num_ranks


@given(shape=st.lists(st.integers(1, 8), min_size=2, max_size=5), seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_large_complex_is_not_starved_by_small_ones(shape: list[int], seed: int) -> None:
    nodes = nodes_of([*shape, 8])
    last = f"n{len(shape)}"
    num_gpus = sum(nodes.values())
    # So large that it needs every GPU: it is parked until the lost node is replaced.
    giant = next(
        task(size, "giant")
        for size in range(100_000, 1_000, -500)
        if (found := smallest_shape(COSTS, task(size), num_gpus)) and found.num_ranks > sum(shape)
    )
    small = tasks(600, seed, 2_500, 0.3)
    faults = Faults(seed, lost_nodes=((1.0, last),), new_nodes=((500.0, "new", 8),))
    patient = replace(SETTINGS, node_wait=1e6)
    simulation = simulate([giant, *small], nodes, faults, patient)
    audit(simulation, [giant, *small], nodes | {"new": 8}, is_stable=False)
    begun = min(a.started for a in simulation.scheduler.attempts if a.task.key == "giant")
    longest = max(a.ended - a.started for a in simulation.scheduler.attempts if a.task != giant)
    assert begun < 500.0 + longest + 3 * COSTS.hardware.start_seconds


def test_groups_do_not_grow_beyond_what_pays_off() -> None:
    nodes = nodes_of([8] * 16)
    work = [task(30_000, "giant"), *(task(500, f"{index}") for index in range(3))]
    sizes: dict[float, Counter[str]] = {}
    for efficiency in (0.0, 0.4, 0.9):
        simulation = simulate(work, nodes, settings=replace(SETTINGS, efficiency=efficiency))
        sizes[efficiency] = Counter()
        for attempt in simulation.scheduler.attempts:
            sizes[efficiency][attempt.task.key] = attempt.shape.num_ranks
    assert sizes[0.0]["giant"] > sizes[0.4]["giant"] > sizes[0.9]["giant"]
    assert all(sizes[0.9][f"{index}"] == 1 for index in range(3))


def test_decisions_look_at_few_of_many_tasks() -> None:
    assert mean_calls(20_000) < 4_000


def mean_calls(number: int) -> float:
    """Calls of functions in a decision, in the mean of 300, once all GPUs are taken."""
    nodes = nodes_of([8] * 32)
    # Sizes that occur often, as in a screen: their costs are computed once.
    work = [task(300 + 10 * (index % 90), f"{index}") for index in range(number)]
    work += [task(9_000 + 500 * (index % 20), f"large{index}") for index in range(number // 20)]
    simulation = Simulation(work, COSTS, nodes, SETTINGS)
    decide = simulation.scheduler.decide
    num_decisions = 0
    num_calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal num_calls
        num_calls += event in ("call", "c_call")

    def counted(now: float) -> list[Action]:
        nonlocal num_decisions
        if 100 <= num_decisions < 400:
            sys.setprofile(count)
        actions = decide(now)
        sys.setprofile(None)
        num_decisions += 1
        if num_decisions == 400:
            simulation.scheduler.stop("enough decisions")
        return actions

    simulation.scheduler.decide = counted  # type: ignore[method-assign]
    simulation.run()
    return num_calls / 300
