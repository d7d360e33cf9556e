"""Reading of MSA files into residues, pairing keys and deletions."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Int

from foldcp.features.msa.letters import ILLEGAL, INSERTION, LOWER, MEANING, UPPER, illegal_letter
from foldcp.features.msa.parse import UNPAIRED, Row, RowReader, check_name, is_csv, parse_msas
from foldcp.features.msa.query import difference, encode_query, first_text, msa_of_chain
from foldcp.features.msa.taxonomy import taxonomy_key
from foldcp.files import MAX_BYTES, FileSource, check_unchanged, read_file, reading

FIRST_NUMBER = 1 << 40  # of keys that are numbers of rows; ids of taxa are far below

# Where the keys of an a3m's rows come from: none but in ColabFold's a3m of a complex; from the
# species in their headers; or, for the rows that are to be paired, from their numbers where no
# header names a species. A CSV has keys of its own.
KeySource = Literal["none", "taxonomy", "paired"]

_CHUNK_CHARACTERS = 1 << 22  # that are translated at once


@dataclass(frozen=True)
class MsaSource:
    """A file of an MSA and how to read it."""

    path: FileSource  # an a3m or CSV file, gzipped or not
    max_rows: int  # the most rows that are read
    keys: KeySource = "none"
    digest: str = ""  # SHA-256 that the unpacked content must have; "" is any


@dataclass(frozen=True)
class MsaReading:
    """How the files of a chain are read.

    `keep_keyed` says whether a row with a key may repeat the sequence of a row with another key,
    `cut` whether an MSA of a longer sequence is cut to the chain; `max_bytes` is the most that a
    file may hold once unpacked.
    """

    keep_keyed: bool = False
    cut: bool = False
    max_bytes: int = MAX_BYTES


@dataclass(frozen=True, eq=False)
class ChainMsa:
    """The MSA of one chain: S rows of L columns, the first of which is the query."""

    residues: Int[np.ndarray, "S L"]  # int8, index in the vocabulary
    deletions: Int[np.ndarray, "D 3"]  # (row, column, residues left out just before it)
    keys: Int[np.ndarray, " S"]
    # SHA-256 of the content of each file, unpacked
    digests: Mapping[FileSource, str] = field(default_factory=dict)


def read_msa(
    path: FileSource,
    max_rows: int,
    keep_keyed: bool = False,
    *,
    chain: Int[np.ndarray, " L"] | None = None,
    digest: str = "",
    max_bytes: int = MAX_BYTES,
) -> ChainMsa:
    """The first `max_rows` different rows of a protein's MSA in one file; as `read_msas`."""
    settings = MsaReading(keep_keyed, max_bytes=max_bytes)
    return read_msas([MsaSource(path, max_rows, digest=digest)], settings, chain)


def read_msas(
    sources: Sequence[MsaSource], settings: MsaReading, chain: Int[np.ndarray, " L"] | None = None
) -> ChainMsa:
    """The different rows of a protein's MSA, those of the first file first.

    Rows are duplicates if they are equal without gaps and case; the first is kept.

    Args:
        sources: the files, each with the number of rows that is read of it.
        settings: how they are read.
        chain: the chain that the query must be, as indices in the vocabulary. In a file of several
            MSAs it tells which is meant.

    Raises:
        ValueError: naming the file: absent, too large, changed, of unknown form, without rows, with
            a malformed or illegal row, or of another chain.
    """
    seen: set[bytes | tuple[int, bytes]] = set()
    parts = [_read_file(source, settings, chain, seen) for source in sources]
    first_rows = np.cumsum([0, *(len(part.keys) for part in parts)])
    deletions = [
        part.deletions + np.array([first_row, 0, 0])
        for part, first_row in zip(parts, first_rows, strict=False)
    ]
    return ChainMsa(
        residues=np.concatenate([part.residues for part in parts]),
        deletions=np.concatenate(deletions),
        keys=np.concatenate([part.keys for part in parts]),
        digests={path: sha256 for part in parts for path, sha256 in part.digests.items()},
    )


def _read_file(
    source: MsaSource,
    settings: MsaReading,
    chain: Int[np.ndarray, " L"] | None,
    seen: set[bytes | tuple[int, bytes]],
) -> ChainMsa:
    """The rows of one file that were not `seen` before."""
    path = source.path
    check_name(path)
    content = read_file(path, settings.max_bytes)
    check_unchanged(f"alignment {path}", content, source.digest)
    with reading(f"alignment {path}"):
        read_rows = msa_of_chain(parse_msas(path, content.data), chain, path, settings.cut)
        query = first_text(read_rows)
        if not query:
            raise ValueError(f"alignment {path}: it has no sequences")
        keyed = read_rows() if is_csv(path) else _with_keys(read_rows, source.keys)
        rows = list(
            itertools.islice(_deduplicated(keyed, settings.keep_keyed, seen), source.max_rows)
        )
    residues, deletions = _translate(rows, len(query.translate(None, LOWER)), path)
    if chain is not None and (reason := difference(chain, encode_query(query))):
        raise ValueError(f"alignment {path}: {reason}")
    keys = np.array([row.key for row in rows], dtype=np.int64)
    return ChainMsa(residues, deletions, keys, {path: content.sha256})


def _with_keys(read_rows: RowReader, source: KeySource) -> Iterator[Row]:
    """The rows of an a3m with their keys; the query has none.

    Of rows that are to be paired, those without a residue are left out.
    """
    if source == "none":
        yield from read_rows()
        return
    numbered = source == "paired" and not any(
        row.key != UNPAIRED or taxonomy_key(row.header) != UNPAIRED
        for row in itertools.islice(read_rows(), 1, None)
    )
    for row in read_rows():
        if row.number == 1:
            yield row
        elif source == "taxonomy" or row.text.translate(None, b"-" + LOWER):
            yield row._replace(key=_key(row, numbered))


def _key(row: Row, numbered: bool) -> int:
    """The key of an a3m's row: its number, or that of its header's species."""
    if row.key != UNPAIRED:  # of ColabFold's complex
        return FIRST_NUMBER + row.key
    return FIRST_NUMBER + row.number if numbered else taxonomy_key(row.header)


def _deduplicated(
    rows: Iterator[Row], keep_keyed: bool, seen: set[bytes | tuple[int, bytes]]
) -> Iterator[Row]:
    for row in rows:
        sequence = row.text.translate(UPPER, b"-")
        keyed = keep_keyed and row.key != UNPAIRED
        mark = (row.key, sequence) if keyed else sequence
        if mark not in seen:
            seen |= {mark, sequence}
            yield row


def _translate(
    rows: Sequence[Row], num_columns: int, path: FileSource
) -> tuple[Int[np.ndarray, "S L"], Int[np.ndarray, "D 3"]]:
    """Residues and deletions, a chunk of rows at a time, so that a residue takes a byte."""
    if not num_columns:
        raise ValueError(f"alignment {path}: its query has no residues")
    residues = np.empty((len(rows), num_columns), dtype=np.int8)
    deletions = [np.zeros((0, 3), dtype=np.int64)]
    rows_per_chunk = max(1, _CHUNK_CHARACTERS // num_columns)
    for start in range(0, len(rows), rows_per_chunk):
        chunk = rows[start : start + rows_per_chunk]
        meaning = np.frombuffer(
            b"".join(row.text for row in chunk).translate(MEANING), dtype=np.int8
        )
        edges = np.cumsum([0, *(len(row.text) for row in chunk)])
        illegal = meaning == ILLEGAL
        if illegal.any():
            row = chunk[int(np.searchsorted(edges, np.argmax(illegal), side="right")) - 1]
            raise ValueError(
                f"alignment {path}: invalid letter {illegal_letter(row.text)!r} in sequence "
                f"{row.number}"
            )
        insertion = meaning == INSERTION
        found = _deletions(np.flatnonzero(insertion), edges)
        num_inserted = np.bincount(found[:, 0], found[:, 2], minlength=len(chunk)).astype(np.int64)
        columns = np.diff(edges) - num_inserted
        if (columns != num_columns).any():
            index = int(np.argmax(columns != num_columns))
            raise ValueError(
                f"alignment {path}: sequence {chunk[index].number} has {columns[index]} columns, "
                f"but the query {num_columns}"
            )
        residues[start : start + len(chunk)] = meaning[~insertion].reshape(len(chunk), num_columns)
        # What is left out at a row's end stands before no column.
        deletions.append(found[found[:, 1] < num_columns] + np.array([start, 0, 0]))
    return residues, np.concatenate(deletions)


def _deletions(
    inserted: Int[np.ndarray, " n"], edges: Int[np.ndarray, " rows+1"]
) -> Int[np.ndarray, "D 3"]:
    """(row, column, number of insertions just before it) from the positions of the insertions.

    The positions are those in rows that follow each other, whose bounds are `edges`.
    """
    row = np.searchsorted(edges, inserted, side="right") - 1
    # insertions of the same row before each
    before = np.arange(len(inserted)) - np.searchsorted(inserted, edges[row])
    column = inserted - edges[row] - before
    is_start = (np.diff(row, prepend=-1) != 0) | (np.diff(column, prepend=-1) != 0)
    starts = np.flatnonzero(is_start)
    counts = np.diff(starts, append=len(inserted))
    return np.stack([row[starts], column[starts], counts], axis=1)
