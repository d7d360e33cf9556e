"""Which sequences of the chains' alignments stand in one row. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from foldcp.features.msa.alignment import UNPAIRED
from foldcp.features.msa.chain_alignments import AlignmentSettings
from foldcp.features.tokens import ranges


@dataclass(frozen=True, eq=False)
class Pairing:
    """Which sequence of each chain a row shows; -1 is a gap. Row 0 is the query."""

    row: Int[np.ndarray, "S C"]
    by_key: Bool[np.ndarray, "S C"]


def pair(keys: Sequence[Int[np.ndarray, " _"]], settings: AlignmentSettings) -> Pairing:
    """Rows of the complex from the keys of its chains' rows.

    First the queries; then every key that occurs twice or more, those in more chains first, with as
    many rows as the chain that has it most often, the sequences of the others repeating; chains
    without the key show their next unpaired sequence. Then the unpaired sequences of all chains
    side by side.
    """
    chain = np.repeat(np.arange(len(keys)), [len(k) for k in keys])
    sequence = np.concatenate([np.arange(len(k)) for k in keys])
    rank = _key_ranks(np.concatenate(keys), chain)
    row = _paired_rows(chain, sequence, rank, len(keys), settings.max_paired)
    by_key = row >= 0

    free = (sequence > 0) & ((rank < 0) | (not settings.corrected))
    rest = []
    for c in range(len(keys)):
        unpaired = sequence[free & (chain == c)]
        holes = np.flatnonzero(row[:, c] < 0)
        num_filled = min(len(unpaired), len(holes))
        row[holes[:num_filled], c] = unpaired[:num_filled]
        rest.append(unpaired[num_filled:])
    row = np.pad(row, ((0, max(map(len, rest))), (0, 0)), constant_values=-1)
    for c, unpaired in enumerate(rest):
        row[len(by_key) : len(by_key) + len(unpaired), c] = unpaired
    by_key = np.pad(by_key, ((0, len(row) - len(by_key)), (0, 0)))
    return Pairing(row[: settings.max_rows], by_key[: settings.max_rows])


def _key_ranks(key: Int[np.ndarray, " n"], chain: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Place of each sequence's key in the order of pairing; -1 for a key that pairs nothing."""
    keys, first, inverse, counts = np.unique(
        key, return_index=True, return_inverse=True, return_counts=True
    )
    in_chains = np.unique(np.stack([inverse, chain]), axis=1)[0]
    num_chains = np.bincount(in_chains, minlength=len(keys))
    pairs = np.flatnonzero((counts > 1) & (keys != UNPAIRED))
    order = pairs[np.lexsort((first[pairs], -num_chains[pairs]))]
    rank = np.full(len(keys), -1)
    rank[order] = np.arange(len(order))
    return rank[inverse]


def _paired_rows(
    chain: Int[np.ndarray, " n"],
    sequence: Int[np.ndarray, " n"],
    rank: Int[np.ndarray, " n"],
    num_chains: int,
    limit: int,
) -> Int[np.ndarray, "S C"]:
    """The query's row and the rows made by keys, at most `limit` together; -1 where a chain
    lacks the key.
    """
    entries = np.flatnonzero(rank >= 0)
    entries = entries[np.argsort(rank[entries], kind="stable")]  # by key, then chain, then sequence
    # A group is what one chain has of one key.
    _, start, size = np.unique(
        rank[entries] * num_chains + chain[entries],
        return_index=True,
        return_counts=True,
    )
    key_of_group = rank[entries[start]]
    height = np.zeros(int(rank.max()) + 1, dtype=np.int64)
    np.maximum.at(height, key_of_group, size)
    top = 1 + np.cumsum(height) - height
    height = np.clip(limit - top, 0, height)

    repeats = height[key_of_group]
    place = ranges(repeats)
    chosen = entries[np.repeat(start, repeats) + place % np.repeat(size, repeats)]
    row = np.full((1 + height.sum(), num_chains), -1)
    row[0] = 0
    row[np.repeat(top[key_of_group], repeats) + place, chain[chosen]] = sequence[chosen]
    return row
