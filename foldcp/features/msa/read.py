"""Reading of an MSA file into residues, pairing keys and deletions."""

from __future__ import annotations

import itertools
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from foldcp.chemistry.vocabulary import GAP, PROTEIN_LETTERS, TOKEN_IDS, TOKENS
from foldcp.features.msa.parse import UNPAIRED, Row, RowReader, check_name, parse_msas
from foldcp.files import MAX_BYTES, FileSource, check_unchanged, read_file, reading

_CHUNK_CHARACTERS = 1 << 22  # that are translated at once

# What each byte of a row is: an index in the vocabulary, an insertion, or illegal.
_INSERTION = 100
_ILLEGAL = 101
_LOWER = string.ascii_lowercase.encode()
_MEANINGS = {
    **dict.fromkeys(_LOWER, _INSERTION),
    **dict.fromkeys(b"XJBZOU", TOKEN_IDS["UNK"]),
    **{ord(letter): TOKEN_IDS[name] for letter, name in PROTEIN_LETTERS.items()},
    ord("-"): GAP,
}
_MEANING = bytes(_MEANINGS.get(byte, _ILLEGAL) for byte in range(256))
_UPPER = bytes(range(256)).upper()


@dataclass(frozen=True, eq=False)
class ChainMsa:
    """The MSA of one chain: S rows of L columns, the first of which is the query."""

    residues: Int[np.ndarray, "S L"]  # int8, index in the vocabulary
    deletions: Int[np.ndarray, "D 3"]  # (row, column, residues left out just before it)
    keys: Int[np.ndarray, " S"]
    sha256: str = ""  # of the file's content, unpacked; "" where there is no file


def read_msa(
    path: FileSource,
    max_rows: int,
    keep_keyed: bool = False,
    *,
    chain: Int[np.ndarray, " L"] | None = None,
    digest: str = "",
    max_bytes: int = MAX_BYTES,
) -> ChainMsa:
    """The first `max_rows` different rows of a protein's MSA.

    Rows are duplicates if they are equal without gaps and case; the first is kept.

    Args:
        path: an a3m or CSV file, gzipped or not.
        max_rows: the most rows that are read, the query among them.
        keep_keyed: whether a row with a key may repeat the sequence of a row with another key.
        chain: the chain that the query must be, as indices in the vocabulary. In a file of several
            MSAs it tells which is meant.
        digest: SHA-256 that the unpacked content must have; "" is any.
        max_bytes: the most that the file may hold once unpacked.

    Raises:
        ValueError: naming the file: absent, too large, changed, of unknown form, without rows, with
            a malformed or illegal row, or of another chain.
    """
    check_name(path)
    content = read_file(path, max_bytes)
    check_unchanged(f"alignment {path}", content, digest)
    with reading(f"alignment {path}"):
        read_rows = _msa_of_chain(parse_msas(path, content.data), chain, path)
        rows = list(itertools.islice(_deduplicated(read_rows(), keep_keyed), max_rows))
    if not rows:
        raise ValueError(f"alignment {path}: it has no sequences")
    residues, deletions = _translate(rows, path)
    if chain is not None and (difference := _difference(chain, residues[0])):
        raise ValueError(f"alignment {path}: {difference}")
    keys = np.array([row.key for row in rows], dtype=np.int64)
    return ChainMsa(residues, deletions, keys, content.sha256)


def _msa_of_chain(
    msas: list[RowReader], chain: Int[np.ndarray, " L"] | None, path: FileSource
) -> RowReader:
    """The MSA whose query is the chain; the only one of a file, whatever its query.

    If several have this query, their rows follow each other.
    """
    if len(msas) == 1:
        return msas[0]
    if chain is None:
        raise ValueError(f"alignment {path}: it is of several chains, and none is named")
    queries = [_query(read_rows) for read_rows in msas]
    matching = [
        read_rows
        for read_rows, query in zip(msas, queries, strict=True)
        if not _difference(chain, query)
    ]
    if matching:
        return lambda: itertools.chain.from_iterable(read_rows() for read_rows in matching)
    lengths = ", ".join(str(len(query)) for query in queries)
    nearest = min(queries, key=lambda query: abs(len(query) - len(chain)))
    raise ValueError(
        f"alignment {path}: none of its queries (of {lengths} residues) is the chain; of the "
        f"nearest: {_difference(chain, nearest)}"
    )


def _query(read_rows: RowReader) -> Int[np.ndarray, " L"]:
    """The first sequence of an MSA; illegal letters count as unknown until all rows are read."""
    text = next((row.text for row in read_rows()), b"")
    meaning = np.frombuffer(text.translate(_MEANING), dtype=np.int8)
    return np.where(meaning == _ILLEGAL, TOKEN_IDS["UNK"], meaning)[meaning != _INSERTION]


def _difference(chain: Int[np.ndarray, " L"], query: Int[np.ndarray, " L2"]) -> str:
    """The reason why a query is not that of a chain; "" if it is.

    An unknown or modified residue fits every letter, and an unknown letter fits methionine (which
    MSE becomes).
    """
    if len(chain) != len(query):
        return f"its query has {len(query)} residues, but the chain {len(chain)}"
    unknown = TOKEN_IDS["UNK"]
    matches = (
        (chain == query) | (chain == unknown) | ((chain == TOKEN_IDS["MET"]) & (query == unknown))
    )
    if matches.all():
        return ""
    i = int(np.argmin(matches))
    return (
        f"its query is another sequence; residue {i + 1} is {TOKENS[query[i]]}, but "
        f"{TOKENS[chain[i]]} in the chain"
    )


def _deduplicated(rows: Iterator[Row], keep_keyed: bool) -> Iterator[Row]:
    seen: set[bytes | tuple[int, bytes]] = set()
    for row in rows:
        sequence = row.text.translate(_UPPER, b"-")
        keyed = keep_keyed and row.key != UNPAIRED
        mark = (row.key, sequence) if keyed else sequence
        if mark not in seen:
            seen |= {mark, sequence}
            yield row


def _translate(
    rows: Sequence[Row], path: FileSource
) -> tuple[Int[np.ndarray, "S L"], Int[np.ndarray, "D 3"]]:
    """Residues and deletions, a chunk of rows at a time, so that a residue takes a byte."""
    num_columns = len(rows[0].text.translate(None, _LOWER))
    if not num_columns:
        raise ValueError(f"alignment {path}: its query has no residues")
    residues = np.empty((len(rows), num_columns), dtype=np.int8)
    deletions = []
    rows_per_chunk = max(1, _CHUNK_CHARACTERS // num_columns)
    for start in range(0, len(rows), rows_per_chunk):
        chunk = rows[start : start + rows_per_chunk]
        meaning = np.frombuffer(
            b"".join(row.text for row in chunk).translate(_MEANING), dtype=np.int8
        )
        edges = np.cumsum([0, *(len(row.text) for row in chunk)])
        illegal = meaning == _ILLEGAL
        if illegal.any():
            row = chunk[int(np.searchsorted(edges, np.argmax(illegal), side="right")) - 1]
            raise ValueError(
                f"alignment {path}: invalid letter {_illegal_letter(row.text)!r} in sequence "
                f"{row.number}"
            )
        insertion = meaning == _INSERTION
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


def _illegal_letter(row: bytes) -> str:
    """The first illegal letter of a row, in whatever encoding it was written."""
    try:
        text = row.decode()
    except UnicodeDecodeError:
        text = row.decode("cp1252", errors="replace")
    return next(letter for letter in text if ord(letter) > 255 or _MEANING[ord(letter)] == _ILLEGAL)
