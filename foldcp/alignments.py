"""Alignment files (a3m, Boltz's key,sequence CSV; gzipped or not) -> rows of residues, keys and deletions."""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import Int

from foldcp.chemistry import GAP, PROTEIN_LETTERS, TOKEN_IDS

UNPAIRED = -1  # the key of a row that belongs to no row of another chain
_BLOCK = 1 << 22  # characters that are translated at once

# What each byte of a row is: an index in the vocabulary, an insertion, or nothing.
_INSERTION, _ILLEGAL = 100, 101
_MEANING = np.full(256, _ILLEGAL, dtype=np.int8)
_MEANING[ord("a") : ord("z") + 1] = _INSERTION
_MEANING[list(b"XJBZOU")] = TOKEN_IDS["UNK"]
_MEANING[[ord(letter) for letter in PROTEIN_LETTERS]] = [TOKEN_IDS[name] for name in PROTEIN_LETTERS.values()]
_MEANING[ord("-")] = GAP


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of one file, S of them over L columns; the first is the query."""

    residues: Int[np.ndarray, "S L"]  # int8, index in the vocabulary
    deletions: Int[np.ndarray, "D 3"]  # (row, column, residues left out just before it), where there are any
    keys: Int[np.ndarray, " S"]


def read_alignment(path: Path, max_rows: int, keep_keyed: bool = False) -> Rows:
    """The first `max_rows` different rows of an alignment of a protein.

    Rows are the same if they are equal without gaps and case; the first is kept. With `keep_keyed`, a row with a
    key (of the CSV form) is the same only as one with its key. An a3m has no keys. Sequences may be wrapped.
    Raises ValueError naming the file: no such file or form, no rows, a malformed or illegal row.
    """
    form = "".join(path.suffixes[-2:] if path.suffix == ".gz" else path.suffixes[-1:]).removesuffix(".gz")
    if form not in (".a3m", ".csv"):
        raise ValueError(f"alignment {path}: its name ends neither in .a3m nor in .csv (nor those with .gz)")
    if not path.is_file():
        raise ValueError(f"alignment {path}: no such file")
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
            rows = _a3m(file, path) if form == ".a3m" else _csv(file, path)
            kept = list(islice(_different(rows, keep_keyed), max_rows))
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError, zlib.error, csv.Error) as error:
        raise ValueError(f"alignment {path}: {error}") from error
    if not kept:
        raise ValueError(f"alignment {path}: it has no sequences")
    numbers, keys, texts = zip(*kept, strict=True)
    return Rows(*_translate(texts, numbers, path), np.array(keys, dtype=np.int64))


def _a3m(file: IO[str], path: Path) -> Iterator[tuple[int, str]]:
    """(key, row); lines that begin with # are comments."""
    row: list[str] | None = None
    for number, line in enumerate(map(str.strip, file), 1):
        if line.startswith(">"):
            if row:
                yield UNPAIRED, "".join(row)
            row = []
        elif line and not line.startswith("#"):
            if row is None:
                raise ValueError(f"alignment {path}: line {number} comes before the first header (>)")
            row.append(line)
    if row:
        yield UNPAIRED, "".join(row)


def _csv(file: IO[str], path: Path) -> Iterator[tuple[int, str]]:
    """(key, row); an empty key is that of an unpaired row."""
    reader = csv.reader(file)
    header = next(reader, [])
    if sorted(header) != ["key", "sequence"]:
        raise ValueError(f"alignment {path}: the columns must be key and sequence, not {','.join(header)!r}")
    key, sequence = header.index("key"), header.index("sequence")
    for fields in reader:
        if not fields:
            continue
        if len(fields) != 2:
            raise ValueError(f"alignment {path}: line {reader.line_num} has {len(fields)} fields, not 2")
        if text := fields[sequence].strip():
            yield _key(fields[key].strip(), f"alignment {path}: line {reader.line_num}"), text


def _key(text: str, where: str) -> int:
    """An integer, which a table with empty keys may have written as 15.0."""
    if not text:
        return UNPAIRED
    if not re.fullmatch(r"[+-]?\d+(\.0*)?", text):
        raise ValueError(f"{where}: the key {text!r} is no integer")
    return int(text.partition(".")[0])


def _different(rows: Iterator[tuple[int, str]], keep_keyed: bool) -> Iterator[tuple[int, int, str]]:
    """(number in the file from 1, key, row)"""
    seen: set[str | tuple[int, str]] = set()
    for number, (key, text) in enumerate(rows, 1):
        sequence = text.replace("-", "").upper()
        keyed = keep_keyed and key != UNPAIRED
        mark = (key, sequence) if keyed else sequence
        if mark not in seen:
            seen |= {mark, sequence}
            yield number, key, text


def _translate(texts: Sequence[str], numbers: Sequence[int], path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Residues and deletions; a block of rows at a time, since all rows take a byte per residue and no more."""
    num_columns = sum(not character.islower() for character in texts[0])
    residues = np.empty((len(texts), num_columns), dtype=np.int8)
    deletions = []
    rows_at_once = max(1, _BLOCK // max(1, num_columns))
    for start in range(0, len(texts), rows_at_once):
        block = texts[start : start + rows_at_once]
        meaning = _MEANING[np.frombuffer("".join(block).encode("latin-1", "replace"), dtype=np.uint8)]
        ends = np.cumsum([len(text) for text in block])
        illegal = meaning == _ILLEGAL
        if illegal.any():
            row = int(np.searchsorted(ends, np.argmax(illegal), side="right"))
            letter = "".join(block)[int(np.argmax(illegal))]
            raise ValueError(f"alignment {path}: {letter!r} in sequence {numbers[start + row]} is no residue")
        is_column = meaning != _INSERTION
        columns = np.diff(np.cumsum(is_column)[ends - 1], prepend=0)
        if (columns != num_columns).any():
            row = int(np.argmax(columns != num_columns))
            raise ValueError(
                f"alignment {path}: sequence {numbers[start + row]} has {columns[row]} columns, "
                f"but the query {num_columns}"
            )
        residues[start : start + len(block)] = meaning[is_column].reshape(len(block), num_columns)
        deletions.append(_deletions(is_column, ends) + np.array([start, 0, 0]))
    return residues, np.concatenate(deletions)


def _deletions(is_column: np.ndarray, ends: Int[np.ndarray, " rows"]) -> Int[np.ndarray, "D 3"]:
    """(row, column, number of insertions just before it) within a block of rows; those at a row's end are lost."""
    places = np.flatnonzero(is_column).reshape(len(ends), -1)
    before = np.concatenate([[[0]], ends[:-1, None]]) - 1
    left_out = np.diff(places, axis=1, prepend=before) - 1
    row, column = np.nonzero(left_out)
    return np.stack([row, column, left_out[row, column]], axis=1)
