"""Delimited tables, read by column names, whatever their order, spelling and quoting."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from foldcp.files import reading

# Names of one column in the releases of CORUM and hu.MAP.
_SYNONYMS = {
    "subunitsuniprotid": "subunitsuniprotids",
    "uniprotaccs": "subunitsuniprotids",
    "subunitsstoechiometrie": "stoichiometry",
    "subunitsstoichiometry": "stoichiometry",
    "stoechiometrie": "stoichiometry",
    "stoechiometry": "stoichiometry",
}
_MISSING = frozenset({"", "-", "None", "nan", "NaN"})
_SEPARATORS = "\t,;"
_SEP = re.compile(r'"?sep=([\t,;])"?', re.IGNORECASE)  # the first line of Excel's tables
_NUM_SAMPLE = 20  # rows that tell the separator
csv.field_size_limit(10**8)  # the default, 131,072, is less than a few copies of titin


@dataclass(frozen=True)
class Table:
    """A table: its columns as written, and the keys (lower-case letters and digits) they have."""

    path: Path
    columns: tuple[str, ...]
    keys: tuple[str, ...]
    body: list[list[str]]

    def check(self, needed: Collection[str], optional: Collection[str] = ()) -> None:
        """Raise ValueError for a table without rows, without a needed column, or with a needed or
        an optional one twice.
        """
        if missing := sorted(set(needed) - set(self.keys)):
            raise ValueError(
                f"{self.path}: the table has no column {', '.join(missing)} (case, blanks and "
                f"signs aside); its columns are {', '.join(self.columns)[:200]!r}"
            )
        used = {*needed, *optional}
        counts = Counter(self.keys)
        columns = zip(self.columns, self.keys, strict=True)
        repeated = [column for column, key in columns if key in used and counts[key] > 1]
        if repeated:
            raise ValueError(
                f"{self.path}: ambiguous columns {', '.join(map(repr, repeated))}; leave out all "
                "but one"
            )
        if not self.body:
            raise ValueError(f"{self.path}: the table has no rows")

    def rows(self) -> Iterator[Row]:
        """Each row that is not blank, numbered from 1."""
        cells = (cells for cells in self.body if any(cell.strip() for cell in cells))
        for number, values in enumerate(cells, start=1):
            by_key = dict(zip(self.keys, values, strict=False))
            yield Row(number, by_key, len(values), len(self.keys))


@dataclass(frozen=True, slots=True)
class Row:
    """The cells of one row by column key."""

    number: int
    cells: dict[str, str]
    num_cells: int
    num_columns: int  # of the table; another number in a damaged row

    def check_complete(self) -> None:
        """Raise ValueError for a row with more or fewer cells than the table has columns."""
        if self.num_cells != self.num_columns:
            raise ValueError(
                f"row {self.number} has {self.num_cells} columns, the table {self.num_columns}"
            )

    def get(self, key: str) -> str:
        """The cell without white space around it; "" where the column or the value is missing."""
        value = self.cells.get(key, "").strip()
        return "" if value in _MISSING else value


def column_key(name: str) -> str:
    """The lower-case letters and digits of a column's name; synonyms have one key."""
    key = re.sub(r"[^a-z0-9]", "", name.lower())
    return _SYNONYMS.get(key, key)


def read_table(path: Path, text: str) -> Table:
    """The table in a text, separated by tabs, commas or semicolons.

    The first line, which names the columns, decides: by `sep=;`, as Excel writes it, or by the most
    frequent separator that gives the next rows as many cells. Fields in double quotes may hold
    separators and line ends; where the quotes do not match, as in Complex Portal's files, they are
    letters like any other, or else may end before their field does. Raises ValueError if no reading
    works.
    """
    text = text.lstrip("\n")
    first = text.partition("\n")[0]
    named = _SEP.match(first)
    if named:
        text = text.partition("\n")[2].lstrip("\n")
    with reading(str(path)):
        delimiter = named[1] if named else _delimiter(text)
        columns, *body = _cells(path, text, delimiter)
    return Table(path, tuple(columns), tuple(map(column_key, columns)), body)


def _delimiter(text: str) -> str:
    """The separator that occurs most often in the first line, among those that divide the next
    rows alike if there are several.
    """
    header = text.partition("\n")[0]
    present = sorted((mark for mark in _SEPARATORS if mark in header), key=header.count)[::-1]
    for mark in present if len(present) > 1 else []:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=mark)
        columns, *others = itertools.islice(rows, _NUM_SAMPLE)
        others = [row for row in others if row]
        if others and all(len(row) == len(columns) for row in others):
            return mark
    return present[0] if present else "\t"


def _cells(path: Path, text: str, delimiter: str) -> list[list[str]]:
    quoted = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        return list(quoted)
    except csv.Error as error:
        plain = list(csv.reader(text.split("\n"), delimiter=delimiter, quoting=csv.QUOTE_NONE))
        if _is_even(plain):
            return plain
        # A cell that only begins with a quoted word, `"Ends" here`, in a table with line ends in
        # other cells.
        lenient = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
        if _is_even(lenient):
            return lenient
        raise ValueError(
            f"{path}: line {quoted.line_num}: the quotes in the table do not match ({error})"
        ) from error


def _is_even(rows: list[list[str]]) -> bool:
    return all(len(row) in (0, len(rows[0])) for row in rows)
