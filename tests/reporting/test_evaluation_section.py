"""The section of the report that compares scores with experiment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr, spearmanr

from foldcp.pipeline.evaluation.evaluate import evaluate
from foldcp.pipeline.reporting.embedding import experiments
from foldcp.pipeline.reporting.embedding.evaluation import TABLE
from foldcp.pipeline.reporting.report import write_report
from foldcp.pipeline.reporting.run_tables import fresh_rows
from foldcp.pipeline.storage.results.evaluation_tables import write_evaluation
from foldcp.pipeline.storage.tables import read_table
from tests.support.report.evaluation_table import write_evaluation_table, write_rows
from tests.support.report.large_run import write_large_run
from tests.support.report.page import Tags, block_names, page_facts, unpack
from tests.support.report.references import SHIFT, write_copies, write_references

BETTER = {"ipsae_d0res": np.fmax, "pae_mean": np.fmin}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    write_large_run(folder, 12, 0, 2)
    return folder


def page_of(out: Path) -> str:
    return write_report(out).read_text(encoding="utf-8")


def test_scores_are_correlated_with_dockq(out: Path) -> None:
    table = write_evaluation_table(out, 9)
    # Chains in the other order, and a result that is not in the run any more.
    table.loc[table.index[0], ["chain_a", "chain_b"]] = table.iloc[0][["chain_b", "chain_a"]].values
    write_rows(out, pd.concat([table, table.iloc[:1].assign(key="gone")]))
    page = page_of(out)
    rows = fresh_rows(out, "interfaces").set_index(["key", "sample", "chain_a", "chain_b"])
    forward = [tuple(row) for row in table[["key", "sample", "chain_a", "chain_b"]].to_numpy()]
    reverse = [(key, sample, b, a) for key, sample, a, b in forward]
    facts = page_facts(page)["evaluation"]
    assert facts["num_pairs"] == len(table) > 20
    found = {row["name"]: row for row in facts["correlations"]}
    for name, better in BETTER.items():
        values = better(rows[name].loc[forward].to_numpy(), rows[name].loc[reverse].to_numpy())
        dockq = table["dockq"].to_numpy()
        assert found[name]["pearson"] == pytest.approx(pearsonr(values, dockq)[0], abs=1e-5)
        assert found[name]["spearman"] == pytest.approx(spearmanr(values, dockq)[0], abs=1e-5)
        assert found[name]["pairs"] == len(table)
    assert found["ipsae_d0res"]["pearson"] > 0.8 > -0.8 > found["pae_mean"]["pearson"]
    block = unpack(page, "evaluation")
    np.testing.assert_allclose(sorted(block["dockq"]), sorted(table["dockq"]), atol=1e-4)
    assert "Against experiment" in Tags(page).words


def test_a_run_without_experiments_has_no_section(out: Path) -> None:
    (out / TABLE).unlink(missing_ok=True)
    page = page_of(out)
    assert "evaluation" not in block_names(page) and "Against experiment" not in Tags(page).words


@pytest.mark.parametrize("fault", ["bytes", "column", "text"])
def test_a_malformed_table_is_named(out: Path, fault: str) -> None:
    table = write_evaluation_table(out, 3)
    if fault == "bytes":
        (out / TABLE).write_bytes(b"PAR1 no parquet")
    else:
        write_rows(out, table.drop(columns="dockq") if fault == "column" else table.astype(str))
    words = Tags(page_of(out)).words
    assert "1 file is left out, damaged or changed" in words and "evaluation.parquet" in words
    (out / TABLE).unlink()


def test_a_table_of_other_complexes_has_no_section(out: Path) -> None:
    table = write_evaluation_table(out, 3)
    write_rows(out, table.assign(key="gone"))
    assert page_facts(page_of(out))["evaluation"] is None
    (out / TABLE).unlink()


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Path]]:
    """A run of three complexes, two of which were compared with references, and these by key."""
    folder = tmp_path_factory.mktemp("compared")
    write_large_run(folder / "run", 3, 2, 2, structure_samples="all")
    references = write_references(folder / "run", folder / "references")
    evaluate(folder / "run", folder / "references")
    return folder / "run", references


def places(block: dict[str, Any]) -> np.ndarray:
    return np.stack([block[f"atom_{axis}"] for axis in "xyz"], axis=1)


def superposed(block: dict[str, Any], sample: int) -> np.ndarray:
    """Atoms of an experimental structure as they are shown beside a sample."""
    shown = block["facts"]["samples"][str(sample)]
    is_shown = np.isin(block["residue_chain"][block["atom_residue"]], shown["chains"])
    turn = shown["superposition"]
    return places(block)[is_shown] @ np.reshape(turn[:9], (3, 3)) + turn[9:]


def test_experimental_structures_lie_on_the_samples(
    compared: tuple[Path, dict[str, Path]],
) -> None:
    page = page_of(compared[0])
    names = [name for name in block_names(page) if name.startswith("experiment")]
    assert len(names) == 2
    for name in names:
        block = unpack(page, name)
        assert set(block["facts"]["samples"]) == {"0", "1"}
        sample = unpack(page, name.replace("experiment", "structure") + "-0")
        np.testing.assert_allclose(superposed(block, 0), places(sample), atol=0.2)
        assert np.abs(places(block) - places(sample)).max() > 10
        assert list(block["atom_name"]) == list(sample["atom_name"])
        assert list(block["residue_chain"]) == list(sample["residue_chain"])


def change_rows(out: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Replace columns of every row of `evaluation_complexes`."""
    rows = read_table(out, "evaluation_complexes").to_pylist()
    interfaces = read_table(out, "evaluation").to_pylist()
    write_evaluation(out, interfaces, [row | change(row) for row in rows])


def test_each_sample_is_beside_the_copies_that_it_was_compared_with(tmp_path: Path) -> None:
    out = tmp_path / "run"
    write_large_run(out, 1, 1, 2, structure_samples="all")
    write_copies(out, tmp_path / "references")
    evaluate(out, tmp_path / "references")
    change_rows(
        out,
        lambda row: {
            "matched_chains": [f"{chain}={chain}{row['sample']}" for chain in "ABCD"],
            "reference_superposition": [*np.eye(3).ravel(), -SHIFT * row["sample"], 0.0, 0.0],
        },
    )
    page = page_of(out)
    (name,) = [name for name in block_names(page) if name.startswith("experiment")]
    block = unpack(page, name)
    assert block["facts"]["chains"] == ["A0", "B0", "C0", "D0", "A1", "B1", "C1", "D1"]
    for sample in (0, 1):
        expected = places(unpack(page, f"{name.replace('experiment', 'structure')}-{sample}"))
        np.testing.assert_allclose(superposed(block, sample), expected, atol=0.2)


@pytest.mark.parametrize("change", [{"matched_chains": ["A=none"]}, {"reference": "x" * 300}])
def test_a_reference_that_cannot_be_shown_stops_no_report(
    compared: tuple[Path, dict[str, Path]], change: dict[str, Any]
) -> None:
    """It has none of the chains, or its path is not one that this system can look at."""
    path = compared[0] / "tables/evaluation_complexes/evaluation_complexes.parquet"
    content = path.read_bytes()
    change_rows(compared[0], lambda row: change)
    page = page_of(compared[0])
    path.write_bytes(content)
    assert not [name for name in block_names(page) if name.startswith("experiment")]


def test_references_are_read_up_to_a_number_of_bytes(
    compared: tuple[Path, dict[str, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, references = compared
    sizes = [path.stat().st_size for path in references.values()]
    monkeypatch.setattr(experiments, "MAX_READ_BYTES", sum(sizes) - 1)
    shown = [name for name in block_names(page_of(out)) if name.startswith("experiment")]
    assert len(shown) == len(sizes) - 1


@pytest.mark.parametrize("is_changed", [True, False])
def test_a_reference_that_was_changed_or_removed_is_not_shown(
    compared: tuple[Path, dict[str, Path]], is_changed: bool
) -> None:
    out, references = compared
    path = next(iter(references.values()))
    content = path.read_bytes()
    path.unlink()
    if is_changed:
        path.write_bytes(content + b"# \n")
    page = page_of(out)
    path.write_bytes(content)
    words = Tags(page).words
    assert ("1 file is left out, damaged or changed" in words) == is_changed
    assert (f"{path.name}: changed since" in words) == is_changed
    assert len([name for name in block_names(page) if name.startswith("experiment")]) == 1
