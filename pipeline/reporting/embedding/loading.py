"""The tables of a run, as the page needs them: without stale rows, complexes and chains once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from foldcp.pipeline.reporting.bands import OWN_SCORES_OF_PAIRS, describe_scores
from foldcp.pipeline.reporting.run_tables import DataFrame, fresh_rows
from foldcp.pipeline.storage.run_folder import read_run
from foldcp.pipeline.storage.tables import read_fresh, read_table

ENDS = ("chain_index_a", "chain_index_b")
OWN_SCORES = frozenset(column.name for column in OWN_SCORES_OF_PAIRS)
STATISTICS = ("mean", "min", "max", "sd")
CHAIN = ["complex", "chain_index"]
DEPTHS = "msa_column_depth"
GATE = "afdb_gate"
RESIDUES = ("interface_residues_a", "interface_residues_b")


@dataclass(frozen=True, eq=False)
class LoadedRun:
    """A run's folder in memory.

    `complexes` has one row per complex, that of its best sample; its place there is the complex's
    number in the page. `samples` are all of them; `chains` those of the best samples. `pairs` and
    `interfaces` have places of chains as `row_a` and `row_b`. All have the number of their complex
    as `complex`. `scores` are the scores of each table that has any value.
    """

    out: Path
    run: dict[str, Any]  # run.json
    complexes: DataFrame
    samples: DataFrame
    chains: DataFrame
    pairs: DataFrame
    interfaces: DataFrame
    attempts: DataFrame
    runs: DataFrame
    scores: dict[str, list[dict[str, Any]]]

    def first_chains(self) -> np.ndarray:
        """The first row of every complex in the chains; one more at the end."""
        return _first_rows(self.chains, len(self.complexes))


def load_run(out: Path | str) -> LoadedRun:
    """Read a run, finished or not.

    Raises ValueError when `out` is not the folder of a run, or a file in it is damaged.
    """
    run = read_run(out)
    samples = fresh_rows(out, "complexes").sort_values(["name", "key", "rank", "sample"])
    complexes = samples.drop_duplicates("key").reset_index(drop=True)
    numbers = {key: number for number, key in enumerate(complexes["key"])}
    samples = _numbered(samples[samples["sample"].notna()], numbers)
    chains = _best_chains(_numbered(fresh_rows(out, "chains"), numbers), samples)
    first_chains = _first_rows(chains, len(complexes))
    pairs = _pair_table(out, "pairs", _pair_columns, numbers, first_chains)
    interfaces = _pair_table(out, "interfaces", _interface_columns, numbers, first_chains)
    described = {
        "complexes": [s for s in describe_scores("complexes") if samples[s["name"]].any()],
        "chains": [s for s in describe_scores("chains") if chains[s["name"]].any()],
        "interfaces": [s for s in describe_scores("interfaces") if f"{s['name']}_mean" in pairs],
    }
    return LoadedRun(
        out=Path(out),
        run=run,
        complexes=complexes,
        samples=samples,
        chains=chains,
        pairs=pairs,
        interfaces=interfaces,
        attempts=read_table(out, "attempts").to_pandas(),
        runs=read_table(out, "runs").to_pandas(),
        scores=described,
    )


def _best_chains(chains: DataFrame, samples: DataFrame) -> DataFrame:
    """The chains of the best sample of every complex, in order, with what only the rows of sample
    0 have.
    """
    best = samples.drop_duplicates("complex")[["complex", "sample"]]
    depths = chains.loc[chains["sample"] == 0, [*CHAIN, DEPTHS]]
    found = chains.drop(columns=DEPTHS).merge(best, on=["complex", "sample"])
    found = found.merge(depths, on=CHAIN, how="left")
    return found.sort_values(["complex", "chain_index"]).reset_index(drop=True)


def _pair_columns(score: dict[str, Any]) -> list[str]:
    """Means of all scores, and the other statistics of those with bands: they fill the page."""
    if score["name"] in OWN_SCORES:
        return [score["name"]]
    statistics = STATISTICS if score["bands"] else STATISTICS[:1]
    return [f"{score['name']}_{statistic}" for statistic in statistics]


def _interface_columns(score: dict[str, Any]) -> list[str]:
    return [] if score["name"] in OWN_SCORES else [score["name"]]


def _pair_table(
    out: Path | str,
    name: str,
    columns_of: Callable[[dict[str, Any]], list[str]],
    numbers: dict[str, int],
    first_chains: np.ndarray,
) -> DataFrame:
    """Rows of pairs of chains, with the scores that have any value: a large run has millions."""
    table = read_fresh(out, name)
    wanted = [c for score in describe_scores("interfaces") for c in columns_of(score)]
    known = [column for column in wanted if table[column].null_count < len(table)]
    others = ["sample", *RESIDUES] if name == "interfaces" else [GATE]
    rows = table.select(["key", *others, *ENDS, *known]).to_pandas(categories=["key"])
    rows = _numbered(rows, numbers)
    starts = first_chains[rows["complex"].to_numpy()]
    for end in "ab":
        rows[f"row_{end}"] = starts + rows[f"chain_index_{end}"].to_numpy()
    # A score of the pair itself is its own mean.
    names = {name: f"{name}_mean" for name in OWN_SCORES} if name == "pairs" else {}
    return rows.drop(columns=["key", *ENDS]).rename(columns=names)


def _numbered(rows: DataFrame, numbers: dict[str, int]) -> DataFrame:
    """The rows of known complexes, with the number of each."""
    complexes = number_array(rows["key"].astype(object).map(numbers))
    known = np.isfinite(complexes)
    found = rows.loc[known].copy()
    found["complex"] = complexes[known].astype(np.int64)
    return found.sort_values("complex", kind="stable").reset_index(drop=True)


def _first_rows(chains: DataFrame, num_complexes: int) -> np.ndarray:
    return np.searchsorted(chains["complex"].to_numpy(), np.arange(num_complexes + 1))


def number_array(values: Any) -> np.ndarray:
    """A column of numbers of any kind, with NaN for what is missing."""
    numbers: Any = pd.to_numeric(values)
    return numbers.to_numpy(float, na_value=np.nan)


def text_list(values: Any) -> list[str]:
    """A column of texts, with empty ones for what is missing."""
    return values.astype(object).where(values.notna(), "").tolist()
