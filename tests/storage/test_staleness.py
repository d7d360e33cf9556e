"""Results of an earlier input or of other settings: which they are, and that no reader takes
them for present ones.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from foldcp.complex import InvalidComplex
from foldcp.pipeline.storage.manifest import CommitRecord
from foldcp.pipeline.storage.results.invalid_records import invalid_rows, sync_invalid
from foldcp.pipeline.storage.results.provenance import Provenance
from foldcp.pipeline.storage.staleness import Present, find_stale, find_vanished
from foldcp.pipeline.storage.store import Store
from foldcp.pipeline.storage.tables import count_stale, read_table
from tests.support.crashing_filesystem import CrashingFileSystem
from tests.support.synthetic_results import INFO, RESULTS, finishing, result, tables

PROVENANCE = Provenance("untrained:tiny", True, settings_hash="s1")
DONE = CommitRecord("k1", "complex", "done", "one", "s1")
FIRST = Present(frozenset({"k1", "k2"}))
SECOND = Present(frozenset({"k2", "k3"}))


@pytest.mark.parametrize(
    ("record", "present", "stale"),
    [
        (DONE, Present(frozenset({"k1"}), settings_hash="s1"), False),
        (
            DONE,
            Present(frozenset({"k1"}), settings_hash="s2"),
            False,
        ),  # the key holds all that matters
        (DONE, Present(frozenset({"k2"}), settings_hash="s1"), True),
        (DONE, Present(frozenset({"k2"}), frozenset({"one"}), "s1"), False),
        (DONE, Present(frozenset({"k2"}), frozenset({"one"}), "s2"), True),
        (DONE, Present(frozenset({"k2"}), frozenset({"two"}), "s1"), True),
        (replace(DONE, outcome="failed"), Present(frozenset()), True),
        (replace(DONE, outcome="invalid"), Present(frozenset()), False),
        (replace(DONE, kind="attempt"), Present(frozenset()), False),
        (replace(DONE, kind="run", outcome="finished"), Present(frozenset()), False),
    ],
)
def test_find_stale_finds_results_that_are_not_asked_for(
    record: CommitRecord, present: Present, stale: bool
) -> None:
    assert find_stale({"k1": record}, present) == ({"k1"} if stale else set())


def test_find_vanished_finds_invalid_records_that_left_the_input() -> None:
    commits = {"k1": replace(DONE, outcome="invalid"), "k2": DONE}
    assert find_vanished(commits, Present(frozenset({"k1"}))) == set()
    assert find_vanished(commits, Present(frozenset())) == {"k1"}
    assert find_vanished(commits, Present(frozenset(), frozenset({"one"}))) == set()


def shown(out: Path) -> dict[str, list[str]]:
    """Keys of the rows that a plain reader finds in each table, and that they are those of
    `read_table`.
    """
    found = {}
    for name in RESULTS:
        frame = pd.read_parquet(out / "tables" / name)
        assert (
            frame.to_dict("list").keys() == read_table(out, name).to_pandas().to_dict("list").keys()
        )
        assert frame["key"].tolist() == read_table(out, name)["key"].to_pylist()
        assert frame["stale"].tolist() == read_table(out, name)["stale"].to_pylist()
        found[name] = sorted(set(frame["key"]))
    return found


def begin(
    out: Path, present: Present, keep: bool = False, filesystem: CrashingFileSystem | None = None
) -> Store:
    store = Store.open(out, INFO, filesystem or CrashingFileSystem())
    store.mark_stale(present, keep)
    return store


def first_run(out: Path) -> None:
    with finishing(begin(out, FIRST)) as store:
        for key in ("k1", "k2"):
            store.put(key, *result(key, "done"))


def test_mark_stale_removes_stale_rows_at_once(
    tmp_path: Path,
) -> None:
    out = tmp_path / "run"
    first_run(out)
    before = {name: pd.read_parquet(out / "tables" / name) for name in RESULTS}
    with finishing(begin(out, SECOND)) as store:
        assert shown(out) == {name: ["k2"] for name in RESULTS}
        assert store.outcomes() == {"k2": "done"}
        store.put("k3", *result("k3", "done"))
    assert shown(out) == {name: ["k2", "k3"] for name in RESULTS}
    assert count_stale(out) == 1
    assert not pd.read_parquet(out / "tables/complexes")["stale"].any()
    runs = pd.read_parquet(out / "tables/runs")
    assert runs["num_done"].tolist() == [2, 2]
    # Nothing that was computed is gone: the earlier input brings the tables back as they were.
    with finishing(begin(out, FIRST)) as store:
        assert store.outcomes() == {"k1": "done", "k2": "done"}
    for name in RESULTS:
        pd.testing.assert_frame_equal(pd.read_parquet(out / "tables" / name), before[name])
    assert (out / "structures/k3/0.cif").exists()


def test_mark_stale_may_keep_stale_rows_with_their_flag(tmp_path: Path) -> None:
    out = tmp_path / "run"
    first_run(out)
    with finishing(begin(out, SECOND, keep=True)) as store:
        store.put("k3", *result("k3", "done"))
    assert shown(out) == {name: ["k1", "k2", "k3"] for name in RESULTS}
    for name in RESULTS:
        frame = pd.read_parquet(out / "tables" / name)
        assert set(frame.loc[frame["stale"], "key"]) == {"k1"}
        assert set(frame.loc[~frame["stale"], "key"]) == {"k2", "k3"}
    with finishing(begin(out, SECOND)):
        assert shown(out) == {name: ["k2", "k3"] for name in RESULTS}


def test_mark_stale_marks_unmerged_results(tmp_path: Path) -> None:
    out = tmp_path / "run"
    killed = begin(out, FIRST)
    killed.put("k1", *result("k1", "done"))
    killed._lock.close()
    with finishing(begin(out, SECOND)):
        assert shown(out) == {name: [] for name in RESULTS}
    with finishing(begin(out, FIRST)) as store:
        assert store.outcomes() == {"k1": "done"}


def test_put_refuses_a_stale_key(tmp_path: Path) -> None:
    first_run(tmp_path / "run")
    with (
        finishing(begin(tmp_path / "run", SECOND)) as store,
        pytest.raises(AssertionError, match="k1 is marked as stale"),
    ):
        store.put("k1", *result("k1", "done"))


def named(key: str, text: bytes) -> dict[str, bytes]:
    return {
        f"structures/{key}/0.cif": b"of " + key.encode(),
        "predictions/x/x.cif": text,
    }


def test_mark_stale_releases_files_named_after_the_complex(
    tmp_path: Path,
) -> None:
    """Both versions of a complex write them; the stale one gets them back only while no other
    result wrote them.
    """
    out = tmp_path / "run"
    file = tmp_path / "run/predictions/x/x.cif"
    old = Present(frozenset({"k1"}))
    new = Present(frozenset({"k2"}))
    with finishing(begin(out, old)) as store:
        store.put("k1", result("k1", "done")[0], named("k1", b"1"))
    with finishing(begin(out, new)):
        pass
    with finishing(begin(out, old)) as store:
        assert store.outcomes() == {"k1": "done"}
    with finishing(begin(out, new, keep=True)) as store:
        store.put("k2", result("k2", "done")[0], named("k2", b"2"))
    assert file.read_bytes() == b"2"
    assert shown(out) == {name: ["k1", "k2"] for name in RESULTS}
    with finishing(begin(out, old)) as store:
        assert store.outcomes() == {}  # the rows are there, but not the files
        store.put("k1", result("k1", "done")[0], named("k1", b"1"))
    assert file.read_bytes() == b"1"
    assert shown(out) == {name: ["k1"] for name in RESULTS}


def test_kill_at_every_step_of_a_changed_input(tmp_path: Path) -> None:
    """A plain reader finds all of the earlier result or all of the new one, never both, and no
    stale row once the run resumes; the earlier result survives every kill.
    """
    out = tmp_path / "run"
    deaths = []
    last = [{}]
    first_run(out)

    def copy() -> None:
        state = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        if state != last[0]:
            deaths.append(tmp_path / str(len(deaths)))
            shutil.copytree(out, deaths[-1])
        last[0] = state

    with finishing(begin(out, SECOND, filesystem=CrashingFileSystem(watch=copy))) as store:
        store.put("k3", *result("k3", "done"))
    assert len(deaths) > 50
    expected = tables(out)
    seen = set()
    for number, folder in enumerate(deaths):
        for name in RESULTS:
            keys = pd.read_parquet(folder / "tables" / name)["key"]
            assert {k: int(n) for k, n in keys.value_counts().items()} in [
                {key: len(expected[name]) // 2 for key in keys_now}
                for keys_now in (["k1", "k2"], ["k2"], ["k2", "k3"])
            ]
            seen.add(frozenset(keys))
        if number % 4:
            continue
        with finishing(begin(folder, SECOND)) as store:
            if "k3" not in store.outcomes():
                store.put("k3", *result("k3", "done"))
        assert tables(folder) == expected
        with finishing(begin(folder, FIRST)) as store:
            assert store.outcomes() == {"k1": "done", "k2": "done"}
    assert len(seen) == 3


def invalid(out: Path) -> list[tuple[str, str]]:
    frame = pd.read_parquet(out / "tables/complexes")
    assert (frame["outcome"] == "invalid").all()
    return list(zip(frame["name"], frame["reason"], strict=True))


def sync(
    out: Path,
    *records: InvalidComplex,
    tasks: tuple[str, ...] = (),
    left_out: tuple[str, ...] = (),
) -> Any:
    keys = frozenset(invalid_rows(records, PROVENANCE)) | set(tasks)
    with finishing(begin(out, Present(keys, frozenset(left_out), "s1"))) as store:
        stored = []
        inner = store.put_many
        store.put_many = lambda results: (stored.extend(results), inner(results))[1]
        sync_invalid(store, records, PROVENANCE)
        return len(stored)


def test_sync_invalid_stores_one_row_with_the_present_reason(
    tmp_path: Path,
) -> None:
    out = tmp_path / "run"
    one = InvalidComplex("a", "in/a.a3m: no such file", index=0)
    two = InvalidComplex("b", "P9: no sequence", index=1)
    assert sync(out, one, two) == 2
    assert sync(out, one, two) == 0
    assert invalid(out) == [("a", one.reason), ("b", two.reason)]
    absolute = replace(one, reason="/work/in/a.a3m: no such file")
    assert sync(out, absolute, two) == 1
    assert invalid(out) == [("a", absolute.reason), ("b", two.reason)]
    sync(out, two, tasks=("k1",))  # its fault was fixed
    assert invalid(out) == [("b", two.reason)]
    sync(out, tasks=("k1",), left_out=("b",))
    assert invalid(out) == [("b", two.reason)]
    sync(out, tasks=("k1",))
    assert invalid(out) == []


def test_sync_invalid_stores_records_of_one_name_separately(tmp_path: Path) -> None:
    records = [InvalidComplex("a", "no sequence", index=n) for n in range(3)]
    sync(tmp_path / "run", *records)
    assert invalid(tmp_path / "run") == [("a", "no sequence")] * 3


def test_result_returns_once_its_broken_alignment_is_fixed(
    tmp_path: Path,
) -> None:
    out = tmp_path / "run"
    broken = InvalidComplex("name of k1", "a.a3m: damaged")
    first_run(out)
    keys = frozenset(invalid_rows([broken], PROVENANCE))
    with finishing(begin(out, Present(keys | {"k2"}))) as store:
        sync_invalid(store, [broken], PROVENANCE)
    frame = pd.read_parquet(out / "tables/complexes")
    assert dict(zip(frame["name"], frame["outcome"], strict=True)) == {
        "name of k1": "invalid",
        "name of k2": "done",
    }
    with finishing(begin(out, FIRST)) as store:
        assert store.outcomes() == {"k1": "done", "k2": "done"}
    assert shown(out) == {name: ["k1", "k2"] for name in RESULTS}
