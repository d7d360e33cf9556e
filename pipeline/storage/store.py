"""Writer of a run's folder, such that a kill at any instant loses at most the complex in flight.

    RUN/run.json                                  the run: settings, versions, weights
    RUN/tables/<table>/<table>-<group>.parquet    the table for readers, as of the last merge
    RUN/tables/dictionary.parquet                 type, unit and meaning of every column
    RUN/commits/<commit>.jsonl                    a complex, a run or attempts, not merged yet
    RUN/commits/<commit>.replacing                the mark of one whose files are being replaced
    RUN/parts/                                    merged groups of commits, see manifest.py
    RUN/structures/<ke>/<key>/<sample>.cif.gz
    RUN/manifest.json                             which of them count
    RUN/.tmp/, RUN/.lock                          files being written; the lock of the one writer

Every file is written under .tmp, synced and renamed; that of the commit comes last. A file in
tables/ appears and is replaced by one rename, and a row never moves from one to another, so that
whoever reads them sees each row once at every instant; `read_table` also gives what has not been
merged yet.
"""

from __future__ import annotations

import gc
import json
import logging
import secrets
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import cache
from itertools import count
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from foldcp.pipeline.config import WriteConfig
from foldcp.pipeline.storage.commits.commit_file import (
    COMMITS,
    UnmergedCommit,
    commit_of,
    has_intact_rows,
    join,
    mark_path,
    to_columns,
)
from foldcp.pipeline.storage.commits.record import LOST, CommitRecord, find_lost_files
from foldcp.pipeline.storage.commits.staged_commit import (
    StagedCommit,
    encode_commit,
    new_record,
    stage_commit,
    without_empty,
)
from foldcp.pipeline.storage.filesystem import Content, FileSystem, is_disk_failure
from foldcp.pipeline.storage.manifest import (
    GroupRecords,
    Manifest,
    check_records,
    read_manifest,
    read_records,
    read_unmerged,
)
from foldcp.pipeline.storage.merge import (
    GroupChanges,
    MergeSchedule,
    merge_group,
    place_commits,
)
from foldcp.pipeline.storage.parquet import to_arrow, to_parquet
from foldcp.pipeline.storage.repair import find_damage, find_leftovers
from foldcp.pipeline.storage.results.derived_tables import derive, is_due
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
from foldcp.pipeline.storage.tables import unmerged_rows

LOCAL_FILES = FileSystem()
logger = logging.getLogger(__name__)


@contextmanager
def without_collections() -> Iterator[None]:
    """No garbage collection within: rows and records are many objects, and have no cycles."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


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
        self._manifest = Manifest()
        self._unmerged: dict[str, UnmergedCommit] = {}
        self._outcomes: dict[str, str] = {}  # of complexes
        self._written: dict[str, WriteConfig] = {}  # of complexes that are done
        self._stale: set[str] = set()
        self._places: dict[str, int] = {}  # commit -> number of its group, but for attempts
        self._owners: dict[str, str] = {}  # path that does not hold its complex's key -> that key
        self._written_before: dict[str, WriteConfig] = {}  # of results that have lost files
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
            filesystem.sync_all(filesystem.make_folder(root))
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
        return {key: outcome for key, outcome in self._outcomes.items() if key not in self._stale}

    def outcome(self, key: str) -> str:
        """The outcome of a complex as in `outcomes`; empty where it has none."""
        return "" if key in self._stale else self._outcomes.get(key, "")

    def written(self, key: str) -> WriteConfig:
        """The settings with which the files of a complex that is done were written."""
        return self._written.get(key, WriteConfig())

    def written_before(self, key: str) -> WriteConfig | None:
        """The settings with which the files of a result were written that does not count any more,
        as some are missing or shortened; None for any other complex.
        """
        return self._written_before.get(key)

    def mark_stale(self, present: Present, keep: bool = False) -> None:
        """Set what the input asks for now; to be called before any result is put.

        Results of anything else leave the tables, or stay there with their flag set when `keep`;
        they are not deleted and count again once they are asked for. Invalid records that are
        gone are removed.
        """
        self._merge()
        self._manifest = replace(self._manifest, keep_stale=keep)
        self._owners.clear()
        # What leaves goes first, so that no reader sees a complex with two of its results.
        for returns in (False, True):
            for number in range(len(self._manifest.groups)):
                self._mark_group(number, present, returns)
        self._manifest = derive(self._staging, self._manifest)

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
            write: the settings with which the files of a complex that is done were made; of one
                that failed, `written_before`.

        Raises:
            ValueError: such a path belongs to another complex.
        """
        self._check_owners(key, files or {})
        staged = stage_commit(self._staging, key, "complex", rows, files or {}, write)
        for error in self.put_staged([staged]).values():
            raise error
        self.merge_when_due()

    def put_staged(self, commits: Sequence[StagedCommit]) -> dict[str, OSError | ValueError]:
        """Store results that are staged in this folder, also by other processes.

        As `put`, but each is stored or not on its own: returns the errors of those that are not, by
        key, and removes these. Raises OSError when the disk fails.
        """
        errors: dict[str, OSError | ValueError] = {}
        for staged in commits:
            record = staged.commit.record
            try:
                self._check_owners(record.id, [file.path for file in record.files])
            except ValueError as error:
                errors[record.id] = error
                self._staging.remove(staged.temporary_paths)
            else:
                self._own_files(record)
        checked = [staged for staged in commits if staged.commit.record.id not in errors]
        return errors | self._publish(checked)

    def clear_staged(self, owner: str) -> None:
        """Delete what another process has staged and does not finish, as it was killed."""
        self._staging.clear(owner)

    def _check_owners(self, key: str, paths: Iterable[str]) -> None:
        """Raise ValueError if a path belongs to another complex."""
        assert key not in self._stale, f"{key} is marked as stale: this run does not compute it"
        for path in paths:
            owner = self._owners.get(path, key)
            if owner != key:
                raise ValueError(f"{self.root / path}: complexes {owner} and {key} both write it")

    def put_many(self, results: Mapping[str, Mapping[str, Sequence[Row]]]) -> None:
        """Store results without files, by key: straight into the merged tables, so that many take
        no longer than one. A kill may leave some of them.
        """
        self._merge()
        records = {
            key: new_record(key, "complex", without_empty(rows)) for key, rows in results.items()
        }
        placed = place_commits(self._manifest.groups, records.values(), self._places)
        for number, keys in placed.items():
            rows = {
                name: [row for key in keys for row in results[key].get(name, ())]
                for name in {name for key in keys for name in records[key].rows}
            }
            tables = {
                name: [to_arrow(TABLES[name], [to_columns(TABLES[name], part)], [len(part)])]
                for name, part in rows.items()
            }
            incoming = {key: records[key] for key in keys}
            changes = GroupChanges(incoming=incoming, incoming_rows=tables)
            self._merge_group(number, self._records(number), changes)

    def add_group(
        self, records: Mapping[str, CommitRecord], rows: Mapping[str, Sequence[pa.Table]]
    ) -> None:
        """Take commits of another folder, with their rows, as a group; their files are here
        already.
        """
        number = len(self._manifest.groups)
        changes = GroupChanges(incoming=records, incoming_rows=rows)
        self._merge_group(number, GroupRecords(), changes)

    def put_attempt(self, row: Row) -> None:
        """Store a row of `attempts`; attempt_id and run_id are filled in."""
        self.put_attempts([row])
        self.merge_when_due()

    def put_attempts(self, rows: Sequence[Row]) -> None:
        """Store rows of `attempts`, as `put_attempt`; nothing is merged."""
        parts = []
        for row in rows:
            id = f"{self.run_id}-{next(self._attempt_numbers):06}"
            row = {**row, "attempt_id": id, "run_id": self.run_id}
            parts.append(encode_commit(id, "attempt", {"attempts": [row]}))
        if not parts:
            return
        content, commits = join(parts)
        self._staging.install({commits[0].path: content})
        for commit in commits:
            self._add(commit)

    def close(self, status: str = "finished") -> bool:
        """Record the end of the run, merge the tables and release the lock.

        Returns False, and logs a line, when that cannot be written: nothing is lost, and the next
        run makes up for it.
        """
        try:
            self._put_run(status)
            self._manifest = replace(self._manifest, current_run="")
            self._merge()
            self._manifest = derive(self._staging, self._manifest)
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
        self._filesystem.sync_all(self._filesystem.make_folder(self.root / TEMPORARY))
        self._manifest = read_manifest(self.root)
        for group in self._manifest.groups:
            check_records(self.root, group)  # before anything is written
        self._staging.clear()
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
        self._manifest = replace(self._manifest, current_run=self.run_id)
        self._recover()
        self._put_run("running")
        self._merge()
        self._manifest = derive(self._staging, self._manifest)

    def _recover(self) -> None:
        """Repair merged files, and remove what a killed writer left."""
        unmerged = {
            name: commit
            for name, commit in read_unmerged(self.root).items()
            if has_intact_rows(self.root, commit)
        }
        own = {commit.path for commit in unmerged.values()}
        others = {
            path.relative_to(self.root).as_posix(): commit_of(path)
            for path in (self.root / COMMITS).glob("*")
        }
        others = {path: commit for path, commit in others.items() if path not in own}
        # Files of these may have been replaced by those of a version that was not completed. They
        # are known by what is in commits/, which so stays until their groups have been looked at.
        suspects = set(others.values()) - unmerged.keys()
        self._staging.remove(find_leftovers(self.root, own | others.keys(), self._manifest))
        for number in range(len(self._manifest.groups)):
            self._recover_group(number, unmerged, suspects)
        self._staging.remove(others)
        for commit in unmerged.values():
            self._register(commit.record)
        self._unmerged = unmerged
        self._merge()

    def _recover_group(
        self, number: int, unmerged: dict[str, UnmergedCommit], suspects: Collection[str]
    ) -> None:
        """Repair the files of a group, and merge newer versions of its commits, which leave
        `unmerged`. Only `suspects` may have files that are replaced in part.
        """
        group = self._manifest.groups[number]
        records = read_records(self.root, group)
        damage = find_damage(self.root, group, records)
        for message in damage.messages:
            logger.warning("%s", message)
        again = [unmerged.pop(name) for name in unmerged.keys() & records.commits.keys()]
        lost = damage.lost | find_lost_files(self.root, records.commits, suspects)
        lost -= {commit.record.id for commit in again}
        remains = _without_results(records.commits, lost)
        changes = GroupChanges(
            incoming={commit.record.id: commit.record for commit in again} | remains,
            incoming_rows=unmerged_rows(self.root, again, list(TABLES.values())),
            drop=lost - remains.keys(),
            repaired=damage.repaired,
            unpublished=damage.unpublished,
        )
        self._merge_group(number, records, changes)
        self._remove_merged(again, unmerged)

    def _mark_group(self, number: int, present: Present, returns: bool) -> None:
        """Mark the stale results of a group; those that count again do so if `returns`."""
        records = self._records(number)
        stale = find_stale(records.commits, present)
        if not returns:
            stale |= records.stale
        updates, lost = release_shared_paths(self.root, records.commits, stale)
        vanished = find_vanished(records.commits, present)
        remains = _without_results(records.commits, lost)
        changes = GroupChanges(
            incoming=remains,
            drop=vanished | (lost - remains.keys()),
            updates=updates,
            stale=stale,
        )
        self._merge_group(number, records, changes)

    def merge_when_due(self) -> None:
        """Merge now and then while the run is in progress; that may take seconds.

        A merge that fails for another reason than the disk's costs no result.
        """
        started = time.monotonic()
        num_merged = sum(group.num_commits for group in self._manifest.groups)
        if not self._schedule.is_due(len(self._unmerged), num_merged, started):
            return
        try:
            self._merge()
            if is_due(self._manifest):
                self._manifest = derive(self._staging, self._manifest)
            self._schedule.record(started, time.monotonic())
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and is_disk_failure(error):
                raise
            self._schedule.stop()
            reason = _reason(error)
            logger.warning("%s: the tables are not brought up to date: %s", self.root, reason)

    @without_collections()
    def _merge(self) -> None:
        """Merge the commits that are not merged, one group after the other."""
        commits = [commit.record for commit in self._unmerged.values()]
        placed = place_commits(self._manifest.groups, commits, self._places)
        for number, names in placed.items():
            unmerged = [self._unmerged[name] for name in names]
            changes = GroupChanges(
                incoming={commit.record.id: commit.record for commit in unmerged},
                incoming_rows=unmerged_rows(self.root, unmerged, list(TABLES.values())),
            )
            self._merge_group(number, self._records(number), changes)
            for name in names:
                del self._unmerged[name]
            self._remove_merged(unmerged, self._unmerged)

    def _remove_merged(
        self, merged: Iterable[UnmergedCommit], unmerged: Mapping[str, UnmergedCommit]
    ) -> None:
        """Delete the files of commits that have been merged, unless others in them have not."""
        kept = {commit.path for commit in unmerged.values()}
        self._staging.remove({commit.path for commit in merged} - kept)

    def _merge_group(self, number: int, old: GroupRecords, changes: GroupChanges) -> None:
        """Merge changes into a group, and remember which commits it holds.

        Raises ValueError when the manifest is not the one that this process knows: that of a merge
        which failed after it was written, and which only the next run can complete; or that of
        another writer, where the file system has no locks.
        """
        if read_manifest(self.root).generation != self._manifest.generation:
            raise ValueError(
                f"{self.root}: the last merge was not completed, or another process is writing "
                "there; the next run completes it"
            )
        self._manifest, new = merge_group(self._staging, self._manifest, number, old, changes)
        for commit in old.commits.keys() - new.commits.keys():
            self._outcomes.pop(commit, None)
            self._written.pop(commit, None)
            self._places.pop(commit, None)
        self._stale = (self._stale - old.stale) | new.stale
        for record in new.commits.values():
            self._register(record)
            if record.kind != "attempt":
                self._places[record.id] = number

    def _records(self, number: int) -> GroupRecords:
        """The records of a group; none of one that is to be made."""
        groups = self._manifest.groups
        return read_records(self.root, groups[number]) if number < len(groups) else GroupRecords()

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
            "shard": info.shard,
            "merged_from": info.merged_from,
        }
        if status != "running":
            outcomes = Counter(self.outcomes().values())
            row["ended"] = datetime.now(UTC)
            for outcome in ("done", "failed", "invalid"):
                row[f"num_{outcome}"] = outcomes[outcome]
        content, commit = encode_commit(self.run_id, "run", {"runs": [row]})
        self._staging.install({commit.path: content})
        self._add(commit)

    def _publish(self, commits: Sequence[StagedCommit]) -> dict[str, OSError | ValueError]:
        """Give files their names, and then the commits, of which each counts from then on.

        Meanwhile earlier versions, whose files are replaced, are marked. Returns errors as
        `put_staged`.
        """
        marks = [
            mark_path(staged.commit.record.id)
            for staged in commits
            if staged.files
            and (
                staged.commit.record.id in self._unmerged or staged.commit.record.id in self._places
            )
        ]
        self._staging.install(dict.fromkeys(marks, b""))
        errors: dict[str, OSError | ValueError] = {}
        changed: list[Path] = []
        for staged in commits:
            try:
                changed += self._staging.rename(staged.files)
            except OSError as error:
                if is_disk_failure(error):
                    raise
                errors[staged.commit.record.id] = error
                self._staging.remove(staged.temporary_paths)
        self._staging.sync(changed)
        stored = [staged for staged in commits if staged.commit.record.id not in errors]
        self._staging.publish([file for staged in stored for file in staged.commit_file])
        for staged in stored:
            self._add(staged.commit)
        self._staging.remove(set(marks) - {mark_path(id) for id in errors})
        return errors

    def _add(self, commit: UnmergedCommit) -> None:
        """Count a commit that is on the disk."""
        self._unmerged[commit.record.id] = commit
        self._register(commit.record)

    def _register(self, record: CommitRecord) -> None:
        if record.kind == "complex":
            self._register_result(record)
        self._own_files(record)

    def _own_files(self, record: CommitRecord) -> None:
        """Remember whose files those are whose paths do not say so."""
        for file in record.files:
            if record.id not in file.path:
                self._owners[file.path] = record.id

    def _register_result(self, record: CommitRecord) -> None:
        self._outcomes.pop(record.id, None)
        if record.outcome != LOST:
            self._outcomes[record.id] = record.outcome
        if record.outcome == "done":
            self._written_before.pop(record.id, None)
        if record.write:
            written = self._written if record.outcome == "done" else self._written_before
            written[record.id] = _write_config(**record.write)


@cache
def _write_config(**settings: Any) -> WriteConfig:
    """The same object for the same settings: a run has few different ones, and many results."""
    return WriteConfig(**settings)


def _without_results(
    commits: Mapping[str, CommitRecord], lost: Collection[str]
) -> dict[str, CommitRecord]:
    """The records of lost results without what is lost: they are kept until they are folded again,
    with all files that they had, by whichever run.
    """
    return {
        commit: replace(commits[commit], outcome=LOST, rows={}, files=(), released=())
        for commit in lost
        if commits[commit].write
    }


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
