"""Commit records and the manifest: which files of a run's folder belong to finished work.

    commits/<id>.json   one commit: its part of each table and its other files, with their sizes
                        and SHA-256
    manifest.json       the merged tables, the commits whose rows are in them, and which of these
                        are stale

A commit counts when every file it names is there with its size, and so is every merged table that
holds rows of it; where a commit is in both, its record goes before the manifest. So a folder can be
read at any moment, also between the steps of a merge.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from foldcp.files import file_sha256
from foldcp.pipeline.config import WriteConfig, checked
from foldcp.pipeline.storage.schemas import ALL_TABLES

COMMITS = "commits"
MANIFEST = "manifest.json"
T = TypeVar("T")
READ_RETRIES = 20  # while merges change the folder


@dataclass(frozen=True, slots=True)
class File:
    """A file of the run: path relative to the folder, size in bytes, SHA-256 in hexadecimal."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class CommitRecord:
    """A unit of work that is complete: the result of a complex, an attempt or a run.

    `kind` is complex, attempt or run. `rows` counts its rows in each table, `parts` holds its part
    of each until it is merged. `name` and `settings_hash` are those of a complex. `released` are
    files of a stale result which the result in its place may overwrite. `write` holds the settings
    with which the files of a complex that is done were made.
    """

    id: str
    kind: str
    outcome: str
    name: str = ""
    settings_hash: str = ""
    rows: dict[str, int] = field(default_factory=dict)
    parts: dict[str, File] = field(default_factory=dict)
    files: tuple[File, ...] = ()
    released: tuple[File, ...] = ()
    write: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The merged tables, their published copies, and the commits in them, without their parts.

    `stale` are results of an earlier input or of other settings; `keep_stale` says whether the
    tables show them. `current_run` is the run in progress, which published tables do not show yet.
    """

    generation: int = 0
    tables: dict[str, File] = field(default_factory=dict)
    published: dict[str, File] = field(default_factory=dict)
    commits: dict[str, CommitRecord] = field(default_factory=dict)
    stale: tuple[str, ...] = ()
    keep_stale: bool = False
    current_run: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The commits that count in a folder at one moment.

    `unmerged` are the commits with a record of their own, `merged` those whose rows are to be read
    from the merged tables.
    """

    unmerged: dict[str, CommitRecord]
    manifest: Manifest
    merged: dict[str, CommitRecord]

    @property
    def commits(self) -> dict[str, CommitRecord]:
        """Every commit that counts."""
        return self.merged | self.unmerged


def take_snapshot(root: Path, trusted: Collection[str] = ()) -> Snapshot:
    """Look at the folder; the merged files of `trusted` tables are not looked at.

    Raises ValueError when the manifest is damaged.
    """
    for _ in range(READ_RETRIES):
        before = _file_version(root / MANIFEST)
        snapshot = _look(root, trusted)
        if _file_version(root / MANIFEST) == before:
            return snapshot
    raise ValueError(f"{root}: changes faster than it can be read")


def _look(root: Path, trusted: Collection[str]) -> Snapshot:
    """A snapshot, unless the manifest is replaced meanwhile.

    Commit records are read before the manifest, as a merge writes the manifest before it deletes
    records: what vanishes from the first is in the second.
    """
    unmerged = {}
    for path in sorted((root / COMMITS).glob("*.json")):
        record = _read_commit(path)
        if record and all(is_intact(root, f) for f in (*record.parts.values(), *record.files)):
            unmerged[record.id] = record
    manifest = read_manifest(root)
    intact_tables = {
        name for name, file in manifest.tables.items() if name in trusted or is_intact(root, file)
    }
    merged = {
        commit: record
        for commit, record in manifest.commits.items()
        if commit not in unmerged
        and record.rows.keys() <= intact_tables
        and all(is_intact(root, file) for file in record.files)
    }
    return Snapshot(unmerged, manifest, merged)


def describe(path: str, content_at: Path) -> File:
    """The record of a file that will be called `path` and lies at `content_at` now."""
    return File(path, content_at.stat().st_size, file_sha256(content_at))


def commit_path(commit: str) -> str:
    """Path of a commit's record, relative to the run's folder."""
    return f"{COMMITS}/{commit}.json"


def to_json(content: CommitRecord | Manifest) -> bytes:
    """A commit record or a manifest as the bytes of its file."""
    return json.dumps(asdict(content), indent=1, sort_keys=True).encode()


def read_manifest(root: Path) -> Manifest:
    """The manifest of a folder, empty before the first merge.

    Raises ValueError, naming the file, when it is damaged.
    """
    path = root / MANIFEST
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return Manifest()
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path}: damaged ({type(error).__name__}); delete it to compute again what it lists"
        ) from None
    try:
        return Manifest(
            generation=_typed(content["generation"], int),
            tables=_parse_files(content["tables"]),
            published=_parse_files(content["published"]),
            commits={name: _parse_commit(record) for name, record in content["commits"].items()},
            stale=tuple(_typed(commit, str) for commit in content["stale"]),
            keep_stale=_typed(content["keep_stale"], bool),
            current_run=_typed(content["current_run"], str),
        )
    except (TypeError, KeyError, AttributeError, ValueError):
        raise ValueError(
            f"{path}: damaged: not what foldcp writes; delete it to compute again what it lists"
        ) from None


def is_intact(root: Path, file: File, verify: bool = False) -> bool:
    """Whether a file is there with its size and, with `verify`, its SHA-256."""
    path = root / file.path
    try:
        return path.stat().st_size == file.size and (not verify or file_sha256(path) == file.sha256)
    except OSError:  # it is not there, or the disk does not give it back
        return False


def _read_commit(path: Path) -> CommitRecord | None:
    """None if the record vanished or is damaged: then the commit does not count."""
    try:
        record = _parse_commit(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return record if record.id == path.stem else None


def _parse_commit(content: dict[str, Any]) -> CommitRecord:
    return CommitRecord(
        id=_typed(content["id"], str),
        kind=_typed(content["kind"], str),
        outcome=_typed(content["outcome"], str),
        name=_typed(content["name"], str),
        settings_hash=_typed(content["settings_hash"], str),
        rows={_known_table(name): _typed(count, int) for name, count in content["rows"].items()},
        parts=_parse_files(content["parts"]),
        files=tuple(map(_parse_file, content["files"])),
        released=tuple(map(_parse_file, content["released"])),
        write=_parse_write(content["write"]),
    )


def _parse_write(content: dict[str, Any]) -> dict[str, Any]:
    """Settings of `write`."""
    if not content:
        return {}
    hints = get_type_hints(WriteConfig)
    return {
        setting.name: checked(content[setting.name], hints[setting.name], "write")
        for setting in fields(WriteConfig)
    }


def _parse_files(content: dict[str, Any]) -> dict[str, File]:
    """One file of each table."""
    return {_known_table(name): _parse_file(file) for name, file in content.items()}


def _known_table(name: str) -> str:
    if name not in ALL_TABLES:
        raise KeyError(name)
    return name


def _parse_file(content: dict[str, Any]) -> File:
    return File(
        path=_typed(content["path"], str),
        size=_typed(content["size"], int),
        sha256=_typed(content["sha256"], str),
    )


def _typed(value: Any, kind: type[T]) -> T:
    if type(value) is not kind:
        raise TypeError(value)
    return value


def _file_version(path: Path) -> tuple[int, ...]:
    """Values that change whenever a file is replaced; empty when there is none."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns
