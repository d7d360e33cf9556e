"""Merging of runs: shards, or separate runs of one database, into the folder of one run."""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import pyarrow as pa

from foldcp.files import describe_error, sync_folder
from foldcp.pipeline.output_paths import check_folder_writable
from foldcp.pipeline.storage.commits.record import LOST, CommitRecord
from foldcp.pipeline.storage.merge import GROUP_COMMITS, GROUP_ROWS
from foldcp.pipeline.storage.merged_runs.agreement import (
    check_agreement,
    check_settings,
    missing_shards,
)
from foldcp.pipeline.storage.merged_runs.links import FileLinks
from foldcp.pipeline.storage.merged_runs.sources import Part, Source, open_source, parts_of
from foldcp.pipeline.storage.run_folder import RunInfo, is_being_written, kept_from_writers
from foldcp.pipeline.storage.store import Store

# Of results of one key, that of the first run with the first of these outcomes counts.
ORDER = {"done": 0, "failed": 1, "invalid": 2, LOST: 3}


@dataclass(frozen=True, slots=True)
class MergeSummary:
    """What a merged run has, and what it was made of.

    `num_repeated` counts the results that several runs had, `num_lost` those that have lost rows or
    files and were left behind, `files` the links and copies.
    """

    outcomes: dict[str, int]
    num_repeated: int
    num_lost: int
    missing_shards: list[str]
    files: dict[str, int]


def merge_runs(runs: Sequence[Path], out: Path, copy: bool = False) -> MergeSummary:
    """Make the folder `out` of the results, attempts and invocations of other runs.

    It is built beside `out` and renamed at the end. One group of the store is in memory at a time.

    Raises:
        ValueError: when `out` is neither new nor empty or cannot be written, a folder is not that
            of a run, is of another format, damaged or being written, or two runs do not agree.
    """
    check_folder_writable(out)
    out = Path(os.path.abspath(out))
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ValueError(f"{out}: neither new nor an empty folder; give another --out")
    folders = list(dict.fromkeys(Path(os.path.abspath(run)) for run in runs))
    try:
        with ExitStack() as held:
            for folder in folders:
                held.enter_context(kept_from_writers(folder))
            sources = [open_source(folder) for folder in folders]
            check_agreement(sources)
            choice = choose(sources)
            with _staging_folder(out) as staging:
                links = FileLinks(staging, out, copy)
                outcomes = _write(staging, sources, choice, links)
                os.sync()  # as links are, and folders, before the name
                os.rename(staging, out)
                sync_folder(out.parent)
    except OSError as error:
        path = error.filename or out
        raise ValueError(f"{path}: {describe_error(error)}; {out} was not made") from error
    return MergeSummary(
        outcomes,
        choice.num_repeated,
        choice.num_lost,
        missing_shards(sources),
        dict(links.counts),
    )


@dataclass(slots=True)
class Choice:
    """The run from which each commit is taken, by number."""

    places: dict[str, int] = field(default_factory=dict)
    num_repeated: int = 0
    num_lost: int = 0


def choose(sources: Sequence[Source]) -> Choice:
    """Look at all results of all runs, and choose among those of the same key.

    Raises ValueError, naming two folders, for results of different settings, and for two results
    that have a file of the same name.
    """
    choice = Choice()
    ranks: dict[str, int] = {}
    owners: dict[str, tuple[str, int]] = {}
    settings: tuple[int, str] | None = None
    for number, source in enumerate(sources):
        for part in parts_of(source):
            choice.num_lost += part.num_lost
            for commit, record in part.records.items():
                if record.kind == "complex" and record.settings_hash:
                    settings = settings or (number, record.settings_hash)
                    check_settings(sources[settings[0]], settings[1], source, record.settings_hash)
                rank = ORDER[record.outcome] if record.kind == "complex" else 0
                if commit in choice.places:
                    choice.num_repeated += record.kind == "complex"
                    if rank >= ranks.get(commit, 0):
                        continue
                choice.places[commit] = number
                if record.kind == "complex":
                    ranks[commit] = rank
                _check_owner(owners, record, number, sources)
    return choice


def _check_owner(
    owners: dict[str, tuple[str, int]], record: CommitRecord, number: int, sources: Sequence[Source]
) -> None:
    """Raise ValueError if another complex has one of a result's files, whose names are not keys."""
    for file in record.files:
        if record.id in file.path:
            continue
        owner, place = owners.setdefault(file.path, (record.id, number))
        if owner != record.id:
            raise ValueError(
                f"{sources[place].root} and {sources[number].root}: {file.path} is of the complex "
                f"{owner} in one and of {record.id} in the other"
            )


@contextmanager
def _staging_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` that is deleted unless it was renamed; a killed merge's is, too.

    Raises ValueError when another process is merging into `out`.
    """
    staging = out.parent / f".{out.name}.merging"
    if is_being_written(staging):
        raise ValueError(f"{out}: another process is merging there")
    if staging.exists():
        shutil.rmtree(staging)
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield staging
    finally:
        if staging.exists():
            shutil.rmtree(staging)


def _write(
    staging: Path, sources: Sequence[Source], choice: Choice, links: FileLinks
) -> dict[str, int]:
    """Fill the folder; returns the number of results with each outcome."""
    store = Store.open(staging, _info(sources))
    status = "interrupted"
    try:
        pending = _Pending(store)
        for number, source in enumerate(sources):
            for part in parts_of(source):
                chosen = [c for c in part.records if choice.places.get(c) == number]
                _link_files(part, chosen, links)
                pending.add(part, chosen)
        pending.flush()
        outcomes = Counter(store.outcomes().values())
        status = "finished"
    finally:
        is_closed = store.close(status)
    if not is_closed:
        raise ValueError(f"{staging}: the tables cannot be written")
    return dict(outcomes)


def _link_files(part: Part, commits: Sequence[str], links: FileLinks) -> None:
    for commit in commits:
        for file in part.records[commit].files:
            links.add(part.source.root, file.path)


class _Pending:
    """Commits that will be a group of the new folder, which is as large as others are."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._records: dict[str, CommitRecord] = {}
        self._rows: dict[str, list[pa.Table]] = {}

    def add(self, part: Part, commits: Sequence[str]) -> None:
        """Take commits of a run."""
        self._records |= {commit: part.records[commit] for commit in commits}
        for name, tables in part.rows(commits).items():
            self._rows.setdefault(name, []).extend(tables)
        sizes = [sum(rows.num_rows for rows in tables) for tables in self._rows.values()]
        if len(self._records) >= GROUP_COMMITS or max(sizes, default=0) >= GROUP_ROWS:
            self.flush()

    def flush(self) -> None:
        """Make the group."""
        if self._records:
            self._store.add_group(self._records, self._rows)
        self._records = {}
        self._rows = {}


def _info(sources: Sequence[Source]) -> RunInfo:
    """The content of run.json: the weights, settings and database that all runs have in common."""
    last = sources[-1].run
    inputs = dict.fromkeys(source.run["input"] for source in sources)
    return RunInfo(
        identity={"checkpoint": last["identity"].get("checkpoint")},
        command=" ".join(sys.argv),
        input=", ".join(inputs),
        checkpoint=last["checkpoint"],
        untrained=last["untrained"],
        settings=last["settings"],
        versions={"foldcp": metadata.version("foldcp")},
        checkpoint_sha256=last.get("checkpoint_sha256"),
        database=last.get("database", ""),
        merged_from=tuple(str(source.root) for source in sources),
    )
