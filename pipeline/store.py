"""What a run leaves in its folder, written so that a kill at any instant loses at most the complex in flight.

    RUN/run.json                              what is run: settings, versions, weights
    RUN/tables/<table>/<unit>.parquet         rows of one complex, one attempt or one run
    RUN/tables/<table>/all-<number>.parquet   the same, merged
    RUN/structures/<key>/<sample>.cif
    RUN/receipts/, RUN/manifest.json          which of them count (see receipts.py)
    RUN/.tmp/, RUN/.lock                      files being written; the one writer

Every file is written under .tmp, brought to the disk and renamed; the receipt comes last. After `close`, each folder
of tables/ holds one file with exactly the rows that count; before, `read_table` gives them.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import IO, Any, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from foldcp.pipeline.claim import FORMAT, LOCK, RUN_FILE, TEMPORARY, RunInfo, check_folder, read_run, take_lock
from foldcp.pipeline.disk import Content, Disk
from foldcp.pipeline.receipts import (
    MANIFEST,
    RECEIPTS,
    File,
    Manifest,
    Receipt,
    Snapshot,
    describe,
    receipt_path,
    take_snapshot,
    to_json,
)
from foldcp.pipeline.schemas import TABLES, Column, Table

TYPES = {
    "text": pa.string(),
    "whole": pa.int64(),
    "real": pa.float32(),
    "seconds": pa.float64(),
    "flag": pa.bool_(),
    "time": pa.timestamp("ms", tz="UTC"),
}
ROW_GROUP = 100_000
DISK = Disk()
READ_RETRIES = 20  # a reader starts again when a merge deletes what it was about to read
Row = Mapping[str, Any]


class Store:
    """The writer of a run's folder; there is one at a time."""

    def __init__(self, root: Path, info: RunInfo, disk: Disk, lock: IO[str]) -> None:
        self.root, self.info = root, info
        self.started = datetime.now(UTC)
        self.run_id = f"run-{self.started:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
        self._disk, self._lock = disk, lock
        self._temporary, self._attempts = count(), count(1)
        self._units: dict[str, Receipt] = {}
        self._owners: dict[str, str] = {}

    @classmethod
    def open(cls, out: Path | str, info: RunInfo, disk: Disk = DISK) -> Store:
        """Begin a run in the folder `out`, or go on in it.

        Raises ValueError, which names the folder, when it is no folder, holds other files or the run of another
        identity, or when somebody else is writing there; then nothing has changed in it.
        """
        root = Path(out)
        check_folder(root, info)
        try:
            disk.folder(root)
            lock = take_lock(root / LOCK)
        except OSError as error:
            raise ValueError(f"{root}: cannot be written: {error.strerror}") from None
        store = cls(root, info, disk, lock)
        try:
            store._begin()
        except BaseException:
            lock.close()
            raise
        return store

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close("finished" if kind is None else "interrupted")

    def outcomes(self) -> dict[str, str]:
        """key -> done, failed or unbuildable, of every complex whose result is complete."""
        return {unit: r.outcome for unit, r in self._units.items() if r.kind == "complex"}

    def done(self) -> set[str]:
        """Keys of the complexes whose result is complete, whatever came of them."""
        return set(self.outcomes())

    def verify(self) -> set[str]:
        """Forget complexes whose files have changed on the disk, by hash; returns their keys."""
        lost = self._units.keys() - take_snapshot(self.root, verify=True).units.keys()
        for unit in lost:
            del self._units[unit]
        return lost

    def put(self, key: str, rows: Mapping[str, Sequence[Row]], files: Mapping[str, Content] | None = None) -> None:
        """Store the result of a complex: all or nothing, in place of an earlier one.

        `rows` maps tables to rows and holds at least one of `complexes`, whose outcome is the result's; `files` maps
        paths relative to the folder to bytes, or to a function that writes to the path it is given. Raises ValueError
        when such a path belongs to another complex.
        """
        for path in files or {}:
            if self._owners.get(path, key) != key:
                raise ValueError(f"{self.root / path}: complexes {self._owners[path]} and {key} both write it")
        self._put(key, "complex", rows["complexes"][0]["outcome"], rows, files or {})

    def attempt(self, row: Row) -> None:
        """Store a row of `attempts`; attempt_id and run_id are filled in."""
        unit = f"{self.run_id}-{next(self._attempts):06}"
        row = {**row, "attempt_id": unit, "run_id": self.run_id}
        self._put(unit, "attempt", row["outcome"], {"attempts": [row]}, {})

    def table(self, name: str) -> pa.Table:
        """The rows of a table that count, as `read_table` does."""
        return read_table(self.root, name)

    def compact(self) -> None:
        """Merge the parts of every table into one file, and delete them. Readers see all rows once at every instant;
        a merge that was cut short is taken up by the next."""
        snapshot = take_snapshot(self.root)
        if not snapshot.receipts:
            return
        generation = snapshot.manifest.generation + 1
        merged = {
            f"tables/{name}/all-{generation:06}.parquet": _parquet(_read(self.root, snapshot, table))
            for name, table in TABLES.items()
        }
        tables = dict(zip(TABLES, self._install(merged), strict=True))
        units = {unit: replace(receipt, tables={}) for unit, receipt in snapshot.units.items()}
        self._install({MANIFEST: to_json(Manifest(generation, tables, units))})
        parts = [part.path for receipt in snapshot.receipts.values() for part in receipt.tables.values()]
        self._remove(receipt_path(unit) for unit in snapshot.receipts)
        self._remove([*parts, *(file.path for file in snapshot.manifest.tables.values())])

    def close(self, status: str = "finished") -> None:
        """Record the end of the run, merge the tables and let others write."""
        self._put_run(status)
        self.compact()
        self._lock.close()

    def _begin(self) -> None:
        check_folder(self.root, self.info)  # again, as another writer may just have been there
        self._disk.folder(self.root / TEMPORARY)
        about = {"format": FORMAT, "run_id": self.run_id, "started": self.started.isoformat(), **asdict(self.info)}
        self._install({RUN_FILE: json.dumps(about, indent=2, sort_keys=True).encode()})
        self._recover()
        self._put_run("running")

    def _put_run(self, status: str) -> None:
        info, outcomes = self.info, list(self.outcomes().values())
        over = status != "running"
        row = {
            "run_id": self.run_id,
            "started": self.started,
            "ended": datetime.now(UTC) if over else None,
            "status": status,
            "command": info.command,
            "input": info.input,
            "checkpoint": info.checkpoint,
            "checkpoint_sha256": info.checkpoint_sha256,
            "untrained": info.untrained,
            "settings": json.dumps(info.settings, sort_keys=True),
            "versions": json.dumps(info.versions, sort_keys=True),
            "hardware": info.hardware,
        }
        counts = {f"num_{word}": outcomes.count(word) for word in ("done", "failed", "unbuildable")} if over else {}
        self._put(self.run_id, "run", status, {"runs": [row | counts]}, {})

    def _put(
        self,
        unit: str,
        kind: str,
        outcome: str,
        rows: Mapping[str, Sequence[Row]],
        files: Mapping[str, Content],
    ) -> None:
        """Take back the receipt of an earlier version, write, and give the new receipt."""
        parts = {
            f"tables/{name}/{unit}.parquet": _parquet(_arrow(TABLES[name], these))
            for name, these in rows.items()
            if these
        }
        staged = self._stage({**parts, **files})
        self._remove([receipt_path(unit)])
        self._remove(f"tables/{name}/{unit}.parquet" for name in TABLES)
        written = self._place(staged)
        tables = {file.path.split("/")[1]: file for file in written[: len(parts)]}
        receipt = Receipt(unit, kind, outcome, tables, tuple(written[len(parts) :]))
        self._install({receipt_path(unit): to_json(receipt)})
        self._count(receipt)

    def _count(self, receipt: Receipt) -> None:
        self._units[receipt.unit] = receipt
        self._owners.update((file.path, receipt.unit) for file in receipt.files)

    def _install(self, contents: Mapping[str, Content]) -> list[File]:
        """Write files and give them their names."""
        return self._place(self._stage(contents))

    def _stage(self, contents: Mapping[str, Content]) -> list[tuple[File, Path]]:
        """Write files to the disk, under temporary names."""
        staged = []
        for path, content in contents.items():
            temporary = self.root / TEMPORARY / str(next(self._temporary))
            self._disk.write(temporary, content)
            staged.append((describe(path, temporary), temporary))
        return staged

    def _place(self, staged: list[tuple[File, Path]]) -> list[File]:
        """Give staged files their names; on the disk when this returns."""
        for file, temporary in staged:
            self._disk.folder((self.root / file.path).parent)
            self._disk.rename(temporary, self.root / file.path)
        for folder in sorted({(self.root / file.path).parent for file, _ in staged}):
            self._disk.sync(folder)
        return [file for file, _ in staged]

    def _remove(self, paths: Iterable[str]) -> None:
        """Delete those of the files that are there."""
        targets = [self.root / path for path in paths if (self.root / path).exists()]
        for target in targets:
            self._disk.remove(target)
        for folder in sorted({target.parent for target in targets}):
            self._disk.sync(folder)

    def _recover(self) -> None:
        """Clear away what a killed writer left: temporary files, parts without receipt, receipts without parts."""
        snapshot = take_snapshot(self.root)
        for receipt in snapshot.units.values():
            self._count(receipt)
        parts = [part for receipt in snapshot.receipts.values() for part in receipt.tables.values()]
        keep = {file.path for file in (*parts, *snapshot.manifest.tables.values())}
        keep |= {receipt_path(unit) for unit in snapshot.receipts}
        ours = [f"{TEMPORARY}/*", f"{RECEIPTS}/*.json", *(f"tables/{name}/*.parquet" for name in TABLES)]
        found = (path.relative_to(self.root).as_posix() for pattern in ours for path in self.root.glob(pattern))
        self._remove(sorted(set(found) - keep))
        if snapshot.receipts.keys() & snapshot.manifest.units.keys():  # a merge was cut short
            self.compact()


def read_table(out: Path | str, name: str) -> pa.Table:
    """The rows of a table of a run that count, sorted; also while the run goes on. Columns, units and meaning are in
    schemas.py and in the metadata of the fields. Raises ValueError when `out` is not the folder of a run."""
    root = Path(out)
    read_run(root)
    for _ in range(READ_RETRIES):
        try:
            return _read(root, take_snapshot(root), TABLES[name])
        except FileNotFoundError:
            continue
    raise TimeoutError(f"{root}: the table {name} changes faster than it can be read")


def arrow_schema(table: Table) -> pa.Schema:
    """The Arrow schema, with `description` and `unit` in the metadata of every field."""
    fields = [
        pa.field(c.name, TYPES[c.type], c.optional, {"description": c.description, "unit": c.unit})
        for c in table.columns
    ]
    return pa.schema(fields, {"description": table.description})


def _read(root: Path, snapshot: Snapshot, table: Table) -> pa.Table:
    schema = arrow_schema(table)
    parts = [r.tables[table.name].path for r in snapshot.receipts.values() if table.name in r.tables]
    pieces = [_read_file(root / path) for path in parts]
    if snapshot.merged:
        whole = _read_file(root / snapshot.manifest.tables[table.name].path)
        pieces.append(whole.filter(pc.field(table.unit).isin(list(snapshot.merged))))
    rows = pa.concat_tables(pieces) if pieces else schema.empty_table()
    return rows.sort_by([(name, "ascending") for name in table.order]).combine_chunks()


def _read_file(path: Path) -> pa.Table:
    with pq.ParquetFile(path) as file:
        return file.read(use_threads=False)  # most parts are small


def _arrow(table: Table, rows: Sequence[Row]) -> pa.Table:
    """Rows as Arrow. NaN becomes null, so that every reader skips it in a mean."""
    names = [column.name for column in table.columns]
    assert not (unknown := {name for row in rows for name in row} - set(names)), f"{table.name}: {unknown}"
    columns = [_column(column, [row.get(column.name) for row in rows]) for column in table.columns]
    return pa.table(columns, schema=arrow_schema(table))


def _column(column: Column, values: list[Any]) -> pa.Array:
    array = pa.array(values, TYPES[column.type], from_pandas=True)
    assert column.optional or not array.null_count, f"column {column.name} must not be empty"
    return array


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=ROW_GROUP)
    return sink.getvalue().to_pybytes()
