"""Commits that are on the disk under temporary names, and count once they are published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from foldcp.pipeline.config import WriteConfig
from foldcp.pipeline.storage.commits.commit_file import UnmergedCommit, to_bytes, to_columns
from foldcp.pipeline.storage.commits.record import CommitRecord, File
from foldcp.pipeline.storage.filesystem import Content
from foldcp.pipeline.storage.schemas import TABLES, Row
from foldcp.pipeline.storage.staging import StagedFiles, StagingArea

# Kind of a commit -> the table that has one row or more of each such commit.
MAIN_TABLES = {"complex": "complexes", "attempt": "attempts", "run": "runs"}


@dataclass(frozen=True, slots=True)
class StagedCommit:
    """A commit with its files, and the file of the commit itself, which is published last."""

    commit: UnmergedCommit
    files: StagedFiles
    commit_file: StagedFiles

    @property
    def temporary_paths(self) -> list[str]:
        """The paths of all its files, relative to the run's folder."""
        return [temporary for _, temporary in (*self.files, *self.commit_file)]


def stage_commit(
    staging: StagingArea,
    id: str,
    kind: str,
    rows: Mapping[str, Sequence[Row]],
    files: Mapping[str, Content],
    write: WriteConfig | None = None,
) -> StagedCommit:
    """Write the files and rows of a commit to the disk: all, or none where one cannot be written.

    Arguments as of `Store.put`, for any kind of commit.
    """
    staged = staging.stage(files)
    content, commit = encode_commit(id, kind, rows, [file for file, _ in staged], write)
    try:
        commit_file = staging.stage({commit.path: content})
    except OSError:
        staging.remove(temporary for _, temporary in staged)
        raise
    return StagedCommit(commit, staged, commit_file)


def encode_commit(
    id: str,
    kind: str,
    rows: Mapping[str, Sequence[Row]],
    files: Sequence[File] = (),
    write: WriteConfig | None = None,
) -> tuple[bytes, UnmergedCommit]:
    """The content of a commit's file."""
    rows = without_empty(rows)
    columns = {name: to_columns(TABLES[name], part) for name, part in rows.items()}
    record = replace(
        new_record(id, kind, rows), files=tuple(files), write=asdict(write) if write else {}
    )
    return to_bytes(record, columns)


def new_record(id: str, kind: str, rows: Mapping[str, Sequence[Row]]) -> CommitRecord:
    """The record of a commit without files."""
    main_row = rows[MAIN_TABLES[kind]][0]
    return CommitRecord(
        id=id,
        kind=kind,
        outcome=main_row["status"] if kind == "run" else main_row["outcome"],
        name=main_row.get("name", ""),
        settings_hash=main_row.get("settings_hash", ""),
        rows={name: len(table_rows) for name, table_rows in rows.items()},
    )


def without_empty(rows: Mapping[str, Sequence[Row]]) -> dict[str, Sequence[Row]]:
    """The tables that have rows."""
    return {name: table_rows for name, table_rows in rows.items() if table_rows}
