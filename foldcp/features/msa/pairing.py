"""Pairing of MSA rows: which sequences of the chains' MSAs share a row. Without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from foldcp.features.msa.chain_msas import MsaSettings
from foldcp.features.msa.parse import UNPAIRED
from foldcp.features.tokens import concat_aranges


@dataclass(frozen=True, eq=False)
class PairedRows:
    """The rows of a complex's MSA: S rows over C chains, the first of which is the query."""

    sequence: Int[np.ndarray, "S C"]  # row of each chain's MSA; -1 is a gap
    by_key: Bool[np.ndarray, "S C"]  # whether the sequence came by its key


@dataclass(frozen=True, eq=False)
class KeyCounts:
    """What the number of a complex's rows depends on of one chain: its number of rows, the key of
    the first of them, and, of the K different keys, the number of rows and the first row of each.
    """

    num_rows: int
    query: int
    keys: Int[np.ndarray, " K"]  # sorted, without that of unpaired rows
    counts: Int[np.ndarray, " K"]
    first: Int[np.ndarray, " K"]


def count_keys(keys: Int[np.ndarray, " _"]) -> KeyCounts:
    """The counts of the keys of a chain's rows, which are at least one."""
    different, first, counts = np.unique(keys, return_index=True, return_counts=True)
    is_key = different != UNPAIRED
    return KeyCounts(
        num_rows=len(keys),
        query=int(keys[0]),
        keys=different[is_key],
        counts=counts[is_key].astype(np.int32),
        first=first[is_key].astype(np.int32),
    )


def without_keys(num_rows: int) -> KeyCounts:
    """The counts of a chain whose rows have no keys."""
    none = np.zeros(0, dtype=np.int64)
    return KeyCounts(num_rows, UNPAIRED, none, none, none)


def num_paired_rows(chains: Sequence[KeyCounts], settings: MsaSettings) -> int:
    """The number of rows that `pair_rows` makes, without making them."""
    keys, inverse = np.unique(np.concatenate([c.keys for c in chains]), return_inverse=True)
    ends = np.cumsum([len(c.keys) for c in chains])
    places = np.split(inverse, ends[:-1])  # of each chain's keys, each of which it has once
    total = np.zeros(len(keys), dtype=np.int64)
    height = np.zeros(len(keys), dtype=np.int64)
    for place, of_chain in zip(places, chains, strict=True):
        total[place] += of_chain.counts
        height[place] = np.maximum(height[place], of_chain.counts)
    is_pairing = total > 1
    height[~is_pairing] = 0
    num_keyed = 1 + int(height.sum())
    if num_keyed > settings.max_paired:
        height = _cut(height, places, chains, settings.max_paired)
        num_keyed = 1 + int(height.sum())
    num_unpaired = 0
    for place, of_chain in zip(places, chains, strict=True):
        left = of_chain.num_rows - 1
        if settings.keeps_keyed_rows:
            pairs = is_pairing[place]
            left -= int(of_chain.counts[pairs].sum())
            left += of_chain.query in of_chain.keys[pairs]  # the query is no row that is left over
        gaps = num_keyed - 1 - int(height[place].sum())
        num_unpaired = max(num_unpaired, left - gaps)
    return min(num_keyed + num_unpaired, settings.max_rows)


def _cut(
    height: Int[np.ndarray, " K"],
    places: Sequence[Int[np.ndarray, " _"]],
    chains: Sequence[KeyCounts],
    max_rows: int,
) -> Int[np.ndarray, " K"]:
    """The rows of each key, of which there may be `max_rows` with the query, in `pair_rows`'
    order.
    """
    num_chains = np.zeros(len(height), dtype=np.int64)
    first = np.full(len(height), sum(of_chain.num_rows for of_chain in chains))
    num_before = 0
    for place, of_chain in zip(places, chains, strict=True):
        num_chains[place] += 1
        first[place] = np.minimum(first[place], num_before + of_chain.first)
        num_before += of_chain.num_rows
    order = np.lexsort((first, -num_chains))
    top = 1 + np.cumsum(height[order]) - height[order]
    cut = np.zeros_like(height)
    cut[order] = np.clip(max_rows - top, 0, height[order])
    return cut


def pair_rows(keys: Sequence[Int[np.ndarray, " _"]], settings: MsaSettings) -> PairedRows:
    """Rows of the complex from the keys of its chains' rows.

    First the queries; then every key that occurs twice or more, those in more chains first, with as
    many rows as the chain that has it most often, the sequences of the others repeating; chains
    without the key show their next unpaired sequence. Then the unpaired sequences of all chains
    side by side.
    """
    chain = np.repeat(np.arange(len(keys)), [len(chain_keys) for chain_keys in keys])
    sequence = np.concatenate([np.arange(len(chain_keys)) for chain_keys in keys])
    rank = _key_ranks(np.concatenate(keys), chain)
    rows = _keyed_rows(chain, sequence, rank, len(keys), settings.max_paired)
    by_key = rows >= 0

    unpaired = (sequence > 0) & ((rank < 0) | (not settings.keeps_keyed_rows))
    left_over = []
    for c in range(len(keys)):
        of_chain = sequence[unpaired & (chain == c)]
        gaps = np.flatnonzero(rows[:, c] < 0)
        num_filled = min(len(of_chain), len(gaps))
        rows[gaps[:num_filled], c] = of_chain[:num_filled]
        left_over.append(of_chain[num_filled:])
    num_keyed = len(rows)
    num_unpaired = max(len(of_chain) for of_chain in left_over)
    rows = np.pad(rows, ((0, num_unpaired), (0, 0)), constant_values=-1)
    for c, of_chain in enumerate(left_over):
        rows[num_keyed : num_keyed + len(of_chain), c] = of_chain
    by_key = np.pad(by_key, ((0, num_unpaired), (0, 0)))
    return PairedRows(rows[: settings.max_rows], by_key[: settings.max_rows])


def _key_ranks(key: Int[np.ndarray, " n"], chain: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Place of each sequence's key in the order of pairing; -1 for a key that pairs nothing."""
    keys, first, inverse, counts = np.unique(
        key, return_index=True, return_inverse=True, return_counts=True
    )
    in_chains = np.unique(np.stack([inverse, chain]), axis=1)[0]
    num_chains = np.bincount(in_chains, minlength=len(keys))
    pairing = np.flatnonzero((counts > 1) & (keys != UNPAIRED))
    order = pairing[np.lexsort((first[pairing], -num_chains[pairing]))]
    rank = np.full(len(keys), -1)
    rank[order] = np.arange(len(order))
    return rank[inverse]


def _keyed_rows(
    chain: Int[np.ndarray, " n"],
    sequence: Int[np.ndarray, " n"],
    rank: Int[np.ndarray, " n"],
    num_chains: int,
    max_rows: int,
) -> Int[np.ndarray, "S C"]:
    """The query's row and the rows made by keys, at most `max_rows`; -1 where a chain has none."""
    entries = np.flatnonzero(rank >= 0)
    entries = entries[np.argsort(rank[entries], kind="stable")]  # by key, then chain, then sequence
    # A group is the sequences of one chain that have one key.
    _, start, size = np.unique(
        rank[entries] * num_chains + chain[entries],
        return_index=True,
        return_counts=True,
    )
    key_of_group = rank[entries[start]]
    height = np.zeros(int(rank.max()) + 1, dtype=np.int64)
    np.maximum.at(height, key_of_group, size)
    top = 1 + np.cumsum(height) - height
    height = np.clip(max_rows - top, 0, height)

    repeats = height[key_of_group]
    offset = concat_aranges(repeats)  # of a row among those of its key
    chosen = entries[np.repeat(start, repeats) + offset % np.repeat(size, repeats)]
    rows = np.full((1 + height.sum(), num_chains), -1)
    rows[0] = 0
    rows[np.repeat(top[key_of_group], repeats) + offset, chain[chosen]] = sequence[chosen]
    return rows
