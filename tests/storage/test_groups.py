"""Merged tables of several files: each row stays in the file that it came into."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import duckdb
import pandas as pd
import polars
import pytest

from foldcp.pipeline.storage.manifest import read_manifest
from foldcp.pipeline.storage.results.pair_rows import pair_rows
from foldcp.pipeline.storage.staleness import Present
from foldcp.pipeline.storage.store import Store
from foldcp.pipeline.storage.tables import published_files, read_table
from tests.support.crashing_filesystem import CrashingFileSystem, Killed
from tests.support.synthetic_results import (
    ATTEMPT,
    INFO,
    NO_SCORES,
    RESULTS,
    finishing,
    result,
    tables,
)

KEYS = [f"k{number:02}" for number in range(20)]
MERGE = "foldcp.pipeline.storage.merge"


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{MERGE}.GROUP_COMMITS", 6)
    monkeypatch.setattr(f"{MERGE}.MIN_MERGE_COMMITS", 4)
    monkeypatch.setattr(f"{MERGE}.MAX_UNMERGED_COMMITS", 4)


def files(out: Path, table: str) -> dict[str, tuple[int, int]]:
    """Name -> what changes when the file is replaced."""
    found = sorted((out / "tables" / table).iterdir())
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


def fill(out: Path, outcome: str = "done") -> None:
    with finishing(Store.open(out, INFO, CrashingFileSystem())) as store:
        for key in KEYS:
            store.put(key, *result(key, outcome))


def keys_by_reader(out: Path, table: str) -> list[Mapping[str, int]]:
    """Key -> number of rows, as pandas, polars and DuckDB read the folder."""
    folder = out / "tables" / table
    query = f"SELECT key FROM read_parquet('{folder}/*.parquet')"
    return [
        Counter(pd.read_parquet(folder)["key"]),
        Counter(polars.read_parquet(folder / "*.parquet")["key"].to_list()),
        Counter(key for (key,) in duckdb.execute(query).fetchall()),
    ]


def test_groups_are_bounded_and_readers_see_all_of_them(tmp_path: Path) -> None:
    out = tmp_path / "run"
    fill(out)
    groups = read_manifest(out).groups
    assert len(groups) >= 3 and all(group.num_commits <= 6 + 1 for group in groups)
    assert sum(group.num_commits for group in groups) == len(KEYS) + 1  # and the run
    for table, count in (("complexes", 2), ("interfaces", 4)):
        assert keys_by_reader(out, table) == [dict.fromkeys(KEYS, count)] * 3
        rows = read_table(out, table)
        assert rows.num_rows == count * len(KEYS)
        assert rows["name"].to_pylist() == sorted(rows["name"].to_pylist())


def test_a_group_is_full_by_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{MERGE}.GROUP_ROWS", 8)
    fill(tmp_path / "run")
    rows = [group.rows["interfaces"] for group in read_manifest(tmp_path / "run").groups]
    assert max(rows) == 8 and sum(rows) == 4 * len(KEYS)


def test_a_new_version_is_written_into_the_file_of_the_former_one_alone(tmp_path: Path) -> None:
    out = tmp_path / "run"
    fill(out)
    before = {name: files(out, name) for name in RESULTS}
    with finishing(Store.open(out, INFO, CrashingFileSystem())) as store:
        store.put("k00", *result("k00", "failed"))
    for name in RESULTS:
        now = files(out, name)
        first, *others = before[name]
        assert now[first] != before[name][first]
        assert [now[other] for other in others[:-1]] == [before[name][o] for o in others[:-1]]
    assert keys_by_reader(out, "complexes") == [dict.fromkeys(KEYS, 2) | {"k00": 1}] * 3
    assert keys_by_reader(out, "interfaces") == [dict.fromkeys(KEYS[1:], 4)] * 3


def test_marks_of_stale_results_change_only_the_files_that_hold_them(tmp_path: Path) -> None:
    out = tmp_path / "run"
    fill(out)
    before = files(out, "interfaces")
    for keep in (False, True):
        with finishing(Store.open(out, INFO, CrashingFileSystem())) as store:
            store.mark_stale(Present(frozenset(KEYS[1:]), settings_hash="s1"), keep=keep)
            assert store.outcomes().keys() == set(KEYS[1:])
        first, second, *_ = before
        now = files(out, "interfaces")
        assert now[first] != before[first] and now[second] == before[second]
        frame = pd.read_parquet(out / "tables/interfaces")
        assert set(frame["key"]) == set(KEYS if keep else KEYS[1:])
        assert set(frame.loc[frame["stale"], "key"]) == ({"k00"} if keep else set())
    with finishing(Store.open(out, INFO, CrashingFileSystem())) as store:
        store.mark_stale(Present(frozenset(KEYS), settings_hash="s1"))
        assert store.outcomes().keys() == set(KEYS)
    assert keys_by_reader(out, "interfaces") == [dict.fromkeys(KEYS, 4)] * 3


def test_published_files_are_those_of_a_run_that_is_over(tmp_path: Path) -> None:
    out = tmp_path / "run"
    fill(out)
    folder = out / "tables" / "interfaces"
    assert published_files(out, "interfaces") == sorted(folder.iterdir())
    assert len(published_files(out, "protein_pairs")) == 1
    with finishing(Store.open(out, INFO, CrashingFileSystem())) as store:
        assert not published_files(out, "interfaces")
        store.put("k00", *result("k00", "failed"))
        assert not published_files(out, "interfaces")
    first = published_files(out, "interfaces")[0]
    first.write_bytes(first.read_bytes()[:-1] + b"?")
    assert not published_files(out, "interfaces") and published_files(out, "complexes")


def test_many_results_are_put_at_once(tmp_path: Path) -> None:
    """With a new version of one that is stored, and one that is not merged yet."""
    out = tmp_path / "run"
    with finishing(Store.open(out, INFO, CrashingFileSystem())) as store:
        for key in KEYS[:6]:
            store.put(key, *result(key, "done"))
        manifests = read_manifest(out).generation
        store.put_many({key: result(key, "failed")[0] for key in KEYS[4:]})
        assert read_manifest(out).generation - manifests <= 6  # groups, not results
        expected = dict.fromkeys(KEYS[:4], "done") | dict.fromkeys(KEYS[4:], "failed")
        assert store.outcomes() == expected
    assert (
        keys_by_reader(out, "complexes")
        == [dict.fromkeys(KEYS[:4], 2) | dict.fromkeys(KEYS[4:], 1)] * 3
    )


def test_damage_costs_the_results_of_one_group(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    out = tmp_path / "run"
    fill(out)
    group = read_manifest(out).groups[1]
    for file in (group.tables["interfaces"], group.published["interfaces"]):
        (out / file.path).unlink()
    lost = {row["key"] for row in pd.read_parquet(out / group.published["complexes"].path).iloc}
    assert {row["key"] for row in tables(out)["complexes"]} == set(KEYS) - lost
    with finishing(Store.open(out, INFO, CrashingFileSystem())) as store:
        assert store.outcomes().keys() == set(KEYS) - lost
    assert group.tables["interfaces"].path in caplog.text
    fill(out)
    assert keys_by_reader(out, "interfaces") == [dict.fromkeys(KEYS, 4)] * 3


def test_damaged_records_of_a_group_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    out = tmp_path / "run"
    fill(out)
    path = out / read_manifest(out).groups[1].records.path
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=f"{path}: damaged.*delete it to compute again"):
        Store.open(out, INFO, CrashingFileSystem())
    path.unlink()
    with finishing(Store.open(out, INFO, CrashingFileSystem())) as store:
        left = store.outcomes().keys()
        assert 0 < len(left) < len(KEYS)
    assert f"{path}: missing" in caplog.text
    assert keys_by_reader(out, "interfaces") == [dict.fromkeys(left, 4)] * 3
    fill(out)
    assert keys_by_reader(out, "interfaces") == [dict.fromkeys(KEYS, 4)] * 3


@pytest.mark.parametrize("loss", [0.0, 0.5], ids=["kill", "power cut"])
def test_crash_while_groups_are_merged(loss: float, tmp_path: Path) -> None:
    """At any step: readers see what was merged once, and the next run loses nothing stored."""
    counts = {"complexes": 2, "interfaces": 4}

    def run(out: Path, filesystem: CrashingFileSystem, stored: list[str]) -> None:
        store = Store.open(out, INFO, filesystem)
        try:
            for key in KEYS[:9]:
                if store.outcomes().get(key) != "done":
                    store.put(key, *result(key, "done"))
                    stored.append(key)
            store.put_attempt(ATTEMPT)
            store.close()
        finally:
            store._lock.close()

    whole = CrashingFileSystem()
    run(tmp_path / "whole", whole, [])
    expected = tables(tmp_path / "whole")
    for fatal in range(10, whole.steps, 23):
        out = tmp_path / str(fatal)
        stored: list[str] = []
        with pytest.raises(Killed):
            run(out, CrashingFileSystem(fatal, loss), stored)
        if (out / "run.json").exists():
            assert {row["key"] for row in tables(out)["complexes"]} >= set(stored)
            for name, count in counts.items():
                if (out / "tables" / name).is_dir() and files(out, name):
                    for seen in keys_by_reader(out, name):
                        assert set(seen.values()) <= {count}
        run(out, CrashingFileSystem(), [])
        assert tables(out) == expected
        for name, count in counts.items():
            assert keys_by_reader(out, name) == [dict.fromkeys(KEYS[:9], count)] * 3


def test_protein_pairs_of_many_parts_are_those_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More pairs than are in memory at once are parted by accession."""
    out = tmp_path / "run"
    path = out / "tables/protein_pairs/protein_pairs.parquet"
    found = []
    for part_rows in (100, 4):
        monkeypatch.setattr("foldcp.pipeline.storage.results.derived_tables.PART_ROWS", part_rows)
        with finishing(Store.open(out, INFO, CrashingFileSystem())) as store:
            for number, key in enumerate(KEYS):
                rows, _ = result(key, "done")
                rows["interfaces"] = [
                    NO_SCORES
                    | row
                    | {"ipsae_d0res": number / 20, "accession_a": f"P{number * 7 % 5}"}
                    | {"accession_b": f"P{number % 3}"}
                    for row in rows["interfaces"]
                ]
                rows["pairs"] = pair_rows(rows["interfaces"])
                store.put(key, rows)
        found.append(pd.read_parquet(path))
        assert not list((out / ".tmp").iterdir())
        path.unlink()
    assert len(found[0]) > 8 and found[0].equals(found[1])
    assert found[1].equals(read_table(out, "protein_pairs").to_pandas())
