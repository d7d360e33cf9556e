"""Files of commits that are not merged yet: one each, of two lines of JSON.

{"id": …, "kind": …, "rows_size": bytes of the next line, "rows_sha256": …}
{<table>: {<column>: [values]}}

While the files of a result are replaced in place, a mark says so: commits/<id>.replacing. As long
as it is there, the earlier version counts only if the SHA-256 of each of its files is right.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np

from foldcp.pipeline.storage.commits.record import CommitRecord, is_intact, parse_commit, typed
from foldcp.pipeline.storage.schemas import Row, Table

COMMITS = "commits"
SUFFIX = ".jsonl"
MARK_SUFFIX = ".replacing"
Columns = Mapping[str, Sequence[Any]]  # values of each column, without those that are all null
# NumPy has a float for an integer where some are missing.
PYTHON_TYPES: dict[str, frozenset[type]] = {
    "string": frozenset({str}),
    "list<string>": frozenset({list, tuple}),
    "list<int32>": frozenset({list}),
    "list<float64>": frozenset({list}),
    "int64": frozenset({int, float, np.int64, np.int32}),
    "float32": frozenset({float, int, np.float32, np.float64}),
    "float64": frozenset({float, int, np.float32, np.float64}),
    "bool": frozenset({bool, np.bool_}),
    "timestamp": frozenset({datetime}),
}


@dataclass(frozen=True, slots=True)
class UnmergedCommit:
    """A commit with a file of its own: its record, and where its rows are in the file."""

    record: CommitRecord
    path: str
    rows_size: int
    rows_sha256: str


def commit_path(commit: str) -> str:
    """Path of a commit's file, relative to the run's folder."""
    return f"{COMMITS}/{commit}{SUFFIX}"


def mark_path(commit: str) -> str:
    """Path of the mark of a commit whose files are being replaced, relative to the run's folder."""
    return f"{COMMITS}/{commit}{MARK_SUFFIX}"


def commit_of(path: Path) -> str:
    """The commit that a file in commits/ belongs to."""
    return path.name.removesuffix(SUFFIX).removesuffix(MARK_SUFFIX)


def to_columns(table: Table, rows: Sequence[Row]) -> dict[str, list[Any]]:
    """The values of each column; a value that a row does not give is the column's default.

    Asserts that they are of the column's type, as a wrong one would be an error of the next merge
    alone.
    """
    known = {column.name for column in table.columns}
    unknown = {name for row in rows for name in row} - known
    assert not unknown, f"{table.name}: {unknown}"
    columns = {}
    for column in table.columns:
        values = [row.get(column.name, column.default) for row in rows]
        kinds = set(map(type, values))
        is_null = NoneType in kinds or (
            not column.nullable and any(value != value for value in values)
        )
        assert column.nullable or not is_null, f"column {column.name} must not be null"
        others = kinds - PYTHON_TYPES[column.type] - {NoneType}
        assert not others, f"column {column.name} is {column.type}, not {others}"
        if kinds != {NoneType}:
            columns[column.name] = values
    return columns


def to_bytes(record: CommitRecord, tables: Mapping[str, Columns]) -> tuple[bytes, UnmergedCommit]:
    """The content of a commit's file."""
    rows = json.dumps(tables, default=_plain).encode()
    commit = UnmergedCommit(
        record, commit_path(record.id), len(rows), hashlib.sha256(rows).hexdigest()
    )
    header = {
        **asdict(record),
        "rows_size": commit.rows_size,
        "rows_sha256": commit.rows_sha256,
    }
    return json.dumps(header).encode() + b"\n" + rows, commit


def read_commit(root: Path, path: Path) -> UnmergedCommit | None:
    """The commit of a file; None if it vanished, is damaged, or names a file that is not there.

    Then the commit does not count.
    """
    try:
        with path.open("rb") as file:
            header = file.readline()
            content = json.loads(header)
            commit = UnmergedCommit(
                parse_commit(content),
                commit_path(commit_of(path)),
                typed(content["rows_size"], int),
                typed(content["rows_sha256"], str),
            )
            size = os.fstat(file.fileno()).st_size
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    is_named = commit_path(commit.record.id) == commit.path
    is_whole = size == len(header) + commit.rows_size
    is_marked = (root / mark_path(commit.record.id)).exists()
    has_files = all(is_intact(root, file, verify=is_marked) for file in commit.record.files)
    return commit if is_named and is_whole and has_files else None


def read_commit_rows(root: Path, commit: UnmergedCommit) -> dict[str, Columns]:
    """The columns of each table of a commit.

    Raises FileNotFoundError when it was merged or replaced meanwhile, and ValueError, naming the
    file, when it is damaged.
    """
    path = root / commit.path
    with path.open("rb") as file:
        file.readline()
        rows = file.read()
    if hashlib.sha256(rows).hexdigest() != commit.rows_sha256:
        if read_commit(root, path) != commit:
            raise FileNotFoundError(path)
        raise ValueError(f"{path}: damaged: its rows are not what they were")
    return json.loads(rows)


def has_intact_rows(root: Path, commit: UnmergedCommit) -> bool:
    """Whether the rows of a commit have the right hash."""
    try:
        read_commit_rows(root, commit)
    except (OSError, ValueError):
        return False
    return True


def _plain(value: Any) -> Any:
    """A value as JSON has it: a number of NumPy, or a time."""
    return value.isoformat() if isinstance(value, datetime) else value.item()
