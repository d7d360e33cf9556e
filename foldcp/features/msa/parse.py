"""Parsers of MSA files: a3m, and Boltz's `key,sequence` CSV. Rows come as they are written."""

from __future__ import annotations

import csv
import io
import re
import string
from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from foldcp.files import FileSource, unpacked_name

UNPAIRED = -1  # the key of a row that belongs to no row of another chain

# A row may be longer than the module's 131,072 characters; `read_file` bounds the whole.
csv.field_size_limit(2**31 - 1)


class Row(NamedTuple):
    """One row of an MSA as written."""

    number: int  # of the sequence in its MSA, from 1
    key: int
    text: bytes  # letters, gaps and insertions
    header: bytes = b""  # of an a3m's row, without >


RowReader = Callable[[], Iterator[Row]]  # reads one MSA from its first row

_LOWER = string.ascii_lowercase.encode()
_IS_COLUMN = np.ones(256, dtype=bool)
_IS_COLUMN[list(_LOWER)] = False
_MAX_KEY = 2**63 - 1
_COMPLEX = re.compile(rb"#(\d{1,9}(?:,\d{1,9})*)[ \t]+(\d{1,9}(?:,\d{1,9})*)[ \t]*(?:\n|$)")


class ComplexShape(NamedTuple):
    """ColabFold's first line of an alignment: the lengths of the different chains of a complex, and
    how often each occurs.
    """

    lengths: tuple[int, ...]
    copies: tuple[int, ...]


def complex_shape(data: bytes) -> ComplexShape | None:
    """What the first line of an a3m says of its chains, `#20,9<TAB>1,1`; None if it is no such
    line.
    """
    match = _COMPLEX.match(data)
    if match is None:
        return None
    lengths, copies = (tuple(map(int, numbers.split(b","))) for numbers in match.groups())
    return ComplexShape(lengths, copies)


def check_name(path: FileSource) -> None:
    """Raise ValueError for a file whose name does not end as that of an MSA."""
    if not unpacked_name(path.name).endswith((".a3m", ".csv")):
        raise ValueError(
            f"alignment {path}: expected a name that ends in .a3m or .csv (or .gz or .xz)"
        )


def is_csv(path: FileSource) -> bool:
    """Whether a file is Boltz's `key,sequence` CSV, by its name."""
    return unpacked_name(path.name).endswith(".csv")


def parse_msas(path: FileSource, data: bytes) -> list[RowReader]:
    """The MSAs of a file: one, with two exceptions.

    An a3m of MMseqs2's server may hold one after the other, each ended by a NUL byte. An a3m of a
    complex by ColabFold (its first line is `#20,9<TAB>1,1`) holds one beside the other: here it is
    the whole and then each chain by itself, where rows of several chains have their number as their
    key. Reading the rows raises ValueError naming the file and the line.
    """
    data = decode_plain(data)
    if is_csv(path):
        return [partial(_csv_rows, data.rstrip(b"\0"), path)]
    msas: list[RowReader] = []
    first_line = 1
    for part in data.split(b"\0"):
        if part and not part.isspace():
            read_complex = partial(_a3m_rows, part, path, first_line)
            msas += [read_complex, *_chain_msas(part, read_complex, path)]
        first_line += part.count(b"\n")
    return msas or [partial(_a3m_rows, b"", path, 1)]


def decode_plain(data: bytes) -> bytes:
    """A text as bytes, without its byte order mark and with `\\n` as line end.

    All that matters is ASCII, so single-byte encodings need no decoding.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):  # spreadsheets save "Unicode text" so
        data = data.decode("utf-16", errors="replace").encode()
    data = data.removeprefix(b"\xef\xbb\xbf")
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return data


def is_column(text: bytes) -> Bool[np.ndarray, " n"]:
    """Which characters of a row stand in a column; the others are insertions."""
    return _IS_COLUMN[np.frombuffer(text, dtype=np.uint8)]


def _a3m_rows(data: bytes, path: FileSource, first_line: int) -> Iterator[Row]:
    """Rows of an a3m, without keys; sequences may be wrapped, lines with # are comments."""
    number = 0
    header = b""
    lines = None
    for line_number, line in enumerate(io.BytesIO(data), first_line):
        text = line.strip()
        if text.startswith(b">"):
            if lines:
                number += 1
                yield Row(number, UNPAIRED, b"".join(lines), header)
            elif lines is not None and not number:
                raise ValueError(
                    f"alignment {path}: the query, before line {line_number}, has no sequence"
                )
            header = text[1:]
            lines = []
        elif text and not text.startswith(b"#"):
            if lines is None:
                after = " or follows a NUL character" if first_line > 1 else ""
                raise ValueError(
                    f"alignment {path}: line {line_number} comes before the first header (>){after}"
                )
            lines.append(text)
    if lines:
        yield Row(number + 1, UNPAIRED, b"".join(lines), header)


def _chain_msas(data: bytes, read_complex: RowReader, path: FileSource) -> list[RowReader]:
    """The MSAs of the chains of ColabFold's complex; none for any other a3m."""
    shape = complex_shape(data)
    if shape is None or len(shape.lengths) == 1:
        return []
    ends = list(accumulate(shape.lengths))
    return [partial(_chain_rows, read_complex, ends, chain, path) for chain in range(len(ends))]


def _chain_rows(
    read_complex: RowReader, ends: list[int], chain: int, path: FileSource
) -> Iterator[Row]:
    """One chain's columns of the rows that show it, the first of which is the query.

    Rows that show other chains, too, are paired by their number. Where ColabFold has not paired,
    its first row shows the first chain only.
    """
    has_query = False
    for number, _, text, header in read_complex():
        columns = np.flatnonzero(is_column(text))
        if len(columns) != ends[-1]:
            raise ValueError(
                f"alignment {path}: sequence {number} has {len(columns)} columns; its first line "
                f"says {ends[-1]}"
            )
        # An insertion between two chains counts as the end of the first.
        boundaries = [0, *columns[ends[:-1]].tolist(), len(text)]
        segments = [text[start:stop] for start, stop in pairwise(boundaries)]
        shown = [bool(segment.translate(None, b"-" + _LOWER)) for segment in segments]
        if not shown[chain]:
            continue
        key = number if has_query and sum(shown) > 1 else UNPAIRED
        yield Row(number if has_query else 1, key, segments[chain], header)
        has_query = True


def _csv_rows(data: bytes, path: FileSource) -> Iterator[Row]:
    """Rows of a `key,sequence` table, separated by commas or by semicolons.

    An empty key is that of an unpaired row.
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
    key_column = header.index("key")
    sequence_column = header.index("sequence")
    number = 0
    for fields in reader:
        if not fields:
            continue
        if len(fields) != 2:
            raise ValueError(
                f"alignment {path}: line {reader.line_num} has {len(fields)} fields, not 2"
            )
        if text := fields[sequence_column].strip():
            number += 1
            location = f"alignment {path}: line {reader.line_num}"
            key = _parse_key(fields[key_column].strip(), location)
            yield Row(number, key, text.encode("latin-1"))


def _parse_key(text: str, location: str) -> int:
    """An integer, which a table with empty keys may have written as 15.0."""
    if not text:
        return UNPAIRED
    match = re.fullmatch(r"([+-]?)(\d+)(\.0*)?", text, re.ASCII)
    if match is None:
        raise ValueError(f"{location}: invalid key {text[:40]!r}; expected an integer")
    digits = match[2].lstrip("0") or "0"
    if len(digits) > len(str(_MAX_KEY)) or int(digits) > _MAX_KEY:
        raise ValueError(f"{location}: the key {text[:40]!r} exceeds 64 bits")
    return int(match[1] + digits)
