"""Predicted aligned errors of a sample, where the run has kept them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from jaxtyping import Float

from foldcp.files import reading

MAX_BINS = 160  # of each side of the matrix in the page
MAX_FILE_BYTES = 400_000_000  # of a file that is read for the page


def read_pae(out: Path, structure: str) -> Float[np.ndarray, "n n"] | None:
    """The PAE of a sample in Å, averaged over squares of tokens to at most 160 bins a side.

    `structure` is the path of the sample's structure; None where no matrix lies beside it.

    Raises ValueError when the file is damaged.
    """
    path = (out / structure).with_name(f"{Path(structure).name.split('.')[0]}_pae.npz")
    if not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
        return None
    with reading(str(path)):
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                matrix = arrays["pae"]
        except (zipfile.BadZipFile, KeyError, EOFError) as error:
            raise ValueError(f"{path}: damaged: {error}") from error
    return _shrink(matrix)


def bin_edges(num_tokens: int) -> np.ndarray:
    """The first token of each bin, and the number of tokens."""
    num_bins = min(num_tokens, MAX_BINS)
    return np.linspace(0, num_tokens, num_bins + 1).astype(int)


def _shrink(matrix: Float[np.ndarray, "N N"]) -> Float[np.ndarray, "n n"]:
    """Means over squares of the matrix."""
    edges = bin_edges(len(matrix))
    widths = np.diff(edges)
    sums = np.add.reduceat(np.add.reduceat(matrix, edges[:-1], axis=0), edges[:-1], axis=1)
    return sums / (widths[:, None] * widths[None, :])
