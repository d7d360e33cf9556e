"""The worker groups of a planned run, and how long it takes: simulated, or by size of complex."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from foldcp.pipeline.config import RunSection
from foldcp.pipeline.inputs.tasks import Failed, Task
from foldcp.pipeline.inputs.validation import assumed_rows
from foldcp.pipeline.scheduling.cost_model import CostModel, FoldShape
from foldcp.pipeline.scheduling.group_size import (
    CostCache,
    cost_cache,
    smallest_shape,
    too_large_reason,
)
from foldcp.pipeline.scheduling.simulation.simulator import Simulation

# Alignments differ in depth from complex to complex; rows that make so little difference to time
# and memory make no class of their own.
DEPTH_STEP = 128


@dataclass(frozen=True, slots=True)
class PlannedGroup:
    """The worker group of a task, or of several of one size, of which it is the first."""

    task: Task
    shape: FoldShape
    num_complexes: int = 1


@dataclass(frozen=True, slots=True)
class TooLarge:
    """A task that no group can hold, and why.

    `fits_alone` says that one could, were it folded without the alignments that it lacks.
    """

    task: Task
    reason: str
    fits_alone: bool


@dataclass(frozen=True, slots=True)
class Schedule:
    """What is folded on which groups, what cannot be, and the seconds of the whole run."""

    groups: tuple[PlannedGroup, ...]
    too_large: tuple[TooLarge, ...]
    seconds: float


def simulated(
    tasks: Sequence[Task], costs: CostModel, nodes: Mapping[str, int], settings: RunSection
) -> Schedule:
    """What the scheduler does, run in virtual time: a group for each task."""
    simulation = Simulation(tasks, costs, nodes, settings).run()
    outcomes = simulation.scheduler.outcomes
    shapes = {attempt.task.key: attempt.shape for attempt in simulation.scheduler.attempts}
    groups: list[PlannedGroup] = []
    too_large: list[TooLarge] = []
    max_ranks = _max_ranks(nodes, settings)
    for task in tasks:
        outcome = outcomes[task.key]
        if isinstance(outcome, Failed):
            too_large.append(_too_large(task, outcome.reason, costs, max_ranks))
        else:
            groups.append(PlannedGroup(task, shapes[task.key]))
    return Schedule(tuple(groups), tuple(too_large), simulation.now)


def by_size(
    tasks: Sequence[Task], costs: CostModel, nodes: Mapping[str, int], settings: RunSection
) -> Schedule:
    """A group for all tasks of one size, and the time that all GPUs at work need for all of them.

    For so many tasks that the GPUs are never idle: each has the cheapest group, or a larger one if
    its fold would outlast all the others together.
    """
    num_gpus = sum(nodes.values())
    max_ranks = _max_ranks(nodes, settings)
    cache = cost_cache(costs, max_ranks, settings, 0.0)
    fitting: list[PlannedGroup] = []
    too_large: dict[str, TooLarge] = {}
    for members in _classes(tasks):
        task = replace(members[0], msa_depth=_rounded(members[0].msa_depth))
        shape = smallest_shape(costs, task, max_ranks)
        if shape is None:
            for member in members:
                reason = too_large_reason(costs, member, max_ranks)
                too_large[member.key] = _too_large(member, reason, costs, max_ranks)
        else:
            fitting.append(PlannedGroup(task, cache.cheapest(task, shape), len(members)))
    average = _work(fitting, cache) / num_gpus
    groups = [
        replace(group, shape=cache.cheapest_within(group.task, group.shape, average))
        for group in fitting
    ]
    longest = max((cache.seconds(group.task, group.shape) for group in groups), default=0.0)
    busy = max(_work(groups, cache) / num_gpus, longest)
    start = costs.hardware.start_seconds if groups else 0.0
    groups = [
        replace(group, shape=replace(group.shape, batch=cache.batch(group.task, group.shape)))
        for group in groups
    ]
    in_order = [too_large[task.key] for task in tasks if task.key in too_large]
    return Schedule(tuple(groups), tuple(in_order), start + busy)


def _classes(tasks: Sequence[Task]) -> list[list[Task]]:
    """The tasks of equal costs, the smallest first."""
    classes: dict[tuple[int, int, int], list[Task]] = {}
    for task in tasks:
        size = (task.num_tokens, _rounded(task.msa_depth), len(task.complex.templates))
        classes.setdefault(size, []).append(task)
    return [classes[size] for size in sorted(classes)]


def _rounded(depth: int) -> int:
    """The depth itself if it is small, or else the next multiple of `DEPTH_STEP`."""
    return depth if depth < DEPTH_STEP else -(-depth // DEPTH_STEP) * DEPTH_STEP


def _work(groups: Sequence[PlannedGroup], cache: CostCache) -> float:
    """GPU-seconds of all complexes."""
    return sum(group.num_complexes * cache.gpu_seconds(group.task, group.shape) for group in groups)


def _too_large(task: Task, reason: str, costs: CostModel, max_ranks: int) -> TooLarge:
    rows = assumed_rows(costs.config)
    chains = task.complex.chains
    has_none = not any(chain.msa or chain.paired_msa for chain in chains)
    is_assumed = rows > 1 and has_none and any(chain.lacks_alignment for chain in chains)
    alone = replace(task, msa_depth=1)
    if not is_assumed or smallest_shape(costs, alone, max_ranks) is None:
        return TooLarge(task, reason, fits_alone=False)
    reason += f", with {rows:,} rows of the alignments that it lacks; without them it fits"
    return TooLarge(task, reason, fits_alone=True)


def _max_ranks(nodes: Mapping[str, int], settings: RunSection) -> int:
    """Ranks of the largest group that may be made."""
    num_gpus = sum(nodes.values())
    return min(settings.max_group or num_gpus, num_gpus)
