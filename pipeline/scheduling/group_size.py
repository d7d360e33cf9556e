"""Group size: how many ranks fold a complex.

Chosen for a first attempt, and after an attempt ran out of memory.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from foldcp.config import Precision
from foldcp.pipeline.config import Fallbacks, RunSection
from foldcp.pipeline.inputs.tasks import Task
from foldcp.pipeline.scheduling.cost_model import CostModel, FoldShape

# The search for a cheaper group ends at one that costs 1.2 times the cheapest so far.
SEARCH_CUTOFF = 1.2
# The search for wider groups ends at one with this share of the least efficiency.
HOPELESS = 0.5
BISECTIONS = 40  # of the lower bound: beyond float32's precision
MAX_RANKS = 1 << 16  # beyond which no complex is told how many it needs
MIN_MSA_ROWS = 128  # below which no out-of-memory fallback goes
FALLBACK_BYTES = 0.75  # of the bytes that were too many, on each rank of the next group
MAX_BATCH = 16  # complexes that are folded together
# Twice as many complexes are folded together if each takes less than this share of the time.
BATCH_GAIN = 0.98


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


def first_precision(costs: CostModel, task: Task) -> Precision:
    """The precision of a first attempt: the most exact in which one GPU holds a task.

    The least exact one for a task that no single GPU holds. So the arithmetic of a result depends
    on the complex, the settings and the kind of GPU, and not on how many there are.
    """
    precisions = costs.precisions()
    for precision in precisions:
        shape = initial_shape(costs, 1, precision)
        if costs.least_bytes(task, shape) <= costs.hardware.memory:  # whatever has been learned
            return precision
    return precisions[-1]


def smallest_shape(costs: CostModel, task: Task, max_ranks: int) -> FoldShape | None:
    """The smallest group of at most `max_ranks` GPUs that holds a task; None if none does.

    Where none holds it with all samples at once, as the settings want it, they are drawn one at a
    time: each has noise of its own, so that this changes no result.
    """
    single = initial_shape(costs, 1, first_precision(costs, task))
    shape = _smallest_group(costs, task, single, max_ranks)
    if shape is None and single.parallel_samples > 1:
        shape = _smallest_group(costs, task, replace(single, parallel_samples=1), max_ranks)
    return shape


def _smallest_group(
    costs: CostModel, task: Task, single: FoldShape, max_ranks: int
) -> FoldShape | None:
    """The smallest group that holds a task, with all else as in `single`."""

    def fits(num_ranks: int) -> bool:
        return costs.fits(task, replace(single, num_ranks=num_ranks))

    if fits(1):  # as most do
        return single
    num_ranks = 2 + bisect.bisect_left(range(2, max_ranks + 1), True, key=fits)
    return replace(single, num_ranks=num_ranks) if num_ranks <= max_ranks else None


def too_large_reason(costs: CostModel, task: Task, max_ranks: int) -> str:
    """The reason why no group of `max_ranks` GPUs can hold a task, and how many GPUs could.

    The memory that it names is the least with one sample at a time.
    """
    shape = replace(
        initial_shape(costs, max_ranks, first_precision(costs, task)), parallel_samples=1
    )
    needed_gb = costs.least_bytes(task, shape) / 1e9
    unit = "GPU" if costs.hardware.device == "cuda" else "rank"
    enough = smallest_shape(costs, task, MAX_RANKS)
    least = f"at least {needed_gb:.0f} GB on each of {max_ranks} {unit}s"
    memory = f"{costs.hardware.memory_gb:.0f} GB"
    remedy = f"it needs {enough.num_ranks} {unit}s" if enough else f"no number of {unit}s holds it"
    in_int8 = _smallest_in_int8(costs, task)
    if in_int8 is not None and (enough is None or in_int8.num_ranks < enough.num_ranks):
        remedy += f", or {in_int8.num_ranks} with model.precision=bf16-int8"
    return (
        f"{task.num_tokens} tokens in {shape.precision} need {least}, and a {unit} has {memory}; "
        f"{remedy}"
    )


def _smallest_in_int8(costs: CostModel, task: Task) -> FoldShape | None:
    """The smallest group of GPUs that holds a task with products in 8 bits."""
    if costs.hardware.device != "cuda":
        return None
    model = replace(costs.config.model, precision="bf16-int8")
    return smallest_shape(
        replace(costs, config=replace(costs.config, model=model)), task, MAX_RANKS
    )


@dataclass(slots=True)
class CostCache:
    """Predicted seconds of tasks on groups of up to `max_ranks` ranks, each size computed once.

    A group, larger than the smallest one, whose parallel efficiency is below `min_efficiency` is
    none of the options: the GPU-seconds of the cheapest group over its own. Up to `max_batch`
    complexes are folded together, as long as a batch of twice as many takes at most `batch_gain`
    times the seconds of each.
    """

    costs: CostModel
    max_ranks: int
    min_efficiency: float = 0.0
    max_batch: int = 1
    batch_gain: float = BATCH_GAIN
    _seconds: dict[tuple[int, int, int, FoldShape], float] = field(default_factory=dict)
    _cheapest: dict[tuple[int, int, int, FoldShape], FoldShape] = field(default_factory=dict)
    _options: dict[tuple[int, int, int, FoldShape], list[FoldShape]] = field(default_factory=dict)
    _batches: dict[tuple[int, int, int, FoldShape], int] = field(default_factory=dict)

    def seconds(self, task: Task, shape: FoldShape) -> float:
        """Predicted seconds of one fold."""
        key = _size_key(task, shape)
        if key not in self._seconds:
            self._seconds[key] = self.costs.seconds(task, shape)
        return self._seconds[key]

    def gpu_seconds(self, task: Task, shape: FoldShape) -> float:
        """Predicted seconds of one fold times its GPUs; its share of a batch that pays off."""
        return self.seconds(task, shape) * shape.num_ranks * self.share(task, shape)

    def share(self, task: Task, shape: FoldShape) -> float:
        """GPU-seconds in a batch of as many as pay off over those alone."""
        batch = self.batch(task, shape)
        if batch == 1:
            return 1.0
        together = self.seconds(task, replace(shape, batch=batch))
        return together / (batch * self.seconds(task, shape))

    def cheapest(self, task: Task, shape: FoldShape) -> FoldShape:
        """The group, of `shape`'s size or larger, that needs the fewest GPU-seconds.

        Mostly the smallest one, but more GPUs may cost less where memory is tight.
        """
        key = _size_key(task, shape)
        if key not in self._cheapest:
            self._cheapest[key] = self._find_cheapest(task, shape)
        return self._cheapest[key]

    def _find_cheapest(self, task: Task, shape: FoldShape) -> FoldShape:
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

    def options(self, task: Task, shape: FoldShape) -> list[FoldShape]:
        """The groups of `shape`'s size or larger that pay off, the smallest first.

        Every size up to 16 ranks, and of more ranks every sixteenth at least.
        """
        key = _size_key(task, shape)
        if key not in self._options:
            least = self.gpu_seconds(task, self.cheapest(task, shape))
            found = [shape]
            num_ranks = shape.num_ranks + 1
            while num_ranks <= self.max_ranks:
                wider = replace(shape, num_ranks=num_ranks)
                efficiency = least / self.gpu_seconds(task, wider)
                if efficiency >= self.min_efficiency:
                    found.append(wider)
                elif efficiency < HOPELESS * self.min_efficiency:
                    break
                num_ranks += max(1, num_ranks // 16)
            self._options[key] = found
        return self._options[key]

    def cheapest_within(self, task: Task, shape: FoldShape, max_seconds: float) -> FoldShape:
        """The cheapest group, of `shape`'s size or larger, that takes at most `max_seconds`.

        The fastest one that pays off if none does.
        """
        if self.seconds(task, shape) <= max_seconds:
            return shape
        options = self.options(task, shape)
        fast = [option for option in options if self.seconds(task, option) <= max_seconds]
        if fast:
            return min(fast, key=lambda option: self.gpu_seconds(task, option))
        return min(options, key=lambda option: self.seconds(task, option))

    def batch(self, task: Task, shape: FoldShape) -> int:
        """How many complexes of this size one GPU folds together; 1 for each alone."""
        if shape.num_ranks > 1 or self.max_batch == 1:
            return 1
        key = _size_key(task, shape)
        if key not in self._batches:
            self._batches[key] = self._find_batch(task, shape)
        return self._batches[key]

    def _find_batch(self, task: Task, shape: FoldShape) -> int:
        batch = 1
        seconds_each = self.seconds(task, shape)
        while batch < self.max_batch:
            larger = min(2 * batch, self.max_batch)
            together = replace(shape, batch=larger)
            of_each = self.seconds(task, together) / larger
            if of_each > self.batch_gain * seconds_each or not self.costs.batch_fits(
                task, together
            ):
                break
            batch = larger
            seconds_each = of_each
        return batch


def cost_cache(
    costs: CostModel, max_ranks: int, settings: RunSection, efficiency: float | None = None
) -> CostCache:
    """The costs of groups and batches that the settings of a run allow.

    On GPUs batches are as large as pays off, and at most what `run.batch` says; on a CPU, where
    none pays off, they are what it says. `efficiency` replaces `run.efficiency`.
    """
    on_gpu = costs.hardware.device == "cuda"
    if costs.config.model.potentials:
        max_batch = 1
    elif settings.batch:
        max_batch = settings.batch
    else:
        max_batch = MAX_BATCH if on_gpu else 1
    return CostCache(
        costs,
        max_ranks,
        settings.efficiency if efficiency is None else efficiency,
        max_batch,
        BATCH_GAIN if on_gpu else math.inf,
    )


def _size_key(task: Task, shape: FoldShape) -> tuple[int, int, int, FoldShape]:
    """What the cost of a fold depends on."""
    return (task.num_tokens, task.msa_depth, len(task.complex.templates), shape)


def lower_bound(costs: CostCache, work: Sequence[tuple[Task, FoldShape]], num_gpus: int) -> float:
    """Seconds that no schedule can beat with groups that pay off.

    The least T such that every fold can be sped up to T seconds, and all folds, each on the
    cheapest group that does so, fill no more than T seconds of the whole cluster: the dual bound of
    Turek, Wolf and Yu (SPAA 1992) for tasks that may run on groups of any size.
    """
    cheapest = [(task, costs.cheapest(task, shape)) for task, shape in work]
    return _lower_bound(costs, cheapest, num_gpus)


def assign_group_sizes(
    costs: CostCache, work: Sequence[tuple[Task, FoldShape]], num_gpus: int
) -> list[FoldShape]:
    """The shape of each task, whose smallest one is given.

    The cheapest group, or a larger one where a single fold would outlast all the others.
    """
    cheapest = [(task, costs.cheapest(task, shape)) for task, shape in work]
    max_seconds = _lower_bound(costs, cheapest, num_gpus)
    return [costs.cheapest_within(task, shape, max_seconds) for task, shape in cheapest]


def _lower_bound(
    costs: CostCache, cheapest: Sequence[tuple[Task, FoldShape]], num_gpus: int
) -> float:
    """The lower bound of tasks on their cheapest groups or larger ones."""
    if not cheapest:
        return 0.0
    total = sum(costs.gpu_seconds(*found) for found in cheapest)
    average = total / num_gpus
    slow = [found for found in cheapest if costs.seconds(*found) > average]
    others = total - sum(costs.gpu_seconds(*found) for found in slow)
    fastest = [costs.seconds(task, costs.cheapest_within(task, shape, 0.0)) for task, shape in slow]
    low = max([average, *fastest])
    high = max([average, *(costs.seconds(*found) for found in slow)])
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        chosen = [(task, costs.cheapest_within(task, shape, middle)) for task, shape in slow]
        if others + sum(costs.gpu_seconds(*found) for found in chosen) <= middle * num_gpus:
            high = middle
        else:
            low = middle
    return high


def next_oom_fallback(
    costs: CostModel, task: Task, shape: FoldShape, max_ranks: int, allowed: Fallbacks = "all"
) -> tuple[FoldShape, str] | None:
    """The out-of-memory fallback that follows an attempt of `shape`.

    Returns the new shape, and what was changed in words; None when no fallback is left that is
    `allowed`, as in `run.fallbacks`. In this order: a larger group with at most three quarters of
    the bytes on each rank, one sample at a time, the largest group, bf16 where the settings leave
    the precision open, a quarter of the MSA rows.
    """
    if allowed == "none":
        return None
    wider = _wider_shape(costs, task, shape, max_ranks)
    if wider is None and shape.parallel_samples > 1:
        in_turn = replace(shape, parallel_samples=1)
        return in_turn, f"{shape.parallel_samples} -> 1 samples at once"
    if wider is None and shape.num_ranks < max_ranks:
        wider = replace(shape, num_ranks=max_ranks)
    if wider is not None:
        return wider, f"{shape.num_ranks} -> {wider.num_ranks} ranks"
    if allowed == "exact":
        return None
    least_exact = costs.precisions()[-1]
    if shape.precision != least_exact:
        return replace(shape, precision=least_exact), f"{shape.precision} -> {least_exact}"
    rows = min(shape.max_rows, task.msa_depth)
    if rows // 4 >= MIN_MSA_ROWS:
        return replace(shape, max_rows=rows // 4), f"{rows} -> {rows // 4} alignment rows"
    return None


def _wider_shape(
    costs: CostModel, task: Task, shape: FoldShape, max_ranks: int
) -> FoldShape | None:
    """The smallest larger group with enough memory for a fallback."""
    max_bytes = FALLBACK_BYTES * costs.least_bytes(task, shape)
    for num_ranks in range(shape.num_ranks + 1, max_ranks + 1):
        wider = replace(shape, num_ranks=num_ranks)
        if costs.least_bytes(task, wider) <= max_bytes:
            return wider
    return None
