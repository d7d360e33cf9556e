"""Delimited tables, read by column names, whatever their order, spelling and quoting."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

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
_BLANK = re.compile(r"\A\s*\n")  # lines; a column may have no name, so that a tab comes first
_NUM_SAMPLE = 20  # rows that tell the separator
csv.field_size_limit(10**8)  # the default, 131,072, is less than a few copies of titin


@dataclass(frozen=True)
class Table:
    """A table: its columns as written, and the keys (lower-case letters and digits) they have.

    The cells of the body are made anew each time that it is gone through: those of a million rows
    take ten times the memory of their text.
    """

    path: Path
    columns: tuple[str, ...]
    keys: tuple[str, ...]
    body: Iterable[list[str]]
    unmatched: int = 0  # line of the first unmatched quote, where all quotes are letters

    def check(self, needed: Collection[str], optional: Collection[str] = ()) -> None:
        """Raise ValueError for a table without rows, without a needed column, with a needed or an
        optional one twice, or with an unmatched quote in a needed one.
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
        if next(iter(self.body), None) is None:
            raise ValueError(f"{self.path}: the table has no rows")
        if self.unmatched:
            for row in self.rows():
                if any(row.get(key).startswith('"') for key in needed):
                    raise _unmatched(self.path, self.unmatched)

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
    num_lines = text.count("\n")
    text = _BLANK.sub("", text)
    first = text.partition("\n")[0]
    named = _SEP.match(first)
    if named:
        text = text.partition("\n")[2].lstrip("\n")
        if not text:
            raise ValueError(f"{path}: the table has no columns")
    with reading(str(path)):
        line = num_lines - text.count("\n") + 1
        cells = _cells(path, text, named[1] if named else _delimiter(text), line)
        columns = next(iter(cells))
    keys = tuple(map(column_key, columns))
    return Table(path, tuple(columns), keys, _Body(cells), cells.unmatched)


@dataclass(frozen=True, slots=True)
class _Cells:
    """The rows of cells in a text, the columns' names first, made as they are asked for."""

    text: str = field(repr=False)
    delimiter: str
    quoting: Literal["strict", "none", "lenient"] = "strict"
    unmatched: int = 0  # line of the first unmatched quote where the quoting is "none"

    def __iter__(self) -> Iterator[list[str]]:
        lines = io.StringIO(self.text, newline="")
        quoting = csv.QUOTE_NONE if self.quoting == "none" else csv.QUOTE_MINIMAL
        strict = self.quoting == "strict"
        return csv.reader(lines, delimiter=self.delimiter, quoting=quoting, strict=strict)

    def is_even(self) -> bool:
        """Whether all rows but the empty ones have as many cells as the first."""
        rows = iter(self)
        num_columns = len(next(rows))
        return all(len(row) in (0, num_columns) for row in rows)


@dataclass(frozen=True, slots=True)
class _Body:
    """The rows of cells below the columns' names."""

    cells: _Cells

    def __iter__(self) -> Iterator[list[str]]:
        return itertools.islice(self.cells, 1, None)


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


def _cells(path: Path, text: str, delimiter: str, first_line: int) -> _Cells:
    """The cells of a text, which is read once to see how its quotes are meant."""
    strict = _Cells(text, delimiter)
    try:
        for _ in strict:
            pass
    except csv.Error:
        unclosed = _unmatched_quote(text, delimiter, word=True)
        start = _unmatched_quote(text, delimiter, word=False) if unclosed is None else unclosed
        if start is None:
            raise
        line = first_line + text.count("\n", 0, start)
        plain = _Cells(text, delimiter, "none", line)
        if plain.is_even():
            return plain
        # A cell that only begins with a quoted word, `"Ends" here`, in a table with line ends in
        # other cells.
        lenient = _Cells(text, delimiter, "lenient")
        if unclosed is None and lenient.is_even():
            return lenient
        raise _unmatched(path, line) from None
    return strict


def _unmatched_quote(text: str, delimiter: str, word: bool) -> int | None:
    """Where the first quote opens that does not close at the end of its cell; if `word`, letters
    may follow the one that closes.
    """
    end = f"[^{delimiter}\n]*" if word else ""
    cell = re.compile(rf'(?:"[^"]*(?:""[^"]*)*"{end}|[^"{delimiter}\n][^{delimiter}\n]*|)')
    start = 0
    while start < len(text):
        found = cell.match(text, start)
        assert found is not None
        if found.end() < len(text) and text[found.end()] not in (delimiter, "\n"):
            return start
        start = found.end() + 1
    return None


def _unmatched(path: Path, line: int) -> ValueError:
    return ValueError(
        f"{path}: line {line}: the quotes in the table do not match: one opens there that does not "
        "close at the end of its cell"
    )
