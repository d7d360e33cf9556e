"""Group size: how many ranks fold a complex.

Chosen for a first attempt, for the last tasks of a run, and after an attempt ran out of memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from foldcp.config import Precision
from foldcp.pipeline.inputs.tasks import Task
from foldcp.pipeline.scheduling.cost_model import CostModel, FoldShape

# The search for a cheaper group ends at one that costs 1.2 times the cheapest so far.
SEARCH_CUTOFF = 1.2
BISECTIONS = 40  # of the lower bound: beyond float32's precision
WIDENING_GAIN = 0.9  # a wider group must take less than this share of the time
MIN_MSA_ROWS = 128  # below which no out-of-memory fallback goes
FALLBACK_BYTES = 0.75  # of the bytes that were too many, on each rank of the next group


def initial_shape(costs: CostModel, num_ranks: int, precision: Precision) -> FoldShape:
    """The shape of a first attempt.

    MSA rows paired across chains come on top of the others, hence twice as many.
    """
    model = costs.config.model
    return FoldShape(
        num_ranks,
        precision,
        min(model.samples, model.parallel_samples),
        2 * costs.config.msa.max_rows,
    )


def smallest_shape(costs: CostModel, task: Task, max_ranks: int) -> FoldShape | None:
    """The smallest group that holds a task; None if no group does.

    In the most exact precision that fits any group.
    """
    for precision in costs.precisions():
        for num_ranks in range(1, max_ranks + 1):
            shape = initial_shape(costs, num_ranks, precision)
            if costs.bytes(task, shape) <= costs.hardware.memory:
                return shape
    return None


def too_large_reason(costs: CostModel, task: Task, max_ranks: int) -> str:
    """The reason why no group of `max_ranks` GPUs can hold a task."""
    shape = initial_shape(costs, max_ranks, costs.precisions()[-1])
    needed_gb = costs.bytes(task, shape) / 1e9
    unit = "GPU" if costs.hardware.device == "cuda" else "rank"
    return (
        f"{task.num_tokens} tokens in {shape.precision} need {needed_gb:.0f} GB on each of "
        f"{max_ranks} {unit}s, and a {unit} has {costs.hardware.memory_gb:.0f} GB"
    )


@dataclass(slots=True)
class CostCache:
    """Predicted seconds of tasks on groups of up to `max_ranks` ranks, each computed once."""

    costs: CostModel
    max_ranks: int
    _seconds: dict[tuple[str, FoldShape], float] = field(default_factory=dict)
    _cheapest_first: dict[tuple[str, FoldShape], list[FoldShape]] = field(default_factory=dict)

    def seconds(self, task: Task, shape: FoldShape) -> float:
        """Predicted seconds of one fold."""
        key = (task.key, shape)
        if key not in self._seconds:
            self._seconds[key] = self.costs.seconds(task, shape)
        return self._seconds[key]

    def gpu_seconds(self, task: Task, shape: FoldShape) -> float:
        """Predicted seconds of one fold times its GPUs."""
        return self.seconds(task, shape) * shape.num_ranks

    def cheapest(self, task: Task, shape: FoldShape) -> FoldShape:
        """The group, of `shape`'s size or larger, that needs the fewest GPU-seconds.

        Mostly the smallest one, but more GPUs may cost less where memory is tight.
        """
        best = shape
        best_work = math.inf
        for num_ranks in range(shape.num_ranks, self.max_ranks + 1):
            wider = replace(shape, num_ranks=num_ranks)
            work = self.gpu_seconds(task, wider)
            if work < best_work:
                best = wider
                best_work = work
            if work > SEARCH_CUTOFF * best_work:
                break
        return best

    def cheapest_within(self, task: Task, shape: FoldShape, max_seconds: float) -> FoldShape:
        """The cheapest group, of `shape`'s size or larger, that takes at most `max_seconds`.

        The fastest one if none does.
        """
        if self.seconds(task, shape) <= max_seconds:
            return shape
        key = (task.key, shape)
        if key not in self._cheapest_first:
            sizes = range(shape.num_ranks, self.max_ranks + 1)
            shapes = [replace(shape, num_ranks=num_ranks) for num_ranks in sizes]
            shapes.sort(key=lambda option: self.gpu_seconds(task, option))
            self._cheapest_first[key] = shapes
        options = self._cheapest_first[key]
        for option in options:
            if self.seconds(task, option) <= max_seconds:
                return option
        return min(options, key=lambda option: self.seconds(task, option))


def lower_bound(costs: CostCache, work: Sequence[tuple[Task, FoldShape]], num_gpus: int) -> float:
    """Seconds that no schedule can beat.

    The least T such that every fold can be sped up to T seconds, and all folds, each on the
    cheapest group that does so, fill no more than T seconds of the whole cluster: the dual bound of
    Turek, Wolf and Yu (SPAA 1992) for tasks that may run on groups of any size.
    """
    if not work:
        return 0.0
    work = [(task, costs.cheapest(task, shape)) for task, shape in work]
    average = sum(costs.gpu_seconds(task, shape) for task, shape in work) / num_gpus
    slow = [(task, shape) for task, shape in work if costs.seconds(task, shape) > average]
    fastest = [costs.seconds(task, costs.cheapest_within(task, shape, 0.0)) for task, shape in slow]
    low = max([average, *fastest])
    high = max([average, *(costs.seconds(task, shape) for task, shape in slow)])
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        chosen = [(task, costs.cheapest_within(task, shape, middle)) for task, shape in work]
        area = sum(costs.gpu_seconds(task, shape) for task, shape in chosen)
        if area <= middle * num_gpus:
            high = middle
        else:
            low = middle
    return high


def assign_group_sizes(
    costs: CostCache, work: Sequence[tuple[Task, FoldShape]], num_gpus: int
) -> dict[str, FoldShape]:
    """The shape of each task, by its key.

    The cheapest group, or a larger one where a single fold would outlast all the others.
    """
    max_seconds = lower_bound(costs, work, num_gpus)
    return {
        task.key: costs.cheapest_within(task, costs.cheapest(task, shape), max_seconds)
        for task, shape in work
    }


def widen_tail(
    costs: CostCache,
    work: Sequence[tuple[Task, FoldShape]],
    num_gpus: int,
    warm: Mapping[int, int],
    start_seconds: float,
) -> list[FoldShape]:
    """Shapes for the last tasks, which together leave GPUs without work.

    The slowest one is widened as long as that gains more than the start of a new group costs.
    `warm` counts the idle groups of each size.
    """
    chosen = [shape for _, shape in work]
    spare = num_gpus - sum(shape.num_ranks for shape in chosen)

    def seconds_to_end(index: int, shape: FoldShape) -> float:
        task, _ = work[index]
        start = 0.0 if warm.get(shape.num_ranks) else start_seconds
        return costs.seconds(task, shape) + start

    while True:
        slowest = max(range(len(work)), key=lambda index: seconds_to_end(index, chosen[index]))
        current = chosen[slowest]
        limit = WIDENING_GAIN * seconds_to_end(slowest, current)
        max_ranks = min(costs.max_ranks, current.num_ranks + spare)
        for num_ranks in range(current.num_ranks + 1, max_ranks + 1):
            wider = replace(current, num_ranks=num_ranks)
            if seconds_to_end(slowest, wider) < limit:
                break
        else:
            return chosen
        chosen[slowest] = wider
        spare -= wider.num_ranks - current.num_ranks


def next_oom_fallback(
    costs: CostModel, task: Task, shape: FoldShape, max_ranks: int
) -> tuple[FoldShape, str] | None:
    """The out-of-memory fallback that follows an attempt of `shape`.

    Returns the new shape, and what was changed in words; None when no fallback is left. In this
    order: a larger group with at most three quarters of the bytes on each rank, one sample at a
    time, bf16 where the settings leave the precision open, a quarter of the MSA rows.
    """
    if shape.num_ranks < max_ranks:
        wider = _wider_shape(costs, task, shape, max_ranks)
        return wider, f"{shape.num_ranks} -> {wider.num_ranks} ranks"
    if shape.parallel_samples > 1:
        in_turn = replace(shape, parallel_samples=1)
        return in_turn, f"{shape.parallel_samples} -> 1 samples at once"
    least_exact = costs.precisions()[-1]
    if shape.precision != least_exact:
        return replace(shape, precision=least_exact), f"{shape.precision} -> {least_exact}"
    rows = min(shape.max_rows, task.msa_depth)
    if rows // 4 >= MIN_MSA_ROWS:
        return replace(shape, max_rows=rows // 4), f"{rows} -> {rows // 4} alignment rows"
    return None


def _wider_shape(costs: CostModel, task: Task, shape: FoldShape, max_ranks: int) -> FoldShape:
    """The smallest larger group with enough memory for a fallback, or else the largest one."""
    max_bytes = FALLBACK_BYTES * costs.bytes(task, shape)
    for num_ranks in range(shape.num_ranks + 1, max_ranks + 1):
        wider = replace(shape, num_ranks=num_ranks)
        if costs.bytes(task, wider) <= max_bytes:
            return wider
    return replace(shape, num_ranks=max_ranks)
