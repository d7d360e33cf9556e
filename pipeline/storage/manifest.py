"""Groups of merged commits and the manifest: which files of a run's folder belong to finished work.

    commits/<id>.jsonl  commits that are not merged yet: their records and rows
    parts/records/…     the records of the commits of one group, and which of them are stale
    manifest.json       the groups, with their files

A group holds some thousands of commits, in one file of each table. A commit never moves to another
group: so the tables' files, of which each is replaced by one rename, hold each row once in any
order in which they are read.

A commit that is not merged counts when every file it names is there with its size; a merged one
when every file of its group that holds rows of it is. Where a commit is in both, its own file goes
before the group. While the files of a commit are replaced, and after a kill in the midst of that,
it counts only if they have the right SHA-256. So a folder can be read at any moment, also between
the steps of a merge. The files that a merged commit names are looked at when a run begins.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from foldcp.pipeline.storage.commits.commit_file import (
    COMMITS,
    MARK_SUFFIX,
    SUFFIX,
    UnmergedCommit,
    commit_of,
    read_commits,
)
from foldcp.pipeline.storage.commits.record import (
    CommitRecord,
    File,
    as_fields,
    is_intact,
    known_table,
    parse_commit,
    parse_file,
    parse_files,
    typed,
)
from foldcp.pipeline.storage.schemas import PAIRS, TABLES

MANIFEST = "manifest.json"
READ_RETRIES = 20  # while merges change the folder
DAMAGE = "damaged: not what foldcp writes; delete it to compute again what it lists"


@dataclass(frozen=True, slots=True)
class GroupRecords:
    """The commits of a group by id, and which of them are results of an earlier input or of other
    settings.
    """

    commits: dict[str, CommitRecord] = field(default_factory=dict)
    stale: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Group:
    """Merged commits: a file of each table, a copy of it for readers, and a file of records.

    `rows` counts those of each table, `columns` is a hash of the tables' columns. The copies show
    stale rows if `keep_stale`, and not the run `hidden_run`, which was in progress.
    """

    records: File
    num_commits: int
    num_stale: int
    rows: dict[str, int]
    tables: dict[str, File]
    published: dict[str, File]
    columns: str
    keep_stale: bool
    hidden_run: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """All groups, and the tables that are derived from theirs.

    `derived_from` is a hash of what these were made of, `derived_rows` the number of rows of that.
    `keep_stale` says whether tables show stale rows; `current_run` is the run in progress, which
    published tables do not show yet.
    """

    generation: int = 0
    groups: tuple[Group, ...] = ()
    derived: dict[str, File] = field(default_factory=dict)
    derived_from: str = ""
    derived_rows: int = 0
    keep_stale: bool = False
    current_run: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The commits that are not merged, and the groups, of a folder at one moment.

    `replaced` are the commits whose files are being replaced.
    """

    unmerged: dict[str, UnmergedCommit]
    manifest: Manifest
    replaced: frozenset[str] = frozenset()


def take_snapshot(root: Path) -> Snapshot:
    """Look at the folder. Raises ValueError when the manifest is damaged.

    Commit files are read before the manifest, as a merge writes the manifest before it deletes
    them: what vanishes from the first is in the second.
    """
    for _ in range(READ_RETRIES):
        before = _file_version(root / MANIFEST)
        # The marks first: once one is gone, the commit that has its files is there.
        marks = (root / COMMITS).glob(f"*{MARK_SUFFIX}")
        replaced = frozenset(map(commit_of, marks))
        snapshot = Snapshot(read_unmerged(root), read_manifest(root), replaced)
        if _file_version(root / MANIFEST) == before:
            return snapshot
    raise ValueError(f"{root}: changes faster than it can be read")


def read_unmerged(root: Path) -> dict[str, UnmergedCommit]:
    """The commits that are not merged and count."""
    paths = sorted((root / COMMITS).glob(f"*{SUFFIX}"))
    return {commit.record.id: commit for path in paths for commit in read_commits(root, path)}


def is_superseded(root: Path, snapshot: Snapshot) -> bool:
    """Whether a merge has deleted files of a snapshot: what was read of it may lack rows."""
    files = [
        file
        for group in snapshot.manifest.groups
        for file in (group.records, *group.tables.values())
    ]
    is_whole = all((root / file.path).exists() for file in files)
    return not is_whole and read_manifest(root) != snapshot.manifest


def missing_tables(root: Path, group: Group) -> set[str]:
    """Tables of which the group has no file with the right size."""
    return {name for name, file in group.tables.items() if not is_intact(root, file)}


def read_records(root: Path, group: Group) -> GroupRecords:
    """The records of a group; none when their file is gone.

    Raises ValueError, naming the file, when it is damaged.
    """
    path = root / group.records.path
    check_records(root, group)
    try:
        content = json.loads(path.read_bytes())
        commits = {name: parse_commit(record) for name, record in content["commits"].items()}
        return GroupRecords(commits, frozenset(content["stale"]))
    except FileNotFoundError:
        return GroupRecords()
    except (TypeError, KeyError, AttributeError, ValueError, OSError):
        raise ValueError(f"{path}: {DAMAGE}") from None


def check_records(root: Path, group: Group) -> None:
    """Raise ValueError, naming the file, when the records of a group are there but damaged."""
    path = root / group.records.path
    if path.exists() and not is_intact(root, group.records, verify=True):
        raise ValueError(f"{path}: {DAMAGE}")


def records_to_json(records: GroupRecords) -> bytes:
    """The records of a group as the bytes of their file."""
    content = {
        "commits": dict(sorted(records.commits.items())),
        "stale": sorted(records.stale),
    }
    return json.dumps(content, separators=(",", ":"), default=as_fields).encode()


def columns_hash() -> str:
    """A hash of the columns of all tables: groups that an earlier version wrote lack some."""
    columns = [(table.name, column.name) for table in TABLES.values() for column in table.columns]
    return hashlib.sha256(repr(columns).encode()).hexdigest()[:16]


def pairs_hash(manifest: Manifest) -> str:
    """A hash of the published pairs of all groups, of which tables are derived."""
    files = [group.published[PAIRS.name].sha256 for group in manifest.groups]
    return hashlib.sha256("".join(files).encode()).hexdigest()


def to_json(manifest: Manifest) -> bytes:
    """The manifest as the bytes of its file."""
    return json.dumps(asdict(manifest), indent=1, sort_keys=True).encode()


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
            generation=typed(content["generation"], int),
            groups=tuple(map(_parse_group, content["groups"])),
            derived=parse_files(content["derived"]),
            derived_from=typed(content["derived_from"], str),
            derived_rows=typed(content["derived_rows"], int),
            keep_stale=typed(content["keep_stale"], bool),
            current_run=typed(content["current_run"], str),
        )
    except (TypeError, KeyError, AttributeError, ValueError):
        raise ValueError(f"{path}: {DAMAGE}") from None


def _parse_group(content: dict[str, Any]) -> Group:
    return Group(
        records=parse_file(content["records"]),
        num_commits=typed(content["num_commits"], int),
        num_stale=typed(content["num_stale"], int),
        rows={known_table(name): typed(count, int) for name, count in content["rows"].items()},
        tables=parse_files(content["tables"]),
        published=parse_files(content["published"]),
        columns=typed(content["columns"], str),
        keep_stale=typed(content["keep_stale"], bool),
        hidden_run=typed(content["hidden_run"], str),
    )


def _file_version(path: Path) -> tuple[int, ...]:
    """Values that change whenever a file is replaced; empty when there is none."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns
