"""Repair of damaged merged files, from the other copy of a table or from intact pages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from foldcp.pipeline.storage.manifest import (
    COMMITS,
    CommitRecord,
    Manifest,
    Snapshot,
    commit_path,
    is_intact,
    read_manifest,
)
from foldcp.pipeline.storage.parquet import (
    read_intact_groups,
    read_parquet,
    rows_of_commits,
)
from foldcp.pipeline.storage.run_folder import TEMPORARY
from foldcp.pipeline.storage.schemas import PAIRS, PROTEIN_PAIRS, TABLES, Table
from foldcp.pipeline.storage.tables import replace_column


@dataclass(slots=True)
class Damage:
    """Damage to the merged files of a folder, found by their hashes.

    `repaired` holds the rows that were saved of each damaged table, `lost` the commits of which
    rows are gone, `unpublished` the tables whose copy in tables/ is not what it should be;
    `messages` name each damaged file.
    """

    repaired: dict[str, pa.Table] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    unpublished: set[str] = field(default_factory=set)
    messages: list[str] = field(default_factory=list)


def find_damage(root: Path) -> Damage:
    """Read every merged file to its end. Raises ValueError when the manifest is damaged."""
    manifest = read_manifest(root)
    damage = Damage()
    for name, file in manifest.tables.items():
        published = manifest.published.get(name)
        if published is None or not is_intact(root, published, verify=True):
            damage.unpublished.add(name)
        if not is_intact(root, file, verify=True):
            _save_rows(root, TABLES[name], manifest, damage)
    derived = manifest.published.get(PROTEIN_PAIRS.name)
    if derived is None or not is_intact(root, derived, verify=True):
        damage.unpublished.add(PAIRS.name)  # with which it is published
    return damage


def intact_unmerged(root: Path, snapshot: Snapshot) -> dict[str, CommitRecord]:
    """The unmerged commits all of whose parts have the right hashes."""
    return {
        commit: record
        for commit, record in snapshot.unmerged.items()
        if all(is_intact(root, part, verify=True) for part in record.parts.values())
    }


def find_leftovers(
    root: Path, unmerged: Mapping[str, CommitRecord], manifest: Manifest
) -> list[str]:
    """Paths of what a killed writer left: temporary files, parts that belong to no commit and
    merged files that the manifest does not name, records of other commits than `unmerged`.
    """
    parts = [part for record in unmerged.values() for part in record.parts.values()]
    kept = {file.path for file in (*parts, *manifest.tables.values())}
    kept |= {commit_path(commit) for commit in unmerged}
    patterns = [f"{TEMPORARY}/*", f"{COMMITS}/*.json"]
    patterns += [f"parts/{name}/*.parquet" for name in TABLES]
    found = {
        path.relative_to(root).as_posix() for pattern in patterns for path in root.glob(pattern)
    }
    return sorted(found - kept)


def _save_rows(root: Path, table: Table, manifest: Manifest, damage: Damage) -> None:
    """Collect the rows of the commits all of whose rows can still be read."""
    expected = {
        commit: record.rows[table.name]
        for commit, record in manifest.commits.items()
        if table.name in record.rows
    }
    path = root / manifest.tables[table.name].path
    copies = [read_intact_groups(path, table)]
    if table.name not in damage.unpublished:
        copies.insert(0, _read_published(root, table, manifest))
    saved = []
    missing = dict(expected)
    for rows in copies:
        complete = _complete_commits(rows, table, missing)
        saved.append(rows_of_commits(rows, table, complete))
        missing = {commit: count for commit, count in missing.items() if commit not in complete}
    damage.repaired[table.name] = pa.concat_tables(saved)
    damage.lost |= missing.keys()
    damage.messages.append(f"{path}: damaged; {_consequence(table, len(missing), len(expected))}")


def _consequence(table: Table, num_lost: int, num_all: int) -> str:
    if not num_lost:
        return "all of its rows were restored"
    if table.name in ("attempts", "runs"):
        return f"{num_lost} of its {num_all} rows are lost"
    return f"{num_lost} of {num_all} results are lost and computed again"


def _read_published(root: Path, table: Table, manifest: Manifest) -> pa.Table:
    """The rows of the published copy as they were before some were marked as stale."""
    rows = read_parquet(root / manifest.published[table.name].path, table)
    if not table.has("stale"):
        return rows
    return replace_column(rows, "stale", pa.repeat(pa.scalar(False), rows.num_rows))


def _complete_commits(rows: pa.Table, table: Table, expected: Mapping[str, int]) -> list[str]:
    """The commits that have as many rows as they should."""
    column = table.commit_column
    counts = rows.group_by(column).aggregate([([], "count_all")]).to_pylist()
    return [row[column] for row in counts if expected.get(row[column]) == row["count_all"]]
