"""pandas, polars and DuckDB see each row exactly once, while a writer works and is killed."""

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import duckdb
import pandas as pd
import polars
import pytest

from foldcp.pipeline.storage.store import Store
from tests.support.synthetic_results import INFO, finishing

NUM_KEYS = 12
KILLS = 4
# Computes results again and again, with a merge after every third, in groups of a few commits.
WRITER = f"""
import sys
from itertools import count
from pathlib import Path
from foldcp.pipeline.storage import merge
from foldcp.pipeline.storage.store import Store
from tests.support.synthetic_results import INFO, result

merge.MIN_MERGE_COMMITS = merge.MAX_UNMERGED_COMMITS = 3
merge.GROUP_COMMITS = 5
store = Store.open(Path(sys.argv[1]), INFO)
for number in count():
    key = f"k{{number * 5 % {NUM_KEYS}}}"
    store.put(key, *result(key, "done"))
    if number == {NUM_KEYS}:
        print("all are stored", flush=True)
"""


def _pandas(folder: Path) -> list[tuple[str, int, str]]:
    rows = pd.read_parquet(folder)
    return list(zip(rows["key"], rows["sample"], rows["chain_a"], strict=True))


def _polars(folder: Path) -> list[tuple[str, int, str]]:
    frame = polars.read_parquet(folder / "*.parquet")
    return frame.select("key", "sample", "chain_a").rows()


def _duckdb(folder: Path) -> list[tuple[str, int, str]]:
    glob = str(folder / "*.parquet")
    return duckdb.execute("SELECT key, sample, chain_a FROM read_parquet(?)", [glob]).fetchall()


def _read(
    read: Callable[[Path], list[tuple[str, int, str]]], folder: Path
) -> list[tuple[str, int, str]]:
    """polars and DuckDB open a file twice and fail where it is replaced in between; then they are
    asked again.
    """
    try:
        return read(folder)
    except (polars.exceptions.ComputeError, polars.exceptions.PanicException, duckdb.Error):
        return read(folder)


@pytest.mark.parametrize("read", [_pandas, _polars, _duckdb], ids=["pandas", "polars", "duckdb"])
def test_readers_see_each_row_once_while_a_writer_is_killed(
    read: Callable[[Path], list[tuple[str, int, str]]], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with finishing(Store.open(out, INFO)):
        pass
    pauses = random.Random(5)
    for _ in range(KILLS):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(out)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None and writer.stdout.readline()
        ends = time.monotonic() + pauses.random()
        while True:
            assert _check(_read(read, out / "tables" / "interfaces")) >= NUM_KEYS - 3
            if time.monotonic() > ends:
                break
        assert writer.poll() is None
        writer.kill()
        writer.wait()
        writer.stdout.close()
        assert _check(_read(read, out / "tables" / "interfaces")) >= NUM_KEYS - 3
    assert len(list((out / "tables" / "interfaces").iterdir())) >= 3


def _check(rows: list[tuple[str, int, str]]) -> int:
    """Whole results only, each row once; returns the number of results."""
    counts = Counter(rows)
    assert set(counts.values()) <= {1}
    results = Counter(key for key, _, _ in rows)
    assert set(results.values()) <= {4}  # two samples of two directed pairs
    return len(results)
