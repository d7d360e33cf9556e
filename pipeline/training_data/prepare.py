"""Preparation of training data: structure files to arrays and an index, resumable."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from foldcp.checkpoint.array_file import read_about
from foldcp.datasets.msas import MsaFolder, open_msas
from foldcp.datasets.training.clusters import cluster, sequence_key
from foldcp.datasets.training.filters import FilterSettings, filter_structure
from foldcp.datasets.training.interfaces import interfaces
from foldcp.datasets.training.read import read_experimental
from foldcp.files import read_file
from foldcp.pipeline.output_paths import check_folder_writable
from foldcp.pipeline.training_data.inputs import read_lines, structure_files
from foldcp.training.data.prepared import (
    FORMAT,
    HELD_OUT,
    TRAIN,
    IndexChain,
    IndexRow,
    structure_path,
    write_index,
    write_structure,
)

UNREADABLE = "unreadable"
_CHUNK = 8  # files that a process is given at once

Progress = Callable[[int, int], None]  # structures done, in all


@dataclass(frozen=True, kw_only=True)
class PrepareSettings:
    """How structures are read and filtered."""

    assembly: bool = True  # the first biological assembly; else the asymmetric unit
    filters: FilterSettings = field(default_factory=FilterSettings)

    @property
    def digest(self) -> str:
        """What a prepared structure depends on besides its file."""
        text = json.dumps([FORMAT, asdict(self)], sort_keys=True)
        return sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Summary:
    """What a preparation found."""

    rows: Sequence[IndexRow]
    num_reused: int  # structures that an earlier run had prepared
    unknown_held_out: Sequence[str]  # names of the list that the input does not have

    @property
    def num_similar(self) -> int:
        """Structures to train on with a polymer in the cluster of one that is held out."""
        used = [row for row in self.rows if not row.dropped_by]
        of_row = {
            row.name: {chain.cluster for chain in row.chains if chain.kind != "ligand"}
            for row in used
        }
        held_out = {
            cluster for row in used if row.split == HELD_OUT for cluster in of_row[row.name]
        }
        return sum(row.split == TRAIN and bool(of_row[row.name] & held_out) for row in used)

    @property
    def dropped(self) -> dict[str, int]:
        """Structures by the filter that dropped them."""
        return dict(Counter(row.dropped_by for row in self.rows if row.dropped_by))

    @property
    def dropped_chains(self) -> dict[str, int]:
        """Chains by the filter that dropped them."""
        counts: Counter[str] = Counter()
        for row in self.rows:
            for name, chains in row.dropped_chains.items():
                counts[name] += len(chains)
        return dict(counts)


def prepare(
    input: Path,
    out: Path,
    settings: PrepareSettings,
    *,
    held_out: Path | None = None,
    msas: Sequence[Path] = (),
    workers: int = 1,
    progress: Progress = lambda done, total: None,
) -> Summary:
    """Prepare every structure of the input that has not been, then write the index.

    What `workers` processes make is the same for any number of them, and after an interruption. A
    file that cannot be read becomes a row with its reason. Raises ValueError naming a file or
    folder of the user that cannot be used, at once if it is `out`.
    """
    check_folder_writable(out)
    files = structure_files(input)
    names_held_out = read_lines(held_out) if held_out is not None else []
    folder = open_msas(msas) if msas else None
    jobs = [_Job(name, path, out, settings) for name, path in files.items()]
    rows = []
    num_reused = 0
    for done in _run(jobs, workers):
        num_reused += done.reused
        rows.append(done.row)
        progress(len(rows), len(jobs))
    rows = list(_complete(rows, names_held_out, folder, out))
    write_index(out, rows)
    known = {name.lower() for name in files}
    unknown = [name for name in names_held_out if name.lower() not in known]
    return Summary(rows, num_reused, unknown)


@dataclass(frozen=True)
class _Job:
    """A structure file to prepare."""

    name: str
    path: Path
    out: Path
    settings: PrepareSettings


@dataclass(frozen=True)
class _Done:
    """What the file of a structure says of it; without clusters, alignments and split."""

    row: Mapping[str, Any]
    reused: bool


def _run(jobs: Sequence[_Job], workers: int) -> Iterator[_Done]:
    """The jobs in their order; a bounded number of them waits at any time."""
    if workers <= 1:
        yield from map(_prepare_one, jobs)
        return
    remaining = iter(jobs)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        pending = []
        while True:
            pending += [
                pool.submit(_prepare_one, job)
                for job in islice(remaining, workers * _CHUNK - len(pending))
            ]
            if not pending:
                return
            yield pending.pop(0).result()


def _prepare_one(job: _Job) -> _Done:
    path = structure_path(job.out, job.name)
    source = {"name": job.name, "source": job.path.name}
    try:
        content = read_file(job.path)
    except ValueError as error:
        return _Done({**source, "dropped_by": UNREADABLE, "reason": str(error)}, reused=False)
    identity = {"source_sha256": content.sha256, "settings": job.settings.digest}
    if path.exists():
        about = read_about(path)
        if {name: about.get(name) for name in identity} == identity:
            return _Done(about["row"], reused=True)
    try:
        structure = read_experimental(
            job.path, job.name, assembly=job.settings.assembly, content=content
        )
    except ValueError as error:
        row = {**source, "dropped_by": UNREADABLE, "reason": str(error)}
        write_structure(path, None, {**identity, "row": row})
        return _Done(row, reused=False)
    filtered = filter_structure(structure, job.settings.filters)
    left = filtered.structure
    row = {
        **source,
        "dropped_by": filtered.dropped_by or "",
        "reason": filtered.reason,
        "resolution": left.resolution,
        "date": left.date,
        "method": left.method,
        "assembly": left.assembly,
        "residues": left.num_residues,
        "atoms": sum(len(chain.coords) for chain in left.chains),
        "chains": [
            {
                "name": chain.name,
                "kind": chain.kind,
                "residues": chain.num_residues,
                "resolved": chain.num_resolved,
                "key": sequence_key(chain),
            }
            for chain in left.chains
        ],
        "interfaces": [list(pair) for pair in interfaces(left)] if not filtered.dropped_by else [],
        "dropped_chains": {name: list(chains) for name, chains in filtered.dropped.items()},
    }
    kept = None if filtered.dropped_by else left
    write_structure(path, kept, {**identity, "row": row})
    return _Done(row, reused=False)


def _complete(
    rows: Sequence[Mapping[str, Any]],
    held_out: Sequence[str],
    msas: MsaFolder | None,
    out: Path,
) -> Iterator[IndexRow]:
    """The rows of the index, with what follows from all of them: clusters of chains, splits."""
    clusters = cluster(
        chain["key"] for row in rows if not row["dropped_by"] for chain in row["chains"]
    )
    is_held_out = {name.lower() for name in held_out}
    for row in rows:
        chains = tuple(
            IndexChain(
                **{**chain, "key": sha256(chain["key"].encode()).hexdigest()},
                cluster=clusters.get(chain["key"], ""),
                msa=_alignment(chain, msas, out),
            )
            for chain in row.get("chains", ())
        )
        pairs = tuple((int(a), int(b)) for a, b in row.get("interfaces", ()))
        split = HELD_OUT if row["name"].lower() in is_held_out else TRAIN
        yield IndexRow(**{**row, "chains": chains, "interfaces": pairs}, split=split)


def _alignment(chain: Mapping[str, Any], msas: MsaFolder | None, out: Path) -> str:
    """The alignment of a protein, relative to the folder; empty without one."""
    if msas is None or chain["kind"] != "protein":
        return ""
    sequence = chain["key"].partition(":")[2]
    found = msas.find(sequence, ())
    return os.path.relpath(found, out.resolve()) if found is not None else ""
