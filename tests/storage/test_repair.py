"""Damage to the files of a run: what is lost is named and computed again, and no number ever
changes.
"""

from __future__ import annotations

import json
import logging
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foldcp.pipeline.config import WriteConfig
from foldcp.pipeline.storage import parquet
from foldcp.pipeline.storage.manifest import read_manifest, read_records
from foldcp.pipeline.storage.merge import published_path
from foldcp.pipeline.storage.repair import find_damage
from foldcp.pipeline.storage.schemas import TABLES
from foldcp.pipeline.storage.store import Store
from foldcp.pipeline.storage.tables import read_table
from tests.support.crashing_filesystem import CrashingFileSystem
from tests.support.synthetic_results import ATTEMPT, INFO, RESULTS, finishing, result, tables

KEYS = [f"k{number}" for number in range(8)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished run of eight results, in row groups of a few of them."""
    out = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "ROW_GROUP_ROWS", 8)
        with finishing(Store.open(out, INFO, CrashingFileSystem())) as store:
            for key in KEYS:
                store.put(key, *result(key, "done"))
                store.put_attempt(ATTEMPT)
        yield out


@pytest.fixture
def out(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


def own(out: Path, name: str) -> Path:
    (path,) = (out / "parts" / name).iterdir()
    return path


def published(out: Path, name: str) -> Path:
    return out / published_path(name, 0)


def flip(path: Path, place: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def resume(out: Path) -> set[str]:
    """Open the folder and close it; the keys whose results count."""
    with finishing(Store.open(out, INFO, CrashingFileSystem())) as store:
        return set(store.outcomes())


DAMAGE: dict[str, Callable[[Path], object]] = {
    "deleted": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "a bit of its data": lambda path: flip(path, 100),
    "a bit of its footer": lambda path: flip(path, -100),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
@pytest.mark.parametrize("name", TABLES)
def test_open_restores_either_copy_of_a_table_from_the_other(
    name: str,
    damage: Callable[[Path], object],
    whole: Path,
    out: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """At the price of no result, and the file is named when it was the store's own."""
    damage(published(out, name))
    assert resume(out) == set(KEYS)
    assert not caplog.records
    damage(path := own(out, name))
    assert resume(out) == set(KEYS)
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: damaged; all of its rows were restored"
    ]
    assert tables(out) == tables(whole)
    for group in read_manifest(out).groups:
        assert not find_damage(out, group, read_records(out, group)).messages
    for table in RESULTS:
        assert published(out, table).read_bytes() == published(whole, table).read_bytes()


@pytest.mark.parametrize("name", ["attempts", "runs"])
def test_damage_to_attempts_or_runs_costs_no_result(
    name: str, whole: Path, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(out / "parts" / name)
    shutil.rmtree(out / "tables" / name)
    assert tables(out) == tables(whole)
    assert resume(out) == set(KEYS)
    assert tables(out) == tables(whole)
    assert " rows are lost" in caplog.messages[0]
    assert f"parts/{name}/merged-" in caplog.messages[0]
    assert len(pd.read_parquet(out / "tables" / name)) == (1 if name == "runs" else 0)


def test_a_damaged_page_costs_the_results_in_it(
    whole: Path,
    out: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parquet, "ROW_GROUP_ROWS", 8)
    path = own(out, "interfaces")
    for file in (path, published(out, "interfaces")):
        flip(file, 30)
    with pytest.raises(ValueError, match="damaged") as error:
        read_table(out, "interfaces")
    assert str(path) in str(error.value)
    left = resume(out)
    assert left == set(KEYS[2:])  # a row group has the rows of two results
    assert caplog.messages == [f"{path}: damaged; 2 of 8 results are lost and computed again"]
    expected = {
        name: [row for row in rows if row["key"] in left] for name, rows in tables(whole).items()
    }
    assert tables(out) == expected
    with finishing(Store.open(out, INFO, CrashingFileSystem())) as store:
        for key in sorted(set(KEYS) - left):
            store.put(key, *result(key, "done"))
    assert tables(out) == tables(whole)
    assert published(out, "interfaces").read_bytes() == published(whole, "interfaces").read_bytes()


def test_flipped_bits_never_change_a_number(whole: Path, out: Path, tmp_path: Path) -> None:
    """Of both copies at once, anywhere; what is left after the next run is what was there
    before.
    """
    draw = random.Random(1)
    expected = tables(whole)
    size = own(whole, "complexes").stat().st_size
    num_lost = 0
    for number in range(60):
        folder = Path(shutil.copytree(whole, tmp_path / str(number)))
        place = draw.randrange(size)
        bit = draw.randrange(8)
        for path in (own(folder, "complexes"), published(folder, "complexes")):
            flip(path, place, bit)
        left = resume(folder)
        num_lost += len(KEYS) - len(left)
        assert tables(folder) == {
            n: [row for row in rows if row["key"] in left] for n, rows in expected.items()
        }
        shutil.rmtree(folder)
    assert 0 < num_lost < 60 * len(KEYS)


def test_read_parquet_finds_a_flipped_bit_by_the_checksum_of_its_page(out: Path) -> None:
    """The file is as readable as before; only the numbers are others."""
    path = own(out, "complexes")
    table = TABLES["complexes"]
    before = path.read_bytes()
    expected = parquet.read_parquet(path, table)
    num_found = 0
    footer = int.from_bytes(before[-8:-4], "little") + 8
    for place in range(4, len(before) - footer, 5):
        path.write_bytes(before)
        flip(path, place)
        if (changed := read_unchecked(path)) is None or changed.equals(expected):
            continue
        num_found += 1
        with pytest.raises(ValueError, match="damaged"):
            parquet.read_parquet(path, table)
        assert parquet.read_intact_groups(path, table).num_rows < expected.num_rows
    assert num_found > 0


def read_unchecked(path: Path) -> pa.Table | None:
    """The rows that a reader without checksums finds; none when the file cannot be decoded."""
    try:
        with pq.ParquetFile(path) as file:
            return file.read()
    except parquet.DAMAGE_ERRORS:
        return None


def killed_with_two_parts(out: Path) -> Path:
    """The folder of a run that was killed before it merged its two results."""
    killed = Store.open(out, INFO, CrashingFileSystem())
    for key in KEYS[:2]:
        killed.put(key, *result(key, "done"))
    killed._lock.close()
    return out


def test_damaged_parts_are_computed_again(tmp_path: Path) -> None:
    out = killed_with_two_parts(tmp_path / "run")
    flip(out / "commits/k1.jsonl", -30)
    assert resume(out) == {"k0"}
    assert set(pd.read_parquet(out / "tables/interfaces")["key"]) == {"k0"}


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"7", b'{"id": 7}', b'{"id": "k0", "kind": "complex"}', b"\xff"],
)
def test_a_damaged_commit_record_does_not_count(content: bytes, tmp_path: Path) -> None:
    out = killed_with_two_parts(tmp_path / "run")
    (out / "commits/k1.jsonl").write_bytes(content)
    assert {row["key"] for row in read_table(out, "complexes").to_pylist()} == {"k0"}
    assert resume(out) == {"k0"}


def test_a_commit_record_of_an_unknown_table_does_not_count(tmp_path: Path) -> None:
    out = killed_with_two_parts(tmp_path / "run")
    path = out / "commits/k1.jsonl"
    header, rows = path.read_text().split("\n")
    content = json.loads(header)
    content["rows"]["unknown"] = content["rows"].pop("interfaces")
    path.write_text(json.dumps(content) + "\n" + rows)
    assert resume(out) == {"k0"}


def test_read_parquet_refuses_other_columns(out: Path) -> None:
    path = own(out, "complexes")
    size = path.stat().st_size
    path.write_bytes(parquet.to_parquet(pa.table({"key": ["k0"]})).ljust(size, b"\0"))
    with pytest.raises(ValueError, match=r"merged-.*damaged"):
        read_table(out, "complexes")


def test_power_cut_during_a_repair(out: Path, whole: Path, tmp_path: Path) -> None:
    flip(own(out, "interfaces"), 30)
    for fatal in range(0, 60, 3):
        folder = Path(shutil.copytree(out, tmp_path / str(fatal)))
        try:
            Store.open(folder, INFO, CrashingFileSystem(fatal, 0.5)).close()
        except BaseException as error:
            assert type(error).__name__ == "Killed"
        assert resume(folder) == set(KEYS)
        assert tables(folder) == tables(whole)


@pytest.fixture(autouse=True)
def warnings_are_seen(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)


def test_result_that_lost_a_file_is_known_with_the_settings_of_its_files(tmp_path: Path) -> None:
    out = tmp_path / "run"
    write = WriteConfig(pae="all")
    rows, files = result("k1", "done")
    with finishing(Store.open(out, INFO)) as store:
        store.put("k1", rows, files, write)
        assert store.written_before("k1") is None
    (out / next(iter(files))).unlink()
    with finishing(Store.open(out, INFO)) as store:
        assert store.outcome("k1") == ""
        assert store.written_before("k1") == write
        assert store.written_before("k2") is None
