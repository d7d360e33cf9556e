"""Tables of CORUM, releases 2 to 5."""

from __future__ import annotations

from foldcp.datasets.format import Format
from foldcp.datasets.subunits import Database, listed_subunits

_CORUM = Database(
    required=frozenset({"complexid", "subunitsuniprotids"}),
    name="complexid",
    title="complexname",
    organism="organism",
    subunits=listed_subunits,
)
FORMAT = Format("corum", "CORUM table", _CORUM.recognises, _CORUM.read)
