"""How many GPUs a fold gets: at first, at the end of the queue, and after it ran out of memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from foldcp.pipeline.inputs.tasks import Task
from foldcp.pipeline.scheduling.cost_model import Costs, FoldShape

# a group that costs so many times more than the cheapest one ends the search for a cheaper one
SEARCH_CUTOFF = 1.2
FEWEST_ROWS = 128  # of an alignment, below which the ladder does not go
ROUNDS = 40  # of a bisection: beyond float32's precision


@dataclass(slots=True)
class CostCache:
    """Predicted seconds of tasks on groups of up to `largest` ranks, each computed once."""

    costs: Costs
    largest: int
    _seconds: dict[tuple[str, FoldShape], float] = field(default_factory=dict)
    _options: dict[tuple[str, FoldShape], list[FoldShape]] = field(default_factory=dict)

    def seconds(self, task: Task, setup: FoldShape) -> float:
        """Predicted seconds of one fold."""
        known = (task.key, setup)
        if known not in self._seconds:
            self._seconds[known] = self.costs.seconds(task, setup)
        return self._seconds[known]

    def cheapest(self, task: Task, setup: FoldShape) -> FoldShape:
        """The group, of `setup`'s size or more, that needs the fewest GPU-seconds: mostly the
        smallest, but more GPUs may cost less where memory is tight.
        """
        best = setup
        least = math.inf
        for num_ranks in range(setup.num_ranks, self.largest + 1):
            wider = replace(setup, num_ranks=num_ranks)
            work = self.seconds(task, wider) * num_ranks
            if work < least:
                best = wider
                least = work
            if work > SEARCH_CUTOFF * least:
                break
        return best

    def within(self, task: Task, setup: FoldShape, limit: float) -> FoldShape:
        """The cheapest group, from `setup` up, that takes at most `limit` seconds; else the
        fastest one.
        """
        if self.seconds(task, setup) <= limit:
            return setup
        known = (task.key, setup)
        if known not in self._options:
            wider = [replace(setup, num_ranks=p) for p in range(setup.num_ranks, self.largest + 1)]
            wider.sort(key=lambda option: self.seconds(task, option) * option.num_ranks)
            self._options[known] = wider
        options = self._options[known]
        fits = next((option for option in options if self.seconds(task, option) <= limit), None)
        return fits or min(options, key=lambda option: self.seconds(task, option))


def lower_bound(sizes: CostCache, work: Sequence[tuple[Task, FoldShape]], num_gpus: int) -> float:
    """Seconds below which no schedule ends: the least T such that every fold can be sped up to T
    seconds and all of them, each on the cheapest group that does it, fill no more than T seconds of
    the whole cluster.

    (The dual bound of Turek, Wolf and Yu, SPAA 1992, for tasks that may run on groups of any size.)
    """
    if not work:
        return 0.0
    work = [(task, sizes.cheapest(task, setup)) for task, setup in work]
    total = sum(sizes.seconds(task, setup) * setup.num_ranks for task, setup in work) / num_gpus
    slow = [(task, setup) for task, setup in work if sizes.seconds(task, setup) > total]
    low = max(
        [
            total,
            *(sizes.seconds(task, sizes.within(task, setup, 0.0)) for task, setup in slow),
        ]
    )
    high = max([total, *(sizes.seconds(task, setup) for task, setup in slow)])
    for _ in range(ROUNDS):
        middle = (low + high) / 2
        chosen = [(task, sizes.within(task, setup, middle)) for task, setup in work]
        area = sum(sizes.seconds(task, setup) * setup.num_ranks for task, setup in chosen)
        low, high = (low, middle) if area <= middle * num_gpus else (middle, high)
    return high


def assign_group_sizes(
    sizes: CostCache, work: Sequence[tuple[Task, FoldShape]], num_gpus: int
) -> dict[str, FoldShape]:
    """The group of each task: the cheapest one, or a larger one where a single fold would
    outlast all the others.
    """
    limit = lower_bound(sizes, work, num_gpus)
    return {
        task.key: sizes.within(task, sizes.cheapest(task, setup), limit) for task, setup in work
    }


def widen_tail(
    sizes: CostCache,
    work: Sequence[tuple[Task, FoldShape]],
    num_gpus: int,
    warm: Mapping[int, int],
    start: float,
) -> list[FoldShape]:
    """Groups for the last tasks, which together leave GPUs without work: the slowest one is widened
    as long as that gains more than a new group's `start` seconds cost. `warm` counts the idle
    groups of each size.
    """
    chosen = [setup for _, setup in work]
    spare = num_gpus - sum(setup.num_ranks for setup in chosen)

    def ends(index: int, setup: FoldShape) -> float:
        return sizes.seconds(work[index][0], setup) + (0.0 if warm.get(setup.num_ranks) else start)

    while True:
        slowest = max(range(len(work)), key=lambda index: ends(index, chosen[index]))
        now = chosen[slowest]
        wider = [
            replace(now, num_ranks=num_ranks)
            for num_ranks in range(now.num_ranks + 1, min(sizes.largest, now.num_ranks + spare) + 1)
        ]
        better = [setup for setup in wider if ends(slowest, setup) < 0.9 * ends(slowest, now)]
        if not better:
            return chosen
        chosen[slowest] = better[0]
        spare -= better[0].num_ranks - now.num_ranks


def next_oom_fallback(
    costs: Costs, task: Task, setup: FoldShape, largest: int
) -> tuple[FoldShape, str] | None:
    """The next attempt after one that ran out of memory, and the step in words; None at the end of
    the ladder: a group with at most three quarters of the bytes per GPU, one sample at a time, bf16
    where the settings leave the precision open, a quarter of the alignment.
    """
    if setup.num_ranks < largest:
        enough = 0.75 * costs.bytes(task, setup)
        sizes = range(setup.num_ranks + 1, largest + 1)
        wider = (replace(setup, num_ranks=p) for p in sizes)
        chosen = next(
            (s for s in wider if costs.bytes(task, s) <= enough),
            replace(setup, num_ranks=largest),
        )
        return chosen, f"{setup.num_ranks} -> {chosen.num_ranks} ranks"
    if setup.parallel_samples > 1:
        return replace(setup, parallel_samples=1), f"{setup.parallel_samples} -> 1 samples at once"
    if setup.precision != costs.precisions()[-1]:
        return replace(
            setup, precision=costs.precisions()[-1]
        ), f"{setup.precision} -> {costs.precisions()[-1]}"
    rows = min(setup.max_rows, task.msa_depth)
    if rows // 4 >= FEWEST_ROWS:
        return replace(setup, max_rows=rows // 4), f"{rows} -> {rows // 4} alignment rows"
    return None
