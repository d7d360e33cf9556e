"""The store against kills and power cuts at every step, against readers at every instant, and as users read it."""

from __future__ import annotations

import json
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

from foldcp.pipeline import disk as disk_module
from foldcp.pipeline import receipts
from foldcp.pipeline.claim import RunInfo, read_run
from foldcp.pipeline.disk import Content
from foldcp.pipeline.receipts import take_snapshot
from foldcp.pipeline.schemas import TABLES
from foldcp.pipeline.store import Store, read_table
from tests.mortal import Killed, Mortal

INFO = RunInfo(
    identity={"input": "demo.tsv", "settings": {"model": {"samples": 1}}, "checkpoint": "abc"},
    command="foldcp score demo.tsv",
    input="demo.tsv",
    checkpoint="untrained:tiny",
    untrained=True,
    settings={"model": {"samples": 1}},
    versions={"foldcp": "0.1.0"},
)
RESULTS = ["complexes", "interfaces"]
Rows = dict[str, list[dict[str, Any]]]


def result(key: str, outcome: str) -> tuple[Rows, dict[str, Content]]:
    """Rows and files of a made-up complex of two chains and two samples, or of one that failed."""
    base = {"key": key, "name": f"name of {key}", "checkpoint": "untrained:tiny", "untrained": True}
    about = {**base, "title": "", "organism": "", "source": "", "outcome": outcome, "reason": ""}
    if outcome != "done":
        return {"complexes": [about | {"reason": "no memory"}]}, {}
    ends = [("A", "B"), ("B", "A")]
    rows: Rows = {
        "complexes": [about | {"sample": s, "ptm": len(key) / 7 + s / 9} for s in range(2)],
        "interfaces": [
            base
            | {"sample": s, "chain_a": a, "chain_b": b, "accession_a": "P1", "accession_b": ""}
            | {"contacts": 3 + s, "iptm": s / 3, "interface_plddt": float("nan")}
            for s in range(2)
            for a, b in ends
        ],
    }
    files: dict[str, Content] = {
        f"structures/{key}/0.cif": b"first " * 9,
        f"structures/{key}/1.cif": lambda path: path.write_text(f"second of {key}") and None,
    }
    return rows, files


ATTEMPT = {"key": "k1", "name": "name of k1", "attempt": 1, "outcome": "done", "reason": "", "ladder": ""}
# One failure is repaired before it was merged and one after.
FIRST = {"k1": "failed", "k2": "failed"}
SECOND = {"k1": "done", "k2": "done"}


def run(out: Path, disk: Mortal, log: list[tuple[str, str]]) -> None:
    """A whole run that goes on where an earlier one stopped. `log` gets (key, outcome) before and after each put."""
    store = Store.open(out, INFO, disk)

    def put(key: str, outcome: str) -> None:
        log.append(("begin", key))
        store.put(key, *result(key, outcome))
        log.append((key, outcome))

    try:
        if "k1" not in store.done():
            put("k1", "failed")
        if store.outcomes()["k1"] == "failed":
            put("k1", "done")
            store.attempt(ATTEMPT)
        if "k2" not in store.done():
            put("k2", "failed")
            store.compact()
        if store.outcomes()["k2"] == "failed":
            put("k2", "done")
        store.close()
    finally:
        store._lock.close()  # as the end of the process does


def tables(out: Path) -> dict[str, list[dict[str, Any]]]:
    return {name: read_table(out, name).to_pylist() for name in RESULTS}


def of_key(everything: dict[str, list[dict[str, Any]]], key: str) -> dict[str, list[dict[str, Any]]]:
    return {name: [row for row in rows if row["key"] == key] for name, rows in everything.items()}


def files(out: Path) -> dict[str, int]:
    """Every file of the folder; the names of merged files count their merges."""
    found = [path.relative_to(out) for path in out.rglob("*") if path.is_file()]
    return {str(p.parent / "all" if p.name.startswith("all-") else p): 1 for p in found}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, dict[tuple[str, str], Any]]:
    """A whole run, the number of its steps, and the rows that each (key, outcome) may show."""
    out = tmp_path_factory.mktemp("store") / "run"
    disk = Mortal()
    run(out, disk, [])
    allowed: dict[tuple[str, str], Any] = {}
    for n, (key, outcome) in enumerate([*FIRST.items(), *SECOND.items()]):
        with Store.open(out.parent / str(n), INFO) as store:
            store.put(key, *result(key, outcome))
        allowed[key, outcome] = tables(out.parent / str(n))
    return out, disk.steps, allowed


def check_after_death(out: Path, log: list[tuple[str, str]], allowed: dict[tuple[str, str], Any]) -> None:
    """What had been stored is there once; only the complex in flight may be missing."""
    if not (out / "run.json").exists():
        assert not log
        return
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
    out: Path, log: list[tuple[str, str]], undisturbed: tuple[Path, int, dict[tuple[str, str], Any]]
) -> None:
    """Nothing stored was lost, and going on ends where an undisturbed run does."""
    reference, _, allowed = undisturbed
    check_after_death(out, log, allowed)
    run(out, Mortal(), [])
    assert tables(out) == tables(reference), out.name
    assert files(out) == files(reference), out.name


def test_a_kill_at_every_step(tmp_path: Path, undisturbed: tuple[Path, int, dict[tuple[str, str], Any]]) -> None:
    """The folder is copied before each step of one run, if it differs: what a kill there leaves."""
    out, log, deaths, last = tmp_path / "run", [], [], [{}]

    def copy() -> None:
        state = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        if out.exists() and state != last[0]:
            deaths.append((tmp_path / str(len(deaths)), list(log)))
            shutil.copytree(out, deaths[-1][0])
        last[0] = state

    run(out, Mortal(watch=copy), log)
    assert undisturbed[1] > len(deaths) > 100
    for folder, log_then in deaths:
        check_recovery(folder, log_then, undisturbed)


def test_a_result_is_never_half_replaced(tmp_path: Path) -> None:
    """Old and new files have equal sizes, so that only the order of the steps can tell them apart."""
    rows, _ = result("k1", "done")
    versions = [
        (
            {name: [row | {"name": name_now} for row in part] for name, part in rows.items()},
            {"structures/k1/0.cif": text},
        )
        for name_now, text in (("one", b"one"), ("two", b"two"))
    ]
    for fatal in range(100):
        out, disk = tmp_path / str(fatal), Mortal(fatal=10_000)
        store = Store.open(out, INFO, disk)
        store.put("k1", *versions[0])
        disk.fatal = disk.steps + fatal
        try:
            store.put("k1", *versions[1])
        except Killed:
            names = {row["name"] for part in tables(out).values() for row in part}
            text = (out / "structures/k1/0.cif").read_bytes().decode()
            assert names in (set(), {"one"}, {"two"}) and (not names or names == {text})
            counts = {len(part) for name, part in tables(out).items()}
            assert counts == ({2, 4} if names else {0})
        else:
            assert fatal > 20
            break
        finally:
            store._lock.close()


@pytest.mark.parametrize("loss", [1.0, 0.5], ids=["all", "some"])
def test_a_power_cut(loss: float, tmp_path: Path, undisturbed: tuple[Path, int, dict[tuple[str, str], Any]]) -> None:
    """What was not synced is lost, in all folders or in some."""
    for fatal in range(0, undisturbed[1], 11):
        out, log = tmp_path / str(fatal), []
        with pytest.raises(Killed):
            run(out, Mortal(fatal, loss), log)
        check_recovery(out, log, undisturbed)


def test_death_twice(tmp_path: Path, undisturbed: tuple[Path, int, dict[tuple[str, str], Any]]) -> None:
    """The work of clearing up after a death dies, too."""
    reference, num_steps, _ = undisturbed
    for first in range(5, num_steps, 53):
        for second in range(0, 25, 6):
            out = tmp_path / f"{first}-{second}"
            for disk in (Mortal(first), Mortal(second, 1.0)):
                with pytest.raises(Killed):
                    run(out, disk, [])
            run(out, Mortal(), [])
            assert tables(out) == tables(reference)
            assert files(out) == files(reference)


def test_readers_see_all_rows_once_at_every_instant(
    tmp_path: Path, undisturbed: tuple[Path, int, dict[tuple[str, str], Any]]
) -> None:
    _, _, allowed = undisturbed
    out, log = tmp_path / "run", []
    run(out, Mortal(watch=lambda: check_after_death(out, log, allowed)), log)


@pytest.mark.parametrize("moment", ["_read_receipt", "_read_manifest", "_is_intact"])
def test_a_merge_in_the_middle_of_a_read(moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deletes receipts, parts and the former merged files just before the reader looks at them."""
    with Store.open(tmp_path / "run", INFO) as store:
        for key in ("k1", "k2"):
            store.put(key, *result(key, "done"))
            if key == "k1":
                store.compact()
        expected = tables(tmp_path / "run")
        inner = getattr(receipts, moment)

        def late(*arguments: Any) -> Any:
            monkeypatch.setattr(receipts, moment, inner)
            store.compact()
            return inner(*arguments)

        monkeypatch.setattr(receipts, moment, late)
        assert tables(tmp_path / "run") == expected


def test_a_merge_between_looking_and_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(tmp_path / "run", INFO) as store:
        store.put("k1", *result("k1", "done"))
        expected = tables(tmp_path / "run")
        old = take_snapshot(tmp_path / "run")
        store.compact()
        stale = [old]
        monkeypatch.setattr(
            "foldcp.pipeline.store.take_snapshot", lambda root: stale.pop() if stale else take_snapshot(root)
        )
        assert tables(tmp_path / "run") == expected and not stale


def test_a_reader_in_another_thread(tmp_path: Path) -> None:
    """Merges delete files while they are being read; no read ever misses or doubles a row."""
    failures, over = [], threading.Event()

    def read() -> None:
        while not over.is_set():
            found = {row["key"] for row in read_table(tmp_path / "run", "complexes").to_pylist()}
            if not {"k1", "k2"} <= found:
                failures.append(found)

    with Store.open(tmp_path / "run", INFO) as store:
        for key in ("k1", "k2"):
            store.put(key, *result(key, "done"))
        thread = threading.Thread(target=read)
        thread.start()
        for n in range(15):
            store.put(f"x{n % 3}", *result(f"x{n % 3}", "failed"))
            store.compact()
        over.set()
        thread.join()
    assert not failures


def test_folders_read_by_pandas_hold_exactly_the_rows(tmp_path: Path) -> None:
    out = tmp_path / "a=1" / "run"  # '=' looks like a partition to some readers
    with Store.open(out, INFO) as store:
        store.put("k1", *result("k1", "done"))
        store.put("k2", *result("k2", "failed"))
        store.attempt(ATTEMPT)
        before = {name: store.table(name).to_pylist() for name in RESULTS}
    after = {name: pd.read_parquet(out / "tables" / name) for name in TABLES}
    assert {name: len(frame) for name, frame in after.items()} == {
        "complexes": 3, "chains": 0, "interfaces": 4, "attempts": 1, "runs": 1,
    }  # fmt: skip
    assert tables(out) == before
    assert after["complexes"]["outcome"].tolist() == ["done", "done", "failed"]
    assert after["interfaces"]["interface_plddt"].isna().all()
    assert after["interfaces"].columns.tolist() == [column.name for column in TABLES["interfaces"].columns]
    assert after["attempts"]["run_id"].tolist() == after["runs"]["run_id"].tolist()
    (run_row,) = after["runs"].to_dict("records")
    assert run_row["status"] == "finished" and run_row["ended"] >= run_row["started"]
    assert (run_row["num_done"], run_row["num_failed"], run_row["num_unbuildable"]) == (1, 1, 0)
    assert run_row["untrained"] and json.loads(run_row["settings"]) == INFO.settings
    assert read_run(out)["identity"] == INFO.identity


def test_what_replaces_a_result_takes_all_of_it(tmp_path: Path) -> None:
    """No part of the earlier result stays in a table that the new one has no rows for."""
    with Store.open(tmp_path / "run", INFO) as store:
        store.put("k1", *result("k1", "done"))
        store.put("k1", *result("k1", "failed"))
        assert not list((tmp_path / "run/tables/interfaces").iterdir())
    assert len(pd.read_parquet(tmp_path / "run/tables/interfaces")) == 0
    assert pd.read_parquet(tmp_path / "run/tables/complexes")["outcome"].tolist() == ["failed"]


def test_missing_numbers_are_null_for_readers_that_know_nan(tmp_path: Path) -> None:
    with Store.open(tmp_path / "run", INFO) as store:
        store.put("k1", *result("k1", "done"))
    column = read_table(tmp_path / "run", "interfaces")["interface_plddt"]
    assert column.null_count == 4 and column.to_pylist() == [None] * 4


def test_every_field_says_what_it_is(tmp_path: Path) -> None:
    with Store.open(tmp_path / "run", INFO):
        pass
    for name, table in TABLES.items():
        (path,) = (tmp_path / "run" / "tables" / name).iterdir()
        schema = pq.read_schema(path)
        assert schema.metadata[b"description"].decode() == table.description
        for field in schema:
            assert len(field.metadata[b"description"]) > 3 and b"unit" in field.metadata, field.name
        assert table.unit in schema.names and set(table.order) <= set(schema.names)
    directed = pq.read_schema(next((tmp_path / "run/tables/interfaces").iterdir()))
    assert b"frames in chain_a" in directed.field("iptm").metadata[b"description"]
    assert directed.field("pae_min").metadata[b"unit"] == "Å, lower is better".encode()


def test_two_runs_give_equal_bytes(tmp_path: Path) -> None:
    """Parts in another order, merged at other moments, and one result put twice."""
    for name, keys in (("a", ["k1", "k2", "k3"]), ("b", ["k3", "k1", "k1", "k2"])):
        with Store.open(tmp_path / name, INFO) as store:
            for key in keys:
                store.put(key, *result(key, "failed" if key == "k2" else "done"))
                if name == "b":
                    store.compact()
    for table in RESULTS:
        (a,), (b,) = ((tmp_path / n / "tables" / table).iterdir() for n in "ab")
        assert a.read_bytes() == b.read_bytes()


def test_a_merge_cut_short_is_finished_on_opening(tmp_path: Path) -> None:
    """So that the folders are right for pandas again, before the run goes on."""
    for fatal in range(200):
        out, disk = tmp_path / str(fatal), Mortal(fatal=10_000)
        store = Store.open(out, INFO, disk)
        store.put("k1", *result("k1", "done"))
        disk.fatal = disk.steps + fatal
        try:
            store.compact()
        except Killed:
            store._lock.close()
            store = Store.open(out, INFO, Mortal())
            assert len(pd.read_parquet(out / "tables/interfaces")) == 4
            assert len(pd.read_parquet(out / "tables/complexes")) == 2
        else:
            assert fatal > 30
            break
        finally:
            store._lock.close()


def test_merging_twice_changes_nothing(tmp_path: Path) -> None:
    with Store.open(tmp_path / "run", INFO) as store:
        store.put("k1", *result("k1", "done"))
        store.compact()
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
        store.compact()
        assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before


@pytest.mark.parametrize("merged", [False, True])
def test_a_result_counts_only_while_its_files_are_whole(merged: bool, tmp_path: Path) -> None:
    out = tmp_path / "run"
    store = Store.open(out, INFO)
    for key in ("k1", "k2"):
        store.put(key, *result(key, "done"))
    if merged:
        store.compact()
    store.close()
    structure = out / "structures/k1/0.cif"
    structure.write_bytes(structure.read_bytes().replace(b"first", b"fifth"))
    with Store.open(out, INFO) as store:
        assert store.done() == {"k1", "k2"}  # sizes only
        assert store.verify() == {"k1"}
        assert store.done() == {"k2"}
    structure.unlink()
    with Store.open(out, INFO) as store:
        assert store.done() == {"k2"}
        assert {row["key"] for row in store.table("interfaces").to_pylist()} == {"k2"}
    assert pd.read_parquet(out / "tables/interfaces")["key"].unique().tolist() == ["k2"]


def test_without_a_merged_table_its_results_are_computed_again(tmp_path: Path) -> None:
    with Store.open(tmp_path / "run", INFO) as store:
        store.put("k1", *result("k1", "done"))
    next((tmp_path / "run/tables/interfaces").iterdir()).unlink()
    assert read_table(tmp_path / "run", "complexes").num_rows == 0
    with Store.open(tmp_path / "run", INFO) as store:
        assert store.done() == set()
        store.put("k1", *result("k1", "done"))
    assert len(pd.read_parquet(tmp_path / "run/tables/interfaces")) == 4
    assert len(pd.read_parquet(tmp_path / "run/tables/complexes")) == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda out: out.write_text("x"), "not a folder"),
        (lambda out: (out.mkdir(), (out / "thesis.txt").touch()), "neither empty nor the folder of a run"),
        (lambda out: Store.open(out, INFO), "another process is writing there"),
        (
            lambda out: Store.open(out, replace(INFO, identity=INFO.identity | {"input": "corum.tsv"})).close(),
            "input is 'corum.tsv' there and 'demo.tsv' here",
        ),
        (
            lambda out: Store.open(out, replace(INFO, identity={"settings": {"model": {"samples": 5}}})).close(),
            "checkpoint is None there and 'abc' here",
        ),
        (
            lambda out: Store.open(
                out, replace(INFO, identity=INFO.identity | {"settings": {"model": {"samples": 5}}})
            ).close(),
            "settings.model.samples is 5 there and 1 here",
        ),
    ],
)
def test_a_folder_that_is_not_ours_is_left_alone(make: Callable[[Path], Any], message: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    made = make(out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=message) as error:
        Store.open(out, INFO)
    assert str(out) in str(error.value) and "\n" not in str(error.value)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    if isinstance(made, Store):
        made.close()


def test_two_complexes_may_not_share_a_file(tmp_path: Path) -> None:
    with Store.open(tmp_path / "run", INFO) as store:
        store.put("k1", result("k1", "done")[0], {"predictions/x/x.cif": b"1"})
        store.put("k1", result("k1", "done")[0], {"predictions/x/x.cif": b"2"})
        with pytest.raises(ValueError, match=r"predictions/x/x.cif: complexes k1 and k2 both write it"):
            store.put("k2", result("k2", "done")[0], {"predictions/x/x.cif": b"3"})
    with pytest.raises(ValueError, match="not the folder of a run"):
        read_table(tmp_path, "complexes")


def test_a_result_that_cannot_be_written_leaves_the_earlier_one(tmp_path: Path) -> None:
    def fails(path: Path) -> None:
        path.write_text("half")
        raise ValueError("not finite")

    with Store.open(tmp_path / "run", INFO) as store:
        store.put("k1", *result("k1", "done"))
        before = tables(tmp_path / "run")
        with pytest.raises(ValueError, match="not finite"):
            store.put("k1", result("k1", "failed")[0], {"structures/k1/0.cif": fails})
        assert tables(tmp_path / "run") == before and store.outcomes() == {"k1": "done"}


def test_unknown_columns_and_missing_values_are_mistakes(tmp_path: Path) -> None:
    rows, _ = result("k1", "failed")
    with Store.open(tmp_path / "run", INFO) as store:
        with pytest.raises(AssertionError, match="ptmm"):
            store.put("k1", {"complexes": [rows["complexes"][0] | {"ptmm": 1.0}]})
        with pytest.raises(AssertionError, match="column reason"):
            store.put("k1", {"complexes": [rows["complexes"][0] | {"reason": None}]})


def test_files_and_folders_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real disk calls fsync for every file and every folder that got a name."""
    synced = []
    inner = disk_module.os.fsync
    monkeypatch.setattr(disk_module.os, "fsync", lambda fd: (synced.append(disk_module.os.fstat(fd).st_ino), inner(fd)))
    with Store.open(tmp_path / "run", INFO) as store:
        store.put("k1", *result("k1", "done"))
    for path in (tmp_path / "run").rglob("*"):
        if path.name not in (".lock", ".tmp"):  # what lies in them may be lost
            assert path.stat().st_ino in synced, path


def test_many_complexes_are_merged_quickly(tmp_path: Path) -> None:
    """100 complexes: one file for each table, in the order of the names."""
    with Store.open(tmp_path / "run", INFO, Mortal()) as store:
        for n in np.random.default_rng(0).permutation(100):
            store.put(f"k{n:03}", *result(f"k{n:03}", "done"))
    frame = pd.read_parquet(tmp_path / "run/tables/interfaces")
    assert len(frame) == 400 and frame["name"].is_monotonic_increasing
    assert not frame.duplicated(["key", "sample", "chain_a", "chain_b"]).any()
