"""The tables of a run as they are read: the rows that count, with what is stale left out or
marked.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from foldcp.pipeline.storage.manifest import RETRIES, Manifest, Snapshot, take_snapshot
from foldcp.pipeline.storage.parquet import arrow_schema, read_parquet, rows_of_units
from foldcp.pipeline.storage.run_folder import is_being_written, read_run
from foldcp.pipeline.storage.schemas import TABLES, Table


def read_table(out: Path | str, name: str) -> pa.Table:
    """The rows of a table of a run that count, sorted; also while the run goes on.

    Columns, units and meaning are in schemas.py and in the metadata of the fields. A run that
    nobody carries on any more is `interrupted`. Raises ValueError when `out` is not the folder of a
    run, or when a file of it is damaged.
    """
    root = Path(out)
    table = TABLES[name]
    about = read_run(root)
    for _ in range(RETRIES):
        snapshot = take_snapshot(root)
        try:
            rows = read_rows(root, snapshot, table)
        except FileNotFoundError:  # a merge has deleted it meanwhile
            continue
        if name == "runs":
            return _end_runs(rows, about["run_id"] if is_being_written(root) else "")
        return mark_stale(rows, table, snapshot.manifest)
    raise ValueError(f"{root}: the table {name} changes faster than it can be read")


def count_stale(out: Path | str) -> int:
    """Results in the folder that are of an earlier input or of other settings."""
    snapshot = take_snapshot(Path(out))
    return len(snapshot.units.keys() & set(snapshot.manifest.stale))


def read_rows(
    root: Path, snapshot: Snapshot, table: Table, repaired: pa.Table | None = None
) -> pa.Table:
    """The rows of everything that counts, stale or not, sorted. `repaired` stands for the merged
    file. Raises FileNotFoundError when a merge has deleted a file meanwhile.
    """
    parts = [
        r.tables[table.name].path for r in snapshot.receipts.values() if table.name in r.tables
    ]
    pieces = [read_parquet(root / path, table) for path in parts]
    merged = [unit for unit, receipt in snapshot.merged.items() if table.name in receipt.rows]
    if merged:
        path = snapshot.manifest.tables[table.name].path
        whole = read_parquet(root / path, table) if repaired is None else repaired
        pieces.append(rows_of_units(whole, table, merged))
    rows = pa.concat_tables(pieces) if pieces else arrow_schema(table).empty_table()
    return rows.sort_by([(name, "ascending") for name in table.order]).combine_chunks()


def published_rows(rows: pa.Table, table: Table, manifest: Manifest) -> pa.Table:
    """What the file in tables/ shows of all rows: nothing of the invocation that goes on, as a kill
    would leave it there as running for ever.
    """
    if table.name == "runs":
        return _end_runs(rows.filter(pc.field("run_id") != manifest.running), "")
    return mark_stale(rows, table, manifest)


def mark_stale(rows: pa.Table, table: Table, manifest: Manifest) -> pa.Table:
    """Leave out what is stale, or set its flag where such rows are kept."""
    names = rows.schema.names
    if not manifest.stale or "stale" not in names:
        return rows
    if not manifest.keep_stale:
        return rows.filter(
            ~pc.field(table.unit).isin(pa.array(manifest.stale, pa.string()))
        ).combine_chunks()
    stale = set(manifest.stale)
    place = names.index("stale")
    flags = pa.array([unit in stale for unit in rows[table.unit].to_pylist()], pa.bool_())
    return rows.set_column(place, rows.schema.field(place), flags).combine_chunks()


def _end_runs(rows: pa.Table, running: str) -> pa.Table:
    """Tell invocations as interrupted that were killed: all that have no end but the one that is
    `running`.
    """
    told = zip(rows["run_id"].to_pylist(), rows["status"].to_pylist(), strict=True)
    status = ["interrupted" if word == "running" and run != running else word for run, word in told]
    place = rows.schema.names.index("status")
    return rows.set_column(
        place, rows.schema.field(place), pa.array(status, pa.string())
    ).combine_chunks()
