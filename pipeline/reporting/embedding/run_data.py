"""Everything that the page of a run has beside its text: packed tables and what describes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from foldcp.pipeline.reporting.bands import label_of
from foldcp.pipeline.reporting.embedding import columns
from foldcp.pipeline.reporting.embedding.columns import PackedColumn, pack
from foldcp.pipeline.reporting.embedding.cost import (
    attempt_columns,
    cost_summary,
    gpu_seconds_by_key,
)
from foldcp.pipeline.reporting.embedding.details import pack_details
from foldcp.pipeline.reporting.embedding.evaluation import correlations, evaluation_columns
from foldcp.pipeline.reporting.embedding.loading import (
    GATE,
    LoadedRun,
    number_array,
    text_list,
)
from foldcp.pipeline.reporting.run_tables import DataFrame
from foldcp.pipeline.storage.schemas import COMPLEXES

SOURCE = "source_"  # columns of what the database says of a complex begin so
MAX_SOURCE_TEXT = 600  # characters of one of them
COMPLEX_TEXTS = ("key", "name", "title", "organism", "outcome", "reason", "precision", "structure")
COMPLEX_COUNTS = ("num_chains", "num_residues", "num_tokens", "msa_depth", "group_size")
CHAIN_TEXTS = ("chain", "molecule_type", "accession", "residue_range", "gene", "protein_name")
CHAIN_COUNTS = ("num_residues", "num_tokens", "msa_depth")
CLASHES = "num_clashes"
CHAIN_MEASURES = ("msa_neff", "msa_coverage")


@dataclass(frozen=True, eq=False)
class RunData:
    """`facts` are JSON, `blocks` the packed tables and details of complexes by name."""

    facts: dict[str, Any]
    blocks: dict[str, str]


def pack_run(loaded: LoadedRun, evaluation: DataFrame | None, max_bytes: int) -> RunData:
    """The data of a run's page, with as many details of complexes as fit in so many bytes.

    `evaluation` are the interfaces that were compared with experiment.
    """
    best = _best_scores(loaded)
    pairs, scores = _pack_pairs(loaded, max_bytes // 2)
    blocks = {
        "complexes": pack(_complex_columns(loaded, best)),
        "samples": pack(_sample_columns(loaded)),
        "chains": pack(_chain_columns(loaded)),
        "pairs": pairs,
        "attempts": pack(attempt_columns(loaded)),
    }
    if evaluation is not None and len(evaluation):
        blocks["evaluation"] = pack(evaluation_columns(evaluation, scores))
    left = max_bytes - sum(map(len, blocks.values()))
    ranked = best.sort_values(ascending=False, na_position="last", kind="stable").index.tolist()
    details = pack_details(loaded, ranked, max(0, left))
    blocks |= {f"samples-{number}": block for number, block in details.samples.items()}
    blocks |= {f"experiment-{number}": block for number, block in details.experiments.items()}
    blocks |= {f"structure-{n}-{s}": block for (n, s), block in details.structures.items()}
    facts = {
        "scores": {**loaded.scores, "interfaces": scores},
        "cost": cost_summary(loaded),
        "unreadable": details.unreadable,
        "evaluation": _evaluation_facts(evaluation, scores),
        "num_pairs": len(loaded.pairs),
        "sample_pair_score": _sample_pair_score(loaded)["name"] if len(loaded.pairs) else "",
    }
    return RunData(facts, blocks)


def _evaluation_facts(
    evaluation: DataFrame | None, scores: list[dict[str, Any]]
) -> dict[str, Any] | None:
    """None without any interface that was compared."""
    if evaluation is None or not len(evaluation):
        return None
    return {
        "num_pairs": len(evaluation),
        "num_complexes": int(evaluation["complex"].nunique()),
        "correlations": correlations(evaluation, scores),
    }


def _best_scores(loaded: LoadedRun) -> pd.Series:
    """The best pair's score of every complex, by which it is ranked; NaN without pairs."""
    numbers = range(len(loaded.complexes))
    scores = loaded.scores["interfaces"]
    if not scores:
        return pd.Series(np.nan, numbers)
    groups = loaded.pairs.groupby("complex")[f"{scores[0]['name']}_mean"]
    best = groups.min() if scores[0]["isLowerBetter"] else groups.max()
    return best.reindex(numbers)


def _complex_columns(loaded: LoadedRun, best: pd.Series) -> dict[str, PackedColumn]:
    rows = loaded.complexes
    spent = rows["key"].map(gpu_seconds_by_key(loaded.attempts))
    attempts = rows["key"].map(loaded.attempts["key"].value_counts())
    return {
        **{name: columns.texts(text_list(rows[name])) for name in COMPLEX_TEXTS},
        "notes": columns.texts(["\n".join(notes) for notes in rows["notes"]]),
        "source": columns.texts(_source_lines(rows)),
        **{name: columns.integers(number_array(rows[name])) for name in COMPLEX_COUNTS},
        "gpu_seconds": columns.floats(number_array(spent), "<f4"),
        "num_attempts": columns.integers(number_array(attempts)),
        "best_pair": columns.decimals(number_array(best)),
        **_score_columns(rows, loaded.scores["complexes"]),
    }


def _sample_columns(loaded: LoadedRun) -> dict[str, PackedColumn]:
    rows = loaded.samples
    return {
        "complex": columns.differences(number_array(rows["complex"]), 1),
        "sample": columns.integers(number_array(rows["sample"])),
        "rank": columns.integers(number_array(rows["rank"])),
        "structure": columns.texts(text_list(rows["structure"])),
        **_pair_columns_of_samples(loaded),
        **_score_columns(rows, loaded.scores["complexes"]),
    }


def _pair_columns_of_samples(loaded: LoadedRun) -> dict[str, PackedColumn]:
    """The best pair's score of every sample, by which complexes are ranked, and its clashes."""
    rows = loaded.samples[["complex", "sample"]]
    interfaces = loaded.interfaces
    groups = interfaces.groupby(["complex", "sample"])
    packed = {}
    if len(interfaces):
        score = _sample_pair_score(loaded)
        of_pairs = groups[score["name"]]
        best = of_pairs.min() if score["isLowerBetter"] else of_pairs.max()
        found = rows.merge(best.rename("best"), on=["complex", "sample"], how="left")
        packed["best_pair"] = columns.decimals(number_array(found["best"]))
    if CLASHES in interfaces:
        # Both directions have the same number; a sum of nothing but nulls is null.
        sums = groups[CLASHES].sum(min_count=1) / 2
        found = rows.merge(sums, on=["complex", "sample"], how="left")
        packed[CLASHES] = columns.integers(number_array(found[CLASHES]))
    return packed


def _sample_pair_score(loaded: LoadedRun) -> dict[str, Any]:
    """The first score that pairs have in each sample."""
    return next(s for s in loaded.scores["interfaces"] if s["name"] in loaded.interfaces)


def _chain_columns(loaded: LoadedRun) -> dict[str, PackedColumn]:
    rows = loaded.chains
    entities = pd.factorize(rows["sequence_sha256"])[0] if len(rows) else np.zeros(0)
    return {
        "complex": columns.differences(number_array(rows["complex"]), 1),
        **{name: columns.texts(text_list(rows[name])) for name in CHAIN_TEXTS},
        "entity": columns.integers(np.asarray(entities, float)),
        **{name: columns.integers(number_array(rows[name])) for name in CHAIN_COUNTS},
        **{name: columns.decimals(number_array(rows[name])) for name in CHAIN_MEASURES},
        **_score_columns(rows, loaded.scores["chains"]),
    }


def _pack_pairs(loaded: LoadedRun, max_bytes: int) -> tuple[str, list[dict[str, Any]]]:
    """The pairs and their scores: all, or if these are too many bytes, fewer of them."""
    scores = loaded.scores["interfaces"]
    places = ["complex", "row_a", "row_b", GATE]
    means = [f"{score['name']}_mean" for score in scores]
    banded = [score for score in scores if score["bands"]]
    banded_means = [f"{score['name']}_mean" for score in banded]
    rows = loaded.pairs
    choices = ((rows, scores), (rows[places + means], scores))
    for frame, kept in choices:
        block = pack(_pair_columns(frame))
        if len(block) <= max_bytes:
            return block, kept
    return pack(_pair_columns(rows[places + banded_means])), banded


def _pair_columns(pairs: DataFrame) -> dict[str, PackedColumn]:
    places = ("complex", "row_a", "row_b")
    scores = [name for name in pairs.columns if name not in (*places, GATE)]
    return {
        **{name: columns.differences(number_array(pairs[name]), 1) for name in places},
        GATE: columns.small_numbers(number_array(pairs[GATE]), 1),
        **{name: columns.decimals(number_array(pairs[name])) for name in scores},
    }


def _source_lines(complexes: DataFrame) -> list[str]:
    """What the database says of each complex: lines of a label, a tab and a text."""
    names = [column.name for column in COMPLEXES.columns if column.name.startswith(SOURCE)]
    lines: list[list[str]] = [[] for _ in range(len(complexes))]
    for name in names:
        label = label_of(name.removeprefix(SOURCE))
        for place, value in enumerate(complexes[name]):
            text = value if isinstance(value, str) else ", ".join(value)
            if text:
                lines[place].append(f"{label}\t{' '.join(text.split())[:MAX_SOURCE_TEXT]}")
    return ["\n".join(texts) for texts in lines]


def _score_columns(rows: DataFrame, scores: list[dict[str, Any]]) -> dict[str, PackedColumn]:
    names = [score["name"] for score in scores]
    return {name: columns.decimals(number_array(rows[name])) for name in names}
