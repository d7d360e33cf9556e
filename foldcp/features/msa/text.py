"""The rows that an alignment file holds, as they are written: a3m, or Boltz's `key,sequence`
CSV.
"""

from __future__ import annotations

import csv
import io
import re
import string
from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np

UNPAIRED = -1  # the key of a row that belongs to no row of another chain

# A row may be longer than the module's 131,072 characters; `read_file` bounds the whole.
csv.field_size_limit(2**31 - 1)

# (number of the sequence in its alignment, from 1; key; letters, gaps and insertions)
Row = tuple[int, int, bytes]
Alignment = Callable[[], Iterator[Row]]  # reads one alignment from its first row

_LOWER = string.ascii_lowercase.encode()
_IS_COLUMN = np.ones(256, dtype=bool)
_IS_COLUMN[list(_LOWER)] = False
_MAX_KEY = 2**63 - 1
# ColabFold's first line of a complex: the lengths of its different chains, a tab, and how often
# each occurs.
_COMPLEX = re.compile(rb"#(\d{1,9}(?:,\d{1,9})+)\t\d{1,9}(?:,\d{1,9})*[ \t]*(?:\n|$)")


def check_form(path: Path) -> None:
    """ValueError for a file whose name is not that of an alignment."""
    if not path.name.removesuffix(".gz").endswith((".a3m", ".csv")):
        raise ValueError(
            f"alignment {path}: its name ends neither in .a3m nor in .csv (nor those with .gz)"
        )


def is_table(path: Path) -> bool:
    """Whether a file is Boltz's `key,sequence` CSV, by its name."""
    return path.name.removesuffix(".gz").endswith(".csv")


def alignments_of(path: Path, data: bytes) -> list[Alignment]:
    """The alignments that a file holds: one, with two exceptions.

    An a3m of MMseqs2's server may hold one after the other, each ended by a NUL byte. An a3m of a
    complex by ColabFold (its first line is `#20,9<TAB>1,1`) holds one beside the other: here it is
    the whole and then each chain by itself, where the rows that show several chains have their
    number as their key. Reading the rows raises ValueError naming the file and the line.
    """
    data = plain_text(data)
    if is_table(path):
        return [partial(_csv, data.rstrip(b"\0"), path)]
    found: list[Alignment] = []
    start = 0
    for part in data.split(b"\0"):
        if part and not part.isspace():
            whole = partial(_a3m, part, path, 1 + data.count(b"\n", 0, start))
            found += [whole, *_chains(part, whole, path)]
        start += len(part) + 1
    return found or [partial(_a3m, b"", path, 1)]


def plain_text(data: bytes) -> bytes:
    """A text without its byte order mark and with plain line ends.

    What is computed with is ASCII, so an old encoding of one byte a character needs no decoding.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):  # spreadsheets save "Unicode text" so
        data = data.decode("utf-16", errors="replace").encode()
    data = data.removeprefix(b"\xef\xbb\xbf")
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return data


def _a3m(data: bytes, path: Path, first_line: int) -> Iterator[Row]:
    """An a3m has no keys; sequences may be wrapped, lines that begin with # are comments."""
    number = 0
    row = None
    for line_number, line in enumerate(io.BytesIO(data), first_line):
        text = line.strip()
        if text.startswith(b">"):
            if row:
                number += 1
                yield number, UNPAIRED, b"".join(row)
            elif row is not None and not number:
                raise ValueError(
                    f"alignment {path}: the query, before line {line_number}, has no sequence"
                )
            row = []
        elif text and not text.startswith(b"#"):
            if row is None:
                after = " or follows a NUL character" if first_line > 1 else ""
                raise ValueError(
                    f"alignment {path}: line {line_number} comes before the first header (>){after}"
                )
            row.append(text)
    if row:
        yield number + 1, UNPAIRED, b"".join(row)


def _chains(data: bytes, whole: Alignment, path: Path) -> list[Alignment]:
    """The alignments of the chains of ColabFold's complex; none for any other a3m."""
    match = _COMPLEX.match(data)
    if match is None:
        return []
    ends = list(accumulate(map(int, match[1].split(b","))))
    return [partial(_columns, whole, ends, chain, path) for chain in range(len(ends))]


def _columns(whole: Alignment, ends: list[int], chain: int, path: Path) -> Iterator[Row]:
    """One chain's columns of the rows that show it; rows that show others, too, are paired by
    their number.
    """
    for number, _, text in whole():
        places = np.flatnonzero(_IS_COLUMN[np.frombuffer(text, dtype=np.uint8)])
        if len(places) != ends[-1]:
            raise ValueError(
                f"alignment {path}: sequence {number} has {len(places)} columns, but its first "
                f"line tells of {ends[-1]}"
            )
        # An insertion between two chains is the end of the first.
        cuts = [0, *places[ends[:-1]].tolist(), len(text)]
        pieces = [text[start:stop] for start, stop in pairwise(cuts)]
        shown = [bool(piece.translate(None, b"-" + _LOWER)) for piece in pieces]
        if number == 1:
            yield number, UNPAIRED, pieces[chain]
        elif shown[chain]:
            yield number, number if sum(shown) > 1 else UNPAIRED, pieces[chain]


def _csv(data: bytes, path: Path) -> Iterator[Row]:
    """An empty key is that of an unpaired row. Some spreadsheets write semicolons instead of
    commas.
    """
    header_line = io.BytesIO(data).readline()
    separator = ";" if b";" in header_line and b"," not in header_line else ","
    lines = io.TextIOWrapper(io.BytesIO(data), encoding="latin-1", newline="")
    reader = csv.reader(lines, delimiter=separator)
    header = [name.strip() for name in next(reader, [])]
    if sorted(header) != ["key", "sequence"]:
        raise ValueError(
            f"alignment {path}: the columns must be key and sequence, not "
            f"{separator.join(header)!r}"
        )
    key = header.index("key")
    sequence = header.index("sequence")
    number = 0
    for fields in reader:
        if not fields:
            continue
        if len(fields) != 2:
            raise ValueError(
                f"alignment {path}: line {reader.line_num} has {len(fields)} fields, not 2"
            )
        if text := fields[sequence].strip():
            number += 1
            where = f"alignment {path}: line {reader.line_num}"
            yield number, _key(fields[key].strip(), where), text.encode("latin-1")


def _key(text: str, where: str) -> int:
    """An integer, which a table with empty keys may have written as 15.0."""
    if not text:
        return UNPAIRED
    match = re.fullmatch(r"([+-]?)0*(\d+)(\.0*)?", text, re.ASCII)
    if match is None:
        raise ValueError(f"{where}: the key {text!r} is no integer")
    if len(match[2]) > len(str(_MAX_KEY)) or int(match[2]) > _MAX_KEY:
        raise ValueError(f"{where}: the key {text!r} is beyond 64 bits")
    return int(match[1] + match[2])
