"""Files of commits that are not merged yet: two lines of JSON for each commit.

{"id": …, "kind": …, "rows_size": bytes of the next line, "rows_sha256": …}
{<table>: {<column>: [values]}}

A complex and a run have a file of their own; attempts that have ended at the same time share one,
which is called after the first.

While the files of a result are replaced in place, a mark says so: commits/<id>.replacing. As long
as it is there, the earlier version counts only if the SHA-256 of each of its files is right.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
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
    """A commit that is not merged: its record, its file, and where its rows are in the file."""

    record: CommitRecord
    path: str
    rows_start: int
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
    rows_sha256 = hashlib.sha256(rows).hexdigest()
    fields = {**asdict(record), "rows_size": len(rows), "rows_sha256": rows_sha256}
    header = json.dumps(fields).encode() + b"\n"
    path = commit_path(record.id)
    return header + rows, UnmergedCommit(record, path, len(header), len(rows), rows_sha256)


def join(
    parts: Sequence[tuple[bytes, UnmergedCommit]],
) -> tuple[bytes, list[UnmergedCommit]]:
    """The content of a file that several commits share, from those of a file of each."""
    _, first = parts[0]
    commits = []
    start = 0
    for content, commit in parts:
        commits.append(replace(commit, path=first.path, rows_start=start + commit.rows_start))
        start += len(content) + 1
    return b"\n".join(content for content, _ in parts), commits


def read_commits(root: Path, path: Path) -> list[UnmergedCommit]:
    """The commits of a file that count: not one that names a file that is not there.

    None of a file that vanished or is damaged.
    """
    commits: list[UnmergedCommit] = []
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            while header := file.readline():
                commit = _parse_header(header, commit_path(commit_of(path)), file.tell())
                if not 0 <= commit.rows_size <= size - commit.rows_start:
                    return []
                commits.append(commit)
                file.seek(commit.rows_start + commit.rows_size + 1)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return []
    if not commits or commit_path(commits[0].record.id) != commits[0].path:
        return []
    return [commit for commit in commits if _has_files(root, commit.record)]


def _parse_header(header: bytes, path: str, rows_start: int) -> UnmergedCommit:
    """A commit from its first line; raises what `parse_commit` does, or ValueError."""
    content = json.loads(header)
    return UnmergedCommit(
        parse_commit(content),
        path,
        rows_start,
        typed(content["rows_size"], int),
        typed(content["rows_sha256"], str),
    )


def _has_files(root: Path, record: CommitRecord) -> bool:
    """Whether the files that a commit names are there, and none is being replaced."""
    is_marked = (root / mark_path(record.id)).exists()
    return all(is_intact(root, file, verify=is_marked) for file in record.files)


def read_commit_rows(root: Path, commit: UnmergedCommit) -> dict[str, Columns]:
    """The columns of each table of a commit.

    Raises FileNotFoundError when it was merged or replaced meanwhile, and ValueError, naming the
    file, when it is damaged.
    """
    path = root / commit.path
    with path.open("rb") as file:
        file.seek(commit.rows_start)
        rows = file.read(commit.rows_size)
    if hashlib.sha256(rows).hexdigest() != commit.rows_sha256:
        if commit not in read_commits(root, path):
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
