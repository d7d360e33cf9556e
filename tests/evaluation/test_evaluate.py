"""`foldcp evaluate`: tables, what cannot be compared, earlier results, correlation and command."""

from __future__ import annotations

import gzip
import itertools
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import foldcp
from foldcp.pipeline.cli import app, main
from foldcp.pipeline.evaluation import evaluate as module
from foldcp.pipeline.evaluation.evaluate import evaluate
from foldcp.pipeline.evaluation.structures.chain import Chain
from foldcp.pipeline.storage.results.evaluation_tables import evaluating
from foldcp.pipeline.storage.staleness import Present
from foldcp.pipeline.storage.store import Store
from foldcp.pipeline.storage.tables import read_table
from tests.evaluation.dockq_cases import FIRST, SECOND
from tests.evaluation.synthetic import ligand, noisy, polymer, turned, write_cif
from tests.support.synthetic_results import INFO, NO_SCORES, finishing

NAMES = ("first", "second", "third", "fourth")
SHIFTS = (0.0, 6.0)  # Å, of chain B in each sample


def _chains(number: int) -> list[Chain]:
    return [
        polymer("A", FIRST, number),
        polymer("B", SECOND, number + 50, center=(13, 0, 0)),
        ligand("L", "ATP", number, center=(7, 7, 7)),
    ]


def _rows(key: str, name: str, chains: Sequence[Chain], structures: str) -> dict[str, Any]:
    base = {"key": key, "name": name, "checkpoint": "untrained:tiny", "untrained": True}
    about = {"title": "", "organism": "", "source": "", "outcome": "done", "reason": ""}
    samples = range(len(SHIFTS))
    ends = {
        f"{column}_{end}": value
        for end in "ab"
        for column, value in {
            "chain_index": 0, "molecule_type": "protein", "entity": 1, "num_residues": 9,
            "accession": "", "gene": "",
        }.items()
    }  # fmt: skip
    return {
        "complexes": [
            {
                **base,
                **about,
                "sample": sample,
                "rank": sample,
                "structure": f"structures/{key}/{sample}.cif" if structures == "cif" else None,
            }
            for sample in samples
        ],
        "chains": [
            {
                **base,
                "sample": sample,
                "chain": chain.name,
                "chain_index": index,
                "molecule_type": chain.kind,
                "entity": index + 1,
                "accession": "",
                "num_residues": len(chain.codes),
                "num_tokens": len(chain.codes),
                "sequence_sha256": "",
                "msa_depth": 1,
            }
            for sample in samples
            for index, chain in enumerate(chains)
        ],
        "interfaces": [
            NO_SCORES
            | base
            | ends
            | {"sample": sample, "chain_a": a.name, "chain_b": b.name}
            | _scores(sample, int(key[-1]), is_forward=a.name < b.name)
            | {"lis": 0.5, "num_contacts": 1}
            for sample in samples
            for a, b in itertools.permutations(chains, 2)
        ],
    }


def _scores(sample: int, number: int, is_forward: bool) -> dict[str, float]:
    """Scores of a direction; those of the other one are worse, and order samples otherwise."""
    if is_forward:
        return {"iptm": 0.9 - 0.1 * sample - 0.01 * number, "pae_min": 2.0 + sample}
    return {"iptm": 0.3 + 0.1 * sample + 0.02 * number, "pae_min": 20.0 - 5.0 * sample}


def _make_run(out: Path, structures: str = "cif") -> Path:
    """A run of four complexes with two samples each, of which one is right."""
    with finishing(Store.open(out, INFO)) as store:
        for number, name in enumerate(NAMES):
            chains = _chains(number)
            key = f"k{number}"
            rng = np.random.default_rng(number)
            files = {}
            for sample, shift in enumerate(SHIFTS):
                a, b, l = (noisy(chain, rng, 0.1 * number) for chain in chains)
                model = [a, turned(b, rng, 0.0, shift), l]
                path = f"structures/{key}/{sample}.cif"
                if structures == "cif":
                    content = write_cif(out.parent / "model.cif", model).read_bytes()
                    files[path] = content
            store.put(key, _rows(key, name, chains, structures), files)
    return out


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _make_run(tmp_path_factory.mktemp("evaluate") / "run")


@pytest.fixture
def run(whole_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole_run, tmp_path / "run"))


@pytest.fixture
def references(tmp_path: Path) -> Path:
    """References of the first three complexes; the third is damaged."""
    folder = tmp_path / "references"
    folder.mkdir()
    write_cif(folder / "first.cif", _chains(0), first_number=7)
    second = write_cif(tmp_path / "second.cif", _chains(1)).read_bytes()
    (folder / "SECOND.cif.gz").write_bytes(gzip.compress(second))
    (folder / "third.cif").write_text("data_x\nloop_\n_atom_site.id\n_atom_site.Cartn_x\n1\n")
    (folder / "notes.txt").write_text("nothing")
    return folder


def test_tables_have_a_row_per_interface_and_per_sample(run: Path, references: Path) -> None:
    found = evaluate(run, references)
    tables = foldcp.read_run(run)
    pd.testing.assert_frame_equal(tables.evaluation, found.interfaces)
    rows = tables.evaluation
    assert rows[["key", "sample", "chain_a", "chain_b"]].values.tolist() == [
        [key, sample, *ends]
        for key in ("k0", "k1")
        for sample in (0, 1)
        for ends in (("A", "B"), ("A", "L"), ("B", "L"))
    ]
    proteins = rows[rows["chain_b"].eq("B")]
    assert proteins["dockq"].tolist()[0] == pytest.approx(1, abs=1e-4)
    assert (proteins["dockq"].iloc[::2].to_numpy() > proteins["dockq"].iloc[1::2].to_numpy()).all()
    assert rows.loc[rows["chain_b"].eq("L"), "dockq"].isna().all()
    assert rows.loc[rows["chain_b"].eq("L"), "ligand_rmsd"].notna().all()
    complexes = tables.evaluation_complexes
    assert complexes[["name", "sample", "reason"]].fillna(-1).values.tolist()[:3] == [
        ["first", 0, ""], ["first", 1, ""], ["fourth", -1, "no reference"],
    ]  # fmt: skip
    assert complexes["tm_score"].iloc[0] == pytest.approx(1, abs=1e-4)
    assert complexes["matched_chains"].iloc[0].tolist() == ["A=A", "B=B", "L=L:ATP:7"]
    (third,) = complexes.loc[complexes["name"].eq("third"), "reason"]
    assert third.startswith(f"{references / 'third.cif'}: ")


def test_every_reader_sees_the_tables(run: Path, references: Path) -> None:
    evaluate(run, references)
    path = run / "tables" / "evaluation"
    assert len(pd.read_parquet(path)) == 12
    assert len(polars.read_parquet(path)) == 12
    counted = duckdb.sql(f"SELECT count(*) FROM read_parquet('{path}/*.parquet')").fetchall()
    assert counted == [(12,)]
    with foldcp.connect(run) as connection:
        joined = connection.sql(
            "SELECT corr(e.dockq, i.iptm), count(*) FROM evaluation AS e JOIN interfaces AS i "
            "USING (key, name, sample, chain_a, chain_b) WHERE e.dockq IS NOT NULL"
        ).fetchall()
    assert joined[0][1] == 4
    dictionary = pd.read_parquet(run / "tables" / "dictionary.parquet")
    assert {"evaluation", "evaluation_complexes"} <= set(dictionary["table"])


def test_tables_are_empty_before_the_first_evaluation(run: Path) -> None:
    tables = foldcp.read_run(run)
    assert tables.evaluation.empty
    assert "dockq" in tables.evaluation
    with foldcp.connect(run) as connection:
        assert connection.sql("FROM score_correlation").fetchall() == []


def test_correlation_is_that_of_pandas(run: Path, references: Path) -> None:
    shutil.copy(references / "first.cif", references / "fourth.cif")
    write_cif(references / "third.cif", _chains(2))
    evaluate(run, references)
    tables = foldcp.read_run(run)
    rows = tables.evaluation.dropna(subset="dockq").merge(
        tables.interfaces, on=["key", "sample", "chain_a", "chain_b"]
    )
    with foldcp.connect(run) as connection:
        found = connection.sql("FROM score_correlation").df().set_index("score")
        same = connection.sql("SELECT pearson FROM score_correlation WHERE score = 'lis'")
        assert same.fetchall() == [(None,)]  # it does not vary; NaN would be sorted first
    assert found.columns.tolist() == ["pearson", "spearman", "pairs"]
    for score in ("iptm", "pae_min"):
        assert found.loc[score, "pearson"] == pytest.approx(rows[score].corr(rows["dockq"]))
        assert found.loc[score, "spearman"] == pytest.approx(
            rows[score].corr(rows["dockq"], method="spearman")
        )
        assert found.loc[score, "pairs"] == len(rows)
    assert found.loc["iptm", "pearson"] > 0 > found.loc["pae_min", "pearson"]
    assert "ipsae_d0res" not in found.index


def test_unchanged_complexes_are_not_compared_again(
    run: Path, references: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evaluate(run, references)
    assert first.num_reused == 0
    compared = []
    real = module.evaluate_sample
    monkeypatch.setattr(
        module, "evaluate_sample", lambda *args: compared.append(args) or real(*args)
    )
    second = evaluate(run, references)
    assert second.num_reused == 2
    assert not compared
    pd.testing.assert_frame_equal(first.interfaces, second.interfaces)
    pd.testing.assert_frame_equal(first.complexes, second.complexes)
    write_cif(references / "first.cif", _chains(0)[:2])
    third = evaluate(run, references)
    assert (third.num_reused, len(compared)) == (1, 2)
    assert len(third.interfaces) == 8
    assert evaluate(run, references, min_identity=0.9).num_reused == 0
    assert len(compared) == 6


def test_rows_of_a_version_without_superpositions_are_replaced(run: Path, references: Path) -> None:
    first = evaluate(run, references)
    path = run / "tables" / "evaluation_complexes" / "evaluation_complexes.parquet"
    table = pq.read_table(path)
    pq.write_table(table.drop_columns("reference_superposition"), path)
    second = evaluate(run, references)
    assert second.num_reused == 0
    pd.testing.assert_frame_equal(first.complexes, second.complexes)


def test_the_path_of_a_reference_is_where_it_lies_now(
    run: Path, references: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate(run, references)
    references.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    found = evaluate(run, Path("moved"))
    assert found.num_reused == 2
    for rows in (found.interfaces, found.complexes):
        paths = rows.loc[rows["name"].eq("first"), "reference"]
        assert set(paths) == {str(tmp_path / "moved" / "first.cif")}


def test_a_killed_evaluation_keeps_what_it_wrote(
    run: Path, references: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WRITE_SECONDS", 0.0)

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(run, references, progress=stop)
    assert set(read_table(run, "evaluation_complexes")["name"].to_pylist()) == {"first", "fourth"}
    assert evaluate(run, references).num_reused == 1


def test_stale_results_leave_the_tables(run: Path, references: Path) -> None:
    evaluate(run, references)
    with finishing(Store.open(run, INFO)) as store:
        store.mark_stale(Present(frozenset({"k1"})))
    tables = foldcp.read_run(run)
    assert set(tables.evaluation["key"]) == set(tables.evaluation_complexes["key"]) == {"k1"}


def test_a_table_names_the_references(run: Path, references: Path, tmp_path: Path) -> None:
    table = tmp_path / "references.tsv"
    table.write_text("complex\tpath\nfirst\treferences/SECOND.cif.gz\nfourth\tnot-there.cif\n")
    found = evaluate(run, table).complexes.set_index("name")
    assert found.loc["first", "reference"].tolist() == [str(references / "SECOND.cif.gz")] * 2
    assert (
        found.loc["fourth", "reason"] == f"{tmp_path / 'not-there.cif'}: No such file or directory"
    )
    table.write_text("name\tfile\n")
    with pytest.raises(ValueError, match=r"references.tsv: .* has no column complex, path"):
        evaluate(run, table)


def test_two_references_of_one_name_are_a_reason(run: Path, references: Path) -> None:
    write_cif(references / "first.mmcif", _chains(0))
    found = evaluate(run, references).complexes.set_index("name")
    assert found.loc["first", "reason"] == (
        f"{references}: two references of first: first.cif and first.mmcif"
    )


def test_a_structure_that_is_gone_is_a_reason_and_stops_nothing(
    run: Path, references: Path
) -> None:
    path = run / "structures" / "k0" / "1.cif"
    path.write_bytes(b"#" * path.stat().st_size)
    rows = evaluate(run, references).complexes.set_index(["name", "sample"])
    assert rows.loc[("first", 0), "reason"] == ""
    assert str(path) in rows.loc[("first", 1), "reason"]
    assert rows.loc[("second", 1), "reason"] == ""


def test_only_one_process_evaluates_a_run(run: Path, references: Path) -> None:
    with evaluating(run), pytest.raises(ValueError, match="another process is writing there"):
        evaluate(run, references)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda folder: folder.mkdir(), "no structures (.cif, .mmcif, .pdb, .ent, .bcif, gzipped"),
        (
            lambda folder: folder.mkdir() or write_cif(folder / "other.cif", _chains(0)),
            "no reference of any of the 4 complexes; expected files named by complex, such as "
            "first.cif",
        ),
        (lambda folder: folder.write_text("x\ny\n"), "neither a folder nor a table with the"),
        (lambda folder: None, "none: No such file or directory"),
    ],
)
def test_folders_without_references_are_refused(
    make: Any, error: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    make(tmp_path / "none")
    arguments = ["evaluate", str(run), "--references", str(tmp_path / "none")]
    monkeypatch.setattr("sys.argv", ["foldcp", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert error in capsys.readouterr().err
    assert not (run / "tables" / "evaluation").exists()


def test_a_run_without_structures_says_what_to_do(tmp_path: Path, references: Path) -> None:
    out = _make_run(tmp_path / "none-run", structures="none")
    with pytest.raises(ValueError, match=r"write.structures=none.*--set write.structures=cif.gz"):
        evaluate(out, references)


def test_command_prints_a_summary_and_reasons(run: Path, references: Path) -> None:
    command = ["evaluate", str(run), "--references", str(references)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1
    assert done.stdout.splitlines()[0] == (
        "2 complexes evaluated (0 of them before), 1 without a reference, 1 failed"
    )
    assert "DockQ of 4 interfaces: mean 0." in done.stdout
    assert "means over 4 samples: TM-score 0." in done.stdout
    assert f"failed: third: {references / 'third.cif'}" in done.stderr
    write_cif(references / "third.cif", _chains(2)[2:])
    done = CliRunner().invoke(app, command)
    assert done.stderr.count("failed: third: no chain has a sequence") == 1, "of two samples"
    write_cif(references / "third.cif", _chains(2))
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0
    assert done.stdout.startswith("3 complexes evaluated (2 of them before), 1 without")
    assert "--references" in CliRunner().invoke(app, ["evaluate", "--help"]).output
    assert CliRunner().invoke(app, [*command, "--min-identity", "2"]).exit_code != 0
