"""Complexes of databases: tables whose rows list subunits by accession, with or without counts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain as chained
from typing import NamedTuple

from foldcp.complex import Chain, Complex, InvalidComplex, Record, chain_names
from foldcp.datasets.chains import check_num_chains
from foldcp.datasets.format import InputFile, ReadOptions
from foldcp.datasets.msas import MsaFolder, msa_notes
from foldcp.datasets.parsing.tables import Row, Table
from foldcp.datasets.parsing.text_files import join_names
from foldcp.datasets.sequences import SequenceHit, Sequences, read_sequences
from foldcp.files import reading

# More copies than this are a data-entry error: large capsids have some hundreds of one protein.
MAX_COPIES = 1000
_COUNT = re.compile(r"(\d+)(?:\.0)?")
_PARENTHESIZED = re.compile(r"\(\s*([^(),\s]+)\s*\)")
_NO_COUNT = frozenset({"", "0", "?", "None", "nan", "NaN", "-"})
_NO_ACCESSION = frozenset({"", "None", "nan", "NaN", "-"})


class Subunit(NamedTuple):
    """One entry of a row's list: the accession, and how many copies if the database knows."""

    accession: str
    copies: int | None


class Subunits(NamedTuple):
    """The subunits of a row, and notes on what was assumed or left out."""

    subunits: list[Subunit]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Database:
    """The columns of a database's table, as the keys of `Table`."""

    required: frozenset[str]
    name: str
    title: str
    organism: str  # the organism itself if there is no such column
    subunits: Callable[[Row], Subunits]  # raises ValueError for an invalid row

    def recognises(self, file: InputFile) -> bool:
        """Whether a table has the required columns."""
        return self.required <= set(file.table.keys)

    def read(self, file: InputFile, options: ReadOptions) -> Iterator[Record]:
        """One record for each row of the table, in its order; an invalid one says why.

        Raises ValueError for an ambiguous or empty table, and for missing or bad sequences.
        """
        file.table.check({*self.required, "stoichiometry"})
        if not options.sequences:
            raise ValueError(
                f"{file.path}: names proteins by accession; give a file that has them with "
                "--sequences FASTA"
            )
        sequences = read_sequences(options.sequences, options.max_bytes)
        return self._records(file.table, sequences, options.msas)

    def _records(
        self, table: Table, sequences: Sequences, msas: MsaFolder | None
    ) -> Iterator[Record]:
        source = table.path.name
        for row in table.rows():
            name = row.get(self.name) or f"row {row.number}"
            title = row.get(self.title)
            organism = row.get(self.organism) if self.organism in row.cells else self.organism
            notes: tuple[str, ...] = ()
            try:
                with reading(f"row {row.number}"):
                    row.check_complete()
                    subunits, notes = self.subunits(row)
                    chains, chain_notes = _chains(subunits, sequences, msas)
                    notes = (*notes, *chain_notes)
                    record = Complex(name, chains, title, organism, source, notes=notes)
            except ValueError as error:
                record = InvalidComplex(name, str(error), title, organism, source, notes=notes)
            yield record


def listed_subunits(row: Row) -> Subunits:
    """The subunits of `P1;P2-3;`, and the copies of each from `2;1`, which are mostly absent."""
    names, split_notes = _split_accessions(row.get("subunitsuniprotids"))
    copies, copy_notes = _copies(row.get("stoichiometry"), names)
    notes = (*copy_notes, *split_notes)
    both = zip(names, copies, strict=True)
    subunits = [Subunit(name, count) for name, count in both if name not in _NO_ACCESSION]
    if not subunits:
        raise ValueError("no subunits are listed")
    if missing := len(names) - len(subunits):
        notes = (
            *notes,
            f"subunits: {missing} of {len(names)} without an accession left out",
        )
    return Subunits(subunits, notes)


def parse_count(digits: str) -> int:
    """The number of copies; any number above `MAX_COPIES` for one of 20 digits or more.

    Python refuses to convert numbers of thousands of digits.
    """
    return int(digits) if len(digits) < 20 else 10**20


def split_nonempty(text: str, separator: str) -> list[str]:
    """The parts of a text that are not blank, without white space around them."""
    return [part.strip() for part in text.split(separator) if part.strip()]


def _split_accessions(field: str) -> tuple[list[str], tuple[str, ...]]:
    """The accessions of a list separated by `;`, or else by commas or spaces, and notes.

    A separator may follow the last one. CORUM 2 puts parentheses around subunits among which it
    could not decide.
    """
    parts = field.split(";") if ";" in field else re.split(r"[,\s]+", field)
    parts = [part.strip() for part in parts]
    while parts and not parts[-1]:
        parts.pop()
    matches = [_PARENTHESIZED.fullmatch(part) for part in parts]
    parts = [match[1] if match else part for match, part in zip(matches, parts, strict=True)]
    ambiguous = [part for part in parts if "(" in part or ")" in part]
    if ambiguous:
        raise ValueError(
            f"ambiguous subunits {ambiguous[0]!r}: list the ones present, without parentheses"
        )
    doubtful = [match[1] for match in matches if match]
    if not doubtful:
        return parts, ()
    return parts, (f"subunits: {join_names(doubtful)} in parentheses, assumed present",)


def _copies(field: str, names: list[str]) -> tuple[list[int | None], tuple[str, ...]]:
    """The copies of each subunit, None where the database does not say, and notes."""
    counts = [count.strip() for count in field.split(";")]
    while len(counts) > len(names) and not counts[-1]:
        counts.pop()
    unknown: list[int | None] = [None] * len(names)
    if all(count in _NO_COUNT for count in counts):
        return unknown, ("stoichiometry: unknown, one copy of each assumed",)
    matches = [_COUNT.fullmatch(count) for count in counts]
    readable = all(
        match or count in _NO_COUNT for match, count in zip(matches, counts, strict=True)
    )
    if not readable or len(counts) != len(names):
        problem = f"{field!r} unreadable for {len(names)} subunits"
        return unknown, (f"stoichiometry: {problem}, one copy of each assumed",)
    copies = [parse_count(match[1]) or None if match else None for match in matches]
    once = [name for name, count in zip(names, copies, strict=True) if not count]
    if not once:
        return copies, ()
    return copies, (f"stoichiometry: unknown for {join_names(once)}, one copy assumed",)


def _chains(
    subunits: list[Subunit], sequences: Sequences, msas: MsaFolder | None
) -> tuple[tuple[Chain, ...], tuple[str, ...]]:
    """Chains A, B, .., copies of one molecule side by side, and notes on sequences and MSAs."""
    hits = _look_up(subunits, sequences)
    first: dict[SequenceHit, Chain] = {}  # one chain of each; the others are copies of it
    for name, hit in zip(chain_names(), hits, strict=False):
        if hit not in first:
            first[hit] = _chain(name, hit, msas)
    chains = tuple(
        replace(first[hit], name=name) for name, hit in zip(chain_names(), hits, strict=False)
    )
    sequence_notes = dict.fromkeys(hit.note for hit in hits if hit.note)
    return chains, (*sequence_notes, *msa_notes(chains))


def _look_up(subunits: list[Subunit], sequences: Sequences) -> list[SequenceHit]:
    """The sequence of every copy of every subunit, equal sequences side by side."""
    check_num_chains(sum(count or 1 for _, count in subunits))
    copies: dict[str, list[SequenceHit]] = {}
    unknown: dict[str, None] = {}
    for accession, count in subunits:
        if (count or 1) > MAX_COPIES:
            raise ValueError(f"{count} copies of {accession} exceed the maximum of {MAX_COPIES}")
        if hit := sequences.find(accession):
            copies.setdefault(hit.sequence, []).extend([hit] * (count or 1))
        else:
            unknown[accession] = None
    if unknown:
        names = join_names(unknown, 200)
        raise ValueError(f"unknown accession: {names} not in {sequences.source}")
    return list(chained.from_iterable(copies.values()))


def _chain(name: str, hit: SequenceHit, msas: MsaFolder | None) -> Chain:
    msa = msas.find(hit.sequence, [hit.accession]) if msas else None
    try:
        return Chain(name, "protein", hit.sequence, hit.accession, msa)
    except ValueError as error:
        raise ValueError(f"{hit.accession}: {error}") from error
