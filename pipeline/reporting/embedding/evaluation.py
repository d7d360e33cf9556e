"""Scores of a run against DockQ, where its interfaces were compared with experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from foldcp.pipeline.reporting.embedding import columns
from foldcp.pipeline.reporting.embedding.columns import PackedColumn
from foldcp.pipeline.reporting.embedding.loading import LoadedRun, number_array
from foldcp.pipeline.reporting.run_tables import DataFrame

TABLE = "tables/evaluation/evaluation.parquet"
KEYS = ("key", "sample", "chain_a", "chain_b")
MEASURE = "dockq"
MAX_POINTS = 20_000  # of the page
MIN_PAIRS = 3  # of which a correlation is made
SORTED = ["complex", "sample", "row_a", "row_b"]


def read_evaluation(out: Path) -> DataFrame | None:
    """The rows of `foldcp evaluate` that have a DockQ; None where it was not run.

    Raises ValueError when the table is damaged or lacks a column.
    """
    import duckdb

    path = out / TABLE
    if not path.is_file():
        return None
    wanted = ", ".join(f'"{name}"' for name in (*KEYS, MEASURE))
    with duckdb.connect() as connection:
        try:
            rows = connection.execute(
                f"SELECT {wanted} FROM read_parquet(?) WHERE {MEASURE} IS NOT NULL", [str(path)]
            ).df()
        except duckdb.Error as error:
            raise ValueError(f"{path}: damaged: {str(error).splitlines()[0]}") from None
    for name in ("sample", MEASURE):
        if not pd.api.types.is_numeric_dtype(rows[name]):
            raise ValueError(f"{path}: damaged: {name} is no column of numbers")
    return rows


def evaluated_pairs(loaded: LoadedRun, evaluation: DataFrame) -> DataFrame:
    """Places of the chains, sample, DockQ and scores of every interface of the run that was
    compared; of both directions the better score.
    """
    scores = [s for s in loaded.scores["interfaces"] if s["name"] in loaded.interfaces]
    places = _places(loaded)
    rows = evaluation
    for end in "ab":
        of_end = places.rename(columns={"chain": f"chain_{end}", "row": f"row_{end}"})
        rows = rows.merge(of_end, on=["key", f"chain_{end}"], suffixes=("", "_again"))
    low = rows[["row_a", "row_b"]].min(axis=1)
    high = rows[["row_a", "row_b"]].max(axis=1)
    rows = rows.assign(row_a=low, row_b=high)[[*SORTED, MEASURE]]
    scored = loaded.interfaces[[*SORTED, *(score["name"] for score in scores)]]
    swapped = scored.rename(columns={"row_a": "row_b", "row_b": "row_a"})
    directions = [rows.merge(side, on=SORTED, how="inner") for side in (scored, swapped)]
    better = {s["name"]: "min" if s["isLowerBetter"] else "max" for s in scores}
    both = pd.concat(directions).groupby(SORTED, sort=True)
    return both.agg({MEASURE: "first", **better}).reset_index()


def correlations(pairs: DataFrame, scores: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Pearson's and Spearman's correlation of each score with DockQ, the best of them first."""
    found = []
    for score in scores:
        if score["name"] not in pairs:
            continue
        both = pairs[[score["name"], MEASURE]].astype(float).dropna()
        if len(both) < MIN_PAIRS or (both.nunique() < 2).any():
            continue
        found.append(
            {
                "name": score["name"],
                "pearson": float(both.corr().iloc[0, 1]),
                "spearman": float(both.rank().corr().iloc[0, 1]),
                "pairs": len(both),
            }
        )
    return sorted(found, key=lambda row: -abs(row["spearman"]))


def evaluation_columns(pairs: DataFrame, scores: list[dict[str, Any]]) -> dict[str, PackedColumn]:
    """The pairs as a block of the page, of very many a share of them, evenly; scores with bands."""
    chosen = np.unique(np.linspace(0, len(pairs) - 1, min(len(pairs), MAX_POINTS)).astype(int))
    rows = pairs.iloc[chosen]
    banded = [s["name"] for s in scores if s["bands"] and s["name"] in pairs]
    return {
        **{name: columns.differences(number_array(rows[name]), 1) for name in SORTED},
        **{name: columns.decimals(number_array(rows[name])) for name in (MEASURE, *banded)},
    }


def _places(loaded: LoadedRun) -> DataFrame:
    """Key, number of the complex, and row of every chain."""
    chains = loaded.chains
    numbers = chains["complex"].to_numpy(int)
    return pd.DataFrame(
        {
            "key": loaded.complexes["key"].to_numpy(object)[numbers],
            "complex": numbers,
            "chain": chains["chain"].to_numpy(object),
            "row": np.arange(len(chains)),
        }
    )
