"""Lists of AlphaPulldown: a complex for each line, `P11111,2;P22222,1-11`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from foldcp.complex import Record
from foldcp.datasets.accessions import UNIPROT
from foldcp.datasets.format import Format, InputFile, ReadOptions
from foldcp.datasets.parsing.tables import Row, Table
from foldcp.datasets.subunits import Database, Rows, Subunit, Subunits, parse_count, split_nonempty

_PART = r"[\w.|-]+(?:,\d+(?:-\d+)?)*"
_LINE = re.compile(rf"{_PART}(?:;{_PART})*;?", re.ASCII)
_ACCESSION = re.compile(rf"\b{UNIPROT}\b|,\d", re.ASCII)
_COPIES = re.compile(r"\d+", re.ASCII)
_RANGE = re.compile(r"\d+-\d+", re.ASCII)
_MAX_START = 10_000  # characters in which a list is recognised
_COLUMNS = ("name", "subunits")


def _recognises(file: InputFile) -> bool:
    """Whether the first line is one of a list, and some line has several proteins."""
    start = file.text.lstrip()[:_MAX_START]
    first = start.partition("\n")[0].strip()
    is_line = _LINE.fullmatch(first) and _ACCESSION.search(first)
    return bool(is_line) and ";" in start


def _read(file: InputFile, options: ReadOptions) -> Iterator[Record]:
    """A record for each line, named by the line with `_` for `;`."""
    lines = [line.strip().strip(";") for line in file.text.split("\n")]
    body = [[line.replace(";", "_"), line] for line in lines if line]
    return _LISTS.read_table(Table(file.path, _COLUMNS, _COLUMNS, body), options)


def _subunits(row: Row, rows: Rows) -> Subunits:
    return Subunits([_subunit(part) for part in split_nonempty(row.get("subunits"), ";")])


def _subunit(part: str) -> Subunit:
    """The accession, with its range, and the copies of `P12345`, `P12345,2` or `P12345,1-100`."""
    accession, *fields = (word.strip() for word in part.split(","))
    counts = [word for word in fields if _COPIES.fullmatch(word)]
    ranges = [word for word in fields if _RANGE.fullmatch(word)]
    if not accession or len(counts) + len(ranges) < len(fields) or len(counts) > 1:
        raise ValueError(
            f"{part!r}: expected an accession, P12345, with copies, P12345,2, or with its first "
            "and last residue, P12345,1-100"
        )
    if len(ranges) > 1:
        raise ValueError(f"{part!r}: several ranges of one chain are not supported")
    copies = parse_count(counts[0]) if counts else 1
    if copies == 0:
        raise ValueError(f"{part!r}: no copies")
    return Subunit(":".join([accession, *ranges]), copies)


_LISTS = Database(
    required=frozenset(_COLUMNS), name="name", title="", organism="", subunits=_subunits
)
FORMAT = Format("alphapulldown", "AlphaPulldown's list (P12345,2;Q67890)", _recognises, _read)
