"""Repair of damaged merged files, from the other copy of a table or from intact pages."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from foldcp.pipeline.storage.commits.commit_file import COMMITS
from foldcp.pipeline.storage.commits.record import is_intact
from foldcp.pipeline.storage.manifest import Group, GroupRecords, Manifest
from foldcp.pipeline.storage.parquet import (
    arrow_schema,
    read_intact_groups,
    read_parquet,
    rows_of_commits,
)
from foldcp.pipeline.storage.schemas import TABLES, Table
from foldcp.pipeline.storage.tables import replace_column


@dataclass(slots=True)
class Damage:
    """Damage to the files of a group, found by their hashes.

    `repaired` holds the rows that were saved of each damaged table, `lost` the commits of which
    rows are gone, `unpublished` the tables whose copy in tables/ is not what it should be;
    `messages` name each damaged file.
    """

    repaired: dict[str, pa.Table] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    unpublished: set[str] = field(default_factory=set)
    messages: list[str] = field(default_factory=list)


def find_damage(root: Path, group: Group, records: GroupRecords) -> Damage:
    """Read every file of a group to its end."""
    damage = Damage()
    if len(records.commits) < group.num_commits:
        damage.repaired = {name: arrow_schema(TABLES[name]).empty_table() for name in group.tables}
        damage.unpublished = set(group.tables)
        damage.messages.append(
            f"{root / group.records.path}: missing; the {group.num_commits} results and attempts "
            "that it lists are lost"
        )
        return damage
    for name, file in group.tables.items():
        published = group.published.get(name)
        if published is None or not is_intact(root, published, verify=True):
            damage.unpublished.add(name)
        if not is_intact(root, file, verify=True):
            _save_rows(root, TABLES[name], group, records, damage)
    return damage


def find_leftovers(root: Path, kept: Collection[str], manifest: Manifest) -> list[str]:
    """Paths of what a killed writer left: files of commits other than `kept`, and merged files that
    the manifest does not name. Published ones are among these only where a manifest was deleted.
    """
    known = set(kept)
    for group in manifest.groups:
        files = [group.records, *group.tables.values(), *group.published.values()]
        known |= {file.path for file in files}
    patterns = [f"{COMMITS}/*", "parts/records/*.json"]
    patterns += [f"parts/{name}/*.parquet" for name in TABLES]
    patterns += [f"tables/{name}/{name}-*.parquet" for name in TABLES]
    found = {
        path.relative_to(root).as_posix() for pattern in patterns for path in root.glob(pattern)
    }
    return sorted(found - known)


def _save_rows(
    root: Path, table: Table, group: Group, records: GroupRecords, damage: Damage
) -> None:
    """Collect the rows of the commits all of whose rows can still be read."""
    expected = {
        commit: record.rows[table.name]
        for commit, record in records.commits.items()
        if table.name in record.rows
    }
    path = root / group.tables[table.name].path
    copies = [read_intact_groups(path, table)]
    if table.name not in damage.unpublished:
        copies.insert(0, _read_published(root, table, group))
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


def _read_published(root: Path, table: Table, group: Group) -> pa.Table:
    """The rows of the published copy as they were before some were marked as stale."""
    rows = read_parquet(root / group.published[table.name].path, table)
    if not table.has("stale"):
        return rows
    return replace_column(rows, "stale", pa.repeat(pa.scalar(False), rows.num_rows))


def _complete_commits(rows: pa.Table, table: Table, expected: Mapping[str, int]) -> set[str]:
    """The commits that have as many rows as they should."""
    column = table.commit_column
    counts = rows.group_by(column).aggregate([([], "count_all")]).to_pylist()
    return {row[column] for row in counts if expected.get(row[column]) == row["count_all"]}
