"""Queries of MSAs: which MSA of a file is that of a chain, and which of its columns are."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial

import numpy as np
from jaxtyping import Bool, Int

from foldcp.chemistry.vocabulary import TOKEN_IDS, TOKENS
from foldcp.features.msa.letters import ILLEGAL, INSERTION, LOWER, MEANING
from foldcp.features.msa.parse import Row, RowReader, is_column
from foldcp.files import FileSource

_UNKNOWN = TOKEN_IDS["UNK"]
_METHIONINE = TOKEN_IDS["MET"]


def msa_of_chain(
    msas: list[RowReader], chain: Int[np.ndarray, " L"] | None, path: FileSource, cut: bool
) -> RowReader:
    """The MSA whose query is the chain; the only one of a file, whatever its query.

    If several have this query, their rows follow each other. With `cut`, an MSA whose query holds
    the chain once is cut to it, unless another has the chain as its query.
    """
    if chain is None:
        if len(msas) > 1:
            raise ValueError(f"alignment {path}: it is of several chains, and none is named")
        return msas[0]
    if len(msas) == 1 and not cut:
        return msas[0]
    queries = [encode_query(first_text(read_rows)) for read_rows in msas]
    matching = [
        read_rows
        for read_rows, query in zip(msas, queries, strict=True)
        if not difference(chain, query)
    ]
    if not matching and cut:
        matching = [
            partial(_cut_rows, read_rows, starts[0], len(chain))
            for read_rows, query in zip(msas, queries, strict=True)
            if len(starts := find_chain(chain, query)) == 1
        ]
    if matching:
        return lambda: itertools.chain.from_iterable(read_rows() for read_rows in matching)
    if len(msas) == 1:
        return msas[0]
    lengths = ", ".join(str(len(query)) for query in queries)[:200]
    nearest = min(queries, key=lambda query: abs(len(query) - len(chain)))
    raise ValueError(
        f"alignment {path}: none of its queries (of {lengths} residues) is the chain; of the "
        f"nearest: {difference(chain, nearest)}"
    )


def first_text(read_rows: RowReader) -> bytes:
    """The first row of an MSA as written; empty for an MSA without rows."""
    return next((row.text for row in read_rows()), b"")


def encode_query(text: bytes) -> Int[np.ndarray, " L"]:
    """Indices in the vocabulary of a query; illegal letters count as unknown until all rows are
    read.
    """
    meaning = np.frombuffer(text.translate(MEANING), dtype=np.int8)
    return np.where(meaning == ILLEGAL, _UNKNOWN, meaning)[meaning != INSERTION]


def difference(chain: Int[np.ndarray, " L"], query: Int[np.ndarray, " L2"]) -> str:
    """The reason why a query is not that of a chain; "" if it is.

    An unknown or modified residue fits every letter, and an unknown letter fits methionine (which
    MSE becomes).
    """
    if len(chain) != len(query):
        reason = f"its query has {len(query)} residues, but the chain {len(chain)}"
        starts = find_chain(chain, query)
        if len(starts) == 1:
            first = starts[0] + 1
            reason += (
                f"; residues {first} to {first + len(chain) - 1} of it are the chain, which "
                "`--set msa.cut_to_range=true` takes"
            )
        elif len(starts):
            reason += f"; {len(starts)} stretches of it are the chain"
        return reason
    matches = _matches(chain, query)
    if matches.all():
        return ""
    i = int(np.argmin(matches))
    return (
        f"its query is another sequence; residue {i + 1} is {TOKENS[query[i]]}, but "
        f"{TOKENS[chain[i]]} in the chain"
    )


def find_chain(chain: Int[np.ndarray, " L"], query: Int[np.ndarray, " L2"]) -> list[int]:
    """The columns of a longer query, from 0, at which the chain begins."""
    starts = np.arange(len(query) - len(chain) + 1)
    for i in range(len(chain)):
        if not len(starts):
            break
        starts = starts[_matches(np.full(len(starts), chain[i]), query[starts + i])]
    return starts.tolist()


def _matches(chain: Int[np.ndarray, " L"], query: Int[np.ndarray, " L"]) -> Bool[np.ndarray, " L"]:
    of_methionine = (chain == _METHIONINE) & (query == _UNKNOWN)
    return (chain == query) | (chain == _UNKNOWN) | of_methionine


def _cut_rows(read_rows: RowReader, start: int, length: int) -> Iterator[Row]:
    """The rows with `length` columns from `start` on, and insertions between them.

    Rows without a residue there are left out; rows with too few columns come as they are, which is
    an error where they are translated.
    """
    num_columns = 0
    for row in read_rows():
        columns = np.flatnonzero(is_column(row.text))
        num_columns = num_columns or len(columns)
        if len(columns) != num_columns:
            yield row
            continue
        text = row.text[columns[start] : columns[start + length - 1] + 1]
        if text.translate(None, b"-" + LOWER):
            yield row._replace(text=text)
