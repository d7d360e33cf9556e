"""The scheduler in virtual time: nothing is lost, doubled or double-booked, and the end comes
near the bound.
"""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from time import perf_counter

import pytest

from foldcp.complex import Chain, Complex
from foldcp.pipeline.config import RunSection, load
from foldcp.pipeline.inputs.tasks import Done, Failed, Task
from foldcp.pipeline.scheduling.backfill import BackfillPolicy, Decision
from foldcp.pipeline.scheduling.cost_model import Costs, FoldShape, load_hardware
from foldcp.pipeline.scheduling.group_size import (
    CostCache,
    assign_group_sizes,
    lower_bound,
    next_oom_fallback,
    widen_tail,
)
from foldcp.pipeline.scheduling.node_health import BAD, DOUBTFUL, LONGEST_PAUSE, NodeHealth
from foldcp.pipeline.scheduling.placement import Cluster, place
from foldcp.pipeline.scheduling.scheduler import Scheduler
from foldcp.pipeline.scheduling.simulator import FREE_SECONDS, Faults, Simulation
from foldcp.pipeline.scheduling.types import (
    Action,
    Failure,
    FailureKind,
    Fold,
    GroupState,
    Queue,
    QueuedTask,
    Start,
    Stop,
)

ANY = Complex("any", (Chain("A", "protein", "MKT"),))
COSTS = Costs(load_hardware("h200"), load(overrides=["model.samples=5"]))
SETTINGS = RunSection()
NODE = {"a": 8}


def task(num_tokens: int, name: str = "", depth: int = 500) -> Task:
    return Task(ANY, name or f"{num_tokens}", num_tokens, depth)


def tasks(number: int, seed: int, scale: float = 1500.0, spread: float = 0.9) -> list[Task]:
    draw = random.Random(seed)
    sizes = (int(math.exp(draw.gauss(math.log(scale), spread))) for _ in range(number))
    return [
        task(min(30_000, max(50, n)), f"{i}", draw.choice([1, 500, 4000]))
        for i, n in enumerate(sizes)
    ]


def simulate(
    work: list[Task],
    nodes: Mapping[str, int] = NODE,
    faults: Faults | None = None,
    settings: RunSection = SETTINGS,
    costs: Costs = COSTS,
) -> Simulation:
    return Simulation(work, costs, nodes, settings, faults).run()


def audit(simulation: Simulation, work: list[Task], nodes: Mapping[str, int]) -> None:
    """What must hold whatever happens, read from the log of actions alone."""
    scheduler = simulation.scheduler
    if not scheduler.stopped:
        assert set(scheduler.outcomes) == {t.key for t in work}
    changes: list[tuple[float, int, str, int]] = []  # (time, order, node, GPUs)
    folds: dict[str, list[tuple[float, float]]] = defaultdict(list)
    in_group: dict[int, list[tuple[float, float]]] = defaultdict(list)
    placements = {}
    for time, action in simulation.log:
        if isinstance(action, Start):
            placements[action.group] = action.placement
            size = sum(count for _, count in action.placement)
            assert len(action.placement) == 1 or size > max(nodes.values()), (
                "spread though a node could hold it"
            )
            changes += [(time, 1, node, count) for node, count in action.placement]
        elif isinstance(action, Stop):
            changes += [
                (time + FREE_SECONDS, 0, node, -count) for node, count in placements[action.group]
            ]
    held: Counter[str] = Counter()
    for _, _, node, count in sorted(changes):
        held[node] += count
        assert 0 <= held[node] <= nodes[node], (
            f"{held[node]} GPUs of {node} are held, it has {nodes[node]}"
        )
    for attempt in scheduler.attempts:
        folds[attempt.task.key].append((attempt.started, attempt.ended))
        in_group[attempt.group].append((attempt.started, attempt.ended))
        assert attempt.setup.num_ranks == sum(count for _, count in placements[attempt.group])
    for spans in [*folds.values(), *in_group.values()]:
        spans.sort()
        assert all(end <= begin for (_, end), (begin, _) in pairwise(spans)), "two at once"
    done = Counter(attempt.task.key for attempt in scheduler.attempts if attempt.outcome == "done")
    assert all(count == 1 for count in done.values())
    assert set(done) == {
        key for key, outcome in scheduler.outcomes.items() if isinstance(outcome, Done)
    }
    assert sum(isinstance(action, Fold) for _, action in simulation.log) == len(scheduler.attempts)
    assert all(outcome.attempt == len(folds[key]) for key, outcome in scheduler.outcomes.items())


CLUSTERS = [
    {"a": 8},
    {"a": 3},
    {"a": 1},
    {"a": 8, "b": 8},
    {"a": 4, "b": 8, "c": 5},
    {f"n{i}": 8 for i in range(4)},
]


@pytest.mark.parametrize("seed", range(12))
def test_nothing_is_lost_or_doubled_whatever_goes_wrong(seed: int) -> None:
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
def test_losses_alone_lose_no_task(seed: int) -> None:
    work = tasks(120, seed)
    nodes = CLUSTERS[seed % len(CLUSTERS)]
    simulation = simulate(
        work, nodes, Faults(seed, worker_died=0.08, timeout=0.02), replace(SETTINGS, retries=12)
    )
    audit(simulation, work, nodes)
    fitting = {t.key for t in work if COSTS.smallest(t, sum(nodes.values()))}
    assert {
        key for key, outcome in simulation.scheduler.outcomes.items() if isinstance(outcome, Done)
    } == fitting


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("number", "scale"), [(400, 1200), (60, 4000), (15, 9000)])
def test_the_end_comes_near_the_lower_bound(seed: int, number: int, scale: float) -> None:
    work = tasks(number, seed, scale)
    simulation = simulate(work)
    audit(simulation, work, NODE)
    sizes = CostCache(COSTS, 8)
    fitting = [(t, setup) for t in work if (setup := COSTS.smallest(t, 8))]
    bound = lower_bound(sizes, fitting, 8)
    start = COSTS.hardware.start_seconds
    assert bound < simulation.now < {400: 1.02, 60: 1.08, 15: 1.25}[number] * bound + 3 * start
    if number == 400:
        assert simulation.busy_seconds / simulation.now / 8 > 0.95


def test_lower_bound_by_hand() -> None:
    sizes = CostCache(COSTS, 8)
    single = task(600)
    seconds = sizes.seconds(single, COSTS.first_setup(1, "mixed"))
    equal = [(task(600, f"{i}"), COSTS.first_setup(1, "mixed")) for i in range(80)]
    assert lower_bound(sizes, equal, 8) == pytest.approx(10 * seconds, rel=1e-3)
    # One fold that outlasts all the others is bounded by its fastest group.
    giant = (task(12_000), COSTS.first_setup(2, "mixed"))
    fastest = min(sizes.seconds(giant[0], replace(giant[1], num_ranks=p)) for p in range(2, 9))
    assert lower_bound(sizes, [giant, equal[0]], 8) == pytest.approx(fastest, rel=0.05)
    assert lower_bound(sizes, [], 8) == 0
    assert assign_group_sizes(sizes, [giant, *equal[:2]], 8)[giant[0].key].num_ranks > 5
    for limit in (0.1, 0.35, 0.5, 0.9):
        options = [replace(giant[1], num_ranks=p) for p in range(2, 9)]
        limit *= sizes.seconds(*giant)
        fits = [o for o in options if sizes.seconds(giant[0], o) <= limit]
        cheapest = (
            min(fits, key=lambda o: o.num_ranks * sizes.seconds(giant[0], o))
            if fits
            else options[-1]
        )
        assert sizes.within(*giant, limit) == cheapest


def test_cheapest_group_is_the_cheapest_of_all() -> None:
    sizes = CostCache(COSTS, 8)
    for num_tokens in (300, 3_000, 9_000, 10_500, 14_000):
        t = task(num_tokens)
        smallest = COSTS.smallest(t, 8)
        assert smallest is not None
        work = {
            p: p * sizes.seconds(t, replace(smallest, num_ranks=p))
            for p in range(smallest.num_ranks, 9)
        }
        assert sizes.cheapest(t, smallest).num_ranks == min(work, key=lambda p: work[p])


def test_last_tasks_are_spread_over_idle_gpus() -> None:
    long = task(6_000)
    simulation = simulate([long])
    alone = COSTS.seconds(long, COSTS.first_setup(1, "mixed"))
    assert simulation.now < alone / 3.5
    sizes = CostCache(COSTS, 8)
    queue = Queue()
    one = COSTS.first_setup(1, "mixed")
    for number in (2, 9):
        while len(queue) < number:
            t = task(6_000, f"{len(queue)}")
            queue.push(QueuedTask(t, one, sizes.seconds(t, one)))
        packing = BackfillPolicy(queue, [], Cluster({"a": 8}), sizes, 0.0, 1.0, 30.0)
        assert [size for _, size in packing.stretched()] == ([4, 4] if number == 2 else [])
    assert [s.num_ranks for s in widen_tail(sizes, [(task(100), one)], 8, {1: 1}, 30.0)] == [
        1
    ]  # no gain
    two = widen_tail(sizes, [(long, one), (task(5_000), one)], 8, {1: 2}, 30.0)
    assert sum(s.num_ranks for s in two) <= 8
    assert two[0].num_ranks >= two[1].num_ranks > 1


def test_big_ones_first_and_warm_groups_are_kept() -> None:
    work = [*tasks(60, 1, 700, 0.2), task(17_000, "big1"), task(17_500, "big2")]
    simulation = simulate(work)
    folds = [action for _, action in simulation.log if isinstance(action, Fold)]
    assert folds[0].task.key in ("big1", "big2")
    starts = [action for _, action in simulation.log if isinstance(action, Start)]
    assert len(starts) <= 12  # not one per fold


def test_small_groups_fill_a_node_before_they_open_another() -> None:
    nodes = {f"n{i}": 8 for i in range(4)}
    scheduler = Scheduler(tasks(40, 0, 600, 0.1), COSTS, nodes, SETTINGS)
    for _ in range(4):
        placement = place(1, scheduler.cluster.free, nodes)
        assert placement is not None
        scheduler.cluster.take(placement)
    assert sorted(scheduler.cluster.free.values()) == [4, 8, 8, 8]
    assert place(8, scheduler.cluster.free, nodes) is not None


@pytest.mark.parametrize(
    ("size", "free", "expected"),
    [(3, {"a": 8, "b": 5, "c": 3}, {"c": 3}), (6, {"a": 8, "b": 5, "c": 3}, {"a": 6}),
     (6, {"a": 5, "b": 5, "c": 3}, None), (8, {"a": 8, "b": 5, "c": 3}, {"a": 8}),
     (11, {"a": 8, "b": 4, "c": 3}, {"a": 8, "c": 3}), (16, {"a": 8, "b": 8, "c": 3}, {"a": 8, "b": 8}),
     (20, {"a": 8, "b": 3, "c": 3}, None), (99, {"a": 8, "b": 8, "c": 3}, None)],
)  # fmt: skip
def test_placement(size: int, free: dict[str, int], expected: dict[str, int] | None) -> None:
    placement = place(size, free, {"a": 8, "b": 8, "c": 3})
    assert (dict(placement) if placement else None) == expected


def test_a_blocked_large_fold_is_not_overtaken_by_what_delays_it() -> None:
    # One GPU is free, others are busy with 2,000 tokens; the largest fold waits for two. If the
    # free one is among them, a short fold may go ahead and a long one may not; if two others end at
    # once, the long one may.
    def choose(names: Sequence[str], num_busy: int) -> Decision | None:
        sizes = CostCache(COSTS, 2)
        one = COSTS.first_setup(1, "mixed")
        jobs = {
            "wide": QueuedTask(task(9_000, "wide"), replace(one, num_ranks=2)),
            "long": QueuedTask(task(2_200, "long"), one),
            "short": QueuedTask(task(900, "short"), one),
            "running": QueuedTask(task(2_000, "running"), one),
        }
        queue = Queue()
        for name, job in jobs.items():
            job.seconds = sizes.seconds(job.task, job.setup)
            if name in names:
                queue.push(job)
        cluster = Cluster({"a": 1 + num_busy})
        cluster.take((("a", num_busy),))
        busy = [GroupState(1, (("a", num_busy),), "busy", 0.0, 1e9, jobs["running"])]
        return BackfillPolicy(queue, busy, cluster, sizes, 0.0, 1.0, 5.0).choose()

    assert choose(["wide", "long"], 1) is None
    for waiting in (["wide", "short"], ["wide", "long", "short"]):
        choice = choose(waiting, 1)
        assert choice is not None
        assert (choice.job.task.key, choice.placement) == ("short", (("a", 1),))
    choice = choose(["wide", "long", "short"], 2)
    assert choice is not None
    assert choice.job.task.key == "long"


def test_the_ladder_climbs_in_its_order_and_every_step_is_recorded() -> None:
    t = task(8_000, depth=5000)
    setup: FoldShape | None = COSTS.smallest(t, 3)
    words = []
    while setup is not None and (step := next_oom_fallback(COSTS, t, setup, 3)):
        assert COSTS.bytes(t, step[0]) < COSTS.bytes(t, setup)
        setup = step[0]
        words.append(step[1])
    assert words == ["1 -> 2 ranks", "2 -> 3 ranks", "5 -> 1 samples at once", "mixed -> bf16",
                     "5000 -> 1250 alignment rows", "1250 -> 312 alignment rows"]  # fmt: skip
    four = COSTS.first_setup(4, "mixed")
    five = COSTS.first_setup(5, "mixed")
    wider = next_oom_fallback(COSTS, t, four, 8)
    assert wider is not None
    assert COSTS.bytes(t, wider[0]) <= 0.75 * COSTS.bytes(t, four) < COSTS.bytes(t, five)
    fixed = Costs(COSTS.hardware, load(overrides=["model.precision=mixed"]))
    assert next_oom_fallback(fixed, t, FoldShape(3, "mixed", 1, 300), 3) is None


def test_out_of_memory_ends_with_every_step_told() -> None:
    class Greedy(Simulation):
        def _chance(self, probability: float) -> bool:
            return False

        def _fold(self, action: Fold) -> None:
            self._later(self.now + 1.0, "failed", action.group, "oom")

    t = task(1_000, depth=2000)
    simulation = Greedy([t], COSTS, {"a": 2}, SETTINGS).run()
    audit(simulation, [t], {"a": 2})
    outcome = simulation.scheduler.outcomes[t.key]
    assert isinstance(outcome, Failed)
    assert "end of the ladder" in outcome.reason
    attempts = simulation.scheduler.attempts
    assert [len(a.steps) for a in attempts] == list(range(len(attempts)))
    assert attempts[-1].setup == FoldShape(2, "bf16", 1, 500)
    assert all(a.outcome == "oom" for a in attempts)


def driven(
    work: list[Task], nodes: Mapping[str, int], settings: RunSection = SETTINGS
) -> tuple[Scheduler, Fold]:
    """A scheduler whose first group is folding."""
    scheduler = Scheduler(work, COSTS, nodes, settings)
    for action in scheduler.decide(0.0):
        assert isinstance(action, Start)
        scheduler.ready(action.group, 10.0)
    fold = scheduler.decide(10.0)[0]
    assert isinstance(fold, Fold)
    return scheduler, fold


@pytest.mark.parametrize("kind", ["worker_died", "error"])
def test_one_fresh_group_then_the_task_fails(kind: FailureKind) -> None:
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


def test_a_fold_past_its_deadline_ends_its_group() -> None:
    scheduler, fold = driven([task(5_000)], {"a": 1})
    predicted = COSTS.seconds(fold.task, fold.setup)
    warm_up = COSTS.hardware.start_seconds  # of the group's first fold
    assert fold.deadline == pytest.approx(10.0 + SETTINGS.deadline_factor * (predicted + warm_up))
    assert scheduler.next_deadline(10.0) == fold.deadline
    assert scheduler.decide(fold.deadline - 1) == []
    (stop,) = scheduler.decide(fold.deadline)
    assert isinstance(stop, Stop)
    assert scheduler.attempts[-1].outcome == "timeout"
    # What the dead group still says is not heard.
    assert scheduler.failed(fold.group, Failure("worker_died", "killed"), fold.deadline + 1) == []
    assert len(scheduler.attempts) == 1


def test_short_folds_have_the_floor_as_deadline_and_slow_machines_more() -> None:
    scheduler, fold = driven([task(100, f"{i}") for i in range(3)], {"a": 1})
    predicted = COSTS.seconds(fold.task, fold.setup) + COSTS.hardware.start_seconds
    assert fold.deadline == pytest.approx(10.0 + SETTINGS.deadline_factor * predicted)
    scheduler.finished(fold.group, 5_000.0)  # far slower than predicted
    (following,) = scheduler.decide(5_000.0)
    assert isinstance(following, Fold)
    assert scheduler.pace > 10
    assert scheduler.work_left(5_000.0) == pytest.approx(2 * COSTS.seconds(fold.task, fold.setup))
    # As long as the fold before it took, and not only what the corrected prediction says.
    assert following.deadline - 5_000.0 == pytest.approx(SETTINGS.deadline_factor * 4_990.0)


def test_a_warm_group_has_the_floor_and_slow_reading_is_waited_for() -> None:
    slow = replace(task(90, "slow"), read_seconds=25.0)
    scheduler, fold = driven([task(100, "first"), task(95, "second"), slow], {"a": 1})
    scheduler.finished(fold.group, 11.0)
    (second,) = scheduler.decide(11.0)
    assert isinstance(second, Fold)
    assert second.deadline == 11.0 + SETTINGS.deadline_floor
    scheduler.finished(fold.group, 12.0)
    (third,) = scheduler.decide(12.0)
    assert isinstance(third, Fold)
    assert third.deadline > 12.0 + SETTINGS.deadline_factor * 25.0


def test_groups_that_never_start_end_the_run_and_no_task_is_filed() -> None:
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
    assert LONGEST_PAUSE < sum(pauses) < 3 * LONGEST_PAUSE + 10


def test_a_group_that_never_answers_its_start_is_stopped_and_the_next_gets_longer() -> None:
    scheduler = Scheduler([task(500)], COSTS, {"a": 1}, SETTINGS)
    (start,) = scheduler.decide(0.0)
    assert isinstance(start, Start)
    allowed = SETTINGS.deadline_factor * COSTS.hardware.start_seconds
    assert scheduler.next_deadline(0.0) == start.deadline == max(SETTINGS.start_deadline, allowed)
    assert [type(action) for action in scheduler.decide(start.deadline)] == [Stop]
    assert not scheduler.is_over
    scheduler.freed(start.group)
    now = start.deadline + LONGEST_PAUSE
    (again,) = scheduler.decide(now)
    assert isinstance(again, Start)
    assert again.deadline - now == 2 * start.deadline
    scheduler.ready(again.group, now + 1.5 * start.deadline)  # it was slow, and did not hang
    (fold,) = scheduler.decide(now + 1.5 * start.deadline)
    assert isinstance(fold, Fold)
    later = now + 1.5 * start.deadline + 10
    scheduler.failed(fold.group, Failure("worker_died", "died"), later)
    scheduler.freed(fold.group)
    later += LONGEST_PAUSE
    (third,) = scheduler.decide(later)
    assert isinstance(third, Start)
    assert third.deadline - later == pytest.approx(SETTINGS.deadline_factor * 1.5 * start.deadline)


def test_what_fits_no_node_that_is_left_waits_and_is_not_filed() -> None:
    nodes = {"a": 8, "b": 8}
    work = [task(36_000, "giant"), task(25_000, "big"), *tasks(30, 3, 900)]
    simulation = simulate(work, nodes, Faults(lost_nodes=((100.0, "a"),)))
    audit(simulation, work, nodes)
    scheduler = simulation.scheduler
    assert set(scheduler.outcomes) == {t.key for t in work} - {"giant"}
    assert all(isinstance(outcome, Done) for outcome in scheduler.outcomes.values())
    assert "1 complexes fit none of the nodes that are left: 36000 tokens" in scheduler.stopped
    assert all(
        node == "b" for a in scheduler.attempts if a.started > 100 for node, _ in a.placement
    )
    empty = simulate(work, nodes, Faults(lost_nodes=((100.0, "a"), (200.0, "b"))))
    audit(empty, work, nodes)
    assert not any(isinstance(outcome, Failed) for outcome in empty.scheduler.outcomes.values())
    assert empty.scheduler.stopped == "no node is left: node b is gone"


def test_a_node_that_joins_takes_what_waited_for_it() -> None:
    scheduler = Scheduler(
        [task(36_000, "giant"), task(300, "small")], COSTS, {"a": 8, "b": 8}, SETTINGS
    )
    scheduler.lose_node("a", "node a is gone", 0.0)
    (start,) = scheduler.decide(0.0)
    assert isinstance(start, Start)
    scheduler.add_node("c", 8)
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
            self._later(self.now + 1.0, "failed", action.group, self.kind)
        else:
            super()._fold(action)


@pytest.mark.parametrize("num_gpus", [1, 4, 8])
@pytest.mark.parametrize("num_poisoned", [3, 7, 20])
@pytest.mark.parametrize("kind", ["worker_died", "error"])
def test_complexes_that_end_their_groups_fail_alone(
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


def test_complexes_that_all_fail_end_the_run_and_a_resume_tells_them_from_a_bad_node() -> None:
    poison = [task(900 + i, f"bad{i}") for i in range(30)]
    first = Poisoned({t.key for t in poison}, poison, COSTS, {"a": 1}, SETTINGS).run().scheduler
    assert "again and again" in first.stopped
    assert not first.outcomes  # nothing is filed on the word of a node that did nothing right
    lost = {attempt.task.key for attempt in first.attempts}
    assert len(lost) == BAD
    # The same complexes again, which are known to have lost a group: now they are at fault.
    left = [t for t in poison if t.key in lost]
    second = Poisoned(lost, left, COSTS, {"a": 1}, SETTINGS)
    second.scheduler = Scheduler(left, COSTS, {"a": 1}, SETTINGS, lost_before=lost)
    scheduler = second.run().scheduler
    assert not scheduler.stopped
    assert {type(outcome) for outcome in scheduler.outcomes.values()} == {Failed}


def test_a_bad_node_is_given_up_and_its_complexes_are_done_elsewhere() -> None:
    class BadNode(Simulation):
        def _fold(self, action: Fold) -> None:
            if "b" in dict(self.scheduler.groups[action.group].placement):
                self._later(self.now + 1.0, "failed", action.group, "error")
            else:
                super()._fold(action)

    work = [task(800, f"{i}") for i in range(300)]
    nodes = {"a": 2, "b": 2}
    simulation = BadNode(work, COSTS, nodes, SETTINGS).run()
    audit(simulation, work, nodes)
    scheduler = simulation.scheduler
    assert all(isinstance(outcome, Done) for outcome in scheduler.outcomes.values())
    assert set(scheduler.cluster.nodes) == {"a"}
    on_b = [attempt for attempt in scheduler.attempts if "b" in dict(attempt.placement)]
    assert DOUBTFUL <= len(on_b) <= 2 * BAD
    second_tries = [a for a in scheduler.attempts if a.number == 2]
    assert second_tries
    assert all("a" in dict(a.placement) for a in second_tries)


def test_the_partner_of_a_dead_node_is_kept() -> None:
    scheduler, fold = driven([task(36_000, "giant"), task(300, "small")], {"a": 8, "b": 8})
    assert len(scheduler.groups[fold.group].placement) == 2
    scheduler.lose_node("a", "node a is gone", 20.0)
    assert scheduler.attempts[-1].outcome == "worker_died"
    scheduler.freed(fold.group)
    (start,) = scheduler.decide(21.0)
    assert isinstance(start, Start)
    assert start.placement[0][0] == "b"


class Pressed(Simulation):
    """Another process takes the memory of the machine for a while, and the system kills what
    starts or folds.
    """

    until = 25.0

    def _killed(self, group: int) -> None:
        failure = Failure("oom", "killed", killed=True)
        self._carry_out(self.scheduler.failed(group, failure, self.now))

    def _tell(self, event: object) -> None:
        kind = event.kind  # type: ignore[attr-defined]
        group = event.group
        if self.now < self.until and kind in ("ready", "finished") and group not in self._stopped:
            self._killed(group)
        else:
            super()._tell(event)  # type: ignore[arg-type]


@pytest.mark.parametrize("num_gpus", [1, 2, 8])
@pytest.mark.parametrize("until", [25.0, 90.0])
def test_memory_pressure_by_others_changes_no_result(num_gpus: int, until: float) -> None:
    work = [task(600, f"{i}") for i in range(23)]
    costs = Costs(replace(COSTS.hardware, start_seconds=2.0), COSTS.config)
    simulation = Pressed(work, costs, {"a": num_gpus}, SETTINGS)
    simulation.until = until
    simulation.run()
    audit(simulation, work, {"a": num_gpus})
    scheduler = simulation.scheduler
    assert {type(outcome) for outcome in scheduler.outcomes.values()} == {Done}
    assert {attempt.setup for attempt in scheduler.attempts} == {costs.first_setup(1, "mixed")}


def test_memory_pressure_that_stays_ends_the_run() -> None:
    work = [task(600, f"{i}") for i in range(3)]
    simulation = Pressed(work, COSTS, {"a": 1}, SETTINGS)
    simulation.until = math.inf
    scheduler = simulation.run().scheduler
    assert scheduler.stopped
    assert not scheduler.outcomes


def test_memory_of_the_machine_that_a_fold_itself_exhausts_is_climbed_from_the_second_time_on() -> (
    None
):
    class Greedy(Simulation):
        def _fold(self, action: Fold) -> None:
            failure = Failure("oom", "killed", killed=True)
            self._later(self.now + 1.0, "node", action.group)
            self.failure = failure
            self.group = action.group

        def _tell(self, event: object) -> None:
            if event.kind == "node":  # type: ignore[attr-defined]
                self._carry_out(self.scheduler.failed(self.group, self.failure, self.now))
            else:
                super()._tell(event)  # type: ignore[arg-type]

    t = task(1_000, depth=2000)
    scheduler = Greedy([t], COSTS, {"a": 1}, SETTINGS).run().scheduler
    assert isinstance(scheduler.outcomes[t.key], Failed)
    assert [attempt.setup for attempt in scheduler.attempts][:2] == [
        COSTS.first_setup(1, "mixed")
    ] * 2
    assert scheduler.attempts[-1].setup == FoldShape(1, "bf16", 1, 500)


def test_a_complex_that_hung_gets_twice_the_time() -> None:
    scheduler, fold = driven([task(5_000)], {"a": 1})
    scheduler.decide(fold.deadline)
    scheduler.freed(fold.group)
    (start,) = scheduler.decide(fold.deadline + 1)
    scheduler.ready(start.group, fold.deadline + 2)
    (again,) = scheduler.decide(fold.deadline + 2)
    assert isinstance(again, Fold)
    assert again.deadline - (fold.deadline + 2) == pytest.approx(2 * (fold.deadline - 10.0))


def test_a_machine_far_slower_than_predicted_is_waited_for() -> None:
    class Slow(Simulation):
        def _fold(self, action: Fold) -> None:
            self._later(self.now + 200.0, "finished", action.group)

    work = [task(100, f"{i}") for i in range(20)]
    simulation = Slow(work, COSTS, {"a": 3}, SETTINGS).run()
    audit(simulation, work, {"a": 3})
    scheduler = simulation.scheduler
    assert {type(outcome) for outcome in scheduler.outcomes.values()} == {Done}
    assert 0 < sum(attempt.outcome == "timeout" for attempt in scheduler.attempts) < 7


def test_health_of_nodes_by_hand() -> None:
    health = NodeHealth()
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
    health.given_up("a")  # and what b failed at together with it is a's fault
    assert not health.doubtful()
    health.succeeded(["b"])
    now = 0.0
    for seconds in (1.0, 2.0, 4.0, 8.0, 16.0, LONGEST_PAUSE, LONGEST_PAUSE):
        health.pause("b", now)
        health.pause("b", now + seconds / 2)  # changes nothing
        assert health.next_resume(now) == now + seconds
        assert health.pausing(now + 0.9 * seconds) == {"b"}
        now += seconds
        assert not health.pausing(now)
    assert health.next_resume(now) == math.inf


def test_what_cannot_run_is_known_before_the_start() -> None:
    scheduler = Scheduler([task(90_000), task(300)], COSTS, NODE, replace(SETTINGS, max_group=4))
    outcome = scheduler.outcomes["90000"]
    assert isinstance(outcome, Failed)
    assert outcome.attempt == 0
    assert "on each of 4 GPUs" in outcome.reason


def test_max_group_is_kept_even_when_gpus_are_idle() -> None:
    simulation = simulate(tasks(10, 0, 5_000, 0.3), settings=replace(SETTINGS, max_group=3))
    assert max(a.setup.num_ranks for a in simulation.scheduler.attempts) <= 3


def test_no_gpu_is_taken_twice() -> None:
    cluster = Cluster({"a": 4})
    cluster.take((("a", 3),))
    with pytest.raises(AssertionError):
        cluster.take((("a", 2),))
    cluster.give_back((("a", 3),))
    with pytest.raises(AssertionError):
        cluster.give_back((("a", 1),))


def test_thousands_of_tasks_are_scheduled_in_seconds() -> None:
    work = tasks(2_000, 9, 1_000, 1.0)
    nodes = {f"n{i}": 8 for i in range(8)}
    began = perf_counter()
    simulation = simulate(work, nodes)
    assert perf_counter() - began < 20
    audit(simulation, work, nodes)


def test_what_is_folded_next_is_known_before(monkeypatch: pytest.MonkeyPatch) -> None:
    known: set[str] = set()
    foreseen: Counter[bool] = Counter()
    decide = Scheduler.decide

    def watched(self: Scheduler, now: float) -> list[Action]:
        actions = decide(self, now)
        foreseen.update(action.task.key in known for action in actions if isinstance(action, Fold))
        known.clear()
        known.update(task.key for task, _ in self.next_jobs())
        return actions

    monkeypatch.setattr(Scheduler, "decide", watched)
    simulate(tasks(300, 5))
    assert foreseen[True] + foreseen[False] == 300
    assert foreseen[True] > 240
