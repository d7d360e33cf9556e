"""LIS, the local interaction score: how far PAE lies below a cutoff, over the pairs where it does
(flyark/AFM-LIS, lis_analysis_colabfold.py; Kim 2024).
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from foldcp.distributed.pipelining import split_range
from foldcp.metrics.chains import CHUNK_PAIRS, ChainRows
from foldcp.metrics.reductions import RowValues


@dataclass(frozen=True)
class LocalInteraction(RowValues):
    """Sums over the tokens of each chain whose PAE, seen from the row, lies below the cutoff c."""

    lis: Float[Tensor, "R C"]  # (c - PAE) / c
    lia: Float[Tensor, "R C"]  # number


def local_interaction(pae: Float[Tensor, "R T"], rows: ChainRows, cutoff: int) -> LocalInteraction:
    """The terms of lis and lia of this rank's rows, from the expected PAE in Å."""
    spans = rows.spans
    R, T = pae.shape
    sums = LocalInteraction(*pae.new_zeros((2, R, spans.num_chains)))
    max_rows = max(1, CHUNK_PAIRS // T)
    for chunk in split_range(R, max_rows):
        below = cutoff - pae[chunk]
        sums.lia[chunk] = spans.sum_columns((below > 0).float())
        sums.lis[chunk] = spans.sum_columns(below.clamp_(min=0)) / cutoff
    return sums
