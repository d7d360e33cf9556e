"""Tables of CORUM, releases 2 to 5, and its JSON files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from foldcp.complex import Record
from foldcp.datasets.format import Format, InputFile, ReadOptions
from foldcp.datasets.parsing.json_tree import parse_json
from foldcp.datasets.parsing.tables import Table, column_key
from foldcp.datasets.parsing.yaml_tree import Node
from foldcp.datasets.subunits import Database, listed_subunits
from foldcp.files import reading

_CORUM = Database(
    required=frozenset({"complexid", "subunitsuniprotids"}),
    name="complexid",
    title="complexname",
    organism="organism",
    subunits=listed_subunits,
)
_START = re.compile(r"\s*\[\s*\{")
_KEY = re.compile(r'"complex[ _]?id"\s*:', re.IGNORECASE)
_MAX_START = 100_000  # characters, within which the first complex has its number
_MAX_VALUES = 10_000_000  # of release 5 with all that it says of 8,000 complexes: 1.5 million
_COLUMNS = ("complex_id", "complex_name", "organism", "subunits_uniprot_id", "stoichiometry")


def _recognises_json(file: InputFile) -> bool:
    text = file.text[:_MAX_START]
    return _START.match(text) is not None and _KEY.search(text) is not None


def _read_json(file: InputFile, options: ReadOptions) -> Iterator[Record]:
    """The complexes of a JSON file, as those of the table that says the same."""
    with reading(str(file.path)):
        try:
            tree = parse_json(file.text, _MAX_VALUES)
        except ValueError as error:
            raise ValueError(f"{file.path}: {error}") from error
    if not isinstance(tree, list):
        raise ValueError(f"{file.path}: expected a list of complexes")
    rows = [
        dict(zip(_COLUMNS, _cells(file, number, item), strict=True)) | _other_cells(item)
        for number, item in enumerate(tree, start=1)
    ]
    columns = tuple(dict.fromkeys(column for row in rows for column in row))
    body = [[row.get(column, "") for column in columns] for row in rows]
    keys = tuple(map(column_key, columns))
    return _CORUM.read_table(Table(file.path, columns, keys, body), options)


def _cells(file: InputFile, number: int, item: Node) -> list[str]:
    """The cells of a complex in the order of `_COLUMNS`."""
    pairs = item.items() if isinstance(item, dict) else ()
    values = {column_key(key): value for key, value in pairs}
    if not _text(values.get("complexid", "")):
        raise ValueError(f"{file.path}: complex {number} of the list has no complex_id")
    names = _joined(values.get("subunitsuniprotids", ""))
    counts = _joined(values.get("stoichiometry", ""))
    members = values.get("subunits", "")
    if isinstance(members, list):
        names = ";".join(map(_accession, members))
        own = [_stoichiometry(member) for member in members]
        counts = ";".join(own) if any(own) else counts
    return [
        _text(values["complexid"]),
        _text(values.get("complexname", "")),
        _text(values.get("organism", "")),
        names,
        counts,
    ]


def _other_cells(item: Node) -> dict[str, str]:
    """What else a complex says, as cells: `{"functions": [{"go": {"go_id": "GO:1"}}]}` is in the
    column functions_go_id.
    """
    known = set(map(column_key, _COLUMNS))
    cells = _flat_cells(item, "") if isinstance(item, dict) else {}
    return {column: cell for column, cell in cells.items() if column_key(column) not in known}


def _flat_cells(item: Mapping[str, Node], prefix: str) -> dict[str, str]:
    cells: dict[str, str] = {}
    for key, value in item.items():
        column = prefix + key
        members = value if isinstance(value, list) else [value]
        rows = [
            _flat_cells(member, f"{column}_")
            if isinstance(member, dict)
            else {column: _text(member)}
            for member in members
        ]
        for name in dict.fromkeys(name for row in rows for name in row):
            cells[name] = ";".join(row.get(name, "") for row in rows)
    return cells


def _accession(member: Node) -> str:
    """P12345 of `{"swissprot": {"uniprot_id": "P12345"}}`; None where there is none."""
    protein = member.get("swissprot", member) if isinstance(member, dict) else member
    name = protein.get("uniprot_id", "") if isinstance(protein, dict) else protein
    return _text(name) or "None"


def _stoichiometry(member: Node) -> str:
    """The copies of a subunit, whose key the releases spell in several ways."""
    values = member if isinstance(member, dict) else {}
    texts = (_text(value) for key, value in values.items() if column_key(key) == "stoichiometry")
    return next(texts, "")


def _joined(value: Node) -> str:
    return ";".join(map(_text, value)) if isinstance(value, list) else _text(value)


def _text(value: Node) -> str:
    """A scalar as it is written; an empty text for null and for lists and objects."""
    return value.strip() if isinstance(value, str) and value != "null" else ""


FORMAT = Format("corum", "CORUM table", _CORUM.recognises, _CORUM.read)
JSON_FORMAT = Format("corum-json", "CORUM JSON", _recognises_json, _read_json)
