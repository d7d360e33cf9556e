"""Tables of Complex Portal (ComplexTAB)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from foldcp.datasets.accessions import UNIPROT
from foldcp.datasets.format import Format
from foldcp.datasets.parsing.tables import Row
from foldcp.datasets.parsing.text_files import join_names
from foldcp.datasets.subunits import (
    Database,
    Rows,
    Subunit,
    Subunits,
    parse_count,
    split_nonempty,
)

_PARTICIPANT = re.compile(r"(.+?)\(([^()]*)\)")
_PROTEIN = re.compile(rf"{UNIPROT}(?:-\d+|[-:]PRO_\d+)?")
_COMPLEX = re.compile(r"CPX-\d+")
_MEMBERS = "identifiersandstoichiometryofmoleculesincomplex"
_EXPANDED = "expandedparticipantlist"
_MAX_SUBUNITS = 10_000  # listed; complexes of complexes could double with each level


@dataclass
class _Members:
    """The members of a complex, collected from its list and those of the complexes in it."""

    rows: Rows
    subunits: list[Subunit] = field(default_factory=list)
    others: dict[str, None] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)

    def add_row(self, row: Row, times: int | None, path: tuple[str, ...]) -> None:
        """Add the members of a row, each so many times; None is an unknown number of times."""
        expanded = row.get(_EXPANDED)
        is_resolved = expanded and not any(
            _COMPLEX.match(entry) for entry in split_nonempty(expanded, "|")
        )
        for entry in split_nonempty(expanded if is_resolved else row.get(_MEMBERS), "|"):
            self._add(entry, times, path)

    def _add(self, entry: str, times: int | None, path: tuple[str, ...]) -> None:
        name, copies = _participant(entry)
        count = copies * times if copies and times else None
        if _COMPLEX.fullmatch(name):
            self._add_complex(name, count, path)
            return
        if name.startswith("["):
            first = name.strip("[]").split(",")[0].strip()
            self.notes[f"subunits: {first} taken from {name}"] = None
            name = first
        if _PROTEIN.fullmatch(name):
            if len(self.subunits) == _MAX_SUBUNITS:
                raise ValueError(f"more than {_MAX_SUBUNITS:,} subunits with those of {path[-1]}")
            self.subunits.append(Subunit(name, count))
        else:
            self.others[name] = None

    def _add_complex(self, name: str, times: int | None, path: tuple[str, ...]) -> None:
        if name in path:
            raise ValueError(f"complexes that hold one another: {' in '.join((name, *path[::-1]))}")
        if name not in self.rows:
            raise ValueError(
                f"{name} is a complex that the file does not have; its proteins are unknown"
            )
        row = self.rows[name]
        row.check_complete()
        self.add_row(row, times, (*path, name))
        self.notes[f"subunits: those of {name} are taken from its own row"] = None


def _participant(entry: str) -> tuple[str, int | None]:
    """The name and the number of copies of `P84022(2)`; (0) is an unknown number."""
    match = _PARTICIPANT.fullmatch(entry)
    if match is None:
        return entry, None
    digits = match[2].strip()
    if not (digits.isascii() and digits.isdigit()):
        raise ValueError(f"{entry!r}: the number of copies is no number")
    return match[1].strip(), parse_count(digits) or None


def _subunits(row: Row, rows: Rows) -> Subunits:
    """The proteins of `P1(2)|URS..(1)|CHEBI:1(0)|[P3,P4](1)|CPX-7(2)`.

    (0) is an unknown number, brackets hold interchangeable proteins. The expanded list counts,
    which has the proteins of complexes in the complex; where it is missing, those are looked up.
    """
    name = row.get("complexac")
    members = _Members(rows)
    members.add_row(row, 1, (name,))
    # The expanded list leaves out subunits that are not proteins.
    for entry in split_nonempty(row.get(_MEMBERS), "|"):
        other = entry.partition("(")[0].strip()
        if not other.startswith(("[", "CPX-")) and not _PROTEIN.fullmatch(other):
            members.others[other] = None
    if not members.subunits:
        others = f", only {join_names(members.others)}" if members.others else ""
        raise ValueError(f"no proteins are listed{others}")
    return Subunits(members.subunits, tuple(members.notes), tuple(members.others))


_COMPLEX_PORTAL = Database(
    required=frozenset({"complexac", "expandedparticipantlist"}),
    name="complexac",
    title="recommendedname",
    organism="taxonomyidentifier",
    subunits=_subunits,
)
FORMAT = Format(
    "complexportal", "Complex Portal table", _COMPLEX_PORTAL.recognises, _COMPLEX_PORTAL.read
)
