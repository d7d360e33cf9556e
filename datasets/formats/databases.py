"""Complexes of the rows of a database, CORUM 2 to 5, Complex Portal or hu.MAP: lists of
accessions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain as chained
from typing import NamedTuple

from foldcp.complex import Chain, Complex, InvalidComplex, Record, chain_names
from foldcp.datasets.chains import check_number
from foldcp.datasets.msas import MsaFolder, msa_notes
from foldcp.datasets.parsing.tables import Row, Table
from foldcp.datasets.parsing.text_files import listed
from foldcp.datasets.sequences import UNIPROT, Found, Sequences
from foldcp.files import reading

# More copies than this are a slip of the pen: large capsids have some hundreds of one protein.
MAX_COPIES = 1000
_COUNT = re.compile(r"(\d+)(?:\.0)?")
_BRACKETED = re.compile(r"\(\s*([^(),\s]+)\s*\)")
_NO_COUNT = frozenset({"", "0", "?", "None", "nan", "NaN", "-"})
_NO_ACCESSION = frozenset({"", "None", "nan", "NaN", "-"})


class Subunit(NamedTuple):
    """One entry of a row's list: the accession, and how many copies if the database knows."""

    accession: str
    copies: int | None


Subunits = tuple[list[Subunit], tuple[str, ...]]  # and the notes on them


@dataclass(frozen=True, slots=True)
class Database:
    """Where a database keeps what, as column keys; `organism` is the organism itself if it is no
    column.
    """

    required: frozenset[str]
    name: str
    title: str
    organism: str
    subunits: Callable[[Row], Subunits]


def records(
    table: Table, database: Database, sequences: Sequences, msas: MsaFolder | None
) -> Iterator[Record]:
    """One record for each row of the table, in its order; what cannot be built says why."""
    source = table.path.name
    for row in table.rows():
        name = row.get(database.name) or f"row {row.number}"
        title = row.get(database.title)
        organism = (
            row.get(database.organism) if database.organism in row.cells else database.organism
        )
        notes: tuple[str, ...] = ()
        try:
            with reading(f"row {row.number}"):
                if row.num_cells != row.num_columns:
                    raise ValueError(
                        f"row {row.number} has {row.num_cells} columns, the table {row.num_columns}"
                    )
                subunits, notes = database.subunits(row)
                chains, chain_notes = _chains(subunits, sequences, msas)
                notes = (*notes, *chain_notes)
                record = Complex(name, chains, title, organism, source, notes=notes)
        except ValueError as error:
            record = InvalidComplex(name, str(error), title, organism, source, notes=notes)
        yield record


def _chains(
    subunits: list[Subunit], sequences: Sequences, msas: MsaFolder | None
) -> tuple[tuple[Chain, ...], tuple[str, ...]]:
    """Chains A, B, .., copies of one molecule side by side, and notes on their sequences and
    alignments.
    """
    copies: dict[str, list[Found]] = {}
    unknown: dict[str, None] = {}
    check_number(sum(count or 1 for _, count in subunits))
    for accession, count in subunits:
        if (count or 1) > MAX_COPIES:
            raise ValueError(f"{count} copies of {accession}, but {MAX_COPIES} are the most")
        if found := sequences.find(accession):
            copies.setdefault(found.sequence, []).extend([found] * (count or 1))
        else:
            unknown[accession] = None
    if unknown:
        raise ValueError(f"unknown accession: {listed(unknown, 200)} not in {sequences.path.name}")
    ordered = list(chained.from_iterable(copies.values()))
    first: dict[Found, Chain] = {}  # one chain of each; the others are copies of it
    for name, found in zip(chain_names(), ordered, strict=False):
        if found not in first:
            first[found] = _chain(name, found, msas)
    chains = tuple(
        replace(first[found], name=name)
        for name, found in zip(chain_names(), ordered, strict=False)
    )
    remarks = dict.fromkeys(found.note for found in ordered if found.note)
    return chains, (*(f"sequence: {remark}" for remark in remarks), *msa_notes(chains))


def _chain(name: str, found: Found, msas: MsaFolder | None) -> Chain:
    msa = msas.find(found.sequence, [found.accession]) if msas else None
    try:
        return Chain(name, "protein", found.sequence, found.accession, msa)
    except ValueError as error:
        raise ValueError(f"{found.accession}: {error}") from error


def _corum(row: Row) -> Subunits:
    """`P1;P2-3;`, and in CORUM 5 the copies of each, `2;1`, which are mostly absent."""
    names, split_notes = _split(row.get("subunitsuniprotids"))
    copies, copy_notes = _copies(row.get("stoichiometry"), names)
    notes = (*copy_notes, *split_notes)
    both = zip(names, copies, strict=True)
    subunits = [Subunit(name, count) for name, count in both if name not in _NO_ACCESSION]
    if not subunits:
        raise ValueError("no subunits are listed")
    if missing := len(names) - len(subunits):
        left_out = f"{missing} of {len(names)} subunits have no accession and are left out"
        notes = (*notes, f"subunits: {left_out}")
    return subunits, notes


def _copies(field: str, names: list[str]) -> tuple[list[int | None], tuple[str, ...]]:
    """The copies of each listed subunit, None where the database does not say, and a note if it
    does not.
    """
    counts = [count.strip() for count in field.split(";")]
    while len(counts) > len(names) and not counts[-1]:
        counts.pop()
    unknown: list[int | None] = [None] * len(names)
    if all(count in _NO_COUNT for count in counts):
        return unknown, ("stoichiometry: not given: one copy of each",)
    numbers = [_COUNT.fullmatch(count) for count in counts]
    readable = all(
        number or count in _NO_COUNT for number, count in zip(numbers, counts, strict=True)
    )
    if not readable or len(counts) != len(names):
        note = f"{field!r} is no count for each of {len(names)} subunits: one copy of each"
        return unknown, (f"stoichiometry: {note}",)
    copies = [_number(number[1]) or None if number else None for number in numbers]
    once = [name for name, count in zip(names, copies, strict=True) if not count]
    return copies, (f"stoichiometry: not given for {listed(once)}: one copy",) if once else ()


def _number(digits: str) -> int:
    """A count; Python converts no more than some thousand digits, and none is needed to see that
    it is too large.
    """
    return int(digits) if len(digits) < 20 else 10**20


def _split(field: str) -> tuple[list[str], tuple[str, ...]]:
    """The accessions of a list with `;`, or else commas or spaces, between them and perhaps
    behind them; a note.
    """
    parts = field.split(";") if ";" in field else re.split(r"[,\s]+", field)
    parts = [part.strip() for part in parts]
    while parts and not parts[-1]:
        parts.pop()
    # CORUM 2 brackets subunits among which it could not decide.
    bracketed = [_BRACKETED.fullmatch(part) for part in parts]
    alone = [match[1] for match in bracketed if match]
    parts = [match[1] if match else part for match, part in zip(bracketed, parts, strict=True)]
    if doubtful := [part for part in parts if "(" in part or ")" in part]:
        raise ValueError(
            f"which of the subunits {doubtful[0]!r} are there? List those that are, "
            "without brackets"
        )
    return parts, (f"choice: {listed(alone)} in brackets, taken to be there",) if alone else ()


def _humap(row: Row) -> Subunits:
    """`P1 P2 P3`, without counts, and a confidence from 1 (best) to 6."""
    subunits, notes = _corum(row)
    confidence = row.get("complexconfidence") or row.get("confidence")
    return subunits, (*notes, f"confidence: {confidence}")


_PARTICIPANT = re.compile(r"(.+?)\((\d+)\)")
_PROTEIN = re.compile(rf"{UNIPROT}(?:-\d+|-PRO_\d+)?")


def _complextab(row: Row) -> Subunits:
    """`P1(2)|URS..(1)|CHEBI:1(0)|[P3,P4](1)`: (0) is an unknown number, brackets hold
    interchangeable proteins.
    """
    members = row.get("identifiersandstoichiometryofmoleculesincomplex")
    expanded = row.get("expandedparticipantlist") or members
    subunits: list[Subunit] = []
    left_out: dict[str, None] = {}
    notes: list[str] = []
    choices: dict[str, None] = {}
    for entry in filter(None, (entry.strip() for entry in expanded.split("|"))):
        match = _PARTICIPANT.fullmatch(entry)
        name, count = (match[1], _number(match[2])) if match else (entry, 0)
        if name.startswith("["):
            first = name.strip("[]").split(",")[0].strip()
            choices[f"{first} stands for any of {name}"] = None
            name = first
        if _PROTEIN.fullmatch(name):
            subunits.append(Subunit(name, count or None))
        else:
            left_out[name] = None
    for entry in filter(
        None, members.split("|")
    ):  # the expanded list leaves out what is no protein
        name = entry.partition("(")[0].strip()
        if not name.startswith(("[", "CPX-")) and not _PROTEIN.fullmatch(name):
            left_out[name] = None
    if not subunits:
        only = f" but {listed(left_out)}" if left_out else ""
        raise ValueError(f"no proteins are listed{only}")
    notes += [f"choice: {choice}" for choice in choices]
    if unknown := dict.fromkeys(subunit.accession for subunit in subunits if not subunit.copies):
        notes.append(f"stoichiometry: not given for {listed(unknown)}: one copy")
    if left_out:
        notes.append(f"subunits: only the proteins are folded, without {listed(left_out)}")
    return subunits, tuple(notes)


DATABASES = (
    Database(
        frozenset({"complexid", "subunitsuniprotids"}),
        "complexid",
        "complexname",
        "organism",
        _corum,
    ),
    Database(
        frozenset({"complexac", "expandedparticipantlist"}),
        "complexac",
        "recommendedname",
        "taxonomyidentifier",
        _complextab,
    ),
    Database(
        frozenset({"humap3id", "subunitsuniprotids"}),
        "humap3id",
        "genenames",
        "Human",
        _humap,
    ),
    Database(
        frozenset({"humap2id", "subunitsuniprotids"}),
        "humap2id",
        "genenames",
        "Human",
        _humap,
    ),
)
