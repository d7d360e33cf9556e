"""Tables of a run as readers see them: the rows that count, with stale ones left out or marked."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from foldcp.pipeline.storage.manifest import (
    READ_RETRIES,
    Manifest,
    Snapshot,
    take_snapshot,
)
from foldcp.pipeline.storage.parquet import arrow_schema, read_parquet, rows_of_commits
from foldcp.pipeline.storage.results.evaluation_tables import evaluation_path
from foldcp.pipeline.storage.results.protein_pairs import protein_pairs
from foldcp.pipeline.storage.run_folder import is_being_written, read_run
from foldcp.pipeline.storage.schemas import (
    EVALUATION_TABLES,
    PAIRS,
    PROTEIN_PAIRS,
    TABLES,
    Table,
)


def read_table(out: Path | str, name: str) -> pa.Table:
    """The rows of a table of a run that count, sorted; also while the run is in progress.

    Columns, units and meanings are in schemas.py and in the metadata of the fields. The status of a
    run that was killed is `interrupted`.

    Raises:
        ValueError: `out` is not the folder of a run or has another format, or a file of it is
            damaged.
    """
    root = Path(out)
    if name == PROTEIN_PAIRS.name:
        return protein_pairs(read_table(out, PAIRS.name))
    if name in EVALUATION_TABLES:
        return _read_evaluation(root, EVALUATION_TABLES[name])
    table = TABLES[name]
    run = read_run(root)
    for _ in range(READ_RETRIES):
        snapshot = take_snapshot(root)
        try:
            rows = read_rows(root, snapshot, table)
        except FileNotFoundError:  # a merge has deleted it meanwhile
            continue
        if name == "runs":
            return _mark_interrupted(rows, run["run_id"] if is_being_written(root) else "")
        return mark_stale(rows, table, snapshot.manifest)
    raise ValueError(f"{root}: the table {name} changes faster than it can be read")


def _read_evaluation(root: Path, table: Table) -> pa.Table:
    """The rows of a table of `foldcp evaluate` whose results still count; none before the first."""
    read_run(root)
    try:
        rows = read_parquet(root / evaluation_path(table.name), table)
    except FileNotFoundError:
        return arrow_schema(table).empty_table()
    snapshot = take_snapshot(root)
    fresh = snapshot.commits.keys() - set(snapshot.manifest.stale)
    return rows_of_commits(rows, table, fresh)


def read_fresh(out: Path | str, name: str) -> pa.Table:
    """The rows of a table as `read_table` gives them, without stale ones."""
    rows = read_table(out, name)
    return rows.filter(~pc.field("stale")) if "stale" in rows.schema.names else rows


def count_stale(out: Path | str) -> int:
    """Number of results in the folder that are of an earlier input or of other settings."""
    snapshot = take_snapshot(Path(out))
    return len(snapshot.commits.keys() & set(snapshot.manifest.stale))


def read_rows(
    root: Path, snapshot: Snapshot, table: Table, repaired: pa.Table | None = None
) -> pa.Table:
    """The rows of everything that counts, stale or not, sorted.

    `repaired` stands for the merged file. Raises FileNotFoundError when a merge has deleted a file
    meanwhile.
    """
    paths = [
        record.parts[table.name].path
        for record in snapshot.unmerged.values()
        if table.name in record.parts
    ]
    sources = [read_parquet(root / path, table) for path in paths]
    merged = [commit for commit, record in snapshot.merged.items() if table.name in record.rows]
    if merged:
        path = snapshot.manifest.tables[table.name].path
        merged_rows = read_parquet(root / path, table) if repaired is None else repaired
        sources.append(rows_of_commits(merged_rows, table, merged))
    rows = pa.concat_tables(sources) if sources else arrow_schema(table).empty_table()
    return rows.sort_by([(name, "ascending") for name in table.sort_columns]).combine_chunks()


def published_rows(rows: pa.Table, table: Table, manifest: Manifest) -> pa.Table:
    """The rows that the file in tables/ shows.

    The run in progress is not among them: a kill would leave it there as running for ever.
    """
    if table.name == "runs":
        return _mark_interrupted(rows.filter(pc.field("run_id") != manifest.current_run), "")
    return mark_stale(rows, table, manifest)


def mark_stale(rows: pa.Table, table: Table, manifest: Manifest) -> pa.Table:
    """Leave out stale rows, or set their flag where such rows are kept."""
    if not manifest.stale or not table.has("stale"):
        return rows
    if not manifest.keep_stale:
        is_stale = pc.field(table.commit_column).isin(pa.array(manifest.stale, pa.string()))
        return rows.filter(~is_stale).combine_chunks()
    stale = set(manifest.stale)
    flags = [commit in stale for commit in rows[table.commit_column].to_pylist()]
    return replace_column(rows, "stale", pa.array(flags, pa.bool_()))


def replace_column(rows: pa.Table, name: str, values: pa.Array) -> pa.Table:
    """The rows with other values in one column."""
    index = rows.schema.names.index(name)
    return rows.set_column(index, rows.schema.field(index), values).combine_chunks()


def _mark_interrupted(rows: pa.Table, current_run: str) -> pa.Table:
    """Set the status of runs that were killed: all without an end but the current one."""
    run_ids = rows["run_id"].to_pylist()
    statuses = [
        "interrupted" if status == "running" and run_id != current_run else status
        for run_id, status in zip(run_ids, rows["status"].to_pylist(), strict=True)
    ]
    return replace_column(rows, "status", pa.array(statuses, pa.string()))
