"""Predicted aligned errors of a sample, where the run has kept them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Float

MAX_BINS = 160  # of each side of the matrix in the page
MAX_TOKENS = 20_000  # of a complex whose PAE is read for the page


def read_pae(path: Path) -> Float[np.ndarray, "n n"] | None:
    """The PAE of a sample in Å, averaged over squares of tokens to at most 160 bins a side; NaN
    where none of a square was kept. None for a complex of more than 20,000 tokens.

    Raises ValueError when the file is damaged.
    """
    from foldcp.pipeline.storage.results.pae_file import PaeFile  # imports torch

    with PaeFile(path) as pae:
        if pae.num_tokens > MAX_TOKENS:
            return None
        edges = bin_edges(pae.num_tokens)
        means = [
            _column_means(pae.read(slice(start, stop), slice(None)), edges)
            for start, stop in pairwise(edges)
        ]
    return np.stack(means)


def bin_edges(num_tokens: int) -> np.ndarray:
    """The first token of each bin, and the number of tokens."""
    num_bins = min(num_tokens, MAX_BINS)
    return np.linspace(0, num_tokens, num_bins + 1).astype(int)


def _column_means(rows: Float[np.ndarray, "R T"], edges: np.ndarray) -> Float[np.ndarray, " n"]:
    """Means over the rows and the columns of each bin, of what was kept."""
    is_kept = np.isfinite(rows)
    sums = np.add.reduceat(np.where(is_kept, rows, 0).sum(0, dtype=np.float64), edges[:-1])
    counts = np.add.reduceat(is_kept.sum(0), edges[:-1])
    return np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0)
