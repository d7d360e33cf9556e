"""Tables of hu.MAP 2 and 3: subunits without counts, and a confidence."""

from __future__ import annotations

from foldcp.datasets.format import Format
from foldcp.datasets.parsing.tables import Row
from foldcp.datasets.subunits import Database, Rows, Subunits, listed_subunits


def _subunits(row: Row, rows: Rows) -> Subunits:
    """`P1 P2 P3`, and a confidence."""
    found = listed_subunits(row, rows)
    confidence = row.get("complexconfidence") or row.get("confidence")
    if not confidence:
        return found
    note = f"confidence: {confidence} (hu.MAP, 1 best to 6)"
    return found._replace(notes=(*found.notes, note))


def _database(name: str) -> Database:
    return Database(
        required=frozenset({name, "subunitsuniprotids"}),
        name=name,
        title="genenames",
        organism="Human",
        subunits=_subunits,
    )


_HUMAP_3 = _database("humap3id")
_HUMAP_2 = _database("humap2id")
FORMAT_3 = Format("humap3", "hu.MAP 3 table", _HUMAP_3.recognises, _HUMAP_3.read)
FORMAT_2 = Format("humap2", "hu.MAP 2 table", _HUMAP_2.recognises, _HUMAP_2.read)
