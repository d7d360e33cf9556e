"""Alignment files (a3m, Boltz's key,sequence CSV; gzipped or not) -> rows of residues, keys and
deletions.
"""

from __future__ import annotations

import itertools
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from foldcp.chemistry.vocabulary import GAP, PROTEIN_LETTERS, TOKEN_IDS, TOKENS
from foldcp.features.msa.text import UNPAIRED, Alignment, Row, alignments_of, check_form
from foldcp.files import MAX_BYTES, check_unchanged, read_file, reading

_BLOCK = 1 << 22  # characters that are translated at once

# What each byte of a row is: an index in the vocabulary, an insertion, or nothing.
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
class MsaRows:
    """The rows of one alignment, S of them over L columns; the first is the query."""

    residues: Int[np.ndarray, "S L"]  # int8, index in the vocabulary
    deletions: Int[
        np.ndarray, "D 3"
    ]  # (row, column, residues left out just before it), where there are any
    keys: Int[np.ndarray, " S"]
    sha256: str = ""  # of the file's content, unpacked; "" where there is no file


def read_alignment(
    path: Path,
    max_rows: int,
    keep_keyed: bool = False,
    *,
    chain: Int[np.ndarray, " L"] | None = None,
    digest: str = "",
    max_bytes: int = MAX_BYTES,
) -> MsaRows:
    """The first `max_rows` different rows of an alignment of a protein.

    Rows are the same if they are equal without gaps and case; the first is kept. With `keep_keyed`,
    a row with a key is the same only as one with its key.

    Args:
        path: an a3m or CSV file, gzipped or not.
        max_rows: as many rows are read at most, the query among them.
        keep_keyed: whether a row with a key may repeat the sequence of a row with another key.
        chain: the chain that the query must be, as indices in the vocabulary. In a file of several
        alignments it
            tells which is meant.
        digest: SHA-256 that the unpacked content must have; "" is any.
        max_bytes: the most that the file may hold once unpacked.

    Raises:
        ValueError: naming the file: absent, too large, changed, of no known form, without rows,
        with a malformed or
            illegal row, or of another chain.
    """
    check_form(path)
    content = read_file(path, max_bytes)
    check_unchanged(f"alignment {path}", content, digest)
    with reading(f"alignment {path}"):
        rows = _of_chain(alignments_of(path, content.data), chain, path)
        kept = list(itertools.islice(_different(rows(), keep_keyed), max_rows))
    if not kept:
        raise ValueError(f"alignment {path}: it has no sequences")
    numbers, keys, texts = zip(*kept, strict=True)
    residues, deletions = _translate(texts, numbers, path)
    if chain is not None and (difference := _difference(chain, residues[0])):
        raise ValueError(f"alignment {path}: {difference}")
    return MsaRows(residues, deletions, np.array(keys, dtype=np.int64), content.sha256)


def _of_chain(found: list[Alignment], chain: Int[np.ndarray, " L"] | None, path: Path) -> Alignment:
    """The alignment whose query is the chain, of several; one after the other if there are more of
    it. The only one, whatever its query.
    """
    if len(found) == 1:
        return found[0]
    if chain is None:
        raise ValueError(f"alignment {path}: it is of several chains, and none is named")
    queries = [_query(rows) for rows in found]
    rows_per_chunk = [
        rows for rows, query in zip(found, queries, strict=True) if not _difference(chain, query)
    ]
    if rows_per_chunk:
        return lambda: itertools.chain.from_iterable(rows() for rows in rows_per_chunk)
    lengths = ", ".join(str(len(query)) for query in queries)
    nearest = min(queries, key=lambda query: abs(len(query) - len(chain)))
    raise ValueError(
        f"alignment {path}: it has several queries (of {lengths} residues), and the chain is "
        "none of them; "
        f"of the nearest: {_difference(chain, nearest)}"
    )


def _query(rows: Alignment) -> Int[np.ndarray, " L"]:
    """The first sequence of an alignment; what is no residue counts as unknown until it is read
    in earnest.
    """
    text = next((text for _, _, text in rows()), b"")
    meaning = np.frombuffer(text.translate(_MEANING), dtype=np.int8)
    return np.where(meaning == _ILLEGAL, TOKEN_IDS["UNK"], meaning)[meaning != _INSERTION]


def _difference(chain: Int[np.ndarray, " L"], query: Int[np.ndarray, " L2"]) -> str:
    """Why a query is not that of a chain; "" if it is.

    An unknown or modified residue fits every letter, and an unknown letter fits methionine (which
    MSE becomes).
    """
    if len(chain) != len(query):
        return f"its query has {len(query)} residues, but the chain {len(chain)}"
    unknown = TOKEN_IDS["UNK"]
    fits = (
        (chain == query) | (chain == unknown) | ((chain == TOKEN_IDS["MET"]) & (query == unknown))
    )
    if fits.all():
        return ""
    i = int(np.argmin(fits))
    return (
        f"its query is another sequence; residue {i + 1} is {TOKENS[query[i]]}, but "
        f"{TOKENS[chain[i]]} in the chain"
    )


def _different(rows: Iterator[Row], keep_keyed: bool) -> Iterator[Row]:
    seen: set[bytes | tuple[int, bytes]] = set()
    for number, key, text in rows:
        sequence = text.translate(_UPPER, b"-")
        keyed = keep_keyed and key != UNPAIRED
        mark = (key, sequence) if keyed else sequence
        if mark not in seen:
            seen |= {mark, sequence}
            yield number, key, text


def _translate(
    texts: Sequence[bytes], numbers: Sequence[int], path: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Residues and deletions; a block of rows at a time, since all rows take a byte per residue
    and no more.
    """
    num_columns = len(texts[0].translate(None, _LOWER))
    if not num_columns:
        raise ValueError(f"alignment {path}: its query has no residues")
    residues = np.empty((len(texts), num_columns), dtype=np.int8)
    deletions = []
    rows_at_once = max(1, _BLOCK // num_columns)
    for start in range(0, len(texts), rows_at_once):
        block = texts[start : start + rows_at_once]
        meaning = np.frombuffer(b"".join(block).translate(_MEANING), dtype=np.int8)
        edges = np.cumsum([0, *map(len, block)])
        illegal = meaning == _ILLEGAL
        if illegal.any():
            row = int(np.searchsorted(edges, np.argmax(illegal), side="right")) - 1
            letter = _illegal_letter(block[row])
            raise ValueError(
                f"alignment {path}: {letter!r} in sequence {numbers[start + row]} is no residue"
            )
        insertion = meaning == _INSERTION
        found = _deletions(np.flatnonzero(insertion), edges)
        columns = np.diff(edges) - np.bincount(
            found[:, 0], found[:, 2], minlength=len(block)
        ).astype(np.int64)
        if (columns != num_columns).any():
            row = int(np.argmax(columns != num_columns))
            raise ValueError(
                f"alignment {path}: sequence {numbers[start + row]} has {columns[row]} columns, "
                f"but the query {num_columns}"
            )
        residues[start : start + len(block)] = meaning[~insertion].reshape(len(block), num_columns)
        # What is left out at a row's end stands before no column.
        deletions.append(found[found[:, 1] < num_columns] + np.array([start, 0, 0]))
    return residues, np.concatenate(deletions)


def _deletions(
    inserted: Int[np.ndarray, " n"], edges: Int[np.ndarray, " rows+1"]
) -> Int[np.ndarray, "D 3"]:
    """(row, column, number of insertions just before it) from the places of the insertions in rows
    that follow each other.
    """
    row = np.searchsorted(edges, inserted, side="right") - 1
    before = np.arange(len(inserted)) - np.searchsorted(
        inserted, edges[row]
    )  # insertions of the same row
    column = inserted - edges[row] - before
    starts = np.flatnonzero((np.diff(row, prepend=-1) != 0) | (np.diff(column, prepend=-1) != 0))
    return np.stack([row[starts], column[starts], np.diff(starts, append=len(inserted))], axis=1)


def _illegal_letter(row: bytes) -> str:
    """The first letter of a row that is no residue, in whatever encoding it was written."""
    try:
        text = row.decode()
    except UnicodeDecodeError:
        text = row.decode("cp1252", errors="replace")
    return next(letter for letter in text if ord(letter) > 255 or _MEANING[ord(letter)] == _ILLEGAL)
