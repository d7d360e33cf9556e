"""The cost model learns from the folds of its run: times of stages, rates of links, memory.

Of each kind of fold (size class, ranks, precision, size of its batch) the last `NUM_RECENT` are
kept, and from them all follows:

1. The rates of the links, from the trunk: measured = c compute + l exchanges within a node + n
   exchanges between nodes, with the predicted parts. (log c, log l, log n) minimise the sum of
   squares of log(predicted / measured), of Huber's weight beyond `OUTLIER`, plus that of their own
   squares with the weights of `PRIORS`.
2. The factor of a stage, from x = log(measured / predicted) with these rates:
   log f(stage) = w median(x), over all kept folds, and w = k / (k + PRIOR_FOLDS) for k folds.
3. Of a size, and then of a kind, what its folds say beyond the level above:
   log f(size) = log f(stage) + w (median(x of the size) - median(x of the stage)),
   log f(kind) = log f(size) + w (median(x of the kind) - median(x of the size)),
   with w = k / (k + KIND_PRIOR_FOLDS). Hence what is wrong everywhere favours no group.

So few folds move little and many decide, and single slow folds do nothing. Numbers of results do
not depend on any of this: it chooses groups, their order, and says when the run will end.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from foldcp.pipeline.inputs.tasks import Task
from foldcp.pipeline.scheduling.cost_model import CostModel, FoldShape
from foldcp.pipeline.scheduling.costs.factors import MEASURED_STAGES, Factors, Kind, kind_of

NUM_RECENT = 16  # folds of a kind that are kept
# Weights in folds: of the prediction against a stage, and of each level against the next one.
PRIOR_FOLDS = 4.0
KIND_PRIOR_FOLDS = 2.0
# Weights in the fit of the links' rates, in folds whose every second is the one or the other: of
# computing, exchanges within a node and exchanges between nodes as predicted.
PRIORS = (0.16, 0.02, 0.02)
OUTLIER = 0.5  # of a logarithm
ITERATIONS = 12  # of Gauss and Newton, each at most so far in a logarithm:
MAX_STEP = 1.0
MAX_EXCHANGE_LOG = 3.4  # a factor of 30
MAX_LOG_RATIO = 3.0  # beyond which a measurement counts no more
MIN_SECONDS = 1e-3
WORTH_PLANNING = 0.1  # change of a factor's logarithm from which sizes are chosen again
FIRST_PLANNING = 2  # folds before sizes are chosen again for the first time
PLANNING_GROWTH = 2.0  # and how many times as many there must be before the next time
TASKS_PER_FOLD = 2_000  # waiting tasks for which another fold must be measured before


@dataclass(frozen=True, slots=True)
class MeasuredFold:
    """A fold of this run or of an earlier one in the same folder.

    `stages` are the seconds of `MEASURED_STAGES`, empty where only the whole is known; `ran_out`
    says that the fold ran out of memory, and then its times mean nothing.
    """

    task: Task
    shape: FoldShape
    seconds: float
    stages: Mapping[str, float] = field(default_factory=dict)
    ran_out: bool = False

    @property
    def kind(self) -> Kind:
        """The kind of the fold."""
        shape = self.shape
        return kind_of(self.task.num_tokens, shape.num_ranks, shape.precision, shape.batch)


class CostLearner:
    """The cost model of a run, and what its folds have shown."""

    def __init__(self, costs: CostModel, folds: Iterable[MeasuredFold] = ()) -> None:
        self._base = costs
        self._folds: dict[Kind, deque[MeasuredFold]] = {}
        self._memory_limits: dict[tuple[int, str], float] = {}
        self._batch_limit = math.inf
        self._num_folds = 0
        self._next_planning = FIRST_PLANNING
        for fold in folds:
            self.record(fold)

    def record(self, fold: MeasuredFold) -> None:
        """A fold has ended: it was stored, or it ran out of memory.

        What took as much memory on each rank as one that ran out is not planned again on so many
        ranks or fewer, until one succeeds that took as much. Batches have a limit of their own.
        """
        if fold.ran_out and fold.shape.batch > 1:
            needed = self._base.peak_bytes(fold.task, fold.shape)
            self._batch_limit = min(self._batch_limit, needed)
            return
        size = (fold.shape.num_ranks, fold.shape.precision)
        needed = self._base.least_bytes(fold.task, fold.shape)
        limit = self._memory_limits.get(size, math.inf)
        if fold.ran_out:
            self._memory_limits[size] = min(limit, needed)
            return
        if needed >= limit:
            del self._memory_limits[size]
        self._folds.setdefault(fold.kind, deque(maxlen=NUM_RECENT)).append(fold)
        self._num_folds += 1

    def is_due(self, num_waiting: int) -> bool:
        """Whether enough folds were measured since the last time to plan again what waits."""
        return self._num_folds >= max(self._next_planning, num_waiting / TASKS_PER_FOLD)

    def learned(self) -> CostModel:
        """The cost model with all that has been learned so far."""
        self._next_planning = math.ceil(max(FIRST_PLANNING, PLANNING_GROWTH * self._num_folds))
        if not (self._folds or self._memory_limits or self._batch_limit < math.inf):
            return self._base
        limits = dict(self._memory_limits)
        folds = [fold for recent in self._folds.values() for fold in recent]
        link, network = _exchange_factors(self._base, folds)
        hardware = self._base.hardware
        hardware = replace(
            hardware,
            link_bytes_per_s=hardware.link_bytes_per_s / link,
            network_bytes_per_s=hardware.network_bytes_per_s / network,
        )
        linked = replace(
            self._base,
            hardware=hardware,
            memory_limits=limits,
            batch_limit=self._batch_limit,
        )
        return replace(linked, factors=_factors(linked, self._folds))


def differs(costs: CostModel, other: CostModel) -> bool:
    """Whether two states of one cost model differ so much that sizes should be chosen again."""
    changes = [
        (costs.factors or Factors()).largest_change(other.factors or Factors()),
        abs(math.log(costs.hardware.link_bytes_per_s / other.hardware.link_bytes_per_s)),
        abs(math.log(costs.hardware.network_bytes_per_s / other.hardware.network_bytes_per_s)),
    ]
    limits = (costs.memory_limits, costs.batch_limit)
    return max(changes) > WORTH_PLANNING or limits != (other.memory_limits, other.batch_limit)


def _factors(costs: CostModel, folds: Mapping[Kind, Sequence[MeasuredFold]]) -> Factors:
    """The factors of all stages and kinds."""
    ratios: dict[tuple[str, Kind], list[float]] = {}
    overheads: list[float] = []
    for kind, recent in folds.items():
        for fold in recent:
            for stage, ratio in _log_ratios(costs, fold).items():
                ratios.setdefault((stage, kind), []).append(ratio)
            if fold.stages:
                rest = max(0.0, fold.seconds - sum(fold.stages.values()))
                overheads.append(rest / fold.shape.batch)
    factors = Factors(overhead=_median(overheads) * _weight(overheads, PRIOR_FOLDS))
    for stage in MEASURED_STAGES:
        of_stage = {kind: found for (name, kind), found in ratios.items() if name == stage}
        every = [ratio for found in of_stage.values() for ratio in found]
        of_all = _weight(every, PRIOR_FOLDS) * _median(every)
        by_size: dict[int, list[float]] = {}
        for kind, found in of_stage.items():
            by_size.setdefault(kind[0], []).extend(found)
        sizes = {size: of_all + _deviation(found, every) for size, found in by_size.items()}
        factors.by_stage[stage] = math.exp(of_all)
        for size, log in sizes.items():
            factors.by_size[stage, size] = math.exp(log)
        for kind, found in of_stage.items():
            size = kind[0]
            log = sizes[size] + _deviation(found, by_size[size])
            factors.by_kind[stage, kind] = math.exp(log)
    return factors


def _deviation(values: Sequence[float], others: Sequence[float]) -> float:
    """How far the median of some values is from that of more, as far as their number says."""
    return _weight(values, KIND_PRIOR_FOLDS) * (_median(values) - _median(others))


def _weight(values: Sequence[float], prior: float) -> float:
    return len(values) / (len(values) + prior)


def _median(values: Sequence[float]) -> float:
    return median(values) if values else 0.0


def _log_ratios(costs: CostModel, fold: MeasuredFold) -> dict[str, float]:
    """log(measured / predicted) of each stage; of the whole for all, where only that is known."""
    predicted = _predicted(costs, fold)
    measured = fold.stages or {
        stage: seconds * fold.seconds / sum(predicted.values())
        for stage, seconds in predicted.items()
    }
    return {
        stage: _clamped(math.log(max(MIN_SECONDS, measured[stage]) / seconds))
        for stage, seconds in predicted.items()
        if stage in measured and seconds > 0
    }


def _clamped(ratio: float) -> float:
    return min(MAX_LOG_RATIO, max(-MAX_LOG_RATIO, ratio))


def _predicted(costs: CostModel, fold: MeasuredFold) -> dict[str, float]:
    """Predicted seconds of the stages that are measured, without what has been learned of them."""
    stages = costs.stages(fold.task, fold.shape)
    return {stage: sum(stages[part] for part in parts) for stage, parts in MEASURED_STAGES.items()}


def _exchange_factors(costs: CostModel, folds: Sequence[MeasuredFold]) -> tuple[float, float]:
    """How many times as long exchanges take as predicted, within a node and between nodes.

    Step 1 above.
    """
    known = [fold for fold in folds if "trunk" in fold.stages]
    if all(fold.shape.num_ranks == 1 for fold in known):
        return 1.0, 1.0
    parts = [_trunk_parts(costs, fold) for fold in known]
    logs = [0.0, 0.0, 0.0]
    for _ in range(ITERATIONS):
        step = _newton_step(parts, logs)
        logs = [
            log + min(MAX_STEP, max(-MAX_STEP, move)) for log, move in zip(logs, step, strict=True)
        ]
        logs = [min(MAX_EXCHANGE_LOG, max(-MAX_EXCHANGE_LOG, log)) for log in logs]
    return math.exp(logs[1]), math.exp(logs[2])


def _newton_step(parts: Sequence[Sequence[float]], logs: Sequence[float]) -> list[float]:
    """The step of Gauss and Newton from the logarithms of the three factors.

    `parts` are predicted over measured seconds of each.
    """
    normal = [[PRIORS[i] if i == j else 0.0 for j in range(3)] for i in range(3)]
    right = [-prior * log for prior, log in zip(PRIORS, logs, strict=True)]
    for fold in parts:
        scaled = [part * math.exp(log) for part, log in zip(fold, logs, strict=True)]
        total = sum(scaled)
        error = math.log(total)
        weight = min(1.0, OUTLIER / max(OUTLIER, abs(error)))
        shares = [part / total for part in scaled]
        for i in range(3):
            right[i] -= weight * shares[i] * error
            for j in range(3):
                normal[i][j] += weight * shares[i] * shares[j]
    return _solved(normal, right)


def _trunk_parts(costs: CostModel, fold: MeasuredFold) -> list[float]:
    """Predicted over measured seconds of a trunk: computing, exchanges within and between nodes."""
    hardware = replace(costs.hardware, link_bytes_per_s=math.inf)
    without_link = _predicted(replace(costs, hardware=hardware), fold)["trunk"]
    hardware = replace(hardware, network_bytes_per_s=math.inf)
    compute = _predicted(replace(costs, hardware=hardware), fold)["trunk"]
    whole = _predicted(costs, fold)["trunk"]
    measured = max(MIN_SECONDS, fold.stages["trunk"])
    return [
        compute / measured,
        (whole - without_link) / measured,
        (without_link - compute) / measured,
    ]


def _solved(matrix: list[list[float]], right: list[float]) -> list[float]:
    """x of matrix x = right for a symmetric positive definite matrix (Gauss's elimination)."""
    size = len(right)
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    for column in range(size):
        for row in rows[column + 1 :]:
            factor = row[column] / rows[column][column]
            for index in range(column, size + 1):
                row[index] -= factor * rows[column][index]
    found = [0.0] * size
    for index in reversed(range(size)):
        known = sum(rows[index][j] * found[j] for j in range(index + 1, size))
        found[index] = (rows[index][size] - known) / rows[index][index]
    return found
