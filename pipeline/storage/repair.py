"""Damage to a run's merged files, and what can be kept: the other copy of a table, or its intact
pages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from foldcp.pipeline.storage.manifest import Manifest, is_intact, read_manifest
from foldcp.pipeline.storage.parquet import read_intact_groups, read_parquet, rows_of_units
from foldcp.pipeline.storage.schemas import TABLES, Table


@dataclass(slots=True)
class Damage:
    """What is wrong with the merged files of a folder, found by their hashes.

    `repaired` holds the rows that were saved of each damaged table, `lost` the pieces of work of
    which rows are gone, `unpublished` the tables whose copy in tables/ is not what it should be;
    `messages` name each damaged file.
    """

    repaired: dict[str, pa.Table] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    unpublished: set[str] = field(default_factory=set)
    messages: list[str] = field(default_factory=list)


def find_damage(root: Path) -> Damage:
    """Look at every merged file, read to its end. Raises ValueError when the manifest is
    damaged.
    """
    manifest = read_manifest(root)
    damage = Damage()
    for name, file in manifest.tables.items():
        published = manifest.published.get(name)
        if published is None or not is_intact(root, published, verify=True):
            damage.unpublished.add(name)
        if not is_intact(root, file, verify=True):
            _save_rows(root, TABLES[name], manifest, damage)
    return damage


def _save_rows(root: Path, table: Table, manifest: Manifest, damage: Damage) -> None:
    """Collect the pieces of work all of whose rows can still be read."""
    expected = {
        unit: receipt.rows[table.name]
        for unit, receipt in manifest.units.items()
        if table.name in receipt.rows
    }
    path = root / manifest.tables[table.name].path
    copies = [read_intact_groups(path, table)]
    if table.name not in damage.unpublished:
        copies.insert(0, _read_published(root, table, manifest))
    saved = []
    missing = dict(expected)
    for rows in copies:
        whole = _whole_units(rows, table, missing)
        saved.append(rows_of_units(rows, table, whole))
        missing = {unit: count for unit, count in missing.items() if unit not in whole}
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
    if "stale" not in rows.schema.names:
        return rows
    place = rows.schema.names.index("stale")
    return rows.set_column(
        place, rows.schema.field(place), pa.repeat(pa.scalar(False), rows.num_rows)
    )


def _whole_units(rows: pa.Table, table: Table, expected: Mapping[str, int]) -> list[str]:
    """The pieces of work that have as many rows as they should."""
    counts = rows.group_by(table.unit).aggregate([([], "count_all")]).to_pylist()
    return [row[table.unit] for row in counts if expected.get(row[table.unit]) == row["count_all"]]
