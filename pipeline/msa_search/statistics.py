"""Depth, coverage and effective number of sequences of an alignment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt64

from foldcp.complex import MsaStatistics

IDENTITY = 0.8
MAX_SAMPLE = 2_000
_BLOCK_WORDS = 1 << 21  # of 64 columns that are compared at once
_LOWER = bytes(range(ord("a"), ord("z") + 1))
_PLANES = 5  # bits that tell 26 letters apart


def msa_statistics(rows: Sequence[str], max_sample: int = MAX_SAMPLE) -> MsaStatistics:
    """The statistics of a3m rows, the query first; insertions do not count.

    Two sequences are as identical as the share of equal letters among the columns where both have
    a residue (0 where there is no such column); the effective number of sequences is the sum over
    all of 1 / (sequences, itself among them, that are at least 80% identical). Of more than
    `max_sample` rows it is estimated: so many rows at equal distances are compared to all, and the
    mean of their terms stands for the mean of all. Coverage is 0 where the query is alone.
    """
    codes = _codes(rows)
    is_residue = codes > 0
    coverage = float(is_residue[1:].mean()) if len(rows) > 1 else 0.0
    planes = np.stack([_pack((codes >> bit & 1).astype(bool)) for bit in range(_PLANES)])
    occupied = _pack(is_residue)
    sample = np.linspace(0, len(rows) - 1, min(len(rows), max_sample)).round().astype(np.int64)
    weights = 1 / _num_similar(planes, occupied, sample)
    neff = float(weights.mean() * len(rows))
    return MsaStatistics(len(rows), round(neff, 4), round(coverage, 6))


def _codes(rows: Sequence[str]) -> np.ndarray:
    """(rows, columns): 1 to 26 for letters, 0 for gaps."""
    text = "".join(rows).encode().translate(None, _LOWER)
    letters = np.frombuffer(text, dtype=np.uint8).reshape(len(rows), -1)
    return np.where(letters == ord("-"), 0, letters - (ord("A") - 1)).astype(np.uint8)


def _pack(bits: np.ndarray) -> UInt64[np.ndarray, "rows words"]:
    """Bits of each row in words of 64."""
    padded = np.pad(bits, ((0, 0), (0, -bits.shape[1] % 64)))
    return np.packbits(padded, axis=1).view(np.uint64)


def _num_similar(
    planes: UInt64[np.ndarray, "planes rows words"],
    occupied: UInt64[np.ndarray, "rows words"],
    sample: np.ndarray,
) -> np.ndarray:
    """For each sampled row, the number of rows that are similar to it, itself among them."""
    counts = np.empty(len(sample), dtype=np.int64)
    rows_per_block = max(1, _BLOCK_WORDS // occupied.size)
    for start in range(0, len(sample), rows_per_block):
        block = sample[start : start + rows_per_block]
        both = occupied[block, None] & occupied[None]
        differs = np.zeros_like(both)
        for plane in planes:
            differs |= plane[block, None] ^ plane[None]
        num_shared = np.bitwise_count(both).sum(axis=2, dtype=np.int64)
        num_equal = num_shared - np.bitwise_count(differs & both).sum(axis=2, dtype=np.int64)
        # in integers, so that exactly 80% counts
        similar = (num_shared > 0) & (100 * num_equal >= round(100 * IDENTITY) * num_shared)
        similar[np.arange(len(block)), block] = True  # a row of gaps alone, too
        counts[start : start + len(block)] = similar.sum(axis=1)
    return counts
