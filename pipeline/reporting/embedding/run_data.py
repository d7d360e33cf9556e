"""Everything that the page of a run has beside its text: packed tables and what describes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from foldcp.pipeline.reporting.bands import describe_scores
from foldcp.pipeline.reporting.embedding import columns
from foldcp.pipeline.reporting.embedding.columns import PackedColumn, pack
from foldcp.pipeline.reporting.embedding.cost import (
    attempt_columns,
    cost_summary,
    gpu_seconds_by_key,
)
from foldcp.pipeline.reporting.embedding.details import pack_details
from foldcp.pipeline.reporting.embedding.loading import LoadedRun
from foldcp.pipeline.reporting.embedding.pairs import STATISTICS, pair_rows, with_chain_rows
from foldcp.pipeline.reporting.run_tables import DataFrame

SCORED_TABLES = ("complexes", "chains", "interfaces")
COMPLEX_TEXTS = ("key", "name", "title", "organism", "outcome", "reason", "precision", "structure")
COMPLEX_COUNTS = ("num_chains", "num_residues", "num_tokens", "msa_depth", "group_size")
CHAIN_TEXTS = ("chain", "molecule_type", "accession", "gene")
CHAIN_COUNTS = ("num_residues", "num_tokens", "msa_depth")
CHAIN_MEASURES = ("msa_neff", "msa_coverage")


@dataclass(frozen=True, eq=False)
class RunData:
    """`facts` are JSON, `blocks` the packed tables and details of complexes by name."""

    facts: dict[str, Any]
    blocks: dict[str, str]


def pack_run(loaded: LoadedRun, max_bytes: int) -> RunData:
    """The data of a run's page, with as many details of complexes as fit in so many bytes."""
    directed = with_chain_rows(loaded)
    pairs = pair_rows(directed)
    best = _best_scores(loaded, pairs)
    blocks = {
        "complexes": pack(_complex_columns(loaded, best)),
        "samples": pack(_sample_columns(loaded)),
        "chains": pack(_chain_columns(loaded.chains)),
        "pairs": pack(_pair_columns(pairs)),
        "attempts": pack(attempt_columns(loaded)),
    }
    left = max_bytes - sum(map(len, blocks.values()))
    ranked = best.sort_values(ascending=False, na_position="last", kind="stable").index.tolist()
    details = pack_details(loaded, directed, ranked, max(0, left))
    blocks |= {f"samples-{number}": block for number, block in details.samples.items()}
    blocks |= {f"structure-{number}": block for number, block in details.structures.items()}
    facts = {
        "scores": {table: describe_scores(table) for table in SCORED_TABLES},
        "cost": cost_summary(loaded),
        "num_structures": len(details.structures),
        "num_pairs": len(pairs),
    }
    return RunData(facts, blocks)


def _best_scores(loaded: LoadedRun, pairs: DataFrame) -> pd.Series:
    """The best pair's score of every complex, by which it is ranked; NaN without pairs."""
    score = describe_scores("interfaces")[0]["name"]
    found = pairs.groupby("complex")[f"{score}_mean"].max()
    return found.reindex(range(len(loaded.complexes)))


def _complex_columns(loaded: LoadedRun, best: pd.Series) -> dict[str, PackedColumn]:
    rows = loaded.complexes
    spent = rows["key"].map(gpu_seconds_by_key(loaded.attempts))
    attempts = rows["key"].map(loaded.attempts["key"].value_counts())
    return {
        **{name: columns.texts(_texts(rows[name])) for name in COMPLEX_TEXTS},
        "notes": columns.texts(["\n".join(notes) for notes in rows["notes"]]),
        **{name: columns.integers(_numbers(rows[name])) for name in COMPLEX_COUNTS},
        "gpu_seconds": columns.floats(_numbers(spent), "<f4"),
        "num_attempts": columns.integers(_numbers(attempts)),
        "best_pair": columns.decimals(_numbers(best)),
        **_score_columns(rows, "complexes"),
    }


def _sample_columns(loaded: LoadedRun) -> dict[str, PackedColumn]:
    rows = loaded.samples
    return {
        "complex": columns.differences(_numbers(rows["complex"]), 1),
        "sample": columns.integers(_numbers(rows["sample"])),
        "rank": columns.integers(_numbers(rows["rank"])),
        "structure": columns.texts(_texts(rows["structure"])),
        **_score_columns(rows, "complexes"),
    }


def _chain_columns(rows: DataFrame) -> dict[str, PackedColumn]:
    entities = pd.factorize(rows["sequence_sha256"])[0] if len(rows) else np.zeros(0)
    return {
        "complex": columns.differences(_numbers(rows["complex"]), 1),
        **{name: columns.texts(_texts(rows[name])) for name in CHAIN_TEXTS if name in rows},
        "entity": columns.integers(np.asarray(entities, float)),
        **{name: columns.integers(_numbers(rows[name])) for name in CHAIN_COUNTS},
        **{name: columns.decimals(_numbers(rows[name])) for name in CHAIN_MEASURES},
        **_score_columns(rows, "chains"),
    }


def _pair_columns(pairs: DataFrame) -> dict[str, PackedColumn]:
    """Means of all scores, and the other statistics of those with bands: they fill the page."""
    found = {
        name: columns.differences(_numbers(pairs[name]), 1)
        for name in ("complex", "row_a", "row_b")
    }
    for score in describe_scores("interfaces"):
        for statistic in STATISTICS if score["bands"] else ("mean",):
            name = f"{score['name']}_{statistic}"
            found[name] = columns.decimals(_numbers(pairs[name]))
    return found


def _score_columns(rows: DataFrame, table: str) -> dict[str, PackedColumn]:
    scores = [score["name"] for score in describe_scores(table)]
    return {name: columns.decimals(_numbers(rows[name])) for name in scores}


def _numbers(values: Any) -> np.ndarray:
    return pd.to_numeric(values).to_numpy(float, na_value=np.nan)


def _texts(values: Any) -> list[str]:
    return values.astype(object).where(values.notna(), "").tolist()
