"""Tables of a run as readers see them: the rows that count, with stale ones left out or marked."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from foldcp.pipeline.storage.commits.commit_file import UnmergedCommit, read_commit_rows
from foldcp.pipeline.storage.commits.record import CommitRecord, find_lost_files, is_intact
from foldcp.pipeline.storage.manifest import (
    READ_RETRIES,
    Group,
    GroupRecords,
    Snapshot,
    columns_hash,
    is_superseded,
    missing_tables,
    pairs_hash,
    read_records,
    take_snapshot,
)
from foldcp.pipeline.storage.parquet import (
    arrow_schema,
    read_parquet,
    rows_of_commits,
    rows_without_commits,
    to_arrow,
)
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

CONVERTED_ROWS = 256  # so many rows of Python's objects are made into Arrow's at once


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
            rows = _read_rows(root, snapshot, table)
        except FileNotFoundError:  # a merge has deleted it meanwhile
            continue
        if is_superseded(root, snapshot):
            continue
        if name == "runs":
            return mark_interrupted(rows, run["run_id"] if is_being_written(root) else "")
        return rows
    raise ValueError(f"{root}: the table {name} changes faster than it can be read")


def _read_evaluation(root: Path, table: Table) -> pa.Table:
    """The rows of a table of `foldcp evaluate` whose results still count; none before the first."""
    read_run(root)
    try:
        rows = read_parquet(root / evaluation_path(table.name), table)
    except FileNotFoundError:
        return arrow_schema(table).empty_table()
    return rows_of_commits(rows, table, set(read_fresh(root, "complexes")["key"].to_pylist()))


def read_fresh(out: Path | str, name: str) -> pa.Table:
    """The rows of a table as `read_table` gives them, without stale ones."""
    rows = read_table(out, name)
    has_stale = "stale" in rows.schema.names and pc.call_function("any", [rows["stale"]]).as_py()
    return rows.filter(~pc.field("stale")) if has_stale else rows


def published_files(out: Path | str, name: str) -> list[Path]:
    """The files in tables/ of a table, if they are undamaged and hold all rows that count: those of
    a run that is over. Empty otherwise, and then `read_table` has the rows.

    Raises ValueError as `read_table` does.
    """
    root = Path(out)
    read_run(root)
    if name in EVALUATION_TABLES:  # whose rows may be of results that are stale by now
        return []
    snapshot = take_snapshot(root)
    manifest = snapshot.manifest
    is_whole = all(
        group.columns == columns_hash() and not missing_tables(root, group)
        for group in manifest.groups
    )
    if snapshot.unmerged or manifest.current_run or not is_whole:
        return []
    if name == PROTEIN_PAIRS.name:
        is_new = manifest.derived_from == pairs_hash(manifest)
        files = list(manifest.derived.values()) if is_new else []
    else:
        files = [group.published[name] for group in manifest.groups]
    if not all(is_intact(root, file, verify=True) for file in files):
        return []
    return [root / file.path for file in files]


def read_file_paths(out: Path | str) -> dict[str, tuple[str, ...]]:
    """key -> the paths of a result's files, relative to the folder.

    Raises ValueError when a file of the store is damaged.
    """
    root = Path(out)
    for _ in range(READ_RETRIES):
        snapshot = take_snapshot(root)
        commits: dict[str, CommitRecord] = {}
        for group in snapshot.manifest.groups:
            commits |= read_records(root, group).commits
        if is_superseded(root, snapshot):
            continue
        commits |= {key: commit.record for key, commit in snapshot.unmerged.items()}
        return {key: tuple(file.path for file in record.files) for key, record in commits.items()}
    raise ValueError(f"{root}: changes faster than it can be read")


def count_stale(out: Path | str) -> int:
    """Number of results in the folder that are of an earlier input or of other settings."""
    return sum(group.num_stale for group in take_snapshot(Path(out)).manifest.groups)


def _read_rows(root: Path, snapshot: Snapshot, table: Table) -> pa.Table:
    """The rows of everything that counts, sorted, with stale ones left out or marked.

    Raises FileNotFoundError when a merge has deleted a file meanwhile.
    """
    sources = [_read_group(root, group, table, snapshot) for group in snapshot.manifest.groups]
    sources += unmerged_rows(root, snapshot.unmerged.values(), [table])[table.name]
    return sort_rows(sources, table)


def _read_group(root: Path, group: Group, table: Table, snapshot: Snapshot) -> pa.Table:
    """The rows of a group that count. Those of commits that have rows in a missing file do not, nor
    those of commits with replaced files.
    """
    missing = missing_tables(root, group)
    if table.name in missing or table.name not in group.tables:
        return arrow_schema(table).empty_table()
    needs_records = missing or group.num_stale or snapshot.replaced
    records = read_records(root, group) if needs_records else GroupRecords()
    excluded = set(snapshot.unmerged)
    excluded |= {name for name, r in records.commits.items() if missing & r.rows.keys()}
    replaced = snapshot.replaced & records.commits.keys() - excluded
    excluded |= find_lost_files(root, {name: records.commits[name] for name in replaced}, replaced)
    rows = read_parquet(root / group.tables[table.name].path, table)
    rows = rows_without_commits(rows, table, excluded)
    return mark_stale(rows, table, records.stale, snapshot.manifest.keep_stale)


def unmerged_rows(
    root: Path, commits: Iterable[UnmergedCommit], tables: Sequence[Table]
) -> dict[str, list[pa.Table]]:
    """The rows of commits in each of some tables."""
    found: dict[str, list[pa.Table]] = {table.name: [] for table in tables}
    parts = {table.name: [] for table in tables}
    counts: dict[str, list[int]] = {table.name: [] for table in tables}

    def convert(table: Table) -> None:
        found[table.name].append(to_arrow(table, parts[table.name], counts[table.name]))
        parts[table.name] = []
        counts[table.name] = []

    for commit in commits:
        if not any(table.name in commit.record.rows for table in tables):
            continue
        columns = read_commit_rows(root, commit)
        for table in tables:
            if count := commit.record.rows.get(table.name, 0):
                parts[table.name].append(columns[table.name])
                counts[table.name].append(count)
                if sum(counts[table.name]) >= CONVERTED_ROWS:
                    convert(table)
    for table in tables:
        if counts[table.name]:
            convert(table)
    return found


def sort_rows(sources: Sequence[pa.Table], table: Table) -> pa.Table:
    """The rows of several tables in the order of the table's."""
    rows = pa.concat_tables(sources) if sources else arrow_schema(table).empty_table()
    return rows.sort_by([(name, "ascending") for name in table.sort_columns]).combine_chunks()


def published_rows(
    rows: pa.Table, table: Table, stale: Collection[str], keep_stale: bool, hidden_run: str
) -> pa.Table:
    """The rows that a file in tables/ shows.

    The run in progress is not among them: a kill would leave it there as running for ever.
    """
    if table.name == "runs":
        return mark_interrupted(rows.filter(pc.field("run_id") != hidden_run), "")
    return mark_stale(rows, table, stale, keep_stale)


def mark_stale(rows: pa.Table, table: Table, stale: Collection[str], keep_stale: bool) -> pa.Table:
    """Leave out stale rows, or set their flag where such rows are kept."""
    if not stale or not table.has("stale"):
        return rows
    if not keep_stale:
        return rows_without_commits(rows, table, stale).combine_chunks()
    flags = [commit in stale for commit in rows[table.commit_column].to_pylist()]
    return replace_column(rows, "stale", pa.array(flags, pa.bool_()))


def replace_column(rows: pa.Table, name: str, values: pa.Array) -> pa.Table:
    """The rows with other values in one column."""
    index = rows.schema.names.index(name)
    return rows.set_column(index, rows.schema.field(index), values).combine_chunks()


def mark_interrupted(rows: pa.Table, current_run: str) -> pa.Table:
    """Set the status of runs that were killed: all without an end but the current one."""
    run_ids = rows["run_id"].to_pylist()
    statuses = [
        "interrupted" if status == "running" and run_id != current_run else status
        for run_id, status in zip(run_ids, rows["status"].to_pylist(), strict=True)
    ]
    return replace_column(rows, "status", pa.array(statuses, pa.string()))
