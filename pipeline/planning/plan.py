"""The plan that `foldcp plan` prints.

Worker group, memory and seconds of each complex, what cannot run, and how long all takes.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate, pairwise
from typing import Any

from foldcp.complex import InvalidComplex
from foldcp.pipeline.config import RunSection
from foldcp.pipeline.inputs.organisms import is_of_organism
from foldcp.pipeline.inputs.tasks import Task, TaskList
from foldcp.pipeline.inputs.validation import assumed_rows
from foldcp.pipeline.planning.schedule import PlannedGroup, Schedule, by_size, simulated
from foldcp.pipeline.scheduling.cost_model import CostModel
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
MAX_SIMULATED = 20_000  # complexes; more are planned by size
MAX_BAR = 30  # characters of the histogram's longest bar
JSON_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Entry:
    """A complex that can be folded, or several of one size, which have no name here.

    `seconds` is the time of one of them; its share of that of `batch` folded together.
    """

    name: str
    organism: str
    num_tokens: int
    msa_depth: int
    group_size: int
    precision: str
    least_gb: float  # 1e9 B on each rank: without them the fold does not run
    peak_gb: float  # predicted, with chunks that use what is free
    seconds: float
    num_complexes: int = 1
    batch: int = 1

    @property
    def gpu_hours(self) -> float:
        """GPU-hours of all its complexes."""
        return self.num_complexes * self.seconds * self.group_size / 3600


@dataclass(frozen=True, slots=True)
class Excluded:
    """A complex that will have no result, and the reason."""

    name: str
    organism: str
    reason: str


@dataclass(frozen=True, slots=True)
class WithoutAlignment:
    """Proteins that lack an alignment, and the complexes that have such ones.

    `num_rows` is the depth with which such a chain is planned, 1 where it is folded from its
    sequence alone; `num_too_large` counts the complexes that would fit if it were.
    """

    num_chains: int
    num_complexes: int
    num_rows: int
    num_too_large: int


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
    num_unnamed: int  # complexes whose organism the input does not name
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


def make_plan(
    task_list: TaskList,
    costs: CostModel,
    nodes: Mapping[str, int],
    settings: RunSection,
) -> Plan:
    """Plan every complex: by a run of the scheduler in virtual time, or by classes of equal
    complexes where there are too many for that.
    """
    spread = simulated if len(task_list.tasks) <= MAX_SIMULATED else by_size
    schedule = spread(task_list.tasks, costs, nodes, settings)
    entries = tuple(_entry(group, costs) for group in schedule.groups)
    organisms = [task.complex.organism for task in task_list.tasks]
    organisms += [record.organism for record in task_list.invalid]
    num_human = sum(map(is_human, organisms))
    return Plan(
        hardware=costs.hardware.name,
        device=costs.hardware.device,
        num_gpus=sum(nodes.values()),
        num_human=num_human,
        num_other=sum(map(bool, organisms)) - num_human,
        num_unnamed=organisms.count(""),
        num_duplicates=task_list.num_duplicates,
        entries=entries,
        invalid=tuple(map(_excluded, task_list.invalid)),
        too_large=tuple(
            Excluded(found.task.name, found.task.complex.organism, found.reason)
            for found in schedule.too_large
        ),
        without_alignment=_without_alignment(task_list.tasks, schedule, costs),
        gpu_hours=sum(entry.gpu_hours for entry in entries),
        hours=schedule.seconds / 3600,
    )


def _entry(group: PlannedGroup, costs: CostModel) -> Entry:
    task = group.task
    is_one = group.num_complexes == 1
    return Entry(
        name=task.name if is_one else "",
        organism=task.complex.organism if is_one else "",
        num_tokens=task.num_tokens,
        msa_depth=task.msa_depth,
        group_size=group.shape.num_ranks,
        precision=group.shape.precision,
        least_gb=costs.least_bytes(task, group.shape) / 1e9,
        peak_gb=costs.peak_bytes(task, group.shape) / 1e9,
        seconds=costs.seconds(task, group.shape) / group.shape.batch,
        num_complexes=group.num_complexes,
        batch=group.shape.batch,
    )


def _without_alignment(
    tasks: Sequence[Task], schedule: Schedule, costs: CostModel
) -> WithoutAlignment:
    num_chains = 0
    num_complexes = 0
    for task in tasks:
        num_lacking = sum(chain.lacks_alignment for chain in task.complex.chains)
        num_chains += num_lacking
        num_complexes += num_lacking > 0
    return WithoutAlignment(
        num_chains,
        num_complexes,
        num_rows=assumed_rows(costs.config),
        num_too_large=sum(found.fits_alone for found in schedule.too_large),
    )


def _excluded(record: InvalidComplex) -> Excluded:
    return Excluded(record.name, record.organism, record.reason)


def to_json(plan: Plan) -> str:
    """The whole plan as JSON; the keys are the fields of the dataclasses."""
    return json.dumps(rounded(asdict(plan)), indent=1)


def rounded(value: Any) -> Any:
    """A JSON value with its floats cut to some digits."""
    if isinstance(value, float):
        return float(f"{value:.{JSON_DIGITS}g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list | tuple) else value


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
    counts: Counter[int] = Counter()
    for entry in plan.entries:
        counts[entry.group_size] += entry.num_complexes
    sizes = sorted(counts.items())
    groups = ", ".join(f"{count:,} on {size} {unit}{'s' * (size > 1)}" for size, count in sizes)
    num_bf16 = _num_complexes(entry for entry in plan.entries if entry.precision == "bf16")
    if num_bf16:
        groups += f"; {num_bf16:,} in bf16 to fit"
    return [
        f"complexes        {plan.num_human + plan.num_other + plan.num_unnamed:,}"
        f"{_organisms(plan.num_human, plan.num_other, plan.num_unnamed)}{repeated}",
        f"cannot be built  {len(plan.invalid):,}{_by_organism(plan.invalid)}",
        f"too large        {len(plan.too_large):,}{_by_organism(plan.too_large)}",
        f"to fold          {_num_complexes(plan.entries):,}",
        *_alignment_lines(plan.without_alignment),
        "",
        *_histogram(plan.entries, unit),
        "",
        f"groups           {groups}",
        f"on {plan.num_gpus} {unit}s of {plan.hardware}: {plan.gpu_hours:,.1f} {unit}-hours, "
        f"{plan.hours:,.2f} hours",
    ]


def _num_complexes(entries: Iterable[Entry]) -> int:
    return sum(entry.num_complexes for entry in entries)


def _alignment_lines(lacking: WithoutAlignment) -> list[str]:
    """The number of proteins that lack an alignment, and what that means; nothing where all have
    one.
    """
    if not lacking.num_chains:
        return []
    chains = f"{lacking.num_chains:,} chain{'s' * (lacking.num_chains > 1)}"
    complexes = f"{lacking.num_complexes:,} complex{'es' * (lacking.num_complexes > 1)}"
    line = f"without alignment  {chains} in {complexes}"
    if lacking.num_rows == 1:
        return [f"{line}, folded from the sequence alone"]
    lines = [
        f"{line}, planned with {lacking.num_rows:,} rows each; `score` refuses them until "
        "`foldcp msa` has made theirs"
    ]
    if lacking.num_too_large:
        lines.append(
            f"{'':<17}  {lacking.num_too_large:,} of those too large would fit from the sequence "
            "alone (msa.missing=single-sequence)"
        )
    return lines


def _histogram(entries: Sequence[Entry], unit: str) -> list[str]:
    """A line for each size class, with a bar as long as it has members."""
    classes = [(label, members, _num_complexes(members)) for label, members in _classes(entries)]
    most = max((count for _, _, count in classes), default=1)
    lines = [
        f"{'':>36} {'GB/' + unit:>13}",
        f"{'tokens':>15} complexes  {unit + 's each':<10} {'least':>6} {'peak':>6}   median s "
        f"{unit + '-hours':>10}",
    ]
    for label, members, count in classes:
        sizes = size_ranges({entry.group_size for entry in members})
        least_gb = max(entry.least_gb for entry in members)
        peak_gb = max(entry.peak_gb for entry in members)
        hours = sum(entry.gpu_hours for entry in members)
        bar = "#" * max(1, round(MAX_BAR * count / most))
        lines.append(
            f"{label:>15} {count:>9,}  {sizes:<10} {least_gb:>6.1f} {peak_gb:>6.1f} "
            f"{_median(members):>10,.0f} "
            f"{hours:>10.2f}  {bar}"
        )
    return lines


def _median(entries: Sequence[Entry]) -> float:
    """The median of the seconds of all complexes."""
    by_seconds = sorted(entries, key=lambda entry: entry.seconds)
    ends = list(accumulate(entry.num_complexes for entry in by_seconds))
    low = by_seconds[bisect_left(ends, (ends[-1] + 1) // 2)].seconds
    high = by_seconds[bisect_left(ends, ends[-1] // 2 + 1)].seconds
    return (low + high) / 2


def _by_organism(excluded: Sequence[Excluded]) -> str:
    organisms = [entry.organism for entry in excluded]
    num_human = sum(map(is_human, organisms))
    return _organisms(num_human, sum(map(bool, organisms)) - num_human, organisms.count(""))


def _organisms(num_human: int, num_other: int, num_unnamed: int) -> str:
    """How many are of which organism; nothing where the input names none."""
    if not num_human + num_other:
        return ""
    unnamed = f", {num_unnamed:,} of no named organism" if num_unnamed else ""
    return f": {num_human:,} human, {num_other:,} of other organisms{unnamed}"


def _classes(entries: Sequence[Entry]) -> list[tuple[str, list[Entry]]]:
    """Size classes that have members: (label, members)."""
    largest = max([CLASS_ENDS[-1] + 1, *(entry.num_tokens for entry in entries)])
    classes: list[tuple[str, list[Entry]]] = []
    for low, high in pairwise([0, *CLASS_ENDS, largest]):
        members = [entry for entry in entries if low < entry.num_tokens <= high]
        if members:
            classes.append((f"{low + 1:,}-{high:,}", members))
    return classes


def size_ranges(sizes: set[int]) -> str:
    """{1, 2, 3, 8} -> 1-3,8"""
    runs: list[list[int]] = []
    for size in sorted(sizes):
        if runs and size == runs[-1][1] + 1:
            runs[-1][1] = size
        else:
            runs.append([size, size])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
