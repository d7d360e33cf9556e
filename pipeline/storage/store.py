"""What a run leaves in its folder, written so that a kill at any instant loses at most the complex
in flight.

    RUN/run.json                                 what is run: settings, versions, weights
    RUN/tables/<table>/<table>.parquet           the table for readers, as it was at the last merge
    RUN/parts/<table>/<unit>.parquet             rows of one complex, one attempt or one run
    RUN/parts/<table>/all-<number>.parquet       all of these, merged
    RUN/structures/<key>/<sample>.cif
    RUN/receipts/, RUN/manifest.json             which of them count (see receipts.py)
    RUN/.tmp/, RUN/.lock                         files being written; the one writer

Every file is written under .tmp, brought to the disk and renamed; the receipt comes last. A file in
tables/ appears and is replaced by one rename, so that whoever reads it sees each row once at every
instant; `read_table` also gives what has not been merged yet.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import IO, Self

import pyarrow as pa

from foldcp.pipeline.storage.filesystem import Content, FileSystem, is_disk_failure
from foldcp.pipeline.storage.manifest import (
    MANIFEST,
    RECEIPTS,
    CommitRecord,
    File,
    Manifest,
    Snapshot,
    describe,
    is_intact,
    receipt_path,
    take_snapshot,
    to_json,
)
from foldcp.pipeline.storage.parquet import to_arrow, to_parquet
from foldcp.pipeline.storage.repair import Damage, find_damage
from foldcp.pipeline.storage.run_folder import (
    FORMAT,
    LOCK,
    RUN_FILE,
    TEMPORARY,
    RunInfo,
    check_folder,
    take_lock,
)
from foldcp.pipeline.storage.schemas import TABLES, Row
from foldcp.pipeline.storage.staleness import Present, find_stale, find_vanished
from foldcp.pipeline.storage.tables import published_rows, read_rows, read_table

__all__ = ["Store", "read_table"]

DISK = FileSystem()
# A run merges when at least so many pieces of work are not merged, and half as many as are, or when
# there are so many that another would keep its driver from its other work for too long.
MERGE_UNITS = 256
MERGE_MOST = 1024
# It also merges after so many seconds, so that tables are up to date where a complex takes long,
# unless merging would take more than this share of the time.
MERGE_SECONDS = 300.0
MERGE_SHARE = 0.01
HEADS = {
    "complex": "complexes",
    "attempt": "attempts",
    "run": "runs",
}  # the table that tells what a piece of work is
logger = logging.getLogger(__name__)


class Store:
    """The writer of a run's folder; there is one at a time."""

    def __init__(self, root: Path, info: RunInfo, disk: FileSystem, lock: IO[str]) -> None:
        self.root = root
        self.info = info
        self.started = datetime.now(UTC)
        self.run_id = f"run-{self.started:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
        self._disk = disk
        self._lock = lock
        self._temporary = count()
        self._attempts = count(1)
        self._units: dict[str, CommitRecord] = {}
        self._owners: dict[str, str] = {}
        self._stale: frozenset[str] = frozenset()
        self._unmerged: set[str] = set()
        self._merges_itself = True
        self._merge_due = time.monotonic() + MERGE_SECONDS

    @classmethod
    def open(cls, out: Path | str, info: RunInfo, disk: FileSystem = DISK) -> Store:
        """Begin a run in the folder `out`, or go on in it; damaged tables are repaired.

        Raises ValueError, which names the folder, when it is no folder, holds other files or
        results of other weights, cannot be written, or when somebody else is writing there; then
        nothing has changed in it.
        """
        root = Path(out)
        check_folder(root, info.identity)
        try:
            disk.folder(root)
            lock = take_lock(root / LOCK)
        except OSError as error:
            raise ValueError(f"{root}: cannot be written: {error.strerror}") from None
        store = cls(root, info, disk, lock)
        try:
            store._begin()
        except OSError as error:
            lock.close()
            raise ValueError(f"{root}: cannot be written: {error.strerror}") from None
        except BaseException:
            lock.close()
            raise
        return store

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close("finished" if kind is None else "interrupted")

    def add_version(self, name: str, version: str) -> None:
        """Record a version that became known while the run goes on; stored when it is closed."""
        self.info = replace(self.info, versions={**self.info.versions, name: version})

    def outcomes(self) -> dict[str, str]:
        """key -> done, failed or invalid, of every complex whose result is complete and not
        stale.
        """
        return {
            unit: receipt.outcome
            for unit, receipt in self._units.items()
            if receipt.kind == "complex" and unit not in self._stale
        }

    def reasons(self, outcome: str) -> dict[str, str]:
        """key -> reason, of the complexes of one outcome."""
        rows = self.table("complexes").select(["key", "outcome", "reason"]).to_pylist()
        return {row["key"]: row["reason"] for row in rows if row["outcome"] == outcome}

    def done(self) -> set[str]:
        """Keys of the complexes whose result is complete, whatever came of them."""
        return set(self.outcomes())

    def verify(self) -> set[str]:
        """Forget complexes whose files have changed on the disk, by hash; returns their keys."""
        lost = self._units.keys() - take_snapshot(self.root, verify=True).units.keys()
        self._merge(lost)
        return lost

    def mark_stale(self, present: Present, keep: bool = False) -> None:
        """Tell what the input asks for now; to be called before anything is put.

        Results of anything else leave the tables, or stay there with their flag set when `keep`;
        they are not deleted and count again once they are asked for. Invalid records that are
        gone are removed.
        """
        stale = find_stale(self._units, present)
        updates, lost = self._release_names(stale)
        self._merge(
            find_vanished(self._units, present) | lost,
            stale=stale,
            keep=keep,
            updates=updates,
        )

    def put(
        self,
        key: str,
        rows: Mapping[str, Sequence[Row]],
        files: Mapping[str, Content] | None = None,
    ) -> None:
        """Store the result of a complex: all or nothing, in place of an earlier one.

        `rows` maps tables to rows and holds at least one of `complexes`, whose outcome is the
        result's; `files` maps paths relative to the folder to bytes, or to a function that writes
        to the path it is given. Raises ValueError when such a path belongs to another complex.
        """
        assert key not in self._stale, (
            f"{key} is marked as stale, so it is nothing that this run computes"
        )
        for path in files or {}:
            if self._owners.get(path, key) != key:
                raise ValueError(
                    f"{self.root / path}: complexes {self._owners[path]} and {key} both write it"
                )
        self._put(key, "complex", rows, files or {})
        self._merge_when_due()

    def attempt(self, row: Row) -> None:
        """Store a row of `attempts`; attempt_id and run_id are filled in."""
        unit = f"{self.run_id}-{next(self._attempts):06}"
        self._put(
            unit,
            "attempt",
            {"attempts": [{**row, "attempt_id": unit, "run_id": self.run_id}]},
            {},
        )
        self._merge_when_due()

    def table(self, name: str) -> pa.Table:
        """The rows of a table that count, as `read_table` does."""
        return read_table(self.root, name)

    def compact(self) -> None:
        """Merge the parts of every table into one file, publish it and delete the parts. Readers
        see all rows once at every instant; a merge that was cut short is taken up by the next.
        """
        self._merge()

    def close(self, status: str = "finished") -> bool:
        """Record the end of the run, merge the tables and let others write. False, and a line in
        the log, when that cannot be written: nothing is lost, and the next run makes up for it.
        """
        try:
            self._put_run(status)
            self._merge(running="")
        except (OSError, ValueError) as error:
            logger.warning("%s: the tables are not up to date: %s", self.root, _reason(error))
            return False
        finally:
            self._lock.close()
        return True

    def _begin(self) -> None:
        check_folder(
            self.root, self.info.identity
        )  # again, as another writer may just have been there
        self._disk.folder(self.root / TEMPORARY)
        damage = find_damage(self.root)
        about = {
            "format": FORMAT,
            "run_id": self.run_id,
            "started": self.started.isoformat(),
            **asdict(self.info),
        }
        self._install({RUN_FILE: json.dumps(about, indent=2, sort_keys=True).encode()})
        self._recover(damage)
        self._put_run("running")
        self._merge(running=self.run_id)

    def _recover(self, damage: Damage) -> None:
        """Repair merged files, and clear away what a killed writer left: temporary files, parts
        without receipt, receipts without parts.
        """
        for message in damage.messages:
            logger.warning("%s", message)
        snapshot = take_snapshot(self.root, trusted=damage.repaired)
        damaged = {
            unit
            for unit, receipt in snapshot.receipts.items()
            if not self._has_whole_parts(receipt)
        }
        receipts = {
            unit: receipt for unit, receipt in snapshot.receipts.items() if unit not in damaged
        }
        parts = [part for receipt in receipts.values() for part in receipt.tables.values()]
        keep = {file.path for file in (*parts, *snapshot.manifest.tables.values())}
        keep |= {receipt_path(unit) for unit in receipts}
        ours = [
            f"{TEMPORARY}/*",
            f"{RECEIPTS}/*.json",
            *(f"parts/{name}/*.parquet" for name in TABLES),
        ]
        found = (
            path.relative_to(self.root).as_posix()
            for pattern in ours
            for path in self.root.glob(pattern)
        )
        self._remove(sorted(set(found) - keep))
        self._merge(
            damage.lost - receipts.keys(),
            repaired=damage.repaired,
            unpublished=damage.unpublished,
        )

    def _has_whole_parts(self, receipt: CommitRecord) -> bool:
        return all(is_intact(self.root, part, verify=True) for part in receipt.tables.values())

    def _release_names(self, stale: Collection[str]) -> tuple[dict[str, CommitRecord], set[str]]:
        """Let go of files of stale results whose paths do not hold the key, as the result in its
        place writes them, too; take them back where a result counts again. Returns the changed
        receipts, and the results that have lost such files meanwhile.
        """
        updates = {}
        lost = set()
        for unit, receipt in self._units.items():
            if unit in stale:
                own = tuple(file for file in receipt.files if unit in file.path)
                shared = tuple(file for file in receipt.files if unit not in file.path)
                if shared:
                    updates[unit] = replace(receipt, files=own, released=shared)
            elif receipt.released:
                if not all(is_intact(self.root, file, verify=True) for file in receipt.released):
                    lost.add(unit)
                updates[unit] = replace(
                    receipt, files=receipt.files + receipt.released, released=()
                )
        return updates, lost

    def _merge_when_due(self) -> None:
        """Merge now and then while the run goes on. A merge that fails for another reason than the
        disk's costs no result.
        """
        num_merged = len(self._units) - len(self._unmerged)
        is_much = len(self._unmerged) >= min(max(MERGE_UNITS, num_merged // 2), MERGE_MOST)
        started = time.monotonic()
        if not self._merges_itself or not (is_much or started >= self._merge_due):
            return
        try:
            self._merge()
            ended = time.monotonic()
            self._merge_due = ended + max(MERGE_SECONDS, (ended - started) / MERGE_SHARE)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and is_disk_failure(error):
                raise
            self._merges_itself = False
            logger.warning(
                "%s: the tables are not brought up to date: %s",
                self.root,
                _reason(error),
            )

    def _merge(
        self,
        drop: Collection[str] = (),
        *,
        stale: Collection[str] | None = None,
        keep: bool | None = None,
        running: str | None = None,
        updates: Mapping[str, CommitRecord] | None = None,
        repaired: Mapping[str, pa.Table] | None = None,
        unpublished: Collection[str] = (),
    ) -> None:
        """Bring merged and published tables to what counts, without the pieces of work `drop`; what
        is None stays as it was. Tables whose rows do not change are not written.
        """
        repaired = repaired or {}
        snapshot = take_snapshot(self.root, trusted=repaired)
        old = snapshot.manifest
        units = {
            unit: replace(receipt, tables={})
            for unit, receipt in (snapshot.units | dict(updates or {})).items()
        }
        for unit in drop:
            units.pop(unit, None)
        marks = replace(
            old,
            units=units,
            stale=tuple(sorted(units.keys() & (set(old.stale) if stale is None else set(stale)))),
            keep_stale=old.keep_stale if keep is None else keep,
            running=old.running if running is None else running,
        )
        changed = _changed_tables(snapshot, drop) | repaired.keys()
        publish = changed | set(unpublished) | _changed_marks(old, marks)
        if publish or marks != old:
            self._write_merged(snapshot, marks, changed, publish, repaired)
        self._units = {}
        self._owners = {}
        self._unmerged = set()
        self._stale = frozenset(marks.stale)
        for receipt in units.values():
            self._count(receipt)

    def _write_merged(
        self,
        snapshot: Snapshot,
        marks: Manifest,
        changed: Collection[str],
        publish: Collection[str],
        repaired: Mapping[str, pa.Table],
    ) -> None:
        """Write merged files, the manifest and the published files, and delete what these
        replace.
        """
        old = snapshot.manifest
        generation = snapshot.manifest.generation + 1
        kept = Snapshot(
            {unit: receipt for unit, receipt in snapshot.receipts.items() if unit in marks.units},
            old,
            {unit: receipt for unit, receipt in snapshot.merged.items() if unit in marks.units},
        )
        merged: list[tuple[File, Path]] = []
        published: list[tuple[File, Path]] = []
        for name in sorted(publish):
            table = TABLES[name]
            rows = read_rows(self.root, kept, table, repaired.get(name))
            if name in changed:
                merged += self._stage(
                    {f"parts/{name}/all-{generation:06}.parquet": to_parquet(rows)}
                )
            shown = to_parquet(published_rows(rows, table, marks))
            published += self._stage({f"tables/{name}/{name}.parquet": shown})
        tables = old.tables | dict(zip(sorted(changed), self._place(merged), strict=True))
        shown_files = old.published | {
            name: file for name, (file, _) in zip(sorted(publish), published, strict=True)
        }
        manifest = replace(marks, generation=generation, tables=tables, published=shown_files)
        self._install({MANIFEST: to_json(manifest)})
        self._place(published)
        parts = [
            part.path for receipt in snapshot.receipts.values() for part in receipt.tables.values()
        ]
        self._remove(receipt_path(unit) for unit in snapshot.receipts)
        self._remove([*parts, *(old.tables[name].path for name in changed if name in old.tables)])

    def _put_run(self, status: str) -> None:
        info = self.info
        outcomes = list(self.outcomes().values())
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
        counts = (
            {f"num_{word}": outcomes.count(word) for word in ("done", "failed", "invalid")}
            if over
            else {}
        )
        self._put(self.run_id, "run", {"runs": [row | counts]}, {})

    def _put(
        self,
        unit: str,
        kind: str,
        rows: Mapping[str, Sequence[Row]],
        files: Mapping[str, Content],
    ) -> None:
        """Take back the receipt of an earlier version, write, and give the new receipt."""
        rows = {name: these for name, these in rows.items() if these}
        parts = {
            f"parts/{name}/{unit}.parquet": to_parquet(to_arrow(TABLES[name], these))
            for name, these in rows.items()
        }
        staged = self._stage({**parts, **files})
        self._remove([receipt_path(unit)])
        self._remove(f"parts/{name}/{unit}.parquet" for name in TABLES)
        written = self._place(staged)
        head = rows[HEADS[kind]][0]
        receipt = CommitRecord(
            unit,
            kind,
            head["status"] if kind == "run" else head["outcome"],
            name=head.get("name", ""),
            settings=head.get("settings", "") if kind == "complex" else "",
            rows={name: len(these) for name, these in rows.items()},
            tables=dict(zip(rows, written, strict=False)),
            files=tuple(written[len(parts) :]),
        )
        self._install({receipt_path(unit): to_json(receipt)})
        self._count(receipt)
        self._unmerged.add(unit)

    def _count(self, receipt: CommitRecord) -> None:
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


def _changed_tables(snapshot: Snapshot, drop: Collection[str]) -> set[str]:
    """Tables whose merged files hold other rows than count: a part is to come in, a piece of work
    was replaced or is to go, or there is no file yet.
    """
    old = snapshot.manifest
    gone = (old.units.keys() - snapshot.merged.keys()) | (old.units.keys() & set(drop))
    receipts = [*snapshot.receipts.values(), *(old.units[unit] for unit in gone)]
    return {name for receipt in receipts for name in receipt.rows} | (
        TABLES.keys() - old.tables.keys()
    )


def _changed_marks(old: Manifest, new: Manifest) -> set[str]:
    """Tables that are to show other rows, though the same ones count."""
    changed = {"runs"} if old.running != new.running else set()
    if old.stale != new.stale or (old.keep_stale != new.keep_stale and new.stale):
        changed |= {
            name for name, table in TABLES.items() if any(c.name == "stale" for c in table.columns)
        }
    return changed


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
