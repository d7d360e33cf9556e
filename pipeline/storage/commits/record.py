"""Records of commits: what was finished, and the files that belong to it."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from foldcp.files import file_sha256
from foldcp.pipeline.config import WriteConfig, checked
from foldcp.pipeline.storage.schemas import ALL_TABLES

T = TypeVar("T")
LOST = "lost"  # outcome of a result that has lost files or rows, of which only the record is left


@dataclass(frozen=True, slots=True)
class File:
    """A file of the run: path relative to the folder, size in bytes, SHA-256 in hexadecimal."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class CommitRecord:
    """A unit of work that is complete: the result of a complex, an attempt or a run.

    `kind` is complex, attempt or run. `rows` counts its rows in each table. `name` and
    `settings_hash` are those of a complex. `released` are files of a stale result which the result
    in its place may overwrite. `write` holds the settings with which the files of a complex that is
    done were made; of one that is not, those of its earlier result, which is lost.
    """

    id: str
    kind: str
    outcome: str
    name: str = ""
    settings_hash: str = ""
    rows: dict[str, int] = field(default_factory=dict)
    files: tuple[File, ...] = ()
    released: tuple[File, ...] = ()
    write: dict[str, Any] = field(default_factory=dict)


def as_fields(record: CommitRecord | File) -> dict[str, Any]:
    """The fields of a record or a file, not copied: `asdict` takes most of the time of a merge."""
    return {field.name: getattr(record, field.name) for field in fields(record)}


def describe(path: str, content_at: Path) -> File:
    """The record of a file that will be called `path` and lies at `content_at` now."""
    return File(path, content_at.stat().st_size, file_sha256(content_at))


def is_intact(root: Path, file: File, verify: bool = False) -> bool:
    """Whether a file is there with its size and, with `verify`, its SHA-256."""
    path = root / file.path
    try:
        return path.stat().st_size == file.size and (not verify or file_sha256(path) == file.sha256)
    except OSError:  # it is not there, or the disk does not give it back
        return False


def find_lost_files(
    root: Path, commits: Mapping[str, CommitRecord], suspects: Collection[str]
) -> set[str]:
    """The commits of which a structure or another file is not there with its size; of `suspects`,
    with its SHA-256.
    """
    return {
        commit
        for commit, record in commits.items()
        if not all(is_intact(root, file, verify=commit in suspects) for file in record.files)
    }


def parse_commit(content: dict[str, Any]) -> CommitRecord:
    """A record from its JSON; raises TypeError, KeyError or AttributeError for anything else."""
    return CommitRecord(
        id=typed(content["id"], str),
        kind=sys.intern(typed(content["kind"], str)),
        outcome=sys.intern(typed(content["outcome"], str)),
        name=typed(content["name"], str),
        settings_hash=sys.intern(typed(content["settings_hash"], str)),
        rows={known_table(name): typed(count, int) for name, count in content["rows"].items()},
        files=tuple(map(parse_file, content["files"])),
        released=tuple(map(parse_file, content["released"])),
        write=_parse_write(content["write"]),
    )


def _parse_write(content: dict[str, Any]) -> dict[str, Any]:
    """Settings of `write`."""
    if not content:
        return {}
    hints = _write_hints()
    return {name: checked(content[name], hint, "write") for name, hint in hints.items()}


@cache
def _write_hints() -> dict[str, Any]:
    """Type of each setting of `write`."""
    hints = get_type_hints(WriteConfig)
    return {setting.name: hints[setting.name] for setting in fields(WriteConfig)}


def parse_files(content: dict[str, Any]) -> dict[str, File]:
    """One file of each table."""
    return {known_table(name): parse_file(file) for name, file in content.items()}


def parse_file(content: dict[str, Any]) -> File:
    """A file from its JSON."""
    return File(
        path=typed(content["path"], str),
        size=typed(content["size"], int),
        sha256=typed(content["sha256"], str),
    )


def known_table(name: str) -> str:
    """The name of a table; raises KeyError for any other."""
    if name not in ALL_TABLES:
        raise KeyError(name)
    return sys.intern(name)


def typed(value: Any, kind: type[T]) -> T:
    """A value of JSON that is of this type; raises TypeError for any other."""
    if type(value) is not kind:
        raise TypeError(value)
    return value
