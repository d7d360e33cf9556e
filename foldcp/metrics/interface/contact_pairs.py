"""Pairs of tokens in contact, as lists in host memory, and sums over them by chain."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from foldcp.distributed.context_parallel import ContextParallel
from foldcp.distributed.pipelining import split_range
from foldcp.geometry import distances
from foldcp.metrics.chains import CHUNK_PAIRS, ChainRows
from foldcp.metrics.contacts import CONTACT_CUTOFF


@dataclass(frozen=True)
class ContactPairs:
    """The n pairs of some of this rank's rows with tokens of other chains in contact."""

    num_chains: int  # C
    row: Int[np.ndarray, " n"]  # among all rows of this rank
    row_chain: Int[np.ndarray, " n"]
    column_chain: Int[np.ndarray, " n"]
    pae: Float[np.ndarray, " n"]  # Å

    def sum(self, weights: Float[np.ndarray, " n"] | None = None) -> Float[np.ndarray, "C C"]:
        """[chain of the row, of the column]: sums over the pairs, in double precision; their number
        if there are no weights.
        """
        C = self.num_chains
        place = self.row_chain * C + self.column_chain
        return np.bincount(place, weights, C * C).astype(np.float64).reshape(C, C)


Terms = Callable[[ContactPairs], Sequence[Float[np.ndarray, "C C"]]]


def sum_over_contacts(
    points: Float[Tensor, "T 3"],
    pae: Float[Tensor, "R T"],
    rows: ChainRows,
    terms: Terms,
    cp: ContextParallel,
) -> Float[np.ndarray, "K C C"]:
    """The K sums over all pairs in contact, of which `terms` gives those of some pairs; equal on
    every rank. Collective.
    """
    own = np.sum([np.stack(terms(pairs)) for pairs in contact_pairs(points, pae, rows)], 0)
    by_rank = cp.all_gather(torch.from_numpy(own).to(pae.device)[None])
    return by_rank.sum(0).cpu().numpy()


def contact_pairs(
    points: Float[Tensor, "T 3"], pae: Float[Tensor, "R T"], rows: ChainRows
) -> Iterator[ContactPairs]:
    """The pairs whose points are nearer than 8 Å, a chunk of this rank's rows after the other, and
    at least one, which may be without rows. A token whose point is not finite is in contact with
    none.

    There are few of them in any structure without overlaps, and the chunk bounds their number in
    one with.
    """
    spans = rows.spans
    own = rows.own(points)
    chain = np.repeat(np.arange(spans.num_chains), spans.lengths)
    max_rows = max(1, CHUNK_PAIRS // spans.num_tokens)
    for chunk in split_range(rows.num_rows, max_rows) or [slice(0, 0)]:
        near = distances(own[chunk], points) < CONTACT_CUTOFF
        near &= rows.row_chain[chunk, None] != rows.column_chain
        place = near.nonzero()
        errors = pae[chunk][place[:, 0], place[:, 1]].double()
        in_chunk, column = place.cpu().numpy().T
        row = chunk.start + in_chunk
        yield ContactPairs(
            num_chains=spans.num_chains,
            row=row,
            row_chain=chain[rows.first + row],
            column_chain=chain[column],
            pae=errors.cpu().numpy(),
        )
