"""Queries of a run's tables in DuckDB, by the connection and by the commands."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

import foldcp
from foldcp.pipeline.cli import app
from foldcp.pipeline.reporting.query import format_rows
from foldcp.pipeline.storage.results.pair_rows import pair_rows
from foldcp.pipeline.storage.schemas import ALL_TABLES
from foldcp.pipeline.storage.store import Store
from tests.support.synthetic_results import ATTEMPT, INFO, NO_SCORES, finishing, result


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("query") / "run"
    with finishing(Store.open(out, INFO)) as store:
        for number, key in enumerate(["k1", "k2", "k3"]):
            rows, files = result(key, "done")
            for complex_row in rows["complexes"]:
                complex_row |= {"rank": complex_row["sample"], "source_pubmed_ids": [f"1{number}"]}
            for row in rows["interfaces"]:
                row |= {
                    **NO_SCORES | row,
                    "ipsae_d0res": number / 10 + 0.1 * (row["chain_a"] == "A"),
                    "accession_a": "P1" if row["chain_a"] == "A" else "P0",
                    "accession_b": "P1" if row["chain_b"] == "A" else "P0",
                    "gene_a": f"GENE{row['chain_a']}",
                    "gene_b": f"GENE{row['chain_b']}",
                    "num_contacts": 3 * (number != 1),
                }
            rows["pairs"] = pair_rows(rows["interfaces"])
            store.put(key, rows, files)
        store.put("k4", *result("k4", "failed"))
        store.put_attempt(ATTEMPT | {"seconds": 1800.0, "group_size": 4})
    return out


def test_connect_has_every_table(run: Path) -> None:
    with foldcp.connect(run) as connection:
        for name in ALL_TABLES:
            connection.table(name).fetchall()
        assert connection.sql("SELECT count(*) FROM interfaces").fetchall() == [(12,)]


@pytest.mark.parametrize("name", ["a=1/run", "run*[1]"])
def test_connect_reads_the_same_whatever_the_folder_is_called(
    name: str, run: Path, tmp_path: Path
) -> None:
    """Neither does a folder `a=1` become a column, nor a name a pattern of files."""
    other = shutil.copytree(run, tmp_path / name)
    with foldcp.connect(run) as expected, foldcp.connect(other) as connection:
        for table in ALL_TABLES:
            query = f"SELECT * FROM {table} ORDER BY ALL"
            assert connection.sql(query).df().equals(expected.sql(query).df()), table


def test_connect_to_a_run_in_progress_has_what_is_not_merged(run: Path, tmp_path: Path) -> None:
    out = shutil.copytree(run, tmp_path / "run")
    with finishing(Store.open(out, INFO)) as store:
        store.put("k4", *result("k4", "done"))
        with foldcp.connect(out) as connection:
            query = "SELECT count(*) FROM complexes WHERE key = 'k4' AND outcome = 'done'"
            assert connection.sql(query).fetchall() == [(2,)]


def test_best_interfaces_view_ranks_pairs_that_touch(run: Path) -> None:
    with foldcp.connect(run) as connection:
        rows = connection.sql("SELECT key, ipsae_strict, gene_a FROM best_interfaces").fetchall()
    assert [row[0] for row in rows] == ["k3", "k1"]
    assert rows[0][1] == pytest.approx(0.2)
    assert rows[0][2] == "GENEA"


def test_complex_summary_view_has_a_row_per_complex(run: Path) -> None:
    with foldcp.connect(run) as connection:
        rows = connection.sql(
            "SELECT key, outcome, num_samples, num_pairs_in_contact, gpu_hours FROM complex_summary"
        ).fetchall()
    assert rows == [
        ("k1", "done", 2, 1, 2.0),
        ("k2", "done", 2, 0, None),
        ("k3", "done", 2, 1, None),
        ("k4", "failed", None, None, None),
    ]


def test_known_pairs_view_lists_complexes_and_publications(run: Path) -> None:
    with foldcp.connect(run) as connection:
        (row,) = connection.sql(
            "SELECT accession_a, gene_a, num_complexes, pubmed_ids, complexes FROM known_pairs"
        ).fetchall()
    names = ["name of k1", "name of k2", "name of k3"]
    assert row == ("P0", "GENEB", 3, ["10", "11", "12"], names)


def test_query_formats(run: Path) -> None:
    sql = "SELECT key, ipsae_strict, [key] AS keys FROM best_interfaces"
    assert format_rows(run, sql, "csv").splitlines()[0] == "key,ipsae_strict,keys"
    assert [row["key"] for row in json.loads(format_rows(run, sql, "json"))] == ["k3", "k1"]
    assert format_rows(run, sql, "table").splitlines() == [
        "key  ipsae_strict  keys",
        'k3          0.200  ["k3"]',
        'k1          0.000  ["k1"]',
    ]


def test_query_command_prints_a_line_for_each_row(run: Path) -> None:
    sql = "SELECT key, 'a' || chr(10) || 'b' AS \"two lines\" FROM best_interfaces"
    done = CliRunner().invoke(app, ["query", str(run), sql])
    assert done.output.splitlines() == ["key  two lines", "k3   a\\x0ab", "k1   a\\x0ab"]


def test_query_refuses_in_one_line(run: Path) -> None:
    with pytest.raises(ValueError, match=r"the query cannot be answered: .*nosuch") as error:
        format_rows(run, "SELECT nosuch FROM pairs", "csv")
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="the query is empty"):
        format_rows(run, " \n", "csv")


def test_describe_tells_every_column() -> None:
    tables = CliRunner().invoke(app, ["describe"]).output
    for table in ALL_TABLES.values():
        assert table.name in tables
        columns = CliRunner().invoke(app, ["describe", table.name]).output
        for column in table.columns:
            assert f"\n{column.name} ({column.type}" in columns
    assert "ipTM of the pair" in CliRunner().invoke(app, ["describe", "interfaces"]).output


def test_dictionary_lies_beside_the_tables(run: Path) -> None:
    rows = pd.read_parquet(run / "tables" / "dictionary.parquet")
    columns = [(name, column.name) for name, t in ALL_TABLES.items() for column in t.columns]
    assert list(zip(rows["table"], rows["column"], strict=True)) == columns
    assert rows["description"].str.len().min() > 2
