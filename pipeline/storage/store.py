"""Writer of a run's folder, such that a kill at any instant loses at most the complex in flight.

    RUN/run.json                                 the run: settings, versions, weights
    RUN/tables/<table>/<table>.parquet           the table for readers, as of the last merge
    RUN/tables/dictionary.parquet                type, unit and meaning of every column
    RUN/parts/<table>/<commit>.parquet           rows of one complex, one attempt or one run
    RUN/parts/<table>/merged-<number>.parquet    all of these, merged
    RUN/structures/<key>/<sample>.cif.gz
    RUN/commits/, RUN/manifest.json              which of them count (see manifest.py)
    RUN/.tmp/, RUN/.lock                         files being written; the lock of the one writer

Every file is written under .tmp, synced and renamed; the commit record comes last. A file in
tables/ appears and is replaced by one rename, so that whoever reads it sees each row once at every
instant; `read_table` also gives what has not been merged yet.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import IO

from foldcp.pipeline.config import WriteConfig
from foldcp.pipeline.storage.filesystem import Content, FileSystem, is_disk_failure
from foldcp.pipeline.storage.manifest import (
    CommitRecord,
    commit_path,
    take_snapshot,
    to_json,
)
from foldcp.pipeline.storage.merge import NO_CHANGES, MergeChanges, MergeSchedule, merge
from foldcp.pipeline.storage.parquet import to_arrow, to_parquet
from foldcp.pipeline.storage.repair import (
    Damage,
    find_damage,
    find_leftovers,
    intact_unmerged,
)
from foldcp.pipeline.storage.results.dictionary import PATH as DICTIONARY
from foldcp.pipeline.storage.results.dictionary import dictionary
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
from foldcp.pipeline.storage.staging import StagingArea
from foldcp.pipeline.storage.staleness import (
    Present,
    find_stale,
    find_vanished,
    release_shared_paths,
)

LOCAL_FILES = FileSystem()
# Kind of a commit -> the table that has one row or more of each such commit.
MAIN_TABLES = {"complex": "complexes", "attempt": "attempts", "run": "runs"}
logger = logging.getLogger(__name__)


class Store:
    """The writer of a run's folder; there is one at a time."""

    def __init__(self, root: Path, info: RunInfo, filesystem: FileSystem, lock: IO[str]) -> None:
        self.root = root
        self.info = info
        self.started = datetime.now(UTC)
        self.run_id = f"run-{self.started:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
        self._filesystem = filesystem
        self._staging = StagingArea(root, filesystem)
        self._lock = lock
        self._attempt_numbers = count(1)
        self._commits: dict[str, CommitRecord] = {}
        self._owners: dict[str, str] = {}  # path -> commit
        self._stale: frozenset[str] = frozenset()
        self._unmerged: set[str] = set()
        self._schedule = MergeSchedule()

    @classmethod
    def open(cls, out: Path | str, info: RunInfo, filesystem: FileSystem = LOCAL_FILES) -> Store:
        """Start a run in the folder `out`, or resume the one there; damaged tables are repaired.

        Raises:
            ValueError: naming the folder, when it is not a folder, holds other files, results of
                other weights or of another format, cannot be written, or when another process is
                writing there; then nothing has changed in it.
        """
        root = Path(out)
        check_folder(root, info.identity)
        try:
            filesystem.make_folder(root)
            lock = take_lock(root / LOCK)
        except OSError as error:
            raise ValueError(f"{root}: cannot be written: {error.strerror}") from None
        store = cls(root, info, filesystem, lock)
        try:
            store._begin()
        except OSError as error:
            lock.close()
            raise ValueError(f"{root}: cannot be written: {error.strerror}") from None
        except BaseException:
            lock.close()
            raise
        return store

    def add_version(self, name: str, version: str) -> None:
        """Record a version that became known during the run; stored when it is closed."""
        self.info = replace(self.info, versions={**self.info.versions, name: version})

    def outcomes(self) -> dict[str, str]:
        """key -> done, failed or invalid, of every complex whose result is complete and not
        stale.
        """
        return {
            commit: record.outcome
            for commit, record in self._commits.items()
            if record.kind == "complex" and commit not in self._stale
        }

    def outcome(self, key: str) -> str:
        """The outcome of a complex as in `outcomes`; empty where it has none."""
        record = self._commits.get(key)
        return record.outcome if record and key not in self._stale else ""

    def written(self, key: str) -> WriteConfig:
        """The settings with which the files of a complex that is done were written."""
        return WriteConfig(**self._commits[key].write)

    def mark_stale(self, present: Present, keep: bool = False) -> None:
        """Set what the input asks for now; to be called before any result is put.

        Results of anything else leave the tables, or stay there with their flag set when `keep`;
        they are not deleted and count again once they are asked for. Invalid records that are
        gone are removed.
        """
        stale = find_stale(self._commits, present)
        updates, lost = release_shared_paths(self.root, self._commits, stale)
        vanished = find_vanished(self._commits, present)
        self._merge(
            MergeChanges(drop=vanished | lost, updates=updates, stale=stale, keep_stale=keep)
        )

    def put(
        self,
        key: str,
        rows: Mapping[str, Sequence[Row]],
        files: Mapping[str, Content] | None = None,
        write: WriteConfig | None = None,
    ) -> None:
        """Store the result of a complex: all or nothing, in place of an earlier one.

        Args:
            key: identity of the result.
            rows: rows of each table, with at least one of `complexes`, whose outcome is the
                result's.
            files: bytes, or a function that writes to the path it is given, for each path
                relative to the folder.
            write: the settings with which the files of a complex that is done were made.

        Raises:
            ValueError: such a path belongs to another complex.
        """
        assert key not in self._stale, f"{key} is marked as stale: this run does not compute it"
        for path in files or {}:
            owner = self._owners.get(path, key)
            if owner != key:
                raise ValueError(f"{self.root / path}: complexes {owner} and {key} both write it")
        self._commit(key, "complex", rows, files or {}, write)
        self._merge_when_due()

    def put_attempt(self, row: Row) -> None:
        """Store a row of `attempts`; attempt_id and run_id are filled in."""
        attempt_id = f"{self.run_id}-{next(self._attempt_numbers):06}"
        row = {**row, "attempt_id": attempt_id, "run_id": self.run_id}
        self._commit(attempt_id, "attempt", {"attempts": [row]}, {})
        self._merge_when_due()

    def close(self, status: str = "finished") -> bool:
        """Record the end of the run, merge the tables and release the lock.

        Returns False, and logs a line, when that cannot be written: nothing is lost, and the next
        run makes up for it.
        """
        try:
            self._put_run(status)
            self._merge(MergeChanges(current_run=""))
        except (OSError, ValueError) as error:
            reason = _reason(error)
            logger.warning("%s: the tables are not up to date: %s", self.root, reason)
            return False
        finally:
            self._lock.close()
        return True

    def _begin(self) -> None:
        # Checked again under the lock, as another writer may just have been there.
        check_folder(self.root, self.info.identity)
        self._filesystem.make_folder(self.root / TEMPORARY)
        damage = find_damage(self.root)
        run = {
            "format": FORMAT,
            "run_id": self.run_id,
            "started": self.started.isoformat(),
            **asdict(self.info),
        }
        self._staging.install(
            {
                RUN_FILE: json.dumps(run, indent=2, sort_keys=True).encode(),
                DICTIONARY: to_parquet(dictionary()),
            }
        )
        self._recover(damage)
        self._put_run("running")
        self._merge(MergeChanges(current_run=self.run_id))

    def _recover(self, damage: Damage) -> None:
        """Repair merged files, and remove what a killed writer left."""
        for message in damage.messages:
            logger.warning("%s", message)
        snapshot = take_snapshot(self.root, trusted=damage.repaired)
        unmerged = intact_unmerged(self.root, snapshot)
        self._staging.remove(find_leftovers(self.root, unmerged, snapshot.manifest))
        self._merge(
            MergeChanges(
                drop=damage.lost - unmerged.keys(),
                repaired=damage.repaired,
                unpublished=damage.unpublished,
            )
        )

    def _merge_when_due(self) -> None:
        """Merge now and then while the run is in progress.

        A merge that fails for another reason than the disk's costs no result.
        """
        started = time.monotonic()
        num_merged = len(self._commits) - len(self._unmerged)
        if not self._schedule.is_due(len(self._unmerged), num_merged, started):
            return
        try:
            self._merge()
            self._schedule.record(started, time.monotonic())
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and is_disk_failure(error):
                raise
            self._schedule.stop()
            reason = _reason(error)
            logger.warning("%s: the tables are not brought up to date: %s", self.root, reason)

    def _merge(self, changes: MergeChanges = NO_CHANGES) -> None:
        """Merge the parts of every table into one file, publish it and delete the parts."""
        manifest = merge(self._staging, changes)
        self._commits = {}
        self._owners = {}
        self._unmerged = set()
        self._stale = frozenset(manifest.stale)
        for record in manifest.commits.values():
            self._register(record)

    def _put_run(self, status: str) -> None:
        """Store the row of this run, with the numbers of its results once it is over."""
        info = self.info
        row = {
            "run_id": self.run_id,
            "started": self.started,
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
        if status != "running":
            outcomes = list(self.outcomes().values())
            row["ended"] = datetime.now(UTC)
            for outcome in ("done", "failed", "invalid"):
                row[f"num_{outcome}"] = outcomes.count(outcome)
        self._commit(self.run_id, "run", {"runs": [row]}, {})

    def _commit(
        self,
        commit: str,
        kind: str,
        rows: Mapping[str, Sequence[Row]],
        files: Mapping[str, Content],
        write: WriteConfig | None = None,
    ) -> None:
        """Stage the files, remove the record and parts of an earlier version, give the files their
        names, and write the new record.
        """
        rows = {name: table_rows for name, table_rows in rows.items() if table_rows}
        parts = {
            f"parts/{name}/{commit}.parquet": to_parquet(to_arrow(TABLES[name], table_rows))
            for name, table_rows in rows.items()
        }
        staged = self._staging.stage({**parts, **files})
        self._staging.remove([commit_path(commit)])
        self._staging.remove(f"parts/{name}/{commit}.parquet" for name in TABLES)
        written = self._staging.publish(staged)
        main_row = rows[MAIN_TABLES[kind]][0]
        record = CommitRecord(
            id=commit,
            kind=kind,
            outcome=main_row["status"] if kind == "run" else main_row["outcome"],
            name=main_row.get("name", ""),
            settings_hash=main_row.get("settings_hash", ""),
            rows={name: len(table_rows) for name, table_rows in rows.items()},
            parts=dict(zip(rows, written, strict=False)),
            files=tuple(written[len(parts) :]),
            write=asdict(write) if write else {},
        )
        self._staging.install({commit_path(commit): to_json(record)})
        self._register(record)
        self._unmerged.add(commit)

    def _register(self, record: CommitRecord) -> None:
        self._commits[record.id] = record
        self._owners.update((file.path, record.id) for file in record.files)


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
