"""Alignments in the archive that a server of alignments answers with."""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import zlib
from collections.abc import Iterable, Sequence

from foldcp.features.msa.parse import decode_plain
from foldcp.pipeline.msa_search.search import AlignedRow

FIRST_NUMBER = 101  # of the first query, in the headers of what is sent and of what comes back
MAX_UNPACKED = 2_000_000_000  # bytes of an archive
_LOWER = "abcdefghijklmnopqrstuvwxyz"
_ROW = re.compile(r"[A-Za-z*-]+", re.ASCII)
# The server may answer with another letter where the query has one of these.
_STANDARD = frozenset("ACDEFGHIKLMNPQRSTVWY")

# What the standard library raises for damaged headers: sizes out of range, headers of headers of
# headers.
_TAR_ERRORS = (
    tarfile.TarError,
    OSError,
    EOFError,
    ValueError,
    OverflowError,
    RecursionError,
    zlib.error,
)

# The rows of the alignment of each query, the query first.
Alignments = list[list[str]]


class DamagedArchiveError(Exception):
    """An archive, or an alignment in it, that cannot be used; the message says why."""


def read_members(data: bytes, names: Sequence[str], max_bytes: int = MAX_UNPACKED) -> list[bytes]:
    """The files called `names` of a tar archive, which may be gzipped; others are not looked at."""
    try:
        if data.startswith(b"\x1f\x8b"):
            data = gzip.GzipFile(fileobj=io.BytesIO(data)).read(max_bytes + 1)
        if len(data) > max_bytes:
            raise DamagedArchiveError(f"the archive exceeds {max_bytes:,} bytes")
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            found = _read_regular(archive, names)
    except _TAR_ERRORS as error:
        raise DamagedArchiveError(f"the archive is truncated or damaged ({error})") from error
    if missing := [name for name in names if name not in found]:
        raise DamagedArchiveError(f"the archive has no file {missing[0]}")
    return [found[name] for name in names]


def _read_regular(archive: tarfile.TarFile, names: Sequence[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for member in archive:
        if member.size < 0:  # the next header would be one that has been read
            raise DamagedArchiveError(f"the archive has a file of {member.size} bytes")
        name = member.name.removeprefix("./")
        # The data of a sparse file may be larger than the archive.
        if name not in names or not member.isreg() or member.issparse():
            continue
        if name in found:
            raise DamagedArchiveError(f"the archive has two files {name}")
        file = archive.extractfile(member)
        content = file.read() if file else b""
        if len(content) != member.size:
            raise DamagedArchiveError(f"the archive ends within {name}")
        found[name] = content
    return found


def read_alignments(data: bytes, name: str, queries: Sequence[str]) -> Alignments:
    """The alignments of all queries in an a3m of several, each ended by a NUL byte."""
    found: dict[str, list[str]] = {}
    for part in decode_plain(data).split(b"\0"):
        if part and not part.isspace():
            number, rows = _read_block(part.decode("latin-1"), name)
            if number in found:
                raise DamagedArchiveError(f"{name}: has two alignments of query {number}")
            found[number] = rows
    numbers = [str(FIRST_NUMBER + i) for i in range(len(queries))]
    if sorted(found) != sorted(numbers):
        raise DamagedArchiveError(
            f"{name}: expected alignments of queries {numbers[0]} to {numbers[-1]}, but it has "
            f"{len(found)}: {', '.join(sorted(found))[:100]}"
        )
    for number, query in zip(numbers, queries, strict=True):
        _check_rows(found[number], query, f"{name}: query {number}")
        found[number][0] = query
    return [found[number] for number in numbers]


def _read_block(text: str, name: str) -> tuple[str, list[str]]:
    """The number of a query and the rows of its alignment."""
    records = [record.split("\n") for record in ("\n" + text).split("\n>")[1:]]
    if not records or not text.lstrip().startswith(">"):
        raise DamagedArchiveError(f"{name}: an alignment has no header (>)")
    number = (records[0][0].split() or [""])[0]
    return number, ["".join(line.strip() for line in lines[1:]) for lines in records]


def _check_rows(rows: Iterable[str], query: str, location: str) -> None:
    delete = str.maketrans("", "", _LOWER)
    for i, row in enumerate(rows):
        if not _ROW.fullmatch(row):
            raise DamagedArchiveError(f"{location}: row {i + 1} is not one of letters and gaps")
        columns = row.translate(delete)
        if i == 0 and not _is_query(row, query):
            raise DamagedArchiveError(
                f"{location}: the first row is not the sequence that was sent"
            )
        if len(columns) != len(query):
            raise DamagedArchiveError(
                f"{location}: row {i + 1} has {len(columns)} columns, the query {len(query)}"
            )


def _is_query(row: str, query: str) -> bool:
    return len(row) == len(query) and all(
        a == b or b not in _STANDARD for a, b in zip(row, query, strict=True)
    )


def merge_rows(alignments: Iterable[list[str]]) -> tuple[AlignedRow, ...]:
    """The rows of one query's alignments, one after the other, each but once."""
    rows = dict.fromkeys(row for alignment in alignments for row in alignment if row.strip("-"))
    return tuple(AlignedRow(row) for row in rows)


def join_pairs(alignments: Alignments, queries: Sequence[str]) -> str:
    """ColabFold's a3m of a complex: row i of every chain side by side, if two chains have one.

    Raises DamagedArchiveError where the chains have different numbers of rows.
    """
    counts = [len(rows) for rows in alignments]
    if len(set(counts)) > 1:
        raise DamagedArchiveError(
            f"the paired alignments have different numbers of rows: {', '.join(map(str, counts))}"
        )
    lengths = ",".join(str(len(query)) for query in queries)
    numbers = "\t".join(str(FIRST_NUMBER + i) for i in range(len(queries)))
    lines = [f"#{lengths}\t{','.join('1' for _ in queries)}", f">{numbers}", "".join(queries)]
    seen = {lines[-1]}
    for i in range(1, counts[0]):
        # An insertion before the first column would count as one of the chain before it.
        row = [rows[i].strip(_LOWER) for rows in alignments]
        joined = "".join(row)
        if sum(bool(segment.strip("-")) for segment in row) > 1 and joined not in seen:
            seen.add(joined)
            lines += [f">pair{i}", joined]
    return "\n".join(lines) + "\n"
