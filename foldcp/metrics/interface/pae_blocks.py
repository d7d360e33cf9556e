"""Blocks of a sample's PAE that are kept: whole, or of the best pairs of chains.

A value is a whole number of steps of 0.25 Å, the expected PAE to the nearest step: at most 0.125 Å
off. Expected PAE lies between the centers of the first and the last bin, so 1 to 127 steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float, Int8
from torch import Tensor

from foldcp.metrics.chains import ChainSpans
from foldcp.metrics.scores import Scores

PAE_STEP = 0.25  # Å
BLOCK_ROWS = 256  # at most; blocks begin at multiples of it, but where a rank or a chain begins


@dataclass(frozen=True, eq=False)
class PaeBlock:
    """PAE of the frames of tokens first_row .. first_row + R - 1 and the scored tokens
    first_column .. first_column + L - 1 of one sample, in steps of 0.25 Å.
    """

    sample: int
    first_row: int
    first_column: int
    steps: Int8[np.ndarray, "R L"]


def kept_chain_pairs(num_best: float, scores: Scores) -> Bool[np.ndarray, "C C"]:
    """Which pairs of chains [frames, scored tokens] have their PAE kept.

    `num_best` is the number of best pairs, 0 for none and infinity for all. Of each pair both
    directions and the PAE within either chain are kept. Pairs are ordered by the larger ipSAE of
    both directions, then by the larger ipTM. A single chain is kept whole.
    """
    num_chains = len(scores.chain_ptm)
    if math.isinf(num_best) or (num_best and num_chains == 1):
        return np.ones((num_chains, num_chains), bool)
    kept = np.zeros((num_chains, num_chains), bool)
    first, second = np.triu_indices(num_chains, 1)
    ipsae = _larger(scores.ipsae_d0res)[first, second]
    iptm = _larger(scores.pair_iptm)[first, second]
    for pair in np.lexsort((-iptm, -ipsae))[: int(num_best)]:
        chains = [first[pair], second[pair]]
        kept[np.ix_(chains, chains)] = True
    return kept


def _larger(x: Float[np.ndarray, "C C"]) -> Float[np.ndarray, "C C"]:
    """The larger value of both directions; -1 where neither is defined."""
    return np.nan_to_num(np.fmax(x, x.T), nan=-1.0)


def pae_blocks(
    pae: Float[Tensor, "R T"],
    first: int,
    spans: ChainSpans,
    kept: Bool[np.ndarray, "C C"],
    sample: int,
) -> list[PaeBlock]:
    """The blocks of this rank's rows first .. first + R - 1, in host memory."""
    blocks = []
    for chain, rows in _row_ranges(first, pae.shape[0], spans, kept):
        for columns in _column_ranges(spans, kept[chain]):
            values = pae[rows.start - first : rows.stop - first, columns]
            steps = torch.round(values / PAE_STEP).to(torch.int8).cpu().numpy()
            blocks.append(PaeBlock(sample, rows.start, columns.start, steps))
    return blocks


def _row_ranges(
    first: int, num_rows: int, spans: ChainSpans, kept: Bool[np.ndarray, "C C"]
) -> Iterator[tuple[int, slice]]:
    """(chain, tokens) of ranges of at most `BLOCK_ROWS` tokens whose chains keep the same pairs."""
    stop = first + num_rows
    borders = {first, stop, *range(first - first % BLOCK_ROWS, stop, BLOCK_ROWS)}
    differs = (kept[1:] != kept[:-1]).any(1)
    borders |= {spans.starts[chain + 1] for chain in np.flatnonzero(differs)}
    inside = sorted(token for token in borders if first <= token <= stop)
    for start, end in pairwise(inside):
        yield int(np.searchsorted(spans.starts, start, side="right")) - 1, slice(start, end)


def _column_ranges(spans: ChainSpans, kept: Bool[np.ndarray, " C"]) -> list[slice]:
    """Tokens of runs of neighbouring chains that are kept."""
    padded = np.concatenate([[False], kept, [False]])
    begins, ends = np.flatnonzero(padded[1:] != padded[:-1]).reshape(-1, 2).T
    return [
        slice(spans.starts[begin], spans.starts[end])
        for begin, end in zip(begins, ends, strict=True)
    ]
