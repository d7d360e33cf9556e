"""Runs that are to be merged: what counts in each of their folders, a part in memory at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from foldcp.pipeline.storage.commits.record import CommitRecord, find_lost_files
from foldcp.pipeline.storage.manifest import (
    Group,
    Snapshot,
    missing_tables,
    read_records,
    take_snapshot,
)
from foldcp.pipeline.storage.parquet import read_parquet, rows_of_commits
from foldcp.pipeline.storage.run_folder import read_run
from foldcp.pipeline.storage.schemas import TABLES
from foldcp.pipeline.storage.tables import unmerged_rows

BATCH_COMMITS = 2_048  # with a file of their own, that are read together


@dataclass(frozen=True, slots=True)
class Source:
    """A run's folder that nobody writes to; `run` is the content of its run.json."""

    root: Path
    run: dict[str, Any]
    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class Part:
    """Commits of a run whose rows are read together: those of a group, or some with files of their
    own. Stale results, and those that have lost rows or files, are not among them; `num_lost`
    counts the latter.
    """

    source: Source
    records: dict[str, CommitRecord]
    group: Group | None = None
    num_lost: int = 0

    def rows(self, commits: Collection[str]) -> dict[str, list[pa.Table]]:
        """The rows of some of the commits in each table.

        Raises ValueError naming a file that is damaged.
        """
        root = self.source.root
        if self.group is None:
            unmerged = [self.source.snapshot.unmerged[commit] for commit in commits]
            return unmerged_rows(root, unmerged, list(TABLES.values()))
        found: dict[str, list[pa.Table]] = {}
        for name in {name for commit in commits for name in self.records[commit].rows}:
            table = TABLES[name]
            rows = read_parquet(root / self.group.tables[name].path, table)
            found[name] = [rows_of_commits(rows, table, commits)]
        return found


def open_source(root: Path) -> Source:
    """The run in a folder. Raises ValueError for any other folder, format, or a damaged one."""
    return Source(root, read_run(root), take_snapshot(root))


def parts_of(source: Source) -> Iterator[Part]:
    """All that counts in a run's folder."""
    for group in source.snapshot.manifest.groups:
        yield _group_part(source, group)
    unmerged = list(source.snapshot.unmerged.items())
    for start in range(0, len(unmerged), BATCH_COMMITS):
        batch = unmerged[start : start + BATCH_COMMITS]
        yield Part(source, {name: commit.record for name, commit in batch})


def _group_part(source: Source, group: Group) -> Part:
    root = source.root
    records = read_records(root, group)
    if len(records.commits) < group.num_commits:
        raise ValueError(f"{root / group.records.path}: missing; resume that run, which repairs it")
    missing = missing_tables(root, group)
    known = {
        name: record
        for name, record in records.commits.items()
        if name not in source.snapshot.unmerged and name not in records.stale
    }
    lost = find_lost_files(root, known, source.snapshot.replaced)
    lost |= {name for name, record in known.items() if missing & record.rows.keys()}
    whole = {name: record for name, record in known.items() if name not in lost}
    return Part(source, whole, group, len(lost))
