"""Results that other processes have staged, stored many at a time."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from foldcp.pipeline.storage.commits.staged_commit import StagedCommit, stage_commit
from foldcp.pipeline.storage.filesystem import Content, FileSystem
from foldcp.pipeline.storage.staging import StagingArea
from foldcp.pipeline.storage.store import Store
from foldcp.pipeline.storage.tables import read_table
from tests.support.crashing_filesystem import CrashingFileSystem, Killed
from tests.support.synthetic_results import ATTEMPT, INFO, finishing, result, tables

KEYS = ("k1", "k2", "k3")


def paths_of(key: str) -> list[str]:
    return [f"structures/{key}/{sample}.cif" for sample in range(2)]


def staged(root: Path, key: str, version: str, files: Mapping[str, Content] | None = None) -> Any:
    """A result staged by a rank, whose rows and files all hold `version`, each of equal size."""
    rows, _ = result(key, "done")
    named = {table: [row | {"name": version} for row in part] for table, part in rows.items()}
    if files is None:
        files = {path: version.encode() for path in paths_of(key)}
    return stage_commit(
        StagingArea(root, FileSystem(), f"rank-{key}"), key, "complex", named, files
    )


def versions(out: Path, key: str) -> set[str]:
    """The versions of a result that the tables show."""
    return {row["name"] for part in tables(out).values() for row in part if row["key"] == key}


@pytest.mark.parametrize("loss", [0.0, 0.5], ids=["kill", "power cut"])
def test_kill_while_many_are_stored_leaves_each_whole_or_not_at_all(
    loss: float, tmp_path: Path
) -> None:
    for fatal in range(200):
        out = tmp_path / str(fatal)
        filesystem = CrashingFileSystem(10_000, loss)
        with finishing(Store.open(out, INFO)) as store:
            assert not store.put_staged([staged(out, "k1", "one")])
        store = Store.open(out, INFO, filesystem)
        commits = [staged(out, key, "two") for key in KEYS]
        filesystem.crash_step = filesystem.steps + fatal
        try:
            assert not store.put_staged(commits)
        except Killed:
            store._lock.close()
            store = Store.open(out, INFO)
            for key in KEYS:
                texts = {
                    (out / path).read_text() for path in paths_of(key) if (out / path).exists()
                }
                assert versions(out, key) in ([set(), texts] if texts else [set()]), (fatal, key)
                assert (store.outcome(key) == "done") == bool(versions(out, key))
            assert versions(out, "k1") or store.written_before("k1") is None
        else:
            assert fatal > 20
            assert all(versions(out, key) == {"two"} for key in KEYS)
            break
        finally:
            store._lock.close()
        assert not list((out / "commits").glob("*.replacing"))
        assert not list((out / ".tmp").iterdir())
    else:
        raise AssertionError("it never ended")


def test_result_that_cannot_be_stored_costs_no_other(tmp_path: Path) -> None:
    out = tmp_path / "run"
    shared = {"predictions/x/x.cif": b"1"}
    with finishing(Store.open(out, INFO)) as store:
        commits: list[StagedCommit] = [
            staged(out, "k1", "one", shared),
            staged(out, "k2", "one", shared),
            staged(out, "k3", "one"),
            staged(out, "k4", "one"),
        ]
        (out / commits[2].temporary_paths[0]).unlink()
        errors = store.put_staged(commits)
        assert list(errors) == ["k2", "k3"]
        assert "complexes k1 and k2 both write it" in str(errors["k2"])
        assert isinstance(errors["k3"], FileNotFoundError)
        assert store.outcomes() == {"k1": "done", "k4": "done"}
        assert not list((out / ".tmp").iterdir())


def test_full_disk_is_raised(tmp_path: Path) -> None:
    class FullFileSystem(FileSystem):
        def rename(self, source: Path, target: Path) -> None:
            if target.name == "0.cif":
                raise OSError(errno.ENOSPC, "no space")
            super().rename(source, target)

    with finishing(Store.open(tmp_path / "run", INFO, FullFileSystem())) as store:
        with pytest.raises(OSError, match="no space"):
            store.put_staged([staged(tmp_path / "run", "k1", "one")])
        assert not store.outcomes()


def test_clear_staged_spares_other_owners(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with finishing(Store.open(out, INFO)) as store:
        staged(out, "k1", "one")
        other = staged(out, "k11", "one")
        store.clear_staged("rank-k1")
        assert not store.put_staged([other])
        assert not list((out / ".tmp").iterdir())


def test_attempts_stored_together_have_numbers_of_their_own(tmp_path: Path) -> None:
    with finishing(Store.open(tmp_path / "run", INFO)) as store:
        store.put_attempts([ATTEMPT | {"attempt": number} for number in (1, 2, 3)])
        store.put_attempt(ATTEMPT | {"attempt": 4})
        store.put_attempts([])
    rows = read_table(tmp_path / "run", "attempts").to_pylist()
    assert sorted(row["attempt"] for row in rows) == [1, 2, 3, 4]
    assert len({row["attempt_id"] for row in rows}) == 4


@pytest.mark.parametrize("loss", [0.0, 0.5], ids=["kill", "power cut"])
def test_kill_while_a_shared_file_is_merged_into_two_groups(
    loss: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foldcp.pipeline.storage.merge.GROUP_COMMITS", 3)  # one is that of the run

    def numbers(out: Path) -> list[int]:
        return sorted(row["attempt"] for row in read_table(out, "attempts").to_pylist())

    for fatal in range(0, 400, 9):
        out = tmp_path / str(fatal)
        filesystem = CrashingFileSystem(10_000, loss)
        store = Store.open(out, INFO, filesystem)
        store.put_attempts([ATTEMPT | {"attempt": number} for number in range(4)])
        assert len(list((out / "commits").glob("*.jsonl"))) == 1
        filesystem.crash_step = filesystem.steps + fatal
        try:
            store._merge()
        except Killed:
            assert numbers(out) == [0, 1, 2, 3], fatal
        else:
            assert fatal > 20
            assert len(store._manifest.groups) == 2
            break
        finally:
            store._lock.close()
        Store.open(out, INFO).close()
        assert numbers(out) == [0, 1, 2, 3], fatal
        assert not list((out / "commits").iterdir())
    else:
        raise AssertionError("it never ended")
