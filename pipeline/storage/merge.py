"""Merging of commits into groups: a file of each table, which is also published for readers.

The manifest is written between the merged files of a group and the published ones, and what these
replace is deleted last: readers see all rows once at every instant, and the next merge finishes one
that was killed.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa

from foldcp.pipeline.storage.commits.record import CommitRecord, File
from foldcp.pipeline.storage.manifest import (
    MANIFEST,
    Group,
    GroupRecords,
    Manifest,
    columns_hash,
    records_to_json,
    to_json,
)
from foldcp.pipeline.storage.parquet import read_parquet, rows_without_commits, to_parquet
from foldcp.pipeline.storage.schemas import TABLES, Table
from foldcp.pipeline.storage.staging import StagingArea
from foldcp.pipeline.storage.tables import published_rows, sort_rows

# A group is full when it has so many commits (10,000 complexes with one attempt each), or so many
# rows in one of its tables: a merge rewrites one group at a time, and holds it in memory.
GROUP_COMMITS = 20_000
GROUP_ROWS = 131_072
# A run merges when at least so many commits are unmerged, and half as many as are merged; or when
# there are so many that another would keep its driver from its other work for too long.
MIN_MERGE_COMMITS = 256
MAX_UNMERGED_COMMITS = 2048
# It also merges after so many seconds, so that tables are up to date where a complex takes long,
# unless merging would take more than this share of the time.
MERGE_SECONDS = 300.0
MERGE_TIME_SHARE = 0.01


class MergeSchedule:
    """Times at which a run in progress merges."""

    def __init__(self) -> None:
        self._next_time = time.monotonic() + MERGE_SECONDS
        self._is_stopped = False

    def is_due(self, num_unmerged: int, num_merged: int, now: float) -> bool:
        """Whether to merge now."""
        threshold = min(max(MIN_MERGE_COMMITS, num_merged // 2), MAX_UNMERGED_COMMITS)
        return not self._is_stopped and (num_unmerged >= threshold or now >= self._next_time)

    def record(self, started: float, ended: float) -> None:
        """Set the time of the next merge, after one."""
        pause = max(MERGE_SECONDS, (ended - started) / MERGE_TIME_SHARE)
        self._next_time = ended + pause

    def stop(self) -> None:
        """Merge no more while the run is in progress."""
        self._is_stopped = True


@dataclass(frozen=True, slots=True)
class GroupChanges:
    """Changes of a group.

    `incoming` are commits that come in or replace their former version, with their rows of each
    table. `drop` are commits to forget, `updates` records in place of existing ones, `stale` the
    results that are stale now; None leaves them as they were. `repaired` holds the rows of damaged
    merged files, `unpublished` the tables whose published copy is damaged.
    """

    incoming: Mapping[str, CommitRecord] = field(default_factory=dict)
    incoming_rows: Mapping[str, Sequence[pa.Table]] = field(default_factory=dict)
    drop: Collection[str] = ()
    updates: Mapping[str, CommitRecord] = field(default_factory=dict)
    stale: Collection[str] | None = None
    repaired: Mapping[str, pa.Table] = field(default_factory=dict)
    unpublished: Collection[str] = ()


def place_commits(
    groups: Sequence[Group], commits: Iterable[CommitRecord], places: Mapping[str, int]
) -> dict[int, list[str]]:
    """Number of a group -> commits that are to be merged into it: that which has an earlier
    version, else the last one, or a new one once that is full.

    `places` are the groups of commits that have been merged.
    """
    last = max(len(groups) - 1, 0)
    num_commits = groups[last].num_commits if groups else 0
    rows = dict(groups[last].rows) if groups else {}
    placed: dict[int, list[str]] = {}
    for record in commits:
        number = places.get(record.id)
        if number is None:
            if num_commits >= GROUP_COMMITS or max(rows.values(), default=0) >= GROUP_ROWS:
                last += 1
                num_commits = 0
                rows = {}
            number = last
        if number == last:
            num_commits += 1
            for name, count in record.rows.items():
                rows[name] = rows.get(name, 0) + count
        placed.setdefault(number, []).append(record.id)
    return dict(sorted(placed.items()))


def merge_group(
    staging: StagingArea,
    manifest: Manifest,
    number: int,
    old: GroupRecords,
    changes: GroupChanges,
) -> tuple[Manifest, GroupRecords]:
    """Bring the merged and published files of a group to what counts; `old` are its records.

    Returns the manifest, which is written, and the group's records of now. Files whose rows do not
    change are not written.
    """
    group = manifest.groups[number] if number < len(manifest.groups) else None
    new = _apply(changes, old)
    hidden_run = manifest.current_run if manifest.current_run in new.commits else ""
    shown = (new.stale, manifest.keep_stale, hidden_run)
    changed = _changed_tables(group, old, changes)
    to_publish = changed | set(changes.unpublished) | _tables_shown_differently(group, old, shown)
    if not to_publish and new == old:
        return manifest, new
    generation = manifest.generation + 1
    suffix = f"{number:05}-{generation:06}"
    removed = old.commits.keys() & (set(changes.drop) | changes.incoming.keys())
    merged: list[tuple[File, str]] = []
    published: list[tuple[File, str]] = []
    rows = dict(group.rows) if group else {}
    for name in sorted(to_publish):
        table = TABLES[name]
        own = _own_rows(staging.root, group, table, removed, changes)
        copy = published_rows(own, table, *shown)
        content = to_parquet(copy)
        published += staging.stage({published_path(name, number): content})
        if name in changed:
            rows[name] = own.num_rows
            content = content if copy is own else to_parquet(own)
            merged += staging.stage({f"parts/{name}/merged-{suffix}.parquet": content})
    merged += staging.stage({f"parts/records/merged-{suffix}.json": records_to_json(new)})
    *merged_files, records = staging.publish(merged)
    group_now = Group(
        records=records,
        num_commits=len(new.commits),
        num_stale=len(new.stale),
        rows=rows,
        tables=(group.tables if group else {})
        | dict(zip(sorted(changed), merged_files, strict=True)),
        published=(group.published if group else {})
        | {Path(file.path).parent.name: file for file, _ in published},
        columns=columns_hash(),
        keep_stale=manifest.keep_stale,
        hidden_run=hidden_run,
    )
    groups = (*manifest.groups[:number], group_now, *manifest.groups[number + 1 :])
    manifest = replace(manifest, generation=generation, groups=groups)
    staging.install({MANIFEST: to_json(manifest)})
    staging.publish(published)
    staging.remove(_replaced_files(group, changed))
    return manifest, new


def published_path(name: str, number: int) -> str:
    """Path of a group's file of a table for readers, relative to the run's folder."""
    return f"tables/{name}/{name}-{number:05}.parquet"


def _replaced_files(group: Group | None, changed: Collection[str]) -> list[str]:
    """The files of a group that others were written for."""
    if group is None:
        return []
    tables = [group.tables[name].path for name in sorted(changed) if name in group.tables]
    return [*tables, group.records.path]


def _apply(changes: GroupChanges, old: GroupRecords) -> GroupRecords:
    """The records of a group after changes."""
    records = old.commits | dict(changes.updates) | dict(changes.incoming)
    commits = {name: record for name, record in records.items() if name not in changes.drop}
    stale = old.stale if changes.stale is None else frozenset(changes.stale)
    return GroupRecords(commits, stale & commits.keys())


def _own_rows(
    root: Path,
    group: Group | None,
    table: Table,
    removed: Collection[str],
    changes: GroupChanges,
) -> pa.Table:
    """The rows of a table of everything in a group, stale or not, sorted."""
    incoming = changes.incoming_rows.get(table.name, ())
    rows = changes.repaired.get(table.name)
    if rows is None and group and table.name in group.tables:
        rows = read_parquet(root / group.tables[table.name].path, table)
    if rows is None:
        return sort_rows(incoming, table)
    rows = rows_without_commits(rows, table, removed)
    return sort_rows([rows, *incoming], table)


def _changed_tables(group: Group | None, old: GroupRecords, changes: GroupChanges) -> set[str]:
    """Tables whose merged file holds other rows than count: a commit is to come in or to go, the
    file lacks columns, or there is none.
    """
    if group is None or group.columns != columns_hash():
        return set(TABLES)
    removed = old.commits.keys() & (set(changes.drop) | changes.incoming.keys())
    records = [*changes.incoming.values(), *(old.commits[commit] for commit in removed)]
    touched = {name for record in records for name in record.rows}
    return touched | changes.repaired.keys() | (TABLES.keys() - group.tables.keys())


def _tables_shown_differently(
    group: Group | None, old: GroupRecords, shown: tuple[Collection[str], bool, str]
) -> set[str]:
    """Tables that are to show other rows or flags, though the same rows count."""
    if group is None:
        return set()
    stale, keep_stale, hidden_run = shown
    names = {"runs"} if group.hidden_run != hidden_run else set()
    if old.stale != stale or (group.keep_stale != keep_stale and stale):
        names |= {name for name, table in TABLES.items() if table.has("stale")}
    return names
