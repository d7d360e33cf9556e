"""Score columns of `pairs` and `protein_pairs`: statistics of each score of `interfaces`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from foldcp.pipeline.storage.columns.column import Column

# Statistic, which the column's name ends in -> meaning.
PAIR_STATISTICS = {
    "min": "smallest of both directions and all samples",
    "max": "largest of both directions and all samples",
    "mean": "mean over both directions and all samples",
    "sd": "standard deviation over samples of the mean of both directions; null with one sample",
}
PROTEIN_PAIR_STATISTICS = {
    "min": "smallest of all pairs of chains",
    "max": "largest of all pairs of chains",
    "mean": "mean over pairs of chains of their means",
    "sd": "standard deviation over pairs of chains of their means; null with one pair",
}


def is_score(column: Column) -> bool:
    """Whether a column of `interfaces` is a number of which statistics are made."""
    return column.type == "float32" or column.unit == "count"


def statistics_columns(
    scores: Iterable[Column], statistics: Mapping[str, str]
) -> tuple[Column, ...]:
    """A column of each statistic of each score, null where no value is."""
    columns = []
    for score in scores:
        for name, text in statistics.items():
            # Neither a high nor a low deviation is better.
            unit = score.unit.partition(",")[0] if name == "sd" else score.unit
            column = Column(f"{score.name}_{name}", "float32", f"{score.name}, {text}", unit, True)
            columns.append(column)
    return tuple(columns)
