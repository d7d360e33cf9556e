"""Tables of Complex Portal (ComplexTAB)."""

from __future__ import annotations

import re

from foldcp.datasets.format import Format
from foldcp.datasets.parsing.tables import Row
from foldcp.datasets.parsing.text_files import join_names
from foldcp.datasets.sequences import UNIPROT
from foldcp.datasets.subunits import (
    Database,
    Subunit,
    Subunits,
    parse_count,
    split_nonempty,
)

_PARTICIPANT = re.compile(r"(.+?)\((\d+)\)")
_PROTEIN = re.compile(rf"{UNIPROT}(?:-\d+|-PRO_\d+)?")


def _subunits(row: Row) -> Subunits:
    """The proteins of `P1(2)|URS..(1)|CHEBI:1(0)|[P3,P4](1)`.

    (0) is an unknown number, brackets hold interchangeable proteins.
    """
    members = row.get("identifiersandstoichiometryofmoleculesincomplex")
    expanded = row.get("expandedparticipantlist") or members
    subunits: list[Subunit] = []
    left_out: dict[str, None] = {}
    choices: dict[str, None] = {}
    for entry in split_nonempty(expanded, "|"):
        match = _PARTICIPANT.fullmatch(entry)
        name = match[1] if match else entry
        count = parse_count(match[2]) if match else 0
        if name.startswith("["):
            first = name.strip("[]").split(",")[0].strip()
            choices[f"subunits: {first} taken from {name}"] = None
            name = first
        if _PROTEIN.fullmatch(name):
            subunits.append(Subunit(name, count or None))
        else:
            left_out[name] = None
    # The expanded list leaves out subunits that are not proteins.
    for entry in split_nonempty(members, "|"):
        name = entry.partition("(")[0].strip()
        if not name.startswith(("[", "CPX-")) and not _PROTEIN.fullmatch(name):
            left_out[name] = None
    if not subunits:
        others = f", only {join_names(left_out)}" if left_out else ""
        raise ValueError(f"no proteins are listed{others}")
    notes = list(choices)
    unknown = dict.fromkeys(subunit.accession for subunit in subunits if not subunit.copies)
    if unknown:
        notes.append(f"stoichiometry: unknown for {join_names(unknown)}, one copy assumed")
    if left_out:
        notes.append(f"subunits: {join_names(left_out)} left out, as only proteins are folded")
    return Subunits(subunits, tuple(notes))


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
