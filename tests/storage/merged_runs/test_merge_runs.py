"""`foldcp merge`: one run's folder of several, or one clear error and no folder."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from foldcp.pipeline.config import WriteConfig
from foldcp.pipeline.storage import merge
from foldcp.pipeline.storage.manifest import read_manifest
from foldcp.pipeline.storage.merged_runs import links, merge_runs
from foldcp.pipeline.storage.run_folder import LOCK, RunInfo, read_run, take_lock
from foldcp.pipeline.storage.staleness import Present
from foldcp.pipeline.storage.store import Store
from foldcp.pipeline.storage.tables import published_files, read_file_paths, read_table
from tests.support.synthetic_results import ATTEMPT, INFO, finishing, result, tables

MERGE = merge_runs.merge_runs
NO_LINKS = Path("/dev/shm")


def write(
    out: Path, outcomes: dict[str, str], info: RunInfo = INFO, settings: str = "s1", **more: Any
) -> Path:
    """A run with these outcomes by key, and an attempt at each."""
    with finishing(Store.open(out, info)) as store:
        for key, outcome in outcomes.items():
            put(store, key, outcome, settings, **more)
    return out


def put(store: Store, key: str, outcome: str, settings: str = "s1", path: str = "") -> None:
    rows, files = result(key, outcome)
    rows["complexes"] = [row | {"settings_hash": settings} for row in rows["complexes"]]
    if path and files:
        files[path] = b"shared name"
    store.put(key, rows, files, WriteConfig())
    store.put_attempt(ATTEMPT | {"key": key})


def contents(out: Path) -> dict[str, dict[str, bytes]]:
    paths = read_file_paths(out)
    return {
        key: {path: (out / path).read_bytes() for path in names}
        for key, names in paths.items()
        if names
    }


def refused(out: Path, runs: Sequence[Path], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MERGE(runs, out)
    assert not out.exists()
    assert not list(out.parent.glob(".*merging"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, and three with its results; copied, as it takes long to write them."""
    folder = tmp_path_factory.mktemp("runs")
    outcomes = {f"k{i}": "done" for i in range(7)} | {"k7": "failed", "k8": "invalid"}
    write(folder / "whole", outcomes)
    write(folder / "p1", {"k0": "done", "k3": "done", "k7": "failed"})
    write(folder / "p2", {f"k{i}": "done" for i in (1, 2, 4)})
    write(folder / "p3", {"k5": "done", "k6": "done", "k8": "invalid"})
    return folder


@pytest.fixture
def whole(made: Path) -> Path:
    return made / "whole"


@pytest.fixture
def parts(made: Path, tmp_path: Path) -> list[Path]:
    return [shutil.copytree(made / name, tmp_path / name) for name in ("p1", "p2", "p3")]


def test_merged_parts_equal_the_undivided_run(
    whole: Path, parts: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "merged"
    summary = MERGE(parts, out)
    assert summary.outcomes == {"done": 7, "failed": 1, "invalid": 1}
    assert summary.files == {"hard links": 14} and not summary.num_repeated
    assert tables(out) == tables(whole)
    assert contents(out) == contents(whole)
    inodes = [os.stat(folder / "structures/k1/0.cif").st_ino for folder in (out, parts[1])]
    assert inodes[0] == inodes[1]
    attempts = read_table(out, "attempts").to_pylist()
    assert sorted(row["key"] for row in attempts) == [f"k{i}" for i in range(9)]
    runs = {row["run_id"]: row for row in read_table(out, "runs").to_pylist()}
    assert {row["run_id"] for row in attempts} < runs.keys() and len(runs) == 4
    own = [row for row in runs.values() if row["merged_from"]]
    assert [row["merged_from"] for row in own] == [list(map(str, parts))]
    assert (own[0]["num_done"], own[0]["status"]) == (7, "finished")
    assert read_run(out)["merged_from"] == list(map(str, parts))
    assert len(published_files(out, "complexes")) == len(read_manifest(out).groups)


def test_merged_folder_goes_on_as_a_run(parts: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "merged"
    MERGE(parts, out)
    before = contents(parts[0])
    with finishing(Store.open(out, INFO)) as store:
        assert store.outcomes()["k0"] == "done" and len(store.outcomes()) == 9
        assert store.written("k0") == WriteConfig()
        store.mark_stale(Present(frozenset(f"k{i}" for i in range(8)), settings_hash="s1"))
        put(store, "k7", "done")
        put(store, "k0", "done")  # in place of a hard link
        assert len(store.outcomes()) == 8
    assert contents(parts[0]) == before


def test_groups_of_the_merged_folder_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (merge, merge_runs):
        monkeypatch.setattr(module, "GROUP_COMMITS", 6)
    runs = [write(tmp_path / f"r{n}", {f"k{n}{i}": "done" for i in range(4)}) for n in range(4)]
    out = tmp_path / "merged"
    MERGE(runs, out)
    groups = read_manifest(out).groups
    assert len(groups) >= 4 and all(group.num_commits <= 2 * 6 for group in groups)
    assert read_table(out, "complexes").num_rows == 32


def test_results_of_several_runs_count_once_and_done_ones_first(tmp_path: Path) -> None:
    first = write(tmp_path / "a", {"k1": "failed", "k2": "done", "k3": "failed"})
    second = write(tmp_path / "b", {"k1": "done", "k2": "done", "k3": "failed"})
    copied = shutil.copytree(first, tmp_path / "c")
    summary = MERGE([first, second, copied, first], tmp_path / "m")
    assert summary.outcomes == {"done": 2, "failed": 1}
    assert summary.num_repeated == 6  # three of the second and three of the copy
    inodes = [os.stat(run / "structures/k2/0.cif").st_ino for run in (tmp_path / "m", first)]
    assert inodes[0] == inodes[1]  # of equal ones that of the first
    rows = read_table(tmp_path / "m", "complexes").to_pylist()
    assert sorted((row["key"], row["sample"]) for row in rows if row["outcome"] == "done") == [
        ("k1", 0),
        ("k1", 1),
        ("k2", 0),
        ("k2", 1),
    ]
    assert sum(row["key"] == "k3" for row in rows) == 1
    assert read_table(tmp_path / "m", "attempts").num_rows == 6


def test_a_killed_run_is_merged_with_what_it_had(
    whole: Path, parts: list[Path], tmp_path: Path
) -> None:
    killed = tmp_path / "killed"
    store = Store.open(killed, INFO)
    for key in ("k1", "k2", "k4"):
        put(store, key, "done")
    store._lock.close()  # as the system does
    out = tmp_path / "merged"
    MERGE([parts[0], killed, parts[2]], out)
    assert tables(out) == tables(whole)
    statuses = [row["status"] for row in read_table(out, "runs").to_pylist()]
    assert sorted(statuses) == ["finished", "finished", "finished", "interrupted"]


def test_stale_and_damaged_results_are_left_behind(tmp_path: Path) -> None:
    run = write(tmp_path / "run", {"old": "done", "k1": "done", "k2": "done"})
    with finishing(Store.open(run, INFO)) as store:
        store.mark_stale(Present(frozenset({"k1", "k2"})))
    (run / "structures/k2/0.cif").write_bytes(b"short")
    summary = MERGE([run], tmp_path / "m")
    assert (summary.outcomes, summary.num_lost) == ({"done": 1}, 1)
    assert set(read_table(tmp_path / "m", "complexes")["key"].to_pylist()) == {"k1"}


def test_a_damaged_table_is_refused(parts: list[Path], tmp_path: Path) -> None:
    (file,) = parts[0].glob("parts/complexes/*.parquet")
    content = bytearray(file.read_bytes())
    content[60] ^= 0xFF
    file.write_bytes(content)
    refused(tmp_path / "m", parts, f"{re.escape(str(file))}: damaged")


@pytest.mark.skipif(not NO_LINKS.is_dir(), reason="there is no second file system at /dev/shm")
def test_another_file_system_gets_symbolic_links(parts: list[Path], tmp_path: Path) -> None:
    folder = NO_LINKS / f"foldcp-{os.getpid()}"
    folder.mkdir()
    try:
        summary = MERGE(parts, folder / "m")
        assert summary.files == {"symbolic links": 14}
        link = folder / "m/structures/k1/0.cif"
        assert link.is_symlink() and not os.readlink(link).startswith("/")
        assert link.read_bytes() == (parts[1] / "structures/k1/0.cif").read_bytes()
        with finishing(Store.open(folder / "m", INFO)) as store:
            assert len(store.outcomes()) == 9
        again = MERGE([folder / "m"], tmp_path / "again")  # of links to this file system
        assert again.files == {"hard links": 14}
    finally:
        shutil.rmtree(folder)


def test_copies_stay_when_the_runs_go(parts: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "merged"
    assert MERGE(parts, out, copy=True).files == {"copies": 14}
    before = contents(out)
    for run in parts:
        for file in run.rglob("*.cif"):
            file.write_bytes(b"")
    assert contents(out) == before


def test_a_file_system_without_links_is_told_to_copy(
    parts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(links.os, "link", refuse)
    monkeypatch.setattr(links.os, "symlink", refuse)
    refused(tmp_path / "m", parts, "m: no link to .*: Operation not permitted; --copy copies")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"identity": {"checkpoint": "def"}}, "of different weights, abc and def"),
        ({"database": "other", "input": "b.tsv"}, r"complexes in demo\.tsv and b\.tsv are not"),
    ],
)
def test_runs_that_do_not_agree_are_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    first = write(tmp_path / "a", {"k1": "done"})
    second = write(tmp_path / "b", {"k2": "done"}, replace(INFO, **changes))
    refused(tmp_path / "m", [first, second], f"{first} and {second}: .*{message}")


def test_results_of_different_settings_are_refused_by_name(tmp_path: Path) -> None:
    settings = {"model": {"samples": 2, "parallel_samples": 3}, "run": {"retries": 4}}
    first = write(tmp_path / "a", {"k1": "done"})
    second = write(tmp_path / "b", {"k1": "done"}, replace(INFO, settings=settings), settings="s2")
    message = f"{first} and {second}: results of different settings: model.samples is 1 and 2$"
    refused(tmp_path / "m", [first, second], message)


def test_shards_of_different_partitions_are_refused_by_name(tmp_path: Path) -> None:
    def shard(name: str, text: str) -> Path:
        identity = {**INFO.identity, "shard": text}
        info = replace(INFO, identity=identity, shard=text)
        return write(tmp_path / name, {name: "done"}, info)

    runs = [shard("a", "1/3"), shard("b", "3/3")]
    summary = MERGE(runs, tmp_path / "m")
    assert summary.missing_shards == ["2/3"]
    assert read_run(tmp_path / "m")["identity"] == INFO.identity
    other = shard("c", "2/4")
    message = f"{runs[0]} and {other}: of different partitions, as shards 1/3 and 2/4"
    refused(tmp_path / "m2", [*runs, other], message)


def test_two_complexes_with_a_file_of_one_name_are_refused(tmp_path: Path) -> None:
    path = "predictions/a/a_model_0.cif"
    first = write(tmp_path / "a", {"k1": "done"}, path=path)
    second = write(tmp_path / "b", {"k2": "done"}, path=path)
    message = f"{first} and {second}: {path} is of the complex k1 in one and of k2 in the other"
    refused(tmp_path / "m", [first, second], message)


def test_a_run_that_is_being_written_is_refused(parts: list[Path], tmp_path: Path) -> None:
    with take_lock(parts[2] / LOCK):
        refused(tmp_path / "m", parts, f"{parts[2]}: a process is writing there")
    MERGE(parts, tmp_path / "m")


def test_no_run_begins_in_a_folder_while_it_is_merged(
    parts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose = merge_runs.choose

    def look(sources: Any) -> Any:
        with pytest.raises(ValueError, match="another process is writing there"):
            Store.open(parts[0], INFO)
        return choose(sources)

    monkeypatch.setattr(merge_runs, "choose", look)
    MERGE(parts, tmp_path / "m")


def damage_format(run: Path) -> str:
    content = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(content | {"format": 2}))
    return "a folder of format 2"


def damage_manifest(run: Path) -> str:
    (run / "manifest.json").write_text("{")
    return "manifest.json: damaged"


def remove_run_file(run: Path) -> str:
    (run / "run.json").unlink()
    return "not the folder of a run"


@pytest.mark.parametrize("damage", [damage_format, damage_manifest, remove_run_file])
def test_other_folders_are_refused(
    parts: list[Path], tmp_path: Path, damage: Callable[[Path], str]
) -> None:
    message = damage(parts[1])
    refused(tmp_path / "m", parts, f"{parts[1]}.*{message}")


def test_only_a_new_or_empty_folder_is_filled(parts: list[Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    MERGE(parts, tmp_path / "empty")
    with pytest.raises(ValueError, match="empty: neither new nor an empty folder"):
        MERGE(parts, tmp_path / "empty")
    before = tables(parts[0])
    with pytest.raises(ValueError, match="p1: neither new nor an empty folder"):
        MERGE(parts, parts[0])
    assert tables(parts[0]) == before


def test_an_error_in_the_middle_leaves_no_folder(
    parts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = links.FileLinks.add

    def fail(self: links.FileLinks, root: Path, path: str) -> None:
        add(self, root, path)
        if "k5" in path:
            raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "m"))

    monkeypatch.setattr(links.FileLinks, "add", fail)
    refused(tmp_path / "m", parts, "m: No space left on device; .*m was not made")


STOPPED = """
import signal, sys, time
from pathlib import Path
from foldcp.pipeline.storage.merged_runs import links, merge_runs
add = links.FileLinks.add
def slow(self, root, path):
    add(self, root, path)
    print("linked", flush=True)
    time.sleep(60)
links.FileLinks.add = slow
merge_runs.merge_runs([Path(run) for run in sys.argv[2:]], Path(sys.argv[1]))
"""


def test_a_killed_merge_leaves_no_folder_and_the_next_one_succeeds(
    whole: Path, parts: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "merged"
    command = [sys.executable, "-c", STOPPED, str(out), *map(str, parts)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"linked\n"
        with pytest.raises(ValueError, match="merged: another process is merging there"):
            MERGE(parts, out)
        process.kill()
        process.wait()
    assert not out.exists() and list(tmp_path.glob(".merged.merging"))
    time.sleep(0.1)
    MERGE(parts, out)
    assert tables(out) == tables(whole)
    assert not list(tmp_path.glob(".merged.merging"))
