"""Hits of sequences among the chains of structures, by MMseqs2."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from foldcp.datasets.templates import TemplateHit
from foldcp.files import reading
from foldcp.pipeline.msa_search.programs import Programs
from foldcp.pipeline.template_search.library import LibraryChain

_COLUMNS = "query,target,evalue,qcov,qstart,tstart,qaln,taln"
_SENSITIVITY = "7.5"
_MAX_HITS = 1_000  # of a sequence, before they are filtered


@dataclass(frozen=True, slots=True)
class Limits:
    """Which hits become templates: no more than `max_templates` of a sequence, the best first.

    `min_coverage` is the share of the sequence that is aligned, `max_identity` the share of
    identical residues in what is aligned. With `max_date`, structures without a date are left out.
    """

    max_templates: int = 4
    max_evalue: float = 1e-3
    min_coverage: float = 0.1
    max_identity: float = 1.0
    max_date: str = ""


def search(
    programs: Programs,
    program: str,
    sequences: Sequence[str],
    library: Sequence[LibraryChain],
    limits: Limits,
    folder: Path,
) -> list[list[TemplateHit]]:
    """The templates of each sequence; files in between are in `folder` while it works.

    Raises ProgramError where the program fails.
    """
    with tempfile.TemporaryDirectory(prefix="mmseqs-", dir=folder) as name:
        work = Path(name)
        queries = work / "queries.fasta"
        targets = work / "targets.fasta"
        found = work / "found.tsv"
        _write_fasta(queries, sequences)
        _write_fasta(targets, [chain.sequence for chain in library])
        arguments = ["easy-search", queries, targets, found, work / "tmp"]
        arguments += ["--format-output", _COLUMNS, "-a", "-s", _SENSITIVITY]
        arguments += ["-e", str(limits.max_evalue), "--max-seqs", str(_MAX_HITS), "-v", "1"]
        programs.run([program, *arguments])
        with reading(str(found)):
            lines = found.read_text().splitlines()
    rows: list[list[list[str]]] = [[] for _ in sequences]
    for line in lines:
        fields = line.split("\t")
        rows[int(fields[0])].append(fields)
    return [_choose(found, library, limits) for found in rows]


def _choose(
    rows: list[list[str]], library: Sequence[LibraryChain], limits: Limits
) -> list[TemplateHit]:
    """The best hits within the limits, only one of the same sequence."""
    hits: list[TemplateHit] = []
    seen: set[str] = set()
    for _, target, evalue, coverage, query_start, start, query_row, row in sorted(
        rows, key=lambda fields: (float(fields[2]), int(fields[1]))
    ):
        chain = library[int(target)]
        is_late = limits.max_date and not "" < chain.date <= limits.max_date
        identity = _identity(query_row, row)
        is_alike = identity > limits.max_identity
        is_short = float(coverage) < limits.min_coverage
        if is_late or is_alike or is_short or chain.sequence in seen:
            continue
        seen.add(chain.sequence)
        residues = _pairs(int(query_start), query_row, int(start), row)
        hits.append(TemplateHit(chain.path, chain.chain, float(evalue), identity, residues))
        if len(hits) == limits.max_templates:
            break
    return hits


def _identity(query_row: str, row: str) -> float:
    """The share of identical residues among those that stand one below the other.

    MMseqs2's own counts the gaps, too, so that a protein with a deletion would seem another.
    """
    pairs = [(a, b) for a, b in zip(query_row, row, strict=True) if a != "-" and b != "-"]
    return sum(a == b for a, b in pairs) / len(pairs)


def _pairs(query_number: int, query_row: str, number: int, row: str) -> tuple[tuple[int, int], ...]:
    """The residues of two aligned rows that stand one below the other."""
    pairs = []
    for query_letter, letter in zip(query_row, row, strict=True):
        if query_letter != "-" and letter != "-":
            pairs.append((query_number, number))
        query_number += query_letter != "-"
        number += letter != "-"
    return tuple(pairs)


def _write_fasta(path: Path, sequences: Sequence[str]) -> None:
    with reading(str(path)):
        path.write_text("".join(f">{i}\n{sequence}\n" for i, sequence in enumerate(sequences)))
