"""Thresholds of scores at chosen false-positive rates, from known positives and negatives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from foldcp.pipeline.evaluation.labels import Label, Labels, read_labels
from foldcp.pipeline.storage.columns.column import Column
from foldcp.pipeline.storage.schemas import ALL_TABLES, INTERFACE_SCORES
from foldcp.pipeline.storage.tables import read_fresh

DataFrame = Any  # of pandas, whose columns have no static types
NUM_BOOTSTRAPS = 1_000
SEED = 0  # of the resampling
INTERVAL = (2.5, 97.5)  # percentiles
STATISTICS = ("max", "mean")
LOWER_IS_BETTER = "lower is better"
Statistic = Callable[[np.ndarray, np.ndarray], float]  # of positives and negatives
COMPLEX_COLUMNS = ("confidence_score", "iptm", "ptm", "complex_plddt", "complex_iplddt")


@dataclass(frozen=True, slots=True)
class Calibration:
    """The thresholds of every score, as rows, and what the user must know of the labels."""

    rows: DataFrame
    warnings: tuple[str, ...]


def calibrate(
    out: Path, positives: Path, negatives: Path, rates: Sequence[float] = (0.01, 0.05, 0.1)
) -> Calibration:
    """Thresholds of every score of a run at false-positive rates.

    A pair of accessions has the scores of its row of `protein_pairs`; a complex has the best of its
    pairs of chains and its own. A result counts as positive when its score is better than the
    threshold, which is the best score such that no more than the given share of the negatives is
    better. A score that is null counts as the worst. Intervals are percentiles 2.5 and 97.5 of
    1,000 bootstrap samples of positives and of negatives.

    Raises ValueError for files that cannot be read, whose labels are in both or none of which is in
    the run, and for rates outside of 0 to 1.
    """
    for rate in rates:
        if not 0 < rate < 1:
            raise ValueError(f"false-positive rate {rate}: not between 0 and 1")
    labels = (read_labels(positives), read_labels(negatives))
    _check(*labels)
    table = _pair_table(out) if labels[0].are_pairs else _complex_table(out)
    found = [table[table["label"].isin(file.labels)] for file in labels]
    warnings = []
    for file, rows in zip(labels, found, strict=True):
        missing = len(file.labels) - len(rows)
        if rows.empty:
            raise ValueError(f"{file.path}: none of its {len(file.labels)} labels is in {out}")
        if missing:
            warnings.append(f"{file.path}: {missing} of {len(file.labels)} are not in {out}")
    num_negatives = len(found[1])
    for rate in rates:
        if rate * num_negatives < 1:
            warnings.append(
                f"false-positive rate {rate}: {num_negatives} negatives are too few, it takes "
                f"{int(np.ceil(1 / rate))}; the threshold is above all of them"
            )
    return Calibration(_rows(found[0], found[1], rates), tuple(warnings))


def _check(positives: Labels, negatives: Labels) -> None:
    if positives.are_pairs != negatives.are_pairs:
        raise ValueError(
            f"{positives.path} and {negatives.path}: one names complexes, the other pairs of "
            "accessions"
        )
    both = set(positives.labels) & set(negatives.labels)
    if both:
        first = " ".join(min(both))
        raise ValueError(f"{negatives.path}: {first!r} is in {positives.path}, too")


def _pair_table(out: Path) -> DataFrame:
    """The rows of `protein_pairs` with their labels."""
    rows = read_fresh(out, "protein_pairs").to_pandas()
    labels = list(zip(rows["accession_a"], rows["accession_b"], strict=True))
    return _labelled(rows, labels)


def _labelled(rows: DataFrame, labels: list[Label]) -> DataFrame:
    column = pd.Series(labels, index=rows.index, dtype=object, name="label")
    return pd.concat([rows, column], axis=1)


def _complex_table(out: Path) -> DataFrame:
    """A row of each complex: the best value of each score over its pairs of chains."""
    pairs = read_fresh(out, "pairs").to_pandas()
    columns = [column.name for column in _score_columns()]
    is_lower = {column.name: LOWER_IS_BETTER in column.unit for column in _score_columns()}
    choices = {name: "min" if is_lower[name] else "max" for name in columns}
    best = pairs.groupby("name")[columns].agg(choices)
    complexes = read_fresh(out, "complexes").to_pandas()
    complexes = complexes[complexes["rank"].eq(0)]
    table = complexes.groupby("name")[list(COMPLEX_COLUMNS)].max().join(best)
    labels = [(name,) for name in table.index]
    return _labelled(table, labels)


def _score_columns() -> list[Column]:
    """The columns of `protein_pairs` that are calibrated."""
    names = {f"{score.name}_{statistic}" for score in INTERFACE_SCORES for statistic in STATISTICS}
    return [column for column in ALL_TABLES["protein_pairs"].columns if column.name in names]


def _rows(positives: DataFrame, negatives: DataFrame, rates: Sequence[float]) -> DataFrame:
    """A row of each score and rate, the score with the largest area under the curve first."""
    is_lower = {column.name: LOWER_IS_BETTER in column.unit for column in _score_columns()}
    frames = (positives, negatives)
    rows = []
    for name in [*COMPLEX_COLUMNS, *is_lower]:
        if name not in positives or (positives[name].isna().all() and negatives[name].isna().all()):
            continue
        sign = -1.0 if is_lower.get(name, False) else 1.0
        better = [
            np.nan_to_num(sign * frame[name].to_numpy(dtype=float), nan=-np.inf) for frame in frames
        ]
        area = _with_interval("auroc", _auroc, better)
        for rate in rates:
            at_rate = _with_interval("threshold", partial(_threshold, rate=rate), better)
            recall = _with_interval("tpr", partial(_recall, rate=rate), better)
            thresholds = {key: sign * value for key, value in at_rate.items()}
            if sign < 0:
                low = thresholds["threshold_high"]
                thresholds["threshold_high"] = thresholds["threshold_low"]
                thresholds["threshold_low"] = low
            rows.append({"score": name, "fpr": rate, **thresholds, **recall, **area})
    frame = pd.DataFrame(rows)
    counts = {"num_positives": len(positives), "num_negatives": len(negatives)}
    order = ["auroc", "score", "fpr"]
    return frame.assign(**counts).sort_values(
        order, ascending=[False, True, True], ignore_index=True
    )


def _with_interval(
    name: str, statistic: Statistic, values: Sequence[Float[np.ndarray, " n"]]
) -> Mapping[str, float]:
    """A statistic of positives and negatives, and its bootstrap interval."""
    positives, negatives = values
    generator = np.random.default_rng(SEED)
    samples = []
    for _ in range(NUM_BOOTSTRAPS):
        drawn = [generator.choice(group, len(group)) for group in (positives, negatives)]
        samples.append(statistic(*drawn))
    low, high = np.percentile(samples, INTERVAL, method="nearest")
    return {
        name: statistic(positives, negatives),
        f"{name}_low": float(low),
        f"{name}_high": float(high),
    }


def _threshold(
    positives: Float[np.ndarray, " p"], negatives: Float[np.ndarray, " n"], rate: float
) -> float:
    """The score that no more than the share `rate` of the negatives exceeds."""
    allowed = int(np.floor(rate * len(negatives) + 1e-9))
    return float(np.sort(negatives)[::-1][allowed])


def _recall(
    positives: Float[np.ndarray, " p"], negatives: Float[np.ndarray, " n"], rate: float
) -> float:
    """The share of the positives above the threshold."""
    return float(np.mean(positives > _threshold(positives, negatives, rate)))


def _auroc(positives: Float[np.ndarray, " p"], negatives: Float[np.ndarray, " n"]) -> float:
    """The probability that a positive scores better than a negative; equal scores count half."""
    ordered = np.sort(negatives)
    below = np.searchsorted(ordered, positives, side="left")
    not_above = np.searchsorted(ordered, positives, side="right")
    return float((below + not_above).mean() / (2 * len(negatives)))
