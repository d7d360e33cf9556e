"""`foldcp export` of a run: its tables as CSV, its protein pairs as a network."""

from pathlib import Path

import networkx as nx
import pandas as pd
import pytest
from typer.testing import CliRunner

from foldcp.pipeline.cli import app
from foldcp.pipeline.exporting.export_run import export_run
from foldcp.pipeline.storage.results.pair_rows import pair_rows
from foldcp.pipeline.storage.schemas import ALL_TABLES
from foldcp.pipeline.storage.store import Store
from tests.support.synthetic_results import INFO, NO_SCORES, finishing, result


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two complexes of P1 and P2; they touch in the first."""
    out = tmp_path / "run"
    with finishing(Store.open(out, INFO)) as store:
        for key, contacts in (("k1", 3), ("k2", 0)):
            rows, _ = result(key, "done")
            for row in rows["complexes"]:
                row |= {"source_go_ids": ["GO:1", "GO:2"]}
            for row in rows["interfaces"]:
                row |= NO_SCORES | {"num_contacts": contacts, "ipsae_d0res": 0.25}
                row |= {f"accession_{end}": _accession(row[f"chain_{end}"], key) for end in "ab"}
            rows["pairs"] = pair_rows(rows["interfaces"])
            store.put(key, rows, {})
    return out


def _accession(chain: str, key: str) -> str:
    return "P1" if chain == "A" else f"P2{key}"


def test_csv_files_have_the_rows_of_the_tables(run: Path, tmp_path: Path) -> None:
    paths = export_run(run, "csv", tmp_path / "csv", overwrite=False).paths
    assert [path.name for path in paths] == [f"{name}.csv" for name in ALL_TABLES]
    rows = pd.read_csv(tmp_path / "csv" / "complexes.csv")
    assert rows.columns.tolist() == [column.name for column in ALL_TABLES["complexes"].columns]
    assert rows["source_go_ids"].tolist() == ["GO:1;GO:2"] * 4
    assert len(pd.read_csv(tmp_path / "csv" / "interfaces.csv")) == 8


def test_network_has_the_pairs_that_touch(run: Path, tmp_path: Path) -> None:
    (path,) = export_run(run, "cytoscape", tmp_path / "network", overwrite=False).paths
    network = nx.read_graphml(path)
    assert list(network.edges) == [("P1", "P2k1")]
    assert network.edges["P1", "P2k1"]["ipsae_d0res_max"] == 0.25
    assert network.nodes["P1"] == {"gene": "", "name": "P1"}


def test_command_refuses_what_is_there_and_what_is_no_run(run: Path, tmp_path: Path) -> None:
    command = ["export", str(run), "--out", str(tmp_path / "csv"), "--to"]
    done = CliRunner().invoke(app, [*command, "csv"])
    assert done.exit_code == 0 and str(tmp_path / "csv" / "pairs.csv") in done.output
    again = CliRunner().invoke(app, [*command, "csv"])
    assert "exists already; --overwrite replaces it" in str(again.exception)
    assert CliRunner().invoke(app, [*command, "csv", "--overwrite"]).exit_code == 0
    assert "the folder of a run" in str(CliRunner().invoke(app, [*command, "alphafold3"]).exception)
    other = ["export", str(tmp_path), "--out", str(tmp_path / "x"), "--to", "csv"]
    assert "not the folder of a run" in str(CliRunner().invoke(app, other).exception)
