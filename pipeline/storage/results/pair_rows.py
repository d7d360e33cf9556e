"""Rows of `pairs`: the rows of `interfaces` of one complex, over samples and directions."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from foldcp.pipeline.storage.columns.chain_columns import CHAIN_COLUMNS
from foldcp.pipeline.storage.schemas import INTERFACE_SCORES, Row

_CHAINS = [f"{name}_{end}" for end in "ab" for name in ("chain", *CHAIN_COLUMNS)]
_SHARED = ["key", "name", *_CHAINS, "checkpoint", "untrained"]


def pair_rows(interfaces: Sequence[Row]) -> list[dict[str, Any]]:
    """A row for each pair of chains of a complex, from all of its rows of `interfaces`."""
    if not interfaces:
        return []
    forward = [row for row in interfaces if row["chain_index_a"] < row["chain_index_b"]]
    first = {(row["chain_index_a"], row["chain_index_b"]): row for row in reversed(forward)}
    pairs = sorted(first)
    samples = sorted({row["sample"] for row in forward})
    values = _values(interfaces, pairs, samples)
    columns = {
        f"{name}_{statistic}": column
        for name, array in values.items()
        for statistic, column in _statistics(array).items()
    }
    best = _best_samples(values)
    strict = _strict(values["ipsae_d0res"])
    return [
        {
            **{name: first[pair][name] for name in _SHARED},
            "num_samples": len(samples),
            "best_sample": samples[best[number]],
            "ipsae_strict": strict[number],
            **{name: column[number] for name, column in columns.items()},
        }
        for number, pair in enumerate(pairs)
    ]


def _values(
    interfaces: Sequence[Row], pairs: list[tuple[int, int]], samples: list[int]
) -> dict[str, Float[np.ndarray, "n S 2"]]:
    """Each score by pair, sample and direction; NaN where it is null."""
    numbers = {pair: number for number, pair in enumerate(pairs)}
    pair = []
    sample = []
    direction = []
    for row in interfaces:
        ends = (row["chain_index_a"], row["chain_index_b"])
        pair.append(numbers[min(ends), max(ends)])
        sample.append(samples.index(row["sample"]))
        direction.append(int(ends[0] > ends[1]))
    values = {}
    for column in INTERFACE_SCORES:
        array = np.full((len(pairs), len(samples), 2), np.nan)
        array[pair, sample, direction] = np.array(
            [row[column.name] for row in interfaces], dtype=float
        )
        values[column.name] = array
    return values


def _statistics(values: Float[np.ndarray, "n S 2"]) -> dict[str, list[float]]:
    """Statistic -> its value of each pair; NaN where there is no value."""
    with warnings.catch_warnings():  # of pairs without a value, and of one sample
        warnings.simplefilter("ignore", RuntimeWarning)
        arrays = {
            "min": np.nanmin(values, axis=(1, 2)),
            "max": np.nanmax(values, axis=(1, 2)),
            "mean": np.nanmean(values, axis=(1, 2)),
            "sd": np.nanstd(np.nanmean(values, axis=2), axis=1, ddof=1),
        }
    return {name: array.tolist() for name, array in arrays.items()}


def _strict(values: Float[np.ndarray, "n S 2"]) -> list[float]:
    """The smaller of both directions, averaged over samples; NaN where there is no value."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmean(np.nanmin(values, axis=2), axis=1).tolist()


def _best_samples(values: dict[str, Float[np.ndarray, "n S 2"]]) -> list[int]:
    """The number of the best sample of each pair."""
    ipsae = np.nan_to_num(values["ipsae_d0res"], nan=-1.0).max(axis=2)
    iptm = np.nan_to_num(values["iptm"], nan=-1.0).max(axis=2)
    return np.lexsort((-iptm, -ipsae))[:, 0].tolist()
