"""The tables of a run, as the page needs them: without stale rows, complexes and chains once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from foldcp.pipeline.reporting.bands import describe_scores
from foldcp.pipeline.reporting.run_tables import DataFrame, fresh_rows
from foldcp.pipeline.storage.run_folder import read_run
from foldcp.pipeline.storage.tables import read_table

CHAIN_PAIR = ["key", "chain_a", "chain_b"]


@dataclass(frozen=True, eq=False)
class LoadedRun:
    """A run's folder in memory.

    `complexes` has one row per complex, that of its best sample; its place there is the complex's
    number in the page. `chains` are those of the best samples, `samples` and `interfaces` of all;
    all three have the number of their complex as `complex`.
    """

    out: Path
    run: dict[str, Any]  # run.json
    complexes: DataFrame
    samples: DataFrame
    chains: DataFrame
    interfaces: DataFrame
    attempts: DataFrame
    runs: DataFrame


def load_run(out: Path | str) -> LoadedRun:
    """Read a run, finished or not.

    Raises ValueError when `out` is not the folder of a run, or a file in it is damaged.
    """
    run = read_run(out)
    samples = fresh_rows(out, "complexes").sort_values(["name", "key", "rank", "sample"])
    complexes = samples.drop_duplicates("key").reset_index(drop=True)
    numbers = {key: number for number, key in enumerate(complexes["key"])}
    samples = _numbered(samples[samples["sample"].notna()], numbers)
    chains = _numbered(fresh_rows(out, "chains"), numbers)
    best = samples.drop_duplicates("complex")[["complex", "sample"]]
    chains = chains.merge(best, on=["complex", "sample"])
    chains = chains.drop_duplicates(["complex", "chain"])
    return LoadedRun(
        out=Path(out),
        run=run,
        complexes=complexes,
        samples=samples,
        chains=chains.sort_values(["complex", "chain_index"]).reset_index(drop=True),
        interfaces=_load_interfaces(out, numbers),
        attempts=read_table(out, "attempts").to_pandas(),
        runs=read_table(out, "runs").to_pandas(),
    )


def _load_interfaces(out: Path | str, numbers: dict[str, int]) -> DataFrame:
    """Directed pairs of chains with their scores only: a large run has millions."""
    scores = [score["name"] for score in describe_scores("interfaces")]
    table = read_table(out, "interfaces").select([*CHAIN_PAIR, "sample", "stale", *scores])
    rows = table.to_pandas(categories=CHAIN_PAIR)
    return _numbered(rows.loc[~rows["stale"]].drop(columns="stale"), numbers)


def _numbered(rows: DataFrame, numbers: dict[str, int]) -> DataFrame:
    """The rows of known complexes, with the number of each."""
    complexes = pd.to_numeric(rows["key"].map(numbers)).astype("float64")
    known = complexes.notna()
    found = rows.loc[known].copy()
    found["complex"] = complexes[known].astype("int64")
    return found.sort_values("complex", kind="stable").reset_index(drop=True)
