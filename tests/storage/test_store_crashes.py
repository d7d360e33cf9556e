"""The store against kills and power cuts at every step, and against readers at every instant."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from foldcp.pipeline.storage import manifest as manifest_module
from foldcp.pipeline.storage.manifest import take_snapshot
from foldcp.pipeline.storage.merge import published_path
from foldcp.pipeline.storage.store import Store
from foldcp.pipeline.storage.tables import read_table
from tests.support.crashing_filesystem import CrashingFileSystem, Killed
from tests.support.synthetic_results import ATTEMPT, INFO, RESULTS, finishing, result, tables

# One failure is repaired before it was merged and one after.
FIRST = {"k1": "failed", "k2": "failed"}
SECOND = {"k1": "done", "k2": "done"}


def run(out: Path, filesystem: CrashingFileSystem, log: list[tuple[str, str]]) -> None:
    """A whole run that resumes an earlier one. `log` gets (key, outcome) before and after each
    put.
    """
    store = Store.open(out, INFO, filesystem)

    def put(key: str, outcome: str) -> None:
        log.append(("begin", key))
        store.put(key, *result(key, outcome))
        log.append((key, outcome))

    try:
        if "k1" not in set(store.outcomes()):
            put("k1", "failed")
        if store.outcomes()["k1"] == "failed":
            put("k1", "done")
            store.put_attempt(ATTEMPT)
        if "k2" not in set(store.outcomes()):
            put("k2", "failed")
            store._merge()
        if store.outcomes()["k2"] == "failed":
            put("k2", "done")
        store.close()
    finally:
        store._lock.close()  # as the end of the process does


def of_key(
    everything: dict[str, list[dict[str, Any]]], key: str
) -> dict[str, list[dict[str, Any]]]:
    return {name: [row for row in rows if row["key"] == key] for name, rows in everything.items()}


def files(out: Path) -> dict[str, int]:
    """Every file of the folder; the names of merged files count their merges."""
    found = [path.relative_to(out) for path in out.rglob("*") if path.is_file()]
    return {str(p.parent / "merged" if p.name.startswith("merged-") else p): 1 for p in found}


def published(out: Path) -> dict[str, list[dict[str, Any]]]:
    """The tables as any Parquet reader sees them: all files in their folders."""
    found = {}
    for name in RESULTS:
        folder = out / "tables" / name
        there = folder.is_dir() and any(folder.iterdir())
        found[name] = pd.read_parquet(folder).to_dict("records") if there else []
    return found


def plain(value: Any) -> Any:
    """A value of pandas as Python writes it: None for what is missing, a list for an array."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    return None if value != value else value


def check_published(out: Path, allowed: dict[tuple[str, str], Any]) -> None:
    """In every table, each complex is there as one of its versions or not at all; nothing twice,
    nothing in part.
    """
    for name, rows in published(out).items():
        rows = [{column: plain(value) for column, value in row.items()} for row in rows]
        for key in {row["key"] for row in rows}:
            versions = [tables[name] for (k, _), tables in allowed.items() if k == key]
            assert of_key({name: rows}, key)[name] in versions, (name, key)
    runs = out / "tables/runs"
    if runs.is_dir() and any(runs.iterdir()):
        assert set(pd.read_parquet(runs)["status"]) <= {"finished", "interrupted"}


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, int, dict[tuple[str, str], Any]]:
    """A whole run, the number of its steps, and the rows that each (key, outcome) may show."""
    out = tmp_path_factory.mktemp("store") / "run"
    filesystem = CrashingFileSystem()
    run(out, filesystem, [])
    allowed: dict[tuple[str, str], Any] = {}
    for n, (key, outcome) in enumerate([*FIRST.items(), *SECOND.items()]):
        with finishing(Store.open(out.parent / str(n), INFO)) as store:
            store.put(key, *result(key, outcome))
        allowed[key, outcome] = tables(out.parent / str(n))
    return out, filesystem.steps, allowed


def check_after_death(
    out: Path, log: list[tuple[str, str]], allowed: dict[tuple[str, str], Any]
) -> None:
    """Every stored result is there once; only the complex in flight may be missing."""
    if not (out / "run.json").exists():
        assert not log
        return
    check_published(out, allowed)
    found = tables(out)
    committed = {key: outcome for key, outcome in log if key != "begin"}
    in_flight = log[-1][1] if log and log[-1][0] == "begin" else None
    keys = {row["key"] for row in found["complexes"]}
    assert keys - {in_flight} == committed.keys() - {in_flight}
    for key in keys:
        versions = [rows for (k, outcome), rows in allowed.items() if k == key]
        if key != in_flight:
            versions = [allowed[key, committed[key]]]
        assert of_key(found, key) in versions, key


def check_recovery(
    out: Path,
    log: list[tuple[str, str]],
    undisturbed: tuple[Path, int, dict[tuple[str, str], Any]],
) -> None:
    """Nothing stored was lost, and going on ends where an undisturbed run does."""
    reference, _, allowed = undisturbed
    check_after_death(out, log, allowed)
    run(out, CrashingFileSystem(), [])
    assert tables(out) == tables(reference), out.name
    assert files(out) == files(reference), out.name
    for name in RESULTS:
        file = published_path(name, 0)
        assert (out / file).read_bytes() == (reference / file).read_bytes(), out.name


def test_kill_at_every_step(
    tmp_path: Path, undisturbed: tuple[Path, int, dict[tuple[str, str], Any]]
) -> None:
    """The folder is copied before each step of one run, if it differs: what a kill there leaves."""
    out = tmp_path / "run"
    log = []
    deaths = []
    last = [{}]

    def copy() -> None:
        state = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        if out.exists() and state != last[0]:
            deaths.append((tmp_path / str(len(deaths)), list(log)))
            shutil.copytree(out, deaths[-1][0])
        last[0] = state

    run(out, CrashingFileSystem(watch=copy), log)
    assert undisturbed[1] > len(deaths) > 100
    for folder, log_then in deaths:
        check_recovery(folder, log_then, undisturbed)


def test_kill_never_leaves_a_half_replaced_result(tmp_path: Path) -> None:
    """Old and new files have equal sizes, so that only the order of the steps can tell them
    apart.
    """
    rows, _ = result("k1", "done")
    versions = [
        (
            {name: [row | {"name": name_now} for row in part] for name, part in rows.items()},
            {"structures/k1/0.cif": text},
        )
        for name_now, text in (("one", b"one"), ("two", b"two"))
    ]
    for fatal in range(100):
        out = tmp_path / str(fatal)
        filesystem = CrashingFileSystem(crash_step=10_000)
        store = Store.open(out, INFO, filesystem)
        store.put("k1", *versions[0])
        filesystem.crash_step = filesystem.steps + fatal
        try:
            store.put("k1", *versions[1])
        except Killed:
            names = {row["name"] for part in tables(out).values() for row in part}
            text = (out / "structures/k1/0.cif").read_bytes().decode()
            assert names in (set(), {"one"}, {"two"}) and (not names or names == {text})
            counts = {len(part) for name, part in tables(out).items()}
            assert counts == ({2, 4} if names else {0})
        else:
            assert fatal > 10
            break
        finally:
            store._lock.close()


@pytest.mark.parametrize("loss", [1.0, 0.5], ids=["all", "some"])
def test_power_cut(
    loss: float,
    tmp_path: Path,
    undisturbed: tuple[Path, int, dict[tuple[str, str], Any]],
) -> None:
    """Names and bytes that were not synced are lost, in all folders or in some."""
    for fatal in range(0, undisturbed[1], 11):
        out = tmp_path / str(fatal)
        log = []
        with pytest.raises(Killed):
            run(out, CrashingFileSystem(fatal, loss), log)
        check_recovery(out, log, undisturbed)


def test_kill_during_recovery(
    tmp_path: Path, undisturbed: tuple[Path, int, dict[tuple[str, str], Any]]
) -> None:
    """The work of clearing up after a death dies, too."""
    reference, num_steps, _ = undisturbed
    for first in range(5, num_steps, 53):
        for second in range(0, 25, 6):
            out = tmp_path / f"{first}-{second}"
            for filesystem in (CrashingFileSystem(first), CrashingFileSystem(second, 1.0)):
                with pytest.raises(Killed):
                    run(out, filesystem, [])
            run(out, CrashingFileSystem(), [])
            assert tables(out) == tables(reference)
            assert files(out) == files(reference)


def test_readers_see_all_rows_once_at_every_instant(
    tmp_path: Path, undisturbed: tuple[Path, int, dict[tuple[str, str], Any]]
) -> None:
    _, _, allowed = undisturbed
    out = tmp_path / "run"
    log = []
    run(out, CrashingFileSystem(watch=lambda: check_after_death(out, log, allowed)), log)


@pytest.mark.parametrize("moment", ["read_commits", "read_manifest", "is_intact"])
def test_merge_in_the_middle_of_a_read(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It deletes commit records, parts and merged files just before the reader looks at them."""
    with finishing(Store.open(tmp_path / "run", INFO)) as store:
        for key in ("k1", "k2"):
            store.put(key, *result(key, "done"))
            if key == "k1":
                store._merge()
        expected = tables(tmp_path / "run")
        inner = getattr(manifest_module, moment)

        def late(*arguments: Any) -> Any:
            monkeypatch.setattr(manifest_module, moment, inner)
            store._merge()
            return inner(*arguments)

        monkeypatch.setattr(manifest_module, moment, late)
        assert tables(tmp_path / "run") == expected


def test_merge_after_the_manifest_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The merged files of the manifest that was read are gone; the reader must not take that for
    a loss.
    """
    with finishing(Store.open(tmp_path / "run", INFO)) as store:
        store.put("k1", *result("k1", "done"))
        store._merge()
        inner = manifest_module.read_manifest

        def late(root: Path) -> manifest_module.Manifest:
            monkeypatch.setattr(manifest_module, "read_manifest", inner)
            manifest = inner(root)
            store.put("k2", *result("k2", "done"))
            store._merge()
            return manifest

        monkeypatch.setattr(manifest_module, "read_manifest", late)
        assert {row["key"] for row in read_table(tmp_path / "run", "complexes").to_pylist()} == {
            "k1",
            "k2",
        }


def test_merge_between_snapshot_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with finishing(Store.open(tmp_path / "run", INFO)) as store:
        store.put("k1", *result("k1", "done"))
        expected = tables(tmp_path / "run")
        old = take_snapshot(tmp_path / "run")
        store._merge()
        stale = [old]
        monkeypatch.setattr(
            "foldcp.pipeline.storage.tables.take_snapshot",
            lambda root: stale.pop() if stale else take_snapshot(root),
        )
        assert tables(tmp_path / "run") == expected and not stale


def test_read_table_in_another_thread(tmp_path: Path) -> None:
    """Merges delete files while they are being read; no read ever misses or doubles a row."""
    failures = []
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            found = {row["key"] for row in read_table(tmp_path / "run", "complexes").to_pylist()}
            if not {"k1", "k2"} <= found:
                failures.append(found)

    with finishing(Store.open(tmp_path / "run", INFO)) as store:
        for key in ("k1", "k2"):
            store.put(key, *result(key, "done"))
        thread = threading.Thread(target=read)
        thread.start()
        for n in range(15):
            store.put(f"x{n % 3}", *result(f"x{n % 3}", "failed"))
            store._merge()
        over.set()
        thread.join()
    assert not failures
