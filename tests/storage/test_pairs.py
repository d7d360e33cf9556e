"""Rows of pairs and protein_pairs, from rows of interfaces of several samples and complexes."""

import math
from collections.abc import Callable, Iterator
from itertools import permutations
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pandas as pd
import pytest

from foldcp.pipeline.storage.results.pair_rows import pair_rows
from foldcp.pipeline.storage.schemas import INTERFACE_SCORES, PAIRS
from foldcp.pipeline.storage.store import Store
from foldcp.pipeline.storage.tables import read_table
from tests.support.synthetic_results import INFO, finishing, result

CHAINS = ("A", "B", "C")
ACCESSIONS = ("Q2", "P1", "Q2")
SAMPLES = 3
# Of both chains, by sample.
RESIDUES = [("A:3-5,9", "B:1"), ("A:4-5", ""), ("A:5,7", "B:1")]


def _interfaces(key: str, value: Callable[[str, int, int, int], float | None]) -> list[Any]:
    """Rows of three chains; `value` is that of a score, a sample and two chains."""
    return [
        {
            "key": key,
            "name": f"name of {key}",
            "checkpoint": "untrained:tiny",
            "untrained": True,
            "sample": sample,
            **_chain(a, "a"),
            **_chain(b, "b"),
            **{score.name: value(score.name, sample, a, b) for score in INTERFACE_SCORES},
            "interface_residues_a": RESIDUES[sample][0],
            "interface_residues_b": RESIDUES[sample][1],
        }
        for sample in range(SAMPLES)
        for a, b in permutations(range(3), 2)
    ]


def _chain(index: int, end: str) -> dict[str, Any]:
    columns = {
        "chain": CHAINS[index],
        "chain_index": index,
        "molecule_type": "protein",
        "entity": 1,
        "num_residues": 9,
        "accession": ACCESSIONS[index],
        "gene": f"GENE{ACCESSIONS[index]}",
    }
    return {f"{name}_{end}": value for name, value in columns.items()}


def _score(name: str, sample: int, a: int, b: int) -> float | None:
    """Different for everything; iptm has holes, and pae_min is null everywhere."""
    if name == "pae_min" or (name == "iptm" and (sample == 1 or a > b)):
        return None
    return (hash_of(name) + 31 * sample + 7 * a + 3 * b) % 17 / 17


def hash_of(name: str) -> int:
    return sum(map(ord, name))


def test_pair_rows_are_statistics_over_samples_and_directions() -> None:
    rows = pair_rows(_interfaces("k", _score))
    assert [(row["chain_a"], row["chain_b"]) for row in rows] == [
        ("A", "B"),
        ("A", "C"),
        ("B", "C"),
    ]
    assert set(rows[0]) == {column.name for column in PAIRS.columns} - {"stale"}
    for row in rows:
        a = row["chain_index_a"]
        b = row["chain_index_b"]
        for score in INTERFACE_SCORES:
            samples = [
                [_score(score.name, sample, *ends) for ends in ((a, b), (b, a))]
                for sample in range(SAMPLES)
            ]
            known = [[value for value in values if value is not None] for values in samples]
            flat = [value for values in known for value in values]
            means = [fmean(values) for values in known if values]
            expected = {
                "min": min(flat, default=math.nan),
                "max": max(flat, default=math.nan),
                "mean": fmean(flat) if flat else math.nan,
                "sd": stdev(means) if len(means) > 1 else math.nan,
            }
            for statistic, value in expected.items():
                found = row[f"{score.name}_{statistic}"]
                assert found == pytest.approx(value, nan_ok=True), (score.name, statistic)


def test_best_sample_and_strict_ipsae_of_a_pair() -> None:
    ipsae = {0: (0.9, 0.1), 1: (0.7, 0.6), 2: (0.9, 0.2)}
    iptm = {0: 0.3, 1: 0.9, 2: 0.4}

    def score(name: str, sample: int, a: int, b: int) -> float | None:
        if name == "ipsae_d0res":
            return ipsae[sample][int(a > b)]
        return iptm[sample] if name == "iptm" else None

    row, *_ = pair_rows(_interfaces("k", score))
    assert row["best_sample"] == 2  # as high as sample 0, with a better ipTM
    assert row["ipsae_strict"] == pytest.approx((0.1 + 0.6 + 0.2) / 3)


def test_agreement_of_samples_on_the_interface() -> None:
    row, *_ = pair_rows(_interfaces("k", _score))
    assert row["interface_agreement"] == pytest.approx((2 / 5 + 2 / 6 + 1 / 4) / 3)


def test_agreement_leaves_out_samples_whose_residues_are_not_known() -> None:
    """Of a heap of atoms, say."""
    rows = _interfaces("k", _score)
    of_pair = [row for row in rows if {row["chain_a"], row["chain_b"]} == {"A", "B"}]
    for row in of_pair:
        if row["sample"] == 1:
            row["interface_residues_a"] = row["interface_residues_b"] = None
    first, *_ = pair_rows(rows)
    assert first["interface_agreement"] == pytest.approx(2 / 6)
    for row in of_pair:
        row["interface_residues_a"] = row["interface_residues_b"] = None
    first, *_ = pair_rows(rows)
    assert first["interface_agreement"] is None


@pytest.mark.parametrize(
    ("ipsae", "pdockq2", "band", "passes"),
    [
        (0.8, 0.23, "very high", True),
        (0.79, 0.22, "high", False),
        (0.6, 0.3, "confident", True),
        (0.59, 0.9, "low", False),
        (None, 0.9, None, None),
        (0.9, None, "very high", None),
    ],
)
def test_bands_and_gate_of_alphafold_db(
    ipsae: float | None, pdockq2: float | None, band: str | None, passes: bool | None
) -> None:
    values = {"ipsae_d0res": ipsae, "pdockq2": pdockq2}
    row, *_ = pair_rows(_interfaces("k", lambda name, *_: values.get(name)))
    assert (row["ipsae_band"], row["afdb_gate"]) == (band, passes)


def test_one_chain_has_no_pairs() -> None:
    assert pair_rows([]) == []


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with finishing(Store.open(tmp_path / "run", INFO)) as opened:
        yield opened


def _put(store: Store, key: str, value: Callable[[str, int, int, int], float | None]) -> None:
    rows, files = result(key, "done")
    rows["interfaces"] = _interfaces(key, value)
    rows["pairs"] = pair_rows(rows["interfaces"])
    store.put(key, rows, files)


def test_protein_pairs_are_over_complexes_and_copies(store: Store) -> None:
    _put(store, "k1", _score)
    _put(store, "k2", lambda *where: None if (value := _score(*where)) is None else value / 2)
    pairs = read_table(store.root, "pairs").to_pandas()
    found = read_table(store.root, "protein_pairs").to_pandas()
    ends = [(row.accession_a, row.accession_b) for row in found.itertuples()]
    assert ends == [("P1", "Q2"), ("Q2", "Q2")]
    both = found.iloc[0]
    rows = pairs[pairs["chain_b"].eq("B") | pairs["chain_a"].eq("B")]
    assert (both["num_complexes"], both["num_pairs"]) == (2, 4)
    assert (both["gene_a"], both["gene_b"]) == ("GENEP1", "GENEQ2")
    assert both["ipsae_d0res_max"] == rows["ipsae_d0res_max"].max()
    assert both["ipsae_d0res_min"] == rows["ipsae_d0res_min"].min()
    assert both["ipsae_d0res_mean"] == pytest.approx(rows["ipsae_d0res_mean"].mean())
    assert both["ipsae_d0res_sd"] == pytest.approx(rows["ipsae_d0res_mean"].std())
    assert pd.isna(both["pae_min_max"])
    best = rows.loc[rows["ipsae_d0res_max"].idxmax()]
    assert both["best_key"] == best["key"] == "k1"
    assert {both["best_chain_a"], both["best_chain_b"]} == {best["chain_a"], best["chain_b"]}
    assert both["best_chain_a"] == "B"  # whose accession is P1


def test_protein_pairs_are_published_with_the_pairs(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with finishing(Store.open(out, INFO)) as opened:
        _put(opened, "k1", _score)
    path = out / "tables/protein_pairs/protein_pairs.parquet"
    content = path.read_bytes()
    assert pd.read_parquet(path.parent).equals(read_table(out, "protein_pairs").to_pandas())
    path.write_bytes(content[:-9])
    with finishing(Store.open(out, INFO)):
        assert path.read_bytes() == content
