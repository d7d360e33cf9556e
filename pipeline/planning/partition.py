"""Partition of a database into shards of equal predicted work."""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from foldcp.complex import Complex, Record
from foldcp.files import reading
from foldcp.pipeline.config import RunConfig
from foldcp.pipeline.inputs.input_spec import InputSpec, records
from foldcp.pipeline.inputs.shard import Shard
from foldcp.pipeline.inputs.tasks import Task, num_tokens
from foldcp.pipeline.scheduling.cost_model import CostModel
from foldcp.pipeline.scheduling.group_size import initial_shape
from foldcp.pipeline.scheduling.hardware import load_hardware

# Every shard must predict the same, on whichever machine it runs.
HARDWARE = "h200"


def chosen_records(
    input_spec: InputSpec, config: RunConfig, left_out: set[str]
) -> Iterator[Record]:
    """The records of the input that the options choose, or of those the shard's.

    Names of all others are added to `left_out`. Raises ValueError when the options choose none.
    """
    found = records(input_spec, left_out)
    if input_spec.shard is None:
        return found
    return shard_records(input_spec.shard, found, config, left_out)


def shard_records(
    shard: Shard, all_records: Iterable[Record], config: RunConfig, left_out: set[str]
) -> Iterator[Record]:
    """The records of one shard, in their order; the names of the others are added to `left_out`.

    Records of one name are in one shard, so that a repeated complex is folded once, and complexes
    that share a name get the file names that they have in a run of everything. Which shard depends
    on the names and sizes in the input and on the settings, not on the order of records, and not on
    alignments, which only the shard's own run reads.
    """
    found = list(all_records)
    shards = assign_shards(predicted_work(found, config), shard.count)
    for record in found:
        if shards[record.name] == shard.number:
            yield record
        else:
            left_out.add(record.name)


def assign_shards(work: dict[str, float], count: int) -> dict[str, int]:
    """Name -> shard, from 1.

    The largest first, each to the shard that has the least work: no shard has more than 4/3 of the
    least possible maximum (Graham, SIAM J. Appl. Math. 17, 1969).
    """
    loads = [(0.0, 0, number) for number in range(1, count + 1)]
    shards = {}
    for name in sorted(work, key=lambda name: (-work[name], name)):
        load, num_names, number = loads[0]
        shards[name] = number
        heapq.heapreplace(loads, (load + work[name], num_names + 1, number))
    return shards


def predicted_work(found: Sequence[Record], config: RunConfig) -> dict[str, float]:
    """Name -> predicted seconds on one GPU that is large enough, of all records of that name.

    Records of one name and size count once; those that cannot be folded take no time.
    """
    costs = CostModel(load_hardware(HARDWARE), config)
    shape = initial_shape(costs, 1, costs.precisions()[0])
    depth = config.msa.max_rows  # as alignments may still be made while the first shards begin
    known: dict[tuple[int, int], float] = {}
    parts: dict[str, set[float]] = defaultdict(set)
    for record in found:
        part = parts[record.name]
        tokens = _num_tokens(record)
        if not (isinstance(record, Complex) and tokens):
            continue
        size = (tokens, len(record.templates))
        if size not in known:
            known[size] = costs.seconds(Task(record, "", tokens, depth), shape)
        part.add(known[size])
    return {name: math.fsum(part) for name, part in parts.items()}


def _num_tokens(record: Record) -> int:
    """Tokens of a complex; 0 of a record that is none, or has a component that is not known."""
    if not isinstance(record, Complex):
        return 0
    try:
        with reading(f"complex {record.name}"):
            return num_tokens(record)
    except ValueError:
        return 0
