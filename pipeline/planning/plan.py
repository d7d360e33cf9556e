"""The plan that `foldcp plan` prints.

Worker group, memory and seconds of each complex, what cannot run, and how long all takes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import median
from typing import Any

from foldcp.complex import InvalidComplex
from foldcp.pipeline.config import RunSection
from foldcp.pipeline.inputs.organisms import is_of_organism
from foldcp.pipeline.inputs.tasks import Failed, Task, TaskList
from foldcp.pipeline.scheduling.cost_model import CostModel, FoldShape
from foldcp.pipeline.scheduling.simulator import Simulation
from foldcp.printable import printable

# Upper ends of the size classes, in tokens.
CLASS_ENDS = (
    256,
    512,
    768,
    1024,
    1536,
    2048,
    3072,
    4096,
    6144,
    8192,
    12288,
    16384,
    24576,
    32768,
)
MAX_BAR = 30  # characters of the histogram's longest bar
JSON_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Entry:
    """A complex that can be folded."""

    name: str
    organism: str
    num_tokens: int
    group_size: int
    precision: str
    gb: float  # 1e9 B on each rank
    seconds: float


@dataclass(frozen=True, slots=True)
class Excluded:
    """A complex that will have no result, and the reason."""

    name: str
    organism: str
    reason: str


@dataclass(frozen=True, slots=True)
class WithoutAlignment:
    """Proteins that lack an alignment, and the complexes that have such ones."""

    num_chains: int
    num_complexes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A planned run.

    `gpu_hours` is work alone, `hours` the simulated run with its starts and idle GPUs.
    """

    hardware: str
    device: str
    num_gpus: int
    num_human: int
    num_other: int
    num_duplicates: int
    entries: tuple[Entry, ...]
    invalid: tuple[Excluded, ...]
    too_large: tuple[Excluded, ...]
    without_alignment: WithoutAlignment
    gpu_hours: float
    hours: float


def is_human(organism: str) -> bool:
    """Whether an input's organism is human: `Human`, `Homo sapiens (Human)`, `9606`."""
    return is_of_organism(organism, "Human")


def split_into_nodes(num_gpus: int, gpus_per_node: int) -> dict[str, int]:
    """A cluster of `num_gpus` GPUs: whole nodes, and one more with the rest."""
    num_whole, rest = divmod(num_gpus, gpus_per_node)
    sizes = [gpus_per_node] * num_whole
    if rest:
        sizes.append(rest)
    return {f"node{index}": size for index, size in enumerate(sizes, 1)}


def make_plan(
    task_list: TaskList,
    costs: CostModel,
    nodes: Mapping[str, int],
    settings: RunSection,
) -> Plan:
    """Run the scheduler in virtual time, and report what it did."""
    simulation = Simulation(task_list.tasks, costs, nodes, settings).run()
    outcomes = simulation.scheduler.outcomes
    shapes = {attempt.task.key: attempt.shape for attempt in simulation.scheduler.attempts}
    entries: list[Entry] = []
    too_large: list[Excluded] = []
    for task in task_list.tasks:
        outcome = outcomes[task.key]
        if isinstance(outcome, Failed):
            too_large.append(Excluded(task.name, task.complex.organism, outcome.reason))
        else:
            entries.append(_entry(task, shapes[task.key], costs))
    organisms = [task.complex.organism for task in task_list.tasks]
    organisms += [record.organism for record in task_list.invalid]
    num_human = sum(map(is_human, organisms))
    return Plan(
        hardware=costs.hardware.name,
        device=costs.hardware.device,
        num_gpus=sum(nodes.values()),
        num_human=num_human,
        num_other=len(organisms) - num_human,
        num_duplicates=task_list.num_duplicates,
        entries=tuple(entries),
        invalid=tuple(map(_excluded, task_list.invalid)),
        too_large=tuple(too_large),
        without_alignment=_without_alignment(task_list.tasks),
        gpu_hours=sum(entry.seconds * entry.group_size for entry in entries) / 3600,
        hours=simulation.now / 3600,
    )


def _entry(task: Task, shape: FoldShape, costs: CostModel) -> Entry:
    return Entry(
        name=task.name,
        organism=task.complex.organism,
        num_tokens=task.num_tokens,
        group_size=shape.num_ranks,
        precision=shape.precision,
        gb=costs.bytes(task, shape) / 1e9,
        seconds=costs.seconds(task, shape),
    )


def _without_alignment(tasks: Sequence[Task]) -> WithoutAlignment:
    counts = [sum(chain.lacks_alignment for chain in task.complex.chains) for task in tasks]
    return WithoutAlignment(sum(counts), sum(count > 0 for count in counts))


def _excluded(record: InvalidComplex) -> Excluded:
    return Excluded(record.name, record.organism, record.reason)


def to_json(plan: Plan) -> str:
    """The whole plan as JSON; the keys are the fields of the dataclasses."""
    return json.dumps(_rounded(asdict(plan)), indent=1)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{JSON_DIGITS}g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value


def to_text(plan: Plan) -> str:
    """The plan for people.

    First the list of what cannot run, so that the summary stays on the screen.
    """
    lines = [_line("cannot be built", excluded) for excluded in plan.invalid]
    lines += [_line("too large", excluded) for excluded in plan.too_large]
    lines += ["", *_summary(plan)]
    return "\n".join(lines)


def _line(problem: str, excluded: Excluded) -> str:
    fields = (problem, excluded.name, excluded.organism, excluded.reason)
    return "\t".join(map(printable, fields))


def _summary(plan: Plan) -> list[str]:
    unit = "GPU" if plan.device == "cuda" else "rank"
    repeated = f"; {plan.num_duplicates:,} repeated" if plan.num_duplicates else ""
    sizes = sorted(Counter(entry.group_size for entry in plan.entries).items())
    groups = ", ".join(f"{count:,} on {size} {unit}{'s' * (size > 1)}" for size, count in sizes)
    num_bf16 = sum(entry.precision == "bf16" for entry in plan.entries)
    if num_bf16:
        groups += f"; {num_bf16:,} in bf16 to fit"
    return [
        f"complexes        {plan.num_human + plan.num_other:,}: {plan.num_human:,} human, "
        f"{plan.num_other:,} of other organisms{repeated}",
        f"cannot be built  {len(plan.invalid):,}{_by_organism(plan.invalid)}",
        f"too large        {len(plan.too_large):,}{_by_organism(plan.too_large)}",
        f"to fold          {len(plan.entries):,}",
        *_alignment_line(plan.without_alignment),
        "",
        *_histogram(plan.entries, unit),
        "",
        f"groups           {groups}",
        f"on {plan.num_gpus} {unit}s of {plan.hardware}: {plan.gpu_hours:,.1f} {unit}-hours, "
        f"{plan.hours:,.2f} hours",
    ]


def _alignment_line(lacking: WithoutAlignment) -> list[str]:
    """The number of proteins that lack an alignment; nothing where all have one."""
    if not lacking.num_chains:
        return []
    chains = f"{lacking.num_chains:,} chain{'s' * (lacking.num_chains > 1)}"
    complexes = f"{lacking.num_complexes:,} complex{'es' * (lacking.num_complexes > 1)}"
    return [f"without alignment  {chains} in {complexes}; `foldcp msa` makes them"]


def _histogram(entries: Sequence[Entry], unit: str) -> list[str]:
    """A line for each size class, with a bar as long as it has members."""
    classes = _classes(entries)
    most_members = max((len(members) for _, members in classes), default=1)
    lines = [
        f"{'tokens':>15} complexes  {unit + 's each':<10}   GB/{unit}   median s "
        f"{unit + '-hours':>10}"
    ]
    for label, members in classes:
        sizes = _ranges({entry.group_size for entry in members})
        max_gb = max(entry.gb for entry in members)
        median_seconds = median(entry.seconds for entry in members)
        hours = sum(entry.seconds * entry.group_size for entry in members) / 3600
        bar = "#" * max(1, round(MAX_BAR * len(members) / most_members))
        lines.append(
            f"{label:>15} {len(members):>9,}  {sizes:<10} {max_gb:>8.1f} {median_seconds:>10,.0f} "
            f"{hours:>10.2f}  {bar}"
        )
    return lines


def _by_organism(excluded: Sequence[Excluded]) -> str:
    if not excluded:
        return ""
    num_human = sum(is_human(entry.organism) for entry in excluded)
    return f": {num_human:,} human, {len(excluded) - num_human:,} of other organisms"


def _classes(entries: Sequence[Entry]) -> list[tuple[str, list[Entry]]]:
    """Size classes that have members: (label, members)."""
    largest = max([CLASS_ENDS[-1] + 1, *(entry.num_tokens for entry in entries)])
    classes: list[tuple[str, list[Entry]]] = []
    for low, high in pairwise([0, *CLASS_ENDS, largest]):
        members = [entry for entry in entries if low < entry.num_tokens <= high]
        if members:
            classes.append((f"{low + 1:,}-{high:,}", members))
    return classes


def _ranges(sizes: set[int]) -> str:
    """{1, 2, 3, 8} -> 1-3,8"""
    runs: list[list[int]] = []
    for size in sorted(sizes):
        if runs and size == runs[-1][1] + 1:
            runs[-1][1] = size
        else:
            runs.append([size, size])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
