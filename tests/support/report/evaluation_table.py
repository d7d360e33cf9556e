"""The table of `foldcp evaluate` with invented values that follow ipSAE."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pandas as pd

from foldcp.pipeline.reporting.embedding.evaluation import TABLE
from foldcp.pipeline.reporting.run_tables import fresh_rows


def write_evaluation_table(out: Path, num_complexes: int) -> pd.DataFrame:
    """Compare the pairs in contact of the first complexes of a run; returns the rows."""
    rows = fresh_rows(out, "interfaces")
    kept = rows["name"].isin(rows["name"].unique()[:num_complexes])
    rows = rows[kept & (rows["chain_index_a"] < rows["chain_index_b"]) & (rows["num_contacts"] > 0)]
    noise = np.random.default_rng(5).normal(0, 0.1, len(rows))
    dockq = np.clip(rows["ipsae_d0res"].to_numpy(float) + noise, 0.01, 0.99).astype(np.float32)
    table = rows[["key", "name", "sample", "chain_a", "chain_b"]].assign(dockq=dockq)
    write_rows(out, table)
    return table


def write_rows(out: Path, table: pd.DataFrame) -> None:
    """Write a table in the place of that of `foldcp evaluate`."""
    path = out / TABLE
    path.parent.mkdir(parents=True, exist_ok=True)
    with duckdb.connect() as connection:
        connection.register("rows", table)
        connection.execute(f"COPY (SELECT * FROM rows) TO '{path}' (FORMAT parquet)")
