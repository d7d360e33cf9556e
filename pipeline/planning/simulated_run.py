"""A run of the scheduler in virtual time in figures: how long, how well used, at which cost."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from statistics import median

from foldcp.pipeline.inputs.tasks import Failed
from foldcp.pipeline.planning.nodes import describe_nodes
from foldcp.pipeline.planning.plan import CLASS_ENDS, rounded, size_ranges
from foldcp.pipeline.scheduling.group_size import cost_cache, lower_bound, smallest_shape
from foldcp.pipeline.scheduling.simulation.simulator import Simulation
from foldcp.pipeline.scheduling.types import Attempt
from foldcp.printable import printable


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """The complexes of a size class that were folded.

    `lost_gpu_hours` are those of attempts that failed; `cost` is in the unit of the price, 0
    without one.
    """

    tokens: str
    num_complexes: int
    group_sizes: str
    median_seconds: float
    gpu_hours: float
    lost_gpu_hours: float
    cost: float


@dataclass(frozen=True, slots=True)
class SimulatedRun:
    """The figures of a run.

    `bound_hours` is the least that any schedule needs with groups of `run.efficiency`, without
    starts and failures, `unlimited_bound_hours` the same with groups of any size. `use` is the
    share of all GPU-hours that successful folds take, `busy_use` the same up to the moment at which
    nothing waits any more. `cost` is that of all GPUs to the end.
    """

    hardware: str
    guessed: tuple[str, ...]  # values of the hardware that were not measured
    num_gpus: int
    nodes: str
    num_done: int
    failed: tuple[tuple[str, str], ...]  # (name, reason)
    hours: float
    bound_hours: float
    unlimited_bound_hours: float
    use: float
    busy_use: float
    gpu_hours: float  # of all GPUs to the end
    folding_gpu_hours: float
    lost_gpu_hours: float
    num_groups: int  # worker groups that were started
    num_spread_groups: int  # over several nodes
    cost: float
    classes: tuple[ClassFigures, ...]


def figures(simulation: Simulation, nodes: Mapping[str, int], price: float) -> SimulatedRun:
    """The figures of a simulated run on nodes whose GPUs cost `price` an hour each."""
    scheduler = simulation.scheduler
    attempts = scheduler.attempts
    done = [attempt for attempt in attempts if attempt.outcome == "done"]
    num_gpus = sum(nodes.values())
    last_start = max((attempt.started for attempt in attempts), default=0.0)
    folding = _gpu_hours(done)
    before_last = sum(
        (min(attempt.ended, last_start) - attempt.started)
        * attempt.shape.num_ranks
        / attempt.shape.batch
        for attempt in done
    )
    failed = [found for found in scheduler.outcomes.values() if isinstance(found, Failed)]
    starts = simulation.starts
    gpu_hours = simulation.now / 3600 * num_gpus
    return SimulatedRun(
        hardware=simulation.costs.hardware.name,
        guessed=simulation.costs.hardware.guessed,
        num_gpus=num_gpus,
        nodes=describe_nodes(nodes),
        num_done=len(done),
        failed=tuple((found.task.name, found.reason) for found in failed),
        hours=simulation.now / 3600,
        bound_hours=_bound_hours(simulation, num_gpus, scheduler.settings.efficiency),
        unlimited_bound_hours=_bound_hours(simulation, num_gpus, 0.0),
        use=folding / gpu_hours if gpu_hours else 0.0,
        busy_use=before_last / (last_start * num_gpus) if last_start else 0.0,
        gpu_hours=gpu_hours,
        folding_gpu_hours=folding,
        lost_gpu_hours=_gpu_hours(attempts) - folding,
        num_groups=len(starts),
        num_spread_groups=sum(len(start.placement) > 1 for start in starts),
        cost=price * gpu_hours,
        classes=_classes(attempts, price),
    )


def _bound_hours(simulation: Simulation, num_gpus: int, efficiency: float) -> float:
    """The least hours for all complexes that fit the cluster at its start."""
    costs = simulation.costs
    settings = simulation.scheduler.settings
    max_ranks = min(settings.max_group or num_gpus, num_gpus)
    shapes = [(task, smallest_shape(costs, task, max_ranks)) for task in simulation.tasks]
    work = [(task, shape) for task, shape in shapes if shape is not None]
    cache = cost_cache(costs, max_ranks, settings, efficiency)
    return lower_bound(cache, work, num_gpus) / 3600


def _gpu_hours(attempts: Iterable[Attempt]) -> float:
    return sum(found.gpu_seconds for found in attempts) / 3600


def _classes(attempts: Sequence[Attempt], price: float) -> tuple[ClassFigures, ...]:
    """The size classes that have members, the smallest first."""

    def size_class(attempt: Attempt) -> str:
        return class_label(attempt.task.num_tokens)

    by_size = sorted(attempts, key=lambda attempt: attempt.task.num_tokens)
    return tuple(
        _class_figures(label, list(members), price)
        for label, members in groupby(by_size, size_class)
    )


def class_label(num_tokens: int) -> str:
    """The size class of a complex: `1,025-1,536`."""
    low = 0
    for high in CLASS_ENDS:
        if num_tokens <= high:
            return f"{low + 1:,}-{high:,}"
        low = high
    return f"over {low:,}"


def _class_figures(label: str, attempts: Sequence[Attempt], price: float) -> ClassFigures:
    done = [attempt for attempt in attempts if attempt.outcome == "done"]
    gpu_hours = _gpu_hours(done)
    lost = _gpu_hours(attempts) - gpu_hours
    return ClassFigures(
        tokens=label,
        num_complexes=len(done),
        group_sizes=size_ranges({attempt.shape.num_ranks for attempt in done}),
        median_seconds=median([attempt.ended - attempt.started for attempt in done] or [0.0]),
        gpu_hours=gpu_hours,
        lost_gpu_hours=lost,
        cost=price * (gpu_hours + lost),
    )


def to_json(run: SimulatedRun) -> str:
    """All figures as JSON; the keys are the fields of the dataclasses."""
    return json.dumps(rounded(asdict(run)), indent=1)


def to_text(run: SimulatedRun) -> str:
    """The figures for people, after the complexes that would fail."""
    lines = [f"failed\t{printable(name)}\t{printable(reason)}" for name, reason in run.failed]
    idle = run.gpu_hours - run.folding_gpu_hours - run.lost_gpu_hours
    spread = f", {run.num_spread_groups:,} of them over several nodes" * (run.num_spread_groups > 0)
    ratio = run.hours / run.bound_hours if run.bound_hours else 0.0
    lines += [
        "",
        f"cluster     {run.num_gpus:,} GPUs of {run.hardware}: {run.nodes}",
        f"complexes   {run.num_done:,} done, {len(run.failed):,} failed",
        f"makespan    {run.hours:,.3f} hours, {ratio:.3f} times the least possible, "
        f"{run.bound_hours:,.3f} ({run.unlimited_bound_hours:,.3f} with groups of any efficiency)",
        f"use         {run.use:.1%} of {run.gpu_hours:,.1f} GPU-hours, {run.busy_use:.1%} while "
        "something waited",
        f"GPU-hours   {run.folding_gpu_hours:,.1f} folding, {run.lost_gpu_hours:,.1f} lost to "
        f"failures, {idle:,.1f} starting and idle",
        f"groups      {run.num_groups:,} started{spread}",
    ]
    if run.guessed:
        lines.append(
            f"guesses     {', '.join(run.guessed)} of {run.hardware} were never measured; a run "
            "learns the times that follow from them"
        )
    if run.cost:
        lines.append(f"cost        {run.cost:,.2f} for all GPUs to the end")
    lines += ["", *_class_lines(run)]
    return "\n".join(lines)


def _class_lines(run: SimulatedRun) -> list[str]:
    """A line for each size class; with a price, its share of the cost."""
    cost = f" {'cost':>12}" if run.cost else ""
    lines = [
        f"{'tokens':>15} complexes  {'GPUs each':<16} median s  GPU-hours   lost{cost}",
    ]
    for found in run.classes:
        cost = f" {found.cost:>12,.2f}" if run.cost else ""
        lines.append(
            f"{found.tokens:>15} {found.num_complexes:>9,}  {found.group_sizes:<16} "
            f"{found.median_seconds:>8,.0f} {found.gpu_hours:>10,.2f} {found.lost_gpu_hours:>6,.2f}"
            f"{cost}"
        )
    return lines
