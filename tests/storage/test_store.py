"""The store as users read it, and what it refuses."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from foldcp.pipeline.storage import filesystem as filesystem_module
from foldcp.pipeline.storage.filesystem import Content, FileSystem, is_disk_failure
from foldcp.pipeline.storage.merge import MERGE_SECONDS
from foldcp.pipeline.storage.run_folder import read_run
from foldcp.pipeline.storage.schemas import TABLES
from foldcp.pipeline.storage.store import Store
from foldcp.pipeline.storage.tables import read_table
from tests.support.crashing_filesystem import CrashingFileSystem, Killed
from tests.support.synthetic_results import ATTEMPT, INFO, RESULTS, finishing, result, tables


def test_pandas_reads_exactly_the_stored_rows(tmp_path: Path) -> None:
    out = tmp_path / "a=1" / "run"  # '=' looks like a partition to some readers
    with finishing(Store.open(out, INFO)) as store:
        store.put("k1", *result("k1", "done"))
        store.put("k2", *result("k2", "failed"))
        store.put_attempt(ATTEMPT)
        before = tables(out)
    after = {name: pd.read_parquet(out / "tables" / name) for name in TABLES}
    assert {name: len(frame) for name, frame in after.items()} == {
        "complexes": 3,
        "chains": 0,
        "interfaces": 4,
        "pairs": 0,
        "attempts": 1,
        "runs": 1,
    }
    assert tables(out) == before
    assert after["complexes"]["outcome"].tolist() == ["done", "done", "failed"]
    assert [list(notes) for notes in after["complexes"]["notes"]] == [
        [f"msa: no alignment for {key}", "stoichiometry: not given; one copy"]
        for key in ("k1", "k1", "k2")
    ]
    assert after["interfaces"]["interface_plddt"].isna().all()
    assert after["interfaces"].columns.tolist() == [
        column.name for column in TABLES["interfaces"].columns
    ]
    assert after["attempts"]["run_id"].tolist() == after["runs"]["run_id"].tolist()
    (run_row,) = after["runs"].to_dict("records")
    assert run_row["status"] == "finished" and run_row["ended"] >= run_row["started"]
    assert (run_row["num_done"], run_row["num_failed"], run_row["num_invalid"]) == (
        1,
        1,
        0,
    )
    assert run_row["untrained"] and json.loads(run_row["settings"]) == INFO.settings
    assert read_run(out)["identity"] == INFO.identity


def test_put_replaces_all_of_an_earlier_result(tmp_path: Path) -> None:
    """No part of the earlier result stays in a table that the new one has no rows for."""
    with finishing(Store.open(tmp_path / "run", INFO)) as store:
        store.put("k1", *result("k1", "done"))
        store.put("k1", *result("k1", "failed"))
        assert [path.name[:7] for path in (tmp_path / "run/parts/interfaces").iterdir()] == [
            "merged-"
        ]
    assert len(pd.read_parquet(tmp_path / "run/tables/interfaces")) == 0
    assert pd.read_parquet(tmp_path / "run/tables/complexes")["outcome"].tolist() == ["failed"]


def test_missing_numbers_are_null(tmp_path: Path) -> None:
    with finishing(Store.open(tmp_path / "run", INFO)) as store:
        store.put("k1", *result("k1", "done"))
    column = read_table(tmp_path / "run", "interfaces")["interface_plddt"]
    assert column.null_count == 4 and column.to_pylist() == [None] * 4


def test_parquet_fields_have_description_and_unit(tmp_path: Path) -> None:
    with finishing(Store.open(tmp_path / "run", INFO)):
        pass
    for name, table in TABLES.items():
        (path,) = (tmp_path / "run" / "tables" / name).iterdir()
        schema = pq.read_schema(path)
        assert schema.metadata[b"description"].decode() == table.description
        for field in schema:
            assert len(field.metadata[b"description"]) > 3 and b"unit" in field.metadata, field.name
        assert table.commit_column in schema.names and set(table.sort_columns) <= set(schema.names)
    directed = pq.read_schema(next((tmp_path / "run/tables/interfaces").iterdir()))
    assert b"frames in chain_a" in directed.field("iptm").metadata[b"description"]
    assert directed.field("pae_min").metadata[b"unit"] == "Å, lower is better".encode()


def test_two_runs_give_equal_bytes(tmp_path: Path) -> None:
    """Parts in another order, merged at other moments, and one result put twice."""
    for name, keys in (("a", ["k1", "k2", "k3"]), ("b", ["k3", "k1", "k1", "k2"])):
        with finishing(Store.open(tmp_path / name, INFO)) as store:
            for key in keys:
                store.put(key, *result(key, "failed" if key == "k2" else "done"))
                if name == "b":
                    store._merge()
    for table in RESULTS:
        (a,), (b,) = ((tmp_path / n / "tables" / table).iterdir() for n in "ab")
        assert a.read_bytes() == b.read_bytes()


def test_open_finishes_a_merge_that_was_killed(tmp_path: Path) -> None:
    """The folders are right for pandas again before the run resumes."""
    for fatal in range(200):
        out = tmp_path / str(fatal)
        filesystem = CrashingFileSystem(crash_step=10_000)
        store = Store.open(out, INFO, filesystem)
        store.put("k1", *result("k1", "done"))
        filesystem.crash_step = filesystem.steps + fatal
        try:
            store._merge()
        except Killed:
            store._lock.close()
            store = Store.open(out, INFO, CrashingFileSystem())
            assert len(pd.read_parquet(out / "tables/interfaces")) == 4
            assert len(pd.read_parquet(out / "tables/complexes")) == 2
        else:
            assert fatal > 30
            break
        finally:
            store._lock.close()


def test_merging_twice_changes_nothing(tmp_path: Path) -> None:
    with finishing(Store.open(tmp_path / "run", INFO)) as store:
        store.put("k1", *result("k1", "done"))
        store._merge()
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
        store._merge()
        assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before


@pytest.mark.parametrize("merged", [False, True])
def test_result_counts_only_while_its_files_exist(merged: bool, tmp_path: Path) -> None:
    out = tmp_path / "run"
    store = Store.open(out, INFO)
    for key in ("k1", "k2"):
        store.put(key, *result(key, "done"))
    if merged:
        store._merge()
    store.close()
    structure = out / "structures/k1/0.cif"
    structure.write_bytes(structure.read_bytes().replace(b"first", b"fifth"))
    with finishing(Store.open(out, INFO)) as store:
        assert set(store.outcomes()) == {"k1", "k2"}  # of a structure, only the size is checked
    structure.unlink()
    with finishing(Store.open(out, INFO)) as store:
        assert set(store.outcomes()) == {"k2"}
        assert {row["key"] for row in read_table(out, "interfaces").to_pylist()} == {"k2"}
    assert pd.read_parquet(out / "tables/interfaces")["key"].unique().tolist() == ["k2"]


def test_results_without_both_copies_of_a_table_are_computed_again(
    tmp_path: Path,
) -> None:
    with finishing(Store.open(tmp_path / "run", INFO)) as store:
        store.put("k1", *result("k1", "done"))
    for folder in ("parts", "tables"):
        next((tmp_path / "run" / folder / "interfaces").iterdir()).unlink()
    assert read_table(tmp_path / "run", "complexes").num_rows == 0
    with finishing(Store.open(tmp_path / "run", INFO)) as store:
        assert set(store.outcomes()) == set()
        store.put("k1", *result("k1", "done"))
    assert len(pd.read_parquet(tmp_path / "run/tables/interfaces")) == 4
    assert len(pd.read_parquet(tmp_path / "run/tables/complexes")) == 2


def run_json(out: Path, content: str) -> None:
    out.mkdir()
    (out / "run.json").write_bytes(content.encode("latin-1"))


def manifest(out: Path, content: str) -> None:
    Store.open(out, INFO).close()
    (out / "manifest.json").write_text(content)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda out: out.write_text("x"), "not a folder"),
        (
            lambda out: (out.mkdir(), (out / "thesis.txt").touch()),
            "neither empty nor the folder of a run",
        ),
        (lambda out: Store.open(out, INFO), "another process is writing there"),
        (
            lambda out: Store.open(out, replace(INFO, identity={"checkpoint": "xyz"})).close(),
            "checkpoint is 'xyz' there and 'abc' here; give another --out",
        ),
        (
            lambda out: Store.open(out, replace(INFO, identity={})).close(),
            "checkpoint is not given there and 'abc' here",
        ),
        (lambda out: run_json(out, "{"), "run.json: damaged: not JSON"),
        (lambda out: run_json(out, "\x00\xff"), "run.json: damaged: not JSON"),
        (lambda out: run_json(out, "[]"), "run.json: damaged: not what foldcp writes"),
        (
            lambda out: run_json(out, '{"format": 6}'),
            "run.json: damaged: run_id is None",
        ),
        (
            lambda out: manifest(out, "{"),
            "manifest.json: damaged .JSONDecodeError.; delete it",
        ),
        (
            lambda out: manifest(out, "[]"),
            "manifest.json: damaged: not what foldcp writes; delete it",
        ),
        (
            lambda out: manifest(out, '{"generation": "1"}'),
            "manifest.json: damaged: not what foldcp writes",
        ),
        (
            lambda out: manifest(out, '{"generation": 1, "tables": {"runs": 7}}'),
            "manifest.json: damaged",
        ),
    ],
)
def test_open_refuses_and_leaves_alone_other_folders(
    make: Callable[[Path], Any], message: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    made = make(out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=message) as error:
        Store.open(out, INFO)
    assert str(out) in str(error.value) and "\n" not in str(error.value)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    if isinstance(made, Store):
        made.close()


def as_format_2_wrote_it(out: Path) -> None:
    """A folder of one invalid complex, with the files and keys of format 2."""
    file = {"size": 4, "sha256": ""}
    files = {
        "run.json": {
            "format": 2,
            "run_id": "run-20260102T030405-abcdef",
            "started": "2026-01-02T03:04:05+00:00",
            "identity": INFO.identity,
            "command": INFO.command,
            "input": INFO.input,
            "checkpoint": INFO.checkpoint,
            "checkpoint_sha256": None,
            "untrained": True,
            "settings": INFO.settings,
            "versions": INFO.versions,
            "hardware": None,
        },
        "manifest.json": {
            "generation": 1,
            "tables": {"complexes": file | {"path": "parts/complexes/all-000001.parquet"}},
            "published": {},
            "units": {},
            "stale": [],
            "keep_stale": False,
            "running": "",
        },
        "receipts/k1.json": {
            "unit": "k1",
            "kind": "complex",
            "outcome": "unbuildable",
            "name": "one",
            "settings": "s1",
            "rows": {"complexes": 1},
            "tables": {"complexes": file | {"path": "parts/complexes/k1.parquet"}},
            "files": [],
            "released": [],
        },
    }
    for name, content in files.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(json.dumps(content))
    for name in ("complexes/all-000001", "complexes/k1"):
        (out / "parts" / name).parent.mkdir(parents=True, exist_ok=True)
        (out / f"parts/{name}.parquet").write_bytes(b"PAR1")


@pytest.mark.parametrize("format", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize(
    "use", [lambda out: Store.open(out, INFO), lambda out: read_table(out, "runs")]
)
def test_open_refuses_a_folder_of_another_format_in_one_line(
    use: Callable[[Path], Any], format: int, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    as_format_2_wrote_it(out)
    run = out / "run.json"
    run.write_text(run.read_text().replace('"format": 2', f'"format": {format}'))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(ValueError) as error:
        use(out)
    assert str(error.value) == (
        f"{out}: a folder of format {format}, but this version of foldcp reads format 6; "
        "give another --out, or use the version of foldcp that wrote it"
    )
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("merged", [True, False])
def test_columns_that_an_earlier_version_did_not_write_are_null(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, merged: bool
) -> None:
    table = TABLES["interfaces"]
    fewer = tuple(column for column in table.columns if column.name != "iptm")
    rows, files = result("k1", "done")
    for row in rows["interfaces"]:
        del row["iptm"]
    killed = tmp_path / "killed"
    finished = tmp_path / "finished"
    with monkeypatch.context() as earlier:
        earlier.setitem(TABLES, "interfaces", replace(table, columns=fewer))
        with finishing(Store.open(finished, INFO)) as store:
            store.put("k1", rows, files)
            shutil.copytree(finished, killed)
    out = finished if merged else killed
    assert read_table(out, "interfaces")["iptm"].null_count == 4
    with finishing(Store.open(out, INFO)) as store:
        assert store.outcomes().keys() == {"k1"}
        store.put("k2", *result("k2", "done"))
    stored = pd.read_parquet(out / "tables/interfaces")
    assert stored.columns.tolist() == [column.name for column in table.columns]
    assert stored["iptm"].isna().tolist() == [True] * 4 + [False] * 4


def test_put_refuses_a_file_of_another_complex(tmp_path: Path) -> None:
    with finishing(Store.open(tmp_path / "run", INFO)) as store:
        store.put("k1", result("k1", "done")[0], {"predictions/x/x.cif": b"1"})
        store.put("k1", result("k1", "done")[0], {"predictions/x/x.cif": b"2"})
        with pytest.raises(
            ValueError, match=r"predictions/x/x.cif: complexes k1 and k2 both write it"
        ):
            store.put("k2", result("k2", "done")[0], {"predictions/x/x.cif": b"3"})
    with pytest.raises(ValueError, match="not the folder of a run"):
        read_table(tmp_path, "complexes")


def test_put_that_fails_leaves_the_earlier_result(tmp_path: Path) -> None:
    def fails(path: Path) -> None:
        path.write_text("half")
        raise ValueError("not finite")

    with finishing(Store.open(tmp_path / "run", INFO)) as store:
        store.put("k1", *result("k1", "done"))
        before = tables(tmp_path / "run")
        with pytest.raises(ValueError, match="not finite"):
            store.put("k1", result("k1", "failed")[0], {"structures/k1/0.cif": fails})
        assert tables(tmp_path / "run") == before and store.outcomes() == {"k1": "done"}


def test_put_refuses_unknown_columns_and_missing_values(tmp_path: Path) -> None:
    rows, _ = result("k1", "failed")
    with finishing(Store.open(tmp_path / "run", INFO)) as store:
        with pytest.raises(AssertionError, match="ptmm"):
            store.put("k1", {"complexes": [rows["complexes"][0] | {"ptmm": 1.0}]})
        with pytest.raises(AssertionError, match="column title is string"):
            store.put("k1", {"complexes": [rows["complexes"][0] | {"title": 7}]})
        with pytest.raises(AssertionError, match="column reason"):
            store.put("k1", {"complexes": [rows["complexes"][0] | {"reason": None}]})


def test_files_and_folders_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real disk calls fsync for every file and every folder that got a name."""
    synced = []
    inner = filesystem_module.os.fsync
    monkeypatch.setattr(
        filesystem_module.os,
        "fsync",
        lambda fd: (synced.append(filesystem_module.os.fstat(fd).st_ino), inner(fd)),
    )
    with finishing(Store.open(tmp_path / "run", INFO)) as store:
        store.put("k1", *result("k1", "done"))
    for path in (tmp_path / "run").rglob("*"):
        if path.name not in (".lock", ".tmp"):  # what lies in them may be lost
            assert path.stat().st_ino in synced, path


def test_long_run_merges_while_in_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each merge is of half as many results as were merged before, within bounds."""
    monkeypatch.setattr("foldcp.pipeline.storage.merge.MIN_MERGE_COMMITS", 8)
    monkeypatch.setattr("foldcp.pipeline.storage.merge.MAX_UNMERGED_COMMITS", 14)
    folder = tmp_path / "run/tables/complexes"
    sizes = []
    with finishing(Store.open(tmp_path / "run", INFO, CrashingFileSystem())) as store:
        for n in range(60):
            store.put(f"k{n:03}", *result(f"k{n:03}", "failed"))
            sizes.append(len(pd.read_parquet(folder)))
            assert len(read_table(tmp_path / "run", "complexes")) == n + 1
            assert (
                len(pd.read_parquet(tmp_path / "run/tables/runs")) == 0
            )  # a kill would leave it as running
    merges = sorted(set(sizes) - {0})
    assert merges == [8, 16, 24, 36, 50]
    assert len(pd.read_parquet(folder)) == 60


def test_slow_run_merges_every_few_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("foldcp.pipeline.storage.merge.time.monotonic", lambda: clock[0])
    folder = tmp_path / "run/tables/complexes"
    with finishing(Store.open(tmp_path / "run", INFO, CrashingFileSystem())) as store:
        for seconds, published in (
            (10.0, 0),
            (MERGE_SECONDS, 2),
            (MERGE_SECONDS + 10.0, 2),
            (2 * MERGE_SECONDS, 4),
        ):
            clock[0] = seconds
            store.put(f"k{seconds}", *result(f"k{seconds}", "failed"))
            assert len(pd.read_parquet(folder)) == published


def test_failing_merge_costs_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A damaged merged file is not the fault of the complex that was just stored."""
    monkeypatch.setattr("foldcp.pipeline.storage.merge.MIN_MERGE_COMMITS", 2)
    with finishing(Store.open(tmp_path / "run", INFO)) as store:
        store.put("k1", *result("k1", "done"))
        store.put("k2", *result("k2", "done"))
        (own,) = (tmp_path / "run/parts/complexes").iterdir()
        own.write_bytes(bytes(own.stat().st_size))
        for key in ("k3", "k4", "k5"):
            store.put(key, *result(key, "done"))
        assert set(store.outcomes()) == {"k1", "k2", "k3", "k4", "k5"}
    assert len(caplog.messages) == 2  # of the merge, and of the last one
    assert all(str(own) in message and "\n" not in message for message in caplog.messages)
    with finishing(Store.open(tmp_path / "run", INFO)) as store:
        assert set(store.outcomes()) == {"k1", "k2", "k3", "k4", "k5"}


class FullFileSystem(FileSystem):
    """A disk on which nothing can be written any more once `error` is set."""

    error: int = 0

    def fill(self, path: Path, content: Content) -> None:
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        super().fill(path, content)


def test_close_on_a_full_disk_logs_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And never hides the error that ended the run."""
    filesystem = FullFileSystem()
    store = Store.open(tmp_path / "run", INFO, filesystem)
    store.put("k1", *result("k1", "done"))
    filesystem.error = errno.ENOSPC
    with pytest.raises(OSError, match="No space left"):
        store.put("k2", *result("k2", "done"))
    assert store.close("interrupted") is False
    assert caplog.messages == [
        f"{tmp_path / 'run'}: the tables are not up to date: No space left on device"
    ]
    assert read_table(tmp_path / "run", "runs")["status"].to_pylist() == ["interrupted"]
    with pytest.raises(ValueError, match="run: cannot be written: No space left on device"):
        Store.open(tmp_path / "run", INFO, filesystem)
    with finishing(Store.open(tmp_path / "run", INFO)) as store:
        assert set(store.outcomes()) == {"k1"}
    assert set(pd.read_parquet(tmp_path / "run/tables/complexes")["key"]) == {"k1"}


def test_is_disk_failure() -> None:
    assert all(
        is_disk_failure(OSError(number, ""))
        for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
    )
    others = (
        errno.ENAMETOOLONG,
        errno.EACCES,
        errno.ENOENT,
        errno.EISDIR,
        errno.ENOTDIR,
    )
    assert not any(is_disk_failure(OSError(number, "")) for number in others)
    assert not is_disk_failure(OSError("no number"))


def test_status_of_a_killed_run_is_interrupted(tmp_path: Path) -> None:
    out = tmp_path / "run"
    killed = Store.open(out, INFO)
    assert read_table(out, "runs")["status"].to_pylist() == ["running"]
    assert len(pd.read_parquet(out / "tables/runs")) == 0
    killed._lock.close()
    assert read_table(out, "runs")["status"].to_pylist() == ["interrupted"]
    with finishing(Store.open(out, INFO)):
        assert read_table(out, "runs")["status"].to_pylist() == [
            "interrupted",
            "running",
        ]
        assert pd.read_parquet(out / "tables/runs")["status"].tolist() == ["interrupted"]
    assert pd.read_parquet(out / "tables/runs")["status"].tolist() == [
        "interrupted",
        "finished",
    ]


def test_open_waits_for_a_reader_that_holds_the_lock(tmp_path: Path) -> None:
    """A process that checks whether a run is in progress holds the lock for an instant."""
    out = tmp_path / "run"
    Store.open(out, INFO).close()
    with (out / ".lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        threading.Timer(0.2, lambda: fcntl.flock(file, fcntl.LOCK_UN)).start()
        with finishing(Store.open(out, INFO)) as store:
            assert set(store.outcomes()) == set()


def test_text_that_is_not_utf8_is_stored_escaped(tmp_path: Path) -> None:
    rows, files = result("k1", "failed")
    with finishing(
        Store.open(tmp_path / "run", replace(INFO, command="foldcp score caf\udce9"))
    ) as store:
        store.put(
            "k1",
            {
                "complexes": [
                    rows["complexes"][0]
                    | {"source": "caf\udce9.fasta", "title": "é", "notes": ("a: caf\udce9", "b: é")}
                ]
            },
            files,
        )
    (row,) = pd.read_parquet(tmp_path / "run/tables/complexes").to_dict("records")
    assert (row["source"], row["title"]) == (r"caf\udce9.fasta", "é")
    assert row["notes"].tolist() == [r"a: caf\udce9", "b: é"]
    assert pd.read_parquet(tmp_path / "run/tables/runs")["command"].tolist() == [
        r"foldcp score caf\udce9"
    ]


def test_open_leaves_other_files_in_the_folder_alone(tmp_path: Path) -> None:
    with finishing(Store.open(tmp_path / "run", INFO)) as store:
        store.put("k1", *result("k1", "done"))
    mine = tmp_path / "run/tables/complexes/notes.txt"
    mine.write_text("mine")
    with finishing(Store.open(tmp_path / "run", INFO)):
        pass
    assert mine.read_text() == "mine"


def test_many_complexes_are_merged_quickly(tmp_path: Path) -> None:
    """100 complexes: one file for each table, in the order of the names."""
    with finishing(Store.open(tmp_path / "run", INFO, CrashingFileSystem())) as store:
        for n in np.random.default_rng(0).permutation(100):
            store.put(f"k{n:03}", *result(f"k{n:03}", "done"))
    frame = pd.read_parquet(tmp_path / "run/tables/interfaces")
    assert len(frame) == 400 and frame["name"].is_monotonic_increasing
    assert not frame.duplicated(["key", "sample", "chain_a", "chain_b"]).any()
