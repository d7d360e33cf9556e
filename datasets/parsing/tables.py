"""Delimited tables, read by column names, whatever their order, spelling and quoting."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from foldcp.files import reading

# One thing by the names that the releases of CORUM and hu.MAP give it.
_SAME = {
    "subunitsuniprotid": "subunitsuniprotids",
    "uniprotaccs": "subunitsuniprotids",
    "subunitsstoechiometrie": "stoichiometry",
    "subunitsstoichiometry": "stoichiometry",
}
_MISSING = frozenset({"", "-", "None", "nan", "NaN"})
csv.field_size_limit(10**8)  # the default, 131,072, is less than a few copies of titin


@dataclass(frozen=True)
class Table:
    """A table with the columns as written and the plain spelling by which they are found."""

    path: Path
    columns: tuple[str, ...]
    keys: tuple[str, ...]
    body: list[list[str]]

    def rows(self) -> Iterator[Row]:
        """Each row that is not blank, numbered from 1."""
        cells = (cells for cells in self.body if any(cell.strip() for cell in cells))
        for number, values in enumerate(cells, start=1):
            yield Row(
                number,
                dict(zip(self.keys, values, strict=False)),
                len(values),
                len(self.keys),
            )


@dataclass(frozen=True, slots=True)
class Row:
    """The cells of one row by column key; `num_cells` differs from `num_columns` where the row
    is damaged.
    """

    number: int
    cells: dict[str, str]
    num_cells: int
    num_columns: int

    def get(self, key: str) -> str:
        """The cell without white space around it; empty where the column or the value is
        missing.
        """
        value = self.cells.get(key, "").strip()
        return "" if value in _MISSING else value


def read_table(path: Path, text: str) -> Table:
    """The table in `text`, separated by tabs, commas or semicolons, whichever the first line has
    most of.

    Fields in double quotes may hold separators and line ends; where the quotes do not work out, as
    in Complex Portal's files, they are letters like any other. Raises ValueError if neither reading
    works.
    """
    text = text.lstrip("\n")
    header = text.partition("\n")[0]
    delimiter = max("\t,;", key=header.count)
    with reading(str(path)):
        columns, *body = _cells(path, text, delimiter)
    keys = [re.sub(r"[^a-z0-9]", "", column.lower()) for column in columns]
    return Table(path, tuple(columns), tuple(_SAME.get(key, key) for key in keys), body)


def _cells(path: Path, text: str, delimiter: str) -> list[list[str]]:
    quoted = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        return list(quoted)
    except csv.Error as error:
        plain = list(csv.reader(text.split("\n"), delimiter=delimiter, quoting=csv.QUOTE_NONE))
        if any(len(row) not in (0, len(plain[0])) for row in plain):
            reason = f"line {quoted.line_num}: the quotes in the table do not match ({error})"
            raise ValueError(f"{path}: {reason}") from error
        return plain
