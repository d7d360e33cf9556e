"""Rows of `pairs`: the rows of `interfaces` of one complex, over samples and directions."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import combinations
from statistics import fmean
from typing import Any

import numpy as np
from jaxtyping import Float

from foldcp.pipeline.storage.columns.band_columns import ipsae_band, passes_gate
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
    residues: dict[tuple[int, int], list[frozenset[str] | None]] = {}
    for row in forward:
        ends = (row["chain_index_a"], row["chain_index_b"])
        residues.setdefault(ends, []).append(_interface_residues(row))
    samples = sorted({row["sample"] for row in forward})
    values = _values(interfaces, pairs, samples)
    columns = {
        f"{name}_{statistic}": column
        for name, array in values.items()
        for statistic, column in _statistics(array).items()
    }
    best = _best_samples(values)
    strict = _strict(values["ipsae_d0res"])
    agreement = [_agreement(residues[pair]) for pair in pairs]
    return [
        {
            **{name: first[pair][name] for name in _SHARED},
            "num_samples": len(samples),
            "best_sample": samples[best[number]],
            "ipsae_strict": strict[number],
            "interface_agreement": agreement[number],
            "ipsae_band": ipsae_band(columns["ipsae_d0res_max"][number]),
            "afdb_gate": passes_gate(
                columns["ipsae_d0res_max"][number], columns["pdockq2_max"][number]
            ),
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


def _interface_residues(row: Row) -> frozenset[str] | None:
    """The residues of both chains that touch, such as a3 and b14, of `A:3-9,14` and `B:14`.

    None where they are not known, as in a heap of atoms.
    """
    found: set[str] = set()
    for end in "ab":
        residues = row[f"interface_residues_{end}"]
        if residues is None:
            return None
        for run in filter(None, residues.rpartition(":")[2].split(",")):
            first, _, last = run.partition("-")
            found.update(f"{end}{number}" for number in range(int(first), int(last or first) + 1))
    return frozenset(found)


def _agreement(samples: Sequence[frozenset[str] | None]) -> float | None:
    """The mean Jaccard index over pairs of samples, of those pairs in which any residue touches."""
    known = [sample for sample in samples if sample is not None]
    pairs = [(a, b) for a, b in combinations(known, 2) if a or b]
    if not pairs:
        return None
    return fmean(len(a & b) / len(a | b) for a, b in pairs)


def _best_samples(values: dict[str, Float[np.ndarray, "n S 2"]]) -> list[int]:
    """The number of the best sample of each pair."""
    ipsae = np.nan_to_num(values["ipsae_d0res"], nan=-1.0).max(axis=2)
    iptm = np.nan_to_num(values["iptm"], nan=-1.0).max(axis=2)
    return np.lexsort((-iptm, -ipsae))[:, 0].tolist()
