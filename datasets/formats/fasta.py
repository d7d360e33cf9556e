"""Complexes of bare sequences, FASTA and ColabFold's CSV: one record, one complex."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from foldcp.complex import Chain, Complex, InvalidComplex, Record, chain_names
from foldcp.datasets.chains import check_number, group_by_entity
from foldcp.datasets.msas import MsaFolder, msa_notes
from foldcp.datasets.parsing.tables import Table
from foldcp.datasets.sequences import accession_of, normalised
from foldcp.files import reading

COLABFOLD = frozenset({"id", "sequence"})
# The note on a chain that may have been meant as part of a complex.
ALONE = "chains: a record of its own, folded alone; the chains of one complex are joined by ':'"
_MOST_CHAINS = 100  # more records than this are no complex that was written down chain by chain
# From this length on, a sequence of all of A, C, G and T and nothing else is taken for DNA.
_DNA_LENGTH = 20


@dataclass(frozen=True, slots=True)
class _Entry:
    """One record as written; `files` are the names that the alignment of the whole record may
    have.
    """

    name: str
    sequence: str
    source: str
    files: tuple[str, ...]
    title: str = ""
    accession: str = ""
    notes: tuple[str, ...] = ()


def fasta(
    path: Path, records: Sequence[tuple[str, str]], msas: MsaFolder | None
) -> Iterator[Record]:
    """A complex for each (header, letters) of a FASTA file, its chains joined by `:`.

    It is named by its accession, the first word of its header, or by the whole header where several
    begin alike.
    """
    begin_alike = Counter(accession_of(header) for header, _ in records)
    common: tuple[str, ...] = ()
    if 1 < len(records) <= _MOST_CHAINS and not any(":" in body for _, body in records):
        common = (ALONE,)
    for number, (header, body) in enumerate(records, start=1):
        accession = name = accession_of(header)
        notes = common
        if name and begin_alike[name] > 1:
            notes = (
                *common,
                f"name: the whole header, as several records begin with {accession!r}",
            )
            name = " ".join(header.split())
        title = header.partition(" ")[2].strip()
        files = tuple(dict.fromkeys(filter(None, (name, accession, header))))
        yield _record(
            _Entry(
                name or f"record {number}",
                body,
                path.name,
                files,
                title,
                accession,
                notes,
            ),
            msas,
        )


def colabfold(table: Table, msas: MsaFolder | None) -> Iterator[Record]:
    """A complex for each row of a table with the columns `id` and `sequence`, its chains joined
    by `:`.
    """
    for row in table.rows():
        name = row.get("id")
        entry = _Entry(
            name or f"row {row.number}",
            row.get("sequence"),
            table.path.name,
            (name,) if name else (),
        )
        if row.num_cells != row.num_columns:
            reason = f"row {row.number} has {row.num_cells} columns, the table {row.num_columns}"
            yield InvalidComplex(entry.name, reason, source=entry.source)
        else:
            yield _record(entry, msas)


def _record(entry: _Entry, msas: MsaFolder | None) -> Record:
    try:
        with reading(entry.name):
            chains = _chains(entry, msas)
            notes = (*entry.notes, *msa_notes(chains))
            return Complex(entry.name, chains, entry.title, source=entry.source, notes=notes)
    except ValueError as error:
        return InvalidComplex(
            entry.name, str(error), entry.title, source=entry.source, notes=entry.notes
        )


def _chains(entry: _Entry, msas: MsaFolder | None) -> tuple[Chain, ...]:
    check_number(entry.sequence.count(":") + 1)
    parts = [normalised(part) for part in entry.sequence.split(":")]
    accession = (
        entry.accession if len(parts) == 1 else ""
    )  # the header of several names the complex, not its chains
    first = {}  # one chain of each sequence; the others are copies of it
    for name, part in zip(chain_names(), parts, strict=False):
        if part not in first:
            first[part] = _protein(name, part, accession)
    if msas:
        first = dict(zip(first, msas.aligned(first.values(), entry.files), strict=True))
    return group_by_entity(
        replace(first[part], name=name) for name, part in zip(chain_names(), parts, strict=False)
    )


def _protein(name: str, sequence: str, accession: str) -> Chain:
    letters = set(sequence)
    if len(sequence) >= _DNA_LENGTH and (letters == set("ACGT") or letters == set("ACGU")):
        raise ValueError(
            f"chain {name}: the letters are those of a nucleic acid; a Boltz YAML file can say so"
        )
    return Chain(name, "protein", sequence, accession)
