"""Undirected pairs of chains: each score over samples and directions."""

from __future__ import annotations

import pandas as pd

from foldcp.pipeline.reporting.bands import describe_scores
from foldcp.pipeline.reporting.embedding.loading import LoadedRun
from foldcp.pipeline.reporting.run_tables import DataFrame

STATISTICS = ("mean", "min", "max", "sd")


def with_chain_rows(loaded: LoadedRun) -> DataFrame:
    """The interfaces with `row_a` and `row_b`, the places of their chains in `loaded.chains`."""
    interfaces = loaded.interfaces
    chains = loaded.chains[["complex", "chain"]].reset_index(names="row")
    for end in "ab":
        names = {"row": f"row_{end}", "chain": f"chain_{end}"}
        found = interfaces.astype({f"chain_{end}": "object"})
        interfaces = found.merge(chains.rename(columns=names), on=["complex", f"chain_{end}"])
    return interfaces.drop(columns=["chain_a", "chain_b", "key"])


def pair_rows(directed: DataFrame) -> DataFrame:
    """A row per pair of chains: `complex`, `row_a` < `row_b`, and SCORE_mean, _min, _max, _sd."""
    scores = [score["name"] for score in describe_scores("interfaces")]
    ends = directed[["row_a", "row_b"]]
    rows = directed[["complex", *scores]].copy()
    rows["row_a"] = ends.min(axis=1)
    rows["row_b"] = ends.max(axis=1)
    groups = rows.groupby(["complex", "row_a", "row_b"], sort=True)[scores]
    found = {
        "mean": groups.mean(),
        "min": groups.min(),
        "max": groups.max(),
        "sd": groups.std(ddof=0),
    }
    named = [frame.add_suffix(f"_{statistic}") for statistic, frame in found.items()]
    return pd.concat(named, axis=1).reset_index()
