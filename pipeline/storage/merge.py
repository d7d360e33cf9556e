"""Merging of the parts of every table into one file, which is also published for readers.

The manifest is written between the merged files and the published ones, and what these replace is
deleted last: readers see all rows once at every instant, and the next merge finishes one that was
killed.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

import pyarrow as pa

from foldcp.pipeline.storage.manifest import (
    MANIFEST,
    CommitRecord,
    Manifest,
    Snapshot,
    commit_path,
    take_snapshot,
    to_json,
)
from foldcp.pipeline.storage.parquet import to_parquet
from foldcp.pipeline.storage.results.protein_pairs import protein_pairs
from foldcp.pipeline.storage.schemas import PAIRS, PROTEIN_PAIRS, TABLES
from foldcp.pipeline.storage.staging import StagedFiles, StagingArea
from foldcp.pipeline.storage.tables import published_rows, read_rows

# A run merges when at least so many commits are unmerged, and half as many as are merged; or when
# there are so many that another would keep its driver from its other work for too long.
MIN_MERGE_COMMITS = 256
MAX_UNMERGED_COMMITS = 1024
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
class MergeChanges:
    """Changes by a merge besides adding the unmerged commits; None leaves a mark as it was.

    `drop` are commits to forget, `updates` records in place of existing ones. `repaired` holds the
    rows of damaged merged files, `unpublished` the tables whose published copy is damaged.
    """

    drop: Collection[str] = ()
    updates: Mapping[str, CommitRecord] = field(default_factory=dict)
    stale: Collection[str] | None = None
    keep_stale: bool | None = None
    current_run: str | None = None
    repaired: Mapping[str, pa.Table] = field(default_factory=dict)
    unpublished: Collection[str] = ()


NO_CHANGES = MergeChanges()


def merge(staging: StagingArea, changes: MergeChanges = NO_CHANGES) -> Manifest:
    """Bring merged and published tables to what counts; returns the marks and commits of now.

    Tables whose rows do not change are not written.
    """
    snapshot = take_snapshot(staging.root, trusted=changes.repaired)
    old = snapshot.manifest
    new = _apply(changes, snapshot)
    changed = _changed_tables(snapshot, changes.drop) | changes.repaired.keys()
    to_publish = changed | set(changes.unpublished) | _tables_shown_differently(old, new)
    if to_publish or new != old:
        _write(staging, snapshot, new, changed, to_publish, changes.repaired)
    return new


def _apply(changes: MergeChanges, snapshot: Snapshot) -> Manifest:
    """The manifest with other commits and marks; its files are still the former ones."""
    old = snapshot.manifest
    records = snapshot.commits | dict(changes.updates)
    commits = {
        commit: replace(record, parts={})
        for commit, record in records.items()
        if commit not in changes.drop
    }
    stale = set(old.stale if changes.stale is None else changes.stale)
    return replace(
        old,
        commits=commits,
        stale=tuple(sorted(commits.keys() & stale)),
        keep_stale=old.keep_stale if changes.keep_stale is None else changes.keep_stale,
        current_run=old.current_run if changes.current_run is None else changes.current_run,
    )


def _write(
    staging: StagingArea,
    snapshot: Snapshot,
    new: Manifest,
    changed: Collection[str],
    to_publish: Collection[str],
    repaired: Mapping[str, pa.Table],
) -> None:
    """Write merged files, the manifest and the published files, and delete what these replace."""
    old = snapshot.manifest
    generation = old.generation + 1
    kept = _without_dropped(snapshot, new)
    merged: StagedFiles = []
    published: StagedFiles = []
    for name in sorted(to_publish):
        table = TABLES[name]
        rows = read_rows(staging.root, kept, table, repaired.get(name))
        if name in changed:
            merged += staging.stage(
                {f"parts/{name}/merged-{generation:06}.parquet": to_parquet(rows)}
            )
        shown = published_rows(rows, table, new)
        published += staging.stage({f"tables/{name}/{name}.parquet": to_parquet(shown)})
        if name == PAIRS.name:
            derived = to_parquet(protein_pairs(shown))
            path = f"tables/{PROTEIN_PAIRS.name}/{PROTEIN_PAIRS.name}.parquet"
            published += staging.stage({path: derived})
    merged_files = zip(sorted(changed), staging.publish(merged), strict=True)
    published_files = {PurePosixPath(file.path).stem: file for file, _ in published}
    manifest = replace(
        new,
        generation=generation,
        tables=old.tables | dict(merged_files),
        published=old.published | published_files,
    )
    staging.install({MANIFEST: to_json(manifest)})
    staging.publish(published)
    parts = [part.path for record in snapshot.unmerged.values() for part in record.parts.values()]
    replaced = [old.tables[name].path for name in changed if name in old.tables]
    staging.remove(commit_path(commit) for commit in snapshot.unmerged)
    staging.remove([*parts, *replaced])


def _without_dropped(snapshot: Snapshot, new: Manifest) -> Snapshot:
    """The snapshot without the commits that the new manifest does not have."""
    unmerged = {commit: r for commit, r in snapshot.unmerged.items() if commit in new.commits}
    merged = {commit: r for commit, r in snapshot.merged.items() if commit in new.commits}
    return Snapshot(unmerged, snapshot.manifest, merged)


def _changed_tables(snapshot: Snapshot, drop: Collection[str]) -> set[str]:
    """Tables whose merged files hold other rows than count: a part is to come in, a commit was
    replaced or is to go, or there is no file yet.
    """
    old = snapshot.manifest
    removed = (old.commits.keys() - snapshot.merged.keys()) | (old.commits.keys() & set(drop))
    records = [*snapshot.unmerged.values(), *(old.commits[commit] for commit in removed)]
    touched = {name for record in records for name in record.rows}
    return touched | (TABLES.keys() - old.tables.keys())


def _tables_shown_differently(old: Manifest, new: Manifest) -> set[str]:
    """Tables that are to show other rows or flags, though the same rows count."""
    names = {"runs"} if old.current_run != new.current_run else set()
    if old.stale != new.stale or (old.keep_stale != new.keep_stale and new.stale):
        names |= {name for name, table in TABLES.items() if table.has("stale")}
    return names
