"""Complexes of databases: tables whose rows list subunits by accession, with or without counts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain as chained
from pathlib import Path
from typing import NamedTuple

from foldcp.complex import Chain, Complex, InvalidComplex, Record, chain_names
from foldcp.datasets.accessions import read_replacements
from foldcp.datasets.chains import check_num_chains
from foldcp.datasets.format import InputFile, ReadOptions
from foldcp.datasets.msas import MsaFolder, msa_notes
from foldcp.datasets.parsing.database_entry import entry_of, subunit_names
from foldcp.datasets.parsing.tables import Row, Table
from foldcp.datasets.parsing.text_files import join_names
from foldcp.datasets.sequences import (
    ProteinNames,
    SequenceHit,
    Sequences,
    entry_accession,
    read_sequences,
)
from foldcp.datasets.stoichiometry import MAX_COPIES, CopyNumbers, read_copy_numbers
from foldcp.datasets.uniprot import look_up
from foldcp.files import reading

_COUNT = re.compile(r"(\d+)(?:\.0)?")
_PARENTHESIZED = re.compile(r"\(\s*([^(),\s]+)\s*\)")
_NO_COUNT = frozenset({"", "0", "?", "None", "nan", "NaN", "-", "null"})
_NO_ACCESSION = frozenset({"", "None", "nan", "NaN", "-", "null"})


class Subunit(NamedTuple):
    """One entry of a row's list: the accession, and how many copies if the database knows."""

    accession: str
    copies: int | None


class Subunits(NamedTuple):
    """The subunits of a row, and notes on what was assumed.

    `others` are members that are no proteins, `num_nameless` counts those without an accession, and
    `unreadable` says what is wrong with the copy numbers; `names` are those that the row gives to
    accessions.
    """

    subunits: list[Subunit]
    notes: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    num_nameless: int = 0
    unreadable: str = ""
    names: Mapping[str, ProteinNames] = {}


Rows = Mapping[str, Row]  # of a table, by the name of the complex


@dataclass(frozen=True, slots=True)
class _ParsedRow:
    """A row, the name of its complex, and its subunits or why they cannot be read."""

    row: Row
    name: str
    found: Subunits | ValueError


@dataclass(frozen=True, slots=True)
class Database:
    """The columns of a database's table, as the keys of `Table`."""

    required: frozenset[str]
    name: str
    title: str
    organism: str  # the organism itself if there is no such column
    subunits: Callable[[Row, Rows], Subunits]  # raises ValueError for an invalid row

    def recognises(self, file: InputFile) -> bool:
        """Whether a table has the required columns."""
        return self.required <= set(file.table.keys)

    def read(self, file: InputFile, options: ReadOptions) -> Iterator[Record]:
        """The records of a file that is a table, see `read_table`."""
        return self.read_table(file.table, options)

    def read_table(self, table: Table, options: ReadOptions) -> Iterator[Record]:
        """One record for each row of the table, in its order; an invalid one says why.

        Raises ValueError for an ambiguous or empty table, for missing or bad sequences, and for
        files of `options` that cannot be used or have nothing to do with the table.
        """
        table.check(self.required, ["stoichiometry"])
        check_has_sequences(table.path, options)
        sequences = read_sequences(options.sequences, options.max_bytes)
        rows = self._parsed(table)
        copies = _copy_numbers(rows, options)
        known = with_options(sequences, _accessions(rows), options)
        return self._records(table, rows, copies, known, options)

    def _parsed(self, table: Table) -> list[_ParsedRow]:
        named = [(row.get(self.name) or f"row {row.number}", row) for row in table.rows()]
        by_name = dict(reversed(named))  # the first of a name counts
        parsed: list[_ParsedRow] = []
        for name, row in named:
            try:
                with reading(f"row {row.number}"):
                    row.check_complete()
                    parsed.append(_ParsedRow(row, name, self.subunits(row, by_name)))
            except ValueError as error:
                parsed.append(_ParsedRow(row, name, error))
        return parsed

    def _records(
        self,
        table: Table,
        rows: list[_ParsedRow],
        copies: CopyNumbers | None,
        sequences: Sequences,
        options: ReadOptions,
    ) -> Iterator[Record]:
        source = table.path.name
        columns = self.required | {self.name, self.title, self.organism}
        for parsed in rows:
            row = parsed.row
            title = row.get(self.title)
            organism = row.get(self.organism) if self.organism in row.cells else self.organism
            notes: tuple[str, ...] = ()
            missing: list[str] = []
            entry = entry_of(row, columns)
            try:
                with reading(f"row {row.number}"):
                    if isinstance(parsed.found, ValueError):
                        raise parsed.found
                    subunits, notes = _counted(parsed.name, parsed.found, copies)
                    notes = (*notes, *parsed.found.notes)
                    found = {name: sequences.find(name) for name, _ in subunits}
                    missing = [name for name, hit in found.items() if hit is None]
                    notes = (*notes, *_left_out(parsed.found, options.proteins_only))
                    if missing:
                        raise sequences.unknown(missing)
                    hits = {name: hit for name, hit in found.items() if hit}
                    chains, chain_notes = _chains(subunits, hits, options.msas, parsed.found.names)
                    notes = (*notes, *chain_notes)
                    record = Complex(
                        parsed.name, chains, title, organism, source, notes=notes, entry=entry
                    )
            except ValueError as error:
                record = InvalidComplex(
                    parsed.name,
                    str(error),
                    title,
                    organism,
                    source,
                    notes=notes,
                    missing_accessions=tuple(missing),
                    entry=entry,
                )
            yield record


def _copy_numbers(rows: list[_ParsedRow], options: ReadOptions) -> CopyNumbers | None:
    """The user's copy numbers; what of them is not in the input is a warning."""
    if options.stoichiometry is None:
        return None
    copies = read_copy_numbers(options.stoichiometry, options.max_bytes)
    missing = copies.unmatched(
        {
            parsed.name: frozenset(subunit.accession.upper() for subunit in parsed.found.subunits)
            if isinstance(parsed.found, Subunits)
            else None
            for parsed in reversed(rows)
        }
    )
    if missing and options.warn:
        options.warn(f"{copies.path}: not in the input: {join_names(missing)}")
    return copies


def _accessions(rows: list[_ParsedRow]) -> Iterator[str]:
    for parsed in rows:
        if isinstance(parsed.found, Subunits):
            for subunit in parsed.found.subunits:
                yield subunit.accession


def check_has_sequences(path: Path, options: ReadOptions) -> None:
    """Raise ValueError for an input of accessions, if nothing is named that has their sequences."""
    if not options.sequences and options.uniprot is None:
        raise ValueError(
            f"{path}: names proteins by accession; give a file that has them with --sequences FASTA"
        )


def with_options(
    sequences: Sequences, accessions: Iterable[str], options: ReadOptions
) -> Sequences:
    """The sequences, with the replacements of obsolete accessions and with UniProt's entries.

    `accessions` are those of the input; they are gone through only if UniProt is to be asked.
    """
    replacements = (
        read_replacements(options.secondary_accessions, options.max_bytes)
        if options.secondary_accessions
        else {}
    )
    known = replace(sequences, isoforms=options.isoforms, replacements=replacements)
    if options.uniprot is None:
        return known
    wanted = {
        entry_accession(accession)
        for accession in accessions
        if accession not in known.by_accession
    }
    wanted -= known.by_accession.keys()
    followers = {name for accession in wanted for name in replacements.get(accession, ())}
    entries = look_up((wanted | followers) - {""}, options.uniprot)
    of_uniprot = {name: entry.replaced_by for name, entry in entries.items() if entry.replaced_by}
    return replace(known, replacements={**of_uniprot, **replacements}, entries=entries)


def _counted(
    name: str, found: Subunits, copies: CopyNumbers | None
) -> tuple[list[Subunit], tuple[str, ...]]:
    """The subunits with the user's copies for those whose number the database lacks, and notes."""
    given = copies.of(name) if copies else {}
    source = copies.path.name if copies else ""
    subunits: list[Subunit] = []
    taken: dict[str, None] = {}
    disagreeing: dict[str, None] = {}
    for accession, count in found.subunits:
        own = given.get(accession.upper())
        if own is None or count is not None:
            subunits.append(Subunit(accession, count))
            if own is not None and count is not None and own != count:
                disagreeing[f"{count} of {accession} as in the input, {own} in {source}"] = None
        elif accession not in taken:  # one that is listed twice is counted once
            subunits.append(Subunit(accession, own))
            taken[accession] = None
    notes = [f"stoichiometry: {text}" for text in disagreeing]
    if taken:
        notes.append(f"stoichiometry: {join_names(taken)} from {source}")
    unknown = dict.fromkeys(accession for accession, count in subunits if not count)
    if unknown and len(found.subunits) > 1 and not any(count for _, count in subunits):
        notes.append(f"stoichiometry: {found.unreadable or 'unknown'}, one copy of each assumed")
    elif unknown:
        reason = f"{found.unreadable}, " if found.unreadable else ""
        notes.append(f"stoichiometry: {reason}unknown for {join_names(unknown)}, one copy assumed")
    return subunits, tuple(notes)


def _left_out(found: Subunits, proteins_only: bool) -> tuple[str, ...]:
    """Notes on members that are left out. Raises ValueError if the user has not said that they may
    be.
    """
    notes: list[str] = []
    problems: list[str] = []
    if found.num_nameless:
        num_listed = found.num_nameless + len(found.subunits)
        problems.append(f"{found.num_nameless} of {num_listed} subunits without an accession")
        notes.append(
            f"subunits: {found.num_nameless} of {num_listed} without an accession left out"
        )
    if found.others:
        names = join_names(found.others)
        problems.append(f"subunits that are no proteins: {names}")
        notes.append(f"subunits: {names} left out, as only proteins are folded")
    if problems and not proteins_only:
        raise ValueError(f"{'; '.join(problems)}; --proteins-only builds the complex without them")
    return tuple(notes)


def listed_subunits(row: Row, rows: Rows) -> Subunits:
    """The subunits of `P1;P2-3;`, and the copies of each from `2;1`, which are mostly absent."""
    names, split_notes = _split_accessions(row.get("subunitsuniprotids"))
    copies, unreadable = _copies(row.get("stoichiometry"), names)
    both = zip(names, copies, strict=True)
    subunits = [Subunit(name, count) for name, count in both if name not in _NO_ACCESSION]
    if not subunits:
        raise ValueError("no subunits are listed")
    by_accession = dict(zip(names, subunit_names(row, len(names)), strict=True))
    return Subunits(
        subunits,
        split_notes,
        num_nameless=len(names) - len(subunits),
        unreadable=unreadable,
        names=by_accession,
    )


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


def _copies(field: str, names: list[str]) -> tuple[list[int | None], str]:
    """The copies of each subunit, None where the database does not say, and what is unreadable."""
    counts = [count.strip() for count in field.split(";")]
    while len(counts) > len(names) and not counts[-1]:
        counts.pop()
    unknown: list[int | None] = [None] * len(names)
    if all(count in _NO_COUNT for count in counts):
        return unknown, ""
    matches = [_COUNT.fullmatch(count) for count in counts]
    readable = all(
        match or count in _NO_COUNT for match, count in zip(matches, counts, strict=True)
    )
    if not readable or len(counts) != len(names):
        return unknown, f"{field!r} unreadable for {len(names)} subunits"
    return [parse_count(match[1]) or None if match else None for match in matches], ""


def _chains(
    subunits: list[Subunit],
    found: Mapping[str, SequenceHit],
    msas: MsaFolder | None,
    names: Mapping[str, ProteinNames],
) -> tuple[tuple[Chain, ...], tuple[str, ...]]:
    """Chains A, B, .., copies of one molecule side by side, and notes on sequences and MSAs."""
    hits = _hits(subunits, found, names)
    first: dict[SequenceHit, Chain] = {}  # one chain of each; the others are copies of it
    for name, hit in zip(chain_names(), hits, strict=False):
        if hit not in first:
            first[hit] = _chain(name, hit, msas)
    chains = tuple(
        replace(first[hit], name=name) for name, hit in zip(chain_names(), hits, strict=False)
    )
    if msas:
        chains = msas.with_paired(chains)
    sequence_notes = dict.fromkeys(hit.note for hit in hits if hit.note)
    return chains, (*sequence_notes, *msa_notes(chains))


def _hits(
    subunits: list[Subunit], found: Mapping[str, SequenceHit], names: Mapping[str, ProteinNames]
) -> list[SequenceHit]:
    """The sequence of every copy of every subunit, equal sequences side by side.

    `names` are given to those that have none of their own.
    """
    check_num_chains(sum(count or 1 for _, count in subunits))
    copies: dict[str, list[SequenceHit]] = {}
    for accession, count in subunits:
        if (count or 1) > MAX_COPIES:
            raise ValueError(f"{count} copies of {accession} exceed the maximum of {MAX_COPIES}")
        hit = found[accession]
        given = names.get(accession, ProteinNames())
        own = hit.names
        both = ProteinNames(own.gene or given.gene, own.protein or given.protein)
        hit = replace(hit, names=both)
        copies.setdefault(hit.sequence, []).extend([hit] * (count or 1))
    return list(chained.from_iterable(copies.values()))


def _chain(name: str, hit: SequenceHit, msas: MsaFolder | None) -> Chain:
    msa = msas.find(hit.sequence, [hit.accession]) if msas else None
    try:
        return Chain(
            name,
            "protein",
            hit.sequence,
            hit.accession,
            msa,
            gene=hit.names.gene,
            protein_name=hit.names.protein,
        )
    except ValueError as error:
        raise ValueError(f"{hit.accession}: {error}") from error
