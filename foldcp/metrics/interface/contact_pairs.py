"""Pairs of tokens in contact, as lists in host memory, and sums over them by row and chain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from foldcp.distributed.pipelining import split_range
from foldcp.geometry import distances
from foldcp.metrics.chains import CHUNK_PAIRS, ChainRows
from foldcp.metrics.contacts import CONTACT_CUTOFF


@dataclass(frozen=True)
class ContactPairs:
    """The n pairs of a chunk of this rank's rows with tokens of other chains in contact.

    There are few of them in any structure without overlaps, and a chunk of rows bounds their number
    in one with.
    """

    rows: slice  # the chunk
    num_chains: int  # C
    row: Int[np.ndarray, " n"]  # from 0 in the chunk
    chain: Int[np.ndarray, " n"]  # of the column
    pae: Float[np.ndarray, " n"]  # Å

    def sum(self, weights: Float[np.ndarray, " n"] | None = None) -> Float[Tensor, "r C"]:
        """Sums over the pairs of each row with each chain, in double precision; their number if
        there are no weights.
        """
        num_rows = self.rows.stop - self.rows.start
        place = self.row * self.num_chains + self.chain
        sums = np.bincount(place, weights, num_rows * self.num_chains)
        return torch.from_numpy(sums.reshape(num_rows, self.num_chains).astype(np.float64))


def contact_pairs(
    points: Float[Tensor, "T 3"], pae: Float[Tensor, "R T"], rows: ChainRows
) -> Iterator[ContactPairs]:
    """The pairs whose points are nearer than 8 Å, a chunk of this rank's rows after the other. A
    token whose point is not finite is in contact with none.
    """
    spans = rows.spans
    own = rows.own(points)
    max_rows = max(1, CHUNK_PAIRS // spans.num_tokens)
    for chunk in split_range(rows.num_rows, max_rows):
        near = distances(own[chunk], points) < CONTACT_CUTOFF
        near &= rows.row_chain[chunk, None] != rows.column_chain
        row, column = near.nonzero(as_tuple=True)
        yield ContactPairs(
            rows=chunk,
            num_chains=spans.num_chains,
            row=row.cpu().numpy(),
            chain=rows.column_chain[column].cpu().numpy(),
            pae=pae[chunk][row, column].double().cpu().numpy(),
        )
