"""The tables of a run as pandas DataFrames."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from foldcp.pipeline.reporting.run_tables import fresh_rows
from foldcp.pipeline.storage.tables import read_table


@dataclass(frozen=True, eq=False)
class RunTables:
    """The tables of a run, without stale rows. docs/results.md describes the columns."""

    complexes: pd.DataFrame  # a row per complex and sample, or one that says why it has none
    chains: pd.DataFrame  # a row per chain and sample
    interfaces: pd.DataFrame  # a row per directed pair of chains and sample
    pairs: pd.DataFrame  # a row per pair of chains, over samples and both directions
    protein_pairs: pd.DataFrame  # a row per pair of accessions, over complexes and copies
    attempts: pd.DataFrame  # a row per attempt to fold a complex
    runs: pd.DataFrame  # a row per invocation of `foldcp score` or `score_database`
    # of `foldcp evaluate`, empty before it:
    evaluation: pd.DataFrame  # a row per sample and interface of its reference
    evaluation_complexes: pd.DataFrame  # a row per sample, or one with the reason for none


def read_run(out: str | Path) -> RunTables:
    """Read all tables of a run's folder, also while the run is being written.

    Every result is there once. Rows of an earlier input or of other settings are left out, even
    where the run keeps them (`run.stale=keep`).

    Raises:
        ValueError: when `out` is not the folder of a run, or a file in it is damaged.

    >>> import foldcp
    >>> tables = foldcp.read_run("demo-run")
    >>> tables.complexes["outcome"].tolist()
    ['done']
    >>> pairs = tables.interfaces.groupby(["name", "chain_a", "chain_b"])
    >>> best = pairs["ipsae_d0res"].mean().sort_values(ascending=False).head(3)
    """
    return RunTables(
        complexes=fresh_rows(out, "complexes"),
        chains=fresh_rows(out, "chains"),
        interfaces=fresh_rows(out, "interfaces"),
        pairs=fresh_rows(out, "pairs"),
        protein_pairs=read_table(out, "protein_pairs").to_pandas(),
        attempts=read_table(out, "attempts").to_pandas(),
        runs=read_table(out, "runs").to_pandas(),
        evaluation=read_table(out, "evaluation").to_pandas(),
        evaluation_complexes=read_table(out, "evaluation_complexes").to_pandas(),
    )
