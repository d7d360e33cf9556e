"""Results whose files are replaced in place, and readers while merges go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from foldcp.pipeline.config import WriteConfig
from foldcp.pipeline.storage.filesystem import Content, FileSystem
from foldcp.pipeline.storage.manifest import MANIFEST, take_snapshot
from foldcp.pipeline.storage.staleness import Present
from foldcp.pipeline.storage.store import Store
from foldcp.pipeline.storage.tables import count_stale, read_file_paths, read_fresh, read_table
from tests.support.crashing_filesystem import CrashingFileSystem, Killed
from tests.support.synthetic_results import INFO, finishing, result, tables

PATHS = ["structures/k1/0.cif", "structures/k1/1.cif"]


def version(name: str) -> tuple[Any, Any]:
    """Rows and files of k1 that both hold `name`; all versions have files of equal sizes."""
    rows, _ = result("k1", "done")
    named = {table: [row | {"name": name} for row in part] for table, part in rows.items()}
    return named, {path: name.encode() for path in PATHS}


def names(out: Path) -> set[str]:
    """The versions of k1 that the tables show."""
    return {row["name"] for part in tables(out).values() for row in part if row["key"] == "k1"}


def texts(out: Path) -> set[str]:
    return {(out / path).read_text() for path in PATHS}


@pytest.mark.parametrize("loss", [0.0, 0.5], ids=["kill", "power cut"])
def test_kill_never_leaves_new_files_beside_merged_old_rows(loss: float, tmp_path: Path) -> None:
    """Neither for readers after the kill, nor once another run has begun."""
    for fatal in range(100):
        out = tmp_path / str(fatal)
        filesystem = CrashingFileSystem(10_000, loss)
        with finishing(Store.open(out, INFO)) as store:
            store.put("k1", *version("one"))
        store = Store.open(out, INFO, filesystem)
        filesystem.crash_step = filesystem.steps + fatal
        try:
            store.put("k1", *version("two"))
        except Killed:
            for _ in range(2):
                assert not names(out) or names(out) == texts(out), fatal
                store._lock.close()
                store = Store.open(out, INFO)
                assert (store.outcome("k1") == "done") == bool(names(out))
        else:
            assert fatal > 15
            break
        finally:
            store._lock.close()
        assert not list((out / "commits").glob("*.replacing"))
    else:
        raise AssertionError("the put never ended")


def test_result_whose_newer_version_lost_a_file_is_folded_again(tmp_path: Path) -> None:
    """The former version's rows do not come back beside the newer one's files."""
    out = tmp_path / "run"
    with finishing(Store.open(out, INFO)) as store:
        store.put("k1", *version("one"))
    store = Store.open(out, INFO)
    rows, files = version("two")
    store.put("k1", rows, {**files, "structures/k1/more.npz": b"more"})
    store._lock.close()
    (out / "structures/k1/more.npz").unlink()
    with finishing(Store.open(out, INFO)) as store:
        assert not store.outcome("k1")


def superseded(monkeypatch: pytest.MonkeyPatch, out: Path) -> list[Any]:
    """Let the next reader begin with the present snapshot; empty once it has."""
    old = [take_snapshot(out)]
    monkeypatch.setattr(
        "foldcp.pipeline.storage.tables.take_snapshot",
        lambda root: old.pop() if old else take_snapshot(root),
    )
    return old


def test_reader_of_merged_files_that_a_merge_has_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    with finishing(Store.open(out, INFO)) as store:
        store.put("k1", *result("k1", "done"))
        store._merge()
        for read in (
            lambda: read_table(out, "complexes")["key"].to_pylist(),
            lambda: read_file_paths(out),
        ):
            with monkeypatch.context() as patch:
                old = superseded(patch, out)
                store.put("k2", *result("k2", "done"))
                store._merge()
                assert {"k1", "k2"} <= set(read())
                assert not old


def test_reader_of_stale_marks_that_a_merge_has_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    with finishing(Store.open(out, INFO)) as store:
        for key in ("k1", "k2"):
            store.put(key, *result(key, "done"))
        store.mark_stale(Present(frozenset({"k2"})))
        old = superseded(monkeypatch, out)
        store.mark_stale(Present(frozenset({"k2"})), keep=True)
        assert set(read_fresh(out, "complexes")["key"].to_pylist()) == {"k2"}
        assert not old


def test_tables_hold_no_row_twice_after_the_manifest_was_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    monkeypatch.setattr("foldcp.pipeline.storage.merge.GROUP_COMMITS", 1)
    for _ in range(2):
        with finishing(Store.open(out, INFO)) as store:
            for key in sorted({"k3", "k1", "k2"} - store.outcomes().keys()):
                store.put(key, *result(key, "failed"))
                store._merge()
        assert sorted(pd.read_parquet(out / "tables/complexes")["key"]) == ["k1", "k2", "k3"]
        (out / MANIFEST).unlink()
    store = Store.open(out, INFO)
    store._lock.close()
    assert not list((out / "tables/complexes").glob("*.parquet")) or not len(
        pd.read_parquet(out / "tables/complexes")
    )


class FailingFileSystem(FileSystem):
    """The local file system, whose removals fail after some of them."""

    allowed: int | None = None

    def remove(self, path: Path) -> None:
        if self.allowed is not None:
            if not self.allowed:
                raise OSError(5, "Input/output error", str(path))
            self.allowed -= 1
        super().remove(path)


def test_merge_that_failed_half_way_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later merge of the same process, of another group, does not bring back the old manifest."""
    out = tmp_path / "run"
    monkeypatch.setattr("foldcp.pipeline.storage.merge.GROUP_COMMITS", 2)
    filesystem = FailingFileSystem()
    store = Store.open(out, INFO, filesystem)
    for key in ("k1", "k2", "k3"):
        store.put(key, *result(key, "failed"))
    filesystem.allowed = 4  # all of the first group, and one of two commits of the second
    with pytest.raises(OSError, match="Input/output"):
        store._merge()
    filesystem.allowed = None
    store.put("k1", *result("k1", "done"))
    store.close()
    with finishing(Store.open(out, INFO)) as store:
        assert store.outcomes() == {"k1": "done", "k2": "failed", "k3": "failed"}
    assert set(read_table(out, "complexes")["key"].to_pylist()) == {"k1", "k2", "k3"}


def test_lost_files_are_known_until_they_are_there_again(tmp_path: Path) -> None:
    """Also to the run after one that was stopped, or failed, before it came to the result."""
    out = tmp_path / "run"
    write = WriteConfig(files=("pde",))
    with finishing(Store.open(out, INFO)) as store:
        store.put("k1", *version("one"), write)
    (out / PATHS[0]).unlink()
    for _ in range(2):
        store = Store.open(out, INFO)
        assert store.written_before("k1") == write
        assert not store.outcomes() and not names(out)
        store._lock.close()
    with finishing(Store.open(out, INFO)) as store:
        store.put("k1", result("k1", "failed")[0], write=store.written_before("k1"))
    with finishing(Store.open(out, INFO)) as store:
        assert store.outcome("k1") == "failed"
        assert store.written_before("k1") == write
        store.put("k1", *version("two"), write)
    with finishing(Store.open(out, INFO)) as store:
        assert store.written_before("k1") is None
        store.mark_stale(Present(frozenset()))
        assert count_stale(out) == 1


def test_lost_result_that_is_not_asked_for_is_forgotten(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with finishing(Store.open(out, INFO)) as store:
        store.put("k1", *version("one"), WriteConfig())
    (out / PATHS[0]).unlink()
    with finishing(Store.open(out, INFO)) as store:
        store.mark_stale(Present(frozenset()))
    assert count_stale(out) == 0
    assert read_file_paths(out).keys() == set(read_table(out, "runs")["run_id"].to_pylist())


def test_a_run_begins_by_removing_what_fills_the_disk(tmp_path: Path) -> None:
    """Temporary files of a killed writer go before anything is written."""
    out = tmp_path / "run"
    with finishing(Store.open(out, INFO)):
        pass
    left = out / ".tmp/7"
    left.write_bytes(b"much")
    written = []

    class WatchedFileSystem(FileSystem):
        def fill(self, path: Path, content: Content) -> None:
            written.append(left.exists())
            super().fill(path, content)

    with finishing(Store.open(out, INFO, WatchedFileSystem())):
        pass
    assert written and not any(written)


def test_put_that_fails_leaves_no_temporary_files(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(36, "File name too long", str(path))

    out = tmp_path / "run"
    rows, files = result("k1", "done")
    with finishing(Store.open(out, INFO)) as store:
        with pytest.raises(OSError, match="too long"):
            store.put("k1", rows, {**files, "structures/k1/last.cif": fail})
        assert not list((out / ".tmp").iterdir())


def test_files_that_another_result_has_replaced_are_known(tmp_path: Path) -> None:
    """A result whose files are another's now gets all of them back when it is asked for."""
    out = tmp_path / "run"
    write = WriteConfig(files=("boltz",))
    for key in ("k1", "k2", "k1"):
        with finishing(Store.open(out, INFO)) as store:
            store.mark_stale(Present(frozenset({key})))
            former = store.written_before(key)
            store.put(key, result(key, "done")[0], {"predictions/x/x.cif": key.encode()}, write)
    assert former == write


def test_no_reader_sees_two_results_of_a_complex(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even while a former result, of an earlier file of the tables, begins to count again."""
    out = tmp_path / "run"
    monkeypatch.setattr("foldcp.pipeline.storage.merge.GROUP_COMMITS", 1)
    rows = result("k1", "failed")[0]
    for key in ("k1", "k2"):
        with finishing(Store.open(out, INFO)) as store:
            store.mark_stale(Present(frozenset({key})))
            store.put(
                key, {name: [row | {"key": key} for row in part] for name, part in rows.items()}
            )
    seen = []

    def look() -> None:
        seen.append(pd.read_parquet(out / "tables/complexes")["key"].to_list())

    with finishing(Store.open(out, INFO, CrashingFileSystem(watch=look))) as store:
        store.mark_stale(Present(frozenset({"k1"})))
    assert ["k2"] in seen and seen[-1] == ["k1"]
    assert max(map(len, seen)) == 1
