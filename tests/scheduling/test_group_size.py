"""Group sizes: the first shape, the lower bound, the tail of a run, and out-of-memory fallbacks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from foldcp.config import TINY, Precision
from foldcp.pipeline.config import load
from foldcp.pipeline.scheduling.cost_model import CostModel, FoldShape
from foldcp.pipeline.scheduling.group_size import (
    CostCache,
    assign_group_sizes,
    initial_shape,
    lower_bound,
    next_oom_fallback,
    smallest_shape,
    too_large_reason,
)
from foldcp.pipeline.scheduling.groups import Groups
from foldcp.pipeline.scheduling.hardware import load_hardware
from foldcp.pipeline.scheduling.placement import Cluster
from foldcp.pipeline.scheduling.policy.widening import widen_tail, widened
from foldcp.pipeline.scheduling.queue import Queue
from foldcp.pipeline.scheduling.types import QueuedTask
from tests.support.scheduling import COSTS, simulate, task

ONE_SAMPLE = CostModel(COSTS.hardware, load())


def test_lower_bound_by_hand() -> None:
    costs = CostCache(COSTS, 8)
    single = task(600)
    seconds = costs.seconds(single, initial_shape(COSTS, 1, "mixed"))
    equal = [(task(600, f"{i}"), initial_shape(COSTS, 1, "mixed")) for i in range(80)]
    assert lower_bound(costs, equal, 8) == pytest.approx(10 * seconds, rel=1e-3)
    # One fold that outlasts all the others is bounded by its fastest group.
    giant = (task(12_000), initial_shape(COSTS, 2, "mixed"))
    fastest = min(costs.seconds(giant[0], replace(giant[1], num_ranks=p)) for p in range(2, 9))
    assert lower_bound(costs, [giant, equal[0]], 8) == pytest.approx(fastest, rel=0.05)
    assert lower_bound(costs, [], 8) == 0
    assert assign_group_sizes(costs, [giant, *equal[:2]], 8)[0].num_ranks > 5
    for limit in (0.1, 0.35, 0.5, 0.9):
        options = [replace(giant[1], num_ranks=p) for p in range(2, 9)]
        limit *= costs.seconds(*giant)
        fits = [o for o in options if costs.seconds(giant[0], o) <= limit]
        cheapest = (
            min(fits, key=lambda o: o.num_ranks * costs.seconds(giant[0], o))
            if fits
            else options[-1]
        )
        assert costs.cheapest_within(*giant, limit) == cheapest


def test_cheapest_is_the_cheapest_of_all_sizes() -> None:
    costs = CostCache(COSTS, 8)
    for num_tokens in (300, 3_000, 9_000, 10_500, 14_000):
        t = task(num_tokens)
        smallest = smallest_shape(COSTS, t, 8)
        assert smallest is not None
        work = {
            p: p * costs.seconds(t, replace(smallest, num_ranks=p))
            for p in range(smallest.num_ranks, 9)
        }
        assert costs.cheapest(t, smallest).num_ranks == min(work, key=lambda p: work[p])


def test_widen_tail_spreads_the_last_tasks_over_idle_gpus() -> None:
    long = task(6_000)
    simulation = simulate([long])
    alone = COSTS.seconds(long, initial_shape(COSTS, 1, "mixed"))
    assert simulation.now < alone / 3.5
    costs = CostCache(COSTS, 8)
    queue = Queue()
    one = initial_shape(COSTS, 1, "mixed")
    for number in (2, 9):
        while len(queue) < number:
            t = task(6_000, f"{len(queue)}")
            queue.push(QueuedTask(t, one, costs.seconds(t, one)))
        found = widened(queue, Groups(), Cluster({"a": 8}), costs, 30.0, 0.0)
        assert [size for _, size in found] == ([4, 4] if number == 2 else [])
    (short,) = widen_tail(costs, [(task(100), one)], [1.0], 8, {1}, 30.0)
    assert short.num_ranks == 1  # a wider group would gain nothing
    two = widen_tail(costs, [(long, one), (task(5_000), one)], [1.0, 1.0], 8, {1}, 30.0)
    assert sum(s.num_ranks for s in two) <= 8
    assert two[0].num_ranks >= two[1].num_ranks > 1


def test_next_oom_fallback_order() -> None:
    t = task(8_000, depth=5000)
    shape: FoldShape | None = smallest_shape(COSTS, t, 3)
    descriptions = []
    while shape is not None and (fallback := next_oom_fallback(COSTS, t, shape, 3)):
        assert COSTS.least_bytes(t, fallback[0]) < COSTS.least_bytes(t, shape)
        shape = fallback[0]
        descriptions.append(fallback[1])
    assert descriptions == [
        "1 -> 2 ranks",
        "2 -> 3 ranks",
        "5 -> 1 samples at once",
        "mixed -> bf16",
        "5000 -> 1250 alignment rows",
        "1250 -> 312 alignment rows",
    ]
    four = initial_shape(COSTS, 4, "mixed")
    five = initial_shape(COSTS, 5, "mixed")
    wider = next_oom_fallback(COSTS, t, four, 8)
    assert wider is not None
    assert (
        COSTS.least_bytes(t, wider[0])
        <= 0.75 * COSTS.least_bytes(t, four)
        < COSTS.least_bytes(t, five)
    )
    fixed = CostModel(COSTS.hardware, load(overrides=["model.precision=mixed"]))
    assert next_oom_fallback(fixed, t, FoldShape(3, "mixed", 1, 300), 3) is None


def test_samples_are_drawn_in_turn_where_a_larger_group_saves_little() -> None:
    """As of a small complex, whose ranks have samples of their own."""
    t = task(2_000, depth=1000)
    shape = initial_shape(COSTS, 1, "mixed")
    descriptions = []
    for _ in range(4):
        fallback = next_oom_fallback(COSTS, t, shape, 64)
        assert fallback is not None
        shape = fallback[0]
        descriptions.append(fallback[1])
    assert descriptions == [
        "5 -> 1 samples at once",
        "1 -> 2 ranks",
        "2 -> 7 ranks",
        "7 -> 64 ranks",
    ]


def test_smallest_shape_is_the_smallest_in_the_first_precision() -> None:
    sizes = set()
    for num_tokens in range(1_000, 45_000, 1_500):
        t = task(num_tokens, depth=1000)
        chosen = smallest_shape(ONE_SAMPLE, t, 8)
        in_mixed = ONE_SAMPLE.least_bytes(t, initial_shape(ONE_SAMPLE, 1, "mixed")) <= 141e9
        precision: Precision = "mixed" if in_mixed else "bf16"
        fits = [
            initial_shape(ONE_SAMPLE, p, precision)
            for p in range(1, 9)
            if ONE_SAMPLE.least_bytes(t, initial_shape(ONE_SAMPLE, p, precision)) <= 141e9
        ]
        assert chosen == (fits[0] if fits else None)
        sizes.add((chosen.num_ranks, chosen.precision) if chosen else None)
    # Every integer is a size, not only squares or powers of two; some do not fit at all.
    assert {(1, "mixed"), (1, "bf16"), (3, "bf16"), (5, "bf16"), (7, "bf16"), None} <= sizes


def test_precision_does_not_depend_on_the_size_of_the_cluster() -> None:
    for num_tokens in range(1_000, 60_000, 700):
        t = task(num_tokens)
        shapes = [smallest_shape(COSTS, t, max_ranks) for max_ranks in (1, 2, 3, 8, 64, 512, 4096)]
        found = {
            (shape.precision, shape.parallel_samples): shape.num_ranks for shape in shapes if shape
        }
        assert len({precision for precision, _ in found}) == 1
        for shape in filter(None, shapes):
            assert shape.num_ranks == found[shape.precision, shape.parallel_samples]


def test_smallest_shape_on_a_node_of_h200s_holds_30000_tokens() -> None:
    assert smallest_shape(ONE_SAMPLE, task(30_000, depth=1), 8) is not None
    assert smallest_shape(ONE_SAMPLE, task(20_000, depth=1), 4) is not None
    reason = too_large_reason(ONE_SAMPLE, task(60_000, depth=1000), 8)
    assert "60000 tokens" in reason
    assert "on each of 8 GPUs" in reason
    assert "141 GB" in reason


def test_smallest_shape_uses_only_the_precision_asked_for() -> None:
    exact = CostModel(COSTS.hardware, load(overrides=["model.precision=fp32"]))
    assert exact.precisions() == ("fp32",)
    assert CostModel(load_hardware("cpu"), load(), TINY).precisions() == ("fp32",)
    largest = max(
        n for n in range(1000, 40_000, 500) if smallest_shape(exact, task(n, depth=1000), 8)
    )
    assert smallest_shape(ONE_SAMPLE, task(largest + 500, depth=1000), 8) is not None


def test_smallest_shape_samples_one_at_a_time_before_a_task_is_too_large() -> None:
    at_once = max(n for n in range(20_000, 45_000, 50) if smallest_shape(COSTS, task(n), 8))
    found = smallest_shape(COSTS, task(at_once), 8)
    assert found is not None
    assert (found.num_ranks, found.parallel_samples) == (8, 1)
    assert not COSTS.fits(task(at_once), replace(found, parallel_samples=5))
    smaller = smallest_shape(COSTS, task(at_once - 1_500), 8)
    assert smaller is not None
    assert smaller.parallel_samples == 5
