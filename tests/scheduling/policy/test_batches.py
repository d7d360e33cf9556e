"""Small complexes that one GPU folds together: when, and what follows when they fail."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from foldcp.complex import Contact
from foldcp.pipeline.config import load
from foldcp.pipeline.inputs.tasks import Done, Failed, Task
from foldcp.pipeline.scheduling.cost_model import CostModel
from foldcp.pipeline.scheduling.costs.learning import differs
from foldcp.pipeline.scheduling.group_size import MAX_BATCH, cost_cache, initial_shape
from foldcp.pipeline.scheduling.hardware import load_hardware
from foldcp.pipeline.scheduling.scheduler import Scheduler
from foldcp.pipeline.scheduling.simulation.simulator import Faults, Simulation
from foldcp.pipeline.scheduling.types import (
    Attempt,
    Failure,
    FailureKind,
    Fold,
    FoldStep,
    Start,
    Stop,
)
from tests.support.scheduling import ANY, COSTS, NODE, SETTINGS, audit, simulate, task

ALONE = replace(SETTINGS, batch=1)


def small(number: int, num_tokens: int = 256) -> list[Task]:
    return [task(num_tokens, f"{index:04}") for index in range(number)]


def batches(simulation: Simulation) -> list[int]:
    """The sizes of the folds, in their order."""
    return [1 + len(a.others) for _, a in simulation.log if isinstance(a, Fold)]


def attempts_of(scheduler: Scheduler, key: str) -> list[Attempt]:
    return [attempt for attempt in scheduler.attempts if attempt.task.key == key]


def test_small_complexes_are_folded_together_and_large_ones_alone() -> None:
    cache = cost_cache(COSTS, 8, SETTINGS)
    sizes = {
        n: cache.batch(task(n), initial_shape(COSTS, 1, "mixed")) for n in (100, 256, 512, 3000)
    }
    assert sizes[100] == MAX_BATCH
    assert sizes[256] >= 4
    assert sizes[100] >= sizes[256] >= sizes[512] >= sizes[3000] == 1
    assert cache.batch(task(100), initial_shape(COSTS, 2, "mixed")) == 1


def test_batches_shorten_a_run_and_leave_no_gpu_idle() -> None:
    work = small(800)
    together = simulate(work)
    audit(together, work, NODE)
    alone = simulate(work, settings=ALONE)
    assert together.now < 0.85 * alone.now
    assert together.busy_seconds / together.now / 8 > 0.7 * alone.busy_seconds / alone.now / 8
    sizes = batches(together)
    assert max(sizes) > 4
    assert sizes[-1] < max(sizes)  # the last ones are shared by all GPUs
    assert set(batches(alone)) == {1}


@pytest.mark.parametrize("number", [1, 5, 8, 15])
def test_no_batch_while_other_gpus_would_be_idle(number: int) -> None:
    work = small(number)
    assert set(batches(simulate(work))) == {1}


def test_a_setting_limits_batches() -> None:
    assert max(batches(simulate(small(400), settings=replace(SETTINGS, batch=3)))) == 3
    cpu = CostModel(load_hardware("cpu"), load())
    shape = initial_shape(cpu, 1, "fp32")
    assert cost_cache(cpu, 2, SETTINGS).batch(task(100), shape) == 1  # nothing is gained there
    assert cost_cache(cpu, 2, replace(SETTINGS, batch=4)).batch(task(100), shape) == 4
    steered = CostModel(COSTS.hardware, load(overrides=["model.potentials=true"]))
    assert cost_cache(steered, 8, SETTINGS).batch(task(100), shape) == 1


def test_memory_limits_batches() -> None:
    little = replace(COSTS, hardware=replace(COSTS.hardware, memory_gb=8.0))
    shape = initial_shape(COSTS, 1, "mixed")
    size = cost_cache(little, 8, SETTINGS).batch(task(256), shape)
    assert 1 <= size < cost_cache(COSTS, 8, SETTINGS).batch(task(256), shape)
    if size > 1:
        together = replace(shape, batch=size)
        assert little.peak_bytes(task(256), together) <= 8e9


def test_only_complexes_of_like_size_without_forces_share_a_batch() -> None:
    forced = replace(ANY, contacts=(Contact(("A", 1), ("A", 3), force=True),))
    work = [*small(100, 400), *(task(150, f"s{index}") for index in range(100))]
    work += [Task(forced, f"f{index}", 400, 500) for index in range(20)]
    simulation = simulate(work, {"a": 1})
    audit(simulation, work, {"a": 1})
    for _, fold in simulation.log:
        if isinstance(fold, Fold) and fold.others:
            tokens = [fold.task.num_tokens, *(other.task.num_tokens for other in fold.others)]
            assert max(tokens) == tokens[0] <= min(tokens) / 0.85
            assert not any(key.startswith("f") for key in _keys(fold))
    assert max(batches(simulation)) > 1


def _keys(fold: Fold) -> list[str]:
    return [fold.task.key, *(other.task.key for other in fold.others)]


@pytest.mark.parametrize("kind", ["worker_died", "error", "timeout"])
def test_only_the_complex_that_fails_alone_is_blamed(kind: FailureKind) -> None:
    work = small(120)
    simulation = simulate(work, {"a": 1}, Faults(tasks={"0050": (kind, 99)}))
    audit(simulation, work, {"a": 1})
    scheduler = simulation.scheduler
    failed = [key for key, found in scheduler.outcomes.items() if isinstance(found, Failed)]
    assert failed == ["0050"]
    own = attempts_of(scheduler, "0050")
    assert own[0].shape.batch > 1
    # After the batch it has as many attempts of its own as any other complex.
    assert [attempt.shape.batch for attempt in own[1:]] == [1] * (1 + SETTINGS.retries)
    with_it = [a for a in scheduler.attempts if a.started == own[0].started]
    assert len(with_it) == own[0].shape.batch
    for attempt in with_it:
        if attempt.task.key != "0050":
            again = attempts_of(scheduler, attempt.task.key)
            assert [(a.outcome, a.shape.batch) for a in again[1:]] == [("done", 1)]
    assert not scheduler.stopped


def test_a_batch_out_of_memory_is_taken_apart_and_later_ones_are_smaller() -> None:
    work = small(600)
    simulation = simulate(work, {"a": 1}, Faults(folds={2: "oom"}))
    audit(simulation, work, {"a": 1})
    assert all(isinstance(found, Done) for found in simulation.scheduler.outcomes.values())
    assert not any(a.fallbacks for a in simulation.scheduler.attempts)
    sizes = batches(simulation)
    assert max(sizes[2:]) < sizes[1]


def test_an_invalid_member_costs_the_others_nothing() -> None:
    work = small(200)
    simulation = simulate(work, {"a": 1}, Faults(seed=3, invalid=0.03))
    audit(simulation, work, {"a": 1})
    scheduler = simulation.scheduler
    failed = {key for key, found in scheduler.outcomes.items() if isinstance(found, Failed)}
    counts = Counter(attempt.task.key for attempt in scheduler.attempts)
    assert failed
    assert all(count == 1 for key, count in counts.items() if key not in failed)
    assert all(attempts_of(scheduler, key)[-1].shape.batch == 1 for key in failed)


def test_a_lost_node_blames_no_member_of_a_batch() -> None:
    work = small(400)
    nodes = {"a": 2, "b": 2}
    simulation = simulate(work, nodes, Faults(lost_nodes=((60.0, "b"),)))
    audit(simulation, work, nodes, is_stable=False)
    assert all(isinstance(found, Done) for found in simulation.scheduler.outcomes.values())
    lost = [a for a in simulation.scheduler.attempts if a.outcome == "worker_died"]
    assert max(attempt.shape.batch for attempt in lost) > 1
    again = {a.task.key for a in lost}
    later = [a for a in simulation.scheduler.attempts if a.started > 60 and a.task.key in again]
    assert max(attempt.shape.batch for attempt in later) > 1  # not run alone: nobody is to blame


def test_a_node_on_which_batches_fail_is_on_probation() -> None:
    class BadNode(Simulation):
        def _fold(self, action: Fold) -> None:
            if "b" in dict(self.scheduler.groups[action.group].placement):
                self._schedule(self.now + 1.0, "failed", action.group, "error")
            else:
                super()._fold(action)

    work = small(3_000)
    nodes = {"a": 2, "b": 2}
    simulation = BadNode(work, COSTS, nodes, SETTINGS).run()
    audit(simulation, work, nodes)
    scheduler = simulation.scheduler
    assert all(isinstance(outcome, Done) for outcome in scheduler.outcomes.values())
    assert set(scheduler.cluster.nodes) == {"a"}


def folding_batch(number: int = 64) -> tuple[Scheduler, Fold]:
    """A scheduler whose only group folds a batch, of so many tasks."""
    scheduler = Scheduler(small(number), COSTS, {"a": 1}, SETTINGS)
    for action in scheduler.decide(0.0):
        assert isinstance(action, Start)
        scheduler.ready(action.group, 10.0)
    (fold,) = scheduler.decide(10.0)
    assert isinstance(fold, Fold)
    assert fold.others
    return scheduler, fold


def test_complexes_of_failed_batches_of_an_earlier_run_are_folded_alone() -> None:
    alone = {"0003", "0050"}
    scheduler = Scheduler(small(64), COSTS, {"a": 1}, SETTINGS, alone=alone)
    (start,) = scheduler.decide(0.0)
    assert isinstance(start, Start)
    scheduler.ready(start.group, 10.0)
    now = 10.0
    folds: list[Fold] = []
    while len(scheduler.outcomes) < 64:
        (fold,) = scheduler.decide(now)
        assert isinstance(fold, Fold)
        folds.append(fold)
        now += 10.0
        scheduler.finished(fold.group, now)
    assert max(len(_keys(fold)) for fold in folds) > 1
    assert {fold.task.key for fold in folds if not fold.others} >= alone


def test_progress_of_a_batch_counts_for_its_end_and_its_deadline() -> None:
    scheduler, fold = folding_batch()
    group = scheduler.groups[fold.group]
    predicted = COSTS.seconds(fold.task, fold.shape)
    assert group.expected_end == pytest.approx(10.0 + predicted)
    assert fold.deadline > 10.0 + predicted
    total = fold.shape.batch * 4 * (4 + 48)  # passes and blocks of all complexes
    half = FoldStep("trunk", total // 2, total)
    assert not scheduler.progressed(group.id, replace(half, done=1), 11.0)
    assert not scheduler.progressed(group.id, half, 11.0 + predicted)
    assert group.expected_end > 10.0 + predicted  # it turned out slower
    (stop,) = scheduler.progressed(group.id, replace(half, seconds=900.0), 1000.0)
    assert stop.group == group.id
    assert {attempt.outcome for attempt in scheduler.attempts} == {"timeout"}
    assert len(scheduler.attempts) == fold.shape.batch


def test_a_batch_teaches_its_own_kind() -> None:
    scheduler, fold = folding_batch(400)
    scheduler.groups[fold.group].num_folds = 1  # warm
    now = 10.0
    for _ in range(6):
        stages = COSTS.stages(fold.task, fold.shape)
        measured = {
            "features": stages["features"],
            "trunk": 3 * (stages["trunk"] + stages["msa"]),
            "sampling": stages["diffusion"],
            "confidence": stages["confidence"],
        }
        now += sum(measured.values())
        scheduler.finished(fold.group, now, measured)
        (fold,) = [a for a in scheduler.decide(now) if isinstance(a, Fold)]
        if not fold.others:
            break
    costs = scheduler._learner.learned()
    alone = replace(fold.shape, batch=1)
    together = replace(fold.shape, batch=16)
    of_batch = costs.seconds(fold.task, together) / COSTS.seconds(fold.task, together)
    of_one = costs.seconds(fold.task, alone) / COSTS.seconds(fold.task, alone)
    assert of_batch > 1.2
    assert of_batch > of_one


def test_one_result_that_cannot_be_stored_is_folded_again_alone() -> None:
    scheduler, fold = folding_batch()
    key = fold.others[0].task.key
    failure = Failure("invalid", "its result cannot be stored")
    scheduler.finished(fold.group, 20.0, {}, {key: failure})
    assert key not in scheduler.outcomes
    assert len(scheduler.outcomes) == fold.shape.batch - 1
    outcomes = {attempt.task.key: attempt.outcome for attempt in scheduler.attempts}
    assert outcomes.pop(key) == "invalid"
    assert set(outcomes.values()) == {"done"}


def test_results_lost_with_their_node_end_the_group() -> None:
    scheduler, fold = folding_batch()
    keys = [other.task.key for other in fold.others]
    failure = Failure("error", "a.csv does not exist on a")
    actions = scheduler.finished(fold.group, 20.0, {}, dict.fromkeys(keys, failure))
    assert [action.reason for action in actions if isinstance(action, Stop)] == [failure.reason]
    assert set(scheduler.outcomes) == {fold.task.key}
    assert scheduler.groups[fold.group].state == "stopping"


def test_a_batch_with_failures_teaches_no_time() -> None:
    scheduler, fold = folding_batch()
    scheduler.groups[fold.group].num_folds = 1  # warm
    before = scheduler._learner.learned()
    keys = [other.task.key for other in fold.others]
    assert not scheduler.finished(
        fold.group, 10.1, {}, dict.fromkeys(keys, Failure("invalid", "not finite"))
    )
    assert scheduler.slowdown == 1.0
    assert not differs(scheduler._learner.learned(), before)


def test_batches_get_smaller_as_they_fail_and_larger_as_they_succeed() -> None:
    scheduler, fold = folding_batch(400)
    most = fold.shape.batch
    sizes = []
    now = 10.0
    while len(sizes) < 5:
        sizes.append(fold.shape.batch)
        now += 5.0
        if len(sizes) <= 2:
            scheduler.failed(fold.group, Failure("error", "a kernel raises"), now)
            scheduler.freed(fold.group)
        else:
            scheduler.finished(fold.group, now, {})
        now, fold = _next_fold(scheduler, now)
    assert most >= 8
    assert sizes == [most, most // 2, most // 4, most // 2, most]


def _next_fold(scheduler: Scheduler, now: float) -> tuple[float, Fold]:
    """The next fold of a batch; those of single complexes, which come before, succeed."""
    for _ in range(1_000):
        for action in scheduler.decide(now):
            if isinstance(action, Start):
                scheduler.ready(action.group, now + 1.0)
            if isinstance(action, Fold) and action.others:
                return now, action
            if isinstance(action, Fold):
                scheduler.finished(action.group, now + 1.0, {})
        now += 1.0
    raise AssertionError("no batch was folded")
